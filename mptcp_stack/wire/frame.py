"""The unit that crosses a device: a frame with its offload metadata.

A frame may be a super-segment: one TCP header and up to 64 KB of payload that a real wire would carry as
many segments of ``gso_size`` bytes each (as the virtio-net header describes it).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

Buffer = bytes | bytearray | memoryview
View = memoryview
"""A part of a frame; under a name of this module, as mypyc looks for the types of fields among those only."""


class ChecksumState(Enum):
    """What is known of the transport checksum."""

    UNVERIFIED = auto()
    """The checksum field holds a full checksum that the receiver has to verify."""
    PARTIAL = auto()
    """The field holds the pseudo-header sum only: the bytes were never on a wire and count as good."""
    VERIFIED = auto()
    """The device has verified it."""


@dataclass(slots=True)
class Frame:
    """One frame, sent or received.

    ``head`` begins with the link-layer header (or with the IP header on a device without one). A sender puts
    the payload in ``payload`` so that nothing is copied; a receiver finds everything in ``head``.
    """

    head: Buffer
    payload: tuple[Buffer, ...] = ()
    gso_size: int = 0
    """Payload bytes of each segment of a super-segment; 0 for an ordinary frame."""
    checksum: ChecksumState = ChecksumState.UNVERIFIED
    transport_offset: int = 0
    """Where the transport header starts within the frame; needed when ``checksum`` is PARTIAL."""
    checksum_offset: int = 16
    """Where the checksum field lies within the transport header (TCP: 16)."""
    is_ipv6: bool = False
    """Which kind of segmentation a super-segment needs."""

    def to_bytes(self) -> bytes:
        """The whole frame as one buffer."""
        return b"".join((self.head, *self.payload)) if self.payload else bytes(self.head)

    def __len__(self) -> int:
        return len(self.head) + sum(len(part) for part in self.payload)
