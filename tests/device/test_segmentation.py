"""Software segmentation against an obvious re-computation of every field."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.device.segmentation import complete_checksum, segment_frame
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device.packets import ACK, CWR, FIN, PSH, ParsedTcp, tcp_frame, word_sum

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
ADDRESSES = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
PAYLOAD = random.Random(7).randbytes(5001)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("link_layer", list(LinkLayer))
def test_segments_are_what_a_wire_would_carry(family: int, link_layer: LinkLayer) -> None:
    frame = tcp_frame(
        *ADDRESSES[family],
        PAYLOAD,
        sequence=0xFFFFFFFF - 1000,
        flags=ACK | PSH | FIN | CWR,
        options=b"\x01\x01\x08\x0a" + bytes(range(8)),
        gso_size=1400,
        identification=0xFFFE,
        macs=MACS if link_layer is LinkLayer.ETHERNET else None,
    )
    segments = segment_frame(frame, link_layer.header_length)
    parsed = [ParsedTcp(segment, link_layer) for segment in segments]
    assert b"".join(segment.payload for segment in parsed) == PAYLOAD
    assert [len(segment.payload) for segment in parsed] == [1400, 1400, 1400, 801]
    assert [segment.sequence for segment in parsed] == [
        (0xFFFFFFFF - 1000 + 1400 * index) % 2**32 for index in range(4)
    ]
    assert [segment.flags for segment in parsed] == [ACK | CWR, ACK, ACK, ACK | PSH | FIN]
    assert all(segment.checksum_is_good for segment in parsed)
    assert all(segment.tcp[20:32] == parsed[0].tcp[20:32] for segment in parsed)
    assert all(segment.checksum is ChecksumState.UNVERIFIED and not segment.gso_size for segment in segments)
    start = link_layer.header_length
    if family == 4:
        headers = [segment.to_bytes()[start : start + 20] for segment in segments]
        assert all(word_sum(header) == 0xFFFF for header in headers)
        identifications = [struct.unpack_from("!H", header, 4)[0] for header in headers]
        assert identifications == [0xFFFE, 0xFFFF, 0, 1]


@pytest.mark.parametrize("family", [4, 6])
def test_unfinished_checksums_may_stay_so(family: int) -> None:
    frame = tcp_frame(*ADDRESSES[family], PAYLOAD, gso_size=1400, macs=MACS)
    unfinished = segment_frame(frame, 14, completes_checksums=False)
    assert all(segment.checksum is ChecksumState.PARTIAL and not segment.gso_size for segment in unfinished)
    finished = [complete_checksum(segment, 14).to_bytes() for segment in unfinished]
    assert finished == [segment.to_bytes() for segment in segment_frame(frame, 14)]
    # What is finished already, as after a real network, is so afterwards.
    whole = replace(frame, checksum=ChecksumState.VERIFIED)
    segments = segment_frame(whole, 14, completes_checksums=False)
    assert [segment.to_bytes() for segment in segments] == finished
    assert all(segment.checksum is ChecksumState.UNVERIFIED for segment in segments)


def test_payload_in_several_buffers_and_in_the_head() -> None:
    whole = tcp_frame(*ADDRESSES[4], PAYLOAD, gso_size=1400, macs=MACS)
    expected = [segment.to_bytes() for segment in segment_frame(whole, 14)]
    pieces = (PAYLOAD[:10], memoryview(PAYLOAD)[10:1401], bytearray(PAYLOAD[1401:]))
    flat = whole.to_bytes()
    for variant in (
        replace(whole, payload=pieces),
        replace(whole, head=flat, payload=()),
        replace(whole, head=flat[:60], payload=(flat[60:],)),
    ):
        assert [segment.to_bytes() for segment in segment_frame(variant, 14)] == expected


def test_payload_is_not_copied() -> None:
    frame = tcp_frame(*ADDRESSES[4], PAYLOAD, gso_size=1400, macs=MACS)
    (view,) = segment_frame(frame, 14)[1].payload
    assert isinstance(view, memoryview)
    assert view.obj is PAYLOAD


def test_super_segment_of_a_single_segment_keeps_its_flags() -> None:
    frame = tcp_frame(*ADDRESSES[6], b"abc", flags=ACK | PSH | FIN | CWR, gso_size=1400)
    (segment,) = segment_frame(frame, 0)
    assert ParsedTcp(segment, LinkLayer.RAW_IP).flags == ACK | PSH | FIN | CWR


def test_ipv6_extension_headers_are_walked() -> None:
    plain = tcp_frame(*ADDRESSES[6], PAYLOAD, gso_size=1400)
    head = bytearray(plain.head)
    head[6] = 0
    struct.pack_into("!H", head, 4, struct.unpack_from("!H", head, 4)[0] + 8)
    extension = bytes((6, 0, 1, 4, 0, 0, 0, 0))
    extended = replace(plain, head=bytes(head[:40]) + extension + bytes(head[40:]), transport_offset=48)
    segments = segment_frame(extended, 0)
    plain_segments = segment_frame(plain, 0)
    assert [s.to_bytes()[48:] for s in segments] == [s.to_bytes()[40:] for s in plain_segments]
    assert struct.unpack_from("!H", segments[0].head, 4)[0] == 8 + 20 + 1400


def test_ordinary_frame_gets_its_checksum_only() -> None:
    frame = tcp_frame(*ADDRESSES[4], b"odd", macs=MACS)
    (segment,) = segment_frame(frame, 14)
    assert ParsedTcp(segment, LinkLayer.ETHERNET).checksum_is_good
    assert segment.checksum is ChecksumState.UNVERIFIED
    assert complete_checksum(segment, 14) is segment


def test_udp_never_sends_a_zero_checksum() -> None:
    # One word that makes the sum 0xFFFF, so that its complement is zero.
    frame = Frame(
        bytes(20) + b"\0\0\0\0\0\0\xff\xff",
        checksum=ChecksumState.PARTIAL,
        transport_offset=20,
        checksum_offset=6,
    )
    assert complete_checksum(frame, 0).to_bytes()[26:28] == b"\xff\xff"


def malformed_frames() -> dict[str, Frame]:
    good = tcp_frame(*ADDRESSES[4], PAYLOAD, gso_size=1400)
    good6 = tcp_frame(*ADDRESSES[6], PAYLOAD, gso_size=1400)

    def changed(frame: Frame, position: int, value: int) -> Frame:
        head = bytearray(frame.head)
        head[position] = value
        return replace(frame, head=bytes(head))

    return {
        "empty": replace(good, head=b"", payload=()),
        "version 5": changed(good, 0, 0x55),
        "header length 4": changed(good, 0, 0x41),
        "UDP": changed(good, 9, 17),
        "fragment": changed(good, 6, 0x20),
        "TCP header cut": replace(good, head=good.head[:30], payload=()),
        "TCP data offset 0": changed(good, 32, 0),
        "TCP options cut": replace(changed(good, 32, 0xF0), payload=(b"abc",)),
        "IPv6 cut": replace(good6, head=good6.head[:30], payload=()),
        "IPv6 UDP": changed(good6, 6, 17),
        "IPv6 extension beyond the end": replace(changed(changed(good6, 6, 60), 41, 255), payload=()),
        "segments too long": replace(good, gso_size=65535),
    }


@pytest.mark.parametrize("name", malformed_frames())
def test_what_cannot_be_cut_is_malformed(name: str) -> None:
    with pytest.raises(MalformedPacketError):
        segment_frame(malformed_frames()[name], 0)


def test_random_damage_is_cut_or_malformed() -> None:
    source = random.Random(3)
    for _ in range(3000):
        family = source.choice((4, 6))
        frame = tcp_frame(
            *ADDRESSES[family], PAYLOAD[: source.randrange(3000)], gso_size=source.randrange(1, 2000)
        )
        head = bytearray(frame.head[: source.choice((len(frame.head), source.randrange(len(frame.head))))])
        for _ in range(source.randrange(4)):
            if head:
                head[source.randrange(len(head))] = source.randrange(256)
        damaged = replace(frame, head=bytes(head), transport_offset=source.choice((0, 20, 40, 200)))
        try:
            segments = segment_frame(damaged, 0)
        except MalformedPacketError:
            continue
        assert len(segments) <= len(damaged)
        complete_checksum(replace(damaged, gso_size=0), 0)
