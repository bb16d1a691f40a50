"""A timer of the kernel's with nanosecond resolution (timerfd_create(2)); Python has it from 3.13 on."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_SPECIFICATION: Final = struct.Struct("=qqqq")
"""struct itimerspec: interval, then the first expiration."""

_libc = ctypes.CDLL(None, use_errno=True)
_timerfd_settime = _libc.timerfd_settime
_timerfd_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class Timer:
    """Readable once the time of :func:`time.monotonic` that it is set to has come."""

    def __init__(self) -> None:
        self._descriptor = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._specification = ctypes.create_string_buffer(_SPECIFICATION.size)
        self._address = ctypes.addressof(self._specification)

    def fileno(self) -> int:
        return int(self._descriptor)

    def set(self, at_us: int) -> None:
        """One expiration at that time; at once when it is past. Clears an expiration that nobody has read."""
        seconds, microseconds = divmod(max(at_us, 1), 1_000_000)
        _SPECIFICATION.pack_into(self._specification, 0, 0, 0, seconds, microseconds * 1000)
        _timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, self._address, None)

    def clear(self) -> None:
        """Note an expiration."""
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._descriptor)
