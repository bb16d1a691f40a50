"""What is wrong with a topology file: every problem with its place, collected and raised together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from testbed.errors import TopologyError

MAXIMUM_PROBLEMS_SHOWN = 100
MAXIMUM_QUOTED_CHARACTERS = 60


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; both numbers count from 1."""

    line: int
    column: int


START_OF_FILE = Mark(1, 1)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    mark: Mark
    message: str
    hint: str = ""


def quoted(value: object) -> str:
    """``value`` for a message: one line, printable, of bounded length."""
    text = str(value)
    if len(text) > MAXIMUM_QUOTED_CHARACTERS:
        text = text[:MAXIMUM_QUOTED_CHARACTERS] + "…"
    return repr(text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names what ``word`` was probably meant to be, else everything it could have been."""
    names = list(known)
    close = difflib.get_close_matches(word[:MAXIMUM_QUOTED_CHARACTERS], names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    return f"known: {shown}, …" if len(names) > 12 else f"known: {shown}"


class ProblemCollector:
    """Gathers problems of one file. ``translate`` maps a place in rendered text to the template's."""

    def __init__(self, source: str, translate: Callable[[Mark], Mark] | None = None) -> None:
        self.source = source
        self._translate = translate
        self._problems: list[Problem] = []

    def add(self, mark: Mark, message: str, hint: str = "") -> None:
        self._problems.append(Problem(mark, message, hint))

    def __len__(self) -> int:
        return len(self._problems)

    def lines(self) -> list[str]:
        """``file:line:column: message — hint``, in the order of the file, each once."""
        distinct = sorted(set(self._problems))
        shown = [self._line(problem) for problem in distinct[:MAXIMUM_PROBLEMS_SHOWN]]
        if len(distinct) > MAXIMUM_PROBLEMS_SHOWN:
            shown.append(f"{self.source}: … and {len(distinct) - MAXIMUM_PROBLEMS_SHOWN} more problems")
        return list(dict.fromkeys(shown))

    def raise_if_any(self) -> None:
        """Raises TopologyError with all problems."""
        if self._problems:
            raise TopologyError("\n".join(self.lines()))

    def _line(self, problem: Problem) -> str:
        mark = self._translate(problem.mark) if self._translate else problem.mark
        hint = f" — {problem.hint}" if problem.hint else ""
        return f"{self.source}:{mark.line}:{mark.column}: {problem.message}{hint}"
