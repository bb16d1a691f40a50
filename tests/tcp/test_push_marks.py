"""Where PSH stands: at the end of each write, and within long ones at every half window."""

from __future__ import annotations

from mptcp_stack.mptcp.push_marks import PushMarks

SEGMENT_BYTES, WINDOW = 1000, 20_000


def marks_after(*ends: int, sent: int = 0, more_follows: bool = False) -> list[int]:
    """Writes that end there, the first of which begins at 0."""
    marks = PushMarks(0)
    start = 0
    for end in ends:
        marks.on_write(start, end, sent, SEGMENT_BYTES, WINDOW, more_follows)
        start = end
    found: list[int] = []
    position = 0
    while (mark := marks.next_after(position)) is not None:
        found.append(mark)
        position = mark
    return found


def test_end_of_a_write_is_marked() -> None:
    assert marks_after(300) == [300]


def test_appending_to_a_buffer_that_waits_moves_its_mark() -> None:
    assert marks_after(300, 700) == [700]


def test_mark_of_a_full_buffer_stays() -> None:
    assert marks_after(10_000, 10_300) == [10_000, 10_300]


def test_what_has_left_is_not_appended_to() -> None:
    marks = PushMarks(0)
    marks.on_write(0, 300, 0, SEGMENT_BYTES, WINDOW, False)
    marks.on_write(300, 700, 300, SEGMENT_BYTES, WINDOW, False)
    assert marks.next_after(0) == 300
    assert marks.next_after(300) == 700


def test_long_write_is_marked_once_more_than_half_a_window_lies_behind() -> None:
    assert marks_after(45_000) == [20_000, 40_000, 45_000]


def test_no_mark_while_more_follows() -> None:
    assert marks_after(300, more_follows=True) == []


def test_tiny_window_still_makes_progress() -> None:
    marks = PushMarks(0)
    marks.on_write(0, 5000, 0, SEGMENT_BYTES, 0, False)
    assert marks.next_after(4000) == 5000
