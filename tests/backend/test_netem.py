"""netem's attributes, byte by byte as the kernel's headers lay them out, and links joined by the kernel."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

from mptcp_stack.device.link_model import DISTRIBUTIONS, FourStates, GilbertElliott, Slot
from testbed.backend import netem
from testbed.backend.capabilities import NETEM_PROBE, NETEM_SEED_PROBE, NETEM_TRIALS, probe
from testbed.backend.impaired_links import LINKS_NODE, choose_realisation, cut_links
from testbed.backend.lab import Lab
from testbed.backend.links import LinkPlan
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.netem_links import forwarding_requests, is_held, netem_request
from testbed.backend.netlink import RTM_NEWQDISC, NetlinkSocket
from testbed.backend.offloads import set_tcp_segmentation_offload
from testbed.errors import CapabilityError, UsageError
from testbed.topology.model import Impairment, Realisation
from tests.topology.test_impairments import IMPAIRMENTS

from .connections import can_talk, inside
from .test_impaired_links import emulator, two_hosts

# From include/uapi/linux/pkt_sched.h: what each attribute of netem is numbered.
CORR, DELAY_DIST, REORDER, CORRUPT, LOSS, RATE = range(1, 7)
RATE64, LATENCY64, JITTER64, SLOT, PRNG_SEED = 8, 10, 11, 12, 14


def split(data: bytes) -> list[tuple[int, bytes]]:
    """The attributes in the order in which they stand; every byte has to belong to one."""
    found = []
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found.append((kind, data[4:length]))
        assert not any(data[length : (length + 3) & ~3])
        data = data[(length + 3) & ~3 :]
    return found


def encoded(impairment: Impairment) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """The fields of ``struct tc_netem_qopt``, and the attributes behind it."""
    data = netem.options(impairment, 1500)
    return struct.unpack_from("=6I", data), dict(split(data[24:]))


def test_probabilities_fill_the_fixed_part() -> None:
    head, attributes = encoded(Impairment(loss=1.0, duplicate=0.5, delay_us=5, reorder=0.25, gap=3))
    assert head == (0, 100_000, 0xFFFF_FFFF, 3, 0x8000_0000, 0)
    assert attributes[REORDER] == struct.pack("=2I", 0x4000_0000, 0)
    assert attributes[LATENCY64] == struct.pack("=q", 5_000)
    assert attributes[JITTER64] == struct.pack("=q", 0)


def test_without_reordering_there_is_no_gap() -> None:
    """With a gap of one netem would send every packet ahead."""
    head, attributes = encoded(Impairment(delay_us=5))
    assert head[3] == 0
    assert attributes[REORDER] == bytes(8)


def test_a_netem_that_is_changed_is_told_what_ends() -> None:
    """The kernel's netem_change() keeps every attribute that is not there, but for the loss model."""
    head, attributes = encoded(Impairment())
    assert head == (0, 100_000, 0, 0, 0, 0)
    assert {kind: any(value) for kind, value in attributes.items()} == dict.fromkeys(
        (LATENCY64, JITTER64, CORR, REORDER, CORRUPT, RATE, SLOT), False
    )
    for trial in NETEM_TRIALS:
        assert set(attributes) <= set(encoded(trial)[1])
    # A table cannot be taken away, only be exchanged.
    uniform = struct.unpack("=4096h", encoded(Impairment(delay_us=9, jitter_us=5))[1][DELAY_DIST])
    assert (uniform[0], uniform[-1]) == (-8190, 8190)
    assert {second - first for first, second in pairwise(uniform)} == {4}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_jitter_says_which_table_the_kernel_holds(distribution: str) -> None:
    asked = Impairment(delay_us=9_000, jitter_us=5_000, distribution=distribution)
    held = netem.impairment_held(netem.options(asked, 1500))
    assert (held.jitter_us, held.distribution) == (5_000, distribution)


def test_every_attribute_has_the_kernels_layout() -> None:
    _head, attributes = encoded(
        Impairment(
            rate_bit_s=8_000_000,
            packet_overhead_bytes=-4,
            cell_bytes=48,
            cell_overhead_bytes=5,
            delay_us=20_000,
            jitter_us=2_000,
            delay_correlation=0.25,
            loss_correlation=0.5,
            duplicate_correlation=0.75,
            corrupt=0.5,
            corrupt_correlation=0.25,
            slot=Slot(1_000, 2_000, 3, 4_000),
            seed=2**63,
        )
    )
    assert attributes[CORR] == struct.pack("=3I", 0x4000_0000, 0x8000_0000, 0xBFFF_FFFF)
    assert attributes[CORRUPT] == struct.pack("=2I", 0x8000_0000, 0x4000_0000)
    assert attributes[RATE] == struct.pack("=IiIi", 1_000_000, -4, 48, 5)
    assert attributes[SLOT] == struct.pack("=qqiiqq", 1_000_000, 2_000_000, 3, 4_000, 0, 0)
    assert attributes[PRNG_SEED] == struct.pack("=Q", 2**63)


