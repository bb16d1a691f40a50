"""One seed, from its scenario to its judgement."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mptcp_stack.simulator import SimulationError
from testbed.soak.conversation import Conversation
from testbed.soak.drawing import draw_scenario
from testbed.soak.hosts import Hosts
from testbed.soak.judgement import leftovers, problems_of_counters, problems_of_data
from testbed.soak.scenario import Scenario

FINISH_LIMIT_US = 3_600_000_000
"""Everything has to have been sent and received after this virtual time."""
REST_LIMIT_US = 1_000_000_000
"""After the last close: TIME_WAIT, and retransmissions to a peer that is gone."""


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What a worker hands back of one seed."""

    seed: int
    problems: tuple[str, ...] = ()
    conversations: int = 0
    bytes_received: int = 0
    virtual_us: int = 0
    duration_s: float = 0.0


class Soak:
    """One seed's run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.hosts = Hosts(scenario)
        self._to_do: dict[Callable[[], None], None] = {}
        self.conversations = [
            Conversation(self.hosts, number, plan, self._wake)
            for number, plan in enumerate(scenario.conversations)
        ]
        for conversation in self.conversations:
            self.hosts.simulator.call_at(conversation.plan.at_us, conversation.start)

    def _wake(self, action: Callable[[], None]) -> None:
        self._to_do[action] = None

    def _advance(self) -> None:
        while self._to_do:
            actions, self._to_do = self._to_do, {}
            for action in actions:
                action()

    def _has_finished(self) -> bool:
        if not self._to_do:
            return False
        self._advance()
        return all(conversation.has_finished for conversation in self.conversations)

    def _is_at_rest(self) -> bool:
        self._advance()
        return not leftovers(self.hosts)

    def problems(self) -> Iterator[str]:
        """Runs it, and says everything that is wrong; what fails in between ends it."""
        simulator = self.hosts.simulator
        try:
            simulator.run_until(self._has_finished, FINISH_LIMIT_US)
        except SimulationError as error:
            yield f"does not end: {error}"
            yield from self._unfinished()
            return
        for conversation in self.conversations:
            conversation.stop_listening()
        for conversation in self.conversations:
            yield from problems_of_data(self.hosts, conversation)
        try:
            simulator.run_until(self._is_at_rest, REST_LIMIT_US)
        except SimulationError:
            yield "left behind: " + ", ".join(leftovers(self.hosts))
            return
        yield from problems_of_counters(self.hosts)

    def _unfinished(self) -> Iterator[str]:
        for conversation in self.conversations:
            for name, party in conversation.parties:
                if not party.has_finished:
                    connection = party.connection
                    state = connection.describe() if connection is not None else "not connected"
                    yield (
                        f"conversation {conversation.number}, {name}: {party.offset} of {len(party.data)} "
                        f"bytes written, {len(party.received)} read, {state}"
                    )


def run_seed(seed: int, prepare: Callable[[Soak], None] = lambda soak: None) -> SeedResult:
    """Never raises: an exception is a problem like any other. ``prepare`` may add taps beforehand."""
    started_s = time.perf_counter()
    problems: list[str] = []
    soak: Soak | None = None
    try:
        soak = Soak(draw_scenario(seed))
        prepare(soak)
        problems += soak.problems()
    except Exception as error:
        lines = traceback.format_tb(error.__traceback__)
        problems.append(f"{type(error).__name__}: {error}\n{''.join(lines[-3:])}".rstrip())
    received = 0
    if soak is not None:
        received = sum(len(party.received) for each in soak.conversations for _, party in each.parties)
    return SeedResult(
        seed,
        tuple(problems),
        len(soak.conversations) if soak is not None else 0,
        received,
        soak.hosts.simulator.now_us if soak is not None else 0,
        time.perf_counter() - started_s,
    )
