"""A few hundred seeds of the soak, always the same; ``make soak`` runs thousands."""

from __future__ import annotations

import hashlib

import pytest

from mptcp_stack.wire.frame import Frame
from testbed.soak.run import Soak, run_seed
from testbed.soak.session import failure_text

SEEDS = 320
BATCHES = 8


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_is_sent_arrives_and_nothing_is_left(batch: int) -> None:
    results = [run_seed(seed) for seed in range(batch, SEEDS, BATCHES)]
    failures = [failure_text(result) for result in results if result.problems]
    assert not failures, "\n".join(failures)
    assert sum(result.bytes_received for result in results) > 100_000


ONCE_FAILED = {
    5933: "a fallback after the window was probed at data level",
    216825020: "the same amid such a probe, which is damaged",
    216823055: "a client that is gone before it is accepted, and nothing of which tells the server",
    771476890: "a join under way when damaged data is told by MP_FAIL",
    771479876: "the same, with data in both directions",
    771478563: "a fallback while a mapping was half there",
    600000228: "windows beside a DATA_ACK after the fallback",
    1234532056: "both ends find damage, and neither has data left for an infinite mapping",
    771482819: "no acknowledgement comes through until TIME_WAIT is over",
    771484579: "after a close no data comes through until the close timeout",
    1234524836: "no data comes through until the sender gives up",
    1234525385: "the last endpoint is withdrawn after the other path has died",
}


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_seeds_that_once_failed(seed: int) -> None:
    """``ONCE_FAILED`` says what each is about."""
    result = run_seed(seed)
    assert not result.problems, failure_text(result)


def test_a_seed_is_the_same_packets_again() -> None:
    def packets(seed: int) -> str:
        digest = hashlib.sha256()

        def prepare(soak: Soak) -> None:
            soak.hosts.simulator.add_tap(note)

        def note(now_us: int, wire: str, direction: str, frame: Frame) -> None:
            digest.update(f"{now_us} {wire} {direction} ".encode() + frame.to_bytes())

        run_seed(seed, prepare)
        return digest.hexdigest()

    assert packets(5) == packets(5)
    assert packets(5) != packets(6)
