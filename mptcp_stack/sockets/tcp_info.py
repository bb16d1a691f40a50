"""``struct tcp_info`` of linux/tcp.h, which TCP_INFO and MPTCP_TCPINFO give: by field name, and as bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from mptcp_stack.tcp import pacing
from mptcp_stack.tcp.output import local_mss
from mptcp_stack.tcp.states import Recovery, State
from mptcp_stack.tcp.subflow import Subflow

SHOWN_THRESHOLD_LIMIT = 0x7FFFFFFF
"""What Linux shows as tcpi_snd_ssthresh while there was no loss."""

TCP_STATES: Mapping[State, int] = {
    State.ESTABLISHED: 1,
    State.SYN_SENT: 2,
    State.SYN_RECEIVED: 3,
    State.FIN_WAIT_1: 4,
    State.FIN_WAIT_2: 5,
    State.TIME_WAIT: 6,
    State.CLOSED: 7,
    State.CLOSE_WAIT: 8,
    State.LAST_ACK: 9,
    State.CLOSING: 11,
}
"""The numbers of net/tcp_states.h."""
CLOSED, LISTENING = 7, 10

_FIELDS = (
    ("B", "state ca_state retransmits probes backoff options wscales limits"),
    ("I", "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent"),
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
TCP_INFO_BYTES = _LAYOUT[-1][1] + _LAYOUT[-1][2].size


def pack_tcp_info(values: Mapping[str, int]) -> bytes:
    """The structure with the given ``tcpi_…`` fields, the others zero; what is too large is cut."""
    fields = dict(values)
    fields["tcpi_wscales"] = fields.get("tcpi_snd_wscale", 0) | fields.get("tcpi_rcv_wscale", 0) << 4
    data = bytearray(TCP_INFO_BYTES)
    for name, offset, form in _LAYOUT:
        value = fields.get(f"tcpi_{name}", 0)
        form.pack_into(data, offset, min(value, (1 << 8 * form.size) - 1))
    return bytes(data)


def parse_tcp_info(data: bytes) -> dict[str, int]:
    """``tcpi_…`` → value, for the fields that the structure is long enough for."""
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


def _fast_open_options(subflow: Subflow) -> int:
    """TCPI_OPT_SYN_DATA and TCPI_OPT_TFO_CHILD."""
    opening = subflow.fast_open
    if opening is None:
        return 0
    had_data = opening.is_data_acknowledged or (opening.is_passive and len(opening.data) > 0)
    return had_data << 5 | opening.is_passive << 7


def tcp_info(subflow: Subflow, unsent_bytes: int) -> dict[str, int]:
    """What this stack knows of one subflow; ``unsent_bytes`` were written and not sent yet."""
    queue, congestion = subflow.retransmission_queue, subflow.congestion
    segment_bytes = subflow.segment_bytes
    threshold = congestion.slow_start_threshold // segment_bytes
    options = subflow.timestamps_enabled | subflow.sack_enabled << 1 | subflow.window_scale_enabled << 2
    return {
        "tcpi_state": TCP_STATES[subflow.state],
        "tcpi_ca_state": _congestion_state(subflow),
        "tcpi_retransmits": subflow.consecutive_timeouts,
        "tcpi_probes": subflow.probing.unanswered if subflow.probing is not None else 0,
        "tcpi_backoff": subflow.consecutive_timeouts,
        "tcpi_options": options | _fast_open_options(subflow),
        "tcpi_snd_wscale": subflow.snd_wnd_scale,
        "tcpi_rcv_wscale": subflow.rcv_wnd_scale,
        "tcpi_rto": subflow.round_trip.rto_us,
        "tcpi_snd_mss": segment_bytes,
        "tcpi_unacked": -(-(subflow.snd_nxt - subflow.snd_una) // segment_bytes),
        "tcpi_sacked": -(-queue.sacked_bytes // segment_bytes),
        "tcpi_lost": queue.lost_count,
        "tcpi_retrans": -(-queue.again_bytes // segment_bytes),
        "tcpi_total_retrans": subflow.segments_sent_again,
        "tcpi_reordering": subflow.rack.reordering,
        "tcpi_reord_seen": subflow.rack.reordering_events,
        "tcpi_dsack_dups": subflow.duplicate_segments_told,
        "tcpi_min_rtt": subflow.round_trip.minimum_us or 0xFFFFFFFF,
        "tcpi_rtt": subflow.round_trip.srtt_us or 0,
        "tcpi_rttvar": subflow.round_trip.rttvar_us,
        "tcpi_snd_ssthresh": min(threshold, SHOWN_THRESHOLD_LIMIT),
        "tcpi_snd_cwnd": congestion.congestion_window // segment_bytes,
        "tcpi_advmss": local_mss(subflow),
        "tcpi_pmtu": subflow.environment.ip.path_mtu(subflow.local, subflow.remote),
        "tcpi_pacing_rate": pacing.rate(subflow),
        "tcpi_max_pacing_rate": subflow.socket_options.maximum_pacing_rate,
        "tcpi_bytes_acked": max(0, subflow.snd_una - subflow.snd_iss - 1),
        "tcpi_bytes_received": max(0, subflow.rcv_nxt - subflow.irs - 1),
        "tcpi_notsent_bytes": unsent_bytes,
        "tcpi_snd_wnd": subflow.snd_wnd,
    }


def _congestion_state(subflow: Subflow) -> int:
    """TCP_CA_Open, TCP_CA_Disorder, TCP_CA_Recovery or TCP_CA_Loss."""
    if subflow.recovery is Recovery.NONE:
        return int(subflow.is_disordered)
    return 3 if subflow.recovery is Recovery.FAST else 4
