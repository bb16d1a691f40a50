"""Connections and their fallback, after the kernel's mptcp_connect tests."""

from __future__ import annotations

from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab, kib, mib


@case(topology="chain", groups=("connect",))
def bulk_both_ways(lab: CaseLab) -> None:
    """Both ends send up to 8 MiB at once, over a chain of routers."""
    to_server, to_client = lab.random.randint(kib(256), mib(8)), lab.random.randint(kib(256), mib(8))
    with lab.measure() as run:
        transfer = lab.transfer(to_server, to_client)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_join(0)


@case(topology="one-path", groups=("connect",))
def one_byte_each_way(lab: CaseLab) -> None:
    """The smallest transfer: the third packet carries the data."""
    with lab.measure() as run:
        transfer = lab.transfer(1, 1)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()


@case(topology="one-path", groups=("connect",))
def only_the_client_sends(lab: CaseLab) -> None:
    """The server says nothing but that it has nothing to say."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(2), 0)
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()


@case(topology="one-path", groups=("connect",))
def only_the_server_sends(lab: CaseLab) -> None:
    """The client opens the connection and listens."""
    with lab.measure() as run:
        transfer = lab.transfer(0, mib(2))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()


@case(topology="chain", groups=("fallback", "connect"))
def mptcp_client_tcp_server(lab: CaseLab) -> None:
    """The server has never heard of MPTCP: the client asks once and goes on as plain TCP."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(1), server_protocol="tcp")
    transfer.must_be_intact()
    transfer.must_speak_plain_tcp()
    run.client.must_count(MPCapableSYNTX=1, MPCapableSYNACKRX=0, MPCapableFallbackSYNACK=1, MPJoinSynTx=0)
    run.server.must_count(MPCapableSYNRX=0, MPCapableACKRX=0, MPCapableFallbackACK=0)


@case(topology="chain", groups=("fallback", "connect"))
def tcp_client_mptcp_server(lab: CaseLab) -> None:
    """The client has never heard of MPTCP: the server serves it as plain TCP and counts nothing."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(1), client_protocol="tcp")
    transfer.must_be_intact()
    transfer.must_speak_plain_tcp()
    run.client.must_count(MPCapableSYNTX=0, MPCapableSYNACKRX=0)
    run.server.must_count(MPCapableSYNRX=0, MPCapableACKRX=0)
    run.must_not_fall_back()
