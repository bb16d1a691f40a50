"""The agent of one host: answers requests on a Unix socket and carries them out on the host's stack.

It is forked from :mod:`testbed.host.zygote`, so everything that it imports is shared memory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from testbed.errors import HostError
from testbed.host.host_stack import HostStack, HostStackError
from testbed.host.kernel_host import KernelHost
from testbed.host.processes import enter_network_namespace, set_process_name, unix_address
from testbed.host.protocol import LINK_EMULATOR, AgentConfiguration
from testbed.host.requests import RequestHandler
from testbed.host.rpc_server import RpcServer

_SOCKET_MODE = 0o600
_BACKLOG = 64


class AgentError(Exception):
    """The agent cannot start; the message is for the user."""


def run_agent(configuration: AgentConfiguration, on_ready: Callable[[], None]) -> None:
    """Enter the host's namespace and serve until told to shut down. Raises AgentError."""
    if configuration.stack == LINK_EMULATOR:
        _run_emulator(configuration, on_ready)
        return
    set_process_name(f"mptcp-{configuration.host}")
    try:
        enter_network_namespace(configuration.namespace_path)
    except OSError as error:
        message = f"namespace {configuration.namespace_path}: {error.strerror}"
        raise AgentError(message) from None
    asyncio.run(_serve(configuration, on_ready))


def _run_emulator(configuration: AgentConfiguration, on_ready: Callable[[], None]) -> None:
    # Only labs with impaired links pay for its import.
    from testbed.emulator.process import run_emulator

    try:
        run_emulator(configuration, on_ready)
    except (OSError, ValueError, HostError) as error:
        raise AgentError(f"link emulator: {error}") from None


async def _serve(configuration: AgentConfiguration, on_ready: Callable[[], None]) -> None:
    try:
        stack = await _open_stack(configuration)
    except HostStackError as error:
        raise AgentError(str(error)) from None
    handler = RequestHandler(stack, configuration.host)
    server = RpcServer(handler.handle)
    path = Path(configuration.control_socket)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handler.shutdown_requested.set)
    try:
        await server.start(_listening_socket(path))
        on_ready()
        await handler.shutdown_requested.wait()
    finally:
        await handler.close()
        stack.close()
        path.unlink(missing_ok=True)
        await server.close()


async def _open_stack(configuration: AgentConfiguration) -> HostStack:
    if configuration.stack in ("kernel", "tcp"):
        return KernelHost(configuration)
    if configuration.stack == "userspace":
        # Only hosts that use the bundled stack pay for its import.
        from testbed.host.userspace import UserspaceHost

        return await UserspaceHost.open(configuration)
    raise HostStackError(f"unknown stack {configuration.stack!r}: there are userspace, kernel and tcp")


def _listening_socket(path: Path) -> socket.socket:
    """Readable and writable for this user only from its first moment. Raises AgentError."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous_mask = os.umask(0o777 & ~_SOCKET_MODE)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            # Left by an agent that was killed.
            path.unlink()
        with unix_address(path) as address:
            listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AgentError(f"control socket {path}: {error.strerror}") from None
    finally:
        os.umask(previous_mask)
    listening.setblocking(False)
    return listening
