"""TCP Fast Open (RFC 7413): data in a SYN, under a cookie that shows where the client is.

Cookies are made as by Linux, so that hosts which share a key share cookies. What a SYN brings or carries
lies before the sequence that MPTCP's mappings count (RFC 8684 Appendix B), and before the stream's first
position here, so that plain TCP and MPTCP have one rule.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING

from mptcp_stack.tcp import output
from mptcp_stack.tcp.siphash import siphash

if TYPE_CHECKING:
    from mptcp_stack.counters import Counters
    from mptcp_stack.settings import StackSettings
    from mptcp_stack.tcp.environment import Environment
    from mptcp_stack.tcp.socket_options import SocketOptions
    from mptcp_stack.tcp.subflow import Subflow
    from mptcp_stack.wire.tcp_segment import TcpSegment

KEY_BYTES = 16
COOKIE_BYTES = 8
LONGEST_COOKIE, LONGEST_COOKIE_BESIDE_MPTCP = 16, 14
"""What a SYN has room for beside all other options."""
DEFAULT_MSS = {4: 536, 16: 1220}
"""By the length of an address (RFC 9293 §3.7.1)."""
_SPARED_BYTES = 40
"""Linux leaves so much of a SYN's payload free for options that middleboxes may add."""
_RESET_KEEPS_PLACE_US = 60_000_000
_MAXIMUM_CACHED_COOKIES = 1024
_LONGEST_DISABLING_SHIFT = 6
BLACKHOLE_TIMEOUTS = 2


class Mode(IntFlag):
    """The bits of net.ipv4.tcp_fastopen."""

    CLIENT = 0x1
    SERVER = 0x2
    CLIENT_WITHOUT_COOKIE = 0x4
    SERVER_WITHOUT_COOKIE = 0x200
    SERVER_WITHOUT_OPTION = 0x400
    """Every listener takes data in SYNs, whether it asks for that or not."""


class Opening:
    """What one subflow has to do with it; others have no such object."""

    __slots__ = ("answer", "asked", "data", "is_data_acknowledged", "is_passive", "rest", "was_reset")

    def __init__(self, *, is_passive: bool = False) -> None:
        self.is_passive = is_passive
        """The peer's SYN was believed: its data, if any, has been taken, and it may be answered at once."""
        self.asked: bytes | None = None
        """The option of our SYN: empty to ask for a cookie."""
        self.answer: bytes | None = None
        """The option of our first SYN/ACK."""
        self.data = b""
        """What goes, or came, with the SYN."""
        self.rest = b""
        """What of that the server has not taken."""
        self.is_data_acknowledged = False
        self.was_reset = False


class FastOpen:
    """One host's key when it was given none, and the cookies that it has from servers."""

    __slots__ = ("_cookies", "_counters", "_disabled_times", "_disabled_us", "_drawn", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes], counters: Counters) -> None:
        self._random_bytes = random_bytes
        self._counters = counters
        self._drawn: tuple[bytes, ...] = ()
        self._cookies: dict[tuple[bytes, bytes], tuple[bytes, int]] = {}
        self._disabled_us = 0
        self._disabled_times = 0

    # --- the server's side ---

    @property
    def drawn_keys(self) -> tuple[bytes, ...]:
        if not self._drawn:
            self._drawn = (self._random_bytes(KEY_BYTES),)
        return self._drawn

    def keys(self, settings: StackSettings, options: SocketOptions) -> tuple[bytes, ...]:
        """The listener's own, the host's, or one that was drawn."""
        return options.fast_open_keys or settings.tcp_fastopen_keys or self.drawn_keys

    def judge(
        self, settings: StackSettings, options: SocketOptions, local: bytes, remote: bytes, syn: TcpSegment
    ) -> Opening | None:
        """What a listener with room does with a SYN. Only with a passive opening is its data to be taken."""
        cookie = syn.options.fast_open_cookie
        if cookie is None and not len(syn.payload):
            return None
        if needs_no_cookie(settings, options, Mode.SERVER_WITHOUT_COOKIE):
            return self._accept(syn, None)
        if cookie is None:
            return None
        valid = [cookie_for(key, local, remote) for key in self.keys(settings, options)]
        if cookie == valid[0]:
            return self._accept(syn, None)
        if cookie in valid:
            self._counters.increment("TcpExtTCPFastOpenPassiveAltKey")
            return self._accept(syn, valid[0])
        if cookie:
            self._counters.increment("TcpExtTCPFastOpenPassiveFail")
        refusal = Opening()
        refusal.answer = valid[0]
        return refusal

    def _accept(self, syn: TcpSegment, answer: bytes | None) -> Opening:
        self._counters.increment("TcpExtTCPFastOpenPassive")
        opening = Opening(is_passive=True)
        opening.answer = answer
        opening.data = bytes(syn.payload)
        return opening

    # --- the client's side ---

    def remembered(self, local: bytes, remote: bytes) -> tuple[bytes, int] | None:
        """The cookie that the server gave us, and its MSS."""
        return self._cookies.get((local, remote))

    def remember(self, local: bytes, remote: bytes, cookie: bytes, maximum_segment_size: int) -> None:
        self._cookies.pop((local, remote), None)
        if len(self._cookies) >= _MAXIMUM_CACHED_COOKIES:
            del self._cookies[next(iter(self._cookies))]
        self._cookies[local, remote] = cookie, maximum_segment_size

    def disable_for_a_while(self, now_us: int) -> None:
        """A path seems to lose connections that begin with data (RFC 7413 §4.1.3.1)."""
        self._disabled_us = now_us
        self._disabled_times += 1
        self._counters.increment("TcpExtTCPFastOpenBlackhole")

    def is_disabled(self, timeout_us: int, now_us: int) -> bool:
        if not self._disabled_times or not timeout_us:
            return False
        shift = min(self._disabled_times - 1, _LONGEST_DISABLING_SHIFT)
        return now_us < self._disabled_us + (timeout_us << shift)


