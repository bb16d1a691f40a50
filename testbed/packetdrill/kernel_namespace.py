"""The network namespace of a kernel under test: a TUN device with the script's addresses and routes.

Settings differ from Linux' defaults where a script could not rely on them otherwise: no duplicate address
detection, no router solicitations, no reverse path filter, Reno, a window scale that follows ``tcp_rmem``
alone (7 with the default of 6 MiB) and not this machine's ``net.core.rmem_max``, no metrics kept from one
connection to the next, no ECN, MPTCP on, no rate limits for ICMP.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from testbed.errors import CapabilityError
from testbed.packetdrill.stack_under_test import Addresses

DEVICE_NAME = "tun0"

DEFAULT_RECEIVE_BUFFER = 6 << 20

DEFAULT_SETTINGS: Mapping[str, str] = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv4.tcp_rmem": f"4096 131072 {DEFAULT_RECEIVE_BUFFER}",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_ecn": "0",
    "net.ipv4.tcp_timestamps": "1",
    "net.ipv4.tcp_sack": "1",
    "net.ipv4.tcp_window_scaling": "1",
    "net.ipv4.tcp_min_tso_segs": "1",
    "net.mptcp.enabled": "1",
}
IPV6_SETTINGS: Mapping[str, str] = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
    "net.ipv6.conf.default.addr_gen_mode": "1",
    "net.ipv6.icmp.ratelimit": "0",
}

_TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_CAPTURE_BUFFER_BYTES = 16 << 20
_QUEUE_PACKETS = 10_000

_COMMAND_SECONDS = 10
_END_SECONDS = 2.0
_END_INTERVAL_SECONDS = 0.002

_RTMGRP_IPV6_ROUTE = 0x400
_RTM_NEWROUTE = 24
_RTN_LOCAL = 2
_RTA_DST = 1
_NETLINK_BYTES = 1 << 16
_ROUTE_MESSAGE = struct.Struct("=IH10xBB5xB4x")
"""struct nlmsghdr and struct rtmsg: length, kind, family, bits of the destination, type of the route."""
_ATTRIBUTE = struct.Struct("=HH")


class ScriptInterface:
    """The descriptors through which a script exchanges packets with the kernel.

    ``device`` is the TUN device: what is written to it arrives, what is sent can be read from it. ``capture``
    sees the sent packets as well, each with the time at which the kernel sent it.
    """

    def __init__(self, device: int, capture: socket.socket) -> None:
        self.device = device
        self.capture = capture

    def close(self) -> None:
        if self.device >= 0:
            os.close(self.device)
            self.device = -1
        self.capture.close()


def prepare_namespace(addresses: Addresses, mtu: int) -> ScriptInterface:
    """Set up the calling thread's network namespace, which must be new.

    Raises CapabilityError, which names what the machine lacks.
    """
    _apply(DEFAULT_SETTINGS)
    if Path("/proc/sys/net/ipv6").is_dir():
        _apply(IPV6_SETTINGS)
    elif any(len(address) == 16 for address in addresses.local):
        raise CapabilityError("this kernel has no IPv6")
    with ExitStack() as undo:
        device = _open_device()
        undo.callback(os.close, device)
        _configure(addresses, mtu)
        capture = undo.enter_context(_open_capture())
        undo.pop_all()
    return ScriptInterface(device, capture)


def _apply(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        path = Path("/proc/sys", *name.split("."))
        try:
            path.write_text(value)
        except FileNotFoundError as error:
            if name.startswith("net.mptcp."):
                raise CapabilityError("this kernel has no MPTCP (CONFIG_MPTCP)") from error
            # Older kernels have fewer settings; what they do without is the default here.
        except OSError as error:
            raise CapabilityError(f"cannot set {name} in a new namespace: {error.strerror}") from error


def _open_device() -> int:
    try:
        device = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CapabilityError(f"the kernel's stack needs {_TUN_DEVICE}: {error.strerror}") from error
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("=16sH22x", DEVICE_NAME.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(device)
        raise CapabilityError(f"cannot make a TUN device: {error.strerror}") from error
    return device


def _open_capture() -> socket.socket:
    try:
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise CapabilityError(f"the kernel's stack needs packet sockets: {error.strerror}") from error
    capture.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CAPTURE_BUFFER_BYTES)
    capture.bind((DEVICE_NAME, _ETH_P_ALL))
    return capture


def _configure(addresses: Addresses, mtu: int) -> None:
    lines = [
        "link set dev lo up",
        f"link set dev {DEVICE_NAME} mtu {mtu} txqueuelen {_QUEUE_PACKETS} up",
    ]
    for address in addresses.local:
        prefix = "32"
        if len(address) == 16:
            # Of several that are preferred Linux would choose another than the first as a source.
            prefix = "128 nodad" if address == addresses.local[0] else "128 nodad preferred_lft 0"
        lines.append(f"address add {printed(address)}/{prefix} dev {DEVICE_NAME}")
    lines += _route_lines("add", addresses, DEFAULT_RECEIVE_BUFFER)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as monitor:
        monitor.bind((0, _RTMGRP_IPV6_ROUTE))
        _run_ip(lines)
        _wait_for_local_routes(monitor, {address for address in addresses.local if len(address) == 16})


def _wait_for_local_routes(monitor: socket.socket, missing: set[bytes]) -> None:
    """Until the host takes packets to its IPv6 addresses, which is a little after they were added."""
    deadline = time.monotonic() + _COMMAND_SECONDS
    while missing:
        monitor.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            messages = monitor.recv(_NETLINK_BYTES)
        except TimeoutError as error:
            raise CapabilityError("the kernel does not begin to use its IPv6 addresses") from error
        missing -= set(_local_routes_in(messages))


def _local_routes_in(messages: bytes) -> Iterator[bytes]:
    """The IPv6 destinations of local routes that were added (linux/rtnetlink.h)."""
    offset = 0
    while offset + _ROUTE_MESSAGE.size <= len(messages):
        size, kind, _, destination_bits, route_type = _ROUTE_MESSAGE.unpack_from(messages, offset)
        if (kind, destination_bits, route_type) == (_RTM_NEWROUTE, 128, _RTN_LOCAL):
            yield from _attributes(messages[offset + _ROUTE_MESSAGE.size : offset + size], _RTA_DST)
        offset += max(size + 3 & ~3, _ROUTE_MESSAGE.size)


def _attributes(data: bytes, wanted: int) -> Iterator[bytes]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if kind == wanted:
            yield data[offset + _ATTRIBUTE.size : offset + size]
        offset += max(size + 3 & ~3, _ATTRIBUTE.size)


def _route_lines(operation: str, addresses: Addresses, window: int) -> list[str]:
    """Everything is behind the device. A route's window bounds what the window scale is chosen for."""
    lengths = {len(address) for address in (*addresses.local, *addresses.remote)}
    return [
        f"route {operation} {'0.0.0.0/0' if length == 4 else '::/0'} dev {DEVICE_NAME} window {window}"
        for length in sorted(lengths)
    ]


