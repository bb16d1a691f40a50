"""The language speaks with the bundled stack itself: handshake, data, a join, an announcement, the close."""

from __future__ import annotations

import hashlib

from mptcp_stack.ip.interface import InterfaceAddress, LinkType
from mptcp_stack.ip.routing import Route
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame
from testbed.packetdrill.packets import Bindings, build, describe_as_text, match
from testbed.packetdrill.parser import parse_packet
from testbed.packetdrill.syntax import Direction

from .conversation import SCRIPT_V4, STACK_V4


class Device:
    """A stack with two addresses, whose packets are judged by the language."""

    def __init__(self) -> None:
        numbers = iter(range(1 << 30))

        def random_bytes(length: int) -> bytes:
            return hashlib.sha256(str(next(numbers)).encode()).digest()[:length]

        self.stack = Stack(random_bytes=random_bytes)
        addresses = [InterfaceAddress(address, 24) for address in STACK_V4[:2]]
        self.interface = self.stack.ip.add_interface(
            "tun0", link_type=LinkType.RAW_IP, mtu=1500, addresses=addresses
        )
        self.stack.ip.routes.add(Route(bytes(4), 0, self.interface))
        self.bindings = Bindings(STACK_V4, SCRIPT_V4)
        self.now_us = 0
        self._waiting: list[bytes] = []

    def run(self, *lines: str) -> None:
        """Injects what begins with ``<``; expects what begins with ``>`` as the next packet."""
        for line in lines:
            packet = parse_packet(line)
            if packet.direction is Direction.IN:
                self.stack.receive_frame(Frame(build(packet, self.bindings)), self.interface, self.now_us)
                continue
            sent = self.sent()
            text = describe_as_text(sent, Direction.OUT, self.bindings)
            assert match(packet, sent, self.bindings.copy()) == [], text
            # What is printed in its place must agree as well.
            assert match(parse_packet(text), sent, self.bindings.copy()) == [], text
            match(packet, sent, self.bindings)

    def sent(self) -> bytes:
        """The next packet; lets timers fire until there is one."""
        while not self._waiting:
            self._waiting = [frame.to_bytes() for _, frame in self.stack.frames_to_send(self.now_us)]
            if not self._waiting:
                deadline_us = self.stack.next_deadline_us()
                assert deadline_us is not None, "the stack will never send anything"
                self.now_us = max(self.now_us, deadline_us)
                self.stack.handle_deadline(self.now_us)
        return self._waiting.pop(0)


HANDSHAKE = (
    "< S 0:0(0) win 65535 <mss 1460, sackOK, nop, nop, nop, wscale 8, mpcapable v1 flags[flag_h] nokey>",
    "> S. 0:0(0) ack 1 <mss 1460, nop, nop, sackOK, nop, wscale 7, mpcapable v1 flags[flag_h] key[skey]>",
    "< . 1:1(0) ack 1 win 256 <mpcapable v1 flags[flag_h] key[ckey=2, skey]>",
)


def listening() -> Device:
    device = Device()
    device.stack.listen(bytes(4), 8080)
    device.stack.path_manager.set_limits(2, 2)
    return device


def test_server_data_and_close() -> None:
    device = listening()
    device.run(*HANDSHAKE)
    (connection,) = device.stack.connections()
    device.run(
        "< P. 1:1001(1000) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=1000 nocs, nop, nop>",
        "> . 1:1(0) ack 1001 <dss dack8=1001 nocs>",
    )
    assert connection.read(2000) == bytes(1000)
    connection.write(bytes(500))
    device.run(
        "> P. 1:501(500) ack 1001 <dss dack8=1001 dsn8=1 ssn=1 dll=500 nocs, nop, nop>",
        "< . 1001:1001(0) ack 501 win 256 <dss dack8 nocs>",
        "< . 1001:1001(0) ack 501 win 256 <dss dack8 dsn8 nocs fin, nop, nop>",
        "> . 501:501(0) ack 1001 <dss dack8=1002 nocs>",
    )
    assert connection.end_of_stream


