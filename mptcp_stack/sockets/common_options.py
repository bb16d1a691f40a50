"""Options that a socket has in any state, and every subflow for itself: fields of ``SocketOptions``."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from errno import EINVAL, ENOENT, ENOPROTOOPT, EOPNOTSUPP
from typing import Any

from mptcp_stack.mptcp.send_tuning import first_limit
from mptcp_stack.settings import CONGESTION_CONTROLS, StackSettings
from mptcp_stack.tcp import deferring
from mptcp_stack.tcp.fast_open import KEY_BYTES, Mode
from mptcp_stack.tcp.socket_options import UNLIMITED_RATE, SocketOptions

SOL_SOCKET, IPPROTO_TCP = int(socket.SOL_SOCKET), int(socket.IPPROTO_TCP)
INTEGER = struct.Struct("=i")

CONTROL_NAME_BYTES = 16
"""The kernel's TCP_CA_NAME_MAX: a name and a zero byte."""

Name = tuple[int, int]
"""Level and option."""

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
SEND_BUFFER: Name = (SOL_SOCKET, int(socket.SO_SNDBUF))
RECEIVE_BUFFER: Name = (SOL_SOCKET, int(socket.SO_RCVBUF))
WINDOW_CLAMP: Name = (IPPROTO_TCP, int(socket.TCP_WINDOW_CLAMP))
_LEAST_WINDOW_CLAMP = 1152
SO_MARK = int(socket.SO_MARK)
TCP_INQ = 36
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE = 30, 34
TCP_FASTOPEN_KEY: Name = (IPPROTO_TCP, 33)
BEFORE_CONNECTING: frozenset[Name] = frozenset(
    (IPPROTO_TCP, option)
    for option in (int(socket.TCP_FASTOPEN), TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE)
)
"""What a connection can be asked no more."""
TCP_CONGESTION: Name = (IPPROTO_TCP, int(socket.TCP_CONGESTION))
LINGER: Name = (SOL_SOCKET, int(socket.SO_LINGER))
_LINGER_FORM = struct.Struct("=ii")
"""Whether, and for how many seconds."""
TYPE_OF_SERVICE: Name = (int(socket.IPPROTO_IP), int(socket.IP_TOS))
TRAFFIC_CLASS: Name = (int(socket.IPPROTO_IPV6), int(socket.IPV6_TCLASS))
_CONGESTION_BITS = 3
TCP_DEFER_ACCEPT: Name = (IPPROTO_TCP, int(socket.TCP_DEFER_ACCEPT))
TCP_QUICKACK: Name = (IPPROTO_TCP, int(socket.TCP_QUICKACK))
TCP_LINGER2: Name = (IPPROTO_TCP, int(socket.TCP_LINGER2))
_LONGEST_FIN_WAIT_S = 120
TCP_MAXSEG: Name = (IPPROTO_TCP, int(socket.TCP_MAXSEG))
_DEFAULT_SEGMENT_BYTES = 536
MAX_PACING_RATE: Name = (SOL_SOCKET, 47)
_UNSIGNED, _LONG = struct.Struct("=I"), struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class _BufferOption:
    """A size that the kernel doubles, for what packets take beside their payload."""

    field: str
    least: int
    bound: str = ""
    """The host's setting that a wish is cut to; none for who may force it."""


_LARGEST_INTEGER, _LARGEST_UNSIGNED = (1 << 31) - 1, (1 << 32) - 1
_BUFFERS: dict[Name, _BufferOption] = {
    SEND_BUFFER: _BufferOption("send_buffer_bytes", 4608, "wmem_max"),
    (SOL_SOCKET, _SO_SNDBUFFORCE): _BufferOption("send_buffer_bytes", 4608),
    RECEIVE_BUFFER: _BufferOption("receive_buffer_bytes", 2304, "rmem_max"),
    (SOL_SOCKET, _SO_RCVBUFFORCE): _BufferOption("receive_buffer_bytes", 2304),
}


