"""The timeline of a lab that is up: its events, each when it is due, and a note of what happened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from testbed.backend.lab import Lab
from testbed.errors import LabError, TestbedError
from testbed.topology.events import event_text, topology_after
from testbed.topology.model import BoxesChanged, Event, LinkImpaired, LinkSet

_FILE_NAME = "events.jsonl"


@dataclass(frozen=True, slots=True)
class Happened:
    """An event that has been carried out, or could not be."""

    due_us: int
    at_us: int
    """When it was done, in the same time."""
    text: str
    problem: str = ""


def carry_out(lab: Lab, event: Event) -> None:
    """Raises TestbedError where it cannot happen."""
    match event:
        case LinkSet():
            lab.set_link(event.end.node, event.end.interface, event.up)
        case LinkImpaired():
            lab.links.put_at(str(event.end), event.forward, event.backward)
        case BoxesChanged():
            lab.links.put_boxes(lab.links.link_at(str(event.end)), event.boxes)
        case _:
            try:
                lab.reconfigure(topology_after(lab.topology, event))
            except ValueError as error:
                raise LabError(str(error)) from None


def run_events(lab: Lab, wait: Callable[[float], object] | None = None) -> Iterator[Happened]:
    """Carry out all events of the lab's topology; its time begins now. Yields each as it has happened.

    One that fails does not keep the others from happening. ``wait`` is given seconds.
    """
    wait = wait or threading.Event().wait
    began_ns = time.monotonic_ns()

    def now_us() -> int:
        return (time.monotonic_ns() - began_ns) // 1000

    with _notes_of_one_run(lab) as notes:
        for event in lab.topology.events:
            wait(max(0, event.at_us - now_us()) / 1_000_000)
            problem = ""
            try:
                carry_out(lab, event)
            except TestbedError as error:
                problem = str(error)
            happened = Happened(event.at_us, now_us(), event_text(event), problem)
            notes.write(json.dumps(asdict(happened)) + "\n")
            notes.flush()
            yield happened


@contextlib.contextmanager
def _notes_of_one_run(lab: Lab) -> Iterator[TextIO]:
    """The file that a run of the events notes them in, emptied. Raises LabError while another run goes on."""
    with (lab.directory / _FILE_NAME).open("a", encoding="utf-8") as notes:
        try:
            # Given back when the file is closed, however the process ends.
            fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"the events of lab '{lab.name}' are happening already") from None
        notes.truncate(0)
        yield notes


def happened_so_far(directory: Path) -> list[Happened]:
    """What the last run of a lab's events has noted; nothing where there was none. Raises LabError."""
    try:
        text = (directory / _FILE_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"{directory / _FILE_NAME}: {error.strerror}") from error
    # The last line may be under way.
    return [Happened(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]
