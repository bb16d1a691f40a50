"""The journal, and that undoing removes what is ours and only that. No namespaces are needed for this."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.backend import ownership
from testbed.backend.ownership import Journal, LabRecord, NamespaceRecord, ProcessRecord
from testbed.backend.runtime import RUNTIME_VARIABLE, default_runtime_root, runtime_root
from testbed.backend.system import process_start_time
from testbed.errors import LabError, UsageError

NAME = "lab"
WAIT_S = 5
NOBODY = 2**22 + 1
"""Above the largest process number that a kernel gives."""


def begin(name: str = NAME, *, persistent: bool = True) -> Journal:
    return ownership.begin(name, topology="some", persistent=persistent, rootless=False)


def built(name: str = NAME, *, persistent: bool = True) -> LabRecord:
    journal = begin(name, persistent=persistent)
    journal.complete()
    journal.close()
    return ownership.read_lab(name)


def change_header(directory: Path, **changes: object) -> LabRecord:
    """As if another process had begun the lab."""
    journal = directory / "journal"
    header, *others = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps(json.loads(header) | changes), *others]) + "\n")
    return ownership.read_lab(directory.name)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@contextlib.contextmanager
def tagged_process(tag: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores SIGTERM, and answers when it does."""
    program = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    environment = os.environ | {ownership.TAG_VARIABLE: tag}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_what_is_written_is_read_back(runtime: Path) -> None:
    journal = begin()
    namespace = NamespaceRecord("h1", Path("/run/netns/mt-lab-h1"), 4026532000)
    journal.namespaces([namespace])
    journal.processes({"agent of h1": os.getpid()})
    assert not ownership.read_lab(NAME).is_complete
    journal.complete()
    record = ownership.read_lab(NAME)
    assert record.namespaces == {"h1": namespace}
    assert record.processes == [
        ProcessRecord("agent of h1", os.getpid(), process_start_time(os.getpid()) or 0)
    ]
    assert (record.topology, record.is_complete, record.directory) == ("some", True, runtime / NAME)
    assert record.owner.is_alive()


@pytest.mark.parametrize("name", ["", "-x", "Lab", "a/b", "..", "a" * 33, "a b", "ä", "a.b", "a\n"])
def test_names_that_could_not_be_paths_are_refused(runtime: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a lab"):
        begin(name)
    assert list(runtime.iterdir()) == []


def test_a_name_is_taken_once(runtime: Path) -> None:
    built()
    with pytest.raises(LabError, match="lab 'lab' exists already"):
        begin()
    change_header(runtime / NAME, boot="another")
    with pytest.raises(LabError, match="was left behind"):
        begin()
    assert [path.name for path in runtime.iterdir()] == [NAME]


def test_a_record_that_was_cut_off_was_never_acted_upon(runtime: Path) -> None:
    begin().close()
    with (runtime / NAME / "journal").open("a") as journal:
        journal.write('{"record": "namespace", "node": "h1", "pa')
    assert ownership.read_lab(NAME).namespaces == {}


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "not json\n", '{"record": "complete"}\n'])
def test_a_damaged_journal_is_one_clear_message(runtime: Path, text: str) -> None:
    begin().close()
    (runtime / NAME / "journal").write_text(text)
    with pytest.raises(LabError, match="empty or damaged"):
        ownership.read_lab(NAME)
    assert ownership.read_labs() == []


def test_a_full_disk_stops_the_building() -> None:
    journal = begin()
    os.close(journal._descriptor)
    journal._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(LabError, match=r"cannot write the journal .* No space left"):
        journal.complete()
    journal.close()


def test_undoing_may_be_repeated(runtime: Path) -> None:
    record = built()
    dry = ownership.undo(record, dry_run=True)
    assert (runtime / NAME).exists()
    assert ownership.undo(record) == dry
    assert list(runtime.iterdir()) == []
    assert ownership.undo(record) == []


def test_processes_end_by_journal_and_by_tag_even_if_they_resist(sleeper: subprocess.Popen[bytes]) -> None:
    journal = begin()
    journal.processes({"agent of h1": sleeper.pid})
    journal.complete()
    journal.close()
    with tagged_process(journal.tag) as stubborn:
        removed = [str(item) for item in ownership.undo(ownership.read_lab(NAME))]
        assert f"process {sleeper.pid} (agent of h1)" in removed
        assert stubborn.wait(WAIT_S) == -signal.SIGKILL
    assert sleeper.wait(WAIT_S) == -signal.SIGTERM


def test_a_reused_process_number_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    record = built()
    start_time = process_start_time(sleeper.pid)
    assert start_time is not None
    record.processes.append(ProcessRecord("agent of h1", sleeper.pid, start_time - 1))
    ownership.undo(record)
    assert sleeper.poll() is None