@dataclass(frozen=True, slots=True)
class _IntegerField:
    """A field of SocketOptions that is an ``int`` to applications, in units of ``unit`` of the field's."""

    field: str
    unit: int = 1
    minimum: int = 0
    maximum: int = (1 << 31) - 1
    is_flag: bool = False
    setting: str = ""
    """The host's setting that holds while the field is 0, in the field's unit."""
    may_be_zero: bool = False

    def read(self, options: SocketOptions, settings: StackSettings) -> int:
        value = getattr(options, self.field)
        if not value and self.setting:
            value = getattr(settings, self.setting)
        return int(value) // self.unit

    def write(self, options: SocketOptions, value: int) -> SocketOptions:
        is_truth = self.is_flag or self.maximum == 1
        changes: dict[str, Any] = {self.field: bool(value) if is_truth else value * self.unit}
        is_free = self.is_flag or (self.may_be_zero and not value)
        if not is_free and not self.minimum <= value <= self.maximum:
            raise OSError(EINVAL, f"{self.field}: expected {self.minimum} to {self.maximum}, got {value}")
        return replace(options, **changes)


_SECOND_US, _MILLISECOND_US = 1_000_000, 1_000
_FIELDS: dict[Name, _IntegerField] = {
    (SOL_SOCKET, int(socket.SO_REUSEADDR)): _IntegerField("reuse_address", is_flag=True),
    (SOL_SOCKET, int(socket.SO_KEEPALIVE)): _IntegerField("keep_alive", is_flag=True),
    (SOL_SOCKET, int(socket.SO_OOBINLINE)): _IntegerField("urgent_inline", is_flag=True),
    (IPPROTO_TCP, int(socket.TCP_NODELAY)): _IntegerField("no_delay", is_flag=True),
    (IPPROTO_TCP, int(socket.TCP_CORK)): _IntegerField("cork", is_flag=True),
    (IPPROTO_TCP, int(socket.TCP_KEEPIDLE)): _IntegerField(
        "keep_idle_us", _SECOND_US, 1, 32767, setting="tcp_keepalive_time_us"
    ),
    (IPPROTO_TCP, int(socket.TCP_KEEPINTVL)): _IntegerField(
        "keep_interval_us", _SECOND_US, 1, 32767, setting="tcp_keepalive_intvl_us"
    ),
    (IPPROTO_TCP, int(socket.TCP_KEEPCNT)): _IntegerField(
        "keep_count", 1, 1, 127, setting="tcp_keepalive_probes"
    ),
    (IPPROTO_TCP, int(socket.TCP_SYNCNT)): _IntegerField("syn_count", 1, 1, 127, setting="tcp_syn_retries"),
    TCP_QUICKACK: _IntegerField("is_quick_at_start", is_flag=True),
    TCP_LINGER2: _IntegerField("fin_wait_2_us", _SECOND_US, setting="tcp_fin_timeout_us"),
    TCP_MAXSEG: _IntegerField("maximum_segment_size", minimum=88, maximum=32767, may_be_zero=True),
    (IPPROTO_TCP, int(socket.TCP_FASTOPEN)): _IntegerField("fast_open_queue"),
    (IPPROTO_TCP, TCP_FASTOPEN_CONNECT): _IntegerField("fast_open_connect", maximum=1),
    (IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE): _IntegerField("fast_open_no_cookie", maximum=1),
    (SOL_SOCKET, SO_MARK): _IntegerField("mark", minimum=-(1 << 31)),
    (IPPROTO_TCP, TCP_INQ): _IntegerField("reports_unread", maximum=1),
    TYPE_OF_SERVICE: _IntegerField("type_of_service"),
    TRAFFIC_CLASS: _IntegerField("traffic_class"),
    (int(socket.IPPROTO_IP), IP_TRANSPARENT): _IntegerField("transparent", is_flag=True),
    (int(socket.IPPROTO_IPV6), IPV6_TRANSPARENT): _IntegerField("transparent", is_flag=True),
    WINDOW_CLAMP: _IntegerField("window_clamp", may_be_zero=True),
    (IPPROTO_TCP, int(socket.TCP_USER_TIMEOUT)): _IntegerField("user_timeout_us", _MILLISECOND_US),
}


