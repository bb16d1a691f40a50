"""The kernel's netem: impairments as the attributes of its queueing discipline, and back.

The layouts are those of ``include/uapi/linux/pkt_sched.h``. They are written here because pyroute2 lacks most
of them: loss models, delay tables, slots, 64-bit times and rates, the seed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from mptcp_stack.device.link_model import DISTRIBUTIONS, FourStates, GilbertElliott, Slot, deviation
from testbed.topology.impairments import default_limit_bytes
from testbed.topology.model import Impairment

TCA_NETEM_CORR: Final = 1
TCA_NETEM_DELAY_DIST: Final = 2
TCA_NETEM_REORDER: Final = 3
TCA_NETEM_CORRUPT: Final = 4
TCA_NETEM_LOSS: Final = 5
TCA_NETEM_RATE: Final = 6
TCA_NETEM_RATE64: Final = 8
TCA_NETEM_LATENCY64: Final = 10
TCA_NETEM_JITTER64: Final = 11
TCA_NETEM_SLOT: Final = 12
TCA_NETEM_PRNG_SEED: Final = 14
NETEM_LOSS_GI: Final = 1
NETEM_LOSS_GE: Final = 2

NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF
_NLA: Final = struct.Struct("=HH")

QOPT: Final = struct.Struct("=IIIIII")
"""``struct tc_netem_qopt``: latency, limit, loss, gap, duplicate, jitter."""
CORR: Final = struct.Struct("=III")
PAIR: Final = struct.Struct("=II")
"""``struct tc_netem_reorder`` and ``struct tc_netem_corrupt``: probability, correlation."""
GE_MODEL: Final = struct.Struct("=IIII")
"""``struct tc_netem_gemodel``: p, r, h, k1."""
GI_MODEL: Final = struct.Struct("=IIIII")
"""``struct tc_netem_gimodel``: p13, p31, p32, p14, p23."""
RATE: Final = struct.Struct("=IiIi")
"""``struct tc_netem_rate``: rate, packet_overhead, cell_size, cell_overhead."""
SLOT: Final = struct.Struct("=qqiiqq")
"""``struct tc_netem_slot``: min_delay, max_delay, max_packets, max_bytes, dist_delay, dist_jitter."""
_S64: Final = struct.Struct("=q")
_U64: Final = struct.Struct("=Q")
_U32: Final = struct.Struct("=I")

_WHOLE: Final = 0xFFFF_FFFF
"""A probability of 1."""
TABLE_ENTRIES: Final = 4096
TABLE_SCALE: Final = 8192
_LARGEST_RATE_32: Final = 0xFFFF_FFFF
_LONGEST_QUEUE_PACKETS: Final = 100_000
_LARGEST_LIMIT: Final = 0xFFFF_FFFF
_ETHERNET_HEADER_BYTES: Final = 14
_WITHOUT_LIMIT: Final = 0x7FFF_FFFF


def probability(share: float) -> int:
    """A share from 0 to 1 as netem counts it, from 0 to 2**32 - 1."""
    return round(share * _WHOLE)


def options(impairment: Impairment, mtu: int) -> bytes:
    """The payload of ``TCA_OPTIONS`` that makes netem do it."""
    gap = impairment.gap if impairment.reorder else 0
    head = QOPT.pack(
        0,  # the times follow in nanoseconds
        queue_limit_packets(impairment, mtu),
        probability(impairment.loss),
        gap,
        probability(impairment.duplicate),
        0,
    )
    return head + b"".join(attribute(kind, value) for kind, value in _attributes(impairment))


def queue_limit_packets(impairment: Impairment, mtu: int) -> int:
    """netem counts what is under way as queued too, so that the queue needs room for it in addition."""
    frame_bytes = mtu + _ETHERNET_HEADER_BYTES
    if impairment.rate_bit_s is None:
        return _LONGEST_QUEUE_PACKETS
    under_way = (
        impairment.rate_bit_s * (impairment.delay_us + impairment.jitter_us) // 8_000_000 // frame_bytes
    )
    waiting = impairment.limit_packets
    limit_bytes = impairment.limit_bytes
    if waiting is None or limit_bytes is not None:
        octets = limit_bytes if limit_bytes is not None else default_limit_bytes(impairment.rate_bit_s, mtu)
        by_bytes = max(1, octets // frame_bytes)
        waiting = by_bytes if waiting is None else min(waiting, by_bytes)
    return min(waiting + under_way, _LARGEST_LIMIT)


def _attributes(impairment: Impairment) -> Iterator[tuple[int, bytes]]:
    """All of them, also those that say nothing: a netem that is changed keeps what it is not told about.

    A loss model is the exception: without one it goes.
    """
    yield TCA_NETEM_LATENCY64, _S64.pack(impairment.delay_us * 1000)
    yield TCA_NETEM_JITTER64, _S64.pack(_jitter_nanoseconds(impairment))
    if impairment.jitter_us:
        yield TCA_NETEM_DELAY_DIST, delay_table(impairment.distribution)
    correlations = (
        impairment.delay_correlation,
        impairment.loss_correlation,
        impairment.duplicate_correlation,
    )
    yield TCA_NETEM_CORR, CORR.pack(*map(probability, correlations))
    yield TCA_NETEM_REORDER, _pair(impairment.reorder, impairment.reorder_correlation)
    yield TCA_NETEM_CORRUPT, _pair(impairment.corrupt, impairment.corrupt_correlation)
    if impairment.loss_model is not None:
        yield TCA_NETEM_LOSS | NLA_F_NESTED, _loss_model(impairment.loss_model)
    rate_bit_s = impairment.rate_bit_s
    yield from _rate_attributes(impairment, 0 if rate_bit_s is None else max(1, rate_bit_s // 8))
    yield TCA_NETEM_SLOT, _slot(impairment.slot)
    if impairment.seed is not None:
        yield TCA_NETEM_PRNG_SEED, _U64.pack(impairment.seed)


def _jitter_nanoseconds(impairment: Impairment) -> int:
    """Its last digits say which table of delays goes with it, as the kernel does not tell the table."""
    if not impairment.jitter_us:
        return 0
    return impairment.jitter_us * 1000 + DISTRIBUTIONS.index(impairment.distribution)


def _pair(share: float, correlation: float) -> bytes:
    return PAIR.pack(probability(share), probability(correlation))


def _loss_model(model: GilbertElliott | FourStates) -> bytes:
    if isinstance(model, GilbertElliott):
        values = (model.p, model.r, 1.0 - model.loss_in_bad, model.loss_in_good)
        return attribute(NETEM_LOSS_GE, GE_MODEL.pack(*map(probability, values)))
    states = (model.p13, model.p31, model.p32, model.p14, model.p23)
    return attribute(NETEM_LOSS_GI, GI_MODEL.pack(*map(probability, states)))


def _rate_attributes(impairment: Impairment, rate_byte_s: int) -> Iterator[tuple[int, bytes]]:
    if rate_byte_s > _LARGEST_RATE_32:
        yield TCA_NETEM_RATE64, _U64.pack(rate_byte_s)
    yield (
        TCA_NETEM_RATE,
        RATE.pack(
            min(rate_byte_s, _LARGEST_RATE_32),
            impairment.packet_overhead_bytes,
            impairment.cell_bytes,
            impairment.cell_overhead_bytes,
        ),
    )


def _slot(slot: Slot | None) -> bytes:
    if slot is None:
        return bytes(SLOT.size)
    packets = slot.packets if slot.packets is not None else _WITHOUT_LIMIT
    octets = slot.bytes if slot.bytes is not None else _WITHOUT_LIMIT
    return SLOT.pack(slot.shortest_us * 1000, slot.longest_us * 1000, packets, octets, 0, 0)


@cache
def delay_table(distribution: str) -> bytes:
    """The inverse distribution function, sampled, as the files in ``/usr/lib/tc/*.dist`` have it."""
    values = (
        round(TABLE_SCALE * deviation(distribution, (entry + 0.5) / TABLE_ENTRIES))
        for entry in range(TABLE_ENTRIES)
    )
    return struct.pack(f"={TABLE_ENTRIES}h", *(min(max(value, -32768), 32767) for value in values))


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    length = _NLA.size + len(value)
    return _NLA.pack(length, kind) + value + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by their kinds; what is cut short ends them."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _NLA.size <= len(data):
        length, kind = _NLA.unpack_from(data, offset)
        if length < _NLA.size or offset + length > len(data):
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _NLA.size : offset + length]
        offset += (length + 3) & ~3
    return found


def impairment_held(data: bytes) -> Impairment:
    """What a netem does whose ``TCA_OPTIONS`` the kernel told; its limit counts what is under way too.

    Raises struct.error for what is no netem's.
    """
    latency, limit, loss, gap, duplicate, jitter = QOPT.unpack_from(data)
    held = attributes(data[QOPT.size :])
    rate = RATE.unpack(held[TCA_NETEM_RATE]) if TCA_NETEM_RATE in held else (0, 0, 0, 0)
    rate_byte_s = _U64.unpack(held[TCA_NETEM_RATE64])[0] if TCA_NETEM_RATE64 in held else rate[0]
    jitter_ns = _nanoseconds(held, TCA_NETEM_JITTER64, jitter)
    correlations = CORR.unpack(held[TCA_NETEM_CORR]) if TCA_NETEM_CORR in held else (0, 0, 0)
    reorder = PAIR.unpack(held.get(TCA_NETEM_REORDER, bytes(PAIR.size)))
    corrupt = PAIR.unpack(held.get(TCA_NETEM_CORRUPT, bytes(PAIR.size)))
    return Impairment(
        rate_bit_s=rate_byte_s * 8 or None,
        packet_overhead_bytes=rate[1],
        cell_bytes=rate[2],
        cell_overhead_bytes=rate[3],
        limit_packets=limit if rate_byte_s else None,
        delay_us=_nanoseconds(held, TCA_NETEM_LATENCY64, latency) // 1000,
        jitter_us=jitter_ns // 1000,
        delay_correlation=_share(correlations[0]),
        distribution=_distribution_held(jitter_ns),
        loss=_share(loss),
        loss_correlation=_share(correlations[1]),
        loss_model=_model_held(held.get(TCA_NETEM_LOSS, b"")),
        duplicate=_share(duplicate),
        duplicate_correlation=_share(correlations[2]),
        corrupt=_share(corrupt[0]),
        corrupt_correlation=_share(corrupt[1]),
        reorder=_share(reorder[0]),
        reorder_correlation=_share(reorder[1]),
        gap=max(gap, 1),
        slot=_slot_held(held.get(TCA_NETEM_SLOT, b"")),
        seed=_U64.unpack(held[TCA_NETEM_PRNG_SEED])[0] if TCA_NETEM_PRNG_SEED in held else None,
    )


def _nanoseconds(held: dict[int, bytes], kind: int, ticks: int) -> int:
    """An old kernel tells ticks of 64 ns only."""
    return int(_S64.unpack(held[kind])[0]) if kind in held else ticks * 64


def _distribution_held(jitter_ns: int) -> str:
    number = jitter_ns % 1000
    return DISTRIBUTIONS[number] if number < len(DISTRIBUTIONS) else "uniform"


def _share(value: int) -> float:
    """To the seventh digit of a percentage: netem's numbers are no finer."""
    return round(value / _WHOLE, 9)


def _model_held(data: bytes) -> GilbertElliott | FourStates | None:
    nested = attributes(data)
    if NETEM_LOSS_GE in nested:
        p, r, h, k1 = map(_share, GE_MODEL.unpack(nested[NETEM_LOSS_GE]))
        return GilbertElliott(p, r, round(1.0 - h, 9), k1)
    if NETEM_LOSS_GI in nested:
        p13, p31, p32, p14, p23 = map(_share, GI_MODEL.unpack(nested[NETEM_LOSS_GI]))
        return FourStates(p13, p31, p32, p23, p14)
    return None


def _slot_held(data: bytes) -> Slot | None:
    if len(data) < SLOT.size:
        return None
    shortest, longest, packets, octets, _delay, _jitter = SLOT.unpack_from(data)
    if not shortest:
        return None
    return Slot(
        shortest // 1000,
        longest // 1000,
        packets if 0 < packets < _WITHOUT_LIMIT else None,
        octets if 0 < octets < _WITHOUT_LIMIT else None,
    )
