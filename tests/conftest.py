"""What holds for all tests: those that need root are skipped without it."""

from __future__ import annotations

import pytest

from testbed.backend.privileges import has_privileges


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if has_privileges():
        return
    skip = pytest.mark.skip(reason="creating network namespaces needs root")
    for item in items:
        if "root" in item.keywords:
            item.add_marker(skip)
