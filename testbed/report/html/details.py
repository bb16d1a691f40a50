"""What the page says about one run, ready for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from testbed.report.comparison import goodput_bit_s, rate_in_words
from testbed.report.diagnostics import replay_command
from testbed.report.html.plots import COLOURS, Line, Mark, byte_unit, count_line, plot, rate_line, rate_unit
from testbed.report.html.topology_picture import topology_picture
from testbed.report.records import RunRecord
from testbed.report.tap import skip_text
from testbed.selftests.observations import TopologyRecord, TransferRecord
from testbed.selftests.results import Check, HostRecord, Outcome, RunResult


@dataclass(frozen=True, slots=True)
class Figure:
    """Two plots of one direction of a transfer, and what their lines are."""

    title: str
    pictures: tuple[Markup, ...]
    legend: tuple[tuple[int, str, str], ...]
    """Colour, name, and what it carried."""


@dataclass(frozen=True, slots=True)
class CounterRow:
    """A counter, and what the run added to it at each end."""

    name: str
    deltas: tuple[int | None, ...]
    is_mptcp: bool


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that is shown of a run."""

    number: int
    identifier: str
    outcome: str
    description: str
    facts: tuple[tuple[str, str], ...]
    reason: str
    failed: tuple[Check, ...]
    held: int
    unchecked: tuple[Check, ...]
    replay: str
    topology: Markup
    impaired: tuple[str, ...]
    """What was asked of links, and what enforced it."""
    figures: tuple[Figure, ...]
    events: tuple[tuple[str, str], ...]
    hosts: tuple[HostRecord, ...]
    counters: tuple[CounterRow, ...]
    notes: tuple[str, ...]
    captures: tuple[str, ...]
    logs: tuple[str, ...]


def details_of(record: RunRecord, number: int, description: str) -> Details:
    """``description``: what the case says it shows; empty for one that is not known here."""
    result = record.result
    return Details(
        number=number,
        identifier=result.run.identifier,
        outcome=result.outcome.value,
        description=description,
        facts=_facts(record),
        reason=skip_text(result) if result.outcome is Outcome.SKIP else result.reason,
        failed=result.failed_checks(),
        held=sum(check.outcome is Outcome.PASS for check in result.checks),
        unchecked=result.skipped_checks(),
        replay=replay_command(result, record.session_seed),
        topology=Markup(topology_picture(result.topology) if result.topology is not None else ""),
        impaired=_impaired(result.topology) if result.topology is not None else (),
        figures=_figures(result),
        events=tuple((f"{event.at_us / 1e6:.3f}", event.text) for event in result.events),
        hosts=result.hosts,
        counters=_counters(result.hosts),
        notes=result.notes,
        captures=result.captures,
        logs=result.logs,
    )


def _facts(record: RunRecord) -> tuple[tuple[str, str], ...]:
    result = record.result
    facts = [("duration", f"{result.duration_ms / 1000:.2f} s")]
    if result.setup_ms:
        facts.append(("set-up", f"{result.setup_ms / 1000:.2f} s"))
    if goodput := goodput_bit_s(result):
        facts.append(("goodput", rate_in_words(goodput)))
    facts.append(("seed", str(result.run.seed)))
    if result.started_at:
        facts.append(("started", result.started_at))
    return tuple(facts)


_FATES = ("offered", "lost", "overflowed", "reordered", "duplicated", "corrupted", "delivered")
"""Of the packets on a link, as its counters call them."""


def _impaired(topology: TopologyRecord) -> tuple[str, ...]:
    lines = []
    for link in topology.links:
        for sender, receiver, asked, realised, achieved in (
            (link.first, link.second, link.forward, link.realised_forward, link.achieved_forward),
            (link.second, link.first, link.backward, link.realised_backward, link.achieved_backward),
        ):
            if asked:
                by = f", by {realised}" if realised else ""
                did = "".join(f", {achieved[name]} {name}" for name in _FATES if name in achieved)
                lines.append(f"{sender} → {receiver}: {asked}{by}{did}")
    return tuple(lines)


def _counters(hosts: tuple[HostRecord, ...]) -> tuple[CounterRow, ...]:
    """MPTCP's first; within, by name."""
    moved = [host.moved_counters() for host in hosts]
    names = sorted({name for counters in moved for name in counters})
    rows = [
        CounterRow(
            name.removeprefix("MPTcpExt"),
            tuple(counters.get(name) for counters in moved),
            name.startswith("MPTcpExt"),
        )
        for name in names
    ]
    return tuple(sorted(rows, key=lambda row: not row.is_mptcp))


def _figures(result: RunResult) -> tuple[Figure, ...]:
    marks = [Mark(event.at_us / 1e6, number, event.text) for number, event in enumerate(result.events, 1)]
    figures = []
    for transfer in result.transfers:
        figure = _figure(transfer, marks)
        if figure is not None:
            figures.append(figure)
    return tuple(figures)


def _figure(transfer: TransferRecord, marks: list[Mark]) -> Figure | None:
    """What one end received: the other end sent it. None where that is nothing."""
    traffic = transfer.traffic
    if traffic is None or not transfer.bytes_received or len(traffic.times_us) < 2:
        return None
    rates: list[Line] = []
    counts = [count_line("data, in order", traffic.times_us, traffic.received, 0)]
    legend = [(0, "data given to the application, in order", byte_unit(transfer.bytes_received))]
    for position, subflow in enumerate(traffic.subflows):
        colour = position % COLOURS + 1
        name = f"{subflow.remote} → {subflow.local}"
        rates.append(rate_line(name, traffic.times_us, subflow.received, colour))
        counts.append(count_line(name, traffic.times_us, subflow.received, colour))
        legend.append((colour, name, _carried(traffic.times_us, subflow.received)))
    sender = "server" if transfer.host == "client" else "client"
    pictures = (
        plot("throughput by subflow", rates, marks, rate_unit),
        plot("data sequence, and bytes by subflow", counts, marks, byte_unit),
    )
    return Figure(f"{sender} → {transfer.host}", tuple(map(Markup, pictures)), tuple(legend))


def _carried(times_us: Sequence[int], received: Sequence[int]) -> str:
    """Bytes, and their rate from the first of them to the last."""
    samples = list(zip(times_us, received, strict=True))
    total = max(received, default=0)
    began_us = max((time_us for time_us, count in samples if not count), default=times_us[0])
    ended_us = next((time_us for time_us, count in samples if count >= total - 1), began_us)
    elapsed_us = ended_us - began_us
    if not total or elapsed_us <= 0:
        return byte_unit(total)
    return f"{byte_unit(total)}, {rate_in_words(total * 8e6 / elapsed_us)}"
