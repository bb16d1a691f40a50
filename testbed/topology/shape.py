"""Checks a document against the file format and puts pydantic's findings into plain words with places.

What does not fit is noted and taken out of the document, so that the rest can still be checked: all problems
are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.topology.document import (
    DocumentNode,
    DocumentPath,
    Entry,
    Mapping,
    Scalar,
    existing_path,
    key_mark,
    plain_value,
    remove,
    value_mark,
)
from testbed.topology.impairments import WORDS as IMPAIRMENTS
from testbed.topology.middleboxes import BOX_FILES, MiddleboxFile
from testbed.topology.problems import ProblemCollector, did_you_mean, quoted
from testbed.topology.raw import (
    EndpointFile,
    EventFile,
    ImpairFile,
    ImpairmentFile,
    InterfaceFile,
    LimitsFile,
    LinkEndFile,
    LinkFile,
    MptcpFile,
    NodeFile,
    RouteFile,
    TopologyFile,
)

MAXIMUM_ROUNDS = 8

# What takes the place of a required value that does not fit, so that the rest can be checked.
_STAND_INS: dict[str, str | int] = {"version": 1, "name": "unnamed"}

# Where each model lives in a file; "*" is any name or position.
_MODELS: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    ((), TopologyFile),
    (("nodes", "*"), NodeFile),
    (("nodes", "*", "mptcp"), MptcpFile),
    (("nodes", "*", "mptcp", "limits"), LimitsFile),
    (("nodes", "*", "mptcp", "endpoints", "*"), EndpointFile),
    (("nodes", "*", "interfaces", "*"), InterfaceFile),
    (("nodes", "*", "routes", "*"), RouteFile),
    (("links", "*"), LinkFile),
    (("links", "*", "endpoints", "*"), LinkEndFile),
    (("links", "*", "impair"), ImpairFile),
    (("links", "*", "impair", "->"), ImpairmentFile),
    (("links", "*", "impair", "<-"), ImpairmentFile),
    (("links", "*", "middlebox"), MiddleboxFile),
    *((("links", "*", "middlebox", kind), model) for kind, model in BOX_FILES.items()),
    (("events", "*"), EventFile),
    (("events", "*", "impair"), ImpairFile),
    (("events", "*", "impair", "->"), ImpairmentFile),
    (("events", "*", "impair", "<-"), ImpairmentFile),
    (("events", "*", "middlebox"), MiddleboxFile),
    *((("events", "*", "middlebox", kind), model) for kind, model in BOX_FILES.items()),
)

_NAME_RULES = {
    "nodes": "a node's name is 1 to 32 letters, digits, '-' or '_', and begins with a letter",
    "interface": "an interface's name is 1 to 15 letters, digits, '.', '-' or '_', and begins with a letter",
    "name": "the topology's name is 1 to 32 small letters, digits or '-'",
    "sysctls": "a sysctl's name looks like 'net.ipv4.tcp_congestion_control'",
}

_TYPES = {
    "int_type": "an integer",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Fitting:
    """The part of a document that fits the format, and where the rest was."""

    file: TopologyFile
    removed: frozenset[DocumentPath]

    def knows_interfaces(self) -> bool:
        """Whether nothing was removed that makes interfaces or their addresses."""
        return all(_leaves_interfaces(path) for path in self.removed)


def _leaves_interfaces(path: DocumentPath) -> bool:
    if path[0] == "nodes":
        return len(path) > 2 and path[2] not in {"kind", "interfaces"}
    if path[0] == "links":
        return len(path) > 2 and path[2] in {"mtu", "impair", "middlebox", "emulated"}
    return True


def fit(document: DocumentNode, problems: ProblemCollector) -> Fitting | None:
    """The part of ``document`` that fits the format; None if too little does."""
    if not isinstance(document, Mapping):
        problems.add(document.mark, "a topology file is a mapping", "start with 'version: 1'")
        return None
    removed: set[DocumentPath] = set()
    for attempt in range(MAXIMUM_ROUNDS):
        try:
            return Fitting(TopologyFile.model_validate(plain_value(document)), frozenset(removed))
        except ValidationError as error:
            found = error.errors(include_url=False)
        unfit = set()
        for details in found:
            # Later rounds miss only what an earlier one took out.
            if attempt == 0 or details["type"] not in {"missing", "too_short"}:
                _note(document, details, problems)
            unfit.add(_unfit_path(document, details))
        # From the back, so that positions in lists stay right.
        for path in sorted(unfit, key=_position_key, reverse=True):
            _take_out(document, path)
        removed |= unfit
    return None


def _unfit_path(document: Mapping, details: ErrorDetails) -> DocumentPath:
    """What must go so that the rest fits."""
    location = details["loc"]
    if details["type"] == "missing" and len(location) == 1:
        return location
    path = existing_path(document, location)
    if len(path) == 4 and path[0] == "links" and path[2] == "endpoints":
        return path[:2]
    return path


def _take_out(document: Mapping, path: DocumentPath) -> None:
    stand_in = _STAND_INS.get(path[0]) if len(path) == 1 and isinstance(path[0], str) else None
    if stand_in is None:
        remove(document, path)
    else:
        scalar = Scalar(document.mark, stand_in, str(stand_in))
        document.entries[str(path[0])] = Entry(document.mark, scalar)


def _position_key(path: DocumentPath) -> list[tuple[int, int, str]]:
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in path]


def _note(document: DocumentNode, details: ErrorDetails, problems: ProblemCollector) -> None:
    location, kind = details["loc"], details["type"]
    path = existing_path(document, location)
    word = str(location[-1]) if location else ""
    if kind == "missing":
        hint = "write 'version: 1'" if location == ("version",) else ""
        problems.add(value_mark(document, path), f"{word!r} is missing", hint)
    elif kind == "extra_forbidden" or word == "[key]":
        problems.add(key_mark(document, path), *finding_words(details, path))
    else:
        problems.add(value_mark(document, path), *finding_words(details, path))


def _elsewhere(word: str, path: DocumentPath) -> str:
    """A hint for what people put in the wrong place."""
    if path[0] == "nodes" and len(path) == 3 and word in {"impair", *IMPAIRMENTS}:
        return "a link is impaired, not a node: put it under 'impair' of a link"
    if path[0] == "links" and len(path) == 3 and word in IMPAIRMENTS:
        return "put it under 'impair'"
    if path[0] == "links" and len(path) == 3 and word in BOX_FILES:
        return "put it under 'middlebox'"
    return ""


def _known_keys(path: DocumentPath) -> list[str]:
    for pattern, model in _MODELS:
        if len(pattern) == len(path) and all(
            want in ("*", part) for want, part in zip(pattern, path, strict=True)
        ):
            return [field.alias or name for name, field in model.model_fields.items()]
    return []


def finding_words(details: ErrorDetails, path: DocumentPath) -> tuple[str, str]:
    """Message and hint of one finding, whose place in a topology file is ``path``."""
    kind, value = details["type"], details["input"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        word = str(path[-1])
        return f"unknown key {quoted(word)}", _elsewhere(word, path) or did_you_mean(
            word, _known_keys(path[:-1])
        )
    if kind in _TYPES:
        subject = _subject(path) if isinstance(path[-1], str) else f"an element of {_subject(path)}"
        return f"{subject} must be {_TYPES[kind]}, not {_shown(value)}", ""
    if kind == "literal_error":
        return f"{_subject(path)} cannot be {_shown(value)}", _choice_hint(value, str(context["expected"]))
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return f"{_subject(path)} must be {bound}, not {_shown(value)}", ""
    if kind in {"too_short", "too_long"}:
        return f"{_subject(path)} {_length_words(context)}", ""
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} cannot be a name here", _name_hint(details["loc"])
    return details["msg"], ""


def _choice_hint(value: object, expected: str) -> str:
    """``expected`` in pydantic's words: ``'up' or 'down'``."""
    if isinstance(value, str):
        hint = did_you_mean(value, re.findall(r"'([^']*)'", expected))
        if hint.startswith("did you mean"):
            return hint
    return f"it is {expected}"


def _length_words(context: dict[str, object]) -> str:
    limit = (
        f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
    )
    elements = "element" if limit.endswith(" 1") else "elements"
    return f"needs {limit} {elements}, not {context['actual_length']}"


def _name_hint(location: Sequence[str | int]) -> str:
    for part in reversed(location):
        if part in ("interface", "interfaces"):
            return _NAME_RULES["interface"]
        if part == "node":
            return _NAME_RULES["nodes"]
        if isinstance(part, str) and part in _NAME_RULES:
            return _NAME_RULES[part]
    return ""


def _subject(path: DocumentPath) -> str:
    return next((repr(part) for part in reversed(path) if isinstance(part, str)), "the file")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else str(value)
