"""Waiting until the kernel has acted upon a link's carrier.

When a veth end comes up before its partner, or its partner comes back, the kernel notes the new carrier at
once, but a worker of it (linkwatch) gives the device its queue later: until then whatever is sent there is
lost silently, a bridge does not forward through the port, and IPv6 has not begun. On a busy machine that
takes long enough to lose the first packets of a test.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

from testbed.backend.netlink import INTERFACE_MESSAGE, RTM_GETLINK, NetlinkSocket, Request
from testbed.errors import LabError
from testbed.topology.model import LinkEnd

_ATTRIBUTE = struct.Struct("=HH")
_IFF_LOWER_UP = 0x10000
_IFLA_OPERSTATE = 16
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8
_OPERATES = frozenset({0, 6})
"""IF_OPER_UNKNOWN, of devices that tell no state, and IF_OPER_UP (RFC 2863)."""

_LIMIT_S = 10.0
_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class LinkState:
    """What the kernel says of one interface."""

    has_carrier: bool
    operates: bool

    @property
    def is_settled(self) -> bool:
        """Whether the kernel has acted upon the carrier as it is."""
        return self.has_carrier == self.operates


def link_state(netlink: NetlinkSocket, end: LinkEnd, index: int) -> LinkState:
    """Ask for the state. Raises RequestError.

    Since Linux 6.9 the question makes the kernel act first (``linkwatch_sync_dev`` in ``rtnl_getlink``).
    """
    payload = INTERFACE_MESSAGE.pack(0, 0, index, 0, 0)
    payload += _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, _IFLA_EXT_MASK) + struct.pack(
        "=I", _RTEXT_FILTER_SKIP_STATS
    )
    answer = netlink.ask(Request(RTM_GETLINK, {}, f"ask for the state of {end}", flags=0, payload=payload))
    _family, _kind, _index, flags, _change = INTERFACE_MESSAGE.unpack_from(answer)
    operational_state = _attribute(answer, _IFLA_OPERSTATE)[:1] or b"\0"
    return LinkState(bool(flags & _IFF_LOWER_UP), operational_state[0] in _OPERATES)


def await_settled(netlink: NetlinkSocket, end: LinkEnd, index: int) -> None:
    """Return when the interface works if it has a carrier, and has stopped if it has none.

    Raises LabError when that takes too long, RequestError.
    """
    deadline = time.monotonic() + _LIMIT_S
    while not link_state(netlink, end, index).is_settled:
        if time.monotonic() > deadline:
            raise LabError(
                f"{end} is not ready {_LIMIT_S:.0f} s after it was set up; is the machine too busy?"
            )
        time.sleep(_PAUSE_S)


def _attribute(answer: bytes, wanted: int) -> bytes:
    """The value of the first attribute of that kind, b"" without it."""
    offset = INTERFACE_MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == wanted:
            return answer[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return b""
