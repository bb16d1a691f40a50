"""Plays a packet script on a stack under test: event after event, everything that comes out compared.

The engine owns time, the script's variables and its numbering of descriptors. What it demands is exact where
the stack's time is virtual; in real time an event may be off by the script's tolerance.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import NoReturn

from mptcp_stack.errors import StackError
from testbed.errors import TestbedError
from testbed.packetdrill import md5_signature
from testbed.packetdrill.bindings import Bindings
from testbed.packetdrill.call_results import call_differences, result_text
from testbed.packetdrill.code_blocks import CodeBlockError, CodeBlocks
from testbed.packetdrill.descriptors import DescriptorNames
from testbed.packetdrill.failure_report import Difference, ScriptFailureError, describe_failure
from testbed.packetdrill.packets import build, describe_as_text, match, merge, payload_length, split
from testbed.packetdrill.printer import print_action, print_packet, print_seconds, print_time
from testbed.packetdrill.stack_under_test import CallResult, PendingCall, SentPacket, StackUnderTest
from testbed.packetdrill.syntax import (
    CodeBlock,
    Command,
    Direction,
    Event,
    EventTime,
    Packet,
    Script,
    SystemCall,
    TcpPart,
    TimeKind,
)
from testbed.packetdrill.time_limit import TimeLimitError
from testbed.packetdrill.timeline import Timeline, Window
from testbed.packetdrill.trace import Trace
from testbed.packetdrill.values import to_value

DEFAULT_TOLERANCE_US = 4_000
LATE_LIMIT_US = {True: 60_000_000, False: 500_000}
"""How much longer something is waited for that is late, only to say how late it is."""
NEVER_US = 1 << 62
AT_ONCE_US = {True: 0, False: 20_000}
"""How long a system call may take that does not block."""


_OPENING_CALLS = frozenset({"connect", "sendto", "sendmsg"})
"""Calls that may send a SYN, the latter two with MSG_FASTOPEN."""


@dataclass(slots=True)
class _Unfinished:
    """A blocking system call that has not returned yet."""

    event: Event
    call: PendingCall
    end_us: int
    """In the script's time."""


