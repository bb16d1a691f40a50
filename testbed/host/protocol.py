"""What a host agent is told and what it answers: one set of words for every kind of stack.

Requests and answers travel as JSON lines over the agent's Unix socket; these dataclasses are their only
source. The agent (:mod:`testbed.host.agent`) carries them out on the bundled stack or on kernel sockets, the
client (:mod:`testbed.host.client`) sends them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    LISTEN = "listen"
    CONNECT = "connect"


class WorkloadKind(StrEnum):
    TRANSFER = "transfer"
    """Send ``send_bytes`` and receive until the peer's end of data, both at once."""
    ECHO = "echo"
    """Listener: send back what comes. Connector: send ``send_bytes`` and expect them back."""
    REQUEST_RESPONSE = "request_response"
    """Connector: ``requests`` times a request of ``send_bytes`` and a response of ``response_bytes``.

    The listener is given the same two sizes and answers until the end of data."""
    HOLD = "hold"
    """Open the connections and keep them open, idle, until told to "finish" or until the peer closes."""
    STEPS = "steps"
    """Open the connections, and then do with them what is told step by step, until told to "finish"."""


class CloseKind(StrEnum):
    ORDERLY = "orderly"
    """Shut down sending after the data, read to the peer's end of data, close."""
    ABORT = "abort"
    """Close at once with what is unsent or unread thrown away: MP_FASTCLOSE on MPTCP, RST on TCP.

    It happens at ``abort_after_bytes``, or without that when the own data has been written."""


@dataclass(frozen=True, slots=True)
class SocketOption:
    """An ``int`` for ``setsockopt``."""

    level: int
    option: int
    value: int


@dataclass(frozen=True, slots=True)
class Workload:
    """One job for one host.

    Data is either made from ``send_seed`` (both ends can derive it, nothing is stored) or read from
    ``send_file``; received data is hashed, and written to ``receive_file`` where one is given. Each
    connection of a workload sends its own data (the seed and the connection's index), so that bytes that
    reach the wrong connection are noticed; results of many connections are compared as sets of hashes, for
    a listener accepts in whatever order the network chose.
    """

    kind: WorkloadKind
    role: Role
    address: str
    """Listener: the local address ("::" or "0.0.0.0" for any). Connector: the peer's.

    A link-local address of IPv6 has its interface behind it: "fe80::1%eth0"."""
    port: int
    """Listener: 0 lets the stack choose; the milestone "listening" tells which."""
    protocol: str = "mptcp"
    """Either "mptcp" or "tcp"."""
    local_address: str | None = None
    """Connector: bind to this address first."""
    send_bytes: int = 0
    send_seed: int = 0
    send_file: str | None = None
    receive_file: str | None = None
    chunk_bytes: int = 0
    """Write at most this much at once, with ``pause_us`` between; 0 for as fast as possible."""
    pause_us: int = 0
    requests: int = 1
    response_bytes: int = 0
    connections: int = 1
    """Connector: how many to open at once. Listener: how many to serve before it is done."""
    close: CloseKind = CloseKind.ORDERLY
    abort_after_bytes: int | None = None
    """With ABORT: as soon as this much has been received or sent."""
    hold_open_after: bool = False
    """Keep connections open after the data until told to "finish", so that a test can act on them."""
    timeout_us: int = 60_000_000
    """The watchdog: the workload fails with its state when it is not done by then."""
    peek: str = ""
    """What is received is peeked at first. "with": what was seen then counts; "after": what is read then."""
    way: str = "write"
    """How data goes into and out of the kernel's sockets: "write", "mmap", "sendfile" or "splice"."""
    fast_open: bool = False
    """The first data goes with the SYN, once the peer's cookie is known (RFC 7413)."""
    transparent: bool = False
    """Listener: addresses that are not the host's count as its own (IP_TRANSPARENT)."""
    options: tuple[SocketOption, ...] = ()
    """Set on sockets before they connect or listen."""
    rounds: int = 1
    """Connector: how often each socket does all this. In between, when all has ended, it is disconnected
    (``connect`` with AF_UNSPEC) and connects again; each round has a result and data of its own."""
    verify: bool = True
    """False: constant data and no hashing (the hashes stay empty), to measure nothing but the stacks."""


