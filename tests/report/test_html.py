"""The HTML page: complete in itself, with every run behind its cell, whatever the runs are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from testbed.host.protocol import SubflowSeries, TrafficSeries
from testbed.report.comparison import compare
from testbed.report.html.details import details_of
from testbed.report.html.page import html_page
from testbed.report.html.plots import (
    Line,
    Mark,
    byte_unit,
    count_line,
    plot,
    rate_line,
    rate_unit,
    ticks,
)
from testbed.report.html.topology_picture import topology_picture
from testbed.report.records import RunRecord, Software, session_of
from testbed.selftests.observations import (
    LinkRecord,
    NodeRecord,
    TimelineEvent,
    TopologyRecord,
    TransferRecord,
    topology_record,
)
from testbed.selftests.results import Check, HostRecord, Outcome
from testbed.topology.load import builtin_names, load_topology
from tests.selftests.fakes import make_result, make_run

HOSTILE = '<script>alert("x")</script>&'
TIMES_US = (0, 100_000, 200_000, 300_000)
TRAFFIC = TrafficSeries(
    TIMES_US,
    (0, 0, 0, 0),
    (0, 1000, 3000, 6000),
    (
        SubflowSeries("10.0.0.1 80", "10.0.0.2 5000", (0, 0, 0, 0), (0, 1000, 2000, 2000)),
        SubflowSeries("10.0.1.1 80", "10.0.1.2 5001", (0, 0, 0, 0), (0, 0, 1000, 4000)),
    ),
)


def record(
    case: str = "join/no-join", outcome: Outcome = Outcome.PASS, *, reason: str = "", **axes: str
) -> RunRecord:
    run = replace(
        make_run(case, stacks=axes.get("stacks", "kernel-kernel")), scheduler=axes.get("scheduler", "default")
    )
    result = replace(
        make_result(outcome, run=run, reason=reason),
        checks=(Check("bytes", "1", HOSTILE, Outcome.FAIL), Check("x", "1", "1", Outcome.PASS)),
        hosts=(
            HostRecord(
                "client", "kernel", {"MPTcpExtAddAddr": 0}, {"MPTcpExtAddAddr": 1}, ("ESTAB " + HOSTILE,)
            ),
            HostRecord("server", "kernel", {"TcpInSegs": 5}, {"TcpInSegs": 3}),
        ),
        transfers=(TransferRecord("server", "", "", 0, 6000, 300_000, True, traffic=TRAFFIC),),
        events=(TimelineEvent(150_000, HOSTILE),),
        topology=TopologyRecord(
            "t",
            (
                NodeRecord("client", "host", "kernel", (("eth0", (HOSTILE,)),)),
                NodeRecord("server", "host", "", ()),
            ),
            (
                LinkRecord(
                    "client:eth0", "server:eth0", HOSTILE, "rate 5mbit", "tbf", "", {"lost": 7, "offered": 90}
                ),
            ),
        ),
        logs=(HOSTILE,),
        notes=(HOSTILE,),
    )
    return RunRecord(5, Software("0.1", "3.11", "Linux 6.18"), result)


def page(*records: RunRecord) -> str:
    return html_page(session_of(records), records)


class Reader(HTMLParser):
    """Collects what the page has, and checks that elements are closed in order."""

    VOID = frozenset(("meta", "input", "br", "link", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_run_is_behind_its_cell() -> None:
    records = (
        record("join/a"),
        record("join/a", stacks="userspace-kernel"),
        record("join/a", scheduler="redundant"),
        record("close/b", Outcome.FAIL),
        record("close/c", Outcome.SKIP, reason="no kernel"),
        record("close/d", Outcome.ERROR),
    )
    reader = Reader(page(*records))
    templates = {attributes["id"] for tag, attributes in reader.found if tag == "template"}
    links = {
        (attributes["href"] or "").replace("#run", "template"): attributes["class"]
        for tag, attributes in reader.found
        if tag == "a"
    }
    assert set(links) == templates == {f"template-{number}" for number in range(1, 7)}
    assert [links[f"template-{number}"] for number in (1, 4, 5, 6)] == ["pass", "fail", "skip", "error"]
    columns = [
        attributes["data-text"]
        for tag, attributes in reader.found
        if tag == "th" and "data-text" in attributes
    ]
    assert columns == [
        "kernel-kernel IPv4",
        "userspace-kernel IPv4",
        "kernel-kernel IPv4 scheduler=redundant",
    ]


def test_nothing_comes_from_elsewhere() -> None:
    text = page(record())
    reader = Reader(text)
    assert {tag for tag, _ in reader.found} & {"link", "img", "iframe", "object", "embed"} == set()
    for _tag, attributes in reader.found:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_what_runs_say_is_text() -> None:
    text = page(record(outcome=Outcome.FAIL, reason=HOSTILE))
    assert "alert" in text
    assert "<script>alert" not in text
    assert text.count("<script>") == 1


def test_repetitions_share_a_cell_that_shows_the_worst() -> None:
    first = record("join/a")
    second = record("join/a", Outcome.FAIL)
    second = replace(second, result=replace(second.result, run=replace(second.result.run, repetition=2)))
    text = page(first, second)
    assert 'href="#run-2"' in text
    assert 'href="#run-1"' not in text
    assert "1 of 2 failed" in text


def test_a_comparison_is_shown() -> None:
    before, after = [record()], [record(outcome=Outcome.FAIL, reason="late"), record("join/new")]
    text = html_page(session_of(after), after, compare(before, after))
    assert "1 worse" in text
    assert "outcome pass → <b>fail</b>" in text
    assert "<li>join/new[4,kernel-kernel]</li>" in text


def test_no_runs_at_all() -> None:
    Reader(html_page(session_of([record()]), []))


def test_details() -> None:
    details = details_of(record(outcome=Outcome.FAIL), 3, "says what it shows")
    assert [(row.name, row.deltas, row.is_mptcp) for row in details.counters] == [
        ("AddAddr", (1, None), True),
        ("TcpInSegs", (None, -2), False),
    ]
    (figure,) = details.figures
    assert figure.title == "client → server"
    assert [colour for colour, _name, _carried in figure.legend] == [0, 1, 2]
    # 2000 bytes in 0.2 s, from the last sample without a byte to the first one with all
    assert figure.legend[1][2] == "2 kB, 80 kbit/s"
    assert details.impaired[0].endswith(", by tbf, 90 offered, 7 lost")
    assert details.impaired[1] == "server:eth0 → client:eth0: rate 5mbit"
    for picture in (*figure.pictures, details.topology):
        ElementTree.fromstring(picture)


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "star"])
def test_every_bundled_topology_has_a_picture(name: str) -> None:
    topology = load_topology(name)
    root = ElementTree.fromstring(topology_picture(topology_record(topology, {}, {})))
    width, height = map(float, (root.get("viewBox") or "").split()[2:])
    boxes = [
        tuple(float(box.get(key) or 0) for key in ("x", "y", "width", "height")) for box in root.iter("rect")
    ]
    assert len(boxes) == len(topology.nodes)
    assert len(list(root.iter("path"))) == len(topology.links)
    for x, y, box_width, box_height in boxes:
        assert (x >= 0, y >= 0, x + box_width <= width, y + box_height <= height) == (True,) * 4
    overlapping = [
        (first, second)
        for first in boxes
        for second in boxes
        if first < second
        and abs(first[0] - second[0]) < 118
        and abs(first[1] - second[1]) < min(first[3], second[3])
    ]
    assert overlapping == []


def test_a_topology_that_is_too_large_has_none() -> None:
    assert topology_picture(topology_record(load_topology("star", {"hosts": "60"}), {}, {})) == ""
    assert topology_picture(topology_record(load_topology("star"), {}, {})) != ""


def test_throughput_from_bytes() -> None:
    line = rate_line("x", TIMES_US, TRAFFIC.subflows[0].received, 1)
    assert line.points == ((0.0, 0.0), (0.1, 80_000.0), (0.2, 80_000.0), (0.3, 0.0))
    # more samples than bins: none is lost
    many = tuple(range(0, 10_000_000, 10_000))
    rates = rate_line("x", many, tuple(range(len(many))), 1).points
    assert len(rates) <= 52
    assert all(abs(rate - 800.0) < 1.0 for _second, rate in rates[1:])


@pytest.mark.parametrize(
    ("start", "end", "count", "expected"),
    [
        (0.0, 10.0, 5, [0, 2, 4, 6, 8, 10]),
        (0.0, 1.3, 6, [0, 0.5, 1.0]),
        (0.27, 0.33, 6, [0.27, 0.28, 0.29, 0.30, 0.31, 0.32, 0.33]),
        (5.0, 5.0, 4, [5.0]),
    ],
)
def test_ticks_are_round(start: float, end: float, count: int, expected: list[float]) -> None:
    assert ticks(start, end, count) == pytest.approx(expected)


@pytest.mark.parametrize("unit", [rate_unit, byte_unit])
def test_a_plot_of_nothing_is_still_a_picture(unit: Callable[[float], str]) -> None:
    for lines in ([], [Line("x", (), 1)], [count_line("x", (5,), (0,), 1)]):
        ElementTree.fromstring(plot("t", lines, [Mark(1e9, 1, HOSTILE)], unit))


def test_lines_stay_within_the_picture() -> None:
    text = plot("t", [count_line("x", TIMES_US, (0, 10**12, 5, 10**12), 1)], [], byte_unit)
    path = next(ElementTree.fromstring(text).iter("path"))
    numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d") or "")]
    assert all(0 <= x <= 560 for x in numbers[::2])
    assert all(0 <= y <= 240 for y in numbers[1::2])
