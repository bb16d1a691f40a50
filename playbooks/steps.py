"""What a playbook does on one connected machine: send the checkout, make it ready, run, fetch the reports."""

from __future__ import annotations

import io
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fabric import Connection
from jinja2 import Environment, PackageLoader, StrictUndefined

from .machines import Outcome, PlaybookError

RESULT_FILES = ("selftest.tap", "selftest.xml", "selftest.json", "selftest.log")
TIMED_OUT = 124
"""The exit code of timeout(1)."""
KILL_AFTER_S = 30

_templates = Environment(
    loader=PackageLoader("playbooks"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
_templates.filters["quote"] = lambda value: shlex.quote(str(value))


@dataclass(frozen=True, slots=True)
class Checkout:
    """A packed revision of the project, ready to be sent."""

    archive: Path
    revision: str


def render(template: str, **values: object) -> str:
    """A template of ``playbooks/templates``; a name that it uses and nobody gives is an error."""
    return _templates.get_template(template).render(**values)


def pack_checkout(project: Path, revision: str, folder: Path) -> Checkout:
    """``git archive`` of a revision: what is committed, and nothing that lies about in the work tree."""
    archive = folder / "checkout.tar.gz"
    try:
        full_revision = _git(project, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
        _git(project, "archive", "--format=tar.gz", f"--output={archive}", full_revision)
    except subprocess.CalledProcessError as problem:
        said = str(problem.stderr).strip() or "no such commit"
        raise PlaybookError(f"cannot pack revision {revision!r} of {project}: {said}") from None
    return Checkout(archive, full_revision)


def _git(project: Path, *arguments: str) -> str:
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def provision(connection: Connection, checkout: Checkout, directory: str, timeout_s: int) -> str:
    """Puts the checkout into ``directory`` (relative to the home there) and makes it ready to run."""
    archive = f"{directory}.tar.gz"
    parent = shlex.quote(str(PurePosixPath(directory).parent))
    connection.run(f"mkdir -p {parent}", hide=True, in_stream=False)
    connection.put(str(checkout.archive), archive)
    script = render("provision.sh.j2", directory=directory, revision=checkout.revision, archive=archive)
    connection.put(io.StringIO(script), f"{directory}.provision.sh")
    _run_script(connection, f"{directory}.provision.sh", timeout_s)
    return f"ready at {checkout.revision[:12]}"


def run_selftests(
    connection: Connection, directory: str, arguments: list[str], *, sudo: bool, timeout_s: int, results: Path
) -> str:
    """Runs the selftests there and copies their reports to ``results``; raises when any failed."""
    script = render("selftest.sh.j2", directory=directory, arguments=arguments, sudo=sudo)
    connection.put(io.StringIO(script), f"{directory}.selftest.sh")
    try:
        _run_script(connection, f"{directory}.selftest.sh", timeout_s)
    except PlaybookError as problem:
        fetched = _fetch_results(connection, f"{directory}/results", results)
        raise PlaybookError(f"{problem}\nreports: {', '.join(fetched) or 'none'} in {results}") from None
    fetched = _fetch_results(connection, f"{directory}/results", results)
    return f"passed; {', '.join(fetched)} in {results}"


def _run_script(connection: Connection, path: str, timeout_s: int) -> None:
    command = f"timeout --kill-after={KILL_AFTER_S} {timeout_s} bash {shlex.quote(path)}"
    result = connection.run(command, hide=True, warn=True, in_stream=False)
    if result.exited == 0:
        return
    if result.exited == TIMED_OUT:
        raise PlaybookError(f"{PurePosixPath(path).name} was ended after {timeout_s} s")
    last_lines = "\n".join((result.stdout + result.stderr).strip().splitlines()[-20:])
    raise PlaybookError(f"{PurePosixPath(path).name} ended with exit code {result.exited}\n{last_lines}")


def _fetch_results(connection: Connection, remote: str, local: Path) -> list[str]:
    local.mkdir(parents=True, exist_ok=True)
    sftp = connection.sftp()
    try:
        present = set(sftp.listdir(remote))
    except FileNotFoundError:
        return []
    fetched = []
    for name in sorted(present.intersection(RESULT_FILES)):
        sftp.get(f"{remote}/{name}", str(local / name))
        fetched.append(name)
    return fetched


def summarise(outcomes: tuple[Outcome, ...]) -> str:
    """One line a machine, and what went wrong under it."""
    return render("summary.txt.j2", outcomes=outcomes)
