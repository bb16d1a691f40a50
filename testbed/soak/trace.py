"""Prints a run packet by packet in the language of packet scripts; ``>`` is sent by the client."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mptcp_stack.device.interface import LinkLayer
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.wire.mptcp_options import MpJoinSyn
from mptcp_stack.wire.tcp_segment import ACK, SYN
from testbed.packetdrill.bindings import Bindings, Connection, Subflow
from testbed.packetdrill.packet_context import PacketContext
from testbed.packetdrill.packets import describe_as_text
from testbed.packetdrill.subflow_lookup import endpoints
from testbed.packetdrill.syntax import Direction
from testbed.packetdrill.wire_packet import WirePacket, WireTcp, read_wire_packet
from testbed.soak.conversation import BASE_PORT
from testbed.soak.hosts import Hosts, address_of


class Tracer:
    """Numbers are relative to each subflow's SYN, keys and addresses have names."""

    def __init__(self, hosts: Hosts, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        families = (False, True)
        pools = [
            [
                address_of(path, on_client=on_client, is_ipv6=is_ipv6)
                for is_ipv6 in families
                for path in range(len(hosts.paths))
            ]
            for on_client in (True, False)
        ]
        self._bindings = Bindings(*pools)
        for number, path in enumerate(hosts.paths):
            for wire, direction in ((path.link.forward, Direction.OUT), (path.link.backward, Direction.IN)):
                wire.observer = partial(self._observe, number, wire.link_layer, direction)

    def _observe(
        self, path: int, link_layer: LinkLayer, direction: Direction, now_us: int, frame: bytes, fate: str
    ) -> None:
        packet = frame[link_layer.header_length :]
        is_ip = not link_layer.header_length or frame[12:14] in (b"\x08\x00", b"\x86\xdd")
        where = f"path {path}"
        if is_ip:
            port = self._learn(packet, direction)
            text = describe_as_text(packet, direction, self._bindings)
            where += f", conversation {port - BASE_PORT}" if port is not None else ""
        else:
            text = f"// {direction.value} {len(frame)} bytes of EtherType {frame[12:14].hex()}"
        self._print_line(f"{now_us / 1_000_000:.6f} {text} // {where}: {fate}")

    def _learn(self, data: bytes, direction: Direction) -> int | None:
        """What later packets are read by. Returns the server's port."""
        try:
            wire = read_wire_packet(data)
        except MalformedPacketError:
            return None
        tcp = wire.content
        if not isinstance(tcp, WireTcp):
            return None
        subflow = self._subflow_of(wire, tcp, direction)
        if tcp.flags & SYN:
            subflow.sender(direction).sequence_base = tcp.sequence
        PacketContext(self._bindings, subflow, direction, 0, tcp.payload).observe(tcp)
        return subflow.remote.port

    def _subflow_of(self, wire: WirePacket, tcp: WireTcp, direction: Direction) -> Subflow:
        local, remote = endpoints(wire, tcp, direction)
        subflow = self._bindings.find(local, remote)
        is_first = tcp.flags & (SYN | ACK) == SYN
        if subflow is not None and not (is_first and subflow.is_closed):
            return subflow
        joins = [option for each in tcp.options if isinstance(option := each.mptcp(), MpJoinSyn)]
        connection = self._bindings.connection_of_token(joins[0].token, direction) if joins else None
        return self._bindings.add_subflow(
            local, remote, connection or Connection(), is_join=connection is not None
        )