def test_the_one_who_undoes_is_spared() -> None:
    record = built()
    start_time = process_start_time(os.getpid())
    assert start_time is not None
    record.processes.append(ProcessRecord("agent of h1", os.getpid(), start_time))
    assert [str(item) for item in ownership.undo(record)] == [f"directory {record.directory}"]


def test_processes_of_another_boot_are_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    journal = begin()
    journal.processes({"agent of h1": sleeper.pid})
    journal.close()
    ownership.undo(replace(ownership.read_lab(NAME), boot="another"))
    assert sleeper.poll() is None


def test_a_foreign_file_that_took_the_name_is_left_alone(runtime: Path) -> None:
    record = built()
    foreign = runtime / "foreign"
    foreign.write_text("somebody's")
    record.namespaces["h1"] = NamespaceRecord("h1", foreign, foreign.stat().st_ino)
    ownership.undo(record)
    assert foreign.read_text() == "somebody's"


def test_a_bare_name_from_before_the_mount_is_removed(runtime: Path) -> None:
    record = built()
    bare = runtime / "bare"
    bare.touch(mode=0o600)
    bare.chmod(0)
    record.namespaces["h1"] = NamespaceRecord("h1", bare, 1)
    ownership.undo(record)
    assert not bare.exists()


def test_faults() -> None:
    persistent = built()
    assert (persistent.fault(), persistent.state) == (None, "up")
    gone = ProcessRecord("owner", NOBODY, 1)
    assert replace(persistent, owner=gone).fault() is None
    assert replace(persistent, owner=gone, persistent=False).fault() == "the run that owned it was killed"
    assert replace(persistent, is_complete=False).state == "building"
    assert replace(persistent, is_complete=False, owner=gone).fault() == "its 'up' was killed half-way"
    assert replace(persistent, boot="another").fault() == "the machine was restarted"
    lost = replace(persistent, processes=[ProcessRecord("agent of h1", NOBODY, 1)])
    assert lost.fault() == f"its process agent of h1 ({NOBODY}) died"
    with pytest.raises(LabError, match="cannot be used: its process"):
        ownership.check_usable(lost)
    with pytest.raises(LabError, match="still being built"):
        ownership.check_usable(replace(persistent, is_complete=False))


def test_sessions_end_with_their_owner_only() -> None:
    session = ownership.make_session_directory()
    ownership.begin(NAME, topology="some", persistent=False, rootless=False, session=session.name).close()
    with tagged_process(session.name) as launcher:
        ownership.undo(ownership.read_lab(NAME))
        assert launcher.poll() is None
        orphaned = built("orphan", persistent=False)
        orphaned.session = session.name
        orphaned.owner = ProcessRecord("owner", NOBODY, 1)
        ownership.undo(orphaned)
        assert launcher.wait(WAIT_S) == -signal.SIGKILL


def test_fragments_go_when_their_process_is_gone(runtime: Path) -> None:
    dead = [runtime / f".{kind}-{NOBODY}-00c0ffee" for kind in ("new", "old", "session")]
    alive = runtime / f".session-{os.getpid()}-00c0ffee"
    foreign = runtime / ".something-else"
    for directory in (*dead, alive, foreign):
        directory.mkdir()
    with tagged_process(dead[2].name) as launcher:
        assert len(ownership.clean_fragments(dry_run=True)) == 4
        assert launcher.poll() is None
        ownership.clean_fragments()
        assert launcher.wait(WAIT_S) == -signal.SIGKILL
    assert sorted(runtime.iterdir()) == sorted([alive, foreign])


def test_own_labs_are_undone_and_others_are_not(runtime: Path) -> None:
    built("mine")
    built("theirs")
    change_header(runtime / "theirs", owner=1, owner_start_time=process_start_time(1) or 0)
    ownership.undo_own_labs()
    assert [record.name for record in ownership.read_labs()] == ["theirs"]


def test_the_runtime_directory_must_be_ours_alone(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.chmod(0o777)
    with pytest.raises(LabError, match="only you can write to"):
        runtime_root()
    link = runtime / "link"
    link.symlink_to(runtime)
    monkeypatch.setenv(RUNTIME_VARIABLE, str(link))
    with pytest.raises(LabError, match="only you can write to"):
        runtime_root()
    monkeypatch.setenv(RUNTIME_VARIABLE, "/proc/nothing/here")
    with pytest.raises(LabError, match="cannot make the runtime directory /proc/nothing/here"):
        runtime_root()


def test_users_have_runtime_directories_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_runtime_root() == tmp_path / "mptcp-testbed"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_runtime_root() == Path("/tmp/mptcp-testbed-1234")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_runtime_root() == Path("/run/mptcp-testbed")
