"""Acknowledgements that the next one says as well are left out, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.ip.superseding import without_superseded
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.ip.single_host import OUR_MAC, OUR_V4, OUR_V6, PEER_MAC, PEER_V4, PEER_V6

ETHERNET = Interface(2, "eth0", LinkType.ETHERNET, b"\x02\0\0\0\0\x01", 1500)
RAW_IP = Interface(2, "tun0", LinkType.RAW_IP, b"", 1500)
VERSIONS = pytest.mark.parametrize("version", [4, 6])
BASE = 0xFFFFFC00
"""Numbers wrap within each test."""


def acknowledgement(
    number: int, version: int = 4, data_ack_bytes: int = 4, data_ack: int | None = None
) -> Packet:
    """The one of that number: each acknowledges 1000 bytes more than that before, at both levels."""
    addresses = (
        IP(src=PEER_V4, dst=OUR_V4, id=number, flags="DF")
        if version == 4
        else IPv6(src=PEER_V6, dst=OUR_V6, fl=77)
    )
    acknowledged = (BASE + number * 1000) & 0xFFFFFFFF
    options: list[tuple[object, object]] = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
    if data_ack_bytes:
        at_data_level = acknowledged if data_ack is None else data_ack
        flags = {4: b"\x20\x01", 8: b"\x20\x03"}[data_ack_bytes]
        options.append((30, flags + at_data_level.to_bytes(data_ack_bytes, "big")))
    tcp = TCP(sport=80, dport=9000, seq=1, ack=acknowledged, flags="A", window=99 + number, options=options)
    return Ether(src=PEER_MAC, dst=OUR_MAC) / addresses / tcp


def frames_of(*packets: Packet) -> list[Frame]:
    return [
        Frame(bytes(packet), checksum=ChecksumState.PARTIAL, is_ipv6=IPv6 in packet) for packet in packets
    ]


@VERSIONS
@pytest.mark.parametrize("data_ack_bytes", [0, 4, 8])
@pytest.mark.parametrize("interface", [ETHERNET, RAW_IP])
def test_of_several_in_a_row_the_last_stays(version: int, data_ack_bytes: int, interface: Interface) -> None:
    frames = frames_of(*[acknowledgement(number, version, data_ack_bytes) for number in range(5)])
    if interface is RAW_IP:
        for frame in frames:
            frame.head = frame.head[14:]
    assert without_superseded(frames, interface) == frames[-1:]


def test_other_frames_in_between_keep_them_all() -> None:
    other = (
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_V4, dst=OUR_V4)
        / UDP(sport=80, dport=9000)
        / (b"x" * 32)
    )
    assert len(other) == len(acknowledgement(0))
    frames = frames_of(acknowledgement(0), other, acknowledgement(1))
    assert without_superseded(frames, ETHERNET) == frames
    frames = frames_of(acknowledgement(0, 6), acknowledgement(1, 4), acknowledgement(2, 6))
    assert without_superseded(frames, ETHERNET) == frames


@pytest.mark.parametrize(
    ("numbers", "kept"), [((1, 0), (1, 0)), ((1, 1), (1, 1)), ((0, 1, 1, 2), (1, 2)), ((0, 2, 1), (2, 1))]
)
def test_what_does_not_acknowledge_more_stays(numbers: tuple[int, ...], kept: tuple[int, ...]) -> None:
    """Duplicates tell of losses; an old one is not for this module to judge."""
    frames = frames_of(*map(acknowledgement, numbers))
    assert [frame.head for frame in without_superseded(frames, ETHERNET)] == [
        bytes(acknowledgement(number)) for number in kept
    ]


@pytest.mark.parametrize("data_ack_bytes", [4, 8])
def test_a_data_ack_that_goes_back_keeps_both(data_ack_bytes: int) -> None:
    frames = frames_of(
        acknowledgement(0, 4, data_ack_bytes, data_ack=5000),
        acknowledgement(1, 4, data_ack_bytes, data_ack=4999),
    )
    assert without_superseded(frames, ETHERNET) == frames
    frames[1] = frames_of(acknowledgement(1, 4, data_ack_bytes, data_ack=5000))[0]
    assert without_superseded(frames, ETHERNET) == frames[1:]


def change(layer: type[Packet], **fields: object) -> Callable[[Packet], None]:
    def apply(packet: Packet) -> None:
        for name, value in fields.items():
            setattr(packet[layer], name, value)

    return apply


def options(*entries: tuple[object, object]) -> Callable[[Packet], None]:
    return change(TCP, options=list(entries))


TIMESTAMPS = (("NOP", None), ("NOP", None), ("Timestamp", (7, 8)))
DIFFERENT: dict[str, tuple[int, Callable[[Packet], None]]] = {
    "another peer": (4, change(IP, src="192.0.2.9")),
    "another peer, IPv6": (6, change(IPv6, src="2001:db8::99")),
    "another port": (4, change(TCP, sport=81)),
    "another sequence number": (4, change(TCP, seq=2)),
    "another timestamp": (4, options(*TIMESTAMPS[:2], ("Timestamp", (8, 8)), (30, b"\x20\x01abcd"))),
    "another echo": (4, options(*TIMESTAMPS[:2], ("Timestamp", (7, 9)), (30, b"\x20\x01abcd"))),
    "no data ACK": (4, options(*TIMESTAMPS, (30, b"\x20\x00abcd"))),
    "DATA_FIN": (4, options(*TIMESTAMPS, (30, b"\x20\x11abcd"))),
    "MP_PRIO": (4, options(*TIMESTAMPS, (30, b"\x50abcde"))),
    "another option": (4, options(*TIMESTAMPS, (254, b"\x20\x01abcd"))),
    "SACK instead": (
        4,
        options(*TIMESTAMPS[:2], ("SAck", (5, 6)), ("NOP", None), ("NOP", None), (254, b"abcdef")),
    ),
    "SYN": (4, change(TCP, flags="SA")),
    "FIN": (4, change(TCP, flags="FA")),
    "RST": (4, change(TCP, flags="RA")),
    "ECE": (4, change(TCP, flags="EA")),
    "congestion experienced": (4, change(IP, tos=3)),
    "congestion experienced, IPv6": (6, change(IPv6, tc=3)),
    "a fragment": (4, change(IP, flags="MF")),
    "another TTL": (4, change(IP, ttl=3)),
    "other length": (4, change(IP, len=59)),
    "other length, IPv6": (6, change(IPv6, plen=39)),
    "another protocol": (4, change(IP, proto=17)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
@pytest.mark.parametrize("position", [0, 1])
def test_those_that_differ_in_anything_else_stay(kind: str, position: int) -> None:
    version, apply = DIFFERENT[kind]
    packets = [acknowledgement(number, version) for number in range(2)]
    apply(packets[position])
    frames = frames_of(*packets)
    assert without_superseded(frames, ETHERNET) == frames


def test_data_stays() -> None:
    frames = frames_of(*[acknowledgement(number, data_ack_bytes=0) / b"12345678" for number in range(2)])
    assert len(frames[0]) == len(acknowledgement(0)), "as long as one with a data ACK"
    assert without_superseded(frames, ETHERNET) == frames


@pytest.mark.parametrize("position", [0, 1])
def test_what_is_still_to_be_verified_stays(position: int) -> None:
    """A damaged one behind a good one must not take its place."""
    frames = frames_of(*[acknowledgement(number) for number in range(2)])
    frames[position].checksum = ChecksumState.UNVERIFIED
    assert without_superseded(frames, ETHERNET) == frames


@VERSIONS
@pytest.mark.parametrize("seed", range(10))
def test_nothing_but_superseded_acknowledgements_gets_lost(version: int, seed: int) -> None:
    rng = random.Random(seed)
    frames = frames_of(*[acknowledgement(number, version, rng.choice((0, 4, 4, 8))) for number in range(60)])
    for frame in rng.sample(frames, 25):
        data = bytearray(frame.head)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        elif rng.random() < 0.9:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            data += rng.randbytes(8)
        frame.head = bytes(data)
    kept = list(without_superseded(frames, ETHERNET))
    positions = [next(at for at, frame in enumerate(frames) if frame is each) for each in kept]
    assert positions == sorted(positions)
    assert len(frames) - 1 in positions
    for at in set(range(len(frames))) - set(positions):
        assert len(frames[at]) == len(frames[at + 1])
    assert len(kept) < len(frames)
