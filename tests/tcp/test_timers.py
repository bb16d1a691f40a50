"""The timer queue against a model."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp_stack.tcp.timers import TimerQueue

COUNT = 4
steps = st.one_of(
    st.tuples(st.just("set"), st.integers(0, COUNT - 1), st.integers(0, 100)),
    st.tuples(st.just("earlier"), st.integers(0, COUNT - 1), st.integers(0, 100)),
    st.tuples(st.just("cancel"), st.integers(0, COUNT - 1), st.just(0)),
    st.tuples(st.just("fire"), st.just(0), st.integers(0, 60)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60))
def test_timers_agree_with_the_model(operations: list[tuple[str, int, int]]) -> None:
    queue = TimerQueue()
    fired: list[tuple[int, int]] = []

    def note(number: int, now_us: int) -> None:
        fired.append((number, now_us))

    timers = [queue.timer(partial(note, number)) for number in range(COUNT)]
    model: dict[int, int] = {}
    now_us = 0
    for operation, number, value in operations:
        match operation:
            case "set":
                timers[number].set(now_us + value)
                model[number] = now_us + value
            case "earlier":
                timers[number].set_if_earlier(now_us + value)
                model[number] = min(model.get(number, now_us + value), now_us + value)
            case "cancel":
                timers[number].cancel()
                model.pop(number, None)
            case _:
                now_us += value
                fired.clear()
                queue.fire(now_us)
                due = {number for number, deadline_us in model.items() if deadline_us <= now_us}
                assert {number for number, _ in fired} == due
                assert len(fired) == len(due)
                model = {number: time_us for number, time_us in model.items() if number not in due}
        assert queue.next_deadline_us() == min(model.values(), default=None)
        assert [timer.is_set for timer in timers] == [number in model for number in range(COUNT)]


def test_they_fire_in_order_of_time() -> None:
    queue = TimerQueue()
    order: list[int] = []

    def note(delay_us: int, now_us: int) -> None:
        order.append(delay_us)

    for delay_us in (30, 10, 20):
        queue.timer(partial(note, delay_us)).set(delay_us)
    queue.fire(100)
    assert order == [10, 20, 30]


def test_moving_a_deadline_later_and_later_costs_no_memory() -> None:
    queue = TimerQueue()
    timer = queue.timer(lambda now_us: None)
    for time_us in range(10_000):
        timer.set(time_us + 1000)
    assert len(queue._heap) == 1


def test_moving_a_deadline_to_and_fro_costs_no_memory() -> None:
    queue = TimerQueue()
    timer = queue.timer(lambda now_us: None)
    for time_us in range(0, 100_000, 50):
        timer.set(time_us + 100)
        timer.set(time_us + 50)
        queue.fire(time_us + 50)
    assert len(queue._heap) <= 3


def test_timer_may_set_itself_again() -> None:
    queue = TimerQueue()
    times: list[int] = []

    def again(now_us: int) -> None:
        times.append(now_us)
        if len(times) < 3:
            timer.set(now_us + 10)

    timer = queue.timer(again)
    timer.set(10)
    while (deadline_us := queue.next_deadline_us()) is not None:
        queue.fire(deadline_us)
    assert times == [10, 20, 30]
