"""What a topology becomes before the kernel hears of it: shapers, agents' configurations, stored files."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from testbed.backend import agents, link_shaping, ownership
from testbed.backend.agents import agent_configurations, control_socket
from testbed.backend.link_shaping import Shaper, ShaperPlace, apply_shapers, plan_shapers
from testbed.backend.links import BRIDGE_INDEX, LinkPlan, source_tables
from testbed.backend.netlink import NetlinkSocket, Request, RequestError
from testbed.backend.ownership import Journal
from testbed.backend.stored_topology import load_stored_topology, store_topology
from testbed.errors import CapabilityError, LabError
from testbed.topology.model import Endpoint, LinkEnd, MptcpSettings, StackKind, Topology

from .topologies import direct, two_paths, two_switches

MTU_FRAME = 1514


def shaper(rate_bit_s: int, mtu: int = 1500) -> Shaper:
    ends = LinkEnd("r1", "far"), LinkEnd("server", "eth1")
    return Shaper(*ends, ShaperPlace.SENDER_IN_THE_MIDDLE, "r1", 3, rate_bit_s, mtu)


@pytest.mark.parametrize(
    ("rate_bit_s", "mtu", "burst_bytes", "limit_bytes"),
    [
        (20_000_000, 1500, 10 * MTU_FRAME, 10 * MTU_FRAME + 125_000),
        (1_000_000_000, 1500, 500_000, 500_000 + 6_250_000),
        (1_000_000, 1500, 2 * MTU_FRAME, 2 * MTU_FRAME + 20 * MTU_FRAME),
        (1_000_000, 9000, 2 * 9014, 2 * 9014 + 20 * 9014),
    ],
)
def test_buckets_hold_two_packets_at_least_and_queue_for_50_ms(
    rate_bit_s: int, mtu: int, burst_bytes: int, limit_bytes: int
) -> None:
    sized = shaper(rate_bit_s, mtu)
    assert (sized.burst_bytes, sized.limit_bytes) == (burst_bytes, limit_bytes)


def test_rates_go_to_the_middle_where_there_is_one() -> None:
    shapers = plan_shapers(LinkPlan(two_paths(rate_bit_s=10**7)))
    assert [(str(item.sender), item.place, item.node, item.device) for item in shapers] == [
        ("r1:far", ShaperPlace.SENDER_IN_THE_MIDDLE, "r1", 3),
        ("server:eth1", ShaperPlace.RECEIVER_IN_THE_MIDDLE, "r1", BRIDGE_INDEX + 1),
        ("r2:far", ShaperPlace.SENDER_IN_THE_MIDDLE, "r2", 3),
        ("server:eth2", ShaperPlace.RECEIVER_IN_THE_MIDDLE, "r2", BRIDGE_INDEX + 1),
    ]


@pytest.mark.parametrize("rate_bit_s", [0, 7, 8 * 2**32])
def test_rates_that_tbf_cannot_hold_are_refused(rate_bit_s: int) -> None:
    with pytest.raises(CapabilityError, match="cannot be enforced"):
        plan_shapers(LinkPlan(direct(rate_bit_s=rate_bit_s)))


class MinimalKernel(NetlinkSocket):
    """A kernel that knows no ifb: nothing is sent, every request is recorded."""

    def __init__(self) -> None:
        self.accepted: list[Request] = []

    def run(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if "'ifb'" in repr(request.fields):
                raise RequestError(request, errno.EOPNOTSUPP, "Unknown device type")
            self.accepted.append(request)


def test_without_redirection_the_sending_host_holds_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = MinimalKernel()
    plan = LinkPlan(two_paths(rate_bit_s=10**7))
    rates = dict.fromkeys(range(2, 6), 10**7 // 8)
    monkeypatch.setattr(link_shaping, "_read_rates", lambda _netlink: rates)
    applied = apply_shapers(plan, plan_shapers(plan), lambda _node: kernel)
    assert [(item.place, item.node, item.device) for item in applied[:2]] == [
        (ShaperPlace.SENDER_IN_THE_MIDDLE, "r1", 3),
        (ShaperPlace.SENDING_HOST, "server", 2),
    ]


def test_a_rate_that_the_kernel_did_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_shaping, "_read_rates", lambda _netlink: {3: 1})
    with pytest.raises(LabError, match="asked for 1250000 byte/s, the kernel holds 1"):
        link_shaping.set_buckets([shaper(10**7)], MinimalKernel())


def test_a_kernel_without_tbf_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: MinimalKernel, requests: Sequence[Request]) -> None:
        raise RequestError(requests[0], errno.ENOENT, "Specified qdisc kind is unknown")

    monkeypatch.setattr(MinimalKernel, "run", refuse)
    with pytest.raises(CapabilityError, match="CONFIG_NET_SCH_TBF"):
        link_shaping.set_buckets([shaper(10**7)], MinimalKernel())


def test_every_source_address_has_a_table_of_its_own_that_stays() -> None:
    client = two_paths().node("client")
    tables = source_tables(client)
    sources = ["10.0.1.2", "fd00:1::2", "10.0.2.2", "fd00:2::2"]
    assert list(tables) == [ip_address(source) for source in sources]
    assert len(set(tables.values())) == 4
    assert min(tables.values()) > 255, "the kernel's own tables"
    fewer = replace(client, routes=client.routes[-2:])
    assert source_tables(fewer).items() < tables.items()


def test_switches_make_their_links_and_join_those_that_other_switches_made() -> None:
    plan = LinkPlan(two_switches())
    assert [(str(maker), str(other)) for maker, other in plan.pairs] == [
        ("s1:down", "a:eth0"),
        ("s2:across", "s1:across"),
        ("s2:down", "b:eth0"),
    ]


@pytest.fixture
def journal(runtime: Path) -> Iterator[Journal]:
    opened = ownership.begin("lab", topology="some", persistent=False, rootless=False)
    yield opened
    opened.close()


def test_agents_are_told_everything_about_their_host(journal: Journal, runtime: Path) -> None:
    topology = two_paths(StackKind.USERSPACE, sysctls=(("net.mptcp.checksum_enabled", "1"),))
    endpoint = Endpoint(ip_address("10.0.2.2"), frozenset({"subflow", "backup"}), "eth2", 3, None)
    client = replace(topology.node("client"), mptcp=MptcpSettings(4, 1, (endpoint,)))
    topology = Topology("some", (client, *topology.nodes[1:]), topology.links)
    told, server = agent_configurations(topology, journal, seed=7)
    assert (told.lab, told.host, told.stack) == ("lab", "client", "userspace")
    assert told.namespace_path == "/run/netns/mt-lab-client"
    assert told.control_socket == str(runtime / "lab" / "client.sock")
    assert told.interfaces[1] == {
        "name": "eth2",
        "mac": "02:00:00:00:00:02",
        "mtu": 1500,
        "addresses": ["10.0.2.2/24", "fd00:2::2/64"],
    }
    assert told.routes[1] == {
        "destination": "0.0.0.0/0",
        "interface": "eth1",
        "gateway": "10.0.1.1",
        "source": "10.0.1.2",
        "metric": 0,
    }
    assert (told.subflows_limit, told.add_addr_accepted_limit) == (4, 1)
    assert told.endpoints == (
        {
            "address": "10.0.2.2",
            "flags": ["backup", "subflow"],
            "interface": "eth2",
            "identifier": 3,
            "port": None,
        },
    )
    assert told.sysctls == (("net.mptcp.checksum_enabled", "1"),)
    assert told.seed is not None
    assert told.seed != server.seed
    assert told == agent_configurations(topology, journal, seed=7)[0]
    assert agent_configurations(topology, journal, seed=None)[0].seed is None


def test_long_socket_paths_use_the_nodes_number(tmp_path: Path) -> None:
    topology = direct()
    length = agents._LONGEST_SOCKET_PATH - len("/0.sock")
    long_name = Topology("long", (replace(topology.nodes[0], name="n" * 60), topology.nodes[1]), ())
    directory = Path("/" + "d" * (length - 1))
    assert control_socket(directory, long_name, "n" * 60) == directory / "0.sock"
    with pytest.raises(LabError, match="choose a shorter directory"):
        control_socket(Path(f"{directory}d"), long_name, "n" * 60)


@pytest.mark.parametrize("topology", [two_paths(rate_bit_s=10**7), two_switches(), direct()])
def test_stored_topologies_come_back_equal(tmp_path: Path, topology: Topology) -> None:
    store_topology(topology, tmp_path)
    loaded = load_stored_topology(tmp_path)
    assert loaded == topology
    assert loaded.node(topology.nodes[0].name) == topology.nodes[0]


def test_a_damaged_or_missing_topology_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot read the lab's topology"):
        load_stored_topology(tmp_path)
    store_topology(direct(), tmp_path)
    (tmp_path / "topology.json").write_text("{}")
    with pytest.raises(LabError, match="cannot read the lab's topology"):
        load_stored_topology(tmp_path)
