"""``testbed bench recovery``: how long delivery stands still when a path dies, with either stack.

The client sends without end over links of 10 Mbit/s and 10 ms each way; what the server's application has is
looked at every few milliseconds. Delivery has resumed at the end of its longest gap.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from testbed.bench.two_paths import STACKS, HostPair, Sending, host_pairs, two_path_topology
from testbed.errors import HostError, UsageError
from testbed.middlebox.settings import Reset
from testbed.selftests.clock import RealClock
from testbed.topology.model import Impairment

if TYPE_CHECKING:
    from testbed.backend.lab import Lab
    from testbed.backend.namespaces import NamespaceBackend

LINK: Final = Impairment(rate_bit_s=10_000_000, delay_us=10_000, seed=1)
DEAD: Final = replace(LINK, loss=1.0)
"""Nothing gets through, and nobody is told."""
BREAKS_S: Final = (1.0, 5.0, 30.0)

_WARM_UP_S = 1.5
_START_S = 0.5
"""Of the warm-up: gaps of the connection's beginning do not count."""
_RESET_AFTER_BYTES = 1_500_000
_POLL_S = 0.004
_WATCHED_S = 3.0
"""After the event at least; until delivery has gone on for as long as :data:`_ALIVE_S` at most."""
_ALIVE_S = 1.0
_ALIVE_ARRIVALS = 10
_LIMIT_S = 90.0


class Trial:
    """One connection of a pair, its links, and what has arrived when."""

    def __init__(self, lab: Lab, pair: HostPair) -> None:
        self.lab = lab
        self.pair = pair
        self.event_us: int | None = None
        """When what is measured began: the path's death, or the way's return."""
        self._clock = RealClock()
        self._seen: list[tuple[int, int]] = []
        self._sending: Sending | None = None

    def put(self, number: int, impairment: Impairment) -> None:
        self.lab.links.put(self.pair.links[number], impairment, impairment)

    def start(self) -> None:
        self._sending = self.pair.start_sending(_WARM_UP_S + _LIMIT_S + max(BREAKS_S))
        self.watch(_WARM_UP_S)

    def event(self, action: Callable[[], object]) -> None:
        """What is measured from here on."""
        action()
        self.event_us = self._clock.now_us()

    def watch(self, seconds: float) -> None:
        end_us = self._clock.now_us() + round(seconds * 1e6)
        while self._clock.now_us() < end_us:
            self._look()
            self._clock.sleep(_POLL_S)

    def watch_until_resumed(self) -> None:
        """Until data has arrived again for a while after the longest gap."""
        began_us = self._clock.now_us()
        self.watch(_WATCHED_S)
        while self._clock.now_us() < began_us + round(_LIMIT_S * 1e6) and not self._is_alive():
            self.watch(_ALIVE_S / 4)

    def end(self) -> None:
        if self._sending is not None:
            self._sending.stop()

    def recovery(self) -> Recovery:
        """Raises HostError where nothing has arrived at all."""
        if not self._seen:
            raise HostError(f"{self.pair.server.name}: nothing arrived")
        if not self._is_alive():
            return Recovery(None, None)
        return recovery_of([at_us for at_us, _ in self._seen], self.event_us)

    def _is_alive(self) -> bool:
        """Whether data has arrived lately, and not for the first time."""
        now_us = self._clock.now_us()
        recent = [at_us for at_us, _ in self._seen if at_us > now_us - round(_ALIVE_S * 1e6)]
        return len(recent) > _ALIVE_ARRIVALS and recent[-1] > now_us - round(_ALIVE_S / 2 * 1e6)

    def _look(self) -> None:
        if self._sending is None:
            return
        received = self._sending.received_bytes()
        if not self._seen or received > self._seen[-1][1]:
            self._seen.append((self._clock.now_us(), received))


@dataclass(frozen=True, slots=True)
class Recovery:
    """None: delivery did not resume."""

    resumed_ms: float | None
    """From the event until delivery went on; of a reset, from the last data before it."""
    gap_ms: float | None
    """The longest time without delivery."""


