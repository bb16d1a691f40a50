"""Whether active opens should try MPTCP at all, after a path that dropped its SYNs (RFC 8684 §3.9.3).

As in Linux the memory is one for the host, not one for each destination: a middlebox that drops MP_CAPABLE
most often is the one next to the host.
"""

from __future__ import annotations

from mptcp_stack.counters import Counters

MAXIMUM_DOUBLINGS = 6
"""The pause grows up to 64 times ``net.mptcp.blackhole_timeout``."""


class BlackholeMemory:
    """Detections so far, and when the last one was. A changed timeout forgets them, as writing the sysctl."""

    __slots__ = ("_detections", "_last_us", "_timeout_us")

    def __init__(self) -> None:
        self._detections = self._last_us = self._timeout_us = 0

    def pauses_mptcp(self, timeout_us: int, now_us: int) -> bool:
        if timeout_us != self._timeout_us:
            self.forget()
        if not timeout_us or not self._detections:
            return False
        doublings = min(self._detections - 1, MAXIMUM_DOUBLINGS)
        return now_us < self._last_us + (timeout_us << doublings)

    def on_detected(self, timeout_us: int, now_us: int, counters: Counters) -> None:
        """MPTCP seems to be blocked where plain TCP is not."""
        if not timeout_us:
            return
        if timeout_us != self._timeout_us:
            self.forget()
        self._timeout_us, self._last_us = timeout_us, now_us
        self._detections += 1
        counters.increment("MPTcpExtBlackhole")

    def forget(self) -> None:
        self._detections = 0
