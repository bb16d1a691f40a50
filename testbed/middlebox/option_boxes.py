"""Boxes that look at the options of MPTCP, one segment at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mptcp_stack.wire.mptcp_options import KIND_MPTCP
from testbed.middlebox.segment import ACK, MAXIMUM_OPTIONS_BYTES, NO_OPERATION, SYN, Segment
from testbed.middlebox.settings import SUBTYPES, DropMptcpSyns, DuplicateOptions, Strip

_MP_CAPABLE, _MP_JOIN = 0, 1
_HANDSHAKE: Final = frozenset({_MP_CAPABLE, _MP_JOIN})


def packet_kind(segment: Segment) -> str:
    """One of :data:`testbed.middlebox.settings.PACKET_KINDS`.

    The third ACK is told by its option, which the client repeats until it hears from the server, with its
    first data if it has any (RFC 8684 §3.1).
    """
    if segment.flags & SYN:
        return "syn_ack" if segment.flags & ACK else "syn"
    if not _HANDSHAKE.isdisjoint(segment.mptcp_subtypes()):
        return "third_ack"
    return "data" if segment.payload else "ack"


def _numbers(subtypes: Iterable[str]) -> frozenset[int]:
    return frozenset(map(SUBTYPES.index, subtypes))


class StripBox:
    """See :class:`testbed.middlebox.settings.Strip`."""

    def __init__(self, settings: Strip) -> None:
        self._subtypes = _numbers(settings.subtypes)
        self._strips_all = self._subtypes == _numbers(SUBTYPES)
        self._packets = frozenset(settings.packets)

    def pass_with(self, segment: Segment) -> list[Segment]:
        if packet_kind(segment) not in self._packets:
            return [segment]
        options = bytearray(segment.options)
        for kind, start, end in segment.each_option():
            if kind == KIND_MPTCP and (self._strips_all or options[start + 2] >> 4 in self._subtypes):
                options[start:end] = NO_OPERATION * (end - start)
        return [segment if options == segment.options else replace(segment, options=bytes(options))]

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]


class DropMptcpSynsBox:
    """See :class:`testbed.middlebox.settings.DropMptcpSyns`."""

    def __init__(self, settings: DropMptcpSyns) -> None:
        self._subtypes = _numbers(settings.subtypes)

    def pass_with(self, segment: Segment) -> list[Segment]:
        is_hit = segment.opens_connection and not self._subtypes.isdisjoint(segment.mptcp_subtypes())
        return [] if is_hit else [segment]

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]


class DuplicateOptionsBox:
    """See :class:`testbed.middlebox.settings.DuplicateOptions`."""

    def __init__(self, settings: DuplicateOptions) -> None:
        self._subtypes = _numbers(settings.subtypes)

    def pass_with(self, segment: Segment) -> list[Segment]:
        options = copied = segment.options
        for kind, start, end in segment.each_option():
            if kind == KIND_MPTCP and options[start + 2] >> 4 in self._subtypes:
                copied = options[start:end] + copied
        if len(copied) > MAXIMUM_OPTIONS_BYTES or copied is options:
            return [segment]
        return [replace(segment, options=copied)]

    def pass_against(self, segment: Segment) -> list[Segment]:
        return [segment]
