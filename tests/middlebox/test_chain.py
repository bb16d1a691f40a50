"""All boxes of a link together, and packets that none of them may touch."""

from __future__ import annotations

import random

import pytest

from testbed.middlebox.chain import Middlebox
from testbed.middlebox.segment import ACK, SYN
from testbed.middlebox.settings import (
    KINDS,
    BoxSettings,
    Nat44,
    Nat66,
    RandomiseSequence,
    Rewrite,
    Split,
    Strip,
    boxes_from_objects,
    boxes_to_objects,
)
from tests.middlebox.segments import CAPABLE_SYN, Path, segment

NATS: tuple[BoxSettings, ...] = (Nat44(address="192.0.2.1"), Nat66(address="fd00:0:0:9::1"))
"""Which let nothing pass that they do not know."""
ALL_BOXES: tuple[BoxSettings, ...] = tuple(
    kind() for name, kind in KINDS.items() if name not in ("nat44", "nat66")
)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(10),
        bytes(60),
        bytes(12) + b"\x08\x06" + bytes(28),
        bytes(12) + b"\x08\x00\x45",
        segment(1, payload=b"data").to_bytes()[:-1],
        segment(1, payload=b"data").to_bytes()[:-1] + b"!",
        segment(1, payload=b"data", family=6).to_bytes()[:-1] + b"!",
    ],
)
def test_what_is_no_sound_segment_passes_untouched(frame: bytes) -> None:
    middlebox = Middlebox(ALL_BOXES, seed=1)
    assert middlebox.forward(frame) == [frame]
    assert middlebox.backward(frame) == [frame]


def test_hostile_bytes() -> None:
    """Damage anywhere, also in the options behind right checksums, harms no box."""
    draw = random.Random(1)
    middlebox = Middlebox((*NATS, *ALL_BOXES), seed=1)
    for _ in range(3000):
        options = draw.randbytes(4 * draw.randrange(11)) if draw.random() < 0.5 else CAPABLE_SYN
        flags = draw.choice((SYN, SYN | ACK, ACK, draw.randrange(256)))
        sent = segment(draw.getrandbits(32), flags, draw.randbytes(draw.randrange(1400)), options)
        frame = bytearray(sent.to_bytes())
        if draw.random() < 0.3:
            frame[draw.randrange(len(frame))] ^= 1 << draw.randrange(8)
        way = middlebox.forward if draw.random() < 0.5 else middlebox.backward
        # Joined segments are as long as a packet may be.
        longest = max(len(frame), 1514) + 1000
        assert all(len(each) <= longest for each in way(bytes(frame)))


@pytest.mark.parametrize("family", [4, 6])
def test_way_back_is_the_way_in_reverse(family: int) -> None:
    """Numbers are translated by several boxes, each undoing its own part."""
    path = Path(Rewrite("->", 5, 4), RandomiseSequence(), Rewrite("->", 10, -2), Split(payload_bytes=6))
    path.forward(segment(99, SYN, family=family))
    arrived = path.forward(segment(100, payload=bytes(20), family=family))
    end = arrived[-1].sequence + len(arrived[-1].payload)
    assert sum(len(each.payload) for each in arrived) == 22
    (returned,) = path.backward(segment(7, is_answer=True, acknowledgment=end & 0xFFFF_FFFF, family=family))
    assert returned.acknowledgment == 120


def test_settings_survive_json() -> None:
    boxes = (*ALL_BOXES, Strip("<-", ("dss",), ("data", "ack")))
    assert boxes_from_objects(boxes_to_objects(boxes)) == boxes
