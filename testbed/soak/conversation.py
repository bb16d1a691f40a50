"""What the applications do: one `Conversation` for each connection, with a `Party` at each end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from errno import EPIPE

from mptcp_stack.listener import Listener
from mptcp_stack.mptcp import send_tuning
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.simulator import Simulator
from mptcp_stack.tcp.receive_window import window_of
from testbed.soak.hosts import Hosts, address_of
from testbed.soak.scenario import ConversationPlan, Pace, Pattern

Wake = Callable[[Callable[[], None]], None]
"""Has something called before time goes on."""

BASE_PORT = 5000
PATIENCE_AFTER_ABORT_US = 120_000_000
"""Who is left alone by the other end's abort, and was not told, gives up after this time."""
_MOST_SUBFLOWS = 9
"""The first, and as many more as the limits of a host can allow."""
PATIENCE_US = 600_000_000
"""For the rest where a middlebox may keep it back for ever."""


class Party:
    """One end: writes, reads, and closes when both are done.

    It is looked at only when its connection said that something changed, or when it set itself an alarm: a
    stack that forgets to call ``on_change`` is found by what then never ends.
    """

    def __init__(
        self,
        simulator: Simulator,
        wake: Wake,
        pace: Pace,
        data: bytes,
        *,
        answers: bool,
        closes_early: bool,
    ) -> None:
        self._simulator, self._wake = simulator, wake
        self.pace, self.data = pace, data
        self._answers, self._closes_early = answers, closes_early
        self.connection: Connection | None = None
        self.offset = 0
        self.received = bytearray()
        self.has_finished = False
        """Nothing is left to do, be it for a failure."""
        self.has_aborted = False
        self.was_established = False
        self.end_was_seen = False
        self.error: int | None = None
        self.finished_at_us = self.ended_at_us = self.progressed_at_us = 0
        """When the application was done, when its connection had ended, when last less was unacknowledged."""
        self._unacknowledged = 0
        self._may_read_at_us = 0
        self._most_unread = self._most_unacknowledged = 0

    @property
    def has_failed(self) -> bool:
        """It ended in disorder, whoever wanted that."""
        return self.error is not None or self.has_aborted

    @property
    def is_gone(self) -> bool:
        """Nothing more will come from here, not even in answer."""
        if not self.has_finished:
            return False
        return self.has_failed or self.connection is None or self.connection.is_closed

    @property
    def has_unread(self) -> bool:
        return self.connection is not None and self.connection.readable_bytes > 0

    @property
    def still_sends(self) -> bool:
        """What was not acknowledged is repeated, so that it will learn whether the other end is gone."""
        connection = self.connection
        if self.has_finished or connection is None or connection.is_closed:
            return False
        return connection.unacknowledged_bytes > 0

    @property
    def was_cut_short(self) -> bool:
        """Its application had closed, and it heard nothing new for as long as its settings wait for that."""
        connection = self.connection
        if connection is None or self.has_failed or not self.ended_at_us:
            return False
        waits_us = connection.environment.settings.close_timeout_us
        return self.ended_at_us - max(self.finished_at_us, self.progressed_at_us) >= waits_us

    def excesses(self) -> Iterator[tuple[str, int, int]]:
        """Where more was held than the settings allow: what, the most that was seen, the limit."""
        if self.connection is None:
            return
        settings = self.connection.environment.settings
        most = settings.receive_buffer_bytes or window_of(settings.tcp_rmem[2])
        if self._most_unread > most:
            yield "unread", self._most_unread, most
        most = send_tuning.most_bytes(settings, _MOST_SUBFLOWS)
        if self._most_unacknowledged > most:
            yield "unacknowledged", self._most_unacknowledged, most

    def attach(self, connection: Connection) -> None:
        self.connection = connection
        connection.on_change = self.wake
        self.wake()

    def wake(self) -> None:
        """Have `act` called soon: a connection must not be used while it reports a change."""
        self._wake(self.act)

    def act(self) -> None:
        """Does what can be done now."""
        connection = self.connection
        if connection is None:
            return
        self._note_progress(connection)
        if not self.has_finished:
            self._act(connection)
            self._note_end()

    def _note_end(self) -> None:
        if self.has_finished:
            self.finished_at_us = self._simulator.now_us

    def _note_progress(self, connection: Connection) -> None:
        if connection.is_closed:
            self.ended_at_us = self.ended_at_us or self._simulator.now_us
        elif connection.unacknowledged_bytes != self._unacknowledged:
            self._unacknowledged = connection.unacknowledged_bytes
            self.progressed_at_us = self._simulator.now_us

    def _act(self, connection: Connection) -> None:
        self.was_established |= connection.is_established
        self._most_unread = max(self._most_unread, connection.readable_bytes)
        if connection.error is not None:
            self._fail(connection.error)
            return
        if not self.was_established:
            self.has_finished = connection.is_closed
            return
        self._read(connection)
        self._write(connection)
        self._maybe_abort(connection)
        self._maybe_close(connection)

    def give_up(self) -> None:
        if not self.has_finished:
            self.has_aborted = self.has_finished = True
            self._note_end()
            if self.connection is not None:
                self.connection.abort()

    def _fail(self, error: int) -> None:
        self.error = error
        self.has_finished = True
        if self.connection is not None:
            self.received += self.connection.read(1 << 30)
            self.connection.close()

    def _read(self, connection: Connection) -> None:
        pause_us = self.pace.pause_us
        while self._simulator.now_us >= self._may_read_at_us:
            data = connection.read(self.pace.read_bytes)
            if not data:
                break
            self.received += data
            if pause_us:
                self._may_read_at_us = self._simulator.now_us + pause_us
                self._simulator.call_at(self._may_read_at_us, self.wake)
        self.end_was_seen |= connection.end_of_stream

    def _write(self, connection: Connection) -> None:
        if self._answers and not self.end_was_seen:
            return
        if connection.is_closed and self.offset < len(self.data):
            self._fail(EPIPE)
            return
        while self.offset < len(self.data) and connection.writable_bytes:
            self.offset += connection.write(self.data[self.offset : self.offset + self.pace.write_bytes])
            self._most_unacknowledged = max(self._most_unacknowledged, connection.unacknowledged_bytes)
        if self.offset == len(self.data) and not connection.write_closed:
            connection.shutdown_write()

    def _maybe_abort(self, connection: Connection) -> None:
        limit = self.pace.aborts_after_bytes
        if limit is not None and self.offset + len(self.received) >= limit:
            self.give_up()

    def _maybe_close(self, connection: Connection) -> None:
        """In order: a close before the peer has everything may be cut short by the close timeout."""
        if self.has_finished or not connection.write_closed:
            return
        if self._closes_early or (self.end_was_seen and not connection.unacknowledged_bytes):
            self.has_finished = True
            connection.close()
        elif connection.is_closed and not connection.readable_bytes and not connection.end_of_stream:
            self.has_finished = True


