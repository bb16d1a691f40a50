"""The state machine of an MPTCP connection at data level (RFC 8684 §3.3.3) as data.

DATA_FIN plays the part that FIN plays for TCP. There is no TIME_WAIT here: the subflows have theirs. A
connection that has fallen back goes through the same states, with the FIN of its only subflow as the event.
A pair that is missing is an error of this program.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class DataState(Enum):
    CONNECTING = auto()
    ESTABLISHED = auto()
    FIN_WAIT_1 = auto()
    FIN_WAIT_2 = auto()
    CLOSE_WAIT = auto()
    CLOSING = auto()
    LAST_ACK = auto()
    CLOSED = auto()


class DataEvent(Enum):
    ESTABLISHED = auto()
    FIN_SENT = auto()
    FIN_ACKNOWLEDGED = auto()
    FIN_RECEIVED = auto()
    ABORTED = auto()


TRANSITIONS: dict[tuple[DataState, DataEvent], DataState] = {
    (DataState.CONNECTING, DataEvent.ESTABLISHED): DataState.ESTABLISHED,
    (DataState.ESTABLISHED, DataEvent.FIN_SENT): DataState.FIN_WAIT_1,
    (DataState.ESTABLISHED, DataEvent.FIN_RECEIVED): DataState.CLOSE_WAIT,
    (DataState.FIN_WAIT_1, DataEvent.FIN_ACKNOWLEDGED): DataState.FIN_WAIT_2,
    (DataState.FIN_WAIT_1, DataEvent.FIN_RECEIVED): DataState.CLOSING,
    (DataState.FIN_WAIT_2, DataEvent.FIN_RECEIVED): DataState.CLOSED,
    (DataState.CLOSE_WAIT, DataEvent.FIN_SENT): DataState.LAST_ACK,
    (DataState.CLOSING, DataEvent.FIN_ACKNOWLEDGED): DataState.CLOSED,
    (DataState.LAST_ACK, DataEvent.FIN_ACKNOWLEDGED): DataState.CLOSED,
    **{(state, DataEvent.ABORTED): DataState.CLOSED for state in DataState},
}

CAN_WRITE = frozenset({DataState.CONNECTING, DataState.ESTABLISHED, DataState.CLOSE_WAIT})
COUNTED_AS_ESTABLISHED = frozenset({DataState.ESTABLISHED, DataState.CLOSE_WAIT})
"""What the gauge MPCurrEstab counts."""


class Mode(Enum):
    """What is spoken on the wire."""

    NEGOTIATING = auto()
    MPTCP = auto()
    PLAIN_TCP = auto()
    """From the start, or after a fallback (RFC 8684 §3.7)."""


class ResetReason:
    """Reasons of MP_TCPRST (RFC 8684 §3.6)."""

    UNSPECIFIED: Final = 0
    MPTCP_SPECIFIC: Final = 1
    LACK_OF_RESOURCES: Final = 2
    PROHIBITED: Final = 3
    TOO_MUCH_OUTSTANDING_DATA: Final = 4
    UNACCEPTABLE_PERFORMANCE: Final = 5
    MIDDLEBOX_INTERFERENCE: Final = 6


def follow(state: DataState, event: DataEvent) -> DataState:
    """The state after the event. Raises KeyError for a pair that the RFC does not know."""
    return TRANSITIONS[state, event]
