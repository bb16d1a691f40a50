"""The kernel's MPTCP sockets: listeners by the filters of sock_diag, through ss(8); how many are in use."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed.host.host_stack import HostStackError
from testbed.host.protocol import ListenerMatch

_LIMIT_S = 5
_SOCKETS_COLUMN = 2


def matching_listeners(match: ListenerMatch) -> list[str]:
    """Raises HostStackError where there is no ss that knows MPTCP."""
    conditions: list[str] = []
    if match.local_address is not None:
        shown = f"[{match.local_address}]" if ":" in match.local_address else match.local_address
        conditions.append(f"src {shown}")
    for name, port in (("sport", match.local_port), ("dport", match.remote_port)):
        if port is not None:
            conditions.append(f"{name} = :{port}")
    arguments = ["ss", "-HMnl", *" and ".join(conditions).split()]
    try:
        finished = subprocess.run(arguments, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostStackError(f"ss: {error}") from None
    if finished.returncode:
        raise HostStackError(f"ss: {finished.stderr.strip()}")
    return [" ".join(line.split()) for line in finished.stdout.splitlines()]


def sockets_in_use() -> int:
    """Of both families. Raises HostStackError."""
    try:
        lines = Path("/proc/thread-self/net/protocols").read_text().splitlines()
    except OSError as error:
        raise HostStackError(f"protocols: {error}") from None
    columns = [line.split() for line in lines]
    return sum(int(each[_SOCKETS_COLUMN]) for each in columns if each[0] in ("MPTCP", "MPTCPv6"))
