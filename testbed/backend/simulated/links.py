"""What a link of a topology is in a simulation."""

from __future__ import annotations

from mptcp_stack.device.in_memory import WireSettings
from testbed.topology.model import Impairment

CABLE_DELAY_US = 50
"""Of a link of which nothing is asked: time has to pass on it, or a transfer would take none."""
QUEUES_PER_SECOND = 20
"""A link with a rate queues a twentieth of a second's worth, as the token buckets of namespace labs do."""


def wire_settings(impairment: Impairment, mtu: int) -> WireSettings:
    """One direction of a link."""
    if impairment.rate_bit_s is None:
        return WireSettings(delay_us=CABLE_DELAY_US)
    queue_bytes = impairment.rate_bit_s // 8 // QUEUES_PER_SECOND
    return WireSettings(
        delay_us=CABLE_DELAY_US,
        rate_bit_s=impairment.rate_bit_s,
        queue_limit_packets=max(2, queue_bytes // mtu),
    )
