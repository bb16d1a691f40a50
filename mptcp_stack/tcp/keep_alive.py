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


class KeepAlive:
    """Made for the connections that ask for it."""

    __slots__ = ("_idle_us", "_last_probe_us", "_subflow", "_timer", "_unanswered")

    def __init__(self, subflow: Subflow, now_us: int) -> None:
        self._subflow = subflow
        self._timer = subflow.environment.timers.timer(self._on_timer)
        self._unanswered = 0
        self._last_probe_us = 0
        self._idle_us = subflow.socket_options.keep_idle_us
        self._timer.set(now_us + self._idle_us)

    def stop(self) -> None:
        self._timer.cancel()

    def on_options(self, now_us: int) -> None:
        """Another idle time counts from what came last, too."""
        idle_us = self._subflow.socket_options.keep_idle_us
        if idle_us != self._idle_us:
            self._idle_us = idle_us
            self._timer.set(max(now_us, self._subflow.last_received_us + idle_us))

    def _on_timer(self, now_us: int) -> None:
        subflow = self._subflow
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
        self._timer.set(now_us + subflow.socket_options.keep_interval_us)

    def _is_enough(self, silent_us: int) -> bool:
        """TCP_USER_TIMEOUT takes the place of the number of probes."""
        options = self._subflow.socket_options
        if options.user_timeout_us:
            return self._unanswered > 0 and silent_us >= options.user_timeout_us
        return self._unanswered >= options.keep_count


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
