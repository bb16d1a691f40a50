"""The published JSON Schema: current, valid, and of one mind with the checker about the format."""

from __future__ import annotations

import json

import jsonschema
import pytest

from testbed.errors import TopologyError
from testbed.topology.document import parse_document, plain_value
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector
from testbed.topology.schema import SCHEMA_FILE, schema_text
from tests.topology.test_problems import CASES

# What only the checker sees: things that do not exist, contradict each other, or cannot be done yet.
BEYOND_THE_SCHEMA = {
    *("unknown node", "self", "interface used twice", "interface name reserved", "isolated", "no host"),
    *("unreachable", "loop of switches", "stack of a router", "mptcp on plain TCP", "mtu below IPv6's"),
    *("impairment said twice", "impairments that contradict", "jitter beyond the delay", "slot"),
    *("impair both ways and one way", "value in impairments as text", "part of a mapping"),
    *("settings of the bundled stack", "netem with boxes", "moved to what is no switch"),
    *("scheduler", "scheduler that the kernel lacks"),
    *(
        "path manager",
        "rate of zero",
        "events",
        "events that cannot happen",
        "interface name reserved on switches",
    ),
}
# What YAML itself or the tree's reader refuses.
BEFORE_THE_SCHEMA = {"empty", "tabs", "duplicate key", "syntax and nothing else"}


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text("utf-8")))


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text("utf-8") == schema_text(), "run: python -m testbed.topology.schema"


def test_it_is_a_schema_of_draft_2020_12() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", sorted(CASES.keys() - BEYOND_THE_SCHEMA - BEFORE_THE_SCHEMA))
def test_it_refuses_what_the_checker_calls_unfit(name: str) -> None:
    document = parse_document(CASES[name][0], ProblemCollector(name))
    assert document is not None
    assert not validator().is_valid(plain_value(document))


@pytest.mark.parametrize("name", sorted(BEYOND_THE_SCHEMA))
def test_it_accepts_what_only_the_checker_can_judge(name: str) -> None:
    document = parse_document(CASES[name][0], ProblemCollector(name))
    assert document is not None
    validator().validate(plain_value(document))
    with pytest.raises(TopologyError):
        load_text(CASES[name][0], ProblemCollector(name))
