"""``--needs=mptcp,linux-6.1,…``: what a script takes for granted; where it is not there, it is skipped."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

from mptcp_stack.settings import SYSCTL_NAMES
from testbed.packetdrill.constants import KNOWN_NEEDS
from testbed.packetdrill.errors import quoted
from testbed.selftests.environment import ipv6_missing, kernel_mptcp_missing

_FORMS = re.compile(
    r"mptcp|ipv6|linux-\d{1,4}(\.\d{1,4}){0,2}|sysctl:[a-z_][\w-]*(\.[\w-]+)+|program:[\w.+-]+", re.ASCII
)


def complaint_about_needs(text: str) -> str | None:
    """What is wrong with the value of the option; None if nothing is."""
    for need in text.split(","):
        if not _FORMS.fullmatch(need):
            return f"{quoted(need)} is none of {KNOWN_NEEDS}"
    return None


def missing_need(text: str, stack_name: str) -> str | None:
    """The first of the needs that is not met, in words; None if all are.

    The bundled stack has what it has whatever the machine is: only its settings are looked at.
    """
    missing = _missing_in_kernel if stack_name == "kernel" else _missing_in_bundled_stack
    return next((reason for need in text.split(",") if (reason := missing(need)) is not None), None)


def _missing_in_bundled_stack(need: str) -> str | None:
    kind, _, name = need.partition(":")
    if kind == "sysctl" and name not in SYSCTL_NAMES:
        return f"the bundled stack has no {name}"
    return None


def _missing_in_kernel(need: str) -> str | None:
    kind, _, name = need.partition(":")
    match kind:
        case "mptcp":
            return kernel_mptcp_missing()
        case "ipv6":
            return ipv6_missing()
        case "sysctl":
            there = Path("/proc/sys", *name.split(".")).exists()
            return None if there else f"this kernel has no {name}"
        case "program":
            return None if shutil.which(name) else f"this machine lacks the program {name}"
        case _:
            wanted = kind.removeprefix("linux-")
            release = platform.release()
            return (
                None if _numbers(release) >= _numbers(wanted) else f"Linux {release} is older than {wanted}"
            )


def _numbers(version: str) -> list[int]:
    found = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in found[0].split(".")] if found else []
