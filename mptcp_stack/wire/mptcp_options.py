"""The options of MPTCP version 1 (RFC 8684 §3), every one in every legal length.

A parser is handed a buffer, where the option starts in it and how long it is, and only ever sees a length
that `_FORMATS` allows. What a value means, and in which segments it may stand, the mptcp layer decides.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.frame import Buffer

KIND_MPTCP = 30

# RFC 8684 §3.1: the flags of MP_CAPABLE, A to H from the left.
CHECKSUM_REQUIRED = 0x80
EXTENSIBILITY = 0x40
DENY_JOIN_INITIAL = 0x20
HMAC_SHA256 = 0x01

# RFC 8684 §3.3: the flags of DSS.
_DATA_ACK_PRESENT = 0x01
_DATA_ACK_64BIT = 0x02
_MAPPING_PRESENT = 0x04
_DATA_SEQUENCE_64BIT = 0x08
_DATA_FIN = 0x10

_BACKUP = 0x01
_ECHO = 0x01
_TRANSIENT = 0x01
_RST_OTHER_FLAGS = 0x0E

_HEAD = struct.Struct("!BBBB")
_JOIN_SYN = struct.Struct("!BBBBII")
_JOIN_SYN_ACK = struct.Struct("!BBBB8sI")
_JOIN_ACK = struct.Struct("!BBH20s")
_FAIL = struct.Struct("!BBHQ")
_FASTCLOSE = struct.Struct("!BBH8s")
_UINT16 = struct.Struct("!H")


def _dss_structs() -> tuple[tuple[struct.Struct, struct.Struct], ...]:
    """For each value of the four lower flags the layout without and with a checksum."""
    structs = []
    for flags in range(16):
        layout = "!BBBB"
        checksum = ""
        if flags & _DATA_ACK_PRESENT:
            layout += "Q" if flags & _DATA_ACK_64BIT else "I"
        if flags & _MAPPING_PRESENT:
            layout += "QIH" if flags & _DATA_SEQUENCE_64BIT else "IIH"
            checksum = "H"
        structs.append((struct.Struct(layout), struct.Struct(layout + checksum)))
    return tuple(structs)


_DSS_STRUCTS = _dss_structs()


def _of_length(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise ConfigurationError(f"{len(value)} bytes where an MPTCP option takes {length}")
    return value


@dataclass(slots=True)
class MpCapable:
    """MP_CAPABLE (§3.1): nothing but flags in a SYN, keys of 8 bytes and the first mapping's length later.

    Each optional field needs the ones before it.
    """

    SUBTYPE: ClassVar[int] = 0x0
    version: int
    flags: int
    sender_key: bytes | None = None
    receiver_key: bytes | None = None
    data_length: int | None = None
    checksum: int | None = None

    def to_bytes(self) -> bytes:
        body = b""
        if self.sender_key is not None:
            body = _of_length(self.sender_key, 8)
            if self.receiver_key is not None:
                body += _of_length(self.receiver_key, 8)
                if self.data_length is not None:
                    body += _UINT16.pack(self.data_length)
                    if self.checksum is not None:
                        body += _UINT16.pack(self.checksum)
        return _HEAD.pack(KIND_MPTCP, 4 + len(body), self.version & 0x0F, self.flags) + body


@dataclass(slots=True)
class MpJoinSyn:
    """MP_JOIN in a SYN (§3.2)."""

    SUBTYPE: ClassVar[int] = 0x1
    backup: bool
    address_id: int
    token: int
    nonce: int

    def to_bytes(self) -> bytes:
        first = self.SUBTYPE << 4 | self.backup
        return _JOIN_SYN.pack(KIND_MPTCP, _JOIN_SYN.size, first, self.address_id, self.token, self.nonce)


@dataclass(slots=True)
class MpJoinSynAck:
    """MP_JOIN in a SYN/ACK (§3.2), with the leftmost 64 bits of the HMAC."""

    SUBTYPE: ClassVar[int] = 0x1
    backup: bool
    address_id: int
    truncated_hmac: bytes
    nonce: int

    def to_bytes(self) -> bytes:
        first = self.SUBTYPE << 4 | self.backup
        hmac = _of_length(self.truncated_hmac, 8)
        return _JOIN_SYN_ACK.pack(KIND_MPTCP, _JOIN_SYN_ACK.size, first, self.address_id, hmac, self.nonce)


@dataclass(slots=True)
class MpJoinAck:
    """MP_JOIN in the third packet (§3.2), with the leftmost 160 bits of the HMAC."""

    SUBTYPE: ClassVar[int] = 0x1
    hmac: bytes

    def to_bytes(self) -> bytes:
        return _JOIN_ACK.pack(KIND_MPTCP, _JOIN_ACK.size, self.SUBTYPE << 12, _of_length(self.hmac, 20))


@dataclass(slots=True)
class Dss:
    """Data sequence signal (§3.3): a data acknowledgement, a mapping, both or neither.

    Without a mapping (``data_sequence`` None) the fields that belong to it are 0, None and False. Numbers are
    as on the wire: 32 or 64 bits, wrapped.
    """

    SUBTYPE: ClassVar[int] = 0x2
    data_ack: int | None = None
    data_ack_is_64bit: bool = False
    data_sequence: int | None = None
    data_sequence_is_64bit: bool = False
    subflow_sequence: int = 0
    data_length: int = 0
    checksum: int | None = None
    data_fin: bool = False

    def layout(self) -> tuple[int, struct.Struct]:
        """The flags without DATA_FIN, and the layout that goes with them."""
        flags = 0
        if self.data_ack is not None:
            flags = _DATA_ACK_PRESENT | _DATA_ACK_64BIT if self.data_ack_is_64bit else _DATA_ACK_PRESENT
        if self.data_sequence is not None:
            flags |= _MAPPING_PRESENT
            if self.data_sequence_is_64bit:
                flags |= _DATA_SEQUENCE_64BIT
        return flags, _DSS_STRUCTS[flags][self.checksum is not None]

    def to_bytes(self) -> bytes:
        flags, layout = self.layout()
        values: tuple[int, ...] = () if self.data_ack is None else (self.data_ack,)
        if self.data_sequence is not None:
            values += (self.data_sequence, self.subflow_sequence, self.data_length)
            if self.checksum is not None:
                values += (self.checksum,)
        if self.data_fin:
            flags |= _DATA_FIN
        return layout.pack(KIND_MPTCP, layout.size, self.SUBTYPE << 4, flags, *values)


@dataclass(slots=True)
class AddAddr:
    """ADD_ADDR (§3.4.1); an echo carries no HMAC, anything else the rightmost 64 bits of one."""

    SUBTYPE: ClassVar[int] = 0x3
    echo: bool
    address_id: int
    address: bytes
    port: int | None = None
    hmac: bytes | None = None

    def to_bytes(self) -> bytes:
        if len(self.address) not in (4, 16) or self.echo != (self.hmac is None):
            raise ConfigurationError(
                "ADD_ADDR takes an address of 4 or 16 bytes, and an HMAC unless it is an echo"
            )
        body = self.address
        if self.port is not None:
            body += _UINT16.pack(self.port)
        if self.hmac is not None:
            body += _of_length(self.hmac, 8)
        first = self.SUBTYPE << 4 | self.echo
        return _HEAD.pack(KIND_MPTCP, 4 + len(body), first, self.address_id) + body


@dataclass(slots=True)
class RemoveAddr:
    """REMOVE_ADDR (§3.4.2), with at least one address ID."""

    SUBTYPE: ClassVar[int] = 0x4
    address_ids: tuple[int, ...]

    def to_bytes(self) -> bytes:
        if not self.address_ids:
            raise ConfigurationError("REMOVE_ADDR needs an address ID")
        return bytes((KIND_MPTCP, 3 + len(self.address_ids), self.SUBTYPE << 4, *self.address_ids))


@dataclass(slots=True)
class MpPrio:
    """MP_PRIO (§3.3.8); the address ID is from version 0 of the protocol (RFC 6824 §3.3.8)."""

    SUBTYPE: ClassVar[int] = 0x5
    backup: bool
    address_id: int | None = None

    def to_bytes(self) -> bytes:
        first = self.SUBTYPE << 4 | self.backup
        if self.address_id is None:
            return bytes((KIND_MPTCP, 3, first))
        return bytes((KIND_MPTCP, 4, first, self.address_id))


@dataclass(slots=True)
class MpFail:
    """MP_FAIL (§3.7): the 64-bit data sequence number at which a mapping's checksum was wrong."""

    SUBTYPE: ClassVar[int] = 0x6
    data_sequence: int

    def to_bytes(self) -> bytes:
        return _FAIL.pack(KIND_MPTCP, _FAIL.size, self.SUBTYPE << 12, self.data_sequence)


