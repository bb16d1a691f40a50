"""SO_RCVTIMEO and SO_SNDTIMEO on the bundled stack: a call whose time is up ends as if not to wait."""

from __future__ import annotations

from collections.abc import Callable

from testbed.packetdrill.userspace_attempts import Done, Try
from testbed.packetdrill.userspace_descriptors import Endpoint, StreamSocket

AddDeadline = Callable[[int, int], int]
"""Has waiting calls tried again after so long from now; returns the time of it."""

_RECEIVING = frozenset({"accept", "accept4", "read", "readv", "recv", "recvfrom", "recvmsg", "splice"})
_SENDING = frozenset({"connect", "write", "writev", "send", "sendto", "sendmsg", "sendfile"})


def limited(name: str, endpoint: Endpoint | None, attempt: Try, add_deadline: AddDeadline) -> Try:
    """The call, which waits no longer than its socket allows, counted from when it first looks."""
    timeout_us = 0
    if isinstance(endpoint, StreamSocket) and name in _RECEIVING:
        timeout_us = endpoint.receive_timeout_us
    elif isinstance(endpoint, StreamSocket) and name in _SENDING:
        timeout_us = endpoint.send_timeout_us
    if endpoint is None or not timeout_us:
        return attempt
    limited_endpoint = endpoint
    deadline_us: int | None = None

    def run(now_us: int) -> Done | None:
        nonlocal deadline_us
        if deadline_us is None:
            deadline_us = add_deadline(timeout_us, now_us)
        done = attempt(now_us)
        if done is not None or now_us < deadline_us:
            return done
        kept, limited_endpoint.is_nonblocking = limited_endpoint.is_nonblocking, True
        try:
            return attempt(now_us)
        finally:
            limited_endpoint.is_nonblocking = kept

    return run
