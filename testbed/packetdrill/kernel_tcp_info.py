"""``struct tcp_info`` (linux/tcp.h) by field name."""

from __future__ import annotations

import struct

TCP_INFO_BYTES = 512
"""More than any kernel has; it says how many bytes it wrote."""

_FIELDS = (
    ("B", "state ca_state retransmits probes backoff options wscales limits"),
    (
        "I",
        "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent",
    ),
    ("I", "last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss"),
    ("I", "reordering rcv_rtt rcv_space total_retrans"),
    ("Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    ("I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    ("Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    ("I", "delivered delivered_ce"),
    ("Q", "bytes_sent bytes_retrans"),
    ("I", "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash"),
    ("H", "total_rto total_rto_recoveries"),
    ("I", "total_rto_time"),
)


def _layout() -> tuple[tuple[str, int, struct.Struct], ...]:
    found = []
    offset = 0
    for kind, names in _FIELDS:
        form = struct.Struct("=" + kind)
        for name in names.split():
            found.append((name, offset, form))
            offset += form.size
    return tuple(found)


_LAYOUT = _layout()


def parse_tcp_info(data: bytes) -> dict[str, int]:
    """``tcpi_…`` → value, for the fields that this kernel has."""
    values = {
        f"tcpi_{name}": form.unpack_from(data, offset)[0]
        for name, offset, form in _LAYOUT
        if offset + form.size <= len(data)
    }
    wscales, limits = values.pop("tcpi_wscales", 0), values.pop("tcpi_limits", 0)
    values["tcpi_snd_wscale"], values["tcpi_rcv_wscale"] = wscales & 15, wscales >> 4
    values["tcpi_delivery_rate_app_limited"] = limits & 1
    values["tcpi_fastopen_client_fail"] = limits >> 1 & 3
    return values
