"""SO_LINGER with a time: close(2) waits until the peer has everything, as in Linux (RFC 9293 §3.9.1.4).

It does so on sockets that do not block too, and what is left when the time is over goes on without anybody.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.states import DataState
from mptcp_stack.sockets.coroutines import StreamSocket


def is_over(connection: Connection) -> bool:
    """After closing: the peer has acknowledged all that was written and the end, or never will."""
    return connection.state in (DataState.FIN_WAIT_2, DataState.CLOSED)


async def close(stream: StreamSocket, connection: Connection) -> None:
    """Closes, and waits as long as the socket is to linger. The second time it does nothing."""
    if connection.app_closed:
        return
    stream.close()
    seconds = connection.socket_options.linger_seconds
    if seconds > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(stream.wait_until(lambda: is_over(connection)), seconds)
