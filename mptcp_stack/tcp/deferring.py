"""TCP_DEFER_ACCEPT: a connection that is accepted has data to read, as long as the peer sends some in time.

The time is given in seconds and kept as a number of timeouts of our answer to the SYN, as in Linux: it ends
with one of them, at which the answer is sent once more for the peer to acknowledge. Who connects with the
option set holds back the third packet, for data to go with it; whatever the time is, for 200 ms at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mptcp_stack.tcp.acknowledging import LONGEST_DELAY_US
from mptcp_stack.tcp.states import Acknowledge
from mptcp_stack.wire.tcp_segment import FIN, TcpSegment

if TYPE_CHECKING:
    from mptcp_stack.tcp.request import Request
    from mptcp_stack.tcp.socket_options import SocketOptions
    from mptcp_stack.tcp.subflow import Subflow

_LONGEST_WAIT_S = 120
_MOST_TIMEOUTS = 255


def timeouts_of(seconds: int) -> int:
    """How many timeouts, the first after a second and each twice as long, it takes to last so long."""
    timeouts, wait_s, lasted_s = 0, 1, 0
    while lasted_s < seconds and timeouts < _MOST_TIMEOUTS:
        timeouts += 1
        lasted_s += wait_s
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return timeouts


def seconds_of(timeouts: int) -> int:
    """How long so many timeouts last."""
    wait_s, lasted_s = 1, 0
    for _ in range(timeouts):
        lasted_s += wait_s
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return lasted_s


def waits_for_data(request: Request, segment: TcpSegment) -> bool:
    """Whether the third packet is dropped for having none. What nobody kept (a cookie) cannot wait."""
    if not request.transmissions or len(segment.payload) or segment.flags & FIN:
        return False
    return request.timeouts < request.deferred_timeouts


def is_held_back(options: SocketOptions) -> bool:
    """Whether who connects with these lets the third packet wait for data."""
    return options.deferred_timeouts > 0 or not options.is_quick_at_start


def hold_back(subflow: Subflow, now_us: int) -> None:
    """The third packet, which is due now."""
    subflow.acknowledging.enter_quick_mode(subflow)
    subflow.acknowledge = Acknowledge.DELAYED
    subflow.delayed_ack_timer.set(now_us + LONGEST_DELAY_US)
