"""Packets of a script ↔ IP packets: all that an engine needs.

`build` makes what goes into the stack, `match` judges what came out, `describe` says any packet in the
language; `split` and `merge` are for data that the stack packs differently from the script.
"""

from __future__ import annotations

from testbed.packetdrill.bindings import Bindings, Connection, ConnectionSide, Subflow, SubflowSide
from testbed.packetdrill.option_matching import Mismatch
from testbed.packetdrill.packet_building import build
from testbed.packetdrill.packet_description import describe, describe_as_text
from testbed.packetdrill.packet_matching import match, unaligned_bytes
from testbed.packetdrill.segmentation import merge, payload_length, split

__all__ = [
    "Bindings",
    "Connection",
    "ConnectionSide",
    "Mismatch",
    "Subflow",
    "SubflowSide",
    "build",
    "describe",
    "describe_as_text",
    "match",
    "merge",
    "payload_length",
    "split",
    "unaligned_bytes",
]
