"""How segments leave: headers, options, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mptcp_stack.tcp import receive_window, urgent
from mptcp_stack.tcp.explicit_congestion import ECT_0, class_of_answer, syn_flags
from mptcp_stack.tcp.states import Acknowledge, State
from mptcp_stack.wire.mptcp_options import MptcpOption
from mptcp_stack.wire.tcp_options import TcpOptions, options_length
from mptcp_stack.wire.tcp_segment import ACK, FIN, PSH, RST, SYN, TcpSegment, emit_tcp_header

if TYPE_CHECKING:
    from mptcp_stack.tcp.environment import Environment, FourTuple
    from mptcp_stack.tcp.retransmission_queue import Chunk
    from mptcp_stack.tcp.subflow import Subflow

PROTOCOL_TCP = 6
CHECKSUM_OFFSET = 16
SEQUENCE_MASK = 0xFFFFFFFF
MAXIMUM_OPTIONS_BYTES = 40
MAXIMUM_PACKET_BYTES = 65535
_TCP_HEADER_BYTES = 20
_IP_HEADER_BYTES = {4: 20, 16: 40}


class Endpoint(Protocol):
    """Who answers a segment: a subflow, or what there is before one."""

    @property
    def environment(self) -> Environment: ...
    @property
    def four_tuple(self) -> FourTuple: ...


def local_mss(subflow: Subflow) -> int:
    """What the MTU of the path leaves for TCP payload (RFC 6691), or less if the application wants it so."""
    mss = mss_towards(subflow.environment, subflow.local, subflow.remote)
    wanted = subflow.socket_options.maximum_segment_size
    return min(mss, wanted) if wanted else mss


def mss_towards(environment: Environment, local: bytes, remote: bytes) -> int:
    """As ``local_mss``, without a subflow."""
    mtu = environment.ip.path_mtu(local, remote)
    return min(mtu, 65535) - _IP_HEADER_BYTES[len(local)] - _TCP_HEADER_BYTES


def first_window(subflow: Subflow, *, is_answer: bool) -> int:
    """What a SYN or SYN/ACK offers."""
    segment_bytes = _first_segment_bytes(subflow, is_answer)
    return receive_window.first_window(subflow.environment.settings, subflow.socket_options, segment_bytes)


def first_offer(subflow: Subflow) -> int:
    """What is offered once the window is scaled."""
    segment_bytes = _first_segment_bytes(subflow, subflow.is_passive)
    return receive_window.first_offer(subflow.environment.settings, subflow.socket_options, segment_bytes)


def _first_segment_bytes(subflow: Subflow, is_answer: bool) -> int:
    return local_mss(subflow) - (subflow.timestamp_bytes if is_answer else 0)


def super_segment_limit(subflow: Subflow) -> int:
    """The payload of the largest super-segment that may go to the outgoing device; 0: of none."""
    route = subflow.environment.ip.route_for(subflow.remote, subflow.local)
    if route is None:
        return 0
    interface = route.interface
    limit = interface.gso_max_size
    if not limit and interface.generic_segmentation:
        limit = MAXIMUM_PACKET_BYTES
    headers = _IP_HEADER_BYTES[len(subflow.local)] + _TCP_HEADER_BYTES + MAXIMUM_OPTIONS_BYTES
    return max(0, min(limit, MAXIMUM_PACKET_BYTES) - headers)


def timestamp_now(subflow: Subflow, now_us: int) -> int:
    """A millisecond clock with an offset of its own, so that it tells nothing of the host (RFC 7323 §5.4)."""
    return (now_us // 1000 + subflow.timestamp_offset) & SEQUENCE_MASK


def send_syn(subflow: Subflow, chunk: Chunk, now_us: int) -> None:
    """SYN or SYN/ACK with the options that negotiate."""
    is_answer = bool(chunk.flags & ACK)
    options = TcpOptions(
        maximum_segment_size=local_mss(subflow),
        window_scale=subflow.rcv_wnd_scale if subflow.window_scale_enabled else None,
        sack_permitted=subflow.sack_enabled,
        timestamp_value=timestamp_now(subflow, now_us) if subflow.timestamps_enabled else None,
        timestamp_echo=subflow.timestamp_recent if is_answer else 0,
        mptcp=subflow.syn_options(),
    )
    payload: tuple[bytes, ...] = ()
    opening = subflow.fast_open
    if opening is not None and chunk.transmissions == 1:
        options.fast_open_cookie = opening.answer if is_answer else opening.asked
        payload = (opening.data,) if opening.data and not is_answer else ()
    window = first_window(subflow, is_answer=is_answer)
    if is_answer:
        subflow.rcv_right_edge = subflow.rcv_told_edge = subflow.rcv_nxt + window
        subflow.last_acknowledged = subflow.rcv_nxt
    subflow.environment.counters.increment("TcpOutSegs")
    flags = chunk.flags | syn_flags(subflow, chunk)
    segment = _segment(subflow, chunk.sequence, flags, window, options)
    if not is_answer:
        segment.acknowledgement = 0
    if payload:
        subflow.environment.counters.increment("TcpExtTCPOrigDataSent")
    _send(subflow, segment, payload, 0, now_us)


def _segment(subflow: Subflow, sequence: int, flags: int, window: int, options: TcpOptions) -> TcpSegment:
    segment = TcpSegment(
        subflow.local_port,
        subflow.remote_port,
        sequence & SEQUENCE_MASK,
        subflow.rcv_nxt & SEQUENCE_MASK,
        flags,
        window,
        options,
    )
    if subflow.urgent is not None:
        urgent.mark_header(subflow, subflow.urgent, segment, sequence)
    return segment


def _send(
    subflow: Subflow,
    segment: TcpSegment,
    payload: tuple[bytes | bytearray | memoryview, ...],
    gso_size: int,
    now_us: int,
    traffic_class: int = 0,
) -> None:
    environment = subflow.environment
    environment.ip.send(
        subflow.local,
        subflow.remote,
        PROTOCOL_TCP,
        emit_tcp_header(segment),
        payload,
        checksum_offset=CHECKSUM_OFFSET,
        gso_size=gso_size,
        traffic_class=traffic_class | subflow.traffic_class,
        now_us=now_us,
    )


def _window_field(subflow: Subflow) -> int:
    """The window to advertise now; remembers its right edge, and the farthest of all."""
    field = min(subflow.receive_window() >> subflow.rcv_wnd_scale, 65535)
    edge = subflow.rcv_nxt + (field << subflow.rcv_wnd_scale)
    subflow.rcv_told_edge = edge
    if edge > subflow.rcv_right_edge:
        subflow.rcv_right_edge = edge
    return field


def _on_acknowledgement_sent(subflow: Subflow) -> None:
    subflow.acknowledge = Acknowledge.NOTHING
    subflow.duplicate_block = None
    subflow.delayed_ack_timer.cancel()
    subflow.acknowledging.on_acknowledgement_sent()
    subflow.last_acknowledged = subflow.rcv_nxt


def _options(subflow: Subflow, mptcp: tuple[MptcpOption, ...], now_us: int) -> TcpOptions:
    if not subflow.timestamps_enabled:
        return TcpOptions(mptcp=mptcp)
    return TcpOptions(
        timestamp_value=timestamp_now(subflow, now_us), timestamp_echo=subflow.timestamp_recent, mptcp=mptcp
    )


def send_chunk(subflow: Subflow, chunk: Chunk, now_us: int) -> None:
    """A segment or super-segment with data, or a FIN."""
    mptcp = subflow.data_options(chunk) if chunk.payload else subflow.acknowledgement_options()
    options = _options(subflow, mptcp, now_us)
    length = chunk.data_length
    flags, traffic_class = chunk.flags, 0
    congestion = subflow.explicit_congestion
    if congestion is not None:
        if length and chunk.transmissions == 1:
            flags |= congestion.on_new_data(subflow)
            traffic_class = ECT_0
        else:
            flags |= congestion.flags()
    segment = _segment(subflow, chunk.sequence, flags, _window_field(subflow), options)
    gso_size = subflow.segment_bytes if length > subflow.segment_bytes else 0
    if gso_size and subflow.mtu_probing is not None and subflow.mtu_probing.is_probe(chunk):
        gso_size = 0
    is_told = not subflow.has_blocks_to_send or _add_blocks(subflow, options, subflow.segment_bytes - length)
    counters = subflow.environment.counters
    segments = max(1, -(-length // subflow.segment_bytes))
    counters.increment("TcpOutSegs", segments)
    if length:
        counters.increment("TcpExtTCPOrigDataSent", segments)
        subflow.acknowledging.on_data_sent(now_us)
        if subflow.pacing is not None:
            subflow.pacing.on_sent(length, now_us)
    _send(subflow, segment, chunk.payload, gso_size, now_us, traffic_class)
    if is_told or subflow.acknowledge is not Acknowledge.NOW:
        _on_acknowledgement_sent(subflow)


def send_again(subflow: Subflow, chunk: Chunk, now_us: int, *, is_probe: bool = False) -> None:
    """Retransmits a chunk of any kind."""
    counters = subflow.environment.counters
    segments = max(1, -(-chunk.data_length // subflow.segment_bytes))
    counters.increment("TcpRetransSegs", segments)
    subflow.segments_sent_again += segments
    if subflow.mtu_probing is not None:
        subflow.mtu_probing.forget()
    episode = subflow.episode
    if episode is not None and not is_probe:
        episode.on_sent_again(segments, now_us // 1000)
        if episode.reduction is not None:
            episode.reduction.sent_bytes += chunk.length
    subflow.retransmission_queue.on_sent_again(chunk, now_us)
    if chunk.flags & SYN:
        counters.increment("TcpExtTCPSynRetrans")
        send_syn(subflow, chunk, now_us)
    else:
        send_chunk(subflow, chunk, now_us)


def send_acknowledgement(subflow: Subflow, now_us: int) -> None:
    """A segment without data: acknowledgement, SACK blocks, window, MPTCP signals."""
    _send_empty(subflow, subflow.snd_nxt, subflow.acknowledgement_options(), now_us)


def send_probe(subflow: Subflow, now_us: int) -> None:
    """Linux's probe: an old sequence number without data, which the peer must answer (RFC 9293 §3.8.6.1)."""
    _send_empty(subflow, subflow.snd_una - 1, subflow.acknowledgement_options(), now_us)


