"""The ``rate`` of a link by the kernel's token bucket (tbf), and what the kernel made of it.

A rate belongs in the middle of a path: a queue on the sending host would distort the sender's own pacing and
its limits on queued data. So the bucket is

* where a router or a switch sends into the link: at that end;
* where a host sends to a router or a switch: at the receiving end, on an intermediate device (ifb) to which
  the arriving packets are redirected before the receiver takes them in;
* where a host sends to a host, or the kernel cannot redirect: at the sending host's end.

:class:`Shaper` says which it was.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import cls_u32

from testbed.backend.links import BRIDGE_INDEX, LinkPlan
from testbed.backend.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    RTM_DELLINK,
    RTM_DELQDISC,
    RTM_GETQDISC,
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    NetlinkSocket,
    Request,
    RequestError,
)
from testbed.errors import CapabilityError, LabError
from testbed.topology.model import Link, LinkEnd, NodeKind

_TC_H_ROOT = 0xFFFF_FFFF
_TC_H_INGRESS = 0xFFFF_FFF1
_INGRESS_HANDLE = 0xFFFF_0000
_BUCKET_HANDLE = 0x1_0000
_TICKS_PER_SECOND = 1_000_000_000 // 64
_LINKLAYER_ETHERNET = 1
_ETHERNET_HEADER_BYTES = 14
_IFF_UP = 0x1
_ETH_P_ALL = 0x0003

_QUEUES_PER_SECOND = 20
_TIMER_HZ = 250
_HIGHEST_RATE_BIT_S = 8 * 0xFFFF_FFFF
_LOWEST_RATE_BIT_S = 8
_MISSING_FEATURE = {errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV}


class ShaperPlace(StrEnum):
    """Where a rate is enforced."""

    SENDER_IN_THE_MIDDLE = "sending router or switch"
    RECEIVER_IN_THE_MIDDLE = "receiving router or switch"
    SENDING_HOST = "sending host"


@dataclass(frozen=True, slots=True)
class Shaper:
    """One direction of one link with a rate. ``device`` is the interface index that carries the bucket."""

    sender: LinkEnd
    receiver: LinkEnd
    place: ShaperPlace
    node: str
    """In whose namespace the bucket is."""
    device: int
    rate_bit_s: int
    mtu: int

    @property
    def burst_bytes(self) -> int:
        """What may pass at once: what arrives between two ticks of a slow timer, some packets at least.

        About 10 packets where that is not more than 10 ms of the rate; never less than two packets, because
        a packet larger than the bucket never passes.
        """
        packet_bytes = self.mtu + _ETHERNET_HEADER_BYTES
        rate_byte_s = self.rate_bit_s // 8
        some_packets = min(10 * packet_bytes, rate_byte_s // 100)
        return max(2 * packet_bytes, some_packets, rate_byte_s // _TIMER_HZ)

    @property
    def limit_bytes(self) -> int:
        """What may wait: 50 ms of the rate beyond the burst, and room for 20 packets at low rates."""
        queue_bytes = self.rate_bit_s // 8 // _QUEUES_PER_SECOND
        return self.burst_bytes + max(queue_bytes, 20 * (self.mtu + _ETHERNET_HEADER_BYTES))


def plan_shapers(plan: LinkPlan) -> list[Shaper]:
    """All rates of a topology with their places. Raises CapabilityError for a rate out of tbf's range."""
    topology, indices = plan.topology, plan.indices
    shapers: list[Shaper] = []
    redirected: dict[str, int] = {}
    for sender, receiver, rate_bit_s in _directions_with_rates(topology.links):
        if not _LOWEST_RATE_BIT_S <= rate_bit_s <= _HIGHEST_RATE_BIT_S:
            raise CapabilityError(
                f"{sender} -> {receiver}: a rate of {rate_bit_s} bit/s cannot be enforced by tbf"
                f" ({_LOWEST_RATE_BIT_S} to {_HIGHEST_RATE_BIT_S} bit/s)"
            )
        sending_node = topology.node(sender.node)
        receiving_node = topology.node(receiver.node)
        mtu = sending_node.interface(sender.interface).mtu
        if sending_node.kind is not NodeKind.HOST:
            place, node, device = ShaperPlace.SENDER_IN_THE_MIDDLE, sender.node, indices[sender]
        elif receiving_node.kind is not NodeKind.HOST:
            number = redirected.get(receiver.node, 0)
            redirected[receiver.node] = number + 1
            place, node = ShaperPlace.RECEIVER_IN_THE_MIDDLE, receiver.node
            device = BRIDGE_INDEX + 1 + number
        else:
            place, node, device = ShaperPlace.SENDING_HOST, sender.node, indices[sender]
        shapers.append(Shaper(sender, receiver, place, node, device, rate_bit_s, mtu))
    return shapers


def _directions_with_rates(links: Iterable[Link]) -> Iterable[tuple[LinkEnd, LinkEnd, int]]:
    for link in links:
        if link.forward.rate_bit_s is not None:
            yield link.first, link.second, link.forward.rate_bit_s
        if link.backward.rate_bit_s is not None:
            yield link.second, link.first, link.backward.rate_bit_s


