"""Labs in virtual time: routers and switches between hosts that speak the agents' protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from mptcp_stack.wire.ethernet import HEADER_LENGTH
from mptcp_stack.wire.frame import Frame
from mptcp_stack.wire.ip_packet import parse_ipv4
from testbed.backend.simulated.lab import SimulatedLab
from testbed.errors import CapabilityError, HostError, UsageError
from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.topology.load import load_topology

SIZE = 300_000


def transfer(lab: SimulatedLab, client: str, server: str, address: str) -> tuple[ConnectionResult, ...]:
    """Both ways at once, to the end."""
    listening = Workload(WorkloadKind.TRANSFER, Role.LISTEN, "::", 0, send_bytes=SIZE, send_seed=1)
    listener = lab.hosts[server].start(listening)
    connecting = Workload(
        WorkloadKind.TRANSFER, Role.CONNECT, address, listener.port, send_bytes=SIZE, send_seed=2
    )
    connector = lab.hosts[client].start(connecting)
    return (*connector.result(30.0), *listener.result(30.0))


def address_of(lab: SimulatedLab, host: str, family: int = 4) -> str:
    addresses = lab.topology.node(host).interfaces[0].addresses
    return next(str(address.ip) for address in addresses if address.version == family)


def must_be_intact(results: tuple[ConnectionResult, ...]) -> None:
    first, second = results
    assert (first.error, second.error) == (None, None)
    assert first.bytes_sent == second.bytes_received == SIZE
    assert (first.sha256_sent, second.sha256_sent) == (second.sha256_received, first.sha256_received)


def narrow_chain(folder: Path) -> SimulatedLab:
    path = folder / "narrow.topo.yaml"
    path.write_text("""\
version: 1
name: narrow
nodes:
  client: {kind: host}
  r1: {kind: router}
  r2: {kind: router}
  server: {kind: host}
links:
  - {endpoints: [client, r1]}
  - {endpoints: [r1, r2], mtu: 1300}
  - {endpoints: [r2, server]}
""")
    return SimulatedLab(load_topology(str(path)), seed=1)


@pytest.mark.parametrize("family", [4, 6])
def test_through_two_routers(family: int) -> None:
    with SimulatedLab(load_topology("chain"), seed=1) as lab:
        address = address_of(lab, "server", family)
        results = transfer(lab, "client", "server", address)
    must_be_intact(results)
    assert results[0].is_mptcp
    assert results[0].duration_us < 1_000_000


def test_each_router_takes_one_from_the_hop_limit_and_mends_the_checksum() -> None:
    hop_limits: dict[str, set[int]] = {}

    def look(_now_us: int, wire: str, direction: str, frame: Frame) -> None:
        data = frame.to_bytes()
        if direction == "delivered" and data[12:14] == b"\x08\x00":
            # raises for a header checksum that is wrong
            packet = parse_ipv4(memoryview(data)[HEADER_LENGTH:])
            hop_limits.setdefault(wire.partition("->")[2], set()).add(packet.hop_limit)

    with SimulatedLab(load_topology("chain"), seed=1) as lab:
        lab.simulator.add_tap(look)
        must_be_intact(transfer(lab, "client", "server", address_of(lab, "server")))
    assert hop_limits["r1:eth0"] == {64}
    assert hop_limits["r2:eth0"] == {63}
    assert hop_limits["server:eth0"] == {62}


def _icmp_type(data: bytes, family: int) -> int:
    """0 for what is no ICMP."""
    protocol, offset = (data[23], 34) if family == 4 else (data[20], 54)
    return data[offset] if protocol in (1, 58) else 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_router_tells_of_a_narrow_link(tmp_path: Path, family: int) -> None:
    too_big: list[int] = []

    def look(_now_us: int, wire: str, direction: str, frame: Frame) -> None:
        if direction == "sent" and wire.startswith("r1:eth0->client"):
            too_big.append(_icmp_type(frame.to_bytes(), family))

    with narrow_chain(tmp_path) as lab:
        lab.simulator.add_tap(look)
        address = address_of(lab, "server", family)
        must_be_intact(transfer(lab, "client", "server", address))
    assert (3 if family == 4 else 2) in too_big


def test_over_a_switch_every_host_reaches_every_other() -> None:
    with SimulatedLab(load_topology("star", {"hosts": "3"}), seed=1) as lab:
        for client, server in (("h1", "h2"), ("h3", "h1")):
            address = address_of(lab, server)
            must_be_intact(transfer(lab, client, server, address))
        # what is for one station is not shown to the others
        received, _sent = lab.interface_bytes("h2", "eth0")
        assert SIZE < received < 2 * SIZE


def test_a_cut_link_carries_nothing() -> None:
    with SimulatedLab(load_topology("chain"), seed=1) as lab:
        lab.set_link("r1", "eth1", up=False)
        address = address_of(lab, "server")
        connecting = Workload(WorkloadKind.TRANSFER, Role.CONNECT, address, 80, send_bytes=1)
        connector = lab.hosts["client"].start(connecting)
        with pytest.raises(HostError, match="'connected' not reached within 10 s"):
            connector.wait_for("connected", 10.0)
        assert lab.interface_bytes("server", "eth0") == (0, 0)
        sent = lab.interface_bytes("r1", "eth0")[0]
        assert sent > 0
        assert lab.clock.now_us() >= 10_000_000


def test_a_rate_holds() -> None:
    topology = load_topology("two-paths", {"rate": "8mbit"})
    with SimulatedLab(topology, seed=1) as lab:
        results = transfer(lab, "client", "server", address_of(lab, "server"))
    must_be_intact(results)
    # 300 kB at 1 MB/s, both ways at once
    assert 300_000 < results[0].duration_us < 450_000


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    def digest(seed: int) -> list[tuple[int, bytes]]:
        seen: list[tuple[int, bytes]] = []
        with SimulatedLab(load_topology("chain"), seed=seed) as lab:
            lab.simulator.add_tap(lambda now_us, _w, _d, frame: seen.append((now_us, frame.to_bytes())))
            transfer(lab, "client", "server", address_of(lab, "server"))
        return seen

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_what_cannot_be() -> None:
    with pytest.raises(CapabilityError, match="no kernel stack in virtual time"):
        SimulatedLab(load_topology("one-path", {"server_stack": "kernel"}), seed=1)
    with SimulatedLab(load_topology("one-path"), seed=1) as lab:
        with pytest.raises(UsageError, match="no link at client:eth9 "):
            lab.set_link("client", "eth9", up=False)
        with pytest.raises(HostError, match="unknown method 'fly'"):
            lab.hosts["client"].request("fly")
