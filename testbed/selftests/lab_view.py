"""What a case sees of its lab: a client, a server, transfers between them, and what the counters did.

The names here are the vocabulary of the cases; everything that a case does goes through the workload protocol
of the host agents, so it means the same on every kind of host.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from testbed.errors import TestbedError
from testbed.host.protocol import CloseKind, Role, Workload, WorkloadKind
from testbed.selftests.clock import Clock, RealClock
from testbed.selftests.host_view import (
    EVENT_LIMIT_S,
    POLL_INTERVAL_S,
    CaseAbortedError,
    CaseHost,
    HostAgent,
    NetworkControl,
    counted,
)
from testbed.selftests.judgement import Verdict, at_most
from testbed.selftests.measurement import HostMeasurement, Measurement
from testbed.selftests.network_view import CaseNetwork
from testbed.selftests.observations import TransferRecord
from testbed.selftests.results import HostRecord
from testbed.selftests.transfer import Transfer, TransferSizes
from testbed.topology.model import Topology

SETTLED_AFTER_S = 0.15
"""Nothing moved for this long: joins and announcements on an idle veth take a few milliseconds."""
SETTLE_LIMIT_S = 5.0
PLAIN = Workload(kind=WorkloadKind.TRANSFER, role=Role.LISTEN, address="", port=0)
"""As fast as it goes, with nothing special."""


class CaseLab(CaseNetwork):
    """A lab with one client and one server, for one run of a case."""

    def __init__(
        self,
        topology: Topology,
        agents: Mapping[str, HostAgent],
        network: NetworkControl,
        family: int,
        seed: int,
        *,
        addressing: str = "",
        clock: Clock | None = None,
        settled_after_s: float = SETTLED_AFTER_S,
    ) -> None:
        self.family = family
        self.agents = agents
        """Of all hosts, by name; client and server have more to offer."""
        self._is_mapped = addressing == "4-mapped"
        super().__init__(topology, network, clock or RealClock())
        self.client = CaseHost("client", topology.node("client"), agents["client"], family, self.tell)
        self.server = CaseHost("server", topology.node("server"), agents["server"], family, self.tell)
        self.random = random.Random(seed)
        self.verdict = Verdict()
        if addressing == "mixed":
            self.client.endpoint_family = self.server.endpoint_family = 4
        self._settled_after_s = settled_after_s
        self._measurements: list[Measurement] = []
        self._transfers: list[Transfer] = []

    def _changed(self) -> None:
        for host in (self.client, self.server):
            host.node = self.topology.node(host.node.name)

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Everything within is counted, on both sides. It ends when the counters have come to rest."""
        measurement = Measurement(self.verdict, self.client, self.server)
        measurement.start()
        self._measurements.append(measurement)
        try:
            yield measurement
        except BaseException:
            # what happened is worth more than a second error about a host that no longer answers
            with suppress(TestbedError, OSError):
                measurement.stop()
            raise
        self.settle()
        measurement.stop()

    def settle(self) -> None:
        """Until no MPTCP counter has moved for a while, or :data:`SETTLE_LIMIT_S` is over."""
        deadline = self.now() + SETTLE_LIMIT_S
        last, since = self._mptcp_counters(), self.now()
        while (now := self.now()) < deadline and now - since < self._settled_after_s:
            self._clock.sleep(POLL_INTERVAL_S)
            current = self._mptcp_counters()
            if current != last:
                last, since = current, self.now()

    def _mptcp_counters(self) -> list[dict[str, int]]:
        return [
            {name: value for name, value in host.agent.counters().items() if name.startswith("MPTcpExt")}
            for host in (self.client, self.server)
        ]

    def transfer(
        self,
        client_bytes: int,
        server_bytes: int | None = None,
        *,
        client_protocol: str = "mptcp",
        server_protocol: str = "mptcp",
    ) -> Transfer:
        """Send both ways at once as fast as possible, then close in order; ``None`` means as much back."""
        with self.start_transfer(
            client_bytes,
            server_bytes,
            client_protocol=client_protocol,
            server_protocol=server_protocol,
        ) as transfer:
            pass
        return transfer

    @contextmanager
    def start_transfer(
        self,
        client_bytes: int,
        server_bytes: int | None = None,
        *,
        client_protocol: str = "mptcp",
        server_protocol: str = "mptcp",
        chunk_bytes: int = 0,
        pause_us: int = 0,
        timeout_s: float = 30.0,
        listen_at: tuple[str, int] | None = None,
        connect_to: str | None = None,
        lifetime_s: float = 60.0,
    ) -> Iterator[Transfer]:
        """Data both ways at once while the body acts on the connection, which outlives the last byte.

        When the body is done, all data must arrive within ``timeout_s``; the counters come to rest; then both
        sides close. With ``chunk_bytes`` each side writes that much, then waits ``pause_us``. The server
        listens at all its addresses unless ``listen_at`` names one, and a port or 0; the client connects to
        its first one of the run's family, or to ``connect_to``. What takes longer than ``lifetime_s``
        altogether is ended by the hosts.
        """
        sizes = TransferSizes(client_bytes, client_bytes if server_bytes is None else server_bytes)
        where, port = listen_at or ("", 0)
        workload = Workload(
            kind=WorkloadKind.TRANSFER,
            role=Role.LISTEN,
            address="",
            port=0,
            chunk_bytes=chunk_bytes,
            pause_us=pause_us,
            hold_open_after=True,
            timeout_us=round(lifetime_s * 1_000_000),
        )
        transfer = self._open(
            replace(workload, protocol=client_protocol),
            replace(workload, protocol=server_protocol, address=where, port=port),
            sizes,
            address=connect_to,
        )
        yield transfer
        transfer.wait_until_all_arrived(timeout_s)
        self.tell("all data arrived")
        self.settle()
        transfer.finish(timeout_s)

    def exchange(
        self,
        client_bytes: int,
        server_bytes: int | None = None,
        *,
        client: Workload = PLAIN,
        server: Workload = PLAIN,
        connector: CaseHost | None = None,
        listener: CaseHost | None = None,
        address: str | None = None,
    ) -> Transfer:
        """Both ways at once, then close at once; the counters may not have come to rest then.

        The two workloads say how each side goes about it. The connection goes from ``connector`` to
        ``listener`` at an address of its own: by default from the client to the server.
        """
        sizes = TransferSizes(client_bytes, client_bytes if server_bytes is None else server_bytes)
        hosts = connector or self.client, listener or self.server
        transfer = self._open(client, server, sizes, hosts=hosts, address=address)
        transfer.wait_for_end(EVENT_LIMIT_S)
        return transfer

    def endless_transfer(self, protocol: str = "mptcp") -> Transfer:
        """The client sends until the case ends with :meth:`abandon_transfers`."""
        workload = Workload(
            WorkloadKind.TRANSFER, Role.LISTEN, "", 0, protocol=protocol, hold_open_after=True
        )
        return self._open(workload, workload, TransferSizes(1 << 40, 0))

    def paced_transfer(self) -> Transfer:
        """256 KiB both ways over about 160 ms, so that subflows are joined while data flows."""
        with self.start_transfer(kib(256), chunk_bytes=kib(16), pause_us=10_000) as transfer:
            pass
        return transfer

    @contextmanager
    def slow_transfer(self) -> Iterator[Transfer]:
        """256 KiB both ways over about 640 ms, during which the body acts on the connection."""
        with self.start_transfer(kib(256), chunk_bytes=kib(4), pause_us=10_000) as transfer:
            yield transfer

    def aborted_transfer(self, size: int, *, by: CaseHost) -> Transfer:
        """Both ways at once, and ``by`` aborts the connection in the middle."""
        patient = Workload(kind=WorkloadKind.TRANSFER, role=Role.LISTEN, address="", port=0)
        aborting = replace(patient, close=CloseKind.ABORT, abort_after_bytes=size // 2)
        workloads = (aborting, patient) if by is self.client else (patient, aborting)
        transfer = self._open(*workloads, TransferSizes(size, size))
        transfer.wait_for_end(EVENT_LIMIT_S)
        return transfer

    def _open(
        self,
        client: Workload,
        server: Workload,
        sizes: TransferSizes,
        *,
        hosts: tuple[CaseHost, CaseHost] | None = None,
        address: str | None = None,
    ) -> Transfer:
        """Start the server's listener, then the client's connection to its first address or ``address``."""
        connecting, listening = hosts or (self.client, self.server)
        anywhere = "0.0.0.0" if self.family == 4 and not self._is_mapped else "::"
        if address is not None and ":" in address:
            anywhere = "::"
        address = address or listening.address()
        if self._is_mapped:
            address = f"::ffff:{address}"
        listener = listening.agent.start(
            replace(
                server,
                role=Role.LISTEN,
                address=server.address or anywhere,
                send_bytes=sizes.server,
                send_seed=self.random.getrandbits(32),
            )
        )
        listener.wait_for("listening", EVENT_LIMIT_S)
        self.tell(
            f"{connecting.name} connects to {address} port {listener.port}:"
            f" {sizes.client} bytes out, {sizes.server} back"
        )
        connector = connecting.agent.start(
            replace(
                client,
                role=Role.CONNECT,
                address=address,
                port=listener.port,
                send_bytes=sizes.client,
                send_seed=self.random.getrandbits(32),
            )
        )
        transfer = Transfer(self.verdict, sizes, connector, listener, self._clock)
        self._transfers.append(transfer)
        return transfer

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float = EVENT_LIMIT_S) -> None:
        """Raises CaseAbortedError, naming ``what``, when the condition does not come true."""
        deadline = self.now() + timeout_s
        while not condition():
            self.raise_failed()
            if self.now() > deadline:
                raise CaseAbortedError(f"{what}: did not happen within {timeout_s:g} s")
            self._clock.sleep(POLL_INTERVAL_S)
        self.tell(what)

    def wait_until(self, seconds: float) -> None:
        """Until so many seconds after the case began; at once when they are over."""
        if (rest := seconds - self.now()) > 0:
            self._clock.sleep(rest)

    def wait_for_received(
        self, transfer: Transfer, host: CaseHost, size: int, timeout_s: float = EVENT_LIMIT_S
    ) -> None:
        """Until a host has received so many bytes of a transfer, as "after 2 MB". Raises HostError."""
        transfer.wait_until_received(host.name, size, timeout_s)
        self.raise_failed()
        self.tell(f"{host.name} has received {size} bytes")

    def wait_for_count(self, measured: HostMeasurement, name: str, value: int) -> None:
        """Until a counter has gained at least ``value`` since its measurement began."""
        self.wait_for(f"{measured.host.name} {name} reaching {value}", lambda: measured.grown(name) >= value)

    def wait_for_connections(self, host: CaseHost, count: int) -> None:
        """Until a host has exactly so many established MPTCP connections (the gauge MPCurrEstab)."""
        self.wait_for(
            f"{host.name}: {count} established",
            lambda: counted(host, "MPTcpExtMPCurrEstab") == count,
        )

    @contextmanager
    def count_bytes(self, host: CaseHost, *interfaces: str) -> Iterator[dict[str, int]]:
        """What the interfaces of a host carry meanwhile, both directions together, headers included.

        The mapping is filled in when the body is done: interface → bytes.
        """
        carried: dict[str, int] = {}
        before = {name: sum(self._network.interface_bytes(host.node.name, name)) for name in interfaces}
        yield carried
        for name in interfaces:
            carried[name] = sum(self._network.interface_bytes(host.node.name, name)) - before[name]

    def must_take_at_most_ms(self, limit_ms: int, elapsed_ms: int) -> None:
        """For cases that are timing-sensitive."""
        self.verdict.must_be_within("milliseconds", at_most(limit_ms), elapsed_ms)

    def note(self, text: str) -> None:
        """Keep a measurement in the reports."""
        self.notes.append(text)

    def abandon_transfers(self) -> None:
        """After a failure: end what still runs, so that what it has carried can be recorded."""
        for transfer in self._transfers:
            # who does not answer has nothing to tell
            with suppress(TestbedError, OSError):
                transfer.abandon()

    def transfer_records(self) -> tuple[TransferRecord, ...]:
        """Both ends of every transfer that has ended."""
        return tuple(record for transfer in self._transfers for record in transfer.records(self._began_us))

    def host_records(self) -> tuple[HostRecord, HostRecord]:
        """The counters of both ends, from the first measurement's start to the last one's end."""
        return self._record(self.client, "client"), self._record(self.server, "server")

    def _record(self, host: CaseHost, side: str) -> HostRecord:
        sides = [
            measurement.client if side == "client" else measurement.server
            for measurement in self._measurements
        ]
        if not sides:
            return HostRecord(host.name, host.stack)
        return HostRecord(host.name, host.stack, sides[0].before, sides[-1].after)


def kib(count: int) -> int:
    return count * 1024


def mib(count: int) -> int:
    return count * 1024 * 1024
