"""Paths of both ends managed from outside, and the events that tell of them: the kernel's userspace_pm.sh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.host.path_control import Announce, Remove
from testbed.host.protocol import Role, Workload, WorkloadKind
from testbed.selftests.case import case
from testbed.selftests.host_view import EVENT_LIMIT_S, CaseHost
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.path_watch import Event, PathWatch
from testbed.selftests.transfer import Transfer

FAMILIES = ("4", "6")
MANAGED = "net.mptcp.path_manager: userspace, net.ipv4.tcp_timestamps: 0"
"""An IPv6 address with a port does not fit beside timestamps."""
VARIABLES = {
    "client_sysctls": f"{{{MANAGED}, net.mptcp.allow_join_initial_addr_port: 0}}",
    "server_sysctls": f"{{{MANAGED}}}",
}
NEW_PORT = 50003


@dataclass(slots=True)
class _Ends:
    """Both ends of a connection that is open, and what their hosts tell."""

    client: PathWatch
    server: PathWatch
    transfer: Transfer
    port: int

    def both_ways(self) -> tuple[tuple[PathWatch, PathWatch], tuple[PathWatch, PathWatch]]:
        return (self.client, self.server), (self.server, self.client)


@contextmanager
def _connection(lab: CaseLab) -> Iterator[_Ends]:
    client, server = PathWatch(lab, lab.client), PathWatch(lab, lab.server)
    with lab.slow_transfer() as transfer:
        port = int(client.wait_for("established")["dport"])
        server.wait_for("established")
        yield _Ends(client, server, transfer, port)
    transfer.must_be_intact()


def _must_have(lab: CaseLab, what: str, event: Event, **expected: object) -> None:
    shown = {name: event.get(name) for name in expected}
    lab.verdict.must_be_equal(what, expected, shown)


@case(topology="four-links", groups=("managed-paths",), families=FAMILIES, variables=VARIABLES)
def events_of_a_connection(lab: CaseLab) -> None:
    """Both ends tell of it; the server says that it is one, and that the peer denies its initial address."""
    with _connection(lab) as ends:
        family = "inet" if lab.family == 4 else "inet6"
        at_client, at_server = ends.client.of("established")[0], ends.server.of("established")[0]
        _must_have(lab, "client", at_client, server_side=False, deny_join_id0=False, family=family)
        _must_have(lab, "server", at_server, server_side=True, deny_join_id0=True, family=family)
        _must_have(lab, "ends", at_client, sport=at_server["dport"], saddr=at_server["daddr"])
        _must_have(lab, "listener", ends.server.wait_for("listener_created"), sport=ends.port)
    ends.client.wait_for("closed")
    _must_have(lab, "listener", ends.server.wait_for("listener_closed"), sport=ends.port)


def _second_address(host: CaseHost) -> str:
    return host.address("eth1")


@case(topology="four-links", groups=("managed-paths", "signal"), families=FAMILIES, variables=VARIABLES)
def announcements(lab: CaseLab) -> None:
    """From either end: with the connection's port, with one of its own, and not for an unknown token."""
    with _connection(lab) as ends:
        for sender, receiver in ends.both_ways():
            token = sender.token
            wrong = Announce(token ^ 1, 20, _second_address(sender.host))
            lab.verdict.must_be_equal("an unknown token is refused", True, sender.refuses(wrong))
            subflow_port = receiver.of("established")[0]["dport"]
            address = _second_address(sender.host)
            sender.announce(20, address)
            sender.announce(21, sender.host.address("eth2"), NEW_PORT)
            first = receiver.wait_for("announced")
            second = receiver.wait_for("announced", 2)
            _must_have(lab, "announced", first, token=receiver.token, daddr=address, rem_id=20)
            _must_have(lab, "its port", first, dport=subflow_port)
            _must_have(lab, "announced with a port", second, rem_id=21, dport=NEW_PORT)


@case(topology="four-links", groups=("managed-paths", "remove"), families=FAMILIES, variables=VARIABLES)
def withdrawals(lab: CaseLab) -> None:
    """From either end, of two addresses; not for an unknown token or id."""
    with _connection(lab) as ends:
        for sender, receiver in ends.both_ways():
            sender.announce(20, _second_address(sender.host))
            sender.announce(21, sender.host.address("eth2"))
            receiver.wait_for("announced", 2)
            for wrong in (Remove(sender.token ^ 1, 20), Remove(sender.token, 99)):
                lab.verdict.must_be_equal(f"{wrong} is refused", True, sender.refuses(wrong))
            for number, identifier in enumerate((20, 21), 1):
                sender.remove(identifier)
                removed = receiver.wait_for("removed", number)
                _must_have(lab, "removed", removed, token=receiver.token, rem_id=identifier)
            lab.verdict.must_be_equal("withdrawals in all", 2, len(receiver.of("removed")))


