"""Counters: the kernel's tables, differences, and nstat's two formats."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from testbed.counters.nstat import (
    format_columns,
    format_json,
    parse_name_value_table,
    parse_two_line_table,
    read_kernel_counters,
    subtract,
    without_zeros,
)


def test_two_line_tables() -> None:
    text = "TcpExt: TW DelayedACKs\nTcpExt: 3 5\nMPTcpExt: AddAddr\nMPTcpExt: 7\n"
    assert parse_two_line_table(text) == {"TcpExtTW": 3, "TcpExtDelayedACKs": 5, "MPTcpExtAddAddr": 7}


def test_name_value_tables() -> None:
    assert parse_name_value_table("Ip6InReceives  \t12\nIp6OutNoRoutes 0\n") == {
        "Ip6InReceives": 12,
        "Ip6OutNoRoutes": 0,
    }


def test_a_difference_keeps_every_name() -> None:
    assert subtract({"a": 5, "b": 2, "c": 1}, {"a": 3, "b": 2}) == {"a": 2, "b": 0, "c": 1}
    assert without_zeros({"a": 2, "b": 0, "c": -1}) == {"a": 2, "c": -1}


def test_columns_and_json() -> None:
    counters = {"MPTcpExtAddAddr": 12, "TcpInSegs": 0}
    assert format_columns(counters) == (
        "#kernel\n"
        "MPTcpExtAddAddr                 12                 0.0\n"
        "TcpInSegs                       0                  0.0"
    )
    assert json.loads(format_json(counters)) == {"kernel": counters}


@pytest.mark.skipif(shutil.which("nstat") is None, reason="nstat is not installed")
def test_names_and_format_are_those_of_nstat() -> None:
    shown = subprocess.run(["nstat", "-asz"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = format_columns(read_kernel_counters()).splitlines()
    assert {line.split()[0] for line in ours} - {line.split()[0] for line in shown} == {"TcpCurrEstab"}
    assert {line.split()[0] for line in shown} <= {line.split()[0] for line in ours}
    zeros = [line for line in shown if line.split()[1:2] == ["0"]]
    assert zeros
    assert len(set(zeros) & set(ours)) > len(zeros) // 2
