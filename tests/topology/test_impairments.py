"""The words of impairments: every form of each, and that what is printed reads the same again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptcp_stack.device.link_model import DISTRIBUTIONS, FourStates, GilbertElliott, Slot
from testbed.topology.impairments import (
    combine,
    contradictions,
    default_limit_bytes,
    impairment_text,
    link_settings,
    parse_word,
    split_words,
)
from testbed.topology.model import Impairment


@pytest.mark.parametrize(
    ("word", "value", "fields"),
    [
        ("rate", "10mbit", {"rate_bit_s": 10_000_000}),
        (
            "rate",
            "1mbit 8B 48B 5B",
            {"rate_bit_s": 10**6, "packet_overhead_bytes": 8, "cell_bytes": 48, "cell_overhead_bytes": 5},
        ),
        ("rate", "1mbit -14B", {"rate_bit_s": 10**6, "packet_overhead_bytes": -14}),
        ("rate", {"rate": "1mbit", "overhead": "4B"}, {"rate_bit_s": 10**6, "packet_overhead_bytes": 4}),
        ("delay", "10ms", {"delay_us": 10_000}),
        ("delay", "10ms 2.5ms 25%", {"delay_us": 10_000, "jitter_us": 2_500, "delay_correlation": 0.25}),
        (
            "delay",
            "10ms 2ms distribution normal",
            {"delay_us": 10_000, "jitter_us": 2_000, "distribution": "normal"},
        ),
        ("delay", {"time": "1s", "correlation": "5%"}, {"delay_us": 10**6, "delay_correlation": 0.05}),
        ("jitter", "2ms 50%", {"jitter_us": 2_000, "delay_correlation": 0.5}),
        ("distribution", "pareto", {"distribution": "pareto"}),
        ("loss", "0.1%", {"loss": 0.001}),
        ("loss", "random 1% 25%", {"loss": 0.01, "loss_correlation": 0.25}),
        ("loss", {"random": "1%"}, {"loss": 0.01}),
        ("loss", "gemodel 1%", {"loss_model": GilbertElliott(0.01, 0.99)}),
        ("loss", "gemodel 1% 10% 70% 0.1%", {"loss_model": GilbertElliott(0.01, 0.1, 0.7, 0.001)}),
        (
            "loss",
            {"gemodel": {"p": "1%", "1-k": "2%"}},
            {"loss_model": GilbertElliott(0.01, 0.99, 1.0, 0.02)},
        ),
        ("loss", "state 1%", {"loss_model": FourStates(0.01, 0.99)}),
        ("loss", {"state": "1% 50% 2% 3% 4%"}, {"loss_model": FourStates(0.01, 0.5, 0.02, 0.03, 0.04)}),
        ("duplicate", "1% 10%", {"duplicate": 0.01, "duplicate_correlation": 0.1}),
        ("corrupt", {"share": "1%"}, {"corrupt": 0.01}),
        ("reorder", "25% 50% gap 5", {"reorder": 0.25, "reorder_correlation": 0.5, "gap": 5}),
        ("gap", 5, {"gap": 5}),
        ("limit", 200, {"limit_packets": 200}),
        ("limit", "64kB", {"limit_bytes": 64_000}),
        ("limit", "200 64KiB", {"limit_packets": 200, "limit_bytes": 65_536}),
        ("limit", {"packets": 7, "bytes": "1MB"}, {"limit_packets": 7, "limit_bytes": 10**6}),
        ("slot", "5ms", {"slot": Slot(5_000, 5_000)}),
        ("slot", "1ms 5ms packets 3 bytes 9kB", {"slot": Slot(1_000, 5_000, 3, 9_000)}),
        ("slot", {"min": "1ms", "max": "2ms"}, {"slot": Slot(1_000, 2_000)}),
        ("seed", 42, {"seed": 42}),
    ],
)
def test_a_word_in_its_forms(word: str, value: object, fields: dict[str, object]) -> None:
    assert parse_word(word, value) == fields


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (
            "delay",
            "",
            "'delay' needs a value; it is 'delay TIME [JITTER [CORRELATION]] [distribution DISTRIBUTION]'",
        ),
        ("delay", "10ms distribution", "'distribution' of 'delay' needs a value"),
        ("delay", {"jitter": "1ms"}, "'delay' needs 'time'"),
        ("delay", ["10ms"], "'delay' is text or a mapping"),
        ("delay", {"time": "10"}, "'delay', 'time': a time needs a unit, like '5ms'"),
        ("loss", {"gemodel": "1%", "state": "1%"}, "one of random, gemodel and state"),
        ("loss", True, "'loss' is text or a mapping"),
        ("rate", "0mbit", "a rate lies between 1bit and 1tbit"),
        ("rate", "1mbit 5B 48B -5B", "not negative"),
        ("rate", "1mbit 5", "a size needs a unit, like '64kB'"),
        ("limit", "", "a number of packets"),
        ("limit", "0", "must be at least 1"),
        ("limit", "64kb", "unknown unit of size 'kb'"),
        ("limit", {"frames": 5}, "a number of packets"),
        ("slot", "0ms", "lasts longer than nothing"),
        ("reorder", "5% gap 2 gap 3", "'gap' of 'reorder' is said twice"),
        ("seed", "-1", "must be at least 0"),
        ("gap", True, "is text or a mapping"),
    ],
)
def test_a_mistake_says_what_was_expected(word: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_word(word, value)


def test_words_in_one_text() -> None:
    text = "rate 10mbit delay 10ms 2ms 25% distribution normal loss gemodel 1% 10% limit 64kB"
    assert split_words(text) == {
        "rate": "10mbit",
        "delay": "10ms 2ms 25%",
        "distribution": "normal",
        "loss": "gemodel 1% 10%",
        "limit": "64kB",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no impairment is said, like 'delay 10ms loss 1%'"),
        ("10ms delay", "'10ms' is no impairment"),
        ("loss 1% delay 1ms loss 2%", "'loss' is said twice"),
    ],
)
def test_text_without_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split_words(text)


def test_words_change_what_they_name_and_nothing_else() -> None:
    before = Impairment(rate_bit_s=10**6, cell_bytes=48, loss=0.1, loss_correlation=0.5, delay_us=5)
    after = combine(
        {word: parse_word(word, value) for word, value in {"rate": "2mbit", "loss": "gemodel 1%"}.items()},
        before,
    )
    assert after == Impairment(rate_bit_s=2 * 10**6, loss_model=GilbertElliott(0.01, 0.99), delay_us=5)


def test_without_a_limit_the_queue_suits_the_rate() -> None:
    settings = link_settings(Impairment(rate_bit_s=100_000_000), 1500)
    assert (settings.queue_limit_packets, settings.queue_limit_bytes) == (None, 625_000)
    assert default_limit_bytes(1_000_000, 1500) == 20 * 1514
    settings = link_settings(Impairment(rate_bit_s=100_000_000, limit_packets=7), 1500)
    assert (settings.queue_limit_packets, settings.queue_limit_bytes) == (7, None)


SHARES = st.integers(1, 10**6).map(lambda number: number / 10**8)
TIMES = st.integers(1, 10**9)
LOSS_MODELS = st.builds(GilbertElliott, SHARES, SHARES, SHARES, SHARES) | st.builds(
    FourStates, SHARES, SHARES, SHARES, SHARES, SHARES
)
IMPAIRMENTS = st.builds(
    Impairment,
    rate_bit_s=st.integers(1, 10**12),
    packet_overhead_bytes=st.integers(-100, 100),
    cell_bytes=st.integers(1, 100),
    cell_overhead_bytes=st.integers(0, 100),
    limit_packets=st.none() | st.integers(1, 10**6),
    limit_bytes=st.none() | st.integers(1, 10**9),
    delay_us=st.just(10**9),
    jitter_us=TIMES,
    delay_correlation=st.just(0.0) | SHARES,
    distribution=st.sampled_from(DISTRIBUTIONS),
    loss_model=st.none() | LOSS_MODELS,
    duplicate=SHARES,
    duplicate_correlation=st.just(0.0) | SHARES,
    corrupt=SHARES,
    reorder=SHARES,
    reorder_correlation=SHARES,
    gap=st.integers(1, 100),
    slot=st.none() | st.builds(Slot, st.just(5), st.integers(5, 10**9), st.none() | st.integers(1, 9)),
    seed=st.none() | st.integers(0, 2**63 - 1),
)


@given(IMPAIRMENTS)
def test_what_is_printed_reads_the_same_again(impairment: Impairment) -> None:
    words = split_words(impairment_text(impairment))
    assert combine({word: parse_word(word, value) for word, value in words.items()}) == impairment
    assert list(contradictions(impairment)) == []
    assert link_settings(impairment, 1500).rate_bit_s == impairment.rate_bit_s


def test_no_impairment_is_no_text() -> None:
    assert impairment_text(Impairment()) == ""
    assert Impairment(seed=5).is_nothing
    assert Impairment(rate_bit_s=5).is_rate_only
    assert not Impairment(rate_bit_s=5, limit_packets=5).is_rate_only
