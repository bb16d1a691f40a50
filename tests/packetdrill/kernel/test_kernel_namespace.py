"""The namespace of a kernel under test: apart from the machine's, quiet, and gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mptcp_stack.wire.tcp_segment import SYN
from testbed.packetdrill import kernel_stack
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import IpVersion, Value
from tests.packetdrill.kernel.conftest import OpenStack
from tests.packetdrill.kernel.peer import IPPROTO_MPTCP, Peer, addresses, call, listen, succeed
from tests.packetdrill.kernel.test_kernel_connections import SYN_OPTIONS, accepted

pytestmark = [pytest.mark.root, pytest.mark.kernel]


def test_commands_run_inside(ipv4_stack: KernelStack) -> None:
    result = ipv4_stack.run_command("ip -o link | cut -d: -f2 && sysctl -n net.ipv4.tcp_congestion_control")
    assert (result.exit_code, result.output.split()) == (0, ["lo", "tun0", "reno"])
    assert not Path("/sys/class/net/tun0").exists()
    assert ipv4_stack.run_command("exit 3").exit_code == 3


def test_commands_that_never_end_are_killed(ipv4_stack: KernelStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_stack, "COMMAND_SECONDS", 0.1)
    result = ipv4_stack.run_command("sleep 1000 & sleep 1000")
    assert result.exit_code == 124
    assert "0.1 s" in result.output


def test_mptcp_endpoints_by_command(ipv4_stack: KernelStack) -> None:
    assert ipv4_stack.run_command("ip mptcp endpoint add 192.168.0.1 signal").exit_code == 0
    assert "192.168.0.1 id 1 signal" in ipv4_stack.run_command("ip mptcp endpoint show").output


def test_says_nothing_unasked(open_stack: OpenStack) -> None:
    """No router solicitations, no group reports, no duplicate address detection."""
    stack = open_stack(IpVersion.IPV6)
    stack.pass_time(stack.now_us() + 300_000)
    assert stack.next_packet(0) is None


def test_window_scale_follows_the_script(ipv4_stack: KernelStack) -> None:
    largest = 15 << 20
    ipv4_stack.run_command(f"sysctl -q net.ipv4.tcp_rmem='4096 131072 {largest}'")
    listen(ipv4_stack)
    peer = Peer.of(ipv4_stack, IpVersion.IPV4)
    peer.send(SYN, SYN_OPTIONS)
    assert peer.receive().options.window_scale == 8


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_MPTCP])
@pytest.mark.parametrize("name", ["accept", "connect", "poll", "epoll_wait", "read"])
def test_closing_ends_whatever_blocks(ipv4_stack: KernelStack, name: str, protocol: int) -> None:
    arguments: list[Value]
    if name in ("accept", "poll"):
        listener = listen(ipv4_stack, protocol)
        arguments = [listener, None, None] if name == "accept" else [[{"fd": listener, "events": 1}], 1, -1]
    elif name == "connect":
        arguments = [succeed(ipv4_stack, "socket", None, socket.SOCK_STREAM, protocol), None, None]
    elif name == "epoll_wait":
        arguments = [succeed(ipv4_stack, "epoll_create1", 0), None, 1, -1]
    else:
        arguments = [accepted(ipv4_stack, IpVersion.IPV4)[1], None, 10]
    pending = ipv4_stack.start_call(name, arguments)
    assert pending.result() is None
    start = time.monotonic()
    ipv4_stack.close()
    ipv4_stack.close()
    assert time.monotonic() - start < 2
    assert pending.result() is not None


_CHILD = """
import sys, time
from testbed.packetdrill.kernel_stack import KernelStack
from testbed.packetdrill.stack_under_test import IpVersion, Value
from tests.packetdrill.kernel.peer import addresses, listen
stack = KernelStack(addresses(IpVersion.IPV4), IpVersion.IPV4)
listener = listen(stack)
stack.start_call("accept", [listener, None, None])
print(stack.run_command("readlink /proc/self/ns/net").output, flush=True)
time.sleep(1000)
"""


def test_nothing_is_left_after_a_kill() -> None:
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        namespace = child.stdout.readline().strip()
        os.kill(child.pid, signal.SIGKILL)
    assert namespace.startswith("net:[")
    assert namespace not in namespaces()


def namespaces() -> set[str]:
    """Of every thread on the machine."""
    found: set[str] = set()
    for link in Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net"):
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue
    return found


def test_two_kernels_are_apart(open_stack: OpenStack) -> None:
    first, second = open_stack(IpVersion.IPV4), open_stack(IpVersion.IPV4)
    listen(first)
    peer = Peer.of(second, IpVersion.IPV4)
    peer.send(SYN, SYN_OPTIONS)
    assert peer.receive().flags & 4
    assert first.next_packet(0) is None
    assert call(second, "getsockname", 3, None, None).errno_name == "EBADF"
    assert addresses(IpVersion.IPV4).local[0] == peer.local
