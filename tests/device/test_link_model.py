"""What an impaired link does to packets: each of netem's words alone, and what it does on average."""

from __future__ import annotations

import random
from itertools import groupby, pairwise
from statistics import mean, pstdev

import pytest

from mptcp_stack.device.in_memory import Wire, WireSettings
from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.device.link_model import (
    DISTRIBUTIONS,
    FourStates,
    GilbertElliott,
    LinkModel,
    LinkSettings,
    Passage,
    Slot,
    flip_bit,
)
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.frame import Frame

COUNT = 20_000


def passages(settings: LinkSettings, count: int = COUNT, seed: int = 1) -> list[list[Passage]]:
    """Packets of 100 bytes, one each millisecond."""
    model = LinkModel(settings, random.Random(seed))
    return [model.carry(100, number * 1000) for number in range(count)]


def losses(settings: LinkSettings) -> list[bool]:
    return [not carried for carried in passages(settings)]


def burst_lengths(lost: list[bool]) -> list[int]:
    return [len(list(group)) for is_lost, group in groupby(lost) if is_lost]


def test_without_impairment_a_packet_comes_out_after_the_delay() -> None:
    assert passages(LinkSettings(delay_us=300), 2) == [[Passage(300, None)], [Passage(1300, None)]]


def test_gilbert_elliott_loses_in_bursts() -> None:
    lost = losses(LinkSettings(loss_model=GilbertElliott(p=0.05, r=0.25)))
    # In the bad state for p / (p + r) of the time, 1 / r packets each time.
    assert mean(lost) == pytest.approx(0.05 / 0.30, rel=0.15)
    assert mean(burst_lengths(lost)) == pytest.approx(4.0, rel=0.15)


def test_gilbert_elliott_with_partial_loss_in_both_states() -> None:
    model = GilbertElliott(p=0.1, r=0.3, loss_in_bad=0.5, loss_in_good=0.02)
    assert mean(losses(LinkSettings(loss_model=model))) == pytest.approx(0.25 * 0.5 + 0.75 * 0.02, rel=0.1)


def test_four_states_without_gains_in_bursts_are_a_gilbert_model() -> None:
    lost = losses(LinkSettings(loss_model=FourStates(p13=0.02, p31=0.5)))
    assert mean(lost) == pytest.approx(0.02 / 0.52, rel=0.15)
    assert mean(burst_lengths(lost)) == pytest.approx(2.0, rel=0.15)


def test_four_states_single_losses() -> None:
    lost = losses(LinkSettings(loss_model=FourStates(p13=0.0, p31=1.0, p14=0.05)))
    assert set(burst_lengths(lost)) == {1}
    assert mean(lost) == pytest.approx(0.05 / 1.05, rel=0.15)


def test_four_states_receive_some_within_bursts() -> None:
    model = FourStates(p13=0.01, p31=0.1, p32=0.3, p23=0.5)
    lost = losses(LinkSettings(loss_model=model))
    # Stationary shares of GAP : LOST : BURST are p31 : p13 : p13 p32 / p23.
    assert mean(lost) == pytest.approx(0.01 / (0.1 + 0.01 + 0.01 * 0.3 / 0.5), rel=0.2)


def test_correlated_loss_comes_in_runs() -> None:
    """As with netem, correlation also makes loss rarer; what matters is that it follows on itself."""
    lost = losses(LinkSettings(loss=0.2, loss_correlation=0.5))
    after_a_loss = mean(now for before, now in pairwise(lost) if before)
    assert after_a_loss > 1.8 * mean(lost)


def test_duplicates_take_the_same_way_twice() -> None:
    carried = passages(LinkSettings(duplicate=0.1, delay_us=50))
    assert mean(len(copies) == 2 for copies in carried) == pytest.approx(0.1, rel=0.1)
    assert all(copies == [copies[0]] * len(copies) for copies in carried)


def test_a_duplicate_may_save_a_lost_packet() -> None:
    """As with netem, loss takes one copy."""
    carried = passages(LinkSettings(duplicate=1.0, loss=1.0), 100)
    assert [len(copies) for copies in carried] == [1] * 100


