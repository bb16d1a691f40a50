"""The retransmission queue against a model that holds one record for each byte."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Protocol

from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp_stack.tcp.rack import Rack
from mptcp_stack.tcp.retransmission_queue import Chunk, RetransmissionQueue
from mptcp_stack.wire.tcp_segment import ACK, FIN, PSH

SEGMENT = 10
START = 1000


@dataclass
class Byte:
    is_sacked: bool = False
    is_lost: bool = False
    in_pipe: bool = True
    transmissions: int = 1
    sent_us: int = 0


@dataclass
class Model:
    """What is outstanding, byte by byte."""

    bytes: dict[int, Byte] = field(default_factory=dict)

    def in_flight(self) -> int:
        return sum(byte.in_pipe for byte in self.bytes.values())

    def sacked(self) -> int:
        return sum(byte.is_sacked for byte in self.bytes.values())

    def deliver(self, position: int) -> bool:
        byte = self.bytes[position]
        if byte.is_sacked:
            return False
        byte.in_pipe = byte.is_lost = False
        return True


def content(start: int, end: int) -> bytes:
    return bytes(position % 251 for position in range(start, end))


class Pair:
    """The queue and its model, driven alike."""

    def __init__(self) -> None:
        self.queue = RetransmissionQueue()
        self.rack = Rack()
        self.model = Model()
        self.una = self.nxt = START
        self.now_us = 0

    def send(self, length: int) -> None:
        end = self.nxt + length
        self.queue.append(Chunk(self.nxt, end, (content(self.nxt, end),), 0, self.now_us))
        for position in range(self.nxt, end):
            self.model.bytes[position] = Byte(sent_us=self.now_us)
        self.nxt = end

    def acknowledge(self, share: float, blocks: list[tuple[float, float]]) -> None:
        outstanding = self.nxt - self.una
        acknowledgement = self.una + round(share * outstanding)
        ranges = []
        for first, length in blocks:
            start = self.una + round(first * outstanding)
            end = min(self.nxt, start + round(length * outstanding))
            if start < end:
                ranges.append((start, end))
        result = self.queue.acknowledge(acknowledgement, ranges)
        self.rack.on_delivered(result, self.now_us)
        delivered = 0
        for position in range(self.una, acknowledgement):
            delivered += self.model.deliver(position)
            del self.model.bytes[position]
        for start, end in ranges:
            for position in range(max(start, acknowledgement), end):
                if self.model.deliver(position):
                    delivered += 1
                    self.model.bytes[position].is_sacked = True
        assert result.cumulative_bytes == acknowledgement - self.una
        assert result.newly_delivered_bytes == delivered
        self.una = acknowledgement

    def time_out(self, spared_after_us: int) -> None:
        first = self.queue.chunks[:1]
        self.queue.mark_timed_out(spared_after_us)
        was_taken_back = self.una in self.model.bytes and self.model.bytes[self.una].is_sacked
        if was_taken_back:
            for byte in self.model.bytes.values():
                byte.is_sacked = False
        for position, byte in self.model.bytes.items():
            is_first = bool(first) and position < first[0].end
            if not byte.is_sacked and (was_taken_back or is_first or byte.sent_us <= spared_after_us):
                byte.is_lost, byte.in_pipe = True, False

    def find_losses(self, window_us: int) -> None:
        """RFC 8985 §6.2, step 5: something sent later has arrived, and time has passed."""
        rack = self.rack
        expected: set[int] = set()
        for chunk in self.queue.chunks:
            byte = self.model.bytes[chunk.sequence]
            if (
                byte.in_pipe
                and (byte.sent_us, chunk.end) < (rack.latest_sent_us, rack.latest_end)
                and byte.sent_us + rack.round_trip_us + window_us <= self.now_us
            ):
                expected.update(range(chunk.sequence, chunk.end))
        lost, lost_again, _ = rack.detect(self.queue, window_us, self.now_us)
        assert lost + lost_again == len(expected)
        assert lost_again == sum(self.model.bytes[position].is_lost for position in expected)
        for position in expected:
            self.model.bytes[position].is_lost, self.model.bytes[position].in_pipe = True, False

    def restore(self) -> None:
        self.queue.restore_lost()
        for byte in self.model.bytes.values():
            byte.is_lost, byte.in_pipe = False, not byte.is_sacked

    def retransmit(self, limit: int) -> None:
        chunk = self.queue.next_lost(limit, SEGMENT)
        missing = [p for p, byte in self.model.bytes.items() if byte.is_lost and not byte.in_pipe]
        if chunk is None:
            assert not missing
            return
        assert chunk.sequence == missing[0]
        assert chunk.length <= max(SEGMENT, limit)
        self.queue.on_sent_again(chunk, self.now_us)
        for position in range(chunk.sequence, chunk.end):
            self.model.bytes[position].in_pipe = True
            self.model.bytes[position].transmissions += 1
            self.model.bytes[position].sent_us = self.now_us

    def must_agree(self) -> None:
        queue = self.queue
        assert [chunk.sequence for chunk in queue.chunks] == queue._starts
        position = self.una
        for held in queue.chunks:
            assert held.sequence == position < held.end
            assert b"".join(held.payload) == content(held.sequence, held.end)
            for inside in range(held.sequence, held.end):
                byte = self.model.bytes[inside]
                assert (held.is_sacked, held.is_lost, held.in_pipe) == (
                    byte.is_sacked,
                    byte.is_lost,
                    byte.in_pipe,
                )
            position = held.end
        assert position == self.nxt
        assert queue.bytes_in_flight == self.model.in_flight()
        assert queue.sacked_bytes == self.model.sacked()
        in_pipe = [chunk for chunk in queue.chunks if chunk.in_pipe]
        assert queue.again_bytes == sum(chunk.length for chunk in in_pipe if chunk.is_lost)
        linked = []
        chunk = queue.oldest
        while chunk is not None:
            linked.append(chunk)
            chunk = chunk.later
        assert linked == sorted(linked, key=lambda chunk: chunk.sent_us)
        assert {id(chunk) for chunk in linked} == {id(chunk) for chunk in in_pipe}
        assert queue.lost_count == sum(chunk.is_lost for chunk in queue.chunks)


shares = st.floats(0, 1)
operations = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 60)),
    st.tuples(st.just("acknowledge"), shares, st.lists(st.tuples(shares, shares), max_size=3)),
    st.tuples(st.just("selective"), shares, shares),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("time out"), st.integers(0, 5)),
    st.tuples(st.just("restore")),
    st.tuples(st.just("retransmit"), st.integers(-20, 60)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations, max_size=40))
def test_queue_agrees_with_the_model(steps: list[tuple[object, ...]]) -> None:
    pair = Pair()
    pair.send(45)
    for step in steps:
        pair.now_us += 1
        match step:
            case ("send", int(length)):
                pair.send(length)
            case ("acknowledge", float(share), list(blocks)):
                pair.acknowledge(share, blocks)
            case ("selective", float(first), float(length)):
                pair.acknowledge(0.0, [(first, length)])
            case ("lose", int(window_us)):
                pair.find_losses(window_us)
            case ("time out", int(age_us)):
                pair.time_out(pair.now_us - age_us)
            case ("restore",):
                pair.restore()
            case ("retransmit", int(limit)):
                pair.retransmit(limit)
        pair.must_agree()


def queue_of(lengths: list[int], sent_us: int = 0) -> RetransmissionQueue:
    queue = RetransmissionQueue()
    position = 0
    for length in lengths:
        queue.append(Chunk(position, position + length, (bytes(length),), 0, sent_us))
        position += length
    return queue


def detect(queue: RetransmissionQueue, acknowledgement: int, *blocks: tuple[int, int]) -> int:
    """Bytes that RACK finds lost by this acknowledgement, a round trip after all was sent."""
    rack = Rack()
    rack.on_delivered(queue.acknowledge(acknowledgement, list(blocks)), 100)
    return rack.detect(queue, 0, 100)[0]


def test_what_was_sent_before_a_delivered_segment_is_lost() -> None:
    queue = queue_of([SEGMENT] * 6)
    assert detect(queue, 0, (10, 40)) == SEGMENT
    assert queue.bytes_in_flight == 20
    lost = queue.next_lost(100, SEGMENT)
    assert lost is queue.chunks[0]


def test_only_the_lost_part_of_a_super_segment_is_lost() -> None:
    queue = queue_of([60])
    assert detect(queue, 0, (30, 50)) == 30
    queue = queue_of([60])
    assert detect(queue, 10, (20, 60)) == 10


def test_samples_by_karns_rule() -> None:
    queue = queue_of([SEGMENT] * 2, sent_us=7)
    queue.mark_timed_out()
    first = queue.next_lost(SEGMENT, SEGMENT)
    assert first is not None
    queue.on_sent_again(first, 100)
    assert queue.acknowledge(10, []).has_retransmitted
    later = queue.acknowledge(20, [])
    assert (later.has_retransmitted, later.first_sent_us) == (False, 7)


def test_a_selective_acknowledgement_that_was_taken_back() -> None:
    """RFC 2018 §8: after a time-out with the first byte covered by SACK, none of it counts."""
    queue = queue_of([SEGMENT] * 3)
    queue.acknowledge(0, [(0, 20)])
    queue.mark_timed_out()
    assert queue.sacked_bytes == 0
    assert queue.next_lost(SEGMENT, SEGMENT) is queue.chunks[0]


class TraceFunction(Protocol):
    """What sys.settrace takes."""

    def __call__(self, frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None: ...


def lines_run(action: Callable[[], object]) -> int:
    """How many lines of Python the action runs: its cost, whatever the machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
        nonlocal count
        count += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(previous)
    return count


