"""Which machines to work on, and one piece of work on all of them at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fabric import Connection
from paramiko import AutoAddPolicy, RejectPolicy

MAXIMUM_AT_ONCE = 16
KEEPALIVE_S = 15

_MACHINE = re.compile(
    r"(?:(?P<user>\w[\w.-]*)@)?(?P<host>\[[0-9a-fA-F:.]+(?:%\w+)?\]|\w[\w.-]*)(?::(?P<port>\d{1,5}))?"
)


class PlaybookError(Exception):
    """A machine, an option or a step that failed: one message for the user."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One address as ssh takes it. None leaves the choice to ``~/.ssh/config``."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def name(self) -> str:
        """Usable as the name of a folder: "debian@10.0.0.5:2222" as "debian@10.0.0.5_2222"."""
        user = f"{self.user}@" if self.user else ""
        port = f"_{self.port}" if self.port else ""
        return user + re.sub(r"[^\w.-]", "_", self.host) + port


@dataclass(frozen=True, slots=True)
class Access:
    """How to log in."""

    identity: Path | None = None
    """A private key; None for what the agent and ``~/.ssh`` offer."""
    known_hosts: Path | None = None
    """Besides the user's own."""
    accept_new: bool = False
    """Trust a machine that no known-hosts file names. One whose key has changed is refused all the same."""
    connect_timeout_s: int = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work went on one machine."""

    machine: Machine
    passed: bool
    summary: str


def parse_machines(text: str) -> tuple[Machine, ...]:
    """Reads ``user@host:port,[2001:db8::1]:22,...``; raises PlaybookError that names every bad entry."""
    machines: list[Machine] = []
    problems: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _MACHINE.fullmatch(entry)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            problems.append(f"{entry!r} is not [user@]host[:port] (an IPv6 address stands in brackets)")
            continue
        machine = Machine(match["host"].strip("[]"), match["user"], port)
        if machine in machines:
            problems.append(f"{entry!r} is named twice")
        machines.append(machine)
    if not machines and not problems:
        problems.append("no machine is named: --machines user@host[,user@host...]")
    if problems:
        raise PlaybookError("\n".join(problems))
    return tuple(machines)


@contextmanager
def connected(machine: Machine, access: Access, timeout_s: int) -> Iterator[Connection]:
    """A connection for the calling thread alone (Fabric's are not thread-safe), closed after ``timeout_s``.

    A machine that vanishes leaves a command waiting for ever; closing from outside is what ends it.
    """
    options = {} if access.identity is None else {"key_filename": str(access.identity)}
    connection = Connection(
        machine.host,
        user=machine.user,
        port=machine.port,
        connect_timeout=access.connect_timeout_s,
        connect_kwargs=options,
    )
    connection.client.set_missing_host_key_policy(AutoAddPolicy() if access.accept_new else RejectPolicy())
    connection.client.load_system_host_keys()
    if access.known_hosts is not None:
        connection.client.load_system_host_keys(str(access.known_hosts))
    watchdog = threading.Timer(timeout_s, connection.close)
    watchdog.daemon = True
    try:
        connection.open()
        connection.transport.set_keepalive(KEEPALIVE_S)
        watchdog.start()
        yield connection
    finally:
        watchdog.cancel()
        connection.close()


def on_every_machine(machines: Sequence[Machine], work: Callable[[Machine], str]) -> tuple[Outcome, ...]:
    """Calls ``work`` for all machines at once, each in its own thread; its text is the summary.

    Whatever goes wrong on one machine is that machine's outcome: the others go on.
    """

    outcomes: dict[Machine, Outcome] = {}
    places = threading.Semaphore(MAXIMUM_AT_ONCE)

    def attempt(machine: Machine) -> None:
        with places:
            try:
                outcomes[machine] = Outcome(machine, True, work(machine))
            except PlaybookError as problem:
                outcomes[machine] = Outcome(machine, False, str(problem))
            except Exception as problem:
                outcomes[machine] = Outcome(machine, False, f"{type(problem).__name__}: {problem}")

    # Daemons, so that Ctrl-C ends the program and not only the waiting.
    threads = [threading.Thread(target=attempt, args=(machine,), daemon=True) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tuple(outcomes[machine] for machine in machines)
