"""What one seed stands for: the network, its troubles, both hosts, and what their applications do.

Plain values only, so that a scenario can be printed whole; ``drawing`` makes them and ``hosts`` brings them
to life. A path leads from an interface of the client to one of the server; connections start on path 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings


class Trouble(Enum):
    """What may befall a network or its hosts; a seed has none, one or several."""

    LOSS = "loss"
    BURSTS = "loss in bursts"
    REORDERING = "reordering"
    JITTER = "jitter"
    DUPLICATION = "duplication"
    CORRUPTION = "corruption that the checksums of IP and TCP find"
    DATA_CORRUPTION = "corruption that only the checksum of DSS finds"
    NARROWNESS = "low rates and short queues"
    OUTAGES = "paths that die and come back"
    DEATH = "paths that die for good"
    SPIKES = "delay spikes"
    STRIPPING = "removed options"
    CHURN = "addresses that come and go"


LOSES = frozenset(
    {Trouble.LOSS, Trouble.BURSTS, Trouble.CORRUPTION, Trouble.OUTAGES, Trouble.NARROWNESS, Trouble.DEATH}
)
"""What may take a packet, be it of a handshake."""
DISORDERS = frozenset({Trouble.REORDERING, Trouble.JITTER, Trouble.SPIKES})
"""What lets packets overtake each other."""


class Stripping(Enum):
    """From which packets a middlebox removes the options of MPTCP."""

    ALL = "all packets"
    SYNS = "SYNs"
    SYN_ACKS = "SYN/ACKs"
    AFTER_SYNS = "all packets but SYN and SYN/ACK"
    LATER = "packets in the middle of a connection"


@dataclass(frozen=True, slots=True)
class PathPlan:
    forward: WireSettings
    """From the client to the server."""
    backward: WireSettings
    mtu: int = 1500
    is_raw_ip: bool = False
    gso_max_size: int = 0
    stripping: Stripping | None = None
    damages_data: float = 0.0
    """Probability of a payload that is changed under a right TCP checksum."""


class PathChange(Enum):
    DOWN = "down"
    UP = "up"
    FORWARD_DOWN = "one way down"
    SLOW = "slow"
    """Comes with the delay that is added."""
    USUAL = "as usual"
    DIE = "dead as soon as no connection depends on it"


@dataclass(frozen=True, slots=True)
class PathEvent:
    at_us: int
    path: int
    change: PathChange
    delay_us: int = 0


class AddressChange(Enum):
    ADD = "add"
    DELETE = "delete"
    PRIORITY = "priority"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """What a host's administrator does with endpoints, by ``ip mptcp``'s words."""

    at_us: int
    on_client: bool
    change: AddressChange
    path: int = 1
    is_ipv6: bool = False
    flags: frozenset[str] = frozenset()
    limits: tuple[int, int] = (2, 2)


class Pattern(Enum):
    """Who sends when."""

    BOTH_AT_ONCE = "both at once"
    REQUEST_AND_ANSWER = "an answer after the end of the request"
    """The half-close."""
    UPLOAD = "client only, which closes when all is written"
    DOWNLOAD = "server only"


@dataclass(frozen=True, slots=True)
class Pace:
    """How an application handles its socket."""

    write_bytes: int = 1 << 17
    read_bytes: int = 1 << 17
    pause_us: int = 0
    """After each read."""
    aborts_after_bytes: int | None = None
    """Sent and received together; None: it ends in order."""


@dataclass(frozen=True, slots=True)
class ConversationPlan:
    at_us: int
    is_ipv6: bool
    client_protocol: str
    server_protocol: str
    pattern: Pattern
    upload_bytes: int
    download_bytes: int
    client_pace: Pace = Pace()
    server_pace: Pace = Pace()

    @property
    def is_mptcp(self) -> bool:
        """Both ends speak it."""
        return self.client_protocol == self.server_protocol == "mptcp"

    @property
    def is_aborted(self) -> bool:
        paces = (self.client_pace, self.server_pace)
        return any(pace.aborts_after_bytes is not None for pace in paces)


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int
    troubles: frozenset[Trouble]
    paths: tuple[PathPlan, ...]
    client: StackSettings
    server: StackSettings
    conversations: tuple[ConversationPlan, ...]
    path_events: tuple[PathEvent, ...] = ()
    address_events: tuple[AddressEvent, ...] = ()

    @property
    def may_lose_packets(self) -> bool:
        return bool(self.troubles & LOSES)

    @property
    def strips_later(self) -> bool:
        """A middlebox removes options in the middle of a connection, where TCP alone can not always go on."""
        return any(path.stripping is Stripping.LATER for path in self.paths)


@dataclass(slots=True)
class _Printer:
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        self.lines.append(f"{name}: {value}")


def describe(scenario: Scenario) -> str:
    """All of it, a line for each part, with what is not as usual."""
    printer = _Printer()
    troubles = sorted(trouble.value for trouble in scenario.troubles)
    printer.add(f"seed {scenario.seed}", ", ".join(troubles) or "no trouble")
    for number, path in enumerate(scenario.paths):
        printer.add(f"path {number}", _differences(path, PathPlan(WireSettings(), WireSettings())))
    for name, settings in (("client", scenario.client), ("server", scenario.server)):
        printer.add(name, _differences(settings, StackSettings()))
    events: list[PathEvent | AddressEvent] = [*scenario.path_events, *scenario.address_events]
    for event in sorted(events, key=lambda each: each.at_us):
        printer.add(f"at {event.at_us} µs", _values(event, "at_us"))
    for number, conversation in enumerate(scenario.conversations):
        printer.add(f"conversation {number}", _values(conversation))
    return "\n".join(printer.lines)


def _differences(value: PathPlan | WireSettings | StackSettings, usual: object) -> str:
    parts = []
    for each in fields(value):
        own = getattr(value, each.name)
        if own == getattr(usual, each.name):
            continue
        shown = f"({_differences(own, WireSettings())})" if isinstance(own, WireSettings) else _shown(own)
        parts.append(f"{each.name} {shown}")
    return ", ".join(parts) or "as usual"


def _values(value: PathEvent | AddressEvent | ConversationPlan, *left_out: str) -> str:
    return ", ".join(
        f"{each.name} {_shown(getattr(value, each.name))}"
        for each in fields(value)
        if each.name not in left_out
    )


def _shown(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, frozenset):
        return "+".join(sorted(value)) or "none"
    return str(value)
