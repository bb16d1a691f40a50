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


BoxSettings = (
    Strip | DropMptcpSyns | Firewall | Rewrite | Split | RandomiseSequence | DuplicateOptions | Reset
)
KINDS: Final[Mapping[str, type[BoxSettings]]] = {
    kind().kind: kind
    for kind in (
        Strip,
        DropMptcpSyns,
        Firewall,
        Rewrite,
        Split,
        RandomiseSequence,
        DuplicateOptions,
        Reset,
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
        if value != field.default:
            shown = f"[{', '.join(value)}]" if isinstance(value, tuple) else value
            words.append(f"{field.name}: {shown}")
    return f"{box.kind} {{{', '.join(words)}}}"
