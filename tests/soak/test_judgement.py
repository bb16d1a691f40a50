"""The soak finds what is wrong: each defect here is planted in a run that passes without it."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNRESET, EPIPE, ETIMEDOUT

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.mptcp import ending
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.settings import StackSettings
from mptcp_stack.simulator import Simulator
from mptcp_stack.stack import Stack
from testbed.soak import run
from testbed.soak.conversation import Party
from testbed.soak.hosts import Hosts
from testbed.soak.run import Soak, run_seed
from testbed.soak.scenario import ConversationPlan, Pace, PathPlan, Pattern, Scenario, Stripping, Trouble

WIRE = WireSettings(delay_us=5_000)


def scenario(
    *troubles: Trouble,
    path: PathPlan | None = None,
    pace: Pace | None = None,
    paths: int = 1,
    protocol: str = "mptcp",
    pattern: Pattern = Pattern.BOTH_AT_ONCE,
    download_bytes: int = 30_000,
    client: StackSettings | None = None,
) -> Scenario:
    plan = ConversationPlan(0, False, protocol, protocol, pattern, 50_000, download_bytes, pace or Pace())
    return Scenario(
        1,
        frozenset(troubles),
        (path or PathPlan(WIRE, WIRE),) * paths,
        client or StackSettings(),
        StackSettings(),
        (plan,),
    )


def problems(drawn: Scenario, prepare: Callable[[Soak], None] = lambda soak: None) -> list[str]:
    soak = Soak(drawn)
    prepare(soak)
    return list(soak.problems())


def test_nothing_wrong() -> None:
    assert problems(scenario()) == []


def test_changed_data(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self, limit: read(self, limit).replace(b"\x07", b"\x08"))
    found = problems(scenario())
    assert len(found) == 2
    assert "conversation 0, client: wrong from byte " in found[0]


def test_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self, limit: read(self, limit)[:-1])
    assert any("bytes came, 30000 were sent" in problem for problem in problems(scenario()))


def test_a_change_that_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def go_silent_later(soak: Soak) -> None:
        def go_silent() -> None:
            for connection in soak.hosts.client.connections():
                connection.on_change = None

        # Before the SYN/ACK has come.
        soak.hosts.simulator.call_at(7_000, go_silent)

    monkeypatch.setattr(run, "FINISH_LIMIT_US", 100_000_000)
    found = problems(scenario(), go_silent_later)
    assert found[0].startswith("does not end: ")
    assert "0 of 50000 bytes written" in found[1]


def test_a_reset_without_cause() -> None:
    def reset_later(soak: Soak) -> None:
        def reset() -> None:
            for connection in soak.hosts.server.connections():
                connection.abort()

        soak.hosts.simulator.call_at(26_000, reset)

    found = problems(scenario(), reset_later)
    assert any(f"conversation 0, client: error {ECONNRESET}" in problem for problem in found)


def test_a_reset_is_not_excused_by_loss() -> None:
    def reset_later(soak: Soak) -> None:
        def reset() -> None:
            for connection in soak.hosts.server.connections():
                connection.abort()

        soak.hosts.simulator.call_at(26_000, reset)

    found = problems(scenario(Trouble.LOSS), reset_later)
    assert any(f"conversation 0, client: error {ECONNRESET}" in problem for problem in found)


def silence(soak: Soak, has_begun: Callable[[Party], bool], duration_us: int) -> None:
    """Nothing of the client arrives for so long from the moment on that its end is as described."""
    simulator, wire = soak.hosts.simulator, soak.hosts.paths[0].link.forward

    def end() -> None:
        wire.is_up = True

    def look() -> None:
        if has_begun(soak.conversations[0].client):
            wire.is_up = False
            simulator.call_at(simulator.now_us + duration_us, end)
        else:
            simulator.call_at(simulator.now_us + 100, look)

    look()


@pytest.mark.parametrize(
    ("silence_us", "most_records", "is_good"),
    [(10_000_000, 4096, True), (100_000_000, 4096, True), (10_000_000, 0, False)],
    ids=["shorter than TIME_WAIT", "longer than TIME_WAIT", "without TIME_WAIT"],
)
def test_an_end_that_is_not_told_that_all_has_come(silence_us: int, most_records: int, is_good: bool) -> None:
    """It repeats the last of its data, and is reset when nobody remembers the connection any more."""
    client = StackSettings(tcp_max_tw_buckets=most_records)
    drawn = scenario(Trouble.LOSS, protocol="tcp", pattern=Pattern.REQUEST_AND_ANSWER, client=client)
    found = problems(
        drawn, lambda soak: silence(soak, lambda party: len(party.received) > 10_000, silence_us)
    )
    assert found == [] if is_good else "conversation 0, server: error " in found[0]


@pytest.mark.parametrize("is_cut_short", [False, True])
def test_a_close_that_is_cut_short(is_cut_short: bool) -> None:
    """Who has closed resets when the peer has taken nothing more for close_timeout, and not before."""

    def hurry(soak: Soak) -> None:
        # Nothing is exchanged in the stack, for in a compiled one that would change nothing.
        simulator = soak.hosts.simulator
        for connection in soak.hosts.client.connections():
            if connection.app_closed:
                connection.close_timer.set_if_earlier(simulator.now_us + 10_000_000)
        if simulator.now_us < 60_000_000:
            simulator.call_at(simulator.now_us + 1_000_000, lambda: hurry(soak))

    def prepare(soak: Soak) -> None:
        silence(soak, lambda party: party.has_finished, 300_000_000)
        if is_cut_short:
            hurry(soak)

    found = problems(scenario(Trouble.LOSS, pattern=Pattern.UPLOAD, download_bytes=0), prepare)
    assert any("conversation 0, server: error " in problem for problem in found) is is_cut_short
    assert is_cut_short or found == []


@pytest.mark.parametrize(("retries", "is_good"), [(15, True), (5, False)])
def test_a_sender_that_gives_up(retries: int, is_good: bool) -> None:
    """Nothing of it arrives any more; it must go on for a quarter of an hour."""
    drawn = scenario(Trouble.LOSS, protocol="tcp", client=StackSettings(tcp_retries2=retries))
    found = problems(drawn, lambda soak: silence(soak, lambda party: party.was_established, 1_500_000_000))
    assert found == [] if is_good else f"conversation 0, client: error {ETIMEDOUT}" in found[0]


def test_a_connection_that_ends_in_the_middle_of_writing() -> None:
    def end_later(soak: Soak) -> None:
        def end_all() -> None:
            for connection in list(soak.hosts.client.connections()):
                ending.end(connection, None, soak.hosts.simulator.now_us)

        soak.hosts.simulator.call_at(26_000, end_all)

    drawn = scenario(client=StackSettings(send_buffer_bytes=16_384))
    assert any(f"client: error {EPIPE}, " in problem for problem in problems(drawn, end_later))


def test_a_reset_is_not_excused_by_damage_that_nobody_found() -> None:
    def reset_later(soak: Soak) -> None:
        def reset() -> None:
            for connection in soak.hosts.server.connections():
                connection.abort()

        soak.hosts.simulator.call_at(26_000, reset)

    found = problems(scenario(Trouble.DATA_CORRUPTION), reset_later)
    assert any(f"conversation 0, client: error {ECONNRESET}" in problem for problem in found)


def test_changed_data_is_not_excused_where_the_checksum_of_dss_should_find_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self, limit: read(self, limit).replace(b"\x07", b"\x08"))
    found = problems(scenario(Trouble.DATA_CORRUPTION))
    assert any("conversation 0, client: wrong from byte " in problem for problem in found)


@pytest.mark.parametrize(
    ("to_client", "server_port", "reported"),
    [(True, 5000, ["server"]), (False, 5000, ["client"]), (True, 5001, ["client", "server"])],
    ids=["on the way to the client", "on the way to the server", "of another conversation"],
)
def test_changed_data_is_excused_only_where_it_was_changed(
    monkeypatch: pytest.MonkeyPatch, to_client: bool, server_port: int, reported: list[str]
) -> None:
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self, limit: read(self, limit).replace(b"\x07", b"\x08"))

    def damage_much(soak: Soak) -> None:
        soak.hosts.paths[0].boxes[to_client].damaged[server_port] = 1000

    found = problems(scenario(Trouble.DATA_CORRUPTION, protocol="tcp"), damage_much)
    assert [problem.split(":")[0] for problem in found] == [f"conversation 0, {name}" for name in reported]


@pytest.mark.parametrize(("server_port", "is_excused"), [(5000, True), (5001, False)])
def test_an_end_is_excused_only_where_options_vanished(
    monkeypatch: pytest.MonkeyPatch, server_port: int, is_excused: bool
) -> None:
    monkeypatch.setattr(Hosts, "stripped_packets", lambda self, port: int(port == server_port))
    path = PathPlan(WIRE, WIRE, stripping=Stripping.LATER)

    def reset_later(soak: Soak) -> None:
        def reset() -> None:
            for connection in soak.hosts.server.connections():
                connection.abort()

        soak.hosts.simulator.call_at(26_000, reset)

    found = problems(scenario(Trouble.STRIPPING, path=path), reset_later)
    assert ("conversation 0, client: error" not in " ".join(found)) is is_excused


def test_more_than_the_buffers_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "unacknowledged_bytes", 1 << 30)
    monkeypatch.setattr(run, "FINISH_LIMIT_US", 100_000_000)
    soak = Soak(scenario())
    list(soak.problems())
    ((what, most, limit),) = soak.conversations[0].client.excesses()
    assert (what, most, limit) == ("unacknowledged", 1 << 30, 4096 + 9 * (4 << 20) + 32767)


def test_a_fallback_without_cause() -> None:
    stripping = PathPlan(WIRE, WIRE, stripping=Stripping.ALL)
    found = problems(scenario(path=stripping))
    assert "conversation 0, client: fell back to TCP without cause" in found
    assert problems(scenario(Trouble.STRIPPING, path=stripping)) == []


def test_a_retransmission_without_cause() -> None:
    lossy = WireSettings(delay_us=5_000, loss=0.05)
    found = problems(scenario(path=PathPlan(lossy, lossy)))
    assert any("TcpRetransSegs is" in problem for problem in found)
    assert problems(scenario(Trouble.LOSS, path=PathPlan(lossy, lossy))) == []


def test_a_gauge_that_does_not_come_back() -> None:
    found = problems(scenario(), lambda soak: soak.hosts.client.counters.increment("TcpCurrEstab"))
    assert found == ["client: TcpCurrEstab is 1"]


def test_a_connection_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "forget", lambda self, connection: None)
    monkeypatch.setattr(run, "REST_LIMIT_US", 100_000_000)
    (found,) = problems(scenario())
    assert "client: 1 connections, client: 1 tokens" in found
    assert "server: 1 connections, server: 1 tokens" in found


def test_a_timer_that_is_left() -> None:
    def leave_a_timer(soak: Soak) -> None:
        soak.hosts.client.environment.timers.timer(lambda now_us: None).set(10**12)

    (found,) = problems(scenario(), leave_a_timer)
    assert found == "left behind: client: a timer"


def test_an_exception_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Simulator) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(Simulator, "next_event_us", fail)
    result = run_seed(1)
    assert len(result.problems) == 1
    assert result.problems[0].startswith("ValueError: planted")


def test_after_an_abort_what_came_is_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    aborting = scenario(pace=Pace(aborts_after_bytes=70_000))
    assert problems(aborting) == []
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self, limit: read(self, limit).replace(b"\x07", b"\x08"))
    assert any("wrong from byte" in problem for problem in problems(aborting))
