"""Starts agents: one warmed-up process, and a fork for each host."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.errors import HostError
from testbed.host.protocol import AgentConfiguration
from testbed.host.zygote import MAXIMUM_MESSAGE_BYTES, encode_spawn

START_TIMEOUT_S = 30.0
"""For the warm-up, and for all agents of one call of ``spawn``."""
_CLOSE_TIMEOUT_S = 5.0
_BATCH = 64
"""Requests under way at once: what fits into the socket's buffer in both directions."""
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class SpawnedAgent:
    """An agent that answers."""

    host: str
    pid: int
    control_socket: Path


class AgentLauncher:
    """Owns the process that agents are forked from.

    Unless ``persistent``, agents end with ``close()`` and with this process, however it ends. Persistent
    agents stay until they are told to shut down.
    """

    def __init__(
        self,
        runtime_directory: Path,
        *,
        persistent: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``runtime_directory`` takes the launcher's own log. Raises HostError.

        ``environment`` is added to that of the launcher and its agents: the mark of the lab that owns them.
        """
        self._log = runtime_directory / "launcher.log"
        self._lock = threading.Lock()
        self._control, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without site packages: agents need none, and looking for them would take a quarter of the start.
        arguments = [sys.executable, "-S", "-m", "testbed.host.zygote"]
        arguments += [str(child_end.fileno()), str(os.getpid())]
        if persistent:
            arguments.append("--persistent")
        try:
            with self._log.open("ab") as log, child_end:
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(child_end.fileno(),),
                    # Ctrl-C is for the orchestrator, which then ends its agents in order.
                    start_new_session=True,
                    cwd="/",
                    env=_environment() | dict(environment or {}),
                )
        except OSError as error:
            self._control.close()
            raise HostError(f"the agent launcher cannot start: {error}") from None

    def spawn(self, configurations: Sequence[AgentConfiguration]) -> list[SpawnedAgent]:
        """Start one agent for each configuration; returns, in their order, when all of them answer.

        Raises HostError, with what the agent said, when one fails; then none of them is left.
        """
        hosts = [configuration.host for configuration in configurations]
        if len(set(hosts)) != len(hosts):
            raise HostError(f"two agents for one host: {', '.join(hosts)}")
        ready: dict[str, SpawnedAgent] = {}
        failures: list[str] = []
        with self._lock:
            deadline = time.monotonic() + START_TIMEOUT_S
            try:
                for start in range(0, len(configurations), _BATCH):
                    self._spawn_batch(configurations[start : start + _BATCH], deadline, ready, failures)
            except HostError as error:
                failures.append(str(error))
        if failures:
            for agent in ready.values():
                _end_agent(agent.pid)
            raise HostError("\n".join(failures))
        return [ready[host] for host in hosts]

    def close(self) -> None:
        """End the launcher, and its agents unless they are persistent. May be called twice."""
        self._control.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> AgentLauncher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn_batch(
        self,
        configurations: Sequence[AgentConfiguration],
        deadline: float,
        ready: dict[str, SpawnedAgent],
        failures: list[str],
    ) -> None:
        try:
            for configuration in configurations:
                self._control.send(encode_spawn(configuration))
        except OSError as error:
            raise self._launcher_failed(str(error)) from None
        waiting = {configuration.host: configuration for configuration in configurations}
        while waiting:
            answer = self._receive(deadline, f"the agent of {next(iter(waiting))}")
            wanted = waiting.pop(answer["host"], None)
            if wanted is None:
                # Of an earlier call that did not wait for it any longer.
                _end_agent(answer.get("pid"))
            elif "pid" in answer:
                ready[wanted.host] = SpawnedAgent(wanted.host, answer["pid"], Path(wanted.control_socket))
            else:
                failures.append(_describe_failure(answer, wanted))

    def _receive(self, deadline: float, whose: str) -> dict[str, Any]:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise HostError(f"{whose} did not answer within {START_TIMEOUT_S:g} s")
        try:
            message = self._control.recv(MAXIMUM_MESSAGE_BYTES)
        except OSError as error:
            raise self._launcher_failed(str(error)) from None
        if not message:
            raise self._launcher_failed("it ended")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _launcher_failed(self, reason: str) -> HostError:
        return HostError(f"the agent launcher failed: {reason}{_tail(self._log)}")


def _describe_failure(answer: dict[str, Any], configuration: AgentConfiguration) -> str:
    if "error" in answer:
        return f"{configuration.host}: {answer['error']}"
    return f"{configuration.host}: its agent did not start{_tail(Path(configuration.log_file))}"


def _end_agent(pid: int | None) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _tail(log: Path) -> str:
    """The last lines of a log, indented, on lines of their own; empty when there is nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in lines)


def _environment() -> dict[str, str]:
    """The launcher must find this very package wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
