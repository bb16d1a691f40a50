"""``python -m testbed`` and the ``testbed`` command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line that the process was started with; returns its exit code."""
    # Until the command line can say that it was interrupted, an interrupt ends it without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_what_is_closed()
    from testbed.cli import run

    code = run(sys.argv[1:])
    # The interpreter's own end takes longer than it seems, and an interrupt there would turn a finished
    # command into one that seems to have failed.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    return code


def _open_what_is_closed() -> None:
    """Standard streams that the caller has closed: else the next file or socket would take their numbers."""
    for number, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
