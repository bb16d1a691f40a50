"""Endpoints and limits as users set them, without any connection: the kernel's pm_netlink.sh.

Each case asks both hosts, so one pair of stacks shows all there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.errors import HostError
from testbed.selftests.case import case
from testbed.selftests.host_view import CaseHost
from testbed.selftests.lab_view import CaseLab

FAMILIES = ("4", "6")
BOTH_STACKS = ("userspace-kernel",)
KNOWN_LIMITS = (8, 64, 255)
"""Of Linux 6.18 and the bundled stack, and of Linux 7."""


def _address(lab: CaseLab, number: int) -> str:
    return f"10.0.1.{100 + number}" if lab.family == 4 else f"fd00:0:0:1::{100 + number:x}"


def _dump(host: CaseHost) -> list[tuple[int | None, str, str]]:
    """Id, address and flags of each endpoint."""
    return [
        (known.identifier, known.address, ",".join(sorted(known.flags))) for known in host.agent.endpoints()
    ]


def _refuses_endpoint(host: CaseHost, address: str) -> bool:
    try:
        host.endpoint_at(address)
    except HostError:
        return True
    return False


def _refuses_limits(host: CaseHost, subflows: int, add_addr_accepted: int) -> bool:
    try:
        host.limits(subflows=subflows, add_addr_accepted=add_addr_accepted)
    except HostError:
        return True
    return False


def _hosts(lab: CaseLab) -> tuple[CaseHost, CaseHost]:
    return lab.client, lab.server


@case(topology="four-links", groups=("pm-netlink",), families=FAMILIES, stacks=BOTH_STACKS)
def defaults(lab: CaseLab) -> None:
    """No endpoints, two further subflows, and no address of the peer is taken up."""
    for host in _hosts(lab):
        lab.verdict.must_be_equal(f"{host.name}: endpoints", [], _dump(host))
        lab.verdict.must_be_equal(f"{host.name}: limits", (2, 0), host.agent.limits())


@case(topology="four-links", groups=("pm-netlink",), families=FAMILIES, stacks=BOTH_STACKS)
def add_dump_delete(lab: CaseLab) -> None:
    """What is added is there with its id and flags, what is deleted is not, and nothing is there twice."""
    first, second, third = (_address(lab, number) for number in range(3))
    for host in _hosts(lab):
        interface = host.node.interfaces[0].name
        host.endpoint_at(first)
        lab.verdict.must_be_equal(f"{host.name}: added", [(1, first, "")], _dump(host))
        host.agent.add_endpoint(second, flags=("subflow",), interface=interface)
        host.endpoint_at(third, "signal", "backup")
        all_three = [(1, first, ""), (2, second, "subflow"), (3, third, "backup,signal")]
        lab.verdict.must_be_equal(f"{host.name}: dump", all_three, _dump(host))
        device = [known.interface for known in host.agent.endpoints() if known.identifier == 2]
        lab.verdict.must_be_equal(f"{host.name}: device", [interface], device)
        host.remove_endpoint_id(2)
        rest = [all_three[0], all_three[2]]
        lab.verdict.must_be_equal(f"{host.name}: dump after deletion", rest, _dump(host))
        refused = _refuses_endpoint(host, first)
        lab.verdict.must_be_equal(f"{host.name}: the same address is refused", True, refused)
        lab.verdict.must_be_equal(f"{host.name}: nothing has changed", rest, _dump(host))
        host.endpoint_at(_address(lab, 4), "signal", identifier=10)
        following = host.endpoint_at(_address(lab, 5), "signal")
        lab.verdict.must_be_equal(f"{host.name}: the id after 10", 11, following)


@case(topology="four-links", groups=("pm-netlink", "limits"), families=("4",), stacks=BOTH_STACKS)
def hard_limit_of_endpoints(lab: CaseLab) -> None:
    """There is room for so many endpoints, and no more; a flush makes room."""
    for host in _hosts(lab):
        count = 0
        while count < max(KNOWN_LIMITS) and not _refuses_endpoint(host, _address(lab, count)):
            count += 1
        known = count in KNOWN_LIMITS
        lab.verdict.record(
            f"{host.name}: endpoints", expected=f"one of {KNOWN_LIMITS}", observed=count, holds=known
        )
        lab.verdict.must_be_equal(f"{host.name}: listed", count, len(_dump(host)))
        host.flush_endpoints()
        lab.verdict.must_be_equal(f"{host.name}: after the flush", [], _dump(host))


@case(topology="four-links", groups=("pm-netlink", "limits"), families=("4",), stacks=BOTH_STACKS)
def limits(lab: CaseLab) -> None:
    """Limits stay when they are set too high, and when the endpoints are flushed."""
    for host in _hosts(lab):
        for subflows, addresses in ((65, 0), (0, 65)):
            refused = _refuses_limits(host, subflows, addresses)
            lab.verdict.must_be_equal(f"{host.name}: {subflows}, {addresses} are refused", True, refused)
            lab.verdict.must_be_equal(f"{host.name}: limits", (2, 0), host.agent.limits())
        host.limits(subflows=8, add_addr_accepted=8)
        host.flush_endpoints()
        lab.verdict.must_be_equal(f"{host.name}: limits after a flush", (8, 8), host.agent.limits())


def _must_number(lab: CaseLab, wanted: Sequence[int | None], expected: Sequence[int]) -> None:
    """Endpoints that ask for these ids, or for any, get those."""
    for host in _hosts(lab):
        given = [
            host.endpoint_at(_address(lab, number), identifier=identifier)
            for number, identifier in enumerate(wanted)
        ]
        lab.verdict.must_be_equal(f"{host.name}: ids", list(expected), given)


@case(topology="four-links", groups=("pm-netlink",), families=("4",), stacks=BOTH_STACKS)
def ids_follow_those_that_were_set(lab: CaseLab) -> None:
    """The next id is the one after the last, whether that was chosen or set."""
    _must_number(lab, (None, None, 100, None, 254, None, None, None), (1, 2, 100, 101, 254, 255, 3, 4))


@case(topology="four-links", groups=("pm-netlink",), families=("4",), stacks=BOTH_STACKS)
def ids_wrap_around(lab: CaseLab) -> None:
    """After 255 comes the first that is free."""
    _must_number(lab, (None, 254, None, None, 253, None, None, None), (1, 254, 255, 2, 253, 3, 4, 5))


@case(topology="four-links", groups=("pm-netlink",), families=("4",), stacks=BOTH_STACKS)
def flags_change(lab: CaseLab) -> None:
    """Backup and fullmesh of an endpoint are set and taken away, each by itself and both."""
    for host in _hosts(lab):
        identifier = host.endpoint_at(_address(lab, 1), "subflow")
        for flags in (("backup",), (), ("fullmesh",), (), ("backup", "fullmesh")):
            host.agent.set_endpoint_flags(flags, identifier=identifier)
            wanted = ",".join(sorted((*flags, "subflow")))
            shown = [flags for _, _, flags in _dump(host)]
            lab.verdict.must_be_equal(f"{host.name}: flags", [wanted], shown)