def _send_empty(subflow: Subflow, sequence: int, mptcp: tuple[MptcpOption, ...], now_us: int) -> None:
    options = _options(subflow, mptcp, now_us)
    if subflow.has_blocks_to_send:
        _add_blocks(subflow, options, MAXIMUM_OPTIONS_BYTES)
    congestion = subflow.explicit_congestion
    flags = ACK if congestion is None else ACK | congestion.flags()
    segment = _segment(subflow, sequence, flags, _window_field(subflow), options)
    subflow.environment.counters.increment("TcpOutSegs")
    _send(subflow, segment, (), 0, now_us)
    _on_acknowledgement_sent(subflow)


def _add_blocks(subflow: Subflow, options: TcpOptions, limit_bytes: int) -> bool:
    """RFC 2018 §3: as many blocks as the rest of the space holds; what came twice first (RFC 2883 §4)."""
    room = (min(limit_bytes, MAXIMUM_OPTIONS_BYTES - options_length(options)) - 4) // 8
    if room <= 0:
        return False
    blocks = _held_ranges(subflow)
    if subflow.duplicate_block is not None:
        blocks.insert(0, subflow.duplicate_block)
    options.sack_blocks = tuple((start & SEQUENCE_MASK, end & SEQUENCE_MASK) for start, end in blocks[:room])
    return True


