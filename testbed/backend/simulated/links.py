"""What a link of a topology is in a simulation."""

from __future__ import annotations

from dataclasses import fields

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.device.link_model import LinkSettings
from mptcp_stack.simulator import Link as SimulatedLink
from testbed.middlebox.chain import Middlebox
from testbed.topology.impairments import link_settings
from testbed.topology.model import Impairment, Link

CABLE_DELAY_US = 50
"""Of a link of which nothing is asked: time has to pass on it, or a transfer would take none."""


def wire_settings(impairment: Impairment, mtu: int) -> WireSettings:
    """One direction of a link, under the model that namespace labs use too."""
    settings = link_settings(impairment, mtu)
    values = {field.name: getattr(settings, field.name) for field in fields(LinkSettings)}
    return WireSettings(**(values | {"delay_us": max(settings.delay_us, CABLE_DELAY_US)}))


def put_middlebox(link: Link, simulated: SimulatedLink, seed: int) -> None:
    """The boxes that a link has, in the middle of the simulated one."""
    if link.middlebox:
        middlebox = Middlebox(link.middlebox, seed)
        simulated.forward.rewrite = lambda frame, index: middlebox.forward(frame)
        simulated.backward.rewrite = lambda frame, index: middlebox.backward(frame)
