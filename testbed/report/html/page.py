"""The page: the matrix as a table, and behind each of its cells everything that is known of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from testbed.report.comparison import Comparison
from testbed.report.html.details import details_of
from testbed.report.records import RunRecord
from testbed.selftests.case import all_cases
from testbed.selftests.results import Outcome, SessionInformation

_SIGNS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.SKIP: "–", Outcome.ERROR: "!"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One run in the matrix; repetitions share a cell, which shows the worst of them."""

    outcome: str
    sign: str
    number: int
    """Of the run whose details it opens."""
    tooltip: str
    repetitions: int


@dataclass(frozen=True, slots=True)
class Row:
    """One case."""

    group: str
    name: str
    description: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One setting of every axis."""

    client: str
    server: str
    family: str
    axes: tuple[str, ...]

    @property
    def family_text(self) -> str:
        return self.family if self.family == "mixed" else f"IPv{self.family}"

    @property
    def text(self) -> str:
        return " ".join((f"{self.client}-{self.server}", self.family_text, *self.axes))


def html_page(
    session: SessionInformation, records: Sequence[RunRecord], comparison: Comparison | None = None
) -> str:
    """The whole document. ``comparison`` is with an earlier set of records."""
    descriptions = {case.full_name: case.description for case in all_cases()}
    columns, rows = _matrix(records, descriptions)
    outcomes = {outcome.value: 0 for outcome in Outcome}
    for record in records:
        outcomes[record.result.outcome.value] += 1
    folder = files("testbed.report.html")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        session=session,
        seeds=sorted({record.session_seed for record in records} or {session.seed}),
        outcomes=outcomes,
        total=len(records),
        seconds=f"{session.duration_ms / 1000:.1f}",
        columns=columns,
        rows=rows,
        groups=sorted({row.group for row in rows}),
        runs=[
            details_of(record, number, descriptions.get(record.result.run.case, ""))
            for number, record in enumerate(records, 1)
        ],
        comparison=comparison,
        numbers={record.result.run.identifier: number for number, record in enumerate(records, 1)},
    )


def _matrix(records: Sequence[RunRecord], descriptions: dict[str, str]) -> tuple[list[Column], list[Row]]:
    columns: dict[Column, None] = {}
    found: dict[str, dict[Column, list[int]]] = {}
    for number, record in enumerate(records, 1):
        run = record.result.run
        column = Column(run.client_stack, run.server_stack, run.family_name, run.axes)
        columns[column] = None
        found.setdefault(run.case, {}).setdefault(column, []).append(number)
    ordered = sorted(columns, key=lambda column: (column.axes, column.client, column.server, column.family))
    ordered.sort(key=lambda column: column.axes)
    rows = [
        Row(
            case.partition("/")[0],
            case.partition("/")[2],
            descriptions.get(case, ""),
            tuple(_cell(records, cells.get(column, ())) for column in ordered),
        )
        for case, cells in found.items()
    ]
    return ordered, rows


def _cell(records: Sequence[RunRecord], numbers: Sequence[int]) -> Cell | None:
    if not numbers:
        return None
    order = (Outcome.PASS, Outcome.SKIP, Outcome.FAIL, Outcome.ERROR)
    worst = max(numbers, key=lambda number: order.index(records[number - 1].result.outcome))
    result = records[worst - 1].result
    identifier = replace(result.run, repetition=1).identifier
    tooltip = f"{identifier}: {result.outcome.value}, {result.duration_ms} ms"
    if len(numbers) > 1:
        failed = sum(
            records[number - 1].result.outcome in (Outcome.FAIL, Outcome.ERROR) for number in numbers
        )
        tooltip = f"{identifier}: {failed} of {len(numbers)} failed"
    return Cell(result.outcome.value, _SIGNS[result.outcome], worst, tooltip, len(numbers))