def test_server_is_joined() -> None:
    device = listening()
    device.run(*HANDSHAKE)
    device.run(
        "< P. 1:11(10) ack 1 win 256 <dss dack8=1 dsn8=1 ssn=1 dll=10 nocs, nop, nop>",
        "> . 1:1(0) ack 11 <dss dack8=11 nocs>",
        "< addr[caddr1] > addr[saddr0] S 0:0(0) win 65535 <mss 1460, mp_join_syn token=sha256_32(skey)>",
        "> addr[saddr0] > addr[caddr1] S. 0:0(0) ack 1 "
        "<mss 1460, mp_join_syn_ack backup=0 address_id=0 sender_hmac=trunc_l64_hmac(skey ckey)>",
        "< addr[caddr1] > addr[saddr0] . 1:1(0) ack 1 win 256 "
        "<mp_join_ack sender_hmac=full_160_hmac(ckey skey)>",
        "> addr[saddr0] > addr[caddr1] . 1:1(0) ack 1 <dss dack8=11 nocs>",
        "< addr[caddr1] > addr[saddr0] P. 1:6(5) ack 1 win 256 <dss dack8=1 dsn8 ssn=1 dll=5 nocs, nop, nop>",
        "> addr[saddr0] > addr[caddr1] . 1:1(0) ack 6 <dss dack8=16 nocs>",
    )
    assert device.stack.counters["MPTcpExtMPJoinAckRx"] == 1


def test_server_refuses_a_wrong_proof() -> None:
    device = listening()
    device.run(*HANDSHAKE)
    device.run(
        "< addr[caddr1] > addr[saddr0] S 0:0(0) win 65535 <mp_join_syn token=auto>",
        "> addr[saddr0] > addr[caddr1] S. 0:0(0) ack 1 <...>",
        "< addr[caddr1] > addr[saddr0] . 1:1(0) ack 1 win 256 "
        "<mp_join_ack sender_hmac=full_160_hmac(skey ckey)>",
        "> addr[saddr0] > addr[caddr1] R 1:1(0) <mp_reset 1>",
    )
    assert device.stack.counters["MPTcpExtMPJoinAckHMacFailure"] == 1


def test_server_announces() -> None:
    device = listening()
    device.stack.path_manager.add_endpoint(STACK_V4[1], flags=frozenset({"signal"}))
    device.run(*HANDSHAKE)
    device.run(
        "> . 1:1(0) ack 1 <add_address address_id=1 addr[saddr1] hmac=auto>",
        "< . 1:1(0) ack 1 win 256 <add_address address_id=1 addr[saddr1] addr_echo>",
    )
    assert device.bindings.addresses["saddr1"] == STACK_V4[1]
    assert device.stack.counters["MPTcpExtEchoAdd"] == 1


def test_client_joins() -> None:
    device = Device()
    device.stack.path_manager.set_limits(2, 2)
    device.stack.path_manager.add_endpoint(STACK_V4[1], flags=frozenset({"subflow"}))
    connection = device.stack.connect(SCRIPT_V4[0], 8080)
    device.run(
        "> S 0:0(0) <mss 1460, sackOK, TS val 100 ecr 0, nop, wscale 7, mpcapable v1 flags[flag_h] nokey>",
        "< S. 0:0(0) ack 1 win 65535 <mss 1460, sackOK, nop, nop, mpcapable v1 flags[flag_h] key[skey]>",
        "> . 1:1(0) ack 1 <mpcapable v1 flags[flag_h] key[ckey, skey]>",
    )
    connection.write(bytes(10))
    device.run(
        "> P. 1:11(10) ack 1 <mpcapable v1 flags[flag_h] key[ckey, skey] mpcdatalen 10 nocs>",
        "< . 1:1(0) ack 11 win 256 <dss dack8=11 nocs>",
        "> addr[saddr1] > addr[caddr0] S 0:0(0) <mss 1460, sackOK, TS val 100 ecr 0, nop, wscale 7, "
        "mp_join_syn backup=0 address_id=1 token=sha256_32(skey)>",
        "< addr[caddr0] > addr[saddr1] S. 0:0(0) ack 1 win 65535 "
        "<mss 1460, mp_join_syn_ack backup=0 address_id=0 sender_hmac=auto>",
        "> addr[saddr1] > addr[caddr0] . 1:1(0) ack 1 <mp_join_ack sender_hmac=auto>",
    )
