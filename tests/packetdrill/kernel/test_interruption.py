"""``testbed packetdrill`` on the kernel without privileges, and ended in the middle: nothing is left."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packetdrill.engine.scripts import TCP_ACCEPTED
from tests.packetdrill.kernel.test_kernel_namespace import namespaces

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.timeout(60)]

NOBODY = 65_534
PATIENCE_S = 20.0
ROOT = Path(__file__).parents[3]


def command(stack: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "testbed", "packetdrill", "--stack", stack, "--ip", "4", *arguments]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Everybody may read it."""
    with tempfile.TemporaryDirectory(prefix="mt-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(
    Path("/dev/net/tun").stat().st_mode & stat.S_IROTH != 0, reason="everybody may make TUN devices here"
)
def test_without_privileges_the_kernel_is_skipped_with_the_reason(folder: Path) -> None:
    script = folder / "accepted.pkt"
    script.write_text(TCP_ACCEPTED)
    done = subprocess.run(
        command("both", "-v", str(script)),
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"SKIP {script}[ipv4,kernel]: the kernel's stack needs /dev/net/tun: Permission denied" in lines
    assert lines[-2:] == [
        "userspace: 1 passed, 0 failed, 0 skipped",
        "kernel: 0 passed, 0 failed, 1 skipped",
    ]


@pytest.fixture
def waiting(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run on the kernel in the middle of its script: a call blocks, a command's process is left running."""
    script = folder / "waiting.pkt"
    pipe = folder / "begun"
    os.mkfifo(pipe)
    script.write_text(
        "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 bind(3, ..., ...) = 0\n+0 listen(3, 1) = 0\n"
        "+0...30 accept(3, ..., ...) = 4\n"
        f"+0 `sleep 1000 >/dev/null 2>&1 & readlink /proc/self/ns/net > {pipe}; true`\n"
        "+30 `true`\n"
    )
    # A shell that runs the tests in the background has them ignore interrupts, which is inherited.
    process = subprocess.Popen(
        ["env", "--default-signal=INT,TERM", *command("kernel", str(script))],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, pipe
    finally:
        process.kill()
        process.communicate()


def namespace_of(pipe: Path) -> str:
    """Waits until the script is in the middle. Its network namespace, as /proc has it."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], "the script did not begin"
        return os.read(descriptor, 100).decode().strip()
    finally:
        os.close(descriptor)


def children_of(group: int) -> list[str]:
    """Every process of the group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_an_interruption_leaves_nothing_behind(
    waiting: tuple[subprocess.Popen[str], Path], number: signal.Signals
) -> None:
    process, pipe = waiting
    namespace = namespace_of(pipe)
    assert namespace in namespaces()
    began = time.monotonic()
    # As a terminal does it: every process in the foreground gets it.
    os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert time.monotonic() - began < 10
    assert stdout.splitlines()[-1] == "kernel: 0 passed, 0 failed, 0 skipped"
    assert "0 runs in" in stdout
    assert "1 not played" in stdout
    assert children_of(process.pid) == []
    assert namespace not in namespaces()
    assert not Path("/sys/class/net/tun0").exists()
