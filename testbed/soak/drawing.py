"""Seed → scenario. Whatever is drawn here is drawn from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from mptcp_stack.device.in_memory import WireSettings
from mptcp_stack.device.link_model import DISTRIBUTIONS, GilbertElliott
from mptcp_stack.settings import StackSettings
from testbed.soak.scenario import (
    AddressChange,
    AddressEvent,
    ConversationPlan,
    Pace,
    PathChange,
    PathEvent,
    PathPlan,
    Pattern,
    Scenario,
    Stripping,
    Trouble,
)

MILLISECOND_US = 1_000
SECOND_US = 1_000_000
_Value = TypeVar("_Value")

_PLAIN_FLAGS = (
    frozenset({"subflow"}),
    frozenset({"subflow", "backup"}),
    frozenset({"signal"}),
    frozenset({"signal", "backup"}),
)


def draw_scenario(seed: int) -> Scenario:
    """The scenario of this seed, always the same."""
    rng = random.Random(f"soak {seed}")
    troubles = _troubles(rng)
    paths = [_path(rng, troubles) for _ in range(_weighted(rng, {1: 4, 2: 5, 3: 2, 4: 1}))]
    _strip(rng, troubles, paths)
    client, server = _settings(rng), _settings(rng)
    conversations = _conversations(rng)
    if Trouble.DATA_CORRUPTION in troubles:
        client, server = replace(client, checksum_enabled=True), replace(server, checksum_enabled=True)
    return Scenario(
        seed,
        troubles,
        tuple(paths),
        client,
        server,
        tuple(conversations),
        tuple(_path_events(rng, troubles, len(paths))),
        tuple(_address_events(rng, troubles, len(paths))),
    )


def _weighted(rng: random.Random, weights: dict[_Value, float]) -> _Value:
    return rng.choices(list(weights), list(weights.values()))[0]


def _troubles(rng: random.Random) -> frozenset[Trouble]:
    count = _weighted(rng, {0: 2, 1: 4, 2: 3, 3: 2, 4: 1})
    return frozenset(rng.sample(list(Trouble), count))


# --- paths ---


def _path(rng: random.Random, troubles: frozenset[Trouble]) -> PathPlan:
    delay_us = rng.choice([0, 100, 1, 5, 5, 20, 20, 50, 100, 300]) * MILLISECOND_US
    rate_bit_s = rng.choice([None, None, 10, 50, 100, 1000])
    base = WireSettings(
        delay_us=delay_us,
        rate_bit_s=None if rate_bit_s is None else rate_bit_s * 1_000_000,
        queue_limit_packets=10_000,
    )
    damages = Trouble.DATA_CORRUPTION in troubles and rng.random() < 0.8
    return PathPlan(
        _direction(rng, troubles, base),
        _direction(rng, troubles, base),
        mtu=_weighted(rng, {1500: 6, 1280: 1, 1400: 1, 9000: 1}),
        is_raw_ip=rng.random() < 0.3,
        gso_max_size=rng.choice([0, 65536]),
        damages_data=rng.choice([0.002, 0.01, 0.05]) if damages else 0.0,
    )


def _direction(rng: random.Random, troubles: frozenset[Trouble], base: WireSettings) -> WireSettings:
    """Each trouble befalls most directions, but not all."""
    settings = base
    for trouble in sorted(troubles, key=lambda each: each.name):
        if rng.random() < 0.75:
            settings = _troubled(rng, trouble, settings)
    return settings


def _troubled(rng: random.Random, trouble: Trouble, settings: WireSettings) -> WireSettings:
    delay_us = max(settings.delay_us, MILLISECOND_US)
    match trouble:
        case Trouble.LOSS:
            correlation = rng.choice([0.0, 0.0, 0.25])
            loss = rng.choice([0.001, 0.01, 0.03, 0.05, 0.1])
            return replace(settings, loss=loss, loss_correlation=correlation)
        case Trouble.BURSTS:
            model = GilbertElliott(p=rng.uniform(0.002, 0.02), r=rng.uniform(0.2, 0.6))
            return replace(settings, loss_model=model)
        case Trouble.REORDERING:
            reorder = rng.choice([0.01, 0.05, 0.25, 0.5])
            return replace(settings, delay_us=delay_us, reorder=reorder, gap=rng.choice([1, 1, 3]))
        case Trouble.JITTER:
            return replace(
                settings,
                delay_us=delay_us,
                jitter_us=int(delay_us * rng.uniform(0.05, 1.0)),
                distribution=rng.choice(DISTRIBUTIONS),
                delay_correlation=rng.choice([0.0, 0.25, 0.9]),
            )
        case Trouble.DUPLICATION:
            return replace(settings, duplicate=rng.choice([0.01, 0.05, 0.2, 1.0]))
        case Trouble.CORRUPTION:
            return replace(settings, corrupt=rng.choice([0.001, 0.01, 0.05]))
        case Trouble.NARROWNESS:
            rate_bit_s = rng.choice([300, 500, 1000, 2000, 5000]) * 1000
            return replace(settings, rate_bit_s=rate_bit_s, queue_limit_packets=rng.choice([5, 20, 100]))
        case _:
            return settings


def _strip(rng: random.Random, troubles: frozenset[Trouble], paths: list[PathPlan]) -> None:
    if Trouble.STRIPPING in troubles:
        number = rng.randrange(len(paths))
        paths[number] = replace(paths[number], stripping=rng.choice(list(Stripping)))


# --- hosts ---


def _settings(rng: random.Random) -> StackSettings:
    buffer_sizes = [16_384, 65_536, 200_000, 1 << 20]
    usual = StackSettings()
    return StackSettings(
        checksum_enabled=rng.random() < 0.3,
        allow_join_initial_addr_port=rng.random() < 0.9,
        tcp_timestamps=rng.random() < 0.8,
        tcp_sack=rng.random() < 0.8,
        receive_buffer_bytes=rng.choice([usual.receive_buffer_bytes, *buffer_sizes]),
        send_buffer_bytes=rng.choice([usual.send_buffer_bytes, *buffer_sizes]),
        delayed_ack_us=rng.choice([usual.delayed_ack_us, usual.delayed_ack_us, 1_000, 200_000]),
    )


# --- what happens ---


def _path_events(rng: random.Random, troubles: frozenset[Trouble], paths: int) -> list[PathEvent]:
    events: list[PathEvent] = []
    if Trouble.OUTAGES in troubles:
        for _ in range(rng.choice([1, 1, 2, 3])):
            events += _outage(rng, rng.randrange(paths))
    if Trouble.SPIKES in troubles:
        for _ in range(rng.choice([1, 2, 3])):
            events += _spike(rng, rng.randrange(paths))
    if Trouble.DEATH in troubles and paths > 1:
        events.append(PathEvent(_moment_us(rng), rng.randrange(paths), PathChange.DIE))
    return events


def _moment_us(rng: random.Random) -> int:
    """Mostly soon, as most conversations are short."""
    return int(rng.choice([50, 300, 1000, 5000]) * MILLISECOND_US * rng.random())


def _outage(rng: random.Random, path: int) -> Sequence[PathEvent]:
    start_us = _moment_us(rng)
    end_us = start_us + rng.choice([50, 300, 1000, 3000, 10_000]) * MILLISECOND_US
    change = rng.choice([PathChange.DOWN, PathChange.DOWN, PathChange.FORWARD_DOWN])
    return PathEvent(start_us, path, change), PathEvent(end_us, path, PathChange.UP)


def _spike(rng: random.Random, path: int) -> Sequence[PathEvent]:
    start_us = _moment_us(rng)
    end_us = start_us + rng.choice([100, 500, 2000]) * MILLISECOND_US
    delay_us = rng.choice([100, 300, 1000, 3000]) * MILLISECOND_US
    return PathEvent(start_us, path, PathChange.SLOW, delay_us), PathEvent(end_us, path, PathChange.USUAL)


def _address_events(rng: random.Random, troubles: frozenset[Trouble], paths: int) -> list[AddressEvent]:
    """Path 0 has no endpoints: what starts there is never withdrawn."""
    events = []
    for on_client in (True, False):
        limits = (rng.choice([0, 2, 2, 8]), rng.choice([0, 2, 2, 8]))
        events.append(AddressEvent(0, on_client, AddressChange.LIMITS, limits=limits))
    for path in range(1, paths):
        for is_ipv6 in (False, True):
            if rng.random() < 0.8:
                on_client = rng.random() < 0.7
                flags = rng.choice(_PLAIN_FLAGS[:2] if on_client else _PLAIN_FLAGS[2:])
                events.append(AddressEvent(0, on_client, AddressChange.ADD, path, is_ipv6, flags))
    if Trouble.CHURN in troubles and paths > 1:
        events += [_churn(rng, paths) for _ in range(rng.randrange(1, 8))]
    return sorted(events, key=lambda event: event.at_us)


def _churn(rng: random.Random, paths: int) -> AddressEvent:
    return AddressEvent(
        _moment_us(rng),
        rng.random() < 0.6,
        rng.choice(list(AddressChange)),
        rng.randrange(1, paths),
        rng.random() < 0.5,
        rng.choice(_PLAIN_FLAGS),
        (rng.randrange(9), rng.randrange(9)),
    )


# --- applications ---


def _conversations(rng: random.Random) -> list[ConversationPlan]:
    count = _weighted(rng, {1: 10, 2: 3, 5: 2, 20: 1})
    protocols = {"mptcp": 6.0, "tcp": 1.0}
    server_protocol = _weighted(rng, protocols)
    plans = []
    for _ in range(count):
        pattern = rng.choice(list(Pattern))
        longest = 20_000 if count > 2 else 2_000_000
        plans.append(
            ConversationPlan(
                at_us=0 if rng.random() < 0.7 else _moment_us(rng),
                is_ipv6=rng.random() < 0.5,
                client_protocol=_weighted(rng, protocols),
                server_protocol=server_protocol,
                pattern=pattern,
                upload_bytes=0 if pattern is Pattern.DOWNLOAD else _size(rng, longest),
                download_bytes=0 if pattern is Pattern.UPLOAD else _size(rng, longest),
                client_pace=_pace(rng),
                server_pace=_pace(rng),
            )
        )
    return plans


def _size(rng: random.Random, longest: int) -> int:
    """Most are short, a few long: as on real networks."""
    upper = _weighted(rng, {0: 2, 1: 1, 2_000: 4, 20_000: 6, 200_000: 4, 2_000_000: 0.4})
    return rng.randint(upper // 10, upper) if upper <= longest else rng.randint(0, longest)


def _pace(rng: random.Random) -> Pace:
    is_slow = rng.random() < 0.15
    return Pace(
        write_bytes=rng.choice([1 << 17, 1 << 17, 1000, 16_384]),
        read_bytes=rng.choice([1 << 17, 1 << 17, 5000]),
        pause_us=rng.choice([1, 20, 300]) * MILLISECOND_US if is_slow else 0,
        aborts_after_bytes=rng.choice([0, 1000, 50_000]) if rng.random() < 0.03 else None,
    )
