"""The peer's FIN: in order it ends the stream, beyond a hole it waits for that (RFC 9293 §3.10.7.4)."""

from __future__ import annotations

from mptcp_stack.tcp import output
from mptcp_stack.tcp.states import CAN_RECEIVE, Acknowledge, Event, State
from mptcp_stack.tcp.subflow import Subflow


def on_fin(subflow: Subflow, fin_position: int, now_us: int) -> None:
    """A segment with FIN, whose data has been processed before."""
    if subflow.peer_fin_position is not None or subflow.state not in CAN_RECEIVE:
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    elif fin_position > subflow.rcv_nxt:
        subflow.waiting_fin_position = fin_position
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    elif fin_position == subflow.rcv_nxt:
        _take(subflow, fin_position, now_us)


def on_hole_filled(subflow: Subflow, now_us: int) -> None:
    """``rcv_nxt`` has moved, and a FIN is waiting."""
    fin_position = subflow.waiting_fin_position
    if fin_position is None or fin_position > subflow.rcv_nxt:
        return
    subflow.waiting_fin_position = None
    if fin_position == subflow.rcv_nxt and subflow.state in CAN_RECEIVE:
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
        _take(subflow, fin_position, now_us)


def _take(subflow: Subflow, fin_position: int, now_us: int) -> None:
    subflow.peer_fin_position = fin_position
    subflow.rcv_nxt += 1
    subflow.change_state(Event.FIN_RECEIVED)
    if subflow.state is State.TIME_WAIT:
        output.send_acknowledgement(subflow, now_us)
        subflow.on_fin(now_us)
        subflow.enter_time_wait(now_us)
        return
    if subflow.state is State.CLOSE_WAIT:
        # The application is likely to close as well: its FIN can carry the acknowledgement.
        subflow.acknowledging.is_interactive = True
        subflow.acknowledging.schedule(subflow, now_us)
    else:
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    subflow.on_fin(now_us)
