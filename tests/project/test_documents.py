"""The documentation shows only what is there: links lead somewhere, commands parse, the schema is current."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from testbed.cli import COMMANDS, parse
from testbed.errors import ExitCode
from testbed.topology import load_topology

from .source_files import ROOT, listed

LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
SHELL_BLOCK = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`]+)`")
# What stands for something else in a text: "..." or "[SELECT]".
PLACEHOLDER = re.compile(r"\.\.\.|…|\[|<")


@cache
def documents() -> tuple[Path, ...]:
    return (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """Where it stands and the words of every command line in a shell block or a code span."""
    for document in documents():
        text = document.read_text(encoding="utf-8")
        lines = [line for block in SHELL_BLOCK.findall(text) for line in block.splitlines()]
        lines += [span.replace("\n", " ") for span in CODE_SPAN.findall(ANY_BLOCK.sub("", text))]
        for line in lines:
            if PLACEHOLDER.search(line):
                continue
            for words in _simple_commands(line):
                yield f"{document.name}: {line.strip()}", words


def _simple_commands(line: str) -> Iterator[list[str]]:
    """A line of shell without prompt, sudo, comment and redirection, at its ``&&``, ``|`` and ``;``."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        return
    words: list[str] = []
    for token in [*tokens, ";"]:
        if set(token) <= set("&|;<>()"):
            while words and words[0] in {"$", "sudo"}:
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(token)


def shown(*programs: str) -> list[tuple[str, list[str]]]:
    return [(where, words) for where, words in shown_commands() if words[0] in programs]


def test_every_link_leads_somewhere() -> None:
    offenders = []
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for target in LINK.findall(ANY_BLOCK.sub("", text)):
            path, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            file = document if not path else document.parent / path
            if not file.exists() or (anchor and anchor not in anchors(file)):
                offenders.append(f"{document.name}: {target}")
    assert not offenders, listed(offenders)


def anchors(document: Path) -> set[str]:
    """What a heading can be linked by, as the usual renderers spell it."""
    headings = re.findall(r"^#+ (.+)$", ANY_BLOCK.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_shown_testbed_command_parses(capsys: pytest.CaptureFixture[str]) -> None:
    offenders = []
    for where, words in shown("testbed", ".venv/bin/testbed"):
        if words[1:] in ([], ["--help"], ["--version"], *([name] for name in COMMANDS)):
            continue
        try:
            parse(words[1:])
        except SystemExit as problem:
            if problem.code:
                offenders.append(f"{where}: {capsys.readouterr().err.strip().splitlines()[-1]}")
        except ImportError as problem:
            offenders.append(f"{where}: {problem}")
    assert not offenders, listed(offenders)


def test_the_search_finds_commands() -> None:
    found = {words[1] for _, words in shown("testbed") if len(words) > 1}
    assert {"up", "exec", "down", "selftest", "clean", "doctor", "bench"} <= found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: testbed {name}" in capsys.readouterr().out


def test_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"testbed {name}" not in text] == []


def test_readme_has_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert rows == {int(code) for code in ExitCode}


def test_every_shown_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    offenders = [
        where
        for where, words in shown("make")
        for word in words[1:]
        if "=" not in word and not word.startswith("-") and word not in targets
    ]
    assert not offenders, listed(offenders)


def test_every_shown_playbook_task_exists() -> None:
    fabfile = pytest.importorskip("playbooks.fabfile", reason="Fabric is not installed (extra: remote)")
    offenders = []
    for where, words in shown("fab"):
        task = getattr(fabfile, words[3]) if words[1:3] == ["-r", "playbooks"] else None
        options = set() if task is None else {name for one in task.get_arguments() for name in one.names}
        used = {word[2:].partition("=")[0].replace("-", "_") for word in words[4:] if word.startswith("--")}
        if task is None or used - options:
            offenders.append(where)
    assert not offenders, listed(offenders)


def test_every_shown_topology_is_sound(tmp_path: Path) -> None:
    shown_topologies = [
        (document.name, block)
        for document in documents()
        for block in YAML_BLOCK.findall(document.read_text(encoding="utf-8"))
        if block.startswith("version:")
    ]
    assert shown_topologies
    for name, block in shown_topologies:
        file = tmp_path / f"{name}.topo.yaml"
        file.write_text(block, encoding="utf-8")
        load_topology(file)


def test_published_schema_is_current() -> None:
    from testbed.topology.schema import SCHEMA_FILE, schema_text

    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run: python -m testbed.topology.schema"