def cookie_for(key: bytes, local: bytes, remote: bytes) -> bytes:
    """What a client has to show to the server at ``local``."""
    return siphash(key, remote + local).to_bytes(COOKIE_BYTES, "little")


class FastOpenQueue:
    """A listener's connections that were believed and have not shown their third packet."""

    __slots__ = ("_resets_us", "pending")

    def __init__(self) -> None:
        self.pending = 0
        self._resets_us: list[int] = []

    def has_room(self, limit: int, counters: Counters, now_us: int) -> bool:
        """What was reset after it was accepted keeps its place for a minute (RFC 7413 §5.1)."""
        if self.pending < limit:
            return True
        if not self._resets_us or self._resets_us[0] > now_us:
            counters.increment("TcpExtTCPFastOpenListenOverflow")
            return False
        self._resets_us.pop(0)
        self.pending -= 1
        return True

    def on_end(self, *, keeps_place: bool, now_us: int) -> None:
        """The third packet came, or nothing more will come."""
        if keeps_place:
            self._resets_us.append(now_us + _RESET_KEEPS_PLACE_US)
        else:
            self.pending -= 1


def needs_no_cookie(settings: StackSettings, options: SocketOptions, mode: Mode) -> bool:
    return bool(settings.tcp_fastopen & mode) or options.fast_open_no_cookie


def may_begin(environment: Environment, options: SocketOptions, local: bytes, remote: bytes) -> bool:
    """Whether a SYN may take data along now."""
    settings, host = environment.settings, environment.fast_open
    now_us = environment.timers.clock_us
    if not settings.tcp_fastopen & Mode.CLIENT:
        return False
    if host.is_disabled(settings.tcp_fastopen_blackhole_timeout_us, now_us):
        return False
    has_cookie = host.remembered(local, remote) is not None
    return has_cookie or needs_no_cookie(settings, options, Mode.CLIENT_WITHOUT_COOKIE)


def prepare(subflow: Subflow, data: bytes, now_us: int) -> None:
    """Before a SYN leaves: as much of the data as may go with it, or a request for a cookie."""
    environment = subflow.environment
    settings, host = environment.settings, environment.fast_open
    opening = subflow.fast_open = Opening()
    mss = DEFAULT_MSS[len(subflow.local)]
    if host.is_disabled(settings.tcp_fastopen_blackhole_timeout_us, now_us):
        return
    remembered = host.remembered(subflow.local, subflow.remote)
    if remembered is not None:
        mss = remembered[1]
    if not needs_no_cookie(settings, subflow.socket_options, Mode.CLIENT_WITHOUT_COOKIE):
        longest = LONGEST_COOKIE_BESIDE_MPTCP if subflow.syn_options() else LONGEST_COOKIE
        if remembered is None or len(remembered[0]) > longest:
            opening.asked = b""
            return
        opening.asked = remembered[0]
    elif remembered is None:
        mss = output.local_mss(subflow)
    opening.data = data[: max(0, min(mss, output.local_mss(subflow)) - _SPARED_BYTES)]


def on_syn_acknowledgement(
    subflow: Subflow, opening: Opening, segment: TcpSegment, acknowledgement: int
) -> None:
    """What the server says of the data, and the cookie that it gives."""
    environment = subflow.environment
    options = segment.options
    if options.fast_open_cookie and opening.asked is not None:
        mss = options.maximum_segment_size or DEFAULT_MSS[len(subflow.local)]
        environment.fast_open.remember(subflow.local, subflow.remote, options.fast_open_cookie, mss)
    if not opening.data:
        return
    taken = acknowledgement - subflow.snd_iss - 1
    opening.rest = opening.data[taken:]
    # Mappings and the stream begin after what went with the SYN; the rest has not been sent, so to say.
    subflow.snd_nxt = acknowledgement
    subflow.data_iss = acknowledgement - 1
    if opening.rest:
        environment.counters.increment("TcpExtTCPFastOpenActiveFail")
        environment.counters.increment("TcpRetransSegs")
    else:
        opening.is_data_acknowledged = True
        environment.counters.increment("TcpExtTCPFastOpenActive")


def on_timeout(subflow: Subflow, opening: Opening, now_us: int) -> None:
    """The second timeout in a row of what began with data makes the path suspicious (RFC 7413 §4.1.3.1)."""
    environment = subflow.environment
    if environment.settings.tcp_fastopen_blackhole_timeout_us and not opening.is_passive and opening.data:
        environment.fast_open.disable_for_a_while(now_us)
