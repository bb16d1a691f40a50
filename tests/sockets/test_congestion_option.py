"""TCP_CONGESTION and the sysctl that gives its default, beside those of the kernel."""

from __future__ import annotations

import socket

import pytest

from mptcp_stack.congestion.coupled import Olia
from mptcp_stack.congestion.cubic import Cubic
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.settings import StackSettings, apply_sysctl
from mptcp_stack.sockets.common_options import IPPROTO_TCP
from mptcp_stack.sockets.options import get_option, set_option
from mptcp_stack.sockets.subflow_options import MPTCP_SUB_SETSOCKOPT, SUB_OPTION_HEAD
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, join_all

TCP_CONGESTION = int(socket.TCP_CONGESTION)
SYSCTL = "net.ipv4.tcp_congestion_control"


def test_option_reads_and_refuses_as_in_the_kernel() -> None:
    near = Network().establish()[0]
    with socket.socket() as reference:
        for value in (b"reno", b"cubic\0rest", b"none of them", b"", b"\0", b"reno" + bytes(30)):
            numbers = []
            try:
                reference.setsockopt(IPPROTO_TCP, TCP_CONGESTION, value)
            except OSError as error:
                numbers.append(error.errno)
            try:
                set_option(near, IPPROTO_TCP, TCP_CONGESTION, value)
            except OSError as error:
                numbers.append(error.errno)
            assert len(numbers) in (0, 2), value
            assert len(set(numbers)) < 2, (value, numbers)
            if not numbers:
                shown = reference.getsockopt(IPPROTO_TCP, TCP_CONGESTION, 100)
                assert get_option(near, IPPROTO_TCP, TCP_CONGESTION, 100) == shown


def test_option_holds_for_all_subflows_and_keeps_their_windows() -> None:
    network = Network(2)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    near.subflows[0].congestion.congestion_window = 12345
    set_option(near, IPPROTO_TCP, TCP_CONGESTION, b"olia")
    assert near.subflows[0].congestion.congestion_window == 12345
    join_all(network, near, far)
    assert [type(subflow.congestion) for subflow in near.subflows] == [Olia, Olia]
    assert [type(subflow.congestion) for subflow in far.subflows] == [Cubic, Cubic]
    one = SUB_OPTION_HEAD.pack(2, IPPROTO_TCP, TCP_CONGESTION, 5) + b"cubic"
    set_option(near, IPPROTO_TCP, MPTCP_SUB_SETSOCKOPT, one)
    assert [type(subflow.congestion) for subflow in near.subflows] == [Olia, Cubic]


def test_sysctl_gives_the_default() -> None:
    network = Network(settings=apply_sysctl(StackSettings(), SYSCTL, "balia"))
    near, far = network.establish()
    assert get_option(near, IPPROTO_TCP, TCP_CONGESTION) == b"balia".ljust(16, b"\0")
    assert [end.subflows[0].congestion.name for end in (near, far)] == ["balia", "balia"]
    assert get_option(Network().establish()[0], IPPROTO_TCP, TCP_CONGESTION) == b"cubic".ljust(16, b"\0")


def test_sysctl_names_what_there_is() -> None:
    with pytest.raises(
        ConfigurationError, match="expected one of cubic, reno, lia, olia, balia, got 'vegas'"
    ):
        apply_sysctl(StackSettings(), SYSCTL, "vegas")
