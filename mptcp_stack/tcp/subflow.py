"""One TCP connection: the state, and what may be asked of it.

What happens to an arriving segment is in ``acceptance``, what acknowledgements mean in ``loss_recovery``, how
segments leave in ``output``. A subflow belongs to a connection of the layer above, which implements the
methods of ``SubflowOwner``; TCP itself knows nothing of MPTCP but that options travel.
"""

from __future__ import annotations

from errno import ECONNRESET, ETIMEDOUT

from mptcp_stack.congestion.interface import CongestionController
from mptcp_stack.congestion.loss_based import UNLIMITED
from mptcp_stack.congestion.registry import create_controller
from mptcp_stack.tcp import keep_alive, mtu_probing, output, pacing, probing, retransmission_timer, timeouts
from mptcp_stack.tcp.acknowledging import AcknowledgementTiming
from mptcp_stack.tcp.buffers import Parts
from mptcp_stack.tcp.environment import Environment, FourTuple
from mptcp_stack.tcp.episode import LossEpisode
from mptcp_stack.tcp.explicit_congestion import ExplicitCongestion, negotiate
from mptcp_stack.tcp.fast_open import Opening
from mptcp_stack.tcp.keep_alive import KeepAlive
from mptcp_stack.tcp.mtu_probing import MtuProbing
from mptcp_stack.tcp.owner import SubflowOwner
from mptcp_stack.tcp.pacing import Pacing
from mptcp_stack.tcp.probing import Probing
from mptcp_stack.tcp.rack import Rack
from mptcp_stack.tcp.reassembly import Reassembly
from mptcp_stack.tcp.receive_round_trip import ReceiveRoundTrip
from mptcp_stack.tcp.retransmission_queue import Chunk, Mapping, RetransmissionQueue
from mptcp_stack.tcp.retransmission_timer import Purpose
from mptcp_stack.tcp.round_trip import RoundTripEstimator
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.tcp.states import (
    CAN_SEND,
    COUNTED_AS_ESTABLISHED,
    Acknowledge,
    Event,
    Recovery,
    State,
    follow,
)
from mptcp_stack.tcp.tail_loss_probe import TailProbe
from mptcp_stack.tcp.urgent import UrgentData
from mptcp_stack.wire.mptcp_options import MptcpOption
from mptcp_stack.wire.tcp_segment import ACK, FIN, PSH, RST, SYN, TcpSegment

TIMESTAMP_OPTION_BYTES = 12
DEFAULT_MSS_IPV4 = 536
DEFAULT_MSS_IPV6 = 1220
"""RFC 9293 §3.7.1."""


