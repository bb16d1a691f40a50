"""What a listener's SYNs become: requests, then connections and further subflows at their third packets.

A request that was kept and one that a cookie brings back are the same thing, and end in the same way. Only a
SYN whose data is believed (RFC 7413) makes a connection at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from mptcp_stack.listener import Answer, Listener
from mptcp_stack.mptcp import early_data, handshake
from mptcp_stack.mptcp.join_ports import invites_syn
from mptcp_stack.mptcp.states import Mode, ResetReason
from mptcp_stack.stateless_answers import StatelessAnswers
from mptcp_stack.tcp import acceptance, deferring, passive_handshake, passive_open
from mptcp_stack.tcp.request import Request, answer_to
from mptcp_stack.wire.mptcp_options import (
    MpCapable,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MptcpOption,
    MpTcpRst,
)
from mptcp_stack.wire.tcp_segment import FIN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.mptcp.connection import Connection
    from mptcp_stack.mptcp.crypto import Key
    from mptcp_stack.mptcp.subflow import MptcpSubflow
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.fast_open import Opening

_MAXIMUM_SUBFLOWS = 64
"""Half-open joins included: what one token, known to an eavesdropper, can make us hold."""


class OpeningHost(Protocol):
    """The stack, as seen from here."""

    @property
    def tokens(self) -> Mapping[int, Connection]: ...
    @property
    def has_room(self) -> bool:
        """Whether there may be one more connection."""

    def new_key(self) -> Key | None:
        """One whose token is free; None when none was found."""

    def new_passive(self, listener: Listener, key: Key | None, four_tuple: FourTuple) -> Connection:
        """Without a key it is plain TCP."""

    def refuse(
        self,
        four_tuple: FourTuple,
        segment: TcpSegment,
        now_us: int,
        options: tuple[MptcpOption, ...] = (),
    ) -> None:
        """Answers with a RST."""


class ListenerRequest(Request):
    """A request to a listener, for a connection or for a further subflow of one."""

    __slots__ = ("_opens", "connection", "key", "listener")

    def __init__(
        self,
        opens: PassiveOpens,
        listener: Listener,
        four_tuple: FourTuple,
        syn: TcpSegment,
        answer: TcpSegment,
        connection: Connection | None = None,
    ) -> None:
        super().__init__(opens.environment, four_tuple, syn, answer)
        self._opens = opens
        self.listener = listener
        self.connection = connection
        """That wants a further subflow."""
        self.key: Key | None = None
        """Of the connection that is to be; its token is reserved."""

    def complete(self, segment: TcpSegment, now_us: int) -> None:
        self._opens.complete(self, segment, now_us)

    def answers_to_send(self) -> int:
        return self.listener.answers_to_send(self, self.environment.settings.tcp_synack_retries)

    @property
    def deferred_timeouts(self) -> int:
        return self.listener.socket_options.deferred_timeouts

    @property
    def traffic_class(self) -> int:
        return self.listener.socket_options.class_of_packets(self.four_tuple[0])

    def on_gone(self) -> None:
        self.listener.on_request_gone(self)
        self._opens.on_request_gone(self)


class PassiveOpens:
    """Of one host."""

    __slots__ = ("_cookies", "_half_open_joins", "_host", "environment", "reserved_tokens")

    def __init__(self, environment: Environment, host: OpeningHost) -> None:
        self.environment = environment
        self.reserved_tokens: set[int] = set()
        """Those of connections that are not yet."""
        self._host = host
        self._cookies = StatelessAnswers(environment)
        self._half_open_joins: dict[Connection, int] = {}

    # --- SYNs ---

    def on_syn(
        self, listener: Listener, four_tuple: FourTuple, syn: TcpSegment, now_us: int, sequence: int | None
    ) -> None:
        """``sequence``: with which to begin after an earlier connection of the same four-tuple."""
        counters, settings = self.environment.counters, self.environment.settings
        join = handshake.find_option(syn, MpJoinSyn)
        if syn.flags & FIN:
            # Nobody begins and ends at once; Linux drops it as well.
            counters.increment("StackDropUnexpectedState")
        elif join is not None and listener.is_mptcp:
            self._on_join_syn(listener, four_tuple, syn, join, now_us)
        elif listener.is_for_joins:
            if handshake.find_option(syn, MpCapable) is not None:
                counters.increment("MPTcpExtMPCapableSYNRX")
            counters.increment("MPTcpExtMPCapableEndpAttempt")
            self._refuse_for(ResetReason.PROHIBITED, four_tuple, syn, now_us)
        else:
            # As in Linux, who was connected before is not the one that makes up addresses.
            tcp_syncookies = settings.tcp_syncookies if sequence is None else 0
            match listener.answer_to_syn(tcp_syncookies, settings.tcp_max_syn_backlog):
                case Answer.COOKIE:
                    self._cookies.answer(listener, four_tuple, syn, now_us)
                case Answer.REQUEST if self._host.has_room:
                    self._on_first_syn(listener, four_tuple, syn, now_us, sequence)

    def _on_first_syn(
        self, listener: Listener, four_tuple: FourTuple, syn: TcpSegment, now_us: int, sequence: int | None
    ) -> None:
        environment = self.environment
        key: Key | None = None
        option = handshake.find_option(syn, MpCapable)
        if listener.is_mptcp and option is not None and handshake.is_acceptable_capable(option):
            environment.counters.increment("MPTcpExtMPCapableSYNRX")
            key = self._host.new_key()
            if key is None:
                environment.counters.increment("MPTcpExtMPFallbackTokenInit")
        opening = early_data.judge(environment, listener, four_tuple, syn, now_us)
        if opening is not None and opening.is_passive:
            self._open_early(listener, four_tuple, syn, key, opening, sequence, now_us)
            return
        answer = answer_to(
            environment,
            listener.socket_options,
            four_tuple,
            syn,
            self._first_sequence(four_tuple, sequence),
            () if key is None else (handshake.capable_answer(environment.settings, key),),
            with_timestamps=not early_data.takes_place_of_timestamps(opening, listener),
        )
        if opening is not None:
            answer.options.fast_open_cookie = opening.answer
        if option is not None:
            # It has been read. What a join says is still needed.
            syn.options.mptcp = ()
        request = ListenerRequest(self, listener, four_tuple, syn, answer)
        if key is not None:
            request.key = key
            self.reserved_tokens.add(key.token)
        listener.on_request()
        request.open(now_us)

    def _first_sequence(self, four_tuple: FourTuple, sequence: int | None) -> int:
        if sequence is not None:
            return sequence
        environment = self.environment
        return environment.numbers.initial_sequence(four_tuple, environment.timers.clock_us)

    def _open_early(
        self,
        listener: Listener,
        four_tuple: FourTuple,
        syn: TcpSegment,
        key: Key | None,
        opening: Opening,
        sequence: int | None,
        now_us: int,
    ) -> None:
        connection = self._host.new_passive(listener, key, four_tuple)
        subflow = connection.accept_initial()
        subflow.begin_at(self._first_sequence(four_tuple, sequence))
        if early_data.takes_place_of_timestamps(opening, listener):
            subflow.timestamps_enabled = False
        passive_open.open_early(subflow, opening, syn, now_us)
        early_data.begin(connection, listener)

    def _on_join_syn(
        self, listener: Listener, four_tuple: FourTuple, syn: TcpSegment, join: MpJoinSyn, now_us: int
    ) -> None:
        """RFC 8684 §3.2: the token names the connection."""
        environment = self.environment
        environment.counters.increment("MPTcpExtMPJoinSynRx")
        if join.backup:
            environment.counters.increment("MPTcpExtMPJoinSynBackupRx")
        connection = self._host.tokens.get(join.token)
        if connection is None or not connection.is_open_for_joins:
            environment.counters.increment("MPTcpExtMPJoinNoTokenFound")
            self._refuse_for(ResetReason.MPTCP_SPECIFIC, four_tuple, syn, now_us)
            return
        if not invites_syn(connection, *four_tuple[:2]):
            self._refuse_for(ResetReason.PROHIBITED, four_tuple, syn, now_us)
            return
        half_open = self._half_open_joins.get(connection, 0)
        if listener.answers_joins_by_cookie(half_open, environment.settings.tcp_syncookies):
            self._cookies.answer_join(listener, four_tuple, syn, join, connection, now_us)
        elif len(connection.subflows) + half_open >= _MAXIMUM_SUBFLOWS:
            environment.counters.increment("StackDropListenQueueFull")
        else:
            mptcp = (handshake.join_answer(connection, four_tuple, join),)
            sequence = self._first_sequence(four_tuple, None)
            answer = answer_to(environment, connection.socket_options, four_tuple, syn, sequence, mptcp)
            self._half_open_joins[connection] = half_open + 1
            listener.on_request()
            ListenerRequest(self, listener, four_tuple, syn, answer, connection).open(now_us)

    # --- third packets ---

    def on_cookie(self, listener: Listener, four_tuple: FourTuple, segment: TcpSegment, now_us: int) -> bool:
        """The third packet of a handshake of which nothing was kept. False when it is none."""
        answered = self._cookies.check(listener, four_tuple, segment, now_us)
        if answered is None:
            return False
        connection: Connection | None = None
        join = handshake.find_option(answered.syn, MpJoinSyn)
        if join is not None:
            connection = self._host.tokens.get(join.token)
            if connection is None:
                return False
        elif handshake.find_option(segment, MpJoinAck) is not None:
            return False
        request = ListenerRequest(self, listener, four_tuple, answered.syn, answered.answer, connection)
        request.key = self._free_key(answered.key)
        self.complete(request, segment, now_us)
        return True

    def _free_key(self, key: Key | None) -> Key | None:
        """Falls back when the token was given away since a cookie told the peer of it."""
        if key is not None and (key.token in self._host.tokens or key.token in self.reserved_tokens):
            self.environment.counters.increment("MPTcpExtMPFallbackTokenInit")
            return None
        return key

    def complete(self, request: ListenerRequest, segment: TcpSegment, now_us: int) -> None:
        """Makes what the third packet was waited for."""
        connection = request.connection
        if connection is None:
            subflow = self._new_initial(request, segment, now_us)
        else:
            subflow = self._new_join(request, connection, segment, now_us)
        if subflow is not None:
            self.environment.requests.forget(request)
            passive_open.open_answered(subflow, request, now_us)
            acceptance.process_third_packet(subflow, segment, now_us)

    def _new_initial(self, request: ListenerRequest, segment: TcpSegment, now_us: int) -> MptcpSubflow | None:
        """None while data is waited for, or the queue of those who wait is full: the peer will try again."""
        listener, environment = request.listener, self.environment
        if deferring.waits_for_data(request, segment):
            request.is_acknowledged = True
            environment.counters.increment("TcpExtTCPDeferAcceptDrop")
            return None
        if not listener.has_room_for_ready():
            request.is_acknowledged = True
            if environment.settings.tcp_abort_on_overflow:
                passive_handshake.refuse(request, segment, now_us)
            return None
        if not self._host.has_room:
            return None
        key = request.key
        return self._host.new_passive(listener, key, request.four_tuple).accept_initial()

    def _new_join(
        self, request: ListenerRequest, connection: Connection, segment: TcpSegment, now_us: int
    ) -> MptcpSubflow | None:
        """None when the connection has ended or fallen back meanwhile, or has too many subflows."""
        four_tuple = request.four_tuple
        asked, answered = (
            handshake.find_among(request.offered.mptcp, MpJoinSyn),
            handshake.find_among(request.agreed.mptcp, MpJoinSynAck),
        )
        is_alive = self._host.tokens.get(connection.local_key.token) is connection
        is_alive = is_alive and connection.mode is Mode.MPTCP
        if asked is None or answered is None or not is_alive or len(connection.subflows) >= _MAXIMUM_SUBFLOWS:
            self.environment.counters.increment("MPTcpExtMPJoinRejected")
            self.environment.requests.forget(request)
            self._refuse_for(ResetReason.PROHIBITED, four_tuple, segment, now_us)
            return None
        subflow = connection.accept_join(four_tuple[:2], four_tuple[2:])
        subflow.remote_id, subflow.remote_nonce = asked.address_id, asked.nonce
        subflow.peer_backup = asked.backup
        subflow.local_id, subflow.local_nonce = answered.address_id, answered.nonce
        subflow.is_backup = answered.backup
        return subflow

    def _refuse_for(self, reason: int, four_tuple: FourTuple, segment: TcpSegment, now_us: int) -> None:
        self._host.refuse(four_tuple, segment, now_us, (MpTcpRst(reason=reason, transient=False),))

    # --- the end of requests ---

    def on_request_gone(self, request: ListenerRequest) -> None:
        if request.key is not None:
            self.reserved_tokens.discard(request.key.token)
        connection = request.connection
        if connection is not None:
            self._half_open_joins[connection] -= 1
            if not self._half_open_joins[connection]:
                del self._half_open_joins[connection]

    def on_listener_closed(self, listener: Listener) -> None:
        for request in self.environment.requests.all():
            if isinstance(request, ListenerRequest) and request.listener is listener:
                self.environment.requests.forget(request)
