"""How long closed connections wait for the peer's FIN: each as its socket says (TCP_LINGER2)."""

from __future__ import annotations

from dataclasses import replace

from tests.mptcp.network import Network

SECOND_US = 1_000_000


def test_each_waits_for_its_own_time() -> None:
    """Those that end sooner neither wait for the others, nor take them along."""
    network = Network()
    listener = network.listen("tcp")
    for seconds in (0, 5, 0, 2, 5):
        near = network.connect(protocol="tcp")
        network.accept(listener, near)
        near.set_socket_options(replace(near.socket_options, fin_wait_2_us=seconds * SECOND_US))
        near.close()
    records = network.client.environment.time_waits
    network.simulator.run_for(SECOND_US)
    assert len(records) == 5
    left = []
    for seconds in (2, 3, 50, 10):
        network.simulator.run_for(seconds * SECOND_US)
        left.append(len(records))
    assert left == [4, 2, 2, 0]


def test_whoever_waits_for_nothing_leaves_no_record() -> None:
    network = Network()
    near, far = network.establish(client="tcp", server="tcp")
    near.set_socket_options(replace(near.socket_options, fin_wait_2_us=-1))
    near.close()
    network.simulator.run_for(SECOND_US)
    assert network.client.holdings()["records of old connections"] == 0
    assert far.is_closed
    assert network.client.counters["TcpExtTCPAbortOnData"] == 1
