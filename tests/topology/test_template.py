"""Templates: what they can say, that places are the template's, and that hostile ones are stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from testbed.errors import TopologyError
from testbed.topology import load_topology
from testbed.topology.problems import ProblemCollector
from testbed.topology.template import render


def rendered(source: str, variables: Mapping[str, str] | None = None) -> tuple[str, list[int], list[str]]:
    problems = ProblemCollector("t.j2")
    text, lines = render(source, variables or {}, problems)
    return text, lines, problems.lines()


def test_loops_conditions_defaults_and_arithmetic() -> None:
    source = (
        "{% set step = 2 %}\n"
        "{% for number in range(1, count | int + 1) if number != 2 %}\n"
        "n{{ number }}: {{ number * step - 1 }}{{ ' last' if loop.last else '' }}\n"
        "{% endfor %}\n"
        "stack: {{ stack | default('userspace') | upper }}\n"
    )
    assert rendered(source, {"count": "3"})[0] == "n1: 1\nn3: 5 last\nstack: USERSPACE\n"


def test_every_line_knows_where_it_came_from() -> None:
    source = "a\n{% for x in range(2) %}\nb{{ x }}\nc\n{% endfor %}\n\n{{ 'd' }}\n{#\ncomment\n#}\ne\n"
    text, lines, problems = rendered(source)
    assert not problems
    assert text.split("\n")[:-1] == ["a", "b0", "c", "b1", "c", "", "d", "e"]
    assert lines[:-1] == [1, 3, 4, 3, 4, 6, 7, 11]


def test_problems_have_the_templates_lines(tmp_path: Path) -> None:
    path = tmp_path / "lab.topo.yaml.j2"
    path.write_text(
        "version: 1\nname: lab\nnodes:\n{% for x in range(3) %}\n  h{{ x }}: {}\n{% endfor %}\n"
        "links:\n{% for x in range(3) %}\n  - endpoints: [h{{ x }}, h9]\n{% endfor %}\nmor: 1\n"
    )
    with pytest.raises(TopologyError) as caught:
        load_topology(path)
    assert str(caught.value).splitlines() == [
        f"{path}:9:21: no node is called 'h9' — known: h0, h1, h2",
        f"{path}:11:1: unknown key 'mor' — known: version, name, nodes, links, impairments, events",
    ]


def test_variables_make_a_template_of_any_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("version: 1\nname: '{{ who }}'\nnodes: {a: {}, b: {}}\nlinks: [{endpoints: [a, b]}]\n")
    assert load_topology(path, {"who": "x1"}).name == "x1"
    with pytest.raises(TopologyError, match=r":2:7: '{{ who }}' cannot be a name"):
        load_topology(path)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a\n{{ b }}\n", "t.j2:2:1: in the template: 'b' is undefined"),
        ("a\n{% for %}\n", "t.j2:2:1: not a valid template: "),
        ("{% endfor %}", "t.j2:1:1: not a valid template: "),
        ("\n{{ x | defalt(1) }}", "t.j2:2:1: filter 'defalt' is not available — did you mean 'default'?"),
        ("\n{{ x | list }}", "t.j2:2:1: filter 'list' is not available — known: abs, d,"),
        ("{% macro f() %}{% endmacro %}", "t.j2:1:1: 'Macro' is not available in topology templates"),
        ("{% include 'x' %}", "t.j2:1:1: 'Include' is not available in topology templates"),
        ("{{ 2 ** 9 }}", "t.j2:1:1: 'Pow' is not available in topology templates"),
        ("{{ 'a' ~ 'b' }}", "t.j2:1:1: 'Concat' is not available in topology templates"),
        ("{{ ''.join([]) }}", "t.j2:1:1: only 'range' can be called in topology templates"),
        ("{{ range(1 // 0) }}", "t.j2:1:1: in the template: "),
        ("\n{{ 'a' * 9 }}", "t.j2:2:1: in the template: '*' takes numbers up to 1000000000000, not 'a'"),
        ("{{ ''.__class__.__mro__ }}", "t.j2:1:1: in the template: access to attribute '__class__'"),
        ("{{ range.__class__ }}", "t.j2:1:1: in the template: access to attribute '__class__'"),
        ("\x00", "t.j2:1:1: a template and its variables are text"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "t.j2:1:1: not a valid template: "),
        ("{{ " + "9" * 5000 + " }}", "t.j2:1:1: not a valid template: "),
        ("{% if 1 %}" * 7 + "{% endif %}" * 7, "t.j2:1:1: loops and conditions nested deeper than 6"),
        ("x" * 200_000, "t.j2:1:1: a template has at most 131072 characters"),
    ],
)
def test_problems(source: str, problem: str) -> None:
    text, lines, problems = rendered(source)
    assert (text, lines) == ("", [])
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
        "{{ range(10 ** 9) }}",
        "{% set x = 'x' * 99999999999 %}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a' + 'b' }}",
        "{{ x[0] }}",
        "{{ 1 | round(99999999999, 'ceil') }}",
        "{{ 999999999 * 999999999 * 999999999 * 999999999 }}",
        "{{ '9' | int * ('9' | int) % 0 }}",
        "{% for a in 5 %}{% endfor %}",
        "{% for a, b in range(3) %}{% endfor %}",
    ],
)
def test_hostile_templates_are_stopped_soon(source: str) -> None:
    started = time.process_time()
    text, _, problems = rendered(source)
    assert problems
    assert text == ""
    assert time.process_time() - started < 5
