"""The box that makes an MTU a black hole: ICMP errors end there, and nothing else does."""

from __future__ import annotations

import pytest

from mptcp_stack.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, emit_ethernet
from mptcp_stack.wire.ip_packet import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    emit_ipv4_header,
    emit_ipv6_header,
)
from testbed.middlebox.chain import Middlebox
from testbed.middlebox.settings import BACKWARD, BOTH, DropIcmpErrors

V4, V6 = bytes(range(4)), bytes(range(16))


def frame(family: int, kind: int, protocol: int | None = None) -> bytes:
    message = bytes((kind, 0)) + bytes(30)
    if family == 4:
        used = protocol or PROTOCOL_ICMP
        packet = bytes(emit_ipv4_header(V4, V4, used, len(message), identification=0)) + message
    else:
        packet = bytes(emit_ipv6_header(V6, V6, protocol or PROTOCOL_ICMPV6, len(message))) + message
    ether_type = ETHERTYPE_IPV4 if family == 4 else ETHERTYPE_IPV6
    return bytes(emit_ethernet(EthernetHeader(bytes(6), bytes(6), ether_type))) + packet


@pytest.mark.parametrize(("family", "kind"), [(4, 3), (4, 11), (6, 1), (6, 2), (6, 3)])
def test_errors_end_here(family: int, kind: int) -> None:
    box = Middlebox((DropIcmpErrors(),), seed=1)
    assert box.forward(frame(family, kind)) == box.backward(frame(family, kind)) == []


@pytest.mark.parametrize(
    "passing",
    [
        frame(4, 8),
        frame(6, 128),
        frame(6, 135),
        frame(6, 136),
        frame(4, 3, protocol=17),
        frame(6, 2, protocol=17),
        frame(4, 3)[:20],
        frame(6, 2)[:54],
        bytes(12) + b"\x08\x06" + bytes(28),
        b"",
    ],
)
def test_all_else_passes(passing: bytes) -> None:
    """Echoes, neighbour discovery, other protocols, ARP, and what is too short to be anything."""
    assert Middlebox((DropIcmpErrors(),), seed=1).forward(passing) == [passing]


def test_it_acts_in_its_direction() -> None:
    error = frame(4, 3)
    box = Middlebox((DropIcmpErrors(direction=BACKWARD),), seed=1)
    assert box.forward(error) == [error]
    assert box.backward(error) == []
    assert DropIcmpErrors().direction == BOTH
