"""What follows when data and mappings do not agree: fallback, MP_FAIL or a reset (RFC 8684 §3.7).

A connection falls back where that is still possible; else only the subflow is reset, with the reason that
Linux gives. After a wrong checksum both ends say MP_FAIL, and mark their next data by an infinite mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import ECONNRESET, ETIMEDOUT
from typing import TYPE_CHECKING

from mptcp_stack.mptcp import fallback
from mptcp_stack.mptcp.states import Mode, ResetReason
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.wire.mptcp_options import MpFail

if TYPE_CHECKING:
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.tcp.timers import Timer

ANSWER_WAIT_US = 120_000_000
"""How long Linux waits for the peer to answer MP_FAIL: the largest RTO."""


@dataclass(slots=True)
class Failure:
    """What a subflow keeps from the first MP_FAIL on, sent or received."""

    must_tell: bool = False
    """The next acknowledgement carries MP_FAIL."""
    must_end_mappings: bool = False
    """The next data gets an infinite mapping."""
    answer_timer: Timer | None = None


def on_missing(subflow: MptcpSubflow, position: int, now_us: int) -> bool:
    """Data without any mapping: the path removes options. False when the subflow was reset."""
    is_first = not subflow.is_confirmed and position == 1
    counter = "MPTcpExtMPCapableDataFallback" if is_first else "MPTcpExtDssFallback"
    return _fall_back(subflow, counter, ResetReason.MIDDLEBOX_INTERFERENCE, now_us)


def on_invalid(subflow: MptcpSubflow, now_us: int) -> bool:
    """A mapping that breaks the protocol. False when the subflow was reset."""
    return _fall_back(subflow, "MPTcpExtDssFallback", ResetReason.MPTCP_SPECIFIC, now_us)


def on_overrun(subflow: MptcpSubflow, now_us: int) -> bool:
    """A segment with more data than its mapping covers. False when the subflow was reset."""
    if _fall_back(subflow, "MPTcpExtDSSCorruptionFallback", ResetReason.UNSPECIFIED, now_us):
        return True
    subflow.environment.counters.increment("MPTcpExtDSSCorruptionReset")
    return False


def on_infinite_mapping(subflow: MptcpSubflow, now_us: int) -> bool:
    """The peer gives up MPTCP from here on. False when the subflow was reset."""
    subflow.environment.counters.increment("MPTcpExtInfiniteMapRx")
    return on_invalid(subflow, now_us)


def _fall_back(subflow: MptcpSubflow, counter: str, reason: int, now_us: int) -> bool:
    if subflow.is_join or not fallback.is_possible(subflow.connection):
        subflow.reset_with_reason(reason, ECONNRESET, now_us)
        return False
    fallback.fall_back(subflow.connection, counter)
    return True


def on_bad_checksum(subflow: MptcpSubflow, now_us: int) -> bool:
    """A middlebox changed the data. True when it is taken all the same, because the stream goes on as TCP."""
    connection = subflow.connection
    subflow.environment.counters.increment("MPTcpExtDataCsumErr")
    if not subflow.is_join and not subflow.valid_checksum_seen:
        # The very first is wrong: checksums never worked here, and nothing is to be told.
        return on_invalid(subflow, now_us)
    if connection.join_was_answered or not fallback.is_permitted(connection):
        # A peer that counts on two subflows would ignore MP_FAIL, and the data must not be wrong for nothing.
        subflow.environment.counters.increment("MPTcpExtMPFailTx")
        option = MpFail(_fail_sequence(subflow))
        subflow.reset_with_reason(ResetReason.MIDDLEBOX_INTERFERENCE, ECONNRESET, now_us, option)
        return False
    failure = _failure_of(subflow)
    connection.forbids_joins = True
    failure.must_tell = True
    subflow.want_acknowledgement(Acknowledge.NOW, now_us)
    subflow.flush_acknowledgement(now_us)
    if not connection.app_closed and failure.answer_timer is None:
        failure.answer_timer = subflow.environment.timers.timer(lambda at_us: _on_no_answer(subflow, at_us))
        failure.answer_timer.set(now_us + ANSWER_WAIT_US)
    return True


def on_bad_data_delivered(subflow: MptcpSubflow, told_edge: int, now_us: int) -> None:
    """The acknowledgement with MP_FAIL was ahead of the data, and let the peer send up to ``told_edge``.

    Where that is no segment more, the peer waits for the data's DATA_ACK.
    """
    if told_edge - subflow.connection.receive_buffer.next_position < subflow.segment_bytes:
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)


def _on_no_answer(subflow: MptcpSubflow, now_us: int) -> None:
    if subflow.connection.mode is Mode.MPTCP and subflow.state is not State.CLOSED:
        subflow.reset_with_reason(ResetReason.UNSPECIFIED, ETIMEDOUT, now_us)


def on_mp_fail(subflow: MptcpSubflow, now_us: int) -> None:
    """The peer found a wrong checksum, or answers that we did."""
    connection = subflow.connection
    if not fallback.is_permitted(connection):
        return
    connection.forbids_joins = True
    failure = _failure_of(subflow)
    if failure.answer_timer is not None and failure.answer_timer.is_set:
        failure.answer_timer.cancel()
    elif not failure.must_end_mappings:
        # Once: two ends with no more data would answer each other for ever.
        failure.must_tell = failure.must_end_mappings = True
        # At once: the infinite mapping that may follow ends all other options.
        subflow.want_acknowledgement(Acknowledge.NOW, now_us)
        subflow.flush_acknowledgement(now_us)


def begins_infinite_mapping(subflow: MptcpSubflow, now_us: int) -> bool:
    """Whether the data about to be sent has to carry the infinite mapping, which makes us fall back.

    Resets the subflow when that has become impossible.
    """
    failure = subflow.failure
    if failure is None or not failure.must_end_mappings:
        return False
    failure.must_end_mappings = False
    if fallback.is_possible(subflow.connection):
        fallback.fall_back(subflow.connection, "MPTcpExtInfiniteMapTx")
        fallback.keep_data_window(subflow)
        return True
    subflow.environment.counters.increment("MPTcpExtFallbackFailed")
    subflow.reset_with_reason(ResetReason.UNSPECIFIED, ECONNRESET, now_us)
    return False


def take_mp_fail(subflow: MptcpSubflow) -> MpFail | None:
    """The option for the acknowledgement that is being made, once."""
    failure = subflow.failure
    if failure is None or not failure.must_tell:
        return None
    failure.must_tell = False
    subflow.environment.counters.increment("MPTcpExtMPFailTx")
    return MpFail(_fail_sequence(subflow))


def _fail_sequence(subflow: MptcpSubflow) -> int:
    """Where the mapping begins that is being received, as Linux fills it in on either side."""
    connection = subflow.connection
    return (connection.remote_sequence_base + subflow.mappings.latest_start) & ((1 << 64) - 1)


def _failure_of(subflow: MptcpSubflow) -> Failure:
    if subflow.failure is None:
        subflow.failure = Failure()
    return subflow.failure
