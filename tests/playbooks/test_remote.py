"""The tasks against a real SSH server: a small stand-in project is sent, made ready and run there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .repository import make_repository
from .ssh_server import SSHD, SshServer, running_ssh_server

SET_UP = """\
#!/bin/sh
mkdir -p .venv/bin
cp stand_in .venv/bin/testbed
echo "$1" >>.venv/levels
"""
# Speaks the options that the real command has, and fails or hangs when told to.
STAND_IN = """\
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --junit|--json) echo "report" >"$2"; shift ;;
        fail) verdict="not ok" ;;
        hang) exec tail -f /dev/null ;;
    esac
    shift
done
echo "${verdict:-ok} 1 bulk"
[ -z "$verdict" ]
"""
FAB = Path(sys.executable).parent / "fab"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if SSHD is None:
        pytest.skip("no sshd here (Debian package openssh-server)")
    with running_ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "project", {"scripts/set_up": SET_UP, "stand_in": STAND_IN})


def fab(
    server: SshServer, task: str, *arguments: str, machines: str = "", known_hosts: Path | None = None
) -> subprocess.CompletedProcess[str]:
    access = [
        f"--machines={machines or server.machine}",
        f"--identity={server.identity}",
        f"--known-hosts={known_hosts or server.known_hosts}",
    ]
    return subprocess.run(
        [str(FAB), "-r", "playbooks", task, *access, *arguments],
        cwd=Path(__file__).resolve().parents[2],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )


def provision(server: SshServer, project: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    return fab(server, "provision", f"--project={project}", f"--directory={directory}")


def test_checkout_is_sent_made_ready_and_sent_again(server: SshServer, project: Path, tmp_path: Path) -> None:
    there = tmp_path / "there" / "checkout"
    first = provision(server, project, there)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "1 of 1 machines passed" in first.stdout
    (there / "stray").write_text("left by an earlier run")
    assert provision(server, project, there).returncode == 0
    assert not (there / "stray").exists()
    assert (there / ".venv/levels").read_text() == "runtime\nruntime\n"
    assert not (there.parent / "checkout.tar.gz").exists()


def test_a_folder_of_somebody_else_is_left_alone(server: SshServer, project: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "thesis.txt").write_text("precious")
    result = provision(server, project, there)
    assert result.returncode == 1
    assert "is not a checkout of ours" in result.stdout
    assert [path.name for path in there.iterdir()] == ["thesis.txt"]


def test_reports_come_back(server: SshServer, project: Path, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    provision(server, project, there)
    result = fab(server, "selftest", f"--directory={there}", f"--results={here}")
    assert result.returncode == 0, result.stdout + result.stderr
    reports = {path.relative_to(here).as_posix(): path.read_text() for path in here.rglob("selftest.*")}
    folder = server.machine.replace(":", "_")
    assert reports == {
        f"{folder}/selftest.tap": "ok 1 bulk\n",
        f"{folder}/selftest.xml": "report\n",
        f"{folder}/selftest.json": "report\n",
        f"{folder}/selftest.log": "",
    }


def test_a_failed_selftest_fails_the_task_and_its_reports_come_back(
    server: SshServer, project: Path, tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    provision(server, project, there)
    result = fab(server, "selftest", f"--directory={there}", f"--results={here}", "--arguments=fail")
    assert result.returncode == 1
    assert "not ok 1 bulk" in result.stdout
    assert len(list(here.rglob("selftest.json"))) == 1


def test_a_selftest_that_hangs_is_ended_there(server: SshServer, project: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    provision(server, project, there)
    result = fab(
        server, "selftest", f"--directory={there}", f"--results={tmp_path}", "--arguments=hang", "--timeout=1"
    )
    assert result.returncode == 1
    assert "was ended after 1 s" in result.stdout


def test_an_unreachable_machine_does_not_stop_the_other(
    server: SshServer, project: Path, tmp_path: Path
) -> None:
    machines = f"nobody@127.0.0.1:1,{server.machine}"
    arguments = (f"--project={project}", f"--directory={tmp_path / 'there'}")
    result = fab(server, "provision", *arguments, machines=machines)
    assert result.returncode == 1
    assert "FAILED nobody@127.0.0.1_1" in result.stdout
    assert "1 of 2 machines passed" in result.stdout


def test_an_unknown_host_key_is_refused_unless_accepted(
    server: SshServer, project: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    arguments = (f"--project={project}", f"--directory={tmp_path / 'there'}")
    refused = fab(server, "provision", *arguments, known_hosts=empty)
    assert refused.returncode == 1
    assert "not found in known_hosts" in refused.stdout
    assert fab(server, "provision", *arguments, "--accept-new", known_hosts=empty).returncode == 0
