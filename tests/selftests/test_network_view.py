"""What a case does to the network: the words reach it, the timeline tells when, and mistakes are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.backend.simulated.lab import SimulatedLab
from testbed.errors import UsageError
from testbed.middlebox.settings import DropMptcpSyns, Nat44, Nat66, Split, Strip
from testbed.selftests.lab_view import CaseLab
from testbed.selftests.results import Outcome
from testbed.topology.impairments import impairment_text
from testbed.topology.load import load_topology
from tests.selftests.fakes import FakeNetwork, connected_agents, make_topology


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def fake(network: FakeNetwork) -> CaseLab:
    client, server = connected_agents()
    return CaseLab(make_topology(), {"client": client, "server": server}, network, 4, seed=1)


@pytest.fixture
def simulated() -> Iterator[tuple[SimulatedLab, CaseLab]]:
    topology = load_topology("two-paths")
    with SimulatedLab(topology, 1) as lab:
        yield lab, CaseLab(topology, lab.hosts, lab, 4, seed=1, clock=lab.clock)


def test_words_reach_the_network(fake: CaseLab, network: FakeNetwork) -> None:
    fake.link_down("r1", "eth1")
    fake.link_up("r1", "eth1")
    fake.impair("client", "eth1", "delay 80ms 5ms loss 5%", received=False)
    fake.impair("client", "eth1", "none")
    fake.set_middlebox("client", "eth0", Strip(), DropMptcpSyns())
    fake.intercept("server", 80)
    assert network.calls == [
        "r1:eth1 down",
        "r1:eth1 up",
        "client:eth1 {'delay': '80ms 5ms', 'loss': '5%'} True False",
        "client:eth1 {} True True",
        "client:eth0 boxes strip, drop_mptcp_syns",
        "server intercepts 80",
    ]
    assert [event.text for event in fake.events] == [
        "link r1:eth1 down",
        "link r1:eth1 up",
        "link client:eth1 sent: delay 80ms 5ms loss 5%",
        "link client:eth1: no impairment",
        "middlebox on client:eth0: strip {}, drop_mptcp_syns {}",
        "server intercepts what is for port 80",
    ]


@pytest.mark.parametrize("words", ["", "lag 80ms", "delay 80ms delay 1ms"])
def test_what_is_no_impairment_is_refused(fake: CaseLab, network: FakeNetwork, words: str) -> None:
    with pytest.raises(UsageError):
        fake.impair("client", "eth1", words)
    assert (network.calls, fake.events) == ([], [])


def test_an_action_has_its_time_in_a_simulation(simulated: tuple[SimulatedLab, CaseLab]) -> None:
    lab, case = simulated
    case.wait_until(0.5)
    case.at(2.0, lambda: case.impair("client", "eth0", "delay 80ms loss 5%", sent=False))
    case.at(1.0, lambda: case.link_down("r2", "eth0"))
    case.wait_until(3.0)
    assert [(event.at_us, event.text) for event in case.events] == [
        (1_000_000, "link r2:eth0 down"),
        (2_000_000, "link client:eth0 received: delay 80ms loss 5%"),
    ]
    state = lab.links.state(lab.links.link_at("client:eth0"))
    assert impairment_text(state.forward.impairment) == ""
    assert impairment_text(state.backward.impairment) == "delay 80ms loss 5%"
    case.impair("client", "eth0", "delay 10ms")
    state = lab.links.state(lab.links.link_at("r1:eth0"))
    assert impairment_text(state.forward.impairment) == "delay 10ms"
    assert impairment_text(state.backward.impairment) == "delay 10ms loss 5%"


def test_what_a_scheduled_action_raises_ends_the_case(simulated: tuple[SimulatedLab, CaseLab]) -> None:
    _lab, case = simulated
    case.at(1.0, lambda: case.link_down("r2", "eth9"))
    with pytest.raises(UsageError, match="no link at r2:eth9"):
        case.wait_for("something", lambda: False, timeout_s=5.0)
    assert case.now() == pytest.approx(1.0, abs=0.1)


def test_a_box_is_switched_on_and_off_in_a_simulation(simulated: tuple[SimulatedLab, CaseLab]) -> None:
    lab, case = simulated
    case.set_middlebox("r1", "eth0", Strip())
    link = lab.links.link_at("client:eth0")
    assert lab.links.state(link).middlebox == (Strip(),)
    stripped = case.transfer(1000)
    case.set_middlebox("r1", "eth0")
    assert lab.links.state(link).middlebox == ()
    assert (stripped.client.is_mptcp, case.transfer(1000).client.is_mptcp) == (False, True)


def test_the_timeline_of_a_topology_is_played_and_recorded() -> None:
    events = """[
      {at: 2s, link: "client:wwan0", impair: {"<-": {delay: 5ms}}},
      {at: 1s, interface: "client:wlan0", move_to: office},
      {at: 3s, link: "client:wwan0", middlebox: {split: {}}},
      {at: 4s, link: "client:wwan0", set: down},
      {at: 9s, link: "client:wwan0", set: up},
    ]"""
    topology = load_topology("roaming", {"events": events})
    with SimulatedLab(topology, 1) as lab:
        case = CaseLab(topology, lab.hosts, lab, 4, seed=1, clock=lab.clock)
        case.play_events()
        case.wait_until(5.0)
        state = lab.links.state(lab.links.link_at("client:wwan0"))
        assert case.client.address("wlan0") == "10.0.3.2"
    assert [(event.at_us // 1000, event.text) for event in case.events] == [
        (1000, "client:wlan0 moved to office (due at 1.000 s)"),
        (2000, "link client:wwan0: <- delay 5ms (due at 2.000 s)"),
        (3000, "middlebox on client:wwan0: split {} (due at 3.000 s)"),
        (4000, "link client:wwan0 down (due at 4.000 s)"),
    ]
    assert impairment_text(state.backward.impairment) == "delay 5ms"


def test_addresses_and_cables_in_a_simulation() -> None:
    topology = load_topology("roaming")
    with SimulatedLab(topology, 1) as lab:
        case = CaseLab(topology, lab.hosts, lab, 4, seed=1, clock=lab.clock)
        case.transfer(1000).must_be_intact()
        case.move("client", "wlan0", "office")
        case.add_address("client", "wwan0", "10.0.5.50/24")
        case.remove_address("client", "wwan0", "10.0.5.1")
        assert case.client.address("wwan0") == "10.0.5.50"
        transfer = case.transfer(1000)
        transfer.must_be_intact()
        assert transfer.client.local.startswith("10.0.3.2 ")
        case.move("client", "wlan0", "home", "10.0.1.200/24")
        assert case.transfer(1000).client.local.startswith("10.0.1.200 ")
        with pytest.raises(UsageError, match="is in 'home' already"):
            case.move("client", "wlan0", "home")
        assert case.events[-1].text.startswith("all data arrived")
    assert case.verdict.outcome is Outcome.PASS


def test_what_boxes_did_is_counted_and_kept(simulated: tuple[SimulatedLab, CaseLab], fake: CaseLab) -> None:
    _lab, case = simulated
    case.set_middlebox("client", "eth0", Strip(direction="->"), Split(direction="->", payload_bytes=500))
    case.transfer(10_000)
    assert case.boxes_changed("strip") >= 1
    assert case.boxes_changed("split") >= 6
    assert case.boxes_changed("nat44") == 0
    case.note_boxes()
    assert [note.partition(",")[0].rpartition(":")[0] for note in case.notes] == [
        "middlebox on client:eth0: strip ->",
        "middlebox on client:eth0: split ->",
    ]
    fake.note_boxes()
    assert fake.notes == ["middlebox on client:eth0: strip ->: 9 packets, 2 stripped"]


@pytest.mark.parametrize("family", [4, 6])
def test_a_translator_is_switched_on_and_off_in_a_simulation(family: int) -> None:
    topology = load_topology("one-path")
    nat = Nat44(address="10.0.1.50") if family == 4 else Nat66(address="fd00:0:0:1::50")
    with SimulatedLab(topology, 1) as lab:
        case = CaseLab(topology, lab.hosts, lab, family, seed=1, clock=lab.clock)
        case.set_middlebox("client", "eth0", nat)
        translated = case.transfer(1000)
        translated.must_be_intact()
        case.set_middlebox("client", "eth0")
        plain = case.transfer(1000)
        plain.must_be_intact()
    assert translated.server.remote.partition(" ")[0] == nat.address
    assert plain.server.remote.partition(" ")[0] == case.client.address()
    assert case.verdict.outcome is Outcome.PASS