def test_corruption_flips_one_bit() -> None:
    carried = passages(LinkSettings(corrupt=0.05))
    flipped = [copy.flipped_bit for (copy,) in carried if copy.flipped_bit is not None]
    assert len(flipped) == pytest.approx(0.05 * COUNT, rel=0.1)
    assert 0 <= min(flipped) < 20
    assert 780 < max(flipped) < 800
    assert flip_bit(b"\x00\x00", 9) == b"\x00\x40"


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_jitter_is_spread_about_the_delay(distribution: str) -> None:
    settings = LinkSettings(delay_us=100_000, jitter_us=10_000, distribution=distribution)
    delays = [copy.arrival_us - number * 1000 for number, (copy,) in enumerate(passages(settings))]
    assert mean(delays) == pytest.approx(100_000, abs=600)
    assert 3_000 < pstdev(delays) < 12_000
    assert min(delays) >= 60_000
    assert max(delays) <= 140_000


def test_correlated_jitter_moves_slowly() -> None:
    def mean_step(correlation: float) -> float:
        settings = LinkSettings(delay_us=100_000, jitter_us=10_000, delay_correlation=correlation)
        delays = [copy.arrival_us - number * 1000 for number, (copy,) in enumerate(passages(settings))]
        return mean(abs(one - next_one) for one, next_one in pairwise(delays))

    assert mean_step(0.9) < 0.3 * mean_step(0.0)


def test_jitter_never_goes_back_in_time() -> None:
    carried = passages(LinkSettings(delay_us=10, jitter_us=5_000, distribution="normal"), 1000)
    assert all(copy.arrival_us >= number * 1000 for number, (copy,) in enumerate(carried))


def test_reordering_sends_some_ahead() -> None:
    carried = passages(LinkSettings(delay_us=10_000, reorder=0.25))
    ahead = [copy.arrival_us == number * 1000 for number, (copy,) in enumerate(carried)]
    assert mean(ahead) == pytest.approx(0.25, rel=0.1)


def test_gap_spares_all_packets_but_every_nth() -> None:
    carried = passages(LinkSettings(delay_us=10_000, reorder=1.0, gap=5), 20)
    ahead = [number for number, (copy,) in enumerate(carried) if copy.arrival_us == number * 1000]
    assert ahead == [4, 9, 14, 19]


def test_counters_say_what_was_done() -> None:
    model = LinkModel(
        LinkSettings(
            delay_us=5_000,
            loss=0.1,
            duplicate=0.1,
            corrupt=0.1,
            reorder=0.1,
            rate_bit_s=10**6,
            queue_limit_packets=2,
        ),
        random.Random(3),
    )
    out = [model.carry(1000, number * 4000) for number in range(1000)]
    counters = model.counters
    copies = 1000 + counters.duplicated - counters.lost - counters.overflowed
    assert sum(map(len, out)) == copies
    assert sum(copy.flipped_bit is not None for carried in out for copy in carried) == counters.corrupted
    assert min(counters.lost, counters.overflowed, counters.duplicated, counters.reordered) > 20


def test_settings_exchanged_on_the_way() -> None:
    model = LinkModel(LinkSettings(), random.Random(1))
    assert len(model.carry(100, 0)) == 1
    model.settings = LinkSettings(loss_model=GilbertElliott(p=1.0, r=0.0, loss_in_good=1.0))
    assert [model.carry(100, number) for number in range(50)] == [[]] * 50
    model.settings = LinkSettings()
    assert len(model.carry(100, 0)) == 1


def test_every_impossible_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LinkSettings(
            jitter_us=-1,
            delay_correlation=2.0,
            distribution="odd",
            loss_correlation=-0.1,
            duplicate=1.1,
            corrupt=float("nan"),
            reorder_correlation=7.0,
            gap=0,
            loss_model=GilbertElliott(p=1.5, r=0.1),
        )
    for text in (
        "jitter_us -1",
        "delay_correlation 2.0",
        "'odd'",
        "loss_correlation -0.1",
        "duplicate 1.1",
        "corrupt nan",
        "reorder_correlation 7.0",
        "gap 0",
        "loss_model p 1.5",
    ):
        assert text in str(caught.value)


def wire(settings: WireSettings) -> Wire:
    return Wire("test", settings, random.Random(1), link_layer=LinkLayer.RAW_IP, mtu=1500)


def test_wire_delivers_in_the_order_of_arrival() -> None:
    line = wire(WireSettings(delay_us=10_000, reorder=1.0, gap=3))
    for length in (1, 2, 3, 4):
        line.send(Frame(bytes(length)), 0)
    assert [len(frame) for frame in line.take_arrived(10_000)] == [3, 1, 2, 4]


