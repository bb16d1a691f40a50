"""What an application may ask of its connection by setsockopt(2), at the levels below MPTCP.

The object is immutable, so that all connections which ask for nothing share one. A connection replaces its
own and those of its subflows, later ones included; one subflow may be given another.
"""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED_RATE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """Defaults are those of Linux; see tcp(7) and socket(7) for the meaning of each."""

    no_delay: bool = False
    cork: bool = False
    urgent_inline: bool = False
    """Urgent data is read in line with the rest (SO_OOBINLINE)."""
    reuse_address: bool = False
    """Told only (SO_REUSEADDR): listeners need not ask for it, old connections are never in their way."""
    linger_seconds: int = -1
    """0: closing is an abort (SO_LINGER); a longer time is for who closes to wait."""
    fin_wait_2_us: int = 0
    """How long an orphan waits for the peer's FIN (TCP_LINGER2); 0: as ``tcp_fin_timeout`` says, -1: not."""
    keep_alive: bool = False
    keep_idle_us: int = 0
    """0, as for the next two: as the host's ``tcp_keepalive_time`` says."""
    keep_interval_us: int = 0
    keep_count: int = 0
    syn_count: int = 0
    """0: as the host's ``tcp_syn_retries`` says (TCP_SYNCNT)."""
    user_timeout_us: int = 0
    """0: as long as ``tcp_retries2`` lasts (RFC 9293 §3.8.3)."""
    receive_buffer_bytes: int = 0
    """0: tuned; else what SO_RCVBUF has fixed, half of which is window."""
    window_clamp: int = 0
    """No larger window is offered (TCP_WINDOW_CLAMP); 0: as large as the buffer allows."""
    type_of_service: int = 0
    """Of IPv4 packets (IP_TOS, RFC 2474), and in ``traffic_class`` of IPv6 packets (IPV6_TCLASS).

    Without the two bits that are congestion's (RFC 3168 §5).
    """
    traffic_class: int = 0
    send_buffer_bytes: int = 0
    """0: tuned; else what SO_SNDBUF has fixed."""
    maximum_segment_size: int = 0
    """What the SYN tells and segments hold at most (TCP_MAXSEG); 0: what the path takes."""
    deferred_timeouts: int = 0
    """Of a listener: for so many of its answers' timeouts a connection waits for data (TCP_DEFER_ACCEPT).
    Whoever connects holds back the third packet if there are any."""
    is_quick_at_start: bool = True
    """Whoever connects sends the third packet at once (TCP_QUICKACK before there is a connection)."""
    fast_open_queue: int = 0
    """Of a listener: how many connections may begin with data in their SYN (TCP_FASTOPEN); 0: none."""
    fast_open_connect: bool = False
    """The SYN waits for the first write, to take it along (TCP_FASTOPEN_CONNECT)."""
    fast_open_no_cookie: bool = False
    """Data goes with the SYN, or is taken from one, without any cookie (TCP_FASTOPEN_NO_COOKIE)."""
    fast_open_keys: tuple[bytes, ...] = ()
    """A listener's own, as ``tcp_fastopen_keys`` of the host (TCP_FASTOPEN_KEY)."""
    mark: int = 0
    """Of the application, for who looks at its subflows (SO_MARK); nothing on the wire shows it."""
    reports_unread: bool = False
    """Data that is read comes with how much is left (TCP_INQ)."""
    transparent: bool = False
    """Addresses that are not this host's are its own (IP_TRANSPARENT, IPV6_TRANSPARENT)."""
    maximum_pacing_rate: int = UNLIMITED_RATE
    """Bytes of data per second (SO_MAX_PACING_RATE)."""
    is_paced: bool = False
    """A rate was set, if only once (``pacing``)."""
    congestion_control: str = ""
    """A name of ``settings.CONGESTION_CONTROLS``; empty: the host's (TCP_CONGESTION)."""

    def class_of_packets(self, address: bytes) -> int:
        """What packets from the address bear."""
        return self.type_of_service if len(address) == 4 else self.traffic_class


DEFAULT_SOCKET_OPTIONS = SocketOptions()
