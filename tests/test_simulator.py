"""Virtual time: order of events, determinism, time-outs, livelock, and two real stacks on a wire."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import pytest

from mptcp_stack import simulator
from mptcp_stack.device.capture import CaptureWriter
from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface, InterfaceAddress, LinkType
from mptcp_stack.simulator import SimulationLivelockError, SimulationTimeoutError, Simulator
from mptcp_stack.stack import Stack
from mptcp_stack.wire.frame import Frame
from tests.driver_fakes import FakeStack, interface


class Rig:
    """Two stand-ins on a wire; the second sends back what it gets."""

    def __init__(self, settings: WireSettings | None = None, seed: int = 1) -> None:
        self.simulator = Simulator(seed)
        self.first, self.second = FakeStack(), FakeStack()
        self.first.echoes = False
        self.near, self.far = interface("a0"), interface("b0")
        self.simulator.add_stack("a", self.first)
        self.simulator.add_stack("b", self.second)
        self.link = self.simulator.link("a", self.near, "b", self.far, settings, name="wire")
        self.seen: list[tuple[int, str, str, bytes]] = []
        self.simulator.add_tap(
            lambda now_us, wire, direction, frame: self.seen.append(
                (now_us, wire, direction, frame.to_bytes())
            )
        )

    def send(self, *frames: bytes) -> None:
        self.first.outgoing += [(self.near, Frame(frame)) for frame in frames]

    def arrived(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.first.received) >= count


def test_echo_takes_the_wires_time() -> None:
    rig = Rig(WireSettings(delay_us=5_000))
    rig.send(b"frame")
    rig.simulator.run_until(rig.arrived(1))
    assert rig.simulator.now_us == 10_000
    assert rig.seen == [
        (0, "a:a0->b:b0", "sent", b"frame"),
        (5_000, "a:a0->b:b0", "delivered", b"frame"),
        (5_000, "b:b0->a:a0", "sent", b"frame"),
        (10_000, "b:b0->a:a0", "delivered", b"frame"),
    ]


def test_directions_may_differ() -> None:
    rig = Rig()
    rig.link.forward.settings = WireSettings(delay_us=1_000)
    rig.link.backward.settings = WireSettings(delay_us=30_000)
    rig.send(b"frame")
    rig.simulator.run_until(rig.arrived(1))
    assert rig.simulator.now_us == 31_000


def test_deadlines_and_calls_happen_at_their_time() -> None:
    rig = Rig()
    calls: list[int] = []
    rig.second.deadline_us = 700
    rig.simulator.call_at(500, lambda: calls.append(rig.simulator.now_us))
    rig.simulator.call_at(900, lambda: calls.append(rig.simulator.now_us))
    rig.simulator.call_at(500, lambda: calls.append(-rig.simulator.now_us))
    rig.simulator.run_for(800)
    assert calls == [500, -500]
    assert rig.second.handled_us == [700]
    assert rig.simulator.now_us == 800
    rig.simulator.run_for(200)
    assert calls == [500, -500, 900]
    assert rig.simulator.now_us == 1_000


def test_overdue_deadline_is_handled_now() -> None:
    rig = Rig()
    rig.simulator.run_for(1_000)
    rig.first.deadline_us = 3
    rig.simulator.run_until(lambda: rig.first.handled_us == [1_000])


def test_condition_may_give_the_stacks_work() -> None:
    rig = Rig(WireSettings(delay_us=10))
    rounds = 0

    def play() -> bool:
        nonlocal rounds
        if len(rig.first.received) == rounds:
            rounds += 1
            rig.send(b"next")
        return rounds == 5

    rig.simulator.run_until(play)
    assert rig.simulator.now_us == 80
    # What the condition sent last is on the wire.
    assert rig.link.forward.frames_in_flight == 1


def test_time_out_says_when_and_what_is_pending() -> None:
    rig = Rig(WireSettings(delay_us=400))
    rig.second.deadline_us = 90_000_000
    rig.send(b"frame")
    with pytest.raises(SimulationTimeoutError) as caught:
        rig.simulator.run_until(lambda: False, limit_us=500)
    message = str(caught.value)
    assert "after 500 µs (now 500 µs)" in message
    assert "b deadline at 90000000 µs" in message
    assert "b:b0->a:a0 1 frames, next at 800 µs" in message
    assert rig.simulator.now_us == 500


def test_nothing_left_to_happen_is_no_endless_wait() -> None:
    rig = Rig()
    with pytest.raises(SimulationTimeoutError, match="nothing is left to happen at 0 µs"):
        rig.simulator.run_until(lambda: False)


def test_livelock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "MAXIMUM_STEPS_PER_INSTANT", 1000)
    rig = Rig()
    rig.first.echoes = True
    rig.send(b"ball")
    with pytest.raises(SimulationLivelockError, match="1000 steps at 0 µs"):
        rig.simulator.run_for(1)


def test_cut_link_loses_everything_until_it_is_mended() -> None:
    rig = Rig(WireSettings(delay_us=100))
    rig.send(b"on its way")
    rig.simulator.call_at(50, lambda: rig.simulator.set_link("wire", up=False))
    rig.simulator.run_for(60)
    rig.send(b"while down")
    rig.simulator.run_for(1_000)
    rig.simulator.set_link("wire", up=True)
    rig.send(b"after")
    rig.simulator.run_until(rig.arrived(1))
    assert [frame.head for frame, _, _ in rig.second.received] == [b"after"]
    assert rig.simulator.links() == {"wire": rig.link}


def test_frames_for_an_unlinked_interface_are_lost() -> None:
    rig = Rig()
    rig.first.outgoing = [(interface("elsewhere", 9), Frame(b"frame"))]
    rig.simulator.run_for(10)
    assert rig.seen == []


def test_same_seed_same_losses() -> None:
    def trace(seed: int) -> list[tuple[int, str, str, bytes]]:
        rig = Rig(WireSettings(delay_us=100, loss=0.3, rate_bit_s=1_000_000), seed)
        rig.send(*(f"frame {index}".encode() for index in range(100)))
        rig.simulator.run_for(1_000_000)
        return rig.seen

    assert trace(4) == trace(4)
    assert trace(4) != trace(5)


def test_named_streams_are_independent() -> None:
    plain = Simulator(7)
    other = Simulator(7)
    other.random("noise").random()
    assert other.random("a") is other.random("a")
    expected = plain.random("a").random()
    assert other.random("a").random() == expected
    assert plain.random("b").random() != expected
    assert Simulator(8).random("a").random() != expected


def test_capture_shows_every_wire() -> None:
    rig = Rig(WireSettings(delay_us=5))
    stream = io.BytesIO()
    rig.simulator.capture(CaptureWriter(stream), epoch_ns=10**18)
    rig.send(b"a very special frame")
    rig.simulator.run_until(rig.arrived(1))
    assert stream.getvalue().count(b"a very special frame") == 2
    assert b"a:a0->b:b0" in stream.getvalue()


def test_impossible_links_are_refused() -> None:
    rig = Rig()
    ethernet = Interface(5, "eth", LinkType.ETHERNET, b"\x02\0\0\0\0\x01", 1500)
    with pytest.raises(ConfigurationError) as caught:
        rig.simulator.link("nobody", rig.near, "b", ethernet, name="wire")
    for problem in (
        "link 'wire' already",
        "no stack 'nobody'",
        "a0 is linked already",
        "different link types",
    ):
        assert problem in str(caught.value)
    fresh = interface("a1", 2)
    with pytest.raises(ConfigurationError, match="the same interface"):
        rig.simulator.link("a", fresh, "a", fresh)
    with pytest.raises(ConfigurationError, match="a stack 'a' already"):
        rig.simulator.add_stack("a", FakeStack())


ADDRESSES = {
    4: (b"\x0a\0\0\x01", b"\x0a\0\0\x02"),
    6: (b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02"),
}


class Hosts:
    """A client and a server with real stacks, and a transfer from one to the other."""

    def __init__(self, seed: int, family: int, settings: WireSettings) -> None:
        self.simulator = Simulator(seed)
        self.client, client_interface = self._host("client", ADDRESSES[family][0])
        self.server, server_interface = self._host("server", ADDRESSES[family][1])
        self.simulator.link("client", client_interface, "server", server_interface, settings)
        self.server_address = ADDRESSES[family][1]
        self.trace = hashlib.sha256()
        self.simulator.add_tap(self._note)

    def _host(self, name: str, address: bytes) -> tuple[Stack, Interface]:
        stack = Stack(random_bytes=self.simulator.random(f"stack {name}").randbytes)
        self.simulator.add_stack(name, stack)
        added = stack.ip.add_interface(
            "eth0",
            link_type=LinkType.ETHERNET,
            mac=bytes((2, 0, 0, 0, 0, address[-1])),
            addresses=[InterfaceAddress(address, 24 if len(address) == 4 else 64)],
            checksum_offload=True,
            gso_max_size=65_000,
        )
        return stack, added

    def _note(self, now_us: int, wire: str, direction: str, frame: Frame) -> None:
        self.trace.update(f"{now_us} {wire} {direction} {len(frame)} ".encode() + frame.to_bytes())

    def transfer(self, data: bytes, protocol: str) -> bytes:
        """What the server got until the client's end of stream."""
        listener = self.server.listen(None, 80, protocol=protocol)
        sender = self.client.connect(self.server_address, 80, protocol=protocol)
        received = bytearray()
        sent = 0

        def play() -> bool:
            nonlocal sent
            if sender.is_established and sent < len(data):
                sent += sender.write(data[sent:])
                if sent == len(data):
                    sender.close()
            for receiver in self.server.connections():
                received.extend(receiver.read(1 << 20))
                if receiver.end_of_stream:
                    return True
            return False

        self.simulator.run_until(play)
        listener.close()
        return bytes(received)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
