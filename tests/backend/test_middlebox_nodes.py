"""Middleboxes as nodes of a lab: a translator and a firewall in a row, between a client and the world."""

from __future__ import annotations

import pytest

from testbed.backend.lab import Lab
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.simulated.lab import SimulatedLab
from testbed.host.protocol import ConnectionResult, Role, Workload, WorkloadKind
from testbed.topology.load import load_text
from testbed.topology.model import LinkEnd, Topology
from testbed.topology.problems import ProblemCollector

SIZE = 300_000


def guarded(client_stack: str) -> Topology:
    text = f"""
version: 1
name: guarded
nodes:
  client: {{stack: {client_stack}}}
  nat: {{kind: middlebox, middlebox: {{nat44: {{address: 10.0.1.200}}}}}}
  firewall:
    kind: middlebox
    middlebox: {{firewall: {{direction: '<-'}}, strip: {{subtypes: [mp_capable]}}}}
  r1: {{kind: router}}
  server: {{}}
links:
  - endpoints: [client, nat]
  - endpoints: [r1, firewall]
  - {{endpoints: [nat, firewall], impair: delay 3ms}}
  - endpoints: [r1, server]
"""
    return load_text(text, ProblemCollector("guarded"))


def send_through(lab: Lab | SimulatedLab) -> tuple[ConnectionResult, ConnectionResult]:
    listening = Workload(WorkloadKind.TRANSFER, Role.LISTEN, "0.0.0.0", 0)
    listener = lab.hosts["server"].start(listening)
    connecting = Workload(
        WorkloadKind.TRANSFER, Role.CONNECT, "10.0.2.2", listener.port, send_bytes=SIZE, send_seed=2
    )
    connector = lab.hosts["client"].start(connecting)
    (sent,), (received,) = connector.result(30.0), listener.result(30.0)
    return sent, received


def judge(lab: Lab | SimulatedLab, sent: ConnectionResult, received: ConnectionResult) -> None:
    assert (sent.error, received.error, received.bytes_received) == (None, None, SIZE)
    assert sent.sha256_sent == received.sha256_received
    assert received.remote.startswith("10.0.1.200 ")
    assert not sent.is_mptcp
    counted = lab.links.box_counters()
    (translator,) = counted[LinkEnd("client", "eth0")]
    firewall, _, _ = counted[LinkEnd("r1", "eth0")]
    assert translator.changed > 100
    assert firewall.seen > 100
    assert (translator.dropped, firewall.dropped) == (0, 0)


def test_in_virtual_time() -> None:
    with SimulatedLab(guarded("userspace"), seed=1) as lab:
        judge(lab, *send_through(lab))


@pytest.mark.root
@pytest.mark.parametrize("client_stack", ["userspace", "kernel"])
def test_on_namespaces(lab_name: str, client_stack: str) -> None:
    backend = NamespaceBackend()
    with backend.up(guarded(client_stack), lab_name, seed=1) as lab:
        judge(lab, *send_through(lab))
        state = lab.links.state(lab.links.link_at("firewall:eth1"))
        assert (str(state.forward.sender), state.forward.counters["lost"]) == ("nat:eth1", 0)
    backend.close()
