"""Reassembly against a model that holds one entry for each byte."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp_stack.tcp.reassembly import MAXIMUM_PIECES, Placement, Reassembly

START = 100


def content(start: int, end: int) -> bytes:
    return bytes(position % 251 for position in range(start, end))


class Model:
    """The bytes that are held, by position."""

    def __init__(self) -> None:
        self.next_position = START
        self.held: set[int] = set()

    def insert(self, start: int, end: int) -> tuple[Placement, int]:
        """Where the range goes, and up to where everything is in order then."""
        positions = set(range(max(start, self.next_position), end))
        if end <= self.next_position or positions <= self.held:
            in_order = self.next_position in positions
            if not in_order:
                return Placement.DUPLICATE, self.next_position
        tail = not self.held or max(start, self.next_position) > max(self.held)
        self.held |= positions
        if start <= self.next_position:
            while self.next_position in self.held:
                self.held.discard(self.next_position)
                self.next_position += 1
            return Placement.IN_ORDER, self.next_position
        return Placement.OUT_OF_ORDER_TAIL if tail else Placement.OUT_OF_ORDER, self.next_position

    def first_overlap(self, start: int, end: int) -> tuple[int, int] | None:
        held = sorted(position for position in self.held if start <= position < end)
        length = next(
            (count for count, position in enumerate(held) if position != held[0] + count), len(held)
        )
        return (held[0], held[0] + length) if held else None

    def ranges(self) -> list[tuple[int, int]]:
        result: list[tuple[int, int]] = []
        for position in sorted(self.held):
            if result and result[-1][1] == position:
                result[-1] = (result[-1][0], position + 1)
            else:
                result.append((position, position + 1))
        return result


ranges = st.tuples(st.integers(-20, 200), st.integers(0, 60))


@settings(max_examples=500, deadline=None)
@given(st.lists(ranges, max_size=40))
def test_reassembly_agrees_with_the_model(inserted: list[tuple[int, int]]) -> None:
    reassembly, model = Reassembly(START), Model()
    for offset, length in inserted:
        start = START + offset
        if length:
            overlap = reassembly.first_overlap(start, start + length)
            assert overlap == model.first_overlap(start, start + length)
        before = reassembly.next_position
        placement, ready = reassembly.insert(start, content(start, start + length))
        expected, position = model.insert(start, start + length)
        assert (placement, reassembly.next_position) == (expected, position)
        assert b"".join(ready) == content(before, position)
        assert reassembly.is_empty == (not model.held)
        reported = reassembly.ranges()
        held = model.ranges()
        assert set(reported) <= set(held)
        assert len(reported) == min(4, len(held))
        if placement in (Placement.OUT_OF_ORDER, Placement.OUT_OF_ORDER_TAIL):
            first, last = reported[0]
            assert first <= start < last


def test_latest_range_is_reported_first() -> None:
    """RFC 2018 §4."""
    reassembly = Reassembly(0)
    for start in (10, 30, 50, 70, 90):
        reassembly.insert(start, bytes(5))
    reassembly.insert(30, bytes(7))
    assert reassembly.ranges()[0] == (30, 37)
    assert reassembly.ranges()[1:] == [(90, 95), (70, 75), (50, 55)]


def test_number_of_pieces_is_bounded_and_comes_back() -> None:
    reassembly = Reassembly(0)
    for number in range(MAXIMUM_PIECES):
        placement, _ = reassembly.insert(1 + 2 * number, b"x")
        assert placement is not Placement.REFUSED
    assert reassembly.insert(1 << 20, b"x") == (Placement.REFUSED, [])
    assert reassembly.piece_count == MAXIMUM_PIECES
    assert reassembly.insert(0, bytes(1 << 20))[0] is Placement.IN_ORDER
    assert reassembly.piece_count == 0
    assert reassembly.is_empty


def test_few_pieces_wait_in_a_small_buffer() -> None:
    reassembly = Reassembly(0)
    reassembly.buffer_bytes = 65536
    placements = [reassembly.insert(1 + 2 * number, b"x")[0] for number in range(300)]
    assert placements.count(Placement.REFUSED) == 300 - 256
    assert reassembly.insert(0, bytes(3))[0] is Placement.IN_ORDER
    assert reassembly.insert(600, b"x")[0] is not Placement.REFUSED


def test_small_parts_of_large_frames_do_not_keep_them() -> None:
    """Of what overlaps only a part is kept, in order or not."""
    frame = bytearray(65000)
    reassembly = Reassembly(0)
    reassembly.insert(1000, bytes(63000))
    reassembly.insert(100_000, bytes(60000))
    reassembly.insert(100_000, memoryview(frame)[:62000])
    frame.append(0)
    reassembly.insert(0, bytes(1000))
    assert reassembly.next_position == 64000
    _, ready = reassembly.insert(1000, memoryview(frame)[:65000])
    frame.append(0)
    assert b"".join(ready) == bytes(2000)


def test_small_pieces_do_not_keep_their_frames() -> None:
    frame = bytearray(1500)
    reassembly = Reassembly(0)
    reassembly.insert(10, memoryview(frame)[60:70])
    # A bytearray cannot be resized while a view of it lives.
    frame.append(0)
    _, ready = reassembly.insert(0, bytes(10))
    assert b"".join(ready) == bytes(20)


def test_merges_are_counted() -> None:
    reassembly = Reassembly(0)
    reassembly.insert(10, bytes(10))
    reassembly.insert(30, bytes(10))
    assert reassembly.merges == 0
    reassembly.insert(20, bytes(10))
    assert reassembly.merges == 2


def test_any_order_gives_the_stream() -> None:
    rng = random.Random(1)
    data = rng.randbytes(50_000)
    pieces = [(start, data[start : start + 137]) for start in range(0, len(data), 100)]
    rng.shuffle(pieces)
    reassembly, out = Reassembly(0), bytearray()
    for start, piece in pieces:
        for ready in reassembly.insert(start, piece)[1]:
            out += ready
    assert out == data
