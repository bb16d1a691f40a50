"""Checks of ``events``: that each says what happens to what, and that it can happen when it is due."""

from __future__ import annotations

from testbed.topology.document import DocumentPath
from testbed.topology.events import resolve_event, topology_after
from testbed.topology.findings import Findings
from testbed.topology.model import Topology
from testbed.topology.problems import did_you_mean
from testbed.topology.raw import EventFile, TopologyFile
from testbed.topology.wiring import Wiring

OF_LINKS = ("set", "impair", "middlebox")
OF_INTERFACES = ("add_address", "remove_address", "move_to")
_EMULATED = ("impair", "middlebox")


def check_events(file: TopologyFile, wiring: Wiring | None, findings: Findings, *, said_whole: bool) -> None:
    """Each entry by itself. ``wiring`` is None where it is not known which interfaces there are.

    Not ``said_whole``: something in the entries did not fit the format, and is not to be missed again.
    """
    ports = [f"{port.node}:{port.name}" for port in wiring.ports] if wiring is not None else None
    first_use: dict[tuple[object, ...], int] = {}
    for index, event in enumerate(file.events):
        path: DocumentPath = ("events", index)
        if said_whole:
            _check_words(event, path, findings)
        _check_subject(event, ports, path, findings)
        _check_netem(file, event, path, findings)
        for word in OF_LINKS + OF_INTERFACES:
            if getattr(event, word) is None or None not in (event.link, event.interface):
                continue
            key = (event.at, event.link or event.interface, word, *_which(event, word))
            first = first_use.setdefault(key, index)
            if first != index:
                line = findings.value_mark(("events", first)).line
                findings.at_key(
                    (*path, word), f"{word!r} is said twice of one time", f"line {line} says it too"
                )


def _which(event: EventFile, word: str) -> tuple[object, ...]:
    """What tells two events of one kind at one place apart: an interface may get several addresses."""
    return (str(getattr(event, word)),) if word.endswith("address") else ()


def _check_words(event: EventFile, path: DocumentPath, findings: Findings) -> None:
    """Exactly one thing happens, to a link or to an interface."""
    if (event.link is None) == (event.interface is None):
        findings.at_value(path, "an event is of a 'link' or of an 'interface'", "say one of them")
        return
    subject, words = ("link", OF_LINKS) if event.link is not None else ("interface", OF_INTERFACES)
    said = [word for word in OF_LINKS + OF_INTERFACES if getattr(event, word) is not None]
    wrong = [word for word in said if word not in words]
    for word in wrong:
        hint = f"these do: {', '.join(words)}"
        findings.at_key((*path, word), f"{word!r} does not happen to the {subject!r} of an event", hint)
    if not said:
        findings.at_value(path, f"nothing happens to the {subject}", f"say one of: {', '.join(words)}")
    elif len(said) > 1 and not wrong:
        hint = "write one event for each; they may have the same time"
        findings.at_key(
            (*path, said[1]), f"an event is one change, not {' and '.join(map(repr, said))}", hint
        )
    if event.addresses is not None and event.move_to is None:
        findings.at_key((*path, "addresses"), "'addresses' is for 'move_to'", "one comes with 'add_address'")


def _check_subject(event: EventFile, ports: list[str] | None, path: DocumentPath, findings: Findings) -> None:
    for word in ("link", "interface"):
        end = getattr(event, word)
        if end is not None and ports is not None and end not in ports:
            what = "no link ends at" if word == "link" else "no interface is called"
            findings.at_value((*path, word), f"{what} {end!r}", did_you_mean(end, ports))


def _check_netem(file: TopologyFile, event: EventFile, path: DocumentPath, findings: Findings) -> None:
    for word in _EMULATED:
        if file.impairments == "netem" and getattr(event, word) is not None:
            findings.at_key(
                (*path, word),
                f"{word!r} while the lab runs needs the link emulator",
                "let 'impairments' be 'auto'",
            )


def check_timeline(file: TopologyFile, topology: Topology, findings: Findings) -> None:
    """Whether each event can happen after those before it. The file has no other problems."""
    is_up: dict[str, tuple[bool, int]] = {}
    for index in sorted(range(len(file.events)), key=lambda each: file.events[each].at):
        event = file.events[index]
        path: DocumentPath = ("events", index)
        resolved = resolve_event(event)
        if event.set is not None:
            link = next(each for each in topology.links if resolved.end in (each.first, each.second))
            key = link.built_as or str(link.first)
            now, since = is_up.get(key, (True, -1))
            if now == (event.set == "up"):
                line = f"since line {findings.value_mark(('events', since)).line}" if since >= 0 else ""
                findings.at_value((*path, "set"), f"the link at {event.link} is {event.set} already", line)
            is_up[key] = (event.set == "up", index)
        try:
            topology = topology_after(topology, resolved)
        except ValueError as error:
            word = next(word for word in OF_INTERFACES if getattr(event, word) is not None)
            findings.at_value((*path, word), str(error))