@dataclass(slots=True)
class MpFastclose:
    """MP_FASTCLOSE (§3.5), with the key of the host that receives it."""

    SUBTYPE: ClassVar[int] = 0x7
    receiver_key: bytes

    def to_bytes(self) -> bytes:
        return _FASTCLOSE.pack(
            KIND_MPTCP, _FASTCLOSE.size, self.SUBTYPE << 12, _of_length(self.receiver_key, 8)
        )


@dataclass(slots=True)
class MpTcpRst:
    """MP_TCPRST (§3.6); ``flags`` keeps the bits U (8), V (4) and W (2), which have no meaning yet."""

    SUBTYPE: ClassVar[int] = 0x8
    reason: int
    transient: bool = False
    flags: int = 0

    def to_bytes(self) -> bytes:
        first = self.SUBTYPE << 4 | self.flags & _RST_OTHER_FLAGS | self.transient
        return bytes((KIND_MPTCP, 4, first, self.reason))


@dataclass(slots=True)
class UnknownMptcpOption:
    """A subtype that RFC 8684 does not define, 0xf (experimental, §3.8) included.

    ``body`` starts with the byte whose upper half is the subtype, so that its lower half is not lost.
    """

    subtype: int
    body: bytes

    def to_bytes(self) -> bytes:
        if not self.body or self.body[0] >> 4 != self.subtype:
            raise ConfigurationError("the first byte of the body must hold the subtype in its upper half")
        return bytes((KIND_MPTCP, 2 + len(self.body))) + self.body


