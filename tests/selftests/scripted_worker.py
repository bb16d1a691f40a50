"""A worker that the runner's tests start: what it does with a run is the last part of the case's name."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from testbed.selftests.jobs import Job, job_from_json
from testbed.selftests.results import Outcome, RunResult, result_to_json

MEETING = 4
"""Runs that are under way at once before those that meet go on."""


def answer(job: Job) -> None:
    result = RunResult(job.run, Outcome.PASS, reason=job.lab)
    print(json.dumps(result_to_json(result)), flush=True)


def main() -> None:
    """The first argument is a file that tells the test what happened here."""
    diary = Path(sys.argv[1])

    def note(text: str) -> None:
        with diary.open("a") as file:
            file.write(text + "\n")

    def leave(_number: int, _frame: object) -> None:
        note("asked to end")
        sys.exit(130)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        job = job_from_json(json.loads(line))
        note(f"{os.getpid()} {job.run.identifier}")
        match job.run.case.rpartition("/")[2]:
            case "dies":
                print("last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.pause()
            case "waits":
                signal.pause()
            case "meets" | "aside-meets":
                while len(diary.read_text().splitlines()) < MEETING:
                    os.sched_yield()
                answer(job)
            case "babbles":
                print("this is no result", flush=True)
            case _:
                answer(job)


if __name__ == "__main__":
    main()
