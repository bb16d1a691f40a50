"""The run loop with a stand-in for the stack: receive, send, timer, fairness, full and failing devices."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from mptcp_stack.device.in_memory import InMemoryDevice, in_memory_pair
from mptcp_stack.device.interface import DeviceCounters, LinkLayer
from mptcp_stack.errors import DeviceError
from mptcp_stack.ip.interface import Interface
from mptcp_stack.run_loop import (
    RECEIVE_BATCH_FRAMES,
    TRANSMIT_QUEUE_FRAMES,
    RunLoop,
    create_stack,
    keep_freed_memory,
    monotonic_us,
)
from mptcp_stack.wire.frame import Frame
from tests.driver_fakes import FakeStack, interface


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await coroutine

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


class Rig:
    """A run loop over one end of a wire; the test holds the other."""

    def __init__(self) -> None:
        self.stack = FakeStack()
        self.interface = interface("a0")
        self.near, self.far = in_memory_pair(("a0", "b0"), link_layer=LinkLayer.RAW_IP)
        self.loop = RunLoop(self.stack, {self.interface: self.near})

    def close(self) -> None:
        self.loop.close()
        self.near.close()
        self.far.close()


def numbered(count: int) -> list[Frame]:
    return [Frame(index.to_bytes(4, "big")) for index in range(count)]


def test_frames_go_in_with_the_time_and_out_again() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        before_us = monotonic_us()
        rig.far.transmit(numbered(3))
        received: list[Frame] = []

        def all_back() -> bool:
            received.extend(rig.far.receive(64))
            return len(received) == 3

        await until(all_back)
        assert received == numbered(3)
        assert all(before_us <= now_us <= monotonic_us() for _, _, now_us in rig.stack.received)
        assert all(where is rig.interface for _, where, _ in rig.stack.received)
        rig.close()

    run(scenario())


def test_deadline_is_handled_when_due_and_not_before() -> None:
    async def scenario() -> None:
        rig = Rig()
        deadline_us = rig.stack.deadline_us = monotonic_us() + 20_000
        async with rig.loop:
            await until(lambda: bool(rig.stack.handled_us))
        assert deadline_us <= rig.stack.handled_us[0] < deadline_us + 500_000
        assert len(rig.stack.handled_us) == 1
        rig.close()

    run(scenario())


def test_deadline_in_the_past_is_handled_at_once() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.stack.deadline_us = 0
        async with rig.loop:
            await until(lambda: bool(rig.stack.handled_us))
        rig.close()

    run(scenario())


def test_what_has_arrived_is_seen_before_a_deadline_is_handled() -> None:
    """An acknowledgement that waits in a device must not be found missing."""

    async def scenario() -> None:
        rig = Rig()
        rig.far.transmit(numbered(3))
        rig.stack.deadline_us = 0
        async with rig.loop:
            await until(lambda: bool(rig.stack.handled_us))
            assert rig.stack.received_when_handled == [3]
        rig.close()

    run(scenario())


def test_timer_follows_an_earlier_deadline_and_outlives_a_later_one() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.stack.deadline_us = monotonic_us() + 3_600_000_000
        rig.loop.start()
        await until(lambda: rig.stack.sends == 1)
        rig.stack.deadline_us = monotonic_us() + 5_000
        rig.loop.wake()
        await until(lambda: rig.stack.sends == 2)
        # Put off while the timer is armed: it fires, finds nothing due, and arms again.
        deadline_us = rig.stack.deadline_us = monotonic_us() + 30_000
        await until(lambda: bool(rig.stack.handled_us))
        assert rig.stack.handled_us[0] >= deadline_us
        rig.close()

    run(scenario())


def test_what_came_on_several_devices_is_answered_once() -> None:
    async def scenario() -> None:
        rig = Rig()
        other = interface("a1", 2)
        near, far = in_memory_pair(("a1", "b1"), link_layer=LinkLayer.RAW_IP)
        rig.loop.add_device(other, near)
        rig.loop.start()
        await until(lambda: rig.stack.sends == 1)
        rig.far.transmit(numbered(3))
        far.transmit(numbered(2))
        await until(lambda: rig.stack.sends == 2)
        assert sorted(where.name for _frame, where, _now_us in rig.stack.received) == ["a0"] * 3 + ["a1"] * 2
        await until(lambda: rig.far.receive(9) == numbered(3))
        await until(lambda: far.receive(9) == numbered(2))
        assert rig.stack.sends == 2
        rig.close()
        near.close()
        far.close()

    run(scenario())


def test_wakes_are_coalesced() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        await until(lambda: rig.stack.sends == 1)
        for _ in range(100):
            rig.loop.wake()
        rig.stack.outgoing.append((rig.interface, Frame(b"queued")))
        await until(lambda: rig.stack.sends == 2)
        for _ in range(5):
            await asyncio.sleep(0)
        assert rig.stack.sends == 2
        assert rig.far.receive(9) == [Frame(b"queued")]
        rig.close()

    run(scenario())


def test_busy_device_leaves_turns_to_the_application() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.stack.echoes = False
        accepted = rig.far.transmit(numbered(4 * RECEIVE_BATCH_FRAMES))
        assert accepted > 2 * RECEIVE_BATCH_FRAMES
        rig.loop.start()
        seen: list[int] = []

        def all_in() -> bool:
            seen.append(len(rig.stack.received))
            return len(rig.stack.received) == accepted

        await until(all_in)
        steps = [second - first for first, second in itertools.pairwise(seen)]
        assert max(steps) == RECEIVE_BATCH_FRAMES
        rig.close()

    run(scenario())


def test_full_device_queues_in_order_and_overflow_is_counted() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        frames = numbered(3000)
        rig.stack.outgoing = [(rig.interface, frame) for frame in frames]
        rig.loop.wake()
        await until(lambda: rig.stack.sends == 1)
        dropped = rig.stack.counters["StackDropDeviceFull"]
        in_device = 3000 - TRANSMIT_QUEUE_FRAMES - dropped
        assert 0 < in_device < 2000
        # Frames that come later stay behind those that wait.
        rig.stack.outgoing = [(rig.interface, Frame(b"late"))]
        rig.loop.wake()
        received: list[Frame] = []

        def all_out() -> bool:
            received.extend(rig.far.receive(64))
            return len(received) >= in_device + TRANSMIT_QUEUE_FRAMES

        await until(all_out)
        assert received == frames[: in_device + TRANSMIT_QUEUE_FRAMES]
        assert rig.stack.counters["StackDropDeviceFull"] == dropped + 1
        rig.stack.outgoing = [(rig.interface, Frame(b"after"))]
        rig.loop.wake()
        await until(lambda: rig.far.receive(64) == [Frame(b"after")])
        rig.close()

    run(scenario())


def test_failed_device_is_taken_off_and_reported() -> None:
    async def scenario() -> None:
        rig = Rig()
        other = interface("a1", 2)
        near, far = in_memory_pair(("a1", "b1"))
        rig.loop.add_device(other, near)
        failures: list[tuple[Interface, DeviceError]] = []
        rig.loop.on_device_failure = lambda where, error: failures.append((where, error))
        rig.loop.start()
        rig.far.close()
        await until(lambda: bool(failures))
        assert failures[0][0] is rig.interface
        assert "other end is closed" in str(failures[0][1])
        far.transmit([Frame(b"still here")])
        await until(lambda: far.receive(1) == [Frame(b"still here")])
        rig.stack.outgoing = [(rig.interface, Frame(b"nowhere to go"))]
        rig.loop.wake()
        await until(lambda: rig.stack.counters["StackDropDeviceFull"] == 1)
        assert len(failures) == 1
        rig.close()
        near.close()
        far.close()

    run(scenario())


class BrokenDevice:
    """Fails at the first frame that it is to send."""

    checksum_offload = False
    gso_max_size = 0
    link_layer = LinkLayer.RAW_IP
    mac = b""
    mtu = 1500
    name = "broken"

    def __init__(self) -> None:
        self.counters = DeviceCounters()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self.accepts = 2

    def fileno(self) -> int:
        return self._descriptor

    def receive(self, limit: int) -> list[Frame]:
        return []

    def transmit(self, frames: Sequence[Frame]) -> int:
        if self.accepts == 0:
            raise DeviceError("broken: no more")
        accepted = min(self.accepts, len(frames))
        self.accepts -= accepted
        return accepted

    def close(self) -> None:
        os.close(self._descriptor)


def test_device_that_fails_while_frames_wait() -> None:
    async def scenario() -> None:
        stack, where, device = FakeStack(), interface("a0"), BrokenDevice()
        loop = RunLoop(stack, {where: device})
        failures: list[Interface] = []
        loop.on_device_failure = lambda where, _: failures.append(where)
        stack.outgoing = [(where, frame) for frame in numbered(5)]
        loop.start()
        await until(lambda: failures == [where])
        assert stack.counters["StackDropDeviceFull"] == 3
        loop.close()
        device.close()

    run(scenario())


def test_device_that_fails_at_once() -> None:
    async def scenario() -> None:
        stack, where, device = FakeStack(), interface("a0"), BrokenDevice()
        device.accepts = 0
        loop = RunLoop(stack, {where: device})
        stack.outgoing = [(where, Frame(b"frame"))]
        loop.start()
        await until(lambda: loop.remove_device(where) is None)
        loop.close()
        device.close()

    run(scenario())


def test_devices_come_and_go_while_running() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        assert rig.loop.remove_device(rig.interface) is rig.near
        assert rig.loop.remove_device(rig.interface) is None
        rig.far.transmit(numbered(1))
        rig.loop.wake()
        await until(lambda: rig.stack.sends == 1)
        assert rig.stack.received == []
        rig.loop.add_device(rig.interface, rig.near)
        await until(lambda: len(rig.stack.received) == 1)
        rig.close()

    run(scenario())


def test_closing_sends_what_is_left_and_stops_everything() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        await until(lambda: rig.stack.sends == 1)
        rig.stack.outgoing = [(rig.interface, Frame(b"last words"))]
        rig.stack.deadline_us = monotonic_us() + 1_000
        rig.loop.wake()
        rig.loop.close()
        rig.loop.close()
        assert rig.far.receive(9) == [Frame(b"last words")]
        handled_while_closing = list(rig.stack.handled_us)
        rig.far.transmit(numbered(1))
        rig.loop.wake()
        # By the time of a later timer, a reader or a timer that was still registered would have been called.
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.002, later.set)
        await later.wait()
        assert rig.stack.received == []
        assert rig.stack.handled_us == handled_while_closing
        rig.close()

    run(scenario())


def test_device_closed_before_the_loop_is_harmless() -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.loop.start()
        rig.near.close()
        rig.loop.close()
        assert isinstance(rig.near, InMemoryDevice)

    run(scenario())


def test_created_stacks_do_not_share_randomness() -> None:
    first, second = create_stack(), create_stack()
    assert first is not second


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="not a POSIX system")
def test_memory_tuning_reports_whether_it_works() -> None:
    has_mallopt = "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    assert keep_freed_memory() == has_mallopt
