"""TCP options (RFC 9293 §3.1) and those of RFC 2018, 2385, 7323, 7413 and 8684.

Emission keeps the order and the padding of Linux, so that a middlebox or a capture sees nothing unusual.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError, MalformedPacketError
from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.mptcp_options import (
    KIND_MPTCP,
    Dss,
    MptcpOption,
    emit_mptcp_option,
    mptcp_option_length,
    parse_dss,
    parse_mptcp_option_at,
)

MAXIMUM_OPTIONS_LENGTH = 40

_KIND_END = 0
_KIND_NO_OPERATION = 1
_KIND_MAXIMUM_SEGMENT_SIZE = 2
_KIND_WINDOW_SCALE = 3
_KIND_SACK_PERMITTED = 4
_KIND_SACK = 5
_KIND_TIMESTAMPS = 8
_KIND_MD5_SIGNATURE = 19
_KIND_FAST_OPEN = 34

_UINT16 = struct.Struct("!H")
_TWO_UINT32 = struct.Struct("!II")
_THREE_UINT32 = struct.Struct("!III")
_ALIGNED_TIMESTAMPS = 0x0101080A
"""NOP, NOP and the head of the timestamps option: how nearly every segment's options begin."""
_DSS_MARKER = Dss.SUBTYPE << 4

_PADDING = (b"", b"\x01\x01\x01", b"\x01\x01", b"\x01")
"""By the length modulo 4: the NOPs that are missing to the next multiple of 4."""


@dataclass(slots=True)
class TcpOptions:
    """The options of one segment.

    Numbers are as on the wire: a window scale above 14 (RFC 7323 §2.3) is for the receiver to judge. SACK
    blocks are (left edge, right edge). ``fast_open_cookie`` is empty in a request for a cookie. ``unknown``
    holds (kind, body) of every other option, in order. ``malformed_mptcp`` counts MPTCP options that were
    skipped because no legal option has that length.
    """

    maximum_segment_size: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamp_value: int | None = None
    timestamp_echo: int = 0
    sack_blocks: tuple[tuple[int, int], ...] = ()
    fast_open_cookie: bytes | None = None
    md5_signature: bytes | None = None
    mptcp: tuple[MptcpOption, ...] = ()
    unknown: tuple[tuple[int, bytes], ...] = ()
    malformed_mptcp: int = 0


NO_OPTIONS = TcpOptions()
"""Shared by all segments without options: never to be changed."""


