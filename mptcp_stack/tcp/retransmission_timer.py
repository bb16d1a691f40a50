"""The one timer of a sender with data outstanding: for a probe, for reordering, or for a retransmission.

As in Linux they never run beside each other; whichever is first is set, and setting one replaces another.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from mptcp_stack.tcp import output, tail_loss_probe
from mptcp_stack.tcp.states import Recovery

if TYPE_CHECKING:
    from mptcp_stack.tcp.retransmission_queue import Chunk
    from mptcp_stack.tcp.subflow import Subflow


class Purpose(Enum):
    """What happens when the timer fires."""

    RETRANSMISSION = auto()
    LOSS_PROBE = auto()
    REORDERING = auto()


def _set(subflow: Subflow, purpose: Purpose, deadline_us: int) -> None:
    subflow.timer_purpose = purpose
    subflow.retransmission_timer.set(deadline_us)


def wait_for_head(subflow: Subflow, now_us: int) -> None:
    """What is left of the retransmission timeout of the first outstanding chunk."""
    _set(subflow, Purpose.RETRANSMISSION, max(_head_deadline_us(subflow), now_us + 1))


def _head_deadline_us(subflow: Subflow) -> int:
    """When the retransmission timeout of the first outstanding chunk is over."""
    return subflow.retransmission_queue.chunks[0].sent_us + subflow.round_trip.rto_us


def restart(subflow: Subflow, now_us: int) -> None:
    """RFC 6298 §5: a whole timeout from now; after another purpose what is left of the first chunk's."""
    if not len(subflow.retransmission_queue):
        subflow.retransmission_timer.cancel()
        return
    deadline_us = now_us + subflow.round_trip.rto_us
    if subflow.timer_purpose is not Purpose.RETRANSMISSION and subflow.retransmission_timer.is_set:
        deadline_us = max(_head_deadline_us(subflow), now_us + 1)
    _set(subflow, Purpose.RETRANSMISSION, deadline_us)


def start(subflow: Subflow, now_us: int) -> None:
    """A whole timeout from now, whatever ran before."""
    _set(subflow, Purpose.RETRANSMISSION, now_us + subflow.round_trip.rto_us)


def fire_in(subflow: Subflow, wait_us: int, now_us: int) -> None:
    """The retransmission timeout comes earlier than usual."""
    _set(subflow, Purpose.RETRANSMISSION, now_us + wait_us)


def wait_for_reordering(subflow: Subflow, wait_us: int, now_us: int) -> None:
    """RFC 8985 §6.3: what is late by then is lost; never later than a retransmission would come."""
    wait_us = min(wait_us + tail_loss_probe.TIMER_SLACK_US, subflow.round_trip.rto_us)
    _set(subflow, Purpose.REORDERING, now_us + wait_us)


def on_sent(subflow: Subflow, now_us: int) -> None:
    """New data, or a FIN, has just been sent."""
    if _schedule_probe(subflow, _head_deadline_us(subflow), now_us):
        return
    if (
        subflow.retransmission_timer.deadline_us is None
        or len(subflow.retransmission_queue.chunks) == 1
        or subflow.timer_purpose is Purpose.LOSS_PROBE
    ):
        restart(subflow, now_us)


def on_progress(subflow: Subflow, now_us: int) -> None:
    """RFC 6298 §5.3, RFC 8985 §7.2: something was acknowledged for good."""
    if not len(subflow.retransmission_queue):
        subflow.retransmission_timer.cancel()
    elif not _schedule_probe(subflow, now_us + subflow.round_trip.rto_us, now_us):
        restart(subflow, now_us)


def send_lost(subflow: Subflow, chunk: Chunk, now_us: int) -> None:
    """Retransmits what was found lost; the first outstanding chunk gets a whole timeout anew."""
    segments = max(1, -(-chunk.data_length // subflow.segment_bytes))
    name = "TcpExtTCPSlowStartRetrans" if subflow.recovery is Recovery.TIMEOUT else "TcpExtTCPFastRetrans"
    subflow.environment.counters.increment(name, segments)
    output.send_again(subflow, chunk, now_us)
    if chunk is subflow.retransmission_queue.chunks[0] and (
        subflow.timer_purpose is not Purpose.REORDERING or not subflow.retransmission_timer.is_set
    ):
        start(subflow, now_us)


def _schedule_probe(subflow: Subflow, timeout_deadline_us: int, now_us: int) -> bool:
    wait_us = tail_loss_probe.timeout_us(subflow)
    if wait_us is None:
        return False
    if subflow.pacing is not None:
        wait_us += subflow.pacing.wait_us(now_us)
    deadline_us = now_us + wait_us
    if timeout_deadline_us > now_us:
        deadline_us = min(deadline_us, timeout_deadline_us)
    _set(subflow, Purpose.LOSS_PROBE, deadline_us)
    return True