def test_loss_models_are_nested_and_in_the_kernels_order() -> None:
    """``struct tc_netem_gemodel`` has h, the share that survives the bad state, and p14 stands before p23."""
    _head, attributes = encoded(Impairment(loss_model=GilbertElliott(0.25, 0.5, 0.75, 1.0)))
    ((kind, value),) = split(attributes[LOSS | 0x8000])
    assert (kind, value) == (2, struct.pack("=4I", 0x4000_0000, 0x8000_0000, 0x4000_0000, 0xFFFF_FFFF))
    _head, attributes = encoded(Impairment(loss_model=FourStates(0.25, 0.5, 0.0, 1.0, 0.75)))
    ((kind, value),) = split(attributes[LOSS | 0x8000])
    assert (kind, value) == (1, struct.pack("=5I", 0x4000_0000, 0x8000_0000, 0, 0xBFFF_FFFF, 0xFFFF_FFFF))


def test_rates_beyond_32_bits_have_an_attribute_of_their_own() -> None:
    _head, attributes = encoded(Impairment(rate_bit_s=8 * 2**33))
    assert attributes[RATE64] == struct.pack("=Q", 2**33)
    assert attributes[RATE][:4] == b"\xff" * 4


@pytest.mark.parametrize("distribution", ["normal", "pareto", "paretonormal"])
def test_tables_are_inverse_distribution_functions(distribution: str) -> None:
    _head, attributes = encoded(Impairment(delay_us=9, jitter_us=5, distribution=distribution))
    table = struct.unpack("=4096h", attributes[DELAY_DIST])
    assert list(table) == sorted(table)
    # Scaled by 8192; a mean of about zero, and the median where each distribution has it.
    assert abs(sum(table) / 4096) < 0.05 * 8192
    median = {"normal": 0.0, "pareto": -0.32, "paretonormal": -0.24}[distribution]
    assert table[2048] / 8192 == pytest.approx(median, abs=0.01)


def test_the_queue_has_room_for_what_is_under_way() -> None:
    """netem counts packets that are being delayed as queued."""
    limit = netem.queue_limit_packets
    assert limit(Impairment(), 1500) == 100_000
    assert limit(Impairment(rate_bit_s=12_112_000, limit_packets=50), 1500) == 50
    # 100 ms at 12.112 Mbit/s are 100 frames of 1514 bytes.
    assert limit(Impairment(rate_bit_s=12_112_000, limit_packets=50, delay_us=100_000), 1500) == 150
    assert limit(Impairment(rate_bit_s=12_112_000, limit_bytes=15_140), 1500) == 10
    assert limit(Impairment(rate_bit_s=12_112_000, limit_bytes=15_140, limit_packets=4), 1500) == 4
    assert limit(Impairment(rate_bit_s=12_112_000), 1500) == 50


