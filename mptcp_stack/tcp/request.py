"""A peer's SYN that was answered, until the third packet comes (RFC 4987 §3): Linux's request.

What the SYN and our answer to it said is all there is to know; the connection is made of that when the third
packet has come. So a flood of SYNs finds little to fill, and SYN cookies are requests that nobody kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import takewhile
from typing import TYPE_CHECKING

from mptcp_stack.tcp import explicit_congestion, output, receive_window
from mptcp_stack.tcp.initial_sequence import SEQUENCE_MASK
from mptcp_stack.tcp.round_trip import INITIAL_RTO_US
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, CWR, ECE, SYN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.socket_options import SocketOptions
    from mptcp_stack.tcp.timers import Timer
    from mptcp_stack.wire.mptcp_options import MptcpOption

_TIMESTAMP_OPTION_BYTES = 12
_NEVER_US = -(1 << 62)


def answer_to(
    environment: Environment,
    options: SocketOptions,
    four_tuple: FourTuple,
    syn: TcpSegment,
    sequence: int,
    mptcp: tuple[MptcpOption, ...],
    *,
    with_timestamps: bool = True,
) -> TcpSegment:
    """The SYN/ACK: what the SYN offers of options and this host has too. The timestamp is still to be set."""
    settings, offered = environment.settings, syn.options
    local, local_port, remote, remote_port = four_tuple
    mss = output.mss_towards(environment, local, remote)
    if options.maximum_segment_size:
        mss = min(mss, options.maximum_segment_size)
    agreed = TcpOptions(maximum_segment_size=mss, mptcp=mptcp)
    agreed.sack_permitted = offered.sack_permitted and settings.tcp_sack
    if settings.tcp_window_scaling and offered.window_scale is not None:
        agreed.window_scale = receive_window.scale(settings, options)
    if with_timestamps and settings.tcp_timestamps and offered.timestamp_value is not None:
        agreed.timestamp_value, agreed.timestamp_echo = 0, offered.timestamp_value
        mss -= _TIMESTAMP_OPTION_BYTES
    window = receive_window.first_window(settings, options, mss)
    flags = SYN | ACK | (ECE if explicit_congestion.accepts(settings, syn) else 0)
    acknowledgement = (syn.sequence + 1) & SEQUENCE_MASK
    return TcpSegment(local_port, remote_port, sequence, acknowledgement, flags, window, agreed)


class Request(ABC):
    """One four-tuple between our SYN/ACK and the third packet; what the two segments said is its own now."""

    __slots__ = (
        "agreed",
        "agrees_on_ecn",
        "deadline_us",
        "environment",
        "four_tuple",
        "irs",
        "is_acknowledged",
        "last_answer_us",
        "offered",
        "peer_window",
        "sent_us",
        "snd_iss",
        "timeouts",
        "transmissions",
        "window",
    )

    def __init__(
        self, environment: Environment, four_tuple: FourTuple, syn: TcpSegment, answer: TcpSegment
    ) -> None:
        self.environment = environment
        self.four_tuple = four_tuple
        self.irs, self.peer_window, self.offered = syn.sequence, syn.window, syn.options
        self.snd_iss, self.window, self.agreed = answer.sequence, answer.window, answer.options
        self.agrees_on_ecn = bool(answer.flags & ECE)
        self.is_acknowledged = False
        """The third packet came, and data is waited for."""
        self.transmissions = self.timeouts = 0
        self.sent_us = self.deadline_us = 0
        self.last_answer_us = _NEVER_US

    @property
    def syn(self) -> TcpSegment:
        """Without data, which the peer sends again."""
        _, local_port, _, remote_port = self.four_tuple
        flags = SYN | ECE | CWR if self.agrees_on_ecn else SYN
        return TcpSegment(remote_port, local_port, self.irs, 0, flags, self.peer_window, self.offered)

    @property
    def answer(self) -> TcpSegment:
        _, local_port, _, remote_port = self.four_tuple
        flags = SYN | ACK | ECE if self.agrees_on_ecn else SYN | ACK
        numbers = self.snd_iss, self.rcv_nxt & SEQUENCE_MASK
        return TcpSegment(local_port, remote_port, *numbers, flags, self.window, self.agreed)

    # --- what the layer above has to know to make a connection of it ---

    @abstractmethod
    def complete(self, segment: TcpSegment, now_us: int) -> None:
        """The third packet has come. Who has no room leaves the request as it is."""

    @abstractmethod
    def answers_to_send(self) -> int:
        """How often the SYN/ACK is sent again at most; asked when it was not acknowledged in time."""

    @property
    @abstractmethod
    def deferred_timeouts(self) -> int:
        """For how many timeouts what is acknowledged waits for data (TCP_DEFER_ACCEPT)."""

    @property
    @abstractmethod
    def traffic_class(self) -> int:
        """Of what is sent for it."""

    @abstractmethod
    def on_gone(self) -> None:
        """It was taken from the table."""

    # --- as a subflow in SYN_RECEIVED would say it (passive_handshake.HalfOpen) ---

    @property
    def rcv_nxt(self) -> int:
        return self.irs + 1

    @property
    def snd_nxt(self) -> int:
        return self.snd_iss + 1

    @property
    def timestamps_enabled(self) -> bool:
        return self.agreed.timestamp_value is not None

    @property
    def timestamp_recent(self) -> int:
        return self.agreed.timestamp_echo

    def first_window(self) -> int:
        return self.window

    def answer_again(self, now_us: int) -> None:
        """For a repeated SYN: the time of waiting begins anew."""
        self._send_again(now_us)
        self.environment.requests.wait(self, now_us)

    def tell_position(self, segment: TcpSegment, now_us: int) -> None:
        """An acknowledgement, from which the peer learns which numbers are expected."""
        options = TcpOptions()
        if self.timestamps_enabled:
            options.timestamp_value = (now_us // 1000 + self.timestamp_offset) & SEQUENCE_MASK
            options.timestamp_echo = self.timestamp_recent
        window = self.window >> (self.agreed.window_scale or 0)
        _, local_port, _, remote_port = self.four_tuple
        numbers = self.snd_nxt & SEQUENCE_MASK, self.rcv_nxt & SEQUENCE_MASK
        answer = TcpSegment(local_port, remote_port, *numbers, ACK, window, options)
        traffic_class = output.class_of_answer(segment)
        output.send_header(self.environment, self.four_tuple, answer, now_us, traffic_class)

    def on_refused(self, segment: TcpSegment, now_us: int) -> None:
        self.environment.requests.forget(self)

    # --- our answer ---

    def open(self, now_us: int) -> None:
        """Answers the SYN and waits for the third packet."""
        self._send(now_us)
        # As in Linux only the first answer brings a cookie (RFC 7413 §4.1.1).
        self.agreed.fast_open_cookie = None
        self.environment.requests.add(self, now_us)

    def _send(self, now_us: int) -> None:
        if self.timestamps_enabled:
            self.agreed.timestamp_value = (now_us // 1000 + self.timestamp_offset) & SEQUENCE_MASK
        self.transmissions += 1
        self.sent_us = now_us
        output.send_header(self.environment, self.four_tuple, self.answer, now_us, self.traffic_class)

    @property
    def timestamp_offset(self) -> int:
        """Of this host's timestamps; what was sent last tells it without a hash."""
        value = self.agreed.timestamp_value
        if self.transmissions and value is not None:
            return (value - self.sent_us // 1000) & SEQUENCE_MASK
        local, _, remote, _ = self.four_tuple
        return self.environment.numbers.timestamp_offset(local, remote)

    def _send_again(self, now_us: int) -> None:
        self.environment.counters.increment("TcpRetransSegs")
        self.environment.counters.increment("TcpExtTCPSynRetrans")
        self._send(now_us)

    def on_timeout(self, now_us: int) -> bool:
        """Nobody has acknowledged the answer yet. False when it was sent often enough."""
        self.environment.counters.increment("TcpExtTCPTimeouts")
        is_enough = self.timeouts >= self.answers_to_send()
        deferred = self.deferred_timeouts if self.is_acknowledged else 0
        self.timeouts += 1
        if is_enough and self.timeouts > deferred:
            return False
        if self.timeouts >= deferred:
            # Not while only data is missing, but for a last time before the connection begins without.
            self._send_again(now_us)
        return True


class RequestTable:
    """All requests of a host. Those that were answered equally often wait equally long, in order."""

    __slots__ = ("_environment", "_requests", "_timer", "_waiting")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._requests: dict[FourTuple, Request] = {}
        self._waiting: list[dict[Request, None]] = []
        """By the number of timeouts; the first of each is due first."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def get(self, four_tuple: FourTuple) -> Request | None:
        return self._requests.get(four_tuple)

    def all(self) -> list[Request]:
        """In no order that means anything."""
        return list(self._requests.values())

    def add(self, request: Request, now_us: int) -> None:
        self._requests[request.four_tuple] = request
        self.wait(request, now_us)

    def wait(self, request: Request, now_us: int) -> None:
        """Until its answer is sent again: twice as long each time (RFC 6298 §5.5)."""
        settings, timeouts = self._environment.settings, request.timeouts
        while len(self._waiting) <= timeouts:
            self._waiting.append({})
        queue = self._waiting[timeouts]
        queue.pop(request, None)
        queue[request] = None
        request.deadline_us = now_us + min(INITIAL_RTO_US << timeouts, settings.maximum_rto_us)
        if self._timer is None:
            self._timer = self._environment.timers.timer(self._on_timer)
        self._timer.set_if_earlier(request.deadline_us)

    def forget(self, request: Request) -> None:
        if self._requests.pop(request.four_tuple, None) is None:
            return
        if request.timeouts < len(self._waiting):
            self._waiting[request.timeouts].pop(request, None)
        if not self._requests and self._timer is not None:
            self._timer.cancel()
        request.on_gone()

    def _take_due(self, now_us: int) -> list[Request]:
        taken: list[Request] = []
        for queue in self._waiting:
            due = list(takewhile(lambda request: request.deadline_us <= now_us, queue))
            for request in due:
                del queue[request]
            taken += due
        return taken

    def _on_timer(self, now_us: int) -> None:
        for request in self._take_due(now_us):
            if request.on_timeout(now_us):
                self.wait(request, now_us)
            else:
                self.forget(request)
        for queue in self._waiting:
            if queue and self._timer is not None:
                self._timer.set_if_earlier(next(iter(queue)).deadline_us)
