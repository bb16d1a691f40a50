"""What the names in a script stand for: constants of C, system calls, script options, ICMP types."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import termios
from collections.abc import Mapping
from types import ModuleType

_EXPLICIT = {
    # Linux numbers that Python's modules lack, some only in the versions that this project supports.
    "IPPROTO_MPTCP": 262,
    "SOL_IP": 0,
    "SOL_IPV6": 41,
    "SOL_TCP": 6,
    "SOL_MPTCP": 284,
    "MPTCP_INFO": 1,
    "MPTCP_TCPINFO": 2,
    "MPTCP_SUBFLOW_ADDRS": 3,
    "MPTCP_FULL_INFO": 4,
    "TCP_MD5SIG": 14,
    "TCP_THIN_LINEAR_TIMEOUTS": 16,
    "TCP_THIN_DUPACK": 17,
    "TCP_USER_TIMEOUT": 18,
    "TCP_REPAIR": 19,
    "TCP_REPAIR_QUEUE": 20,
    "TCP_QUEUE_SEQ": 21,
    "TCP_REPAIR_OPTIONS": 22,
    "TCP_FASTOPEN": 23,
    "TCP_TIMESTAMP": 24,
    "TCP_NOTSENT_LOWAT": 25,
    "TCP_CC_INFO": 26,
    "TCP_SAVE_SYN": 27,
    "TCP_SAVED_SYN": 28,
    "TCP_REPAIR_WINDOW": 29,
    "TCP_FASTOPEN_CONNECT": 30,
    "TCP_ULP": 31,
    "TCP_MD5SIG_EXT": 32,
    "TCP_FASTOPEN_KEY": 33,
    "TCP_FASTOPEN_NO_COOKIE": 34,
    "TCP_ZEROCOPY_RECEIVE": 35,
    "TCP_INQ": 36,
    "TCP_CM_INQ": 36,
    "TCP_TX_DELAY": 37,
    "TCP_IS_MPTCP": 43,
    "TCP_RTO_MAX_MS": 44,
    "SO_PEEK_OFF": 42,
    "SO_BUSY_POLL": 46,
    "SO_MAX_PACING_RATE": 47,
    "SO_INCOMING_CPU": 49,
    "SO_ZEROCOPY": 60,
    "SO_TIMESTAMP": 29,
    "SO_TIMESTAMPNS": 35,
    "SO_TIMESTAMPING": 37,
    "SO_RCVBUFFORCE": 33,
    "SO_SNDBUFFORCE": 32,
    "SO_EE_ORIGIN_NONE": 0,
    "SO_EE_ORIGIN_LOCAL": 1,
    "SO_EE_ORIGIN_ICMP": 2,
    "SO_EE_ORIGIN_ICMP6": 3,
    "SO_EE_ORIGIN_ZEROCOPY": 5,
    "IP_TOS": 1,
    "IP_TTL": 2,
    "IP_RECVERR": 11,
    "IP_MTU_DISCOVER": 10,
    "IP_MTU": 14,
    "IP_FREEBIND": 15,
    "IP_TRANSPARENT": 19,
    "IP_BIND_ADDRESS_NO_PORT": 24,
    "IP_LOCAL_PORT_RANGE": 51,
    "IP_PMTUDISC_DONT": 0,
    "IP_PMTUDISC_WANT": 1,
    "IP_PMTUDISC_DO": 2,
    "IP_PMTUDISC_PROBE": 3,
    "IPV6_MTU": 24,
    "IPV6_MTU_DISCOVER": 23,
    "IPV6_RECVERR": 25,
    "IPV6_FREEBIND": 78,
    "IPV6_TRANSPARENT": 75,
    "MSG_FASTOPEN": 0x20000000,
    "MSG_ZEROCOPY": 0x4000000,
    "MSG_MORE": 0x8000,
    "MSG_EOR": 0x80,
    "MSG_CMSG_CLOEXEC": 0x40000000,
    "SPLICE_F_MOVE": 1,
    "SPLICE_F_NONBLOCK": 2,
    "SPLICE_F_MORE": 4,
    "SIOCINQ": termios.FIONREAD,
    "FIONREAD": termios.FIONREAD,
    "FIONBIO": termios.FIONBIO,
    "SIOCOUTQ": termios.TIOCOUTQ,
    "SIOCOUTQNSD": 0x894B,
    "SIOCATMARK": 0x8905,
    "TCP_ESTABLISHED": 1,
    "TCP_SYN_SENT": 2,
    "TCP_SYN_RECV": 3,
    "TCP_FIN_WAIT1": 4,
    "TCP_FIN_WAIT2": 5,
    "TCP_TIME_WAIT": 6,
    "TCP_CLOSE": 7,
    "TCP_CLOSE_WAIT": 8,
    "TCP_LAST_ACK": 9,
    "TCP_LISTEN": 10,
    "TCP_CLOSING": 11,
    "TCP_CA_Open": 0,
    "TCP_CA_Disorder": 1,
    "TCP_CA_CWR": 2,
    "TCP_CA_Recovery": 3,
    "TCP_CA_Loss": 4,
    "NULL": 0,
    "true": 1,
    "false": 0,
}

ERRNO_NUMBERS: Mapping[str, int] = {
    **{name: number for number, name in errno.errorcode.items()},
    # Synonyms: Python keeps one name a number.
    "EWOULDBLOCK": errno.EWOULDBLOCK,
    "EOPNOTSUPP": errno.EOPNOTSUPP,
    "ENOTSUP": errno.ENOTSUP,
    "EDEADLOCK": errno.EDEADLOCK,
}
"""Name → number. Of synonyms both names are there."""

_MODULES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (
        socket,
        (
            "AF_",
            "SOCK_",
            "IPPROTO_",
            "SOL_",
            "SO_",
            "TCP_",
            "IP_",
            "IPV6_",
            "MSG_",
            "SHUT_",
            "INADDR_",
            "SCM_",
        ),
    ),
    (select, ("POLL", "EPOLL")),
    (fcntl, ("F_", "FD_")),
    (os, ("O_", "SEEK_", "SPLICE_")),
)


def _constants() -> dict[str, int]:
    found: dict[str, int] = {}
    for module, prefixes in _MODULES:
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith(prefixes) and isinstance(value, int):
                found[name] = int(value)
    found["EPOLL_CTL_ADD"], found["EPOLL_CTL_DEL"], found["EPOLL_CTL_MOD"] = 1, 2, 3
    return {**found, **ERRNO_NUMBERS, **_EXPLICIT}


CONSTANTS: Mapping[str, int] = _constants()
"""Name of C → number on Linux, errno names included."""

SYSTEM_CALLS: Mapping[str, tuple[int, int]] = {
    "socket": (3, 3),
    "bind": (3, 3),
    "listen": (2, 2),
    "accept": (3, 3),
    "accept4": (4, 4),
    "connect": (3, 3),
    "read": (3, 3),
    "readv": (3, 3),
    "recv": (4, 4),
    "recvfrom": (6, 6),
    "recvmsg": (3, 3),
    "write": (3, 3),
    "writev": (3, 3),
    "send": (4, 4),
    "sendto": (6, 6),
    "sendmsg": (3, 3),
    "shutdown": (2, 2),
    "close": (1, 1),
    "fcntl": (2, 3),
    "ioctl": (2, 3),
    "getsockopt": (5, 5),
    "setsockopt": (5, 5),
    "getsockname": (3, 3),
    "getpeername": (3, 3),
    "poll": (3, 3),
    "epoll_create": (1, 1),
    "epoll_create1": (1, 1),
    "epoll_ctl": (4, 4),
    "epoll_wait": (4, 4),
    "epoll_pwait": (5, 5),
    "pipe": (1, 1),
    "open": (2, 3),
    "sendfile": (4, 4),
    "splice": (6, 6),
}
"""System call → how many arguments it takes, at least and at most."""

EXPRESSION_FUNCTIONS: Mapping[str, int] = {
    "htons": 1,
    "htonl": 1,
    "ntohs": 1,
    "ntohl": 1,
    "inet_addr": 1,
    "inet_pton": 2,
}
"""Functions within arguments → how many arguments they take."""

SCRIPT_OPTIONS_WITHOUT_EFFECT = (
    "tolerance_percent",
    "mss",
    "speed",
    "local_ip",
    "remote_ip",
    "gateway_ip",
    "netmask_ip",
    "tcp_ts_tick_usecs",
    "send_omit_free",
    "non_fatal",
)
"""Accepted for the sake of other tools' scripts."""

