"""Impairments whose words fit the format one by one, but not each other."""

from __future__ import annotations

from testbed.topology.document import DocumentPath
from testbed.topology.findings import Findings
from testbed.topology.impairments import combine, contradictions, said_twice
from testbed.topology.middleboxes import MiddleboxFile
from testbed.topology.raw import ImpairFile, ImpairmentFile, TopologyFile


def check_impairments(file: TopologyFile, findings: Findings) -> None:
    """Notes what contradicts itself, at the word that does."""
    if file.impairments == "netem":
        _check_boxes(file, findings)
    for index, link in enumerate(file.links):
        _check_impair(link.impair, ("links", index, "impair"), findings)
        if link.emulated and file.impairments == "netem":
            findings.at_key(
                ("links", index, "emulated"),
                "an emulated link where netem is to impair all links",
                "let 'impairments' be 'auto'",
            )

    for index, event in enumerate(file.events):
        if event.impair is not None:
            _check_impair(event.impair, ("events", index, "impair"), findings)


def _check_boxes(file: TopologyFile, findings: Findings) -> None:
    said: list[tuple[MiddleboxFile | None, DocumentPath]] = [
        *((node.middlebox, ("nodes", name, "middlebox")) for name, node in file.nodes.items()),
        *((link.middlebox, ("links", index, "middlebox")) for index, link in enumerate(file.links)),
    ]
    for boxes, path in said:
        if boxes is not None and boxes.model_fields_set:
            findings.at_key(path, "netem is no middlebox", "let 'impairments' be 'auto' or 'emulator'")


def _check_impair(impair: ImpairFile, path: DocumentPath, findings: Findings) -> None:
    directions = {"->": impair.forward, "<-": impair.backward}
    _check_words(impair, path, findings)
    for direction, impairment in directions.items():
        if impairment is not None:
            _check_words(impairment, (*path, direction), findings)
    if any(directions.values()) and impair.said():
        findings.at_key(
            path,
            "'impair' mixes both directions with each by itself",
            "put all words under '->' and '<-'",
        )


def _check_words(impairment: ImpairmentFile, path: DocumentPath, findings: Findings) -> None:
    said = impairment.said()
    for each in (*said_twice(said), *contradictions(combine(said))):
        findings.at_key((*path, each.word), each.message, each.hint)
