"""Socket options: layouts against the kernel's, values in virtual time, errors as the kernel gives them."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from mptcp_stack.mptcp import fallback
from mptcp_stack.mptcp.connection import Connection
from mptcp_stack.path_managers.endpoints import EndpointPathManager
from mptcp_stack.sockets import mptcp_options, subflow_options
from mptcp_stack.sockets.common_options import INTEGER, IPPROTO_TCP, SOL_SOCKET
from mptcp_stack.sockets.mptcp_options import SOL_MPTCP
from mptcp_stack.sockets.options import get_option, set_option
from mptcp_stack.sockets.structures import (
    FULL_INFO_HEAD,
    SUBFLOW_DATA,
    MptcpInfo,
    pack_sockaddr,
    pack_subflow_addresses,
    unpack_sockaddr,
)
from mptcp_stack.sockets.tcp_info import TCP_INFO_BYTES, pack_tcp_info, parse_tcp_info
from mptcp_stack.wire.addresses import parse_address
from tests.mptcp.network import Network, Transfer, join_all

TCP_INFO = int(socket.TCP_INFO)
INTEGER_OPTIONS = {
    "SO_KEEPALIVE": (SOL_SOCKET, int(socket.SO_KEEPALIVE), 7, 1),
    "SO_REUSEADDR": (SOL_SOCKET, int(socket.SO_REUSEADDR), 7, 1),
    "TCP_DEFER_ACCEPT": (IPPROTO_TCP, int(socket.TCP_DEFER_ACCEPT), 4, 7),
    "TCP_NODELAY": (IPPROTO_TCP, int(socket.TCP_NODELAY), 1, 1),
    "TCP_CORK": (IPPROTO_TCP, int(socket.TCP_CORK), 1, 1),
    "TCP_SYNCNT": (IPPROTO_TCP, int(socket.TCP_SYNCNT), 3, 3),
    "TCP_KEEPIDLE": (IPPROTO_TCP, int(socket.TCP_KEEPIDLE), 100, 100),
    "TCP_KEEPINTVL": (IPPROTO_TCP, int(socket.TCP_KEEPINTVL), 11, 11),
    "TCP_KEEPCNT": (IPPROTO_TCP, int(socket.TCP_KEEPCNT), 5, 5),
    "TCP_USER_TIMEOUT": (IPPROTO_TCP, int(socket.TCP_USER_TIMEOUT), 2500, 2500),
}


def joined() -> tuple[Network, Connection, Connection]:
    network = Network(links=2)
    manager = network.client.path_manager
    assert isinstance(manager, EndpointPathManager)
    manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    near, far = network.establish()
    join_all(network, near, far)
    return network, near, far


@contextlib.contextmanager
def fails_with(number: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert caught.value.errno == number


@contextlib.contextmanager
def kernel_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection of the kernel's own MPTCP over loopback."""
    try:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    except OSError as error:
        pytest.skip(f"this kernel has no MPTCP: {error}")
    with listening, socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as near:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
        with far:
            near.sendall(b"x" * 1000)
            assert far.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
            yield near, far


@pytest.mark.parametrize("name", INTEGER_OPTIONS)
def test_an_integer_option_reads_as_it_does_in_the_kernel(name: str) -> None:
    level, option, written, expected = INTEGER_OPTIONS[name]
    with socket.socket() as reference:
        near = Network().establish()[0]
        defaults = reference.getsockopt(level, option)
        assert INTEGER.unpack(get_option(near, level, option)) == (defaults,)
        for value in (written, 0, -1, 1 << 30):
            kernel = own = 0
            try:
                reference.setsockopt(level, option, value)
            except OSError as error:
                kernel = error.errno or 0
            try:
                set_option(near, level, option, INTEGER.pack(value))
            except OSError as error:
                own = error.errno or 0
            assert own == kernel, value
            assert INTEGER.unpack(get_option(near, level, option)) == (reference.getsockopt(level, option),)
        reference.setsockopt(level, option, written)
        assert reference.getsockopt(level, option) == expected
        with fails_with(errno.EINVAL):
            set_option(near, level, option, b"\1")
        with fails_with(errno.ENOPROTOOPT):
            get_option(near, level, 9999)


