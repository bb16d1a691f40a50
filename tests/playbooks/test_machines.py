"""Names of machines, and work on many of them at once."""

from __future__ import annotations

import threading

import pytest

from playbooks.machines import Machine, PlaybookError, on_every_machine, parse_machines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.5", Machine("10.0.0.5")),
        ("debian@vm-1.example", Machine("vm-1.example", "debian")),
        ("debian@vm:2222", Machine("vm", "debian", 2222)),
        ("root@[2001:db8::1]:22", Machine("2001:db8::1", "root", 22)),
        ("[fe80::1%eth0]", Machine("fe80::1%eth0")),
    ],
)
def test_one_machine_is_read(text: str, expected: Machine) -> None:
    assert parse_machines(text) == (expected,)


def test_several_machines_keep_their_order() -> None:
    assert [machine.host for machine in parse_machines("b, a,,c")] == ["b", "a", "c"]


def test_every_bad_entry_is_named_at_once() -> None:
    with pytest.raises(PlaybookError) as problem:
        parse_machines("-oProxyCommand=x,good,two words,host:99999,good")
    assert [line.split("'")[1] for line in str(problem.value).splitlines()] == [
        "-oProxyCommand=x",
        "two words",
        "host:99999",
        "good",
    ]


def test_no_machine_is_an_error() -> None:
    with pytest.raises(PlaybookError, match="--machines"):
        parse_machines(" , ")


def test_a_name_is_a_safe_folder_and_unlike_the_others() -> None:
    names = {Machine("2001:db8::1", "root", 22).name, Machine("2001:db8::1").name, Machine("a").name}
    assert names == {"root@2001_db8__1_22", "2001_db8__1", "a"}


def test_one_failing_machine_does_not_stop_the_others() -> None:
    machines = parse_machines("first,second,third")

    def work(machine: Machine) -> str:
        if machine.host == "first":
            raise PlaybookError("its own words")
        if machine.host == "second":
            raise ConnectionResetError("by peer")
        return "done"

    outcomes = on_every_machine(machines, work)
    assert [(outcome.machine.host, outcome.passed, outcome.summary) for outcome in outcomes] == [
        ("first", False, "its own words"),
        ("second", False, "ConnectionResetError: by peer"),
        ("third", True, "done"),
    ]


def test_machines_are_worked_on_at_the_same_time() -> None:
    machines = parse_machines("a,b,c")
    all_there = threading.Barrier(len(machines), timeout=20)

    def work(machine: Machine) -> str:
        all_there.wait()
        return machine.host

    assert [outcome.summary for outcome in on_every_machine(machines, work)] == ["a", "b", "c"]
