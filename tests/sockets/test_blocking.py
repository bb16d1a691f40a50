"""Blocking sockets: two stacks in threads of their own, used as ``socket.socket`` is."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.sockets import queues
from mptcp_stack.sockets.blocking import MSG_FASTOPEN, BlockingSocket, StackThread
from mptcp_stack.sockets.common_options import TCP_INQ
from tests.sockets.test_over_run_loop import SERVER

CLIENT = "10.0.0.1"
Ends = tuple[BlockingSocket, BlockingSocket]


@pytest.fixture
def ends(threads: tuple[StackThread, StackThread]) -> Iterator[Ends]:
    with threads[1].create_server(("", 80)) as listening:
        near = threads[0].create_connection((SERVER[4], 80), timeout=10)
        far, peer = listening.accept()
        assert peer[1] == near.getsockname()[1]
        with near, far:
            near.settimeout(10)
            far.settimeout(10)
            yield near, far


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_data_both_ways_between_threads(
    threads: tuple[StackThread, StackThread], family: int, protocol: str
) -> None:
    data = random.Random(5).randbytes(1_000_000)
    digests: list[str] = []

    def serve(listening: BlockingSocket) -> None:
        accepted, _ = listening.accept()
        with accepted:
            digest = hashlib.sha256()
            while part := accepted.recv(1 << 16):
                digest.update(part)
            digests.append(digest.hexdigest())
            accepted.sendall(b"done")

    with threads[1].create_server(("", 80), protocol=protocol) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        with threads[0].create_connection((SERVER[family], 80), 10, protocol=protocol) as near:
            near.sendall(data)
            near.shutdown(socket.SHUT_WR)
            assert near.recv(100) == b"done"
            assert near.recv(100) == b""
            assert near.getpeername()[:2] == (SERVER[family], 80)
        server.join()
    assert digests == [hashlib.sha256(data).hexdigest()]


def fill(stream: BlockingSocket) -> None:
    while True:
        stream.send(b"x" * 1_000_000)


def test_a_time_limit_and_no_blocking(ends: Ends) -> None:
    near, far = ends
    near.settimeout(0.01)
    with pytest.raises(TimeoutError, match="timed out"):
        near.recv(1)
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.recv(1)
    with pytest.raises(BlockingIOError):
        fill(near)
    assert far.recv(10) == b"x" * 10


def test_select_tells_what_can_be_read(ends: Ends) -> None:
    near, far = ends
    assert select.select([near], [], [], 0)[0] == []
    far.sendall(b"wake up")
    assert select.select([near], [], [], 10)[0] == [near]
    assert near.recv(4) == b"wake"
    assert select.select([near], [], [], 0)[0] == [near]
    assert near.recv(100) == b" up"
    assert select.select([near], [], [], 0)[0] == []
    far.close()
    assert select.select([near], [], [], 10)[0] == [near]
    assert near.recv(1) == b""


def test_select_on_a_listening_socket(threads: tuple[StackThread, StackThread]) -> None:
    with threads[1].create_server((SERVER[4], 80)) as listening:
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
        assert select.select([listening], [], [], 0)[0] == []
        with threads[0].create_connection((SERVER[4], 80), 10):
            assert select.select([listening], [], [], 10)[0] == [listening]
            listening.accept()[0].close()
            assert select.select([listening], [], [], 0)[0] == []


def test_options_before_and_after_connecting(threads: tuple[StackThread, StackThread]) -> None:
    no_delay = socket.IPPROTO_TCP, socket.TCP_NODELAY
    with threads[1].create_server(("", 80)), threads[0].socket() as near:
        near.setsockopt(*no_delay, 1)
        assert near.getsockopt(*no_delay) == 1
        near.connect((SERVER[4], 80))
        assert near.getsockopt(*no_delay) == 1
        info = near.getsockopt(284, 1, 96)
        assert isinstance(info, bytes)
        assert len(info) == 96
        with pytest.raises(OSError, match=r".") as caught:
            near.connect((SERVER[4], 80))
        assert caught.value.errno == errno.EISCONN


def test_errors_are_the_kernels(threads: tuple[StackThread, StackThread]) -> None:
    with threads[0].socket() as unconnected:
        for use in (lambda: unconnected.recv(1), lambda: unconnected.sendall(b"x"), unconnected.getpeername):
            with pytest.raises(OSError, match=r".") as caught:
                use()
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(ConnectionRefusedError):
            unconnected.connect((SERVER[4], 81))
        assert unconnected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert unconnected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with threads[0].socket() as other:
        with pytest.raises(ConfigurationError):
            other.connect(("nowhere", 80))
        with pytest.raises(ValueError, match="timeout"):
            other.settimeout(-1)


def test_files_over_a_socket(ends: Ends) -> None:
    near, far = ends
    with near.makefile("wb") as writing:
        writing.write(b"first line\nsecond line\n")
    with far.makefile("rb") as reading:
        assert reading.readline() == b"first line\n"
        assert reading.readline() == b"second line\n"
    with pytest.raises(ConfigurationError, match="makefile mode"):
        near.makefile("r")


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_fast_open(threads: tuple[StackThread, StackThread], protocol: str) -> None:
    """MSG_FASTOPEN asks for a cookie and uses it; TCP_FASTOPEN_CONNECT leaves the SYN to the first write."""
    for thread in threads:
        settings = replace(thread.stack.settings, tcp_fastopen=3)
        thread.stack.settings = thread.stack.environment.settings = settings
    data = random.Random(6).randbytes(10_000)
    with threads[1].socket(protocol=protocol) as listening:
        listening.bind(("", 80))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        listening.listen()
        for number in range(4):
            with threads[0].socket(protocol=protocol) as near:
                near.settimeout(10)
                if number < 2:
                    assert near.sendto(data, MSG_FASTOPEN, (SERVER[4], 80)) == len(data)
                else:
                    near.setsockopt(socket.IPPROTO_TCP, 30, 1)
                    near.connect((SERVER[4], 80))
                    near.sendall(data)
                far, _ = listening.accept()
                with far:
                    far.settimeout(10)
                    near.shutdown(socket.SHUT_WR)
                    received = b""
                    while part := far.recv(1 << 16):
                        received += part
                    assert received == data
    assert threads[0].stack.counters["TcpExtTCPFastOpenActive"] == 3
    assert threads[1].stack.counters["TcpExtTCPFastOpenPassive"] == 3


def test_fast_open_that_is_switched_off(threads: tuple[StackThread, StackThread]) -> None:
    stack = threads[0].stack
    stack.settings = stack.environment.settings = replace(stack.settings, tcp_fastopen=0)
    with threads[0].socket() as near:
        for flags in (MSG_FASTOPEN, 0):
            with pytest.raises(OSError, match=r".") as caught:
                near.sendto(b"x", flags, (SERVER[4], 80))
            assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_disconnects_and_connects_again(threads: tuple[StackThread, StackThread], protocol: str) -> None:
    """What was not read is gone, the peer is reset, options stay; then all is as new."""
    with (
        threads[1].create_server(("", 80), protocol=protocol) as listening,
        threads[0].create_connection((SERVER[4], 80), timeout=10, protocol=protocol) as near,
    ):
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        first, _ = listening.accept()
        first.settimeout(10)
        first.sendall(b"unread")
        assert select.select([near], [], [], 10)[0]
        near.disconnect()
        assert not select.select([near], [], [], 0)[0]
        with pytest.raises(ConnectionResetError):
            first.recv(10)
        told = [near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)]
        assert told == [errno.ECONNRESET if protocol == "tcp" else 0, 0]
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            near.recv(10)
        near.disconnect()
        near.connect((SERVER[4], 80))
        second, _ = listening.accept()
        assert near.connection.is_mptcp is (protocol == "mptcp")
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        second.sendall(b"new")
        assert near.recv(10) == b"new"
        first.close()
        second.close()


def test_a_bound_socket_connects_again_from_its_port(threads: tuple[StackThread, StackThread]) -> None:
    with threads[1].create_server(("", 80)) as listening, threads[0].socket() as near:
        near.bind((CLIENT, 4711))
        near.settimeout(10)
        for _ in range(2):
            near.connect((SERVER[4], 80))
            accepted, peer = listening.accept()
            assert peer[1] == 4711
            near.disconnect()
            accepted.close()


def test_a_disconnected_listener_connects(threads: tuple[StackThread, StackThread]) -> None:
    """What it had not handed out is reset, and others may listen there."""
    both = threads[0].create_server(("", 80))
    both.settimeout(10)
    with threads[1].create_connection((CLIENT, 80), timeout=10) as waiting:
        both.disconnect()
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
    with pytest.raises(OSError, match="does not listen"):
        both.accept()
    threads[0].create_server(("", 80)).close()
    with threads[1].create_server(("", 81)) as listening, both:
        both.connect((SERVER[4], 81))
        listening.accept()[0].close()


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_what_waits_in_the_queues(threads: tuple[StackThread, StackThread], protocol: str) -> None:
    with (
        threads[1].create_server(("", 80), protocol=protocol) as listening,
        threads[0].create_connection((SERVER[4], 80), timeout=10, protocol=protocol) as near,
        threads[1].socket(protocol=protocol) as fresh,
    ):
        far, _ = listening.accept()
        far.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
        assert far.getsockopt(socket.IPPROTO_TCP, TCP_INQ) == 1
        with pytest.raises(OSError, match="reports_unread"):
            far.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 2)
        near.sendall(b"hello")
        near.shutdown(socket.SHUT_WR)
        while near.ioctl(queues.SIOCOUTQ):
            assert near.ioctl(queues.SIOCOUTQNSD) <= 6
        assert far.ioctl(queues.FIONREAD) == (6 if protocol == "mptcp" else 5)
        told = [far.recvmsg(size) for size in (1, 100, 100)]
        inq = [struct.pack("=i", count) for count in (5, 1, 1)]
        assert told == [
            (data, [(socket.IPPROTO_TCP, TCP_INQ, left)], 0, None)
            for data, left in zip((b"h", b"ello", b""), inq, strict=True)
        ]
        assert fresh.ioctl(queues.SIOCOUTQ) == 0
        with pytest.raises(OSError, match="listens"):
            listening.ioctl(queues.FIONREAD)
        with pytest.raises(OSError, match="request 0x1"):
            near.ioctl(1)
        far.sendall(b"x")
        assert near.recvmsg(10) == (b"x", [], 0, None)
        far.close()
