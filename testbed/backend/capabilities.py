"""What this machine can do, found out by doing it: each probe in a process and namespaces of its own.

A probe returns a detail worth showing, or raises. Nothing of it outlives its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mptcp_stack.device.link_model import FourStates, GilbertElliott, Slot
from testbed.backend.runtime import NAMESPACE_DIRECTORY
from testbed.topology.model import Impairment

if TYPE_CHECKING:
    from testbed.backend.link_shaping import Shaper

_PROBE_TIMEOUT_S = 10.0
_IPPROTO_MPTCP = 262
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_ETH_P_ALL = 0x0003
_TUNSETIFF = 0x4004_54CA
_IFF_TUN_NO_PI = 0x1001
_LOOPBACK_INDEX = 1
_FIRST_INDEX = 10


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try. ``meaning`` is what it means for the user when it does not work."""

    name: str
    try_it: Callable[[], str]
    meaning: str
    is_essential: bool = False
    """Without it no lab can be built at all."""
    needs_namespaces: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """How a probe went."""

    name: str
    works: bool
    detail: str
    meaning: str
    is_essential: bool


def probe_all(probes: Sequence[Probe]) -> list[Finding]:
    """Run the probes, one after the other."""
    return [probe(item) for item in probes]


def probe(item: Probe) -> Finding:
    """Run one probe in a child process; a probe that hangs or crashes has failed."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _report_from_child(item, writer)
    os.close(writer)
    try:
        works, detail = _read_report(reader)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return Finding(item.name, works, detail, item.meaning, item.is_essential)


def _report_from_child(item: Probe, writer: int) -> NoReturn:
    works = False
    try:
        if item.needs_namespaces:
            enter_scratch_namespaces()
        detail = item.try_it()
        works = True
    except BaseException as error:
        detail = (str(error) or type(error).__name__).splitlines()[0]
    with contextlib.suppress(OSError):
        os.write(writer, json.dumps([works, detail]).encode())
    os._exit(0)


def _read_report(reader: int) -> tuple[bool, str]:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if not poll.poll(_PROBE_TIMEOUT_S * 1000):
        return False, f"no answer within {_PROBE_TIMEOUT_S:g} s"
    report = os.read(reader, 65_536)
    if not report:
        return False, "the probe crashed"
    works, detail = json.loads(report)
    return bool(works), str(detail)


def enter_scratch_namespaces() -> None:
    """Be root somewhere where nothing can be harmed. Raises CapabilityError or OSError."""
    from testbed.backend.privileges import enter_new_user_namespace, has_privileges
    from testbed.backend.system import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

    if not has_privileges():
        enter_new_user_namespace()
        return
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_PRIVATE)


def _privileges() -> str:
    from testbed.backend.privileges import enter_new_user_namespace, has_privileges

    if has_privileges():
        return "root: labs are built on the machine itself, and 'ip netns' shows them"
    enter_new_user_namespace()
    return "ordinary user: each lab gets a user namespace of its own"


def _user_namespaces() -> str:
    from testbed.backend.system import CLONE_NEWUSER, unshare

    unshare(CLONE_NEWUSER)
    return ""


def _named_namespaces() -> str:
    from testbed.backend.system import CLONE_NEWNET, MS_BIND, mount, unshare

    unshare(CLONE_NEWNET)
    # A tmpfs of our own over the directory (or its parent): the real one is not written to.
    covered = NAMESPACE_DIRECTORY if NAMESPACE_DIRECTORY.is_dir() else NAMESPACE_DIRECTORY.parent
    mount("tmpfs", str(covered), "tmpfs")
    NAMESPACE_DIRECTORY.mkdir(exist_ok=True)
    name = NAMESPACE_DIRECTORY / "probe"
    name.touch()
    mount("/proc/self/ns/net", str(name), flags=MS_BIND)
    return f"under {NAMESPACE_DIRECTORY}"


def _make_link(kind: str, index: int = _FIRST_INDEX) -> None:
    from testbed.backend.netlink import RTM_NEWLINK, NetlinkSocket, Request

    fields: dict[str, Any] = {
        "index": index,
        "attrs": [
            ["IFLA_IFNAME", f"probe{index}"],
            ["IFLA_LINKINFO", {"attrs": [["IFLA_INFO_KIND", kind]]}],
        ],
    }
    with contextlib.closing(NetlinkSocket()) as netlink:
        netlink.run([Request(RTM_NEWLINK, fields, f"make a {kind} link")])


def _link_of_kind(kind: str) -> Callable[[], str]:
    def try_it() -> str:
        _make_link(kind)
        return ""

    return try_it


def _shaper(device: int) -> Shaper:
    from testbed.backend.link_shaping import Shaper, ShaperPlace
    from testbed.topology.model import LinkEnd

    sender, receiver = LinkEnd("probe", "sender"), LinkEnd("probe", "receiver")
    return Shaper(sender, receiver, ShaperPlace.SENDER_IN_THE_MIDDLE, "probe", device, 20_000_000, 1500)


def _tbf() -> str:
    from testbed.backend.link_shaping import set_buckets
    from testbed.backend.netlink import NetlinkSocket

    _make_link("veth")
    with contextlib.closing(NetlinkSocket()) as netlink:
        set_buckets([_shaper(_FIRST_INDEX)], netlink)
    return "and the kernel holds the rate that was asked for"


def _ingress_redirection() -> str:
    from testbed.backend.link_shaping import redirect
    from testbed.backend.netlink import NetlinkSocket

    _make_link("veth")
    with contextlib.closing(NetlinkSocket()) as netlink:
        if not redirect(_shaper(_FIRST_INDEX + 10), _FIRST_INDEX, netlink):
            raise OSError("the kernel lacks ifb, act_mirred or cls_u32")
    return "ifb, act_mirred and cls_u32"


def _netem() -> str:
    """Every word of impairments at once, read back: an old kernel that lacks one has no netem for us."""
    from testbed.backend.link_shaping import redirection
    from testbed.backend.netem_links import impairments_held, is_held, netem_request
    from testbed.backend.netlink import NetlinkSocket

    _make_link("veth")
    with contextlib.closing(NetlinkSocket()) as netlink:
        for impairment in NETEM_TRIALS:
            netlink.run([netem_request(_FIRST_INDEX, impairment, 1500, "add a netem queue")])
            if not is_held(impairment, impairments_held(netlink).get(_FIRST_INDEX), 1500):
                raise OSError("the kernel's netem holds something else than what it was told")
        netlink.run(redirection(_FIRST_INDEX, _FIRST_INDEX, "forward packets to a netem"))
    return "and the kernel holds every impairment that was asked for"


def _netem_seed() -> str:
    from testbed.backend.netem_links import NO_SEED, impairments_held, netem_request
    from testbed.backend.netlink import NetlinkSocket

    _make_link("veth")
    with contextlib.closing(NetlinkSocket()) as netlink:
        netlink.run([netem_request(_FIRST_INDEX, Impairment(seed=7), 1500, "add a netem queue")])
        if impairments_held(netlink)[_FIRST_INDEX].seed != 7:
            raise OSError(NO_SEED)
    return ""


def _policy_rules() -> str:
    from ipaddress import ip_address

    from testbed.backend.links import rule_request
    from testbed.backend.netlink import NetlinkSocket

    with contextlib.closing(NetlinkSocket()) as netlink:
        for source in ("10.0.0.1", "fd00::1"):
            netlink.run([rule_request(ip_address(source), 1000, "the probe")])
    return "IPv4 and IPv6"


def _packet_socket() -> str:
    _make_link("veth")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as packet_socket:
        packet_socket.bind((f"probe{_FIRST_INDEX}", _ETH_P_ALL))
        packet_socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    return "with offload headers"


def _tun() -> str:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"probe%d", _IFF_TUN_NO_PI))
    finally:
        os.close(descriptor)
    return ""


def _kernel_mptcp(family: socket.AddressFamily) -> Callable[[], str]:
    def try_it() -> str:
        from testbed.backend.netlink import RTM_NEWLINK, NetlinkSocket, Request
        from testbed.host.kernel_streams import is_mptcp

        up = {"index": _LOOPBACK_INDEX, "flags": 1, "change": 1}
        with contextlib.closing(NetlinkSocket()) as netlink:
            netlink.run([Request(RTM_NEWLINK, up, "set lo up", flags=0)])
        with (
            socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP) as listener,
            socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP) as client,
        ):
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen()
            client.settimeout(_PROBE_TIMEOUT_S / 2)
            client.connect(listener.getsockname())
            if not is_mptcp(client):
                raise OSError("a connection to itself fell back to TCP")
        return "a connection spoke MPTCP"

    return try_it


def _mptcp_path_manager() -> str:
    from testbed.host.kernel_endpoints import KernelPathManager

    with KernelPathManager() as path_manager:
        limits = path_manager.limits()
    return f"default limits: {limits.subflows} subflows, {limits.add_addr_accepted} accepted addresses"


_NFTABLES_RULES = """\
table inet probe {
  chain output {
    type filter hook output priority 0;
    reset tcp option mptcp
  }
}
"""


def _nftables() -> str:
    try:
        answer = subprocess.run(
            ["nft", "-f", "-"],
            input=_NFTABLES_RULES,
            text=True,
            check=False,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S / 2,
        )
    except FileNotFoundError:
        raise OSError("the program nft is not installed") from None
    if answer.returncode != 0:
        raise OSError(answer.stderr)
    return "and can strip MPTCP options"


def _program(name: str) -> Callable[[], str]:
    def try_it() -> str:
        path = shutil.which(name)
        if path is None:
            raise FileNotFoundError("not in the search path")
        return path

    return try_it


def _mininet() -> str:
    from testbed.bench.topology import mininet_interpreter

    interpreter = mininet_interpreter()
    if interpreter is None:
        raise FileNotFoundError("no Python here can import it")
    return f"importable by {interpreter}"


NETEM_TRIALS = (
    Impairment(
        rate_bit_s=10_000_000,
        packet_overhead_bytes=-4,
        cell_bytes=48,
        cell_overhead_bytes=5,
        limit_packets=100,
        delay_us=20_001,
        jitter_us=2_003,
        delay_correlation=0.25,
        distribution="pareto",
        loss=0.01,
        loss_correlation=0.1,
        duplicate=0.02,
        duplicate_correlation=0.2,
        corrupt=0.03,
        corrupt_correlation=0.3,
        reorder=0.04,
        reorder_correlation=0.4,
        gap=5,
        slot=Slot(1_000, 5_000, 10, 20_000),
        seed=7,
    ),
    Impairment(delay_us=1, loss_model=GilbertElliott(0.01, 0.1, 0.7, 0.001)),
    Impairment(rate_bit_s=64_000_000_000, loss_model=FourStates(0.01, 0.5, 0.02, 0.03, 0.04)),
)
"""Together they hold every word."""

NETEM_PROBE = Probe(
    "netem",
    _netem,
    "links are impaired by the testbed's own emulator instead of by the kernel",
)

NETEM_SEED_PROBE = Probe(
    "netem's seed",
    _netem_seed,
    "links with a seed are impaired by the emulator; a lab's seed says nothing to netem",
)

PROBES: tuple[Probe, ...] = (
    Probe(
        "privileges",
        _privileges,
        "no lab can be built; run as root, or allow user namespaces",
        is_essential=True,
        needs_namespaces=False,
    ),
    Probe(
        "user namespaces",
        _user_namespaces,
        "only root can build labs",
        needs_namespaces=False,
    ),
    Probe("network namespaces", lambda: "", "no lab can be built", is_essential=True),
    Probe("named namespaces", _named_namespaces, "no lab can be built", is_essential=True),
    Probe("veth", _link_of_kind("veth"), "nodes cannot be linked (CONFIG_VETH)", is_essential=True),
    Probe("bridge", _link_of_kind("bridge"), "topologies with a switch cannot be built (CONFIG_BRIDGE)"),
    Probe("policy rules", _policy_rules, "kernel hosts cannot route by source address"),
    Probe(
        "packet sockets",
        _packet_socket,
        "hosts with the userspace stack cannot be attached (CONFIG_PACKET)",
        is_essential=True,
    ),
    Probe("tun", _tun, "the userspace stack cannot use TUN devices; labs do not need them"),
    Probe("tbf", _tbf, "links cannot have a rate (CONFIG_NET_SCH_TBF)"),
    Probe(
        "ingress redirection",
        _ingress_redirection,
        "a host's sending rate is limited on the host itself instead of in the middle of the path",
    ),
    NETEM_PROBE,
    NETEM_SEED_PROBE,
    Probe("nftables", _nftables, "the kernel's packet filter cannot act as a middlebox"),
    Probe(
        "kernel MPTCP, IPv4",
        _kernel_mptcp(socket.AF_INET),
        "hosts need 'stack: userspace'; selftests against the kernel are skipped",
    ),
    Probe(
        "kernel MPTCP, IPv6",
        _kernel_mptcp(socket.AF_INET6),
        "IPv6 selftests against the kernel are skipped",
    ),
    Probe("kernel path manager", _mptcp_path_manager, "kernel hosts cannot have endpoints or limits"),
    Probe("ip", _program("ip"), "the testbed does not need it; 'testbed exec LAB NODE ip …' does"),
    Probe("tshark", _program("tshark"), "captures cannot be checked by Wireshark's dissectors"),
    Probe("ethtool", _program("ethtool"), "offloads can be changed by other programs only"),
    Probe(
        "mininet", _mininet, "'testbed bench topology' has nothing to compare with", needs_namespaces=False
    ),
)
