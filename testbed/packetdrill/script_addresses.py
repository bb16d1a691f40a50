"""The addresses of both sides in scripts, the same in every run."""

from __future__ import annotations

from testbed.packetdrill.stack_under_test import Addresses, IpVersion

NETWORKS = 4
"""Addresses of each side, each in a network of its own."""

_ADDRESSES = {
    4: Addresses(
        tuple(bytes((192, 168, network, 1)) for network in range(NETWORKS)),
        tuple(bytes((192, 0, 2, host)) for host in range(1, NETWORKS + 1)),
    ),
    6: Addresses(
        tuple(bytes.fromhex(f"fd3d0a0b17d6{network:04x}0000000000000001") for network in range(NETWORKS)),
        tuple(bytes.fromhex(f"fd3dfa7b17d60000{host:016x}") for host in range(1, NETWORKS + 1)),
    ),
}


def addresses_of(version: IpVersion) -> Addresses:
    """The addresses of both sides in a script that names none."""
    return _ADDRESSES[6 if version is IpVersion.IPV6 else 4]
