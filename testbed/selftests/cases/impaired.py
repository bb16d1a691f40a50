"""Two paths that are bad in one way each: whatever they do to packets, the bytes arrive as they were sent.

What overtakes the third packet of a handshake, or its loss, makes either stack fall back (RFC 8684 §3.1), so
cases whose links lose or reorder do not ask for MPTCP, only for the data.
"""

from __future__ import annotations

from testbed.selftests.case import SLOW, case
from testbed.selftests.lab_view import CaseLab, kib, mib
from testbed.selftests.measurement import Measurement

FAMILIES = ("4", "6")
ECHO_INTERVAL_S = 0.5


def _both(impairment: str) -> dict[str, str]:
    return {"impair": impairment, "second_impair": impairment}


def _joined_transfer(lab: CaseLab, to_server: int, to_client: int | None = None) -> Measurement:
    """Over one subflow and a second one that the client joins, both ways at once.

    Only once those on the first path know each other's link addresses: these are asked for three times, and
    where a packet in ten is lost, a connection in a hundred fails for lack of an answer, with either stack.
    """
    address = lab.server.address()
    lab.wait_for(f"{address} answers", lambda: lab.client.is_answered_by(address, ECHO_INTERVAL_S))
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.transfer(to_server, to_client)
    transfer.must_be_intact()
    return run