def cost_of_recovery(chunks: int) -> float:
    """Lines for each acknowledgement while all but the first segment are acknowledged selectively."""
    queue = queue_of([SEGMENT] * chunks)
    rack = Rack()

    def acknowledge_all() -> None:
        for number in range(2, chunks + 1):
            rack.on_delivered(queue.acknowledge(0, [(SEGMENT, number * SEGMENT)]), number)
            rack.detect(queue, 0, number)
            queue.next_lost(SEGMENT, SEGMENT)
        queue.acknowledge(chunks * SEGMENT, [])

    cost = lines_run(acknowledge_all) / chunks
    assert not queue.chunks
    assert queue.bytes_in_flight == queue.sacked_bytes == queue.lost_count == 0
    return cost


def test_the_cost_of_an_acknowledgement_does_not_grow_with_the_flight() -> None:
    assert cost_of_recovery(2000) < 1.2 * cost_of_recovery(100)


def test_cumulative_acknowledgements_cost_the_same_whatever_is_in_flight() -> None:
    costs = []
    for chunks in (100, 5000):
        queue = queue_of([SEGMENT] * chunks)
        costs.append(lines_run(partial(queue.acknowledge, 2 * SEGMENT, [])))
    assert costs[0] == costs[1]


def test_the_last_segment_takes_the_fin_along() -> None:
    """What a tail loss probe sends: not the FIN alone, as long as it followed data."""
    queue = RetransmissionQueue()
    queue.append(Chunk(0, 2 * SEGMENT + 1, (bytes(2 * SEGMENT),), ACK | PSH | FIN, 0))
    last = queue.last_segment(SEGMENT)
    assert last is not None
    assert (last.sequence, last.end, last.flags) == (SEGMENT, 2 * SEGMENT + 1, ACK | PSH | FIN)
    assert queue.chunks[0].flags == ACK
