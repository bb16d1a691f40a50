"""The virtio-net header: inverse in both directions, and nothing hostile gets through."""

from __future__ import annotations

import random
import struct

import pytest

from mptcp_stack.device.virtio_header import HEADER_LENGTH, decode, encode
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.device.packets import tcp_frame

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")


def header(
    flags: int = 0,
    gso_type: int = 0,
    header_length: int = 0,
    gso_size: int = 0,
    start: int = 0,
    offset: int = 0,
) -> bytes:
    return struct.pack("=BBHHHH", flags, gso_type, header_length, gso_size, start, offset)


def decoded(data: bytes) -> Frame:
    return decode(memoryview(data))


def test_ordinary_frame_has_an_empty_header() -> None:
    assert encode(Frame(b"frame")) == bytes(HEADER_LENGTH)
    assert decoded(bytes(HEADER_LENGTH) + b"frame") == Frame(b"frame")


def test_partial_checksum_names_its_field() -> None:
    frame = tcp_frame("10.0.0.1", "10.0.0.2", b"data", macs=MACS)
    assert encode(frame) == header(flags=1, header_length=54, start=34, offset=16)


@pytest.mark.parametrize(("family", "gso_type"), [("4", 1), ("6", 4)])
def test_super_segment_names_its_headers(family: str, gso_type: int) -> None:
    addresses = ("10.0.0.1", "10.0.0.2") if family == "4" else ("fd00::1", "fd00::2")
    frame = tcp_frame(*addresses, bytes(5000), gso_size=1400, options=bytes([1] * 12), macs=MACS)
    start = 34 if family == "4" else 54
    expected = header(1, gso_type, start + 32, 1400, start, 16)
    assert encode(frame) == expected
    # A frame that is passed on as it was received has its payload in ``head``.
    assert encode(decoded(expected + frame.to_bytes())) == expected


def test_super_segment_survives_a_round_trip() -> None:
    frame = tcp_frame("fd00::1", "fd00::2", bytes(range(256)) * 20, gso_size=1400, macs=MACS)
    received = decoded(encode(frame) + frame.to_bytes())
    assert received.head == frame.to_bytes()
    assert (received.gso_size, received.checksum, received.transport_offset) == (
        1400,
        ChecksumState.PARTIAL,
        54,
    )
    assert received.is_ipv6


def test_valid_flag_means_verified() -> None:
    assert decoded(header(flags=2) + b"frame").checksum is ChecksumState.VERIFIED


def test_received_frame_owns_its_bytes() -> None:
    buffer = bytearray(bytes(HEADER_LENGTH) + b"frame")
    frame = decode(memoryview(buffer))
    buffer[-5:] = b"other"
    assert frame.head == b"frame"


def test_congestion_bit_of_the_segmentation_type_is_no_other_type() -> None:
    frame = decoded(header(flags=1, gso_type=0x81, gso_size=100, start=0, offset=16) + bytes(400))
    assert frame.gso_size == 100
    assert not frame.is_ipv6


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(9),
        header(flags=1, start=40, offset=16) + bytes(57),
        header(flags=1, start=0xFFFF, offset=0xFFFF) + bytes(100),
        header(gso_type=1, gso_size=0) + bytes(100),
        header(gso_type=2, gso_size=100) + bytes(100),
        header(gso_type=0xFF, gso_size=100) + bytes(100),
    ],
    ids=["empty", "short", "field beyond frame", "field far beyond", "no size", "unknown type", "every bit"],
)
def test_contradictions_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        decoded(data)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(b"short", gso_size=100, checksum=ChecksumState.PARTIAL),
        Frame(bytes(60), gso_size=70000, checksum=ChecksumState.PARTIAL, transport_offset=34),
        Frame(bytes(60), checksum=ChecksumState.PARTIAL, transport_offset=-1),
    ],
    ids=["no TCP header", "size beyond the field", "negative offset"],
)
def test_impossible_metadata_is_refused(frame: Frame) -> None:
    with pytest.raises(MalformedPacketError):
        encode(frame)


def test_random_bytes_decode_or_are_malformed() -> None:
    source = random.Random(1)
    good = 0
    for _ in range(20_000):
        data = bytearray(source.randbytes(source.randrange(120)))
        if len(data) > 2 and source.random() < 0.7:
            data[0] &= 3
            data[1] = source.choice((0, 1, 3, 4, 5, 0x81))
        try:
            frame = decoded(bytes(data))
        except MalformedPacketError:
            continue
        good += 1
        assert frame.head == data[HEADER_LENGTH:]
        if frame.checksum is ChecksumState.PARTIAL:
            assert frame.transport_offset + frame.checksum_offset + 2 <= len(frame.head)
    assert good > 1000