def test_wire_damages_packets_by_its_corruptor() -> None:
    line = wire(WireSettings(corrupt=1.0))
    line.send(Frame(bytes(40)), 0)
    (damaged,) = line.take_arrived(0)
    assert sum(byte.bit_count() for byte in damaged.head) == 1
    line.corruptor = lambda packet, bit: b"damaged" if bit < len(packet) * 8 else b"never"
    line.send(Frame(bytes(40)), 0)
    assert [frame.head for frame in line.take_arrived(0)] == [b"damaged"]


@pytest.mark.parametrize(
    "settings",
    [
        WireSettings(duplicate=0.1),
        WireSettings(jitter_us=1),
        WireSettings(loss_model=GilbertElliott(0.1, 0.1)),
    ],
)
def test_super_segments_are_cut_where_packets_matter(settings: WireSettings) -> None:
    assert settings.must_cut


def test_overflow_does_not_change_which_packets_are_lost() -> None:
    """In real time the queue is never full at the same packets twice."""
    free = LinkSettings(loss=0.2, corrupt=0.3, delay_us=100, jitter_us=50)
    crowded = LinkSettings(
        loss=0.2, corrupt=0.3, delay_us=100, jitter_us=50, rate_bit_s=400_000, queue_limit_packets=1
    )
    lost = [not carried for carried in passages(free, 500)]
    model = LinkModel(crowded, random.Random(1))
    before, lost_in_the_crowd = 0, []
    for number in range(500):
        model.carry(100, number * 1000)
        lost_in_the_crowd.append(model.counters.lost > before)
        before = model.counters.lost
    assert model.counters.overflowed > 100
    assert lost_in_the_crowd == lost


def test_the_queue_is_bounded_in_bytes() -> None:
    settings = LinkSettings(rate_bit_s=8_000_000, queue_limit_packets=None, queue_limit_bytes=250)
    model = LinkModel(settings, random.Random(1))
    carried = [bool(model.carry(100, 0)) for _ in range(3)]
    assert carried == [True, True, False]
    assert model.carry(100, 100), "one has been sent meanwhile"
    assert model.carry(4000, 10_000), "a packet larger than the whole queue passes when it is alone"


def test_overhead_and_cells_take_their_time() -> None:
    """As on ATM: 100 bytes and 8 of AAL5 fill three cells of 48 bytes, each with 5 more."""
    settings = LinkSettings(
        rate_bit_s=8_000_000, packet_overhead_bytes=8, cell_bytes=48, cell_overhead_bytes=5
    )
    assert passages(settings, 1) == [[Passage(3 * 53, None)]]
    assert passages(LinkSettings(rate_bit_s=8_000_000, packet_overhead_bytes=-100), 1) == [[Passage(0, None)]]


def test_slots_let_packets_out_in_bunches() -> None:
    settings = LinkSettings(slot=Slot(5_000, 5_000))
    out = [copy.arrival_us for (copy,) in passages(settings, 13)]
    # Packets come each millisecond; the turn after which nobody waits begins with the next packet.
    assert out == [5_000] * 6 + [11_000] * 6 + [17_000]


def test_a_slot_takes_so_many_packets_or_bytes() -> None:
    model = LinkModel(LinkSettings(slot=Slot(5_000, 5_000, packets=2)), random.Random(1))
    assert [model.carry(100, 0)[0].arrival_us for _ in range(5)] == [5_000] * 2 + [10_000] * 2 + [15_000]
    model = LinkModel(LinkSettings(slot=Slot(5_000, 5_000, bytes=150)), random.Random(1))
    assert [model.carry(100, 0)[0].arrival_us for _ in range(3)] == [5_000] * 2 + [10_000]


def test_slots_vary_between_their_bounds() -> None:
    model = LinkModel(LinkSettings(slot=Slot(2_000, 6_000)), random.Random(1))
    waits = [model.carry(100, turn * 10_000)[0].arrival_us - turn * 10_000 for turn in range(1000)]
    assert 2_000 <= min(waits) < 2_100
    assert 5_900 < max(waits) <= 6_000
    assert mean(waits) == pytest.approx(4_000, rel=0.05)


def test_impossible_queues_cells_and_slots_are_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LinkSettings(queue_limit_bytes=0, cell_bytes=-1, slot=Slot(10, 5, packets=0))
    for part in ("queue_limit_bytes 0", "cell_bytes -1", "slots of 10 to 5 us", "slots of 0"):
        assert part in str(caught.value)
