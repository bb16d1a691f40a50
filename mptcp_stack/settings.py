"""Settings of one host's stack, under the names of the kernel's sysctls where it has them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from mptcp_stack.errors import ConfigurationError

SECOND_US = 1_000_000
CONGESTION_CONTROLS = ("cubic", "reno", "lia", "olia", "balia")
"""What ``net.ipv4.tcp_available_congestion_control`` lists."""
PATH_MANAGERS = ("kernel", "userspace")
"""What ``net.mptcp.available_path_managers`` lists; the bundled stack's own goes by the name "kernel"."""
SCHEDULERS = ("default", "lowestrtt", "roundrobin", "redundant", "blest", "ecf")
"""What ``net.mptcp.available_schedulers`` lists."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What a host's administrator may change. Defaults are those of Linux."""

    mptcp_enabled: bool = True
    checksum_enabled: bool = False
    allow_join_initial_addr_port: bool = True
    add_addr_timeout_us: int = 120 * SECOND_US
    close_timeout_us: int = 60 * SECOND_US
    syn_retrans_before_tcp_fallback: int = 2
    blackhole_timeout_us: int = 3600 * SECOND_US
    """How long active opens are plain TCP after a path that dropped MP_CAPABLE; 0: not at all."""
    stale_loss_cnt: int = 4
    opportunistic_retransmission: bool = False
    """Not in Linux, as the next: what blocks the window is sent again on a quicker subflow."""
    penalise_slow_subflows: bool = False
    """A subflow that blocks the window for a quicker one has its congestion window halved."""
    path_manager: str = "kernel"
    """Of connections that begin from now on; "kernel": by endpoints and limits."""
    scheduler: str = "default"
    """Of connections that begin from now on."""

    tcp_timestamps: bool = True
    tcp_window_scaling: bool = True
    tcp_sack: bool = True
    tcp_dsack: bool = True
    """Tell the peer what came twice (RFC 2883)."""
    tcp_ecn: int = 2
    """0: never, 1: ask for it, 2: agree to it."""
    tcp_ecn_fallback: bool = True
    tcp_syn_retries: int = 6
    tcp_synack_retries: int = 5
    tcp_fastopen: int = 1
    """TCP Fast Open, in the bits of ``tcp.fast_open.Mode``."""
    tcp_fastopen_keys: tuple[bytes, ...] = ()
    """One or two of 16 bytes, the first for new cookies; none: a random one."""
    tcp_fastopen_blackhole_timeout_us: int = 0
    """How long no data goes with SYNs after a path that seems to lose it; 0: this is not looked at."""
    tcp_syncookies: int = 1
    """0 never, 1 when as many connections are half open as a listener may have, 2 always."""
    tcp_max_syn_backlog: int = 4096
    """Without SYN cookies: how many half-open connections, less a quarter, a listener may have."""
    tcp_abort_on_overflow: bool = False
    """Whether a handshake that ends while nobody accepts is reset instead of tried again."""
    somaxconn: int = 4096
    """The largest backlog of a listener."""
    tcp_syn_linear_timeouts: int = 4
    """So many SYN retransmissions come before the back-off starts."""
    tcp_retries1: int = 3
    """When a path is in doubt (RFC 1122 §4.2.3.5); as ``tcp_retries2`` it stands for a time."""
    tcp_retries2: int = 15
    """The time that so many retransmissions take when they begin at ``minimum_rto_us``."""
    tcp_orphan_retries: int = 0
    """0: eight, or none when the back-off has reached its longest wait."""
    tcp_keepalive_time_us: int = 7200 * SECOND_US
    tcp_keepalive_intvl_us: int = 75 * SECOND_US
    tcp_keepalive_probes: int = 9
    tcp_mtu_probing: int = 0
    """Packetization-layer probing: 0 never, 1 when large segments get lost, 2 always (RFC 4821)."""
    tcp_base_mss: int = 1024
    tcp_mtu_probe_floor: int = 48
    tcp_min_snd_mss: int = 48
    tcp_probe_interval_us: int = 600 * SECOND_US
    tcp_probe_threshold: int = 8
    tcp_frto: bool = True
    """Look for timeouts that were needless (RFC 5682)."""
    tcp_early_retrans: bool = True
    """Tail loss probes; Linux's value 3."""
    tcp_congestion_control: str = "cubic"
    tcp_slow_start_after_idle: bool = True
    tcp_pacing_ss_ratio: int = 200
    """Percent of the congestion window's rate that paced data leaves with in slow start."""
    tcp_pacing_ca_ratio: int = 120
    tcp_min_tso_segs: int = 2
    """How many segments of paced data leave at once at least."""
    tcp_fin_timeout_us: int = 60 * SECOND_US
    tcp_rmem: tuple[int, int, int] = (4096, 131_072, 6 << 20)
    """The least, the first and the largest receive buffer of a connection; half of it is window."""
    tcp_moderate_rcvbuf: bool = True
    """Receive buffers grow with what a round trip brings."""
    rmem_max: int = 212_992
    """What SO_RCVBUF may ask for."""
    receive_buffer_bytes: int = 0
    """Unread bytes a connection may hold, whatever ``tcp_rmem`` says; 0: as that says."""
    tcp_wmem: tuple[int, int, int] = (4096, 16_384, 4 << 20)
    """The least, the first and the largest send buffer of a connection or of each of its subflows."""
    wmem_max: int = 212_992
    """What SO_SNDBUF may ask for."""
    send_buffer_bytes: int = 0
    """Unacknowledged bytes a connection may hold, whatever ``tcp_wmem`` says; 0: as that says."""
    minimum_rto_us: int = 200_000
    maximum_rto_us: int = 120 * SECOND_US
    delayed_ack_us: int = 40_000
    time_wait_us: int = 60 * SECOND_US
    tcp_max_tw_buckets: int = 65536
    tcp_tw_reuse: int = 2
    """For active opens: 0 never, 1 always, 2 on loopback addresses."""
    tcp_rfc1337: bool = False
    """Whether a reset may not end TIME_WAIT."""
    local_port_first: int = 32768
    local_port_last: int = 60999
    maximum_connections: int = 65536

    @property
    def receive_window_scale(self) -> int:
        """The shift with which the largest receive buffer fits the 16 bit window field (RFC 7323 §2)."""
        if self.receive_buffer_bytes:
            return min(14, max(0, (self.receive_buffer_bytes - 1).bit_length() - 16))
        return min(14, max(0, max(self.tcp_rmem[2], self.rmem_max).bit_length() - 16))

    def first_offer(self, segment_bytes: int) -> int:
        """What is offered of the first receive buffer: whole segments."""
        window = self.receive_buffer_bytes
        if not window:
            window = self.tcp_rmem[1] >> 1
            if window > segment_bytes > 0:
                window -= window % segment_bytes
        return window

    @property
    def first_receive_limit(self) -> int:
        """How much a new connection holds unread."""
        return self.receive_buffer_bytes or self.tcp_rmem[1] >> 1


