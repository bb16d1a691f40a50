"""Asking a peer whose window is closed, or too small for what waits (RFC 9293 §3.8.6.1).

As in Linux the same timer also ends the waiting of a small segment that TCP_CORK or silly-window avoidance
holds back: when it fires, what the window takes is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.giving_up import orphan_limit
from mptcp_stack.tcp.states import CAN_SEND

if TYPE_CHECKING:
    from mptcp_stack.tcp.subflow import Subflow


class Probing:
    """Made when something has to wait for the first time: most connections never need one."""

    __slots__ = ("_subflow", "backoff", "since_us", "timer", "unanswered")

    def __init__(self, subflow: Subflow) -> None:
        self._subflow = subflow
        self.timer = subflow.environment.timers.timer(self._on_timer)
        self.backoff = 0
        self.unanswered = 0
        self.since_us: int | None = None
        """When the first probe went out."""

    def start(self, now_us: int) -> None:
        """Something waits, and nothing is in flight whose acknowledgement would bring news."""
        if not self.timer.is_set:
            self.timer.set(now_us + self._wait_us(now_us))

    def stop(self) -> None:
        """Data was sent."""
        self.timer.cancel()
        self.backoff = self.unanswered = 0
        self.since_us = None

    def on_acknowledgement(self) -> None:
        """The peer lives. If it has opened its window nothing will wait; else the waiting begins anew."""
        self.unanswered = 0
        self.timer.cancel()
        self._subflow.request_output()

    def _wait_us(self, now_us: int) -> int:
        subflow = self._subflow
        settings = subflow.environment.settings
        base_us = max(subflow.round_trip.rto_us, settings.minimum_rto_us)
        wait_us = min(base_us << min(self.backoff, 16), settings.maximum_rto_us)
        limit_us = subflow.socket_options.user_timeout_us
        if limit_us and self.since_us is not None:
            wait_us = min(wait_us, max(1, self.since_us + limit_us - now_us))
        return wait_us

    def _on_timer(self, now_us: int) -> None:
        subflow = self._subflow
        if len(subflow.retransmission_queue) or subflow.state not in CAN_SEND or not subflow.has_waiting():
            self.stop()
            return
        if self._is_enough(now_us):
            subflow.environment.counters.increment("TcpExtTCPAbortOnTimeout")
            subflow.time_out(now_us)
            return
        if self.since_us is None:
            self.since_us = now_us
        if subflow.window_edge() > subflow.snd_nxt and subflow.send_waiting(now_us):
            self.stop()
            return
        subflow.environment.counters.increment("TcpExtTCPWinProbe")
        output.send_probe(subflow, now_us)
        self.unanswered += 1
        self.backoff = min(self.backoff + 1, subflow.environment.settings.tcp_retries2)
        self.timer.set(now_us + self._wait_us(now_us))

    def _is_enough(self, now_us: int) -> bool:
        """A peer that answers may keep its window closed for ever, but not against an orphan."""
        subflow = self._subflow
        settings = subflow.environment.settings
        limit_us = subflow.socket_options.user_timeout_us
        if limit_us and self.since_us is not None and now_us - self.since_us >= limit_us:
            return True
        most = settings.tcp_retries2
        if subflow.is_orphan:
            is_short = subflow.round_trip.rto_us << min(self.backoff, 16) < settings.maximum_rto_us
            most = orphan_limit(settings, is_short)
            if not is_short and self.backoff >= most:
                return True
        return self.unanswered >= most


def start(subflow: Subflow, now_us: int) -> None:
    if len(subflow.retransmission_queue) or subflow.state not in CAN_SEND:
        return
    if subflow.probing is None:
        subflow.probing = Probing(subflow)
    subflow.probing.start(now_us)