@pytest.mark.parametrize("value", [(1, 0), (1, 5), (0, 5), (7, 1000)])
def test_lingering_reads_as_it_does_in_the_kernel(value: tuple[int, int]) -> None:
    name, form = (SOL_SOCKET, int(socket.SO_LINGER)), struct.Struct("=ii")
    near = Network().establish()[0]
    with socket.socket() as reference:
        reference.setsockopt(*name, form.pack(*value))
        set_option(near, *name, form.pack(*value))
        is_on, seconds = form.unpack(reference.getsockopt(*name, form.size))
        told = form.unpack(get_option(near, *name, form.size))
        assert told[0] == is_on
        assert not is_on or told[1] == seconds
    with fails_with(errno.EINVAL):
        set_option(near, *name, bytes(7))


@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
@pytest.mark.parametrize("seconds", [0, 1])
def test_closing_without_time_to_linger_is_an_abort(protocol: str, seconds: int) -> None:
    network = Network()
    near, far = network.establish(client=protocol)
    network.simulator.run_for(100_000)
    set_option(near, SOL_SOCKET, int(socket.SO_LINGER), struct.pack("=ii", 1, seconds))
    near.write(b"the last words")
    near.close()
    network.simulator.run_for(1_000_000)
    assert (far.error == errno.ECONNRESET) is (seconds == 0)
    assert far.read(100) == (b"" if seconds == 0 else b"the last words")


def test_options_hold_for_all_subflows_and_for_later_ones() -> None:
    network, near, far = joined()
    set_option(near, IPPROTO_TCP, int(socket.TCP_NODELAY), INTEGER.pack(1))
    assert [subflow.socket_options.no_delay for subflow in near.subflows] == [True, True]
    assert not any(subflow.socket_options.no_delay for subflow in far.subflows)
    set_option(
        near,
        IPPROTO_TCP,
        subflow_options.MPTCP_OPEN_SUB_TUPLE,
        b"\0\1"
        + pack_sockaddr((parse_address("10.0.2.2"), 0))
        + pack_sockaddr((parse_address("10.0.1.1"), 4433)),
    )
    network.simulator.run_until(lambda: len(near.subflows) == 3 and near.subflows[-1].is_usable)
    assert near.subflows[-1].socket_options.no_delay
    assert near.subflows[-1].is_backup


def test_info_of_the_kernel_is_read_by_the_same_layout() -> None:
    with kernel_pair() as (near, _):
        data = near.getsockopt(SOL_MPTCP, mptcp_options.MPTCP_INFO, 96)
        info = MptcpInfo.unpack(data)
        assert info.pack() == data
        assert (info.bytes_sent, info.bytes_received, info.subflows_total) == (1000, 0, 1)
        tcp = near.getsockopt(IPPROTO_TCP, TCP_INFO, 512)
        fields = parse_tcp_info(tcp)
        assert len(tcp) >= TCP_INFO_BYTES - 12
        assert fields["tcpi_state"] == 1
        assert fields["tcpi_bytes_sent"] == 1000
        assert fields["tcpi_snd_mss"] > 500


def test_info_tells_what_the_kernel_tells_of_the_same_exchange() -> None:
    with kernel_pair() as (near, far):
        kernel = [MptcpInfo.unpack(end.getsockopt(SOL_MPTCP, 1, 96)) for end in (near, far)]
    network = Network()
    ends = network.establish()
    transfer = Transfer(*ends, 1000).without_shutdown()
    network.simulator.run_until(lambda: transfer.advance() and not ends[0].unacknowledged_bytes)
    own = [MptcpInfo.unpack(get_option(end, SOL_MPTCP, 1)) for end in ends]
    same = (
        "subflows subflows_total subflows_max add_addr_signal add_addr_accepted flags csum_enabled "
        "retransmits bytes_retrans bytes_sent bytes_received bytes_acked endp_laminar_max endp_fullmesh_max "
        "local_addr_used local_addr_max add_addr_signal_max add_addr_accepted_max"
    ).split()
    for kernel_info, own_info, end in zip(kernel, own, ends, strict=True):
        assert {name: getattr(own_info, name) for name in same} == {
            name: getattr(kernel_info, name) for name in same
        }
        assert own_info.token == end.local_key.token
    assert own[0].write_seq == own[1].rcv_nxt
    assert own[0].snd_una == own[0].write_seq
    assert kernel[0].write_seq == kernel[1].rcv_nxt