_SYSCTL_FLAGS = {
    "net.mptcp.enabled": "mptcp_enabled",
    "net.mptcp.checksum_enabled": "checksum_enabled",
    "net.mptcp.allow_join_initial_addr_port": "allow_join_initial_addr_port",
    "net.mptcp.opportunistic_retransmission": "opportunistic_retransmission",
    "net.mptcp.penalise_slow_subflows": "penalise_slow_subflows",
    "net.ipv4.tcp_timestamps": "tcp_timestamps",
    "net.ipv4.tcp_window_scaling": "tcp_window_scaling",
    "net.ipv4.tcp_sack": "tcp_sack",
    "net.ipv4.tcp_dsack": "tcp_dsack",
    "net.ipv4.tcp_ecn_fallback": "tcp_ecn_fallback",
    "net.ipv4.tcp_frto": "tcp_frto",
    "net.ipv4.tcp_early_retrans": "tcp_early_retrans",
    "net.ipv4.tcp_slow_start_after_idle": "tcp_slow_start_after_idle",
    "net.ipv4.tcp_rfc1337": "tcp_rfc1337",
    "net.ipv4.tcp_moderate_rcvbuf": "tcp_moderate_rcvbuf",
    "net.ipv4.tcp_abort_on_overflow": "tcp_abort_on_overflow",
}
_SYSCTL_SECONDS = {
    "net.mptcp.add_addr_timeout": "add_addr_timeout_us",
    "net.mptcp.close_timeout": "close_timeout_us",
    "net.mptcp.blackhole_timeout": "blackhole_timeout_us",
    "net.ipv4.tcp_fin_timeout": "tcp_fin_timeout_us",
    "net.ipv4.tcp_keepalive_time": "tcp_keepalive_time_us",
    "net.ipv4.tcp_keepalive_intvl": "tcp_keepalive_intvl_us",
    "net.ipv4.tcp_probe_interval": "tcp_probe_interval_us",
    "net.ipv4.tcp_fastopen_blackhole_timeout_sec": "tcp_fastopen_blackhole_timeout_us",
}
_SYSCTL_NUMBERS = {
    "net.mptcp.stale_loss_cnt": "stale_loss_cnt",
    "net.mptcp.syn_retrans_before_tcp_fallback": "syn_retrans_before_tcp_fallback",
    "net.ipv4.tcp_syn_retries": "tcp_syn_retries",
    "net.ipv4.tcp_synack_retries": "tcp_synack_retries",
    "net.ipv4.tcp_syn_linear_timeouts": "tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syncookies": "tcp_syncookies",
    "net.ipv4.tcp_retries1": "tcp_retries1",
    "net.ipv4.tcp_fastopen": "tcp_fastopen",
    "net.ipv4.tcp_max_syn_backlog": "tcp_max_syn_backlog",
    "net.core.somaxconn": "somaxconn",
    "net.ipv4.tcp_retries2": "tcp_retries2",
    "net.ipv4.tcp_orphan_retries": "tcp_orphan_retries",
    "net.ipv4.tcp_max_tw_buckets": "tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_reuse": "tcp_tw_reuse",
    "net.ipv4.tcp_ecn": "tcp_ecn",
    "net.core.rmem_max": "rmem_max",
    "net.core.wmem_max": "wmem_max",
    "net.ipv4.tcp_keepalive_probes": "tcp_keepalive_probes",
    "net.ipv4.tcp_mtu_probing": "tcp_mtu_probing",
    "net.ipv4.tcp_base_mss": "tcp_base_mss",
    "net.ipv4.tcp_mtu_probe_floor": "tcp_mtu_probe_floor",
    "net.ipv4.tcp_min_snd_mss": "tcp_min_snd_mss",
    "net.ipv4.tcp_probe_threshold": "tcp_probe_threshold",
    "net.ipv4.tcp_pacing_ss_ratio": "tcp_pacing_ss_ratio",
    "net.ipv4.tcp_pacing_ca_ratio": "tcp_pacing_ca_ratio",
    "net.ipv4.tcp_min_tso_segs": "tcp_min_tso_segs",
}
_SYSCTL_LARGEST = {
    "net.ipv4.tcp_ecn": 2,
    "net.ipv4.tcp_retries1": 255,
    "net.ipv4.tcp_syn_retries": 127,
    "net.ipv4.tcp_pacing_ss_ratio": 1000,
    "net.ipv4.tcp_pacing_ca_ratio": 1000,
}
_SYSCTL_CHOICES = {
    "net.ipv4.tcp_congestion_control": ("tcp_congestion_control", CONGESTION_CONTROLS),
    "net.mptcp.path_manager": ("path_manager", PATH_MANAGERS),
    "net.mptcp.scheduler": ("scheduler", SCHEDULERS),
}
_PATH_MANAGER_TYPES = {str(number): name for number, name in enumerate(PATH_MANAGERS)}
_SYSCTL_TRIPLES = {"net.ipv4.tcp_rmem": "tcp_rmem", "net.ipv4.tcp_wmem": "tcp_wmem"}
_FAST_OPEN_KEY = "net.ipv4.tcp_fastopen_key"
SYSCTL_NAMES: tuple[str, ...] = (
    *_SYSCTL_TRIPLES,
    *_SYSCTL_FLAGS,
    *_SYSCTL_SECONDS,
    *_SYSCTL_NUMBERS,
    *_SYSCTL_CHOICES,
    _FAST_OPEN_KEY,
)


