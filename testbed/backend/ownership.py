"""What is ours: a journal per lab, written before each thing is made, and how all of it is undone.

A lab lives in ``<runtime root>/<lab>/``. Its ``journal`` holds JSON lines: first who made the lab, then one
record per thing *before* it is made. Each record carries what tells the thing from a foreign one of the same
name: a namespace its inode, a process its start time; processes carry the lab's tag in their environment as
well, so that one which was forked in the instant before a crash is found too. Whatever the journal does not
name, or what no longer bears the mark, is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.backend.runtime import NAMESPACE_DIRECTORY, runtime_root, runtime_root_path
from testbed.backend.system import (
    ancestors,
    boot_identifier,
    interruptions_deferred,
    process_start_time,
    processes_with_environment,
    unmount,
)
from testbed.errors import LabError, UsageError

TAG_VARIABLE = "MPTCP_TESTBED_LAB"
"""Every process of a lab has this in its environment, with the lab's random tag as the value."""

JOURNAL_VERSION = 1
_JOURNAL = "journal"
_LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TERMINATE_SECONDS = 1.0
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """A named network namespace: its node, its path, and the inode that makes it that very namespace."""

    node: str
    path: Path
    inode: int


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    role: str
    pid: int
    start_time: int

    def is_alive(self) -> bool:
        return process_start_time(self.pid) == self.start_time


@dataclass(slots=True)
class LabRecord:
    """What a lab's journal says."""

    name: str
    directory: Path
    tag: str
    owner: ProcessRecord
    boot: str
    persistent: bool
    rootless: bool
    topology: str
    created_at: float
    """Seconds since the epoch."""
    is_complete: bool = False
    """Whether ``up`` came to its end."""
    session: str | None = None
    """The tag of the launcher that the lab shared with others of the same owner."""
    namespaces: dict[str, NamespaceRecord] = field(default_factory=dict)
    processes: list[ProcessRecord] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What marks a process as the lab's."""
        return {TAG_VARIABLE: self.tag}

    def fault(self) -> str | None:
        """Why nobody can use this lab any more, or None while somebody can."""
        if self.boot != boot_identifier():
            return "the machine was restarted"
        owner_is_alive = self.owner.is_alive()
        if not self.is_complete:
            return None if owner_is_alive else "its 'up' was killed half-way"
        if not self.persistent and not owner_is_alive:
            return "the run that owned it was killed"
        for process in self.processes:
            if not process.is_alive():
                return f"its process {process.role} ({process.pid}) died"
        return None

    @property
    def state(self) -> str:
        if self.fault() is not None:
            return "broken"
        return "up" if self.is_complete else "building"


class Journal:
    """The writing side. Records are on the disk when :meth:`append` returns."""

    def __init__(self, directory: Path, tag: str) -> None:
        self.directory = directory
        self.tag = tag
        self._descriptor = os.open(
            directory / _JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )

    def append(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write all records, then wait once until they are stored. Raises LabError, e.g. on a full disk."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        try:
            remaining = memoryview(text.encode())
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise LabError(f"cannot write the journal in {self.directory}: {error.strerror}") from error

    def namespaces(self, records: Sequence[NamespaceRecord]) -> None:
        """To be called before the namespaces get their names."""
        self.append(
            [
                {"record": "namespace", "node": record.node, "path": str(record.path), "inode": record.inode}
                for record in records
            ]
        )

    def processes(self, roles: Mapping[str, int]) -> None:
        """Name processes that bear the lab's tag already, so that their death is noticed. Role → pid."""
        records: list[dict[str, object]] = []
        for role, pid in roles.items():
            start_time = process_start_time(pid)
            if start_time is None:
                raise LabError(f"{role} (process {pid}) died at once; see {self.directory}")
            records.append({"record": "process", "role": role, "pid": pid, "start_time": start_time})
        self.append(records)

    def complete(self) -> None:
        self.append([{"record": "complete"}])

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def check_lab_name(name: str) -> None:
    """Raises UsageError for a name that could not be part of a path or of a namespace's name."""
    if not _LAB_NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is no name for a lab: use up to 32 of a-z, 0-9, '-' and '_', and begin with a letter"
            " or a digit"
        )


