"""Agents in throw-away namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.namespaces import missing
from tests.host.labs import Pair, pair_of_hosts


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips a test where namespaces cannot be made."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kernel_mptcp(namespaces: None) -> None:
    """Skips a test where the kernel has no MPTCP."""
    if not Path("/proc/sys/net/mptcp").exists():
        pytest.skip("this kernel has no MPTCP")


@pytest.fixture(scope="module")
def kernel_pair(kernel_mptcp: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_of_hosts(tmp_path_factory.mktemp("agents"), ("kernel", "kernel")) as pair:
        yield pair
