"""Plays one script on one stack and says what became of it."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

from mptcp_stack.device.capture import CaptureWriter
from mptcp_stack.errors import ConfigurationError, StackError
from testbed.errors import CapabilityError, TestbedError
from testbed.packetdrill.bindings import Bindings
from testbed.packetdrill.engine import Engine
from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.lateness_probe import LatenessRecord
from testbed.packetdrill.needs import missing_need
from testbed.packetdrill.parser import load_script
from testbed.packetdrill.script_addresses import addresses_of
from testbed.packetdrill.stack_under_test import Addresses, IpVersion, StackUnderTest
from testbed.packetdrill.suite import Cell
from testbed.packetdrill.syntax import Script
from testbed.packetdrill.time_limit import time_limit
from testbed.packetdrill.trace import Trace
from testbed.selftests.results import Outcome

DEFAULT_MTU = 1500
DEFAULT_PORT = 8080
IPV6_EXTRA_HEADER_BYTES = 20


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """What the command line says of each run."""

    tolerance_factor: float = 1.0
    trace: bool = False
    capture: str | None = None
    """Path of a pcapng file."""
    timeout_s: float | None = None
    """Of a run; None is no limit."""


@dataclass(frozen=True, slots=True)
class PlayResult:
    outcome: Outcome
    message: str = ""
    """Of a failure, or why it was skipped."""
    duration_us: int = 0
    trace: tuple[str, ...] = ()
    late_us: int = 0
    """Of a failure on the kernel: the machine was late by so much, which may be the whole reason."""
    attempts: int = 1
    """How often it was played, because the machine was late before."""

    @property
    def is_inconclusive(self) -> bool:
        """Failed, but nobody knows whether by the stack's fault."""
        return self.outcome is Outcome.FAIL and self.late_us > 0


def play_cell(cell: Cell, options: PlayOptions, lateness: LatenessRecord | None = None) -> PlayResult:
    """Never raises what a script or a stack can cause: it becomes the result."""
    if cell.skip_reason is not None:
        return PlayResult(Outcome.SKIP, cell.skip_reason)
    started_ns = time.monotonic_ns()
    lines: list[str] = []
    outcome, message, late_us = Outcome.PASS, "", 0
    try:
        _play(cell, options, lines)
    except CapabilityError as error:
        outcome, message = Outcome.SKIP, str(error)
    except ScriptFailureError as error:
        outcome, message = Outcome.FAIL, str(error)
        late_us = _telling_lateness_us(error, lateness, started_ns // 1000)
    except (TestbedError, StackError, OSError) as error:
        outcome, message = Outcome.ERROR, f"{cell.path}: {error}"
    except Exception as error:  # a defect of a stack or of this program must not end the suite
        outcome, message = Outcome.ERROR, f"{cell.path}: {type(error).__name__}: {error}"
    duration_us = (time.monotonic_ns() - started_ns) // 1000
    return PlayResult(outcome, message, duration_us, tuple(lines), late_us)


def _telling_lateness_us(
    failure: ScriptFailureError, lateness: LatenessRecord | None, started_us: int
) -> int:
    """How late the machine was, if that may be why the script failed; else 0."""
    late_us = failure.own_lateness_us
    if lateness is not None:
        late_us = max(late_us, lateness.worst_us(started_us, time.monotonic_ns() // 1000))
    return late_us if late_us >= failure.telling_lateness_us else 0


def _play(cell: Cell, options: PlayOptions, lines: list[str]) -> None:
    script = cell.script or load_script(Path(cell.path))
    captured = io.BytesIO()
    writer = CaptureWriter(captured) if options.capture is not None else None
    trace = Trace(lines.append if options.trace else None, writer)
    try:
        play_script(
            script,
            cell.stack,
            cell.version,
            trace,
            tolerance_factor=options.tolerance_factor,
            timeout_s=options.timeout_s,
        )
    finally:
        if options.capture is not None:
            Path(options.capture).write_bytes(captured.getvalue())


def play_script(
    script: Script,
    stack_name: str,
    version: IpVersion,
    trace: Trace,
    *,
    tolerance_factor: float = 1.0,
    timeout_s: float | None = None,
) -> None:
    """Raises ScriptFailureError, CapabilityError where the stack or what the script needs is not there."""
    missing = missing_need(script.options["needs"], stack_name) if "needs" in script.options else None
    if missing is not None:
        raise CapabilityError(missing)
    addresses = addresses_of(version)
    bindings = Bindings(
        addresses.local,
        addresses.remote,
        local_port=_number(script, "bind_port", DEFAULT_PORT),
        remote_initial_sequence=_number(script, "initial_sequence", 0),
        seed=_number(script, "seed", 0),
    )
    stack = make_stack(script, stack_name, version, addresses)
    try:
        with time_limit(timeout_s):
            Engine(script, stack, bindings, trace, tolerance_factor=tolerance_factor).play()
    finally:
        stack.close()


def make_stack(script: Script, stack_name: str, version: IpVersion, addresses: Addresses) -> StackUnderTest:
    """Raises CapabilityError, ScriptFailureError for options that make no sense."""
    mtu = _number(script, "mtu", DEFAULT_MTU)
    if version is IpVersion.IPV6:
        # So that the MSS is the same over both, and one script serves both.
        mtu += IPV6_EXTRA_HEADER_BYTES
    bind_port = _number(script, "bind_port", DEFAULT_PORT)
    connect_port = _number(script, "connect_port", DEFAULT_PORT)
    if stack_name == "kernel":
        from testbed.packetdrill.kernel_stack import KernelStack

        return KernelStack(addresses, version, mtu=mtu, bind_port=bind_port, connect_port=connect_port)
    from testbed.packetdrill.userspace_stack import UserspaceStack

    try:
        return UserspaceStack(
            addresses,
            version,
            mtu=mtu,
            seed=_number(script, "seed", 0),
            bind_port=bind_port,
            connect_port=connect_port,
        )
    except ConfigurationError as error:
        raise ScriptFailureError(f"{script.path}: {error}") from None


def _number(script: Script, name: str, default: int) -> int:
    return int(script.options[name], 0) if name in script.options else default