def begin(
    name: str, *, topology: str, persistent: bool, rootless: bool, session: str | None = None
) -> Journal:
    """Make the lab's directory with its journal in one step. Raises LabError when the name is taken."""
    check_lab_name(name)
    root = runtime_root()
    tag = f"{name}-{secrets.token_hex(8)}"
    pid = os.getpid()
    header = {
        "record": "lab",
        "version": JOURNAL_VERSION,
        "name": name,
        "tag": tag,
        "owner": pid,
        "owner_start_time": process_start_time(pid),
        "boot": boot_identifier(),
        "persistent": persistent,
        "rootless": rootless,
        "session": session,
        "topology": topology,
        "created_at": time.time(),
    }
    # Built under a name of its own and then renamed, there is no instant with a lab but without a journal.
    preparation = root / f".new-{pid}-{secrets.token_hex(4)}"
    preparation.mkdir(mode=0o700)
    try:
        journal = Journal(preparation, tag)
        try:
            journal.append([header])
            journal.directory = root / name
            preparation.rename(journal.directory)
        except BaseException:
            journal.close()
            raise
    except OSError as error:
        raise _name_is_taken(name, error) from error
    finally:
        if preparation.exists():
            shutil.rmtree(preparation)
    return journal


def _name_is_taken(name: str, error: OSError) -> LabError:
    with contextlib.suppress(LabError):
        fault = read_lab(name).fault()
        if fault is None:
            return LabError(f"lab '{name}' exists already; 'testbed down {name}' takes it down")
        return LabError(f"lab '{name}' was left behind ({fault}); 'testbed clean' removes it")
    return LabError(f"cannot make the directory of lab '{name}': {error.strerror}")


def read_lab(name: str) -> LabRecord:
    """Raises LabError when there is no such lab, or its journal is damaged."""
    check_lab_name(name)
    directory = runtime_root_path() / name
    try:
        text = (directory / _JOURNAL).read_text()
    except FileNotFoundError:
        raise LabError(f"there is no lab '{name}'; 'testbed list' shows those that are up") from None
    except OSError as error:
        raise LabError(f"cannot read the journal of lab '{name}': {error.strerror}") from error
    record: LabRecord | None = None
    for entry in _entries(text):
        record = _add_entry(record, entry, directory)
    if record is None:
        raise LabError(f"the journal in {directory} is empty or damaged; look at it and remove the directory")
    return record


def _entries(text: str) -> Iterator[dict[str, Any]]:
    """The journal's records. A last line without its end was never acted upon."""
    for line in text.split("\n")[:-1]:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _add_entry(record: LabRecord | None, entry: dict[str, Any], directory: Path) -> LabRecord | None:
    match entry.get("record"):
        case "lab":
            return LabRecord(
                name=entry["name"],
                directory=directory,
                tag=entry["tag"],
                owner=ProcessRecord("owner", entry["owner"], entry["owner_start_time"]),
                boot=entry["boot"],
                persistent=entry["persistent"],
                rootless=entry["rootless"],
                topology=entry["topology"],
                created_at=entry["created_at"],
                session=entry["session"],
            )
        case "namespace" if record is not None:
            namespace = NamespaceRecord(entry["node"], Path(entry["path"]), entry["inode"])
            record.namespaces[namespace.node] = namespace
        case "process" if record is not None:
            record.processes.append(ProcessRecord(entry["role"], entry["pid"], entry["start_time"]))
        case "complete" if record is not None:
            record.is_complete = True
    return record


