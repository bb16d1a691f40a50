"""What arrives between our answer to a SYN and the third packet, by the rules of Linux's requests.

They are those of RFC 9293 §3.10.7.4 for SYN_RECEIVED, but nothing is lost yet: a SYN in the window ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mptcp_stack.tcp import output
from mptcp_stack.tcp.refusals import ANSWER_INTERVAL_US
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.request import Request
    from mptcp_stack.wire.tcp_segment import TcpSegment


class HalfOpen(Protocol):
    """A request, or a subflow that was opened at once because its peer was believed (RFC 7413)."""

    last_answer_us: int

    @property
    def environment(self) -> Environment: ...
    @property
    def four_tuple(self) -> FourTuple: ...
    @property
    def irs(self) -> int: ...
    @property
    def rcv_nxt(self) -> int: ...
    @property
    def snd_iss(self) -> int: ...
    @property
    def snd_nxt(self) -> int: ...
    @property
    def timestamps_enabled(self) -> bool: ...
    @property
    def timestamp_recent(self) -> int: ...

    def first_window(self) -> int:
        """What the SYN/ACK offered."""

    def answer_again(self, now_us: int) -> None:
        """Repeats the SYN/ACK; its timer starts anew."""

    def tell_position(self, segment: TcpSegment, now_us: int) -> None:
        """Answers the segment with an acknowledgement."""

    def on_refused(self, segment: TcpSegment, now_us: int) -> None:
        """It has ended; the peer knows."""


def process(request: Request, segment: TcpSegment, now_us: int) -> None:
    """Takes a segment whose four-tuple is this request's."""
    if lets_pass(request, segment, unwrap(segment.sequence, request.rcv_nxt), now_us):
        request.complete(segment, now_us)


def lets_pass(half_open: HalfOpen, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Whether the segment may be the third packet, or follow it. Else it has been dealt with."""
    kind = segment.flags & (SYN | ACK | RST)
    if sequence == half_open.irs and kind == SYN and not _is_too_old(half_open, segment):
        _answer_again(half_open, now_us)
        return False
    if kind & ACK and not _acknowledges_answer(half_open, segment):
        half_open.environment.counters.increment("StackDropBadAcknowledgement")
        if not kind & RST:
            output.send_reset_at(half_open, segment, now_us)
        return False
    if not _is_acceptable(half_open, segment, sequence, now_us):
        return False
    if kind & RST and sequence != half_open.rcv_nxt:
        # RFC 5961 §3.2
        if _may_answer(half_open, now_us):
            half_open.environment.counters.increment("TcpExtTCPChallengeACK")
            half_open.tell_position(segment, now_us)
        return False
    if kind & RST or (kind & SYN and sequence != half_open.irs):
        half_open.environment.counters.increment("TcpAttemptFails")
        refuse(half_open, segment, now_us)
        return False
    if not kind & ACK:
        half_open.environment.counters.increment("StackDropUnexpectedState")
        return False
    # The SYN of a segment that lies before the window is cut off.
    segment.flags &= ~SYN
    return True


def refuse(half_open: HalfOpen, segment: TcpSegment, now_us: int) -> None:
    """Ends it, and tells the peer."""
    half_open.environment.counters.increment("TcpExtEmbryonicRsts")
    if not segment.flags & RST:
        output.send_refusal(half_open, segment, now_us)
    half_open.on_refused(segment, now_us)


def _acknowledges_answer(half_open: HalfOpen, segment: TcpSegment) -> bool:
    """And maybe data that followed it at once (RFC 7413)."""
    acknowledgement = unwrap(segment.acknowledgement, half_open.snd_nxt)
    return half_open.snd_iss < acknowledgement <= half_open.snd_nxt


def _answer_again(half_open: HalfOpen, now_us: int) -> None:
    """The peer repeated its SYN."""
    if _may_answer(half_open, now_us):
        half_open.answer_again(now_us)


def _may_answer(half_open: HalfOpen, now_us: int) -> bool:
    if now_us - half_open.last_answer_us >= ANSWER_INTERVAL_US:
        half_open.last_answer_us = now_us
        return True
    half_open.environment.counters.increment("TcpExtTCPACKSkippedSynRecv")
    return False


def _is_too_old(half_open: HalfOpen, segment: TcpSegment) -> bool:
    """RFC 7323 §5.3; a RST is believed whatever its timestamp."""
    value = segment.options.timestamp_value
    if not half_open.timestamps_enabled or value is None or segment.flags & RST:
        return False
    return unwrap(value, half_open.timestamp_recent) < half_open.timestamp_recent


def _is_acceptable(half_open: HalfOpen, segment: TcpSegment, sequence: int, now_us: int) -> bool:
    """Who sends what is out of the window is told where it is, at a bounded rate."""
    is_too_old = _is_too_old(half_open, segment)
    end = sequence + len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    edge = half_open.rcv_nxt + half_open.first_window()
    is_inside = (
        sequence == half_open.rcv_nxt
        or (end > half_open.rcv_nxt and sequence < edge)
        or (sequence == end == edge)
    )
    if is_inside and not is_too_old:
        return True
    counters = half_open.environment.counters
    # Who sends data waits for an answer; two ends that only acknowledge would answer each other for ever.
    has_data = len(segment.payload) > 0 and not segment.flags & SYN
    if not segment.flags & RST and (has_data or _may_answer(half_open, now_us)):
        half_open.tell_position(segment, now_us)
    if is_too_old:
        counters.increment("TcpExtPAWSEstab")
        counters.increment("StackDropPaws")
    else:
        counters.increment("StackDropOutOfWindow")
    return False
