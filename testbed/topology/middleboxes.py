"""The file format of what changes or drops packets on a link: ``middlebox`` of a link."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testbed.errors import TopologyError
from testbed.middlebox.settings import KINDS, PACKET_KINDS, SUBTYPES, BoxSettings
from testbed.topology.document import parse_document, plain_value
from testbed.topology.problems import ProblemCollector

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


class ResetFile(_BoxFile):
    """Sends a reset behind the segment that completes so many bytes."""

    after_bytes: _Place = 0


class MiddleboxFile(BaseModel):
    """Boxes on a link, in this order from its first end to its second."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    firewall: FirewallFile | None = None
    strip: StripFile | None = None
    drop_mptcp_syns: DropMptcpSynsFile | None = None
    rewrite: RewriteFile | None = None
    split: SplitFile | None = None
    randomise_sequence: RandomiseSequenceFile | None = None
    duplicate_options: DuplicateOptionsFile | None = None
    reset: ResetFile | None = None

    def boxes(self) -> tuple[BoxSettings, ...]:
        """Those that the file has; a key without a value is a box with nothing said about it."""
        found: list[BoxSettings] = []
        for kind, model in BOX_FILES.items():
            if kind not in self.model_fields_set:
                continue
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in getattr(self, kind) or model()
            }
            found.append(KINDS[kind](**values))
        return tuple(found)


BOX_FILES: dict[str, type[BaseModel]] = {
    "firewall": FirewallFile,
    "strip": StripFile,
    "drop_mptcp_syns": DropMptcpSynsFile,
    "rewrite": RewriteFile,
    "split": SplitFile,
    "randomise_sequence": RandomiseSequenceFile,
    "duplicate_options": DuplicateOptionsFile,
    "reset": ResetFile,
}
"""By their keys."""


def parse_middlebox(text: str) -> tuple[BoxSettings, ...]:
    """The boxes of ``strip: {subtypes: [dss]}, split: {}``. Raises ValueError that tells every problem."""
    problems = ProblemCollector("middlebox")
    document = parse_document(f"{{{text}}}", problems)
    try:
        problems.raise_if_any()
        return MiddleboxFile.model_validate(plain_value(document) if document is not None else {}).boxes()
    except ValidationError as error:
        found = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False)]
        raise ValueError("; ".join(f"{where}: {message}" for where, message in found)) from None
    except TopologyError as error:
        raise ValueError(str(error)) from None
