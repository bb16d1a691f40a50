"""Boxes that meddle with a connection's byte stream, each with a book of its own on sequence numbers."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from testbed.middlebox.flows import FlowTable
from testbed.middlebox.segment import ACK, RST, SYN, Segment, cut
from testbed.middlebox.settings import Firewall, RandomiseSequence, Reset, Rewrite, Split

_KIND_SACK: Final = 5
_TWO_UINT32 = struct.Struct("!II")
_INSERTED = b"*"


class SplitBox:
    """See :class:`testbed.middlebox.settings.Split`. Data in a SYN stays whole."""

    def __init__(self, settings: Split) -> None:
        self._payload_bytes = settings.payload_bytes

    def pass_with(self, segment: Segment) -> list[Segment]:
        return [segment] if segment.flags & SYN else cut(segment, self._payload_bytes)

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]


class RandomiseSequenceBox:
    """See :class:`testbed.middlebox.settings.RandomiseSequence`. Needs no table: the flow says the number."""

    def __init__(self, settings: RandomiseSequence, seed: int) -> None:
        self._key = f"{seed}{settings.direction}".encode()[:64]

    def _added(self, flow: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(flow, digest_size=4, key=self._key).digest(), "big")

    def pass_with(self, segment: Segment) -> list[Segment]:
        return [replace(segment, sequence=segment.sequence + self._added(segment.flow) & 0xFFFF_FFFF)]

    def pass_against(self, segment: Segment) -> list[Segment]:
        if not segment.flags & ACK:
            return [segment]
        added = self._added(segment.opposite_flow)
        changed = replace(
            segment,
            acknowledgment=segment.acknowledgment - added & 0xFFFF_FFFF,
            options=_with_sack(segment, lambda edge: edge - added & 0xFFFF_FFFF),
        )
        return [changed]


def _with_sack(segment: Segment, change: Callable[[int], int]) -> bytes:
    """The options with every edge of a SACK block changed."""
    options = segment.options
    for kind, start, end in segment.each_option():
        if kind == _KIND_SACK and (end - start) % 8 == 2:
            blocks = _TWO_UINT32.iter_unpack(options[start + 2 : end])
            edges = b"".join(_TWO_UINT32.pack(change(left), change(right)) for left, right in blocks)
            options = options[: start + 2] + edges + options[end:]
    return options


class RewriteBox:
    """See :class:`testbed.middlebox.settings.Rewrite`.

    What it does depends on the place in the stream alone, so that data sent again is changed again.
    """

    def __init__(self, settings: Rewrite) -> None:
        self._place = settings.after_bytes
        self._inserted = _INSERTED * max(settings.grow_by, 0)
        self._removed_bytes = max(-settings.grow_by, 0)
        self._grow_by = settings.grow_by
        self._flows = FlowTable()

    def _forth(self, position: int) -> int:
        """From the sender's count to the receiver's."""
        if position <= self._place:
            return position
        return max(position + self._grow_by, self._place)

    def _back(self, position: int) -> int:
        if position <= self._place:
            return position
        return max(position - self._grow_by, self._place)

    def pass_with(self, segment: Segment) -> list[Segment]:
        if segment.flags & SYN:
            self._flows.open(segment)
            return [segment]
        stream = self._flows.find(segment.flow)
        if stream is None:
            return [segment]
        position = stream.position(segment.sequence)
        payload = self._rewritten(segment.payload, self._place - position)
        sequence = stream.sequence(self._forth(position))
        if payload is segment.payload and sequence == segment.sequence:
            return [segment]
        changed = replace(segment, sequence=sequence, payload=payload)
        # What has grown may no longer fit into one packet.
        return cut(changed, len(segment.payload)) if segment.payload else [changed]

    def _rewritten(self, payload: bytes, offset: int) -> bytes:
        """``offset``: of the place, from where the payload begins; it may be outside."""
        if offset >= len(payload) or offset + max(self._removed_bytes, 1) <= 0:
            return payload
        if self._removed_bytes:
            return payload[: max(offset, 0)] + payload[max(offset + self._removed_bytes, 0) :]
        if self._inserted:
            return payload[:offset] + self._inserted + payload[offset:]
        return payload[:offset] + bytes((payload[offset] ^ 0x20,)) + payload[offset + 1 :]

    def pass_against(self, segment: Segment) -> list[Segment]:
        stream = self._flows.find(segment.opposite_flow) if self._grow_by else None
        if stream is None or not segment.flags & ACK or segment.flags & SYN:
            return [segment]

        def back(number: int) -> int:
            # In the receiver's count, which is ahead of the sender's by what was inserted.
            return stream.sequence(self._back(stream.position(number)))

        return [
            replace(
                segment,
                acknowledgment=back(segment.acknowledgment),
                options=_with_sack(segment, back),
            )
        ]


class ResetBox:
    """See :class:`testbed.middlebox.settings.Reset`."""

    def __init__(self, settings: Reset) -> None:
        self._after_bytes = settings.after_bytes
        self._armed = FlowTable()

    def pass_with(self, segment: Segment) -> list[Segment]:
        if segment.flags & SYN:
            self._armed.open(segment)
            return [segment]
        stream = self._armed.find(segment.flow)
        if stream is None or not segment.payload:
            return [segment]
        if stream.position(segment.sequence) + len(segment.payload) < self._after_bytes:
            return [segment]
        self._armed.forget(segment.flow)
        end = segment.sequence + len(segment.payload) & 0xFFFF_FFFF
        return [segment, replace(segment, sequence=end, flags=RST | ACK, options=b"", payload=b"")]

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]


class FirewallBox:
    """See :class:`testbed.middlebox.settings.Firewall`. Knows each connection by the stream of its opener."""

    def __init__(self, settings: Firewall) -> None:
        self._connections = FlowTable()

    def pass_with(self, segment: Segment) -> list[Segment]:
        if segment.opens_connection:
            self._connections.open(segment)
        return [segment] if self._connections.find(segment.flow) is not None else []

    def pass_against(self, segment: Segment) -> list[Segment]:
        is_known = self._connections.find(segment.opposite_flow) is not None
        return [segment] if is_known and not segment.opens_connection else []
