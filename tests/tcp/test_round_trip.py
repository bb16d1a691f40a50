"""RFC 6298's numbers, with Linux's floor on the variance term."""

from __future__ import annotations

from mptcp_stack.tcp.round_trip import RoundTripEstimator

SECOND_US = 1_000_000


def estimator(minimum_rto_us: int = 200_000) -> RoundTripEstimator:
    return RoundTripEstimator(minimum_rto_us, 120 * SECOND_US)


def test_first_timeout_is_a_second() -> None:
    assert estimator().rto_us == SECOND_US


def test_first_sample() -> None:
    """§2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR."""
    round_trip = estimator()
    round_trip.on_sample(100_000)
    assert (round_trip.srtt_us, round_trip.rttvar_us) == (100_000, 50_000)
    assert round_trip.rto_us == 300_000


def test_second_sample() -> None:
    """§2.3: RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R'|, then SRTT = 7/8 SRTT + 1/8 R'."""
    round_trip = estimator()
    round_trip.on_sample(100_000)
    round_trip.on_sample(180_000)
    assert (round_trip.srtt_us, round_trip.rttvar_us) == (110_000, 57_500)
    assert round_trip.rto_us == 110_000 + 4 * 57_500


def test_steady_samples_leave_the_floor() -> None:
    round_trip = estimator()
    for _ in range(100):
        round_trip.on_sample(30_000)
    assert round_trip.rto_us == 230_000
    without_floor = estimator(minimum_rto_us=0)
    for _ in range(100):
        without_floor.on_sample(30_000)
    assert without_floor.rto_us == 31_000


def test_back_off_doubles_up_to_the_maximum() -> None:
    round_trip = estimator()
    timeouts = []
    for _ in range(9):
        timeouts.append(round_trip.rto_us // SECOND_US)
        round_trip.back_off()
    assert timeouts == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    round_trip.on_sample(100_000)
    assert round_trip.rto_us == 300_000


def test_fallback_after_a_repeated_handshake() -> None:
    """§5.7: three seconds, until there is a sample."""
    round_trip = estimator()
    round_trip.back_off()
    round_trip.on_repeated_handshake()
    assert round_trip.rto_us == 3 * SECOND_US
    round_trip.on_sample(100_000)
    assert round_trip.rto_us == 300_000


def test_sample_of_nothing_is_a_microsecond() -> None:
    round_trip = estimator()
    for _ in range(50):
        round_trip.on_sample(0)
    assert round_trip.srtt_us == 1