def apply_shapers(
    plan: LinkPlan, shapers: Sequence[Shaper], socket_of: Callable[[str], NetlinkSocket]
) -> list[Shaper]:
    """Put all buckets in place and read them back. Returns them with the places that they really got.

    Raises RequestError or CapabilityError when the kernel refuses, LabError when it holds other numbers.
    """
    applied = []
    for shaper in shapers:
        actual = shaper
        if shaper.place is ShaperPlace.RECEIVER_IN_THE_MIDDLE:
            receiving_interface = plan.indices[shaper.receiver]
            if not redirect(shaper, receiving_interface, socket_of(shaper.node)):
                actual = replace(
                    shaper,
                    place=ShaperPlace.SENDING_HOST,
                    node=shaper.sender.node,
                    device=plan.indices[shaper.sender],
                )
        applied.append(actual)
    by_node: dict[str, list[Shaper]] = {}
    for shaper in applied:
        by_node.setdefault(shaper.node, []).append(shaper)
    for node, group in by_node.items():
        set_buckets(group, socket_of(node))
    return applied


def set_buckets(shapers: Sequence[Shaper], netlink: NetlinkSocket) -> None:
    """Make or change the buckets of one namespace, and check what the kernel holds afterwards."""
    try:
        netlink.run([_bucket_request(shaper) for shaper in shapers])
    except RequestError as error:
        if error.number in _MISSING_FEATURE:
            raise CapabilityError(
                f"{error}: this kernel has no tbf (CONFIG_NET_SCH_TBF), so links cannot have a rate"
            ) from error
        raise
    held = _read_rates(netlink)
    for shaper in shapers:
        if held.get(shaper.device) != shaper.rate_bit_s // 8:
            raise LabError(
                f"{shaper.sender} -> {shaper.receiver}: asked for {shaper.rate_bit_s // 8} byte/s,"
                f" the kernel holds {held.get(shaper.device)}"
            )


def _bucket_request(shaper: Shaper) -> Request:
    rate_byte_s = shaper.rate_bit_s // 8
    parameters = {
        "rate": rate_byte_s,
        # pyroute2's name for the field that the kernel reads as the link layer.
        "rate___reserved": _LINKLAYER_ETHERNET,
        "limit": shaper.limit_bytes,
        "buffer": -(-shaper.burst_bytes * _TICKS_PER_SECOND // rate_byte_s),
    }
    fields = {
        "index": shaper.device,
        "handle": _BUCKET_HANDLE,
        "parent": _TC_H_ROOT,
        "attrs": [
            ["TCA_KIND", "tbf"],
            ["TCA_OPTIONS", {"attrs": [["TCA_TBF_PARMS", parameters]]}],
        ],
    }
    purpose = f"limit {shaper.sender} -> {shaper.receiver} to {shaper.rate_bit_s} bit/s"
    return Request(RTM_NEWQDISC, fields, purpose, flags=NLM_F_CREATE | NLM_F_REPLACE)


def _read_rates(netlink: NetlinkSocket) -> Mapping[int, int]:
    """The rate in byte/s of every tbf in the namespace, by interface index."""
    rates = {}
    for answer in netlink.dump(Request(RTM_GETQDISC, {}, "read the queueing disciplines", flags=0)):
        if answer.get_attr("TCA_KIND") == "tbf":
            rates[int(answer["index"])] = int(answer.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS")["rate"])
    return rates


def redirect(shaper: Shaper, interface: int, netlink: NetlinkSocket) -> bool:
    """Lead what arrives on ``interface`` through the shaper's device. False when this kernel cannot."""
    purpose = f"lead {shaper.sender} -> {shaper.receiver} through its shaper"
    requests = [
        Request(
            RTM_NEWLINK,
            {
                "index": shaper.device,
                "flags": _IFF_UP,
                "change": _IFF_UP,
                "attrs": [
                    ["IFLA_IFNAME", f"shape{interface}"],
                    ["IFLA_MTU", shaper.mtu],
                    ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", "ifb"]]}],
                ],
            },
            f"make the shaping device for {shaper.sender} -> {shaper.receiver}",
        ),
        *redirection(interface, shaper.device, purpose),
    ]
    try:
        netlink.run(requests)
    except RequestError as error:
        if error.number not in _MISSING_FEATURE:
            raise
        remains = frozenset({errno.ENODEV, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP})
        ingress = {"index": interface, "handle": _INGRESS_HANDLE, "parent": _TC_H_INGRESS}
        netlink.run(
            [
                Request(RTM_DELQDISC, ingress, "undo the redirection", flags=0, tolerated=remains),
                Request(
                    RTM_DELLINK, {"index": shaper.device}, "undo the redirection", flags=0, tolerated=remains
                ),
            ]
        )
        return False
    return True


def redirection(interface: int, device: int, purpose: str) -> list[Request]:
    """Send whatever arrives on ``interface`` out of ``device`` (by u32: minimal kernels have it)."""
    arguments: dict[str, Any] = {
        "protocol": _ETH_P_ALL,
        "prio": 1,
        "target": _BUCKET_HANDLE,
        "keys": ["0x0/0x0+0"],
        "action": {
            "kind": "mirred",
            "direction": "egress",
            "action": "redirect",
            "ifindex": device,
        },
    }
    options = cls_u32.get_parameters(arguments)
    cls_u32.fix_request(arguments)
    ingress = {
        "index": interface,
        "handle": _INGRESS_HANDLE,
        "parent": _TC_H_INGRESS,
        "attrs": [["TCA_KIND", "ingress"]],
    }
    matching = {
        "index": interface,
        "parent": _INGRESS_HANDLE,
        "info": arguments["info"],
        "attrs": [["TCA_KIND", "u32"], ["TCA_OPTIONS", options]],
    }
    return [Request(RTM_NEWQDISC, ingress, purpose), Request(RTM_NEWTFILTER, matching, purpose)]