def apply_sysctl(settings: StackSettings, name: str, value: str) -> StackSettings:
    """The settings with one sysctl changed, by the kernel's name and in its unit.

    Raises ConfigurationError for a name the stack has no counterpart of, or a value that it cannot take.
    """
    if name == "net.mptcp.pm_type" and value in _PATH_MANAGER_TYPES:
        # The older name of the same setting.
        name, value = "net.mptcp.path_manager", _PATH_MANAGER_TYPES[value]
    if name == _FAST_OPEN_KEY:
        return replace(settings, tcp_fastopen_keys=_fast_open_keys(value))
    if name in _SYSCTL_CHOICES:
        return _with_choice(settings, name, value)
    if name not in SYSCTL_NAMES:
        raise _unknown_sysctl(name)
    if name in _SYSCTL_TRIPLES:
        triple: dict[str, Any] = {_SYSCTL_TRIPLES[name]: _three_numbers(name, value)}
        return replace(settings, **triple)
    number = _number(name, value)
    changes: dict[str, Any]
    if name in _SYSCTL_FLAGS:
        changes = {_SYSCTL_FLAGS[name]: number != 0}
    elif name in _SYSCTL_SECONDS:
        changes = {_SYSCTL_SECONDS[name]: number * SECOND_US}
    else:
        if number > _SYSCTL_LARGEST.get(name, number):
            raise ConfigurationError(f"{name}: expected at most {_SYSCTL_LARGEST[name]}, got {number}")
        changes = {_SYSCTL_NUMBERS[name]: number}
    return replace(settings, **changes)


