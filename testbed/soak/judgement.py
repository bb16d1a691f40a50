"""What must hold after a run, and what its troubles excuse."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EHOSTUNREACH, ETIMEDOUT

from mptcp_stack.counters import Counters
from mptcp_stack.stack import Stack
from testbed.soak.conversation import Conversation, Party
from testbed.soak.hosts import Hosts
from testbed.soak.scenario import DISORDERS, LOSES, Scenario, Trouble

_MANGLING = frozenset({Trouble.STRIPPING, Trouble.DATA_CORRUPTION})
_SIGNS_OF_MANGLING = tuple(
    "MPTcpExt" + name
    for name in """
    MPJoinSynAckHMacFailure MPJoinAckHMacFailure DSSNotMatching DSSCorruptionFallback DSSCorruptionReset
    DSSNoMatchTCP DataCsumErr MPFailTx MPFailRx InfiniteMapTx InfiniteMapRx FallbackFailed AddAddrDrop
    NoDSSInWindow
    """.split()
)
"""Events that only happen where somebody changed what was sent."""
_ENDS_BY_DAMAGE = ("MPTcpExtDataCsumErr", "MPTcpExtDSSCorruptionReset")
_FALLBACKS = ("MPTcpExtMPCapableDataFallback", "MPTcpExtDssFallback")
_SIGNS_OF_DAMAGE = ("TcpInErrs", "TcpInCsumErrors", "StackDropMalformedTcp", "StackDropMalformedIp")
_SIGNS_OF_LOSS = ("TcpExtTCPTimeouts", "TcpExtTCPSynRetrans")
"""MPTcpExtMPTCPRetrans is none: data behind a path that is merely slow goes out on an idle one as well."""
GIVES_UP_AFTER_US = 924_600_000
"""15 repetitions, the first after 200 ms, none later than 120 s after the one before."""
CALM_ROUND_TRIP_US = 300_000
"""With the neighbour asked for first, a handshake ends before the first SYN is repeated."""
_GAUGES = ("TcpCurrEstab", "MPTcpExtMPCurrEstab")


def problems_of_data(hosts: Hosts, conversation: Conversation) -> Iterator[str]:
    """What did not arrive as it was sent, and ends that nobody wanted."""
    client, server = conversation.client, conversation.server
    for name, party, other in (("client", client, server), ("server", server, client)):
        where = f"conversation {conversation.number}, {name}"
        if not conversation.plan.is_aborted:
            yield from _problems_of_end(hosts, conversation, where, party, other)
        if not _is_right(hosts, conversation, party, other):
            yield f"{where}: {_difference(bytes(party.received), other.data)}"
        for what, most, limit in party.excesses():
            yield f"{where}: {most} bytes {what}, the limit is {limit}"
    if not conversation.plan.is_aborted:
        yield from _problems_of_mode(hosts, conversation)


def _problems_of_end(
    hosts: Hosts, conversation: Conversation, where: str, party: Party, other: Party
) -> Iterator[str]:
    if party.has_failed:
        if not _is_excused(hosts, conversation, party):
            yield f"{where}: error {party.error}, {len(party.received)} of {len(other.data)} bytes read"
    elif party.connection is not None and not (other.has_failed and _is_excused(hosts, conversation, other)):
        if party.offset < len(party.data):
            yield f"{where}: only {party.offset} of {len(party.data)} bytes were taken"
        if len(party.received) < len(other.data):
            yield f"{where}: {len(party.received)} bytes came, {len(other.data)} were sent"


def _is_right(hosts: Hosts, conversation: Conversation, party: Party, other: Party) -> bool:
    """What came is what was sent, as far as it goes; no more bytes differ than a middlebox has changed."""
    received = bytes(party.received)
    sent = other.data[: len(received)]
    if received == sent:
        return True
    if len(received) > len(sent) or not _may_be_mangled(hosts, conversation, party):
        return False
    differing = sum(one != another for one, another in zip(received, sent, strict=True))
    to_client = party is conversation.client
    return differing <= hosts.damaged_packets(conversation.port, to_client=to_client)


def _difference(received: bytes, sent: bytes) -> str:
    position = next(
        (index for index, (one, other) in enumerate(zip(received, sent, strict=False)) if one != other),
        min(len(received), len(sent)),
    )
    return f"wrong from byte {position} on ({len(received)} bytes came, {len(sent)} were sent)"


def _is_excused(hosts: Hosts, conversation: Conversation, party: Party) -> bool:
    """Whether the network was bad enough for this end."""
    scenario = hosts.scenario
    if conversation.plan.is_mptcp and _may_be_ended_by_mangling(hosts, conversation):
        return True
    if Trouble.DEATH in scenario.troubles and not party.was_established:
        return True
    other = conversation.other_than(party)
    left = other.was_cut_short or _gave_up(other)
    if scenario.may_lose_packets and (left or _gave_up(party) or _is_only_not_told(party, other)):
        return True
    never_connected = not party.was_established and party.error in (ETIMEDOUT, EHOSTUNREACH, None)
    may_be_late = scenario.may_lose_packets or Trouble.SPIKES in scenario.troubles
    return may_be_late and never_connected


def _gave_up(party: Party) -> bool:
    """Nothing was acknowledged for as long as Linux's tcp_retries2 stands for at least."""
    return party.error == ETIMEDOUT and party.finished_at_us - party.progressed_at_us >= GIVES_UP_AFTER_US


