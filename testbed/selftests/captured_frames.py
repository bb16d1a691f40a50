"""The frames of a capture file that this project has written: for what is looked for when a run has ended."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from mptcp_stack.wire.frame import Frame

_ENHANCED_PACKET = 6
_BLOCK = struct.Struct("=II")
_PACKET = struct.Struct("=IIIII")
_SHORTEST_BLOCK_BYTES = 12


def captured_frames(path: Path) -> Iterator[Frame]:
    """Every frame, up to the first block that is not whole. Raises OSError."""
    with path.open("rb") as stream:
        while len(head := stream.read(_BLOCK.size)) == _BLOCK.size:
            kind, length = _BLOCK.unpack(head)
            body = stream.read(max(0, length - _BLOCK.size))
            if length < _SHORTEST_BLOCK_BYTES or len(body) != length - _BLOCK.size:
                return
            if kind == _ENHANCED_PACKET:
                captured = _PACKET.unpack_from(body)[3]
                yield Frame(body[_PACKET.size : _PACKET.size + captured])
