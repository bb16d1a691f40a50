"""A transfer between a case's client and server, and what a case demands of its data."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace

from mptcp_stack.sockets import structures
from mptcp_stack.sockets.mptcp_options import MPTCP_INFO, SOL_MPTCP
from mptcp_stack.sockets.structures import MptcpInfo
from testbed.host.protocol import ConnectionResult
from testbed.selftests.clock import Clock
from testbed.selftests.host_view import EVENT_LIMIT_S, CaseAbortedError, CaseHost, RunningWorkload
from testbed.selftests.judgement import Verdict
from testbed.selftests.observations import TransferRecord

_ABANDON_S = 5.0


@dataclass(frozen=True, slots=True)
class TransferSizes:
    """What each side sends, in bytes."""

    client: int
    server: int


class Transfer:
    """Data both ways between client and server, over one connection."""

    def __init__(
        self,
        verdict: Verdict,
        sizes: TransferSizes,
        client: RunningWorkload,
        server: RunningWorkload,
        clock: Clock,
    ) -> None:
        self.sizes = sizes
        self._verdict = verdict
        self._clock = clock
        self._client = client
        self._server = server
        self._client_result: ConnectionResult | None = None
        self._server_result: ConnectionResult | None = None

    def wait_until_all_arrived(self, timeout_s: float) -> None:
        """Until both sides have received all that the other sends; the connection stays open.

        Raises HostError when a side fails or does not get there in time.
        """
        self._wait_until_arrived(self.sizes, timeout_s)

    def wait_until_part_arrived(self, fraction: float, timeout_s: float = EVENT_LIMIT_S) -> None:
        """Until each side has received this part of its data, ``0 < fraction < 1``. Raises HostError."""
        part = TransferSizes(int(self.sizes.client * fraction), int(self.sizes.server * fraction))
        self._wait_until_arrived(part, timeout_s)

    def send_without_delay(self) -> None:
        """The client's data goes out as it is written (TCP_NODELAY). Raises HostError."""
        self._client.wait_for("connected", EVENT_LIMIT_S)
        self._client.set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("=i", 1))

    def wait_until_received(self, host: str, size: int, timeout_s: float = EVENT_LIMIT_S) -> None:
        """Until the client or the server has received so many bytes. Raises HostError."""
        receiver = self._client if host == "client" else self._server
        receiver.wait_for(f"received {size}", timeout_s)

    def received(self, host: str) -> int:
        """What the client or the server has received so far, in bytes. Raises HostError."""
        receiver = self._client if host == "client" else self._server
        return receiver.progress().bytes_received

    def _wait_until_arrived(self, sizes: TransferSizes, timeout_s: float) -> None:
        deadline_us = self._clock.now_us() + round(timeout_s * 1_000_000)
        self._server.wait_for(f"received {sizes.client}", timeout_s)
        rest_s = (deadline_us - self._clock.now_us()) / 1_000_000
        self._client.wait_for(f"received {sizes.server}", max(rest_s, 0.1))

    def finish(self, timeout_s: float) -> None:
        """Let both sides close, and take their results."""
        self._client.finish()
        self._server.finish()
        self._collect(timeout_s)

    def wait_for_end(self, timeout_s: float) -> None:
        """Take the results of workloads that end by themselves."""
        self._collect(timeout_s)

    def _collect(self, timeout_s: float) -> None:
        client, server = self._client.result(timeout_s), self._server.result(timeout_s)
        if len(client) != 1 or len(server) != 1:
            raise CaseAbortedError(
                f"{len(client)} connections at the client and {len(server)} at the server, not 1"
            )
        self._client_result, self._server_result = client[0], server[0]

    def abandon(self) -> None:
        """End what still runs, and take what there is of results. Raises HostError."""
        if self._client_result is not None:
            return
        for workload in (self._client, self._server):
            workload.stop()
        client, server = self._client.result(_ABANDON_S), self._server.result(_ABANDON_S)
        if client and server:
            self._client_result, self._server_result = client[0], server[0]

    def records(self, began_us: int) -> tuple[TransferRecord, ...]:
        """Both ends, client first, with times since ``began_us``; nothing before the transfer has ended."""
        ends = (("client", self._client_result), ("server", self._server_result))
        return tuple(_record(host, result, began_us) for host, result in ends if result is not None)

    def client_info(self) -> MptcpInfo:
        """MPTCP_INFO of the client's socket. Raises OSError after a fallback, and HostError."""
        return _info(self._client)

    def server_info(self) -> MptcpInfo:
        return _info(self._server)

    def client_option(self, level: int, option: int, length: int, *, request: bytes = b"") -> bytes:
        """``getsockopt`` of the client's socket. Raises OSError, and HostError."""
        return self._client.get_option(level, option, length, request=request)

    def server_option(self, level: int, option: int, length: int, *, request: bytes = b"") -> bytes:
        return self._server.get_option(level, option, length, request=request)

    def set_client_option(self, level: int, option: int, value: bytes) -> None:
        """``setsockopt`` of the client's socket. Raises OSError, and HostError."""
        self._client.set_option(level, option, value)

    def must_use(
        self,
        subflows: int,
        *,
        announced: int | None = None,
        accepted: int | None = None,
        with_initial: bool = True,
    ) -> None:
        """Both ends count so many extra subflows now, and the first one unless it is gone.

        The server has announced so many addresses, and the client taken up so many.
        """
        client, server = self.client_info(), self.server_info()
        total = subflows + 1 if with_initial else subflows
        for name, info in (("client", client), ("server", server)):
            self._verdict.must_be_equal(f"{name}: extra subflows", subflows, info.subflows)
            self._verdict.must_be_equal(f"{name}: subflows in all", total, info.subflows_total)
        if announced is not None:
            self._verdict.must_be_equal("server: addresses announced", announced, server.add_addr_signal)
        if accepted is not None:
            self._verdict.must_be_equal("client: addresses accepted", accepted, client.add_addr_accepted)

    @property
    def client(self) -> ConnectionResult:
        """Raises CaseAbortedError before the transfer has ended."""
        if self._client_result is None:
            raise CaseAbortedError("the transfer has not ended yet")
        return self._client_result

    @property
    def server(self) -> ConnectionResult:
        """Raises CaseAbortedError before the transfer has ended."""
        if self._server_result is None:
            raise CaseAbortedError("the transfer has not ended yet")
        return self._server_result

    def must_be_intact(self) -> None:
        """Neither side met an error, and each received exactly the bytes that the other sent."""
        self._verdict.must_be_equal("client: error", None, self.client.error)
        self._verdict.must_be_equal("server: error", None, self.server.error)
        self._must_match("client to server", self.sizes.client, self.client, self.server)
        self._must_match("server to client", self.sizes.server, self.server, self.client)

    def must_be_complete(self) -> None:
        """As many bytes as were sent, without an error, though something on the way has changed them."""
        for way, size, sender, receiver in (
            ("client to server", self.sizes.client, self.client, self.server),
            ("server to client", self.sizes.server, self.server, self.client),
        ):
            self._verdict.must_be_equal(f"{way}: error", None, sender.error)
            self._verdict.must_be_equal(f"{way}: bytes received", size, receiver.bytes_received)
        hashes = [self.client.sha256_sent, self.server.sha256_sent]
        received = [self.server.sha256_received, self.client.sha256_received]
        self._verdict.must_be_equal("the data arrives as it was sent", False, hashes == received)

    def _must_match(self, way: str, size: int, sender: ConnectionResult, receiver: ConnectionResult) -> None:
        self._verdict.must_be_equal(f"{way}: bytes sent", size, sender.bytes_sent)
        self._verdict.must_be_equal(f"{way}: bytes received", size, receiver.bytes_received)
        # an empty hash would compare equal to an empty hash
        expected = sender.sha256_sent or "a hash of what was sent"
        self._verdict.must_be_equal(f"{way}: SHA-256", expected, receiver.sha256_received)

    def must_speak_mptcp(self) -> None:
        """Both ends were still MPTCP when the transfer ended."""
        self._verdict.must_be_equal("client: is MPTCP", True, self.client.is_mptcp)
        self._verdict.must_be_equal("server: is MPTCP", True, self.server.is_mptcp)

    def must_speak_plain_tcp(self) -> None:
        """Both ends were plain TCP when the transfer ended."""
        self._verdict.must_be_equal("client: is MPTCP", False, self.client.is_mptcp)
        self._verdict.must_be_equal("server: is MPTCP", False, self.server.is_mptcp)

    def must_be_cut_off(self, *, by: CaseHost) -> None:
        """The peer of ``by`` was told of the abort by ECONNRESET, before all its data had gone through."""
        closer, peer = (self.client, self.server) if by.name == "client" else (self.server, self.client)
        self._verdict.must_be_equal(f"peer of the {by.name}: error", "ECONNRESET", peer.error)
        whole = self.sizes.client + self.sizes.server
        arrived = closer.bytes_received + peer.bytes_received
        self._verdict.record(
            "bytes received on both sides",
            expected=f"less than {whole}",
            observed=arrived,
            holds=arrived < whole,
        )


def _info(workload: RunningWorkload) -> MptcpInfo:
    workload.wait_for("connected", EVENT_LIMIT_S)
    return MptcpInfo.unpack(workload.get_option(SOL_MPTCP, MPTCP_INFO, structures.MPTCP_INFO.size))


def _record(host: str, result: ConnectionResult, began_us: int) -> TransferRecord:
    traffic = result.traffic
    if traffic is not None:
        traffic = replace(traffic, times_us=tuple(time_us - began_us for time_us in traffic.times_us))
    return TransferRecord(
        host=host,
        local=result.local,
        remote=result.remote,
        bytes_sent=result.bytes_sent,
        bytes_received=result.bytes_received,
        duration_us=result.duration_us,
        is_mptcp=result.is_mptcp,
        error=result.error or "",
        traffic=traffic,
    )
