"""What selftests and commands use to talk to a host's agent: plain calls that return or raise HostError."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from testbed.errors import HostError
from testbed.host.messages import (
    MAXIMUM_ANSWER_BYTES,
    MessageError,
    decode_line,
    encode_line,
    from_json,
    to_json,
)
from testbed.host.path_control import COMMANDS, PathCommand
from testbed.host.processes import unix_address
from testbed.host.protocol import (
    ConnectionResult,
    EndpointRequest,
    ListenerMatch,
    NetworkChange,
    StepAnswer,
    StepKind,
    Workload,
    WorkloadProgress,
)
from testbed.host.socket_options import GetOption, SetOption

REQUEST_TIMEOUT_S = 10.0
"""For requests that the agent answers at once."""
_WAIT_MARGIN_S = 5.0
"""The agent's own time limit comes first; this much later it counts as gone."""


class HostClient:
    """One connection to one agent. Threads may share it, but they wait for each other."""

    def __init__(self, name: str, control_socket: Path, stack: str) -> None:
        """Connects at the first request. ``stack`` is a ``StackKind`` value, for who uses this host."""
        self.name = name
        self.control_socket = control_socket
        self.stack = stack
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._received = bytearray()
        self._last_identifier = 0

    def start(self, workload: Workload) -> RunningWorkload:
        """Raises HostError, for instance when a listener's port is taken."""
        answer = self.request("start_workload", to_json(workload))
        return RunningWorkload(self, answer["id"], answer["port"])

    def counters(self) -> dict[str, int]:
        """Every counter of the host under nstat's names, zeros included."""
        counters: dict[str, int] = self.request("counters")
        return counters

    def sockets(self) -> str:
        """The states of all sockets, for people to read."""
        return str(self.request("sockets"))

    def listeners(
        self,
        *,
        local_address: str | None = None,
        local_port: int | None = None,
        remote_port: int | None = None,
    ) -> list[str]:
        """The MPTCP listeners that match, a line for each. Raises HostError, also without an ss for it."""
        match = ListenerMatch(local_address, local_port, remote_port)
        lines: list[str] = self.request("listeners", to_json(match))
        return lines

    def sockets_in_use(self) -> int:
        """MPTCP sockets that listen or have a token, as /proc/net/protocols counts them."""
        return int(self.request("sockets_in_use"))

    def limits(self) -> tuple[int, int]:
        """(subflows, add_addr_accepted)."""
        answer = self.request("limits")
        return answer["subflows"], answer["add_addr_accepted"]

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        self.request("set_limits", {"subflows": subflows, "add_addr_accepted": add_addr_accepted})

    def add_endpoint(
        self,
        address: str,
        *,
        flags: Iterable[str],
        interface: str | None = None,
        identifier: int | None = None,
        port: int | None = None,
    ) -> int:
        """As ``ip mptcp endpoint add``. Returns the endpoint's identifier."""
        endpoint = EndpointRequest(str(address), tuple(sorted(flags)), interface, identifier, port)
        return int(self.request("add_endpoint", to_json(endpoint))["identifier"])

    def delete_endpoint(self, identifier: int, address: str | None = None) -> None:
        """Identifier 0 is the address of the initial subflow; it has to be given then."""
        self.request("delete_endpoint", {"identifier": identifier, "address": address})

    def flush_endpoints(self) -> None:
        self.request("flush_endpoints")

    def endpoints(self) -> list[EndpointRequest]:
        return [from_json(EndpointRequest, endpoint) for endpoint in self.request("endpoints")]

    def set_endpoint_flags(
        self, flags: Iterable[str], *, identifier: int | None = None, address: str | None = None
    ) -> None:
        """As ``ip mptcp endpoint change``: the endpoint then has exactly these of "backup" and "fullmesh"."""
        parameters = {"flags": sorted(flags), "identifier": identifier, "address": address}
        self.request("set_endpoint_flags", parameters)

    def set_interface(self, name: str, *, up: bool) -> None:
        self.request("set_interface", {"name": name, "up": up})

    def change_network(self, change: NetworkChange) -> None:
        """Addresses and routes of a userspace stack."""
        self.request("change_network", to_json(change))

    def watch_paths(self) -> None:
        """Keep the events of paths from now on; a "userspace" path manager lets joins in only then."""
        self.request("watch_paths")

    def path_events(self) -> list[dict[str, Any]]:
        """Those since the last time, in their order. See ``path_control.EventFields``."""
        events: list[dict[str, Any]] = self.request("path_events")
        return events

    def command_paths(self, command: PathCommand) -> None:
        """For connections that began with ``net.mptcp.path_manager=userspace``."""
        name = next(name for name, kind in COMMANDS.items() if kind is type(command))
        self.request(name, to_json(command))

    def reach(self, address: str, timeout_s: float = 5.0) -> int | None:
        """The microseconds until an ICMP echo request is answered; None when it is not in time.

        Raises HostError without a way there.
        """
        parameters = {"address": address, "timeout_us": round(timeout_s * 1_000_000)}
        answer = self.request("reach", parameters, timeout_s=timeout_s + _WAIT_MARGIN_S)
        round_trip_us: int | None = answer["round_trip_us"]
        return round_trip_us

    def ping(self) -> None:
        """Raises HostError when the agent does not answer."""
        self.request("ping")

    def shutdown(self) -> None:
        """End the agent; returns when its stack is closed and its control socket gone."""
        self.request("shutdown")
        with self._lock:
            connection = self._connection
            if connection is not None:
                connection.settimeout(REQUEST_TIMEOUT_S)
                try:
                    while connection.recv(4096):
                        pass
                except OSError:
                    # Closed with force, or too slow: either way it does not answer any more.
                    pass
        self.close()

    def close(self) -> None:
        """End the connection; the next request opens a new one."""
        with self._lock:
            self._disconnect()

    def request(
        self, method: str, parameters: dict[str, Any] | None = None, *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Any:
        """One request and its result. Raises HostError."""
        with self._lock:
            try:
                answer = self._exchange(method, parameters or {}, timeout_s)
            except TimeoutError:
                self._fail(f"its agent did not answer {method!r} within {timeout_s:g} s")
            except OSError as error:
                self._fail(f"its agent is gone ({error.strerror or error})")
            except MessageError as error:
                self._fail(f"its agent answered nonsense: {error}")
        if "error" in answer:
            raise HostError(f"{self.name}: {method}: {answer['error'].get('message')}")
        return answer.get("result")

    def _exchange(self, method: str, parameters: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        connection = self._connect()
        connection.settimeout(timeout_s)
        self._last_identifier += 1
        request = {"id": self._last_identifier, "method": method, "params": parameters}
        connection.sendall(encode_line(request))
        answer = decode_line(self._read_line(connection))
        if answer.get("id") not in (self._last_identifier, None):
            raise MessageError(f"an answer to request {answer.get('id')}, not {self._last_identifier}")
        return answer

    def _connect(self) -> socket.socket:
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(REQUEST_TIMEOUT_S)
                with unix_address(self.control_socket) as address:
                    connection.connect(address)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _read_line(self, connection: socket.socket) -> bytes:
        while True:
            end = self._received.find(b"\n")
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                return line
            if len(self._received) > MAXIMUM_ANSWER_BYTES:
                raise MessageError(f"an answer is longer than {MAXIMUM_ANSWER_BYTES} bytes")
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError("it closed the connection")
            self._received += data

    def _disconnect(self) -> None:
        self._received.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fail(self, problem: str) -> NoReturn:
        # What may still come on this connection would answer an older request.
        self._disconnect()
        raise HostError(f"{self.name}: {problem}") from None


class RunningWorkload:
    """A workload under way on a host."""

    def __init__(self, host: HostClient, identifier: int, port: int) -> None:
        self._host = host
        self.id = identifier
        self.port = port
        """Where a listener listens."""

    def wait_for(self, milestone: str, timeout_s: float = 60.0) -> WorkloadProgress:
        """Milestones: "listening", "connected", "holding", "done" (ended, well or not), "accepted N",
        "received N bytes", "sent N bytes".

        Raises HostError when it is not reached in time, or cannot be reached any more.
        """
        parameters = {"id": self.id, "milestone": milestone, "timeout_us": round(timeout_s * 1_000_000)}
        answer = self._host.request("wait", parameters, timeout_s=timeout_s + _WAIT_MARGIN_S)
        return from_json(WorkloadProgress, answer)

    def progress(self) -> WorkloadProgress:
        return from_json(WorkloadProgress, self._host.request("progress", {"id": self.id}))

    def result(self, timeout_s: float = 60.0) -> list[ConnectionResult]:
        """Waits for the end; one result for each connection that was asked for. Raises HostError."""
        self.wait_for("done", timeout_s)
        answer = self._host.request("result", {"id": self.id})
        return [from_json(ConnectionResult, result) for result in answer]

    def get_option(
        self, level: int, option: int, length: int, *, request: bytes = b"", connection: int = 0
    ) -> bytes:
        """``getsockopt`` of a connection; ``request`` is what the buffer holds on its way in.

        Raises OSError where the stack refuses, and HostError.
        """
        asked = GetOption(self.id, connection, level, option, length, request.hex())
        return _option_value(self._host.request("get_option", to_json(asked)))

    def set_option(self, level: int, option: int, value: bytes, *, connection: int = 0) -> bytes:
        """``setsockopt`` of a connection. Raises OSError where the stack refuses, and HostError."""
        asked = SetOption(self.id, connection, level, option, value.hex())
        return _option_value(self._host.request("set_option", to_json(asked)))

    def step(
        self, kind: StepKind, number: int = 0, *, connection: int = 0, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> StepAnswer:
        """Have a connection of a workload of steps do something.

        Raises OSError where the stack refuses, and HostError, also when nothing comes that could be received.
        """
        asked = {"id": self.id, "connection": connection, "kind": kind, "number": number}
        answer = self._host.request("step", asked, timeout_s=timeout_s)
        _raise_refusal(answer)
        return from_json(StepAnswer, answer)

    def finish(self) -> None:
        """End holding: the connections go on to their close."""
        self._host.request("finish", {"id": self.id})

    def stop(self) -> None:
        """Abort what still runs; returns when it has ended."""
        self._host.request("stop", {"id": self.id})


def _raise_refusal(answer: dict[str, Any]) -> None:
    if "errno" in answer:
        number = getattr(errno, answer["errno"], errno.EIO)
        raise OSError(number, os.strerror(number))


def _option_value(answer: dict[str, str]) -> bytes:
    _raise_refusal(answer)
    return bytes.fromhex(answer["value"])
