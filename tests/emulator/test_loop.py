"""When the emulator's loop passes frames on; what becomes of them before is tested with their direction."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mptcp_stack.device.link_model import LinkSettings
from testbed.emulator import loop
from testbed.emulator.direction import EARLY_US
from testbed.emulator.loop import Emulator

from .frames import Rig, number_of, plain


class Clock:
    """In the place of the module ``time``."""

    def __init__(self) -> None:
        self.now_us = 1000

    def monotonic_ns(self) -> int:
        return self.now_us * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic_ns=clock.monotonic_ns))
    return clock


def test_behind_a_rate_what_is_due_soon_goes_on_with_what_is_due(clock: Clock) -> None:
    rig, emulator = Rig(LinkSettings(rate_bit_s=10**9)), Emulator()
    for number, due_us in enumerate((900, 1000 + EARLY_US, 1001 + EARLY_US, 5000)):
        emulator.schedule(due_us, rig.direction, bytes(plain(number)))
    assert emulator.pass_on_what_is_due() == 1000
    assert [number_of(data) for data in rig.sent] == [0, 1]
    clock.now_us = 6000
    emulator.pass_on_what_is_due()
    assert [number_of(data) for data in rig.sent] == [0, 1, 2, 3]
    counters = rig.direction.counters
    # Who is early is not late: 100, 0, 4899 and 1000.
    assert (counters.timed, counters.late_us) == (4, 100 + 0 + (5000 - 1 - EARLY_US) + 1000)
    emulator.close()


def test_a_delay_is_never_shorter_than_asked(clock: Clock) -> None:
    rig, emulator = Rig(LinkSettings(delay_us=1000)), Emulator()
    for due_us in (1000, 1001):
        emulator.schedule(due_us, rig.direction, bytes(plain(due_us)))
    emulator.pass_on_what_is_due()
    assert [number_of(data) for data in rig.sent] == [1000]
    emulator.close()


def test_frames_of_one_time_keep_their_order(clock: Clock) -> None:
    rig, emulator = Rig(LinkSettings()), Emulator()
    for number in range(50):
        emulator.schedule(1000, rig.direction, bytes(plain(number)))
    emulator.pass_on_what_is_due()
    assert [number_of(data) for data in rig.sent] == list(range(50))
    emulator.close()
