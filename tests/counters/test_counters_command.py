"""``testbed counters``: which host is meant, and what is printed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from testbed.backend import ownership
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.ownership import LabRecord, ProcessRecord
from testbed.commands import counters
from testbed.errors import UsageError


class FakeHost:
    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = values

    def counters(self) -> Mapping[str, int]:
        return self._values


class FakeLab:
    """A lab with one host, ``client``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def host(self, name: str) -> FakeHost:
        assert name == "client"
        return FakeHost({"MPTcpExtAddAddr": 3, "TcpInSegs": 0})

    def __enter__(self) -> FakeLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the labs that were opened."""
    names: list[str] = []

    def open_lab(backend: NamespaceBackend, name: str) -> FakeLab:
        names.append(name)
        return FakeLab(name)

    monkeypatch.setattr(NamespaceBackend, "open_lab", open_lab)
    return names


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    counters.add_arguments(parser)
    return parser.parse_args(words)


def test_columns_leave_zeros_out(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert counters.run(parse("two-paths/client")) == 0
    assert capsys.readouterr().out == "#kernel\nMPTcpExtAddAddr                 3                  0.0\n"
    assert opened == ["two-paths"]


def test_all_counters_as_json(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert counters.run(parse("client", "--lab", "chain", "--all", "--json")) == 0
    assert capsys.readouterr().out == '{"kernel": {"MPTcpExtAddAddr": 3, "TcpInSegs": 0}}\n'
    assert opened == ["chain"]


def test_the_only_lab_is_meant(
    opened: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {"broken": "its owner was killed", "good": None}
    monkeypatch.setattr(ownership, "read_labs", lambda: [record(name) for name in faults])
    monkeypatch.setattr(LabRecord, "fault", lambda lab: faults[lab.name])
    assert counters.run(parse("client")) == 0
    assert opened == ["good"]


def record(name: str) -> LabRecord:
    return LabRecord(
        name=name,
        directory=Path(name),
        tag="",
        owner=ProcessRecord("owner", 1, 0),
        boot="",
        persistent=True,
        rootless=False,
        topology=name,
        created_at=0,
    )


def test_one_lab_must_be_up() -> None:
    with pytest.raises(UsageError, match=r"several labs are up: name one, as in 'one/client' \(one, two\)"):
        counters.only_lab(["one", "two"], "client")
    with pytest.raises(UsageError, match="no lab is up"):
        counters.only_lab([], "client")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("/client",), "neither HOST nor LAB/HOST"),
        (("lab/",), "neither HOST nor LAB/HOST"),
        (("one/client", "--lab", "two"), "HOST names lab 'one', --lab names 'two'"),
    ],
)
def test_senseless_names_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        counters.run(parse(*words))
