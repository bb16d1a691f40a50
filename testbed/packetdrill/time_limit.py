"""Ends a script that takes too long from within, so that the message can name its line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.errors import ExitCode, TestbedError


class TimeLimitError(TestbedError):
    """Raised in whatever runs when the time is up."""

    exit_code = ExitCode.FAIL


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """For the main thread, once at a time; None is no limit."""
    if seconds is None:
        yield
        return

    def give_up(_number: int, _frame: object) -> None:
        raise TimeLimitError(f"the script did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    # Somebody else's timer goes on afterwards with what it had left.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