@pytest.mark.parametrize(
    "settings",
    [WireSettings(delay_us=5_000), WireSettings(delay_us=5_000, rate_bit_s=50_000_000, loss=0.01)],
    ids=["clean", "lossy"],
)
def test_real_stacks_transfer_the_same_bytes(family: int, protocol: str, settings: WireSettings) -> None:
    hosts = Hosts(1, family, settings)
    data = hosts.simulator.random("data").randbytes(300_000)
    assert hosts.transfer(data, protocol) == data
    assert hosts.simulator.now_us < 5_000_000


def test_same_seed_same_packets_byte_for_byte() -> None:
    def trace(seed: int) -> tuple[str, int]:
        hosts = Hosts(seed, 4, WireSettings(delay_us=5_000, rate_bit_s=50_000_000, loss=0.02))
        data = hosts.simulator.random("data").randbytes(200_000)
        assert hosts.transfer(data, "mptcp") == data
        return hosts.trace.hexdigest(), hosts.simulator.now_us

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)


def test_a_cable_that_is_plugged_in_elsewhere_leads_there() -> None:
    rig = Rig(WireSettings(delay_us=10))
    third, port = FakeStack(), interface("c0")
    rig.simulator.add_stack("c", third)
    rig.send(b"lost")
    rig.simulator.run_for(5)
    rig.simulator.replug("wire", rig.far, "c", port)
    rig.send(b"frame")
    rig.simulator.run_until(rig.arrived(1))
    assert (rig.second.received, len(third.received)) == ([], 1)
    with pytest.raises(ConfigurationError, match="nothing can be plugged into c:c0"):
        rig.simulator.replug("wire", rig.near, "c", port)
