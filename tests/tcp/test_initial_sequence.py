"""Initial sequence numbers, timestamp offsets and ports: secret from others, growing for a peer."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from mptcp_stack.tcp.initial_sequence import KeyedNumbers

TUPLE = (b"\x0a\0\0\1", 1000, b"\x0a\0\0\2", 2000)
MASK = 0xFFFFFFFF


def numbers(seed: int = 1) -> KeyedNumbers:
    return KeyedNumbers(Random(seed).randbytes)


def test_number_grows_with_time_for_one_four_tuple() -> None:
    """RFC 6528 §3."""
    host = numbers()
    first = host.initial_sequence(TUPLE, 1_000_000)
    assert host.initial_sequence(TUPLE, 1_000_000) == first
    assert (host.initial_sequence(TUPLE, 1_000_008) - first) & MASK == 125
    assert (host.initial_sequence(TUPLE, 61_000_000) - first) & MASK == 60_000_000 * 125 // 8 & MASK


def test_number_depends_on_everything_and_the_secret() -> None:
    host, local, remote = numbers(), TUPLE[0], TUPLE[2]
    others = [
        (local, 1001, remote, 2000),
        (local, 1000, remote, 2001),
        (remote, 1000, local, 2000),
        (local, 2000, remote, 1000),
        (local + b"\0\1", 1000, remote, 2000),
    ]
    values = {host.initial_sequence(four_tuple, 0) for four_tuple in [TUPLE, *others]}
    assert len(values) == 6
    assert numbers(2).initial_sequence(TUPLE, 0) not in values


def test_timestamps_of_two_hosts_share_an_offset_that_others_do_not_see() -> None:
    """RFC 7323 §5.4."""
    host, local, remote = numbers(), TUPLE[0], TUPLE[2]
    assert host.timestamp_offset(local, remote) == host.timestamp_offset(local, remote)
    assert host.timestamp_offset(local, remote) != host.timestamp_offset(local, b"\x0a\0\0\3")
    assert host.timestamp_offset(local, remote) != numbers(2).timestamp_offset(local, remote)


def test_ports_move_on_for_one_peer_and_start_elsewhere_for_others() -> None:
    """RFC 6056 §3.3.4."""
    host, local = numbers(), TUPLE[0]
    ports = [host.first_port(local, TUPLE[2], 80) for _ in range(20)]
    steps = {later - earlier for earlier, later in pairwise(ports)}
    assert steps <= set(range(1, 9))
    assert len(steps) > 2
    starts = {host.first_port(local, bytes([10, 0, 0, last]), 80) % 28_232 for last in range(3, 103)}
    assert len(starts) > 95


def test_secret_is_drawn_once_and_only_when_needed() -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    host = KeyedNumbers(random_bytes)
    assert drawn == []
    host.initial_sequence(TUPLE, 0)
    host.timestamp_offset(TUPLE[0], TUPLE[2])
    assert drawn == [16]
