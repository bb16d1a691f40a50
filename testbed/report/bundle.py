"""What is kept of a run that failed: a folder with everything that is known of it, in files to look into."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from testbed.report.diagnostics import counter_lines, diagnostics, replay_command
from testbed.report.files import ReportError
from testbed.report.records import RunRecord, record_line
from testbed.selftests.capture_files import file_name
from testbed.selftests.results import Outcome, RunResult


def needs_bundle(result: RunResult) -> bool:
    return result.outcome in (Outcome.FAIL, Outcome.ERROR)


def write_bundle(directory: Path, record: RunRecord) -> Path:
    """Write the folder of one run below ``directory`` and return it. Raises ReportError.

    ``record.jsonl`` is what ``testbed replay`` and ``testbed report`` read; the rest is for people.
    """
    result = record.result
    folder = directory / file_name(result.run.identifier)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _texts(record).items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in map(Path, result.captures):
            # one that could not be taken is told by the run itself
            if path.is_file():
                shutil.copy2(path, folder / path.name)
    except OSError as error:
        raise ReportError(f"cannot write the debug bundle {folder}: {error.strerror or error}") from error
    return folder


def _texts(record: RunRecord) -> dict[str, str]:
    result = record.result
    texts = {
        "record.jsonl": record_line(record),
        "report.txt": _lines([result.run.identifier, *diagnostics(result, record.session_seed)]),
        "replay.txt": _lines([replay_command(result, record.session_seed)]),
        "timeline.txt": _lines([f"{event.at_us / 1e6:10.6f} {event.text}" for event in result.events]),
        "logs.txt": _lines(result.logs),
    }
    if result.topology is not None:
        topology = dataclasses.asdict(result.topology)
        texts["topology.json"] = json.dumps(topology, indent=1, ensure_ascii=False) + "\n"
    for host in result.hosts:
        texts[f"{host.host}.counters.txt"] = _lines(counter_lines(host))
        texts[f"{host.host}.sockets.txt"] = _lines(host.sockets)
    return {name: text for name, text in texts.items() if text}


def _lines(lines: list[str] | tuple[str, ...]) -> str:
    return "".join(line + "\n" for line in lines)
