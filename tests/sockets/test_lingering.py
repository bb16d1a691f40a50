"""SO_LINGER of blocking sockets: two stacks in threads of their own."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from mptcp_stack.mptcp.states import DataState
from mptcp_stack.sockets.blocking import BlockingSocket, StackThread
from tests.sockets.test_over_run_loop import SERVER


def connected(threads: tuple[StackThread, StackThread], protocol: str, seconds: int) -> BlockingSocket:
    """The client's socket with SO_LINGER; nobody reads at the other end, whose stack answers."""
    threads[1].create_server(("", 80), protocol=protocol)
    near = threads[0].create_connection((SERVER[4], 80), timeout=10, protocol=protocol)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, seconds))
    return near


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_closing_returns_when_the_peer_has_everything(
    threads: tuple[StackThread, StackThread], protocol: str
) -> None:
    near = connected(threads, protocol, 60)
    connection = near.connection
    # The kernel lingers whether a socket blocks or not.
    near.setblocking(False)
    near.send(bytes(30_000))
    near.close()
    assert threads[0].call(lambda: connection.state) in (DataState.FIN_WAIT_2, DataState.CLOSED)
    assert threads[0].call(lambda: connection.unacknowledged_bytes) == 0
    near.close()


@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_closing_waits_while_something_is_missing(
    threads: tuple[StackThread, StackThread], protocol: str
) -> None:
    near = connected(threads, protocol, 60)
    connection = near.connection
    threads[1].close()
    near.send(b"nobody acknowledges this")
    closing = threading.Thread(target=near.close)
    closing.start()
    while not threads[0].call(lambda: connection.app_closed):
        pass
    for _ in range(20):
        threads[0].call(lambda: None)
    assert closing.is_alive()
    threads[0].call(connection.abort)
    threads[0].call(threads[0].wake)
    closing.join(10)
    assert not closing.is_alive()


def test_closing_waits_no_longer_than_that(threads: tuple[StackThread, StackThread]) -> None:
    near = connected(threads, "tcp", 1)
    connection = near.connection
    threads[1].close()
    near.send(b"nobody acknowledges this")
    began = time.monotonic()
    near.close()
    assert 1 <= time.monotonic() - began < 30
    assert threads[0].call(lambda: connection.unacknowledged_bytes) == 24
