"""Captures of a simulated lab: every packet as it was sent, and in a comment what befell it."""

from __future__ import annotations

from functools import partial

from mptcp_stack.device.capture import Direction
from mptcp_stack.device.in_memory import Wire
from mptcp_stack.wire.frame import Frame
from testbed.backend.simulated.lab import SimulatedLab
from testbed.selftests.capture_files import CaptureError, CaptureFiles, LinkFile
from testbed.selftests.key_log import KeyLog


def capture(lab: SimulatedLab, files: CaptureFiles) -> None:
    """Write what the links of the lab carry from now on. Virtual time 0 is the beginning of 1970."""
    for file in files.links:
        for wire, direction in lab.wires(file.link.first):
            wire.observer = partial(_write, file, files.keys, wire, direction)


def _write(
    file: LinkFile,
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
    comment = "" if is_usual else f"{wire.name}: {fate}"
    try:
        file.writer.write(0, frame, now_us * 1000, direction, comment=comment)
    except OSError as error:
        raise CaptureError(f"cannot capture {wire.name} into {file.path}: {error.strerror}") from error
