"""Lines over time: throughput of each subflow, and how the data grew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.report.html.svg import element, picture, text

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 36, 28
COLOURS = 6
"""Of lines; further ones begin again."""
_RATE_BINS = 50
_LEAST_BIN_US = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line; ``colour`` 0 is the neutral one."""

    name: str
    points: tuple[tuple[float, float], ...]
    """Seconds and value."""
    colour: int
    is_stepped: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """An event, by its number in the timeline."""

    at_s: float
    number: int
    text: str


def plot(title: str, lines: Sequence[Line], marks: Sequence[Mark], unit: Callable[[float], str]) -> str:
    """The picture; its time axis holds all points and marks."""
    end_s = max((point[0] for line in lines for point in line.points), default=0.0)
    start_s = min((point[0] for line in lines for point in line.points), default=0.0)
    top = max((point[1] for line in lines for point in line.points), default=0.0)
    scale = _Scale(start_s, max(end_s, start_s + 1e-3), top or 1.0)
    parts = [*_grid(scale, unit), *_marks(scale, marks)]
    parts += [_path(scale, line) for line in lines]
    parts.append(text(title, 0, 13, class_="title"))
    return picture(WIDTH, HEIGHT, parts, label=title, class_="plot")


def rate_line(name: str, times_us: Sequence[int], counts: Sequence[int], colour: int) -> Line:
    """Bits per second from cumulative bytes, over bins wide enough to be more than noise."""
    if len(times_us) < 2:
        return Line(name, (), colour, is_stepped=True)
    bin_us = max((times_us[-1] - times_us[0]) / _RATE_BINS, _LEAST_BIN_US)
    points = [(times_us[0] / 1e6, 0.0)]
    since = 0
    for position in range(1, len(times_us)):
        elapsed_us = times_us[position] - times_us[since]
        if elapsed_us >= bin_us or position == len(times_us) - 1:
            rate = (counts[position] - counts[since]) * 8e6 / elapsed_us if elapsed_us else 0.0
            points.append((times_us[position] / 1e6, max(rate, 0.0)))
            since = position
    return Line(name, tuple(points), colour, is_stepped=True)


def count_line(name: str, times_us: Sequence[int], counts: Sequence[int], colour: int) -> Line:
    """Cumulative bytes as they are."""
    points = tuple((time_us / 1e6, float(count)) for time_us, count in zip(times_us, counts, strict=True))
    return Line(name, points, colour)


def rate_unit(value: float) -> str:
    """``20 Mbit/s``."""
    return _in_units(value, ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1, "bit/s")))


def byte_unit(value: float) -> str:
    """``1.5 MB``."""
    return _in_units(value, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def _in_units(value: float, units: Sequence[tuple[float, str]]) -> str:
    for size, name in units:
        if value >= size:
            return f"{value / size:.4g} {name}"
    return "0"


@dataclass(frozen=True, slots=True)
class _Scale:
    start_s: float
    end_s: float
    top: float

    def x(self, seconds: float) -> float:
        share = (seconds - self.start_s) / (self.end_s - self.start_s)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / (self.top * 1.05) * (HEIGHT - TOP - BOTTOM)


def ticks(start: float, end: float, count: int) -> list[float]:
    """Round numbers from ``start`` to ``end``, about ``count`` of them."""
    rough = (end - start) / max(count, 1)
    if rough <= 0:
        return [start]
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(start / step - 1e-9)
    return [number * step for number in range(first, math.floor(end / step + 1e-9) + 1)]


def _grid(scale: _Scale, unit: Callable[[float], str]) -> list[str]:
    parts = []
    for value in ticks(0.0, scale.top, 4):
        y = scale.y(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(text(unit(value), LEFT - 6, y + 4, class_="tick", text_anchor="end"))
    for seconds in ticks(scale.start_s, scale.end_s, 6):
        x = scale.x(seconds)
        y = HEIGHT - BOTTOM
        parts.append(element("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis"))
        parts.append(text(f"{seconds:.4g} s", x, y + 17, class_="tick", text_anchor="middle"))
    return parts


def _marks(scale: _Scale, marks: Sequence[Mark]) -> list[str]:
    parts = []
    free_x = 0.0
    for mark in marks:
        if not scale.start_s <= mark.at_s <= scale.end_s:
            continue
        x = scale.x(mark.at_s)
        line = element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark")
        tooltip = element(
            "title", (f"{mark.number}: {mark.text}".replace("&", "&amp;").replace("<", "&lt;"),)
        )
        label = ""
        if x >= free_x:
            label = text(str(mark.number), x, TOP - 3, class_="mark-number", text_anchor="middle")
            free_x = x + 14
        parts.append(element("g", (line, tooltip, label)))
    return parts


def _path(scale: _Scale, line: Line) -> str:
    if not line.points:
        return ""
    commands = []
    for number, (seconds, value) in enumerate(line.points):
        x, y = scale.x(seconds), scale.y(value)
        if not number:
            commands.append(f"M{x:.1f} {y:.1f}")
        elif line.is_stepped:
            commands.append(f"V{y:.1f}H{x:.1f}")
        else:
            commands.append(f"L{x:.1f} {y:.1f}")
    return element("path", d="".join(commands), class_=f"line line-{line.colour}")
