"""A kernel under test for each test, and proof that it leaves no thread and no descriptor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.errors import CapabilityError
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import IpVersion
from tests.packetdrill.kernel.peer import addresses

OpenStack = Callable[[IpVersion], KernelStack]


def resources() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def open_stack() -> Iterator[OpenStack]:
    before = resources()
    opened: list[KernelStack] = []

    def open_one(version: IpVersion) -> KernelStack:
        try:
            opened.append(KernelStack(addresses(version), version))
        except CapabilityError as error:
            pytest.skip(str(error))
        return opened[-1]

    yield open_one
    for stack in opened:
        stack.close()
    assert resources() == before


@pytest.fixture(params=list(IpVersion))
def version(request: pytest.FixtureRequest) -> IpVersion:
    return IpVersion(request.param)


@pytest.fixture
def stack(open_stack: OpenStack, version: IpVersion) -> KernelStack:
    """For each version of IP."""
    return open_stack(version)


@pytest.fixture
def ipv4_stack(open_stack: OpenStack) -> KernelStack:
    return open_stack(IpVersion.IPV4)
