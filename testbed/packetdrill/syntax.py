"""The syntax tree of a packet script: what `parser` makes and `printer` writes.

Every node is an immutable value. Places in the file do not count when two nodes are compared, so that a
tree equals what is read back from its printed form. Times are integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from testbed.packetdrill.errors import NOWHERE, Location


@dataclass(frozen=True, slots=True)
class Node:
    location: Location = field(default=NOWHERE, compare=False, repr=False, kw_only=True)


# --- expressions: arguments and results of system calls ---


@dataclass(frozen=True, slots=True)
class Integer(Node):
    value: int
    is_hexadecimal: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class String(Node):
    """``"…"`` with the escapes of C; characters are UTF-8."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A name of C, or one that ``--define`` made, with its value."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Ellipsis(Node):
    """``...``: the argument does not matter."""


@dataclass(frozen=True, slots=True)
class Array(Node):
    """``[a, b]``: what the argument points to."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class StructureField(Node):
    """``name=value``, ``name(count)=value`` or, as in an iovec, the value alone."""

    name: str | None
    value: Expression
    count: Expression | None = None


@dataclass(frozen=True, slots=True)
class Structure(Node):
    """``{sa_family=AF_INET, …}``, ``{onoff=1, linger=0}``, ``{..., 1000}``: a struct of C."""

    fields: tuple[StructureField, ...]

    def get(self, name: str) -> Expression | None:
        """The value of the first field of that name."""
        return next((entry.value for entry in self.fields if entry.name == name), None)


@dataclass(frozen=True, slots=True)
class FunctionCall(Node):
    """``htons(8080)``, ``inet_addr("10.0.0.1")``, ``inet_pton(AF_INET6, "fd00::1")``."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class BitwiseOr(Node):
    """``A|B``, with at least two terms."""

    terms: tuple[Expression, ...]


Expression = Integer | String | Constant | Ellipsis | Array | Structure | FunctionCall | BitwiseOr


@dataclass(frozen=True, slots=True)
class SystemCall(Node):
    """``name(arguments) = result ERRNO (note)``. Without ``result`` nothing is compared."""

    name: str
    arguments: tuple[Expression, ...]
    result: Expression | None = None
    errno_name: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Command(Node):
    """A shell command, as it stood between backticks."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeBlock(Node):
    """Python between ``%{`` and ``}%``, indentation common to its lines removed."""

    text: str


# --- values in options ---


class Computed(Enum):
    """Values that are worked out from the connection."""

    AUTO = "auto"


class ChecksumForm(Enum):
    """What ``dss`` and ``mpcapable`` say of their checksum, other than a number.

    `NEGOTIATED` is what a script gets that says nothing: in an incoming packet a right checksum where
    MP_CAPABLE asked for checksums, in an outgoing one no comparison.
    """

    NEGOTIATED = ""
    NONE = "nocs"
    CORRECT = "cksum=auto"


class Truncation(Enum):
    """Functions over keys, by the name they have in a script."""

    TOKEN = "sha256_32"
    INITIAL_DATA_SEQUENCE = "trunc_r64_hmac"
    LEFT_64 = "trunc_l64_hmac"
    FULL_160 = "full_160_hmac"


@dataclass(frozen=True, slots=True)
class KeyFunction(Node):
    """``sha256_32(key)``: a token; ``trunc_r64_hmac(key)+offset``: a data sequence number;

    ``trunc_l64_hmac(sender receiver)``, ``full_160_hmac(sender receiver)``: the HMAC of a join.
    """

    function: Truncation
    variables: tuple[str, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class KeyReference(Node):
    """A key's variable; ``value`` is its 64 bits where the script gives them (``skey=5``)."""

    name: str
    value: int | None = None


@dataclass(frozen=True, slots=True)
class AddressReference(Node):
    """``addr[name]``, ``addr[name=inet_addr("…")]``; ``value`` is the packed address where it is given.

    ``port`` only in the addresses before a packet's flags: ``addr[name]:8080``.
    """

    name: str
    value: bytes | None = None
    port: int | None = None


# --- TCP options, named after what follows their kind on the wire ---


@dataclass(frozen=True, slots=True)
class AnyOptions(Node):
    """``...`` among others: any number of options, also none."""


@dataclass(frozen=True, slots=True)
class NoOperation(Node):
    """``nop``"""


@dataclass(frozen=True, slots=True)
class EndOfOptions(Node):
    """``eol``"""


@dataclass(frozen=True, slots=True)
class MaximumSegmentSize(Node):
    """``mss N``"""

    value: int


@dataclass(frozen=True, slots=True)
class WindowScale(Node):
    """``wscale N``"""

    shift: int


