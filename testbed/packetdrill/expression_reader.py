"""Parse tree → system call with its arguments."""

from __future__ import annotations

import re

from lark import Token, Tree

from testbed.packetdrill.constants import CONSTANTS, ERRNO_NUMBERS, EXPRESSION_FUNCTIONS, SYSTEM_CALLS
from testbed.packetdrill.errors import did_you_mean, quoted
from testbed.packetdrill.syntax import (
    Array,
    BitwiseOr,
    Constant,
    Ellipsis,
    Expression,
    FunctionCall,
    Integer,
    String,
    Structure,
    StructureField,
    SystemCall,
)
from testbed.packetdrill.tree_context import (
    RejectionError,
    TreeContext,
    parse_integer,
    subtree,
    subtrees,
    token_of,
    tokens_of,
)

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def read_system_call(context: TreeContext, tree: Tree[Token]) -> SystemCall:
    """Notes every problem in the call, then raises RejectionError if there was any."""
    name = token_of(tree)
    failed = False
    if name not in SYSTEM_CALLS:
        context.reject(name, f"unknown system call {quoted(name)}", did_you_mean(name, SYSTEM_CALLS))
        failed = True
    listed = subtree(tree, "expressions")
    arguments: list[Expression] = []
    for argument in subtrees(listed) if listed is not None else ():
        try:
            arguments.append(read_expression(context, argument))
        except RejectionError:
            failed = True
    if not failed:
        failed = not _count_is_right(context, name, len(arguments))
    value: Expression | None = None
    errno_name = note = None
    result = subtree(tree, "result")
    if result is not None:
        value, errno_name, note = _read_result(context, result)
    if failed:
        raise RejectionError(name)
    return SystemCall(str(name), tuple(arguments), value, errno_name, note, location=context.location(tree))


def _count_is_right(context: TreeContext, name: Token, count: int) -> bool:
    fewest, most = SYSTEM_CALLS[name]
    if fewest <= count <= most:
        return True
    expected = str(fewest) if fewest == most else f"{fewest} to {most}"
    context.reject(name, f"{name} takes {expected} argument(s), got {count}")
    return False


def _read_result(context: TreeContext, tree: Tree[Token]) -> tuple[Expression, str | None, str | None]:
    value = read_expression(context, next(subtrees(tree)))
    errno_name = note = None
    for token in tokens_of(tree):
        if token.type == "NOTE":
            note = str(token[1:-1])
            continue
        if token not in ERRNO_NUMBERS:
            raise context.reject(token, f"unknown errno {quoted(token)}", did_you_mean(token, ERRNO_NUMBERS))
        if not (isinstance(value, Integer) and value.value == -1):
            raise context.reject(token, f"{token} goes with the result -1 only")
        errno_name = str(token)
    return value, errno_name, note


def read_expression(context: TreeContext, tree: Tree[Token]) -> Expression:
    """One argument or result; raises RejectionError."""
    location = context.location(tree)
    match tree.data:
        case "atom":
            return _read_atom(context, token_of(tree))
        case "negative":
            token = token_of(tree)
            return Integer(-context.integer(token, "a negative number", 1 << 63), location=location)
        case "ellipsis":
            return Ellipsis(location=location)
        case "string":
            return String(unescape(token_of(tree)), location=location)
        case "bitwise_or":
            return BitwiseOr(_read_all(context, tree), location=location)
        case "array":
            return Array(_read_list(context, tree), location=location)
        case "structure":
            fields = subtree(tree, "fields")
            read = (
                tuple(_read_field(context, entry) for entry in subtrees(fields)) if fields is not None else ()
            )
            return Structure(read, location=location)
        case _:
            return _read_function_call(context, tree)


def _read_all(context: TreeContext, tree: Tree[Token]) -> tuple[Expression, ...]:
    return tuple(read_expression(context, child) for child in subtrees(tree))


def _read_list(context: TreeContext, tree: Tree[Token]) -> tuple[Expression, ...]:
    listed = subtree(tree, "expressions")
    return () if listed is None else _read_all(context, listed)


def _read_atom(context: TreeContext, token: Token) -> Integer | Constant:
    location = context.location(token)
    number = parse_integer(token)
    if number is not None:
        if number >= 1 << 64:
            raise context.reject(token, f"{quoted(token)} has more than 64 bits")
        return Integer(number, token[:2] in ("0x", "0X"), location=location)
    if token[0].isdigit():
        raise context.reject(token, f"{quoted(token)} is not a number")
    for names in (context.defines, CONSTANTS):
        if token in names:
            return Constant(str(token), names[token], location=location)
    known = (*context.defines, *CONSTANTS)
    raise context.reject(token, f"unknown constant {quoted(token)}", did_you_mean(token, known))


def _read_function_call(context: TreeContext, tree: Tree[Token]) -> FunctionCall:
    name = token_of(tree)
    if name not in EXPRESSION_FUNCTIONS:
        hint = did_you_mean(name, EXPRESSION_FUNCTIONS)
        raise context.reject(name, f"unknown function {quoted(name)}", hint)
    arguments = _read_list(context, tree)
    if len(arguments) != EXPRESSION_FUNCTIONS[name]:
        wanted = EXPRESSION_FUNCTIONS[name]
        raise context.reject(name, f"{name} takes {wanted} argument(s), got {len(arguments)}")
    return FunctionCall(str(name), arguments, location=context.location(tree))


def _read_field(context: TreeContext, tree: Tree[Token]) -> StructureField:
    location = context.location(tree)
    left, *right = subtrees(tree)
    if not right:
        return StructureField(None, read_expression(context, left), location=location)
    value = read_expression(context, right[0])
    if left.data == "atom" and token_of(left).isidentifier():
        return StructureField(str(token_of(left)), value, location=location)
    if left.data == "function_call":
        counts = _read_list(context, left)
        if len(counts) == 1:
            return StructureField(str(token_of(left)), value, counts[0], location=location)
    raise context.reject(left, "expected the name of a field before '='")


def unescape(token: str) -> bytes:
    """The bytes of a quoted string with C's escapes."""
    parts: list[bytes] = []
    position = 1
    body_end = len(token) - 1
    for match in _ESCAPE.finditer(token, 1, body_end):
        parts.append(token[position : match.start()].encode("utf-8", "surrogateescape"))
        parts.append(_escaped(match[1]))
        position = match.end()
    parts.append(token[position:body_end].encode("utf-8", "surrogateescape"))
    return b"".join(parts)


def _escaped(text: str) -> bytes:
    if text[0] == "x" and len(text) > 1:
        return bytes((int(text[1:], 16),))
    if text[0] in "01234567":
        return bytes((int(text, 8) & 0xFF,))
    return _SIMPLE_ESCAPES.get(text, text).encode("utf-8", "surrogateescape")
