"""Fabric tasks for other machines: ``fab -r playbooks selftest --machines debian@10.0.0.5``."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from fabric import Connection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from playbooks import steps
from playbooks.machines import (
    Access,
    Machine,
    PlaybookError,
    connected,
    on_every_machine,
    parse_machines,
)

PROJECT = Path(__file__).resolve().parents[1]
CLOSING_MARGIN_S = 2 * steps.KILL_AFTER_S
"""The watchdog here leaves the one on the machine time to end its command and to say so."""

MAXIMUM_TIMEOUT_S = 7 * 24 * 3600

ACCESS_HELP = {
    "machines": "user@host[:port], several with commas between",
    "identity": "private key file, where ~/.ssh/config and the agent offer none",
    "known-hosts": "a known-hosts file to read besides the user's own",
    "accept-new": "trust machines that no known-hosts file names yet",
    "directory": "where the checkout lies, relative to the home directory there",
    "timeout": "seconds that a step may take on one machine",
}
PROVISION_HELP = {
    "project": "the repository to send",
    "revision": "what of it to send (a commit, branch or tag)",
}
SELFTEST_HELP = {
    "arguments": "for testbed selftest, as one word: '--family 4 --jobs 2'",
    "sudo": "run as root there (needs sudo without a password); otherwise in a user namespace",
    "results": "folder here for the reports, one folder in it for each machine",
}


def _seconds(text: str) -> int:
    """Of ``--timeout``. Raises Exit: Fabric itself would answer with a traceback."""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 0 < int(text) <= MAXIMUM_TIMEOUT_S):
        raise Exit(f"--timeout {text}: expected 1 to {MAXIMUM_TIMEOUT_S} seconds", code=2)
    return int(text)


def _carry_out(
    machines: str,
    identity: str,
    known_hosts: str,
    accept_new: bool,
    timeout_s: int,
    work: Callable[[Connection, Machine], str],
) -> None:
    """Does ``work`` on every machine, prints how it went, and ends with 1 when it failed on any."""
    access = Access(
        identity=Path(identity).expanduser() if identity else None,
        known_hosts=Path(known_hosts).expanduser() if known_hosts else None,
        accept_new=accept_new,
    )
    try:
        targets = parse_machines(machines)
    except PlaybookError as problem:
        raise Exit(str(problem), code=2) from None

    def on_one(machine: Machine) -> str:
        with connected(machine, access, timeout_s + CLOSING_MARGIN_S) as connection:
            return work(connection, machine)

    outcomes = on_every_machine(targets, on_one)
    print(steps.summarise(outcomes), end="")
    if not all(outcome.passed for outcome in outcomes):
        raise Exit(code=1)


@task(help=ACCESS_HELP | PROVISION_HELP)
def provision(
    context: Context,
    machines: str = "",
    project: str = str(PROJECT),
    revision: str = "HEAD",
    directory: str = "mptcp-testbed",
    identity: str = "",
    known_hosts: str = "",
    accept_new: bool = False,
    timeout: str = "900",
) -> None:
    """Send a revision of the project to the machines and make it ready there."""
    timeout_s = _seconds(timeout)
    with tempfile.TemporaryDirectory() as folder:
        try:
            checkout = steps.pack_checkout(Path(project), revision, Path(folder))
        except PlaybookError as problem:
            raise Exit(str(problem), code=2) from None

        def work(connection: Connection, machine: Machine) -> str:
            return steps.provision(connection, checkout, directory, timeout_s)

        _carry_out(machines, identity, known_hosts, accept_new, timeout_s, work)


@task(help=ACCESS_HELP | SELFTEST_HELP)
def selftest(
    context: Context,
    machines: str = "",
    arguments: str = "",
    sudo: bool = False,
    results: str = "results",
    directory: str = "mptcp-testbed",
    identity: str = "",
    known_hosts: str = "",
    accept_new: bool = False,
    timeout: str = "3600",
) -> None:
    """Run the selftests on provisioned machines, all at once, and bring the reports back."""
    timeout_s = _seconds(timeout)
    try:
        words = shlex.split(arguments)
    except ValueError as problem:
        raise Exit(f"--arguments {arguments}: {problem}", code=2) from None

    def work(connection: Connection, machine: Machine) -> str:
        return steps.run_selftests(
            connection, directory, words, sudo=sudo, timeout_s=timeout_s, results=Path(results) / machine.name
        )

    _carry_out(machines, identity, known_hosts, accept_new, timeout_s, work)
