"""Socket options of an open connection, on both stacks in the same words: the kernel's mptcp_sockopt.sh."""

from __future__ import annotations

import struct
from collections.abc import Callable

from mptcp_stack.sockets.mptcp_options import (
    ADDRESSES_BYTES,
    MPTCP_FULL_INFO,
    MPTCP_SUBFLOW_ADDRS,
    MPTCP_TCPINFO,
    SOL_MPTCP,
)
from mptcp_stack.sockets.structures import SOCKADDR_STORAGE_BYTES, SUBFLOW_DATA, unpack_sockaddr
from mptcp_stack.wire.addresses import format_address, unmap
from testbed.errors import CapabilityError
from testbed.selftests.case import case
from testbed.selftests.lab_view import CaseLab, kib
from testbed.selftests.transfer import Transfer

FAMILIES = ("4", "6")
TO_SERVER, TO_CLIENT = kib(100), kib(60)
IPPROTO_IP, IP_TOS = 0, 1
CHOSEN_TOS = 8
TCP_INFO_BYTES = 104
"""As much of ``struct tcp_info`` as every kernel has."""

GetOption = Callable[..., bytes]


def _refusal(get: GetOption, option: int, length: int, request: bytes) -> int:
    """The errno, 0 if there is an answer."""
    try:
        get(SOL_MPTCP, option, length, request=request)
    except OSError as error:
        return error.errno or 0
    return 0


def _text(sockaddr: bytes) -> str:
    (address, port), _ = unpack_sockaddr(sockaddr)
    return f"{format_address(unmap(address))} {port}"


@case(topology="one-path", groups=("socket-options",), families=FAMILIES)
def what_a_connection_tells(lab: CaseLab) -> None:
    """MPTCP_INFO counts bytes, TCPINFO and SUBFLOW_ADDRS tell of one subflow, bad requests are refused."""
    with lab.start_transfer(TO_SERVER, TO_CLIENT) as transfer:
        transfer.wait_until_all_arrived(10)
        lab.settle()
        # The last DATA_ACK may be on its way for a while yet.
        lab.wait_for("all is acknowledged", lambda: _is_acknowledged(transfer))
        for name, info, sent, received in (
            ("client", transfer.client_info(), TO_SERVER, TO_CLIENT),
            ("server", transfer.server_info(), TO_CLIENT, TO_SERVER),
        ):
            counted = (info.bytes_sent, info.bytes_acked, info.bytes_received)
            lab.verdict.must_be_equal(f"{name}: bytes", (sent, sent, received), counted)
            lab.verdict.must_be_equal(f"{name}: all is acknowledged", info.write_seq, info.snd_una)
        client, server = transfer.client_info(), transfer.server_info()
        lab.verdict.must_be_equal("next from the server", server.write_seq, client.rcv_nxt)
        lab.verdict.must_be_equal("next from the client", client.write_seq, server.rcv_nxt)
        ends = {}
        for name, get in (("client", transfer.client_option), ("server", transfer.server_option)):
            _must_tell_of_one_subflow(lab, name, get)
            addresses = _addresses(get)
            ends[name] = (
                _text(addresses[:SOCKADDR_STORAGE_BYTES]),
                _text(addresses[SOCKADDR_STORAGE_BYTES:]),
            )
        lab.verdict.must_be_equal("both ends name the same subflow", ends["client"], ends["server"][::-1])
    transfer.must_be_intact()
    lab.verdict.must_be_equal(
        "the subflow's ends", ends["client"], (transfer.client.local, transfer.client.remote)
    )


def _is_acknowledged(transfer: Transfer) -> bool:
    return all(info.write_seq == info.snd_una for info in (transfer.client_info(), transfer.server_info()))


def _addresses(get: GetOption) -> bytes:
    request = SUBFLOW_DATA.pack(SUBFLOW_DATA.size, 0, 0, ADDRESSES_BYTES)
    length = SUBFLOW_DATA.size + ADDRESSES_BYTES
    return get(SOL_MPTCP, MPTCP_SUBFLOW_ADDRS, length, request=request)[SUBFLOW_DATA.size :]


def _must_tell_of_one_subflow(lab: CaseLab, name: str, get: GetOption) -> None:
    good = SUBFLOW_DATA.pack(SUBFLOW_DATA.size, 0, 0, TCP_INFO_BYTES)
    answer = get(SOL_MPTCP, MPTCP_TCPINFO, SUBFLOW_DATA.size + TCP_INFO_BYTES, request=good)
    size, subflows, size_kernel, size_user = SUBFLOW_DATA.unpack_from(answer)
    told = (size, subflows, size_kernel >= TCP_INFO_BYTES, size_user)
    lab.verdict.must_be_equal(f"{name}: TCPINFO", (SUBFLOW_DATA.size, 1, True, TCP_INFO_BYTES), told)
    lab.verdict.must_be_equal(f"{name}: state of the subflow", 1, answer[SUBFLOW_DATA.size])
    for what, fields in (
        ("a header of no size", (0, 0, 0, TCP_INFO_BYTES)),
        ("a number of subflows", (SUBFLOW_DATA.size, 1, 0, TCP_INFO_BYTES)),
        ("a size of the kernel's", (SUBFLOW_DATA.size, 0, 1, TCP_INFO_BYTES)),
    ):
        for option in (MPTCP_TCPINFO, MPTCP_SUBFLOW_ADDRS):
            errno = _refusal(get, option, len(answer), SUBFLOW_DATA.pack(*fields))
            lab.verdict.must_be_equal(f"{name}: option {option} with {what} is refused", True, errno != 0)
    errno = _refusal(get, MPTCP_FULL_INFO, 4, b"\0\0\0\0")
    lab.verdict.must_be_equal(f"{name}: FULL_INFO without its head is refused", True, errno != 0)


@case(topology="one-path", groups=("socket-options",), families=("4",))
def type_of_service(lab: CaseLab) -> None:
    """IP_TOS is set on the connection, and read back."""
    with lab.start_transfer(TO_SERVER, TO_CLIENT) as transfer:
        transfer.wait_until_part_arrived(0.1)
        try:
            transfer.set_client_option(IPPROTO_IP, IP_TOS, struct.pack("=i", CHOSEN_TOS))
        except OSError as error:
            raise CapabilityError(f"the client's stack has no IP_TOS: {error.strerror}") from None
        read = transfer.client_option(IPPROTO_IP, IP_TOS, 4)
        lab.verdict.must_be_equal("IP_TOS", CHOSEN_TOS, int.from_bytes(read, "little"))
    transfer.must_be_intact()
