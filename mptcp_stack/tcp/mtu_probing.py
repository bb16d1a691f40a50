"""Finding a path's MTU without ICMP: packetization-layer probing (RFC 4821) with Linux's tcp_mtu_probing.

At 1 it begins where a path seems to swallow what is large: data goes unacknowledged for as long as
``tcp_retries1`` says. Segments then shrink to ``tcp_base_mss``, and if that does not help, by halves. From
there, and at 2 from the start, larger ones are tried: data of several segments sent as one. Sizes here are a
segment's with its TCP options, so that they do not depend on the family of addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.congestion.loss_based import UNLIMITED
from mptcp_stack.tcp import output
from mptcp_stack.tcp.rack import DUPLICATE_THRESHOLD
from mptcp_stack.tcp.states import Recovery

if TYPE_CHECKING:
    from mptcp_stack.tcp.retransmission_queue import Chunk
    from mptcp_stack.tcp.subflow import Subflow

LEAST_WINDOW_SEGMENTS = 11
"""A probe takes the place of two segments, and its loss must leave enough to be found by."""


class MtuProbing:
    """Made when probing begins: most connections never need one."""

    __slots__ = ("_high", "_low", "_probe", "_since_us", "limit")

    def __init__(self, subflow: Subflow, now_us: int) -> None:
        self._low = subflow.environment.settings.tcp_base_mss + subflow.timestamp_bytes
        """The largest size that is relied on."""
        self.limit: int | None = None
        """What segments are held to; None as long as nothing told that they need be."""
        self._high = subflow.peer_mss
        self._since_us = now_us
        self._probe: tuple[int, int] | None = None

    def _high_now(self, subflow: Subflow) -> int:
        """ICMP may have told of a limit meanwhile."""
        self._high = min(self._high, output.local_mss(subflow))
        return self._high

    # --- black holes ---

    def hold_to_base(self, subflow: Subflow) -> None:
        self.limit = self._low
        subflow.resize_segments()

    def lower(self, subflow: Subflow) -> None:
        """Still nothing gets through."""
        settings = subflow.environment.settings
        payload = min(settings.tcp_base_mss, (self._low - subflow.timestamp_bytes) >> 1)
        payload = max(payload, settings.tcp_mtu_probe_floor, settings.tcp_min_snd_mss)
        self._low = self.limit = payload + subflow.timestamp_bytes
        subflow.resize_segments()

    # --- larger segments ---

    def length_to_send(self, subflow: Subflow, waiting: int, room: int, usual: int, now_us: int) -> int:
        """``usual``, unless a probe is due: then its length, or 0 until less is in flight."""
        length = self._length_of_probe(subflow, waiting, now_us)
        if length is None or length > room:
            return usual
        if length:
            # In the place of two segments.
            self._probe = subflow.snd_nxt, subflow.snd_nxt + length
            subflow.congestion.congestion_window -= subflow.segment_bytes
        return length

    def is_begun(self, subflow: Subflow) -> bool:
        """What is sent next is the probe."""
        return self._probe is not None and self._probe[0] == subflow.snd_nxt

    def _length_of_probe(self, subflow: Subflow, waiting: int, now_us: int) -> int | None:
        """The payload of a probe that can go now; 0: soon, when less is in flight; None: no probe is due."""
        congestion_window = subflow.congestion.congestion_window
        segment_bytes = subflow.segment_bytes
        if (
            self._probe is not None
            or subflow.recovery is not Recovery.NONE
            or subflow.is_disordered
            or congestion_window < LEAST_WINDOW_SEGMENTS * segment_bytes
            or subflow.has_blocks_to_send
        ):
            return None
        high = self._high_now(subflow)
        if high - self._low < subflow.environment.settings.tcp_probe_threshold:
            self._search_again(subflow, now_us)
            return None
        length = ((self._low + high) >> 1) - subflow.overhead_bytes()
        needed = length + (DUPLICATE_THRESHOLD + 1) * segment_bytes
        if waiting < needed or subflow.snd_wnd < needed:
            return None
        if subflow.snd_nxt + needed > subflow.window_edge():
            return 0
        if subflow.bytes_on_the_way() + 2 * segment_bytes > congestion_window:
            return 0 if subflow.bytes_on_the_way() else None
        return length

    def _search_again(self, subflow: Subflow, now_us: int) -> None:
        """Once in a while, since paths change."""
        if now_us - self._since_us >= subflow.environment.settings.tcp_probe_interval_us:
            self._since_us = now_us
            self._high = subflow.peer_mss
            self._low = min(self._low, self._high_now(subflow))

    def is_probe(self, chunk: Chunk) -> bool:
        """Whether the chunk has to stay one segment."""
        return self._probe == (chunk.sequence, chunk.end)

    def forget(self) -> None:
        """Something is sent again: the probe will tell nothing."""
        self._probe = None

    def on_acknowledged(self, subflow: Subflow) -> None:
        """Called when the cumulative acknowledgement has moved."""
        if self._probe is None or self._probe[1] > subflow.snd_una:
            return
        start, end = self._probe
        self._probe = None
        self._low = self.limit = end - start + subflow.overhead_bytes()
        congestion = subflow.congestion
        if congestion.slow_start_threshold < UNLIMITED:
            largest = 3 * congestion.congestion_window // 4
            congestion.slow_start_threshold = max(congestion.slow_start_threshold, largest)
        subflow.update_segment_bytes()
        subflow.count("TcpExtTCPMTUPSuccess")

    def has_failed(self, subflow: Subflow) -> bool:
        """Loss was found. If it is the probe's, that is no sign of congestion."""
        if self._probe is None or self._probe[0] != subflow.snd_una:
            return False
        start, end = self._probe
        self._probe = None
        self._high = end - start + subflow.overhead_bytes() - 1
        subflow.congestion.congestion_window += subflow.segment_bytes
        subflow.count("TcpExtTCPMTUPFail")
        return True


def on_handshake_end(subflow: Subflow, now_us: int) -> None:
    """As in Linux whoever was connected to begins with full segments, until a probe has told of the path."""
    if subflow.environment.settings.tcp_mtu_probing > 1:
        subflow.mtu_probing = MtuProbing(subflow, now_us)
        if not subflow.is_passive:
            subflow.mtu_probing.hold_to_base(subflow)


def on_path_in_doubt(subflow: Subflow, now_us: int) -> None:
    """Retransmissions have gone unanswered for long (RFC 4821 §7.7)."""
    if not subflow.environment.settings.tcp_mtu_probing:
        return
    if subflow.mtu_probing is None:
        subflow.mtu_probing = MtuProbing(subflow, now_us)
        subflow.mtu_probing.hold_to_base(subflow)
    else:
        subflow.mtu_probing.lower(subflow)
