"""The file format: what a topology file may say, as models that also give the published JSON Schema.

Values are parsed here, units and addresses included. Nothing is coerced: ``yes`` is text, ``1500`` is an
integer, ``"1500"`` is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from testbed.topology import impairments, values
from testbed.topology.impairments import Fields
from testbed.topology.middleboxes import MiddleboxFile
from testbed.topology.model import IpInterface, IpNetwork
from testbed.topology.quantities import Address, DurationUs, text_schema, validator

TOPOLOGY_NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
NODE_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
INTERFACE_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]{0,14}$"
SYSCTL_NAME_PATTERN = r"^net(\.[A-Za-z0-9_-]+)+$"
MAXIMUM_NODES = 4096
MAXIMUM_LINKS = 8192
MINIMUM_MTU = 68
MINIMUM_MTU_IPV6 = 1280
MAXIMUM_MTU = 65535
MAXIMUM_LIMIT = 8

InterfaceAddress = Annotated[
    IpInterface,
    PlainValidator(validator(values.parse_interface_address)),
    text_schema("/[0-9]{1,3}$", "10.0.1.1/24"),
]
Subnet = Annotated[
    IpNetwork, PlainValidator(validator(values.parse_subnet)), text_schema("/[0-9]{1,3}$", "10.0.1.0/24")
]
Destination = Annotated[
    IpNetwork | None, PlainValidator(validator(values.parse_destination)), text_schema(None, "default")
]
MacAddress = Annotated[
    str,
    PlainValidator(validator(values.parse_mac)),
    text_schema("^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$", "02:00:00:00:00:01"),
]
SysctlValue = Annotated[
    str,
    PlainValidator(validator(values.parse_sysctl_value)),
    WithJsonSchema({"type": ["string", "integer"]}),
]
NodeName = Annotated[str, StringConstraints(pattern=NODE_NAME_PATTERN)]
InterfaceName = Annotated[str, StringConstraints(pattern=INTERFACE_NAME_PATTERN)]
SysctlName = Annotated[str, StringConstraints(pattern=SYSCTL_NAME_PATTERN)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LimitsFile(_File):
    """What ``ip mptcp limits set`` takes."""

    subflows: int = Field(
        default=2, ge=0, le=MAXIMUM_LIMIT, description="Additional subflows per connection."
    )
    add_addr_accepted: int = Field(
        default=0, ge=0, le=MAXIMUM_LIMIT, description="Announced addresses accepted per connection."
    )


class EndpointFile(_File):
    """What ``ip mptcp endpoint add`` takes: an interface (all its addresses) or one address."""

    interface: InterfaceName | None = None
    address: Address | None = None
    flags: list[Literal["signal", "subflow", "backup", "fullmesh"]] = Field(max_length=4)
    id: int | None = Field(default=None, ge=1, le=255)
    port: int | None = Field(default=None, ge=1, le=65535, description="Needs the flag 'signal'.")


def _endpoints_form(value: object) -> str:
    return "auto" if isinstance(value, str) else "list"


class MptcpFile(_File):
    """A host's path manager."""

    limits: LimitsFile = LimitsFile()
    endpoints: Annotated[
        Annotated[Literal["auto"], Tag("auto")]
        | Annotated[list[EndpointFile], Field(max_length=255), Tag("list")],
        Discriminator(_endpoints_form),
    ] = Field(
        default=[],
        description="'auto': a subflow endpoint for each address of every interface but the first.",
    )
    path_manager: str | None = Field(
        default=None, description="'kernel' (by endpoints and limits) or 'userspace' (told by the agent)."
    )
    scheduler: str | None = Field(
        default=None,
        description="'default'; the bundled stack also has lowestrtt, roundrobin, redundant, blest and ecf.",
    )


class InterfaceFile(_File):
    """What is not to be derived for one interface."""

    addresses: list[InterfaceAddress] | None = Field(
        default=None, max_length=64, description="Exactly these, of both families; [] for none."
    )
    mac: MacAddress | None = None


class RouteFile(_File):
    """A route in addition to the derived ones; it replaces one of the same destination and source."""

    to: Destination = Field(description="A network, an address, or 'default'.")
    via: Address | None = Field(default=None, description="The next router's address.")
    interface: InterfaceName | None = None
    source: Address | None = Field(
        default=None, alias="from", description="For packets from this own address only."
    )
    metric: int = Field(default=0, ge=0, le=2**31 - 1)


class NodeFile(_File):
    """A host, a router, a switch, or a middlebox."""

    kind: Literal["host", "router", "switch", "middlebox"] = "host"
    stack: Literal["userspace", "kernel", "tcp"] | None = Field(
        default=None, description="What a host speaks; userspace unless said."
    )
    mptcp: MptcpFile | None = None
    interfaces: dict[InterfaceName, InterfaceFile] = Field(default={}, max_length=MAXIMUM_LINKS)
    routes: list[RouteFile] = Field(default=[], max_length=4096)
    sysctls: dict[SysctlName, SysctlValue] = Field(default={}, max_length=1024)
    middlebox: MiddleboxFile | None = Field(
        default=None, description="What a middlebox does; '->' is from its first link to its second."
    )

    @property
    def is_bridge(self) -> bool:
        """Whether it passes frames on, and has no addresses."""
        return self.kind in ("switch", "middlebox")


class LinkEndFile(_File):
    """Where a link ends. ``node:interface`` and ``node`` are short for a mapping with these keys."""

    node: NodeName
    interface: InterfaceName | None = None
    addresses: list[InterfaceAddress] | None = Field(default=None, max_length=64)
    mac: MacAddress | None = None