@dataclass(frozen=True, slots=True)
class SackPermitted(Node):
    """``sackOK``"""


@dataclass(frozen=True, slots=True)
class Sack(Node):
    """``sack a:b c:d``: (left edge, right edge), relative to the initial number of the data's sender."""

    blocks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Timestamps(Node):
    """``TS val N ecr N``; a number that is left out is not compared."""

    value: int | None = None
    echo: int | None = None


@dataclass(frozen=True, slots=True)
class FastOpen(Node):
    """``FO [cookie]``, or ``FOEXP [cookie]`` in the experimental form; no cookie: a request for one.

    ``cookie`` None stands for ``FO ...``: there is one, of any value.
    """

    cookie: bytes | None
    is_experimental: bool = False


@dataclass(frozen=True, slots=True)
class Md5Signature(Node):
    """``md5 [32 hexadecimal digits]``, ``md5 auto``: the right one.

    Without either outgoing ones are not compared, incoming ones are right, or 0 while there is no key.
    """

    digest: bytes | Computed | None = None


@dataclass(frozen=True, slots=True)
class RawOption(Node):
    """``raw HEX``: the bytes of an option that has no name here, or that is malformed on purpose."""

    data: bytes


# --- MPTCP options (RFC 8684 §3). None: not written, so not compared ---


@dataclass(frozen=True, slots=True)
class MpCapableOption(Node):
    """``mpcapable [vN] flags[…] nokey|key[…] [mpcdatalen N] [nocs|cksum=N]``; ``keys`` () is ``nokey``."""

    version: int | None = None
    flags: int | None = None
    keys: tuple[KeyReference, ...] | None = None
    data_length: int | None = None
    checksum: int | ChecksumForm = ChecksumForm.NEGOTIATED


@dataclass(frozen=True, slots=True)
class MpJoinSynOption(Node):
    """``mp_join_syn [backup=] [address_id=] [token=] [rand=]``"""

    backup: bool | None = None
    address_id: int | Computed | None = None
    token: int | KeyFunction | Computed | None = None
    nonce: int | None = None


@dataclass(frozen=True, slots=True)
class MpJoinSynAckOption(Node):
    """``mp_join_syn_ack [backup=] [address_id=] [sender_hmac=] [rand=]``"""

    backup: bool | None = None
    address_id: int | Computed | None = None
    hmac: int | KeyFunction | Computed | None = None
    nonce: int | None = None


@dataclass(frozen=True, slots=True)
class MpJoinAckOption(Node):
    """``mp_join_ack [sender_hmac=]``"""

    hmac: int | KeyFunction | Computed | None = None


class Absent(Enum):
    """What a script wants not to be there, as against what it leaves out."""

    ABSENT = "no"


@dataclass(frozen=True, slots=True)
class DataSequence(Node):
    """``dack8=N``, ``dsn4``: how wide, and where it counts from: 1 is the first byte of the data.

    A `KeyFunction` counts from that key's initial data sequence number. None: not compared, and in an
    incoming packet what comes next. ``dack``, without a width, is of any width; incoming of 64 bits.
    """

    is_64bit: bool | None
    value: int | KeyFunction | None = None


@dataclass(frozen=True, slots=True)
class DssOption(Node):
    """``dss [dack4|dack8[=N]] [dsn4|dsn8[=N]] [ssn=N] [dll=N] [nocs|cksum=N] [fin]``

    `Absent` is ``nodack`` and ``nodsn``: it must not be there.
    """

    data_ack: DataSequence | Absent | None = None
    data_sequence: DataSequence | Absent | None = None
    subflow_sequence: int | None = None
    data_length: int | None = None
    checksum: int | ChecksumForm = ChecksumForm.NEGOTIATED
    fin: bool = False


@dataclass(frozen=True, slots=True)
class AddAddressOption(Node):
    """``add_address [address_id=] addr[…] [port=] hmac=…|addr_echo``; ``is_echo`` goes without HMAC."""

    address_id: int | None
    address: AddressReference
    port: int | None = None
    hmac: int | Computed | None = None
    is_echo: bool = False


@dataclass(frozen=True, slots=True)
class RemoveAddressOption(Node):
    """``remove_address address_id=[1,2]``"""

    address_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MpPrioOption(Node):
    """``mp_prio [backup=] [address_id=]``"""

    backup: bool | None = None
    address_id: int | None = None


@dataclass(frozen=True, slots=True)
class MpFailOption(Node):
    """``mp_fail [dsn8=N]``"""

    data_sequence: int | KeyFunction | None = None


@dataclass(frozen=True, slots=True)
class MpFastcloseOption(Node):
    """``mp_fastclose [key[=INT]]``: the key of the host that receives it."""

    key: KeyReference | None = None


