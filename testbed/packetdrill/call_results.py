"""Compares what a system call gave with what the script says it gives."""

from __future__ import annotations

from testbed.packetdrill.constants import ERRNO_NUMBERS
from testbed.packetdrill.descriptors import MAKING_CALLS, DescriptorNames
from testbed.packetdrill.failure_report import Difference
from testbed.packetdrill.printer import print_expression
from testbed.packetdrill.stack_under_test import CallResult, Value
from testbed.packetdrill.syntax import SystemCall
from testbed.packetdrill.values import differences, format_value, to_value


def result_text(result: CallResult) -> str:
    """``1000``, ``-1 EAGAIN``."""
    return f"{result.value} {result.errno_name}" if result.errno_name else str(result.value)


def call_differences(call: SystemCall, result: CallResult, names: DescriptorNames) -> list[Difference]:
    """What is not as the script has it; notes the descriptors that the call made."""
    expected = to_value(call.result) if call.result is not None else None
    arguments = [to_value(argument) for argument in call.arguments]
    if result.value >= 0:
        number = expected if isinstance(expected, int) and expected >= 0 else result.value
        names.note_result(call.name, arguments, number, result.value)
    if call.result is None:
        return []
    found = _result_differences(call, expected, result)
    if not found and result.value >= 0:
        found = _output_differences(call, arguments, result, names)
    return found


def _result_differences(call: SystemCall, expected: Value, result: CallResult) -> list[Difference]:
    if expected is None or call.result is None:
        return []
    # Scripts number descriptors as they like.
    is_descriptor = call.name in MAKING_CALLS and isinstance(expected, int) and expected >= 0
    is_right = result.value >= 0 if is_descriptor else result.value == expected
    if not is_right:
        shown = print_expression(call.result)
        if call.errno_name:
            shown += f" {call.errno_name}"
        return [Difference("return value", shown, result_text(result))]
    if call.errno_name and not _same_errno(call.errno_name, result.errno_name):
        return [Difference("errno", call.errno_name, result.errno_name or "none")]
    return []


def _same_errno(expected: str, got: str | None) -> bool:
    return got is not None and ERRNO_NUMBERS.get(expected) == ERRNO_NUMBERS.get(got, 0)


def _output_differences(
    call: SystemCall, arguments: list[Value], result: CallResult, names: DescriptorNames
) -> list[Difference]:
    if call.name == "pipe":
        names.note_pipe(arguments[0], result.outputs.get(0))
        return []
    if call.name in ("epoll_wait", "epoll_pwait") and not result.value:
        return []
    found = []
    for position, output in sorted(result.outputs.items()):
        argument = arguments[position] if position < len(arguments) else None
        expected, got = _same_form(argument, output)
        for path, wanted, came in differences(expected, got, f"{call.name}() argument {position + 1}"):
            if call.name == "poll" and path.endswith(".fd"):
                continue
            found.append(Difference(path, format_value(wanted), format_value(came)))
    return found


def _same_form(expected: Value, got: Value) -> tuple[Value, Value]:
    """``[1]`` and ``1``, ``[{…}]`` and ``{…}`` are the same thing behind a pointer."""
    if isinstance(expected, list) and len(expected) == 1 and not isinstance(got, list):
        return expected[0], got
    if isinstance(got, list) and len(got) == 1 and not isinstance(expected, list):
        return expected, got[0]
    return expected, got
