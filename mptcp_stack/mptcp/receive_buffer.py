"""The data that a connection has received: put in order at data level, and kept until it is read."""

from __future__ import annotations

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.receive_tuning import ReceiveTuning
from mptcp_stack.tcp.buffers import ByteQueue
from mptcp_stack.tcp.reassembly import Placement, Reassembly
from mptcp_stack.wire.frame import Buffer

_SMALL_BYTES = 1024
_GATHER_BYTES = 32768


class ReceiveBuffer:
    """One window for all subflows (RFC 8684 §3.3.4): its right edge never moves back.

    Finished when ``fin_position`` is known, ``next_position`` is beyond it and everything was read.
    """

    __slots__ = (
        "_counters",
        "_gathered",
        "_ready",
        "_reassembly",
        "_right_edge",
        "fin_position",
        "fin_was_taken",
        "is_fed_by_tcp",
        "limit",
        "offered_limit",
        "tuning",
    )

    def __init__(self, limit: int, counters: Counters) -> None:
        self.limit = limit
        self.offered_limit = limit
        """What is offered at most: it rises to ``limit`` with the data that comes."""
        self.tuning: ReceiveTuning | None = None
        self._counters = counters
        self._reassembly = Reassembly(1)
        self._ready = ByteQueue()
        self._gathered: bytearray | None = None
        self._right_edge = 1
        self.fin_position: int | None = None
        self.fin_was_taken = False
        self.is_fed_by_tcp = False
        """After a fallback what TCP lets in is acknowledged, so that it must be taken. While a mapping was
        half there TCP's window reached further than this one."""

    @property
    def next_position(self) -> int:
        """The data-level rcv_nxt: what DATA_ACK tells; past a DATA_FIN that is in order."""
        return self._reassembly.next_position + self.fin_was_taken

    @property
    def readable_bytes(self) -> int:
        return self._ready.length + (len(self._gathered) if self._gathered else 0)

    @property
    def read_position(self) -> int:
        """Where the next read begins."""
        return self._reassembly.next_position - self.readable_bytes

    @property
    def end_of_stream(self) -> bool:
        return self.fin_was_taken and not self.readable_bytes

    @property
    def has_gap(self) -> bool:
        return not self._reassembly.is_empty

    @property
    def bytes_beyond_gaps(self) -> int:
        """How far the data goes that waits for what is missing."""
        return self._reassembly.end - self._reassembly.next_position

    @property
    def right_edge(self) -> int:
        """The first position that the peer may not send yet."""
        return self.next_position + self.window()

    def begin(self, offered_bytes: int, offered_limit: int) -> None:
        """The SYN has offered so much, and so much is offered from now on."""
        self._right_edge = max(self._right_edge, 1 + offered_bytes)
        self.offered_limit = min(self.limit, offered_limit)

    def window(self) -> int:
        """Bytes that the peer may send beyond ``next_position``."""
        readable = self._ready.length if self._gathered is None else self.readable_bytes
        next_position = self._reassembly.next_position + self.fin_was_taken
        room = self.limit - readable
        if room > self.offered_limit:
            room = self.offered_limit
        edge = next_position + room if room > 0 else next_position
        if edge > self._right_edge:
            self._right_edge = edge
        return self._right_edge - next_position

    def receive(self, position: int, data: Buffer) -> bool:
        """Takes data of the connection; True when something became readable."""
        counters = self._counters
        end = position + len(data)
        if end > self._right_edge and end > self.right_edge:
            if not self.is_fed_by_tcp:
                counters.increment("MPTcpExtNoDSSInWindow")
                return False
            self._right_edge = end
        if self.fin_position is not None and end > self.fin_position:
            counters.increment("MPTcpExtDSSNotMatching")
            return False
        if self.tuning is not None and self.offered_limit < self.tuning.offered_target:
            self.offered_limit = self.tuning.risen(self.offered_limit, len(data))
        merges = self._reassembly.merges
        self._reassembly.buffer_bytes = self.limit
        placement, ready = self._reassembly.insert(position, data)
        if placement is not Placement.IN_ORDER:
            self._count_placement(placement, self._reassembly.merges > merges)
            return False
        for piece in ready:
            self._append(piece)
        return True

    def _count_placement(self, placement: Placement, was_merged: bool) -> None:
        counters = self._counters
        if placement is Placement.DUPLICATE:
            counters.increment("MPTcpExtDuplicateData")
        elif placement is Placement.REFUSED:
            counters.increment("StackDropReceiveQueueFull")
        else:
            counters.increment("MPTcpExtOFOQueue")
            if placement is Placement.OUT_OF_ORDER_TAIL:
                counters.increment("MPTcpExtOFOQueueTail")
            if was_merged:
                counters.increment("MPTcpExtOFOMerge")

    def put_before(self, data: bytes) -> None:
        """What came with the SYN: it has no position, and comes before all that has one."""
        self._append(data)

    def _append(self, piece: Buffer) -> None:
        """Small pieces are gathered, so that a flood of them costs about what they hold."""
        if len(piece) >= _SMALL_BYTES:
            if self._gathered is not None:
                self._flush_gathered()
            self._ready.append(piece)
            return
        if self._gathered is None:
            self._gathered = bytearray()
        self._gathered += piece
        if len(self._gathered) >= _GATHER_BYTES:
            self._flush_gathered()

    def _flush_gathered(self) -> None:
        if self._gathered is not None:
            self._ready.append(self._gathered)
            self._gathered = None

    def take_fin(self) -> bool:
        """True once, when the DATA_FIN has become the next in order."""
        if self.fin_was_taken or self.fin_position is None or self.fin_position > self.next_position:
            return False
        self.fin_was_taken = True
        return True

    def read(self, limit: int) -> bytes:
        if self._ready.length < limit:
            self._flush_gathered()
        parts = self._ready.take(limit)
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(parts)

    def peek(self, limit: int) -> bytes:
        """What ``read`` would give, which stays."""
        if self._ready.length < limit:
            self._flush_gathered()
        return self._ready.peek(limit)

    def clear(self) -> None:
        self._ready.clear()
        self._gathered = None
