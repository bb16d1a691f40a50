"""Two stacks in threads of their own, joined by a link in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mptcp_stack.device.in_memory import in_memory_pair
from mptcp_stack.sockets.blocking import StackThread
from tests.sockets.test_over_run_loop import ADDRESSES, MACS, host


@pytest.fixture
def threads() -> Iterator[tuple[StackThread, StackThread]]:
    devices = in_memory_pair(("a0", "b0"), MACS)
    loops = [host(device, own) for device, own in zip(devices, ADDRESSES, strict=True)]
    near, far = [
        StackThread(loop.stack, {loop.stack.ip.interfaces[0]: device})
        for loop, device in zip(loops, devices, strict=True)
    ]
    with near, far:
        yield near, far
    for device in devices:
        device.close()