def recovery_of(arrivals_us: Sequence[int], event_us: int | None) -> Recovery:
    """What the times at which data was there say; without an event the gap itself is one."""
    earliest_us = event_us if event_us is not None else arrivals_us[0] + round(_START_S * 1e6)
    gaps = [gap for gap in itertools.pairwise(arrivals_us) if gap[1] > earliest_us]
    if not gaps:
        return Recovery(None, None)
    began_us, ended_us = max(gaps, key=lambda gap: gap[1] - gap[0])
    since_us = event_us if event_us is not None else began_us
    return Recovery((ended_us - since_us) / 1e3, (ended_us - began_us) / 1e3)


def silent_death(trial: Trial) -> None:
    """The first of two paths drops everything."""
    trial.pair.allow_both_paths()
    trial.start()
    trial.event(lambda: trial.put(0, DEAD))
    trial.watch_until_resumed()


def interface_down(trial: Trial) -> None:
    """The client's first of two interfaces is set down."""
    trial.pair.allow_both_paths()
    trial.start()
    trial.event(lambda: trial.pair.client.set_interface("eth0", up=False))
    trial.watch_until_resumed()


def reset_by_a_box(trial: Trial) -> None:
    """A box on the first of two paths resets the subflow, towards the server."""
    trial.lab.links.put_boxes(trial.pair.links[0], [Reset("->", after_bytes=_RESET_AFTER_BYTES)])
    trial.pair.allow_both_paths()
    trial.start()
    trial.watch_until_resumed()


def outage(break_s: float, trial: Trial) -> None:
    """The only path drops everything for a while."""
    trial.start()
    trial.put(0, DEAD)
    trial.watch(break_s)
    trial.event(lambda: trial.put(0, LINK))
    trial.watch_until_resumed()


def no_subflow(break_s: float, trial: Trial) -> None:
    """The only subflow is closed with its address (RM_ADDR of 0); later the client gets another endpoint."""
    trial.start()
    trial.pair.client.delete_endpoint(0, trial.pair.client_addresses[0])
    trial.watch(break_s)
    trial.event(lambda: _add_second_endpoint(trial.pair))
    trial.watch_until_resumed()


def other_path(break_s: float, trial: Trial) -> None:
    """The only path drops everything for good; later the client gets an endpoint on another."""
    trial.start()
    trial.put(0, DEAD)
    trial.watch(break_s)
    trial.event(lambda: _add_second_endpoint(trial.pair))
    trial.watch_until_resumed()


def _add_second_endpoint(pair: HostPair) -> None:
    pair.client.add_endpoint(pair.client_addresses[1], flags=("subflow",), interface="eth1")


Scenario = Callable[[Trial], None]


def scenarios(breaks_s: Sequence[float]) -> dict[str, Scenario]:
    """By the words that the table has for them."""
    found: dict[str, Scenario] = {
        "one of two paths drops everything": silent_death,
        "one of two interfaces is set down": interface_down,
        "one of two subflows is reset by a box": reset_by_a_box,
    }
    for break_s in breaks_s:
        found[f"the only path drops everything for {break_s:g} s"] = partial(outage, break_s)
    for break_s in breaks_s:
        found[f"no subflow for {break_s:g} s, then a new one elsewhere"] = partial(no_subflow, break_s)
    for break_s in breaks_s:
        found[f"the only path dies, another one after {break_s:g} s"] = partial(other_path, break_s)
    return found


