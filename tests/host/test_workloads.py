"""Workloads over the loopback interface: every kind, every way to end, and the milestones on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mptcp_stack.sockets.common_options import TCP_INQ
from testbed.host.kernel_streams import KernelNetwork
from testbed.host.protocol import CloseKind, ConnectionResult, Role, SocketOption, Workload, WorkloadKind
from testbed.host.rpc_server import RequestError
from testbed.host.steps import StepRequests
from testbed.host.workloads import RunningWorkload, WorkloadError

NETWORK = KernelNetwork(speaks_mptcp=False)
LISTENER = Workload(WorkloadKind.TRANSFER, Role.LISTEN, "::1", 0, timeout_us=10_000_000)
CONNECTOR = replace(LISTENER, role=Role.CONNECT)


def request_response(workload: Workload, request_bytes: int, response_bytes: int) -> Workload:
    return replace(
        workload,
        kind=WorkloadKind.REQUEST_RESPONSE,
        send_bytes=request_bytes,
        response_bytes=response_bytes,
    )


def start(workload: Workload) -> RunningWorkload:
    running = RunningWorkload(workload, NETWORK)
    running.start()
    return running


def start_both(listener: Workload, connector: Workload) -> tuple[RunningWorkload, RunningWorkload]:
    listening = start(listener)
    return listening, start(replace(connector, port=listening.progress().port))


def play(
    listener: Workload,
    connector: Workload,
    meanwhile: Callable[[RunningWorkload, RunningWorkload], Awaitable[None]] | None = None,
) -> tuple[list[ConnectionResult], list[ConnectionResult]]:
    """The results of both ends."""

    async def run() -> tuple[list[ConnectionResult], list[ConnectionResult]]:
        listening, connecting = start_both(listener, connector)
        if meanwhile is not None:
            await meanwhile(listening, connecting)
        await connecting.wait("done")
        await listening.wait("done")
        return listening.results, connecting.results

    return asyncio.run(run())


def test_transfer_both_ways() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, send_bytes=3_000_000, send_seed=1), replace(CONNECTOR, send_bytes=700, send_seed=2)
    )
    assert (listener.error, connector.error) == (None, None)
    assert (listener.bytes_received, connector.bytes_received) == (700, 3_000_000)
    assert listener.sha256_sent == connector.sha256_received
    assert connector.sha256_sent == listener.sha256_received
    assert not listener.is_mptcp
    assert (listener.local, listener.remote) == (connector.remote, connector.local)


@pytest.mark.parametrize(
    ("way", "peek"), [("mmap", ""), ("sendfile", ""), ("splice", ""), ("write", "with"), ("write", "after")]
)
def test_other_ways_to_move_bytes(way: str, peek: str) -> None:
    """More than any buffer holds, so that each way has to wait for room."""
    listener, connector = (
        dataclasses.replace(one, send_bytes=9_000_000, send_seed=seed, way=way, peek=peek)
        for seed, one in enumerate((LISTENER, CONNECTOR))
    )
    (first,), (second,) = play(listener, connector)
    assert (first.error, second.error) == (None, None)
    assert (first.sha256_sent, second.sha256_sent) == (second.sha256_received, first.sha256_received)


def test_early_data_is_the_first_that_is_sent() -> None:
    """Whether or not the kernel lets it go with the SYN."""
    listener, connector = (
        dataclasses.replace(one, send_bytes=5000, fast_open=True) for one in (LISTENER, CONNECTOR)
    )
    (first,), (second,) = play(listener, connector)
    assert (first.error, second.error) == (None, None)
    assert (first.sha256_sent, second.sha256_sent) == (second.sha256_received, first.sha256_received)


def test_an_ipv6_listener_serves_ipv4() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, address="::"), replace(CONNECTOR, address="127.0.0.1", send_bytes=10)
    )
    assert (listener.error, connector.error, listener.bytes_received) == (None, None, 10)
    assert listener.remote == connector.local


def test_many_connections_each_with_its_own_data() -> None:
    listeners, connectors = play(
        replace(LISTENER, connections=20, send_bytes=100),
        replace(CONNECTOR, connections=20, send_bytes=3000),
    )
    sent = sorted(result.sha256_sent for result in connectors)
    assert sent == sorted(result.sha256_received for result in listeners)
    assert len(set(sent)) == 20


def test_rounds_on_the_same_socket() -> None:
    """Each with data of its own, and each over a connection of its own."""
    listener, connector = play(
        replace(LISTENER, send_bytes=100_000, send_seed=1, connections=3),
        replace(CONNECTOR, send_bytes=300_000, send_seed=2, rounds=3),
    )
    assert [result.error for result in (*listener, *connector)] == [None] * 6
    assert [result.sha256_sent for result in connector] == [result.sha256_received for result in listener]
    assert [result.sha256_received for result in connector] == [result.sha256_sent for result in listener]
    assert len({result.sha256_sent for result in connector}) == 3
    assert [result.local for result in connector] == [result.remote for result in listener]


def test_a_round_that_fails_is_the_last() -> None:
    listener, connector = play(
        replace(LISTENER, send_bytes=100, connections=1), replace(CONNECTOR, send_bytes=100, rounds=3)
    )
    assert [result.error for result in listener] == [None]
    assert [result.error for result in connector] == [None, "ECONNREFUSED", "stopped"]


def test_echo() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.ECHO),
        replace(CONNECTOR, kind=WorkloadKind.ECHO, send_bytes=2_000_000),
    )
    assert (listener.error, connector.error) == (None, None)
    assert connector.sha256_sent == connector.sha256_received == listener.sha256_received
    assert connector.bytes_received == 2_000_000


def test_an_echo_that_differs_is_an_error() -> None:
    _, (connector,) = play(
        replace(LISTENER, send_bytes=1000, send_seed=1),
        replace(CONNECTOR, kind=WorkloadKind.ECHO, send_bytes=1000),
    )
    assert connector.error == "EBADMSG"


def test_request_response() -> None:
    (listener,), (connector,) = play(
        request_response(LISTENER, 1000, 70_000),
        replace(request_response(CONNECTOR, 1000, 70_000), requests=25),
    )
    assert (listener.error, connector.error) == (None, None)
    assert (connector.bytes_sent, connector.bytes_received) == (25_000, 25 * 70_000)
    assert listener.sha256_sent == connector.sha256_received
    assert connector.sha256_sent == listener.sha256_received


def test_a_response_that_is_too_short_is_an_error() -> None:
    _, (connector,) = play(replace(LISTENER, send_bytes=20), request_response(CONNECTOR, 10, 70))
    assert connector.error == "EPIPE"


def test_a_response_that_is_too_long_is_an_error() -> None:
    _, (connector,) = play(replace(LISTENER, send_bytes=90), request_response(CONNECTOR, 10, 70))
    assert connector.error == "EBADMSG"


def test_hold_ends_at_finish() -> None:
    async def hold(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await connecting.wait("holding")
        await listening.wait("holding")
        assert connecting.progress().state == "holding"
        assert not connecting.has_ended
        connecting.finish()

    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.HOLD), replace(CONNECTOR, kind=WorkloadKind.HOLD), hold
    )
    assert (listener.error, connector.error) == (None, None)


@pytest.mark.parametrize("kind", [WorkloadKind.TRANSFER, WorkloadKind.ECHO, WorkloadKind.REQUEST_RESPONSE])
def test_connections_stay_open_after_the_data(kind: WorkloadKind) -> None:
    async def hold(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await connecting.wait("holding")
        await listening.wait("received 5000 bytes")
        assert not listening.has_ended
        connecting.finish()

    own_bytes = 0 if kind is WorkloadKind.TRANSFER else 5000
    (listener,), (connector,) = play(
        replace(LISTENER, kind=kind, response_bytes=100, send_bytes=own_bytes),
        replace(CONNECTOR, kind=kind, response_bytes=100, send_bytes=5000, hold_open_after=True),
        hold,
    )
    assert (listener.error, connector.error) == (None, None)


def test_abort_at_once_after_the_data() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, send_bytes=50_000_000), replace(CONNECTOR, close=CloseKind.ABORT, send_bytes=100)
    )
    assert connector.error is None
    assert (connector.bytes_sent, connector.bytes_received < 50_000_000) == (100, True)
    assert listener.error == "ECONNRESET"
    assert "Connection reset" in listener.detail


@pytest.mark.parametrize("sender", [Role.CONNECT, Role.LISTEN])
def test_abort_after_so_many_bytes(sender: Role) -> None:
    is_connector = sender is Role.CONNECT
    (listener,), (connector,) = play(
        replace(LISTENER, send_bytes=0 if is_connector else 5_000_000),
        replace(
            CONNECTOR,
            send_bytes=5_000_000 if is_connector else 0,
            close=CloseKind.ABORT,
            abort_after_bytes=1_000_000,
        ),
    )
    assert connector.error is None
    assert listener.error in ("ECONNRESET", "EPIPE")
    if is_connector:
        assert connector.bytes_sent == 1_000_000
    else:
        assert 1_000_000 <= connector.bytes_received < 5_000_000


def test_hold_can_end_with_an_abort() -> None:
    async def hold(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await listening.wait("connected")
        await connecting.wait("holding")
        connecting.finish()

    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.HOLD),
        replace(CONNECTOR, kind=WorkloadKind.HOLD, close=CloseKind.ABORT),
        hold,
    )
    assert (listener.error, connector.error) == ("ECONNRESET", None)


def test_slow_sending_takes_its_time() -> None:
    _, (connector,) = play(LISTENER, replace(CONNECTOR, send_bytes=10_000, chunk_bytes=1000, pause_us=10_000))
    assert connector.error is None
    assert connector.duration_us >= 10 * 10_000


def test_files_go_through(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"0123456789" * 100_000)
    (listener,), (connector,) = play(
        replace(LISTENER, receive_file=str(target)), replace(CONNECTOR, send_file=str(source))
    )
    assert (listener.error, connector.error) == (None, None)
    assert target.read_bytes() == source.read_bytes()
    assert connector.sha256_sent == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_full_disk_is_an_error_of_the_connection() -> None:
    (listener,), _ = play(replace(LISTENER, receive_file="/dev/full"), replace(CONNECTOR, send_bytes=100_000))
    assert listener.error == "ENOSPC"


def test_a_file_that_does_not_exist_is_an_error_of_the_connection() -> None:
    _, (connector,) = play(
        replace(LISTENER, timeout_us=300_000), replace(CONNECTOR, send_file="/nonexistent/file")
    )
    assert connector.error == "ENOENT"


def test_without_verification_the_hashes_stay_empty() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, verify=False), replace(CONNECTOR, verify=False, send_bytes=3_000_000)
    )
    assert listener.bytes_received == 3_000_000
    assert (listener.sha256_received, connector.sha256_sent) == ("", "")


def test_nobody_listens() -> None:
    async def run() -> None:
        listening = start(LISTENER)
        port = listening.progress().port
        listening.stop()
        await listening.ended()
        connecting = start(replace(CONNECTOR, port=port))
        with pytest.raises(WorkloadError, match="ended before 'connected': ECONNREFUSED"):
            await connecting.wait("connected")
        assert connecting.progress().state == "failed"

    asyncio.run(run())


def test_the_watchdog_ends_a_connection_that_stalls() -> None:
    (listener,), (connector,) = play(
        replace(LISTENER, hold_open_after=True, timeout_us=300_000),
        replace(CONNECTOR, send_bytes=10, timeout_us=100_000),
    )
    assert connector.error == "timeout"
    assert '"tcp_state": "fin-wait-2"' in connector.detail
    assert listener.error == "timeout"


def test_the_watchdog_ends_a_listener_that_waits() -> None:
    async def run() -> None:
        listening = start(replace(LISTENER, connections=2, timeout_us=50_000))
        await listening.wait("done")
        assert [result.error for result in listening.results] == ["timeout", "timeout"]
        assert listening.progress().error == "timeout: 0 of 2 connections came"

    asyncio.run(run())


def test_stop_aborts_connections() -> None:
    async def stop(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await listening.wait("accepted 1")
        await connecting.wait("holding")
        connecting.stop()
        connecting.stop()

    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.HOLD), replace(CONNECTOR, kind=WorkloadKind.HOLD), stop
    )
    assert (listener.error, connector.error) == ("ECONNRESET", "stopped")


def test_milestones_of_a_transfer() -> None:
    async def watch(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await listening.wait("listening")
        await connecting.wait("connected")
        await listening.wait("accepted 1")
        await connecting.wait("sent 100000 bytes")
        await listening.wait("received 100000 bytes")
        assert listening.progress().bytes_received >= 100_000
        with pytest.raises(WorkloadError, match="ended before 'received 2000000 bytes'"):
            await listening.wait("received 2000000 bytes")

    play(LISTENER, replace(CONNECTOR, send_bytes=1_000_000), watch)


@pytest.mark.parametrize(
    "milestone", ["", "lunch", "accepted", "accepted -1", "received many bytes", "sent 1e9"]
)
def test_unknown_milestones_are_refused(milestone: str) -> None:
    async def run() -> None:
        listening = start(LISTENER)
        with pytest.raises(WorkloadError, match="unknown milestone"):
            await listening.wait(milestone)
        listening.stop()
        await listening.ended()

    asyncio.run(run())


def test_a_workload_that_makes_no_sense_names_every_problem() -> None:
    workload = replace(
        CONNECTOR,
        kind=WorkloadKind.REQUEST_RESPONSE,
        port=70_000,
        protocol="sctp",
        connections=0,
        timeout_us=0,
        chunk_bytes=-1,
    )
    with pytest.raises(WorkloadError) as caught:
        RunningWorkload(workload, NETWORK)
    for word in ("port", "sctp", "connections", "timeout_us", "chunk_bytes", "size of a request"):
        assert word in str(caught.value)


def test_options_are_set_before_connecting_and_listening() -> None:
    keep_idle = SocketOption(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)

    async def act(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await listening.wait("holding")
        await connecting.wait("holding")
        for workload in (listening, connecting):
            told = workload.exchange(0).stream.get_option(keep_idle.level, keep_idle.option, 4, b"")
            assert told == struct.pack("=i", 77)
            workload.finish()

    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.HOLD, options=(keep_idle,)),
        replace(CONNECTOR, kind=WorkloadKind.HOLD, options=(keep_idle,)),
        act,
    )
    assert (listener.error, connector.error) == (None, None)


def test_an_option_that_does_not_exist_ends_the_connection() -> None:
    nonsense = (SocketOption(socket.IPPROTO_TCP, 9999, 1),)
    with pytest.raises(OSError, match="Protocol not available"):
        play(replace(LISTENER, options=nonsense), CONNECTOR)
    (_, (connector,)) = play(replace(LISTENER, timeout_us=10_000), replace(CONNECTOR, options=nonsense))
    assert connector.error == "ENOPROTOOPT"


def test_steps() -> None:
    """Data in the order in which it was told, the end, and what the queues hold; then the kernel's error."""

    async def act(listening: RunningWorkload, connecting: RunningWorkload) -> None:
        await listening.wait("holding")
        await connecting.wait("holding")
        sender, receiver = connecting.exchange(0), listening.exchange(0)
        for amount in (10, 20):
            sender.send_soon(amount)
        await connecting.wait("sent 30 bytes")
        while receiver.stream.queued(termios.FIONREAD) < 30:
            await asyncio.sleep(0)
        assert await receiver.receive_once(25) == (25, None)
        receiver.stream.set_option(socket.IPPROTO_TCP, TCP_INQ, struct.pack("=i", 1))
        assert await receiver.receive_once(3) == (3, 2)
        sender.end_soon()
        assert (await receiver.receive_once(9))[0] == 2
        assert await receiver.receive_once(9) == (0, 1)
        for workload in (listening, connecting):
            workload.finish()

    (listener,), (connector,) = play(
        replace(LISTENER, kind=WorkloadKind.STEPS),
        replace(CONNECTOR, kind=WorkloadKind.STEPS, send_seed=3),
        act,
    )
    assert (listener.error, connector.error) == (None, None)
    assert listener.sha256_received == connector.sha256_sent
    assert (listener.bytes_received, connector.bytes_sent) == (30, 30)


