"""Behind translators of addresses, and through boxes that join segments."""

from __future__ import annotations

from testbed.selftests.case import SLOW, case
from testbed.selftests.judgement import at_least
from testbed.selftests.lab_view import CaseLab, kib, mib
from testbed.selftests.measurement import Measurement

FAMILIES = ("4", "6")


def _nats(network: int, direction: str = "->") -> str:
    """Both kinds, with the outer addresses 10.0.N.200 and fd00:0:0:N::200."""
    return (
        f'nat44: {{address: 10.0.{network}.200, direction: "{direction}"}},'
        f' nat66: {{address: "fd00:0:0:{network}::200", direction: "{direction}"}}'
    )


def _outer_address(lab: CaseLab, network: int) -> str:
    return f"10.0.{network}.200" if lab.family == 4 else f"fd00:0:0:{network}::200"


@case(topology="one-path", groups=("middlebox", "nat"), families=FAMILIES, variables={"middlebox": _nats(1)})
def client_behind_a_nat(lab: CaseLab) -> None:
    """The server sees the translator's address; MPTCP does not mind (RFC 8684 §3.1: keys, not addresses)."""
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_not_reset()
    _must_have_changed(lab, f"nat{'44' if lab.family == 4 else '66'}", 100)
    lab.verdict.must_be_equal(
        "the client's address, as the server sees it",
        _outer_address(lab, 1),
        transfer.server.remote.partition(" ")[0],
    )


@case(
    topology="two-paths",
    groups=("middlebox", "nat", "join", "signal"),
    families=FAMILIES,
    variables={"second_middlebox": _nats(3)},
)
def join_from_behind_a_nat(lab: CaseLab) -> None:
    """A join names the connection by its token, not by addresses: it gets through (RFC 8684 §3.2)."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(1)
    run.must_announce(1)


@case(
    topology="two-paths",
    groups=("middlebox", "nat", "join", "signal"),
    families=FAMILIES,
    variables={"second_server_middlebox": _nats(4, "<-")},
)
def address_announced_from_behind_a_nat(lab: CaseLab) -> None:
    """Nobody outside reaches the server's inner address: the join is never answered, data goes on."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1, add_addr_accepted=1)
    lab.server.endpoint("eth1", signal=True)
    with lab.measure() as run:
        transfer = lab.paced_transfer()
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.client.must_count(AddAddr=1, MPJoinSynTx=1, MPJoinSynAckRx=0)
    run.server.must_count(EchoAdd=1, MPJoinSynRx=0, MPJoinAckRx=0)


def _must_have_changed(lab: CaseLab, kind: str, count: int) -> None:
    """The box was there, and at work."""
    lab.verdict.must_be_within(f"packets that {kind} changed", at_least(count), lab.boxes_changed(kind))


def _stays_mptcp(lab: CaseLab) -> Measurement:
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_be_one_mptcp_connection()
    run.must_not_reset()
    _must_have_changed(lab, "split", 100)
    _must_have_changed(lab, "coalesce", 100)
    return run


@case(
    topology="one-path",
    groups=("middlebox", "coalescer", "checksum"),
    families=FAMILIES,
    variables={
        "middlebox": 'split: {payload_bytes: 400, direction: "->"}',
        "server_middlebox": 'coalesce: {direction: "->"}',
        "checksums": "1",
    },
)
def segments_joined_to_the_server(lab: CaseLab) -> None:
    """Pieces of a segment that are put together again have the mapping of all of it (RFC 8684 §3.3)."""
    run = _stays_mptcp(lab)
    run.server.must_count(DataCsumErr=0)


@case(
    topology="one-path",
    groups=("middlebox", "coalescer", "checksum", SLOW),
    families=FAMILIES,
    variables={
        "middlebox": 'coalesce: {direction: "<-"}',
        "server_middlebox": 'split: {payload_bytes: 400, direction: "<-"}',
        "checksums": "1",
    },
)
def segments_joined_to_the_client(lab: CaseLab) -> None:
    """The same in the other direction."""
    run = _stays_mptcp(lab)
    run.client.must_count(DataCsumErr=0)


@case(
    topology="one-path",
    groups=("middlebox", "coalescer", SLOW),
    families=FAMILIES,
    # Linux 6.18 as the sender does not notice that the peer has gone back to TCP, and sends again for ever.
    # As the receiver it stalls after the fallback where a repeated segment was joined with new data.
    stacks=("userspace-userspace",),
    variables={"middlebox": 'coalesce: {options: first, hold: 5ms, direction: "->"}'},
)
def mappings_lost(lab: CaseLab) -> None:
    """Of segments that a box joins only the first one's mapping is left: both ends go back to TCP (§3.7)."""
    with (
        lab.measure() as run,
        lab.start_transfer(kib(64), 0, chunk_bytes=300, pause_us=1000) as transfer,
    ):
        transfer.send_without_delay()
    transfer.must_be_intact()
    transfer.must_speak_plain_tcp()
    run.server.must_count(DSSCorruptionFallback=1)
    _must_have_changed(lab, "coalesce", 1)