def get_common(
    options: SocketOptions, settings: StackSettings, level: int, option: int, length: int
) -> bytes:
    """What a socket in any state knows. Raises OSError(ENOPROTOOPT)."""
    if (level, option) == RECEIVE_BUFFER:
        return INTEGER.pack(options.receive_buffer_bytes or settings.tcp_rmem[1])[:length]
    if (level, option) == SEND_BUFFER:
        return INTEGER.pack(options.send_buffer_bytes or first_limit(settings))[:length]
    if (level, option) == TCP_FASTOPEN_KEY:
        return b"".join(options.fast_open_keys or settings.tcp_fastopen_keys)[:length]
    if (level, option) == MAX_PACING_RATE:
        return _read_pacing_rate(options, length)
    if (level, option) == LINGER:
        return _LINGER_FORM.pack(options.linger_seconds >= 0, max(0, options.linger_seconds))[:length]
    if (level, option) == TCP_DEFER_ACCEPT:
        return INTEGER.pack(deferring.seconds_of(options.deferred_timeouts))[:length]
    field = _FIELDS.get((level, option))
    if field is None:
        raise OSError(ENOPROTOOPT, f"level {level} has no option {option} here")
    value = field.read(options, settings)
    if (level, option) == TCP_MAXSEG:
        # RFC 9293 §3.7.1: as long as nothing is known of the peer.
        value = value or _DEFAULT_SEGMENT_BYTES
    return INTEGER.pack(value)[:length]


def set_common(
    options: SocketOptions, settings: StackSettings, level: int, option: int, value: bytes
) -> SocketOptions:
    """The options with one changed. Raises OSError (ENOPROTOOPT, EINVAL, ENOENT)."""
    writer = _WRITERS.get((level, option))
    if writer is not None:
        return writer(options, value)
    if (level, option) == (IPPROTO_TCP, TCP_FASTOPEN_CONNECT) and not settings.tcp_fastopen & Mode.CLIENT:
        raise OSError(EOPNOTSUPP, "net.ipv4.tcp_fastopen has no bit 1")
    field = _FIELDS.get((level, option))
    buffer = _BUFFERS.get((level, option))
    if field is None and buffer is None:
        raise OSError(ENOPROTOOPT, f"level {level} has no option {option} here")
    number = integer(value)
    if buffer is not None:
        return _set_buffer(options, settings, buffer, number)
    if field is None:
        return options
    if (level, option) == WINDOW_CLAMP and number:
        number = max(number, _LEAST_WINDOW_CLAMP)
    return field.write(options, number)


