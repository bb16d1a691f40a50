"""Segments that fit the path: path MTU discovery by ICMP (RFC 1191, RFC 8201) and its effect on subflows."""

from __future__ import annotations

from mptcp_stack.tcp import recovery_phases
from mptcp_stack.tcp.environment import Environment
from mptcp_stack.tcp.states import State
from mptcp_stack.tcp.subflow import Subflow


def on_packet_too_big(subflow: Subflow, mtu: int, now_us: int) -> None:
    """An error that quotes a segment in flight says that no more than ``mtu`` bytes fit."""
    subflow.environment.ip.learn_path_mtu(subflow.local, subflow.remote, mtu, now_us)


def on_path_mtu_change(environment: Environment, destination: bytes | None) -> None:
    """All subflows to a destination, or all that there are, take the size that is known now."""
    for subflow in list(environment.subflows.values()):
        if destination is None or subflow.remote == destination:
            _follow_path_mtu(subflow)


def _follow_path_mtu(subflow: Subflow) -> None:
    if subflow.state in (State.CLOSED, State.SYN_SENT, State.TIME_WAIT):
        return
    before = subflow.segment_bytes
    subflow.resize_segments()
    if subflow.segment_bytes < before:
        send_cut_smaller(subflow)


def send_cut_smaller(subflow: Subflow) -> None:
    """RFC 8201 §5.4: what was too big did not arrive and goes out again; that is no sign of congestion."""
    if not subflow.retransmission_queue.mark_long_lost(subflow.segment_bytes):
        return
    recovery_phases.send_again_without_reduction(subflow)
