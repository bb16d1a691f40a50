"""Which option that came belongs to which option of a script: their order matters, ``...`` is any number."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.packetdrill.syntax import (
    AnyOptions,
    EndOfOptions,
    FastOpen,
    NoOperation,
    RawOption,
    ScriptOption,
)

_LONGEST_FILL = 3
"""Bytes that may be missing to a multiple of 4."""

Options = Sequence[ScriptOption]


def partners_of(expected: Options, described: Options, lengths: Sequence[int]) -> list[int] | None:
    """The positions in ``described``, ``lengths`` bytes each, of what is expected (``...`` has none).

    None if they do not fit together, by their forms: what their fields hold does not matter here.
    """
    runs = _runs_between_ellipses(expected)
    if len(runs) == 1:
        return _whole_list(expected, described, lengths)
    first, *middle, last = runs
    if not _fits(first, described, 0):
        return None
    partners = list(range(len(first)))
    position = len(first)
    for run in middle:
        found = _first_fit(run, described, position)
        if found is None:
            return None
        partners += range(found, found + len(run))
        position = found + len(run)
    found = _fit_at_end(last, described, position)
    return None if found is None else [*partners, *range(found, found + len(last))]


def _runs_between_ellipses(expected: Options) -> list[list[ScriptOption]]:
    runs: list[list[ScriptOption]] = [[]]
    for option in expected:
        if isinstance(option, AnyOptions):
            runs.append([])
        else:
            runs[-1].append(option)
    return runs


def _whole_list(expected: Options, described: Options, lengths: Sequence[int]) -> list[int] | None:
    count = len(described)
    if not _ends_with_fill(expected) and count > len(expected):
        # What only fills the header up to a multiple of 4 need not be written.
        written = sum(lengths[: len(expected)])
        while count > len(expected) and written % 4 and isinstance(described[count - 1], NoOperation):
            count -= 1
    if count != len(expected) or not _fits(expected, described, 0):
        return None
    return list(range(count))


def _ends_with_fill(run: Options) -> bool:
    return bool(run) and isinstance(run[-1], NoOperation | EndOfOptions)


def _fits(run: Options, described: Options, position: int) -> bool:
    there = described[position : position + len(run)]
    return len(there) == len(run) and all(
        isinstance(wanted, RawOption) or _form(wanted) == _form(came)
        for wanted, came in zip(run, there, strict=True)
    )


def _form(option: ScriptOption) -> object:
    """What two options share that can be compared with each other: all else is a different option."""
    if isinstance(option, FastOpen):
        return FastOpen, option.is_experimental
    return type(option)


def _first_fit(run: Options, described: Options, position: int) -> int | None:
    candidates = range(position, len(described) - len(run) + 1)
    return next((start for start in candidates if _fits(run, described, start)), None)


def _fit_at_end(run: Options, described: Options, position: int) -> int | None:
    """Where the last run begins: nothing but fill may follow it."""
    end = len(described)
    fill = 0
    while True:
        start = end - fill - len(run)
        if start < position:
            return None
        if _fits(run, described, start):
            return start
        if (
            fill == _LONGEST_FILL
            or _ends_with_fill(run)
            or not isinstance(described[start + len(run) - 1], NoOperation)
        ):
            return None
        fill += 1
