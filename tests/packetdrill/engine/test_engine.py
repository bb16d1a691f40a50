"""The engine on the bundled stack: times, packets, blocking calls, code, and what failures say."""

from __future__ import annotations

import pytest

from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.stack_under_test import IpVersion
from tests.packetdrill.engine.scripts import MPTCP_ACCEPTED, TCP_ACCEPTED, play


def failure_of(text: str) -> str:
    with pytest.raises(ScriptFailureError) as caught:
        play(text)
    return str(caught.value)


@pytest.mark.parametrize("version", list(IpVersion))
@pytest.mark.parametrize("start", [TCP_ACCEPTED, MPTCP_ACCEPTED], ids=["tcp", "mptcp"])
def test_the_same_script_serves_every_ip_version(start: str, version: IpVersion) -> None:
    play(start, version)


def test_a_blocking_call_returns_when_the_data_comes() -> None:
    play(TCP_ACCEPTED + "+0...0.2 read(4, ..., 1000) = 10\n+0.2 < P. 1:11(10) ack 1 win 256\n")


def test_a_blocking_call_that_returns_at_another_time_fails() -> None:
    message = failure_of(
        TCP_ACCEPTED + "+0...0.3 read(4, ..., 1000) = 10\n+0.2 < P. 1:11(10) ack 1 win 256\n"
    )
    assert "test.pkt:9: time of return: expected at 0.4, got at 0.3 with 10" in message


def test_a_call_that_waits_for_ever_is_found_at_once() -> None:
    assert "still blocked" in failure_of(TCP_ACCEPTED + "+0...1000 read(4, ..., 1000) = 10\n")
    assert "it blocks" in failure_of(TCP_ACCEPTED + "+0 read(4, ..., 1000) = 10\n")


def test_a_packet_that_never_comes_is_found_at_once() -> None:
    message = failure_of(TCP_ACCEPTED + "* > P. 1:101(100) ack 1\n")
    assert "test.pkt:9: packet: expected one, got none" in message
    assert "- > P. 1:101(100) ack 1" in message


def test_a_late_packet_is_shown_with_its_time() -> None:
    message = failure_of(
        TCP_ACCEPTED + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n+0.1 > P. 1:101(100) ack 1\n"
    )
    assert "time: expected 0.2 (+0.1), got 0.4" in message


def test_an_unexpected_packet_before_the_expected_one_fails() -> None:
    message = failure_of(TCP_ACCEPTED + "+0 write(4, ..., 100) = 100\n+0 > . 1:1(0) ack 1\n")
    assert "length: expected 0, got 100" in message


