"""Counters under nstat's names: read from the kernel's tables, subtracted, printed in nstat's columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_SELF_NETWORK = Path("/proc/thread-self/net")
"""The tables of the network namespace that the calling thread is in."""

GAUGES = frozenset({"TcpCurrEstab", "MPTcpExtMPCurrEstab"})
"""They say how many there are now, not how many events there were: a difference may be negative."""

_SETTINGS = frozenset("IpForwarding IpDefaultTTL TcpRtoAlgorithm TcpRtoMin TcpRtoMax TcpMaxConn".split())
"""In the same tables, but nothing that counts; nstat leaves them out as well."""


def parse_two_line_table(text: str) -> dict[str, int]:
    """``/proc/net/netstat`` and ``/proc/net/snmp``: a line of names, a line of values, one prefix each."""
    counters: dict[str, int] = {}
    lines = text.splitlines()
    for names_line, values_line in zip(lines[::2], lines[1::2], strict=False):
        prefix, _, names = names_line.partition(":")
        _, _, values = values_line.partition(":")
        for name, value in zip(names.split(), values.split(), strict=False):
            counters[prefix + name] = int(value)
    return counters


def parse_name_value_table(text: str) -> dict[str, int]:
    """``/proc/net/snmp6``: a name and a value a line."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def read_kernel_counters(network: Path = _SELF_NETWORK) -> dict[str, int]:
    """All counters of a network namespace. Raises OSError."""
    counters = parse_two_line_table((network / "snmp").read_text())
    # A kernel without IPv6 has no such table.
    with suppress(FileNotFoundError):
        counters |= parse_name_value_table((network / "snmp6").read_text())
    counters |= parse_two_line_table((network / "netstat").read_text())
    return {name: value for name, value in counters.items() if name not in _SETTINGS}


def subtract(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What was counted in between. A counter that only ``after`` has counts from zero."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


def without_zeros(counters: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in counters.items() if value}


def format_columns(counters: Mapping[str, int]) -> str:
    """As ``nstat -asz`` prints them; the last column is a rate that only a daemon would know."""
    lines = ["#kernel"]
    lines += [f"{name:<32}{value:<16}{0.0:6.1f}" for name, value in counters.items()]
    return "\n".join(lines)


def format_json(counters: Mapping[str, int]) -> str:
    """As ``nstat --json`` prints them."""
    return json.dumps({"kernel": dict(counters)})
