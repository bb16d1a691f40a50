"""House rules that no linter knows: sizes, no exemptions, no waiting in tests."""

from __future__ import annotations

import ast
import re
import tokenize
import tomllib
from pathlib import Path

from .source_files import ROOT, listed, place, python_files, tree_of

MAXIMUM_FILE_LINES = 600
MAXIMUM_FUNCTION_LINES = 60

# In two parts, so that this file does not offend itself.
EXEMPTION = re.compile(
    "no" + r"qa|type:\s*ig" + r"nore|pragma:\s*no|fmt:\s*(off|skip)|ruff:|mypy:|#\s*nos" + "ec"
)
UNFINISHED = re.compile(r"\b(TO" + "DO|FIX" + "ME|X" + r"XX)\b")


def comments_of(path: Path) -> list[tuple[int, str]]:
    with tokenize.open(path) as file:
        return [
            (token.start[0], token.string)
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.COMMENT
        ]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_file_is_too_long() -> None:
    lengths = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAXIMUM_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    offenders = {
        f"{place(path, node)} {node.name}": body_lines(node)
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_lines(node) > MAXIMUM_FUNCTION_LINES
    }
    assert offenders == {}


def test_nobody_is_exempt() -> None:
    offenders = [
        f"{place(path)}:{line} {comment}"
        for path in python_files()
        for line, comment in comments_of(path)
        if EXEMPTION.search(comment)
    ]
    assert not offenders, listed(offenders)


def test_no_tool_is_told_to_look_away() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert not {"per-file-ignores", "extend-per-file-ignores"} & set(tools["ruff"]["lint"])
    assert not {"exclude", "extend-exclude"} & set(tools["ruff"])
    assert "exclude" not in tools["mypy"]
    assert "omit" not in tools["coverage"]["run"]
    assert "omit" not in tools["coverage"]["report"]


def test_nothing_is_left_for_later() -> None:
    offenders = [
        f"{place(path)}:{line} {comment}"
        for path in python_files()
        for line, comment in comments_of(path)
        if UNFINISHED.search(comment)
    ]
    assert not offenders, listed(offenders)


def test_tests_wait_for_conditions_not_for_time() -> None:
    offenders = [
        place(path, node)
        for path in python_files("tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) == "time.sleep"
            or (ast.unparse(node.func) == "asyncio.sleep" and ast.unparse(node.args[0]) != "0")
        )
    ]
    offenders += [
        place(path, node)
        for path in python_files("tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and node.module == "time"
        and "sleep" in {a.name for a in node.names}
    ]
    assert not offenders, listed(offenders)
