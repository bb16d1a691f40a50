"""The whole stack of one host without any I/O: frames, times and randomness in, frames out.

Its drivers (``run_loop``, ``simulator``, tests) hand in what arrived with the time, ask for what is to be
sent, and call again at the next deadline. Nothing here waits, reads a clock or makes up a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENETUNREACH, ENFILE, ENOPROTOOPT
from functools import partial

from mptcp_stack.counters import Counters
from mptcp_stack.errors import MalformedPacketError
from mptcp_stack.ip.coalescing import coalesce
from mptcp_stack.ip.interface import Interface
from mptcp_stack.ip.layer import Datagram, IcmpError, IpLayer
from mptcp_stack.ip.superseding import without_superseded
from mptcp_stack.listener import Listener
from mptcp_stack.mptcp import crypto, early_data
from mptcp_stack.mptcp.blackholes import BlackholeMemory
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.mptcp.crypto import Key
from mptcp_stack.mptcp.path_events import PathEvents
from mptcp_stack.passive_opens import PassiveOpens
from mptcp_stack.path_managers.endpoints import EndpointPathManager
from mptcp_stack.path_managers.userspace import UserspacePathManager
from mptcp_stack.schedulers.registry import create_scheduler
from mptcp_stack.settings import StackSettings
from mptcp_stack.tcp import acceptance, fast_open, passive_handshake
from mptcp_stack.tcp.environment import Environment, FourTuple
from mptcp_stack.tcp.fast_open import Mode
from mptcp_stack.tcp.icmp_errors import on_icmp_error
from mptcp_stack.tcp.output import PROTOCOL_TCP, answer_without_socket, class_of_answer, send_header
from mptcp_stack.tcp.path_mtu import on_path_mtu_change
from mptcp_stack.tcp.socket_options import DEFAULT_SOCKET_OPTIONS, SocketOptions
from mptcp_stack.tcp.states import State
from mptcp_stack.tcp.time_wait import TimeWait
from mptcp_stack.tcp.timers import TimerQueue
from mptcp_stack.transparency import Transparency
from mptcp_stack.wire.addresses import is_multicast, is_unspecified, unmap
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.mptcp_options import MptcpOption
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN, TcpSegment, parse_tcp

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
        self._passive_opens = PassiveOpens(self.environment, self)
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

    def receive_frames(self, frames: Sequence[Frame], interface: Interface, now_us: int) -> None:
        """Takes what a device handed over at once; segments that continue each other are taken as one."""
        kept = without_superseded(frames, interface)
        if len(kept) < len(frames):
            self.counters.increment("TcpInSegs", len(frames) - len(kept))
            self.counters.increment("TcpExtTCPBacklogCoalesce", len(frames) - len(kept))
        for frame in coalesce(kept, interface):
            self.receive_frame(frame, interface, now_us)

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
        if not self.has_room:
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
        key = self.new_key()
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
            "half-open connections": len(self.environment.requests),
            "tokens": len(self._tokens) + len(self._passive_opens.reserved_tokens),
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
        if four_tuple in environment.subflows or environment.requests.get(four_tuple) is not None:
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
        segment.traffic_class = datagram.traffic_class
        segments = -(-len(segment.payload) // datagram.gso_size) if datagram.gso_size else 1
        self.counters.increment("TcpInSegs", max(1, segments))
        local, remote = datagram.destination, datagram.source
        four_tuple = local, segment.destination_port, remote, segment.source_port
        subflow = self.environment.subflows.get(four_tuple)
        if subflow is not None and subflow.state is not State.CLOSED:
            acceptance.process(subflow, segment, now_us)
        else:
            self._receive_without_subflow(four_tuple, segment, now_us)

    def _receive_without_subflow(self, four_tuple: FourTuple, segment: TcpSegment, now_us: int) -> None:
        """For a handshake that is not done, a connection that is over, or a new one, or none."""
        request = self.environment.requests.get(four_tuple)
        waiting = self.environment.time_waits.get(four_tuple)
        if request is not None:
            passive_handshake.process(request, segment, now_us)
        elif waiting is not None:
            self._receive_in_time_wait(four_tuple, waiting, segment, now_us)
        elif not self._begins_connection(four_tuple, segment, now_us):
            self.refuse(four_tuple, segment, now_us)

    def _receive_in_time_wait(
        self, four_tuple: FourTuple, waiting: TimeWait, segment: TcpSegment, now_us: int
    ) -> None:
        time_waits = self.environment.time_waits
        sequence = time_waits.process(four_tuple, waiting, segment, now_us)
        if sequence is None:
            return
        listener = self._listener_for(four_tuple[0], four_tuple[1])
        if listener is None:
            time_waits.refuse_new(four_tuple, waiting, now_us)
            return
        time_waits.remove(four_tuple)
        self._passive_opens.on_syn(listener, four_tuple, segment, now_us, sequence)

    def _begins_connection(self, four_tuple: FourTuple, segment: TcpSegment, now_us: int) -> bool:
        """A SYN to a listener, or the third packet of a handshake of which nothing was kept."""
        flags = segment.flags & (SYN | ACK | RST)
        listener = self._listener_for(four_tuple[0], four_tuple[1]) if flags in (SYN, ACK) else None
        if listener is None:
            return False
        if flags == ACK:
            return self._passive_opens.on_cookie(listener, four_tuple, segment, now_us)
        self._passive_opens.on_syn(listener, four_tuple, segment, now_us, None)
        return True

    def _listener_for(self, address: bytes, port: int) -> Listener | None:
        any_ipv4 = b"\0" * 4
        exact = self._listeners.get((address, port))
        if exact is None and len(address) == 4:
            exact = self._listeners.get((any_ipv4, port))
        return exact or self._listeners.get((None, port))

    def refuse(
        self,
        four_tuple: FourTuple,
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
        send_header(self.environment, four_tuple, answer, now_us, class_of_answer(segment))

    # --- bookkeeping ---

    @property
    def tokens(self) -> Mapping[int, Connection]:
        """By which joins name their connections (RFC 8684 §3.2)."""
        return self._tokens

    @property
    def has_room(self) -> bool:
        """Whether there may be one more connection."""
        return len(self._connections) < self.settings.maximum_connections

    def new_key(self) -> Key | None:
        """A key whose token is free (RFC 8684 §3.1); None after a few collisions, as Linux gives up."""
        for _ in range(KEY_ATTEMPTS):
            key = crypto.derive(self.environment.random_bytes(crypto.KEY_BYTES))
            if key.token not in self._tokens and key.token not in self._passive_opens.reserved_tokens:
                return key
        return None

    def new_passive(self, listener: Listener, key: Key | None, four_tuple: FourTuple) -> Connection:
        """A connection that a peer has asked the listener for."""
        local, remote = four_tuple[:2], four_tuple[2:]
        connection = self._new_connection(
            key, local, remote, is_client=False, is_ipv6_socket=listener.is_ipv6
        )
        connection.begin_with(listener.socket_options)
        connection.listener = listener
        return connection

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
        self._passive_opens.on_listener_closed(listener)
        self._listeners.pop((listener.address, listener.port), None)
        if listener.is_mptcp:
            self.path_events.on_listener("listener_closed", listener.address, listener.port)


_NO_KEY = Key(b"", 0, 0)
"""Of a connection that is plain TCP from the start."""
