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

from testbed.selftests.executor import execute
from testbed.selftests.jobs import job_from_json
from testbed.selftests.labs import NamespaceLabs
from testbed.selftests.results import result_to_json

_PR_SET_PDEATHSIG = 1
INTERRUPTED_STATUS = 130


def main() -> int:
    """The process's exit code."""
    runner = os.getppid()
    # The runner decides what an interrupt from the terminal means; when it dies, so does this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(INTERRUPTED_STATUS))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != runner:
        return INTERRUPTED_STATUS
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with NamespaceLabs() as labs:
        for line in sys.stdin:
            job = job_from_json(json.loads(line))
            result = execute(job.run, labs.opener(job.lab, job.capture_directory), job.timeout_s)
            open(f"/tmp/wdbg-{os.getpid()}","a").write(result.outcome+" "+result.reason+"\n")
            results.write(json.dumps(result_to_json(result)) + "\n")
            results.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
