"""Paths of single connections on a host with the bundled stack."""

from __future__ import annotations

from collections.abc import Callable
from errno import errorcode

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.mptcp.path_events import PathEvent, Subscription
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import format_address, parse_address
from testbed.host.host_stack import HostStackError
from testbed.host.path_control import (
    Announce,
    CreateSubflow,
    DestroySubflow,
    EventFields,
    PathCommand,
    Remove,
    SetSubflowFlags,
)


class UserspacePaths:
    """See :class:`testbed.host.path_control.PathControl`. ``wake`` has the stack act on what was changed."""

    def __init__(self, stack: Stack, wake: Callable[[], None]) -> None:
        self._stack = stack
        self._wake = wake
        self._subscription: Subscription | None = None

    def carry_out(self, command: PathCommand) -> None:
        try:
            self._carry_out(command)
        except ConfigurationError as error:
            raise HostStackError(str(error)) from None
        except OSError as error:
            raise HostStackError(f"{errorcode.get(error.errno or 0, '')}: {error.strerror}") from None
        finally:
            self._wake()

    def _carry_out(self, command: PathCommand) -> None:
        manager, token = self._stack.userspace_path_manager, command.token
        match command:
            case Announce(_, identifier, address, port):
                manager.announce(token, identifier, parse_address(address), port)
            case Remove(_, identifier):
                manager.remove(token, identifier)
            case CreateSubflow(_, identifier, local, remote, remote_port, backup):
                end = parse_address(remote), remote_port
                manager.create_subflow(token, identifier, parse_address(local), end, backup=backup)
            case DestroySubflow(_, local, local_port, remote, remote_port):
                ends = (parse_address(local), local_port), (parse_address(remote), remote_port)
                manager.destroy_subflow(token, *ends)
            case SetSubflowFlags(_, local, local_port, remote, remote_port, backup):
                ends = (parse_address(local), local_port), (parse_address(remote), remote_port)
                manager.set_backup(token, *ends, backup=backup)

    def watch(self) -> None:
        if self._subscription is None:
            self._subscription = self._stack.path_events.subscribe()

    def take_events(self) -> list[EventFields]:
        if self._subscription is None:
            raise HostStackError("events are not watched: ask for watch_paths first")
        try:
            return [_fields(event) for event in self._subscription.take()]
        except OSError as error:
            raise HostStackError(str(error.strerror)) from None

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()


def _fields(event: PathEvent) -> EventFields:
    fields: EventFields = {"event": event.name}
    for prefix, end in (("s", event.local), ("d", event.remote)):
        if end is not None:
            fields[f"{prefix}addr"], fields[f"{prefix}port"] = format_address(end[0]), end[1]
            fields["family"] = "inet" if len(end[0]) == 4 else "inet6"
    others = {
        "token": event.token,
        "loc_id": event.local_id,
        "rem_id": event.remote_id,
        "backup": event.backup,
        "error": event.error,
        "server_side": event.server_side,
        "deny_join_id0": event.deny_join_id0,
        "reset_reason": event.reset_reason,
        "reset_flags": event.reset_flags,
    }
    return fields | {name: value for name, value in others.items() if value is not None}
