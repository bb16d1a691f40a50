"""Everything but packets: options, times, system calls, commands, code."""

from __future__ import annotations

import pytest

from testbed.packetdrill.constants import CONSTANTS, ERRNO_NUMBERS
from testbed.packetdrill.errors import Location
from testbed.packetdrill.parser import parse_script
from testbed.packetdrill.syntax import (
    Array,
    BitwiseOr,
    CodeBlock,
    Command,
    Constant,
    Ellipsis,
    Event,
    EventTime,
    Expression,
    FunctionCall,
    Integer,
    String,
    Structure,
    StructureField,
    SystemCall,
    TimeKind,
)


def only_event(text: str) -> Event:
    (event,) = parse_script(text).events
    return event


def call(text: str) -> SystemCall:
    action = only_event(f"0 {text}").action
    assert isinstance(action, SystemCall)
    return action


def argument(text: str) -> Expression:
    return call(f"close({text}) = 0").arguments[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", EventTime(TimeKind.ABSOLUTE, 0, 0)),
        ("1.25", EventTime(TimeKind.ABSOLUTE, 1_250_000, 1_250_000)),
        (".000001", EventTime(TimeKind.ABSOLUTE, 1, 1)),
        ("+0", EventTime(TimeKind.RELATIVE, 0, 0)),
        ("+.1", EventTime(TimeKind.RELATIVE, 100_000, 100_000)),
        ("0~.1", EventTime(TimeKind.ABSOLUTE_RANGE, 0, 100_000)),
        ("+0~+.1", EventTime(TimeKind.RELATIVE_RANGE, 0, 100_000)),
        ("*", EventTime(TimeKind.ANY)),
        ("0.1...0.2", EventTime(TimeKind.ABSOLUTE, 100_000, 100_000, 200_000)),
        ("+0...0.2", EventTime(TimeKind.RELATIVE, 0, 0, 200_000)),
        ("+0...+0.2", EventTime(TimeKind.RELATIVE, 0, 0, 200_000)),
        ("0.1000000", EventTime(TimeKind.ABSOLUTE, 100_000, 100_000)),
    ],
)
def test_times(text: str, expected: EventTime) -> None:
    event = only_event(f"{text} close(3) = 0")
    assert event.time == expected
    assert event.time.is_relative == text.startswith("+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", Integer(5)),
        ("-1", Integer(-1)),
        ("0x1F", Integer(31)),
        ("0644", Integer(0o644)),
        ("18446744073709551615ULL", Integer((1 << 64) - 1)),
        ("...", Ellipsis()),
        ("AF_INET", Constant("AF_INET", 2)),
        ("IPPROTO_MPTCP", Constant("IPPROTO_MPTCP", 262)),
        (
            "O_RDWR|O_NONBLOCK|4",
            BitwiseOr((Constant("O_RDWR", 2), Constant("O_NONBLOCK", 0o4000), Integer(4))),
        ),
        ("[1, [2], []]", Array((Integer(1), Array((Integer(2),)), Array(())))),
        ('"a\\x41\\101\\n\\"\\\\"', String(b'aAA\n"\\')),
        ('"ü"', String("ü".encode())),
        ("htons(80)", FunctionCall("htons", (Integer(80),))),
        (
            'inet_pton(AF_INET6, "::1")',
            FunctionCall("inet_pton", (Constant("AF_INET6", 10), String(b"::1"))),
        ),
        ("{}", Structure(())),
        (
            "{onoff=1, linger = 0}",
            Structure((StructureField("onoff", Integer(1)), StructureField("linger", Integer(0)))),
        ),
        (
            "{..., 1000}",
            Structure((StructureField(None, Ellipsis()), StructureField(None, Integer(1000)))),
        ),
        (
            "{msg_iov(2)=[{..., 5}]}",
            Structure(
                (
                    StructureField(
                        "msg_iov",
                        Array(
                            (Structure((StructureField(None, Ellipsis()), StructureField(None, Integer(5)))),)
                        ),
                        Integer(2),
                    ),
                )
            ),
        ),
        (
            "{events=EPOLLIN, fd=4}",
            Structure((StructureField("events", Constant("EPOLLIN", 1)), StructureField("fd", Integer(4)))),
        ),
    ],
)
def test_arguments(text: str, expected: Expression) -> None:
    assert argument(text) == expected


def test_field_of_a_structure_by_name() -> None:
    structure = argument("{onoff=1, linger=5}")
    assert isinstance(structure, Structure)
    assert structure.get("linger") == Integer(5)
    assert structure.get("other") is None