def _expand_link_end(value: object) -> object:
    if not isinstance(value, str):
        return value
    node, colon, interface = value.partition(":")
    return {"node": node, "interface": interface} if colon else {"node": node}


@dataclass(frozen=True)
class _OrShortForm:
    """Lets the JSON Schema of a mapping accept its short text form too."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        pattern = f"{NODE_NAME_PATTERN[:-1]}(:{INTERFACE_NAME_PATTERN[1:-1]})?$"
        text = {"type": "string", "pattern": pattern, "examples": ["client", "client:eth0"]}
        return {"anyOf": [text, handler(schema)]}


LinkEnd = Annotated[LinkEndFile, BeforeValidator(_expand_link_end), _OrShortForm()]


@dataclass(frozen=True)
class _Word:
    """A value that an impairment's word takes; it becomes the fields that it sets."""

    word: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            validator(partial(impairments.parse_word, self.word))
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return impairments.word_schema(self.word)


def _expand_words(value: object) -> object:
    """``delay 10ms loss 1%`` is short for a mapping."""
    if not isinstance(value, str):
        return value
    try:
        return impairments.split_words(value)
    except ValueError as error:
        raise PydanticCustomError("topology", "{message}", {"message": str(error)}) from None


@dataclass(frozen=True)
class _OrText:
    """Lets the JSON Schema of an impairment accept its words as one text."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        words = "|".join(impairments.WORDS)
        text = {"type": "string", "pattern": rf"^\s*({words})\s", "examples": ["delay 10ms 2ms loss 1%"]}
        return {"anyOf": [text, handler(schema)]}


class ImpairmentFile(_File):
    """What a link does to packets, in tc-netem's words."""

    rate: Annotated[Fields, _Word("rate")] | None = None
    delay: Annotated[Fields, _Word("delay")] | None = None
    jitter: Annotated[Fields, _Word("jitter")] | None = None
    distribution: Annotated[Fields, _Word("distribution")] | None = None
    loss: Annotated[Fields, _Word("loss")] | None = None
    duplicate: Annotated[Fields, _Word("duplicate")] | None = None
    corrupt: Annotated[Fields, _Word("corrupt")] | None = None
    reorder: Annotated[Fields, _Word("reorder")] | None = None
    gap: Annotated[Fields, _Word("gap")] | None = None
    limit: Annotated[Fields, _Word("limit")] | None = None
    slot: Annotated[Fields, _Word("slot")] | None = None
    seed: Annotated[Fields, _Word("seed")] | None = None

    def said(self) -> dict[str, Fields]:
        """The words that the file has, in its order of writing, each with what it sets."""
        return {word: fields for word in impairments.WORDS if (fields := getattr(self, word)) is not None}


Impairment = Annotated[ImpairmentFile, BeforeValidator(_expand_words), _OrText()]


class ImpairFile(ImpairmentFile):
    """Impairments of both directions, or of each by itself under ``"->"`` and ``"<-"``."""

    forward: Impairment | None = Field(
        default=None, alias="->", description="Packets from the first endpoint to the second."
    )
    backward: Impairment | None = Field(
        default=None, alias="<-", description="Packets from the second endpoint to the first."
    )


Impair = Annotated[ImpairFile, BeforeValidator(_expand_words), _OrText()]


class LinkFile(_File):
    """A cable between two nodes."""

    endpoints: list[LinkEnd] = Field(min_length=2, max_length=2)
    mtu: int = Field(default=1500, ge=MINIMUM_MTU, le=MAXIMUM_MTU, description="Bytes.")
    subnets: list[Subnet] = Field(
        default=[], max_length=64, description="Instead of the derived subnet of their family."
    )
    impair: Impair = ImpairFile()
    middlebox: MiddleboxFile = Field(
        default=MiddleboxFile(), description="What changes or drops packets of TCP on the way."
    )
    emulated: bool = Field(
        default=False,
        description="The link emulator is there though nothing is asked of it yet, so that it can be later.",
    )


class EventFile(_File):
    """A change while the lab runs: of a link, or of a host's interface."""

    at: DurationUs = Field(description="Since the lab began to run.")
    link: str | None = Field(default=None, description="One of its ends, like 'client:eth0'.")
    set: Literal["up", "down"] | None = None
    impair: Impair | None = Field(default=None, description="Instead of what is in force; {} for nothing.")
    middlebox: MiddleboxFile | None = Field(
        default=None, description="Instead of the boxes that are there; {} for none."
    )
    interface: str | None = Field(default=None, description="Of a host, like 'client:eth0'.")
    add_address: InterfaceAddress | None = None
    remove_address: Address | None = None
    move_to: NodeName | None = Field(default=None, description="A switch to plug the interface's cable into.")
    addresses: list[InterfaceAddress] | None = Field(
        default=None, max_length=64, description="With 'move_to': what the interface has there."
    )


class TopologyFile(_File):
    """A topology of the MPTCP testbed."""

    version: Literal[1]
    name: Annotated[str, StringConstraints(pattern=TOPOLOGY_NAME_PATTERN)]
    nodes: dict[NodeName, NodeFile] = Field(min_length=1, max_length=MAXIMUM_NODES)
    links: list[LinkFile] = Field(default=[], max_length=MAXIMUM_LINKS)
    impairments: Literal["auto", "emulator", "netem"] = Field(
        default="auto", description="What impairs the links: the testbed's emulator or the kernel's netem."
    )
    events: list[EventFile] = Field(
        default=[], max_length=4096, description="What changes while the lab runs."
    )
