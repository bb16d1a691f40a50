"""The options of ``testbed selftest`` that say what is played, and what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.selftests.axes import Axes

UNTIL_FAIL_REPETITIONS = 100

_LISTS: tuple[tuple[str, str, str], ...] = (
    (
        "--family",
        "4,6",
        "4, 6, 4-mapped (IPv4 on IPv6 sockets), mixed (endpoints of the other family), or all",
    ),
    ("--stacks", "all", "client-server pairs of userspace and kernel, like userspace-kernel, or all"),
    ("--backend", "namespaces", "namespaces, simulated (userspace in virtual time, no privileges), or all"),
    ("--scheduler", "default", "packet schedulers of both ends, or all"),
    ("--congestion", "default", "congestion controls of both ends, or all"),
    ("--checksum", "off", "the checksum of DSS: off, on, or all"),
    ("--impair", "none", "what the server's links do to packets, by name: none, dsl, lossy, …, or all"),
)


def add_axes(parser: argparse.ArgumentParser) -> None:
    """The axes, and what narrows or widens the selection."""
    parser.add_argument("select", nargs="*", metavar="SELECT", help="what to run; everything by default")
    parser.add_argument(
        "--select",
        dest="selection",
        default="full",
        metavar="NAME",
        help="full (default), or quick: one pair of stacks and one family for each case, no slow ones",
    )
    parser.add_argument(
        "--except",
        dest="excluded",
        action="append",
        default=[],
        metavar="SELECT",
        help="leave this out; may be repeated",
    )
    parser.add_argument("--tag", default="", metavar="LIST", help="only cases of one of these groups")
    for option, default, text in _LISTS:
        parser.add_argument(option, default=default, metavar="LIST", help=f"{text} (default: {default})")
    parser.add_argument("--repeat", type=int, metavar="N", help="play everything N times")
    parser.add_argument(
        "--until-fail",
        action="store_true",
        help=f"end at the first failure; {UNTIL_FAIL_REPETITIONS} times unless --repeat says otherwise",
    )


def axes_of(arguments: argparse.Namespace) -> Axes:
    """What the options ask for, not yet checked."""
    from mptcp_stack.settings import SCHEDULERS
    from testbed.selftests.axes import ADDRESSINGS, CHECKSUMS, CONGESTION_NAMES, Axes, split_list
    from testbed.selftests.case import BACKENDS, STACK_PAIRS
    from testbed.selftests.presets import PRESETS

    def values(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
        return known if text == "all" else split_list(text)

    repeat = arguments.repeat
    if repeat is None:
        repeat = UNTIL_FAIL_REPETITIONS if arguments.until_fail else 1
    return Axes(
        select=tuple(arguments.select),
        families=values(arguments.family, ADDRESSINGS),
        stacks=values(arguments.stacks, STACK_PAIRS),
        repeat=repeat,
        backends=values(arguments.backend, BACKENDS),
        schedulers=values(arguments.scheduler, SCHEDULERS),
        congestion_controls=values(arguments.congestion, CONGESTION_NAMES),
        checksums=values(arguments.checksum, CHECKSUMS),
        impairments=values(arguments.impair, tuple(PRESETS)),
        excluded=tuple(arguments.excluded),
        tags=split_list(arguments.tag),
        selection=arguments.selection,
    )
