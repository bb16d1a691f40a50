"""Which links of a lab are down, as the kernel tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from testbed.backend.impaired_links import Built
from testbed.backend.links import LinkPlan
from testbed.backend.netlink import INTERFACE_MESSAGE, RTM_GETLINK, NetlinkSocket, Request
from testbed.topology.model import Link, LinkEnd

_IFF_UP = 1


def links_down(
    links: Iterable[Link],
    built: Built,
    plan: LinkPlan,
    open_netlink: Callable[[str], AbstractContextManager[NetlinkSocket]],
) -> frozenset[Link]:
    """Those of ``links`` of which an end is down, or what is in their middle."""
    link_of: dict[LinkEnd, Link] = {}
    for link in links:
        impaired = built.link_at(link.first)
        middle = (impaired.near, impaired.far) if impaired is not None else ()
        link_of |= dict.fromkeys((link.first, link.second, *middle), link)
    ends_of: dict[str, dict[int, LinkEnd]] = defaultdict(dict)
    for end in link_of:
        ends_of[end.node][plan.indices[end]] = end
    down = set()
    for node, ends in ends_of.items():
        with open_netlink(node) as netlink:
            payloads = netlink.dump_payloads(Request(RTM_GETLINK, {}, f"read the interfaces of {node}"))
        for payload in payloads:
            _family, _type, index, flags, _mask = INTERFACE_MESSAGE.unpack_from(payload)
            if index in ends and not flags & _IFF_UP:
                down.add(link_of[ends[index]])
    return frozenset(down)
