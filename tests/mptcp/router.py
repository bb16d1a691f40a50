"""A router in the middle of a link whose next link carries less."""

from __future__ import annotations

from dataclasses import replace

from mptcp_stack.device.in_memory import Wire
from mptcp_stack.ip.interface import Interface
from mptcp_stack.stack import Stack
from mptcp_stack.wire import icmp
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    emit_ipv4_header,
    emit_ipv6_header,
)
from tests.mptcp.network import Network

ROUTER_V4, ROUTER_V6 = parse_address("10.9.9.9"), parse_address("fd99::9")
ERROR_DELAY_US = 2_000
ETHERNET_BYTES = 14
DONT_FRAGMENT = 0x40


class NarrowPath:
    """Drops what the client sends on a link and exceeds ``mtu`` bytes, with an error if not ``silent``."""

    def __init__(self, network: Network, mtu: int, *, link: str = "1", silent: bool = False) -> None:
        self.network = network
        self.mtu = mtu
        self.silent = silent
        self.dropped = 0
        self.largest_passed = 0
        self.may_be_cut = 0
        """IPv4 packets without the flag DF."""
        wire: Wire = network.simulator.links()[link].forward
        wire.settings = replace(wire.settings, split=True)
        wire.drop_if = self._drops
        self._interface = network.client.ip.interface(f"eth{link}")

    def _drops(self, frame: bytes, index: int) -> bool:
        length = len(frame) - ETHERNET_BYTES
        is_ipv4 = frame[12:14] == b"\x08\x00"
        if is_ipv4 and not frame[ETHERNET_BYTES + 6] & DONT_FRAGMENT:
            self.may_be_cut += 1
        if length <= self.mtu:
            self.largest_passed = max(self.largest_passed, length)
            return False
        self.dropped += 1
        if not self.silent:
            error = self._error_about(frame, is_ipv4)
            simulator = self.network.simulator
            simulator.call_at(simulator.now_us + ERROR_DELAY_US, lambda: self._deliver(error))
        return True

    def _deliver(self, frame: bytes) -> None:
        client: Stack = self.network.client
        interface: Interface = self._interface
        client.receive_frame(Frame(frame), interface, self.network.simulator.now_us)

    def _error_about(self, frame: bytes, is_ipv4: bool) -> bytes:
        packet = frame[ETHERNET_BYTES:]
        link_header = frame[6:12] + frame[:6] + frame[12:14]
        if is_ipv4:
            sender = packet[12:16]
            too_big = icmp.IcmpDestinationUnreachable(icmp.V4_FRAGMENTATION_NEEDED, packet[:100], self.mtu)
            message = icmp.emit_icmpv4(too_big)
            header = emit_ipv4_header(ROUTER_V4, sender, PROTOCOL_ICMP, len(message), identification=1)
        else:
            sender = packet[8:24]
            message = icmp.emit_icmpv6(icmp.IcmpPacketTooBig(self.mtu, packet[:200]), ROUTER_V6, sender)
            header = emit_ipv6_header(ROUTER_V6, sender, PROTOCOL_ICMPV6, len(message))
        return link_header + header + message
