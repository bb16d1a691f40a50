"""The labs of a worker: network namespaces, one lab per run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from testbed.backend.lab import Lab
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.ownership import clean_fragments, read_labs, undo
from testbed.errors import CapabilityError, LabError
from testbed.middlebox.settings import BoxCounters, BoxSettings
from testbed.selftests.capture import captured_links
from testbed.selftests.case import Case
from testbed.selftests.executor import BuiltLab, LabOpener
from testbed.selftests.link_checks import achieved_by
from testbed.selftests.observations import Realised
from testbed.selftests.results import Run
from testbed.selftests.run_topology import run_topology
from testbed.topology.model import Impairment, LinkEnd, StackKind, Topology

LOG_LINES = 200
"""Of each agent's log, at the end."""
_COUNTED = re.compile(r"counter packets (\d+)")
_INTERCEPTED = 100
"""The mark of packets that a transparent listener takes, and the routing table that keeps them here."""
_RECEIVED_BYTES_COLUMN = 0
_TRANSMITTED_BYTES_COLUMN = 8


class NamespaceLabs:
    """Builds labs one after the other; what is common to them ends with its ``with`` block."""

    def __init__(self) -> None:
        self._backend: NamespaceBackend | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._backend is not None:
            self._backend.close()

    def opener(self, lab_name: str, capture_directory: str | None) -> LabOpener:
        """What builds the lab of one run under this name, and undoes it afterwards."""

        @contextmanager
        def open_lab(case: Case, run: Run) -> Iterator[BuiltLab]:
            topology = run_topology(case, run)
            if self._backend is None:
                self._backend = NamespaceBackend()
            with ExitStack() as undoing:
                lab = undoing.enter_context(self._backend.up(topology, lab_name, seed=run.seed))
                captures: tuple[str, ...] = ()
                if capture_directory is not None:
                    captures = undoing.enter_context(
                        captured_links(lab, Path(capture_directory), run.identifier)
                    )
                network = undoing.enter_context(NamespaceNetwork(lab))
                yield BuiltLab(
                    topology,
                    lab.hosts,
                    network,
                    captures,
                    realised=_realised(lab),
                    achieved=partial(achieved_by, lab.links),
                    logs=partial(_logs, lab),
                )

        return open_lab


def _realised(lab: Lab) -> Realised:
    """Which realisation each impaired direction got."""
    return {
        direction.sender: direction.realised_by
        for state in lab.links.states()
        for direction in (state.forward, state.backward)
        if direction.realised_by
    }


def _logs(lab: Lab) -> tuple[str, ...]:
    """The end of each agent's log."""
    lines: list[str] = []
    for node in lab.topology.hosts():
        path = lab.directory / f"{node.name}.log"
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            lines.append(f"{node.name}: no log: {error.strerror}")
            continue
        lines += [f"{node.name}: {line}" for line in text.splitlines()[-LOG_LINES:]]
    return tuple(lines)


class NamespaceNetwork:
    """The network between the hosts of a namespace lab. What was scheduled ends with its ``with`` block."""

    def __init__(self, lab: Lab) -> None:
        # With connections of its own: the case may be waiting for a host when something scheduled is due.
        self._lab = lab.another()
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for timer in self._timers:
            timer.cancel()
        for timer in self._timers:
            timer.join()
        self._lab.close()

    def set_link(self, node: str, interface: str, up: bool) -> None:
        self._lab.set_link(node, interface, up)

    def impair(
        self, node: str, interface: str, words: Mapping[str, str], *, sent: bool, received: bool
    ) -> None:
        """Raises UsageError."""
        self._lab.links.change_at(f"{node}:{interface}", words, sent=sent, received=received)

    def put_impairments(
        self, node: str, interface: str, forward: Impairment | None, backward: Impairment | None
    ) -> None:
        """Raises UsageError."""
        self._lab.links.put_at(f"{node}:{interface}", forward, backward)

    def set_middlebox(self, node: str, interface: str, boxes: Sequence[BoxSettings]) -> None:
        """Raises UsageError."""
        links = self._lab.links
        links.put_boxes(links.link_at(f"{node}:{interface}"), boxes)

    def box_counters(self) -> Mapping[LinkEnd, Sequence[BoxCounters]]:
        return self._lab.links.box_counters()

    def reconfigure(self, topology: Topology) -> None:
        self._lab.reconfigure(topology)

    def schedule(self, delay_s: float, action: Callable[[], None]) -> None:
        """In a thread of its own."""
        timer = threading.Timer(delay_s, action)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def interface_bytes(self, node: str, interface: str) -> tuple[int, int]:
        """Received and transmitted bytes since the interface was made. Raises KeyError for an unknown one."""
        devices = self._lab.run_in(node, ["cat", "/proc/net/dev"], timeout=10.0).stdout
        columns = parse_device_statistics(devices)[interface]
        return columns[_RECEIVED_BYTES_COLUMN], columns[_TRANSMITTED_BYTES_COLUMN]

    def filter(self, router: str, rules: Sequence[str], hook: str) -> None:
        """See :meth:`testbed.selftests.host_view.NetworkControl.filter`. Raises CapabilityError."""
        commands = ["flush ruleset"]
        if rules:
            commands += [
                "add table inet testbed",
                f"add chain inet testbed rules {{ type filter hook {hook} priority 0 ; }}",
                *(f"add rule inet testbed rules {rule}" for rule in rules),
            ]
        try:
            finished = self._lab.run_in(router, ["nft", "; ".join(commands)], timeout=10.0)
        except LabError as error:
            raise CapabilityError(f"no packet filter: {error}") from None
        if finished.returncode:
            raise CapabilityError(f"no such packet filter here: {finished.stderr.strip()}")

    def filtered(self, node: str) -> list[int]:
        """See :meth:`testbed.selftests.host_view.NetworkControl.filtered`. Raises CapabilityError."""
        listed = self._lab.run_in(node, ["nft", "list", "ruleset"], timeout=10.0)
        if listed.returncode:
            raise CapabilityError(f"no packet filter here: {listed.stderr.strip()}")
        return [int(count) for count in _COUNTED.findall(listed.stdout)]

    def intercept(self, host: str, port: int) -> None:
        """See :meth:`testbed.selftests.host_view.NetworkControl.intercept`. Raises CapabilityError."""
        if self._lab.topology.node(host).stack is StackKind.USERSPACE:
            return
        rules = [
            f"meta l4proto tcp socket transparent 1 meta mark set {_INTERCEPTED} accept",
            f"tcp dport {port} tproxy to :{port} meta mark set {_INTERCEPTED} accept",
        ]
        self.filter(host, rules, "prerouting")
        for family in ("-4", "-6"):
            for words in (
                f"rule add fwmark {_INTERCEPTED} lookup {_INTERCEPTED}",
                f"route add local default dev lo table {_INTERCEPTED}",
            ):
                finished = self._lab.run_in(host, ["ip", family, *words.split()], timeout=10.0)
                if finished.returncode:
                    raise CapabilityError(f"no policy routing here: {finished.stderr.strip()}")


def parse_device_statistics(text: str) -> dict[str, list[int]]:
    """``/proc/net/dev`` as interface → its columns."""
    devices = {}
    for line in text.splitlines()[2:]:
        name, _, columns = line.partition(":")
        devices[name.strip()] = [int(column) for column in columns.split()]
    return devices


def remove_lab(name: str) -> None:
    """Undo what a worker that has ended left of its lab; nothing happens when it left nothing."""
    for record in read_labs():
        if record.name == name:
            undo(record)
    clean_fragments()
