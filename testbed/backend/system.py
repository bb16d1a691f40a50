"""The few system calls that Python 3.11 has no name for, and what /proc tells about processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace behind ``descriptor``. Raises OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(
    source: str, target: str, file_system: str | None = None, flags: int = 0, options: str = ""
) -> None:
    """``mount(2)``. Raises OSError that names the target."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        file_system.encode() if file_system is not None else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(result, target)


def unmount(target: str) -> None:
    """Take a mount away, even a busy one (it goes when its last user does). Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


@contextlib.contextmanager
def network_namespace(descriptor: int | None = None) -> Iterator[None]:
    """Run the block in the network namespace behind ``descriptor``, or back in the own one after it.

    With None the block starts where it is and may ``unshare`` as it likes. Only the calling thread moves; a
    process started in the block stays in the namespace.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with interruptions_deferred():
            try:
                if descriptor is not None:
                    setns(descriptor, CLONE_NEWNET)
                yield
            finally:
                setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


@contextlib.contextmanager
def interruptions_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block is done, then let their handlers run.

    Undoing must not stop half-way because somebody pressed Ctrl-C twice. Only the main thread is ever
    interrupted by Python's signal handlers; elsewhere nothing needs to be held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if caught:
            os.kill(os.getpid(), caught[0])


def effective_capabilities() -> int:
    """The bit mask of the calling process's effective capabilities."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has_capability(number: int) -> bool:
    return bool(effective_capabilities() >> number & 1)


def boot_identifier() -> str:
    """Differs after every boot: process numbers and namespace inodes mean nothing across boots."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None when there is none, or it is a zombie.

    Together with the number it identifies a process for good: numbers are reused, pairs are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_time = fields[0], fields[19]
    return None if state in {"Z", "X"} else int(start_time)


def processes_with_environment(entry: str) -> list[int]:
    """The processes that were started with ``NAME=value`` in their environment, and their forks."""
    needle = b"\0" + entry.encode() + b"\0"
    found = []
    for directory in os.scandir("/proc"):
        if not directory.name.isdigit():
            continue
        try:
            environment = Path(directory.path, "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or somebody else's: not ours either way
        if needle in b"\0" + environment + b"\0":
            found.append(int(directory.name))
    return found


def ancestors() -> set[int]:
    """The calling process and those that it descends from."""
    chain: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in chain:
        chain.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            break
    return chain
