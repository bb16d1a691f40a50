"""What the runner asks of its workers, and how it is written down on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testbed.selftests.results import Run, run_from_json, run_to_json


@dataclass(frozen=True, slots=True)
class Job:
    """What the runner asks of a worker."""

    run: Run
    lab: str
    """The name that the lab shall have."""
    timeout_s: float
    capture_directory: str | None = None


def job_to_json(job: Job) -> dict[str, Any]:
    return {
        "run": run_to_json(job.run),
        "lab": job.lab,
        "timeout_s": job.timeout_s,
        "capture_directory": job.capture_directory,
    }


def job_from_json(document: dict[str, Any]) -> Job:
    return Job(**{**document, "run": run_from_json(document["run"])})
