"""Real-time scheduling for threads that play a script on the kernel: a busy machine delays others first."""

from __future__ import annotations

import os

_PRIORITY = 1


def run_before_others() -> None:
    """For the calling thread alone: what it starts runs like others. Nothing where that is not allowed.

    Only for what sleeps nearly always. Whoever computes at this priority keeps the kernel's own threads from
    their work, among them those that MPTCP has its timers and its close done by.
    """
    policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(_PRIORITY))
    except PermissionError:
        return


def run_like_others() -> None:
    """Undoes `run_before_others`."""
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
