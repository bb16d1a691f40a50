"""System calls by descriptor: structures, buffers, waiting, errors."""

from __future__ import annotations

import select
import socket

import pytest

from mptcp_stack.wire.tcp_options import NO_OPTIONS
from mptcp_stack.wire.tcp_segment import ACK, PSH
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import IpVersion, Value
from tests.packetdrill.kernel.peer import PATIENCE_US, Peer, call, listen, succeed
from tests.packetdrill.kernel.test_kernel_connections import accepted

pytestmark = [pytest.mark.root, pytest.mark.kernel]


@pytest.fixture
def connection(ipv4_stack: KernelStack) -> tuple[Peer, int]:
    return accepted(ipv4_stack, IpVersion.IPV4)


def test_descriptors_are_the_lowest_that_are_free(ipv4_stack: KernelStack) -> None:
    numbers = [succeed(ipv4_stack, "socket", None, socket.SOCK_STREAM, 0) for _ in range(3)]
    assert numbers == [3, 4, 5]
    succeed(ipv4_stack, "close", 4)
    assert call(ipv4_stack, "pipe", None).outputs == {0: [4, 6]}


@pytest.mark.parametrize(
    ("name", "arguments", "errno_name"),
    [
        ("listen", [9, 1], "EBADF"),
        ("close", [9], "EBADF"),
        ("read", [9, None, 10], "EBADF"),
        ("epoll_ctl", [9, 1, 3, {"events": 1}], "EBADF"),
        ("socket", [99, socket.SOCK_STREAM, 0], "EAFNOSUPPORT"),
        ("connect", [3, {"sa_family": socket.AF_INET6}, None], "EAFNOSUPPORT"),
        ("bind", [3, {"sin_addr": bytes((1, 2, 3, 4))}, None], "EADDRNOTAVAIL"),
        ("bind", [3, None, 4], "EINVAL"),
        ("accept", [3, None, None], "EINVAL"),
        ("shutdown", [3, socket.SHUT_WR], "ENOTCONN"),
        ("write", [3, b"x", 1], "EPIPE"),
        ("setsockopt", [3, socket.SOL_SOCKET, 9999, [1], 4], "ENOPROTOOPT"),
        ("getpeername", [3, None, None], "ENOTCONN"),
        ("epoll_create", [0], "EINVAL"),
    ],
)
def test_errors_have_their_name(
    ipv4_stack: KernelStack, name: str, arguments: list[Value], errno_name: str
) -> None:
    succeed(ipv4_stack, "socket", None, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    result = call(ipv4_stack, name, *arguments)
    assert (result.value, result.errno_name) == (-1, errno_name)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("frobnicate", [], "no system call frobnicate"),
        ("read", [3, None, -1], "length -1"),
        ("read", [b"3", None, 1], "descriptor: expected a number"),
        ("write", [3, 5, 1], "expected a buffer"),
        ("writev", [3, b"x", 1], "iovecs"),
        ("bind", [3, 7, None], "socket address"),
        ("sendmsg", [3, 7, 0], "message"),
        ("poll", [7, 1, 0], "pollfds"),
        ("setsockopt", [3, 1, 13, {"a": 1}, 8], "onoff"),
        ("fcntl", [3, 0, 5], "duplicate"),
    ],
)
def test_what_makes_no_sense_is_said(
    ipv4_stack: KernelStack, name: str, arguments: list[Value], message: str
) -> None:
    succeed(ipv4_stack, "socket", None, socket.SOCK_STREAM, 0)
    with pytest.raises(ValueError, match=message):
        ipv4_stack.start_call(name, arguments)


