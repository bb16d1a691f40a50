"""The TCP state machine of RFC 9293 §3.3.2 as data.

Who was opened by a peer's SYN is a request (``request``) until the third packet, and no subflow yet; only one
whose SYN crossed the peer's, or believed it by a cookie, rests in SYN_RECEIVED. Closing there waits for the
handshake to end, as RFC 9293 §3.10.4 allows. A FIN may go before that to who was believed by a cookie
(RFC 7413); the state follows when the third packet has come.

Rule: a subflow changes its state through :func:`follow` only, so that every change stands in the table
below. A pair that is missing is an error of this program, never silence. Whether a segment may be an event at
all is decided before, by ``acceptance``.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    CLOSED = auto()
    SYN_SENT = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()
    FIN_WAIT_1 = auto()
    FIN_WAIT_2 = auto()
    CLOSE_WAIT = auto()
    CLOSING = auto()
    LAST_ACK = auto()
    TIME_WAIT = auto()


class Event(Enum):
    ACTIVE_OPEN = auto()
    SYN_RECEIVED = auto()
    SYN_ACK_RECEIVED = auto()
    HANDSHAKE_ACKNOWLEDGED = auto()
    FIN_SENT = auto()
    FIN_ACKNOWLEDGED = auto()
    FIN_RECEIVED = auto()
    HANDED_OVER = auto()
    """A small record (``time_wait``) answers from now on: in TIME_WAIT, or for an orphan in FIN_WAIT_2."""
    RESET = auto()
    """A reset came in or went out, or the connection timed out."""


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.ACTIVE_OPEN): State.SYN_SENT,
    (State.CLOSED, Event.SYN_RECEIVED): State.SYN_RECEIVED,
    (State.SYN_SENT, Event.SYN_RECEIVED): State.SYN_RECEIVED,
    (State.SYN_SENT, Event.SYN_ACK_RECEIVED): State.ESTABLISHED,
    (State.SYN_RECEIVED, Event.HANDSHAKE_ACKNOWLEDGED): State.ESTABLISHED,
    (State.ESTABLISHED, Event.FIN_SENT): State.FIN_WAIT_1,
    (State.ESTABLISHED, Event.FIN_RECEIVED): State.CLOSE_WAIT,
    (State.FIN_WAIT_1, Event.FIN_ACKNOWLEDGED): State.FIN_WAIT_2,
    (State.FIN_WAIT_1, Event.FIN_RECEIVED): State.CLOSING,
    (State.FIN_WAIT_2, Event.FIN_RECEIVED): State.TIME_WAIT,
    (State.FIN_WAIT_2, Event.HANDED_OVER): State.CLOSED,
    (State.CLOSE_WAIT, Event.FIN_SENT): State.LAST_ACK,
    (State.CLOSING, Event.FIN_ACKNOWLEDGED): State.TIME_WAIT,
    (State.LAST_ACK, Event.FIN_ACKNOWLEDGED): State.CLOSED,
    (State.TIME_WAIT, Event.HANDED_OVER): State.CLOSED,
    **{(state, Event.RESET): State.CLOSED for state in State if state is not State.CLOSED},
}

# Asked of every segment: a tuple compares identities, where a set would call the hash of each member.
CAN_SEND = (State.ESTABLISHED, State.CLOSE_WAIT)
CAN_RECEIVE = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
COUNTED_AS_ESTABLISHED = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
"""What the gauge TcpCurrEstab counts (RFC 4022)."""


def follow(state: State, event: Event) -> State:
    """The state after the event. Raises KeyError for a pair that the RFC does not know."""
    return TRANSITIONS[state, event]


class Acknowledge(Enum):
    """Whether an acknowledgement is owed to the peer."""

    NOTHING = auto()
    DELAYED = auto()
    NOW = auto()


class Recovery(Enum):
    """Why lost data is being sent again."""

    NONE = auto()
    FAST = auto()
    TIMEOUT = auto()
