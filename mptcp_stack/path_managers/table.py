"""The endpoints of a host, as ``ip mptcp endpoint`` keeps them, and the kernel's rules for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.addresses import format_address, is_unspecified

FLAGS = frozenset({"signal", "subflow", "backup", "fullmesh", "laminar"})
CHANGEABLE_FLAGS = frozenset({"backup", "fullmesh"})
MAXIMUM_ENDPOINTS = 8
"""That of Linux 6.18; later kernels take more."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A local address and what it may be used for. ``is_implicit``: made by the stack, not by the user."""

    identifier: int
    address: bytes
    flags: frozenset[str] = frozenset()
    interface: str | None = None
    is_implicit: bool = False
    port: int | None = None

    def is_at(self, address: bytes, port: int) -> bool:
        """One with a port is another than the one without at the same address."""
        return self.address == address and self.port in (None, port)


class EndpointTable:
    """Endpoints by their ids."""

    __slots__ = ("_endpoints", "_next_identifier")

    def __init__(self) -> None:
        self._endpoints: dict[int, Endpoint] = {}
        self._next_identifier = 1

    def __bool__(self) -> bool:
        return bool(self._endpoints)

    def all(self) -> list[Endpoint]:
        return [self._endpoints[identifier] for identifier in sorted(self._endpoints)]

    def get(self, identifier: int) -> Endpoint:
        """Raises ConfigurationError when unknown."""
        endpoint = self._endpoints.get(identifier)
        if endpoint is None:
            raise ConfigurationError(f"there is no endpoint with id {identifier}")
        return endpoint

    def at(self, address: bytes, port: int) -> Endpoint | None:
        for endpoint in self._endpoints.values():
            if endpoint.is_at(address, port):
                return endpoint
        return None

    def count(self, flag: str) -> int:
        return sum(flag in endpoint.flags for endpoint in self._endpoints.values())

    def check(self, address: bytes, flags: frozenset[str], identifier: int | None, port: int | None) -> None:
        """Raises ConfigurationError when ``add`` would."""
        self._check_flags(address, flags, port)
        self._check_new(address, identifier, port)

    def add(
        self,
        address: bytes,
        flags: frozenset[str],
        interface: str | None,
        identifier: int | None,
        port: int | None,
    ) -> int:
        """Returns the id. Raises ConfigurationError, with the kernel's rules for what goes together."""
        self.check(address, flags, identifier, port)
        chosen = identifier if identifier is not None else self._free_identifier()
        for known in list(self._endpoints.values()):
            if known.is_implicit and known.address == address and port is None:
                if identifier is not None and identifier != known.identifier:
                    raise ConfigurationError(
                        f"endpoint {format_address(address)} is in use as id {known.identifier}"
                    )
                chosen = known.identifier
        self._endpoints[chosen] = Endpoint(chosen, address, flags, interface, port=port)
        self._next_identifier = max(self._next_identifier, chosen)
        return chosen

    def add_implicit(self, address: bytes) -> Endpoint:
        """For a local address that is used without the user having named it."""
        endpoint = Endpoint(self._free_identifier(), address, is_implicit=True)
        self._endpoints[endpoint.identifier] = endpoint
        return endpoint

    def delete(self, identifier: int, address: bytes | None) -> Endpoint:
        """Raises ConfigurationError when unknown."""
        endpoint = self._endpoints.get(identifier)
        if endpoint is None or (address is not None and endpoint.address != address):
            raise ConfigurationError(f"there is no endpoint with id {identifier}")
        del self._endpoints[identifier]
        return endpoint

    def flush(self) -> list[Endpoint]:
        """All that were there; ids count from 1 again."""
        endpoints = self.all()
        self._endpoints.clear()
        self._next_identifier = 1
        return endpoints

    def change(self, identifier: int, flags: frozenset[str]) -> tuple[Endpoint, frozenset[str]]:
        """Sets exactly these of the flags that can change; returns the endpoint and what became different.

        Raises ConfigurationError when unknown or not to be changed so.
        """
        endpoint = self.get(identifier)
        if unknown := flags - CHANGEABLE_FLAGS:
            raise ConfigurationError(
                f"endpoint flags {', '.join(sorted(unknown))} can't be changed, only backup and fullmesh can"
            )
        if "fullmesh" in flags and ("signal" in endpoint.flags or endpoint.is_implicit):
            raise ConfigurationError("endpoint flags signal and fullmesh exclude each other")
        changed = (endpoint.flags ^ flags) & CHANGEABLE_FLAGS
        endpoint = replace(endpoint, flags=endpoint.flags - CHANGEABLE_FLAGS | flags)
        self._endpoints[identifier] = endpoint
        return endpoint, changed

    def _check_flags(self, address: bytes, flags: frozenset[str], port: int | None) -> None:
        if unknown := flags - FLAGS:
            names, known = ", ".join(sorted(unknown)), ", ".join(sorted(FLAGS))
            raise ConfigurationError(f"endpoint flags {names}: the bundled stack knows {known}")
        if port is not None and not 1 <= port <= 65535:
            raise ConfigurationError(f"endpoint port: expected 1 to 65535, got {port}")
        if port is not None and ("signal" not in flags or "subflow" in flags):
            raise ConfigurationError("endpoint port: it needs the flag signal and excludes subflow")
        if {"signal", "fullmesh"} <= flags:
            raise ConfigurationError("endpoint flags signal and fullmesh exclude each other")
        if is_unspecified(address):
            raise ConfigurationError(f"endpoint address {format_address(address)} names no interface")

    def _check_new(self, address: bytes, identifier: int | None, port: int | None) -> None:
        visible = [endpoint for endpoint in self._endpoints.values() if not endpoint.is_implicit]
        if any((endpoint.address, endpoint.port) == (address, port) for endpoint in visible):
            raise ConfigurationError(f"endpoint {format_address(address)} exists already")
        if len(visible) >= MAXIMUM_ENDPOINTS:
            raise ConfigurationError(
                f"there are {MAXIMUM_ENDPOINTS} endpoints already, the most there can be"
            )
        if identifier is not None and not 1 <= identifier <= 255:
            raise ConfigurationError(f"endpoint id: expected 1 to 255, got {identifier}")
        holder = None if identifier is None else self._endpoints.get(identifier)
        if holder is not None and not (holder.is_implicit and holder.address == address):
            raise ConfigurationError(f"endpoint id {identifier} is taken")

    def _free_identifier(self) -> int:
        """The first that is free from the highest on, else from 1 on: as the kernel counts them."""
        for start in (self._next_identifier, 1):
            for candidate in range(start, 256):
                if candidate not in self._endpoints:
                    # The search goes on from here even where it has begun anew.
                    self._next_identifier = candidate
                    return candidate
        raise ConfigurationError("all 255 endpoint ids are taken")
