"""A subflow of a connection: TCP plus the options of RFC 8684 and what they negotiate."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from mptcp_stack.mptcp import dispatch, early_data, handshake, incoming, outgoing, urgent_reading
from mptcp_stack.mptcp.mapping_faults import Failure
from mptcp_stack.mptcp.mapping_table import MappingTable
from mptcp_stack.mptcp.states import DataState, Mode
from mptcp_stack.tcp import receive_window
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.tcp.retransmission_queue import Chunk
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.tcp.subflow import Subflow
from mptcp_stack.tcp.urgent import UrgentData
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import MptcpOption, MpTcpRst
from mptcp_stack.wire.tcp_segment import TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection

SHORT_DATA_OPTION_BYTES = 24
DATA_OPTION_BYTES = 28
"""A DSS with 8-byte data sequence number, with or without a checksum, padded; its data acknowledgement takes
4 or 8 bytes."""


SIGNALLING_STATES = frozenset(State) - {
    State.CLOSED,
    State.SYN_SENT,
    State.SYN_RECEIVED,
    State.TIME_WAIT,
}


class Role(Enum):
    """How the subflow came to be."""

    INITIAL_ACTIVE = auto()
    INITIAL_PASSIVE = auto()
    JOIN_ACTIVE = auto()
    JOIN_PASSIVE = auto()


class MptcpSubflow(Subflow):
    """``is_confirmed``: the peer has shown that it has our keys or HMAC (RFC 8684 §3.1, §3.2)."""

    __slots__ = (
        "answered_una",
        "confirm_timer",
        "connection",
        "data_fin_wanted",
        "ended_early",
        "failure",
        "hears_options",
        "identifier",
        "is_backup",
        "is_confirmed",
        "is_stale",
        "local_id",
        "local_nonce",
        "mappings",
        "owes_window_probe",
        "peer_backup",
        "penalised_at_us",
        "pending_signals",
        "probe_bytes",
        "remote_id",
        "remote_nonce",
        "reset_received",
        "role",
        "send_buffer_bytes",
        "sends_mp_capable",
        "stale_count",
        "valid_checksum_seen",
        "was_established",
    )

    def __init__(
        self,
        environment: Environment,
        connection: Connection,
        role: Role,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
    ) -> None:
        self.connection = connection
        self.role = role
        self.identifier = connection.next_subflow_identifier()
        self.local_id = self.remote_id = 0
        self.local_nonce = self.remote_nonce = 0
        self.is_backup = self.peer_backup = False
        self.is_confirmed = False
        self.is_stale = self.owes_window_probe = False
        self.stale_count = self.penalised_at_us = 0
        self.probe_bytes = 0
        """Sent to probe the window at data level: the subflow's sequence is so far ahead of the data's."""
        self.data_fin_wanted = False
        self.hears_options = True
        self.answered_una = 0
        """Up to where what came before has acknowledged."""
        """Whether the last segment from the peer with data, or for new data, had any option of MPTCP."""
        self.ended_early = False
        """Its FIN went before the ends of the data were exchanged, so that more is to be acknowledged."""
        self.was_established = self.valid_checksum_seen = False
        self.failure: Failure | None = None
        self.sends_mp_capable = True
        self.mappings = MappingTable()
        self.pending_signals: list[MptcpOption] = []
        self.reset_received: MpTcpRst | None = None
        super().__init__(environment, local[0], local[1], remote[0], remote[1])
        self.socket_options = connection.socket_options
        self.traffic_class = connection.socket_options.class_of_packets(self.local)
        self.rcv_wnd_scale = receive_window.scale(environment.settings, self.socket_options)
        self.send_buffer_bytes = environment.settings.tcp_wmem[1]
        """Its share of the connection's send buffer."""
        self.confirm_timer = environment.timers.timer(self._on_confirm_timer)

    @property
    def is_join(self) -> bool:
        return self.role in (Role.JOIN_ACTIVE, Role.JOIN_PASSIVE)

    @property
    def is_passive(self) -> bool:
        return self.role in (Role.INITIAL_PASSIVE, Role.JOIN_PASSIVE)

    @property
    def is_accepted(self) -> bool:
        listener = self.connection.listener
        return self.is_passive and (listener is None or not listener.is_waiting(self.connection))

    @property
    def is_usable(self) -> bool:
        """May carry new data: a client's join only after the fourth packet (RFC 8684 §3.2)."""
        return self.can_send and (self.is_confirmed or self.role is not Role.JOIN_ACTIVE)

    @property
    def can_tell(self) -> bool:
        """Its acknowledgements can say something of the data, its own FIN or not."""
        is_open = self.state in SIGNALLING_STATES
        return is_open and (self.is_confirmed or self.role is not Role.JOIN_ACTIVE)

    @property
    def counts_as_backup(self) -> bool:
        """Either end may ask for it (RFC 8684 §3.3.8)."""
        return self.is_backup or self.peer_backup

    def describe(self) -> dict[str, object]:
        """For diagnostics: what ``ss`` would show."""
        return {
            "id": self.identifier,
            "role": self.role.name.lower(),
            "state": self.state.name,
            "local_id": self.local_id,
            "remote_id": self.remote_id,
            "backup": self.counts_as_backup,
            "stale": self.is_stale,
            "confirmed": self.is_confirmed,
            "srtt_us": self.round_trip.srtt_us,
            "rto_us": self.round_trip.rto_us,
            "cwnd_bytes": self.congestion.congestion_window,
            "in_flight": self.retransmission_queue.bytes_in_flight,
            "snd_una": self.snd_una - self.snd_iss,
            "snd_nxt": self.snd_nxt - self.snd_iss,
            "snd_wnd": self.snd_wnd,
            "rcv_nxt": self.rcv_nxt - self.irs,
            "recovery": self.recovery.name,
            "mss": self.segment_bytes,
        }

    # --- what TCP asks of its owner ---

    def receive_window(self) -> int:
        return self.connection.receive_buffer.window()

    @property
    def receive_buffer_bytes(self) -> int:
        return self.connection.receive_buffer.limit

    @property
    def is_orphan(self) -> bool:
        """At data level, reading may go on over other subflows until DATA_FIN came (RFC 8684 §3.3.3)."""
        connection = self.connection
        if connection.abort_wanted:
            return False
        if connection.mode is Mode.PLAIN_TCP and connection.app_closed:
            return True
        return connection.state is DataState.CLOSED

    def window_edge(self) -> int:
        edge = self.snd_una + self.snd_wnd
        if self.connection.mode is Mode.MPTCP:
            # The window is relative to the data level; a subflow's own may look smaller (RFC 8684 §3.3.4).
            buffer = self.connection.send_buffer
            edge = max(edge, self.snd_una + buffer.window_edge - buffer.una)
        return edge

    def coupled_paths(self) -> Sequence[MptcpSubflow]:
        return self.connection.subflows

    def is_signal(self, segment: TcpSegment) -> bool:
        return incoming.is_signal(segment)

    def is_reader_gone(self) -> bool:
        connection = self.connection
        return connection.app_closed and connection.mode is Mode.PLAIN_TCP

    def has_waiting(self) -> bool:
        return self.fin_wanted or self.connection.send_buffer.unsent.length > 0

    def send_waiting(self, now_us: int) -> bool:
        return dispatch.send_waiting(self.connection, self, now_us)

    def has_unsent_data(self) -> bool:
        return self.can_send and dispatch.has_unsent_data(self.connection)

    def send_beyond_window(self, now_us: int) -> bool:
        return dispatch.send_one_segment(self.connection, self, now_us)

    def request_output(self) -> None:
        self.connection.request_output()

    def data_option_bytes(self) -> int:
        if self.connection.mode is Mode.PLAIN_TCP:
            return 0
        return DATA_OPTION_BYTES if self.connection.uses_64bit_data_ack else SHORT_DATA_OPTION_BYTES

    def syn_options(self) -> tuple[MptcpOption, ...]:
        return handshake.syn_options(self)

    def acknowledgement_options(self) -> tuple[MptcpOption, ...]:
        return outgoing.acknowledgement_options(self)

    def data_options(self, chunk: Chunk) -> tuple[MptcpOption, ...]:
        return outgoing.data_options(self, chunk)

    def on_syn_acknowledgement(self, segment: TcpSegment, now_us: int) -> bool:
        return handshake.on_syn_acknowledgement(self, segment, now_us)

    def answers_to_send(self) -> int:
        retries = self.environment.settings.tcp_synack_retries
        is_believed = self.fast_open is not None and self.fast_open.is_passive
        # Linux tries once more for who was believed, for an application may have the connection.
        return retries + is_believed

    def may_send_early(self) -> bool:
        opening = self.fast_open
        is_believed = opening is not None and opening.is_passive
        # MPTCP knows the peer's key only from the third packet on.
        return is_believed and self.state is State.SYN_RECEIVED and self.connection.mode is Mode.PLAIN_TCP

    def on_handshake_acknowledgement(self, segment: TcpSegment, now_us: int) -> bool:
        if self.is_passive and self.fast_open is None:
            self.environment.counters.increment("TcpPassiveOpens")
        return handshake.on_handshake_acknowledgement(self, segment, now_us)

    def on_simultaneous_open(self, now_us: int) -> None:
        if self.fast_open is not None:
            self.fast_open.rest = self.fast_open.data
        handshake.on_simultaneous_open(self, now_us)

    def on_segment(self, segment: TcpSegment, now_us: int) -> bool:
        if self.stale_count:
            self.stale_count = 0
            if self.is_stale:
                self.is_stale = False
                self.environment.counters.increment("MPTcpExtSubflowRecover")
                self.request_output()
        return incoming.on_segment(self, segment, now_us)

    def on_data(self, position: int, pieces: list[Buffer], now_us: int) -> None:
        incoming.on_data(self, position - self.data_irs, pieces, now_us)

    def urgent_data(self) -> UrgentData | None:
        return urgent_reading.urgent_data(self.connection)

    def on_urgent_mark_moved(self) -> None:
        urgent_reading.on_mark_moved(self.connection)

    def on_urgent_byte(self) -> None:
        self.connection.notify()

    def on_fin(self, now_us: int) -> None:
        self.connection.on_subflow_fin(self, now_us)

    def on_acknowledged(self, now_us: int) -> None:
        self.connection.on_subflow_acknowledged(self, now_us)

    def on_established(self, now_us: int) -> None:
        self.was_established = True
        events = self.connection.host.path_events
        if self.is_join:
            events.on_subflow("sub_established", self)
        elif self.connection.mode is not Mode.PLAIN_TCP:
            events.on_connection("created", self.connection, self)
        self.connection.on_subflow_established(self, now_us)
        if self.fast_open is not None:
            early_data.on_established(self, self.fast_open, now_us)

    def on_reset_received(self, segment: TcpSegment, now_us: int) -> None:
        incoming.on_reset(self, segment, now_us)

    def on_closed(self, error: int | None, now_us: int) -> None:
        self.confirm_timer.cancel()
        if self.fast_open is not None:
            early_data.on_closed(self, self.fast_open, now_us)
        if self.failure is not None and self.failure.answer_timer is not None:
            self.failure.answer_timer.cancel()
        if self.connection.mode is Mode.MPTCP:
            self.connection.host.path_events.on_subflow("sub_closed", self, error)
        self.connection.on_subflow_closed(self, error, now_us)

    def hand_over_orphan(self, now_us: int) -> None:
        if not self.ended_early:
            super().hand_over_orphan(now_us)
        elif self.state is State.FIN_WAIT_2 and self.is_orphan and not self.connection.close_timer.is_set:
            # A record could not acknowledge the peer's DATA_FIN once more.
            self.connection.close_timer.set(now_us + self.environment.settings.close_timeout_us)

    # --- MPTCP's own ---

    def signal(self, option: MptcpOption, now_us: int) -> None:
        """Sends the option on an acknowledgement of its own, soon."""
        self.pending_signals.append(option)
        self.want_acknowledgement(Acknowledge.NOW, now_us)

    def flush_acknowledgement(self, now_us: int) -> None:
        waiting = len(self.pending_signals)
        super().flush_acknowledgement(now_us)
        while self.pending_signals and self._can_signal():
            self.acknowledge = Acknowledge.NOW
            super().flush_acknowledgement(now_us)
        if len(self.pending_signals) < waiting and self.connection.owes_data_ack:
            # An ADD_ADDR goes alone: what is owed at data level, the next segment has to tell.
            self.want_acknowledgement(Acknowledge.NOW, now_us)

    def _can_signal(self) -> bool:
        """Signals wait while acknowledgements carry something else, or none can be sent."""
        return (
            self.connection.mode is Mode.MPTCP
            and self.state in SIGNALLING_STATES
            and handshake.acknowledgement_option(self) is None
        )

    def reset_with_reason(self, reason: int, error: int | None, now_us: int, *extra: MptcpOption) -> None:
        """A RST with MP_TCPRST (RFC 8684 §3.6), which established subflows count."""
        if self.connection.mode is Mode.PLAIN_TCP:
            self.reset(now_us, error)
            return
        if self.was_established:
            self.environment.counters.increment("MPTcpExtMPRstTx")
        self.reset(now_us, error, (*extra, MpTcpRst(reason=reason, transient=False)))

    def confirm(self, now_us: int) -> None:
        """The peer has what it needs to know of the handshake."""
        if not self.is_confirmed:
            self.is_confirmed = True
            # A join of ours carries data only now; until then the other end may fall back without it.
            self.connection.had_join |= self.is_join
            self.confirm_timer.cancel()
            if self.role is Role.JOIN_ACTIVE:
                # They were the handshake's, and schedulers shun who has any.
                self.consecutive_timeouts = 0
            if not self.is_join:
                self.connection.host.path_events.on_connection("established", self.connection, self)
            self.connection.on_subflow_confirmed(self, now_us)

    def start_confirmation(self, now_us: int) -> None:
        """The ACK of a join is sent again until the fourth packet comes (RFC 8684 §3.2)."""
        wait_us = 2 * self.round_trip.srtt_us if self.round_trip.srtt_us else 1_000_000
        self.confirm_timer.set(now_us + max(wait_us, self.environment.settings.minimum_rto_us))

    def _on_confirm_timer(self, now_us: int) -> None:
        if self.is_confirmed or self.state is not State.ESTABLISHED:
            return
        self.consecutive_timeouts += 1
        if self.consecutive_timeouts > self.environment.settings.tcp_synack_retries:
            self.reset_with_reason(0, None, now_us)
            return
        self.want_acknowledgement(Acknowledge.NOW, now_us)
        self.confirm_timer.set(now_us + (self.round_trip.rto_us << self.consecutive_timeouts))
