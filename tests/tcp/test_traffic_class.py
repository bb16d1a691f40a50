"""IP_TOS and IPV6_TCLASS (RFC 2474): in which packets, and beside ECN."""

from __future__ import annotations

import socket
from dataclasses import replace
from errno import EINVAL, EOPNOTSUPP

import pytest

from mptcp_stack.settings import StackSettings
from mptcp_stack.sockets.common_options import INTEGER, TRAFFIC_CLASS, TYPE_OF_SERVICE, get_common, set_common
from mptcp_stack.sockets.options import set_option
from mptcp_stack.tcp.explicit_congestion import ECT_0
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS
from mptcp_stack.wire.frame import Frame
from tests.mptcp.middlebox import tcp_packet_in
from tests.mptcp.network import PORT, Network, both_ways

CLASS = 0x28


class Classes:
    """Of the packets that the server has sent, in order."""

    def __init__(self, network: Network) -> None:
        self.seen: list[int] = []
        network.simulator.add_tap(self._on_frame)

    def _on_frame(self, now_us: int, wire: str, direction: str, frame: Frame) -> None:
        packet = tcp_packet_in(frame.to_bytes())
        if direction == "sent" and wire.startswith("server") and packet is not None:
            self.seen.append(packet.traffic_class)


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00:1::1"])
@pytest.mark.parametrize("tcp_syncookies", [1, 2])
def test_listener_and_its_connections(address: str, tcp_syncookies: int) -> None:
    """To the last acknowledgement in TIME_WAIT; ECN has its own two bits."""
    ecn = StackSettings(tcp_ecn=1)
    network = Network(settings=ecn, server_settings=replace(ecn, tcp_syncookies=tcp_syncookies))
    classes = Classes(network)
    listener = network.server.listen(None, PORT, protocol="tcp")
    listener.socket_options = replace(DEFAULT_SOCKET_OPTIONS, type_of_service=CLASS, traffic_class=CLASS)
    near = network.connect(address, "tcp")
    network.simulator.run_until(lambda: listener.has_ready)
    far = listener.accept()
    assert far is not None
    both_ways(network, near, far, 20_000)
    far.close()
    network.simulator.run_for(50_000)
    near.close()
    network.simulator.run_for(50_000)
    assert len(network.server.environment.time_waits) == 1
    # Cookies bring no ECN back.
    expected = {CLASS} if tcp_syncookies == 2 else {CLASS, CLASS | ECT_0}
    assert set(classes.seen) == expected


def test_other_family_is_not_concerned() -> None:
    network = Network()
    classes = Classes(network)
    near, far = network.establish("fd00:1::1", "tcp", "tcp")
    set_option(far, *TYPE_OF_SERVICE, INTEGER.pack(CLASS))
    both_ways(network, near, far, 10_000)
    assert set(classes.seen) == {0}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (INTEGER.pack(0x2B), 0x28),
        (INTEGER.pack(-1), 252),
        (INTEGER.pack(300), 44),
        (b"\x28", 0x28),
        (b"", 0),
    ],
)
def test_type_of_service_is_a_byte(value: bytes, kept: int) -> None:
    options = set_common(DEFAULT_SOCKET_OPTIONS, StackSettings(), *TYPE_OF_SERVICE, value)
    assert get_common(options, StackSettings(), *TYPE_OF_SERVICE, 4) == INTEGER.pack(kept)


@pytest.mark.parametrize("value", [-2, 256])
def test_traffic_class_out_of_range(value: int) -> None:
    with pytest.raises(OSError, match="-1 to 255") as raised:
        set_common(DEFAULT_SOCKET_OPTIONS, StackSettings(), *TRAFFIC_CLASS, INTEGER.pack(value))
    assert raised.value.errno == EINVAL


def test_mptcp_takes_a_type_of_service_but_no_traffic_class() -> None:
    network = Network()
    classes = Classes(network)
    near, far = network.establish()
    set_option(far, *TYPE_OF_SERVICE, INTEGER.pack(CLASS))
    before = len(classes.seen)
    both_ways(network, near, far, 10_000)
    assert set(classes.seen[before:]) == {CLASS}
    with pytest.raises(OSError, match="single subflows") as raised:
        set_option(far, int(socket.IPPROTO_IPV6), int(socket.IPV6_TCLASS), INTEGER.pack(CLASS))
    assert raised.value.errno == EOPNOTSUPP