@dataclass(frozen=True, slots=True)
class MpResetOption(Node):
    """``mp_reset REASON [flags[flag_t]]``"""

    reason: int | None = None
    flags: int | None = None


MptcpScriptOption = (
    MpCapableOption
    | MpJoinSynOption
    | MpJoinSynAckOption
    | MpJoinAckOption
    | DssOption
    | AddAddressOption
    | RemoveAddressOption
    | MpPrioOption
    | MpFailOption
    | MpFastcloseOption
    | MpResetOption
)
ScriptOption = (
    AnyOptions
    | NoOperation
    | EndOfOptions
    | MaximumSegmentSize
    | WindowScale
    | SackPermitted
    | Sack
    | Timestamps
    | FastOpen
    | Md5Signature
    | RawOption
    | MptcpScriptOption
)


# --- packets ---


class Direction(Enum):
    IN = "<"
    """Handed to the stack."""
    OUT = ">"
    """Must come out of the stack."""


class Ecn(Enum):
    """``noecn``, ``ect1``, ``ect0``, ``ce``; ``ect01`` is either of ect0 and ect1."""

    NOT_ECT = "noecn"
    ECT1 = "ect1"
    ECT0 = "ect0"
    CE = "ce"
    ECT0_OR_ECT1 = "ect01"


@dataclass(frozen=True, slots=True)
class IpPart(Node):
    """``[ect0, tos 0x20, ttl 64, flowlabel 0x12345]``; None: not written, so not compared."""

    traffic_class: int | None = None
    ecn: Ecn | None = None
    hop_limit: int | None = None
    flow_label: int | None = None


@dataclass(frozen=True, slots=True)
class SequenceRange(Node):
    """``start:end(length)``, relative to the sender's initial sequence number."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class TcpPart(Node):
    """``flags`` are the bits of the header, as in `mptcp_stack.wire.tcp_segment`.

    ``options`` None is ``<...>``: any. () is a packet without options. `AnyOptions` among others is only in
    outgoing packets.
    """

    flags: int
    sequence: SequenceRange
    acknowledgement: int | None = None
    window: int | None = None
    urgent_pointer: int | None = None
    options: tuple[ScriptOption, ...] | None = ()


@dataclass(frozen=True, slots=True)
class IcmpPart(Node):
    """``icmp TYPE [CODE] [mtu N]`` or ``icmpv6 …``; names or numbers, kept as they were written.

    The names of IPv4 hold for IPv6 as well (`constants.icmp_type_and_code`), so that one script serves both.
    """

    is_icmpv6: bool
    type_name: str
    code_name: str | None = None
    mtu: int | None = None
    quoted: SequenceRange | None = None


@dataclass(frozen=True, slots=True)
class Packet(Node):
    """``> [ip] flags …``; the addresses are written by scripts with several subflows."""

    direction: Direction
    content: TcpPart | IcmpPart
    ip: IpPart = field(default_factory=IpPart)
    source: AddressReference | None = None
    destination: AddressReference | None = None

    @property
    def payload_length(self) -> int:
        return self.content.sequence.length if isinstance(self.content, TcpPart) else 0


# --- events ---


class TimeKind(Enum):
    ABSOLUTE = "0.5"
    RELATIVE = "+0.5"
    ABSOLUTE_RANGE = "0.5~0.6"
    RELATIVE_RANGE = "+0.5~+0.6"
    ANY = "*"


@dataclass(frozen=True, slots=True)
class EventTime(Node):
    """When an event happens. Relative times count from the event before.

    ``end_us`` is the end of a range, else equal to ``start_us``. ``blocking_end_us`` is when a blocking call
    must return, counted from where ``start_us`` is counted from.
    """

    kind: TimeKind
    start_us: int = 0
    end_us: int = 0
    blocking_end_us: int | None = None

    @property
    def is_relative(self) -> bool:
        return self.kind in (TimeKind.RELATIVE, TimeKind.RELATIVE_RANGE)


Action = SystemCall | Packet | Command | CodeBlock


@dataclass(frozen=True, slots=True)
class Event(Node):
    """``location`` is where its time stands; ``source`` is its text without comments."""

    time: EventTime
    action: Action
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Script:
    """One file. ``options`` has those that were written: ``--mtu=1500`` is {"mtu": "1500"}.

    ``defines`` has what ``--define=NAME=VALUE`` set; ``header`` is the text of the comments that precede
    everything else.
    """

    path: str = field(compare=False)
    options: Mapping[str, str]
    defines: Mapping[str, int]
    init_command: Command | None
    events: tuple[Event, ...]
    header: str = field(default="", compare=False)
