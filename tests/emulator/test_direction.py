"""One direction of an emulated link, in a time of the test's own: each decision, and that it is counted."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable

import pytest

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.device.segmentation import complete_checksum
from mptcp_stack.device.virtio_header import encode
from mptcp_stack.wire.frame import ChecksumState, Frame
from testbed.emulator import direction as direction_module
from testbed.emulator.link_box import LinkBox
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.segment import parse_segment
from tests.device.packets import ParsedTcp, tcp_frame

from .frames import Rig, frame_of, number_of, plain

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
SUPER_SEGMENT = tcp_frame("10.0.0.1", "10.0.0.2", bytes(range(250)) * 20, gso_size=1400, macs=MACS)


def offload(frame: Frame) -> memoryview:
    return memoryview(encode(frame) + frame.to_bytes())


def test_a_link_without_impairment_passes_frames_on_at_once() -> None:
    rig = Rig(LinkSettings())
    rig.direction.offer(plain(1), 1000)
    rig.direction.offer(offload(SUPER_SEGMENT), 1000)
    assert rig.sent == [bytes(plain(1)), bytes(offload(SUPER_SEGMENT))]
    assert not rig.scheduled
    assert (rig.direction.counters.offered, rig.direction.counters.delivered) == (2, 2)


def test_delay_alone_lets_super_segments_pass_whole() -> None:
    rig = Rig(LinkSettings(delay_us=500))
    rig.direction.offer(offload(SUPER_SEGMENT), 1000)
    assert rig.scheduled == [(1500, bytes(offload(SUPER_SEGMENT)))]
    assert not rig.sent


@pytest.mark.parametrize(
    "settings",
    [LinkSettings(loss=1e-12), LinkSettings(rate_bit_s=10**9), LinkSettings(delay_us=9, jitter_us=9)],
)
def test_where_packets_matter_super_segments_are_cut(settings: LinkSettings) -> None:
    rig = Rig(settings)
    rig.direction.offer(offload(SUPER_SEGMENT), 0)
    packets = [frame_of(data) for _at_us, data in rig.scheduled]
    assert [len(packet) for packet in packets] == [14 + 40 + 1400] * 3 + [14 + 40 + 800]
    assert all(packet.checksum is ChecksumState.PARTIAL for packet in packets)
    parsed = [ParsedTcp(complete_checksum(packet, 14), LinkLayer.ETHERNET) for packet in packets]
    assert all(packet.checksum_is_good for packet in parsed)
    assert b"".join(packet.payload for packet in parsed) == bytes(range(250)) * 20
    assert rig.direction.counters.offered == 4


def test_nobody_is_overtaken_when_a_delay_is_taken_away() -> None:
    rig = Rig(LinkSettings(delay_us=500))
    rig.direction.offer(plain(1), 0)
    rig.direction.settings = LinkSettings()
    rig.direction.offer(plain(2), 10)
    assert not rig.sent, "the first is on its way still"
    assert [at_us for at_us, _data in rig.scheduled] == [500, 500]
    rig.let_time_pass()
    rig.direction.offer(plain(3), 600)
    assert [number_of(data) for data in rig.sent] == [1, 2, 3]


def test_every_decision_is_counted_and_nothing_is_counted_twice() -> None:
    settings = LinkSettings(
        loss=0.1,
        duplicate=0.1,
        corrupt=0.1,
        delay_us=5000,
        reorder=0.1,
        rate_bit_s=1_000_000,
        queue_limit_packets=5,
    )
    rig = Rig(settings)
    for number in range(1000):
        rig.direction.offer(plain(number), number * 700)
    rig.let_time_pass(late_us=7)
    counters = rig.direction.counters
    assert counters.offered == 1000
    assert counters.delivered == 1000 + counters.duplicated - counters.lost - counters.overflowed
    for name in ("lost", "overflowed", "duplicated", "corrupted", "reordered"):
        assert getattr(counters, name) > 20, name
    assert (counters.timed, counters.late_us, counters.latest_us) == (
        counters.delivered,
        counters.delivered * 7,
        7,
    )
    assert rig.direction.frames_in_flight == 0


def test_the_same_seed_loses_the_same_packets() -> None:
    def delivered(seed: int, spacing_us: int) -> list[int]:
        rig = Rig(LinkSettings(loss=0.2, delay_us=100, jitter_us=100), seed)
        for number in range(300):
            rig.direction.offer(plain(number), number * spacing_us)
        return sorted(number_of(data) for _at_us, data in rig.scheduled)

    assert delivered(7, 10) == delivered(7, 12345)
    assert delivered(7, 10) != delivered(8, 10)


def test_randomness_can_begin_anew() -> None:
    rig = Rig(LinkSettings(loss=0.5), 7)
    outcomes = []
    for _ in range(2):
        for number in range(100):
            rig.direction.offer(plain(number), 0)
        outcomes.append([number_of(data) for _at_us, data in rig.scheduled])
        rig.scheduled.clear()
        rig.direction.reseed(7)
    assert outcomes[0] == outcomes[1]


def test_a_damaged_packet_has_a_finished_checksum_that_is_wrong() -> None:
    """With an unfinished one the receiver would take the damage for data."""
    rig = Rig(LinkSettings(corrupt=1.0), 3)
    frame = tcp_frame("10.0.0.1", "10.0.0.2", b"x" * 1000, macs=MACS)
    wrong = 0
    for _ in range(20):
        rig.direction.offer(offload(frame), 0)
        (_at_us, data) = rig.scheduled.pop()
        assert data[:10] == bytes(10)
        parsed = ParsedTcp(frame_of(data), LinkLayer.ETHERNET)
        wrong += parsed.is_tcp and not parsed.checksum_is_good
    assert wrong > 15, "some bits are those of the other headers"


def test_a_box_on_the_path_sees_packets_and_chooses_what_goes_on() -> None:
    seen: list[tuple[int, int]] = []

    def drop_the_second(frame: Frame, now_us: int) -> Iterable[Frame]:
        seen.append((len(frame), now_us))
        return () if len(seen) == 2 else (frame, frame)

    rig = Rig(LinkSettings(delay_us=10))
    rig.direction.function = drop_the_second
    rig.direction.offer(offload(SUPER_SEGMENT), 5)
    assert seen == [(1454, 5)] * 3 + [(854, 5)]
    assert len(rig.scheduled) == 6
    assert (rig.direction.counters.filtered, rig.direction.counters.offered) == (1, 6)
    rig.direction.function = None
    rig.let_time_pass()
    rig.direction.offer(offload(SUPER_SEGMENT), 50)
    assert len(rig.scheduled) == 1, "it passes whole again"


def test_what_the_kernel_does_not_take_is_counted() -> None:
    def refuse(data: bytes | memoryview) -> int:
        number = errno.EMSGSIZE if len(data) > 1000 else errno.ENETDOWN
        raise OSError(number, os.strerror(number))

    rig = Rig(LinkSettings(), send=refuse)
    rig.direction.offer(plain(1, 2000), 0)
    rig.direction.offer(plain(2, 200), 0)
    counters = rig.direction.counters
    assert (counters.refused, counters.cut_off, counters.delivered) == (1, 1, 0)


@pytest.mark.parametrize("data", [b"", bytes(10), b"\x00\x01" + bytes(60), b"\x01\x01" + b"\xff" * 60])
def test_hostile_frames_are_counted_and_dropped(data: bytes) -> None:
    rig = Rig(LinkSettings(loss=1e-12))
    rig.direction.offer(memoryview(data), 0)
    assert (rig.direction.counters.malformed, rig.scheduled) == (1, [])


def test_what_is_on_its_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direction_module, "MAXIMUM_BYTES_IN_FLIGHT", 10_000)
    rig = Rig(LinkSettings(delay_us=10**9))
    for number in range(100):
        rig.direction.offer(plain(number, 1000), 0)
    counters = rig.direction.counters
    assert counters.overflowed == 100 - len(rig.scheduled)
    assert 5 < len(rig.scheduled) < 12


def test_a_cut_loses_what_was_on_its_way_and_forgets_the_queue() -> None:
    rig = Rig(LinkSettings(rate_bit_s=8000))
    for number in range(3):
        rig.direction.offer(plain(number), 0)
    rig.scheduled.clear()
    rig.direction.cut_off()
    assert (rig.direction.counters.cut_off, rig.direction.frames_in_flight) == (3, 0)
    rig.direction.offer(plain(4), 50)
    assert [at_us for at_us, _data in rig.scheduled] == [50 + 100_000]


def test_all_counters_begin_at_zero() -> None:
    assert set(dataclasses.asdict(Rig(LinkSettings()).direction.counters).values()) == {0}


def test_a_box_sees_packets_with_finished_checksums() -> None:
    rig = Rig(LinkSettings())
    seen: list[bytes] = []

    class Dropping(Middlebox):
        def forward(self, frame: bytes, now_us: int = 0) -> list[bytes]:
            seen.append(frame)
            return [frame] if len(seen) > 1 else []

    rig.direction.function = LinkBox(Dropping((), seed=1), "->")
    rig.direction.offer(offload(SUPER_SEGMENT), 0)
    assert len(seen) == 4
    for frame in seen:
        segment = parse_segment(frame)
        assert segment is not None
        assert segment.to_bytes() == frame
    assert [frame_of(data).to_bytes() for _at_us, data in rig.scheduled] == seen[1:]
    assert rig.direction.counters.filtered == 1


def test_an_observer_is_told_of_each_decision_that_is_counted() -> None:
    settings = LinkSettings(
        loss=0.1,
        duplicate=0.1,
        corrupt=0.1,
        delay_us=5000,
        reorder=0.1,
        rate_bit_s=10**7,
        queue_limit_packets=5,
    )
    watched, alone = Rig(settings, seed=3), Rig(settings, seed=3)
    told: list[tuple[int, int, str]] = []

    def observe(data: memoryview | bytes, now_us: int, fate: str) -> None:
        told.append((number_of(bytes(data)), now_us, fate))

    watched.direction.observer = observe
    for number in range(500):
        watched.direction.offer(plain(number), number * 60)
        alone.direction.offer(plain(number), number * 60)
    assert watched.scheduled == alone.scheduled, "who is watched decides as ever"
    assert [(number, at_us) for number, at_us, _fate in told] == [
        (number, number * 60) for number in range(500)
    ]
    counters = watched.direction.counters
    for words, counted in (
        ("lost", counters.lost),
        ("dropped by a full queue", counters.overflowed),
        ("duplicated", counters.duplicated),
        ("sent ahead of others", counters.reordered),
    ):
        assert counted > 0
        assert sum((words in fate) + (f"{words} twice" in fate) for _number, _at_us, fate in told) == counted
    flips = [fate.partition("bit ")[2].count("and") + 1 for *_others, fate in told if " flipped" in fate]
    assert sum(flips) == counters.corrupted > 0
    assert any(fate == "" for _number, _at_us, fate in told)


def test_an_observer_is_told_what_a_box_drops_and_what_passes_at_once() -> None:
    rig = Rig(LinkSettings())
    told: list[str] = []
    rig.direction.observer = lambda _data, _now_us, fate: told.append(fate)
    rig.direction.offer(plain(1), 0)
    rig.direction.function = lambda frame, _now_us: [] if frame.to_bytes()[3] == 2 else [frame]
    rig.direction.offer(plain(2), 10)
    rig.direction.offer(plain(3), 20)
    assert told == ["", "dropped by a middlebox", ""]
