"""``testbed link``: what the links of a lab do to packets, and how to change it while the lab runs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from testbed.commands.lab_access import open_lab_inside
from testbed.errors import UsageError
from testbed.middlebox.settings import box_text, counters_text

if TYPE_CHECKING:
    from testbed.backend.lab import Lab
    from testbed.backend.link_control import DirectionState, LinkState
    from testbed.middlebox.settings import BoxSettings
    from testbed.topology.model import Link


_EXAMPLES = """\
examples:
  testbed link set LAB client:eth0 delay=20ms loss=1%
  testbed link set LAB client:eth0 'loss=gemodel 1% 10%' --sent
  testbed link set LAB client:eth0 none
  testbed link set LAB client:eth0 down
  testbed link set LAB client:eth0 'middlebox=strip: {subtypes: [mp_join]}'
  testbed link set LAB client:eth0 middlebox=none
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="what is in force, and what was decided so far")
    show.add_argument("lab", metavar="LAB")
    show.add_argument("end", metavar="END", nargs="?", help="one link, named by one of its ends: client:eth0")
    show.add_argument("--json", action="store_true", help="print a JSON array")
    change = actions.add_parser(
        "set",
        help="change impairments and middleboxes, or take the link up or down",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    change.add_argument("lab", metavar="LAB")
    change.add_argument("end", metavar="END", help="the link, named by one of its ends: client:eth0")
    change.add_argument(
        "changes", metavar="WORD=VALUE", nargs="+", help="words of topology files, or one of: up, down, none"
    )
    direction = change.add_mutually_exclusive_group()
    direction.add_argument("--sent", action="store_true", help="only to what END sends")
    direction.add_argument("--received", action="store_true", help="only to what END receives")


def run(arguments: argparse.Namespace) -> int:

    with open_lab_inside(arguments.lab) as lab:
        if arguments.action == "set":
            return _set(lab, arguments)
        ends = [arguments.end] if arguments.end is not None else None
        states = lab.links.states() if ends is None else [lab.links.state(lab.links.link_at(ends[0]))]
        down = lab.links_down()
    if arguments.json:
        objects = [_object(state) | {"up": state.link not in down} for state in states]
        print(json.dumps(objects, indent=2))
    else:
        print("\n".join(line for state in states for line in state_lines(state, down)))
    return 0


def _set(lab: Lab, arguments: argparse.Namespace) -> int:
    link = lab.links.link_at(arguments.end)
    if arguments.changes in (["up"], ["down"]):
        if arguments.sent or arguments.received:
            raise UsageError("a link is up or down in both directions")
        end = link.first if str(link.first) == arguments.end else link.second
        lab.set_link(end.node, end.interface, up=arguments.changes == ["up"])
        _print_state(lab, lab.links.state(link), arguments)
        return 0
    words = {} if arguments.changes == ["none"] else _words(arguments.changes)
    if MIDDLEBOX in words:
        if len(words) > 1 or arguments.sent or arguments.received:
            raise UsageError("'middlebox=…' is said alone; its boxes have directions of their own")
        state = lab.links.put_boxes(link, _boxes(words[MIDDLEBOX]))
    else:
        directions = _directions(arguments, is_first=str(link.first) == arguments.end)
        state = lab.links.change(link, words, directions)
    _print_state(lab, state, arguments)
    return 0


def _print_state(lab: Lab, state: LinkState, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        print("\n".join(state_lines(state, lab.links_down())))


MIDDLEBOX = "middlebox"


def _boxes(text: str) -> Sequence[BoxSettings]:
    """Raises UsageError."""
    from testbed.topology.said_middlebox import parse_middlebox

    try:
        return () if text == "none" else parse_middlebox(text)
    except ValueError as error:
        raise UsageError(f"middlebox={text}: {error}") from None


def _words(changes: Sequence[str]) -> dict[str, str]:
    """``["delay=20ms"]`` → ``{"delay": "20ms"}``. Raises UsageError."""
    pairs = [text.partition("=") for text in changes]
    wrong = [text for text, (word, equals, value) in zip(changes, pairs, strict=True) if not (word and value)]
    if wrong:
        raise UsageError("\n".join(f"{text}: expected WORD=VALUE, like delay=20ms" for text in wrong))
    twice = [word for word, count in Counter(word for word, _equals, _value in pairs).items() if count > 1]
    if twice:
        raise UsageError("\n".join(f"{word}: said twice" for word in twice))
    return {word: value for word, _equals, value in pairs}


def _directions(arguments: argparse.Namespace, *, is_first: bool) -> Sequence[str]:
    if not arguments.sent and not arguments.received:
        return "->", "<-"
    return ("->",) if arguments.sent == is_first else ("<-",)


def state_lines(state: LinkState, down: Collection[Link]) -> Iterator[str]:
    """What people read about a link; ``down`` are those that carry nothing."""
    is_down = "  down" if state.link in down else ""
    yield f"{state.link.first} <-> {state.link.second}  mtu {state.link.mtu}{is_down}"
    for arrow, direction in (("->", state.forward), ("<-", state.backward)):
        yield f"  {arrow}  {_in_words(direction)}"
        decisions = [
            f"{name} {value}" for name, value in direction.counters.items() if value and name in SHOWN
        ]
        if decisions:
            yield f"      {', '.join(decisions)}{_lateness(direction)}"
    for box in state.middlebox:
        yield f"  middlebox  {box_text(box)}"
    for counters in state.box_counters:
        yield f"      {counters_text(counters)}"


SHOWN = (
    *("offered", "delivered", "lost", "overflowed", "reordered", "duplicated", "corrupted"),
    *("filtered", "cut_off", "malformed", "refused", "overrun"),
)
"""Counters of decisions, of which those that are not zero are printed."""


def _in_words(direction: DirectionState) -> str:
    from testbed.topology.impairments import impairment_text

    text = impairment_text(direction.impairment) or "not impaired"
    return f"{text}  ({direction.realised_by})" if direction.realised_by else text


def _lateness(direction: DirectionState) -> str:
    timed = direction.counters.get("timed", 0)
    if not timed:
        return ""
    mean_us = direction.counters["late_us"] / timed
    return (
        f"; late by {mean_us / 1000:.3f} ms on average, {direction.counters['latest_us'] / 1000:.3f} at most"
    )


def _object(state: LinkState) -> dict[str, object]:
    return {
        "first": str(state.link.first),
        "second": str(state.link.second),
        "mtu": state.link.mtu,
        "->": _direction_object(state.forward),
        "<-": _direction_object(state.backward),
        "middlebox": [asdict(box) for box in state.middlebox],
        "box_counters": [asdict(counters) for counters in state.box_counters],
    }


def _direction_object(direction: DirectionState) -> dict[str, object]:
    from testbed.topology.impairments import impairment_text

    return {
        "impairment": impairment_text(direction.impairment),
        "fields": asdict(direction.impairment),
        "realised_by": direction.realised_by,
        "counters": dict(direction.counters),
        "in_flight": direction.in_flight,
    }
