"""A real sshd on a free loopback port, with keys and a configuration that live as long as the test."""

from __future__ import annotations

import getpass
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
START_TIMEOUT_S = 20

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
LogLevel INFO
"""


@dataclass(frozen=True, slots=True)
class SshServer:
    port: int
    identity: Path
    known_hosts: Path

    @property
    def machine(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"


@contextmanager
def running_ssh_server(folder: Path) -> Iterator[SshServer]:
    """Starts sshd, waits until it listens, and ends it. Raises RuntimeError with its words if it does not."""
    assert SSHD is not None
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, timeout=30)
    port = _free_port()
    host_key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    (folder / "sshd_config").write_text(CONFIGURATION.format(port=port, folder=folder))
    if os.geteuid() == 0:
        # Where sshd separates its privileges; a booted Debian has it, a container may not.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_until_listening(process)
        yield SshServer(port, folder / "user_key", folder / "known_hosts")
    finally:
        process.terminate()
        process.wait(timeout=START_TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    said = b""
    while b"Server listening" not in said:
        ready, _, _ = select.select([process.stderr], [], [], START_TIMEOUT_S)
        chunk = os.read(process.stderr.fileno(), 4096) if ready else b""
        if not chunk:
            raise RuntimeError(f"sshd did not start: {said.decode(errors='replace')}")
        said += chunk
