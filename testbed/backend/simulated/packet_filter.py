"""What a simulated router keeps from passing, in those words of nftables that selftests use (nft(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.ethernet import ETHERTYPE_IPV6, HEADER_LENGTH
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4, parse_ipv6
from testbed.errors import CapabilityError
from testbed.middlebox.segment import ACK, FIN, RST, SYN, Segment, parse_segment

HOOKS: Final = ("prerouting", "forward")
_PROTOCOLS: Final = {"tcp": PROTOCOL_TCP, "udp": 17}
_FLAGS: Final = {"fin": FIN, "syn": SYN, "rst": RST, "ack": ACK}


@dataclass(frozen=True, slots=True)
class Passing:
    """A packet at a router."""

    interface: str
    packet: IpPacket
    segment: Segment | None
    """What it holds, if that is a whole segment of TCP."""


Match = Callable[[Passing], bool]


@dataclass(frozen=True, slots=True)
class _Rule:
    matches: tuple[Match, ...]
    resets: bool
    """It answers with a reset, as well as dropping."""


class PacketFilter:
    """The rules of one chain; the first that a packet meets counts."""

    def __init__(self, rules: Sequence[str], hook: str) -> None:
        """Raises CapabilityError for words that it does not know."""
        if hook not in HOOKS:
            raise CapabilityError(f"no hook '{hook}' on a simulated router")
        self.hook = hook
        self._rules = [_parse(rule) for rule in rules]

    def refuses(self, frame: Frame, interface: str) -> Refusal | None:
        """Whether the packet goes no further, and what is sent back for it."""
        data = frame.to_bytes()
        is_ipv6 = int.from_bytes(data[12:14], "big") == ETHERTYPE_IPV6
        try:
            packet = (parse_ipv6 if is_ipv6 else parse_ipv4)(memoryview(data)[HEADER_LENGTH:])
        except MalformedPacketError:
            return None
        passing = Passing(interface, packet, parse_segment(data, is_checked=True))
        for rule in self._rules:
            if all(matches(passing) for matches in rule.matches):
                return Refusal(_reset_for(passing.segment) if rule.resets else None)
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A packet is dropped."""

    answer: bytes | None = None
    """To the sender, behind the Ethernet header of the packet that it answers."""


def _reset_for(segment: Segment | None) -> bytes | None:
    """RFC 9293 §3.10.7.1."""
    if segment is None or segment.flags & RST:
        return None
    if segment.flags & ACK:
        sequence, acknowledgment, flags = segment.acknowledgment, 0, RST
    else:
        length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
        sequence, acknowledgment, flags = 0, segment.sequence + length, RST | ACK
    answer = replace(
        segment,
        source=segment.destination,
        destination=segment.source,
        source_port=segment.destination_port,
        destination_port=segment.source_port,
        sequence=sequence,
        acknowledgment=acknowledgment,
        flags=flags,
        window=0,
        options=b"",
        payload=b"",
    )
    return answer.to_bytes()


def _parse(rule: str) -> _Rule:
    words = iter(rule.split())
    matches: list[Match] = []
    for word in words:
        if word == "drop":
            return _Rule(tuple(matches), resets=False)
        if word == "reject" and list(words) == ["with", "tcp", "reset"]:
            return _Rule(tuple(matches), resets=True)
        try:
            matches.append(_parse_match(word, words))
        except (StopIteration, KeyError, ValueError):
            break
    raise CapabilityError(f"no packet filter '{rule}' on a simulated router")


def _parse_match(word: str, words: Iterator[str]) -> Match:
    """Raises StopIteration, KeyError or ValueError for what is not known."""
    if word == "iifname":
        name = next(words).strip('"')
        return lambda passing: passing.interface == name
    if word in ("ip", "ip6"):
        field, address = next(words), ip_address(next(words)).packed
        attribute = {"saddr": "source", "daddr": "destination"}[field]
        return lambda passing: getattr(passing.packet, attribute) == address
    if word == "meta" and next(words) == "l4proto":
        number = _PROTOCOLS[next(words)]
        return lambda passing: passing.packet.protocol == number
    if word == "tcp":
        return _parse_tcp_match(next(words), words)
    raise ValueError(word)


def _parse_tcp_match(word: str, words: Iterator[str]) -> Match:
    if word == "flags":
        flag = _FLAGS[next(words)]
        return lambda passing: passing.segment is not None and bool(passing.segment.flags & flag)
    if word == "option" and [next(words), next(words)] == ["mptcp", "subtype"]:
        subtype = int(next(words))
        return lambda passing: passing.segment is not None and subtype in passing.segment.mptcp_subtypes()
    if word in ("sport", "dport"):
        attribute = {"sport": "source_port", "dport": "destination_port"}[word]
        port = int(next(words))
        return lambda passing: passing.segment is not None and getattr(passing.segment, attribute) == port
    raise ValueError(word)
