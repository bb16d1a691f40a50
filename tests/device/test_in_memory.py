"""Wires in virtual time: delay, rate, loss, queue limit, filters; and the pair for run loops."""

from __future__ import annotations

import random
import select
import struct

import pytest

from mptcp_stack.device.in_memory import Wire, WireSettings, in_memory_pair
from mptcp_stack.device.interface import Device, LinkLayer
from mptcp_stack.errors import ConfigurationError, DeviceError
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device.packets import ParsedTcp, tcp_frame

PAYLOAD = random.Random(2).randbytes(5000)


def wire(settings: WireSettings | None = None, *, mtu: int = 1500, seed: int = 1) -> Wire:
    return Wire("test", settings or WireSettings(), random.Random(seed), link_layer=LinkLayer.RAW_IP, mtu=mtu)


def super_segment(length: int = 5000) -> Frame:
    return tcp_frame("10.0.0.1", "10.0.0.2", PAYLOAD[:length], gso_size=1400)


def ordinary(length: int = 100) -> Frame:
    return Frame(bytes(length))


def test_delay_alone() -> None:
    line = wire(WireSettings(delay_us=700))
    line.send(ordinary(), 100)
    line.send(ordinary(), 150)
    assert line.next_arrival_us() == 800
    assert line.take_arrived(799) == []
    assert line.take_arrived(849) == [ordinary()]
    assert line.take_arrived(850) == [ordinary()]
    assert line.next_arrival_us() is None


def test_super_segment_passes_whole_and_owns_its_bytes() -> None:
    frame = super_segment()
    buffer = bytearray(PAYLOAD)
    frame.payload = (memoryview(buffer)[:2000], memoryview(buffer)[2000:])
    expected = frame.to_bytes()
    line = wire()
    line.send(frame, 0)
    buffer[:] = bytes(len(buffer))
    (arrived,) = line.take_arrived(0)
    assert (arrived.head, arrived.payload) == (expected, ())
    assert (arrived.gso_size, arrived.checksum) == (1400, ChecksumState.PARTIAL)


@pytest.mark.parametrize(
    "settings", [WireSettings(split=True), WireSettings(rate_bit_s=10**9), WireSettings(loss=1e-12)]
)
def test_super_segment_is_cut_where_packets_matter(settings: WireSettings) -> None:
    line = wire(settings)
    sent = line.send(super_segment(), 0)
    arrived = line.take_arrived(1_000_000)
    assert arrived == sent
    assert [len(frame) for frame in arrived] == [1440, 1440, 1440, 840]
    assert all(ParsedTcp(frame, LinkLayer.RAW_IP).checksum_is_good for frame in arrived)
    assert all(frame.checksum is ChecksumState.UNVERIFIED and not frame.payload for frame in arrived)


def test_rate_is_exact_over_many_packets() -> None:
    # 3 Mbit/s and 100 bytes: 266.67 µs each, so that rounding each of them would show.
    line = wire(WireSettings(rate_bit_s=3_000_000, delay_us=10, queue_limit_packets=1000))
    for _ in range(900):
        line.send(ordinary(), 0)
    arrivals = []
    while (next_us := line.next_arrival_us()) is not None:
        arrivals += [next_us] * len(line.take_arrived(next_us))
    assert arrivals[:3] == [277, 544, 810]
    assert arrivals[-1] == 240_010
    # An idle wire does not save up capacity.
    line.send(ordinary(), 1_000_000)
    assert line.next_arrival_us() == 1_000_277


def test_full_queue_drops_at_the_tail() -> None:
    line = wire(WireSettings(rate_bit_s=8_000_000, queue_limit_packets=3))
    for length in (101, 102, 103, 104):
        line.send(ordinary(length), 0)
    assert line.counters.overflowed == 1
    # The first one has been serialised after 101 µs.
    line.send(ordinary(105), 101)
    line.send(ordinary(106), 101)
    assert [len(frame) for frame in line.take_arrived(10_000)] == [101, 102, 103, 105]
    assert line.counters.overflowed == 2


def test_loss_is_seeded_and_near_its_probability() -> None:
    def survivors(seed: int) -> list[int]:
        line = wire(WireSettings(loss=0.3), seed=seed)
        arrived = []
        for length in range(20, 1020):
            line.send(ordinary(length), 0)
            arrived += [len(frame) for frame in line.take_arrived(0)]
        return arrived

    assert survivors(5) == survivors(5)
    assert survivors(5) != survivors(6)
    assert 640 < len(survivors(5)) < 760


def test_total_loss_and_its_count() -> None:
    line = wire(WireSettings(loss=1.0))
    line.send(super_segment(), 0)
    assert line.next_arrival_us() is None
    assert (line.counters.offered, line.counters.lost) == (4, 4)


