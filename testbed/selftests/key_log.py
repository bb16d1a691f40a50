"""The keys of MPTCP connections, as they were seen on the wire: with them a capture's joins can be checked.

One line for each connection: ``MPTCP client server client-key server-key client-token server-token
client-idsn server-idsn``; the ends as "address:port", the rest in hexadecimal. Tokens and initial data
sequence numbers follow from the keys (RFC 8684 §3.1, §3.2).
"""

from __future__ import annotations

from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.mptcp.crypto import derive
from mptcp_stack.wire.addresses import format_address
from mptcp_stack.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LENGTH, parse_ethernet
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import PROTOCOL_TCP, IpPacket, parse_ipv4, parse_ipv6
from mptcp_stack.wire.mptcp_options import MpCapable
from mptcp_stack.wire.tcp_segment import parse_tcp

_LONGEST_HANDSHAKE_BYTES = 256
"""A third packet of a handshake is longer only when it carries data, and then was sent without before."""
MAXIMUM_CONNECTIONS = 100_000


class KeyLog:
    """Gathers lines from frames in any order; each connection is told once."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        """By both ends."""

    def look(self, frame: Frame) -> None:
        """At one Ethernet frame; what is no third packet of a handshake is passed over."""
        if len(frame) > _LONGEST_HANDSHAKE_BYTES or len(self.lines) >= MAXIMUM_CONNECTIONS:
            return
        try:
            packet = _ip_packet(frame)
            if packet is None or packet.protocol != PROTOCOL_TCP:
                return
            segment = parse_tcp(packet.payload)
        except MalformedPacketError:
            return
        for option in segment.options.mptcp:
            if isinstance(option, MpCapable) and option.sender_key and option.receiver_key:
                client = _end(packet.source, segment.source_port)
                server = _end(packet.destination, segment.destination_port)
                keys = (option.sender_key, option.receiver_key)
                self.lines[f"{client} {server}"] = _line(client, server, *keys)

    def text(self) -> str:
        return "".join(line + "\n" for line in self.lines.values())


def _ip_packet(frame: Frame) -> IpPacket | None:
    data = memoryview(frame.to_bytes())
    ether_type = parse_ethernet(data).ether_type
    if ether_type == ETHERTYPE_IPV4:
        return parse_ipv4(data[HEADER_LENGTH:])
    return parse_ipv6(data[HEADER_LENGTH:]) if ether_type == ETHERTYPE_IPV6 else None


def _end(address: bytes, port: int) -> str:
    text = format_address(address)
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


def _line(client: str, server: str, client_key: bytes, server_key: bytes) -> str:
    first, second = derive(client_key), derive(server_key)
    return (
        f"MPTCP {client} {server} {client_key.hex()} {server_key.hex()} {first.token:08x} {second.token:08x}"
        f" {first.initial_data_sequence:016x} {second.initial_data_sequence:016x}"
    )