@given(IMPAIRMENTS)
def test_what_the_kernel_would_tell_is_understood(impairment: Impairment) -> None:
    held = netem.impairment_held(netem.options(impairment, 1500))
    for name in ("delay_us", "jitter_us", "gap", "slot", "seed", "cell_bytes", "packet_overhead_bytes"):
        assert getattr(held, name) == getattr(impairment, name), name
    for name in ("loss", "duplicate", "corrupt", "reorder", "delay_correlation", "reorder_correlation"):
        assert getattr(held, name) == pytest.approx(getattr(impairment, name), abs=1e-9), name
    assert held.rate_bit_s == max(1, (impairment.rate_bit_s or 0) // 8) * 8
    assert type(held.loss_model) is type(impairment.loss_model)
    assert is_held(impairment, held, 1500)
    assert not is_held(impairment, replace(held, delay_us=held.delay_us + 1), 1500)
    assert not is_held(impairment, None, 1500)


def test_the_trials_of_the_probe_hold_every_word() -> None:
    said = {
        name
        for trial in NETEM_TRIALS
        for name in Impairment.__dataclass_fields__
        if getattr(trial, name) != getattr(Impairment(), name)
    }
    assert said == set(Impairment.__dataclass_fields__) - {"limit_bytes"}


def test_a_request_is_a_netlink_message_of_its_own() -> None:
    request = netem_request(7, Impairment(delay_us=5), 1500, "try")
    data = request.encode(99)
    length, kind, flags, sequence_number, port = struct.unpack_from("=LHHLL", data)
    assert (length, kind, sequence_number, port) == (len(data), RTM_NEWQDISC, 99, 0)
    assert flags == 0x1 | 0x100 | 0x400
    family, index, handle, parent, info = struct.unpack_from("=BxxxiIII", data, 16)
    assert (family, index, handle, parent, info) == (0, 7, 0x1_0000, 0xFFFF_FFFF, 0)
    (kind_of_qdisc, options) = split(data[36:])
    assert kind_of_qdisc == (1, b"netem\0")
    assert options == (2, netem.options(Impairment(delay_us=5), 1500))


def test_damaged_answers_end_the_attributes() -> None:
    assert netem.attributes(b"") == {}
    assert netem.attributes(struct.pack("=HH", 3, 1)) == {}
    assert netem.attributes(struct.pack("=HH", 40, 1) + b"ab") == {}


def test_a_kernel_without_netem_is_found_out_before_anything_is_built() -> None:
    finding = probe(NETEM_PROBE)
    topology = replace(two_hosts("delay 1ms"), impairments=Realisation.NETEM)
    if finding.works:
        assert choose_realisation(cut_links(topology)) is Realisation.NETEM
        assert choose_realisation(cut_links(two_hosts("delay 1ms"))) is Realisation.NETEM
        return
    with pytest.raises(CapabilityError, match="use '--impairments emulator'"):
        choose_realisation(cut_links(topology))
    assert choose_realisation(cut_links(two_hosts("delay 1ms"))) is Realisation.EMULATOR


@contextlib.contextmanager
def kernel_joined(lab: Lab) -> Iterator[NetlinkSocket]:
    """The emulator stopped, and the halves of the link joined by the kernel instead."""
    built = cut_links(lab.topology)
    with inside(lab, LINKS_NODE):
        netlink = NetlinkSocket()
    with contextlib.closing(netlink):
        for link in built.links:
            netlink.run(forwarding_requests(link, LinkPlan(built.topology).indices))
        yield netlink


@pytest.mark.root
def test_the_kernel_joins_the_halves_of_a_link(lab_name: str) -> None:
    """All of netem's realisation but netem itself, which this kernel may lack."""
    topology = replace(
        two_hosts('{"->": {loss: 100%}, "<-": {loss: 100%}}'), impairments=Realisation.EMULATOR
    )
    with NamespaceBackend(with_agents=False).up(topology, lab_name) as lab:
        with kernel_joined(lab):
            assert can_talk(lab, "a", "b", "10.0.1.2"), "the emulator loses all: it was the kernel"
        shown = emulator(lab).request(method="show", link="a:eth0")
        assert shown["->"]["counters"]["delivered"] == 0


@pytest.fixture
def netem_lab(lab_name: str) -> Iterator[Lab]:
    """Two hosts, and the kernel's netem between them, where the kernel has it."""
    finding = probe(NETEM_PROBE)
    if not finding.works:
        pytest.skip(f"no netem: {finding.detail}")
    topology = replace(two_hosts("{delay: 5ms, loss: 1%}"), impairments=Realisation.NETEM)
    with NamespaceBackend(with_agents=False).up(topology, lab_name, seed=3) as lab:
        yield lab


@pytest.mark.root
def test_netem_impairs_links_where_the_kernel_has_it(netem_lab: Lab) -> None:
    link = netem_lab.links.link_at("a:eth0")
    state = netem_lab.links.change(link, {"rate": "10mbit", "limit": "77"})
    assert state.forward.realised_by == "kernel's netem"
    assert state.forward.impairment == Impairment(
        rate_bit_s=10**7, limit_packets=77, delay_us=5_000, loss=0.01
    )
    assert can_talk(netem_lab, "a", "b", "10.0.1.2")
    assert netem_lab.links.state(link).forward.counters["delivered"] > 0


@pytest.mark.root
def test_changed_words_end_and_the_others_stay(netem_lab: Lab) -> None:
    link = netem_lab.links.link_at("a:eth0")
    everything = replace(NETEM_TRIALS[0], seed=None)
    assert netem_lab.links.put(link, everything, everything).forward.impairment == everything
    changed = netem_lab.links.change(link, {"duplicate": "3%"})
    assert changed.backward.impairment == replace(everything, duplicate=0.03, duplicate_correlation=0.0)
    assert netem_lab.links.change(link, {}).forward.impairment == Impairment()
    assert can_talk(netem_lab, "a", "b", "10.0.1.2")


@pytest.mark.root
def test_a_seed_is_taken_or_refused(netem_lab: Lab) -> None:
    link = netem_lab.links.link_at("a:eth0")
    if probe(NETEM_SEED_PROBE).works:
        netem_lab.links.change(link, {"seed": "7"})
    else:
        with pytest.raises(UsageError, match=r"takes no seed .*'--impairments emulator'"):
            netem_lab.links.change(link, {"seed": "7"})
    assert netem_lab.links.state(link).forward.impairment == Impairment(delay_us=5_000, loss=0.01)


@pytest.mark.root
def test_an_interface_can_be_told_to_send_packets_of_the_mtu_only(lab_name: str) -> None:
    with NamespaceBackend(with_agents=False).up(two_hosts("{}"), lab_name) as lab:
        with inside(lab, "a"):
            set_tcp_segmentation_offload("eth0", enabled=False)
        features = subprocess.run(
            ["ip", "netns", "exec", lab.namespace_path("a").name, "ethtool", "-k", "eth0"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "\ttx-tcp-segmentation: off" in features
