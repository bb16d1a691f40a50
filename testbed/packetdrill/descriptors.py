"""A script's numbers of descriptors, and those that the stack under test gave."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.packetdrill.stack_under_test import Value

MAKING_CALLS = frozenset({"socket", "accept", "accept4", "epoll_create", "epoll_create1", "open"})
"""They return a descriptor."""
_SOCKET_CALLS = frozenset({"socket", "accept", "accept4", "connect"})
_POSITIONS: Mapping[str, tuple[int, ...]] = {
    "socket": (),
    "epoll_create": (),
    "epoll_create1": (),
    "open": (),
    "pipe": (),
    "poll": (),
    "epoll_ctl": (0, 2),
    "sendfile": (0, 1),
    "splice": (0, 2),
}
"""Arguments that are descriptors; (0,) for the calls that are not here."""
UNKNOWN = -1
"""What a number stands for that no call has returned: no descriptor on any stack."""


class DescriptorNames:
    """Which number of the stack each number of the script stands for."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.latest_socket: int | None = None
        """The stack's number of the socket that was made, accepted or connected last."""

    def to_stack(self, name: str, arguments: list[Value]) -> list[Value]:
        """The arguments of a call with the stack's numbers in them."""
        translated = list(arguments)
        for position in _POSITIONS.get(name, (0,)):
            if position < len(arguments):
                translated[position] = self._to_stack(arguments[position])
        if name == "poll" and isinstance(arguments[0], list):
            translated[0] = [self._entry_to_stack(entry) for entry in arguments[0]]
        return translated

    def _to_stack(self, value: Value) -> Value:
        return self._numbers.get(value, UNKNOWN) if isinstance(value, int) else value

    def _entry_to_stack(self, entry: Value) -> Value:
        if not isinstance(entry, dict):
            return entry
        return {key: self._to_stack(value) if key == "fd" else value for key, value in entry.items()}

    def note_result(self, name: str, arguments: list[Value], script_number: int, number: int) -> None:
        """A call has returned ``number``, which the script calls ``script_number``."""
        if name in MAKING_CALLS:
            self._numbers[script_number] = number
            script_descriptor = script_number
        else:
            first = arguments[0] if arguments else None
            script_descriptor = first if isinstance(first, int) else UNKNOWN
        if name in _SOCKET_CALLS:
            self.latest_socket = self._numbers.get(script_descriptor, self.latest_socket)
        if name == "close":
            closed = self._numbers.pop(script_descriptor, None)
            if closed == self.latest_socket:
                self.latest_socket = None

    def note_pipe(self, script_numbers: Value, numbers: Value) -> None:
        if isinstance(script_numbers, list) and isinstance(numbers, list):
            for script_number, number in zip(script_numbers, numbers, strict=False):
                if isinstance(script_number, int) and isinstance(number, int):
                    self._numbers[script_number] = number
