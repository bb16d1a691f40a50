"""Captures of a simulated lab: every packet as it was sent, and in a comment what befell it."""

from __future__ import annotations

from functools import partial

from mptcp_stack.device.capture import CaptureWriter, Direction
from mptcp_stack.device.in_memory import Wire
from mptcp_stack.wire.frame import Frame
from testbed.backend.simulated.lab import SimulatedLab
from testbed.selftests.capture_files import CaptureFiles
from testbed.selftests.key_log import KeyLog


def capture(lab: SimulatedLab, files: CaptureFiles) -> None:
    """Write what the links of the lab carry from now on. Virtual time 0 is the beginning of 1970."""
    for file in files.links:
        for wire, direction in lab.wires(file.link.first):
            wire.observer = partial(_write, file.writer, files.keys, wire, direction)


def _write(
    writer: CaptureWriter,
    keys: KeyLog,
    wire: Wire,
    direction: Direction,
    now_us: int,
    data: bytes,
    fate: str,
) -> None:
    frame = Frame(data)
    keys.look(frame)
    is_usual = fate.startswith("arrives at") and "," not in fate
    writer.write(0, frame, now_us * 1000, direction, comment="" if is_usual else f"{wire.name}: {fate}")
