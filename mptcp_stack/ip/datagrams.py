"""What the IP layer hands upward."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from mptcp_stack.errors import StackError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.wire.frame import View


class DroppedPacketError(StackError):
    """Ends the handling of a received packet; never leaves the IP layer, which counts it under ``reason``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Datagram:
    """A transport segment for this host. ``payload``, from the transport header on, is a view, no copy."""

    source: bytes
    destination: bytes
    protocol: int
    payload: View
    interface: Interface
    traffic_class: int = 0
    """DSCP and ECN."""
    gso_size: int = 0
    """Payload bytes of each segment that was merged into this one; 0 if none was."""


class IcmpErrorKind(Enum):
    """What a router, the peer's host or our own neighbour resolution reports."""

    HOST_UNREACHABLE = auto()
    NETWORK_UNREACHABLE = auto()
    PROTOCOL_UNREACHABLE = auto()
    PORT_UNREACHABLE = auto()
    SOURCE_ROUTE_FAILED = auto()
    NETWORK_REFUSED = auto()
    """Unknown, prohibited, or not for this type of service."""
    HOST_UNKNOWN = auto()
    HOST_ISOLATED = auto()
    HOST_REFUSED = auto()
    """Prohibited, filtered, or not for this type of service or precedence."""
    ACCESS_DENIED = auto()
    """By the policy of IPv6 routers."""
    PARAMETER_PROBLEM = auto()
    PACKET_TOO_BIG = auto()
    TIME_EXCEEDED = auto()


@dataclass(slots=True)
class IcmpError:
    """An error about a packet that we have sent. Anybody can forge one: check ``transport`` first."""

    source: bytes
    """Of the quoted packet: an address of ours."""
    destination: bytes
    """Of the quoted packet: the peer."""
    protocol: int
    transport: View
    """The quoted packet from its transport header on, at least eight bytes."""
    kind: IcmpErrorKind
    mtu: int | None
    """With PACKET_TOO_BIG the bytes of the largest IP packet that fits; 0 if the router did not say."""
    icmp_source: bytes
    """Who reports; one of our own addresses for what this host found out itself."""
