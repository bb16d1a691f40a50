"""Was the timeout needless? F-RTO with SACK, as Linux does it (RFC 5682 §3.1)."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.tcp.recovery_phases import Evidence
    from mptcp_stack.tcp.subflow import Subflow


class Verdict(Enum):
    """What an acknowledgement after a timeout says of the timeout."""

    UNDECIDED = auto()
    SPURIOUS = auto()
    TRIES_NEW_DATA = auto()
    """Step 2b: instead of sending the rest again, new data goes out; its acknowledgement decides."""


_TRIED_SEGMENTS = 2


def _send_new_data(subflow: Subflow, now_us: int) -> bool:
    """Here and not when the windows allow, since a scheduler might send it on another subflow."""
    nxt = subflow.snd_nxt
    for _ in range(_TRIED_SEGMENTS):
        if subflow.window_edge() <= subflow.snd_nxt or not subflow.has_unsent_data():
            break
        subflow.send_beyond_window(now_us)
    return subflow.snd_nxt > nxt


def judge(subflow: Subflow, evidence: Evidence, has_recovered: bool) -> Verdict:
    """Takes one acknowledgement; ends the examination when the loss was real."""
    result, episode = evidence.result, subflow.episode
    if episode is None:
        return Verdict.UNDECIDED
    episode.holds_retransmissions = False
    if not episode.may_be_spurious_timeout:
        return Verdict.UNDECIDED
    is_original = result.lowest_original_end <= subflow.recovery_point
    if not subflow.sack_enabled and result.has_retransmitted:
        # Without SACK progress may be due to the retransmission.
        is_original = False
    if is_original:
        # Step 3b: what was never sent again has arrived, so not everything was lost.
        return Verdict.SPURIOUS
    if subflow.snd_nxt > subflow.recovery_point:
        if result.newly_sacked or evidence.is_duplicate:
            episode.may_be_spurious_timeout = False
    elif evidence.has_progress and not has_recovered:
        subflow.recovery_point = subflow.snd_nxt
        if _send_new_data(subflow, evidence.now_us):
            episode.holds_retransmissions = True
            return Verdict.TRIES_NEW_DATA
        episode.may_be_spurious_timeout = False
    return Verdict.UNDECIDED
