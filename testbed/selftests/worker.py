"""A worker process of the selftest runner: one run after the other, each in a lab of its own.

It reads jobs as JSON lines from standard input and writes results as JSON lines to what was standard output;
whatever else in the process prints goes to standard error. SIGTERM undoes the current lab and ends it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from functools import partial
from types import FrameType
from typing import NoReturn

from testbed.selftests.case import SIMULATED
from testbed.selftests.executor import LabOpener, execute
from testbed.selftests.jobs import job_from_json
from testbed.selftests.labs import NamespaceLabs
from testbed.selftests.results import result_to_json
from testbed.selftests.simulated_labs import open_simulated_lab

_PR_SET_PDEATHSIG = 1
INTERRUPTED_STATUS = 130


class Termination:
    """Remembers that SIGTERM came: the exception that it raises may be turned into another on its way up."""

    def __init__(self) -> None:
        self.is_requested = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, _number: int, _frame: FrameType | None) -> NoReturn:
        self.is_requested = True
        sys.exit(INTERRUPTED_STATUS)


def main() -> int:
    """The process's exit code."""
    runner = os.getppid()
    # The runner decides what an interrupt from the terminal means; when it dies, so does this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    termination = Termination()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != runner:
        return INTERRUPTED_STATUS
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with NamespaceLabs() as labs:
        for line in sys.stdin:
            job = job_from_json(json.loads(line))
            if job.run.backend == SIMULATED:
                opener: LabOpener = partial(open_simulated_lab, capture_directory=job.capture_directory)
            else:
                opener = labs.opener(job.lab, job.capture_directory)
            result = execute(job.run, opener, job.timeout_s)
            if termination.is_requested:
                return INTERRUPTED_STATUS
            results.write(json.dumps(result_to_json(result)) + "\n")
            results.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
