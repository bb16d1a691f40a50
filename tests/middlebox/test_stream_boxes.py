"""Boxes that change the byte stream: what either end sees fits together all the same."""

from __future__ import annotations

import pytest

from testbed.middlebox.flows import FlowTable
from testbed.middlebox.segment import ACK, FIN, PSH, RST, SYN
from testbed.middlebox.settings import Firewall, RandomiseSequence, Reset, Rewrite, Split
from tests.middlebox.segments import DSS_ACK, Path, segment

FIRST = 0xFFFF_FFF0
"""Sequence numbers wrap around soon after it."""
DATA = bytes(range(100))


def opened(path: Path, family: int = 4) -> Path:
    path.forward(segment(FIRST - 1, SYN, family=family))
    path.backward(segment(700, SYN | ACK, is_answer=True, acknowledgment=FIRST, family=family))
    return path


def sack(left: int, right: int) -> bytes:
    return b"\x05\x0a" + left.to_bytes(4, "big") + right.to_bytes(4, "big")


@pytest.mark.parametrize("family", [4, 6])
def test_split(family: int) -> None:
    sent = segment(FIRST, ACK | PSH | FIN, DATA, DSS_ACK, family=family)
    pieces = Path(Split(payload_bytes=40)).forward(sent)
    assert [len(piece.payload) for piece in pieces] == [40, 40, 20]
    assert [piece.sequence for piece in pieces] == [FIRST, FIRST + 40 - 2**32, FIRST + 80 - 2**32]
    assert [piece.flags for piece in pieces] == [ACK, ACK, ACK | PSH | FIN]
    assert all(piece.options == DSS_ACK for piece in pieces)


def test_randomised_numbers_are_translated_back() -> None:
    path = Path(RandomiseSequence(direction="->"))
    (arrived,) = path.forward(segment(FIRST, payload=DATA))
    assert arrived.sequence != FIRST
    options = b"\x01\x01" + sack(arrived.sequence + 10 & 0xFFFF_FFFF, arrived.sequence + 20 & 0xFFFF_FFFF)
    answer = segment(5, is_answer=True, acknowledgment=arrived.sequence, options=options)
    (returned,) = path.backward(answer)
    assert (returned.sequence, returned.acknowledgment) == (5, FIRST)
    assert returned.options == b"\x01\x01" + sack(FIRST + 10, FIRST + 20 & 0xFFFF_FFFF)


def test_numbers_depend_on_flow_and_seed_alone() -> None:
    def number(port: int, seed: int) -> int:
        (arrived,) = Path(RandomiseSequence(direction="->"), seed=seed).forward(segment(0, SYN, port=port))
        return arrived.sequence

    assert number(1, 1) == number(1, 1)
    assert len({number(1, 1), number(2, 1), number(1, 2)}) == 3


def test_one_byte_is_changed_and_again_when_sent_again() -> None:
    path = opened(Path(Rewrite(direction="->", after_bytes=50)))
    changed = DATA[:50] + bytes((DATA[50] ^ 0x20,)) + DATA[51:]
    for _ in range(2):
        (arrived,) = path.forward(segment(FIRST, payload=DATA))
        assert (arrived.payload, arrived.sequence) == (changed, FIRST)
    (later,) = path.forward(segment(FIRST + 100 & 0xFFFF_FFFF, payload=DATA))
    assert later.payload == DATA
    (part,) = path.forward(segment(FIRST + 50 & 0xFFFF_FFFF, payload=DATA[50:60]))
    assert part.payload == changed[50:60]


@pytest.mark.parametrize("grow_by", [3, -3, -60, 200])
@pytest.mark.parametrize("size", [7, 50, 100])
def test_length_changes_once_and_all_numbers_follow(grow_by: int, size: int) -> None:
    path = opened(Path(Rewrite(direction="->", after_bytes=20, grow_by=grow_by)))
    expected = DATA[:20] + (b"*" * grow_by + DATA[20:] if grow_by > 0 else DATA[20 - grow_by :])
    received = bytearray(len(expected))
    for start in [*range(0, 100, size), 0]:
        payload = DATA[start : start + size]
        for arrived in path.forward(segment(FIRST + start & 0xFFFF_FFFF, payload=payload)):
            offset = arrived.sequence - FIRST & 0xFFFF_FFFF
            assert len(arrived.payload) <= size
            received[offset : offset + len(arrived.payload)] = arrived.payload
    assert bytes(received) == expected
    (fin,) = path.forward(segment(FIRST + 100 & 0xFFFF_FFFF, ACK | FIN))
    assert fin.sequence == FIRST + len(expected) & 0xFFFF_FFFF
    answer = segment(
        701,
        is_answer=True,
        acknowledgment=fin.sequence,
        options=sack(fin.sequence, fin.sequence) + b"\x01\x01",
    )
    (returned,) = path.backward(answer)
    end = FIRST + 100 & 0xFFFF_FFFF
    assert returned.acknowledgment == end
    assert returned.options == sack(end, end) + b"\x01\x01"
    (early,) = path.backward(segment(701, is_answer=True, acknowledgment=FIRST + 15))
    assert early.acknowledgment == FIRST + 15


def test_a_connection_whose_beginning_was_not_seen_is_left_alone() -> None:
    sent = segment(5, payload=DATA)
    for box in (Rewrite(grow_by=5), Reset()):
        assert Path(box).forward(sent) == [sent]


@pytest.mark.parametrize("family", [4, 6])
def test_reset_once_and_in_sequence(family: int) -> None:
    path = opened(Path(Reset(direction="->", after_bytes=150)), family)
    sent = segment(FIRST, payload=DATA, family=family)
    assert path.forward(sent) == [sent]
    assert path.forward(sent) == [sent], "sent again is not more data"
    second = segment(FIRST + 100 & 0xFFFF_FFFF, payload=DATA, options=DSS_ACK, family=family)
    passed, reset = path.forward(second)
    assert passed == second
    assert (reset.flags, reset.sequence) == (RST | ACK, FIRST + 200 & 0xFFFF_FFFF)
    assert (reset.payload, reset.options) == (b"", b"")
    assert path.forward(second) == [second]


def test_firewall_knows_who_may_begin() -> None:
    path = Path(Firewall())
    data = segment(1, payload=DATA)
    assert path.forward(data) == []
    assert path.backward(segment(1, SYN, is_answer=True)) == []
    path.forward(segment(0, SYN))
    assert path.forward(data) == [data]
    assert path.backward(segment(1, SYN, is_answer=True)) == [], "the other way is nobody's to open"
    answer = segment(1, SYN | ACK, is_answer=True)
    assert path.backward(answer) == [answer]


def test_tables_forget_the_oldest() -> None:
    table = FlowTable(limit=3)
    segments = [segment(0, SYN, port=port) for port in (1, 2, 3, 4)]
    for each in segments:
        table.open(each)
    assert len(table) == 3
    assert table.find(segments[0].flow) is None
    assert table.find(segments[3].flow) is not None


def test_what_was_put_in_is_acknowledged_to_nobody() -> None:
    """An acknowledgement of a part of it says no more than one of what stood before."""
    path = opened(Path(Rewrite(direction="->", after_bytes=20, grow_by=200)))
    path.forward(segment(FIRST, payload=DATA))
    for position, expected in ((20, 20), (21, 20), (219, 20), (220, 20), (221, 21)):
        acknowledged = FIRST + position & 0xFFFF_FFFF
        (returned,) = path.backward(segment(701, is_answer=True, acknowledgment=acknowledged))
        assert returned.acknowledgment == FIRST + expected & 0xFFFF_FFFF
