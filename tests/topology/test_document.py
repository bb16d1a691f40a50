"""The YAML reader: YAML 1.2's core words, places of everything, and bounds against hostile files."""

from __future__ import annotations

import time

import pytest

from testbed.topology.document import (
    MAXIMUM_DEPTH,
    Mapping,
    child,
    key_mark,
    parse_document,
    plain_value,
    value_mark,
)
from testbed.topology.problems import Mark, ProblemCollector


def read(text: str) -> tuple[object, list[str]]:
    problems = ProblemCollector("file")
    document = parse_document(text, problems)
    return (None if document is None else plain_value(document)), problems.lines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("''", ""),
        ("'1'", "1"),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.5", "1.5"),
        ("9" * 30, "9" * 30),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert read(f"key: {text}\n") == ({"key": value}, [])


def test_places_count_from_one() -> None:
    document = parse_document("a: 1\nb:\n  - x\n  - {c: d}\n", ProblemCollector("file"))
    assert isinstance(document, Mapping)
    assert key_mark(document, ("b",)) == Mark(2, 1)
    assert value_mark(document, ("b", 0)) == Mark(3, 5)
    assert key_mark(document, ("b", 1, "c")) == Mark(4, 6)
    assert value_mark(document, ("b", 1, "c")) == Mark(4, 9)
    assert value_mark(document, ("b", 7, "nothing")) == Mark(3, 3), "the last value that exists"
    assert child(document, 0) is None


def test_anchors_and_aliases_share_values() -> None:
    assert read("a: &x {k: [1]}\nb: *x\n") == ({"a": {"k": [1]}, "b": {"k": [1]}}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "file:2:1: duplicate key 'a' — line 1 has it already"),
        ("{a: 1, 'a': 2}", "file:1:8: duplicate key 'a' — line 1 has it already"),
        ("[a]: 1\n", "file:1:1: a key must be a plain word"),
        ("? {a: b}\n: 1\n", "file:1:3: a key must be a plain word"),
        ("a: *b\n", "file:1:4: alias '*b' has no finished anchor before it"),
        ("a: &b [*b]\n", "file:1:8: alias '*b' has no finished anchor before it"),
        ("--- 1\n--- 2\n", "file:2:1: a topology file holds one document — remove the second one"),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "file:1:4: tag 'tag:yaml.org,2002:python/object/apply:os.system' has no meaning here — remove it",
        ),
        ("a: ! 12\n", "file:1:4: tag '!' has no meaning here — remove it"),
        ("a: [1\n", "file:2:1: not valid YAML: "),
        ("\tx", "file:1:1: not valid YAML: "),
        ("# nothing\n", "file:1:1: the file is empty"),
    ],
)
def test_problems(text: str, problem: str) -> None:
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_depth_is_bounded() -> None:
    assert read("[" * MAXIMUM_DEPTH + "]" * MAXIMUM_DEPTH)[1] == []
    for depth in (MAXIMUM_DEPTH + 1, 100_000):
        _, problems = read("[" * depth + "]" * depth)
        assert problems == [f"file:1:{MAXIMUM_DEPTH + 1}: nested deeper than {MAXIMUM_DEPTH} levels"]


def test_aliases_cannot_explode() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 20):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    started = time.process_time()
    _, problems = read(text)
    assert problems == ["file:5:45: more than 100000 values, with aliases followed"]
    assert time.process_time() - started < 1


def test_many_values_are_refused_in_bounded_time() -> None:
    started = time.process_time()
    _, problems = read("- 1\n" * 250_000)
    assert problems == ["file:100000:3: more than 100000 values, with aliases followed"]
    assert time.process_time() - started < 10
