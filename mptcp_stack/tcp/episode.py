"""What is remembered of one reduction of the window, so that it can be taken back (RFC 4015, 3522, 3708).

It can when every retransmission turns out to have been needless, by D-SACK, or when the first one was, by an
echoed timestamp from before it.
"""

from __future__ import annotations

from mptcp_stack.tcp.proportional_rate_reduction import ProportionalRateReduction


class LossEpisode:
    """From the moment a loss is believed in; replaced by the next."""

    __slots__ = (
        "can_undo",
        "first_again_ms",
        "holds_retransmissions",
        "may_be_spurious_timeout",
        "reduction",
        "start",
        "unconfirmed_segments",
    )

    def __init__(self, start: int) -> None:
        self.start = start
        """What was acknowledged when it began; Linux's undo_marker."""
        self.can_undo = True
        self.reduction: ProportionalRateReduction | None = None
        """While fast recovery reduces the window."""
        self.unconfirmed_segments: int | None = None
        """Retransmissions that no D-SACK has told to be needless; None: there was none yet."""
        self.first_again_ms: int | None = None
        """The timestamp of the first retransmission."""
        self.may_be_spurious_timeout = False
        """F-RTO has not decided yet (RFC 5682 §3.1)."""
        self.holds_retransmissions = False
        """F-RTO, step 2b: until the new data that was sent instead is acknowledged, or is not."""

    def on_sent_again(self, segments: int, now_ms: int) -> None:
        self.unconfirmed_segments = (self.unconfirmed_segments or 0) + segments
        if self.first_again_ms is None:
            self.first_again_ms = now_ms

    def on_duplicates_delivered(self, segments: int) -> None:
        if self.unconfirmed_segments:
            self.unconfirmed_segments = max(0, self.unconfirmed_segments - segments)

    def on_new_data_sent(self, length: int) -> None:
        if self.reduction is not None:
            self.reduction.sent_bytes += length

    @property
    def all_were_needless(self) -> bool:
        """Each retransmission arrived beside the original."""
        return self.can_undo and self.unconfirmed_segments == 0

    def first_was_needless(self, echoed_ms: int | None) -> bool:
        """What was acknowledged was sent before the first retransmission, or there was none."""
        if not self.can_undo:
            return False
        if self.first_again_ms is None:
            return True
        return echoed_ms is not None and echoed_ms < self.first_again_ms