def _parse_maximum_segment_size(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length == 4:
        # Linux takes no notice of a zero either.
        options.maximum_segment_size = _UINT16.unpack_from(data, offset + 2)[0] or None


def _parse_window_scale(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length == 3:
        options.window_scale = data[offset + 2]


def _parse_sack_permitted(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length == 2:
        options.sack_permitted = True


def _parse_sack(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length >= 10 and length & 7 == 2:
        options.sack_blocks = tuple(_TWO_UINT32.iter_unpack(data[offset + 2 : offset + length]))


def _parse_timestamps(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length == 10:
        options.timestamp_value, options.timestamp_echo = _TWO_UINT32.unpack_from(data, offset + 2)


def _parse_md5_signature(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    if length == 18:
        options.md5_signature = bytes(data[offset + 2 : offset + 18])


def _parse_fast_open(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    # RFC 7413 §4.1.1: no cookie, or one of 4 to 16 bytes in steps of 2.
    if length == 2 or (6 <= length <= 18 and not length & 1):
        options.fast_open_cookie = bytes(data[offset + 2 : offset + length])


def _parse_mptcp(options: TcpOptions, data: Buffer, offset: int, length: int) -> None:
    try:
        options.mptcp += (parse_mptcp_option_at(data, offset, length),)
    except MalformedPacketError:
        options.malformed_mptcp += 1


_PARSERS: dict[int, Callable[[TcpOptions, Buffer, int, int], None]] = {
    _KIND_MAXIMUM_SEGMENT_SIZE: _parse_maximum_segment_size,
    _KIND_WINDOW_SCALE: _parse_window_scale,
    _KIND_SACK_PERMITTED: _parse_sack_permitted,
    _KIND_SACK: _parse_sack,
    _KIND_TIMESTAMPS: _parse_timestamps,
    _KIND_MD5_SIGNATURE: _parse_md5_signature,
    _KIND_FAST_OPEN: _parse_fast_open,
    KIND_MPTCP: _parse_mptcp,
}


def parse_options(data: Buffer) -> TcpOptions:
    """The options in ``data``, which holds nothing else.

    Raises MalformedPacketError where a length byte is missing, less than 2 or points beyond the end. As in
    Linux an option of known kind in a wrong length is ignored, and of several of one kind the last counts
    (MPTCP options are all kept).
    """
    if not data:
        return NO_OPTIONS
    if len(data) >= 12:
        head, value, echo = _THREE_UINT32.unpack_from(data, 0)
        if head == _ALIGNED_TIMESTAMPS:
            options = TcpOptions(None, None, False, value, echo)
            return options if len(data) == 12 else _parse_after_timestamps(options, data)
    options = TcpOptions()
    _parse_list(options, data, 0)
    return options


def _parse_after_timestamps(options: TcpOptions, data: Buffer) -> TcpOptions:
    """A shortcut for the options of nearly every MPTCP segment: timestamps, then one DSS to the end."""
    length = data[13] if len(data) >= 16 else 0
    if (
        data[12] == KIND_MPTCP
        and length >= 4
        and data[14] >> 4 == Dss.SUBTYPE
        and len(data) == 12 + length + (-length & 3)
        and bytes(data[12 + length :]) == _PADDING[length & 3]
    ):
        try:
            options.mptcp = (parse_dss(data, 12, length),)
        except MalformedPacketError:
            options.malformed_mptcp = 1
    else:
        _parse_list(options, data, 12)
    return options


def _parse_list(options: TcpOptions, data: Buffer, offset: int) -> None:
    end = len(data)
    while offset < end:
        kind = data[offset]
        if kind == _KIND_NO_OPERATION:
            offset += 1
            continue
        if kind == _KIND_END:
            return
        length = data[offset + 1] if offset + 1 < end else 0
        if length < 2 or offset + length > end:
            raise MalformedPacketError(f"TCP option of kind {kind} has an impossible length")
        parser = _PARSERS.get(kind)
        if parser is not None:
            parser(options, data, offset, length)
        else:
            options.unknown += ((kind, bytes(data[offset + 2 : offset + length])),)
        offset += length


def emit_options(options: TcpOptions) -> bytes:
    """The options, padded with NOPs to a multiple of 4 bytes.

    Raises ConfigurationError for a value that does not fit its field or options that do not fit a header.
    """
    if options is NO_OPTIONS:
        return b""
    try:
        is_handshake = options.maximum_segment_size is not None or options.md5_signature is not None
        parts = _emit_handshake_options(options) if is_handshake else []
        if options.timestamp_value is not None:
            parts.append(_emit_timestamps(options))
        elif options.sack_permitted:
            parts.append(b"\x01\x01\x04\x02")
        if options.window_scale is not None:
            parts.append(bytes((1, _KIND_WINDOW_SCALE, 3, options.window_scale)))
        if options.sack_blocks:
            parts.append(_emit_sack(options.sack_blocks))
        if options.fast_open_cookie is not None or options.unknown:
            parts += _emit_rare_options(options)
    except (struct.error, ValueError) as error:
        raise ConfigurationError(f"{options}: {error}") from None
    for option in options.mptcp:
        encoded = emit_mptcp_option(option)
        parts.append(encoded + _PADDING[len(encoded) & 3])
    emitted = b"".join(parts)
    if len(emitted) > MAXIMUM_OPTIONS_LENGTH:
        raise ConfigurationError(f"{len(emitted)} bytes of TCP options, more than {MAXIMUM_OPTIONS_LENGTH}")
    return emitted


def _emit_handshake_options(options: TcpOptions) -> list[bytes]:
    parts = []
    if options.md5_signature is not None:
        if len(options.md5_signature) != 16:
            raise ConfigurationError("an MD5 signature has 16 bytes")
        parts.append(bytes((1, 1, _KIND_MD5_SIGNATURE, 18)) + options.md5_signature)
    if options.maximum_segment_size is not None:
        parts.append(bytes((_KIND_MAXIMUM_SEGMENT_SIZE, 4)) + _UINT16.pack(options.maximum_segment_size))
    return parts


def _emit_timestamps(options: TcpOptions) -> bytes:
    # In a SYN the permission for SACK takes the place of the two NOPs.
    head = 0x0402080A if options.sack_permitted else _ALIGNED_TIMESTAMPS
    return _THREE_UINT32.pack(head, options.timestamp_value, options.timestamp_echo)


def _emit_sack(blocks: tuple[tuple[int, int], ...]) -> bytes:
    parts = [bytes((1, 1, _KIND_SACK, 2 + 8 * len(blocks)))]
    parts += [_TWO_UINT32.pack(left, right) for left, right in blocks]
    return b"".join(parts)


def _emit_rare_options(options: TcpOptions) -> list[bytes]:
    bodies = list(options.unknown)
    if options.fast_open_cookie is not None:
        bodies.insert(0, (_KIND_FAST_OPEN, options.fast_open_cookie))
    parts = []
    for kind, body in bodies:
        if kind in (_KIND_END, _KIND_NO_OPERATION):
            raise ConfigurationError(f"TCP option kind {kind} has no body")
        length = 2 + len(body)
        parts.append(bytes((kind, length)) + body + _PADDING[length & 3])
    return parts


def options_length(options: TcpOptions) -> int:
    """How many bytes `emit_options` returns, padding included, for options that fit a header."""
    length = 0
    length += 4 * (options.maximum_segment_size is not None) + 20 * (options.md5_signature is not None)
    if options.timestamp_value is not None:
        length += 12
    elif options.sack_permitted:
        length += 4
    if options.window_scale is not None:
        length += 4
    if options.sack_blocks:
        length += 4 + 8 * len(options.sack_blocks)
    if options.fast_open_cookie is not None:
        length += _padded(2 + len(options.fast_open_cookie))
    for _, body in options.unknown:
        length += _padded(2 + len(body))
    for option in options.mptcp:
        length += _padded(mptcp_option_length(option))
    return length


def _padded(length: int) -> int:
    return (length + 3) & ~3
