"""What stays of a connection that ended: a small record that answers old segments (RFC 9293 §3.6.1).

Both TIME_WAIT and, once nobody is left to read, FIN_WAIT_2 are kept like this, so that the subflow and its
connection are free at once. What arrives is judged as Linux does it in ``tcp_timewait_state_process``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.explicit_congestion import class_of_answer
from mptcp_stack.tcp.refusals import ANSWER_INTERVAL_US, TIMESTAMP_LIFETIME_US
from mptcp_stack.tcp.states import State
from mptcp_stack.wire.addresses import is_loopback
from mptcp_stack.wire.sequence import unwrap
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import (
    ACK,
    CHECKSUM_OFFSET,
    FIN,
    RST,
    SYN,
    TcpSegment,
    emit_tcp_header,
)

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.tcp.timers import Timer

_PROTOCOL_TCP = 6
_MASK = 0xFFFFFFFF
_REUSE_DELAY_US = 1_000_000
"""Linux's tcp_tw_reuse_delay: by then the timestamp clock has surely moved."""
_NEW_SEQUENCE_DISTANCE = 65537
"""From the last number of the old connection to the first of the new one: beyond the largest old window."""


class TimeWait:
    """One four-tuple in TIME_WAIT or, as an orphan, in FIN_WAIT_2."""

    __slots__ = (
        "deadline_us",
        "fin_wait_2_us",
        "last_answer_us",
        "rcv_nxt",
        "snd_nxt",
        "state",
        "timestamp_offset",
        "timestamp_recent",
        "timestamp_seen_us",
        "traffic_class",
        "window_bytes",
        "window_scale",
    )

    def __init__(self, subflow: Subflow, state: State, now_us: int) -> None:
        self.state = state
        self.deadline_us = now_us
        self.fin_wait_2_us = subflow.socket_options.fin_wait_2_us
        self.last_answer_us = -(1 << 62)
        self.traffic_class = subflow.traffic_class
        self.rcv_nxt, self.snd_nxt = subflow.rcv_nxt, subflow.snd_nxt
        self.window_bytes = max(0, subflow.rcv_right_edge - subflow.rcv_nxt)
        self.window_scale = subflow.rcv_wnd_scale
        self.timestamp_offset = subflow.timestamp_offset
        self.timestamp_recent = subflow.timestamp_recent if subflow.timestamps_enabled else None
        self.timestamp_seen_us = subflow.last_received_us

    @property
    def next_sequence(self) -> int:
        """With which a connection of the same four-tuple may begin (RFC 9293 §3.4.1, RFC 1122 §4.2.2.13)."""
        return (self.snd_nxt + _NEW_SEQUENCE_DISTANCE) & _MASK

    def is_too_old(self, segment: TcpSegment, now_us: int) -> bool:
        """PAWS (RFC 7323 §5.3)."""
        value = segment.options.timestamp_value
        if value is None or not self.timestamp_recent:
            return False
        elapsed_us = now_us - self.timestamp_seen_us
        if elapsed_us >= TIMESTAMP_LIFETIME_US:
            return False
        return unwrap(value, self.timestamp_recent) < self.timestamp_recent

    def is_newer(self, segment: TcpSegment, sequence: int) -> bool:
        """A SYN that no old segment can be: later by its number or by its timestamp (RFC 6191 §2)."""
        if sequence > self.rcv_nxt:
            return True
        value = segment.options.timestamp_value
        recent = self.timestamp_recent
        return value is not None and recent is not None and unwrap(value, recent) > recent

    def take_timestamp(self, segment: TcpSegment, now_us: int) -> None:
        if segment.options.timestamp_value is not None and self.timestamp_recent is not None:
            self.timestamp_recent = segment.options.timestamp_value
            self.timestamp_seen_us = now_us


