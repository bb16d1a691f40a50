"""The form of SYN cookies (RFC 4987 §3.6, Linux's): what comes back, for how long, and what is refused."""

from __future__ import annotations

import random

import pytest

from mptcp_stack.tcp.initial_sequence import KeyedNumbers
from mptcp_stack.tcp.syn_cookies import (
    PERIOD_US,
    VALID_US,
    check_cookie,
    decode_timestamp,
    encode_timestamp,
    make_cookie,
)

MASK_32 = 0xFFFFFFFF
IPV4 = (bytes([10, 0, 0, 1]), 80, bytes([10, 0, 0, 2]), 40000)
IPV6 = (bytes(15) + b"\1", 80, bytes(15) + b"\2", 40000)
NOW_US = 1_000 * PERIOD_US + 17


def numbers(seed: int = 1) -> KeyedNumbers:
    return KeyedNumbers(random.Random(seed).randbytes)


@pytest.mark.parametrize(
    ("four_tuple", "offered", "kept"),
    [
        (IPV4, 100, 536),
        (IPV4, 536, 536),
        (IPV4, 1299, 536),
        (IPV4, 1440, 1440),
        (IPV4, 1460, 1460),
        (IPV4, 8960, 1460),
        (IPV6, 536, 1220),
        (IPV6, 1440, 1440),
        (IPV6, 9000, 8940),
    ],
)
def test_segment_size_comes_back_rounded_down(
    four_tuple: tuple[bytes, int, bytes, int], offered: int, kept: int
) -> None:
    for sequence in (0, 1, 0x7FFFFFFF, MASK_32):
        cookie = make_cookie(numbers(), four_tuple, sequence, offered, NOW_US)
        assert 0 <= cookie <= MASK_32
        assert check_cookie(numbers(), four_tuple, sequence, cookie, NOW_US) == kept


@pytest.mark.parametrize("made_us", [0, 59_999_999, NOW_US, 255 * PERIOD_US, 256 * PERIOD_US - 1])
def test_is_good_for_one_to_two_minutes(made_us: int) -> None:
    cookie = make_cookie(numbers(), IPV4, 5, 1460, made_us)
    ends_us = (made_us // PERIOD_US) * PERIOD_US + VALID_US
    assert check_cookie(numbers(), IPV4, 5, cookie, made_us + PERIOD_US) == 1460
    assert check_cookie(numbers(), IPV4, 5, cookie, ends_us - 1) == 1460
    assert check_cookie(numbers(), IPV4, 5, cookie, ends_us) is None


def test_belongs_to_one_host_address_pair_and_sequence_number() -> None:
    cookie = make_cookie(numbers(), IPV4, 5, 1460, NOW_US)
    local, local_port, remote, remote_port = IPV4
    assert check_cookie(numbers(2), IPV4, 5, cookie, NOW_US) is None
    assert check_cookie(numbers(), IPV4, 1005, cookie, NOW_US) is None
    assert check_cookie(numbers(), (local, local_port, remote, remote_port + 1), 5, cookie, NOW_US) is None
    assert check_cookie(numbers(), (local, local_port, local, remote_port), 5, cookie, NOW_US) is None


def test_guesses_hardly_ever_hit() -> None:
    """Four sizes in two periods: 8 numbers of 2³² are good."""
    rng, keyed = random.Random(3), numbers()
    assert not any(
        check_cookie(keyed, IPV4, 5, rng.randrange(1 << 32), NOW_US) is not None for _ in range(20_000)
    )


@pytest.mark.parametrize("clock", [64, 65, 127, 1_000_000, MASK_32])
@pytest.mark.parametrize("window_scale", [None, 0, 7, 14])
@pytest.mark.parametrize("sack_permitted", [False, True])
def test_timestamp_brings_options_back(clock: int, window_scale: int | None, sack_permitted: bool) -> None:
    stamp = encode_timestamp(clock, window_scale, sack_permitted)
    assert clock - 64 < stamp <= clock
    negotiated = decode_timestamp(stamp & MASK_32)
    assert negotiated.window_scale == window_scale
    assert negotiated.sack_permitted == sack_permitted


def test_window_scale_beyond_the_largest_is_the_largest() -> None:
    assert decode_timestamp(encode_timestamp(1000, 15, True)).window_scale == 14
