"""How much waits in a connection's queues: ioctl(2) with FIONREAD, SIOCOUTQ and SIOCOUTQNSD, and TCP_INQ.

The end of data counts as a byte where it does in Linux: in what is sent until it is acknowledged, and in
what TCP_INQ tells, so that who reads as much as is there learns of it. FIONREAD leaves it out for TCP only.
"""

from __future__ import annotations

import termios
from collections.abc import Callable
from errno import ENOTTY
from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import DataState
from mptcp_stack.mptcp.urgent_reading import is_at_mark

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection

FIONREAD, SIOCOUTQ = int(termios.FIONREAD), int(termios.TIOCOUTQ)
SIOCATMARK, SIOCOUTQNSD = 0x8905, 0x894B
_END_IS_UNSENT = (DataState.ESTABLISHED, DataState.CLOSE_WAIT)
_END_IS_ON_ITS_WAY = (*_END_IS_UNSENT, DataState.FIN_WAIT_1, DataState.CLOSING, DataState.LAST_ACK)


def ask(connection: Connection, request: int) -> int:
    """``ioctl`` with one of the four requests. Raises OSError(ENOTTY) for others."""
    answer = _ANSWERS.get(request)
    if answer is None:
        raise OSError(ENOTTY, f"request {request:#x}")
    return answer(connection)


def inq_hint(connection: Connection) -> int:
    """What TCP_INQ tells beside data that was read: bytes that can be read at once, and the end of data."""
    readable = connection.readable_bytes
    if connection.receive_buffer.fin_was_taken:
        return readable + 1
    return readable or int(_is_mptcp_socket(connection) and connection.is_closed)


def unread_bytes(connection: Connection) -> int:
    """FIONREAD."""
    return inq_hint(connection) if _is_mptcp_socket(connection) else connection.readable_bytes


def unacknowledged_bytes(connection: Connection) -> int:
    """SIOCOUTQ: sent or not, what the peer has not acknowledged."""
    if connection.state is DataState.CONNECTING:
        return 0
    ends = connection.write_closed and connection.state in _END_IS_ON_ITS_WAY
    return connection.unacknowledged_bytes + ends


def unsent_bytes(connection: Connection) -> int:
    """SIOCOUTQNSD: what was not sent yet."""
    if connection.state is DataState.CONNECTING:
        return 0
    ends = connection.write_closed and connection.state in _END_IS_UNSENT
    return connection.send_buffer.unsent.length + ends


def _is_mptcp_socket(connection: Connection) -> bool:
    """Also after a fallback."""
    return bool(connection.local_key.value)


_ANSWERS: dict[int, Callable[[Connection], int]] = {
    FIONREAD: unread_bytes,
    SIOCOUTQ: unacknowledged_bytes,
    SIOCOUTQNSD: unsent_bytes,
    SIOCATMARK: lambda connection: int(is_at_mark(connection)),
}
