"""Probes try and report; whatever happens in one, the next one runs and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from testbed.backend import capabilities
from testbed.backend.capabilities import PROBES, Probe, probe


def finish(text: str) -> Callable[[], str]:
    return lambda: text


def crash() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def refuse() -> NoReturn:
    raise OSError("not here\nand a second line")


def hang() -> str:
    signal.pause()
    return "woke"


@pytest.mark.parametrize(
    ("try_it", "works", "detail"),
    [
        (finish("fine"), True, "fine"),
        (refuse, False, "not here"),
        (crash, False, "the probe crashed"),
        (hang, False, "no answer within 0.05 s"),
    ],
)
def test_every_end_of_a_probe_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, try_it: Callable[[], str], works: bool, detail: str
) -> None:
    if try_it is hang:
        monkeypatch.setattr(capabilities, "_PROBE_TIMEOUT_S", 0.05)
    finding = probe(Probe("some", try_it, "nothing", is_essential=True, needs_namespaces=False))
    assert (finding.works, finding.detail, finding.is_essential) == (works, detail, True)


@pytest.mark.root
@pytest.mark.parametrize("item", [item for item in PROBES if item.is_essential], ids=lambda item: item.name)
def test_what_every_lab_needs_works_where_labs_work(item: Probe) -> None:
    finding = probe(item)
    assert finding.works, finding.detail


@pytest.mark.root
def test_probes_happen_somewhere_else() -> None:
    here = Path("/proc/self/ns/net")
    before = str(here.readlink())
    finding = probe(Probe("where", lambda: str(here.readlink()), ""))
    assert finding.works
    assert finding.detail != before == str(here.readlink())


@pytest.mark.parametrize("item", PROBES, ids=lambda item: item.name)
def test_every_probe_says_what_its_failure_means(item: Probe) -> None:
    assert item.meaning
