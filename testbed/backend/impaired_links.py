"""Links that do more to packets than a token bucket can: cut in two, with something in the middle.

``client —veth— [namespace of the links] —veth— server``: whatever impairs a link sits there, on neither
host, so that no host's own queues and pacing are distorted. All such links of a lab share one namespace,
which is not part of the topology: what is built is the topology with that node added and these links cut.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from testbed.emulator.configuration import DirectionConfiguration, LinkConfiguration
from testbed.errors import CapabilityError
from testbed.topology.impairments import link_settings
from testbed.topology.model import (
    Impairment,
    Interface,
    Link,
    LinkEnd,
    Node,
    NodeKind,
    Realisation,
    StackKind,
    Topology,
)

LINKS_NODE = "_links"
"""The namespace of the links: no node of a topology is called so, their names begin with a letter."""


@dataclass(frozen=True, slots=True)
class ImpairedLink:
    """A link and the two interfaces in its middle, towards its first and its second end."""

    link: Link
    near: LinkEnd
    far: LinkEnd

    @property
    def name(self) -> str:
        return self.link.built_as or str(self.link.first)


@dataclass(frozen=True, slots=True)
class Built:
    """What a backend builds for a topology, and the links that are cut."""

    topology: Topology
    links: tuple[ImpairedLink, ...]

    def link_at(self, end: LinkEnd) -> ImpairedLink | None:
        """The impaired link with that end."""
        for link in self.links:
            if end in (link.link.first, link.link.second):
                return link
        return None


def is_cut(link: Link, asked: Realisation) -> bool:
    """Whether something has to sit in the middle of a link.

    The kernel's token bucket is enough for a rate alone, unless the topology says what is to impair it.
    """
    if link.middlebox or link.is_emulated:
        return True
    impaired = [each for each in (link.forward, link.backward) if not each.is_nothing]
    if asked is not Realisation.AUTO:
        return bool(impaired)
    return not all(impairment.is_rate_only for impairment in impaired)


def choose_realisation(built: Built) -> Realisation:
    """What impairs the links that are cut. Raises CapabilityError for what this machine has not."""
    asked = built.topology.impairments
    if not built.links or asked is Realisation.EMULATOR:
        return Realisation.EMULATOR
    obstacle = _obstacle_to_netem(built.links)
    if obstacle is None:
        return Realisation.NETEM
    if asked is Realisation.NETEM:
        raise CapabilityError(f"{obstacle}; use '--impairments emulator'")
    return Realisation.EMULATOR


def _obstacle_to_netem(links: Iterable[ImpairedLink]) -> str | None:
    """Why it cannot be the kernel that impairs these links."""
    from testbed.backend.capabilities import NETEM_PROBE, NETEM_SEED_PROBE, probe

    boxed = [each.name for each in links if each.link.middlebox]
    if boxed:
        return f"netem is no middlebox, and there is one on the link at {boxed[0]}"
    emulated = [each.name for each in links if each.link.is_emulated]
    if emulated:
        return f"the link at {emulated[0]} is to be emulated, which netem is not"
    finding = probe(NETEM_PROBE)
    if not finding.works:
        return f"links cannot be impaired by netem here: {finding.detail}"
    seeded = [
        each.name
        for each in links
        if each.link.forward.seed is not None or each.link.backward.seed is not None
    ]
    if seeded and not (finding := probe(NETEM_SEED_PROBE)).works:
        return f"the link at {seeded[0]} has a seed: {finding.detail}"
    return None


def cut_links(topology: Topology) -> Built:
    """What is to be built. Without impaired links it is the topology itself."""
    cut = [link for link in topology.links if is_cut(link, topology.impairments)]
    if not cut:
        return Built(topology, ())
    impaired = {
        number: ImpairedLink(
            link, LinkEnd(LINKS_NODE, f"link{number}-near"), LinkEnd(LINKS_NODE, f"link{number}-far")
        )
        for number, link in enumerate(cut)
    }
    by_first_end = {each.link.first: each for each in impaired.values()}
    interfaces = tuple(
        Interface(end.interface, f"06:00:00:{number >> 8:02x}:{number & 0xFF:02x}:{side:02x}", each.link.mtu)
        for number, each in impaired.items()
        for side, end in enumerate((each.near, each.far), 1)
    )
    # To the code that builds it is like a host whose interfaces belong to somebody else than the kernel.
    node = Node(LINKS_NODE, NodeKind.HOST, StackKind.USERSPACE, interfaces)
    links: list[Link] = []
    for link in topology.links:
        each = by_first_end.get(link.first)
        if each is None:
            links.append(link)
        else:
            links += [
                Link(link.first, each.near, link.mtu),
                Link(each.far, link.second, link.mtu),
            ]
    built = replace(topology, nodes=(*topology.nodes, node), links=tuple(links))
    return Built(built, tuple(impaired.values()))


def link_configurations(links: Iterable[ImpairedLink], seed: int | None) -> list[LinkConfiguration]:
    """What the emulator is told. Without a seed of the lab's, each direction gets one from the OS."""
    return [
        LinkConfiguration(
            name=each.name,
            near=each.near.interface,
            far=each.far.interface,
            mtu=each.link.mtu,
            forward=_direction(each, "->", each.link.forward, seed),
            backward=_direction(each, "<-", each.link.backward, seed),
            middlebox=each.link.middlebox,
        )
        for each in links
    ]


def _direction(
    each: ImpairedLink, direction: str, impairment: Impairment, seed: int | None
) -> DirectionConfiguration:
    own_seed = impairment.seed
    if own_seed is None:
        own_seed = secrets.randbits(63) if seed is None else direction_seed(seed, each.name, direction)
    return DirectionConfiguration(link_settings(impairment, each.link.mtu), own_seed)


def direction_seed(seed: int, link: str, direction: str) -> int:
    """A seed of a direction's own, the same in every run with the same lab seed."""
    digest = hashlib.sha256(f"{seed}:{link}:{direction}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