class Engine:
    """One run of one script. ``tolerance_factor`` stretches the script's tolerance on slow machines."""

    def __init__(
        self,
        script: Script,
        stack: StackUnderTest,
        bindings: Bindings,
        trace: Trace,
        *,
        tolerance_factor: float = 1.0,
    ) -> None:
        self._script = script
        self._stack = stack
        self._bindings = bindings
        self._trace = trace
        tolerance_us = int(script.options.get("tolerance_usecs", str(DEFAULT_TOLERANCE_US)), 0)
        allowed_us = 0 if stack.time_is_virtual else int(tolerance_us * tolerance_factor)
        self._timeline = Timeline(allowed_us, is_virtual=stack.time_is_virtual)
        self._code = CodeBlocks()
        self._descriptors = DescriptorNames()
        self._unfinished: list[_Unfinished] = []
        self._put_back: deque[SentPacket] = deque()

    def play(self) -> None:
        """Raises ScriptFailureError at the first thing that is not as the script has it."""
        if self._script.init_command is not None:
            command = self._script.init_command
            at_once = EventTime(TimeKind.ABSOLUTE)
            event = Event(at_once, command, f"`{command.text}`", location=command.location)
            self._run_command(event, command)
        for number, event in enumerate(self._script.events):
            try:
                self._play_event(number, event)
            except ScriptFailureError:
                raise
            except TimeLimitError as error:
                self._fail(event, [Difference("", "", str(error))], is_final=True)
            except (TestbedError, StackError, ValueError) as error:
                self._fail(event, [Difference("", "", str(error))])
        for unfinished in list(self._unfinished):
            self._finish_call(unfinished)
        self._show_rest()

    def _play_event(self, number: int, event: Event) -> None:
        window = self._timeline.window(event.time, self._stack.now_us())
        action = event.action
        if isinstance(action, Packet) and action.direction is Direction.OUT:
            self._expect_packet(number, event, action, window)
            return
        self._finish_calls_before(window.first_us - self._timeline.tolerance_us)
        # Made before its time comes, so that nothing but the device is between them.
        data = build(action, self._bindings) if isinstance(action, Packet) else b""
        if event.time.kind is not TimeKind.ANY:
            self._stack.pass_time(self._timeline.due_us(window))
        self._timeline.begin(window, self._stack.now_us())
        if not isinstance(action, Packet):
            # What has to be over by now must not compete with what follows.
            self._finish_calls_before(self._timeline.base_us + 1)
        match action:
            case Packet():
                self._inject(data)
            case SystemCall():
                self._call(event, action)
            case Command():
                self._run_command(event, action)
            case CodeBlock():
                self._run_code(event, action)

    def _fail(
        self,
        event: Event,
        differences: list[Difference],
        expected: str = "",
        came: str = "",
        excess_us: int = 0,
        *,
        is_final: bool = False,
    ) -> NoReturn:
        """``excess_us``: nothing is wrong but a time, by so much. ``is_final``: no lateness explains it."""
        text = describe_failure(
            self._script.path, event, differences, expected, came, self._trace.last_packets()
        )
        timeline = self._timeline
        telling_us = NEVER_US if is_final else timeline.telling_lateness_us(excess_us)
        raise ScriptFailureError(text, telling_us, timeline.lateness_us)

    # --- packets ---

    def _inject(self, data: bytes) -> None:
        self._stack.inject(data)
        self._timeline.end(self._stack.now_us())
        text = self._described(data, Direction.IN)
        self._trace.add_packet(self._timeline.began_us, Direction.IN, data, text)

    def _described(self, data: bytes, direction: Direction) -> str:
        return describe_as_text(data, direction, self._bindings)

    def _take_packet(self, until_us: int) -> SentPacket | None:
        if self._put_back:
            return self._put_back.popleft()
        return self._stack.next_packet(until_us)

    def _expect_packet(self, number: int, event: Event, expected: Packet, window: Window) -> None:
        until_us = self._timeline.bounds_us(window)[1] + LATE_LIMIT_US[self._stack.time_is_virtual]
        sent = self._take_packet(until_us)
        if sent is None:
            self._fail(event, [Difference("packet", "one", "none")], print_packet(expected))
        sent = self._same_range(number, expected, sent, until_us)
        mismatches = match(expected, sent.packet, self._bindings)
        differences = [Difference(each.field, each.expected, each.got) for each in mismatches]
        came = self._described(sent.packet, Direction.OUT)
        self._trace.add_packet(sent.at_us, Direction.OUT, sent.packet, came)
        excess_us = self._timeline.excess_us(window.first_us, window.last_us, sent.at_us)
        if excess_us:
            differences.insert(0, self._time_difference(event, window, sent.at_us))
            # What else is wrong shows that it is another packet: then there is more to it than the time.
            self._fail(event, differences, print_packet(expected), came, 0 if mismatches else excess_us)
        if differences:
            self._fail(event, differences, print_packet(expected), came)
        is_exact = event.time.kind in (TimeKind.ABSOLUTE, TimeKind.RELATIVE)
        self._timeline.happened(window, sent.at_us, is_exact=is_exact)

    def _time_difference(self, event: Event, window: Window, at_us: int) -> Difference:
        first_us, last_us = self._timeline.bounds_us(window)
        allowed = print_seconds(first_us)
        if last_us != first_us:
            allowed += f" to {print_seconds(last_us)}"
        return Difference("time", f"{allowed} ({print_time(event.time)})", print_seconds(at_us))

    def _show_rest(self) -> None:
        """What came out and was not asked for any more: only the trace has it."""
        while (sent := self._take_packet(self._stack.now_us())) is not None:
            text = self._described(sent.packet, Direction.OUT)
            self._trace.add_packet(sent.at_us, Direction.OUT, sent.packet, text)

    # --- super-segments ---

    def _same_range(self, number: int, expected: Packet, sent: SentPacket, until_us: int) -> SentPacket:
        """``sent`` cut, or joined with what follows it, to the bytes that the script wants at once."""
        wanted, length = expected.payload_length, payload_length(sent.packet)
        if not wanted or not length or "strict_segments" in self._script.options:
            return sent
        if length > wanted and self._is_continued(number, expected):
            parts = split(sent.packet, wanted)
            if parts is not None:
                self._put_back.appendleft(replace(sent, packet=parts[1]))
                return replace(sent, packet=parts[0])
        return self._joined(sent, wanted, until_us)

    def _is_continued(self, number: int, expected: Packet) -> bool:
        """Whether the script's next outgoing packet has the bytes after those of ``expected``."""
        for event in self._script.events[number + 1 :]:
            action = event.action
            if isinstance(action, Packet) and action.direction is Direction.OUT:
                content, before = action.content, expected.content
                if not isinstance(content, TcpPart) or not isinstance(before, TcpPart):
                    return False
                return bool(action.payload_length) and content.sequence.start == before.sequence.end
        return False

    def _joined(self, sent: SentPacket, wanted: int, until_us: int) -> SentPacket:
        packet = sent.packet
        while payload_length(packet) < wanted:
            following = self._take_packet(until_us)
            if following is None:
                break
            joined = merge(packet, following.packet)
            if joined is None or payload_length(joined) > wanted:
                self._put_back.appendleft(following)
                break
            packet = joined
        return replace(sent, packet=packet)

    # --- system calls ---

    def _call(self, event: Event, call: SystemCall) -> None:
        script_arguments = [to_value(argument) for argument in call.arguments]
        arguments = self._descriptors.to_stack(call.name, script_arguments)
        key = md5_signature.key_of_call(call.name, arguments)
        if key is not None:
            self._bindings.signature_key = key
        if call.name in _OPENING_CALLS:
            self._bindings.let_ports_be_reused()
        started = self._stack.start_call(call.name, arguments)
        blocking_end_us = event.time.blocking_end_us
        if blocking_end_us is None:
            allowed_us = max(self._timeline.tolerance_us, AT_ONCE_US[self._stack.time_is_virtual])
            result = self._stack.wait_for_call(started, self._stack.now_us() + allowed_us)
            self._timeline.end(self._stack.now_us())
            if result is None:
                hint = f"it blocks; a call that takes time is written {print_time(event.time)}...END"
                self._fail(event, [Difference(f"{call.name}()", "to return at once", hint)])
            self._check_result(event, call, result)
            return
        self._timeline.end(self._stack.now_us())
        end_us = self._timeline.base_us + blocking_end_us - event.time.start_us
        self._unfinished.append(_Unfinished(event, started, end_us))

    def _finish_calls_before(self, time_us: int) -> None:
        for unfinished in list(self._unfinished):
            if unfinished.end_us < time_us or unfinished.call.result() is not None:
                self._finish_call(unfinished)

    def _finish_call(self, unfinished: _Unfinished) -> None:
        self._unfinished.remove(unfinished)
        event = unfinished.event
        call = event.action
        if not isinstance(call, SystemCall):
            raise AssertionError("only system calls block")
        end_us = unfinished.end_us
        window = Window(end_us, end_us, end_us)
        limit_us = self._timeline.bounds_us(window)[1] + LATE_LIMIT_US[self._stack.time_is_virtual]
        result = self._stack.wait_for_call(unfinished.call, limit_us)
        wanted = f"at {print_seconds(self._timeline.due_us(window))}"
        if result is None:
            self._fail(event, [Difference("time of return", wanted, "still blocked")])
        excess_us = self._timeline.excess_us(end_us, end_us, result.finished_us)
        if excess_us:
            came = f"at {print_seconds(result.finished_us)} with {result_text(result)}"
            self._fail(event, [Difference("time of return", wanted, came)], excess_us=excess_us)
        self._check_result(event, call, result)

    def _check_result(self, event: Event, call: SystemCall, result: CallResult) -> None:
        self._trace.add_line(result.finished_us, _traced_call(call, result))
        differences = call_differences(call, result, self._descriptors)
        if differences:
            self._fail(event, differences, print_action(call), _traced_call(call, result))

    # --- commands and code ---

    def _run_command(self, event: Event, command: Command) -> None:
        self._trace.add_line(self._stack.now_us(), f"`{command.text}`")
        result = self._stack.run_command(command.text)
        if result.exit_code:
            said = result.output.strip() or "no message"
            self._fail(event, [Difference("exit code", "0", f"{result.exit_code}: {said}")])
        self._timeline.wait_for_command(self._stack.now_us())

    def _run_code(self, event: Event, block: CodeBlock) -> None:
        descriptor = self._descriptors.latest_socket
        variables: dict[str, object] = {}
        if descriptor is not None:
            variables.update(self._stack.tcp_info(descriptor))
        try:
            if "nstat" in block.text:
                variables["nstat"] = self._counters()
            self._code.run(block.text, variables)
        except CodeBlockError as error:
            self._fail(event, [Difference("", "", str(error))])

    def _counters(self) -> dict[str, int]:
        """Raises CodeBlockError when they can't be read."""
        result = self._stack.run_command("nstat -asz --json")
        if result.exit_code:
            raise CodeBlockError(f"nstat: {result.output.strip()}")
        shown: dict[str, int] = json.loads(result.output)["kernel"]
        return shown


def _traced_call(call: SystemCall, result: CallResult) -> str:
    arguments = print_action(replace(call, result=None))
    return f"{arguments} = {result_text(result)}"
