"""Marks of sockets on every subflow, after the kernel's mptcp_sockopt.sh."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mptcp_stack.sockets.common_options import INTEGER, IPPROTO_TCP, SO_MARK, SOL_SOCKET
from mptcp_stack.sockets.subflow_options import (
    MPTCP_GET_SUB_IDS,
    MPTCP_SUB_GETSOCKOPT,
    SUB_OPTION_HEAD,
    SUB_STATUS,
)
from testbed.host.protocol import Role, SocketOption, Workload, WorkloadKind
from testbed.selftests.case import case
from testbed.selftests.host_view import EVENT_LIMIT_S, CaseHost, RunningWorkload
from testbed.selftests.lab_view import CaseLab, kib

MARKS = {"client": 7, "server": 9}
SUBFLOWS = 3
SIZE = kib(256)
SENDING = Workload(
    WorkloadKind.TRANSFER,
    Role.LISTEN,
    "",
    0,
    send_bytes=SIZE,
    chunk_bytes=kib(16),
    pause_us=10_000,
    hold_open_after=True,
)
_LIST_BYTES = 256


@contextmanager
def _watched(lab: CaseLab, host: CaseHost) -> Iterator[None]:
    """What a kernel host sends is dropped, and counted, unless its socket has marked it; resets have none."""
    if host.stack != "kernel":
        yield
        return
    lab.filter(
        host.name,
        f"meta l4proto tcp meta mark {MARKS[host.name]} accept",
        "tcp flags & rst == rst accept",
        "meta l4proto tcp counter drop",
        hook="output",
    )
    yield
    lab.verdict.must_be_equal(f"{host.name}: segments without the mark", [0], lab.filtered(host.name))


def _must_be_marked(lab: CaseLab, host: CaseHost, end: RunningWorkload) -> None:
    """SO_MARK of the connection, and of each subflow where the stack tells of single ones."""
    (mark,) = struct.unpack("=i", end.get_option(SOL_SOCKET, SO_MARK, INTEGER.size))
    lab.verdict.must_be_equal(f"{host.name}: SO_MARK", MARKS[host.name], mark)
    if host.stack != "userspace":
        return
    listed = end.get_option(IPPROTO_TCP, MPTCP_GET_SUB_IDS, _LIST_BYTES)
    lab.verdict.must_be_equal(f"{host.name}: subflows", SUBFLOWS, listed[0])
    for identifier, _status in SUB_STATUS.iter_unpack(listed[2:]):
        request = SUB_OPTION_HEAD.pack(identifier, SOL_SOCKET, SO_MARK, INTEGER.size)
        value = end.get_option(IPPROTO_TCP, MPTCP_SUB_GETSOCKOPT, _LIST_BYTES, request=request)
        lab.verdict.must_be_equal(
            f"{host.name}: mark of subflow {identifier}", INTEGER.pack(MARKS[host.name]), value
        )


@case(topology="four-links", groups=("socket-options", "join"), families=("4", "6"))
def transfer_and_mark(lab: CaseLab) -> None:
    """SO_MARK, set before connecting and listening, is that of every subflow, of later ones too."""
    lab.server.limits(subflows=SUBFLOWS - 1)
    lab.client.limits(subflows=SUBFLOWS - 1, add_addr_accepted=1)
    lab.client.endpoint("eth1", subflow=True)
    lab.server.endpoint("eth2", signal=True)
    anywhere = "0.0.0.0" if lab.family == 4 else "::"
    client_marks, server_marks = (
        (SocketOption(SOL_SOCKET, SO_MARK, MARKS[name]),) for name in ("client", "server")
    )
    with _watched(lab, lab.client), _watched(lab, lab.server), lab.measure() as run:
        server = lab.server.agent.start(replace(SENDING, address=anywhere, options=server_marks, send_seed=1))
        client = lab.client.agent.start(
            replace(
                SENDING,
                role=Role.CONNECT,
                address=lab.server.address(),
                port=server.port,
                options=client_marks,
                send_seed=2,
            )
        )
        for host, end in ((lab.client, client), (lab.server, server)):
            end.wait_for(f"received {SIZE}", EVENT_LIMIT_S)
            lab.wait_for_count(run.server, "MPJoinAckRx", SUBFLOWS - 1)
            _must_be_marked(lab, host, end)
        for end in (client, server):
            end.finish()
        (at_client,), (at_server,) = client.result(EVENT_LIMIT_S), server.result(EVENT_LIMIT_S)
    lab.verdict.must_be_equal("errors", (None, None), (at_client.error, at_server.error))
    lab.verdict.must_be_equal("to the server", at_client.sha256_sent, at_server.sha256_received)
    lab.verdict.must_be_equal("to the client", at_server.sha256_sent, at_client.sha256_received)
    run.must_join(SUBFLOWS - 1)
