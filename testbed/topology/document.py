"""YAML text as a tree of values that know their places, with bounds against hostile files.

Built from the parser's events (never from a constructor), so no tag can create an object, and nesting or
aliases cannot exhaust the process. Plain scalars follow YAML 1.2's core words: ``true`` and ``false`` are
booleans, ``yes`` and ``on`` are text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from testbed.topology.problems import START_OF_FILE, Mark, ProblemCollector, quoted

MAXIMUM_BYTES = 1 << 20
MAXIMUM_NODES = 100_000
MAXIMUM_DEPTH = 24

PathElement = str | int
DocumentPath = tuple[PathElement, ...]
Value = str | int | bool | None | list["Value"] | dict[str, "Value"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)


@dataclass(slots=True, eq=False)
class Scalar:
    mark: Mark
    value: str | int | bool | None
    text: str
    size: int = 1


@dataclass(slots=True, eq=False)
class Sequence:
    mark: Mark
    items: list[DocumentNode] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True, eq=False)
class Entry:
    key_mark: Mark
    value: DocumentNode


@dataclass(slots=True, eq=False)
class Mapping:
    mark: Mark
    entries: dict[str, Entry] = field(default_factory=dict)
    size: int = 1


DocumentNode = Scalar | Sequence | Mapping


def plain_value(node: DocumentNode) -> Value:
    """The tree without its places."""
    if isinstance(node, Mapping):
        return {key: plain_value(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain_value(item) for item in node.items]
    return node.value


def child(node: DocumentNode, element: PathElement) -> DocumentNode | None:
    if isinstance(node, Mapping) and isinstance(element, str):
        entry = node.entries.get(element)
        return entry.value if entry else None
    if isinstance(node, Sequence) and isinstance(element, int) and 0 <= element < len(node.items):
        return node.items[element]
    return None


def existing_path(node: DocumentNode, path: DocumentPath) -> DocumentPath:
    """``path`` without the elements that are not in the document."""
    existing: list[PathElement] = []
    for element in path:
        found = child(node, element)
        if found is not None:
            node = found
            existing.append(element)
    return tuple(existing)


def value_mark(node: DocumentNode, path: DocumentPath) -> Mark:
    """Where the value at ``path`` begins; where the path ends early, its last value that exists."""
    for element in path:
        found = child(node, element)
        if found is None:
            break
        node = found
    return node.mark


def key_mark(node: DocumentNode, path: DocumentPath) -> Mark:
    """Where the key of the value at ``path`` begins; for an element of a list, the value itself."""
    *parents, last = path
    for element in parents:
        found = child(node, element)
        if found is None:
            return node.mark
        node = found
    if isinstance(node, Mapping) and isinstance(last, str) and last in node.entries:
        return node.entries[last].key_mark
    return value_mark(node, (last,))


def remove(node: DocumentNode, path: DocumentPath) -> None:
    """Take the value at ``path`` out; nothing happens where it is gone already."""
    *parents, last = path
    for element in parents:
        found = child(node, element)
        if found is None:
            return
        node = found
    if isinstance(node, Mapping) and isinstance(last, str):
        node.entries.pop(last, None)
    elif isinstance(node, Sequence) and isinstance(last, int) and last < len(node.items):
        del node.items[last]


class _UnreadableError(Exception):
    """The document cannot be read any further; the problem is noted."""


class _Reader:
    """Recursive descent over the parser's events; the depth is bounded."""

    def __init__(self, events: Iterator[yaml.Event], problems: ProblemCollector) -> None:
        self._events = events
        self._problems = problems
        self._anchors: dict[str, DocumentNode] = {}
        self._total_nodes = 0

    def document(self) -> DocumentNode | None:
        """The file's one document, or None for an empty file."""
        root: DocumentNode | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._give_up(_mark(event), "a topology file holds one document", "remove the second one")
                root = self._node(next(self._events), 1)
        return root

    def _node(self, event: yaml.Event, depth: int) -> DocumentNode:
        mark = _mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark)
        self._count(1, mark)
        if depth > MAXIMUM_DEPTH:
            self._give_up(mark, f"nested deeper than {MAXIMUM_DEPTH} levels")
        node: DocumentNode
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(mark, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(mark, depth)
        elif isinstance(event, yaml.ScalarEvent):
            node = _scalar(event, mark)
        else:
            self._give_up(mark, "a value is missing here")
        self._reject_tag(event.tag, mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, mark: Mark, depth: int) -> Sequence:
        node = Sequence(mark)
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item = self._node(event, depth + 1)
            node.items.append(item)
            node.size += item.size
        return node

    def _mapping(self, mark: Mark, depth: int) -> Mapping:
        node = Mapping(mark)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_place = _mark(event)
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                self._problems.add(key_place, "a key must be a plain word")
                continue
            word = key.text
            if word in node.entries:
                first = node.entries[word].key_mark
                self._problems.add(
                    key_place, f"duplicate key {quoted(word)}", f"line {first.line} has it already"
                )
                continue
            node.entries[word] = Entry(key_place, value)
            node.size += 1 + value.size
        return node

    def _alias(self, event: yaml.AliasEvent, mark: Mark) -> DocumentNode:
        anchor = event.anchor or ""
        target = self._anchors.get(anchor)
        if target is None:
            self._give_up(mark, f"alias {quoted('*' + anchor)} has no finished anchor before it")
        self._count(target.size, mark)
        return target

    def _reject_tag(self, tag: str | None, mark: Mark) -> None:
        if tag is not None:
            self._problems.add(mark, f"tag {quoted(tag)} has no meaning here", "remove it")

    def _count(self, nodes: int, mark: Mark) -> None:
        self._total_nodes += nodes
        if self._total_nodes > MAXIMUM_NODES:
            self._give_up(mark, f"more than {MAXIMUM_NODES} values, with aliases followed")

    def _give_up(self, mark: Mark, message: str, hint: str = "") -> NoReturn:
        self._problems.add(mark, message, hint)
        raise _UnreadableError


def _mark(event: yaml.Event) -> Mark:
    where = event.start_mark
    return Mark(where.line + 1, where.column + 1) if where else START_OF_FILE


def _scalar(event: yaml.ScalarEvent, mark: Mark) -> Scalar:
    text: str = event.value
    if not event.implicit[0]:
        return Scalar(mark, text, text)
    if text in _NULL:
        return Scalar(mark, None, text)
    if text in _BOOLEANS:
        return Scalar(mark, _BOOLEANS[text], text)
    return Scalar(mark, int(text) if _INTEGER.fullmatch(text) else text, text)


def _control_character(text: str) -> Mark:
    """The first one's place: the reader of YAML tells it in bytes, or not at all."""
    for line_number, line in enumerate(text.split("\n"), start=1):
        for column, character in enumerate(line, start=1):
            if unicodedata.category(character) == "Cc" and character not in "\t\r\x85":
                return Mark(line_number, column)
    return START_OF_FILE


def parse_document(text: str, problems: ProblemCollector) -> DocumentNode | None:
    """The tree of a YAML text, or None when it cannot be read or is empty; problems are noted either way."""
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        root = _Reader(yaml.parse(text, Loader=loader), problems).document()
    except _UnreadableError:
        return None
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        mark = Mark(where.line + 1, where.column + 1) if where else START_OF_FILE
        context = f" ({error.context})" if error.context else ""
        lines = text.splitlines()
        is_tab = mark.line <= len(lines) and lines[mark.line - 1][mark.column - 1 :].startswith("\t")
        hint = "indent with spaces, there are no tabs in YAML" if is_tab else ""
        problems.add(mark, f"not valid YAML: {error.problem}{context}", hint)
        return None
    except yaml.reader.ReaderError as error:
        problems.add(_control_character(text), f"not valid YAML: {error.reason}")
        return None
    except yaml.YAMLError as error:
        problems.add(START_OF_FILE, f"not valid YAML: {quoted(error)}")
        return None
    if root is None:
        problems.add(START_OF_FILE, "the file is empty", "start with 'version: 1'")
    return root
