"""A connection: one byte stream each way over any number of subflows, or over plain TCP.

What arrives is interpreted in ``incoming`` and ``data_level``, what leaves is made in ``outgoing`` and
``dispatch``; the handshakes are in ``handshake``. The connection itself joins them: it owns the buffers and
follows ``states``.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNRESET, ENOTCONN, EPIPE
from types import MethodType

from mptcp_stack.mptcp import (
    crypto,
    data_level,
    dispatch,
    ending,
    push_marks,
    receive_tuning,
    reinjection,
    send_tuning,
    urgent_reading,
)
from mptcp_stack.mptcp.crypto import Key
from mptcp_stack.mptcp.interfaces import Acceptor, ConnectionHost, PathManager, Scheduler
from mptcp_stack.mptcp.push_marks import PushMarks
from mptcp_stack.mptcp.receive_buffer import ReceiveBuffer
from mptcp_stack.mptcp.send_buffer import SendBuffer
from mptcp_stack.mptcp.states import (
    CAN_WRITE,
    COUNTED_AS_ESTABLISHED,
    DataEvent,
    DataState,
    Mode,
    follow,
)
from mptcp_stack.mptcp.subflow import MptcpSubflow, Role
from mptcp_stack.tcp import deferring, orphans, receive_window
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.tcp.urgent import UrgentData
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import MpTcpRst

DATA_SEQUENCE_MASK = (1 << 64) - 1
SHORT_DATA_SEQUENCE_MASK = (1 << 32) - 1


class Connection:
    """The surface that applications use; the same for MPTCP and plain TCP.

    Calls only queue work, which the stack's next ``frames_to_send`` carries out, so none takes a time.
    ``on_change`` is called after readability, writability, state or error may have changed; it must not call
    back into the stack.
    """

    __slots__ = (
        "_identifiers",
        "_is_scheduled",
        "_wants_path_review",
        "abort_wanted",
        "app_closed",
        "checksum_enabled",
        "close_timer",
        "confirmed_once",
        "data_ack_told",
        "data_fin_is_due",
        "data_fin_timer",
        "data_fin_tries",
        "data_retransmission_timer",
        "data_retransmissions",
        "environment",
        "error",
        "forbids_joins",
        "had_join",
        "host",
        "is_client",
        "is_ipv6_socket",
        "join_was_answered",
        "last_ack_received_us",
        "last_data_received_us",
        "last_data_sent_us",
        "last_reset",
        "listener",
        "local",
        "local_key",
        "mode",
        "more_follows",
        "on_change",
        "path_manager",
        "peer_denies_join_initial",
        "push_marks",
        "receive_buffer",
        "remote",
        "remote_key",
        "retransmitted_bytes",
        "scheduler",
        "send_buffer",
        "socket_options",
        "state",
        "subflows",
        "to_open",
        "urgent",
        "uses_64bit_data_ack",
        "write_closed",
    )

    def __init__(
        self,
        environment: Environment,
        host: ConnectionHost,
        path_manager: PathManager,
        scheduler: Scheduler,
        local_key: Key,
        *,
        is_client: bool,
        is_mptcp: bool,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        is_ipv6_socket: bool,
    ) -> None:
        settings = environment.settings
        self.environment, self.host = environment, host
        self.path_manager, self.scheduler = path_manager, scheduler
        self.local_key = local_key
        self.remote_key: Key | None = None
        self.is_client, self.is_ipv6_socket = is_client, is_ipv6_socket
        self.listener: Acceptor | None = None
        self.local, self.remote = local, remote
        self.mode = Mode.NEGOTIATING if is_mptcp else Mode.PLAIN_TCP
        self.state = DataState.CONNECTING
        self.subflows: list[MptcpSubflow] = []
        self.to_open: list[MptcpSubflow] = []
        self.send_buffer = SendBuffer(send_tuning.first_limit(settings))
        self.receive_buffer = ReceiveBuffer(settings.first_receive_limit, environment.counters)
        self.checksum_enabled = settings.checksum_enabled and is_mptcp
        self.peer_denies_join_initial = False
        self.uses_64bit_data_ack = False
        self.had_join = self.confirmed_once = self.forbids_joins = False
        self.join_was_answered = False
        """A join of ours has its SYN/ACK: the peer may soon have a second subflow, if it has not already."""
        self.write_closed = self.app_closed = self.abort_wanted = False
        self.data_fin_is_due = self.more_follows = False
        self.data_fin_tries = self.data_retransmissions = 0
        self.data_ack_told = 1
        self.socket_options = DEFAULT_SOCKET_OPTIONS
        self.last_data_sent_us = self.last_data_received_us = environment.timers.clock_us
        self.last_ack_received_us = environment.timers.clock_us
        self.retransmitted_bytes = 0
        self.last_reset: MpTcpRst | None = None
        self.push_marks: PushMarks | None = None
        self.urgent: UrgentData | None = None
        self.error: int | None = None
        self.on_change: Callable[[], None] | None = None
        self._identifiers = 0
        self._is_scheduled = False
        self._wants_path_review = False
        # A function bound like a method takes a third of the memory of a lambda.
        timers = environment.timers
        self.data_fin_timer = timers.timer(MethodType(dispatch.on_data_fin_timer, self))
        self.data_retransmission_timer = timers.timer(MethodType(reinjection.on_timer, self))
        self.close_timer = timers.timer(MethodType(ending.on_close_timer, self))

    # --- what applications see ---

    @property
    def is_mptcp(self) -> bool:
        return self.mode is not Mode.PLAIN_TCP

    @property
    def is_established(self) -> bool:
        return self.state not in (DataState.CONNECTING, DataState.CLOSED)

    @property
    def is_closed(self) -> bool:
        return self.state is DataState.CLOSED

    @property
    def readable_bytes(self) -> int:
        if self.urgent is not None:
            return urgent_reading.readable_bytes(self, self.urgent)
        return self.receive_buffer.readable_bytes

    @property
    def end_of_stream(self) -> bool:
        return self.receive_buffer.end_of_stream

    @property
    def writable_bytes(self) -> int:
        if self.write_closed or self.state not in CAN_WRITE:
            return 0
        return self.send_buffer.writable_bytes

    def check_writable(self) -> bool:
        """Whether who waits to write goes on: a third of the buffer is free, or writing fails.

        If not it is remembered that somebody waits, so that the buffer may grow.
        """
        if self.write_closed or self.error is not None or self.state not in CAN_WRITE:
            return True
        if self.send_buffer.is_writable:
            return True
        self.send_buffer.is_short = True
        return False

    @property
    def unacknowledged_bytes(self) -> int:
        return self.send_buffer.held_bytes

    def read(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes``; b"" when nothing is there (``end_of_stream`` tells whether more will come)."""
        if self.urgent is not None:
            max_bytes = urgent_reading.bytes_to_read(self, self.urgent, max_bytes)
        data = self.receive_buffer.read(max_bytes)
        if data:
            receive_tuning.on_read(self, len(data))
            self._after_reading()
        return data

    def peek(self, max_bytes: int) -> bytes:
        """What ``read`` would give; it stays to be read (MSG_PEEK)."""
        return self.receive_buffer.peek(max_bytes)

    def _after_reading(self) -> None:
        now_us = self.environment.timers.clock_us
        is_emptied = not self.receive_buffer.readable_bytes
        limit = self.receive_buffer.limit
        for subflow in self.subflows:
            if subflow.state is State.CLOSED or not subflow.was_established:
                # An acknowledgement amid a join's handshake would pass for its fourth packet.
                continue
            if not subflow.acknowledging.on_read(subflow, is_emptied, now_us):
                subflow.acknowledging.on_room(subflow, limit, now_us)

    def write(self, data: Buffer, *, more_follows: bool = False, urgent: bool = False) -> int:
        """The number of bytes taken, 0 when the send buffer is full. Raises OSError when none can be sent.

        With ``more_follows`` (MSG_MORE) what does not fill a segment waits a little for the next write. With
        ``urgent`` (MSG_OOB) the last byte of it is urgent to TCP, and like all others to MPTCP.
        """
        if self.error is not None and self.error != ENOTCONN:
            raise OSError(self.error, "the connection has failed")
        if self.write_closed:
            raise OSError(EPIPE, "sending was shut down")
        if self.state not in CAN_WRITE:
            raise OSError(ENOTCONN if self.state is DataState.CONNECTING else EPIPE, "not connected")
        start = self.send_buffer.written
        accepted = self.send_buffer.write(data)
        if accepted:
            self.more_follows = more_follows
            if urgent:
                urgent_reading.on_written(self)
            if self.mode is Mode.PLAIN_TCP and self.subflows:
                push_marks.on_write(self, start, start + accepted, more_follows)
            self.request_output()
        return accepted

    def shutdown_write(self) -> None:
        """Nothing more will be written; what was written is still delivered."""
        if not self.write_closed:
            self.write_closed = True
            self.request_output()

    def close(self) -> None:
        """The application is done. Unread data makes it an abort, as with the kernel's close(2)."""
        if self.app_closed:
            return
        self.app_closed = True
        self.host.path_events.on_connection_closed(self)
        if self.state is DataState.CLOSED:
            return
        if self.state is DataState.CONNECTING and self.is_client:
            # RFC 9293 §3.10.4, SYN-SENT: what was queued is given up, and nobody is told.
            self.abort()
            return
        if self.readable_bytes or self.socket_options.linger_seconds == 0:
            is_unread = self.readable_bytes > 0
            name = "TcpExtTCPAbortOnClose" if is_unread else "TcpExtTCPAbortOnData"
            self.environment.counters.increment(name)
            self.abort()
            return
        self.shutdown_write()
        self.request_output()

    def restart_close_timer(self, now_us: int) -> None:
        """After close() the peer has this long to take the rest, from every sign of progress anew.

        Over plain TCP, after a fallback too, that is for TCP's own timers to end (``giving_up``).
        """
        if self.mode is Mode.PLAIN_TCP:
            self.close_timer.cancel()
        elif self.app_closed and self.state is not DataState.CLOSED:
            self.close_timer.set(now_us + self.environment.settings.close_timeout_us)

    def abort(self) -> None:
        """Throws everything away: MP_FASTCLOSE on every subflow (RFC 8684 §3.5), or RST."""
        if not self.app_closed:
            self.host.path_events.on_connection_closed(self)
        self.app_closed = self.write_closed = self.abort_wanted = True
        self.request_output()

    def disconnect(self) -> int:
        """As ``abort``, but done on return: the socket may go on with another connection (AF_UNSPEC)."""
        return ending.disconnect(self)

    def begin_with(self, options: SocketOptions) -> None:
        """Before there is a subflow: what its SYN says depends on some of them."""
        self.socket_options = options
        self.receive_buffer.limit = receive_window.first_limit(self.environment.settings, options)
        send_tuning.on_options(self)

    def set_socket_options(self, options: SocketOptions) -> None:
        """For this connection and all its subflows, those that come later included."""
        self.socket_options = options
        for subflow in self.subflows:
            subflow.take_socket_options(options)
        receive_tuning.on_options(self)
        send_tuning.on_options(self)
        self.request_output()

    @property
    def acknowledges_quickly(self) -> bool:
        """False while acknowledgements wait for answers to carry them (TCP_QUICKACK)."""
        return not any(subflow.acknowledging.is_interactive for subflow in self.subflows)

    def acknowledge_quickly(self, is_wanted: bool) -> None:
        """For now: what the application does from here on may change it again."""
        is_emptied = not self.receive_buffer.readable_bytes
        for subflow in self.subflows:
            timing = subflow.acknowledging
            timing.set_quick(subflow, is_wanted, is_emptied, self.environment.timers.clock_us)

    def describe(self) -> dict[str, object]:
        """For diagnostics: what ``ss -M`` would show."""
        send, receive = self.send_buffer, self.receive_buffer
        return {
            "state": self.state.name,
            "mode": self.mode.name.lower(),
            "client": self.is_client,
            "token": f"{self.local_key.token:08x}",
            "error": self.error,
            "last_reset": None
            if self.last_reset is None
            else {"reason": self.last_reset.reason, "transient": self.last_reset.transient},
            "unsent": send.unsent.length,
            "data_una": send.una,
            "data_nxt": send.nxt,
            "window_edge": send.window_edge,
            "rcv_nxt": receive.next_position,
            "readable": receive.readable_bytes,
            "out_of_order": receive.has_gap,
            "subflows": [subflow.describe() for subflow in self.subflows],
        }

    # --- driven by the stack ---

    @property
    def wants_output(self) -> bool:
        return self._is_scheduled

    def request_output(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.host.schedule(self)

    def dispatch(self, now_us: int) -> None:
        """Sends what may be sent now."""
        self._is_scheduled = False
        if self.abort_wanted:
            self.abort_wanted = False
            ending.abort(self, ECONNRESET, now_us)
            return
        if self.app_closed and not self.close_timer.is_set:
            self.restart_close_timer(now_us)
            for subflow in list(self.subflows):
                orphans.on_closed(subflow, now_us)
        if self._wants_path_review:
            self._wants_path_review = False
            self.path_manager.review(self, now_us)
        dispatch.run(self, now_us)

    def request_path_review(self) -> None:
        """Endpoints or limits have changed: the path manager is to look at this connection soon."""
        self._wants_path_review = True
        self.request_output()

    def notify(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def change_state(self, event: DataEvent) -> None:
        """Follows the table and keeps the gauge MPCurrEstab, in which sockets of plain TCP are not."""
        before, self.state = self.state, follow(self.state, event)
        if not self.local_key.value:
            return
        was, now = before in COUNTED_AS_ESTABLISHED, self.state in COUNTED_AS_ESTABLISHED
        if now and not was:
            self.environment.counters.increment("MPTcpExtMPCurrEstab")
        elif was and not now:
            self.environment.counters.decrement("MPTcpExtMPCurrEstab")

    # --- subflows ---

    def next_subflow_identifier(self) -> int:
        self._identifiers += 1
        return self._identifiers

    def open_initial(self) -> None:
        subflow = MptcpSubflow(self.environment, self, Role.INITIAL_ACTIVE, self.local, self.remote)
        self.subflows.append(subflow)
        self._open_soon(subflow)
        self.request_output()

    def accept_initial(self) -> MptcpSubflow:
        subflow = MptcpSubflow(self.environment, self, Role.INITIAL_PASSIVE, self.local, self.remote)
        self.subflows.append(subflow)
        return subflow

    def open_join(
        self, local: tuple[bytes, int], local_id: int, remote: tuple[bytes, int], remote_id: int, backup: bool
    ) -> MptcpSubflow:
        """A further subflow to the peer (RFC 8684 §3.2); the SYN goes out at the next dispatch."""
        subflow = MptcpSubflow(self.environment, self, Role.JOIN_ACTIVE, local, remote)
        subflow.local_id, subflow.remote_id, subflow.is_backup = local_id, remote_id, backup
        subflow.local_nonce = self.environment.random_number(32)
        self.subflows.append(subflow)
        self._open_soon(subflow)
        self.environment.counters.increment("MPTcpExtMPJoinSynTx")
        self.request_output()
        return subflow

    def _open_soon(self, subflow: MptcpSubflow) -> None:
        """The four-tuple is taken from now on, so that nobody else gets the same port."""
        self.environment.subflows[subflow.four_tuple] = subflow
        self.to_open.append(subflow)

    def release_unopened(self) -> None:
        for subflow in self.to_open:
            self.environment.subflows.pop(subflow.four_tuple, None)
            if subflow in self.subflows:
                self.subflows.remove(subflow)
        self.to_open.clear()

    def accept_join(self, local: tuple[bytes, int], remote: tuple[bytes, int]) -> MptcpSubflow:
        subflow = MptcpSubflow(self.environment, self, Role.JOIN_PASSIVE, local, remote)
        self.subflows.append(subflow)
        return subflow

    @property
    def is_open_for_joins(self) -> bool:
        return self.mode is Mode.MPTCP and self.state in COUNTED_AS_ESTABLISHED and not self.forbids_joins

    def on_subflow_established(self, subflow: MptcpSubflow, now_us: int) -> None:
        receive_tuning.on_established(self, subflow)
        send_tuning.on_established(self, subflow)
        if subflow.is_join:
            self.had_join |= subflow.is_passive
            if not self.app_closed:
                self.close_timer.cancel()
            # The fourth packet, which lets the peer send (RFC 8684 §3.2).
            subflow.want_acknowledgement(Acknowledge.NOW, now_us)
            self.request_output()
            return
        if self.mode is Mode.NEGOTIATING:
            self.mode = Mode.MPTCP
        self.send_buffer.window_edge = 1 + subflow.snd_wnd
        if self.state is DataState.CONNECTING:
            self.change_state(DataEvent.ESTABLISHED)
            if self.listener is not None:
                self.listener.on_ready(self)
        if not self.is_client and self.mode is Mode.MPTCP:
            subflow.confirm(now_us)
        elif self.is_client and deferring.is_held_back(self.socket_options):
            deferring.hold_back(subflow, now_us)
        self.request_output()
        self.notify()

    def on_subflow_confirmed(self, subflow: MptcpSubflow, now_us: int) -> None:
        if not self.confirmed_once and not subflow.is_join:
            self.confirmed_once = True
            self.path_manager.on_confirmed(self, now_us)
        elif subflow.is_join:
            self.path_manager.review(self, now_us)
        self.request_output()

    def on_subflow_acknowledged(self, subflow: MptcpSubflow, now_us: int) -> None:
        if self.mode is Mode.PLAIN_TCP:
            data_level.on_plain_acknowledged(self, subflow, now_us)
        if self.send_buffer.is_short:
            send_tuning.on_acknowledged(self, subflow)
        self.request_output()

    def on_subflow_fin(self, subflow: MptcpSubflow, now_us: int) -> None:
        if self.mode is Mode.PLAIN_TCP:
            self.receive_buffer.fin_position = self.receive_buffer.next_position
            data_level.take_fin(self, now_us)
        elif not self.receive_buffer.fin_was_taken:
            # It ends one subflow (RFC 8684 §3.3.3); after DATA_FIN its other half serves on, as in Linux.
            subflow.close()

    def on_subflow_closed(self, subflow: MptcpSubflow, error: int | None, now_us: int) -> None:
        if subflow not in self.subflows:
            return
        self.subflows.remove(subflow)
        if self.mode is not Mode.MPTCP:
            ending.end(self, error, now_us)
        else:
            reinjection.on_subflow_gone(self, subflow)
            send_tuning.follow_subflows(self)
            self.path_manager.on_subflow_closed(self, subflow, now_us)
            self._after_losing_a_subflow(now_us)

    def _after_losing_a_subflow(self, now_us: int) -> None:
        if self.subflows:
            self.request_output()
        elif self.state is DataState.CLOSED:
            ending.end(self, None, now_us)
        elif self.state is not DataState.ESTABLISHED or self.write_closed or self._waits_to_be_accepted():
            # One direction has ended: nobody may join any more, and Linux does not wait for it.
            ending.end_alone(self, now_us)
        elif not self.close_timer.is_set:
            # Break before make: wait for a new subflow (RFC 8684 §3.3.3), as long as Linux does.
            self.close_timer.set(now_us + self.environment.settings.close_timeout_us)

    def _waits_to_be_accepted(self) -> bool:
        return self.listener is not None and self.listener.is_waiting(self)

    def forget_before_reset(self, subflow: MptcpSubflow) -> None:
        """A RST came in on this subflow: it must not be answered with another one."""
        if subflow in self.subflows:
            self.subflows.remove(subflow)
            reinjection.on_subflow_gone(self, subflow)

    # --- the handshake ---

    def take_remote_key(self, value: bytes) -> None:
        self.remote_key = crypto.derive(value)

    def require_remote_key(self) -> Key:
        """The peer's key. Raises RuntimeError while it is not known yet: a defect of this program."""
        if self.remote_key is None:
            raise RuntimeError("the peer's key is not known yet")
        return self.remote_key

    # --- the data level ---

    @property
    def local_sequence_base(self) -> int:
        """The data sequence number of position 0."""
        return self.local_key.initial_data_sequence

    @property
    def remote_sequence_base(self) -> int:
        return self.require_remote_key().initial_data_sequence

    def wire_sequence(self, position: int) -> int:
        return (self.local_sequence_base + position) & DATA_SEQUENCE_MASK

    def wire_data_ack(self) -> int:
        """What a segment tells now, in the length of the peer's last mapping, as Linux (RFC 8684 §3.3.1)."""
        mask = DATA_SEQUENCE_MASK if self.uses_64bit_data_ack else SHORT_DATA_SEQUENCE_MASK
        if self.mode is not Mode.PLAIN_TCP:
            # The infinite mapping goes out after the fallback, and like Linux's with what was told before.
            self.data_ack_told = self.receive_buffer.next_position
        return (self.remote_sequence_base + self.data_ack_told) & mask

    @property
    def owes_data_ack(self) -> bool:
        """Data has come since a DATA_ACK was sent last."""
        return self.mode is Mode.MPTCP and self.data_ack_told < self.receive_buffer.next_position

    def note_mapping_form(self, is_64bit: bool) -> None:
        """The peer has mapped data with sequence numbers of this length; it can't take a wider answer."""
        if is_64bit is not self.uses_64bit_data_ack:
            self.uses_64bit_data_ack = is_64bit
            for subflow in self.subflows:
                subflow.update_segment_bytes()

    def data_fin_position(self) -> int:
        return self.send_buffer.nxt

    def deliver(self, position: int, data: Buffer) -> None:
        """Data in subflow order."""
        if self.app_closed:
            self._on_data_after_close(position, data)
            return
        self.receive_buffer.receive(position, data)

    def _on_data_after_close(self, position: int, data: Buffer) -> None:
        """Nobody will read it: the peer has to learn that (RFC 9293 §3.6.1)."""
        if position + len(data) > self.receive_buffer.next_position:
            self.environment.counters.increment("TcpExtTCPAbortOnData")
            self.abort()

    def after_delivery(self, subflow: MptcpSubflow, now_us: int) -> None:
        self.last_data_received_us = now_us
        data_level.take_fin(self, now_us)
        self.notify()
