"""Wireshark's dissector, an independent reader of RFC 8684, sees in every option what was put into it."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from mptcp_stack.wire.addresses import format_address
from mptcp_stack.wire.checksum import checksum_of, pseudo_header_sum
from mptcp_stack.wire.ip_packet import emit_ipv4_header
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
)
from mptcp_stack.wire.tcp_options import TcpOptions
from mptcp_stack.wire.tcp_segment import ACK, RST, SYN, TcpSegment, emit_tcp_header
from tests.wire.test_mptcp_options import VECTORS

SOURCE = bytes((10, 0, 1, 1))
DESTINATION = bytes((10, 0, 1, 2))
LINK_TYPE_RAW_IP = 101

DISSECTED = [option for option, _ in VECTORS if not (isinstance(option, Dss) and option.checksum is not None)]
"""The dissector takes a checksum for present only if it has seen the handshake agree on it."""

FIELDS = (
    "tcp.option_kind",
    "tcp.option_len",
    "tcp.options.mptcp.subtype",
    "tcp.checksum.status",
    "_ws.malformed",
)


def flags_for(option: MptcpOption) -> int:
    match option:
        case MpCapable(sender_key=None) | MpJoinSyn():
            return SYN
        case MpCapable(receiver_key=None) | MpJoinSynAck():
            return SYN | ACK
        case MpFastclose() | MpTcpRst():
            return RST | ACK
    return ACK


def packet_with(option: MptcpOption, source_port: int) -> bytes:
    options = TcpOptions(mptcp=(option,))
    segment = TcpSegment(source_port, 2000, 3, 4, flags_for(option), 500, options)
    head = emit_tcp_header(segment)
    initial = pseudo_header_sum(SOURCE, DESTINATION, 6, len(head))
    head[16:18] = checksum_of((head,), initial).to_bytes(2, "big")
    return emit_ipv4_header(SOURCE, DESTINATION, 6, len(head), identification=1) + head


def dissect(packets: list[bytes], fields: tuple[str, ...]) -> list[dict[str, str]]:
    """What tshark says of each packet, by field; several occurrences are joined by commas."""
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed")
    capture = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINK_TYPE_RAW_IP)
    for number, packet in enumerate(packets):
        capture += struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet
    command = [tshark, "-r", "-", "-n", "-T", "fields", "-E", "separator=|", "-o", "tcp.check_checksum:TRUE"]
    for field in fields:
        command += ["-e", field]
    completed = subprocess.run(command, input=capture, capture_output=True, check=True, timeout=60)
    lines = completed.stdout.decode().splitlines()
    return [dict(zip(fields, line.split("|"), strict=True)) for line in lines]


def test_every_option_is_dissected_without_complaint() -> None:
    packets = [packet_with(option, 1000 + index) for index, option in enumerate(DISSECTED)]
    seen = dissect(packets, FIELDS)
    assert len(seen) == len(DISSECTED)
    for option, fields in zip(DISSECTED, seen, strict=True):
        encoded_length = option.to_bytes()[1]
        assert fields["tcp.option_kind"].split(",")[0] == "30", option
        assert fields["tcp.option_len"].split(",")[0] == str(encoded_length), option
        assert int(fields["tcp.options.mptcp.subtype"]) == option.to_bytes()[2] >> 4, option
        assert fields["tcp.checksum.status"] == "1", option
        assert fields["_ws.malformed"] == "", option


def test_fields_are_where_the_dissector_finds_them() -> None:
    expected: list[tuple[MptcpOption, dict[str, str]]] = [
        (MpCapable(1, 1, bytes(range(8))), {"tcp.options.mptcp.sendkey": str(0x0001020304050607)}),
        (
            MpJoinSyn(True, 7, 0x01020304, 0x05060708),
            {
                "tcp.options.mptcp.addrid": "7",
                "tcp.options.mptcp.recvtok": str(0x01020304),
                "tcp.options.mptcp.sendrand": str(0x05060708),
            },
        ),
        (
            MpJoinSynAck(False, 7, bytes(range(8)), 9),
            {"tcp.options.mptcp.sendtrunchmac": str(0x0001020304050607), "tcp.options.mptcp.sendrand": "9"},
        ),
        (MpJoinAck(bytes(range(20))), {"tcp.options.mptcp.sendhmac": bytes(range(20)).hex()}),
        (
            Dss(11, True, 12, True, 13, 14),
            {
                "tcp.options.mptcp.rawdataack": "11",
                "tcp.options.mptcp.rawdataseqno": "12",
                "tcp.options.mptcp.subflowseqno": "13",
                "tcp.options.mptcp.datalvllen": "14",
            },
        ),
        (
            AddAddr(False, 5, SOURCE, 99, bytes(range(8))),
            {
                "tcp.options.mptcp.addrid": "5",
                "tcp.options.mptcp.ipv4": format_address(SOURCE),
                "tcp.options.mptcp.port": "99",
            },
        ),
        (RemoveAddr((5, 6)), {"tcp.options.mptcp.addrid": "5,6"}),
        (MpPrio(True), {"tcp.options.mptcp.backup.flag": "1"}),
        (MpFail(77), {"tcp.options.mptcp.rawdataseqno": "77"}),
        (MpFastclose(bytes(range(8))), {"tcp.options.mptcp.recvkey": str(0x0001020304050607)}),
    ]
    names = tuple(sorted({name for _, fields in expected for name in fields}))
    seen = dissect([packet_with(option, 1000 + i) for i, (option, _) in enumerate(expected)], names)
    for (option, fields), found in zip(expected, seen, strict=True):
        assert {name: found[name] for name in fields} == fields, option
