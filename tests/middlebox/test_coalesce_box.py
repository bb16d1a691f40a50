"""A box that joins segments: what continues and fits, until it has waited long enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.middlebox.chain import Middlebox
from testbed.middlebox.segment import ACK, FIN, PSH, SYN, Segment
from testbed.middlebox.settings import BoxSettings, Coalesce, RandomiseSequence, Split, counters_text
from tests.middlebox.segments import DSS_ACK, segment, whole


class Link:
    def __init__(self, *boxes: BoxSettings) -> None:
        self.middlebox = Middlebox(boxes, seed=1)

    def send(self, *segments: Segment, now_us: int = 0) -> list[Segment]:
        frames = [frame for each in segments for frame in self.middlebox.forward(each.to_bytes(), now_us)]
        return [whole(frame) for frame in frames]

    def wait(self, now_us: int) -> list[Segment]:
        return [whole(frame) for frame in self.middlebox.release("->", now_us)]


def data(sequence: int, length: int, options: bytes = DSS_ACK, flags: int = ACK) -> Segment:
    return segment(sequence, flags, bytes([sequence % 251]) * length, options)


def test_consecutive_segments_become_one() -> None:
    link = Link(Coalesce())
    last = replace(data(201, 50, flags=ACK | PSH), acknowledgment=7, window=9)
    assert link.send(data(1, 100), data(101, 100), whole(last.to_bytes())) == []
    assert link.middlebox.next_release_us("->") == 500
    assert link.wait(499) == []
    (joined,) = link.wait(500)
    assert (joined.sequence, len(joined.payload), joined.flags) == (1, 250, ACK | PSH)
    assert (joined.acknowledgment, joined.window, joined.options) == (7, 9, DSS_ACK)
    assert joined.payload == bytes([1]) * 100 + bytes([101]) * 100 + bytes([201]) * 50
    assert link.middlebox.next_release_us("->") is None
    (counters, _backward) = link.middlebox.counters
    assert counters_text(counters) == "coalesce ->: 3 packets, 2 joined"


@pytest.mark.parametrize(
    "second",
    [data(102, 10), data(100, 10), data(101, 10, b""), data(101, 1400), segment(101, ACK), segment(101, SYN)],
)
def test_what_does_not_continue_or_fit_comes_after_what_waits(second: Segment) -> None:
    link = Link(Coalesce())
    first = data(1, 100)
    passed = [*link.send(first, second), *link.wait(10_000)]
    assert passed == [first, second]


def test_options_may_get_lost_where_that_is_asked_for() -> None:
    link = Link(Coalesce(options="first"))
    link.send(data(1, 100), data(101, 100, b"\x01" * 8))
    (joined,) = link.wait(500)
    assert (len(joined.payload), joined.options) == (200, DSS_ACK)


def test_an_end_of_data_is_joined_and_goes_on_at_once() -> None:
    link = Link(Coalesce())
    (joined,) = link.send(data(1, 100), data(101, 100, flags=ACK | FIN))
    assert (len(joined.payload), joined.flags) == (200, ACK | FIN)


def test_packets_are_no_longer_than_asked_and_others_wait_by_themselves() -> None:
    link = Link(Coalesce(packet_bytes=300, hold_us=900))
    other = replace(data(1, 100), source_port=4001)
    passed = link.send(data(1, 100), whole(other.to_bytes()), data(101, 100), data(201, 100), now_us=100)
    assert [len(each.payload) for each in passed] == [200]
    assert link.middlebox.next_release_us("->") == 1000
    assert [(each.source_port, len(each.payload)) for each in link.wait(1000)] == [(4001, 100), (4000, 100)]


def test_later_boxes_see_what_was_joined() -> None:
    link = Link(
        Split(payload_bytes=40, direction="->"), Coalesce(direction="->"), RandomiseSequence(direction="->")
    )
    assert link.send(data(1, 100)) == []
    (joined,) = link.wait(500)
    assert (len(joined.payload), joined.payload) == (100, bytes([1]) * 100)
    assert joined.sequence != 1
