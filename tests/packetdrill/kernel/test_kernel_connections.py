"""The kernel's side of connections: handshakes both ways, data, errors, for each version of IP."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from mptcp_stack.wire.mptcp_options import Dss, MpCapable
from mptcp_stack.wire.tcp_options import NO_OPTIONS, TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, PSH, RST, SYN, TcpSegment
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import IpVersion
from tests.packetdrill.kernel.peer import (
    IPPROTO_MPTCP,
    PATIENCE_US,
    SECOND_US,
    Peer,
    addresses,
    call,
    listen,
    packet_of,
    succeed,
)

pytestmark = [pytest.mark.root, pytest.mark.kernel]

SYN_OPTIONS = TcpOptions(maximum_segment_size=1000, sack_permitted=True, window_scale=7)
CLIENT_KEY = bytes(range(8))
MP_CAPABLE_SYN = MpCapable(version=1, flags=1)


def accepted(stack: KernelStack, version: IpVersion) -> tuple[Peer, int]:
    """A TCP connection that the peer opened; the descriptor of the kernel's end."""
    listener = listen(stack)
    peer = Peer.of(stack, version)
    peer.send(SYN, SYN_OPTIONS)
    assert peer.receive().flags == SYN | ACK
    peer.send(ACK)
    return peer, succeed(stack, "accept", listener, None, None)


def test_answers_a_syn_with_the_documented_options(stack: KernelStack, version: IpVersion) -> None:
    listener = listen(stack)
    peer = Peer.of(stack, version)
    peer.send(SYN, SYN_OPTIONS)
    answer = peer.receive()
    assert (answer.flags, answer.acknowledgement) == (SYN | ACK, peer.next_sequence)
    assert answer.options == TcpOptions(
        maximum_segment_size=1440 if version is IpVersion.IPV6 else 1460, sack_permitted=True, window_scale=7
    )
    peer.send(ACK)
    result = call(stack, "accept", listener, None, None)
    assert result.value == listener + 1
    remote = addresses(version).remote[0]
    if version is IpVersion.IPV4:
        expected = {"sa_family": socket.AF_INET, "sin_port": peer.remote_port, "sin_addr": remote}
    else:
        shown = remote if len(remote) == 16 else bytes(10) + b"\xff\xff" + remote
        expected = {"sa_family": socket.AF_INET6, "sin6_port": peer.remote_port, "sin6_addr": shown}
    assert result.outputs[1] == expected


def test_negotiates_mptcp_as_a_server(stack: KernelStack, version: IpVersion) -> None:
    listener = listen(stack, IPPROTO_MPTCP)
    peer = Peer.of(stack, version)
    peer.send(SYN, replace(SYN_OPTIONS, mptcp=(MP_CAPABLE_SYN,)))
    (option,) = peer.receive().options.mptcp
    assert isinstance(option, MpCapable)
    assert option.sender_key is not None
    third = MpCapable(1, 1, CLIENT_KEY, option.sender_key)
    peer.send(ACK, TcpOptions(mptcp=(third,)))
    descriptor = succeed(stack, "accept", listener, None, None)
    peer.send(ACK | PSH, TcpOptions(mptcp=(replace(third, data_length=5),)), b"hello")
    assert call(stack, "read", descriptor, None, 100).outputs[1] == b"hello"
    acknowledgement = peer.receive()
    assert acknowledgement.acknowledgement == peer.next_sequence
    assert [type(option) for option in acknowledgement.options.mptcp] == [Dss]


