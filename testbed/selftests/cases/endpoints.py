"""Endpoints that are made by themselves, or deleted and added again: the kernel's endpoint tests."""

from __future__ import annotations

from testbed.errors import HostError
from testbed.host.protocol import EndpointRequest
from testbed.selftests.case import case
from testbed.selftests.cases.join_errors import REJECT_JOINS
from testbed.selftests.host_view import CaseHost
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.measurement import Measurement
from testbed.selftests.transfer import Transfer

FAMILIES = ("4", "6")


def _endpoint(host: CaseHost, address: str) -> EndpointRequest | None:
    return next((known for known in host.agent.endpoints() if known.address == address), None)


def _must_be(lab: CaseLab, host: CaseHost, address: str, *flags: str) -> int:
    """The endpoint at an address has exactly these flags; its id."""
    known = _endpoint(host, address)
    shown = None if known is None else sorted(known.flags)
    lab.verdict.must_be_equal(f"{host.name}: endpoint {address}", sorted(flags), shown)
    return 0 if known is None else known.identifier or 0


@case(topology="four-links", groups=("endpoints", "signal"), families=FAMILIES)
def implicit_endpoint(lab: CaseLab) -> None:
    """Joining an announced address makes an endpoint of the local one; its id stays, its flags may be set."""
    lab.server.limits(subflows=2, add_addr_accepted=2)
    lab.client.limits(subflows=2, add_addr_accepted=2)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        local = lab.client.address("eth1")
        identifier = _must_be(lab, lab.client, local, "implicit")
        transfer.must_use(1, announced=1, accepted=1)
        try:
            lab.client.endpoint_at(local, identifier=33)
            is_refused = False
        except HostError:
            is_refused = True
        lab.verdict.must_be_equal("another id is refused", True, is_refused)
        lab.verdict.must_be_equal("the id", identifier, _must_be(lab, lab.client, local, "implicit"))
        lab.client.endpoint_at(local, "signal")
        lab.verdict.must_be_equal("the id", identifier, _must_be(lab, lab.client, local, "signal"))
    transfer.must_be_intact()
    run.must_join(1)


class _Counted:
    """How many joins there were, and how many subflows there are now."""

    def __init__(self, lab: CaseLab, run: Measurement, transfer: Transfer) -> None:
        self._lab = lab
        self._run = run
        self._transfer = transfer

    def joined(self, joins: int, total: int, extra: int) -> None:
        """So many joins since the beginning, and so many subflows now, of which ``extra`` count as such."""
        self._lab.wait_for_count(self._run.server, "MPJoinAckRx", joins)
        self.remain(total, extra)

    def remain(self, total: int, extra: int) -> None:
        client, server = self._transfer.client_info, self._transfer.server_info
        self._lab.wait_for(
            f"{total} subflows at both ends, {extra} of them extra ones",
            lambda: all(
                (info().subflows_total, info().subflows) == (total, extra) for info in (client, server)
            ),
        )

    def addresses(self, announced: int, accepted: int) -> None:
        self._lab.wait_for(
            f"{announced} addresses announced, {accepted} accepted",
            lambda: (
                self._transfer.server_info().add_addr_signal == announced
                and self._transfer.client_info().add_addr_accepted == accepted
            ),
        )


@case(topology="four-paths", groups=("endpoints", "remove", "errors"), families=FAMILIES)
def delete_and_re_add(lab: CaseLab) -> None:
    """Endpoints of the client go and come back, the first subflow's among them, three times."""
    for host in (lab.server, lab.client):
        host.limits(subflows=3)
    lab.filter("r3", REJECT_JOINS)
    initial, second, third = (lab.client.address(f"eth{number}") for number in range(3))
    lab.client.endpoint_at(initial, "subflow", identifier=1)
    lab.client.endpoint_at(second, "subflow", identifier=2)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        counted = _Counted(lab, run, transfer)
        counted.joined(1, 2, 1)
        lab.client.remove_endpoint_id(2)
        counted.remain(1, 0)
        lab.client.endpoint_at(second, "subflow", identifier=2)
        counted.joined(2, 2, 1)
        lab.client.endpoint_at(third, "subflow", identifier=3)
        lab.wait_for_count(run.client, "TcpAttemptFails", 1)
        counted.remain(2, 1)
        lab.filter("r3")
        lab.client.remove_endpoint_id(3)
        lab.client.endpoint_at(third, "subflow", identifier=3)
        counted.joined(3, 3, 2)
        for time in range(1, 4):
            lab.client.remove_endpoint_id(1)
            counted.remain(2, 2)
            lab.client.endpoint_at(initial, "subflow", identifier=1)
            counted.joined(3 + time, 3, 3)
    transfer.must_be_intact()
    run.must_join(6, attempted=7)
    run.server.must_count(RmAddr=4)
    run.client.must_count(RmSubflow=4)


