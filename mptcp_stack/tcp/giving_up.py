"""How long a sender goes on without an answer (RFC 9293 §3.8.3), as Linux counts it.

The numbers of retries stand for times: those that so many retransmissions would take if the timeout had been
the least there is. So a long round trip does not make a connection wait for hours. TCP_USER_TIMEOUT is such a
time itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.round_trip import INITIAL_RTO_US
from mptcp_stack.tcp.states import State

if TYPE_CHECKING:
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.subflow import Subflow

_ORPHAN_RETRIES = 8
"""Linux's for a connection that nobody owns any more."""


def duration_us(retries: int, first_wait_us: int, longest_wait_us: int) -> int:
    """How long so many retransmissions take when each wait is twice the one before."""
    doublings = min(retries, max(1, longest_wait_us // first_wait_us).bit_length() - 1)
    return ((2 << doublings) - 1) * first_wait_us + (retries - doublings) * longest_wait_us


def is_enough(subflow: Subflow, now_us: int) -> bool:
    """The retransmission timer has fired; is it once too often?"""
    settings = subflow.environment.settings
    if subflow.state is State.SYN_SENT:
        retries = subflow.socket_options.syn_count or settings.tcp_syn_retries
        if subflow.consecutive_timeouts >= retries + settings.tcp_syn_linear_timeouts:
            return True
        return _has_lasted(subflow, retries, INITIAL_RTO_US, now_us)
    if subflow.state is State.SYN_RECEIVED:
        return subflow.consecutive_timeouts >= subflow.answers_to_send()
    retries = _orphan_retries(subflow, settings) if subflow.is_orphan else settings.tcp_retries2
    return _has_lasted(subflow, retries, settings.minimum_rto_us, now_us)


def is_path_in_doubt(subflow: Subflow, now_us: int) -> bool:
    """RFC 1122 §4.2.3.5, R1: the time to ask whether the path has changed."""
    settings = subflow.environment.settings
    if not subflow.consecutive_timeouts:
        return False
    limit_us = duration_us(settings.tcp_retries1, settings.minimum_rto_us, settings.maximum_rto_us)
    return now_us - subflow.first_timeout_us >= limit_us


def clamp_wait_us(subflow: Subflow, wait_us: int, now_us: int) -> int:
    """The next timeout comes no later than the end that TCP_USER_TIMEOUT sets."""
    limit_us = subflow.socket_options.user_timeout_us
    if not limit_us or not subflow.consecutive_timeouts:
        return wait_us
    return max(1, min(wait_us, subflow.first_timeout_us + limit_us - now_us))


def _has_lasted(subflow: Subflow, retries: int, first_wait_us: int, now_us: int) -> bool:
    if not subflow.consecutive_timeouts:
        return False
    limit_us = subflow.socket_options.user_timeout_us or duration_us(
        retries, first_wait_us, subflow.environment.settings.maximum_rto_us
    )
    return now_us - subflow.first_timeout_us >= limit_us


def _orphan_retries(subflow: Subflow, settings: StackSettings) -> int:
    return orphan_limit(settings, subflow.round_trip.rto_us < settings.maximum_rto_us)


def orphan_limit(settings: StackSettings, is_short: bool) -> int:
    """How often a peer may leave an orphan without an answer; ``is_short``: the back-off has not ended."""
    return settings.tcp_orphan_retries or (_ORPHAN_RETRIES if is_short else 0)
