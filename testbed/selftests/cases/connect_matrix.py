"""Every address from every side, one host, peeking, Fast Open, disconnecting, and other ways to move bytes.

After the kernel's mptcp_connect.sh, and its wrappers for checksums, mapped memory, sendfile and splice: what
these repeat is played once for each of their ways.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

from testbed.errors import CapabilityError
from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.selftests.case import SLOW, STACK_PAIRS, case
from testbed.selftests.crowd import judge_crowd_both_ways
from testbed.selftests.environment import kernel_fast_open_missing
from testbed.selftests.host_view import EVENT_LIMIT_S, CaseHost
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import PLAIN, CaseLab, kib

FAMILIES = ("4", "6")
WITH_A_KERNEL = tuple(pair for pair in STACK_PAIRS if "kernel" in pair)
INTERFACES = ("eth0", "eth1", "eth2", "eth3")
TCP = replace(PLAIN, protocol="tcp")
MIXTURES = ((PLAIN, PLAIN), (PLAIN, TCP), (TCP, PLAIN))
"""MPTCP on both ends, on the client's, on the server's."""
ROUNDS = 3
PROXY_PORT = 20000
ELSEWHERE = {4: "203.0.113.7", 6: "2001:db8::7"}
ROUTES_ELSEWHERE = '[{to: 203.0.113.0/24, via: 10.0.1.1}, {to: "2001:db8::/64", via: "fd00:0:0:1::1"}]'
"""By way of the server, who has no such address."""
CHECKSUMS = {"net.mptcp.checksum_enabled": 1}


def _sysctls(both: dict[str, int], *, client: int | None = None, server: int | None = None) -> dict[str, str]:
    """Variables of the topology: settings of both ends, and net.ipv4.tcp_fastopen of each."""

    def text(fast_open: int | None) -> str:
        settings = both | ({} if fast_open is None else {"net.ipv4.tcp_fastopen": fast_open})
        return "{" + ", ".join(f"{name}: {value}" for name, value in settings.items()) + "}"

    return {"client_sysctls": text(client), "server_sysctls": text(server)}


def _play(lab: CaseLab, how: Workload) -> None:
    """MPTCP on both ends, then on one only."""
    for client, server in MIXTURES:
        transfer = lab.exchange(
            lab.random.randint(kib(64), kib(512)),
            lab.random.randint(kib(64), kib(512)),
            client=replace(how, protocol=client.protocol),
            server=replace(how, protocol=server.protocol),
        )
        transfer.must_be_intact()
        if client.protocol == server.protocol == "mptcp":
            transfer.must_speak_mptcp()
        else:
            transfer.must_speak_plain_tcp()


def _every_address(lab: CaseLab, how: Workload) -> None:
    """Each end connects to each address of the other, of both families."""
    sides: tuple[tuple[CaseHost, CaseHost], ...] = ((lab.client, lab.server), (lab.server, lab.client))
    with lab.measure() as run:
        for connector, listener in sides:
            for interface in INTERFACES:
                for family in (4, 6):
                    transfer = lab.exchange(
                        lab.random.randint(kib(16), kib(128)),
                        lab.random.randint(kib(16), kib(128)),
                        client=how,
                        server=how,
                        connector=connector,
                        listener=listener,
                        address=listener.address(interface, family),
                    )
                    transfer.must_be_intact()
                    transfer.must_speak_mptcp()
    connections = 2 * len(INTERFACES)
    for measured in (run.client, run.server):
        measured.must_count(MPCapableSYNRX=at_least(connections), MPCapableACKRX=connections)
        measured.must_count(MPCapableFallbackACK=0, DataCsumErr=0)


def _peek(lab: CaseLab, how: Workload) -> None:
    """What is received is looked at before it is read."""
    _play(lab, replace(how, peek="with"))
    _play(lab, replace(how, peek="after"))


def _fast_open(lab: CaseLab, how: Workload) -> None:
    """The first connection gets a cookie, the second one's data goes with its SYN."""
    if "kernel" in (lab.client.stack, lab.server.stack) and (reason := kernel_fast_open_missing()):
        raise CapabilityError(reason)
    early = replace(how, fast_open=True)
    with lab.measure() as run:
        for _ in range(2):
            transfer = lab.exchange(kib(256), client=early, server=early)
            transfer.must_be_intact()
            transfer.must_speak_mptcp()
    run.server.must_count(TcpExtTCPFastOpenPassive=1, TcpExtTCPFastOpenCookieReqd=1, MPCapableSYNRX=2)
    run.client.must_count(TcpExtTCPFastOpenActive=1)
    run.must_not_fall_back()


def _full_disconnect(lab: CaseLab, how: Workload) -> None:
    """The client's socket connects three times: when all has gone, it is disconnected, and connects again."""
    for client, server in MIXTURES:
        speaks_mptcp = client.protocol == server.protocol == "mptcp"
        with lab.measure() as run:
            judge_crowd_both_ways(
                lab.verdict,
                ROUNDS,
                *_play_rounds(
                    lab, replace(how, protocol=client.protocol), replace(how, protocol=server.protocol)
                ),
                speaks_mptcp=speaks_mptcp,
            )
        expected = ROUNDS if speaks_mptcp else 0
        run.server.must_count(MPCapableACKRX=expected, MPCapableFallbackACK=0)
        for measured in (run.client, run.server):
            measured.must_count(MPFastcloseTx=0, MPRstTx=0, DataCsumErr=0)


