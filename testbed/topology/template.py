"""Jinja2 templates for topology files: a small, bounded subset, with the place of every rendered line.

A template comes with its topology and may be as hostile: only loops, conditions, plain expressions and a few
filters are available, and everything that could run or grow without end is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from testbed.topology.document import MAXIMUM_BYTES
from testbed.topology.problems import START_OF_FILE, Mark, ProblemCollector, did_you_mean, quoted

MAXIMUM_TEMPLATE_CHARACTERS = 128 * 1024
MAXIMUM_WORK = 2_000_000
"""Template nodes evaluated in loops."""
MAXIMUM_NESTING = 6
MAXIMUM_NUMBER = 10**12
FILTERS = frozenset({"abs", "default", "d", "float", "int", "length", "lower", "string", "upper"})
FUNCTIONS = frozenset({"range"})
ALLOWED_NODES: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Call),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Test, nodes.Filter),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.FloorDiv, nodes.Mod, nodes.Neg),
)

_LINE_MARKER = re.compile("\x00([0-9]+)\x00")


class _Environment(ImmutableSandboxedEnvironment):
    """Bounds the work of loops, and keeps arithmetic to numbers of bounded size."""

    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
        )
        self.work = 0
        self.filters["bounded"] = self._bounded
        self.globals = {"range": range}

    def _bounded(self, items: Iterable[object], weight: int) -> Iterator[object]:
        for item in items:
            self.work += weight
            if self.work > MAXIMUM_WORK:
                raise SecurityError("the loops of this template run for too long")
            yield item

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        for operand in (left, right):
            if not isinstance(operand, int | float) or abs(operand) > MAXIMUM_NUMBER:
                raise SecurityError(
                    f"{operator!r} takes numbers up to {MAXIMUM_NUMBER}, not {quoted(operand)};"
                    " text becomes a number with the filter 'int'"
                )
        result: object = super().call_binop(context, operator, left, right)
        return result


def render(source: str, variables: Mapping[str, str], problems: ProblemCollector) -> tuple[str, list[int]]:
    """The rendered text, and for each of its lines the template's line that it came from.

    Everything that is wrong is noted in ``problems``; the text is then empty.
    """
    environment = _Environment()
    tree = _parse(environment, source, variables, problems)
    if tree is None or len(problems):
        return "", []
    used = find_undeclared_variables(tree) - FUNCTIONS
    for name in sorted(set(variables) - used):
        known = sorted(used)
        problems.add(START_OF_FILE, f"no variable is called {quoted(name)}", did_you_mean(name, known))
    if len(problems):
        return "", []
    _prepare(tree)
    try:
        template = environment.from_string(tree)
        return _strip_markers(_bounded_text(template.generate(dict(variables))))
    except TemplateError as error:
        problems.add(Mark(_failing_line(error), 1), f"in the template: {_first_line(error)}")
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        problems.add(Mark(_failing_line(error), 1), f"in the template: {quoted(_first_line(error))}")
    return "", []


def _parse(
    environment: _Environment, source: str, variables: Mapping[str, str], problems: ProblemCollector
) -> nodes.Template | None:
    if len(source) > MAXIMUM_TEMPLATE_CHARACTERS:
        problems.add(START_OF_FILE, f"a template has at most {MAXIMUM_TEMPLATE_CHARACTERS} characters")
        return None
    if any("\x00" in text for text in (source, *variables.values())):
        problems.add(START_OF_FILE, "a template and its variables are text, without NUL characters")
        return None
    try:
        tree = environment.parse(source)
    except TemplateSyntaxError as error:
        problems.add(Mark(error.lineno, 1), f"not a valid template: {_first_line(error)}")
        return None
    except (RecursionError, ValueError) as error:
        problems.add(START_OF_FILE, f"not a valid template: {quoted(_first_line(error))}")
        return None
    try:
        _reject_unknown(tree, 0, problems)
    except RecursionError:
        problems.add(START_OF_FILE, "not a valid template: nested too deeply")
    return tree


def _reject_unknown(node: nodes.Node, nesting: int, problems: ProblemCollector) -> None:
    mark = Mark(node.lineno or 1, 1)
    if not isinstance(node, ALLOWED_NODES):
        problems.add(mark, f"{type(node).__name__!r} is not available in topology templates")
    elif isinstance(node, nodes.Filter) and (node.name not in FILTERS or node.dyn_args or node.dyn_kwargs):
        problems.add(mark, f"filter {node.name!r} is not available", did_you_mean(node.name, sorted(FILTERS)))
    elif isinstance(node, nodes.Call) and not (
        isinstance(node.node, nodes.Name) and node.node.name in FUNCTIONS
    ):
        problems.add(mark, "only 'range' can be called in topology templates")
    elif isinstance(node, nodes.For) and node.recursive:
        problems.add(mark, "a loop cannot be recursive in topology templates")
    nesting += isinstance(node, nodes.For | nodes.If)
    if nesting > MAXIMUM_NESTING:
        problems.add(mark, f"loops and conditions nested deeper than {MAXIMUM_NESTING}")
        return
    for each in node.iter_child_nodes():
        _reject_unknown(each, nesting, problems)


def _prepare(tree: nodes.Template) -> None:
    """Bound every loop, and precede every piece of output with its line in the template."""
    for loop in tree.find_all(nodes.For):
        weight = 1 + sum(1 for _ in loop.find_all(nodes.Node))
        arguments: list[nodes.Expr] = [nodes.Const(weight)]
        loop.iter = nodes.Filter(loop.iter, "bounded", arguments, [], None, None, lineno=loop.lineno)
    for output in tree.find_all(nodes.Output):
        marked: list[nodes.Expr] = []
        for piece in output.nodes:
            marked += [nodes.TemplateData(f"\x00{piece.lineno}\x00", lineno=piece.lineno), piece]
        output.nodes = marked
    if tree.environment is not None:
        tree.set_environment(tree.environment)


def _bounded_text(pieces: Iterable[str]) -> str:
    text: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAXIMUM_BYTES:
            raise SecurityError(f"the template makes more than {MAXIMUM_BYTES} characters")
        text.append(piece)
    return "".join(text)


def _strip_markers(marked: str) -> tuple[str, list[int]]:
    text: list[str] = []
    lines = [1]
    at_line_start = True
    for position, piece in enumerate(_LINE_MARKER.split(marked)):
        if position % 2:
            current = int(piece)
            if at_line_start:
                lines[-1] = current
            continue
        text.append(piece)
        for _ in range(piece.count("\n")):
            current += 1
            lines.append(current)
        at_line_start = piece.endswith("\n") if piece else at_line_start
    return "".join(text), lines


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _failing_line(error: Exception) -> int:
    """Jinja2 rewrites tracebacks so that frames of ``<template>`` carry the template's line numbers."""
    line = 1
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename in {"<template>", "<unknown>"}:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
