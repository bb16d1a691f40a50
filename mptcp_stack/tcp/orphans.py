"""What was closed and has its FIN acknowledged: the wait for the peer's FIN, or none (TCP_LINGER2).

RFC 9293 §3.6 lets a connection wait in FIN_WAIT_2 for as long as the peer likes. Linux bounds that once
nobody is left to read, by ``tcp_fin_timeout`` or what the socket says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.states import State

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment


def on_closed(subflow: Subflow, now_us: int) -> None:
    """Nobody is left to read, in whatever state it is."""
    if subflow.state is State.FIN_WAIT_2 and _waits_for_nothing(subflow):
        subflow.count("TcpExtTCPAbortOnLinger")
        subflow.reset(now_us, None)
    else:
        subflow.hand_over_orphan(now_us)


def on_segment(subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
    """In FIN_WAIT_2, which it may have brought about."""
    if _waits_for_nothing(subflow):
        subflow.count("TcpExtTCPAbortOnData")
        output.send_reset_at(subflow, segment, now_us)
        subflow.finish(None, now_us)
    else:
        subflow.hand_over_orphan(now_us)


def _waits_for_nothing(subflow: Subflow) -> bool:
    return subflow.socket_options.fin_wait_2_us < 0 and subflow.is_orphan
