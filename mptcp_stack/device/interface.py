"""What every network device offers to the run loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mptcp_stack.wire.frame import Frame

LARGEST_GSO_PAYLOAD = 65_535 - 20 - 60
"""What an IPv4 packet of the largest length holds behind the longest TCP header."""


class LinkLayer(Enum):
    """What a device's frames begin with."""

    ETHERNET = "ethernet"
    RAW_IP = "raw_ip"

    @property
    def header_length(self) -> int:
        """Bytes in front of the IP header."""
        return 14 if self is LinkLayer.ETHERNET else 0


@dataclass(slots=True)
class DeviceCounters:
    """What a device has carried and what it could not carry."""

    received_frames: int = 0
    received_bytes: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    receive_errors: int = 0
    """Frames with an impossible offload header, or longer than any frame may be."""
    send_errors: int = 0
    """Frames that the kernel refused for good: link down, too long, no such device."""


class Device(Protocol):
    """A network device; opened already, non-blocking, closed once."""

    @property
    def counters(self) -> DeviceCounters: ...

    @property
    def name(self) -> str: ...

    @property
    def mac(self) -> bytes:
        """6 bytes, or empty on a device without a link layer."""
        ...

    @property
    def mtu(self) -> int:
        """Largest IP packet in bytes, super-segments aside."""
        ...

    @property
    def link_layer(self) -> LinkLayer: ...

    @property
    def checksum_offload(self) -> bool:
        """Whether frames may be handed over with ``ChecksumState.PARTIAL``."""
        ...

    @property
    def gso_max_size(self) -> int:
        """Payload bytes of the largest super-segment; 0 where there are none."""
        ...

    def fileno(self) -> int:
        """The descriptor that becomes readable and writable."""
        ...

    def receive(self, limit: int) -> list[Frame]:
        """Up to ``limit`` frames that are there now, each owning its bytes.

        Raises DeviceError when the device is gone for good.
        """
        ...

    def transmit(self, frames: Sequence[Frame]) -> int:
        """Hand over frames in order and return how many are done with.

        Fewer than all: the device is full, offer the rest again when the descriptor is writable. A frame
        that can never be sent counts as done with, and in ``counters.send_errors``.
        """
        ...

    def close(self) -> None: ...