@case(
    topology="four-paths",
    groups=("endpoints", "remove", "signal"),
    families=FAMILIES,
    variables={"server_sysctls": "{net.mptcp.add_addr_timeout: 0}"},
)
def delete_re_add_signal(lab: CaseLab) -> None:
    """Announced addresses go and come back, the initial one among them, and one that nobody can join."""
    lab.server.limits(subflows=3)
    lab.client.limits(subflows=3, add_addr_accepted=3)
    initial, second, third = (lab.server.address(f"eth{number}") for number in range(3))
    multicast = "224.0.0.1" if lab.family == 4 else "ff02::1:2"
    lab.server.endpoint_at(second, "signal", identifier=1)
    lab.server.endpoint_at(multicast, "signal", identifier=2)
    lab.server.endpoint_at(initial, "signal", identifier=42)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        counted = _Counted(lab, run, transfer)
        counted.joined(1, 2, 1)
        counted.addresses(announced=2, accepted=1)
        # One after the other: Linux drops a REMOVE_ADDR that comes before it is done with the last one.
        for identifier in (1, 2):
            lab.server.remove_endpoint_id(identifier)
            lab.wait_for_count(run.client, "RmAddr", identifier)
        counted.remain(1, 0)
        counted.addresses(announced=0, accepted=0)
        lab.server.endpoint_at(second, "signal", identifier=1)
        # Nor does it look at an ADD_ADDR then, and here none is repeated.
        lab.wait_for_count(run.server, "EchoAdd", 3)
        lab.server.endpoint_at(third, "signal", identifier=2)
        counted.joined(3, 3, 2)
        counted.addresses(announced=2, accepted=2)
        for joins, identifier, next_identifier in ((4, 42, 42), (5, 42, 88)):
            lab.server.remove_endpoint_id(identifier)
            counted.remain(2, 2)
            counted.addresses(announced=2, accepted=2)
            lab.server.endpoint_at(initial, "signal", identifier=next_identifier)
            counted.joined(joins, 3, 3)
            counted.addresses(announced=3, accepted=2)
    transfer.must_be_intact()
    run.must_join(5, connect_errors=1)
    run.must_announce(6)
    run.client.must_count(RmAddr=4)
    run.server.must_count(RmSubflow=3)


@case(topology="four-paths", groups=("endpoints", "flush", "errors"), families=FAMILIES)
def flush_re_add(lab: CaseLab) -> None:
    """After a flush on both sides new endpoints are used, though they have the ids of those that failed."""
    multicast = "224.0.0.1" if lab.family == 4 else "ff02::1:2"
    lab.server.limits(subflows=2)
    lab.client.limits(subflows=2, add_addr_accepted=1)
    lab.filter("r3", REJECT_JOINS)
    lab.server.endpoint_at(multicast, "signal", identifier=2)
    third = lab.client.address("eth2")
    lab.client.endpoint_at(third, "subflow", identifier=3)
    with lab.measure() as run, lab.slow_transfer() as transfer:
        counted = _Counted(lab, run, transfer)
        lab.wait_for_count(run.client, "TcpAttemptFails", 1)
        lab.wait_for_count(run.server, "EchoAdd", 1)
        counted.remain(1, 0)
        lab.client.flush_endpoints()
        lab.server.flush_endpoints()
        lab.wait_for_count(run.client, "RmAddr", 1)
        lab.filter("r3")
        lab.client.endpoint_at(third, "subflow", identifier=3)
        counted.joined(1, 2, 1)
        lab.server.endpoint_at(lab.server.address("eth2"), "signal", identifier=2)
        counted.joined(2, 3, 2)
    transfer.must_be_intact()
    run.must_join(2, attempted=3, connect_errors=1)
    run.must_announce(2)
    run.client.must_count(RmAddr=1)
    run.server.must_count(RmSubflow=0)
