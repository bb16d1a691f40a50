"""The MD5 signature of a segment (RFC 2385): made for what a script sends, checked in what comes."""

from __future__ import annotations

import hashlib
import struct

from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.stack_under_test import Value
from testbed.packetdrill.syntax import Computed, Md5Signature, TcpPart
from testbed.packetdrill.wire_packet import KIND_MD5_SIGNATURE, TCP_HEADER, WireTcp, read_tcp

OPTION_NUMBER = 14
"""TCP_MD5SIG."""
_PROTOCOL_TCP = 6
_DIGEST_BYTES = 16


def key_of_call(name: str, arguments: list[Value]) -> bytes | None:
    """The key that ``setsockopt(…, TCP_MD5SIG, {tcpm_key="…"}, …)`` sets; None for any other call."""
    if name != "setsockopt" or len(arguments) < 4 or arguments[1:3] != [_PROTOCOL_TCP, OPTION_NUMBER]:
        return None
    value = arguments[3]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    key = value.get("tcpm_key") if isinstance(value, dict) else None
    return key if isinstance(key, bytes) else None


def digest(source: bytes, destination: bytes, tcp: WireTcp, key: bytes) -> bytes:
    """RFC 2385 §2.0: over the pseudo-header, the header without options and checksum, the data, the key."""
    header_bytes = TCP_HEADER.size + len(tcp.option_bytes)
    length = header_bytes + len(tcp.payload)
    if len(source) == 4:
        pseudo_header = source + destination + struct.pack("!BBH", 0, _PROTOCOL_TCP, length)
    else:
        pseudo_header = source + destination + struct.pack("!IxxxB", length, _PROTOCOL_TCP)
    header = TCP_HEADER.pack(
        tcp.source_port,
        tcp.destination_port,
        tcp.sequence,
        tcp.acknowledgement,
        header_bytes << 2,
        tcp.flags,
        tcp.window,
        0,
        tcp.urgent_pointer,
    )
    return hashlib.md5(pseudo_header + header + tcp.payload + key, usedforsecurity=False).digest()


def sign(part: TcpPart, segment: bytes, source: bytes, destination: bytes, key: bytes | None) -> bytes:
    """The segment with the right signature where the script has one without its value.

    Without a key ``md5`` stays zeros. Raises PacketError for ``md5 auto`` without a key.
    """
    written = [option for option in part.options or () if isinstance(option, Md5Signature)]
    if not written or isinstance(written[0].digest, bytes):
        return segment
    if key is None:
        if written[0].digest is None:
            return segment
        raise PacketError("md5 auto: there is no key yet, no setsockopt() with TCP_MD5SIG was before")
    tcp = read_tcp(segment)
    offset = TCP_HEADER.size
    for option in tcp.options:
        if option.kind == KIND_MD5_SIGNATURE:
            break
        offset += len(option.data)
    value = digest(source, destination, tcp, key)
    return segment[: offset + 2] + value + segment[offset + 2 + _DIGEST_BYTES :]


def is_demanded(part: TcpPart) -> bool:
    """Whether the packet must have the right signature."""
    return any(
        isinstance(option, Md5Signature) and option.digest is Computed.AUTO for option in part.options or ()
    )


def signature_of(tcp: WireTcp) -> bytes | None:
    """The signature that a segment carries."""
    return next((option.data[2:] for option in tcp.options if option.kind == KIND_MD5_SIGNATURE), None)