@dataclass(slots=True)
class ScenarioResult:
    """What each stack needed."""

    scenario: str
    recoveries: dict[str, list[Recovery]]
    """Stack → each repetition's."""

    def median_ms(self, stack: str) -> float | None:
        """From event to resumed delivery; None when it did not resume every time."""
        resumed = [each.resumed_ms for each in self.recoveries[stack]]
        known = [each for each in resumed if each is not None]
        return statistics.median(known) if len(known) == len(resumed) else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="trials of each (default 1)")
    parser.add_argument(
        "--breaks",
        default=",".join(f"{each:g}" for each in BREAKS_S),
        metavar="SECONDS,…",
        help="how long nothing gets through before there is a way again (default 1,5,30)",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name contains this")
    parser.add_argument("--stacks", default=",".join(STACKS), metavar="STACK,…")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/recovery.md")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import ensure_privileges

    stacks, chosen = check_arguments(arguments)
    ensure_privileges()
    results = []
    with closing(NamespaceBackend()) as backend:
        for name, scenario in chosen.items():
            result = ScenarioResult(name, {stack: [] for stack in stacks})
            for _ in range(arguments.repeat):
                for stack in stacks:
                    result.recoveries[stack].append(_try(backend, stack, scenario))
            results.append(result)
            if not arguments.json:
                print(line(result), file=sys.stderr if arguments.markdown else sys.stdout, flush=True)
    if arguments.json:
        print(json.dumps({"recovery": [asdict(result) for result in results]}))
    elif arguments.markdown:
        print(markdown(results, arguments.repeat))
    return 0


def check_arguments(arguments: argparse.Namespace) -> tuple[tuple[str, ...], dict[str, Scenario]]:
    """The stacks and the scenarios. Raises UsageError with every problem."""
    stacks = tuple(dict.fromkeys(arguments.stacks.split(",")))
    unknown = [stack for stack in stacks if stack not in STACKS]
    problems = [f"--stacks: '{stack}' is none of {', '.join(STACKS)}" for stack in unknown]
    if arguments.repeat < 1:
        problems.append(f"--repeat: {arguments.repeat} is not positive")
    breaks_s = []
    for text in arguments.breaks.split(","):
        try:
            breaks_s.append(float(text))
        except ValueError:
            breaks_s.append(0.0)
        if not 0 < breaks_s[-1] <= max(BREAKS_S):
            problems.append(f"--breaks: '{text}' is not in 0 to {max(BREAKS_S):g} seconds")
    chosen = {name: each for name, each in scenarios(breaks_s).items() if arguments.only in name}
    if not chosen and not problems:
        problems.append(f"--only: no scenario contains '{arguments.only}'")
    if problems:
        raise UsageError("\n".join(problems))
    return stacks, chosen


def _try(backend: NamespaceBackend, stack: str, scenario: Scenario) -> Recovery:
    """In a lab of its own: what one connection leaves behind must not reach the next."""
    topology = two_path_topology((stack,))
    with backend.up(topology, f"bench-{os.getpid()}") as lab:
        (pair,) = host_pairs(topology, lab.hosts)
        trial = Trial(lab, pair)
        for number in range(len(pair.links)):
            trial.put(number, LINK)
        try:
            scenario(trial)
        except HostError:
            # the connection is over
            return Recovery(None, None)
        recovery = trial.recovery()
        trial.end()
        return recovery


def line(result: ScenarioResult) -> str:
    """For people to read."""
    times = "  ".join(f"{stack} {_shown(result.median_ms(stack))}" for stack in result.recoveries)
    return f"{result.scenario:<52} {times}"


def _shown(resumed_ms: float | None) -> str:
    return "never" if resumed_ms is None else f"{resumed_ms:.0f} ms"


def markdown(results: Sequence[ScenarioResult], repetitions: int) -> str:
    """The table as it stands in the documentation, with where it was measured."""
    return "\n".join(_markdown(results, repetitions))


def _markdown(results: Sequence[ScenarioResult], repetitions: int) -> Iterator[str]:
    often = "Measured once" if repetitions == 1 else f"Medians of {repetitions}"
    yield (
        f"{often}, on Linux {platform.release()} with {os.cpu_count()} processors and Python"
        f" {platform.python_version()}; load average {os.getloadavg()[1]:.1f}."
    )
    yield ""
    stacks = list(results[0].recoveries)
    yield "| What happens | " + " | ".join(stacks) + " |"
    yield "|-|" + "-:|" * len(stacks)
    for result in results:
        yield (
            f"| {result.scenario} | " + " | ".join(_shown(result.median_ms(stack)) for stack in stacks) + " |"
        )
