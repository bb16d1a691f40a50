"""``python -m testbed`` and the ``testbed`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line that the process was started with; returns its exit code."""
    from testbed.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
