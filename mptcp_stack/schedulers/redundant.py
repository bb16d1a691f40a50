"""Redundant: a run of data goes out on every subflow that has room for it just then; the first copy counts.

The "opportunistic redundant" scheduler of Frömmgen et al., "A Programming Model for Application-defined
Multipath TCP Scheduling" (2017): a subflow without room is passed over, so that short messages are copied and
a long transfer still uses the sum of its paths.
"""

from __future__ import annotations

from typing import ClassVar

from mptcp_stack.schedulers.lowest_rtt import LowestRtt


class Redundant(LowestRtt):
    """The original takes the quickest way; the others get copies."""

    __slots__ = ()

    sends_copies: ClassVar[bool] = True