def _transparent_proxy(lab: CaseLab, how: Workload) -> None:
    """The server takes, and answers, what the client sends to an address that is nobody's here."""
    lab.intercept("server", PROXY_PORT)
    address = ELSEWHERE[lab.family]
    with lab.measure() as run:
        transfer = lab.exchange(
            lab.random.randint(kib(64), kib(512)),
            lab.random.randint(kib(64), kib(512)),
            client=how,
            server=replace(how, port=PROXY_PORT, transparent=True),
            address=address,
        )
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    ends = {"client: remote": transfer.client.remote, "server: local": transfer.server.local}
    for name, end in ends.items():
        lab.verdict.must_be_equal(name, f"{address} {PROXY_PORT}", end)
    run.must_be_one_mptcp_connection()


def _play_rounds(
    lab: CaseLab, client: Workload, server: Workload
) -> tuple[list[ConnectionResult], list[ConnectionResult]]:
    """The results of both ends, one for each connection."""
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    listener = lab.server.agent.start(
        replace(
            server,
            address=anywhere,
            connections=ROUNDS,
            send_bytes=lab.random.randint(kib(64), kib(256)),
            send_seed=lab.random.getrandbits(32),
        )
    )
    listener.wait_for("listening", EVENT_LIMIT_S)
    lab.tell(f"the client connects {ROUNDS} times with one socket")
    connector = lab.client.agent.start(
        replace(
            client,
            role=Role.CONNECT,
            address=lab.server.address(),
            port=listener.port,
            rounds=ROUNDS,
            send_bytes=lab.random.randint(kib(64), kib(256)),
            send_seed=lab.random.getrandbits(32),
        )
    )
    return list(connector.result(EVENT_LIMIT_S)), list(listener.result(EVENT_LIMIT_S))


def _register(
    suffix: str, how: Workload, settings: dict[str, int], stacks: tuple[str, ...] = STACK_PAIRS
) -> None:
    """The cases that every way to move bytes has."""
    ways = how.way + (", with checksums" if settings else "")

    def define(
        name: str,
        body: Callable[[CaseLab, Workload], None],
        variables: dict[str, str],
        topology: str = "four-links",
    ) -> None:
        def play(lab: CaseLab) -> None:
            body(lab, how)

        play.__name__ = name + suffix
        play.__doc__ = f"{inspect.getdoc(body)} Bytes are moved by {ways}."
        families = ("4",) if body is _every_address else FAMILIES
        # What is the same whichever way bytes are moved is enough once where time is short.
        is_repetition = suffix and body in (_full_disconnect, _transparent_proxy)
        groups = ("connect", SLOW) if is_repetition else ("connect",)
        case(topology=topology, groups=groups, families=families, variables=variables, stacks=stacks)(play)

    define("every_address", _every_address, _sysctls(settings), "four-paths")
    define("both_protocols", _play, _sysctls(settings))
    define("peek", _peek, _sysctls(settings))
    define("fast_open", _fast_open, _sysctls(settings, client=1, server=2))
    define("full_disconnect", _full_disconnect, _sysctls(settings))
    define("transparent_proxy", _transparent_proxy, _sysctls(settings) | {"client_routes": ROUTES_ELSEWHERE})


@case(
    topology="four-links",
    groups=("connect",),
    families=("4",),
    variables=_sysctls({"net.ipv4.tcp_syncookies": 2}),
)
def every_address_with_syn_cookies(lab: CaseLab) -> None:
    """Each end connects to each address of the other, and each SYN is answered with a cookie."""
    _every_address(lab, PLAIN)


_register("", PLAIN, {})
_register("_with_checksums", PLAIN, CHECKSUMS)
for _way in ("mmap", "sendfile", "splice"):
    _register(f"_by_{_way}", replace(PLAIN, way=_way), {}, WITH_A_KERNEL)


@case(topology="four-paths", groups=("connect", "ping"), families=("4",))
def ping_tests(lab: CaseLab) -> None:
    """Each end is answered by every address of the others, routers included, of both families."""
    for host in (lab.client, lab.server):
        addresses = {
            str(address.ip): f"{node.name}:{interface.name}"
            for node in lab.topology.nodes
            if node.name != host.node.name
            for interface in node.interfaces
            for address in interface.addresses
            if not address.ip.is_link_local
        }
        silent = [
            f"{end} {address}" for address, end in addresses.items() if not host.is_answered_by(address)
        ]
        lab.verdict.must_be_equal(f"{host.name}: addresses that do not answer", [], silent)
        lab.verdict.must_be_within(f"{host.name}: addresses asked", at_least(1), len(addresses))


@case(topology="one-path", groups=("connect", "loopback"), families=FAMILIES)
def loopback(lab: CaseLab) -> None:
    """A host connects to itself: MPTCP on both ends, then on one only."""
    for host in (lab.client, lab.server):
        for client, server in MIXTURES:
            transfer = lab.exchange(kib(256), client=client, server=server, connector=host, listener=host)
            transfer.must_be_intact()
            if client.protocol == server.protocol:
                transfer.must_speak_mptcp()


@case(
    topology="four-links",
    groups=("connect", "sysctl"),
    families=FAMILIES,
    variables={"client_sysctls": "{net.mptcp.enabled: 0}"},
)
def disabled_by_sysctl(lab: CaseLab) -> None:
    """Without net.mptcp.enabled there are no MPTCP sockets, but those of TCP; the other end has both."""
    connecting = lab.client.agent.start(
        Workload(WorkloadKind.TRANSFER, Role.CONNECT, lab.server.address(), 9, send_bytes=1)
    )
    (result,) = connecting.result(EVENT_LIMIT_S)
    lab.verdict.must_be_equal("client: error", "ENOPROTOOPT", result.error)
    transfer = lab.exchange(kib(64), client=TCP)
    transfer.must_be_intact()
    transfer.must_speak_plain_tcp()