MptcpOption = (
    MpCapable
    | MpJoinSyn
    | MpJoinSynAck
    | MpJoinAck
    | Dss
    | AddAddr
    | RemoveAddr
    | MpPrio
    | MpFail
    | MpFastclose
    | MpTcpRst
    | UnknownMptcpOption
)


def parse_dss(data: Buffer, offset: int, length: int) -> Dss:
    """The DSS of ``length`` bytes at ``offset``; raises MalformedPacketError if its flags need more or less.

    Of all options this one is parsed for every segment, so `tcp_options` calls it directly.
    """
    flags = data[offset + 3]
    plain, checksummed = _DSS_STRUCTS[flags & 0x0F]
    if length == plain.size:
        layout = plain
    elif length == checksummed.size:
        layout = checksummed
    else:
        raise MalformedPacketError(f"DSS with flags {flags:#04x} in {length} bytes")
    fields = layout.unpack_from(data, offset)
    data_fin = flags & _DATA_FIN != 0
    if flags & _DATA_ACK_PRESENT:
        data_ack = fields[4]
        # "a" and "m" mean nothing without "A" and "M" (RFC 8684 §3.3).
        data_ack_is_64bit = flags & _DATA_ACK_64BIT != 0
        index = 5
    else:
        data_ack = None
        data_ack_is_64bit = False
        index = 4
    if not flags & _MAPPING_PRESENT:
        return Dss(data_ack, data_ack_is_64bit, None, False, 0, 0, None, data_fin)
    return Dss(
        data_ack,
        data_ack_is_64bit,
        fields[index],
        flags & _DATA_SEQUENCE_64BIT != 0,
        fields[index + 1],
        fields[index + 2],
        fields[index + 3] if layout is checksummed else None,
        data_fin,
    )


def _parse_capable(data: Buffer, offset: int, length: int) -> MpCapable:
    option = MpCapable(data[offset + 2] & 0x0F, data[offset + 3])
    if length >= 12:
        option.sender_key = bytes(data[offset + 4 : offset + 12])
    if length >= 20:
        option.receiver_key = bytes(data[offset + 12 : offset + 20])
    if length >= 22:
        option.data_length = _UINT16.unpack_from(data, offset + 20)[0]
    if length == 24:
        option.checksum = _UINT16.unpack_from(data, offset + 22)[0]
    return option


def _parse_join(data: Buffer, offset: int, length: int) -> MpJoinSyn | MpJoinSynAck | MpJoinAck:
    if length == _JOIN_SYN.size:
        _, _, first, address_id, token, nonce = _JOIN_SYN.unpack_from(data, offset)
        return MpJoinSyn(first & _BACKUP != 0, address_id, token, nonce)
    if length == _JOIN_SYN_ACK.size:
        _, _, first, address_id, truncated_hmac, nonce = _JOIN_SYN_ACK.unpack_from(data, offset)
        return MpJoinSynAck(first & _BACKUP != 0, address_id, truncated_hmac, nonce)
    return MpJoinAck(_JOIN_ACK.unpack_from(data, offset)[3])


