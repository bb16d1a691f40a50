"""Labs with agents: every kind of host answers, one launcher serves many labs, and all of it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.backend import agents, ownership
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.system import processes_with_environment
from testbed.errors import HostError, UsageError
from testbed.topology.model import StackKind

from .topologies import direct

pytestmark = pytest.mark.root


@pytest.fixture
def backend(runtime: Path) -> Iterator[NamespaceBackend]:
    backend = NamespaceBackend()
    yield backend
    backend.close()
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("stack", list(StackKind))
def test_every_kind_of_host_answers(lab_name: str, backend: NamespaceBackend, stack: StackKind) -> None:
    if stack is StackKind.KERNEL and not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")
    with backend.up(direct(stack), lab_name, seed=1) as lab:
        assert set(lab.hosts) == {"a", "b"}
        assert "MPTcpExtMPCapableSYNRX" in lab.host("a").counters()
        with pytest.raises(UsageError, match=r"no host 'c' \(there are a, b\)"):
            lab.host("c")


def session_processes(runtime: Path) -> list[int]:
    [session] = [path.name for path in runtime.iterdir() if path.name.startswith(".session")]
    return processes_with_environment(f"{ownership.TAG_VARIABLE}={session}")


def test_one_launcher_serves_all_labs_of_a_backend(
    lab_name: str, backend: NamespaceBackend, runtime: Path
) -> None:
    launchers = set()
    for _ in range(3):
        with backend.up(direct(), lab_name) as lab:
            agents = {process.pid for process in ownership.read_lab(lab.name).processes}
            assert len(agents) == 2
            launchers.update(set(session_processes(runtime)) - agents)
        assert len(session_processes(runtime)) == 1
    assert len(launchers) == 1


def test_a_launcher_that_died_is_replaced(lab_name: str, backend: NamespaceBackend, runtime: Path) -> None:
    backend.up(direct(), lab_name).down()
    [launcher] = session_processes(runtime)
    os.kill(launcher, signal.SIGKILL)
    with pytest.raises(HostError):
        backend.up(direct(), lab_name)
    with backend.up(direct(), lab_name) as lab:
        assert lab.host("a").counters()


def test_persistent_agents_outlive_their_launcher(lab_name: str, runtime: Path) -> None:
    backend = NamespaceBackend(persistent=True)
    backend.up(direct(), lab_name).close()
    with NamespaceBackend().open_lab(lab_name) as lab:
        assert lab.host("b").counters()
    record = ownership.read_lab(lab_name)
    tagged = processes_with_environment(f"{ownership.TAG_VARIABLE}={record.tag}")
    assert sorted(tagged) == sorted(process.pid for process in record.processes)
    backend.down(lab_name)
    assert not any(process.is_alive() for process in record.processes)


def test_a_session_that_is_interrupted_while_it_begins_leaves_nothing(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        assert [path.name for path in runtime.iterdir()]
        raise KeyboardInterrupt

    monkeypatch.setattr(agents, "start_launcher", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agents.AgentSession()
    assert list(runtime.iterdir()) == []