def test_filter_sees_bytes_and_index() -> None:
    line = wire(WireSettings(split=True))
    seen: list[tuple[int, int]] = []

    def drop_third(data: bytes, index: int) -> bool:
        seen.append((index, len(data)))
        return index == 2

    line.drop_if = drop_third
    line.send(super_segment(), 0)
    line.send(ordinary(), 0)
    assert seen == [(0, 1440), (1, 1440), (2, 1440), (3, 840), (4, 100)]
    assert [len(frame) for frame in line.take_arrived(0)] == [1440, 1440, 840, 100]
    assert line.counters.filtered == 1


def test_middlebox_replaces_and_multiplies_packets() -> None:
    line = wire()
    line.rewrite = lambda data, index: [] if index == 1 else [data[:20], b"copy"]
    line.send(super_segment(), 0)
    arrived = [frame.head for frame in line.take_arrived(0)]
    assert len(arrived) == 6
    assert arrived[1::2] == [b"copy"] * 3


def test_packets_longer_than_the_mtu_are_dropped() -> None:
    line = wire(mtu=1439)
    line.send(ordinary(1439), 0)
    line.send(ordinary(1440), 0)
    assert line.counters.oversized == 1
    cutting = wire(WireSettings(split=True), mtu=1439)
    cutting.send(super_segment(), 0)
    assert cutting.counters.oversized == 3


def test_malformed_super_segment_is_counted_where_it_must_be_cut() -> None:
    line = wire(WireSettings(split=True))
    assert line.send(Frame(bytes(2000), gso_size=100), 0) == []
    assert line.counters.malformed == 1


def test_order_is_kept_when_the_wire_gets_faster() -> None:
    line = wire(WireSettings(delay_us=1000))
    line.send(ordinary(1), 0)
    line.settings = WireSettings(delay_us=10)
    line.send(ordinary(2), 0)
    assert [len(frame) for frame in line.take_arrived(1000)] == [1, 2]


def test_cut_wire_loses_what_is_on_it() -> None:
    line = wire(WireSettings(delay_us=1000, rate_bit_s=8_000_000))
    line.send(ordinary(), 0)
    line.is_up = False
    line.clear()
    line.send(ordinary(), 0)
    assert line.next_arrival_us() is None
    assert (line.counters.lost, line.counters.sent_while_down) == (1, 1)
    line.is_up = True
    line.send(ordinary(), 0)
    assert line.next_arrival_us() == 1100


def test_every_impossible_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        WireSettings(delay_us=-1, rate_bit_s=0, loss=1.5, queue_limit_packets=0)
    for name in ("delay_us -1", "rate_bit_s 0", "loss 1.5", "queue_limit_packets 0"):
        assert name in str(caught.value)
    with pytest.raises(ConfigurationError, match="loss nan"):
        WireSettings(loss=float("nan"))


def test_pair_carries_super_segments_whole() -> None:
    first: Device
    first, second = in_memory_pair(("a0", "b0"), mtu=9000, link_layer=LinkLayer.RAW_IP)
    frame = super_segment()
    assert select.select([second.fileno()], [], [], 0)[0] == []
    assert first.transmit([frame, ordinary()]) == 2
    assert select.select([second.fileno()], [], [], 0)[0]
    (received,) = second.receive(1)
    assert received == Frame(frame.to_bytes(), (), 1400, ChecksumState.PARTIAL, 20)
    assert second.receive(5) == [ordinary()]
    assert second.receive(5) == []
    assert (first.name, first.mtu, second.mtu) == ("a0", 9000, 9000)
    first.close()
    second.close()


def test_full_pair_pushes_back_until_it_is_read() -> None:
    first, second = in_memory_pair(("a0", "b0"))
    frames = [Frame(struct.pack("!I", index)) for index in range(2000)]
    accepted = first.transmit(frames)
    assert 0 < accepted < 2000
    assert select.select([], [first.fileno()], [], 0)[1] == []
    received = second.receive(2000)
    assert received == frames[:accepted]
    assert select.select([], [first.fileno()], [], 0)[1]
    assert first.transmit(frames[accepted:]) > 0
    first.close()
    second.close()


def test_closed_peer_is_a_device_error() -> None:
    first, second = in_memory_pair(("a0", "b0"))
    first.close()
    assert second.transmit([ordinary()]) == 1
    assert second.counters.send_errors == 1
    with pytest.raises(DeviceError, match="b0: the other end is closed"):
        second.receive(1)
    with pytest.raises(DeviceError, match="device a0: "):
        first.receive(1)
    second.close()