def test_arrays_of_subflows() -> None:
    _, near, _ = joined()
    answer = get_option(near, SOL_MPTCP, mptcp_options.MPTCP_SUBFLOW_ADDRS, 4096)
    assert SUBFLOW_DATA.unpack_from(answer) == (16, 2, 256, 256)
    for number, subflow in enumerate(near.subflows):
        element = answer[16 + 256 * number : 272 + 256 * number]
        local, remote = unpack_sockaddr(element)[0], unpack_sockaddr(element[128:])[0]
        assert (local, remote) == (
            (subflow.local, subflow.local_port),
            (subflow.remote, subflow.remote_port),
        )
    tcp = get_option(near, SOL_MPTCP, mptcp_options.MPTCP_TCPINFO, 4096, SUBFLOW_DATA.pack(16, 0, 0, 104))
    assert SUBFLOW_DATA.unpack_from(tcp) == (16, 2, TCP_INFO_BYTES, 104)
    assert len(tcp) == 16 + 2 * 104
    assert parse_tcp_info(tcp[16:120])["tcpi_state"] == 1
    one = get_option(near, SOL_MPTCP, mptcp_options.MPTCP_TCPINFO, 16 + TCP_INFO_BYTES + 5)
    assert SUBFLOW_DATA.unpack_from(one)[1] == 2
    assert len(one) == 16 + TCP_INFO_BYTES


@pytest.mark.parametrize(
    "request_bytes",
    [b"\1", SUBFLOW_DATA.pack(0, 0, 0, 8), SUBFLOW_DATA.pack(16, 1, 0, 8), SUBFLOW_DATA.pack(16, 0, 1, 8)],
)
def test_a_bad_header_is_refused(request_bytes: bytes) -> None:
    near = Network().establish()[0]
    with fails_with(errno.EINVAL):
        get_option(near, SOL_MPTCP, mptcp_options.MPTCP_TCPINFO, 4096, request_bytes)


def test_full_info_holds_everything() -> None:
    _, near, _ = joined()
    answer = get_option(near, SOL_MPTCP, mptcp_options.MPTCP_FULL_INFO, 8192)
    head = FULL_INFO_HEAD.unpack_from(answer)
    assert head[4:6] == (2, 2)
    info_offset, tcp_offset = head[6:]
    assert struct.unpack_from("=I", answer, info_offset) == (near.subflows[0].identifier,)
    second = near.subflows[1]
    assert answer[info_offset + head[3] + 8 : info_offset + 2 * head[3]] == pack_subflow_addresses(
        (second.local, second.local_port), (second.remote, second.remote_port)
    )
    assert parse_tcp_info(answer[tcp_offset : tcp_offset + head[1]])["tcpi_state"] == 1
    assert MptcpInfo.unpack(answer[FULL_INFO_HEAD.size :]).subflows == 1
    assert len(answer) == tcp_offset + 2 * head[1]


def test_after_a_fallback_there_is_no_mptcp_to_tell_of() -> None:
    near = Network().establish()[0]
    assert get_option(near, IPPROTO_TCP, 43) == INTEGER.pack(1)
    fallback.fall_back(near, None)
    assert get_option(near, IPPROTO_TCP, 43) == INTEGER.pack(0)
    assert get_option(near, SOL_SOCKET, int(socket.SO_PROTOCOL)) == INTEGER.pack(262)
    for option in (1, 2, 3, 4):
        with fails_with(errno.EOPNOTSUPP):
            get_option(near, SOL_MPTCP, option)
    with fails_with(errno.EOPNOTSUPP):
        get_option(near, IPPROTO_TCP, subflow_options.MPTCP_GET_SUB_IDS)


def test_subflows_are_listed_and_closed_one_by_one() -> None:
    network, near, far = joined()
    listed = get_option(near, IPPROTO_TCP, subflow_options.MPTCP_GET_SUB_IDS)
    assert listed[0] == 2
    first, second = subflow_options.SUB_STATUS.iter_unpack(listed[2:])
    assert (first[0], second[0]) == (1, 2)
    assert first[1] & subflow_options.INITIAL
    assert not second[1] & subflow_options.INITIAL
    told = get_option(near, IPPROTO_TCP, subflow_options.MPTCP_GET_SUB_TUPLE, request=b"\2")
    assert told[:2] == b"\2\0"
    assert unpack_sockaddr(told[2:])[0] == (near.subflows[1].local, near.subflows[1].local_port)
    set_option(near, IPPROTO_TCP, subflow_options.MPTCP_CLOSE_SUB_ID, b"\2")
    network.simulator.run_until(lambda: len(near.subflows) == len(far.subflows) == 1)
    with fails_with(errno.ENOENT):
        set_option(near, IPPROTO_TCP, subflow_options.MPTCP_CLOSE_SUB_ID, b"\2")


