"""Commands on the bundled stack: several in one, filters behind them, and what is refused before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mptcp_stack.errors import ConfigurationError
from testbed.packetdrill.command_lines import Pipeline, filtered, read_commands, with_variables
from testbed.packetdrill.errors import PacketScriptError
from testbed.packetdrill.failure_report import ScriptFailureError
from testbed.packetdrill.stack_under_test import IpVersion
from testbed.packetdrill.suite import plan
from tests.packetdrill.engine.scripts import MPTCP_ACCEPTED, play


def test_commands_are_parted_as_by_a_shell() -> None:
    assert read_commands("nstat -n; ip mptcp limits && true\n\nsysctl 'a | b' | grep -q x | wc -l") == [
        Pipeline(("nstat", "-n")),
        Pipeline(("ip", "mptcp", "limits")),
        Pipeline(("true",)),
        Pipeline(("sysctl", "a | b"), (("grep", "-q", "x"), ("wc", "-l"))),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rm -rf /", "rm: the bundled stack knows only ip, nstat, sysctl, true"),
        ("nstat > file", ">: there is no shell here; known are ; && and |"),
        ("nstat 2>&1", ">&: there is no shell here"),
        ("true || true", "||: there is no shell here"),
        ("true & true", "&: there is no shell here"),
        ("nstat | awk x", "| awk: there is no shell here"),
        ("nstat | gerp x", "did you mean 'grep'?"),
        ("nstat |", "|: a command is missing before or after it"),
        ("| grep x", "|: a command is missing before or after it"),
        ("nstat | grep", "grep: expected one pattern, and no file"),
        ("nstat | grep x file", "grep: expected one pattern, and no file"),
        ("nstat | grep -r x", "grep -r: expected options of -qvciEF"),
        ("nstat | grep '('", "grep '(':"),
        ("nstat | head -c 5", "head: expected -n and a number of lines"),
        ("nstat | wc", "wc: expected -l"),
        ("ip 'mptcp", "ip 'mptcp: No closing quotation"),
        ("true " * 3000, "a command of more than 10000 characters"),
    ],
)
def test_what_needs_a_shell_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_commands(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("filters", "output"),
    [
        ("grep b", "bb\nabc\n"),
        ("grep -v b", "a\n"),
        ("grep -c b", "2\n"),
        ("grep -i B", "bb\nabc\n"),
        ("grep -q b", ""),
        ("grep -E '^(a|bb)$'", "a\nbb\n"),
        ("head -n 1", "a\n"),
        ("head -2 | tail -1", "bb\n"),
        ("tail -n 0", ""),
        ("wc -l", "3\n"),
        ("grep -F . | wc -l", "0\n"),
    ],
)
def test_filters(filters: str, output: str) -> None:
    [pipeline] = read_commands(f"true | {filters}")
    assert filtered(pipeline, "a\nbb\nabc\n") == output


def test_a_filter_without_a_match_fails_as_its_exit_code_does() -> None:
    [pipeline] = read_commands("true | grep -q x")
    with pytest.raises(ConfigurationError, match="grep -q x: no line of the output matches"):
        filtered(pipeline, "a\n")
    with pytest.raises(ScriptFailureError, match=r"test\.pkt:1: exit code: expected 0, got 2: grep nothing"):
        play("0 `nstat -a | grep nothing`\n")


def test_settings_are_changed_and_read() -> None:
    play(
        "`sysctl -q net.ipv4.tcp_retries2=7 net.mptcp.add_addr_timeout=9`\n"
        "0 `sysctl net.ipv4.tcp_retries2 | grep 'tcp_retries2 = 7'`\n"
        "0 `sysctl -n net.mptcp.add_addr_timeout | grep -E '^9$'; sysctl net.ipv4.tcp_sack | grep -q '= 1'`\n"
        "0 `sysctl -n net.ipv4.tcp_congestion_control | grep reno`\n"
    )
    with pytest.raises(
        ScriptFailureError, match=r"net\.ipv4\.tcp_mem: the bundled stack has no such setting"
    ):
        play("0 `sysctl -w net.ipv4.tcp_mem='4096 5 6'`\n")


def test_commands_know_the_addresses_of_both_sides() -> None:
    for version in IpVersion:
        play(
            "`ip mptcp endpoint add $saddr1 id 5 signal; ip mptcp endpoint show | grep -q 'id 5'`\n"
            + MPTCP_ACCEPTED
            + "+0 > . 1:1(0) ack 1 <add_address address_id=5 addr[saddr1] hmac=auto>\n",
            version,
        )
    assert with_variables("${a1}-$a2 'x$'", {"a1": "1", "a2": "2"}) == "1-2 'x$'"
    with pytest.raises(ConfigurationError, match=r"\$PATH: there is no shell here; known are \$a1"):
        with_variables("echo $PATH", {"a1": "1"})


def test_an_address_with_a_number_is_compared() -> None:
    announced = "`ip mptcp endpoint add $saddr2 id 5 signal`\n" + MPTCP_ACCEPTED
    with pytest.raises(
        ScriptFailureError, match=r"add_address addr: expected 192\.168\.1\.1, got 192\.168\.2\.1"
    ):
        play(announced + "+0 > . 1:1(0) ack 1 <add_address address_id=5 addr[saddr1] hmac=auto>\n")
    play(announced + "+0 > . 1:1(0) ack 1 <add_address address_id=5 addr[any] hmac=auto>\n")


def test_all_are_told_before_anything_is_played_on_the_bundled_stack(tmp_path: Path) -> None:
    path = tmp_path / "shell.pkt"
    path.write_text("`nstat > file`\n0 `true`\n+1 `ls; true`\n")
    with pytest.raises(PacketScriptError) as caught:
        plan([path], ["kernel", "userspace"], list(IpVersion))
    assert str(caught.value).splitlines()[::2] == [
        f"{path}:1:1: >: there is no shell here; known are ; && and |",
        f"{path}:3:4: ls: the bundled stack knows only ip, nstat, sysctl, true",
    ]
    assert plan([path], ["kernel"], list(IpVersion))
    path.write_text("// only: kernel\n`nstat > file`\n0 `true`\n")
    assert plan([path], ["kernel", "userspace"], list(IpVersion))
