"""Segments that a device hands over at once become super-segments, and nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from mptcp_stack.device.segmentation import segment_frame
from mptcp_stack.ip.coalescing import coalesce
from mptcp_stack.ip.interface import Interface, LinkType
from mptcp_stack.wire.frame import ChecksumState, Frame
from tests.ip.single_host import OUR_MAC, OUR_V4, OUR_V6, PEER_MAC, PEER_V4, PEER_V6

ETHERNET = Interface(2, "eth0", LinkType.ETHERNET, b"\x02\0\0\0\0\x01", 1500)
RAW_IP = Interface(2, "tun0", LinkType.RAW_IP, b"", 1500)
SEGMENT_BYTES = 1000
BASE = 0xFFFFF000
TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def segment(index: int, version: int = 4, length: int = SEGMENT_BYTES, flags: str = "A") -> Packet:
    """The one at that place, of segments of the same size."""
    addresses = (
        IP(src=PEER_V4, dst=OUR_V4, id=index, flags="DF")
        if version == 4
        else IPv6(src=PEER_V6, dst=OUR_V6, fl=77)
    )
    sequence = (BASE + index * SEGMENT_BYTES) & 0xFFFFFFFF
    tcp = TCP(sport=80, dport=9000, seq=sequence, ack=5, flags=flags, window=99, options=TIMESTAMPS)
    return Ether(src=PEER_MAC, dst=OUR_MAC) / addresses / tcp / random.Random(index).randbytes(length)


def frames_of(*packets: Packet) -> list[Frame]:
    return [Frame(bytes(packet), is_ipv6=IPv6 in packet) for packet in packets]


def expanded(frames: list[Frame], link_bytes: int = 14) -> list[bytes]:
    """What a wire would carry."""
    return [part.to_bytes() for frame in frames for part in segment_frame(frame, link_bytes)]


@VERSIONS
@pytest.mark.parametrize("link_bytes", [14, 0])
@pytest.mark.parametrize("last_flags", ["A", "PA"])
def test_segments_of_a_flow_become_one_that_can_be_cut_again(
    version: int, link_bytes: int, last_flags: str
) -> None:
    packets = [segment(index, version) for index in range(9)] + [segment(9, version, 333, flags=last_flags)]
    frames = [Frame(bytes(packet)[14 - link_bytes :]) for packet in packets]
    (whole,) = coalesce(frames, ETHERNET if link_bytes else RAW_IP)
    assert (whole.gso_size, whole.checksum, whole.is_ipv6) == (
        SEGMENT_BYTES,
        ChecksumState.VERIFIED,
        version == 6,
    )
    assert expanded([whole], link_bytes) == [frame.to_bytes() for frame in frames]


@VERSIONS
def test_no_packet_gets_longer_than_a_packet_can_be(version: int) -> None:
    frames = frames_of(*[segment(index, version) for index in range(100)])
    joined = list(coalesce(frames, ETHERNET))
    assert len(joined) == 2
    assert 64_000 < len(joined[0]) <= 65535 + 14
    assert expanded(joined) == [frame.to_bytes() for frame in frames]


@pytest.mark.parametrize("flags", ["S", "SA", "F", "FA", "R", "RA", "UA", "EA", "CA", ""])
def test_what_is_not_plain_data_stays_alone(flags: str) -> None:
    for others in ("A", flags):
        frames = frames_of(segment(0, flags=others), segment(1, flags=flags), segment(2, flags=others))
        assert coalesce(frames, ETHERNET) == frames


def change(layer: type[Packet], **fields: object) -> Callable[[Packet], None]:
    def apply(packet: Packet) -> None:
        for name, value in fields.items():
            setattr(packet[layer], name, value)

    return apply


DIFFERENCES: dict[str, Callable[[Packet], None]] = {
    "link": change(Ether, src="02:00:00:00:00:77"),
    "not IP": change(Ether, type=0x1234),
    "source": change(IP, src="10.0.0.77"),
    "destination": change(IP, dst="10.0.0.77"),
    "hop limit": change(IP, ttl=63),
    "congestion": change(IP, tos=3),
    "fragment": change(IP, frag=10, flags=0),
    "more fragments": change(IP, flags="MF"),
    "another protocol": change(IP, proto=17),
    "header checksum": change(IP, chksum=1),
    "too short for its length": change(IP, len=1200),
    "IP options": change(IP, options=b"\x01\x01\x01\x00"),
    "source port": change(TCP, sport=81),
    "destination port": change(TCP, dport=9001),
    "gap": change(TCP, seq=BASE + SEGMENT_BYTES + 1),
    "repetition": change(TCP, seq=BASE),
    "acknowledgement": change(TCP, ack=6),
    "window": change(TCP, window=98),
    "urgent pointer": change(TCP, urgptr=1),
    "checksum": change(TCP, chksum=1),
    "option": change(TCP, options=[*TIMESTAMPS[:2], ("Timestamp", (7, 9))]),
    "fewer options": change(TCP, options=[]),
    "data offset": change(TCP, dataofs=15),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_whatever_differs_keeps_a_segment_apart(difference: str) -> None:
    second = segment(1)
    DIFFERENCES[difference](second)
    frames = frames_of(segment(0), second)
    assert coalesce(frames, ETHERNET) == frames
    # Nor does it take another with it.
    assert coalesce([frames[1], frames[0]], ETHERNET) == [frames[1], frames[0]]


UNFIT: dict[str, tuple[int, Callable[[Packet], None]]] = {
    "fragments": (4, change(IP, frag=10, flags=0)),
    "last fragments of long packets": (4, change(IP, frag=0x100, flags=0)),
    "first fragments": (4, change(IP, flags="MF")),
    "IP options": (4, change(IP, options=b"\x01\x01\x01\x00")),
    "another protocol": (4, change(IP, proto=17)),
    "another protocol of IPv6": (6, change(IPv6, nh=17)),
    "another version": (4, change(IP, version=5)),
    "another version in IPv6": (6, change(IPv6, version=5)),
    "not IP": (4, change(Ether, type=0x1234)),
    "not IPv6": (6, change(Ether, type=0x1234)),
    "header too short": (4, change(TCP, dataofs=4)),
    "header too long": (6, change(TCP, dataofs=15)),
    "push": (4, change(TCP, flags="PA")),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_segments_of_such_a_kind_stay_apart(kind: str) -> None:
    version, apply = UNFIT[kind]
    packets = [segment(index, version, 20 if kind == "header too long" else 1000) for index in range(3)]
    for packet in packets:
        apply(packet)
    frames = frames_of(*packets)
    for frame in frames:
        # Else their checksums, too, might keep them apart.
        frame.checksum = ChecksumState.VERIFIED
    assert coalesce(frames, ETHERNET) == frames


def test_what_comes_as_a_super_segment_or_in_parts_stays_apart() -> None:
    plain = frames_of(*[segment(index) for index in range(3)])
    for frames in (
        [Frame(frame.head, gso_size=500) for frame in plain],
        [plain[0], Frame(plain[1].head, gso_size=500)],
        [Frame(plain[0].head, gso_size=500), plain[1]],
        [Frame(frame.head[:500], (frame.head[500:],)) for frame in plain],
        [plain[0], Frame(plain[1].head[:500], (plain[1].head[500:],))],
    ):
        assert coalesce(frames, ETHERNET) == frames


@VERSIONS
def test_acknowledgements_stay_apart(version: int) -> None:
    frames = frames_of(*[segment(0, version, length=0) for _ in range(3)])
    assert coalesce(frames, ETHERNET) == frames


@pytest.mark.parametrize("version", [4, 6])
def test_a_damaged_first_segment_stays_alone(version: int) -> None:
    packets = [segment(index, version) for index in range(3)]
    packets[0][TCP].chksum = 1
    frames = frames_of(*packets)
    joined = coalesce(frames, ETHERNET)
    assert joined[0] is frames[0]
    assert [frame.gso_size for frame in joined] == [0, SEGMENT_BYTES]


def test_the_device_may_have_verified_the_checksum() -> None:
    packets = [segment(index) for index in range(2)]
    for packet in packets:
        packet[TCP].chksum = 1
    frames = frames_of(*packets)
    for frame in frames:
        frame.checksum = ChecksumState.VERIFIED
    assert len(coalesce(frames, ETHERNET)) == 1


@VERSIONS
@pytest.mark.parametrize("kept_bytes", [0, 13, 30, 47, 60, 80, 90, 500])
def test_a_frame_that_is_cut_short_stays_alone(version: int, kept_bytes: int) -> None:
    frames = frames_of(segment(0, version), segment(1, version))
    for frame in frames:
        frame.checksum = ChecksumState.VERIFIED
    frames[1].head = frames[1].head[:kept_bytes]
    assert coalesce(frames, ETHERNET) == frames
    assert coalesce([frames[1], frames[0]], ETHERNET) == [frames[1], frames[0]]


@pytest.mark.parametrize("damaged", [0, 1])
def test_nobody_but_this_stack_verifies_the_header_of_ipv4(damaged: int) -> None:
    packets = [segment(index) for index in range(2)]
    packets[damaged][IP].chksum = 1
    frames = frames_of(*packets)
    for frame in frames:
        frame.checksum = ChecksumState.VERIFIED
    assert coalesce(frames, ETHERNET) == frames


@pytest.mark.parametrize(
    ("lengths", "flags"),
    [((1000, 999, 1000), "AAA"), ((1000, 1001), "AA"), ((1000, 1000, 1000), ["A", "PA", "A"])],
)
def test_a_short_segment_or_a_push_is_the_last(lengths: tuple[int, ...], flags: list[str]) -> None:
    packets = [
        segment(index, length=length, flags=flag)
        for index, (length, flag) in enumerate(zip(lengths, flags, strict=True))
    ]
    sequence = BASE
    for packet, length in zip(packets, lengths, strict=True):
        packet[TCP].seq = sequence & 0xFFFFFFFF
        sequence += length
    frames = frames_of(*packets)
    joined = list(coalesce(frames, ETHERNET))
    assert len(joined) == 2
    assert joined[-1] is frames[-1]
    assert expanded(joined) == [frame.to_bytes() for frame in frames]


def test_padding_of_the_link_is_no_data() -> None:
    frames = [Frame(bytes(segment(index, length=4)) + b"padding") for index in range(2)]
    frames[1] = Frame(bytes(change_sequence(segment(1, length=4), BASE + 4)) + b"padding")
    (whole,) = coalesce(frames, ETHERNET)
    assert whole.to_bytes().endswith(random.Random(1).randbytes(4))
    assert len(whole) == 14 + 20 + 32 + 8


def change_sequence(packet: Packet, sequence: int) -> Packet:
    packet[TCP].seq = sequence & 0xFFFFFFFF
    return packet


@VERSIONS
@pytest.mark.parametrize("seed", range(20))
def test_damage_anywhere_neither_fails_nor_gets_lost(version: int, seed: int) -> None:
    """Whatever is joined could be cut into exactly what came, so that damage always goes up alone."""
    rng = random.Random(seed)
    datas = [bytearray(bytes(segment(index, version, rng.choice((1000, 1000, 400))))) for index in range(40)]
    for data in rng.sample(datas, 12):
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(min(len(data), 70))] ^= 1 << rng.randrange(8)
    frames = [Frame(bytes(data)) for data in datas]
    joined = coalesce(frames, ETHERNET)
    came = [frame.to_bytes() for frame in frames]
    cut_again = [
        part.to_bytes()
        for frame in joined
        for part in (segment_frame(frame, 14) if frame.gso_size else [frame])
    ]
    assert cut_again == came
    assert len(joined) < len(frames)
