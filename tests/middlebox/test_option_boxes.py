"""Boxes that strip, repeat or take offence at options of MPTCP."""

from __future__ import annotations

import pytest

from testbed.middlebox.segment import ACK, SYN, Segment
from testbed.middlebox.settings import SUBTYPES, DropMptcpSyns, DuplicateOptions, Strip
from tests.middlebox.segments import CAPABLE_ACK, CAPABLE_SYN, DSS_ACK, JOIN_SYN, Path, segment

TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
PACKETS = {
    "syn": segment(0, SYN, options=CAPABLE_SYN),
    "syn_ack": segment(0, SYN | ACK, options=CAPABLE_SYN),
    "third_ack": segment(1, options=CAPABLE_ACK),
    "data": segment(1, payload=b"data", options=DSS_ACK),
    "ack": segment(1, options=DSS_ACK),
}


@pytest.mark.parametrize("asked", PACKETS)
@pytest.mark.parametrize("sent", PACKETS)
def test_only_the_asked_kind_of_packet_is_stripped(asked: str, sent: str) -> None:
    (arrived,) = Path(Strip(packets=(asked,))).forward(PACKETS[sent])
    assert bool(arrived.mptcp_subtypes()) is (asked != sent)
    assert arrived.payload == PACKETS[sent].payload


@pytest.mark.parametrize("family", [4, 6])
def test_only_the_asked_subtype_is_stripped(family: int) -> None:
    sent = segment(1, options=TIMESTAMPS + DSS_ACK + CAPABLE_SYN, family=family)
    (arrived,) = Path(Strip(subtypes=("dss",))).forward(sent)
    assert arrived.options == TIMESTAMPS + b"\x01" * 8 + CAPABLE_SYN


def test_stripping_keeps_to_its_direction() -> None:
    path = Path(Strip(direction="<-"))
    syn = PACKETS["syn"]
    assert path.forward(syn) == [syn]
    assert path.backward(syn)[0].options == b"\x01" * 4


@pytest.mark.parametrize(
    ("sent", "passes"),
    [
        (segment(0, SYN, options=CAPABLE_SYN), False),
        (segment(0, SYN, options=JOIN_SYN), True),
        (segment(0, SYN), True),
        (segment(0, SYN | ACK, options=CAPABLE_SYN), True),
        (segment(0, options=CAPABLE_ACK), True),
    ],
)
def test_black_hole(sent: Segment, passes: bool) -> None:
    assert bool(Path(DropMptcpSyns(subtypes=("mp_capable",))).forward(sent)) is passes


def test_options_are_repeated_where_there_is_room() -> None:
    path = Path(DuplicateOptions())
    (arrived,) = path.forward(segment(1, options=TIMESTAMPS + DSS_ACK))
    assert arrived.options == DSS_ACK + TIMESTAMPS + DSS_ACK
    full = segment(1, options=TIMESTAMPS + CAPABLE_ACK)
    assert path.forward(full) == [full]


def test_every_subtype_has_the_number_of_the_protocol() -> None:
    assert SUBTYPES.index("mp_tcprst") == 8
    for number, name in enumerate(SUBTYPES):
        options = bytes((30, 4, number << 4, 0))
        (arrived,) = Path(Strip(subtypes=(name,))).forward(segment(1, options=options))
        assert arrived.options == b"\x01" * 4
