"""A link is ready when the kernel has acted upon its carrier."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from testbed.backend import link_readiness
from testbed.backend.link_readiness import await_settled, link_state
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.netlink import NetlinkSocket, Request
from testbed.errors import LabError
from testbed.topology.model import LinkEnd

from .topologies import direct, two_switches

END = LinkEnd("a", "eth0")
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
DOWN, UP, UNKNOWN = 2, 6, 0


def answer(flags: int, operational_state: int, before: bytes = b"") -> bytes:
    """An ``ifinfomsg`` with IFLA_OPERSTATE behind other attributes."""
    state = struct.pack("=HHB3x", 5, 16, operational_state)
    return struct.pack("=BxHiII", 0, 1, 2, flags, 0) + before + state


class SlowKernel(NetlinkSocket):
    """A kernel that gives prepared answers, the last of them for ever."""

    def __init__(self, answers: Iterable[bytes]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def ask(self, request: Request) -> bytes:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


WORKING = answer(IFF_UP | IFF_RUNNING | IFF_LOWER_UP, UP)
CARRIER_ONLY = answer(IFF_UP | IFF_LOWER_UP, DOWN)
NO_CARRIER = answer(IFF_UP, DOWN)
NOT_STOPPED = answer(IFF_UP | IFF_RUNNING, UP)


@pytest.mark.parametrize("late", [CARRIER_ONLY, NOT_STOPPED], ids=["not begun", "not stopped"])
def test_what_the_kernel_has_not_acted_upon_yet_is_awaited(late: bytes) -> None:
    kernel = SlowKernel([late, late, WORKING])
    await_settled(kernel, END, 2)
    assert kernel.asked == 3


@pytest.mark.parametrize(
    "settled",
    [WORKING, NO_CARRIER, answer(0, DOWN), answer(IFF_UP | IFF_LOWER_UP, UNKNOWN)],
    ids=["works", "no carrier", "set down", "tells no state"],
)
def test_an_end_whose_partner_is_down_is_not_awaited(settled: bytes) -> None:
    kernel = SlowKernel([settled, CARRIER_ONLY])
    await_settled(kernel, END, 2)
    assert kernel.asked == 1


def test_attributes_of_odd_lengths_before_the_state_are_skipped() -> None:
    name = struct.pack("=HH", 4 + 6, 3) + b"eth00\0" + bytes(2)
    assert link_state(SlowKernel([answer(IFF_UP | IFF_LOWER_UP, UP, before=name)]), END, 2).operates


def test_a_kernel_that_never_acts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_readiness, "_LIMIT_S", 0.0)
    with pytest.raises(LabError, match="a:eth0 is not ready"):
        await_settled(SlowKernel([CARRIER_ONLY]), END, 2)


@pytest.mark.root
def test_both_ends_of_a_lab_work_when_it_is_up_and_follow_their_links(lab_name: str) -> None:
    # Not by netlink: the question would make the kernel act.
    command = ["unshare", "-m", "sh", "-c", "mount -t sysfs none /sys && cat /sys/class/net/eth0/operstate"]
    with NamespaceBackend(with_agents=False).up(direct(), lab_name) as lab:
        for is_up in (True, False, True):
            lab.set_link("a", "eth0", up=is_up)
            states = [lab.run_in(node, command).stdout.strip() == "up" for node in ("a", "b")]
            assert states == [is_up, is_up]


@pytest.mark.root
def test_ports_of_switches_forward_when_the_lab_is_up(lab_name: str) -> None:
    with NamespaceBackend(with_agents=False).up(two_switches(), lab_name) as lab:
        for switch in ("s1", "s2"):
            ports = lab.run_in(switch, ["bridge", "link", "show"]).stdout.splitlines()
            assert len(ports) == 2
            assert all("state forwarding" in port for port in ports), ports
