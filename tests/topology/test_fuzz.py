"""Whatever the bytes: a topology or a TopologyError, soon. Nothing else escapes."""

from __future__ import annotations

import random
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.errors import TopologyError
from testbed.topology import builtin_names, describe, load_topology, to_json
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector
from testbed.topology.template import render

KITCHEN_SINK = """
version: 1
name: sink
nodes:
  a: {stack: kernel, mptcp: {endpoints: auto, limits: {subflows: 2, add_addr_accepted: 2}}}
  b:
    kind: host
    mptcp:
      endpoints: [{interface: eth1, flags: [subflow, backup]}, {address: 10.0.1.2, flags: [signal], id: 3}]
    interfaces: {eth0: {mac: "02:00:00:00:00:01"}}
    routes: [{to: default, via: 10.0.1.1, metric: 5}, {to: 192.0.2.0/24, interface: eth0, from: 10.0.1.2}]
    sysctls: {net.ipv4.tcp_sack: 0}
  r: {kind: router}
  s: {kind: switch}
links:
  - {endpoints: [a, b], mtu: 1400, subnets: [10.0.1.0/24], impair: {rate: 10mbit}}
  - endpoints: [a, r:lan]
    impair: {"->": {rate: 1mbit}, "<-": {rate: 2mbit, delay: 5ms}}
  - endpoints: [{node: r, interface: wan, addresses: [192.168.0.1/16, 'fd01::1/64']}, s]
  - endpoints: [s, b]
events:
  - {at: 3s, link: "r:wan", set: down}
  - {at: 2s, link: "a:eth0", impair: {"->": {loss: 5%}}}
  - {at: 4s, link: "a:eth0", middlebox: {strip: {}}}
  - {at: 1s, interface: "b:eth0", remove_address: 10.0.1.2}
"""
FRAGMENTS = [
    *(
        "a",
        "b",
        "r",
        "s",
        "eth0",
        "auto",
        "~",
        "true",
        "[]",
        "{}",
        "*x",
        "&x ",
        "!!int ",
        "- ",
        ": ",
        "\n",
        "\t",
        "'",
    ),
    *(
        "10.0.1.1/24",
        "::/0",
        "fd00::1",
        "255.255.255.255",
        "1",
        "-1",
        "0",
        "9" * 40,
        "1e9",
        "1mbit",
        "5ms",
        "%",
    ),
    *("{{ x }}", "{% for a in range(9) %}", "{% endfor %}", "\x00", "\x85", "\u2028", "\ufeff", "👋"),
]


def outcome(text: str) -> bool:
    """Whether the text is a topology. Anything but TopologyError escapes."""
    started = time.process_time()
    try:
        topology = load_text(text, ProblemCollector("fuzz"))
    except TopologyError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith("fuzz:") for line in lines)
        return False
    finally:
        assert time.process_time() - started < 5
    assert describe(topology)
    assert to_json(topology)
    return True


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    outcome(text)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(FRAGMENTS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FRAGMENTS), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.just(1) | JSON_LIKE,
            "name": st.just("x") | JSON_LIKE,
            "nodes": st.dictionaries(
                st.sampled_from("abrs"),
                JSON_LIKE
                | st.fixed_dictionaries(
                    {},
                    optional={
                        "kind": st.sampled_from(["host", "router", "switch"]) | JSON_LIKE,
                        "mptcp": st.fixed_dictionaries({"endpoints": st.just("auto") | JSON_LIKE})
                        | JSON_LIKE,
                        "interfaces": JSON_LIKE,
                        "routes": JSON_LIKE,
                        "sysctls": JSON_LIKE,
                    },
                ),
            ),
            "links": st.lists(
                st.fixed_dictionaries(
                    {"endpoints": st.lists(st.sampled_from("abrs"), min_size=2, max_size=2) | JSON_LIKE},
                    optional={"subnets": JSON_LIKE, "impair": JSON_LIKE, "mtu": JSON_LIKE},
                )
                | JSON_LIKE,
                max_size=6,
            ),
        },
    )
)
def test_any_structure(value: object) -> None:
    outcome(repr(value).replace("None", "null").replace("True", "true").replace("False", "false"))


def test_mutations_of_valid_files() -> None:
    source = random.Random(5)
    valid = 0
    for _ in range(600):
        text = KITCHEN_SINK.replace(", delay: 5ms", "")
        for _ in range(source.randint(0, 4)):
            start = source.randrange(len(text))
            end = min(len(text), start + source.choice([0, 1, 1, 2, 8, 40]))
            text = text[:start] + source.choice([*FRAGMENTS, "", text[start:end] * 2]) + text[end:]
        valid += outcome(text)
    assert 60 < valid < 500, "some mutations leave a file valid, some do not"


def test_any_line_may_be_missing_twice_or_swapped() -> None:
    lines = KITCHEN_SINK.splitlines(keepends=True)
    for position in range(len(lines)):
        outcome("".join(lines[:position] + lines[position + 1 :]))
        outcome("".join(lines[: position + 1] + lines[position:]))
        outcome("".join(lines[:position] + lines[position : position + 2][::-1] + lines[position + 2 :]))


def test_mutations_of_templates() -> None:
    source = random.Random(7)
    paths = [topology.source for topology in map(load_topology, builtin_names()) if topology.source]
    for _ in range(400):
        text = source.choice(paths).read_text("utf-8")
        for _ in range(source.randint(1, 4)):
            start = source.randrange(len(text))
            end = min(len(text), start + source.choice([0, 1, 2, 8]))
            text = text[:start] + source.choice([*FRAGMENTS, "{{", "}}", "{%", "%}", "|", ""]) + text[end:]
        problems = ProblemCollector("fuzz")
        started = time.process_time()
        rendered, lines = render(text, {}, problems)
        assert time.process_time() - started < 5
        if not len(problems):
            assert len(lines) == rendered.count("\n") + 1
            outcome(rendered)
