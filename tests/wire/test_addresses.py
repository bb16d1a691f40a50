from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.addresses import (
    format_address,
    is_link_local,
    is_loopback,
    is_multicast,
    is_unspecified,
    parse_address,
    unmap,
    v4_mapped,
)
from tests.wire.strategies import ipv4_addresses, ipv6_addresses


@given(ipv4_addresses | ipv6_addresses)
def test_text_form_round_trips(address: bytes) -> None:
    text = format_address(address)
    assert parse_address(text) == address
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    assert socket.inet_pton(family, text) == address


def test_known_forms() -> None:
    assert parse_address("10.0.1.2") == bytes((10, 0, 1, 2))
    assert parse_address("dead:beef:1::1") == bytes.fromhex("deadbeef000100000000000000000001")
    assert format_address(bytes.fromhex("deadbeef000100000000000000000001")) == "dead:beef:1::1"
    assert format_address(v4_mapped(bytes((10, 0, 1, 2)))) == "::ffff:10.0.1.2"


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "fe80::1%eth0", "1::2::3", "host", "10.0.0.1/24"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        parse_address(text)


@pytest.mark.parametrize("length", [0, 3, 5, 15, 17])
def test_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError, match=str(length)):
        format_address(bytes(length))


@given(ipv4_addresses)
def test_mapping_is_undone(address: bytes) -> None:
    assert unmap(v4_mapped(address)) == address
    assert unmap(address) == address
    assert ipaddress.IPv6Address(v4_mapped(address)).ipv4_mapped == ipaddress.IPv4Address(address)


@given(ipv6_addresses.filter(lambda address: ipaddress.IPv6Address(address).ipv4_mapped is None))
def test_other_addresses_are_not_unmapped(address: bytes) -> None:
    assert unmap(address) == address


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("169.254.0.1", "link_local"),
        ("fe80::1", "link_local"),
        ("febf::1", "link_local"),
        ("fec0::1", ""),
        ("10.0.0.1", ""),
        ("240.0.0.1", ""),
        ("223.255.255.255", ""),
        ("dead:beef::1", ""),
        ("::ffff:10.0.0.1", ""),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:224.0.0.1", "multicast"),
        ("::ffff:169.254.0.1", "link_local"),
    ],
)
def test_kinds_of_addresses(text: str, properties: str) -> None:
    address = parse_address(text)
    predicates = {
        "multicast": is_multicast,
        "link_local": is_link_local,
        "unspecified": is_unspecified,
        "loopback": is_loopback,
    }
    assert [name for name, predicate in predicates.items() if predicate(address)] == properties.split()
