"""What this machine lacks for a run: found by trying, and said as the reason of a SKIP."""

from __future__ import annotations

import errno
import socket
from functools import cache
from pathlib import Path

from testbed.selftests.case import SIMULATED
from testbed.selftests.results import DEFAULT, Run

IPPROTO_MPTCP = 262
_ALLOWED_CONGESTION_CONTROLS = "net/ipv4/tcp_allowed_congestion_control"


def skip_reason(run: Run) -> str | None:
    """Why this run cannot take place on this machine; None when nothing speaks against it."""
    if run.backend == SIMULATED:
        return None
    if "kernel" in (run.client_stack, run.server_stack):
        if reason := kernel_mptcp_missing():
            return reason
        if reason := _kernel_lacks(run):
            return reason
    if run.family == 6 and (reason := ipv6_missing()):
        return reason
    return None


def _kernel_lacks(run: Run) -> str | None:
    for what, name, path in (
        ("scheduler", run.scheduler, "net/mptcp/available_schedulers"),
        ("congestion control", run.congestion_control, "net/ipv4/tcp_available_congestion_control"),
    ):
        if name != DEFAULT and name not in (known := _listed(path)):
            return f"this kernel has no {what} {name!r} (there are {', '.join(known) or 'none'})"
    return _congestion_control_is_kept(run.congestion_control)


def _congestion_control_is_kept(name: str) -> str | None:
    """Why no host of a lab may have it; Linux gives namespaces what its first one allows to everybody."""
    allowed = _listed(_ALLOWED_CONGESTION_CONTROLS)
    if name == DEFAULT or not allowed or name in allowed:
        return None
    return (
        f"this kernel keeps congestion control {name!r} for its first namespace; root may add it to"
        f" {_ALLOWED_CONGESTION_CONTROLS.replace('/', '.')}, which has {', '.join(allowed)}"
    )


@cache
def _listed(path: str) -> tuple[str, ...]:
    try:
        return tuple((Path("/proc/sys") / path).read_text().split())
    except OSError:
        return ()


@cache
def kernel_mptcp_missing() -> str | None:
    """Why there is no kernel MPTCP here, or None.

    MPTCP that is only switched off in this namespace counts as there: new namespaces start with it on.
    """
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        return f"this kernel has no MPTCP (socket: {error.strerror})"
    return None


@cache
def kernel_fast_open_missing() -> str | None:
    """Why the kernel's MPTCP has no Fast Open, or None. Linux has it from 6.2 on."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as probe:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1)
    except OSError as error:
        return f"the kernel's MPTCP has no Fast Open ({error.strerror})"
    return None


@cache
def ipv6_missing() -> str | None:
    """Why there is no IPv6 here, or None."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return f"this kernel has no IPv6 (socket: {error.strerror})"
    return None
