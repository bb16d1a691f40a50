"""The MPTCP listeners of a bundled stack, filtered as the kernel's sock_diag does."""

from __future__ import annotations

from mptcp_stack.listener import Listener
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import format_address, parse_address
from testbed.host.protocol import ListenerMatch

_ANY_ADDRESS = bytes(16)


def matching_listeners(stack: Stack, match: ListenerMatch) -> list[str]:
    return [_line(listener) for listener in stack.listeners() if _matches(listener, match)]


def _matches(listener: Listener, match: ListenerMatch) -> bool:
    if not listener.is_mptcp or match.remote_port:
        return False
    if match.local_port not in (None, listener.port):
        return False
    return match.local_address is None or parse_address(match.local_address) == _address(listener)


def _address(listener: Listener) -> bytes:
    return _ANY_ADDRESS if listener.address is None else listener.address


def _line(listener: Listener) -> str:
    return f"LISTEN {format_address(_address(listener))} {listener.port}"