@pytest.mark.parametrize(
    ("text", "result", "errno_name", "note"),
    [
        ("close(3)", None, None, None),
        ("close(3) = 0", Integer(0), None, None),
        ("close(3) = ...", Ellipsis(), None, None),
        ("close(3) = ?", Ellipsis(), None, None),
        ("close(3) = -1 EBADF", Integer(-1), "EBADF", None),
        ("close(3) = -1 EBADF (Bad (file) descriptor)", Integer(-1), "EBADF", "Bad (file) descriptor"),
        ("close(3) = 0x802 (flags O_RDWR)", Integer(0x802), None, "flags O_RDWR"),
        (
            "close(3) = O_RDWR|O_NONBLOCK",
            BitwiseOr((Constant("O_RDWR", 2), Constant("O_NONBLOCK", 2048))),
            None,
            None,
        ),
    ],
)
def test_results(text: str, result: Expression | None, errno_name: str | None, note: str | None) -> None:
    found = call(text)
    assert (found.result, found.errno_name, found.note) == (result, errno_name, note)


@pytest.mark.parametrize(
    "text",
    [
        "socket(..., SOCK_STREAM, IPPROTO_MPTCP) = 3",
        "accept4(3, ..., ..., SOCK_NONBLOCK) = 4",
        "recvfrom(4, ..., 10, MSG_PEEK, ..., ...) = 10",
        "ioctl(4, SIOCINQ, [10]) = 0",
        "fcntl(4, F_SETFL, O_NONBLOCK) = 0",
        "epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLIN|EPOLLET, fd=4}) = 0",
        "pipe([6, 7]) = 0",
        "splice(6, ..., 4, ..., 100, SPLICE_F_MOVE) = 100",
        "getsockopt(4, SOL_MPTCP, MPTCP_INFO, ..., [96]) = 0",
        'setsockopt(4, SOL_TCP, TCP_CONGESTION, "reno", 4) = 0',
    ],
)
def test_calls_of_the_kernel(text: str) -> None:
    assert call(text).name == text.partition("(")[0]


def test_a_call_may_go_over_several_lines() -> None:
    script = parse_script("+0 writev(4,\n   [{..., 5},\n    {..., 1000}],\n   2) = 1005\n+0 close(4) = 0\n")
    assert len(script.events) == 2
    assert script.events[0].location == Location(1, 1)
    assert script.events[1].location == Location(5, 1)


def test_places_of_arguments() -> None:
    action = only_event("\n  0   setsockopt(3, SOL_SOCKET,\n  SO_REUSEADDR, [1], 4) = 0").action
    assert isinstance(action, SystemCall)
    assert [part.location for part in action.arguments] == [
        Location(2, 18),
        Location(2, 21),
        Location(3, 3),
        Location(3, 17),
        Location(3, 22),
    ]


def test_comments_may_stand_anywhere() -> None:
    script = parse_script("/* a\n b */ +0 close(3) /* c */ = 0 // d\n// e\n+0 `echo // no /* comment`\n")
    assert [event.location.line for event in script.events] == [2, 4]
    assert script.events[0].source.split() == ["+0", "close(3)", "=", "0"]
    assert script.events[1].action == Command("echo // no /* comment")


def test_code_keeps_its_lines_and_comment_signs() -> None:
    event = only_event("0 %{\n    # a comment\n    x = 7 // 2\n    if x:\n        assert x\n}%\n")
    assert event.action == CodeBlock("# a comment\nx = 7 // 2\nif x:\n    assert x")


def test_options_and_first_command() -> None:
    script = parse_script(
        '// about\n// it\n--ip_version=ipv4-mapped-ipv6 --mtu=1400\n--kernel_differs="no echo"\n'
        "--define=COUNT=0x10\n`sysctl -q a=1\n sysctl -q b=2`\n0 listen(3, COUNT) = 0"
    )
    assert script.options == {"ip_version": "ipv4-mapped-ipv6", "mtu": "1400", "kernel_differs": "no echo"}
    assert script.defines == {"COUNT": 16}
    assert script.init_command == Command("sysctl -q a=1\n sysctl -q b=2")
    assert script.header == "about\nit"
    action = script.events[0].action
    assert isinstance(action, SystemCall)
    assert action.arguments[1] == Constant("COUNT", 16)


def test_an_empty_script() -> None:
    script = parse_script("// nothing\n")
    assert script.events == ()
    assert script.init_command is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SOL_SOCKET", 1),
        ("SOL_TCP", 6),
        ("SOL_MPTCP", 284),
        ("TCP_IS_MPTCP", 43),
        ("MSG_FASTOPEN", 0x20000000),
        ("POLLRDHUP", 0x2000),
        ("EPOLLONESHOT", 1 << 30),
        ("SIOCOUTQ", 0x5411),
        ("F_SETFL", 4),
        ("EAGAIN", 11),
        ("EWOULDBLOCK", 11),
        ("EOPNOTSUPP", 95),
    ],
)
def test_constants_have_the_kernels_numbers(name: str, number: int) -> None:
    assert CONSTANTS[name] == number
    assert ERRNO_NUMBERS.get(name, number) == number