def _must_join(lab: CaseLab, watch: PathWatch, peer: PathWatch, remote: str, port: int, number: int) -> None:
    """``watch`` creates a subflow from its second address and destroys it; both ends tell of both."""
    local = watch.host.address("eth1", 4 if "." in remote else 6)
    watch.create_subflow(23, local, remote, port)
    joined, seen = watch.wait_for("sub_established", number), peer.wait_for("sub_established", number)
    _must_have(lab, "created", joined, saddr=local, daddr=remote, dport=port, loc_id=23)
    _must_have(lab, "seen by the peer", seen, daddr=local, saddr=remote, sport=port, rem_id=23)
    watch.destroy_subflow(joined)
    closed, gone = watch.wait_for("sub_closed", number), peer.wait_for("sub_closed", number)
    _must_have(lab, "destroyed", closed, token=watch.token, saddr=local, daddr=remote, dport=port)
    _must_have(lab, "gone for the peer", gone, token=peer.token, daddr=local, sport=port)


@case(topology="four-links", groups=("managed-paths", "subflow"), families=FAMILIES, variables=VARIABLES)
def subflows_from_the_client(lab: CaseLab) -> None:
    """To the connection's port, and to a listener at one of its own."""
    with _connection(lab) as ends:
        _must_join(lab, ends.client, ends.server, lab.server.address("eth1"), ends.port, 1)
        with _listener(lab, lab.server) as port:
            ends.server.announce(30, lab.server.address("eth2"), port)
            ends.client.wait_for("announced")
            _must_join(lab, ends.client, ends.server, lab.server.address("eth2"), port, 2)


@case(topology="four-links", groups=("managed-paths", "subflow"), families=FAMILIES, variables=VARIABLES)
def subflows_from_the_server(lab: CaseLab) -> None:
    """The client has a listener for joins, and the server makes use of it."""
    with _connection(lab) as ends, _listener(lab, lab.client) as port:
        ends.client.announce(30, lab.client.address("eth2"), port)
        ends.server.wait_for("announced")
        _must_join(lab, ends.server, ends.client, lab.client.address("eth2"), port, 1)
        _must_join(lab, ends.server, ends.client, lab.client.address("eth2"), port, 2)


@contextmanager
def _listener(lab: CaseLab, host: CaseHost) -> Iterator[int]:
    """At the host's third address and a port of its own."""
    workload = Workload(
        WorkloadKind.HOLD, Role.LISTEN, host.address("eth2"), 0, timeout_us=round(EVENT_LIMIT_S * 1e6)
    )
    listening = host.agent.start(workload)
    try:
        yield listening.port
    finally:
        listening.stop()


@case(topology="four-links", groups=("managed-paths", "mixed"), families=("6",), variables=VARIABLES)
def ipv4_on_an_ipv6_connection(lab: CaseLab) -> None:
    """An address of IPv4 is announced, and a subflow made to it."""
    with _connection(lab) as ends:
        address = lab.server.address("eth1", 4)
        ends.server.announce(23, address)
        announced = ends.client.wait_for("announced")
        _must_have(lab, "announced", announced, daddr=address, rem_id=23, family="inet")
        _must_join(lab, ends.client, ends.server, address, ends.port, 1)


@case(topology="four-links", groups=("managed-paths", "backup"), families=FAMILIES, variables=VARIABLES)
def priorities(lab: CaseLab) -> None:
    """A subflow becomes a backup: one MP_PRIO goes and is understood."""
    with lab.measure() as run, _connection(lab) as ends:
        ends.client.create_subflow(23, lab.client.address("eth1"), lab.server.address("eth1"), ends.port)
        joined = ends.client.wait_for("sub_established")
        ends.server.wait_for("sub_established")
        ends.client.set_backup(joined, backup=True)
        changed = ends.server.wait_for("sub_priority")
        _must_have(lab, "changed", changed, rem_id=23, backup=True)
    run.client.must_count(MPPrioTx=1, MPPrioRx=0)
    run.server.must_count(MPPrioTx=0, MPPrioRx=1)