class TimeWaitTable:
    """All of a host's; at most ``tcp_max_tw_buckets``. One timer serves all."""

    __slots__ = ("_environment", "_fin_waiting", "_time_waiting", "_timer")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._time_waiting: dict[FourTuple, TimeWait] = {}
        self._fin_waiting: dict[int, dict[FourTuple, TimeWait]] = {}
        """By how long they wait: most as ``tcp_fin_timeout`` says, the others by TCP_LINGER2."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._time_waiting) + sum(map(len, self._fin_waiting.values()))

    def get(self, four_tuple: FourTuple) -> TimeWait | None:
        entry = self._time_waiting.get(four_tuple)
        if entry is None and self._fin_waiting:
            queues = self._fin_waiting.values()
            entry = next((queue[four_tuple] for queue in queues if four_tuple in queue), None)
        return entry

    def enter(self, subflow: Subflow, state: State, now_us: int) -> None:
        """Keeps what is needed of a subflow in TIME_WAIT or FIN_WAIT_2, if there is room."""
        counters = self._environment.counters
        if len(self) >= self._environment.settings.tcp_max_tw_buckets:
            counters.increment("TcpExtTCPTimeWaitOverflow")
            return
        counters.increment("TcpExtTW")
        self._keep(subflow.four_tuple, TimeWait(subflow, state, now_us), now_us)

    def _keep(self, four_tuple: FourTuple, entry: TimeWait, now_us: int) -> None:
        """Queues the entry last: all in a queue wait equally long, so that each is in order."""
        settings = self._environment.settings
        is_time_wait = entry.state is State.TIME_WAIT
        fin_wait_2_us = entry.fin_wait_2_us or settings.tcp_fin_timeout_us
        wait_us = settings.time_wait_us if is_time_wait else fin_wait_2_us
        self.remove(four_tuple)
        entry.deadline_us = now_us + wait_us
        queue = self._time_waiting if is_time_wait else self._fin_waiting.setdefault(wait_us, {})
        queue[four_tuple] = entry
        if self._timer is None:
            self._timer = self._environment.timers.timer(self._on_timer)
        self._timer.set_if_earlier(entry.deadline_us)

    def remove(self, four_tuple: FourTuple) -> None:
        self._time_waiting.pop(four_tuple, None)
        for wait_us, queue in list(self._fin_waiting.items()):
            if queue.pop(four_tuple, None) is not None and not queue:
                del self._fin_waiting[wait_us]

    def _on_timer(self, now_us: int) -> None:
        for queue in (self._time_waiting, *self._fin_waiting.values()):
            while queue:
                four_tuple = next(iter(queue))
                deadline_us = queue[four_tuple].deadline_us
                if deadline_us > now_us:
                    if self._timer is not None:
                        self._timer.set_if_earlier(deadline_us)
                    break
                del queue[four_tuple]
        for wait_us in [wait_us for wait_us, queue in self._fin_waiting.items() if not queue]:
            del self._fin_waiting[wait_us]

    def can_reuse(self, four_tuple: FourTuple, *, chosen_port: bool, now_us: int) -> bool:
        """Whether an active open may replace an entry, by tcp_tw_reuse (RFC 6191 §2, Linux).

        Timestamps must tell the connections apart. Where the caller named the port, it knows what it wants.
        """
        entry = self._time_waiting.get(four_tuple)
        if entry is None or entry.timestamp_recent is None:
            return False
        reuse = self._environment.settings.tcp_tw_reuse
        if reuse == 2:
            reuse = is_loopback(four_tuple[0]) or is_loopback(four_tuple[2])
        is_old_enough = now_us - entry.timestamp_seen_us > _REUSE_DELAY_US
        return chosen_port or bool(reuse and is_old_enough)

    def take_for_reuse(self, four_tuple: FourTuple) -> TimeWait | None:
        """The entry that an active open replaces."""
        entry = self._time_waiting.pop(four_tuple, None)
        if entry is not None:
            self._environment.counters.increment("TcpExtTWRecycled")
        return entry

    # --- segments ---

    def process(self, four_tuple: FourTuple, entry: TimeWait, segment: TcpSegment, now_us: int) -> int | None:
        """Takes a segment. Returns, for a SYN that may begin a new connection, our number to begin with.

        The caller then removes the entry, or calls :meth:`refuse_new` when nobody listens.
        """
        sequence = unwrap(segment.sequence, entry.rcv_nxt)
        length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
        is_too_old = entry.is_too_old(segment, now_us)
        if entry.state is State.FIN_WAIT_2:
            self._process_in_fin_wait_2(four_tuple, entry, segment, (sequence, length, is_too_old), now_us)
            return None
        flags = segment.flags
        if not is_too_old and sequence == entry.rcv_nxt and (not length or flags & RST):
            self._process_in_order(four_tuple, entry, segment, now_us)
            return None
        if flags & (SYN | RST | ACK) == SYN and not is_too_old and entry.is_newer(segment, sequence):
            return entry.next_sequence
        if is_too_old:
            self._environment.counters.increment("TcpExtPAWSTimewait")
        self._environment.counters.increment("StackDropPaws" if is_too_old else "StackDropOutOfWindow")
        if not flags & RST:
            if is_too_old or flags & ACK:
                self._keep(four_tuple, entry, now_us)
            self._answer(four_tuple, entry, bool(length) and not flags & SYN, now_us)
        return None

    def refuse_new(self, four_tuple: FourTuple, entry: TimeWait, now_us: int) -> None:
        """A SYN for a port that nobody listens on any more: answered as every other old segment."""
        self._answer(four_tuple, entry, False, now_us)

    def _process_in_order(
        self, four_tuple: FourTuple, entry: TimeWait, segment: TcpSegment, now_us: int
    ) -> None:
        """A reset ends the wait unless tcp_rfc1337 forbids that assassination (RFC 1337)."""
        if segment.flags & RST:
            if not self._environment.settings.tcp_rfc1337:
                self.remove(four_tuple)
                return
        else:
            self._keep(four_tuple, entry, now_us)
        entry.take_timestamp(segment, now_us)

    def _process_in_fin_wait_2(
        self,
        four_tuple: FourTuple,
        entry: TimeWait,
        segment: TcpSegment,
        judged: tuple[int, int, bool],
        now_us: int,
    ) -> None:
        """The peer may send its FIN; data has nobody to read it (RFC 9293 §3.6.1)."""
        sequence, length, is_too_old = judged
        end, flags = sequence + length, segment.flags
        edge = entry.rcv_nxt + entry.window_bytes
        is_outside = not (sequence == entry.rcv_nxt or (end > entry.rcv_nxt and sequence < edge))
        if is_too_old or (is_outside and not (sequence == end == edge)):
            self._answer(four_tuple, entry, bool(length) and not flags & SYN, now_us)
        elif flags & RST:
            self.remove(four_tuple)
        elif flags & SYN:
            self._reset(four_tuple, segment, now_us)
        elif not flags & ACK or end <= entry.rcv_nxt or not length:
            return
        elif not flags & FIN or end != entry.rcv_nxt + 1:
            self._reset(four_tuple, segment, now_us)
        else:
            entry.state = State.TIME_WAIT
            entry.rcv_nxt = end
            entry.take_timestamp(segment, now_us)
            self._keep(four_tuple, entry, now_us)
            self._acknowledge(four_tuple, entry, now_us)

    def _answer(self, four_tuple: FourTuple, entry: TimeWait, has_data: bool, now_us: int) -> None:
        """Repeated data missed our acknowledgement; what else is senseless is answered at a bounded rate."""
        if not has_data:
            if now_us - entry.last_answer_us < ANSWER_INTERVAL_US:
                is_time_wait = entry.state is State.TIME_WAIT
                name = "TcpExtTCPACKSkippedTimeWait" if is_time_wait else "TcpExtTCPACKSkippedFinWait2"
                self._environment.counters.increment(name)
                return
            entry.last_answer_us = now_us
        self._acknowledge(four_tuple, entry, now_us)

    def _acknowledge(self, four_tuple: FourTuple, entry: TimeWait, now_us: int) -> None:
        options = TcpOptions()
        if entry.timestamp_recent is not None:
            options.timestamp_value = (now_us // 1000 + entry.timestamp_offset) & _MASK
            options.timestamp_echo = entry.timestamp_recent
        window = min(entry.window_bytes >> entry.window_scale, 65535)
        numbers = entry.snd_nxt & _MASK, entry.rcv_nxt & _MASK
        self._send(four_tuple, numbers, ACK, window, options, now_us, entry.traffic_class)

    def _reset(self, four_tuple: FourTuple, segment: TcpSegment, now_us: int) -> None:
        """The entry goes with it (Linux's TCP_TW_RST)."""
        self.remove(four_tuple)
        self._environment.counters.increment("TcpOutRsts")
        length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
        traffic_class = class_of_answer(segment)
        if segment.flags & ACK:
            self._send(four_tuple, (segment.acknowledgement, 0), RST, 0, TcpOptions(), now_us, traffic_class)
        else:
            acknowledgement = (segment.sequence + length) & _MASK
            numbers = 0, acknowledgement
            self._send(four_tuple, numbers, RST | ACK, 0, TcpOptions(), now_us, traffic_class)

    def _send(
        self,
        four_tuple: FourTuple,
        numbers: tuple[int, int],
        flags: int,
        window: int,
        options: TcpOptions,
        now_us: int,
        traffic_class: int,
    ) -> None:
        local, local_port, remote, remote_port = four_tuple
        segment = TcpSegment(local_port, remote_port, *numbers, flags, window, options)
        self._environment.counters.increment("TcpOutSegs")
        self._environment.ip.send(
            local,
            remote,
            _PROTOCOL_TCP,
            emit_tcp_header(segment),
            (),
            checksum_offset=CHECKSUM_OFFSET,
            traffic_class=traffic_class,
            now_us=now_us,
        )
