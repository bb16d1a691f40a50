"""``testbed events``: the timeline of a lab's topology, while it happens or to look at."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.backend.timeline import Happened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    play = actions.add_parser("run", help="let all events happen; their time begins now; Ctrl-C ends it")
    show = actions.add_parser("show", help="what is due when, and what has happened in the last run")
    for each in (play, show):
        each.add_argument("lab", metavar="LAB")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.timeline import happened_so_far, run_events
    from testbed.commands.lab_access import open_lab_inside
    from testbed.errors import ExitCode
    from testbed.topology.events import event_text

    with open_lab_inside(arguments.lab) as lab:
        events = lab.topology.events
        if not events:
            print(f"the topology of lab '{arguments.lab}' has no events")
            return 0
        if arguments.action == "run":
            problems = 0
            for happened in run_events(lab):
                problems += bool(happened.problem)
                if happened.problem or not arguments.quiet:
                    print(happened_line(happened), flush=True)
            return ExitCode.FAIL if problems else ExitCode.PASS
        done = happened_so_far(lab.directory)
        for happened in done:
            print(happened_line(happened))
        for event in events[len(done) :]:
            print(f"{event.at_us / 1_000_000:9.3f} s  {event_text(event)}  (due)")
    return 0


def happened_line(happened: Happened) -> str:
    """The time that it was due at comes first: lines are the topology's, in its order."""
    outcome = f"FAILED: {happened.problem}" if happened.problem else f"at {happened.at_us / 1_000_000:.3f} s"
    return f"{happened.due_us / 1_000_000:9.3f} s  {happened.text}  ({outcome})"
