"""``python -m testbed`` and the ``testbed`` command."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line that the process was started with; returns its exit code."""
    # Until the command line can say that it was interrupted, an interrupt ends it without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from testbed.cli import run

    code = run(sys.argv[1:])
    # The interpreter's own end takes longer than it seems, and an interrupt there would turn a finished
    # command into one that seems to have failed.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    return code


if __name__ == "__main__":
    sys.exit(main())