def test_a_mark_is_that_of_all_subflows() -> None:
    network = Network(2)
    network.client.path_manager.set_limits(1, 0)
    network.server.path_manager.set_limits(1, 0)
    near, far = network.establish()
    name = SOL_SOCKET, int(socket.SO_MARK)
    set_option(near, *name, INTEGER.pack(-2))
    network.client.path_manager.add_endpoint(parse_address("10.0.2.2"), flags=frozenset({"subflow"}))
    join_all(network, near, far)
    assert [subflow.socket_options.mark for subflow in near.subflows] == [-2, -2]
    assert get_option(near, *name) == INTEGER.pack(-2)
    assert [subflow.socket_options.mark for subflow in far.subflows] == [0, 0]


def test_one_subflow_may_have_options_of_its_own() -> None:
    _, near, _ = joined()
    name = IPPROTO_TCP, int(socket.TCP_NODELAY)
    head = subflow_options.SUB_OPTION_HEAD.pack(2, *name, 4)
    set_option(near, IPPROTO_TCP, subflow_options.MPTCP_SUB_SETSOCKOPT, head + INTEGER.pack(1))
    assert [subflow.socket_options.no_delay for subflow in near.subflows] == [False, True]
    answer = get_option(near, IPPROTO_TCP, subflow_options.MPTCP_SUB_GETSOCKOPT, request=head)
    assert answer == INTEGER.pack(1)
    info = subflow_options.SUB_OPTION_HEAD.pack(2, IPPROTO_TCP, TCP_INFO, 512)
    fields = parse_tcp_info(get_option(near, IPPROTO_TCP, subflow_options.MPTCP_SUB_GETSOCKOPT, request=info))
    assert fields["tcpi_bytes_acked"] == near.subflows[1].snd_una - near.subflows[1].snd_iss - 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"", errno.EINVAL),
        (b"\0\0\2\0", errno.EINVAL),
        (b"\0\0\x63\0" + bytes(40), errno.EAFNOSUPPORT),
        (b"\0\0" + pack_sockaddr((b"\x0a\0\2\2", 0)) + pack_sockaddr((bytes(16), 1)), errno.EINVAL),
        (b"\0\0" + pack_sockaddr((b"\x0a\0\2\2", 0)) + pack_sockaddr((b"\x0a\0\2\1", 0)), errno.EINVAL),
        (
            b"\0\0" + pack_sockaddr((b"\x09\0\2\2", 0)) + pack_sockaddr((b"\x0a\0\2\1", 9)),
            errno.EADDRNOTAVAIL,
        ),
    ],
)
def test_a_subflow_that_cannot_be_opened(value: bytes, number: int) -> None:
    _, near, _ = joined()
    with fails_with(number):
        set_option(near, IPPROTO_TCP, subflow_options.MPTCP_OPEN_SUB_TUPLE, value)


def test_tcp_info_packs_what_it_reads() -> None:
    values = {"tcpi_state": 1, "tcpi_snd_wscale": 7, "tcpi_rcv_wscale": 9, "tcpi_bytes_acked": 1 << 40}
    parsed = parse_tcp_info(pack_tcp_info({**values, "tcpi_rto": 1 << 70}))
    assert {name: parsed[name] for name in values} == values
    assert parsed["tcpi_rto"] == (1 << 32) - 1


def test_receive_buffer_is_doubled_and_bounded() -> None:
    """socket(7): what is set counts twice, and no more than rmem_max."""
    _, near, _ = joined()
    option = SOL_SOCKET, int(socket.SO_RCVBUF)
    for wanted, told in ((20_000, 40_000), (100, 2304), (1 << 29, 425_984)):
        set_option(near, *option, INTEGER.pack(wanted))
        assert INTEGER.unpack(get_option(near, *option)) == (told,)


@pytest.mark.parametrize("protocol", ["mptcp", "tcp"])
def test_quick_acknowledgements_are_asked_for_at_once(protocol: str) -> None:
    """tcp(7), TCP_QUICKACK: what waits for an answer to carry it leaves, and it can be made to wait again."""
    name = IPPROTO_TCP, int(socket.TCP_QUICKACK)
    near = Network().establish(client=protocol, server=protocol)[0]
    assert get_option(near, *name) == INTEGER.pack(1)
    set_option(near, *name, INTEGER.pack(0))
    assert get_option(near, *name) == INTEGER.pack(0)
    set_option(near, *name, INTEGER.pack(1))
    assert get_option(near, *name) == INTEGER.pack(1)
    with fails_with(errno.EINVAL):
        set_option(near, *name, b"1")
