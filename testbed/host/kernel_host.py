"""A host that uses the kernel's own stack, MPTCP or plain TCP, of the namespace that the agent is in."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from testbed.counters.nstat import read_kernel_counters
from testbed.host.host_stack import HostStackError
from testbed.host.kernel_endpoints import KernelPathManager, PathManagerLimits
from testbed.host.kernel_listing import matching_listeners, sockets_in_use
from testbed.host.kernel_paths import KernelPaths
from testbed.host.kernel_reaching import reach
from testbed.host.kernel_streams import KernelNetwork
from testbed.host.messages import MessageError, from_json
from testbed.host.path_netlink import PathManagerError
from testbed.host.protocol import AgentConfiguration, EndpointRequest, ListenerMatch, NetworkChange

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_INTERFACE_FLAGS = struct.Struct("16sH14x")
_SS_TIMEOUT_S = 5
_SYSCTL_ROOT = Path("/proc/sys")

Answer = TypeVar("Answer")


class KernelHost:
    """See :class:`testbed.host.host_stack.HostStack`."""

    def __init__(self, configuration: AgentConfiguration) -> None:
        """Applies sysctls, limits and endpoints; endpoints that were there are flushed first.

        Raises HostStackError.
        """
        speaks_mptcp = configuration.stack != "tcp"
        self.network = KernelNetwork(speaks_mptcp=speaks_mptcp)
        self._path_manager: KernelPathManager | None = None
        self.paths = KernelPaths()
        for name, value in configuration.sysctls:
            _write_sysctl(name, value)
        if not speaks_mptcp:
            _disable_mptcp()
            return
        self._path_manager = _refusing(KernelPathManager)
        self.flush_endpoints()
        self.set_limits(configuration.subflows_limit, configuration.add_addr_accepted_limit)
        for endpoint in configuration.endpoints:
            self.add_endpoint(read_endpoint(endpoint))

    def counters(self) -> dict[str, int]:
        try:
            return read_kernel_counters()
        except OSError as error:
            raise HostStackError(f"counters cannot be read: {error}") from None

    async def sockets(self) -> str:
        # In a thread, for it starts programs: the transfers that are being looked at go on meanwhile.
        return await asyncio.to_thread(self._sockets)

    def _sockets(self) -> str:
        return _ask_ss() or _read_socket_table("tcp") + _read_socket_table("tcp6")

    async def listeners(self, match: ListenerMatch) -> list[str]:
        return await asyncio.to_thread(matching_listeners, match)

    def sockets_in_use(self) -> int:
        return sockets_in_use()

    async def reach(self, address: str, timeout_us: int) -> int | None:
        return await reach(address, timeout_us)

    def limits(self) -> tuple[int, int]:
        limits = _refusing(self._manager().limits)
        return limits.subflows, limits.add_addr_accepted

    def set_limits(self, subflows: int, add_addr_accepted: int) -> None:
        limits = PathManagerLimits(subflows=subflows, add_addr_accepted=add_addr_accepted)
        _refusing(lambda: self._manager().set_limits(limits))

    def add_endpoint(self, endpoint: EndpointRequest) -> int:
        return _refusing(lambda: self._manager().add_endpoint(endpoint))

    def delete_endpoint(self, identifier: int, address: str | None) -> None:
        _refusing(lambda: self._manager().delete_endpoint(identifier, address))

    def flush_endpoints(self) -> None:
        _refusing(self._manager().flush_endpoints)

    def endpoints(self) -> list[EndpointRequest]:
        return _refusing(self._manager().endpoints)

    def set_endpoint_flags(self, flags: tuple[str, ...], identifier: int | None, address: str | None) -> None:
        _refusing(lambda: self._manager().set_flags(flags, identifier=identifier, address=address))

    def set_interface(self, name: str, up: bool) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            try:
                request = _INTERFACE_FLAGS.pack(name.encode()[:15], 0)
                answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
                _, flags = _INTERFACE_FLAGS.unpack(answer)
                flags = flags | _IFF_UP if up else flags & ~_IFF_UP
                fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE_FLAGS.pack(name.encode()[:15], flags))
            except OSError as error:
                raise HostStackError(f"interface {name!r}: {error.strerror}") from None

    def change_network(self, change: NetworkChange) -> None:
        raise HostStackError("the kernel's addresses are changed from outside, by rtnetlink")

    def close(self) -> None:
        self.paths.close()
        if self._path_manager is not None:
            self._path_manager.close()

    def _manager(self) -> KernelPathManager:
        if self._path_manager is None:
            raise HostStackError("this host speaks plain TCP: it has no MPTCP path manager")
        return self._path_manager


def read_endpoint(fields: object) -> EndpointRequest:
    """An endpoint of the configuration. Raises HostStackError."""
    try:
        return from_json(EndpointRequest, fields)
    except MessageError as error:
        raise HostStackError(str(error)) from None


def _refusing(action: Callable[[], Answer]) -> Answer:
    try:
        return action()
    except PathManagerError as error:
        raise HostStackError(str(error)) from None


def _ask_ss() -> str:
    """TCP and MPTCP sockets in detail; empty where ``ss`` is missing."""
    arguments = ["ss", "-Menita", "exclude", "time-wait"]
    try:
        finished = subprocess.run(
            arguments, capture_output=True, text=True, timeout=_SS_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # It pads every line to the longest one.
    return "".join(line.rstrip() + "\n" for line in finished.stdout.splitlines() if line.strip())


def _write_sysctl(name: str, value: str) -> None:
    # As sysctl(8): with slashes in a name, its dots belong to an interface's name.
    parts = name.split("/" if "/" in name else ".")
    if not all(part.strip(".") for part in parts):
        raise HostStackError(f"sysctl {name!r}: no such name")
    try:
        _SYSCTL_ROOT.joinpath(*parts).write_text(value)
    except OSError as error:
        raise HostStackError(f"sysctl {name} = {value}: {error.strerror}") from None


def _disable_mptcp() -> None:
    # A kernel without MPTCP needs no switching off.
    if (_SYSCTL_ROOT / "net/mptcp/enabled").exists():
        _write_sysctl("net.mptcp.enabled", "0")


def _read_socket_table(name: str) -> str:
    try:
        return f"{name}:\n" + (Path("/proc/thread-self/net") / name).read_text()
    except OSError:
        return ""
