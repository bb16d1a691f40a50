"""The bundled stack under a packet script: in one process, in virtual time, the same for every run.

No device and no privileges: packets go straight in and out. Time stands still but when the script lets it
pass, and then jumps from deadline to deadline.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.settings import StackSettings
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame
from testbed.packetdrill.stack_under_test import (
    MAXIMUM_WAITING_PACKETS,
    Addresses,
    CallResult,
    CommandResult,
    FloodError,
    IpVersion,
    PendingCall,
    SentPacket,
    Value,
    flood_of,
)
from testbed.packetdrill.userspace_attempts import Attempt
from testbed.packetdrill.userspace_calls import SocketCalls
from testbed.packetdrill.userspace_commands import Commands

INTERFACE_NAME = "tun0"
SCRIPT_PORT = 8080
DEFAULT_SETTINGS = StackSettings(tcp_congestion_control="reno", tcp_min_tso_segs=1)
"""As for the kernel (``kernel_namespace.DEFAULT_SETTINGS``): windows that can be told in advance."""
MAXIMUM_PACKETS_PER_INSTANT = 10_000
MAXIMUM_STEPS_PER_INSTANT = 10_000


class SeededBytes:
    """A stream of bytes that depends on the seed alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counter = 0
        self._rest = b""

    def __call__(self, length: int) -> bytes:
        while len(self._rest) < length:
            self._rest += hashlib.sha256(f"{self._seed}/{self._counter}".encode()).digest()
            self._counter += 1
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken


class VirtualCall:
    """A system call that is tried again whenever something happened, until it has a result."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._result: CallResult | None = None

    def result(self) -> CallResult | None:
        return self._result

    def advance(self, now_us: int) -> bool:
        """Tries; True once it has returned."""
        if self._result is None:
            self._result = self._attempt(now_us)
        return self._result is not None


class UserspaceStack:
    """A `stack_under_test.StackUnderTest` over `mptcp_stack.stack.Stack`. Raises ConfigurationError."""

    name = "userspace"
    time_is_virtual = True

    def __init__(
        self,
        addresses: Addresses,
        version: IpVersion,
        *,
        mtu: int = 1500,
        seed: int = 0,
        bind_port: int = SCRIPT_PORT,
        connect_port: int = SCRIPT_PORT,
    ) -> None:
        self._now_us = 0
        self._stack = Stack(DEFAULT_SETTINGS, random_bytes=SeededBytes(seed))
        self._interface = self._stack.ip.add_interface(
            INTERFACE_NAME,
            link_type=LinkType.RAW_IP,
            mtu=mtu,
            # As the kernel's TUN device, which without checksum offload has no segmentation either.
            generic_segmentation=False,
            addresses=[InterfaceAddress(local, _on_link_bits(local)) for local in addresses.local],
        )
        for unspecified in (bytes(4), bytes(16)):
            self._stack.ip.routes.add(Route(unspecified, 0, self._interface))
        self._calls = SocketCalls(
            self._stack, version, addresses, bind_port=bind_port, connect_port=connect_port
        )
        self._commands = Commands(self._stack, self._interface, addresses.variables())
        self._sent: deque[SentPacket] = deque()
        self._pending: list[VirtualCall] = []
        self._packets_at_instant = 0
        self._steps_at_instant = 0
        self._is_closed = False

    @property
    def stack(self) -> Stack:
        """What is under test, for diagnostics."""
        return self._stack

    def now_us(self) -> int:
        return self._now_us

    def pass_time(self, until_us: int) -> None:
        """Raises FloodError for a stack that never comes to rest."""
        while self._step(until_us):
            pass
        self._advance_to(until_us)

    def inject(self, packet: bytes) -> None:
        frame = Frame(packet, is_ipv6=bool(packet) and packet[0] >> 4 == 6)
        self._stack.receive_frame(frame, self._interface, self._now_us)
        self._settle()

    def next_packet(self, until_us: int) -> SentPacket | None:
        """Returns at once when nothing is left that could make the stack send."""
        self._wait_until(lambda: bool(self._sent), until_us)
        return self._sent.popleft() if self._sent else None

    def start_call(self, name: str, arguments: list[Value]) -> PendingCall:
        call = VirtualCall(self._calls.prepare(name, arguments))
        if not call.advance(self._now_us):
            self._pending.append(call)
        self._settle()
        return call

    def wait_for_call(self, call: PendingCall, until_us: int) -> CallResult | None:
        self._wait_until(lambda: call.result() is not None, until_us)
        return call.result()

    def run_command(self, text: str) -> CommandResult:
        try:
            result = CommandResult(0, self._commands.run(text))
        except ConfigurationError as error:
            return CommandResult(2, str(error))
        self._settle()
        return result

    def tcp_info(self, descriptor: int) -> dict[str, int]:
        return self._calls.tcp_info(descriptor)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._pending.clear()
        self._sent.clear()

    # --- time ---

    def _wait_until(self, holds: Callable[[], bool], until_us: int) -> None:
        """Goes from deadline to deadline. Without one left, nothing can change any more."""
        while not holds():
            if not self._step(until_us):
                return

    def _next_deadline_us(self) -> int | None:
        deadlines = (self._stack.next_deadline_us(), self._calls.next_deadline_us())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _step(self, until_us: int) -> bool:
        """Goes to the next deadline and does what is due there; False when there is none until then."""
        deadline_us = self._next_deadline_us()
        if deadline_us is None or deadline_us > until_us:
            return False
        self._advance_to(deadline_us)
        self._steps_at_instant += 1
        if self._steps_at_instant > MAXIMUM_STEPS_PER_INSTANT:
            raise FloodError(f"the stack has work for ever at {self._now_us} µs")
        stack_deadline_us = self._stack.next_deadline_us()
        if stack_deadline_us is not None and stack_deadline_us <= self._now_us:
            self._stack.handle_deadline(self._now_us)
        self._settle()
        return True

    def _advance_to(self, time_us: int) -> None:
        if time_us > self._now_us:
            self._now_us = time_us
            self._packets_at_instant = self._steps_at_instant = 0
            # Applications' calls that queue work take the time from here.
            self._stack.environment.timers.clock_us = time_us

    def _settle(self) -> None:
        """Sends what is to be sent and lets calls return, until neither causes the other any more."""
        while True:
            self._collect()
            finished = [call for call in self._pending if call.advance(self._now_us)]
            if not finished:
                return
            self._pending = [call for call in self._pending if call not in finished]

    def _collect(self) -> None:
        for _, frame in self._stack.frames_to_send(self._now_us):
            self._packets_at_instant += 1
            if self._packets_at_instant > MAXIMUM_PACKETS_PER_INSTANT:
                raise FloodError(
                    f"the stack floods: more than {MAXIMUM_PACKETS_PER_INSTANT} packets at {self._now_us} µs"
                )
            self._sent.append(SentPacket(frame.to_bytes(), self._now_us, frame.gso_size))
        if len(self._sent) > MAXIMUM_WAITING_PACKETS:
            raise flood_of(len(self._sent))


def _on_link_bits(address: bytes) -> int:
    return 24 if len(address) == 4 else 64
