"""Rootless: the same commands as an ordinary user, in a user namespace of the testbed's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.backend import ownership, privileges
from testbed.backend.runtime import RUNTIME_VARIABLE
from testbed.backend.system import processes_with_environment
from testbed.errors import CapabilityError, ExitCode, LabError

USER = GROUP = 65534
LAB = "rootless"
TOPOLOGY = """\
version: 1
name: rootless
nodes:
  client: {kind: host, stack: tcp}
  server: {kind: host, stack: userspace}
links:
  - endpoints: [client:eth0, server:eth0]
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mt-user-", dir="/tmp"))
    (directory / "lab.topo.yaml").write_text(TOPOLOGY)
    for path in (directory, directory / "lab.topo.yaml"):
        os.chown(path, USER, GROUP)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(home: Path) -> Run:
    """Run a command of the testbed as a user who is not root, and has nothing to do with this process."""

    def run_as_user(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "testbed", *arguments],
            user=USER,
            group=GROUP,
            extra_groups=[],
            cwd=home,
            env={
                "HOME": str(home),
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(privileges.__file__).parents[2]),
                RUNTIME_VARIABLE: str(home / "run"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    probe = "import os, sys, testbed.backend.privileges as p; p.enter_new_user_namespace()"
    allowed = subprocess.run(
        [sys.executable, "-c", probe],
        user=USER,
        group=GROUP,
        extra_groups=[],
        cwd=Path(privileges.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if allowed.returncode != 0:
        pytest.skip(f"no user namespaces for ordinary users: {allowed.stderr.strip().splitlines()[-1]}")
    return run_as_user


@pytest.mark.root
def test_a_lab_without_root_from_up_to_down(run: Run, home: Path) -> None:
    up = run("up", "lab.topo.yaml", "--name", LAB)
    assert up.returncode == 0, up.stderr
    try:
        [listed] = json.loads(run("list", "--json").stdout)
        assert (listed["state"], listed["rootless"], listed["nodes"]) == ("up", True, ["client", "server"])
        inside = run("exec", LAB, "client", "sh", "-c", "id -u; ls /run/netns; pwd; exit 7")
        assert inside.returncode == 7
        assert inside.stdout.split() == ["0", f"mt-{LAB}-client", f"mt-{LAB}-server", str(home)]
        assert not list(Path("/run/netns").glob(f"mt-{LAB}-*"))
    finally:
        down = run("down", LAB)
    assert (down.returncode, down.stdout) == (0, f"lab '{LAB}' is down\n")
    assert list((home / "run").iterdir()) == []
    assert processes_with_environment(f"{RUNTIME_VARIABLE}={home / 'run'}") == []


@pytest.mark.root
def test_links_of_a_lab_without_root_fail_and_are_measured(run: Run, home: Path) -> None:
    emulated = TOPOLOGY + "    emulated: true\n"
    events = 'events: [{at: 0s, link: "client:eth0", set: up}, {at: 1ms, link: "client:eth0", set: down}]\n'
    (home / "lab.topo.yaml").write_text(emulated + events.replace("0s, link", "2ms, link"))
    assert run("up", "lab.topo.yaml", "--name", LAB).returncode == 0
    try:
        for state in ("down", "up"):
            changed = run("link", "set", LAB, "client:eth0", state)
            assert changed.returncode == 0, changed.stderr
            [link] = json.loads(run("link", "show", LAB, "--json").stdout)
            assert link["up"] == (state == "up")
        happened = run("events", "run", LAB)
        assert (happened.returncode, happened.stdout.count("(at 0.")) == (0, 2), happened.stdout
        assert "client:eth0 <-> server:eth0" in run("show", LAB).stdout
        measured = run("calibrate", "--lab", LAB, "--packets", "20")
        assert "client:eth0 -> server:eth0: not impaired (link emulator)" in measured.stdout, measured.stderr
    finally:
        run("down", LAB)


@pytest.mark.root
def test_a_lab_whose_holder_was_killed_is_cleaned(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("up", "lab.topo.yaml", "--name", LAB).returncode == 0
    monkeypatch.setenv(RUNTIME_VARIABLE, str(home / "run"))
    holder = ownership.read_lab(LAB).processes[0]
    os.kill(holder.pid, 9)
    assert run("exec", LAB, "client", "true").returncode == ExitCode.FAIL
    cleaned = run("clean")
    assert f"lab '{LAB}' removed (its process {privileges.HOLDER_ROLE}" in cleaned.stdout
    assert list((home / "run").iterdir()) == []
    assert processes_with_environment(f"{RUNTIME_VARIABLE}={home / 'run'}") == []


@pytest.mark.root
def test_doctor_finds_that_the_user_can_work(run: Run) -> None:
    found = run("doctor", "--json")
    assert found.returncode == 0
    by_name = {finding["name"]: finding for finding in json.loads(found.stdout)["findings"]}
    assert by_name["privileges"]["detail"].startswith("ordinary user")
    assert by_name["packet sockets"]["works"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "does not allow user namespaces"), (28, "user.max_user_namespaces"), (22, "several threads")],
)
def test_without_user_namespaces_the_message_says_what_would_help(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(_flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(privileges, "unshare", refuse)
    monkeypatch.setattr(privileges, "has_privileges", lambda: False)
    with pytest.raises(CapabilityError, match=words):
        privileges.ensure_privileges()


def test_a_lab_without_its_holder_cannot_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    ownership.begin("held", topology="some", persistent=True, rootless=True).close()
    with pytest.raises(LabError, match="held lab 'held' is gone"):
        privileges.enter_lab(ownership.read_lab("held"))
