"""The command line: which command, with which options, and how every failure ends.

Each command is a module of :mod:`testbed.commands` with ``add_arguments(parser)`` and
``run(arguments) -> int``. Only the module of the chosen command is imported, and it imports what is heavy
within ``run``, so that ``testbed --help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from testbed.errors import ExitCode, TestbedError, UsageError

COMMANDS: dict[str, str] = {
    "up": "build a lab from a topology",
    "down": "take a lab down",
    "list": "show the labs",
    "show": "show a lab's nodes and links",
    "link": "show or change what a lab's links do to packets",
    "events": "let happen what a topology's timeline says",
    "calibrate": "measure links against what was asked of them",
    "exec": "run a program on a node of a lab",
    "shell": "open a shell on a node of a lab",
    "counters": "print a host's counters as nstat does",
    "selftest": "run the selftest matrix",
    "report": "render the records of runs, or compare two",
    "replay": "play recorded runs again",
    "packetdrill": "play packet scripts against both stacks",
    "soak": "run two stacks over bad networks in virtual time",
    "plan": "print a topology with everything derived",
    "check": "look for problems in a topology file",
    "clean": "remove what killed runs left behind",
    "doctor": "try what this machine can do",
    "bench": "measure stack, links, goodput, recovery and start-up",
}
"""Every command with its line in ``testbed --help``."""

_EXIT_CODES = """\
exit codes: 0 success, 1 failure, 2 usage or topology error, 4 all skipped, 5 something is missing on this
machine, 70 internal error, 130 interrupted; 'exec' and 'shell' return their program's"""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing anything, standard output included, may fail with on every machine."""

_COMMON_ARGUMENTS: tuple[tuple[str, str, str, str], ...] = (
    ("-v", "verbose", "count", "say more"),
    ("-q", "quiet", "count", "say less"),
    ("", "debug", "store_true", "show the traceback of an internal error"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What each module of :mod:`testbed.commands` offers."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: the same clean-up as for Ctrl-C, another exit code."""


class _Interruption:
    """Remembers what ended the program early: a library may turn what it raises into an error of its own."""

    def __init__(self) -> None:
        self._number: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._begin)

    def __bool__(self) -> bool:
        return self._number is not None

    def _begin(self, number: int, _frame: FrameType | None) -> NoReturn:
        self._number = signal.Signals(number)
        raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    def end(self) -> int:
        """Say it, and return the exit code."""
        if self._number is signal.SIGTERM:
            print("testbed: terminated", file=sys.stderr)
            return 128 + signal.SIGTERM
        print("testbed: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def run(argv: Sequence[str]) -> int:
    """Carry out one command line. Returns the exit code; only argparse exits by itself."""
    interruption = _Interruption()
    debug = "--debug" in argv
    try:
        command, arguments = parse(argv)
        code = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _close_broken_output()
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = interruption.end()
    except Exception as error:
        if debug:
            raise
        code = interruption.end() if interruption else _unexpected(error)
    return int(code)


def _unexpected(error: Exception) -> int:
    """Say it, and return the exit code."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f"{error.filename}: " if error.filename else ""
        print(f"testbed: {where}{error.strerror}", file=sys.stderr)
        _discard_output()
        return ExitCode.FAIL
    print(f"testbed: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    print("testbed: run with --debug for the traceback", file=sys.stderr)
    return ExitCode.INTERNAL


def _discard_output() -> None:
    """What waits to be written can go nowhere. Nothing may complain about it when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _close_broken_output() -> int:
    """The reader of our output is gone."""
    _discard_output()
    return 128 + signal.SIGPIPE


def load_command(name: str) -> Command:
    """The module of a command in :data:`COMMANDS`."""
    module = importlib.import_module(f"testbed.commands.{name}")
    return Command(module.add_arguments, module.run)


def parse(argv: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Find the command and read its options. Exits as argparse does, with 2, when they make no sense."""
    name = _command_name(argv)
    if name is not None and name not in COMMANDS:
        raise UsageError(f"no command is called '{name}'; {_near(name)}")
    parser = argparse.ArgumentParser(
        prog="testbed",
        description="Multipath TCP labs in network namespaces, and selftests that run on them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_VersionAction, nargs=0, help="show the version and exit")
    _add_common_arguments(parser, {"verbose": 0, "quiet": 0, "debug": False})
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = None
    for known_name, help_line in COMMANDS.items():
        sub_parser = commands.add_parser(known_name, help=help_line, description=_sentence(help_line))
        if known_name == name:
            command = load_command(name)
            command.add_arguments(sub_parser)
            _add_common_arguments(sub_parser, {})
    arguments = parser.parse_args(argv)
    if command is None:
        parser.error("no command given")
    return command, arguments


def _near(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(COMMANDS)}"


def _command_name(argv: Sequence[str]) -> str | None:
    """The first word that is no option: the options before it take no values."""
    return next((word for word in argv if not word.startswith("-")), None)


def _add_common_arguments(parser: argparse.ArgumentParser, defaults: Mapping[str, object]) -> None:
    """They may stand before and after the command: missing after it, they keep what stood before."""
    for flag, name, action, text in _COMMON_ARGUMENTS:
        default = defaults.get(name, argparse.SUPPRESS)
        names = [flag, f"--{name}"] if flag else [f"--{name}"]
        parser.add_argument(*names, action=action, default=default, help=text)


def _sentence(help_line: str) -> str:
    return f"{help_line[0].upper()}{help_line[1:]}."


class _VersionAction(argparse.Action):
    """Looks the version up only when it is asked for: the look takes longer than all the rest."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"testbed {version('mptcp-testbed')}")
        parser.exit()
