"""The vocabulary of the cases: each word reaches the agents and the network as what it says."""

from __future__ import annotations

import dataclasses

import pytest

from testbed.errors import CapabilityError, HostError
from testbed.selftests.host_view import CaseAbortedError
from testbed.selftests.lab_view import PLAIN, CaseLab, kib, mib
from tests.selftests.fakes import FakeAgent, FakeNetwork, connected_agents, make_topology


class Bench:
    def __init__(self, family: int = 4, *, settled_after_s: float = 0) -> None:
        self.client, self.server = connected_agents()
        self.network = FakeNetwork()
        agents = {"client": self.client, "server": self.server}
        self.lab = CaseLab(
            make_topology(), agents, self.network, family, seed=1, settled_after_s=settled_after_s
        )


@pytest.mark.parametrize(
    ("family", "address", "anywhere"), [(4, "10.0.0.1", "0.0.0.0"), (6, "fd00::1", "::")]
)
def test_the_client_connects_to_the_first_address_of_the_family(
    family: int, address: str, anywhere: str
) -> None:
    bench = Bench(family)
    bench.lab.transfer(1, 1, server_protocol="tcp")
    assert bench.server.calls == [f"start listen {anywhere} 0 tcp"]
    assert bench.client.calls == [f"start connect {address} 4321 mptcp"]


def test_endpoints_and_limits() -> None:
    bench = Bench()
    bench.lab.client.limits(subflows=3, add_addr_accepted=2)
    bench.lab.client.endpoint("eth1", subflow=True, backup=True)
    bench.lab.client.remove_endpoint("eth1")
    assert bench.client.calls == ["limits 3 2", "endpoint 10.0.1.2 subflow,backup eth1", "delete endpoint 5"]


def test_only_an_endpoint_that_was_made_can_be_removed() -> None:
    bench = Bench()
    with pytest.raises(KeyError):
        bench.lab.client.remove_endpoint("eth1")


def test_an_address_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="no IPv4 address on eth9"):
        Bench().lab.client.address("eth9")


def test_endpoints_at_any_address() -> None:
    bench = Bench()
    assert bench.lab.server.endpoint_at("10.9.9.9", "signal", identifier=5) == 5
    bench.lab.server.remove_endpoint_id(5)
    assert bench.server.calls == ["endpoint 10.9.9.9 signal None", "delete endpoint 5"]


def test_an_exchange_may_go_from_any_host_to_any_address() -> None:
    bench = Bench()
    how = dataclasses.replace(PLAIN, protocol="tcp")
    bench.lab.exchange(
        1, client=how, connector=bench.lab.server, listener=bench.lab.client, address="fd00:0:0:1::2"
    )
    assert bench.client.calls == ["start listen :: 0 mptcp"]
    assert bench.server.calls == ["start connect fd00:0:0:1::2 4321 tcp"]


def test_a_listener_may_be_at_one_address() -> None:
    bench = Bench()
    with bench.lab.start_transfer(1, listen_at=("10.0.0.1", 77)):
        pass
    assert bench.server.calls[0] == "start listen 10.0.0.1 77 mptcp"


def test_routers_filter() -> None:
    bench = Bench()
    bench.lab.filter("r1", "tcp dport 1 drop", "udp drop", hook="prerouting")
    bench.lab.filter("r1")
    assert bench.network.calls == ["r1 prerouting tcp dport 1 drop; udp drop", "r1 forward "]


def test_links_are_cut_by_the_network() -> None:
    bench = Bench()
    bench.lab.set_link("r1", "eth1", up=False)
    assert bench.network.calls == ["r1:eth1 down"]


def test_bytes_of_interfaces_are_those_of_the_body() -> None:
    bench = Bench()
    with bench.lab.count_bytes(bench.lab.server, "eth0", "eth1") as carried:
        assert carried == {}
    # looks 1 and 2 come before, 3 and 4 after; each sees 1000 more bytes in both directions
    assert carried == {"eth0": 4000, "eth1": 4000}


def test_waiting_for_a_counter_ends_when_it_is_reached() -> None:
    bench = Bench()
    with bench.lab.measure() as run:
        bench.client.values["MPTcpExtMPJoinSynTx"] += 2
        bench.lab.wait_for_count(run.client, "MPJoinSynTx", 2)
    assert run.client.delta()["MPTcpExtMPJoinSynTx"] == 2


def test_waiting_in_vain_ends_the_case_and_says_for_what() -> None:
    bench = Bench()
    with pytest.raises(CaseAbortedError, match=r"the moon: did not happen within 0\.01 s"):
        bench.lab.wait_for("the moon", lambda: False, timeout_s=0.01)


def test_waiting_for_a_counter_that_the_kernel_lacks() -> None:
    bench = Bench()
    for name in ("MPTcpExtRmAddr", "MPTcpExtMPCurrEstab"):
        bench.client.values.pop(name, None)
    with bench.lab.measure() as run, pytest.raises(CapabilityError, match="no counter MPTcpExtRmAddr"):
        bench.lab.wait_for_count(run.client, "RmAddr", 1)
    with pytest.raises(CapabilityError, match="no counter MPTcpExtMPCurrEstab"):
        bench.lab.wait_for_connections(bench.lab.client, 0)


class RestlessAgent(FakeAgent):
    """Counts a join at each of its first looks."""

    def counters(self) -> dict[str, int]:
        if self.values["MPTcpExtMPJoinSynTx"] < 5:
            self.values["MPTcpExtMPJoinSynTx"] += 1
        return dict(self.values)


def test_counters_are_read_when_they_have_come_to_rest() -> None:
    bench = Bench(settled_after_s=0.05)
    restless = RestlessAgent()
    bench.lab.client.agent = restless
    with bench.lab.measure() as run:
        pass
    assert run.client.after["MPTcpExtMPJoinSynTx"] == 5


def test_the_record_spans_all_measurements() -> None:
    bench = Bench()
    for _ in range(2):
        with bench.lab.measure():
            bench.server.values["MPTcpExtAddAddrTx"] += 1
    client, server = bench.lab.host_records()
    assert server.moved_counters() == {"MPTcpExtAddAddrTx": 2}
    assert client.moved_counters() == {}


def test_counters_are_kept_when_the_case_fails() -> None:
    bench = Bench()

    def fail() -> None:
        with bench.lab.measure():
            bench.server.values["MPTcpExtAddAddrTx"] += 1
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert bench.lab.host_records()[1].moved_counters() == {"MPTcpExtAddAddrTx": 1}


def test_a_host_that_stopped_answering_does_not_hide_the_failure() -> None:
    bench = Bench()

    def fail() -> None:
        with bench.lab.measure():
            bench.lab.client.agent = MuteAgent()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()


class MuteAgent(FakeAgent):
    def counters(self) -> dict[str, int]:
        raise HostError("client: its agent is gone")


def test_the_same_seed_sends_the_same_data() -> None:
    seeds = []
    for _ in range(2):
        bench = Bench()
        bench.lab.transfer(1, 1)
        assert bench.client.workload is not None
        seeds.append(bench.client.workload.workload.send_seed)
    assert seeds[0] == seeds[1]


def test_sizes() -> None:
    assert (kib(3), mib(2)) == (3072, 2097152)
