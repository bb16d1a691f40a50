"""To compile the stack takes minutes: only when it is asked for, by ``-m compiled``."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "compiled" in str(config.getoption("markexpr")):
        return
    left_out = [item for item in items if item.get_closest_marker("compiled") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
