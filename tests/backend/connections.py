"""Sockets in the namespaces of a lab, without a process per command."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from testbed.backend.lab import Lab
from testbed.backend.system import network_namespace

TIMEOUT_S = 5.0


@contextlib.contextmanager
def inside(lab: Lab, node: str) -> Iterator[None]:
    """Sockets opened in the block belong to the node."""
    descriptor = os.open(lab.namespace_path(node), os.O_RDONLY)
    try:
        with network_namespace(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def connection(
    lab: Lab, client: str, server: str, address: str, *, source: str | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection between two nodes: the client's socket and the server's."""
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as closing:
        with inside(lab, server):
            listener = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.settimeout(TIMEOUT_S)
        listener.bind((address, 0))
        listener.listen()
        with inside(lab, client):
            connecting = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
        connecting.settimeout(TIMEOUT_S)
        if source is not None:
            connecting.bind((source, 0))
        connecting.connect(listener.getsockname()[:2])
        accepted, _peer = listener.accept()
        closing.enter_context(accepted)
        accepted.settimeout(TIMEOUT_S)
        yield connecting, accepted


def can_talk(lab: Lab, client: str, server: str, address: str, *, source: str | None = None) -> bool:
    """Whether a byte gets there and back."""
    with connection(lab, client, server, address, source=source) as (near, far):
        near.sendall(b"?")
        if far.recv(1) != b"?":
            return False
        far.sendall(b"!")
        return near.recv(1) == b"!"
