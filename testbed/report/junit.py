"""JUnit XML: one suite per pair of stacks and IP family, counters of both ends in ``system-out``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from xml.etree import ElementTree

from testbed.report.diagnostics import counter_lines, diagnostics
from testbed.report.tap import skip_text
from testbed.selftests.results import Outcome, RunResult, SessionInformation, Totals

_NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\U00010000-\U0010ffff]")


def junit_document(session: SessionInformation, results: Sequence[RunResult]) -> str:
    """The whole report, with its XML declaration."""
    commands = sorted({result.run.command for result in results}) or ["selftest"]
    root = ElementTree.Element("testsuites", name=f"testbed {' '.join(commands)}")
    _set_totals(root, results)
    for _, suite in groupby(sorted(results, key=_suite_key), key=_suite_key):
        root.append(_suite_element(session, list(suite)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite_key(result: RunResult) -> tuple[str, int, str]:
    return result.run.stacks, result.run.family, result.run.suite


def _suite_element(session: SessionInformation, results: list[RunResult]) -> ElementTree.Element:
    first = results[0].run
    suite = ElementTree.Element("testsuite", name=first.suite, timestamp=session.started_at)
    _set_totals(suite, results)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("seed", session.seed),
        ("kernel", session.kernel),
        ("testbed", session.testbed_version),
        ("python", session.python),
        ("family", first.family),
        ("stacks", first.stacks),
        ("interrupted", str(session.interrupted).lower()),
    ):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(str(value)))
    for result in results:
        suite.append(_case_element(session, result))
    return suite


def _case_element(session: SessionInformation, result: RunResult) -> ElementTree.Element:
    run = result.run
    element = ElementTree.Element(
        "testcase",
        classname=f"{run.command}.{run.group}.{run.stacks}.ipv{run.family}",
        name=run.name,
        time=_seconds(result),
    )
    match result.outcome:
        case Outcome.SKIP:
            ElementTree.SubElement(element, "skipped", message=_clean(skip_text(result)))
        case Outcome.FAIL | Outcome.ERROR:
            tag = "failure" if result.outcome is Outcome.FAIL else "error"
            lines = diagnostics(result, session.seed)
            ElementTree.SubElement(element, tag, message=_clean(lines[0])).text = _clean("\n".join(lines))
        case Outcome.PASS:
            pass
    ElementTree.SubElement(element, "system-out").text = _clean("\n".join(_output(result)))
    return element


def _output(result: RunResult) -> list[str]:
    lines = [f"{result.run.identifier}, seed {result.run.seed}", *result.notes]
    for host in result.hosts:
        lines += [f"{host.host} ({host.stack}) counters:", *counter_lines(host)]
    return lines


def _set_totals(element: ElementTree.Element, results: Iterable[RunResult]) -> None:
    totals = Totals()
    duration_ms = 0
    for result in results:
        totals = totals.plus(result.outcome)
        duration_ms += result.duration_ms
    element.set("tests", str(totals.all))
    element.set("failures", str(totals.failed))
    element.set("errors", str(totals.errors))
    element.set("skipped", str(totals.skipped))
    element.set("time", f"{duration_ms / 1000:.3f}")


def _seconds(result: RunResult) -> str:
    return f"{result.duration_ms / 1000:.3f}"


def _clean(text: str) -> str:
    """Without the characters that XML cannot carry, even escaped."""
    return _NOT_XML.sub("?", text)
