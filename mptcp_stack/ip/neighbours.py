"""The neighbour cache: which link-layer address a next hop has. One instance serves ARP, one NDP.

Theory of operation (RFC 4861 §7.3, applied to IPv4 as well, as the Linux kernel does)::

    INCOMPLETE --answer--> KNOWN --used after its lifetime--> DELAY --5 s without traffic--> PROBE
        |                    ^                                  |                              |
        | 3 requests         +------- traffic or an answer -----+------------------------------+
        v                                                                       3 requests     |
      FAILED <---------------------------------------------------------------------------------+

``KNOWN`` is the RFC's REACHABLE until ``reachable_until_us`` and its STALE afterwards: no timer runs for an
entry that nobody uses. Packets received from the neighbour count as proof that it lives, so a busy entry is
never probed. While an entry is INCOMPLETE its packets wait, bounded in number and bytes. FAILED entries have
left the cache; whoever still holds one looks again.

What strangers say is trusted little: an advertisement that nobody asked for never creates an entry and
changes one only after the lock time; a request for our address creates an entry of the *passive* class, which
may only displace others of its class. Duplicate-address detection is not done: addresses are used at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from mptcp_stack.counters import Counters
from mptcp_stack.wire.frame import Frame

REACHABLE_TIME_US = 30_000_000
RETRANSMIT_TIME_US = 1_000_000
DELAY_TIME_US = 5_000_000
LOCK_TIME_US = 1_000_000
"""An entry changed less than this ago is not changed again by an unsolicited claim (Linux: locktime)."""
MAXIMUM_ATTEMPTS = 3

MAXIMUM_ENTRIES = 512
MAXIMUM_PASSIVE_ENTRIES = 256
MAXIMUM_INCOMPLETE_ENTRIES = 128
MAXIMUM_PENDING_FRAMES = 64
"""Packets that wait for one neighbour; the oldest gives way, as in the kernel."""
MAXIMUM_PENDING_BYTES = 4 << 20
"""Bytes that wait for all neighbours of one cache."""


class NeighbourState(Enum):
    """See the diagram above."""

    INCOMPLETE = auto()
    KNOWN = auto()
    DELAY = auto()
    PROBE = auto()
    FAILED = auto()


@dataclass(slots=True)
class PendingPacket:
    """A packet that waits for its link header; ``frame`` begins with the IP header and owns its bytes."""

    frame: Frame
    source: bytes
    destination: bytes
    protocol: int


@dataclass(slots=True, eq=False)
class Neighbour:
    """One next hop. ``link_header`` is what goes before its packets; empty while it is not known."""

    address: bytes
    source: bytes
    """Our address, as whom the requests are sent."""
    state: NeighbourState = NeighbourState.INCOMPLETE
    mac: bytes = b""
    link_header: bytes = b""
    reachable_until_us: int = 0
    changed_us: int = 0
    attempts: int = 0
    deadline_us: int | None = None
    pending: deque[PendingPacket] = field(default_factory=deque)


@dataclass(slots=True, frozen=True)
class NeighbourActions:
    """What a cache has done for it by its protocol (ARP or NDP) and its host."""

    link_header: Callable[[bytes], bytes]
    """The link header for packets to a MAC address."""
    request: Callable[[Neighbour], None]
    """Ask for the neighbour: all stations if its ``mac`` is empty, else that one."""
    transmit: Callable[[Frame], None]
    unresolved: Callable[[PendingPacket], None]
    """The packet is given up: nobody answered."""


class NeighbourCache:
    """The neighbours of one interface and one address family."""

    def __init__(self, actions: NeighbourActions, counters: Counters) -> None:
        self._actions = actions
        self._counters = counters
        self._active: dict[bytes, Neighbour] = {}
        self._passive: dict[bytes, Neighbour] = {}
        self._timed: dict[bytes, Neighbour] = {}
        self._incomplete = 0
        self._pending_bytes = 0
        self.next_deadline_us: int | None = None

    def __len__(self) -> int:
        return len(self._active) + len(self._passive)

    @property
    def pending_bytes(self) -> int:
        """Bytes of all packets that wait for an answer."""
        return self._pending_bytes

    def get(self, address: bytes) -> Neighbour | None:
        """The entry for ``address`` if there is one."""
        return self._active.get(address) or self._passive.get(address)

    def open(self, address: bytes, source: bytes) -> Neighbour | None:
        """The entry to send to ``address``, new if need be; None when the cache has no room.

        A new entry is INCOMPLETE; the caller has to `hold` a packet for it at once.
        """
        neighbour = self._active.get(address)
        if neighbour is not None:
            return neighbour
        neighbour = self._passive.pop(address, None)
        if neighbour is None:
            if self._incomplete >= MAXIMUM_INCOMPLETE_ENTRIES:
                return None
            self._make_room()
            neighbour = Neighbour(address, source)
            self._incomplete += 1
        self._active[address] = neighbour
        return neighbour

    def hold(self, neighbour: Neighbour, packet: PendingPacket, now_us: int) -> None:
        """Keep ``packet`` until the INCOMPLETE ``neighbour`` answers; the first one starts the asking."""
        size = len(packet.frame)
        while neighbour.pending and (
            len(neighbour.pending) >= MAXIMUM_PENDING_FRAMES
            or self._pending_bytes + size > MAXIMUM_PENDING_BYTES
        ):
            self._take_pending(neighbour)
            self._counters.increment("StackDropNeighbourQueueFull")
        if self._pending_bytes + size > MAXIMUM_PENDING_BYTES:
            self._counters.increment("StackDropNeighbourQueueFull")
        else:
            neighbour.pending.append(packet)
            self._pending_bytes += size
        if neighbour.attempts == 0:
            self._ask(neighbour, now_us)

    def note_use(self, neighbour: Neighbour, now_us: int) -> None:
        """A packet goes to a neighbour that has not been heard of for its lifetime."""
        if neighbour.state is NeighbourState.KNOWN:
            neighbour.state = NeighbourState.DELAY
            self._arm(neighbour, now_us + DELAY_TIME_US)

    def learn(self, address: bytes, mac: bytes, source: bytes, now_us: int) -> None:
        """A neighbour asked for our address ``source`` and told its own: it is likely to be needed soon."""
        if self.get(address) is not None:
            self.advertised(address, mac, solicited=False, override=True, now_us=now_us)
            return
        if len(self._passive) >= MAXIMUM_PASSIVE_ENTRIES or len(self) >= MAXIMUM_ENTRIES:
            if not self._passive:
                return  # Not worth displacing one that we have used.
            self._forget(next(iter(self._passive.values())))
        neighbour = Neighbour(address, source, NeighbourState.KNOWN)
        self._passive[address] = neighbour
        self._set_mac(neighbour, mac, now_us)

    def advertised(
        self, address: bytes, mac: bytes | None, *, solicited: bool, override: bool, now_us: int
    ) -> None:
        """Somebody says that ``address`` is at ``mac`` (None: where it was). RFC 4861 §7.2.5.

        ``solicited``: it is an answer; taken for one only if we did ask. ``override``: it claims to be newer
        than what we know. An ARP reply has both, any other ARP packet the latter.
        """
        neighbour = self.get(address)
        if neighbour is None:
            return
        asked = neighbour.attempts > 0
        if neighbour.state is NeighbourState.INCOMPLETE:
            if mac is not None:
                self._resolved(neighbour, mac, solicited=solicited, now_us=now_us)
            return
        if mac is None or mac == neighbour.mac:
            if solicited and asked:
                self._confirm(neighbour, now_us)
        elif not override:
            # The two disagree: keep what we have, but trust it no longer.
            neighbour.reachable_until_us = min(neighbour.reachable_until_us, now_us)
        elif solicited and asked:
            self._set_mac(neighbour, mac, now_us)
            self._confirm(neighbour, now_us)
        elif now_us - neighbour.changed_us >= LOCK_TIME_US:
            self._set_mac(neighbour, mac, now_us)
            neighbour.reachable_until_us = now_us

    def clear(self) -> None:
        """Forget everything, for instance because the interface went down. What waits is counted as lost."""
        for neighbour in (*self._active.values(), *self._passive.values()):
            self._counters.increment("StackDropInterfaceDown", len(neighbour.pending))
            self._forget(neighbour)

    def handle_deadline(self, now_us: int) -> None:
        """Repeat or give up whatever is due at ``now_us``."""
        if self.next_deadline_us is None or now_us < self.next_deadline_us:
            return
        due = [
            each for each in self._timed.values() if each.deadline_us is None or each.deadline_us <= now_us
        ]
        for neighbour in due:
            self._handle_due(neighbour, now_us)

    def _handle_due(self, neighbour: Neighbour, now_us: int) -> None:
        if neighbour.state is not NeighbourState.INCOMPLETE and neighbour.reachable_until_us > now_us:
            # Traffic has confirmed it in the meantime.
            self._settle(neighbour)
        elif neighbour.state is NeighbourState.DELAY:
            neighbour.state = NeighbourState.PROBE
            self._ask(neighbour, now_us)
        elif neighbour.attempts < MAXIMUM_ATTEMPTS:
            self._ask(neighbour, now_us)
        else:
            self._fail(neighbour)

    def _fail(self, neighbour: Neighbour) -> None:
        while neighbour.pending:
            self._counters.increment("StackDropNeighbourUnresolved")
            self._actions.unresolved(self._take_pending(neighbour))
        self._forget(neighbour)

    def _ask(self, neighbour: Neighbour, now_us: int) -> None:
        neighbour.attempts += 1
        self._arm(neighbour, now_us + RETRANSMIT_TIME_US)
        self._actions.request(neighbour)

    def _resolved(self, neighbour: Neighbour, mac: bytes, *, solicited: bool, now_us: int) -> None:
        self._incomplete -= 1
        self._set_mac(neighbour, mac, now_us)
        neighbour.reachable_until_us = now_us + REACHABLE_TIME_US if solicited else now_us
        self._settle(neighbour)
        while neighbour.pending:
            frame = self._take_pending(neighbour).frame
            frame.head = b"".join((neighbour.link_header, frame.head))
            frame.transport_offset += len(neighbour.link_header)
            self._actions.transmit(frame)

    def _confirm(self, neighbour: Neighbour, now_us: int) -> None:
        neighbour.reachable_until_us = now_us + REACHABLE_TIME_US
        self._settle(neighbour)

    def _settle(self, neighbour: Neighbour) -> None:
        neighbour.state = NeighbourState.KNOWN
        neighbour.attempts = 0
        self._disarm(neighbour)

    def _set_mac(self, neighbour: Neighbour, mac: bytes, now_us: int) -> None:
        neighbour.mac = mac
        neighbour.link_header = self._actions.link_header(mac)
        neighbour.changed_us = now_us

    def _take_pending(self, neighbour: Neighbour) -> PendingPacket:
        packet = neighbour.pending.popleft()
        self._pending_bytes -= len(packet.frame)
        return packet

    def _make_room(self) -> None:
        if len(self) < MAXIMUM_ENTRIES:
            return
        if self._passive:
            self._forget(next(iter(self._passive.values())))
            return
        # The one that was quiet for the longest time; a busy one is never the victim. There is one, since no
        # more than a part of the entries may be INCOMPLETE.
        settled = (each for each in self._active.values() if each.state is not NeighbourState.INCOMPLETE)
        self._forget(min(settled, key=lambda each: each.reachable_until_us))

    def _forget(self, neighbour: Neighbour) -> None:
        self._disarm(neighbour)
        while neighbour.pending:
            self._take_pending(neighbour)
        if neighbour.state is NeighbourState.INCOMPLETE:
            self._incomplete -= 1
        neighbour.state = NeighbourState.FAILED
        neighbour.link_header = b""
        self._active.pop(neighbour.address, None)
        self._passive.pop(neighbour.address, None)

    def _arm(self, neighbour: Neighbour, deadline_us: int) -> None:
        self._disarm(neighbour)
        neighbour.deadline_us = deadline_us
        self._timed[neighbour.address] = neighbour
        if self.next_deadline_us is None or deadline_us < self.next_deadline_us:
            self.next_deadline_us = deadline_us

    def _disarm(self, neighbour: Neighbour) -> None:
        if self._timed.pop(neighbour.address, None) is None:
            return
        deadline_us, neighbour.deadline_us = neighbour.deadline_us, None
        if deadline_us == self.next_deadline_us:
            deadlines = (each.deadline_us for each in self._timed.values() if each.deadline_us is not None)
            self.next_deadline_us = min(deadlines, default=None)
