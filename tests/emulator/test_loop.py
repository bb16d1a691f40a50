"""When the emulator's loop passes frames on; what becomes of them before is tested with their direction."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.device.virtio_header import encode
from testbed.emulator import loop
from testbed.emulator.direction import EARLY_US
from testbed.emulator.loop import Emulator

from .frames import SUPER_SEGMENT, Rig, frame_of, number_of, plain


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


def test_packets_of_a_super_segment_that_are_due_go_on_as_one(clock: Clock) -> None:
    emulator = Emulator()
    rig = Rig(LinkSettings(rate_bit_s=100_000_000), schedule=emulator.schedule)
    rig.direction.offer(memoryview(encode(SUPER_SEGMENT) + SUPER_SEGMENT.to_bytes()), clock.now_us)
    # Each packet takes about 116 us of the link, the last of them less.
    emulator.pass_on_what_is_due()
    assert rig.sent == []
    clock.now_us += 140
    emulator.pass_on_what_is_due()
    assert [len(frame_of(data)) for data in rig.sent] == [1454 + 1400]
    clock.now_us += 1000
    emulator.pass_on_what_is_due()
    assert [len(frame_of(data)) for data in rig.sent] == [1454 + 1400, 1454 + 800]
    assert rig.direction.counters.delivered == 4
    emulator.close()
