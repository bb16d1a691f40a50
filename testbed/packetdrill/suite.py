"""Which scripts there are, and which of them are played on which stack with which IP version.

The comments before everything else in a script may say, each on a line of its own:

* ``only: userspace`` or ``only: kernel``, with the reason behind a dash;
* ``ip: 4`` or ``ip: 4,6``: the IP versions that it is for;
* ``kernel: REASON`` or ``userspace: REASON``: that stack is known to fail it, and is skipped for this reason.

The script's options ``--ip_version``, ``--stacks`` and ``--kernel_differs`` say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mptcp_stack.errors import ConfigurationError
from testbed.errors import UsageError
from testbed.packetdrill.command_lines import read_commands, with_variables
from testbed.packetdrill.errors import PacketScriptError, printable
from testbed.packetdrill.parser import load_script
from testbed.packetdrill.script_addresses import addresses_of
from testbed.packetdrill.script_options import NO_OPTIONS, ScriptOptions
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.syntax import Command, Script

SUFFIX = ".pkt"
STACKS = ("userspace", "kernel")
IP_NAMES = {"4": IpVersion.IPV4, "6": IpVersion.IPV6, "4-mapped": IpVersion.IPV4_MAPPED}
"""What ``--ip`` and ``ip:`` call them."""
MAXIMUM_SCRIPTS = 100_000

_VARIABLES = addresses_of(IpVersion.IPV4).variables()
"""Their names are the same for each IP version."""
_REMARK = re.compile(r"(only|ip|kernel|userspace):\s*(.*)")
_REASON = re.compile(r"\s+(?:—|–|-|--)\s+|,\s+")


@dataclass(frozen=True, slots=True)
class Header:
    """What a script says about where it is to be played."""

    only: str | None = None
    only_reason: str = ""
    versions: frozenset[IpVersion] = frozenset(IpVersion)
    skipped: tuple[tuple[str, str], ...] = ()
    """Stack and reason."""

    def reason_to_skip(self, stack: str, version: IpVersion) -> str | None:
        """None: play it."""
        if self.only is not None and self.only != stack:
            return f"only for {self.only}" + (f": {self.only_reason}" if self.only_reason else "")
        if version not in self.versions:
            return f"not for {version.value}"
        return next((reason for skipped, reason in self.skipped if skipped == stack), None)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a script on a stack with an IP version."""

    path: str
    stack: str
    version: IpVersion
    skip_reason: str | None = None
    script: Script | None = field(default=None, repr=False, compare=False)
    """As it was read for the plan; without it, it is read when it is played."""


def read_header(script: Script) -> Header:
    """Raises PacketScriptError for remarks that make no sense."""
    only, only_reason = script.options.get("stacks"), ""
    versions = frozenset(IpVersion)
    if "ip_version" in script.options:
        versions = frozenset({IpVersion(script.options["ip_version"])})
    skipped: list[tuple[str, str]] = []
    if "kernel_differs" in script.options:
        skipped.append(("kernel", script.options["kernel_differs"]))
    problems = []
    for line in script.header.splitlines():
        match = _REMARK.match(line.strip())
        if match is None:
            continue
        word, text = match[1], match[2].strip()
        if word == "only":
            only, _, only_reason = _divided(text)
        elif word == "ip":
            named = {name.strip() for name in text.split(",")}
            versions = frozenset(IP_NAMES[name] for name in named & set(IP_NAMES))
            problems += [f"ip: {name!r} is none of {', '.join(IP_NAMES)}" for name in named - set(IP_NAMES)]
        else:
            skipped.append((word, text or "said to fail"))
    if only in ("both", "all", ""):
        only = None
    if only is not None and only not in STACKS:
        problems.append(f"only: {only!r} is none of {', '.join(STACKS)}")
    if problems:
        raise PacketScriptError("\n".join(f"{script.path}: {problem}" for problem in problems), script.path)
    return Header(only, only_reason, versions, tuple(skipped))


def _divided(text: str) -> tuple[str, str, str]:
    match = _REASON.search(text)
    if match is None:
        return text, "", ""
    return text[: match.start()], match[0], text[match.end() :]


def _scripts_at(path: Path) -> list[Path]:
    """Raises OSError, UsageError."""
    if not path.exists():
        raise UsageError("no such file or folder")
    if not path.is_dir():
        return [path]
    below = sorted(each for each in path.rglob(f"*{SUFFIX}") if each.is_file())
    if not below:
        raise UsageError(f"no {SUFFIX} file below it")
    return below


def find_scripts(paths: Iterable[Path]) -> list[Path]:
    """The files, and all scripts below the folders, each once, in order of names.

    Raises UsageError, with all problems, for what is not there and for folders without a script.
    """
    found: dict[Path, None] = {}
    problems = []
    for path in paths:
        try:
            found.update(dict.fromkeys(_scripts_at(path)))
        except (OSError, UsageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            problems.append(f"{path}: {reason}")
    if len(found) > MAXIMUM_SCRIPTS:
        problems.append(f"{len(found)} scripts: at most {MAXIMUM_SCRIPTS} at once")
    if problems:
        raise UsageError("\n".join(problems))
    return list(found)


def _commands_that_need_a_shell(script: Script) -> list[str]:
    """What the bundled stack cannot carry out, each with its place."""
    actions = [script.init_command, *(event.action for event in script.events)]
    problems = []
    for command in actions:
        if isinstance(command, Command):
            try:
                read_commands(with_variables(command.text, _VARIABLES))
            except ConfigurationError as error:
                place = command.location
                shown = printable(" ".join(command.text.split()))
                problems.append(f"{script.path}:{place.line}:{place.column}: {error}\n    `{shown}`")
    return problems


def plan(
    scripts: Sequence[Path],
    stacks: Sequence[str],
    versions: Sequence[IpVersion],
    given: ScriptOptions = NO_OPTIONS,
) -> list[Cell]:
    """Every run, in order. Raises PacketScriptError with the problems of all scripts at once."""
    cells: list[Cell] = []
    problems: list[str] = []
    for path in scripts:
        try:
            script = load_script(path, given)
            header = read_header(script)
        except PacketScriptError as error:
            problems.append(str(error))
            continue
        wanted = [version for version in versions if version in header.versions]
        if not wanted:
            # So that it shows in the report: nothing of what was asked for suits it.
            wanted = list(versions[:1])
        if not script.events:
            problems.append(f"{path}: there is no event in it, nothing would be tested")
        if "userspace" in stacks and header.reason_to_skip("userspace", wanted[0]) is None:
            problems += _commands_that_need_a_shell(script)
        for stack in stacks:
            cells += [
                Cell(str(path), stack, version, header.reason_to_skip(stack, version), script)
                for version in wanted
            ]
    if problems:
        raise PacketScriptError("\n".join(problems))
    return cells
