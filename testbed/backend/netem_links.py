"""Links impaired by the kernel: what arrives at one half of a cut link leaves by the other through a netem.

``client —veth— near ⇄ far —veth— server``: each of the two interfaces in the middle sends what the other one
receives (act_mirred), and the netem on the sending one impairs that direction. No process is involved.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from testbed.backend import netem
from testbed.backend.impaired_links import ImpairedLink, direction_seed
from testbed.backend.link_control import BACKWARD, FORWARD, DirectionState, LinkState, directions_of
from testbed.backend.link_shaping import redirection
from testbed.backend.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    RTM_GETQDISC,
    RTM_NEWQDISC,
    NetlinkSocket,
    Request,
)
from testbed.errors import LabError, UsageError
from testbed.middlebox.settings import BoxSettings
from testbed.topology.model import Impairment, LinkEnd

NETEM: Final = "kernel's netem"
NO_SEED: Final = "this kernel's netem takes no seed (Linux 6.6 and later do)"
_TCMSG: Final = struct.Struct("=BxxxiIII")
"""``struct tcmsg``: family, interface index, handle, parent, info."""
_TC_H_ROOT: Final = 0xFFFF_FFFF
_NETEM_HANDLE: Final = 0x1_0000
_TCA_KIND: Final = 1
_TCA_OPTIONS: Final = 2
_TCA_STATS2: Final = 7
_TCA_STATS_BASIC: Final = 1
_TCA_STATS_QUEUE: Final = 3
_KIND: Final = b"netem\0"
_BASIC: Final = struct.Struct("=QI")
_QUEUE: Final = struct.Struct("=IIIII")


def netem_request(index: int, impairment: Impairment, mtu: int, purpose: str) -> Request:
    """Make or change the netem of an interface."""
    payload = _TCMSG.pack(0, index, _NETEM_HANDLE, _TC_H_ROOT, 0)
    payload += netem.attribute(_TCA_KIND, _KIND)
    payload += netem.attribute(_TCA_OPTIONS, netem.options(impairment, mtu))
    return Request(RTM_NEWQDISC, {}, purpose, flags=NLM_F_CREATE | NLM_F_REPLACE, payload=payload)


def forwarding_requests(link: ImpairedLink, indices: Mapping[LinkEnd, int]) -> list[Request]:
    """Join the two halves of a link in both directions."""
    near, far = indices[link.near], indices[link.far]
    purpose = f"join the halves of {link.name}"
    return [*redirection(near, far, purpose), *redirection(far, near, purpose)]


def impairing_requests(
    link: ImpairedLink, indices: Mapping[LinkEnd, int], lab_seed: int | None = None
) -> list[Request]:
    """The netem of both directions, each where it leaves the middle.

    A kernel that knows no seeds ignores them; what a link itself asks for was looked into before.
    """
    requests = []
    for direction, end, impairment in _asked_of(link):
        seed = impairment.seed
        if seed is None and lab_seed is not None:
            seed = direction_seed(lab_seed, link.name, direction)
        seeded = replace(impairment, seed=seed)
        requests.append(netem_request(indices[end], seeded, link.link.mtu, f"impair {link.name}"))
    return requests


def _asked_of(link: ImpairedLink) -> Sequence[tuple[str, LinkEnd, Impairment]]:
    return (FORWARD, link.far, link.link.forward), (BACKWARD, link.near, link.link.backward)


def set_up(
    links: Iterable[ImpairedLink],
    indices: Mapping[LinkEnd, int],
    netlink: NetlinkSocket,
    lab_seed: int | None = None,
) -> None:
    """Everything for these links, in their namespace; then look whether the kernel holds it.

    Raises RequestError, or LabError when the kernel holds something else.
    """
    links = list(links)
    requests: list[Request] = []
    for link in links:
        requests += forwarding_requests(link, indices) + impairing_requests(link, indices, lab_seed)
    netlink.run(requests)
    held = impairments_held(netlink)
    for link in links:
        for _direction, end, asked in _asked_of(link):
            if not is_held(asked, held.get(indices[end]), link.link.mtu):
                raise LabError(
                    f"{link.name}: asked netem for {asked}, the kernel holds {held.get(indices[end])}"
                )


def is_held(asked: Impairment, held: Impairment | None, mtu: int) -> bool:
    """Whether the kernel holds what was asked, but for the seed: without one it makes one up."""
    if held is None:
        return False
    expected = netem.impairment_held(netem.options(asked, mtu))
    return replace(held, seed=None) == replace(expected, seed=None)


def impairments_held(netlink: NetlinkSocket) -> dict[int, Impairment]:
    """What every netem of the namespace does, by interface index, as the kernel tells it."""
    return {
        index: netem.impairment_held(held[_TCA_OPTIONS])
        for index, held in _netems(netlink)
        if _TCA_OPTIONS in held
    }


def counters(netlink: NetlinkSocket) -> dict[int, dict[str, int]]:
    """What every netem of the namespace has counted: it tells drops without their reasons."""
    counted = {}
    for index, held in _netems(netlink):
        statistics = netem.attributes(held.get(_TCA_STATS2, b""))
        basic, queue = statistics.get(_TCA_STATS_BASIC, b""), statistics.get(_TCA_STATS_QUEUE, b"")
        if len(basic) >= _BASIC.size and len(queue) >= _QUEUE.size:
            octets, packets = _BASIC.unpack_from(basic)
            in_flight, _backlog, drops, _requeues, _overlimits = _QUEUE.unpack_from(queue)
            counted[index] = {
                "delivered": packets,
                "delivered_bytes": octets,
                "dropped": drops,
                "in_flight": in_flight,
            }
    return counted


def _netems(netlink: NetlinkSocket) -> Sequence[tuple[int, dict[int, bytes]]]:
    request = Request(RTM_GETQDISC, {}, "read the queueing disciplines", flags=0)
    found = []
    for payload in netlink.dump_payloads(request):
        held = netem.attributes(payload[_TCMSG.size :])
        if held.get(_TCA_KIND) == _KIND:
            found.append((_TCMSG.unpack_from(payload)[1], held))
    return found


class NetemRealiser:
    """The kernel's netem, asked by netlink."""

    def __init__(
        self,
        open_netlink: Callable[[], AbstractContextManager[NetlinkSocket]],
        indices: Mapping[LinkEnd, int],
    ) -> None:
        self._open_netlink = open_netlink
        self._indices = indices

    def state(self, impaired: ImpairedLink) -> LinkState:
        with self._open_netlink() as netlink:
            held, counted = impairments_held(netlink), counters(netlink)
        states = []
        for direction, sender, receiver in directions_of(impaired.link):
            index = self._indices[_leaves_by(impaired, direction)]
            numbers = counted.get(index, {})
            states.append(
                DirectionState(
                    sender,
                    receiver,
                    _as_asked(held.get(index, Impairment()), impaired.link.mtu),
                    NETEM,
                    numbers,
                    numbers.get("in_flight", 0),
                )
            )
        return LinkState(impaired.link, states[0], states[1])

    def put(self, impaired: ImpairedLink, wanted: Mapping[str, Impairment]) -> None:
        mtu = impaired.link.mtu
        requests = [
            netem_request(
                self._indices[_leaves_by(impaired, direction)], impairment, mtu, f"impair {impaired.name}"
            )
            for direction, impairment in wanted.items()
        ]
        with self._open_netlink() as netlink:
            is_seeded = any(impairment.seed is not None for impairment in wanted.values())
            # A kernel that knows seeds always tells one.
            if is_seeded and all(held.seed is None for held in impairments_held(netlink).values()):
                raise UsageError(f"{impaired.name}: {NO_SEED}; use '--impairments emulator'")
            netlink.run(requests)

    def put_boxes(self, impaired: ImpairedLink, boxes: Sequence[BoxSettings]) -> None:
        raise UsageError(
            f"{impaired.name}: netem is no middlebox; build the lab with '--impairments emulator'"
        )


def _leaves_by(impaired: ImpairedLink, direction: str) -> LinkEnd:
    return impaired.far if direction == FORWARD else impaired.near


def _as_asked(held: Impairment, mtu: int) -> Impairment:
    """With the limit that was asked for, as the kernel's counts what is under way too; and without the seed.

    It may be the kernel's own, and a stream of random numbers that goes on is not to begin anew.
    """
    held = replace(held, seed=None)
    if held.limit_packets is None:
        return held
    without = replace(held, limit_packets=None)
    if held.limit_packets == netem.queue_limit_packets(without, mtu):
        return without
    under_way = netem.queue_limit_packets(replace(held, limit_packets=1), mtu) - 1
    return replace(held, limit_packets=max(1, held.limit_packets - under_way))
