"""Explicit Congestion Notification (RFC 3168 §6): routers mark, the receiver echoes, the sender slows down.

A subflow has an :class:`ExplicitCongestion` once both ends have agreed on it, a client already with its SYN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.states import Acknowledge, Recovery, State
from mptcp_stack.wire.tcp_segment import ACK, CWR, ECE, SYN

if TYPE_CHECKING:
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.retransmission_queue import Chunk
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment

NOT_ECT, ECT_1, ECT_0, CE = range(4)
ECN_FIELD = 3
"""The two bits of the IP header (RFC 3168 §5)."""
DISABLED, ENABLED, ON_REQUEST = range(3)
"""Values of tcp_ecn: never; also asked for; only agreed to."""
QUICK_ACKNOWLEDGEMENTS = 2


def class_of_answer(segment: TcpSegment) -> int:
    """What no socket sends bears the class of what it answers, without the ECN field, as in Linux."""
    return segment.traffic_class & ~ECN_FIELD


class ExplicitCongestion:
    """Both roles: what we owe the peer, and what the peer told us."""

    __slots__ = (
        "answered_point",
        "has_seen_marks",
        "is_echo",
        "must_confirm",
        "must_echo",
        "reduction_point",
    )

    def __init__(self) -> None:
        self.must_echo = False
        """A mark came: every acknowledgement carries ECE until the peer sends CWR (RFC 3168 §6.1.3)."""
        self.has_seen_marks = False
        self.must_confirm = False
        """The window was reduced: the next new data carries CWR (RFC 3168 §6.1.2)."""
        self.reduction_point: int | None = None
        """The end of what was in flight at a reduction.

        Until more is acknowledged the window neither shrinks nor grows: the first of that brought CWR.
        """
        self.is_echo = False
        """The acknowledgement at hand carries ECE."""
        self.answered_point = -1
        """The loss recovery that CWR has told of."""

    # --- sending ---

    def flags(self) -> int:
        """Of a segment without new data."""
        return ECE if self.must_echo else 0

    def on_new_data(self, subflow: Subflow) -> int:
        """The flags of a segment with new data, which is sent with ECT(0)."""
        if subflow.recovery is not Recovery.NONE and subflow.recovery_point != self.answered_point:
            # RFC 3168 §6.1.2: for whatever reason the window was reduced.
            self.answered_point = subflow.recovery_point
            self.must_confirm = True
        if self.must_confirm:
            self.must_confirm = False
            return CWR | self.flags()
        return self.flags()

    # --- receiving ---

    def on_delivered(self, subflow: Subflow, segments: int) -> None:
        if self.is_echo:
            subflow.environment.counters.increment("TcpExtTCPDeliveredCE", segments)

    def on_acknowledgement(self, subflow: Subflow, flags: int, acknowledgement: int) -> None:
        """Before what the acknowledgement delivers is counted. Reduces the window once per window of data."""
        if self.reduction_point is not None and acknowledgement > self.reduction_point:
            self.reduction_point = None
        if flags & CWR:
            # Also without data, as Linux has it.
            self.must_echo = False
        self.is_echo = flags & (ECE | SYN) == ECE and acknowledgement >= subflow.snd_una
        if not self.is_echo or not len(subflow.retransmission_queue):
            return
        if self.reduction_point is None and subflow.recovery is Recovery.NONE:
            self.reduction_point = subflow.snd_nxt
            self.must_confirm = True
            subflow.congestion.on_congestion_notification()

    def on_data(self, subflow: Subflow, segment: TcpSegment, now_us: int) -> None:
        """Data within the window: a mark to echo, or the peer's answer to our echo."""
        if segment.flags & CWR:
            # The peer's window may be down to one segment, so it gets its acknowledgement at once.
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
        mark = segment.traffic_class & ECN_FIELD
        if mark == CE:
            if not self.must_echo:
                self.must_echo = True
                subflow.acknowledging.enter_quick_mode(subflow, QUICK_ACKNOWLEDGEMENTS)
            self.has_seen_marks = True
        elif mark:
            self.has_seen_marks = True
        elif self.has_seen_marks:
            # Probably a retransmission (RFC 3168 §6.1.5).
            subflow.acknowledging.enter_quick_mode(subflow, QUICK_ACKNOWLEDGEMENTS)


def is_window_held(subflow: Subflow) -> bool:
    """A mark has reduced it, and no loss recovery rules it since."""
    congestion = subflow.explicit_congestion
    return (
        congestion is not None
        and congestion.reduction_point is not None
        and subflow.recovery is Recovery.NONE
    )


def reduce_for_loss(subflow: Subflow) -> None:
    """At the start of fast recovery: once per window of data, be it for marks or losses (RFC 3168 §6.1.2)."""
    congestion = subflow.explicit_congestion
    if congestion is not None and congestion.reduction_point is not None:
        congestion.answered_point = subflow.recovery_point
    else:
        subflow.congestion.on_loss()


def syn_flags(subflow: Subflow, chunk: Chunk) -> int:
    """What a SYN or SYN/ACK adds to its flags (RFC 3168 §6.1.1); a repeated SYN asks no more."""
    settings = subflow.environment.settings
    if chunk.flags & ACK:
        return ECE if subflow.explicit_congestion is not None else 0
    if settings.tcp_ecn != ENABLED:
        return 0
    subflow.explicit_congestion = subflow.explicit_congestion or ExplicitCongestion()
    if chunk.transmissions > 1 and settings.tcp_ecn_fallback:
        # RFC 3168 §6.1.1.1: some middleboxes drop such SYNs. As in Linux a lost SYN counts as a reduction.
        subflow.explicit_congestion.must_confirm = True
        return 0
    return ECE | CWR


def accepts(settings: StackSettings, syn: TcpSegment) -> bool:
    """Whether a SYN asks for it, and this host grants it.

    A SYN that is marked itself is not by the RFC: then the marks of that path mean something else.
    """
    is_asked = syn.flags & (ECE | CWR) == ECE | CWR and syn.traffic_class & ECN_FIELD == NOT_ECT
    return is_asked and settings.tcp_ecn != DISABLED


def negotiate(subflow: Subflow, segment: TcpSegment) -> None:
    """A SYN or SYN/ACK came."""
    has_asked = subflow.explicit_congestion is not None
    if segment.flags & ACK:
        agreed = has_asked and segment.flags & (ECE | CWR) == ECE
    else:
        agreed = accepts(subflow.environment.settings, segment)
        agreed = agreed and (has_asked or subflow.state is not State.SYN_SENT)
    if not agreed:
        subflow.explicit_congestion = None
    elif not has_asked:
        subflow.explicit_congestion = ExplicitCongestion()
