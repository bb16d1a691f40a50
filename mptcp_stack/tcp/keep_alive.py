"""Asking after a peer that has been silent for long (RFC 9293 §3.8.4), by SO_KEEPALIVE only.

The timer is not touched by what arrives: when it fires, it looks how long ago that was, as Linux does.
"""

from __future__ import annotations

from errno import ETIMEDOUT
from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.states import State

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow

_NOT_OPEN = frozenset({State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED})


_LEAST_WAIT_US = 1_000
"""A setting of 0 means soon, not at once."""


class KeepAlive:
    """Made for the connections that ask for it."""

    __slots__ = ("_idle_us", "_last_probe_us", "_subflow", "_timer", "_unanswered")

    def __init__(self, subflow: Subflow, now_us: int) -> None:
        self._subflow = subflow
        self._timer = subflow.environment.timers.timer(self._on_timer)
        self._unanswered = 0
        self._last_probe_us = 0
        self._idle_us = _idle_us(subflow)
        self._timer.set(now_us + self._idle_us)

    def stop(self) -> None:
        self._timer.cancel()

    def on_options(self, now_us: int) -> None:
        """Another idle time counts from what came last, too."""
        idle_us = _idle_us(self._subflow)
        if idle_us != self._idle_us:
            self._idle_us = idle_us
            self._timer.set(max(now_us, self._subflow.last_received_us + idle_us))

    def _on_timer(self, now_us: int) -> None:
        subflow, settings = self._subflow, self._subflow.environment.settings
        probing = subflow.probing
        if len(subflow.retransmission_queue) or (probing is not None and probing.timer.is_set):
            # What is on its way or waits for a window has timers of its own.
            self._timer.set(now_us + self._idle_us)
            return
        silent_us = now_us - subflow.last_received_us
        if silent_us < self._idle_us:
            self._timer.set(subflow.last_received_us + self._idle_us)
            return
        if subflow.last_received_us >= self._last_probe_us:
            self._unanswered = 0
        if self._is_enough(silent_us):
            subflow.environment.counters.increment("TcpExtTCPAbortOnTimeout")
            subflow.reset(now_us, subflow.soft_error or ETIMEDOUT)
            return
        subflow.environment.counters.increment("TcpExtTCPKeepAlive")
        self._unanswered += 1
        self._last_probe_us = now_us
        output.send_probe(subflow, now_us)
        interval_us = subflow.socket_options.keep_interval_us or settings.tcp_keepalive_intvl_us
        self._timer.set(now_us + max(interval_us, _LEAST_WAIT_US))

    def _is_enough(self, silent_us: int) -> bool:
        """TCP_USER_TIMEOUT takes the place of the number of probes."""
        options, settings = self._subflow.socket_options, self._subflow.environment.settings
        if options.user_timeout_us:
            return self._unanswered > 0 and silent_us >= options.user_timeout_us
        return self._unanswered >= (options.keep_count or settings.tcp_keepalive_probes)


def _idle_us(subflow: Subflow) -> int:
    wait_us = subflow.socket_options.keep_idle_us or subflow.environment.settings.tcp_keepalive_time_us
    return max(wait_us, _LEAST_WAIT_US)


def follow_options(subflow: Subflow, now_us: int) -> None:
    """After the connection opened, and whenever its options change."""
    keep_alive = subflow.keep_alive
    if not subflow.socket_options.keep_alive or subflow.state in _NOT_OPEN:
        if keep_alive is not None:
            keep_alive.stop()
            subflow.keep_alive = None
    elif keep_alive is None:
        subflow.keep_alive = KeepAlive(subflow, now_us)
    else:
        keep_alive.on_options(now_us)
