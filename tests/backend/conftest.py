"""A runtime directory and lab names of the test's own, and proof that nothing of it is left."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.backend.runtime import NAMESPACE_DIRECTORY, RUNTIME_VARIABLE

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: Unix sockets live in there."""
    directory = Path(tempfile.mkdtemp(prefix="mt-test-", dir="/tmp"))
    monkeypatch.setenv(RUNTIME_VARIABLE, str(directory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def lab_name(runtime: Path) -> Iterator[str]:
    """A name that nobody else uses; at the end nothing that carries it may be left."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    yield name
    assert namespaces_of(name) == []
    assert list(runtime.glob(f"{name}*")) == []


def namespaces_of(lab_name: str) -> list[str]:
    """The named namespaces of a lab."""
    return sorted(path.name for path in NAMESPACE_DIRECTORY.glob(f"mt-{lab_name}-*"))
