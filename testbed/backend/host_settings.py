"""Kernel settings of a node's namespace: what every lab needs, and what a topology asks for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from testbed.errors import CapabilityError, LabError, UsageError
from testbed.topology.model import Node, NodeKind, StackKind, Topology

_SYSCTL_ROOT = Path("/proc/sys")

_COMMON_SYSCTLS: tuple[tuple[str, str], ...] = (
    # Without duplicate address detection an address works at once; an IPv6 join would wait a second for it.
    # These must be set before the first link exists.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/dad_transmits", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    # An address survives its link going down and up again, as IPv4 addresses do.
    ("net/ipv6/conf/all/keep_addr_on_down", "1"),
    ("net/ipv6/conf/default/keep_addr_on_down", "1"),
    # An address that was there first takes others of its network along only if it is told to.
    ("net/ipv4/conf/all/promote_secondaries", "1"),
    ("net/ipv4/conf/default/promote_secondaries", "1"),
    # Several paths to one host are the point here: the reverse path is often another one.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
)
_ROUTER_SYSCTLS = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/forwarding", "1"),
)
_NO_IPV6_SYSCTLS = (("net/ipv6/conf/default/disable_ipv6", "1"),)
_CONGESTION_CONTROL = "net/ipv4/tcp_congestion_control"
_MPTCP_SWITCH = "net/mptcp/enabled"
_SETTING_NAME = re.compile(r"net(?:[./][A-Za-z0-9_:-]+)+")


def check_settings(topology: Topology) -> None:
    """Raises CapabilityError or UsageError for what this machine or any namespace cannot offer."""
    has_mptcp = (_SYSCTL_ROOT / _MPTCP_SWITCH).exists()
    kernel_hosts = [node.name for node in topology.hosts() if node.stack is StackKind.KERNEL]
    if kernel_hosts and not has_mptcp:
        raise CapabilityError(
            f"this kernel has no MPTCP (CONFIG_MPTCP), which {', '.join(kernel_hosts)} would need:"
            " give these hosts 'stack: userspace'"
        )
    problems = [
        f"{node.name}: '{name}' is not a setting of a network namespace (they begin with 'net.')"
        for node in topology.nodes
        for name, _value in node.sysctls
        if not _SETTING_NAME.fullmatch(name)
    ]
    if problems:
        raise UsageError("\n".join(problems))


def apply_basic_settings(node: Node) -> None:
    """Prepare the new namespace that the calling thread is in, before any link exists in it."""
    settings = list(_COMMON_SYSCTLS)
    if node.kind is NodeKind.ROUTER:
        settings += _ROUTER_SYSCTLS
    if node.is_bridge or node.stack is StackKind.USERSPACE:
        settings += _NO_IPV6_SYSCTLS
    for name, value in settings:
        _write(name, value)
    if node.stack in {StackKind.KERNEL, StackKind.TCP}:
        _choose_congestion_control()
        _write(_MPTCP_SWITCH, "1" if node.stack is StackKind.KERNEL else "0")


def _choose_congestion_control() -> None:
    """A machine whose own default is another one may reserve cubic for its first namespace (EPERM)."""
    try:
        _write(_CONGESTION_CONTROL, "cubic")
    except (FileNotFoundError, PermissionError):
        _write(_CONGESTION_CONTROL, "reno")


def apply_topology_settings(node: Node) -> None:
    """Set the node's own sysctls in the namespace that the calling thread is in. Raises LabError.

    The agent of a userspace host takes them to its stack instead.
    """
    if node.stack is StackKind.USERSPACE:
        return
    for name, value in node.sysctls:
        path = name if "/" in name else name.replace(".", "/")
        try:
            _write(path, value, must_exist=True)
        except OSError as error:
            hint = ""
            if path == _CONGESTION_CONTROL and isinstance(error, PermissionError):
                hint = "; net.ipv4.tcp_allowed_congestion_control of this machine does not list it"
            raise LabError(f"{node.name}: cannot set {name} to '{value}': {error.strerror}{hint}") from error


def _write(name: str, value: str, *, must_exist: bool = False) -> None:
    """A kernel built without IPv6 or MPTCP lacks their settings, and needs them not."""
    try:
        descriptor = os.open(_SYSCTL_ROOT / name, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if must_exist:
            raise
        return
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
