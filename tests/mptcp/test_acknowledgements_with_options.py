"""Acknowledgements that carry options beside, or instead of, what they are about."""

from __future__ import annotations

import pytest

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.settings import StackSettings
from mptcp_stack.wire.addresses import parse_address
from mptcp_stack.wire.tcp_segment import SYN
from tests.mptcp.middlebox import tcp_packet_in, with_segment
from tests.mptcp.network import Network, Transfer, close_both, join_all

# Without a rate, what was sent together arrives together.
AT_ONCE = WireSettings(delay_us=5_000)


def test_data_is_acknowledged_although_an_address_echo_goes_alone() -> None:
    network = Network(2, wire=AT_ONCE)
    near, far = network.establish()
    join_all(network, near, far, 1)
    network.simulator.run_for(1_000_000)
    network.server.path_manager.add_endpoint(parse_address("10.0.2.1"), flags=frozenset({"signal"}))
    far.write(bytes(1000))
    network.simulator.run_for(15_000)
    assert network.client.counters["MPTcpExtAddAddr"] == network.server.counters["MPTcpExtEchoAdd"] == 1
    assert not far.unacknowledged_bytes
    network.simulator.run_for(2_000_000)
    assert network.server.counters["MPTcpExtMPTCPRetrans"] == 0


def test_what_was_acknowledged_before_a_fallback_leaves_the_send_buffer() -> None:
    """The first acknowledgement of plain TCP may cover all that the buffer holds: nothing else will come."""
    network = Network(settings=StackSettings(send_buffer_bytes=8192), wire=AT_ONCE)
    network.simulator.links()["1"].backward.rewrite = without_options_after_syn
    near, far = network.establish()
    transfer = Transfer(near, far, 50_000)
    network.simulator.run_until(transfer.advance)
    transfer.must_be_intact()
    assert not near.is_mptcp


def without_options_after_syn(packet: bytes, index: int) -> list[bytes]:
    """NOPs in the place of MPTCP's options, and of all others."""
    ip_packet = tcp_packet_in(packet)
    if ip_packet is None or ip_packet.payload[13] & SYN:
        return [packet]
    segment = bytearray(ip_packet.payload)
    header_length = (segment[12] >> 4) * 4
    segment[20:header_length] = b"\x01" * (header_length - 20)
    return [with_segment(packet, ip_packet, segment)]


def test_path_that_begins_to_remove_options_after_the_request() -> None:
    """The client falls back at the first data without a mapping; the server must not send that again."""
    network = Network(wire=AT_ONCE)
    near, far = network.establish()
    request = Transfer(near, far, 10_000)
    network.simulator.run_until(request.advance)
    network.simulator.run_for(100_000)
    link = network.simulator.links()["1"]
    link.forward.rewrite = link.backward.rewrite = without_options_after_syn
    answer = Transfer(far, near, 10_000)
    network.simulator.run_until(answer.advance)
    answer.must_be_intact()
    close_both(network, near, far)
    assert not near.is_mptcp
    assert not far.is_mptcp
    assert network.server.counters["MPTcpExtMPTCPRetrans"] == 0


@pytest.mark.parametrize("gets_answer", [False, True])
def test_a_join_in_its_handshake_does_not_keep_a_connection_from_falling_back(gets_answer: bool) -> None:
    """Its SYN is lost, or its third packet."""
    network = Network(2, wire=AT_ONCE)
    network.simulator.links()["2"].forward.drop_if = lambda packet, index: is_tcp(packet, gets_answer)
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    request = Transfer(near, far, 10_000).without_shutdown()
    network.simulator.run_until(request.advance)
    network.simulator.run_for(50_000)
    link = network.simulator.links()["1"]
    link.forward.rewrite = link.backward.rewrite = without_options_after_syn
    assert [subflow.was_established for subflow in near.subflows] == [True, gets_answer]
    more = Transfer(near, far, 10_000)
    network.simulator.run_until(more.advance)
    more.must_be_intact()
    close_both(network, near, far)
    assert not near.is_mptcp
    assert not far.is_mptcp
    assert network.client.counters["MPTcpExtMPTCPRetrans"] == 0


def is_tcp(packet: bytes, but_syn: bool) -> bool:
    ip_packet = tcp_packet_in(packet)
    return ip_packet is not None and not (but_syn and ip_packet.payload[13] & SYN)
