"""A join to another port than that of its connection must have been invited by an ADD_ADDR (RFC 8684 §3.4.1).

The peer can't know the port otherwise. Counters and moments are those of Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection


def invites_syn(connection: Connection, address: bytes, port: int) -> bool:
    """Whether a SYN with a join may come there."""
    return _is_invited(connection, address, port, "MPJoinPortSynRx", "MismatchPortSynRx")


def invites_acknowledgement(connection: Connection, address: bytes, port: int) -> bool:
    """Whether the third packet may still come there."""
    return _is_invited(connection, address, port, "MPJoinPortAckRx", "MismatchPortAckRx")


def _is_invited(connection: Connection, address: bytes, port: int, invited: str, uninvited: str) -> bool:
    if port == connection.local[1]:
        return True
    is_invited = connection.path_manager.has_announced(connection, address, port)
    connection.environment.counters.increment("MPTcpExt" + (invited if is_invited else uninvited))
    return is_invited
