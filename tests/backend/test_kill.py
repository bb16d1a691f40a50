"""Killed or interrupted at any moment: nothing stays behind, and nothing foreign is touched."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.backend import ownership
from testbed.backend.ownership import namespace_path
from testbed.backend.runtime import RUNTIME_VARIABLE
from testbed.backend.system import processes_with_environment
from testbed.errors import ExitCode

from .conftest import namespaces_of

pytestmark = pytest.mark.root

TOPOLOGY = """\
version: 1
name: small
nodes:
  client: {kind: host, stack: tcp}
  server: {kind: host, stack: tcp}
  router: {kind: router}
links:
  - endpoints: [client:eth0, router:near]
  - endpoints: [router:far, server:eth0]
    impair: {rate: 20mbit, delay: 1ms}
"""
LONGEST_UP_S = 0.6


@pytest.fixture
def topology_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.topo.yaml"
    path.write_text(TOPOLOGY)
    return path


@pytest.fixture
def foreign(runtime: Path) -> Iterator[str]:
    """A namespace with a veth pair in it, under a name as like ours as can be."""
    name = namespace_path(f"f{os.getpid()}", "client").name
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "eth1"], check=True)
        before = state_of(name)
        yield name
        assert state_of(name) == before
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def state_of(namespace: str) -> str:
    return subprocess.run(["ip", "-n", namespace, "link"], check=True, capture_output=True, text=True).stdout


def run_testbed(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "testbed", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_interruptible(process: subprocess.Popen[str]) -> None:
    """Until its handler of SIGTERM is there: what comes before that is the interpreter's own start."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.MULTILINE)
        if caught is not None and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            break


def clean(*arguments: str) -> str:
    with run_testbed("clean", "-v", *arguments) as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    return output


def assert_nothing_is_left(lab_name: str, runtime: Path) -> None:
    assert namespaces_of(lab_name) == []
    assert list(runtime.iterdir()) == []
    left = set(processes_with_environment(f"{RUNTIME_VARIABLE}={runtime}")) - {os.getpid()}
    # An agent whose parent was killed a moment ago may be on its way out.
    deadline = time.monotonic() + 5
    while left and time.monotonic() < deadline:
        left &= set(processes_with_environment(f"{RUNTIME_VARIABLE}={runtime}"))
    assert not left


@pytest.mark.parametrize("moment", range(10))
def test_up_killed_at_a_random_moment(
    lab_name: str, runtime: Path, topology_file: Path, foreign: str, moment: int
) -> None:
    delay_s = random.Random().uniform(moment, moment + 1) * LONGEST_UP_S / 10
    with run_testbed("up", topology_file, "--name", lab_name) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.kill()
    clean("--all")
    assert_nothing_is_left(lab_name, runtime)
    assert clean() == "nothing to clean\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", range(4))
def test_up_interrupted_at_a_random_moment(
    lab_name: str, runtime: Path, topology_file: Path, moment: int, number: signal.Signals
) -> None:
    delay_s = LONGEST_UP_S * random.Random().uniform(moment, moment + 1) / 4
    with run_testbed("up", topology_file, "--name", lab_name) as process:
        wait_until_interruptible(process)
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _output, errors = process.communicate(timeout=30)
    if process.returncode == 0:
        clean("--all")
    else:
        # While CPython 3.11 runs text (as for a dataclass), it remembers the interrupt and ends by the signal
        # itself, although the exception was handled: a shell sees 130 all the same.
        ended_by_signal = {ExitCode.INTERRUPTED, 128 + signal.SIGTERM, -signal.SIGINT}
        assert process.returncode in ended_by_signal, errors
        assert "Traceback" not in errors
    assert_nothing_is_left(lab_name, runtime)


def test_a_killed_agent_makes_the_lab_broken_and_clean_removes_it(
    lab_name: str, runtime: Path, topology_file: Path
) -> None:
    with run_testbed("up", topology_file, "--name", lab_name) as process:
        process.wait(30)
    assert clean() == "nothing to clean\n"
    agents = {record.role: record.pid for record in ownership.read_lab(lab_name).processes}
    os.kill(agents["agent of server"], signal.SIGKILL)
    with run_testbed("exec", lab_name, "client", "true") as process:
        assert process.wait(30) == ExitCode.FAIL
        assert process.stderr is not None
        assert "its process agent of server" in process.stderr.read()
    dry = clean("--dry-run")
    assert f"would remove process {agents['agent of client']} (agent of client)" in dry
    assert namespaces_of(lab_name) == [
        f"mt-{lab_name}-{node}" for node in ("_links", "client", "router", "server")
    ]
    clean()
    assert_nothing_is_left(lab_name, runtime)


def test_a_killed_run_without_persistence_is_cleaned_without_all(lab_name: str, runtime: Path) -> None:
    program = (
        "import sys, signal; from tests.backend.topologies import direct;"
        "from testbed.backend.namespaces import NamespaceBackend;"
        f"lab = NamespaceBackend().up(direct(), {lab_name!r}); print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert clean() == "nothing to clean\n"
        finally:
            process.kill()
    assert f"lab '{lab_name}' removed (the run that owned it was killed)" in clean()
    assert_nothing_is_left(lab_name, runtime)