def _is_only_not_told(party: Party, other: Party) -> bool:
    """Both have all data, but the last acknowledgements were lost as long as the other end remembered it.

    In the end a reset answers what is repeated, or nothing if that is lost as well.
    """
    has_all = party.received == other.data and other.received == party.data
    if other.connection is None or other.has_failed or not (has_all and other.end_was_seen):
        return False
    time_wait_us = other.connection.environment.settings.time_wait_us
    return party.finished_at_us - other.finished_at_us >= time_wait_us


def _may_be_ended_by_mangling(hosts: Hosts, conversation: Conversation) -> bool:
    """A subflow whose data or mappings were changed is reset, and where it was the only one all ends."""
    port = conversation.port
    if hosts.scenario.strips_later and hosts.stripped_packets(port):
        return True
    if not any(hosts.damaged_packets(port, to_client=to_client) for to_client in (False, True)):
        return False
    return any(stack.counters[name] for _, stack in hosts.stacks for name in _ENDS_BY_DAMAGE)


def _may_be_mangled(hosts: Hosts, conversation: Conversation, party: Party) -> bool:
    """Nobody checks plain TCP any further; MP_FAIL says that what is on its way comes as plain TCP would.

    With several subflows there is no fallback: the damaged one is reset, and its data comes over another.
    """
    connection = party.connection
    if Trouble.DATA_CORRUPTION not in hosts.scenario.troubles or connection is None:
        return False
    if not conversation.plan.is_mptcp:
        return True
    if connection.had_join:
        return False
    has_told = connection.forbids_joins and connection.environment.counters["MPTcpExtDataCsumErr"] > 0
    return has_told or not connection.is_mptcp


def _problems_of_mode(hosts: Hosts, conversation: Conversation) -> Iterator[str]:
    """MPTCP where both speak it and nothing is in the way, and nowhere else."""
    plan, scenario = conversation.plan, hosts.scenario
    both = plan.is_mptcp
    for name, party in conversation.parties:
        connection = party.connection
        if connection is None or not party.was_established:
            continue
        if connection.is_mptcp and not both:
            yield f"conversation {conversation.number}, {name}: MPTCP with a host that does not speak it"
        if not connection.is_mptcp and both and not _may_fall_back(hosts, scenario):
            yield f"conversation {conversation.number}, {name}: fell back to TCP without cause"


def _may_fall_back(hosts: Hosts, scenario: Scenario) -> bool:
    """RFC 8684 §3.7: the options of the handshake did not come through, or in another order."""
    if scenario.troubles & _MANGLING:
        return True
    if not scenario.troubles & (LOSES | DISORDERS):
        return False
    given_up = hosts.client.counters["MPTcpExtMPCapableSYNTXDrop"]
    overtaken = hosts.server.counters["MPTcpExtMPCapableFallbackACK"]
    return given_up + overtaken > 0


def problems_of_counters(hosts: Hosts) -> Iterator[str]:
    """Gauges are back at zero, and nothing was counted that this seed has no cause for."""
    scenario = hosts.scenario
    for name, stack in hosts.stacks:
        counters = stack.counters
        for counter, value in counters.snapshot().items():
            if value < 0:
                yield f"{name}: {counter} is {value}"
        yield from _counted(name, counters, _GAUGES)
        if not scenario.troubles & _MANGLING:
            yield from _counted(name, counters, _SIGNS_OF_MANGLING)
        if not _may_fall_back(hosts, scenario):
            yield from _counted(name, counters, _FALLBACKS)
        if Trouble.CORRUPTION not in scenario.troubles:
            yield from _counted(name, counters, _SIGNS_OF_DAMAGE)
        if _is_calm(scenario):
            yield from _counted(name, counters, _SIGNS_OF_LOSS)
            yield from _needless_retransmissions(name, counters)


def _is_calm(scenario: Scenario) -> bool:
    """Nothing is lost, and no answer comes so late that its question would be asked again."""
    return not scenario.troubles and all(
        path.forward.delay_us + path.backward.delay_us <= CALM_ROUND_TRIP_US for path in scenario.paths
    )


def _needless_retransmissions(name: str, counters: Counters) -> Iterator[str]:
    """Beside the probes of a flight's end, which go out when the path's queue holds an answer back."""
    probes = counters["TcpExtTCPLossProbes"]
    if counters["TcpRetransSegs"] > probes:
        yield f"{name}: TcpRetransSegs is {counters['TcpRetransSegs']} with {probes} probes"


def _counted(name: str, counters: Counters, expected_zero: tuple[str, ...]) -> Iterator[str]:
    for counter in expected_zero:
        if counters[counter]:
            yield f"{name}: {counter} is {counters[counter]}"


def leftovers(hosts: Hosts) -> list[str]:
    """What a stack still holds although everything was closed; it gets some time before this counts."""
    found = []
    for name, stack in hosts.stacks:
        found += [f"{name}: {what}" for what in _held_by(stack)]
    for link in hosts.simulator.links().values():
        for wire in (link.forward, link.backward):
            if wire.frames_in_flight:
                found.append(f"{wire.frames_in_flight} frames on {wire.name}")
    return found


def _held_by(stack: Stack) -> Iterator[str]:
    for what, count in stack.holdings().items():
        if count:
            yield f"{count} {what}"
    if stack.environment.subflows:
        states = sorted(subflow.state.name for subflow in stack.environment.subflows.values())
        yield f"subflows in {', '.join(states)}"
    if stack.environment.timers.next_deadline_us() is not None:
        yield "a timer"
