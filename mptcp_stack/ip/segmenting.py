"""Cuts a super-segment into the packets of a link that takes none, as Linux's software GSO does.

All layers above handle many segments at once, whatever the device can do: the work is done once for all of
them but what differs from packet to packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from mptcp_stack.wire.frame import Buffer
from mptcp_stack.wire.tcp_segment import CWR, FIN, PSH

_SEQUENCE_OFFSET = 4
_FLAGS_OFFSET = 13
_UINT32 = Struct("!I")


def cut(
    head: bytearray, payload: tuple[Buffer, ...], segment_bytes: int
) -> Iterator[tuple[bytearray, memoryview]]:
    """Each segment's TCP header, without a checksum, and its payload.

    PSH and FIN stay on the last segment only, CWR on the first, as in Linux's tcp_gso_segment.
    """
    data = memoryview(payload[0] if len(payload) == 1 else b"".join(payload))
    (sequence,) = _UINT32.unpack_from(head, _SEQUENCE_OFFSET)
    flags = head[_FLAGS_OFFSET]
    for start in range(0, len(data), segment_bytes):
        segment = bytearray(head)
        _UINT32.pack_into(segment, _SEQUENCE_OFFSET, (sequence + start) & 0xFFFFFFFF)
        is_last = start + segment_bytes >= len(data)
        flags_here = flags if is_last else flags & ~(PSH | FIN)
        segment[_FLAGS_OFFSET] = flags_here & ~CWR if start else flags_here
        yield segment, data[start : start + segment_bytes]
