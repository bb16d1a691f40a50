"""The whole stack of one host without any I/O: frames, times and randomness in, frames out.

Its drivers (``run_loop``, ``simulator``, tests) hand in what arrived with the time, ask for what is to be
sent, and call again at the next deadline. Nothing here waits, reads a clock or makes up a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from errno import EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENETUNREACH, ENFILE, ENOPROTOOPT
from functools import partial

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.ip.layer import Datagram, IcmpError, IpLayer
from mptcp_stack.listener import Answer, Listener
from mptcp_stack.mptcp import crypto, early_data, handshake
from mptcp_stack.mptcp.blackholes import BlackholeMemory
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.crypto import Key
from mptcp_stack.mptcp.join_ports import invites_syn
from mptcp_stack.mptcp.path_events import PathEvents
from mptcp_stack.mptcp.states import ResetReason
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.path_managers.endpoints import EndpointPathManager
from mptcp_stack.path_managers.userspace import UserspacePathManager
from mptcp_stack.schedulers.registry import create_scheduler
from mptcp_stack.settings import StackSettings
from mptcp_stack.stateless_answers import StatelessAnswers
from mptcp_stack.tcp import acceptance, fast_open
from mptcp_stack.tcp.environment import Environment, FourTuple
from mptcp_stack.tcp.fast_open import Mode
from mptcp_stack.tcp.icmp_errors import on_icmp_error
from mptcp_stack.tcp.output import CHECKSUM_OFFSET, PROTOCOL_TCP, answer_without_socket
from mptcp_stack.tcp.path_mtu import on_path_mtu_change
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.tcp.states import State
from mptcp_stack.tcp.timers import TimerQueue
from mptcp_stack.transparency import Transparency
from mptcp_stack.wire.addresses import is_multicast, is_unspecified, unmap
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.mptcp_options import MpCapable, MpJoinAck, MpJoinSyn, MptcpOption, MpTcpRst
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, FIN, RST, SYN, TcpSegment, emit_tcp_header, parse_tcp

KEY_ATTEMPTS = 4
PROTOCOLS = ("mptcp", "tcp")


class Stack:
    """One host. ``random_bytes(n)`` is the OS's in real life and a seeded generator in virtual time."""

    def __init__(
        self, settings: StackSettings | None = None, *, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.settings = settings or StackSettings()
        self.counters = Counters()
        self.ip = IpLayer(self.counters)
        self.environment = Environment(self.settings, self.counters, TimerQueue(), self.ip, random_bytes)
        self.ip.on_path_mtu_change = partial(on_path_mtu_change, self.environment)
        self.path_manager = EndpointPathManager(self.environment, self.connections)
        self.path_events = PathEvents()
        self.path_manager.port_listeners.open_listener = self._listen_for_joins
        self.blackholes = BlackholeMemory()
        self._stateless_answers = StatelessAnswers(self.environment)
        self._listeners: dict[tuple[bytes | None, int], Listener] = {}
        self._connections: dict[Connection, None] = {}
        self._tokens: dict[int, Connection] = {}
        self.userspace_path_manager = UserspacePathManager(
            self.environment, self.path_events, self._tokens.get
        )
        self._scheduled: dict[Connection, None] = {}
        self.ip.takes_for_others = Transparency(self.environment, self.ip, self._listener_for).takes

    # --- the drivers' side ---

    def receive_frame(self, frame: Frame, interface: Interface, now_us: int) -> None:
        """Takes one frame that a device received."""
        self.environment.timers.clock_us = now_us
        arrived = self.ip.receive(frame, interface, now_us)
        if isinstance(arrived, Datagram):
            self._receive_datagram(arrived, now_us)
        elif isinstance(arrived, IcmpError):
            on_icmp_error(self.environment, arrived, now_us)

    def frames_to_send(self, now_us: int) -> list[tuple[Interface, Frame]]:
        """Everything that is to leave now, in order."""
        self.environment.timers.clock_us = now_us
        looped = self.ip.take_looped()
        while self._scheduled or looped:
            for datagram in looped:
                self._receive_datagram(datagram, now_us)
            scheduled, self._scheduled = self._scheduled, {}
            for connection in scheduled:
                connection.dispatch(now_us)
            looped = self.ip.take_looped()
        return self.ip.take_frames()

    def next_deadline_us(self) -> int | None:
        """When to call :meth:`handle_deadline` at the latest; None while no timer runs."""
        deadlines = (self.environment.timers.next_deadline_us(), self.ip.next_deadline_us())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_deadline(self, now_us: int) -> None:
        """Fires what is due."""
        self.environment.timers.clock_us = now_us
        self.environment.timers.fire(now_us)
        self.ip.handle_deadline(now_us)
        for error in self.ip.take_errors():
            on_icmp_error(self.environment, error, now_us)

    # --- the applications' side ---

    def listen(
        self,
        address: bytes | None,
        port: int = 0,
        *,
        protocol: str = "mptcp",
        backlog: int = 128,
        options: SocketOptions = DEFAULT_SOCKET_OPTIONS,
    ) -> Listener:
        """Port 0 takes a free one. Raises OSError (EADDRINUSE, EADDRNOTAVAIL) as bind(2) does."""
        is_mptcp = self._speaks_mptcp(protocol)
        if address is not None and is_unspecified(address) and len(address) == 16:
            address = None
        is_ipv6 = address is None or len(address) == 16
        address = None if address is None else unmap(address)
        is_ours = address is None or is_unspecified(address) or self.ip.is_local(address)
        if not is_ours and not options.transparent:
            raise OSError(EADDRNOTAVAIL, "no interface has this address")
        if not port:
            taken = {known for _, known in self._listeners}
            start = self.environment.random_number(32)
            port = next((free for free in self._ports(start) if free not in taken), 0)
        if not port or (address, port) in self._listeners:
            raise OSError(EADDRINUSE, "the port is taken")
        listener = Listener(
            address,
            port,
            is_mptcp=is_mptcp,
            is_ipv6=is_ipv6,
            backlog=min(backlog if backlog >= 0 else self.settings.somaxconn, self.settings.somaxconn),
            counters=self.counters,
            on_close=self._on_listener_closed,
        )
        listener.socket_options = options
        self._listeners[address, port] = listener
        if is_mptcp:
            self.path_events.on_listener("listener_created", address, port)
        return listener

    def _listen_for_joins(self, address: bytes, port: int) -> Listener:
        listener = self.listen(address, port)
        listener.is_for_joins = True
        return listener

    def connect(
        self,
        remote: bytes,
        port: int,
        *,
        protocol: str = "mptcp",
        local: bytes | None = None,
        local_port: int = 0,
        early: bytes | None = None,
        options: SocketOptions = DEFAULT_SOCKET_OPTIONS,
    ) -> Connection:
        """The SYN leaves at the next ``frames_to_send``. An IPv4-mapped address gives an IPv6 socket.

        With ``early`` it asks for a cookie, or takes data along (``early_data.bytes_taken``: how much).

        Raises OSError (ENETUNREACH, EADDRNOTAVAIL, EADDRINUSE, EINVAL) as connect(2) does.
        """
        is_mptcp = self._speaks_mptcp(protocol)
        is_ipv6_socket = len(remote) == 16
        remote = unmap(remote)
        if not 0 < port < 65536 or is_multicast(remote) or is_unspecified(remote):
            raise OSError(EINVAL, "not an address that one can connect to")
        local = self._local_address_for(remote, local, may_be_foreign=options.transparent)
        chosen_port = local_port or self.free_local_port(local, remote, port)
        if not chosen_port:
            raise OSError(EADDRNOTAVAIL, "no local port is free")
        if not self._is_free((local, chosen_port, remote, port), chosen_port=bool(local_port)):
            raise OSError(EADDRNOTAVAIL, "the address pair is in use")
        if len(self._connections) >= self.settings.maximum_connections:
            raise OSError(ENFILE, "too many connections")
        key = self._new_active_key() if is_mptcp else None
        connection = self._new_connection(
            key, (local, chosen_port), (remote, port), is_client=True, is_ipv6_socket=is_ipv6_socket
        )
        if key is not None:
            self.counters.increment("MPTcpExtMPCapableSYNTX")
        connection.begin_with(options)
        connection.open_initial()
        if early is not None and self.settings.tcp_fastopen & Mode.CLIENT:
            early_data.offer(connection, early)
        return connection

    def may_begin_early(
        self, remote: bytes, local: bytes | None = None, options: SocketOptions = DEFAULT_SOCKET_OPTIONS
    ) -> bool:
        """Whether data may go with a SYN to this host now. Raises OSError as ``connect`` does."""
        remote = unmap(remote)
        return fast_open.may_begin(self.environment, options, self._local_address_for(remote, local), remote)

    def _new_active_key(self) -> Key | None:
        """None when the connection has to be plain TCP from its first segment."""
        environment = self.environment
        timeout_us = environment.settings.blackhole_timeout_us
        if self.blackholes.pauses_mptcp(timeout_us, environment.timers.clock_us):
            self.counters.increment("MPTcpExtMPCapableSYNTXDisabled")
            return None
        key = self._new_key()
        if key is None:
            self.counters.increment("MPTcpExtMPFallbackTokenInit")
        return key

    def _speaks_mptcp(self, protocol: str) -> bool:
        if protocol not in PROTOCOLS:
            raise OSError(EINVAL, f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        if protocol == "mptcp" and not self.settings.mptcp_enabled:
            raise OSError(ENOPROTOOPT, "net.mptcp.enabled is 0")
        return protocol == "mptcp"

    def _local_address_for(
        self, remote: bytes, local: bytes | None, *, may_be_foreign: bool = False
    ) -> bytes:
        if local is not None and not is_unspecified(local):
            local = unmap(local)
            is_ours = self.ip.is_local(local)
            if may_be_foreign and not is_ours:
                self.ip.send_for_others()
                is_ours = True
            if not is_ours or len(local) != len(remote):
                raise OSError(EADDRNOTAVAIL, "no interface has this address")
            if self.ip.route_for(remote, local) is None and not self.ip.is_local(remote):
                raise OSError(ENETUNREACH, "no route")
            return local
        chosen = remote if self.ip.is_local(remote) else self.ip.select_source(remote)
        if chosen is None:
            raise OSError(ENETUNREACH, "no route")
        return chosen

    def connections(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def listeners(self) -> Iterator[Listener]:
        return iter(list(self._listeners.values()))

    def mptcp_sockets_in_use(self) -> int:
        """Those with a token, after a fallback too, and listeners, as /proc/net/protocols counts them."""
        return len(self._tokens) + sum(listener.is_mptcp for listener in self._listeners.values())

    def holdings(self) -> dict[str, int]:
        """What is kept, by kind; nothing once all is closed and the last old segment is forgotten."""
        managers = (self.path_manager, self.userspace_path_manager)
        return {
            "connections": len(self._connections),
            "tokens": len(self._tokens),
            "subflows": len(self.environment.subflows),
            "records of old connections": len(self.environment.time_waits),
            "connections of the path managers": sum(manager.known_connections for manager in managers),
            "listeners": len(self._listeners),
        }

    # --- the connections' side (ConnectionHost) ---

    def schedule(self, connection: Connection) -> None:
        self._scheduled[connection] = None

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._tokens.get(connection.local_key.token) is connection:
            del self._tokens[connection.local_key.token]
        if connection.listener is not None:
            connection.listener.on_gone(connection)

    def free_local_port(self, local: bytes, remote: bytes, remote_port: int) -> int | None:
        """A port whose four-tuple is free, in an order that outsiders cannot know (RFC 6056 §3.3.4)."""
        listening = {port for _, port in self._listeners}
        start = self.environment.numbers.first_port(local, remote, remote_port)
        for port in self._ports(start):
            if port not in listening and self._is_free((local, port, remote, remote_port)):
                return port
        return None

    def _is_free(self, four_tuple: FourTuple, *, chosen_port: bool = False) -> bool:
        """Not in use, or only by an old connection that a new one may follow (RFC 6191)."""
        environment = self.environment
        if four_tuple in environment.subflows:
            return False
        if environment.time_waits.get(four_tuple) is None:
            return True
        now_us = environment.timers.clock_us
        return environment.time_waits.can_reuse(four_tuple, chosen_port=chosen_port, now_us=now_us)

    def _ports(self, start: int) -> Iterable[int]:
        first = self.settings.local_port_first
        count = self.settings.local_port_last - first + 1
        return (first + (start + step) % count for step in range(count))

    # --- segments ---

    def _receive_datagram(self, datagram: Datagram, now_us: int) -> None:
        if datagram.protocol != PROTOCOL_TCP:
            self.counters.increment("StackDropUnknownProtocol")
            return
        try:
            segment = parse_tcp(datagram.payload)
        except MalformedPacketError:
            self.counters.increment("TcpInErrs")
            self.counters.increment("StackDropMalformedTcp")
            return
        segment.congestion = datagram.traffic_class & 3
        segments = -(-len(segment.payload) // datagram.gso_size) if datagram.gso_size else 1
        self.counters.increment("TcpInSegs", max(1, segments))
        local, remote = datagram.destination, datagram.source
        four_tuple = local, segment.destination_port, remote, segment.source_port
        subflow = self.environment.subflows.get(four_tuple)
        if subflow is not None and subflow.state is not State.CLOSED:
            acceptance.process(subflow, segment, now_us)
        else:
            self._receive_without_subflow(four_tuple, datagram, segment, now_us)

    def _receive_without_subflow(
        self, four_tuple: FourTuple, datagram: Datagram, segment: TcpSegment, now_us: int
    ) -> None:
        """For a connection that is over, or a new one, or none."""
        waiting = self.environment.time_waits.get(four_tuple)
        if waiting is not None:
            sequence = self.environment.time_waits.process(four_tuple, waiting, segment, now_us)
            if sequence is None:
                return
            if self._listener_for(four_tuple[0], four_tuple[1]) is None:
                self.environment.time_waits.refuse_new(four_tuple, waiting, now_us)
                return
            self.environment.time_waits.remove(four_tuple)
            self._receive_syn(datagram, segment, now_us, sequence)
        elif segment.flags & (SYN | ACK | RST) == SYN:
            self._receive_syn(datagram, segment, now_us)
        elif segment.flags & (SYN | ACK | RST) != ACK or not self._receive_cookie(
            four_tuple, datagram, segment, now_us
        ):
            self._refuse(datagram, segment, now_us)

    def _listener_for(self, address: bytes, port: int) -> Listener | None:
        any_ipv4 = b"\0" * 4
        exact = self._listeners.get((address, port))
        if exact is None and len(address) == 4:
            exact = self._listeners.get((any_ipv4, port))
        return exact or self._listeners.get((None, port))

    def _receive_syn(
        self, datagram: Datagram, segment: TcpSegment, now_us: int, sequence: int | None = None
    ) -> None:
        """``sequence``: with which to begin after an earlier connection of the same four-tuple."""
        listener = self._listener_for(datagram.destination, segment.destination_port)
        join = handshake.find_option(segment, MpJoinSyn)
        if listener is None:
            self._refuse(datagram, segment, now_us)
        elif segment.flags & FIN:
            # Nobody begins and ends at once; Linux drops it as well.
            self.counters.increment("StackDropUnexpectedState")
        elif join is not None and listener.is_mptcp:
            self._receive_join(listener, datagram, segment, join, now_us)
        elif listener.is_for_joins:
            if handshake.find_option(segment, MpCapable) is not None:
                self.counters.increment("MPTcpExtMPCapableSYNRX")
            self.counters.increment("MPTcpExtMPCapableEndpAttempt")
            self._refuse_for(ResetReason.PROHIBITED, datagram, segment, now_us)
        else:
            # As in Linux, who was connected before is not the one that makes up addresses.
            tcp_syncookies = self.settings.tcp_syncookies if sequence is None else 0
            match listener.answer_to_syn(tcp_syncookies, self.settings.tcp_max_syn_backlog):
                case Answer.COOKIE:
                    four_tuple = _four_tuple(datagram, segment)
                    self._stateless_answers.answer(listener, four_tuple, segment, now_us)
                case Answer.CONNECTION if len(self._connections) < self.settings.maximum_connections:
                    self._receive_first_syn(listener, datagram, segment, now_us, sequence)

    def _receive_first_syn(
        self,
        listener: Listener,
        datagram: Datagram,
        segment: TcpSegment,
        now_us: int,
        sequence: int | None,
    ) -> None:
        key: Key | None = None
        option = handshake.find_option(segment, MpCapable)
        if listener.is_mptcp and option is not None and handshake.is_acceptable_capable(option):
            self.counters.increment("MPTcpExtMPCapableSYNRX")
            key = self._new_key()
            if key is None:
                self.counters.increment("MPTcpExtMPFallbackTokenInit")
        # What the peer requires, its third packet says again; the SYN/ACK says what we require.
        connection = self._new_passive(listener, key, _four_tuple(datagram, segment))
        subflow = connection.accept_initial()
        if sequence is not None:
            subflow.begin_at(sequence)
        early_data.judge(subflow, listener, segment, now_us)
        subflow.open_passively(segment, now_us)
        early_data.begin(connection, listener)

    def _new_passive(self, listener: Listener, key: Key | None, four_tuple: FourTuple) -> Connection:
        local, remote = four_tuple[:2], four_tuple[2:]
        connection = self._new_connection(
            key, local, remote, is_client=False, is_ipv6_socket=listener.is_ipv6
        )
        connection.begin_with(listener.socket_options)
        connection.listener = listener
        listener.on_syn(connection)
        return connection

    def _receive_join(
        self, listener: Listener, datagram: Datagram, segment: TcpSegment, join: MpJoinSyn, now_us: int
    ) -> None:
        """RFC 8684 §3.2: the token names the connection."""
        self.counters.increment("MPTcpExtMPJoinSynRx")
        if join.backup:
            self.counters.increment("MPTcpExtMPJoinSynBackupRx")
        connection = self._tokens.get(join.token)
        if connection is None or not connection.is_open_for_joins:
            self.counters.increment("MPTcpExtMPJoinNoTokenFound")
            self._refuse_for(ResetReason.MPTCP_SPECIFIC, datagram, segment, now_us)
            return
        four_tuple = _four_tuple(datagram, segment)
        if not invites_syn(connection, *four_tuple[:2]):
            self._refuse_for(ResetReason.PROHIBITED, datagram, segment, now_us)
            return
        if listener.answers_joins_by_cookie(connection, self.settings.tcp_syncookies):
            self._stateless_answers.answer_join(listener, four_tuple, segment, join, connection, now_us)
        elif len(connection.subflows) >= _MAXIMUM_SUBFLOWS:
            self.counters.increment("StackDropListenQueueFull")
        else:
            self._new_join(connection, four_tuple, join).open_passively(segment, now_us)

    def _new_join(self, connection: Connection, four_tuple: FourTuple, join: MpJoinSyn) -> MptcpSubflow:
        subflow = connection.accept_join(four_tuple[:2], four_tuple[2:])
        subflow.remote_id, subflow.remote_nonce = join.address_id, join.nonce
        subflow.peer_backup = join.backup
        subflow.local_id = connection.path_manager.local_id_for(connection, *four_tuple[:2])
        subflow.is_backup = connection.path_manager.is_backup(*four_tuple[:2])
        return subflow

    def _receive_cookie(
        self, four_tuple: FourTuple, datagram: Datagram, segment: TcpSegment, now_us: int
    ) -> bool:
        """The third packet of a handshake of which nothing was kept. False when it is none."""
        listener = self._listener_for(four_tuple[0], four_tuple[1])
        if listener is None:
            return False
        answered = self._stateless_answers.check(listener, four_tuple, segment, now_us)
        if answered is None:
            return False
        remembered = self._stateless_answers.take_join(four_tuple, answered.sequence)
        subflow: MptcpSubflow
        if remembered is not None:
            joined = self._tokens.get(remembered.connection_token)
            if joined is None or not joined.is_open_for_joins or len(joined.subflows) >= _MAXIMUM_SUBFLOWS:
                return False
            subflow = self._new_join(joined, four_tuple, remembered.request)
            subflow.local_nonce = remembered.local_nonce
        elif handshake.find_option(segment, MpJoinAck) is not None:
            return False
        elif len(self._connections) >= self.settings.maximum_connections:
            return True
        else:
            key = self._echoed_key(listener, four_tuple, answered.sequence, segment)
            subflow = self._new_passive(listener, key, four_tuple).accept_initial()
        subflow.open_answered(answered.syn, answered.sequence, now_us)
        acceptance.process(subflow, segment, now_us)
        if subflow.state is State.SYN_RECEIVED:
            # It was not taken. Nothing repeats a SYN/ACK that this subflow did not send.
            subflow.finish(None, now_us)
        return True

    def _echoed_key(
        self, listener: Listener, four_tuple: FourTuple, cookie: int, segment: TcpSegment
    ) -> Key | None:
        """Falls back when the token was given away meanwhile."""
        key = self._stateless_answers.echoed_key(four_tuple, cookie, segment) if listener.is_mptcp else None
        if key is not None and key.token in self._tokens:
            self.counters.increment("MPTcpExtMPFallbackTokenInit")
            return None
        return key

    def _refuse_for(self, reason: int, datagram: Datagram, segment: TcpSegment, now_us: int) -> None:
        self._refuse(datagram, segment, now_us, (MpTcpRst(reason=reason, transient=False),))

    def _refuse(
        self,
        datagram: Datagram,
        segment: TcpSegment,
        now_us: int,
        options: tuple[MptcpOption, ...] = (),
    ) -> None:
        """A RST for a segment that belongs to nothing here (RFC 9293 §3.10.7.1)."""
        self.counters.increment("StackDropNoSocket")
        if segment.flags & RST:
            return
        sequence, acknowledgement, flags = answer_without_socket(segment, len(segment.payload))
        answer = TcpSegment(
            segment.destination_port,
            segment.source_port,
            sequence,
            acknowledgement,
            flags,
            0,
            TcpOptions(mptcp=options),
        )
        self.counters.increment("TcpOutRsts")
        self.counters.increment("TcpOutSegs")
        self.ip.send(
            datagram.destination,
            datagram.source,
            PROTOCOL_TCP,
            emit_tcp_header(answer),
            (),
            checksum_offset=CHECKSUM_OFFSET,
            now_us=now_us,
        )

    # --- bookkeeping ---

    def _new_key(self) -> Key | None:
        """A key whose token is free (RFC 8684 §3.1); None after a few collisions, as Linux gives up."""
        for _ in range(KEY_ATTEMPTS):
            key = crypto.derive(self.environment.random_bytes(crypto.KEY_BYTES))
            if key.token not in self._tokens:
                return key
        return None

    def _new_connection(
        self,
        key: Key | None,
        local: tuple[bytes, int],
        remote: tuple[bytes, int],
        *,
        is_client: bool,
        is_ipv6_socket: bool,
    ) -> Connection:
        settings = self.environment.settings
        connection = Connection(
            self.environment,
            self,
            self.path_manager if settings.path_manager == "kernel" else self.userspace_path_manager,
            create_scheduler(settings.scheduler),
            key or _NO_KEY,
            is_client=is_client,
            is_mptcp=key is not None,
            local=local,
            remote=remote,
            is_ipv6_socket=is_ipv6_socket,
        )
        self._connections[connection] = None
        if key is not None:
            self._tokens[key.token] = connection
        return connection

    def _on_listener_closed(self, listener: Listener) -> None:
        self._listeners.pop((listener.address, listener.port), None)
        if listener.is_mptcp:
            self.path_events.on_listener("listener_closed", listener.address, listener.port)


def _four_tuple(datagram: Datagram, segment: TcpSegment) -> FourTuple:
    return datagram.destination, segment.destination_port, datagram.source, segment.source_port


_NO_KEY = Key(b"", 0, 0)
"""Of a connection that is plain TCP from the start."""
_MAXIMUM_SUBFLOWS = 64
"""Half-open joins included: what one token, known to an eavesdropper, can make us hold."""