def test_steps_are_told_of_workloads_of_steps() -> None:
    async def run() -> None:
        listening, connecting = start_both(
            replace(LISTENER, kind=WorkloadKind.HOLD), replace(CONNECTOR, kind=WorkloadKind.HOLD)
        )
        await connecting.wait("holding")
        requests = StepRequests(lambda _workload, number: connecting.exchange(number)).methods()["step"]
        asked = {"id": 1, "connection": 0, "kind": "ask", "number": int(termios.FIONREAD)}
        assert await requests(asked) == {"value": 0, "unread": None}
        assert await requests({**asked, "number": 1}) == {"errno": "ENOTTY"}
        with pytest.raises(RequestError, match="none of steps"):
            await requests({**asked, "kind": "send"})
        with pytest.raises(RequestError, match="number: expected"):
            await requests({**asked, "number": -1})
        for workload in (listening, connecting):
            workload.stop()
            await workload.ended()

    asyncio.run(run())


def test_only_listeners_are_transparent() -> None:
    with pytest.raises(WorkloadError, match="transparent is for listeners"):
        RunningWorkload(replace(CONNECTOR, port=9, transparent=True), NETWORK)


def test_rounds_end_in_order_only() -> None:
    with pytest.raises(WorkloadError, match=r"role does not go with rounds; close does.*; fast_open does"):
        RunningWorkload(replace(LISTENER, rounds=2, close=CloseKind.ABORT, fast_open=True), NETWORK)


def test_a_port_that_is_taken_is_told_at_the_start() -> None:
    async def run() -> None:
        listening = start(LISTENER)
        with pytest.raises(OSError, match="Address already in use"):
            start(replace(LISTENER, port=listening.progress().port))
        listening.stop()
        await listening.ended()

    asyncio.run(run())


@pytest.mark.parametrize("address", ["localhost", "10.0.0.300", "", "example.org"])
def test_names_are_not_resolved(address: str) -> None:
    async def run() -> None:
        with pytest.raises(OSError, match="not an IP address"):
            start(replace(LISTENER, address=address))

    asyncio.run(run())


def test_a_connection_that_never_came_has_no_stream() -> None:
    async def run() -> None:
        running = start(LISTENER)
        with pytest.raises(WorkloadError, match="no connection 0: 0 came"):
            running.exchange(0)
        running.stop()
        await running.ended()

    asyncio.run(run())
