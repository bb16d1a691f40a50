"""A socket that is disconnected and connects again, as by connect(2) with AF_UNSPEC in between."""

from __future__ import annotations

from errno import ENOTCONN
from os import strerror

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.sockets.coroutines import StreamSocket
from mptcp_stack.stack import Stack


async def reconnect(
    stack: Stack,
    stream: StreamSocket,
    remote: bytes,
    port: int,
    *,
    local: bytes | None = None,
    local_port: int = 0,
) -> None:
    """Ends the connection as ``StreamSocket.disconnect`` does, and waits for another one's handshake.

    The socket's protocol and its options stay. After an error it has no connection, and may try again.
    Raises OSError.
    """
    before = stream.connection
    if not isinstance(before, Connection):
        raise OSError(ENOTCONN, strerror(ENOTCONN))
    stream.disconnect()
    connection = stack.connect(
        remote,
        port,
        protocol="mptcp" if before.local_key.value else "tcp",
        local=local,
        local_port=local_port,
        options=before.socket_options,
    )
    stream.renew(connection)
    await stream.wait_established()