class StepKind(StrEnum):
    """What a workload of steps is told to do with one of its connections."""

    SEND = "send"
    """So many bytes, in the background: behind what it was told to send before."""
    END = "end"
    """Nothing more follows."""
    RECEIVE = "receive"
    """At most so many bytes, as soon as something is there, or the peer's end of data."""
    ASK = "ask"
    """``ioctl`` with this request. Possible with every workload."""


@dataclass(frozen=True, slots=True)
class StepAnswer:
    value: int
    """Bytes received, or what ``ioctl`` tells."""
    unread: int | None = None
    """After receiving with TCP_INQ: what is left to be read at once."""


@dataclass(frozen=True, slots=True)
class SubflowSeries:
    """Bytes of one subflow at the times of its :class:`TrafficSeries`, since the subflow began."""

    local: str
    remote: str
    acknowledged: tuple[int, ...]
    received: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrafficSeries:
    """How a connection's bytes grew. All tuples are of one length."""

    times_us: tuple[int, ...]
    """By the machine's monotonic clock, or the simulation's."""
    sent: tuple[int, ...]
    """Data that the application handed over."""
    received: tuple[int, ...]
    """Data that the application was given, in order."""
    subflows: tuple[SubflowSeries, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionResult:
    """How one connection of a workload went."""

    bytes_sent: int
    bytes_received: int
    sha256_sent: str
    sha256_received: str
    duration_us: int
    is_mptcp: bool
    """False after a fallback, and for plain TCP."""
    error: str | None
    """The errno's name (``ECONNRESET``), "timeout" or "stopped"; None when all went well."""
    detail: str = ""
    """With an error: what failed, and the connection's state at that moment."""
    local: str = ""
    """Both ends as "address port"; empty for a connection that never came to be."""
    remote: str = ""
    traffic: TrafficSeries | None = None
    """Of the first connections of a workload."""


@dataclass(frozen=True, slots=True)
class WorkloadProgress:
    """What a running workload has reached so far."""

    state: str
    """One of "starting", "listening", "connected", "transferring", "holding", "done", "failed"."""
    port: int
    accepted: int
    bytes_sent: int
    bytes_received: int
    connected: int = 0
    error: str | None = None
    """Why the workload failed as a whole; each connection's own error is in its result."""


@dataclass(frozen=True, slots=True)
class ListenerMatch:
    """Of all MPTCP listeners those for which everything holds that is said here."""

    local_address: str | None = None
    """"0.0.0.0" or "::" for those that take any address."""
    local_port: int | None = None
    remote_port: int | None = None
    """Listeners have none: nothing but 0 matches."""


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address with the length of its network's prefix, on an interface: ``10.0.1.1/24``."""

    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class RouteFields:
    """A route of a host; with ``source`` for packets from that address only."""

    destination: str
    interface: str
    gateway: str | None = None
    source: str | None = None
    metric: int = 0


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """Addresses and routes of a host that come and go. What goes, goes first."""

    removed_addresses: tuple[InterfaceAddress, ...] = ()
    added_addresses: tuple[InterfaceAddress, ...] = ()
    removed_routes: tuple[RouteFields, ...] = ()
    added_routes: tuple[RouteFields, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """``ip mptcp endpoint add|delete|change`` in words."""

    address: str
    flags: tuple[str, ...] = ()
    interface: str | None = None
    identifier: int | None = None
    port: int | None = None


LINK_EMULATOR = "links"
"""The ``stack`` of a process that is no host but emulates the lab's links."""


@dataclass(frozen=True, slots=True)
class AgentConfiguration:
    """All that an agent needs to start in its namespace. ``stack`` is a ``StackKind`` value."""

    lab: str
    host: str
    stack: str
    namespace_path: str
    control_socket: str
    log_file: str
    interfaces: tuple[dict[str, Any], ...] = ()
    """name, mac, mtu, addresses ("10.0.0.1/24"): what a userspace stack owns."""
    routes: tuple[dict[str, Any], ...] = ()
    """destination, interface, gateway, source, metric."""
    subflows_limit: int = 2
    add_addr_accepted_limit: int = 0
    endpoints: tuple[dict[str, Any], ...] = ()
    """``EndpointRequest`` fields."""
    sysctls: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    """Randomness of the host's stack for reproducible runs; None takes it from the OS."""
    links_file: str | None = None
    """Of a link emulator (``stack`` is ``LINK_EMULATOR``): where it finds its links."""
    key_log: str | None = None
