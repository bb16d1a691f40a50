"""Byte sequences made of parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mptcp_stack.tcp.buffers import ByteQueue, parts_length, slice_parts

parts_lists = st.lists(st.binary(max_size=10), max_size=8)


@given(parts_lists, st.integers(-3, 90), st.integers(-3, 90))
def test_slices_are_those_of_the_joined_bytes(parts: list[bytes], start: int, stop: int) -> None:
    joined = b"".join(parts)
    result = slice_parts(tuple(parts), start, stop)
    assert b"".join(result) == joined[max(start, 0) : max(stop, 0)]
    assert parts_length(result) == len(b"".join(result))
    assert all(len(part) for part in result)


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(0, 50)), max_size=60))
def test_queue_is_first_in_first_out(steps: list[bytes | int]) -> None:
    queue, model = ByteQueue(), b""
    for step in steps:
        if isinstance(step, bytes):
            queue.append(step)
            model += step
        else:
            assert queue.peek(step) == model[:step]
            taken = queue.take(step)
            assert b"".join(taken) == model[:step]
            assert len(taken) <= 16
            model = model[step:]
        assert queue.length == len(model)


def test_nothing_is_copied_on_the_way() -> None:
    queue = ByteQueue()
    data = bytes(1000)
    queue.append(data)
    (first,) = queue.take(400)
    (second,) = queue.take(1000)
    assert isinstance(first, memoryview)
    assert first.obj is data
    assert isinstance(second, memoryview)
    assert second.obj is data


def test_cleared_queue_is_empty() -> None:
    queue = ByteQueue()
    queue.append(b"abc")
    queue.clear()
    assert queue.length == 0
    assert queue.take(10) == ()
