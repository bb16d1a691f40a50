"""What a packet script is played against: the bundled stack in virtual time, or the kernel.

The engine (:mod:`testbed.packetdrill.engine`) owns the script, its variables and all comparisons. A stack
under test only lets time pass, takes packets, gives packets, carries out system calls and commands.
Times are microseconds since the script's start. Packets are whole IPv4 or IPv6 packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mptcp_stack.wire.addresses import format_address
from testbed.errors import ExitCode, TestbedError

MAXIMUM_WAITING_PACKETS = 100_000
"""Sent, and not taken by the script yet."""

Value = int | bytes | str | list["Value"] | dict[str, "Value"] | None
"""An argument or a result of a system call: numbers, buffers, arrays, structures by field name.

None stands for ``...``. The exact forms are in :mod:`testbed.packetdrill.values`.
"""


class FloodError(TestbedError):
    """The stack never comes to rest, or sends more than any script can mean."""

    exit_code = ExitCode.FAIL


def flood_of(packets: int) -> FloodError:
    """For packets that wait to be taken."""
    return FloodError(f"the stack floods: {packets} packets that the script does not expect")


class IpVersion(StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    IPV4_MAPPED = "ipv4-mapped-ipv6"
    """IPv6 sockets with IPv4 packets."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Packed addresses of the script's two ends. The stack under test owns ``local`` (several for joins)."""

    local: tuple[bytes, ...]
    remote: tuple[bytes, ...]
    """Reached over the device: whole networks, so that a script can make up peers."""

    def variables(self) -> dict[str, str]:
        """What commands know them by: ``$saddr0`` … of the stack, ``$caddr0`` … of the script."""
        sides = (("saddr", self.local), ("caddr", self.remote))
        return {
            f"{side}{number}": format_address(address)
            for side, addresses in sides
            for number, address in enumerate(addresses)
        }


@dataclass(frozen=True, slots=True)
class SentPacket:
    """A packet that the stack sent. A super-segment comes as one packet with ``gso_size`` set."""

    packet: bytes
    at_us: int
    gso_size: int = 0


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a system call gave. ``outputs`` has what it wrote through its pointers, by argument position."""

    value: int
    errno_name: str | None
    outputs: dict[int, Value]
    finished_us: int


@dataclass(frozen=True, slots=True)
class CommandResult:
    exit_code: int
    output: str


class PendingCall(Protocol):
    """A system call that was started."""

    def result(self) -> CallResult | None:
        """None while it blocks."""


class StackUnderTest(Protocol):
    name: str
    """Either "userspace" or "kernel"."""
    time_is_virtual: bool
    """Virtual time is exact: no tolerance is needed and nothing is waited for."""

    def now_us(self) -> int: ...

    def pass_time(self, until_us: int) -> None:
        """Lets time go on until then; packets and calls that finish meanwhile are kept."""

    def inject(self, packet: bytes) -> None:
        """The packet arrives now."""

    def next_packet(self, until_us: int) -> SentPacket | None:
        """The next packet that the stack sent and that was not taken yet; waits for it until ``until_us``."""

    def start_call(self, name: str, arguments: list[Value]) -> PendingCall:
        """Starts a system call now; one that does not block has its result on return.

        Descriptors are the stack's own numbers, those that earlier calls returned: the engine maps what a
        script calls them. Raises ValueError for a call or an argument that it can't carry out, with a message
        for the user.
        """

    def wait_for_call(self, call: PendingCall, until_us: int) -> CallResult | None:
        """Lets time pass until the call has returned, at most until then."""

    def run_command(self, text: str) -> CommandResult:
        """A script's shell command: ``ip mptcp``, ``sysctl``, ``nstat`` and, on the kernel, anything."""

    def tcp_info(self, descriptor: int) -> dict[str, int]:
        """The fields of TCP_INFO by name, for code blocks. Raises ValueError for a dead descriptor."""

    def close(self) -> None:
        """Leaves nothing behind; may be called at any moment and twice."""