SCRIPT_OPTIONS: Mapping[str, str] = {
    "ip_version": "ipv4|ipv6|ipv4-mapped-ipv6",
    "tolerance_usecs": "integer",
    "tolerance_percent": "number",
    "mtu": "integer",
    "mss": "integer",
    "speed": "integer",
    "bind_port": "integer",
    "connect_port": "integer",
    "local_ip": "address",
    "remote_ip": "address",
    "gateway_ip": "address",
    "netmask_ip": "text",
    "tcp_ts_tick_usecs": "integer",
    "send_omit_free": "flag",
    "non_fatal": "text",
    "define": "text",
    "stacks": "text",
    "kernel_differs": "text",
    "needs": "needs",
    "strict_segments": "flag",
    "initial_sequence": "integer",
    "seed": "integer",
}
"""Option of a script → the form of its value.

This project's own are which stacks a script is for, why the kernel's fails, what the machine must have
(`needs`), the script side's initial sequence number and the seed of generated keys.
"""

SCRIPT_OPTION_BOUNDS: Mapping[str, tuple[int, int]] = {
    "tolerance_usecs": (0, 60_000_000),
    # IPv6 gets 20 bytes more.
    "mtu": (68, 65_515),
    "bind_port": (1, 65_535),
    "connect_port": (1, 65_535),
    "initial_sequence": (0, (1 << 32) - 1),
}
"""Option of a script that is a number → the least and the most that it may be."""

