"""What every reader of parse trees needs: places, complaints, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lark import Token, Tree

from testbed.packetdrill.errors import Location, ProblemCollector, quoted

Branch = Token | Tree[Token]

_NUMBER = re.compile(r"(?:(0[xX][0-9a-fA-F]{1,40})|(0[0-7]{1,40})|(0|[1-9][0-9]{0,38}))[uUlL]{0,3}")


class RejectionError(Exception):
    """A part of an event makes no sense; the problem has been noted."""


class TreeContext:
    """Of one event, whose text begins at offset ``start`` of the file."""

    def __init__(self, problems: ProblemCollector, start: int, defines: Mapping[str, int]) -> None:
        self.defines = defines
        self._problems = problems
        self._start = start

    def location(self, branch: Branch) -> Location:
        if isinstance(branch, Token):
            offset = branch.start_pos or 0
        else:
            offset = 0 if branch.meta.empty else branch.meta.start_pos
        return self._problems.text.location(self._start + offset)

    def reject(self, branch: Branch, message: str, hint: str = "") -> RejectionError:
        """Notes the problem; the caller raises what is returned."""
        self._problems.add(self.location(branch), message, hint)
        return RejectionError(message)

    def integer(self, token: Token, what: str, maximum: int, minimum: int = 0) -> int:
        """A number in C's notation between the bounds."""
        value = parse_integer(token)
        if value is None:
            raise self.reject(token, f"{what}: expected a number, got {quoted(token)}")
        if not minimum <= value <= maximum:
            raise self.reject(token, f"{what}: {quoted(token)} is not within {minimum} to {maximum}")
        return value


def parse_integer(text: str) -> int | None:
    """A number of C, decimal, hexadecimal or octal; None if ``text`` is none or far too long."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    if hexadecimal is not None:
        return int(hexadecimal, 16)
    return int(octal, 8) if octal is not None else int(decimal)


def token_of(tree: Tree[Token], index: int = 0) -> Token:
    """The child at ``index``, which the grammar says is a token."""
    child = tree.children[index]
    if not isinstance(child, Token):
        raise TypeError(f"{tree.data}: child {index} is no token")
    return child


def tokens_of(tree: Tree[Token]) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def subtrees(tree: Tree[Token], rule: str | None = None) -> Iterator[Tree[Token]]:
    """The children that are trees, those of ``rule`` only if it is given."""
    for child in tree.children:
        if isinstance(child, Tree) and (rule is None or child.data == rule):
            yield child


def subtree(tree: Tree[Token], rule: str) -> Tree[Token] | None:
    return next(subtrees(tree, rule), None)
