"""Calibrations as JSON, and as the table of ``docs/fidelity.md``: runs on several machines side by side."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.calibration.measure import Calibration
from testbed.calibration.verdict import Comparison
from testbed.errors import UsageError
from testbed.topology.impairments import impairment_text


@dataclass(frozen=True, slots=True)
class Run:
    """One grid, measured: where, how, and what was found for each impairment."""

    machine: str
    realised_by: str
    packets: int
    cells: Mapping[str, tuple[Comparison, ...]]

    @property
    def name(self) -> str:
        return f"{self.realised_by}, {self.machine.partition(',')[0]}"


def machine() -> str:
    """The kernel, the processors as it names them (emulated ones say so), and the interpreter."""
    return (
        f"Linux {platform.release()}, {os.cpu_count()} × {_processor()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_of(results: Sequence[Calibration]) -> Run:
    """What was measured here and now."""
    return Run(
        machine(),
        ", ".join(sorted({result.realised_by for result in results})),
        max(result.packets for result in results),
        {cell_name(result): result.comparisons for result in results},
    )


def cell_name(result: Calibration) -> str:
    return impairment_text(result.impairment)


def to_object(result: Calibration) -> dict[str, object]:
    """One direction as JSON."""
    return {
        "sender": str(result.sender),
        "receiver": str(result.receiver),
        "impairment": cell_name(result),
        "realised_by": result.realised_by,
        "machine": machine(),
        "packets": result.packets,
        "is_met": result.is_met,
        "comparisons": [asdict(each) | {"is_met": each.is_met} for each in result.comparisons],
    }


def read_run(file: str) -> Run:
    """What ``testbed calibrate --grid --json`` printed on another machine. Raises UsageError."""
    try:
        objects = json.loads(Path(file).read_text(encoding="utf-8"))
        return Run(
            str(objects[0]["machine"]),
            ", ".join(sorted({each["realised_by"] for each in objects})),
            max(each["packets"] for each in objects),
            {each["impairment"]: tuple(map(_comparison, each["comparisons"])) for each in objects},
        )
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: not what 'testbed calibrate --grid --json' prints") from error


def _comparison(data: Mapping[str, object]) -> Comparison:
    asked, achieved, lowest, highest = (
        float(str(data[name])) for name in ("asked", "achieved", "lowest", "highest")
    )
    return Comparison(str(data["quantity"]), str(data["unit"]), asked, achieved, lowest, highest)


def markdown(runs: Sequence[Run]) -> str:
    """The table; what was asked and what is allowed are the first run's."""
    headings = ["Asked", "Quantity", "Asked for", "Allowed", *(run.name for run in runs)]
    lines = [
        *(_circumstances(run) for run in runs),
        "",
        f"| {' | '.join(headings)} |",
        "|-|-" + "|-:" * (len(headings) - 2) + "|",
    ]
    for cell, comparisons in runs[0].cells.items():
        text = cell
        for each in comparisons:
            allowed = f"{each.lowest:.3f} to {each.highest:.3f}"
            achieved = " | ".join(_achieved(run, cell, each.quantity) for run in runs)
            lines.append(
                f"| {text} | {each.quantity} ({each.unit}) | {each.asked:.3f} | {allowed} | {achieved} |"
            )
            text = ""
    return "\n".join([*lines, "", *(f"* {run.name}: {_summary(run)}" for run in runs)])


def _achieved(run: Run, cell: str, quantity: str) -> str:
    for each in run.cells.get(cell, ()):
        if each.quantity == quantity:
            return f"{each.achieved:.3f}" if each.is_met else f"**{each.achieved:.3f}**, missed"
    return "not measured"


def _circumstances(run: Run) -> str:
    return (
        f"* {run.realised_by}: with up to {run.packets} packets a cell, as many as its rate lets through in"
        f" four seconds; {run.machine}."
    )


def _summary(run: Run) -> str:
    met = sum(all(each.is_met for each in comparisons) for comparisons in run.cells.values())
    off_ms = list(_delays_off_ms(run))
    return (
        f"{met} of {len(run.cells)} cells met. Mean delays are off by {statistics.median(off_ms):.3f} ms"
        f" in the median cell and by {max(off_ms):.3f} ms in the worst one."
    )


def _delays_off_ms(run: Run) -> Iterator[float]:
    for comparisons in run.cells.values():
        for each in comparisons:
            if each.quantity == "delay":
                yield abs(each.achieved - each.asked)