def test_a_failure_shows_a_diff_and_the_last_packets() -> None:
    message = failure_of(TCP_ACCEPTED + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 2\n")
    lines = message.splitlines()
    assert lines[0] == "test.pkt:10: ack: expected 2, got 1"
    assert "  - > P. 1:101(100) ack 2" in lines
    assert any(line.startswith("  + > P. 1:101(100) ack 1 win ") for line in lines)
    assert "    0.100000 < . 1:1(0) ack 1 win 256" in lines


def test_what_a_script_writes_as_one_packet_may_come_as_two() -> None:
    play(TCP_ACCEPTED + "+0 write(4, ..., 2920) = 2920\n+0 > P. 1:2921(2920) ack 1\n")


def test_segments_may_be_compared_strictly() -> None:
    segments = "+0 write(4, ..., 2920) = 2920\n+0 > . 1:1461(1460) ack 1\n+0 > P. 1461:2921(1460) ack 1\n"
    play("--strict_segments\n" + TCP_ACCEPTED + segments)
    joined = "+0 write(4, ..., 2920) = 2920\n+0 > P. 1:2921(2920) ack 1\n"
    assert "length: expected 2920, got 1460" in failure_of("--strict_segments\n" + TCP_ACCEPTED + joined)


def test_the_trace_of_a_run_is_a_script_that_passes() -> None:
    trace = play(
        MPTCP_ACCEPTED
        + "+0 < P. 1:1001(1000) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=1000 nocs, nop, nop>\n"
        "+0~+.05 > . 1:1(0) ack 1001 <dss dack8=1001 nocs>\n"
        "+0 read(4, ..., 1000) = 1000\n"
    )
    assert play("\n".join(trace).replace("key[ckey, skey]", "key[ckey=2, skey]")) == trace


GONE = "addr[caddr0]:40000 > addr[saddr0]:8080"
BACK = "addr[saddr0]:8080 > addr[caddr0]:40000"
CLOSED = (
    TCP_ACCEPTED
    + "+0 close(4) = 0\n+0 > F. 1:1(0) ack 1\n+.1 < F. 1:1(0) ack 2 win 256\n+0 > . 2:2(0) ack 2\n"
)
TIMED_OUT = (
    "`sysctl net.ipv4.tcp_retries2=1`\n"
    + TCP_ACCEPTED
    + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n"
    + "+.3 > P. 1:101(100) ack 1\n+5 close(4) = 0\n"
)


@pytest.mark.parametrize("before", [CLOSED, TIMED_OUT], ids=["closed", "timed out"])
def test_a_connection_between_the_same_ports_counts_anew(before: str) -> None:
    play(
        before
        + f"+.1 < {GONE} S 9000:9000(0) win 65535 <mss 1460>\n"
        + f"+0 > {BACK} S. 0:0(0) ack 9001 <...>\n"
        + f"+.1 < {GONE} . 9001:9001(0) ack 1 win 256\n"
        + "+0 accept(3, ..., ...) = 5\n"
        + f"+0 write(5, ..., 10) = 10\n+0 > {BACK} P. 1:11(10) ack 9001\n"
    )


def test_what_remains_of_a_connection_is_counted_as_before() -> None:
    play(CLOSED + f"+.1 < {GONE} S 0:0(0) win 65535 <mss 1460>\n+0 > {BACK} . 2:2(0) ack 2\n")


def test_connecting_again_from_the_same_port_counts_anew() -> None:
    attempt = (
        "+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n"
        '+0 bind(3, {sa_family=AF_INET, sin_port=htons(5000), sin_addr=inet_addr("192.168.0.1")}, 16) = 0\n'
        "+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n"
        "+0 connect(3, ..., ...) = -1 EINPROGRESS\n"
        "+0 > S 0:0(0) <...>\n+1 > S 0:0(0) <...>\n+0 close(3) = 0\n"
    )
    trace = play(attempt + attempt)
    assert [line.split()[1:4] for line in trace if " > S " in line] == [[">", "S", "0:0(0)"]] * 4


def test_a_repeated_syn_must_have_the_same_number() -> None:
    """The script says where numbers begin with the first, not with each."""
    connecting = (
        "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n"
        "+0 connect(3, ..., ...) = -1 EINPROGRESS\n+0 > S 0:0(0) <...>\n"
    )
    assert "sequence: expected 1, got 0" in failure_of(connecting + "+1 > S 1:1(0) <...>\n")


def test_code_sees_the_fields_of_tcp_info() -> None:
    play(TCP_ACCEPTED + "+0 %{ assert tcpi_snd_cwnd == 10 and tcpi_state == TCP_ESTABLISHED }%\n")
    message = failure_of(TCP_ACCEPTED + "+0 %{\nx = 1\nassert tcpi_snd_cwnd == 11\n}%\n")
    assert "test.pkt:9: not true: assert tcpi_snd_cwnd == 11 (tcpi_snd_cwnd = 10)" in message


def test_code_that_is_wrong_is_a_failure_with_its_line() -> None:
    assert "NameError" in failure_of(TCP_ACCEPTED + "+0 %{ assert tcpi_nothing }%\n")
    assert "NameError" in failure_of(TCP_ACCEPTED + "+0 %{ open('/etc/passwd') }%\n")


def test_a_dead_descriptor_is_ebadf() -> None:
    message = failure_of(TCP_ACCEPTED + "+0 close(4) = 0\n+0 read(4, ..., 10) = 0\n")
    assert "test.pkt:10: return value: expected 0, got -1 EBADF" in message


def test_the_wrong_errno_is_named() -> None:
    message = failure_of("0 socket(..., SOCK_STREAM, 0) = 3\n+0 listen(99, 1) = -1 ENOTSOCK\n")
    assert "errno: expected ENOTSOCK, got EBADF" in message


def test_a_call_or_an_argument_that_cannot_be_carried_out_is_one_message() -> None:
    assert "test.pkt:9: descriptor: expected a number" in failure_of(
        TCP_ACCEPTED + '+0 read("x", ..., 1) = 0\n'
    )


def test_a_key_without_a_value_is_one_message() -> None:
    assert "nokey" in failure_of(
        TCP_ACCEPTED + "+0 < . 1:1(0) ack 1 <mp_join_ack sender_hmac=full_160_hmac(nokey nokey)>\n"
    )


def test_commands_work_on_the_stack_itself() -> None:
    play("`sysctl -q net.mptcp.enabled=0`\n0 socket(..., SOCK_STREAM, IPPROTO_MPTCP) = -1 ENOPROTOOPT\n")
    play(MPTCP_ACCEPTED + "+0 `nstat -n; ip mptcp limits set subflows 3 add_addr_accepted 1`\n")
    message = failure_of("0 `rm -rf /nowhere`\n")
    assert "test.pkt:1: exit code: expected 0, got 2: rm: the bundled stack knows only ip" in message
