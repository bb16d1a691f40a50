"""Data that goes with a SYN, at the level of connections (RFC 7413; RFC 8684 Appendix B).

It lies before the stream's first position, on both ends, so that mappings need not know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.mptcp.states import DataEvent
from mptcp_stack.tcp import fast_open
from mptcp_stack.tcp.fast_open import FastOpenQueue, Mode, Opening

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.interfaces import Acceptor
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.wire.tcp_segment import TcpSegment


def offer(connection: Connection, data: bytes) -> None:
    """Before the SYN has left: what of the data may go with it does, and a cookie is asked for if need be."""
    subflow = connection.subflows[0]
    fast_open.prepare(subflow, data, connection.environment.timers.clock_us)


def bytes_taken(connection: Connection) -> int:
    """How much of what was offered goes, or went, with the SYN; the rest is the application's to write."""
    opening = connection.subflows[0].fast_open if connection.subflows else None
    return 0 if opening is None else len(opening.data)


def judge(
    environment: Environment, listener: Acceptor, four_tuple: FourTuple, syn: TcpSegment, now_us: int
) -> Opening | None:
    """What the listener does with what a first SYN says and brings of it."""
    settings, counters = environment.settings, environment.counters
    if syn.options.fast_open_cookie == b"":
        counters.increment("TcpExtTCPFastOpenCookieReqd")
    if syn.options.fast_open_cookie is None and not len(syn.payload):
        return None
    limit = queue_limit(listener, settings.tcp_fastopen)
    if not limit:
        return None
    if listener.fast_open is None:
        listener.fast_open = FastOpenQueue()
    if not listener.fast_open.has_room(limit, counters, now_us):
        return None
    options = listener.socket_options
    return environment.fast_open.judge(settings, options, four_tuple[0], four_tuple[2], syn)


def takes_place_of_timestamps(opening: Opening | None, listener: Acceptor) -> bool:
    """As in Linux: a cookie leaves no room for both timestamps and MP_CAPABLE with a key."""
    return opening is not None and opening.answer is not None and listener.is_mptcp


def queue_limit(listener: Acceptor, mode: int) -> int:
    if not mode & Mode.SERVER:
        return 0
    limit = listener.socket_options.fast_open_queue
    return limit or (listener.backlog if mode & Mode.SERVER_WITHOUT_OPTION else 0)


def begin(connection: Connection, listener: Acceptor) -> None:
    """The SYN/ACK has left. Who was believed is the application's now, with data, and may be answered."""
    opening = connection.subflows[0].fast_open
    if opening is None or not opening.is_passive:
        return
    connection.environment.counters.increment("TcpPassiveOpens")
    if listener.fast_open is not None:
        listener.fast_open.pending += 1
    if opening.data:
        connection.receive_buffer.put_before(opening.data)
    connection.change_state(DataEvent.ESTABLISHED)
    listener.on_ready(connection)


def on_established(subflow: MptcpSubflow, opening: Opening, now_us: int) -> None:
    """The handshake is complete. What the server has not taken of a SYN's data is written anew."""
    if opening.is_passive:
        _leave_queue(subflow, was_reset=False, now_us=now_us)
    elif opening.rest:
        # Nothing else can have been written before.
        subflow.connection.send_buffer.unsent.append(opening.rest)
        subflow.connection.request_output()
        opening.rest = b""


def on_closed(subflow: MptcpSubflow, opening: Opening, now_us: int) -> None:
    if opening.is_passive and not subflow.was_established:
        _leave_queue(subflow, was_reset=opening.was_reset, now_us=now_us)


def _leave_queue(subflow: MptcpSubflow, *, was_reset: bool, now_us: int) -> None:
    connection = subflow.connection
    listener = connection.listener
    if listener is not None and listener.fast_open is not None:
        keeps_place = was_reset and not listener.is_waiting(connection)
        listener.fast_open.on_end(keeps_place=keeps_place, now_us=now_us)