def read_labs() -> list[LabRecord]:
    """All labs of this user, oldest first."""
    root = runtime_root_path()
    if not root.is_dir():
        return []
    labs = []
    for directory in root.iterdir():
        if _LAB_NAME.fullmatch(directory.name):
            with contextlib.suppress(LabError):
                labs.append(read_lab(directory.name))
    return sorted(labs, key=lambda lab: (lab.created_at, lab.name))


@dataclass(frozen=True, slots=True)
class Undone:
    """One thing that was removed, or would be with ``dry_run``."""

    what: str

    def __str__(self) -> str:
        return self.what


def undo(lab: LabRecord, *, dry_run: bool = False) -> list[Undone]:
    """Remove all that the journal names and that still bears the lab's mark. May be repeated.

    Raises LabError when something of ours cannot be removed; the journal then stays for another try.
    """
    if dry_run:
        return _undo_steps(lab, dry_run=True)
    with interruptions_deferred(), _locked(lab) as is_still_there:
        return _undo_steps(lab, dry_run=False) if is_still_there else []


def _undo_steps(lab: LabRecord, *, dry_run: bool) -> list[Undone]:
    same_boot = lab.boot == boot_identifier()
    done: list[Undone] = []
    if same_boot:
        done += _end_processes(lab, dry_run=dry_run)
        for namespace in lab.namespaces.values():
            done += _remove_namespace(namespace, dry_run=dry_run)
    done.append(Undone(f"directory {lab.directory}"))
    if not dry_run:
        _remove_directory(lab.directory)
    return done


@contextlib.contextmanager
def _locked(lab: LabRecord) -> Iterator[bool]:
    """Only one at a time undoes a lab. Yields False when another has done it meanwhile."""
    try:
        descriptor = os.open(lab.directory / _JOURNAL, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)


def _end_processes(lab: LabRecord, *, dry_run: bool) -> list[Undone]:
    """Ask the lab's processes to end, and end those that do not."""
    spared = ancestors()
    candidates = {process.pid for process in lab.processes if process.is_alive()}
    candidates.update(processes_with_tag(lab.tag))
    if lab.session is not None and not lab.owner.is_alive():
        candidates.update(processes_with_tag(lab.session))
    roles = {process.pid: process.role for process in lab.processes}
    return _end(candidates - spared, roles, dry_run=dry_run)


def processes_with_tag(tag: str) -> list[int]:
    """The processes that bear the tag of a lab or a session."""
    return processes_with_environment(f"{TAG_VARIABLE}={tag}")


def _end(pids: Collection[int], roles: Mapping[int, str], *, dry_run: bool) -> list[Undone]:
    done: list[Undone] = []
    # Descriptors keep the numbers from being reused between the look and the signal.
    alive: dict[int, int] = {}
    try:
        for pid in sorted(pids):
            descriptor = _open_process(pid)
            if descriptor is not None:
                alive[pid] = descriptor
                done.append(Undone(f"process {pid} ({roles.get(pid) or _command(pid)})"))
        if not dry_run:
            _signal_and_wait(alive, signal.SIGTERM, _TERMINATE_SECONDS)
            _signal_and_wait(alive, signal.SIGKILL, _KILL_SECONDS)
            if alive:
                raise LabError(f"these processes cannot be ended: {', '.join(map(str, sorted(alive)))}")
    finally:
        for descriptor in alive.values():
            os.close(descriptor)
    return done


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"


def _signal_and_wait(processes: dict[int, int], number: signal.Signals, seconds: float) -> None:
    """Take those that end out of ``processes`` (pid → descriptor)."""
    poll = select.poll()
    by_descriptor = {}
    for pid, descriptor in processes.items():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        poll.register(descriptor, select.POLLIN)
        by_descriptor[descriptor] = pid
    deadline = time.monotonic() + seconds
    while processes and (remaining := deadline - time.monotonic()) > 0:
        for descriptor, _events in poll.poll(remaining * 1000):
            poll.unregister(descriptor)
            del processes[by_descriptor[descriptor]]
            os.close(descriptor)


