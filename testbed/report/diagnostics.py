"""What a report says about one run that did not pass, as lines of text."""

from __future__ import annotations

from itertools import groupby

from testbed.selftests.results import HostRecord, Outcome, RunResult


def diagnostics(result: RunResult, session_seed: int) -> list[str]:
    """Everything worth knowing about a failure: what did not hold, both ends, and how to see it again."""
    lines = [*result.reason.splitlines(), *(str(check) for check in result.failed_checks())]
    lines += unchecked(result)
    lines += result.notes
    for host in result.hosts:
        lines += _host_lines(host)
    lines += [f"capture: {path}" for path in result.captures]
    lines.append(f"repeat with: {replay_command(result, session_seed)}")
    return lines


def unchecked(result: RunResult) -> list[str]:
    """One line per reason why something was not checked."""
    if result.outcome is Outcome.SKIP and result.reason:
        return []
    skipped = sorted(result.skipped_checks(), key=lambda check: check.reason)
    return [
        f"not checked, {reason}: " + ", ".join(check.subject for check in checks)
        for reason, checks in groupby(skipped, key=lambda check: check.reason)
    ]


def counter_lines(host: HostRecord) -> list[str]:
    """The counters that moved, one a line, or that none did."""
    moved = host.moved_counters()
    if not moved:
        return ["none moved"]
    width = max(map(len, moved))
    return [f"{name:<{width}} {delta:+d}" for name, delta in moved.items()]


def replay_command(result: RunResult, session_seed: int) -> str:
    """The command line that plays this very run again."""
    return result.run.replay_command(session_seed)


def _host_lines(host: HostRecord) -> list[str]:
    lines = [f"{host.host} ({host.stack}) counters:", *(f"  {line}" for line in counter_lines(host))]
    if host.sockets:
        lines += [f"{host.host} ({host.stack}) sockets:", *(f"  {line}" for line in host.sockets)]
    return lines
