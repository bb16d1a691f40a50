"""What the boxes on a link are asked to do, and its form in JSON and for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

SUBTYPES: Final = (
    "mp_capable",
    "mp_join",
    "dss",
    "add_addr",
    "remove_addr",
    "mp_prio",
    "mp_fail",
    "mp_fastclose",
    "mp_tcprst",
)
"""The options of MPTCP by their numbers (RFC 8684 §3)."""
PACKET_KINDS: Final = ("syn", "syn_ack", "third_ack", "data", "ack")
BOTH: Final = "both"
FORWARD: Final = "->"
BACKWARD: Final = "<-"
NAT_IDLE_TIMEOUT_US: Final = 7_440_000_000
"""2 hours 4 minutes, the least for established connections (RFC 5382, REQ-5)."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Overwrites options of MPTCP with NOPs."""

    direction: str = BOTH
    subtypes: tuple[str, ...] = SUBTYPES
    packets: tuple[str, ...] = PACKET_KINDS
    kind: Literal["strip"] = "strip"


@dataclass(frozen=True, slots=True)
class DropMptcpSyns:
    """A black hole for SYNs that carry MPTCP."""

    direction: str = BOTH
    subtypes: tuple[str, ...] = SUBTYPES
    kind: Literal["drop_mptcp_syns"] = "drop_mptcp_syns"


@dataclass(frozen=True, slots=True)
class Firewall:
    """Lets pass only what belongs to a connection whose SYN came in the direction."""

    direction: str = FORWARD
    kind: Literal["firewall"] = "firewall"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Changes the payload of every connection at one place, as an application-level gateway."""

    direction: str = BOTH
    after_bytes: int = 0
    grow_by: int = 0
    """0: one byte is changed; more: so many are inserted; less: so many are removed."""
    kind: Literal["rewrite"] = "rewrite"


@dataclass(frozen=True, slots=True)
class Split:
    """Cuts segments; every piece has a copy of the options."""

    direction: str = BOTH
    payload_bytes: int = 536
    kind: Literal["split"] = "split"


@dataclass(frozen=True, slots=True)
class RandomiseSequence:
    """Adds a number of its own to the sequence numbers of each connection."""

    direction: str = BOTH
    kind: Literal["randomise_sequence"] = "randomise_sequence"


@dataclass(frozen=True, slots=True)
class DuplicateOptions:
    """Repeats options of MPTCP where there is room."""

    direction: str = BOTH
    subtypes: tuple[str, ...] = SUBTYPES
    kind: Literal["duplicate_options"] = "duplicate_options"


@dataclass(frozen=True, slots=True)
class Reset:
    """Sends a reset behind the segment that completes so many bytes, once per connection and direction."""

    direction: str = BOTH
    after_bytes: int = 0
    kind: Literal["reset"] = "reset"


@dataclass(frozen=True, slots=True)
class DropIcmpErrors:
    """Drops what routers and hosts say of packets that did not arrive: path MTU discovery hears nothing."""

    direction: str = BOTH
    kind: Literal["drop_icmp_errors"] = "drop_icmp_errors"


@dataclass(frozen=True, slots=True)
class Nat44:
    """Translates addresses and ports of IPv4: what is behind it appears under one address.

    The inside is where the direction comes from. See :mod:`testbed.middlebox.nat_box`.
    """

    direction: str = FORWARD
    address: str = ""
    """Of the outer side, in the network beyond."""
    idle_timeout_us: int = NAT_IDLE_TIMEOUT_US
    """After which a connection that is silent is forgotten."""
    kind: Literal["nat44"] = "nat44"


@dataclass(frozen=True, slots=True)
class Nat66:
    """The same for IPv6."""

    direction: str = FORWARD
    address: str = ""
    idle_timeout_us: int = NAT_IDLE_TIMEOUT_US
    kind: Literal["nat66"] = "nat66"


@dataclass(frozen=True, slots=True)
class Coalesce:
    """Joins consecutive segments of a connection."""

    direction: str = BOTH
    packet_bytes: int = 1500
    """Of the longest IP packet that it makes."""
    options: str = "equal"
    """Only where options are "equal"; or else it keeps those of the "first"."""
    hold_us: int = 500
    """So long it waits for the next segment."""
    kind: Literal["coalesce"] = "coalesce"


@dataclass(slots=True)
class BoxCounters:
    """What a box has done to packets in one of its directions, and to those that came the other way."""

    kind: str
    direction: str
    seen: int = 0
    changed: int = 0
    dropped: int = 0
    added: int = 0
    """More packets than came."""


_DEEDS: Final = {
    "strip": "stripped",
    "rewrite": "rewritten",
    "split": "cut",
    "nat44": "translated",
    "nat66": "translated",
    "coalesce": "joined",
    "duplicate_options": "repeated",
    "randomise_sequence": "renumbered",
}


def counters_text(counters: BoxCounters) -> str:
    """For people: only what happened."""
    counts = (
        (counters.changed, _DEEDS.get(counters.kind, "changed")),
        (counters.dropped, "dropped"),
        (counters.added, "added"),
    )
    done = "".join(f", {count} {word}" for count, word in counts if count)
    return f"{counters.kind} {counters.direction}: {counters.seen} packets{done}"


BoxSettings = (
    Strip
    | DropMptcpSyns
    | Firewall
    | Rewrite
    | Split
    | Coalesce
    | RandomiseSequence
    | DuplicateOptions
    | Reset
    | Nat44
    | Nat66
    | DropIcmpErrors
)
KINDS: Final[Mapping[str, type[BoxSettings]]] = {
    kind().kind: kind
    for kind in (
        Strip,
        DropMptcpSyns,
        Firewall,
        Rewrite,
        Split,
        Coalesce,
        RandomiseSequence,
        DuplicateOptions,
        Reset,
        Nat44,
        Nat66,
        DropIcmpErrors,
    )
}


def boxes_to_objects(boxes: Iterable[BoxSettings]) -> list[dict[str, Any]]:
    """As JSON can say it."""
    return [dataclasses.asdict(box) for box in boxes]


def boxes_from_objects(objects: Iterable[Mapping[str, Any]]) -> tuple[BoxSettings, ...]:
    """Raises KeyError or TypeError for what makes no boxes."""
    boxes = []
    for each in objects:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in each.items()
        }
        boxes.append(KINDS[each["kind"]](**values))
    return tuple(boxes)


def box_text(box: BoxSettings) -> str:
    """In the words of a topology file; what is as by default is left out."""
    words = []
    for field in dataclasses.fields(box):
        value = getattr(box, field.name)
        if value == field.default:
            continue
        if field.name.endswith("_us"):
            words.append(f"{field.name.removesuffix('_us')}: {value / 1000:g}ms")
        else:
            shown = f"[{', '.join(value)}]" if isinstance(value, tuple) else value
            words.append(f"{field.name}: {shown}")
    return f"{box.kind} {{{', '.join(words)}}}"
