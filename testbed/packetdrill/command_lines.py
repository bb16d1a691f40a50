"""A script's command as the bundled stack reads it, where no shell is: programs, their words, and filters.

Commands stand one after the other (``;``, ``&&``, ends of lines); what one prints may go through ``grep``,
``head``, ``tail`` and ``wc``. Everything else that a shell can do is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mptcp_stack.errors import ConfigurationError
from testbed.packetdrill.errors import did_you_mean

PROGRAMS = frozenset({"ip", "sysctl", "nstat", "true"})
MAXIMUM_COMMAND_CHARACTERS = 10_000
_SEPARATORS = frozenset({";", "&&"})
_OPERATOR_CHARACTERS = frozenset(";&|<>")
_MAXIMUM_LINES = 1_000_000
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{(\w+)\})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A program with its words, and the filters that its output goes through."""

    words: tuple[str, ...]
    filters: tuple[tuple[str, ...], ...] = ()


def with_variables(text: str, variables: Mapping[str, str]) -> str:
    """``$name`` and ``${name}`` replaced. Raises ConfigurationError for a name that is not known."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            known = ", ".join(f"${each}" for each in variables)
            raise ConfigurationError(f"${name}: there is no shell here; known are {known}")
        return variables[name]

    return _VARIABLE.sub(value, text)


def read_commands(text: str) -> list[Pipeline]:
    """The commands in order. Raises ConfigurationError for what cannot be carried out."""
    if len(text) > MAXIMUM_COMMAND_CHARACTERS:
        raise ConfigurationError(f"a command of more than {MAXIMUM_COMMAND_CHARACTERS} characters")
    pipelines = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError as error:
            raise ConfigurationError(f"{line.strip()}: {error}") from None
        pipelines += _pipelines(tokens)
    for pipeline in pipelines:
        _check(pipeline)
    return pipelines


def _pipelines(tokens: list[str]) -> list[Pipeline]:
    found: list[list[list[str]]] = [[[]]]
    for token in tokens:
        if token in _SEPARATORS:
            found.append([[]])
        elif token == "|":
            found[-1].append([])
        elif token and set(token) <= _OPERATOR_CHARACTERS:
            raise ConfigurationError(f"{token}: there is no shell here; known are ; && and |")
        else:
            found[-1][-1].append(token)
    return [
        Pipeline(tuple(commands[0]), tuple(tuple(words) for words in commands[1:]))
        for commands in found
        if commands != [[]]
    ]


def _check(pipeline: Pipeline) -> None:
    if not pipeline.words or not all(pipeline.filters):
        raise ConfigurationError("|: a command is missing before or after it")
    name = pipeline.words[0]
    if name not in PROGRAMS:
        known = ", ".join(sorted(PROGRAMS))
        raise ConfigurationError(f"{name}: the bundled stack knows only {known}")
    for words in pipeline.filters:
        if words[0] not in _FILTERS:
            hint = did_you_mean(words[0], _FILTERS)
            raise ConfigurationError(f"| {words[0]}: there is no shell here — {hint}")
        # What is wrong with its words shows without any input.
        _FILTERS[words[0]](words[1:], [])


def filtered(pipeline: Pipeline, output: str) -> str:
    """What the pipeline prints, given what its program printed.

    Raises ConfigurationError where the last filter's exit code would not be 0.
    """
    lines = output.splitlines()
    succeeded = True
    for words in pipeline.filters:
        lines, succeeded = _FILTERS[words[0]](words[1:], lines)
    if not succeeded:
        raise ConfigurationError(f"{' '.join(pipeline.filters[-1])}: no line of the output matches")
    return "".join(f"{line}\n" for line in lines)


# --- filters: words and lines → lines, and whether the exit code is 0 ---

Words = tuple[str, ...]
Filtered = tuple[list[str], bool]


def _letters_and_rest(name: str, words: Words, allowed: str) -> tuple[set[str], Words]:
    letters: set[str] = set()
    rest = list(words)
    while rest and re.fullmatch(r"-[A-Za-z]+", rest[0]):
        letters |= set(rest.pop(0)[1:])
    if unknown := letters - set(allowed):
        raise ConfigurationError(f"{name} -{''.join(sorted(unknown))}: expected options of -{allowed}")
    return letters, tuple(rest)


def _grep(words: Words, lines: list[str]) -> Filtered:
    letters, rest = _letters_and_rest("grep", words, "qvciEF")
    if len(rest) != 1:
        raise ConfigurationError("grep: expected one pattern, and no file")
    pattern = re.escape(rest[0]) if "F" in letters else rest[0]
    try:
        matches = re.compile(pattern, re.IGNORECASE if "i" in letters else 0)
    except re.error as error:
        raise ConfigurationError(f"grep {rest[0]!r}: {error}") from None
    kept = [line for line in lines if bool(matches.search(line)) != ("v" in letters)]
    shown = kept
    if "q" in letters:
        shown = []
    elif "c" in letters:
        shown = [str(len(kept))]
    return shown, bool(kept)


def _line_count(name: str, words: Words) -> int:
    match words:
        case ():
            return 10
        case ("-n", number) if number.isdecimal():
            return min(int(number), _MAXIMUM_LINES)
        case (option,) if re.fullmatch(r"-n?\d{1,6}", option):
            return int(option.lstrip("-n"))
        case _:
            raise ConfigurationError(f"{name}: expected -n and a number of lines")


def _head(words: Words, lines: list[str]) -> Filtered:
    return lines[: _line_count("head", words)], True


def _tail(words: Words, lines: list[str]) -> Filtered:
    count = _line_count("tail", words)
    return lines[len(lines) - min(count, len(lines)) :], True


def _word_count(words: Words, lines: list[str]) -> Filtered:
    if words != ("-l",):
        raise ConfigurationError("wc: expected -l")
    return [str(len(lines))], True


_FILTERS: Mapping[str, Callable[[Words, list[str]], Filtered]] = {
    "grep": _grep,
    "head": _head,
    "tail": _tail,
    "wc": _word_count,
}
