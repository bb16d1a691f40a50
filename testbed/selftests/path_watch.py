"""The events of paths at one end of a case's lab, and what is commanded of single connections there."""

from __future__ import annotations

from typing import Any

from testbed.errors import HostError
from testbed.host.path_control import (
    Announce,
    CreateSubflow,
    DestroySubflow,
    PathCommand,
    Remove,
    SetSubflowFlags,
)
from testbed.selftests.host_view import CaseAbortedError, CaseHost
from testbed.selftests.lab_view import CaseLab

Event = dict[str, Any]


class PathWatch:
    """Listens from the moment when it is made. Commands are for a path manager "userspace"."""

    def __init__(self, lab: CaseLab, host: CaseHost) -> None:
        self._lab = lab
        self.host = host
        self.seen: list[Event] = []
        host.agent.watch_paths()

    def of(self, *names: str) -> list[Event]:
        """All events so far with one of these names."""
        self.seen += self.host.agent.path_events()
        return [event for event in self.seen if event["event"] in names]

    def wait_for(self, name: str, count: int = 1) -> Event:
        """The event that is the ``count``-th of its name. Raises CaseAbortedError."""
        self._lab.wait_for(
            f"{self.host.name}: event {name} number {count}", lambda: len(self.of(name)) >= count
        )
        return self.of(name)[count - 1]

    @property
    def token(self) -> int:
        """Of the first connection. Raises CaseAbortedError before there is one."""
        for event in self.of("created", "established"):
            return int(event["token"])
        raise CaseAbortedError(f"{self.host.name}: no connection was created")

    def announce(self, identifier: int, address: str, port: int | None = None) -> None:
        self._command(Announce(self.token, identifier, address, port))

    def remove(self, identifier: int) -> None:
        self._command(Remove(self.token, identifier))

    def create_subflow(self, identifier: int, local: str, remote: str, remote_port: int) -> None:
        self._command(CreateSubflow(self.token, identifier, local, remote, remote_port))

    def destroy_subflow(self, event: Event) -> None:
        """The subflow of an event."""
        ends = event["saddr"], event["sport"], event["daddr"], event["dport"]
        self._command(DestroySubflow(int(event["token"]), *ends))

    def set_backup(self, event: Event, *, backup: bool) -> None:
        ends = event["saddr"], event["sport"], event["daddr"], event["dport"]
        self._command(SetSubflowFlags(int(event["token"]), *ends, backup=backup))

    def refuses(self, command: PathCommand) -> bool:
        """Whether the stack does not carry it out."""
        try:
            self._command(command)
        except HostError:
            return True
        return False

    def _command(self, command: PathCommand) -> None:
        self._lab.tell(f"{self.host.name}: {command}")
        self.host.agent.command_paths(command)