def test_connects(stack: KernelStack, version: IpVersion) -> None:
    descriptor = succeed(stack, "socket", None, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    connecting = stack.start_call("connect", [descriptor, None, None])
    assert connecting.result() is None
    peer = Peer.of(stack, version)
    assert peer.receive().flags == SYN
    assert peer.local_port != 8080
    assert peer.remote_port == 8080
    peer.send(SYN | ACK, SYN_OPTIONS)
    result = stack.wait_for_call(connecting, stack.now_us() + PATIENCE_US)
    assert result is not None
    assert (result.value, result.errno_name) == (0, None)
    assert peer.receive().flags == ACK


def test_connects_with_mptcp(stack: KernelStack, version: IpVersion) -> None:
    descriptor = succeed(stack, "socket", None, socket.SOCK_STREAM, IPPROTO_MPTCP)
    succeed(stack, "fcntl", descriptor, 4, 0o4000)
    assert call(stack, "connect", descriptor, None, None).errno_name == "EINPROGRESS"
    peer = Peer.of(stack, version)
    assert peer.receive().options.mptcp == (MP_CAPABLE_SYN,)
    peer.send(SYN | ACK, replace(SYN_OPTIONS, mptcp=(MpCapable(1, 1, CLIENT_KEY),)))
    (option,) = peer.receive().options.mptcp
    assert isinstance(option, MpCapable)
    assert option.receiver_key == CLIENT_KEY
    error = call(stack, "getsockopt", descriptor, socket.SOL_SOCKET, socket.SO_ERROR, None, [4])
    assert error.outputs == {3: [0], 4: [4]}


def test_refused_connection(ipv4_stack: KernelStack) -> None:
    descriptor = succeed(ipv4_stack, "socket", None, socket.SOCK_STREAM, 0)
    connecting = ipv4_stack.start_call("connect", [descriptor, None, None])
    peer = Peer.of(ipv4_stack, IpVersion.IPV4)
    peer.receive()
    peer.send(RST | ACK)
    result = ipv4_stack.wait_for_call(connecting, ipv4_stack.now_us() + PATIENCE_US)
    assert result is not None
    assert (result.value, result.errno_name) == (-1, "ECONNREFUSED")


def test_read_blocks_until_data_comes(ipv4_stack: KernelStack) -> None:
    peer, descriptor = accepted(ipv4_stack, IpVersion.IPV4)
    reading = ipv4_stack.start_call("read", [descriptor, None, 100])
    start_us = ipv4_stack.now_us()
    assert ipv4_stack.wait_for_call(reading, start_us + 20_000) is None
    assert ipv4_stack.now_us() >= start_us + 20_000
    peer.send(ACK | PSH, NO_OPTIONS, b"late")
    result = ipv4_stack.wait_for_call(reading, ipv4_stack.now_us() + PATIENCE_US)
    assert result is not None
    assert result.outputs == {1: b"late"}
    assert result.finished_us > start_us + 20_000


def test_large_write_leaves_in_segments(stack: KernelStack, version: IpVersion) -> None:
    peer, descriptor = accepted(stack, version)
    assert succeed(stack, "write", descriptor, b"x" * 3000, 3000) == 3000
    lengths: list[int] = []
    while sum(lengths) < 3000:
        lengths.append(len(peer.receive().payload))
    assert lengths == [1000, 1000, 1000]


def test_packets_carry_the_time_at_which_they_were_sent(ipv4_stack: KernelStack) -> None:
    listen(ipv4_stack)
    peer = Peer.of(ipv4_stack, IpVersion.IPV4)
    before_us = ipv4_stack.now_us()
    peer.send(SYN, SYN_OPTIONS)
    after_us = ipv4_stack.now_us()
    ipv4_stack.pass_time(after_us + 50_000)
    sent = ipv4_stack.next_packet(0)
    assert sent is not None
    assert before_us <= sent.at_us <= after_us + 1000
    assert ipv4_stack.now_us() >= after_us + 50_000


def test_retransmission_comes_after_the_time_out(ipv4_stack: KernelStack) -> None:
    peer, descriptor = accepted(ipv4_stack, IpVersion.IPV4)
    succeed(ipv4_stack, "write", descriptor, b"again", 5)
    first = ipv4_stack.next_packet(ipv4_stack.now_us() + PATIENCE_US)
    second = ipv4_stack.next_packet(ipv4_stack.now_us() + PATIENCE_US)
    assert first is not None
    assert second is not None
    assert 150_000 < second.at_us - first.at_us < SECOND_US
    assert peer.local_port == 8080


def test_remote_networks_are_behind_the_device(ipv4_stack: KernelStack) -> None:
    """Any peer can be made up."""
    listen(ipv4_stack)
    segment = TcpSegment(1234, 8080, 7, 0, SYN, 1000, NO_OPTIONS)
    ipv4_stack.inject(packet_of(bytes((203, 0, 113, 9)), addresses(IpVersion.IPV4).local[0], segment))
    assert ipv4_stack.next_packet(ipv4_stack.now_us() + PATIENCE_US) is not None


def test_tcp_info_by_name(ipv4_stack: KernelStack) -> None:
    _, descriptor = accepted(ipv4_stack, IpVersion.IPV4)
    info = ipv4_stack.tcp_info(descriptor)
    assert info["tcpi_state"] == 1
    assert info["tcpi_snd_mss"] == 1000
    assert info["tcpi_snd_cwnd"] == 10
    assert (info["tcpi_snd_wscale"], info["tcpi_rcv_wscale"]) == (7, 7)
    with pytest.raises(ValueError, match="descriptor 99"):
        ipv4_stack.tcp_info(99)
