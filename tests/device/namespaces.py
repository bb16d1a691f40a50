"""Throw-away network namespaces for the tests that need the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def missing() -> str | None:
    """Why namespaces cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "creating network namespaces needs root"
    if shutil.which("ip") is None:
        return "the ip command is not installed"
    return None


def run(*words: str) -> str:
    """A command's output; AssertionError with its message when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A new network namespace with a unique name, removed at the end."""
    name = f"mpt-test-{os.getpid()}-{next(_numbers)}"
    run("ip", "netns", "add", name)
    try:
        # No tentative state and no router solicitations of the kernel's own.
        with inside(name):
            for setting in ("accept_dad", "dad_transmits", "router_solicitations", "accept_ra"):
                for scope in ("all", "default"):
                    Path(f"/proc/sys/net/ipv6/conf/{scope}/{setting}").write_text("0")
        yield name
    finally:
        run("ip", "netns", "del", name)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the block's code, on this thread, in a namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as own, Path(f"/run/netns/{name}").open() as other:
        assert library.setns(other.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert library.setns(own.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def veth_pair() -> Iterator[tuple[str, str]]:
    """Two namespaces; in each, one end of a veth pair named ``veth0``, up.

    The first is for a stack of ours: the kernel has no addresses there. The second is the kernel's, with
    10.99.0.2/24 and fd99::2/64.
    """
    with namespace() as ours, namespace() as theirs:
        run("ip", "-n", ours, "link", "add", "veth0", "type", "veth", "peer", "veth0", "netns", theirs)
        with inside(ours):
            Path("/proc/sys/net/ipv6/conf/veth0/disable_ipv6").write_text("1")
        run("ip", "-n", theirs, "addr", "add", "10.99.0.2/24", "dev", "veth0")
        run("ip", "-n", theirs, "addr", "add", "fd99::2/64", "dev", "veth0", "nodad")
        for name in (ours, theirs):
            run("ip", "-n", name, "link", "set", "veth0", "up")
        yield ours, theirs