def _held_ranges(subflow: Subflow) -> list[tuple[int, int]]:
    """What came out of order; a FIN beyond a hole counts as one more byte."""
    ranges = subflow.reassembly.ranges()
    fin_position = subflow.waiting_fin_position
    if fin_position is None:
        return ranges
    extended = [(start, end + 1 if end == fin_position else end) for start, end in ranges]
    return extended if extended != ranges else [*ranges, (fin_position, fin_position + 1)]


def send_reset(subflow: Subflow, mptcp: tuple[MptcpOption, ...], now_us: int) -> None:
    """A RST that the peer must believe: exactly at the next sequence number (RFC 5961 §3)."""
    counters = subflow.environment.counters
    counters.increment("TcpOutRsts")
    counters.increment("TcpOutSegs")
    segment = _segment(subflow, subflow.snd_nxt, RST | ACK, 0, TcpOptions(mptcp=mptcp))
    if subflow.state is State.SYN_RECEIVED:
        # The answer to the third packet, which carried an ACK: RFC 9293 §3.10.7.1.
        segment.flags, segment.acknowledgement = RST, 0
    _send(subflow, segment, (), 0, now_us)


def send_refusal(endpoint: Endpoint, refused: TcpSegment, now_us: int) -> None:
    """A RST as for a segment that belongs to no connection (RFC 9293 §3.10.7.1)."""
    _send_reset_of(endpoint, answer_without_socket(refused, len(refused.payload)), refused, now_us)