def _set_buffer(
    options: SocketOptions, settings: StackSettings, buffer: _BufferOption, wanted: int
) -> SocketOptions:
    """Bounded as an unsigned number where there is a bound, so that a negative wish is a large one there."""
    if buffer.bound:
        wanted = min(wanted % (1 << 32), getattr(settings, buffer.bound))
    doubled = 2 * min(max(wanted, 0), _LARGEST_INTEGER // 2)
    changes: dict[str, Any] = {buffer.field: max(doubled, buffer.least)}
    return replace(options, **changes)


def refuse_for_mptcp(level: int, option: int) -> None:
    """What sockets of MPTCP cannot be asked. Raises OSError (EOPNOTSUPP, ENOPROTOOPT), as Linux."""
    if (level, option) in (MAX_PACING_RATE, TRAFFIC_CLASS):
        raise OSError(EOPNOTSUPP, "that is for single subflows")
    if (level, option) == TCP_LINGER2:
        raise OSError(ENOPROTOOPT, "that is for sockets of TCP")


def integer(value: bytes) -> int:
    """Of an option that is an ``int``. Raises OSError(EINVAL) for less than one."""
    if len(value) < INTEGER.size:
        raise OSError(EINVAL, f"expected an int of {INTEGER.size} bytes, got {len(value)}")
    number: int = INTEGER.unpack_from(value)[0]
    return number


def _set_deferring(options: SocketOptions, value: bytes) -> SocketOptions:
    return replace(options, deferred_timeouts=deferring.timeouts_of(integer(value)))


def _set_linger(options: SocketOptions, value: bytes) -> SocketOptions:
    if len(value) < _LINGER_FORM.size:
        raise OSError(EINVAL, f"expected a struct linger of {_LINGER_FORM.size} bytes, got {len(value)}")
    is_on, seconds = _LINGER_FORM.unpack_from(value)
    return replace(options, linger_seconds=seconds & _LARGEST_INTEGER if is_on else -1)


def _set_fin_wait(options: SocketOptions, value: bytes) -> SocketOptions:
    """Seconds: 0 for the host's time, less for none."""
    seconds = integer(value)
    return replace(
        options, fin_wait_2_us=-1 if seconds < 0 else min(seconds, _LONGEST_FIN_WAIT_S) * _SECOND_US
    )


def _set_type_of_service(options: SocketOptions, value: bytes) -> SocketOptions:
    """A byte will do, and of more the lowest counts; the bits of ECN are not the application's to set."""
    number = value[0] if value else 0
    return replace(options, type_of_service=number & ~_CONGESTION_BITS)


def _set_traffic_class(options: SocketOptions, value: bytes) -> SocketOptions:
    number = integer(value)
    if not -1 <= number <= 255:
        raise OSError(EINVAL, f"a traffic class is -1 to 255, got {number}")
    return replace(options, traffic_class=max(number, 0) & ~_CONGESTION_BITS)


def _read_pacing_rate(options: SocketOptions, length: int) -> bytes:
    if length >= _LONG.size:
        return _LONG.pack(options.maximum_pacing_rate)
    return _UNSIGNED.pack(min(options.maximum_pacing_rate, _LARGEST_UNSIGNED))[:length]


def _set_pacing_rate(options: SocketOptions, value: bytes) -> SocketOptions:
    """An unsigned int or long; the largest one lifts the bound, after which a connection is paced still."""
    if len(value) < _UNSIGNED.size:
        raise OSError(EINVAL, f"expected an unsigned int of {_UNSIGNED.size} bytes, got {len(value)}")
    if len(value) >= _LONG.size:
        wanted: int = _LONG.unpack_from(value)[0]
    else:
        wanted = _UNSIGNED.unpack_from(value)[0]
        wanted = UNLIMITED_RATE if wanted == _LARGEST_UNSIGNED else wanted
    is_paced = options.is_paced or wanted != UNLIMITED_RATE
    return replace(options, maximum_pacing_rate=wanted, is_paced=is_paced)


def _set_fast_open_keys(options: SocketOptions, value: bytes) -> SocketOptions:
    """One key or two; the first is for new cookies."""
    if len(value) not in (KEY_BYTES, 2 * KEY_BYTES):
        raise OSError(EINVAL, f"expected one or two keys of {KEY_BYTES} bytes, got {len(value)} bytes")
    keys = tuple(bytes(value[start : start + KEY_BYTES]) for start in range(0, len(value), KEY_BYTES))
    return replace(options, fast_open_keys=keys)


def _set_congestion_control(options: SocketOptions, value: bytes) -> SocketOptions:
    """A name as C has it: up to a zero byte, which may be missing. ENOENT for one that is not there."""
    if not value:
        raise OSError(EINVAL, "expected the name of a congestion control")
    name = value[: CONTROL_NAME_BYTES - 1].split(b"\0")[0].decode("ascii", "replace")
    if name not in CONGESTION_CONTROLS:
        raise OSError(ENOENT, f"congestion control: expected one of {', '.join(CONGESTION_CONTROLS)}")
    return replace(options, congestion_control=name)


_WRITERS: dict[Name, Callable[[SocketOptions, bytes], SocketOptions]] = {
    TCP_CONGESTION: _set_congestion_control,
    TCP_FASTOPEN_KEY: _set_fast_open_keys,
    LINGER: _set_linger,
    TCP_DEFER_ACCEPT: _set_deferring,
    TCP_LINGER2: _set_fin_wait,
    TYPE_OF_SERVICE: _set_type_of_service,
    TRAFFIC_CLASS: _set_traffic_class,
    MAX_PACING_RATE: _set_pacing_rate,
}
"""Of values that are no plain int, or not kept as one."""
