"""A topology's timeline: from the file's entries to events, and what each does to the topology."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.middlebox.settings import box_text
from testbed.topology.changes import moved, with_address, without_address
from testbed.topology.impairments import combine, impairment_text
from testbed.topology.model import (
    AddressAdded,
    AddressRemoved,
    BoxesChanged,
    Event,
    Impairment,
    Link,
    LinkEnd,
    LinkImpaired,
    LinkSet,
    Moved,
    Topology,
)
from testbed.topology.raw import EventFile, ImpairFile


def resolve_event(said: EventFile) -> Event:
    """The event of an entry that has no problems."""
    end = link_end(said.link or said.interface or "")
    if said.set is not None:
        return LinkSet(said.at, end, said.set == "up")
    if said.impair is not None:
        return LinkImpaired(said.at, end, *directions(said.impair))
    if said.middlebox is not None:
        return BoxesChanged(said.at, end, said.middlebox.boxes())
    if said.add_address is not None:
        return AddressAdded(said.at, end, said.add_address)
    if said.remove_address is not None:
        return AddressRemoved(said.at, end, said.remove_address)
    if said.move_to is not None:
        addresses = tuple(said.addresses) if said.addresses is not None else None
        return Moved(said.at, end, said.move_to, addresses)
    raise AssertionError("checked: an event says what happens")


def link_end(text: str) -> LinkEnd:
    """Of ``client:eth0``; what has no interface becomes an end that nobody has."""
    node, _, interface = text.partition(":")
    return LinkEnd(node, interface)


def directions(impair: ImpairFile) -> tuple[Impairment | None, Impairment | None]:
    """What is said of both directions or of each; None for one of which nothing is said."""
    if impair.forward is None and impair.backward is None:
        both = combine(impair.said())
        return both, both
    forward = combine(impair.forward.said()) if impair.forward else None
    backward = combine(impair.backward.said()) if impair.backward else None
    return forward, backward


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """By their times; those of one time in the order of the file."""
    return tuple(sorted(events, key=lambda event: event.at_us))


def needs_emulator(link: Link, events: Iterable[Event]) -> bool:
    """Whether an event asks for something that only an emulator in the link's middle can do."""
    for event in events:
        if event.end not in (link.first, link.second):
            continue
        if isinstance(event, LinkImpaired | BoxesChanged):
            return True
        if isinstance(event, Moved) and not (link.forward.is_nothing and link.backward.is_nothing):
            # What impairs it must not be where the cable is pulled out.
            return True
    return False


def topology_after(topology: Topology, event: Event) -> Topology:
    """What an event makes of addresses and cables. Raises ValueError where it cannot happen."""
    match event:
        case AddressAdded():
            return with_address(topology, event.end, event.address)
        case AddressRemoved():
            return without_address(topology, event.end, event.address)
        case Moved():
            return moved(topology, event.end, event.switch, event.addresses)
        case _:
            return topology


def event_text(event: Event) -> str:
    """In the words of a topology file."""
    match event:
        case LinkSet():
            return f"link {event.end} {'up' if event.up else 'down'}"
        case LinkImpaired():
            ways = (("->", event.forward), ("<-", event.backward))
            said = [
                f"{way} {impairment_text(impairment) or 'not impaired'}"
                for way, impairment in ways
                if impairment is not None
            ]
            return f"link {event.end}: {', '.join(said)}"
        case BoxesChanged():
            shown = ", ".join(map(box_text, event.boxes)) or "switched off"
            return f"middlebox on {event.end}: {shown}"
        case AddressAdded():
            return f"{event.end}: address {event.address} added"
        case AddressRemoved():
            return f"{event.end}: address {event.address} removed"
        case Moved():
            addresses = "".join(f" {address}" for address in event.addresses or ())
            return f"{event.end} moved to {event.switch}{':' if addresses else ''}{addresses}"
