"""Echo requests of a kernel host, by raw sockets: ping(8) may not be installed."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from testbed.host.host_stack import HostStackError

_DATA = bytes(range(56))
_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, number (RFC 792, RFC 4443 §4.1)."""
_LARGEST_ANSWER = 2048
_V4_HEADER_UNIT = 4
_TYPES = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
"""Of requests and of replies."""


async def reach(address: str, timeout_us: int) -> int | None:
    """See :meth:`testbed.host.host_stack.HostStack.reach`. Raises HostStackError without a way there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    identifier = int.from_bytes(os.urandom(2), "big")
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            raw.setblocking(False)
            sent_s = loop.time()
            raw.sendto(_request(family, identifier), (address, 0))
            async with asyncio.timeout(timeout_us / 1_000_000):
                while not _answers(family, identifier, await loop.sock_recv(raw, _LARGEST_ANSWER)):
                    pass
            return round((loop.time() - sent_s) * 1_000_000)
    except TimeoutError:
        return None
    except OSError as error:
        raise HostStackError(f"{address}: {error}") from None


def _request(family: int, identifier: int) -> bytes:
    """For IPv6 the kernel fills in the checksum, which covers addresses that are not known here."""
    kind = _TYPES[socket.AddressFamily(family)][0]
    without = _HEADER.pack(kind, 0, 0, identifier, 1) + _DATA
    checksum = 0 if family == socket.AF_INET6 else ~(int.from_bytes(without, "big") % 0xFFFF) & 0xFFFF
    return _HEADER.pack(kind, 0, checksum, identifier, 1) + _DATA


def _answers(family: int, identifier: int, packet: bytes) -> bool:
    """Raw sockets get all that comes; those of IPv4 with its header."""
    if family == socket.AF_INET and packet:
        packet = packet[(packet[0] & 0xF) * _V4_HEADER_UNIT :]
    if len(packet) < _HEADER.size:
        return False
    kind, _, _, known, number = _HEADER.unpack_from(packet)
    is_ours = (kind, known, number) == (_TYPES[socket.AddressFamily(family)][1], identifier, 1)
    return is_ours and packet[_HEADER.size :] == _DATA
