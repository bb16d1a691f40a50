"""To compile the stack, or to boot a virtual machine, takes minutes: only when asked for, by ``-m``."""

from __future__ import annotations

import pytest

ON_DEMAND = ("compiled", "vm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = str(config.getoption("markexpr"))
    left_out = [
        item
        for item in items
        if any(item.get_closest_marker(name) and name not in asked_for for name in ON_DEMAND)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