KNOWN_NEEDS = "mptcp, ipv6, linux-VERSION, sysctl:NAME, program:NAME"
"""What ``--needs`` may ask for."""

OPTION_NAMES = (
    "mss",
    "wscale",
    "sackOK",
    "sack",
    "TS",
    "nop",
    "eol",
    "FO",
    "FOEXP",
    "md5",
    "raw",
    "mpcapable",
    "mp_join_syn",
    "mp_join_syn_ack",
    "mp_join_ack",
    "dss",
    "add_address",
    "remove_address",
    "mp_prio",
    "mp_fail",
    "mp_fastclose",
    "mp_reset",
)

TCP_FLAGS: Mapping[str, int] = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128, "C": 128}
"""Flag letter → its bit. CWR has two letters: tcpdump's W, and C."""

MP_CAPABLE_FLAGS: Mapping[str, int] = {f"flag_{letter}": 0x80 >> i for i, letter in enumerate("abcdefgh")}
"""RFC 8684 §3.1: A to H from the left."""

MP_RESET_FLAGS: Mapping[str, int] = {"flag_u": 8, "flag_v": 4, "flag_w": 2, "flag_t": 1}
"""RFC 8684 §3.6."""

ICMPV4_TYPES: Mapping[str, int] = {
    "echo_reply": 0,
    "unreachable": 3,
    "source_quench": 4,
    "redirect": 5,
    "echo_request": 8,
    "time_exceeded": 11,
    "parameter_problem": 12,
}
ICMPV6_TYPES: Mapping[str, int] = {
    "unreachable": 1,
    "packet_too_big": 2,
    "time_exceeded": 3,
    "parameter_problem": 4,
    "echo_request": 128,
    "echo_reply": 129,
}
_ICMPV4_CODES: Mapping[str, Mapping[str, int]] = {
    "unreachable": {
        "net_unreachable": 0,
        "host_unreachable": 1,
        "protocol_unreachable": 2,
        "port_unreachable": 3,
        "frag_needed": 4,
        "source_route_failed": 5,
        "net_unknown": 6,
        "host_unknown": 7,
        "source_host_isolated": 8,
        "net_prohibited": 9,
        "host_prohibited": 10,
        "net_unreachable_for_tos": 11,
        "host_unreachable_for_tos": 12,
        "packet_filtered": 13,
        "precedence_violation": 14,
        "precedence_cutoff": 15,
    },
    "time_exceeded": {"exceeded_ttl": 0, "exceeded_fragment": 1},
}
_ICMPV6_CODES: Mapping[str, Mapping[str, int]] = {
    "unreachable": {
        "no_route": 0,
        "adm_prohibited": 1,
        "not_neighbour": 2,
        "addr_unreachable": 3,
        "port_unreachable": 4,
        "failed_policy": 5,
        "reject_route": 6,
    },
    "time_exceeded": {"exceeded_hoplimit": 0, "exceeded_fragment": 1},
    "parameter_problem": {"header_field": 0, "next_header": 1, "option": 2},
}
_V6_FOR_V4: Mapping[tuple[str, str | None], tuple[str, str | None]] = {
    ("unreachable", "frag_needed"): ("packet_too_big", None),
    ("unreachable", "net_unreachable"): ("unreachable", "no_route"),
    ("unreachable", "host_unreachable"): ("unreachable", "addr_unreachable"),
    ("unreachable", "packet_filtered"): ("unreachable", "adm_prohibited"),
    ("unreachable", "net_prohibited"): ("unreachable", "adm_prohibited"),
    ("unreachable", "host_prohibited"): ("unreachable", "adm_prohibited"),
    ("unreachable", "protocol_unreachable"): ("parameter_problem", "next_header"),
    ("time_exceeded", "exceeded_ttl"): ("time_exceeded", "exceeded_hoplimit"),
}
"""What a router sends for IPv6 where for IPv4 it sends that (RFC 7915 §5.2, the other way round)."""


def icmp_names(is_icmpv6: bool, type_name: str) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """The types of ICMP or ICMPv6, and the codes of ``type_name``, each by their names."""
    codes = _ICMPV6_CODES if is_icmpv6 else _ICMPV4_CODES
    return (ICMPV6_TYPES if is_icmpv6 else ICMPV4_TYPES), codes.get(type_name, {})


def icmp_type_and_code(
    is_icmpv6: bool, type_name: str, code_name: str | None, *, over_ipv6: bool
) -> tuple[int, int] | None:
    """The numbers for an IP version; None where it has no such message. Names may be decimal numbers.

    An IPv4 message in an IPv6 packet becomes what would be sent there.
    """
    if is_icmpv6 and not over_ipv6:
        return None
    if over_ipv6 and not is_icmpv6:
        type_name, code_name = _V6_FOR_V4.get((type_name, code_name), (type_name, code_name))
    types, codes = icmp_names(over_ipv6, type_name)
    number = int(type_name) if type_name.isdecimal() else types.get(type_name)
    code = 0 if code_name is None else int(code_name) if code_name.isdecimal() else codes.get(code_name)
    return None if number is None or code is None else (number, code)