class Conversation:
    """A connection as planned. The server's end comes when it has been accepted."""

    def __init__(self, hosts: Hosts, number: int, plan: ConversationPlan, wake: Wake) -> None:
        self.plan = plan
        self.number = number
        self._hosts, self._wake = hosts, wake
        self._listener: Listener | None = None
        rng = random.Random(f"data {hosts.scenario.seed} {number}")
        answers = plan.pattern in (Pattern.REQUEST_AND_ANSWER, Pattern.UPLOAD)
        uploads = plan.pattern is Pattern.UPLOAD
        upload, download = rng.randbytes(plan.upload_bytes), rng.randbytes(plan.download_bytes)
        simulator = hosts.simulator
        self.client = Party(simulator, wake, plan.client_pace, upload, answers=False, closes_early=uploads)
        self.server = Party(simulator, wake, plan.server_pace, download, answers=answers, closes_early=False)

    @property
    def port(self) -> int:
        """Each conversation has a listener of its own."""
        return BASE_PORT + self.number

    @property
    def parties(self) -> tuple[tuple[str, Party], tuple[str, Party]]:
        return ("client", self.client), ("server", self.server)

    def other_than(self, party: Party) -> Party:
        return self.server if party is self.client else self.client

    def start(self) -> None:
        plan, hosts = self.plan, self._hosts
        listener = hosts.server.listen(None, self.port, protocol=plan.server_protocol)
        self._listener = listener
        listener.on_change = lambda: self._wake(self._accept)
        remote = address_of(0, on_client=False, is_ipv6=plan.is_ipv6)
        local = address_of(0, on_client=True, is_ipv6=plan.is_ipv6)
        self.client.attach(
            hosts.client.connect(remote, self.port, protocol=plan.client_protocol, local=local)
        )
        self._watch()

    def _accept(self) -> None:
        connection = self._listener.accept() if self._listener is not None else None
        if connection is not None:
            self.server.attach(connection)

    def _watch(self) -> None:
        """Looks now and then whether one end was left alone."""
        simulator = self._hosts.simulator
        # A client that is gone may still be accepted: its third packet is on the way.
        if self.client.has_finished and self.server.has_finished:
            return
        is_alone = any(party.is_gone for _, party in self.parties)
        # What has come may be read as slowly as planned.
        is_alone = is_alone and not any(party.has_unread or party.still_sends for _, party in self.parties)
        # Where options vanish in between, DATA_FIN may never get through, and both ends wait.
        is_cut_off = self._hosts.scenario.strips_later and simulator.now_us > PATIENCE_US
        if is_alone or is_cut_off:
            simulator.call_at(simulator.now_us + PATIENCE_AFTER_ABORT_US, self.give_up)
        else:
            simulator.call_at(simulator.now_us + 1_000_000, self._watch)

    def give_up(self) -> None:
        """Both ends, and nobody is accepted any more."""
        for _, party in self.parties:
            party.give_up()
        self.stop_listening()

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()

    @property
    def has_finished(self) -> bool:
        """A server that nobody reached has nothing to do."""
        if self.server.connection is None:
            return self.client.has_finished and (self.client.error is not None or self.client.has_aborted)
        return self.client.has_finished and self.server.has_finished