def _remove_namespace(namespace: NamespaceRecord, *, dry_run: bool) -> list[Undone]:
    """Take the name away from the namespace; the kernel frees it with all links when nobody uses it."""
    try:
        status = namespace.path.stat()
        is_mounted = status.st_dev != namespace.path.parent.stat().st_dev
    except FileNotFoundError:
        return []
    if is_mounted:
        is_ours = status.st_ino == namespace.inode
    else:  # killed before the namespace was mounted on its name, or after it was unmounted
        is_ours = stat.S_ISREG(status.st_mode) and status.st_size == 0 and stat.S_IMODE(status.st_mode) == 0
    if not is_ours:
        return []
    if not dry_run:
        try:
            if is_mounted:
                unmount(str(namespace.path))
            namespace.path.unlink()
        except OSError as error:
            raise LabError(f"cannot remove the namespace {namespace.path}: {error.strerror}") from error
    return [Undone(f"namespace {namespace.path.name}")]


def _remove_directory(directory: Path) -> None:
    """The journal goes first in effect (by the rename), so that a half-removed lab is never seen."""
    grave = directory.parent / f".old-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.rename(grave)
        shutil.rmtree(grave)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LabError(f"cannot remove {directory}: {error.strerror}") from error


def make_session_directory() -> Path:
    """For what labs of one process share; its name is the session's tag. Raises LabError."""
    directory = runtime_root() / f".session-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise LabError(f"cannot make {directory}: {error.strerror}") from error
    return directory


def clean_fragments(*, dry_run: bool = False) -> list[Undone]:
    """Remove what is left of sessions, and half-made and half-removed labs, whose process is gone."""
    root = runtime_root_path()
    done: list[Undone] = []
    if not root.is_dir():
        return done
    for fragment in sorted(root.iterdir()):
        match = re.fullmatch(r"\.(?:new|old|session)-(\d+)-[0-9a-f]{8}", fragment.name)
        if match is None or process_start_time(int(match[1])) is not None:
            continue
        done += _end(set(processes_with_tag(fragment.name)) - ancestors(), {}, dry_run=dry_run)
        done.append(Undone(f"directory {fragment}"))
        if not dry_run:
            shutil.rmtree(fragment, ignore_errors=True)
    return done


def namespace_path(lab: str, node: str) -> Path:
    """Where ``ip netns`` finds a node of a lab: ``mt-<lab>-<node>``."""
    return NAMESPACE_DIRECTORY / f"mt-{lab}-{node}"


def node_namespace(lab: LabRecord, node: str) -> NamespaceRecord:
    """Raises UsageError for a node that the lab has not."""
    try:
        return lab.namespaces[node]
    except KeyError:
        known = ", ".join(lab.namespaces)
        raise UsageError(f"lab '{lab.name}' has no node '{node}' (there are {known})") from None


def open_namespace(namespace: NamespaceRecord) -> int:
    """A descriptor of the namespace. Raises LabError when the name now stands for something else."""
    try:
        descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"cannot open the namespace {namespace.path}: {error.strerror}") from error
    if os.fstat(descriptor).st_ino != namespace.inode:
        os.close(descriptor)
        raise LabError(f"{namespace.path} is no longer the namespace of {namespace.node}")
    return descriptor


def check_usable(lab: LabRecord) -> None:
    """Raises LabError for a lab that is broken, or not ready yet."""
    fault = lab.fault()
    if fault is not None:
        raise LabError(f"lab '{lab.name}' cannot be used: {fault}; 'testbed clean' removes it")
    if not lab.is_complete:
        raise LabError(f"lab '{lab.name}' is still being built")


def undo_own_labs() -> None:
    """Undo every lab that this very process has built: for the last way out of an interrupted command."""
    pid = os.getpid()
    own = ProcessRecord("owner", pid, process_start_time(pid) or 0)
    for lab in read_labs():
        if lab.owner == own:
            undo(lab)
