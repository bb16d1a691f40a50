"""Every example in the documentation is a topology without problems."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from testbed.topology import builtin_names
from testbed.topology.document import parse_document, plain_value
from testbed.topology.load import load_text
from testbed.topology.middleboxes import BOX_FILES
from testbed.topology.problems import ProblemCollector
from testbed.topology.raw import ImpairmentFile, LinkFile, NodeFile, RouteFile
from testbed.topology.template import FILTERS, render
from tests.topology.path_walker import walk_everything
from tests.topology.test_schema import validator

PAGE = Path(__file__).parents[2] / "docs" / "topology_files.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
EXAMPLES = [text for language, text in BLOCKS if language in {"yaml", "jinja"}]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 9


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_has_no_problems_and_everybody_is_reachable(example: str) -> None:
    problems = ProblemCollector("example")
    if "{%" in example:
        example, _ = render(example, {}, problems)
        problems.raise_if_any()
    topology = load_text(example, problems)
    if topology.name != "explicit":
        walk_everything(topology)
    document = parse_document(example, problems)
    assert document is not None
    try:
        validator().validate(plain_value(document))
    except jsonschema.ValidationError as error:
        pytest.fail(f"{error.json_path}: {error.message}")


def test_the_program_example_runs() -> None:
    (program,) = [text for language, text in BLOCKS if language == "python"]
    exec(compile(program, str(PAGE), "exec"), {})


def test_a_subflow_survives_the_other_path_as_the_page_says() -> None:
    topology = load_text(EXAMPLES[0], ProblemCollector("example"))
    paths = {
        (str(source), str(destination)): path
        for (source, destination), path in walk_everything(topology).items()
    }
    assert paths["10.0.3.1", "10.0.2.2"] == ["client:wwan0", "lte:eth1"]
    assert paths["10.0.2.2", "10.0.3.1"] == ["server:eth1", "lte:eth0"]


def test_every_word_is_documented() -> None:
    page = PAGE.read_text("utf-8")
    for model in (NodeFile, LinkFile, RouteFile, ImpairmentFile):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page, f"{model.__name__}: {name}"
    for name in BOX_FILES:
        assert f"`{name}`" in page, name
    for name in (*builtin_names(), *FILTERS - {"d"}):
        assert f"`{name}`" in page, name
