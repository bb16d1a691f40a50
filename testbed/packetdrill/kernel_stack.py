"""This machine's kernel under a packet script: a namespace with a TUN device, real system calls, real time.

Packets are injected by writing them to the device. What the kernel sends is taken from a packet socket on it,
which has the kernel's own time of sending, so that a busy machine delays a script but does not falsify
the times of packets. Super-segments never appear: the device has no offloads, so that they are cut before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections import deque

from testbed.packetdrill.kernel_calls import Call, KernelCalls
from testbed.packetdrill.kernel_namespace import (
    DEFAULT_RECEIVE_BUFFER,
    ScriptInterface,
    end_processes,
    is_noise,
    largest_receive_buffer,
    prepare_namespace,
    set_largest_window,
    transmit,
)
from testbed.packetdrill.kernel_threads import Job, NamespaceThreads
from testbed.packetdrill.kernel_values import AddressReader
from testbed.packetdrill.scheduling import run_before_others, run_like_others
from testbed.packetdrill.stack_under_test import (
    MAXIMUM_WAITING_PACKETS,
    Addresses,
    CallResult,
    CommandResult,
    IpVersion,
    PendingCall,
    SentPacket,
    Value,
    flood_of,
)

SCRIPT_PORT = 8080
COMMAND_SECONDS = 30.0
MAXIMUM_COMMAND_OUTPUT = 1 << 20

_PACKET_OUTGOING = 4
_SCM_TIMESTAMPNS = 35
_LARGEST_PACKET = 1 << 16
_TIMESPEC = struct.Struct("=qq")
_CLOSE_SECONDS = 5.0


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class KernelCall:
    """A system call in a thread."""

    def __init__(self, job: Job[CallResult]) -> None:
        self.job = job

    def result(self) -> CallResult | None:
        return self.job.outcome() if self.job.is_done else None


class RefusedCall:
    """A system call that needs no thread in order to fail."""

    def __init__(self, result: CallResult) -> None:
        self._result = result

    def result(self) -> CallResult | None:
        return self._result


class KernelStack:
    """A `stack_under_test.StackUnderTest` over the kernel. Raises CapabilityError.

    ``seed`` has no meaning here: the kernel chooses its own keys and initial sequence numbers.
    """

    name = "kernel"
    time_is_virtual = False

    def __init__(
        self,
        addresses: Addresses,
        version: IpVersion,
        *,
        mtu: int = 1500,
        bind_port: int = SCRIPT_PORT,
        connect_port: int = SCRIPT_PORT,
    ) -> None:
        self._addresses = addresses
        self._window = DEFAULT_RECEIVE_BUFFER
        self._sent: deque[SentPacket] = deque()
        self._calls_in_progress: list[Job[CallResult]] = []
        self._command: subprocess.Popen[bytes] | None = None
        self._ran_commands = False
        self._is_closed = False
        self._threads = NamespaceThreads()
        try:
            self._interface: ScriptInterface = self._threads.run(lambda: prepare_namespace(addresses, mtu))
        except BaseException:
            self._threads.close()
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        reader = AddressReader(addresses, version, bind_port=bind_port, connect_port=connect_port)
        self._calls = KernelCalls(reader, self._wake)
        self._poller = select.poll()
        self._poller.register(self._interface.device, select.POLLIN)
        self._poller.register(self._interface.capture, select.POLLIN)
        run_before_others()
        self._origin_us = _monotonic_us()

    # --- time and packets ---

    def now_us(self) -> int:
        return _monotonic_us() - self._origin_us

    def pass_time(self, until_us: int) -> None:
        while (left_us := until_us - self.now_us()) > 0:
            # poll() knows milliseconds only: the rest of the last one is slept.
            if left_us >= 2000:
                self._poller.poll(left_us // 1000 - 1)
                self._collect()
            else:
                time.sleep(left_us / 1_000_000)
        self._collect()

    def inject(self, packet: bytes) -> None:
        transmit(self._interface.device, packet)

    def next_packet(self, until_us: int) -> SentPacket | None:
        self._collect()
        while not self._sent:
            left_us = until_us - self.now_us()
            if left_us <= 0:
                return None
            self._poller.poll(left_us / 1000)
            self._collect()
        return self._sent.popleft()

    def _collect(self) -> None:
        """Takes what the kernel has sent since."""
        offset_us = time.time_ns() // 1000 - self.now_us()
        while True:
            if len(self._sent) > MAXIMUM_WAITING_PACKETS:
                raise flood_of(len(self._sent))
            try:
                packet, ancillary, _, address = self._interface.capture.recvmsg(_LARGEST_PACKET, 128)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                # Said once when a script's command takes the device down.
                continue
            if address[2] != _PACKET_OUTGOING or is_noise(packet):
                continue
            self._sent.append(SentPacket(packet, _stamp_us(ancillary) - offset_us))
        self._drain_device()

    def _drain_device(self) -> None:
        """The capture has it all; unread, the device's queue would fill up."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._interface.device, _LARGEST_PACKET):
                pass

    # --- calls ---

    def start_call(self, name: str, arguments: list[Value]) -> PendingCall:
        try:
            call = self._calls.prepare(name, arguments)
        except OSError as error:
            return RefusedCall(self._failed(error))
        self._calls_in_progress = [job for job in self._calls_in_progress if not job.is_done]
        job = self._threads.submit(lambda: self._carry_out(call))
        self._calls_in_progress.append(job)
        job.wait_until_done_or_blocked()
        return KernelCall(job)

    def _carry_out(self, call: Call) -> CallResult:
        run_before_others()
        try:
            done = call()
        except OSError as error:
            return self._failed(error)
        return CallResult(done.value, None, done.outputs, self.now_us())

    def _failed(self, error: OSError) -> CallResult:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        # Of the two names of one number, the one that socket calls document.
        return CallResult(-1, "EOPNOTSUPP" if name == "ENOTSUP" else name, {}, self.now_us())

    def wait_for_call(self, call: PendingCall, until_us: int) -> CallResult | None:
        if isinstance(call, KernelCall):
            call.job.wait(max(0, until_us - self.now_us()) / 1_000_000)
        return call.result()

    def tcp_info(self, descriptor: int) -> dict[str, int]:
        try:
            return self._calls.tcp_info(descriptor)
        except OSError as error:
            raise ValueError(f"TCP_INFO of descriptor {descriptor}: {error.strerror}") from None

    # --- commands ---

    def run_command(self, text: str) -> CommandResult:
        """In the namespace. One that does not end within `COMMAND_SECONDS` is killed and fails."""
        return self._threads.run(lambda: self._run_command(text))

    def _run_command(self, text: str) -> CommandResult:
        with subprocess.Popen(
            ["sh", "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self._addresses.variables(),
            start_new_session=True,
        ) as process:
            self._command = process
            self._ran_commands = True
            try:
                output, _ = process.communicate(timeout=COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                _kill_session(process)
                return CommandResult(124, f"the command did not end within {COMMAND_SECONDS:g} s")
            finally:
                self._command = None
        window = largest_receive_buffer()
        if window != self._window:
            set_largest_window(self._addresses, window)
            self._window = window
        shown = output[:MAXIMUM_COMMAND_OUTPUT].decode("utf-8", "replace")
        return CommandResult(process.returncode, shown)

    # --- the end ---

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        run_like_others()
        if self._command is not None:
            _kill_session(self._command)
        if self._ran_commands:
            end_processes(self._threads.namespace_inode)
        os.eventfd_write(self._wake, 1)
        self._calls.unblock()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for job in self._calls_in_progress:
            job.wait(max(0.0, deadline - time.monotonic()))
        self._calls.close_all()
        self._threads.close(_CLOSE_SECONDS)
        self._interface.close()
        os.close(self._wake)
        self._sent.clear()


def _stamp_us(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel sent the packet, by the clock of `time.time_ns`."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SCM_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000 + int(nanoseconds) // 1000
    return time.time_ns() // 1000


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
