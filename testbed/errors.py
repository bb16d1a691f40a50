"""What a user can get wrong, and the exit codes of every command (``docs/architecture.md``, "Exit codes")."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The process's answer. 0, 1 and 4 mean what kselftest means; ``exec`` returns its child's code."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    SKIP = 4
    UNAVAILABLE = 5
    """This machine lacks something that was asked for."""
    INTERNAL = 70
    INTERRUPTED = 130


class TestbedError(Exception):
    """Base: a message for the user, already complete, and the exit code that goes with it."""

    exit_code = ExitCode.USAGE


class UsageError(TestbedError):
    """Options or names that make no sense."""


class TopologyError(TestbedError):
    """A topology file with problems: all of them, one a line, as file:line:column with a hint."""


class CapabilityError(TestbedError):
    """The machine or its kernel lacks something; the message names it and what would help."""

    exit_code = ExitCode.UNAVAILABLE


class LabError(TestbedError):
    """A lab that could not be built, found or undone."""

    exit_code = ExitCode.FAIL


class HostError(TestbedError):
    """A host of a lab refused a request or did not answer."""

    exit_code = ExitCode.FAIL
