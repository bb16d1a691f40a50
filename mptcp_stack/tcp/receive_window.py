"""What a SYN offers of a receive buffer, and in which scale (RFC 7323 §2), as Linux chooses both.

SO_RCVBUF and TCP_WINDOW_CLAMP count here when they are set before the connection begins: who will never
offer much needs no large scale, and has finer windows with a small one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.socket_options import SocketOptions

LARGEST_SCALE = 14
_LARGEST_FIELD = 65535


def window_of(buffer_bytes: int) -> int:
    """What is offered of a buffer: the rest is for what packets take beside their payload (Linux's ratio)."""
    return buffer_bytes >> 1


def first_limit(settings: StackSettings, options: SocketOptions) -> int:
    """How much a new connection holds unread."""
    if options.receive_buffer_bytes:
        return window_of(options.receive_buffer_bytes)
    return settings.first_receive_limit


def scale(settings: StackSettings, options: SocketOptions) -> int:
    """The shift with which the largest window that will ever be offered fits 16 bits."""
    if not options.receive_buffer_bytes and not options.window_clamp:
        return settings.receive_window_scale
    space = max(first_limit(settings, options), settings.tcp_rmem[2], settings.rmem_max)
    space = min(space, _most(options))
    return min(LARGEST_SCALE, max(0, space.bit_length() - 16))


def first_offer(settings: StackSettings, options: SocketOptions, segment_bytes: int) -> int:
    """What is offered before any data came: whole segments."""
    if not options.receive_buffer_bytes and not options.window_clamp:
        return settings.first_offer(segment_bytes)
    window = min(first_limit(settings, options), _most(options))
    if window > segment_bytes > 0:
        window -= window % segment_bytes
    return window


def first_window(settings: StackSettings, options: SocketOptions, segment_bytes: int) -> int:
    """What a SYN tells of that: it is never scaled (RFC 7323 §2.2)."""
    return min(first_offer(settings, options, segment_bytes), _LARGEST_FIELD)


def _most(options: SocketOptions) -> int:
    most = options.window_clamp or _LARGEST_FIELD << LARGEST_SCALE
    return min(most, window_of(options.receive_buffer_bytes)) if options.receive_buffer_bytes else most