def largest_receive_buffer() -> int:
    """The third number of ``net.ipv4.tcp_rmem`` in the calling thread's namespace."""
    return int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])


def set_largest_window(addresses: Addresses, window: int) -> None:
    """Have the window scale of new connections follow ``window``. Raises CapabilityError."""
    _run_ip(_route_lines("replace", addresses, window))


def _run_ip(lines: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise CapabilityError("the kernel's stack needs the program 'ip' (package iproute2)") from error
    except subprocess.TimeoutExpired as error:
        raise CapabilityError(f"'ip -batch' did not finish within {_COMMAND_SECONDS} s") from error
    if done.returncode != 0:
        raise CapabilityError(f"cannot configure the new namespace: {done.stderr.strip()}")


def end_processes(namespace_inode: int) -> None:
    """Kill what a script's commands have left in its namespace, which could not go away otherwise.

    Returns when they are gone, or after `_END_SECONDS`.
    """
    deadline = time.monotonic() + _END_SECONDS
    while found := [process for process in _processes() if _is_within(process, namespace_inode)]:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_END_INTERVAL_SECONDS)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _is_within(process: int, namespace_inode: int) -> bool:
    try:
        return process != os.getpid() and Path(f"/proc/{process}/ns/net").stat().st_ino == namespace_inode
    except OSError:
        return False


def printed(address: bytes) -> str:
    """A packed address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def is_noise(packet: bytes) -> bool:
    """Whether it is what a host sends unasked: to groups, or in order to find neighbours."""
    if packet[:1] and packet[0] >> 4 == 6:
        return len(packet) < 40 or packet[24] == 0xFF
    return len(packet) < 20 or packet[16] & 0xF0 == 0xE0


def transmit(device: int, packet: bytes) -> None:
    """Let the packet arrive. Raises ValueError for one that the kernel does not take as a packet."""
    try:
        os.write(device, packet)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EMSGSIZE, errno.EIO):
            raise ValueError(f"the kernel refuses the packet: {error.strerror}") from error
        raise
