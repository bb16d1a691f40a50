"""How much waits in a connection's queues, asked at each moment: the kernel's mptcp_inq tests."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mptcp_stack.sockets.common_options import IPPROTO_TCP, TCP_INQ
from mptcp_stack.sockets.queues import FIONREAD, SIOCOUTQ, SIOCOUTQNSD
from testbed.errors import CapabilityError
from testbed.host.protocol import Role, StepKind, Workload, WorkloadKind
from testbed.selftests.case import case
from testbed.selftests.host_view import EVENT_LIMIT_S, RunningWorkload
from testbed.selftests.judgement import at_most
from testbed.selftests.lab_view import CaseLab, kib

STEPS = Workload(WorkloadKind.STEPS, Role.LISTEN, "", 0)
READ_BYTES = kib(256)
MIXTURES = (("mptcp", "mptcp"), ("tcp", "mptcp"), ("mptcp", "tcp"), ("tcp", "tcp"))
"""What the sender speaks, what the receiver speaks."""


@dataclass(frozen=True, slots=True)
class _Ends:
    lab: CaseLab
    sender: RunningWorkload
    receiver: RunningWorkload
    name: str

    def send(self, amount: int) -> None:
        self.sender.step(StepKind.SEND, amount)

    def receive(self, at_most_bytes: int) -> tuple[int, int]:
        """How much came, and what TCP_INQ told then; -1 for nothing."""
        answer = self.receiver.step(StepKind.RECEIVE, at_most_bytes, timeout_s=EVENT_LIMIT_S)
        return answer.value, -1 if answer.unread is None else answer.unread

    def unread(self) -> int:
        return self.receiver.step(StepKind.ASK, FIONREAD).value

    def wait_until_acknowledged(self, what: str) -> None:
        """Meanwhile no more is unsent than unacknowledged: all is written, so that both only shrink."""

        def is_acknowledged() -> bool:
            unacknowledged = self.sender.step(StepKind.ASK, SIOCOUTQ).value
            unsent = self.sender.step(StepKind.ASK, SIOCOUTQNSD).value
            self.lab.verdict.must_be_within(f"{self.name}: SIOCOUTQNSD", at_most(unacknowledged), unsent)
            return unacknowledged == 0

        self.lab.wait_for(f"{self.name}: {what} acknowledged", is_acknowledged)

    def must_be_equal(self, what: str, expected: object, observed: object) -> None:
        self.lab.verdict.must_be_equal(f"{self.name}: {what}", expected, observed)


@contextmanager
def _connected(lab: CaseLab, sender: str, receiver: str) -> Iterator[_Ends]:
    """The client sends, the server receives and is told what is left."""
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    server = lab.server.agent.start(replace(STEPS, address=anywhere, protocol=receiver))
    client = lab.client.agent.start(
        replace(STEPS, role=Role.CONNECT, address=lab.server.address(), port=server.port, protocol=sender)
    )
    for end in (client, server):
        end.wait_for("holding", EVENT_LIMIT_S)
    try:
        server.set_option(IPPROTO_TCP, TCP_INQ, struct.pack("=i", 1))
    except OSError as error:
        raise CapabilityError(f"the server's stack has no TCP_INQ: {error.strerror}") from None
    yield _Ends(lab, client, server, f"{sender} to {receiver}")
    for end in (client, server):
        end.finish()
    errors = [result.error for end in (client, server) for result in end.result(EVENT_LIMIT_S)]
    lab.verdict.must_be_equal("errors", [None, None], errors)


def _a_few_bytes(ends: _Ends) -> None:
    """The first byte, then the rest."""
    amount = ends.lab.random.randint(2, 4096)
    ends.send(amount)
    ends.wait_until_acknowledged(f"{amount} bytes")
    ends.must_be_equal("FIONREAD", amount, ends.unread())
    ends.must_be_equal("TCP_INQ after one byte", (1, amount - 1), ends.receive(1))
    ends.must_be_equal("TCP_INQ after the rest", (amount - 1, 0), ends.receive(READ_BYTES))
    ends.must_be_equal("FIONREAD without data", 0, ends.unread())


def _many_bytes(ends: _Ends) -> None:
    """While they flow no more is promised than will come."""
    amount = rest = ends.lab.random.randint(kib(300), kib(900))
    ends.send(amount)
    while rest > 0:
        ends.lab.verdict.must_be_within(f"{ends.name}: FIONREAD", at_most(rest), ends.unread())
        received, unread = ends.receive(READ_BYTES)
        rest -= received
        ends.lab.verdict.must_be_within(f"{ends.name}: TCP_INQ", at_most(rest), unread)
    ends.must_be_equal("bytes that were not sent", 0, rest)
    ends.wait_until_acknowledged(f"{amount} bytes")


def _the_end(ends: _Ends, receiver: str) -> None:
    """It counts as a byte for TCP_INQ, before and after it was read; MPTCP's FIONREAD counts it too."""
    ends.send(1)
    ends.sender.step(StepKind.END)
    ends.wait_until_acknowledged("the last byte and the end of data")
    ends.must_be_equal("FIONREAD with the end of data", 2 if receiver == "mptcp" else 1, ends.unread())
    ends.must_be_equal("TCP_INQ before the end of data", (1, 1), ends.receive(1))
    ends.must_be_equal("TCP_INQ at the end of data", (0, 1), ends.receive(1))


@case(topology="one-path", groups=("socket-options",), families=("4", "6"))
def queued_bytes(lab: CaseLab) -> None:
    """FIONREAD, TCP_INQ, SIOCOUTQ and SIOCOUTQNSD tell what is left, the end of data included."""
    for sender, receiver in MIXTURES:
        with _connected(lab, sender, receiver) as ends:
            _a_few_bytes(ends)
            _many_bytes(ends)
            # Who accepts a TCP connection at an MPTCP socket has a socket of TCP.
            speaks = receiver if sender == "mptcp" else "tcp"
            _the_end(ends, speaks)
