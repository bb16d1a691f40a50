"""What is wrong with a packet script: every problem with its place, collected and raised together."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from testbed.errors import TestbedError

MAXIMUM_PROBLEMS_SHOWN = 50
MAXIMUM_QUOTED_CHARACTERS = 60
MAXIMUM_LINE_SHOWN = 160


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a script; both numbers count from 1, the column in characters."""

    line: int
    column: int


NOWHERE = Location(0, 0)
"""Of what was not read from a file."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    location: Location
    message: str
    hint: str = ""


class PacketScriptError(TestbedError):
    """A script that cannot be read.

    The text holds for each problem ``path:line:column: message — hint``, the line and a caret under the
    place; ``problems`` has them as values.
    """

    def __init__(self, message: str, path: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.problems = problems


class PacketError(TestbedError):
    """A packet of a script that cannot be built, though its syntax is right: a field lacks its value."""


class ScriptText:
    """The text of a script; turns offsets into places and problems into messages."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._line_starts = [0]
        position = text.find("\n")
        while position >= 0:
            self._line_starts.append(position + 1)
            position = text.find("\n", position + 1)

    def location(self, offset: int) -> Location:
        line = bisect_right(self._line_starts, offset)
        return Location(line, offset - self._line_starts[line - 1] + 1)

    def line(self, number: int) -> str:
        """Line ``number``, counted from 1, without its end."""
        start = self._line_starts[number - 1]
        end = self.text.find("\n", start)
        return (self.text[start:] if end < 0 else self.text[start:end]).rstrip("\r")

    def describe(self, problem: Problem) -> str:
        """``path:line:column: message — hint``, then the line and a caret under the place."""
        location = problem.location
        hint = f" — {problem.hint}" if problem.hint else ""
        first = f"{self.path}:{location.line}:{location.column}: {problem.message}{hint}"
        line = printable(self.line(location.line))
        start = max(0, location.column - MAXIMUM_LINE_SHOWN + 20)
        shown = line[start : start + MAXIMUM_LINE_SHOWN]
        indent = "".join(
            "\t" if character == "\t" else " " for character in shown[: location.column - 1 - start]
        )
        return f"{first}\n    {shown}\n    {indent}^"


class ProblemCollector:
    """Gathers the problems of one script."""

    def __init__(self, text: ScriptText) -> None:
        self.text = text
        self._problems: list[Problem] = []

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, location: Location, message: str, hint: str = "") -> None:
        self._problems.append(Problem(location, message, hint))

    def raise_if_any(self) -> None:
        """Raises PacketScriptError with all problems in the order of the file, each once."""
        if not self._problems:
            return
        distinct = tuple(sorted(set(self._problems)))
        described = [self.text.describe(problem) for problem in distinct[:MAXIMUM_PROBLEMS_SHOWN]]
        if len(distinct) > MAXIMUM_PROBLEMS_SHOWN:
            described.append(
                f"{self.text.path}: … and {len(distinct) - MAXIMUM_PROBLEMS_SHOWN} more problems"
            )
        raise PacketScriptError("\n".join(described), self.text.path, distinct)


def printable(text: str) -> str:
    """``text`` with everything but tabs that a terminal would act on replaced."""
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def quoted(text: str) -> str:
    """``text`` for a message: one line, printable, of bounded length."""
    shown = str(text)
    if len(shown) > MAXIMUM_QUOTED_CHARACTERS:
        shown = shown[:MAXIMUM_QUOTED_CHARACTERS] + "…"
    return repr(shown)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names what ``word`` was probably meant to be, else what it could have been."""
    names = list(known)
    by_lower_case = {name.lower(): name for name in names}
    shortened = word[:MAXIMUM_QUOTED_CHARACTERS].lower()
    close = difflib.get_close_matches(shortened, by_lower_case, n=1)
    if close:
        return f"did you mean {by_lower_case[close[0]]!r}?"
    shown = ", ".join(names[:12])
    return f"known: {shown}, …" if len(names) > 12 else f"known: {shown}"