@case(
    topology="two-paths",
    groups=("loss", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 5ms loss 0.5%"),
)
def loss_half_a_percent(lab: CaseLab) -> None:
    """Both paths lose one packet in 200."""
    _joined_transfer(lab, mib(1))


@case(topology="two-paths", groups=("loss", "sweep"), families=("6",), variables=_both("delay 5ms loss 2%"))
def loss_2_percent(lab: CaseLab) -> None:
    """Both paths lose one packet in 50."""
    _joined_transfer(lab, kib(512))


@case(
    topology="two-paths",
    groups=("loss", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 5ms loss 5%"),
)
def loss_5_percent(lab: CaseLab) -> None:
    """Both paths lose one packet in 20."""
    _joined_transfer(lab, kib(256))


@case(
    topology="two-paths",
    groups=("loss", "sweep", SLOW),
    families=("6",),
    variables=_both("delay 5ms loss 10%"),
)
def loss_10_percent(lab: CaseLab) -> None:
    """Both paths lose one packet in 10."""
    _joined_transfer(lab, kib(128))


@case(
    topology="two-paths",
    groups=("loss", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 5ms loss gemodel 1% 20%"),
)
def loss_in_bursts(lab: CaseLab) -> None:
    """Both paths lose five packets in a row now and then."""
    _joined_transfer(lab, kib(256))


@case(
    topology="two-paths",
    groups=("loss", "sweep", SLOW),
    families=FAMILIES,
    variables={"impair": "delay 5ms", "second_impair": "delay 5ms loss 10%"},
)
def loss_on_one_path(lab: CaseLab) -> None:
    """The joined path loses one packet in 10, the first one none: MPTCP all the way."""
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_not_fall_back()
    run.client.must_count(MPJoinSynTx=1)


@case(
    topology="two-paths",
    groups=("reorder", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 10ms reorder 1%"),
)
def reorder_1_percent(lab: CaseLab) -> None:
    """One packet in 100 overtakes those that are under way."""
    _joined_transfer(lab, mib(1))


@case(
    topology="two-paths",
    groups=("reorder", "sweep"),
    families=("6",),
    variables=_both("delay 10ms reorder 25% 50%"),
)
def reorder_25_percent(lab: CaseLab) -> None:
    """A quarter of the packets overtakes others, often several in a row."""
    _joined_transfer(lab, kib(512))


@case(
    topology="two-paths",
    groups=("reorder", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 10ms reorder 100% gap 5"),
)
def reorder_every_fifth(lab: CaseLab) -> None:
    """Each fifth packet overtakes the four before it."""
    _joined_transfer(lab, kib(512))


def _stays_whole(lab: CaseLab, size: int) -> None:
    """Nothing is lost and nothing overtakes, so MPTCP stays as it is."""
    run = _joined_transfer(lab, size)
    run.must_not_fall_back()
    run.must_not_reset()
    run.client.must_count(MPCapableSYNTX=1, MPJoinSynTx=1, MPJoinSynAckRx=1)
    run.server.must_count(MPCapableACKRX=1, MPJoinAckRx=1)


@case(
    topology="two-paths",
    groups=("duplicate", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 5ms duplicate 1%"),
)
def duplicate_1_percent(lab: CaseLab) -> None:
    """One packet in 100 comes twice."""
    _stays_whole(lab, mib(1))


@case(
    topology="two-paths",
    groups=("duplicate", "sweep"),
    families=FAMILIES,
    variables=_both("delay 5ms duplicate 100%"),
)
def everything_twice(lab: CaseLab) -> None:
    """Every packet comes twice, those of the handshakes too."""
    _stays_whole(lab, mib(1))


@case(
    topology="two-paths",
    groups=("variation", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 20ms 5ms"),
)
def delay_varies(lab: CaseLab) -> None:
    """15 to 25 ms, each packet for itself, so that they overtake each other."""
    _joined_transfer(lab, kib(512))


@case(
    topology="two-paths",
    groups=("variation", "sweep", SLOW),
    families=("6",),
    variables=_both("delay 20ms 6ms distribution pareto"),
)
def delay_varies_with_a_long_tail(lab: CaseLab) -> None:
    """Mostly 20 ms, sometimes much more."""
    _joined_transfer(lab, kib(512))


@case(
    topology="two-paths",
    groups=("variation", "sweep", SLOW),
    families=("4",),
    variables=_both("delay 5ms slot 5ms 10ms"),
)
def packets_come_in_bunches(lab: CaseLab) -> None:
    """As on a medium with turns: what has gathered for 5 to 10 ms comes out at once."""
    _stays_whole(lab, kib(512))


_ROOM = {"sysctls": "net.ipv4.tcp_rmem: 4096 1048576 6291456"}
"""For all of the data. Linux 6.18 counts what came too early with its overhead, so that many small pieces
fill the buffer beyond what the window allows, and what is missing finds no room any more.
"""


def _survives_corruption(lab: CaseLab) -> None:
    # Resolved addresses are not protected by any checksum: the links are sound until there are some.
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
    with (
        lab.measure() as run,
        lab.start_transfer(kib(512), kib(256), chunk_bytes=kib(8), pause_us=10_000) as transfer,
    ):
        lab.wait_for_count(run.server, "MPJoinAckRx", 1)
        for interface in ("eth0", "eth1"):
            lab.impair("server", interface, "corrupt 2%")
    transfer.must_be_intact()
    run.must_not_fall_back()
    run.client.must_count(DataCsumErr=0, MPFailTx=0)
    run.server.must_count(DataCsumErr=0, MPFailTx=0)


@case(
    topology="two-paths",
    groups=("corrupt", "sweep", SLOW),
    families=("6",),
    variables=_both("delay 5ms") | {"emulated": "true"} | _ROOM,
)
def corruption(lab: CaseLab) -> None:
    """One bit of each fiftieth packet is flipped: TCP's checksum tells, and it comes again."""
    _survives_corruption(lab)


@case(
    topology="two-paths",
    groups=("corrupt", "sweep", "checksum"),
    families=FAMILIES,
    variables=_both("delay 5ms") | {"emulated": "true", "checksums": "1"} | _ROOM,
)
def corruption_with_checksums(lab: CaseLab) -> None:
    """The same with the checksum of DSS, which never gets to see it (RFC 8684 §3.3.1)."""
    _survives_corruption(lab)


PATH_RATE_BIT_S = 20_000_000


@case(
    topology="two-paths",
    groups=("asymmetric", SLOW),
    families=("4",),
    variables={"impair": "rate 20mbit delay 2ms", "second_impair": "rate 2mbit delay 40ms"},
    is_timing_sensitive=True,
)
def slow_second_path(lab: CaseLab) -> None:
    """A path with a tenth of the rate and twenty times the delay: hardly slower than without it."""
    size = mib(2)
    _prepare(lab)
    with lab.measure() as run:
        began = lab.now()
        with lab.start_transfer(size, 0) as transfer:
            transfer.wait_until_all_arrived(20.0)
            elapsed_ms = round((lab.now() - began) * 1000)
    transfer.must_be_intact()
    run.must_join(1)
    one_path_ms = size * 8 * 1000 // PATH_RATE_BIT_S
    lab.note(f"{elapsed_ms} ms; one path alone needs {one_path_ms} ms")
    lab.must_take_at_most_ms(2 * one_path_ms + 400, elapsed_ms)


@case(
    topology="two-paths",
    groups=("asymmetric", SLOW),
    families=("6",),
    variables={
        "impair": '{"->": rate 20mbit delay 5ms, "<-": rate 1mbit delay 5ms}',
        "second_impair": '{"->": rate 1mbit delay 5ms, "<-": rate 20mbit delay 5ms}',
    },
)
def opposite_directions(lab: CaseLab) -> None:
    """One path is fast one way, the other one the other way; data goes both ways at once."""
    _prepare(lab)
    with lab.measure() as run:
        transfer = lab.transfer(mib(1))
    transfer.must_be_intact()
    transfer.must_speak_mptcp()
    run.must_join(1)


def _prepare(lab: CaseLab) -> None:
    lab.server.limits(subflows=1)
    lab.client.limits(subflows=1)
    lab.client.endpoint("eth1", subflow=True)