def _with_choice(settings: StackSettings, name: str, value: str) -> StackSettings:
    field, choices = _SYSCTL_CHOICES[name]
    if value not in choices:
        raise ConfigurationError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    choice: dict[str, Any] = {field: value}
    return replace(settings, **choice)


def _unknown_sysctl(name: str) -> ConfigurationError:
    known = ", ".join(SYSCTL_NAMES)
    return ConfigurationError(f"{name}: the bundled stack has no such setting; it has {known}")


def read_sysctl(settings: StackSettings, name: str) -> str:
    """A setting by the kernel's name and in its unit. Raises ConfigurationError for one the stack lacks."""
    if name in _SYSCTL_CHOICES:
        return str(getattr(settings, _SYSCTL_CHOICES[name][0]))
    if name in _SYSCTL_SECONDS:
        return str(getattr(settings, _SYSCTL_SECONDS[name]) // SECOND_US)
    if name in _SYSCTL_TRIPLES:
        return "\t".join(str(number) for number in getattr(settings, _SYSCTL_TRIPLES[name]))
    if name == _FAST_OPEN_KEY:
        return ",".join(
            "-".join(f"{part:08x}" for part in struct.unpack("<4I", key))
            for key in settings.tcp_fastopen_keys
        )
    field = _SYSCTL_FLAGS.get(name) or _SYSCTL_NUMBERS.get(name)
    if field is None:
        raise _unknown_sysctl(name)
    return str(int(getattr(settings, field)))


def _three_numbers(name: str, value: str) -> tuple[int, int, int]:
    try:
        least, first, largest = (int(part) for part in value.split())
    except ValueError:
        raise ConfigurationError(f"{name}: expected three numbers, got {value!r}") from None
    if not 1 <= least <= first <= largest < 1 << 31:
        raise ConfigurationError(f"{name}: expected three numbers in order, from 1 on, got {value!r}")
    return least, first, largest


def _number(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        raise ConfigurationError(f"{name}: expected a number, got {value!r}") from None
    if number < 0:
        raise ConfigurationError(f"{name}: expected a number of at least 0, got {number}")
    return number


def _fast_open_keys(text: str) -> tuple[bytes, ...]:
    """Four numbers a key, two keys at most."""
    keys = [key.strip().split("-") for key in text.split(",")]
    try:
        packed = tuple(struct.pack("<4I", *(int(part, 16) for part in key)) for key in keys)
    except (ValueError, struct.error):
        packed = ()
    if not 1 <= len(packed) <= 2:
        form = "12345678-9abcdef0-12345678-9abcdef0, once or twice with a comma between"
        raise ConfigurationError(f"{_FAST_OPEN_KEY}: expected {form}, got {text!r}")
    return packed
