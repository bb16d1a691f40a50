"""Network interfaces and their addresses, as the IP layer sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.addresses import format_address, is_link_local

MAC_LENGTH = 6
LINK_LOCAL_PREFIX = bytes.fromhex("fe80000000000000")
MINIMUM_MTU = 68
"""RFC 791 §3.2: every host must be able to forward 68 bytes."""
MAXIMUM_MTU = 65_535


class LinkType(Enum):
    """What a frame of the device begins with."""

    ETHERNET = auto()
    RAW_IP = auto()


@dataclass(slots=True, frozen=True)
class InterfaceAddress:
    """One address of an interface: packed bytes (4 or 16) and the length of its on-link prefix in bits."""

    address: bytes
    prefix_length: int

    def __post_init__(self) -> None:
        if len(self.address) not in (4, 16):
            raise ConfigurationError(f"an address has 4 or 16 bytes, not {len(self.address)}")
        if not 0 <= self.prefix_length <= 8 * len(self.address):
            raise ConfigurationError(
                f"prefix length {self.prefix_length} of {format_address(self.address)} is not in "
                f"0..{8 * len(self.address)}"
            )

    def contains(self, other: bytes) -> bool:
        """Whether ``other`` lies within this address's on-link prefix (False for the other family)."""
        if len(other) != len(self.address):
            return False
        return common_prefix_length(self.address, other) >= self.prefix_length


@dataclass(slots=True, eq=False)
class Interface:
    """A device's network side. ``addresses``, ``is_up`` and ``mtu`` are changed through ``IpLayer`` only."""

    index: int
    name: str
    link_type: LinkType
    mac: bytes
    mtu: int
    addresses: list[InterfaceAddress] = field(default_factory=list)
    is_up: bool = True
    checksum_offload: bool = False
    """The device completes transport checksums (accepts PARTIAL frames)."""
    gso_max_size: int = 0
    """Payload bytes of the largest super-segment that the device takes; 0: none."""
    generic_segmentation: bool = True
    """For a device that takes no super-segments IP cuts them, as Linux does where a device can gather."""

    def __post_init__(self) -> None:
        if self.link_type is LinkType.ETHERNET and not is_usable_mac(self.mac):
            raise ConfigurationError(
                f"interface {self.name}: {self.mac.hex(':')!r} is not a unicast MAC address"
            )
        if not MINIMUM_MTU <= self.mtu <= MAXIMUM_MTU:
            raise ConfigurationError(
                f"interface {self.name}: MTU {self.mtu} is not in {MINIMUM_MTU}..{MAXIMUM_MTU} bytes"
            )

    def owns(self, address: bytes) -> bool:
        """Whether ``address`` is configured on this very interface."""
        return any(own.address == address for own in self.addresses)

    def addresses_of_length(self, length: int) -> Iterator[InterfaceAddress]:
        """The addresses of one family, told by their length in bytes, in the order of configuration."""
        return (own for own in self.addresses if len(own.address) == length)

    def is_on_link(self, address: bytes) -> bool:
        """Whether an address of this interface shares its prefix with ``address``."""
        return any(own.contains(address) for own in self.addresses)

    def source_for(self, destination: bytes) -> bytes | None:
        """The address of this interface to talk to ``destination`` from.

        RFC 6724 §5 reduced to what matters here: same family, matching scope (rule 2), then the longest
        common prefix (rule 8), then the order of configuration.
        """
        scope = is_link_local(destination)
        candidates = [own.address for own in self.addresses_of_length(len(destination))]
        if not candidates:
            return None
        return max(
            candidates,
            key=lambda own: (is_link_local(own) == scope, common_prefix_length(own, destination)),
        )


def common_prefix_length(first: bytes, second: bytes) -> int:
    """Leading bits in which two addresses of one family agree."""
    difference = int.from_bytes(first, "big") ^ int.from_bytes(second, "big")
    return 8 * len(first) - difference.bit_length()


def is_usable_mac(mac: bytes) -> bool:
    """Whether ``mac`` can be one station's address: six bytes, neither a group address nor zero."""
    return len(mac) == MAC_LENGTH and not mac[0] & 1 and any(mac)


def link_local_from_mac(mac: bytes) -> bytes:
    """The fe80::/64 address with the modified EUI-64 identifier of ``mac`` (RFC 4291 appendix A)."""
    return LINK_LOCAL_PREFIX + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
