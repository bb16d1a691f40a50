"""Boxes on the way: what they remove and damage, and that checksums stay right where they should."""

from __future__ import annotations

import random

import pytest

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.tcp_segment import SYN
from testbed.soak.middlebox import Box, FoundSegment, blank_options, damage, find_segment
from testbed.soak.run import Soak
from testbed.soak.scenario import PathPlan, Stripping, Trouble
from tests.soak.test_judgement import WIRE, problems, scenario


def frames(*, is_raw_ip: bool) -> list[bytes]:
    """Of a whole connection, both directions."""
    seen: list[bytes] = []

    def watch(soak: Soak) -> None:
        soak.hosts.simulator.add_tap(note)

    def note(now_us: int, wire: str, direction: str, frame: Frame) -> None:
        if direction == "sent":
            seen.append(frame.to_bytes())

    assert problems(scenario(path=PathPlan(WIRE, WIRE, is_raw_ip=is_raw_ip)), watch) == []
    return seen


def found_in(frame: bytes, layer: LinkLayer) -> FoundSegment:
    found = find_segment(frame, layer)
    assert found is not None
    return found


@pytest.mark.parametrize("layer", [LinkLayer.ETHERNET, LinkLayer.RAW_IP])
def test_stripping_takes_mptcp_and_leaves_the_rest(layer: LinkLayer) -> None:
    stripper = Box(layer, random.Random(1), Stripping.ALL, 0.0)
    segments = [
        frame
        for frame in frames(is_raw_ip=layer is LinkLayer.RAW_IP)
        if find_segment(frame, layer) is not None
    ]
    assert len(segments) > 40
    changed = 0
    for frame in segments:
        (stripped,) = stripper.rewrite(frame, 0)
        found = found_in(stripped, layer)
        assert not blank_options(bytearray(found.ip_packet.payload), found.header_length)
        assert len(stripped) == len(frame)
        changed += stripped != frame
    assert changed > 40


@pytest.mark.parametrize(
    ("stripping", "syns", "others"),
    [(Stripping.SYNS, True, False), (Stripping.AFTER_SYNS, False, True), (Stripping.LATER, False, False)],
)
def test_stripping_chooses_its_packets(stripping: Stripping, syns: bool, others: bool) -> None:
    layer = LinkLayer.RAW_IP
    all_frames = [frame for frame in frames(is_raw_ip=True) if find_segment(frame, layer) is not None]
    syn = next(frame for frame in all_frames if found_in(frame, layer).flags == SYN)
    data = max(all_frames, key=len)
    assert (Box(layer, random.Random(1), stripping, 0.0).rewrite(syn, 0) != [syn]) == syns
    assert (Box(layer, random.Random(1), stripping, 0.0).rewrite(data, 0) != [data]) == others


def test_stripping_later_begins_in_the_middle() -> None:
    layer = LinkLayer.RAW_IP
    data = max(frames(is_raw_ip=True), key=len)
    stripper = Box(layer, random.Random(1), Stripping.LATER, 0.0)
    results = [stripper.rewrite(data, index) == [data] for index in range(20)]
    assert results == [True] * 12 + [False] * 8


def test_damage_under_a_right_checksum_is_found_by_dss_alone() -> None:
    plan = PathPlan(WIRE, WIRE, damages_data=0.2)
    counters: list[Stack] = []
    drawn = scenario(Trouble.DATA_CORRUPTION, path=plan)
    problems(drawn, lambda soak: counters.extend((soak.hosts.client, soak.hosts.server)))
    assert all(stack.counters["TcpInErrs"] == 0 for stack in counters)
    layer = LinkLayer.ETHERNET
    data = max(frames(is_raw_ip=False), key=len)
    (damaged,) = Box(layer, random.Random(1), None, 1.0).rewrite(data, 0)
    before, after = (found_in(frame, layer).ip_packet.payload for frame in (data, damaged))
    header_length = found_in(data, layer).header_length
    differing = [index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert [index for index in differing if index >= header_length] != []
    assert {16, 17} >= {index for index in differing if index < header_length}


def test_ordinary_damage_spares_arp() -> None:
    arp = next(frame for frame in frames(is_raw_ip=False) if frame[12:14] == b"\x08\x06")
    assert damage(arp, 200, LinkLayer.ETHERNET) == arp
    assert damage(bytes(40), 0, LinkLayer.RAW_IP) == b"\x80" + bytes(39)


@pytest.mark.parametrize("frame", [b"", bytes(14), bytes(60), bytes([0x45]) * 60])
@pytest.mark.parametrize("layer", [LinkLayer.ETHERNET, LinkLayer.RAW_IP])
def test_what_is_no_segment_passes(frame: bytes, layer: LinkLayer) -> None:
    assert find_segment(frame, layer) is None
    assert Box(layer, random.Random(1), Stripping.ALL, 1.0).rewrite(frame, 0) == [frame]
