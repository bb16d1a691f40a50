"""The whole grid takes minutes of real time: only when it is asked for, by ``-m grid``."""

from __future__ import annotations

import pytest

from tests.host.conftest import kernel_mptcp, namespaces

__all__ = ["kernel_mptcp", "namespaces"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "grid" in str(config.getoption("markexpr")):
        return
    left_out = [item for item in items if is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def is_left_out(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("grid")
    return marker is not None and not marker.kwargs["in_selection"]
