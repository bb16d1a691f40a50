"""The path manager client, compared with what ``ip mptcp`` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from testbed.host.kernel_endpoints import (
    EndpointFlags,
    KernelPathManager,
    PathManagerLimits,
    parse_flags,
)
from testbed.host.path_netlink import PathManagerError
from testbed.host.protocol import EndpointRequest
from tests.device.namespaces import inside, namespace, run

pytestmark = [pytest.mark.root, pytest.mark.kernel]

Manager = tuple[KernelPathManager, str]


@pytest.fixture
def manager(kernel_mptcp: None) -> Iterator[Manager]:
    """A client in a namespace of its own with the interface veth0, and the namespace's name."""
    with namespace() as name:
        run("ip", "-n", name, "link", "add", "veth0", "type", "veth", "peer", "veth1")
        run("ip", "-n", name, "addr", "add", "10.9.0.1/24", "dev", "veth0")
        run("ip", "-n", name, "link", "set", "veth0", "up")
        with inside(name), KernelPathManager() as path_manager:
            yield path_manager, name


def shown_endpoints(name: str) -> list[str]:
    output = run("ip", "-n", name, "mptcp", "endpoint", "show")
    return [" ".join(line.split()) for line in output.splitlines()]


def shown_limits(name: str) -> dict[str, int]:
    words = run("ip", "-n", name, "mptcp", "limits", "show").split()
    return {word: int(value) for word, value in zip(words[::2], words[1::2], strict=True)}


def test_limits(manager: Manager) -> None:
    path_manager, name = manager
    assert path_manager.limits() == PathManagerLimits(subflows=2, add_addr_accepted=0)
    path_manager.set_limits(PathManagerLimits(subflows=5, add_addr_accepted=3))
    assert shown_limits(name) == {"add_addr_accepted": 3, "subflows": 5}
    run("ip", "-n", name, "mptcp", "limits", "set", "subflows", "1", "add_addr_accepted", "7")
    assert path_manager.limits() == PathManagerLimits(subflows=1, add_addr_accepted=7)


def test_endpoints_are_as_ip_shows_them(manager: Manager) -> None:
    path_manager, name = manager
    first = path_manager.add_endpoint(EndpointRequest("10.9.0.1", ("signal",), "veth0", port=10100))
    second = path_manager.add_endpoint(EndpointRequest("dead:beef::1", ("backup", "subflow", "fullmesh")))
    third = path_manager.add_endpoint(EndpointRequest("10.9.0.3", ("subflow",), identifier=77))
    assert (first, second, third) == (1, 2, 77)
    assert shown_endpoints(name) == [
        "10.9.0.1 port 10100 id 1 signal dev veth0",
        "dead:beef::1 id 2 subflow backup fullmesh",
        "10.9.0.3 id 77 subflow",
    ]


def test_endpoints_of_ip_are_read(manager: Manager) -> None:
    path_manager, name = manager
    ip = ("ip", "-n", name, "mptcp", "endpoint", "add")
    run(*ip, "10.9.0.1", "dev", "veth0", "id", "9", "port", "4000", "signal")
    run(*ip, "fd00::7", "subflow", "backup")
    assert sorted(path_manager.endpoints(), key=lambda endpoint: endpoint.port or 0) == [
        EndpointRequest("fd00::7", ("subflow", "backup"), None, 10, None),
        EndpointRequest("10.9.0.1", ("signal",), "veth0", 9, 4000),
    ]


def test_flags_change(manager: Manager) -> None:
    path_manager, name = manager
    identifier = path_manager.add_endpoint(EndpointRequest("10.9.0.3", ("subflow",)))
    path_manager.set_flags(("backup",), identifier=identifier)
    assert shown_endpoints(name) == ["10.9.0.3 id 1 subflow backup"]
    path_manager.set_flags((), identifier=None, address="10.9.0.3")
    assert shown_endpoints(name) == ["10.9.0.3 id 1 subflow"]


def test_delete_and_flush(manager: Manager) -> None:
    path_manager, name = manager
    for last in (3, 4, 5):
        path_manager.add_endpoint(EndpointRequest(f"10.9.0.{last}", ("subflow",)))
    path_manager.delete_endpoint(2)
    assert shown_endpoints(name) == ["10.9.0.3 id 1 subflow", "10.9.0.5 id 3 subflow"]
    path_manager.flush_endpoints()
    assert shown_endpoints(name) == []
    assert path_manager.endpoints() == []


def test_an_interface_that_vanished_is_named_by_its_number(manager: Manager) -> None:
    path_manager, name = manager
    path_manager.add_endpoint(EndpointRequest("10.9.0.3", ("subflow",), "veth0"))
    run("ip", "-n", name, "link", "delete", "veth0")
    (endpoint,) = path_manager.endpoints()
    assert re.fullmatch(r"if\d+", endpoint.interface or "")


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (EndpointRequest("10.9.0.1", ("signal", "fullmesh")), "EINVAL: flags mustn't have both"),
        (EndpointRequest("10.9.0.1", ("subflow",), port=9), "EINVAL: flags must have signal"),
        (EndpointRequest("10.9.0.1", ("subflow",), "eth9"), "no interface 'eth9'"),
        (EndpointRequest("10.9.0.1", ("signal",), port=70_000), "port: 70000"),
        (EndpointRequest("10.9.0.1", ("signal",), identifier=256), "identifier: 256"),
        (EndpointRequest("10.9.0", ("signal",)), "not an IP address"),
        (EndpointRequest("10.9.0.1", ("sygnal",)), "unknown endpoint flag 'sygnal'"),
    ],
)
def test_refusals_say_why(manager: Manager, endpoint: EndpointRequest, message: str) -> None:
    path_manager, _ = manager
    with pytest.raises(PathManagerError, match=re.escape(message)):
        path_manager.add_endpoint(endpoint)
    assert path_manager.endpoints() == []


def test_other_refusals_say_why(manager: Manager) -> None:
    path_manager, _ = manager
    with pytest.raises(PathManagerError, match="EINVAL: address not found"):
        path_manager.delete_endpoint(3)
    with pytest.raises(PathManagerError, match="needs the address"):
        path_manager.delete_endpoint(0)
    with pytest.raises(PathManagerError, match="identifier or an address"):
        path_manager.set_flags(("backup",), identifier=None)
    with pytest.raises(PathManagerError, match="EINVAL: limit greater than maximum"):
        path_manager.set_limits(PathManagerLimits(1000, 0))
    with pytest.raises(PathManagerError, match="limit subflows: -1"):
        path_manager.set_limits(PathManagerLimits(-1, 0))


def test_flags_have_the_kernels_values() -> None:
    assert parse_flags(("signal", "backup")) == EndpointFlags(5)
    assert parse_flags(("laminar",)) == 32
