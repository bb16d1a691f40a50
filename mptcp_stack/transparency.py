"""Transparent sockets (IP_TRANSPARENT): connections at addresses that are not ours, as proxies have them.

A router leads packets here that are for somebody else. Those of connections that we have, and those to a
port where a transparent listener takes any address, are ours; the answers bear the address that was meant.
So a transparent listener is what needs TPROXY and a route of its own in Linux.
"""

from __future__ import annotations

from collections.abc import Callable

from mptcp_stack.ip.layer import IpLayer
from mptcp_stack.listener import Listener
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.wire.addresses import is_unspecified
from mptcp_stack.wire.ip_packet import IpPacket

ListenerLookup = Callable[[bytes, int], Listener | None]
_PORTS_BYTES = 4


class Transparency:
    """What a host takes of packets that are not for its addresses; asked by the IP layer."""

    __slots__ = ("_environment", "_ip", "_listener_for")

    def __init__(self, environment: Environment, ip: IpLayer, listener_for: ListenerLookup) -> None:
        self._environment = environment
        self._ip = ip
        self._listener_for = listener_for

    def takes(self, packet: IpPacket) -> bool:
        """A TCP packet to an address that is not this host's."""
        if len(packet.payload) < _PORTS_BYTES or is_unspecified(packet.destination):
            return False
        source_port = int.from_bytes(packet.payload[:2], "big")
        port = int.from_bytes(packet.payload[2:4], "big")
        four_tuple = packet.destination, port, packet.source, source_port
        environment = self._environment
        if four_tuple in environment.subflows or environment.time_waits.get(four_tuple) is not None:
            return True
        listener = self._listener_for(packet.destination, port)
        if listener is None or not listener.socket_options.transparent:
            return False
        self._ip.send_for_others()
        return True
