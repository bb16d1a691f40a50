"""Cuts a script into statements: comments out, one piece of text for each option line, command and event.

An event ends at the end of its line unless something is still open there: a bracket, a list of options, a
comma. An event that begins anew on the next line ends it in any case, so that one forgotten bracket costs
one message and not the rest of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from testbed.packetdrill.errors import ProblemCollector

MAXIMUM_NESTING = 32
MAXIMUM_STATEMENT_CHARACTERS = 50_000

_INTERESTING = re.compile(r"[\"`%/<>()\[\]{}\n,]|\Z")
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')
_CONTINUES = re.compile(r"[ \t\r]*[<>=,|)\]}]")
_TIME = r"(?:\*|\+?(?:\d{1,20}(?:\.\d{1,20})?|\.\d{1,20}))"
_EVENT_BEGINS = re.compile(
    rf"[ \t]*{_TIME}(?:(?:~|\.\.\.){_TIME})?[ \t]+(?:[<>`]|%\{{|[a-z_][a-z_0-9]{{0,40}}[ \t]?\()"
)


class StatementKind(Enum):
    OPTIONS = auto()
    COMMAND = auto()
    EVENT = auto()


@dataclass(frozen=True, slots=True)
class Statement:
    """``text`` begins at offset ``start`` of the file, comments are blanks in it, places stay the same."""

    kind: StatementKind
    start: int
    text: str


class _Scanner:
    def __init__(self, text: str, problems: ProblemCollector) -> None:
        self._text = text
        self._problems = problems
        self._pieces: list[str] = []
        """Of the current statement."""
        self._start = 0
        self._position = 0
        self._depth = 0
        self._is_too_deep = False
        self._angles = ""
        self._last = ""
        """The last character that is neither blank nor comment."""
        self._header: list[str] = []
        self._statements: list[Statement] = []

    def scan(self) -> tuple[list[Statement], str]:
        while self._position < len(self._text):
            match = _INTERESTING.search(self._text, self._position)
            end = match.start() if match else len(self._text)
            self._take(end)
            if end < len(self._text):
                self._handle(self._text[end])
        self._finish()
        return self._statements, "\n".join(self._header).strip()

    def _take(self, end: int) -> None:
        """Adds the text up to ``end`` to the statement."""
        piece = self._text[self._position : end]
        stripped = piece.rstrip()
        if stripped:
            self._last = stripped[-1]
        self._pieces.append(piece)
        self._position = end

    def _skip(self, end: int) -> None:
        """Replaces the text up to ``end``, a comment, by blanks."""
        piece = self._text[self._position : end]
        if not self._statements and not self._last:
            self._header += [line.strip(" \t\r/*") for line in piece.splitlines()]
        self._pieces.append(re.sub(r"[^\n]", " ", piece))
        self._position = end

    def _handle(self, character: str) -> None:
        match character:
            case "\n":
                self._end_of_line()
            case '"':
                string = _STRING.match(self._text, self._position)
                self._take(string.end() if string else self._end_of_this_line())
            case "`":
                self._take_delimited("`", "a command without its closing '`'")
            case "%" if self._text.startswith("%{", self._position):
                self._take_delimited("}%", "code without its closing '}%'")
            case "/" if self._text.startswith("//", self._position):
                self._skip(self._end_of_this_line())
            case "/" if self._text.startswith("/*", self._position):
                self._skip_block_comment()
            case _:
                self._count(character)
                self._take(self._position + 1)

    def _count(self, character: str) -> None:
        if character in "([{":
            self._depth += 1
            if self._depth > MAXIMUM_NESTING and not self._is_too_deep:
                self._is_too_deep = True
                self._report(f"more than {MAXIMUM_NESTING} brackets within each other")
        elif character in ")]}":
            self._depth -= 1
        elif character in "<>":
            self._angles = self._angles[-1:] + character

    def _end_of_this_line(self) -> int:
        end = self._text.find("\n", self._position)
        return len(self._text) if end < 0 else end

    def _take_delimited(self, closing: str, complaint: str) -> None:
        end = self._text.find(closing, self._position + len(closing))
        if end < 0:
            self._report(complaint)
            self._give_up()
        else:
            self._take(end + len(closing))

    def _skip_block_comment(self) -> None:
        end = self._text.find("*/", self._position + 2)
        if end < 0:
            self._report("a comment without its closing '*/'")
            self._give_up()
        else:
            self._skip(end + 2)

    def _report(self, complaint: str) -> None:
        self._problems.add(self._problems.text.location(self._position), complaint)

    def _give_up(self) -> None:
        """What follows something that never ends cannot be told apart; the statement is part of it."""
        self._pieces.clear()
        self._last = ""
        self._position = len(self._text)

    def _end_of_line(self) -> None:
        options_open = self._angles in ("<<", "><")
        following = self._position + 1
        stays_open = (
            self._depth > 0
            or options_open
            or self._last == ","
            or _CONTINUES.match(self._text, following) is not None
        )
        if self._last and (not stays_open or _EVENT_BEGINS.match(self._text, following)):
            self._finish()
        self._take(self._position + 1)

    def _finish(self) -> None:
        text = "".join(self._pieces)
        begins = len(text) - len(text.lstrip())
        text = text.strip()
        if len(text) > MAXIMUM_STATEMENT_CHARACTERS:
            self._problems.add(
                self._problems.text.location(self._start + begins),
                f"more than {MAXIMUM_STATEMENT_CHARACTERS} characters in one event",
            )
        elif text and not self._is_too_deep:
            self._statements.append(Statement(_kind_of(text), self._start + begins, text))
        self._pieces.clear()
        self._start = self._position
        self._depth = 0
        self._is_too_deep = False
        self._angles = self._last = ""


def _kind_of(text: str) -> StatementKind:
    if text.startswith("--"):
        return StatementKind.OPTIONS
    return StatementKind.COMMAND if text.startswith("`") else StatementKind.EVENT


def split(text: str, problems: ProblemCollector) -> tuple[list[Statement], str]:
    """The statements in order, and the text of the comments before the first of them."""
    return _Scanner(text, problems).scan()