def send_reset_at(endpoint: Endpoint, refused: TcpSegment, now_us: int) -> None:
    """A RST for a segment whose acknowledgement is none of ours; what it was sent to goes on."""
    _send_reset_of(endpoint, (refused.acknowledgement, 0, RST), refused, now_us)


def _send_reset_of(
    endpoint: Endpoint, numbers: tuple[int, int, int], refused: TcpSegment, now_us: int
) -> None:
    endpoint.environment.counters.increment("TcpOutRsts")
    _, local_port, _, remote_port = endpoint.four_tuple
    segment = TcpSegment(local_port, remote_port, *numbers, 0, TcpOptions())
    send_header(endpoint.environment, endpoint.four_tuple, segment, now_us, class_of_answer(refused))


def send_header(
    environment: Environment,
    four_tuple: FourTuple,
    segment: TcpSegment,
    now_us: int,
    traffic_class: int = 0,
) -> None:
    """A segment without data, made by who has no subflow; counts it."""
    environment.counters.increment("TcpOutSegs")
    environment.ip.send(
        four_tuple[0],
        four_tuple[2],
        PROTOCOL_TCP,
        emit_tcp_header(segment),
        (),
        checksum_offset=CHECKSUM_OFFSET,
        traffic_class=traffic_class,
        now_us=now_us,
    )


def answer_without_socket(segment: TcpSegment, payload_length: int) -> tuple[int, int, int]:
    """Sequence, acknowledgement and flags of the RST for a segment nobody wants (RFC 9293 §3.10.7.1)."""
    if segment.flags & ACK:
        return segment.acknowledgement, 0, RST
    length = payload_length + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    return 0, (segment.sequence + length) & SEQUENCE_MASK, RST | ACK


__all__ = [
    "CHECKSUM_OFFSET",
    "PROTOCOL_TCP",
    "PSH",
    "SEQUENCE_MASK",
    "answer_without_socket",
    "class_of_answer",
    "first_offer",
    "first_window",
    "local_mss",
    "mss_towards",
    "send_acknowledgement",
    "send_again",
    "send_chunk",
    "send_header",
    "send_probe",
    "send_refusal",
    "send_reset",
    "send_syn",
    "super_segment_limit",
    "timestamp_now",
]