class Subflow(SubflowOwner):
    """A TCP connection (RFC 9293). Sequence numbers are unbounded: they wrap only on the wire."""

    __slots__ = (
        "acknowledge",
        "acknowledging",
        "base_mss",
        "congestion",
        "consecutive_timeouts",
        "data_irs",
        "data_iss",
        "delayed_ack_timer",
        "duplicate_acknowledgements",
        "duplicate_block",
        "duplicate_segments_told",
        "environment",
        "episode",
        "explicit_congestion",
        "fast_open",
        "fin_position",
        "fin_wanted",
        "first_timeout_us",
        "irs",
        "is_disordered",
        "keep_alive",
        "largest_send_window",
        "last_acknowledged",
        "last_answer_us",
        "last_challenge_us",
        "last_received_us",
        "last_small_end",
        "local",
        "local_port",
        "mtu_probing",
        "pacing",
        "peer_fin_position",
        "peer_mss",
        "probing",
        "rack",
        "rcv_nxt",
        "rcv_right_edge",
        "rcv_told_edge",
        "rcv_wnd_scale",
        "reassembly",
        "receive_round_trip",
        "recovery",
        "recovery_point",
        "remote",
        "remote_port",
        "retransmission_queue",
        "retransmission_timer",
        "round_trip",
        "sack_enabled",
        "segment_bytes",
        "segments_sent_again",
        "snd_iss",
        "snd_nxt",
        "snd_una",
        "snd_wl1",
        "snd_wl2",
        "snd_wnd",
        "snd_wnd_scale",
        "socket_options",
        "soft_error",
        "state",
        "syn_retransmissions",
        "tail_probe",
        "timer_purpose",
        "timestamp_offset",
        "timestamp_recent",
        "timestamps_enabled",
        "traffic_class",
        "urgent",
        "waiting_fin_position",
        "window_scale_enabled",
    )

    def __init__(
        self, environment: Environment, local: bytes, local_port: int, remote: bytes, remote_port: int
    ) -> None:
        self.environment = environment
        self.local, self.local_port = local, local_port
        self.remote, self.remote_port = remote, remote_port
        self.state = State.CLOSED
        self.fast_open: Opening | None = None
        self.urgent: UrgentData | None = None
        self.soft_error: int | None = None
        """What ICMP has said since the peer was heard of last (RFC 5461 §2.2)."""
        self.socket_options = DEFAULT_SOCKET_OPTIONS
        self.traffic_class = 0
        """Of its packets (RFC 2474), without what ECN adds."""
        self._initialise_sender()
        self._initialise_receiver()
        timers = environment.timers
        self.retransmission_timer = timers.timer(self._on_retransmission_timer)
        self.delayed_ack_timer = timers.timer(self._on_delayed_ack_timer)

    def _initialise_sender(self) -> None:
        settings = self.environment.settings
        self.begin_at(0)
        self.snd_wnd = self.snd_wl1 = self.snd_wl2 = 0
        self.snd_wnd_scale = 0
        self.largest_send_window = 0
        self.last_challenge_us = -(1 << 62)
        self.fin_wanted = False
        self.fin_position: int | None = None
        self.retransmission_queue = RetransmissionQueue()
        self.round_trip = RoundTripEstimator(settings.minimum_rto_us, settings.maximum_rto_us)
        self.recovery = Recovery.NONE
        self.explicit_congestion: ExplicitCongestion | None = None
        self.recovery_point = 0
        self.duplicate_acknowledgements = 0
        self.is_disordered = False
        """Something above the next byte has arrived, or the next byte was sent again (Linux's Disorder)."""
        self.rack = Rack()
        self.episode: LossEpisode | None = None
        self.tail_probe: TailProbe | None = None
        self.segments_sent_again = self.duplicate_segments_told = 0
        self.timer_purpose = Purpose.RETRANSMISSION
        self.consecutive_timeouts = self.first_timeout_us = 0
        self.mtu_probing: MtuProbing | None = None
        self.syn_retransmissions = 0
        self.probing: Probing | None = None
        self.keep_alive: KeepAlive | None = None
        self.pacing: Pacing | None = None
        self.peer_mss = DEFAULT_MSS_IPV4 if len(self.remote) == 4 else DEFAULT_MSS_IPV6
        self.base_mss = self.segment_bytes = self.peer_mss
        self.congestion: CongestionController = self._new_controller()

    def _initialise_receiver(self) -> None:
        settings = self.environment.settings
        self.irs = self.data_irs = self.rcv_nxt = self.rcv_right_edge = 0
        self.rcv_told_edge = 0
        """Where the window ended that was told last. Data of other subflows takes from it, so that it may be
        less than ``rcv_right_edge``, up to which is taken what was sent on earlier word."""
        self.rcv_wnd_scale = settings.receive_window_scale
        self.reassembly = Reassembly(0)
        self.peer_fin_position: int | None = None
        self.waiting_fin_position: int | None = None
        self.duplicate_block: tuple[int, int] | None = None
        """What came twice; the next acknowledgement tells of it (RFC 2883)."""
        self.acknowledge = Acknowledge.NOTHING
        self.acknowledging = AcknowledgementTiming(settings.delayed_ack_us)
        self.last_received_us = 0
        self.receive_round_trip: ReceiveRoundTrip | None = None
        self.last_acknowledged = 0
        self.last_answer_us = -(1 << 62)
        self.timestamps_enabled = settings.tcp_timestamps
        self.timestamp_offset = 0
        self.timestamp_recent = 0
        self.sack_enabled = settings.tcp_sack
        self.window_scale_enabled = settings.tcp_window_scaling

    def _new_controller(self) -> CongestionController:
        return create_controller(
            self.socket_options.congestion_control or self.environment.settings.tcp_congestion_control, self
        )

    def take_socket_options(self, options: SocketOptions) -> None:
        """From now on; another controller goes on with the window that this one had, as in Linux."""
        self.socket_options = options
        self.traffic_class = options.class_of_packets(self.local)
        before, after = self.congestion, self._new_controller()
        if after.name != before.name:
            after.congestion_window = before.congestion_window
            after.slow_start_threshold = before.slow_start_threshold
            self.congestion = after
        keep_alive.follow_options(self, self.environment.timers.clock_us)
        pacing.follow_options(self)

    def count(self, counter: str) -> None:
        self.environment.counters.increment(counter)

    def begin_at(self, initial_sequence: int) -> None:
        """Before anything was sent: with which number to begin."""
        self.snd_iss = self.snd_una = self.snd_nxt = self.data_iss = initial_sequence
        self.last_small_end = initial_sequence
        """Where the last segment ended that was not full."""

    @property
    def four_tuple(self) -> FourTuple:
        return self.local, self.local_port, self.remote, self.remote_port

    def change_state(self, event: Event) -> None:
        """Follows the table and keeps the gauge TcpCurrEstab."""
        before, self.state = self.state, follow(self.state, event)
        was, now = before in COUNTED_AS_ESTABLISHED, self.state in COUNTED_AS_ESTABLISHED
        if now and not was:
            self.environment.counters.increment("TcpCurrEstab")
        elif was and not now:
            self.environment.counters.decrement("TcpCurrEstab")

    # --- opening ---

    def open_actively(self, now_us: int) -> None:
        """Sends a SYN."""
        numbers = self.environment.numbers
        earlier = self.environment.time_waits.take_for_reuse(self.four_tuple)
        if earlier is not None:
            self.begin_at(earlier.next_sequence)
        else:
            self.begin_at(numbers.initial_sequence(self.four_tuple, now_us))
        self.timestamp_offset = numbers.timestamp_offset(self.local, self.remote)
        self.environment.subflows[self.four_tuple] = self
        self.environment.counters.increment("TcpActiveOpens")
        self.change_state(Event.ACTIVE_OPEN)
        self.begin_handshake(SYN, now_us)

    def begin_handshake(self, flags: int, now_us: int) -> None:
        """Sends a SYN or SYN/ACK for the first time."""
        chunk = Chunk(self.snd_nxt, self.snd_nxt + 1, (), flags, now_us)
        self.retransmission_queue.append(chunk)
        self.snd_nxt += 1
        output.send_syn(self, chunk, now_us)
        self.retransmission_timer.set(now_us + self.round_trip.rto_us)

    # --- half open after all: believed by a cookie (passive_handshake.HalfOpen) ---

    def first_window(self) -> int:
        return output.first_window(self, is_answer=True)

    def answer_again(self, now_us: int) -> None:
        output.send_again(self, self.retransmission_queue.chunks[0], now_us)
        retransmission_timer.start(self, now_us)

    def tell_position(self, segment: TcpSegment, now_us: int) -> None:
        output.send_acknowledgement(self, now_us)

    def on_refused(self, segment: TcpSegment, now_us: int) -> None:
        if self.fast_open is not None:
            self.fast_open.was_reset = bool(segment.flags & RST)
        self.finish(ECONNRESET, now_us)

    def take_syn(self, segment: TcpSegment, now_us: int) -> None:
        """The peer's sequence number and options (RFC 9293 §3.7.1, RFC 7323 §2 and §3, RFC 2018 §2)."""
        options = segment.options
        self.irs = self.data_irs = segment.sequence
        self.rcv_nxt = self.irs + 1
        self.rcv_right_edge = self.rcv_told_edge = self.last_acknowledged = self.rcv_nxt
        self.reassembly = Reassembly(self.rcv_nxt)
        self.last_received_us = now_us
        self.timestamps_enabled = self.timestamps_enabled and options.timestamp_value is not None
        self.timestamp_recent = options.timestamp_value or 0
        self.sack_enabled = self.sack_enabled and options.sack_permitted
        self.window_scale_enabled = self.window_scale_enabled and options.window_scale is not None
        if self.window_scale_enabled:
            # RFC 7323 §2.3: a shift of more than 14 is taken as 14.
            self.snd_wnd_scale = min(options.window_scale or 0, 14)
        else:
            self.rcv_wnd_scale = 0
        self.snd_wnd = segment.window
        self.snd_wl1 = self.irs
        negotiate(self, segment)
        peer_mss = options.maximum_segment_size
        if peer_mss is not None:
            # RFC 9293 §3.7.1 sets no floor; a tiny one only costs us, so Linux's minimum is taken.
            self.peer_mss = max(peer_mss, 88)
        self.update_segment_bytes()
        self.congestion = self._new_controller()
        self.on_window_told(self.snd_wnd)

    def update_segment_bytes(self) -> None:
        """The payload of a full segment: what the options leave of the MSS and the path's MTU (RFC 6691)."""
        self.base_mss = min(self.peer_mss, output.local_mss(self))
        timestamps = self.timestamp_bytes
        payload = self.base_mss - timestamps
        if self.mtu_probing is not None and self.mtu_probing.limit is not None:
            payload = min(payload, self.mtu_probing.limit - timestamps)
        payload = max(payload, self.environment.settings.tcp_min_snd_mss)
        largest = self.largest_send_window
        if largest:
            # Silly windows (RFC 9293 §3.8.6.2.1): two segments go into any window but a tiny one.
            fitting = largest // 2 if largest > DEFAULT_MSS_IPV4 else largest
            payload = min(payload, max(fitting, 68 - 20 - timestamps))
        self.segment_bytes = max(1, payload - self.data_option_bytes())

    def resize_segments(self) -> None:
        """The path is known to carry more or less; the window keeps its number of segments.

        Linux counts in segments; RFC 8201 §5.4 too allows no more of them than before.
        """
        before = self.segment_bytes
        self.update_segment_bytes()
        after, congestion = self.segment_bytes, self.congestion
        congestion.congestion_window = max(after, congestion.congestion_window * after // before)
        if congestion.slow_start_threshold < UNLIMITED:
            congestion.slow_start_threshold = congestion.slow_start_threshold * after // before

    @property
    def timestamp_bytes(self) -> int:
        return TIMESTAMP_OPTION_BYTES if self.timestamps_enabled else 0

    def overhead_bytes(self) -> int:
        """What options take of each segment with data."""
        return self.timestamp_bytes + self.data_option_bytes()

    def on_window_told(self, window: int) -> None:
        """The largest window that the peer has shown bounds segments, and how old its answers may be."""
        before = self.largest_send_window
        if window > before:
            self.largest_send_window = window
            ample = 2 * self.base_mss
            if 0 < before < ample or window < ample:
                self.update_segment_bytes()

    def on_handshake_end(self) -> None:
        """What the handshake told of the path; a repeated one tells little good."""
        self.update_segment_bytes()
        mtu_probing.on_handshake_end(self, self.environment.timers.clock_us)
        self.acknowledging.start(self.base_mss, self.rcv_right_edge - self.rcv_nxt)
        if self.syn_retransmissions and self.round_trip.srtt_us is None:
            self.round_trip.on_repeated_handshake()
        if self.syn_retransmissions > 1:
            # RFC 5681 §3.1; only from the second loss on, as in Linux.
            self.congestion.congestion_window = self.segment_bytes
        if self.socket_options.keep_alive:
            keep_alive.follow_options(self, self.environment.timers.clock_us)
        if self.socket_options.is_paced:
            pacing.follow_options(self)

    # --- sending ---

    @property
    def can_send(self) -> bool:
        if self.state not in CAN_SEND and (self.fast_open is None or not self.may_send_early()):
            return False
        return not self.fin_wanted

    def begin_transmission(self, now_us: int) -> None:
        """New data waits: a window that rested says little of the path by now (RFC 5681 §4.1)."""
        if not len(self.retransmission_queue) and self.environment.settings.tcp_slow_start_after_idle:
            self.congestion.on_transmission_start(now_us, self.round_trip.rto_us)

    def sendable_bytes(self) -> int:
        """New bytes that the congestion window and the peer's window take now."""
        if not self.can_send:
            return 0
        room = self.congestion.congestion_window - self.bytes_on_the_way()
        if room <= 0:
            return 0
        room = min(room, self.window_edge() - self.snd_nxt)
        if room > 0 and self.pacing is not None:
            room = min(room, self.pacing.room())
        return max(0, room)

    def bytes_on_the_way(self) -> int:
        """RFC 6675's pipe; without SACK each duplicate acknowledgement says that one segment has left it.

        That is limited transmit (RFC 3042), and in recovery the inflation of the window in RFC 6582 §3.2,
        seen from the other side. A small segment counts as a full one: Linux's window is one of packets.
        """
        queue = self.retransmission_queue
        in_flight = max(queue.bytes_in_flight, queue.chunks_in_flight * self.segment_bytes)
        if not self.duplicate_acknowledgements:
            return in_flight
        return max(0, in_flight - self.duplicate_acknowledgements * self.segment_bytes)

    def maximum_burst_bytes(self) -> int:
        """How much one chunk may carry: a super-segment where the device takes one, else one segment.

        A quarter of the congestion window at most, so that acknowledgements keep a steady clock; on short
        round trips more, as what leaves at once is gone at once there.
        """
        limit = output.super_segment_limit(self)
        is_urgent = self.urgent is not None and self.urgent.is_sending(self)
        if limit <= self.segment_bytes or is_urgent:
            return self.segment_bytes
        share = max(2 * self.segment_bytes, self.congestion.congestion_window // 4, pacing.short_burst(self))
        return min(limit, share) // self.segment_bytes * self.segment_bytes

    def send_data(
        self,
        payload: Parts,
        length: int,
        mapping: Mapping | None,
        push: bool,
        now_us: int,
        *,
        is_end: bool = False,
    ) -> None:
        """Sends new bytes at once, with the FIN if ``is_end``. The caller has asked ``sendable_bytes``."""
        flags = ACK | PSH if push else ACK
        if length % self.segment_bytes:
            self.last_small_end = self.snd_nxt + length
        if is_end:
            flags |= FIN
            self.fin_wanted = True
            self.fin_position = self.snd_nxt + length
        chunk = Chunk(self.snd_nxt, self.snd_nxt + length + is_end, payload, flags, now_us, mapping)
        self._send_first_time(chunk, now_us)

    def _send_first_time(self, chunk: Chunk, now_us: int) -> None:
        if self.probing is not None:
            self.probing.stop()
        self.retransmission_queue.append(chunk)
        self.snd_nxt = chunk.end
        if self.episode is not None:
            self.episode.on_new_data_sent(chunk.length)
        if chunk.payload:
            self.congestion.on_sent(self.bytes_on_the_way(), now_us)
        if chunk.flags & FIN and self.state is not State.SYN_RECEIVED:
            self.change_state(Event.FIN_SENT)
        output.send_chunk(self, chunk, now_us)
        retransmission_timer.on_sent(self, now_us)

    def close(self) -> None:
        """Sends a FIN after everything that was handed over."""
        if self.state is State.SYN_SENT:
            self.finish(None, self.environment.timers.clock_us)
        elif not self.fin_wanted:
            self.fin_wanted = True
            self.request_output()

    def flush(self, now_us: int) -> None:
        """Retransmissions that the congestion window allows, and the FIN when its turn has come."""
        queue, episode = self.retransmission_queue, self.episode
        is_held = episode is not None and episode.holds_retransmissions
        while queue.lost_count and not is_held:
            room = self.congestion.congestion_window - self.bytes_on_the_way()
            if room < self.segment_bytes and queue.bytes_in_flight:
                break
            if self.pacing is not None and not (room := min(room, self.pacing.room())):
                break
            chunk = queue.next_lost(min(room, self.maximum_burst_bytes()), self.segment_bytes)
            if chunk is None:
                break
            retransmission_timer.send_lost(self, chunk, now_us)
        if self.fin_wanted and self.fin_position is None and self._may_end():
            self._send_fin(now_us)

    def _may_end(self) -> bool:
        """In SYN_RECEIVED (RFC 9293 §3.10.4) only to who was believed by a cookie (RFC 7413)."""
        if self.state is State.SYN_RECEIVED:
            return self.fast_open is not None and self.may_send_early()
        return self.state in CAN_SEND

    def _send_fin(self, now_us: int) -> None:
        """It takes one byte of the window, like data."""
        if self.window_edge() <= self.snd_nxt:
            self.want_window_probe(now_us)
            return
        if self.pacing is not None and not self.pacing.room():
            return
        self.fin_position = self.snd_nxt
        self._send_first_time(Chunk(self.snd_nxt, self.snd_nxt + 1, (), FIN | ACK, now_us), now_us)

    def flush_acknowledgement(self, now_us: int) -> None:
        """Sends the acknowledgement that is owed, if no segment has carried it meanwhile."""
        if self.acknowledge is Acknowledge.NOW and self.state not in (State.CLOSED, State.SYN_SENT):
            output.send_acknowledgement(self, now_us)

    @property
    def has_blocks_to_send(self) -> bool:
        """Whether the peer shall be told of more than the cumulative acknowledgement (RFC 2018, RFC 2883)."""
        if self.reassembly.is_empty and self.waiting_fin_position is None:
            return self.duplicate_block is not None
        return self.sack_enabled

    def want_acknowledgement(self, urgency: Acknowledge, now_us: int) -> None:
        if urgency is Acknowledge.NOW:
            self.acknowledge = Acknowledge.NOW
            self.request_output()
        else:
            self.acknowledging.schedule(self, now_us)

    def want_window_probe(self, now_us: int) -> None:
        """Data waits, and nothing is in flight that would bring news (RFC 9293 §3.8.6.1)."""
        if self.pacing is None or not self.pacing.is_waiting:
            probing.start(self, now_us)

    # --- ending ---

    def reset(self, now_us: int, error: int | None, options: tuple[MptcpOption, ...] = ()) -> None:
        """Sends a RST with the given options and forgets the connection (RFC 9293 §3.10.5)."""
        if self.state is State.CLOSED:
            return
        if self.state not in (State.SYN_SENT, State.TIME_WAIT):
            output.send_reset(self, options, now_us)
        if self.state in COUNTED_AS_ESTABLISHED:
            self.environment.counters.increment("TcpEstabResets")
        self.finish(error, now_us)

    def finish(self, error: int | None, now_us: int) -> None:
        """Nothing more will come or go."""
        if self.state is State.CLOSED:
            return
        if self.state is State.SYN_SENT or (
            self.state is State.SYN_RECEIVED and not (self.is_passive and self.fast_open is None)
        ):
            self.environment.counters.increment("TcpAttemptFails")
        self.change_state(Event.RESET)
        self._forget()
        self.on_closed(error, now_us)

    def enter_time_wait(self, now_us: int) -> None:
        """After ``change_state`` brought the subflow to TIME_WAIT: only a small record stays."""
        self._hand_over(now_us)

    def time_out(self, now_us: int) -> None:
        """The peer has been silent for too long."""
        self.finish(self.soft_error or ETIMEDOUT, now_us)

    def _hand_over(self, now_us: int) -> None:
        """In TIME_WAIT, or in FIN_WAIT_2 with nobody left to read."""
        if self.acknowledge is not Acknowledge.NOTHING:
            # The peer's FIN, say, came just before the acknowledgement of ours.
            output.send_acknowledgement(self, now_us)
        self.environment.time_waits.enter(self, self.state, now_us)
        self.change_state(Event.HANDED_OVER)
        self._forget()
        self.on_closed(None, now_us)

    def finish_in_order(self, now_us: int) -> None:
        """After ``change_state`` brought the subflow to CLOSED without a reset."""
        self._forget()
        self.on_closed(None, now_us)

    def _forget(self) -> None:
        for timer in (self.retransmission_timer, self.delayed_ack_timer):
            timer.cancel()
        if self.probing is not None:
            self.probing.stop()
        if self.keep_alive is not None:
            self.keep_alive.stop()
        if self.pacing is not None:
            self.pacing.stop()
        self.retransmission_queue.clear()
        self.reassembly = Reassembly(self.rcv_nxt)
        if self.environment.subflows.get(self.four_tuple) is self:
            del self.environment.subflows[self.four_tuple]

    def hand_over_orphan(self, now_us: int) -> None:
        """In FIN_WAIT_2 with nobody left to read, only a small record waits for the peer's FIN."""
        if self.state is State.FIN_WAIT_2 and self.is_orphan:
            self._hand_over(now_us)

    # --- timers ---

    def _on_retransmission_timer(self, now_us: int) -> None:
        timeouts.on_fired(self, now_us)

    def _on_delayed_ack_timer(self, now_us: int) -> None:
        if self.acknowledge is Acknowledge.DELAYED:
            self.environment.counters.increment("TcpExtDelayedACKs")
            self.acknowledging.on_timer(self)
            self.want_acknowledgement(Acknowledge.NOW, now_us)
