"""Packing a revision, and what the templates make of odd words."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from playbooks.machines import Machine, Outcome, PlaybookError
from playbooks.steps import pack_checkout, render, summarise

from .repository import make_repository


def test_archive_holds_what_is_committed(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project", {"kept.txt": "committed\n"})
    (project / "kept.txt").write_text("changed\n")
    (project / "stray.txt").write_text("not committed\n")
    checkout = pack_checkout(project, "HEAD", tmp_path)
    with tarfile.open(checkout.archive) as archive:
        assert archive.getnames() == ["kept.txt"]
        member = archive.extractfile("kept.txt")
        assert member is not None
        assert member.read() == b"committed\n"
    assert len(checkout.revision) == 40


@pytest.mark.parametrize("revision", ["no-such-branch", "--output=/tmp/x", ""])
def test_unknown_revision_is_named(tmp_path: Path, revision: str) -> None:
    project = make_repository(tmp_path / "project", {"kept.txt": ""})
    with pytest.raises(PlaybookError, match="cannot pack revision"):
        pack_checkout(project, revision, tmp_path)


def test_folder_without_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="not a git repository"):
        pack_checkout(tmp_path, "HEAD", tmp_path)


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("provision.sh.j2", {"directory": "a; touch b", "archive": "$(x)'.tar.gz", "revision": "0" * 40}),
        ("selftest.sh.j2", {"directory": "a b", "arguments": ["--family", "4", "'; x"], "sudo": True}),
        ("selftest.sh.j2", {"directory": "a", "arguments": [], "sudo": False}),
    ],
)
def test_scripts_are_legal_whatever_the_words(template: str, values: dict[str, object]) -> None:
    script = render(template, **values)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=20)
    assert "{{" not in script


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="directory"):
        render("selftest.sh.j2", arguments=[], sudo=False)


def test_summary_counts_and_indents() -> None:
    outcomes = (
        Outcome(Machine("a"), True, "passed"),
        Outcome(Machine("b", "root"), False, "exit code 1\nnot ok 3 bulk"),
    )
    assert summarise(outcomes) == (
        "ok     a: passed\nFAILED root@b: exit code 1\n         not ok 3 bulk\n1 of 2 machines passed\n"
    )
