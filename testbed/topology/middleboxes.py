"""The file format of what changes or drops packets on a link: ``middlebox`` of a link."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from testbed.middlebox.settings import KINDS, NAT_IDLE_TIMEOUT_US, PACKET_KINDS, SUBTYPES, BoxSettings
from testbed.topology.quantities import Address, DurationUs

_Subtype = Literal[
    "mp_capable",
    "mp_join",
    "dss",
    "add_addr",
    "remove_addr",
    "mp_prio",
    "mp_fail",
    "mp_fastclose",
    "mp_tcprst",
]
_Packet = Literal["syn", "syn_ack", "third_ack", "data", "ack"]
_Subtypes = Annotated[list[_Subtype], Field(min_length=1, max_length=len(SUBTYPES))]
_Place = Annotated[int, Field(ge=0, lt=1 << 30)]


class _BoxFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    direction: Literal["->", "<-", "both"] = Field(
        default="both", description="'->': on packets from the link's first end to its second."
    )


class StripFile(_BoxFile):
    """Overwrites options of MPTCP with NOPs."""

    subtypes: _Subtypes = Field(default=list(SUBTYPES), validate_default=True)
    packets: list[_Packet] = Field(
        default=list(PACKET_KINDS), validate_default=True, min_length=1, max_length=len(PACKET_KINDS)
    )


class DropMptcpSynsFile(_BoxFile):
    """Drops SYNs with options of MPTCP."""

    subtypes: _Subtypes = Field(default=list(SUBTYPES), validate_default=True)


class FirewallFile(_BoxFile):
    """Lets pass only what belongs to a connection whose SYN came in the direction."""

    direction: Literal["->", "<-"] = "->"


class RewriteFile(_BoxFile):
    """Changes the payload of every connection at one place."""

    after_bytes: _Place = 0
    grow_by: int = Field(
        default=0, ge=-1000, le=1000, description="0: one byte changes; else so many are put in, or removed."
    )


class SplitFile(_BoxFile):
    """Cuts segments; every piece has a copy of the options."""

    payload_bytes: int = Field(default=536, ge=1, le=65535)


class RandomiseSequenceFile(_BoxFile):
    """Adds a number of its own to the sequence numbers of each connection."""


class DuplicateOptionsFile(_BoxFile):
    """Repeats options of MPTCP where there is room."""

    subtypes: _Subtypes = Field(default=list(SUBTYPES), validate_default=True)


class CoalesceFile(_BoxFile):
    """Joins consecutive segments of a connection."""

    packet_bytes: int = Field(default=1500, ge=100, le=65535, description="The longest IP packet it makes.")
    options: Literal["equal", "first"] = Field(
        default="equal", description="'first': whatever the others' are, they are lost."
    )
    hold: DurationUs = Field(default=500, description="So long it waits for the next segment.")


class _NatFile(_BoxFile):
    direction: Literal["->", "<-"] = Field(default="->", description="From the inside to the outside.")
    address: Address = Field(description="Of the outer side, in the link's network, that nobody has.")
    idle_timeout: DurationUs = Field(
        default=NAT_IDLE_TIMEOUT_US, description="After it a silent connection is forgotten."
    )


class Nat44File(_NatFile):
    """Translates addresses and ports of IPv4."""


class Nat66File(_NatFile):
    """Translates addresses and ports of IPv6."""


class ResetFile(_BoxFile):
    """Sends a reset behind the segment that completes so many bytes."""

    after_bytes: _Place = 0


class DropIcmpErrorsFile(_BoxFile):
    """Drops ICMP errors, so that path MTU discovery hears nothing."""


class MiddleboxFile(BaseModel):
    """Boxes on a link, in this order from its first end to its second."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    firewall: FirewallFile | None = None
    nat44: Nat44File | None = None
    nat66: Nat66File | None = None
    strip: StripFile | None = None
    drop_mptcp_syns: DropMptcpSynsFile | None = None
    rewrite: RewriteFile | None = None
    split: SplitFile | None = None
    coalesce: CoalesceFile | None = None
    randomise_sequence: RandomiseSequenceFile | None = None
    duplicate_options: DuplicateOptionsFile | None = None
    reset: ResetFile | None = None
    drop_icmp_errors: DropIcmpErrorsFile | None = None

    def boxes(self) -> tuple[BoxSettings, ...]:
        """Those that the file has; a key without a value is a box with nothing said about it."""
        found: list[BoxSettings] = []
        for kind, model in BOX_FILES.items():
            if kind not in self.model_fields_set:
                continue
            said = getattr(self, kind)
            if said is None and kind in NATS:
                # The checker says what it lacks.
                continue
            found.append(KINDS[kind](**_values(said if said is not None else model())))
        return tuple(found)


def _values(said: BaseModel) -> dict[str, Any]:
    """As the settings have them."""
    values: dict[str, Any] = {}
    for name, value in said:
        if name in ("idle_timeout", "hold"):
            values[f"{name}_us"] = value
        elif name == "address":
            values[name] = str(value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return values


BOX_FILES: dict[str, type[BaseModel]] = {
    "firewall": FirewallFile,
    "nat44": Nat44File,
    "nat66": Nat66File,
    "strip": StripFile,
    "drop_mptcp_syns": DropMptcpSynsFile,
    "rewrite": RewriteFile,
    "split": SplitFile,
    "coalesce": CoalesceFile,
    "randomise_sequence": RandomiseSequenceFile,
    "duplicate_options": DuplicateOptionsFile,
    "reset": ResetFile,
    "drop_icmp_errors": DropIcmpErrorsFile,
}
"""By their keys."""
NATS = {"nat44": 4, "nat66": 6}
"""With their families; they need an address."""