def test_vectors_and_messages(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    peer, descriptor = connection
    vector: list[Value] = [{"0": b"ab", "1": 2}, {"0": b"cde", "1": 3}]
    assert succeed(ipv4_stack, "writev", descriptor, vector, 2) == 5
    assert bytes(peer.receive().payload) == b"abcde"
    assert succeed(ipv4_stack, "sendmsg", descriptor, {"msg_iov": vector}, 0) == 5
    peer.send(ACK | PSH, NO_OPTIONS, b"123456")
    into: list[Value] = [{"0": None, "1": 2}, {"0": None, "1": 2}]
    result = call(ipv4_stack, "readv", descriptor, into, 2)
    assert (result.value, result.outputs) == (4, {1: [{"0": b"12", "1": 2}, {"0": b"34", "1": 2}]})
    message = call(ipv4_stack, "recvmsg", descriptor, {"msg_iov": into}, 0)
    assert message.value == 2
    assert message.outputs[1] == {
        "msg_iov": [{"0": b"56", "1": 2}, {"0": b"", "1": 2}],
        "msg_flags": 0,
        "msg_control": [],
    }


def test_poll_waits_and_reports(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    peer, descriptor = connection
    wanted: Value = [{"fd": descriptor, "events": select.POLLIN}, {"fd": 77, "events": select.POLLIN}]
    dead = call(ipv4_stack, "poll", wanted, 2, -1)
    assert dead.value == 1
    assert dead.outputs[0] == [
        {"fd": descriptor, "events": select.POLLIN, "revents": 0},
        {"fd": 77, "events": select.POLLIN, "revents": select.POLLNVAL},
    ]
    waiting = ipv4_stack.start_call("poll", [wanted, 1, -1])
    assert waiting.result() is None
    peer.send(ACK | PSH, NO_OPTIONS, b"x")
    result = ipv4_stack.wait_for_call(waiting, ipv4_stack.now_us() + PATIENCE_US)
    assert result is not None
    assert result.outputs[0] == [{"fd": descriptor, "events": select.POLLIN, "revents": select.POLLIN}]


def test_epoll_gives_the_data_back(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    peer, descriptor = connection
    instance = succeed(ipv4_stack, "epoll_create1", 0)
    succeed(ipv4_stack, "epoll_ctl", instance, 1, descriptor, {"events": select.EPOLLIN, "u64": 7})
    assert call(ipv4_stack, "epoll_wait", instance, None, 4, 0).outputs == {1: []}
    waiting = ipv4_stack.start_call("epoll_wait", [instance, None, 4, -1])
    peer.send(ACK | PSH, NO_OPTIONS, b"x")
    result = ipv4_stack.wait_for_call(waiting, ipv4_stack.now_us() + PATIENCE_US)
    assert result is not None
    assert result.outputs == {1: [{"events": select.EPOLLIN, "u64": 7}]}


def test_options_and_queues(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    peer, descriptor = connection
    linger: Value = {"onoff": 1, "linger": 5}
    succeed(ipv4_stack, "setsockopt", descriptor, socket.SOL_SOCKET, socket.SO_LINGER, [linger], 8)
    read = call(ipv4_stack, "getsockopt", descriptor, socket.SOL_SOCKET, socket.SO_LINGER, None, [8])
    assert read.outputs == {3: linger, 4: [8]}
    peer.send(ACK | PSH, NO_OPTIONS, b"12345")
    assert call(ipv4_stack, "ioctl", descriptor, 0x541B, [0]).outputs == {2: [5]}
    info = call(ipv4_stack, "getsockopt", descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, None, None)
    fields = info.outputs[3]
    assert isinstance(fields, dict)
    assert fields["tcpi_bytes_received"] == 5


def test_splice_between_socket_and_pipe(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    peer, descriptor = connection
    ends = call(ipv4_stack, "pipe", None).outputs[0]
    assert isinstance(ends, list)
    peer.send(ACK | PSH, NO_OPTIONS, b"splice")
    assert succeed(ipv4_stack, "splice", descriptor, None, ends[1], None, 100, 0) == 6
    assert call(ipv4_stack, "read", ends[0], None, 100).outputs == {1: b"splice"}


def test_disconnects(ipv4_stack: KernelStack, connection: tuple[Peer, int]) -> None:
    """connect(AF_UNSPEC), which resets the connection."""
    peer, descriptor = connection
    succeed(ipv4_stack, "connect", descriptor, {"sa_family": socket.AF_UNSPEC}, None)
    assert peer.receive().flags & 4


def test_shut_listener_wakes_accept(ipv4_stack: KernelStack) -> None:
    listener = listen(ipv4_stack)
    accepting = ipv4_stack.start_call("accept", [listener, None, None])
    assert accepting.result() is None
    succeed(ipv4_stack, "shutdown", listener, socket.SHUT_RDWR)
    result = ipv4_stack.wait_for_call(accepting, ipv4_stack.now_us() + PATIENCE_US)
    assert result is not None
    assert result.errno_name == "EINVAL"
