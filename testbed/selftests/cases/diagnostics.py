"""What a host tells of its connections: counts, states, sockets by token. The kernel's diag.sh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import ENOPROTOOPT, EOPNOTSUPP
from functools import partial

from mptcp_stack.sockets.mptcp_options import MPTCP_INFO, SOL_MPTCP
from mptcp_stack.sockets.structures import FLAG_FALLBACK, FLAG_REMOTE_KEY_RECEIVED, MptcpInfo
from mptcp_stack.sockets.structures import MPTCP_INFO as INFO_LAYOUT
from testbed.errors import CapabilityError, HostError
from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.selftests.case import case
from testbed.selftests.host_view import EVENT_LIMIT_S, CaseHost, RunningWorkload
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab

FAMILIES = ("4", "6")
MANY = 100
IDLE_S = 0.5
ADVANCED_MS = 250
"""By so much each of the times since something happened grows in the idle time."""
SO_SNDBUF = (1, 7)
HOLD = Workload(WorkloadKind.HOLD, Role.LISTEN, "", 0)


@dataclass(frozen=True, slots=True)
class _Held:
    client: RunningWorkload
    server: RunningWorkload


@contextmanager
def _held(
    lab: CaseLab, connections: int = 1, *, client_protocol: str = "mptcp", server_protocol: str = "mptcp"
) -> Iterator[_Held]:
    """Connections that are open and idle; they are closed when the body is done."""
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    server = lab.server.agent.start(
        replace(HOLD, address=anywhere, connections=connections, protocol=server_protocol)
    )
    client = lab.client.agent.start(
        replace(
            HOLD,
            role=Role.CONNECT,
            address=lab.server.address(),
            port=server.port,
            connections=connections,
            protocol=client_protocol,
        )
    )
    for end in (client, server):
        end.wait_for("holding", EVENT_LIMIT_S)
    yield _Held(client, server)
    for end in (client, server):
        end.finish()
    errors = [result.error for end in (client, server) for result in end.result(EVENT_LIMIT_S)]
    lab.verdict.must_be_equal("errors", [None] * 2 * connections, errors)


def _info(end: RunningWorkload) -> MptcpInfo:
    return MptcpInfo.unpack(end.get_option(SOL_MPTCP, MPTCP_INFO, INFO_LAYOUT.size))


def _established(lab: CaseLab, client: int, server: int) -> None:
    """Waits until both hosts count so many."""
    lab.wait_for_connections(lab.client, client)
    lab.wait_for_connections(lab.server, server)


def _in_use(lab: CaseLab, client: int, server: int) -> None:
    """Waits until both hosts have so many MPTCP sockets, listeners included."""
    for host, count in ((lab.client, client), (lab.server, server)):
        lab.wait_for(f"{host.name}: {count} in use", partial(_uses, host, count))


def _uses(host: CaseHost, count: int) -> bool:
    return host.agent.sockets_in_use() == count


def _ends(lab: CaseLab, held: _Held) -> tuple[tuple[CaseHost, RunningWorkload], ...]:
    return (lab.client, held.client), (lab.server, held.server)


@case(topology="one-path", groups=("diagnostics",), families=FAMILIES)
def one_connection(lab: CaseLab) -> None:
    """It is counted, has its keys, is found by its token, and is gone when it is closed."""
    _established(lab, 0, 0)
    _in_use(lab, 0, 0)
    with _held(lab) as held:
        _established(lab, 1, 1)
        _in_use(lab, 1, 2)
        for host, end in _ends(lab, held):
            info = _info(end)
            flags = info.flags & (FLAG_REMOTE_KEY_RECEIVED | FLAG_FALLBACK)
            lab.verdict.must_be_equal(f"{host.name}: flags", FLAG_REMOTE_KEY_RECEIVED, flags)
            lab.verdict.must_be_equal(f"{host.name}: subflows", (0, 1), (info.subflows, info.subflows_total))
            # Of the kernel's ss without leading zeros.
            token = f"{info.token:x}"
            found = [line for line in host.sockets() if token in line]
            lab.verdict.must_be_within(f"{host.name}: sockets with its token", at_least(1), len(found))
        sizes = [end.get_option(*SO_SNDBUF, 4) for _, end in _ends(lab, held)]
        if lab.client.stack == lab.server.stack:
            lab.verdict.must_be_equal("send buffers of both ends", sizes[0], sizes[1])
    _established(lab, 0, 0)
    _in_use(lab, 0, 0)


@case(topology="one-path", groups=("diagnostics",), families=FAMILIES, is_timing_sensitive=True)
def times_since_something_happened(lab: CaseLab) -> None:
    """While nothing happens they grow: since data was sent, since it came, since it was acknowledged."""
    with _held(lab) as held:
        before = [_info(end) for _, end in _ends(lab, held)]
        lab.wait_until(lab.now() + IDLE_S)
        for (host, end), then in zip(_ends(lab, held), before, strict=True):
            now = _info(end)
            for what, first, second in (
                ("data was sent", then.last_data_sent_ms, now.last_data_sent_ms),
                ("data came", then.last_data_recv_ms, now.last_data_recv_ms),
                ("an acknowledgement came", then.last_ack_recv_ms, now.last_ack_recv_ms),
            ):
                grown = second - first
                lab.verdict.must_be_within(f"{host.name}: ms since {what}", at_least(ADVANCED_MS), grown)


@case(topology="one-path", groups=("diagnostics", "fallback"), families=FAMILIES)
def a_connection_that_fell_back(lab: CaseLab) -> None:
    """It is counted at the end that asked for MPTCP, and has nothing to tell of MPTCP any more."""
    with _held(lab, server_protocol="tcp") as held:
        _established(lab, 1, 0)
        _in_use(lab, 1, 0)
        try:
            _info(held.client)
            refusal = 0
        except OSError as error:
            refusal = error.errno or 0
        # Linux lets TCP refuse it, in whose words IPv6 knows no such option.
        known = {EOPNOTSUPP, ENOPROTOOPT} if lab.family == 6 else {EOPNOTSUPP}
        lab.verdict.record("errno of MPTCP_INFO", expected=known, observed=refusal, holds=refusal in known)
    _established(lab, 0, 0)
    _in_use(lab, 0, 0)


@case(topology="one-path", groups=("diagnostics",), families=FAMILIES)
def many_connections(lab: CaseLab) -> None:
    """A hundred are counted, and none when they are closed."""
    with _held(lab, MANY):
        _established(lab, MANY, MANY)
        _in_use(lab, MANY, MANY + 1)
    _established(lab, 0, 0)
    _in_use(lab, 0, 0)


@case(topology="one-path", groups=("diagnostics",), families=FAMILIES)
def listeners_that_match(lab: CaseLab) -> None:
    """By their port, by their address and port, and all; by a peer's port none is found."""
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    for host in (lab.client, lab.server):
        at_any, at_one, of_tcp = (
            host.agent.start(replace(HOLD, address=address, protocol=protocol))
            for address, protocol in ((anywhere, "mptcp"), (host.address(), "mptcp"), (anywhere, "tcp"))
        )
        try:
            host.agent.listeners()
        except HostError as error:
            raise CapabilityError(f"listeners cannot be asked for: {error}") from None
        for what, expected, found in (
            ("a peer's port", 0, host.agent.listeners(remote_port=at_any.port)),
            ("a port", 1, host.agent.listeners(local_port=at_any.port)),
            ("any address and a port", 1, _listeners_at(host, anywhere, at_any.port)),
            ("an address and a port", 1, _listeners_at(host, host.address(), at_one.port)),
            ("another address and a port", 0, _listeners_at(host, host.address(), at_any.port)),
            ("a port of TCP", 0, host.agent.listeners(local_port=of_tcp.port)),
            ("nothing", 2, host.agent.listeners()),
        ):
            lab.verdict.must_be_equal(f"{host.name}: listeners that match {what}", expected, len(found))
        lab.verdict.must_be_equal(f"{host.name}: in use", 2, host.agent.sockets_in_use())
        for listener in (at_any, at_one, of_tcp):
            listener.stop()
        lab.verdict.must_be_equal(f"{host.name}: listeners afterwards", [], host.agent.listeners())


def _listeners_at(host: CaseHost, address: str, port: int) -> list[str]:
    return host.agent.listeners(local_address=address, local_port=port)


@case(topology="one-path", groups=("diagnostics",), families=FAMILIES)
def many_listeners(lab: CaseLab) -> None:
    """None are listed, then a hundred, each with its port."""
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    for host in (lab.client, lab.server):
        listed = [line for line in host.sockets() if "LISTEN" in line]
        lab.verdict.must_be_equal(f"{host.name}: listeners before", 0, len(listed))
        listeners = [host.agent.start(replace(HOLD, address=anywhere)) for _ in range(MANY)]
        lines = [line.split() for line in host.sockets() if "LISTEN" in line]
        ports = {word.rpartition(":")[2] for words in lines for word in words}
        missing = [listener.port for listener in listeners if str(listener.port) not in ports]
        lab.verdict.must_be_equal(f"{host.name}: ports that are not listed", [], missing)
        for listener in listeners:
            listener.stop()
