"""D-SACK: telling the peer which segments came twice, and being told (RFC 2883, RFC 3708)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.states import Acknowledge
from mptcp_stack.wire.sequence import unwrap

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow


@dataclass(slots=True)
class DuplicateReport:
    """Segments that the peer has received twice."""

    segments: int
    is_of_tail_probe: bool


def read_blocks(
    subflow: Subflow, acknowledgement: int, blocks: tuple[tuple[int, int], ...]
) -> tuple[DuplicateReport | None, list[tuple[int, int]]]:
    """Separates a D-SACK in the first place from blocks that tell of new data.

    Of these only those count that lie within what is outstanding (RFC 2018 §5, hostile or stale).
    """
    una, nxt = subflow.snd_una, subflow.snd_nxt
    ranges = [(unwrap(left, una), unwrap(right, una)) for left, right in blocks]
    report = None
    if _is_duplicate(subflow, acknowledgement, ranges):
        start, end = ranges.pop(0)
        report = _believe(subflow, start, end)
    return report, [(start, end) for start, end in ranges if una <= start < end <= nxt]


def _is_duplicate(subflow: Subflow, acknowledgement: int, ranges: list[tuple[int, int]]) -> bool:
    """RFC 2883 §4: it lies below the acknowledgement, or within the second block."""
    start, end = ranges[0]
    counters = subflow.environment.counters
    if start < acknowledgement:
        counters.increment("TcpExtTCPDSACKRecv")
        return True
    if len(ranges) > 1 and ranges[1][0] <= start and end <= ranges[1][1]:
        counters.increment("TcpExtTCPDSACKOfoRecv")
        return True
    return False


def _believe(subflow: Subflow, start: int, end: int) -> DuplicateReport | None:
    """What it tells, unless it cannot be: of more than was ever sent again, or longer than any window."""
    segments = max(1, -(-(end - start) // subflow.segment_bytes))
    subflow.duplicate_segments_told += segments
    if (
        start >= end
        or end - start > subflow.largest_send_window
        or end > subflow.snd_nxt
        or subflow.duplicate_segments_told > subflow.segments_sent_again
    ):
        subflow.environment.counters.increment("TcpExtTCPDSACKIgnoredDubious")
        return None
    subflow.environment.counters.increment("TcpExtTCPDSACKRecvSegs", segments)
    probe = subflow.tail_probe
    is_of_tail_probe = probe is not None and probe.end == end and segments == 1
    if not is_of_tail_probe:
        subflow.rack.on_duplicate_delivered()
    episode = subflow.episode
    if episode is not None and episode.can_undo and end > episode.start:
        was_acknowledged = end <= subflow.snd_una
        if was_acknowledged or subflow.retransmission_queue.was_sent_again(start, end):
            episode.on_duplicates_delivered(segments)
    return DuplicateReport(segments, is_of_tail_probe)


# --- telling the peer ---


def on_data(subflow: Subflow, start: int, end: int, now_us: int) -> None:
    """Data that is partly known already, or may be: some is missing, or it starts before what is expected."""
    if start < subflow.rcv_nxt:
        tell(subflow, start, min(end, subflow.rcv_nxt), now_us)
        return
    overlap = subflow.reassembly.first_overlap(start, end)
    if overlap is not None:
        # What fills the hole is below the acknowledgement that tells of it.
        tell(subflow, *overlap, now_us, is_old=start == subflow.rcv_nxt)


def tell(subflow: Subflow, start: int, end: int, now_us: int, *, is_old: bool = True) -> None:
    """The next acknowledgement names this range first (RFC 2883 §4)."""
    if not subflow.sack_enabled or not subflow.environment.settings.tcp_dsack:
        return
    if subflow.duplicate_block is not None and subflow.acknowledge is Acknowledge.NOW:
        # Each duplicate is told of once, so the one before must not be lost.
        output.send_acknowledgement(subflow, now_us)
    subflow.environment.counters.increment("TcpExtTCPDSACKOldSent" if is_old else "TcpExtTCPDSACKOfoSent")
    subflow.duplicate_block = (start, end)
