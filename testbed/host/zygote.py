"""The warmed-up process from which agents are forked: ``… -m testbed.host.zygote FD PARENT [--persistent]``.

It has imported everything that an agent needs, so that an agent costs a fork. FD is a sequenced-packet
socket: one JSON message a packet. In come ``{"spawn": configuration}``; out go, for each agent,
``{"host", "pid"}`` when it answers, ``{"host", "failed": pid}`` when it ended before that, or
``{"host", "error"}`` when it could not be forked. The end of that socket, or of the process PARENT, ends
the zygote and, unless they are persistent, the agents.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from types import FrameType
from typing import Any

from testbed.host.agent import AgentError, run_agent
from testbed.host.messages import from_json, to_json
from testbed.host.processes import set_process_name, signal_when_parent_ends
from testbed.host.protocol import LINK_EMULATOR, AgentConfiguration

MAXIMUM_MESSAGE_BYTES = 128 * 1024
_GRACE_S = 2.0
"""How long agents have to end by themselves."""
_EXIT_FAILED = 1


class Zygote:
    """Forks agents on request and cleans up after them."""

    def __init__(self, control: socket.socket, parent: int, *, persistent: bool) -> None:
        self._control = control
        self._parent = parent
        self._persistent = persistent
        self._has_bundled_stack = False
        self._starting: dict[int, tuple[int, str]] = {}
        """Readiness pipe → (pid, host) of agents that do not answer yet."""
        self._agents: set[int] = set()
        self._poller = select.poll()
        self._wakeup_reader, self._wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> None:
        """Serve until the control socket or the parent ends."""
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        # Handlers that do nothing: the wake-up descriptor is what counts.
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, _note)
        # It comes for every *thread* of the parent that ends, so it is only a reason to look.
        signal_when_parent_ends(signal.SIGTERM)
        self._poller.register(self._control, select.POLLIN)
        self._poller.register(self._wakeup_reader, select.POLLIN)
        if not self._poller.poll(0):
            # Nobody waits yet: the best time for what only some hosts need.
            self._import_bundled_stack()
        while os.getppid() == self._parent:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._wakeup_reader:
                    os.read(self._wakeup_reader, 4096)
                    self._reap()
                elif descriptor in self._starting:
                    self._report(descriptor)
                elif not self._receive():
                    self._end_agents()
                    return
        self._end_agents()

    def _receive(self) -> bool:
        """Handle a request; False at the end of the control socket."""
        message = self._control.recv(MAXIMUM_MESSAGE_BYTES)
        if not message:
            return False
        configuration = from_json(AgentConfiguration, json.loads(message)["spawn"])
        try:
            if configuration.stack == "userspace":
                self._import_bundled_stack()
            elif configuration.stack == LINK_EMULATOR:
                importlib.import_module("testbed.emulator.process")
            self._fork(configuration)
        except OSError as error:
            self._send({"host": configuration.host, "error": f"no process for an agent: {error.strerror}"})
        return True

    def _import_bundled_stack(self) -> None:
        """What is loaded before a fork is shared by all agents."""
        if not self._has_bundled_stack:
            self._has_bundled_stack = True
            importlib.import_module("testbed.host.userspace")
            gc.collect()
            gc.freeze()

    def _fork(self, configuration: AgentConfiguration) -> None:
        ready_reader, ready_writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._become_agent(configuration, ready_writer)
        os.close(ready_writer)
        self._agents.add(pid)
        self._starting[ready_reader] = (pid, configuration.host)
        self._poller.register(ready_reader, select.POLLIN)

    def _report(self, ready_reader: int) -> None:
        """An agent answers, or it ended before it did."""
        pid, host = self._starting.pop(ready_reader)
        is_ready = bool(os.read(ready_reader, 1))
        self._poller.unregister(ready_reader)
        os.close(ready_reader)
        self._send({"host": host, "pid" if is_ready else "failed": pid})

    def _become_agent(self, configuration: AgentConfiguration, ready_writer: int) -> None:
        """Never returns."""
        status = _EXIT_FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # The launcher's death is noticed when the last copy of its socket's other end is closed.
            self._control.close()
            for descriptor in (self._wakeup_reader, self._wakeup_writer, *self._starting):
                os.close(descriptor)
            _redirect_output(configuration.log_file)
            self._tie_to_parent()
            run_agent(configuration, lambda: _report_ready(ready_writer))
            status = 0
        except AgentError as error:
            print(error, file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _tie_to_parent(self) -> None:
        if self._persistent:
            return
        zygote = os.getppid()
        signal_when_parent_ends(signal.SIGKILL)
        if os.getppid() != zygote or zygote == 1:
            raise AgentError("the launcher is gone")

    def _reap(self) -> None:
        while self._agents:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._agents.discard(pid)

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(ConnectionError):
            self._control.send(json.dumps(message).encode())

    def _end_agents(self) -> None:
        if self._persistent:
            return
        self._signal_agents(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while self._agents and (left := deadline - time.monotonic()) > 0:
            select.select([self._wakeup_reader], [], [], left)
            with suppress(BlockingIOError):
                os.read(self._wakeup_reader, 4096)
            self._reap()
        self._signal_agents(signal.SIGKILL)

    def _signal_agents(self, number: signal.Signals) -> None:
        for pid in self._agents:
            # Ours for sure: an agent that ended stays a zombie until it is reaped here.
            os.kill(pid, number)


def encode_spawn(configuration: AgentConfiguration) -> bytes:
    """The request to start one agent."""
    return json.dumps({"spawn": to_json(configuration)}).encode()


def _report_ready(ready_writer: int) -> None:
    os.write(ready_writer, b"1")
    os.close(ready_writer)


def _note(number: int, frame: FrameType | None) -> None:
    """The signal has already been written to the wake-up descriptor."""


def _redirect_output(log_file: str) -> None:
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(f"log file {log_file}: {error.strerror}") from None
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    set_process_name("mptcp-zygote")
    gc.freeze()
    Zygote(control, int(sys.argv[2]), persistent="--persistent" in sys.argv[3:]).run()


if __name__ == "__main__":
    main()