def _parse_add_addr(data: Buffer, offset: int, length: int) -> AddAddr:
    echo = data[offset + 2] & _ECHO != 0
    address_length = 16 if length >= 20 else 4
    rest = length - 4 - address_length
    # 0 or 2 bytes: an echo, without and with port; 8 or 10: with the HMAC as well.
    if echo != (rest < 8):
        raise MalformedPacketError(f"ADD_ADDR with echo flag {int(echo)} in {length} bytes")
    position = offset + 4 + address_length
    address = bytes(data[offset + 4 : position])
    port = None
    if rest & 2:
        port = _UINT16.unpack_from(data, position)[0]
        position += 2
    hmac = None if echo else bytes(data[position : position + 8])
    return AddAddr(echo, data[offset + 3], address, port, hmac)


def _parse_remove_addr(data: Buffer, offset: int, length: int) -> RemoveAddr:
    return RemoveAddr(tuple(data[offset + 3 : offset + length]))


def _parse_prio(data: Buffer, offset: int, length: int) -> MpPrio:
    return MpPrio(data[offset + 2] & _BACKUP != 0, data[offset + 3] if length == 4 else None)


def _parse_fail(data: Buffer, offset: int, length: int) -> MpFail:
    return MpFail(_FAIL.unpack_from(data, offset)[3])


def _parse_fastclose(data: Buffer, offset: int, length: int) -> MpFastclose:
    return MpFastclose(_FASTCLOSE.unpack_from(data, offset)[3])


def _parse_tcp_rst(data: Buffer, offset: int, length: int) -> MpTcpRst:
    first = data[offset + 2]
    return MpTcpRst(data[offset + 3], first & _TRANSIENT != 0, first & _RST_OTHER_FLAGS)


_Parser = Callable[[Buffer, int, int], MptcpOption]

_FORMATS: dict[int, tuple[_Parser, frozenset[int]]] = {
    MpCapable.SUBTYPE: (_parse_capable, frozenset({4, 12, 20, 22, 24})),
    MpJoinSyn.SUBTYPE: (_parse_join, frozenset({12, 16, 24})),
    Dss.SUBTYPE: (parse_dss, frozenset(layout.size for pair in _DSS_STRUCTS for layout in pair)),
    AddAddr.SUBTYPE: (_parse_add_addr, frozenset({8, 10, 16, 18, 20, 22, 28, 30})),
    RemoveAddr.SUBTYPE: (_parse_remove_addr, frozenset(range(4, 256))),
    MpPrio.SUBTYPE: (_parse_prio, frozenset({3, 4})),
    MpFail.SUBTYPE: (_parse_fail, frozenset({12})),
    MpFastclose.SUBTYPE: (_parse_fastclose, frozenset({12})),
    MpTcpRst.SUBTYPE: (_parse_tcp_rst, frozenset({4})),
}
"""Subtype → its parser and the lengths that the parser may be called with."""


def parse_mptcp_option_at(data: Buffer, offset: int, length: int) -> MptcpOption:
    """As `parse_mptcp_option`, for the ``length`` bytes at ``offset``, which the caller knows to exist."""
    if length < 3:
        raise MalformedPacketError(f"MPTCP option of {length} bytes has no subtype")
    subtype = data[offset + 2] >> 4
    known = _FORMATS.get(subtype)
    if known is None:
        return UnknownMptcpOption(subtype, bytes(data[offset + 2 : offset + length]))
    parser, legal_lengths = known
    if length not in legal_lengths:
        raise MalformedPacketError(f"MPTCP option of subtype {subtype} in {length} bytes")
    return parser(data, offset, length)


def parse_mptcp_option(data: Buffer) -> MptcpOption:
    """One option, kind and length byte included; raises MalformedPacketError for an illegal length."""
    if len(data) < 3 or data[0] != KIND_MPTCP or data[1] != len(data):
        raise MalformedPacketError("not one whole MPTCP option")
    return parse_mptcp_option_at(data, 0, len(data))


def emit_mptcp_option(option: MptcpOption) -> bytes:
    """The option, kind and length byte included, without padding.

    Raises ConfigurationError for a value that does not fit its field.
    """
    try:
        return option.to_bytes()
    except (struct.error, ValueError) as error:
        raise ConfigurationError(f"{option}: {error}") from None


def mptcp_option_length(option: MptcpOption) -> int:
    """How many bytes `emit_mptcp_option` returns, for a valid option."""
    if isinstance(option, Dss):
        return option.layout()[1].size
    return len(emit_mptcp_option(option))
