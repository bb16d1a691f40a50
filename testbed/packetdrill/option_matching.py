"""Options of a script ↔ the bytes that the stack sent, field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mptcp_stack.wire.addresses import format_address
from mptcp_stack.wire.mptcp_options import (
    AddAddr,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpRst,
    RemoveAddr,
)
from testbed.packetdrill.bindings import ConnectionSide
from testbed.packetdrill.option_description import describe_option
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.printer import print_option
from testbed.packetdrill.syntax import (
    Absent,
    AddAddressOption,
    ChecksumForm,
    DataSequence,
    DssOption,
    FastOpen,
    KeyFunction,
    KeyReference,
    Md5Signature,
    MpCapableOption,
    MpFailOption,
    MpFastcloseOption,
    MpJoinAckOption,
    MpJoinSynAckOption,
    MpJoinSynOption,
    MpPrioOption,
    MpResetOption,
    RawOption,
    RemoveAddressOption,
    ScriptOption,
    Timestamps,
)
from testbed.packetdrill.wire_packet import WireOption


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One field that is not as the script wants it, as the script's language writes its values."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


NOTHING = "nothing"


@dataclass(slots=True)
class Comparison:
    """Collects what does not agree."""

    context: PacketContext
    mismatches: list[Mismatch] = field(default_factory=list)

    def check(self, name: str, expected: object, got: object, render: Callable[[object], str] = str) -> None:
        """Compares unless ``expected`` is None: the script left it out."""
        if expected is not None and expected != got:
            shown = NOTHING if got is None else render(got)
            self.mismatches.append(Mismatch(name, render(expected), shown))

    def check_presence(self, name: str, *, expected: bool, got: bool) -> bool:
        """Whether both are there."""
        if expected != got:
            self.mismatches.append(Mismatch(name, *(name if there else NOTHING for there in (expected, got))))
        return expected and got


def match_option(comparison: Comparison, expected: ScriptOption, actual: WireOption) -> None:
    """Compares an option with one of the same form; binds its free variables."""
    if isinstance(expected, RawOption):
        comparison.check("raw option", expected.data.hex(), actual.data.hex())
        return
    mptcp = actual.mptcp()
    if mptcp is not None:
        _match_mptcp(comparison, expected, mptcp)
        return
    described = describe_option(comparison.context, actual)
    if isinstance(expected, Timestamps) and isinstance(described, Timestamps):
        _match_timestamps(comparison, expected, described, actual.data)
    elif isinstance(expected, FastOpen) and isinstance(described, FastOpen):
        _match_fast_open(comparison, expected, described)
    elif isinstance(expected, Md5Signature) and isinstance(described, Md5Signature):
        # What is right is only known to who has the whole segment.
        if isinstance(expected.digest, bytes):
            comparison.check("md5", expected.digest, described.digest, hexadecimal)
    else:
        _match_plain(comparison, expected, described)


_NAMES_OF_PLAIN = {"MaximumSegmentSize": "mss", "WindowScale": "wscale", "Sack": "sack"}


def _match_plain(comparison: Comparison, expected: ScriptOption, described: ScriptOption) -> None:
    """Options that consist of plain numbers."""
    if expected != described:
        name = _NAMES_OF_PLAIN.get(type(expected).__name__, "option")
        comparison.check(name, print_option(expected), print_option(described))


def _match_timestamps(
    comparison: Comparison, expected: Timestamps, described: Timestamps, data: bytes
) -> None:
    context = comparison.context
    if expected.value is not None and context.sender.timestamp_base is None:
        wire_value = int.from_bytes(data[2:6], "big")
        context.sender.timestamp_base = (wire_value - expected.value) & UINT32_MASK
    elif expected.value is not None and described.value is not None:
        distance = (described.value - expected.value) & UINT32_MASK
        if min(distance, (UINT32_MASK + 1) - distance) > context.bindings.timestamp_tolerance:
            comparison.check("TS val", expected.value, described.value)
    comparison.check("TS ecr", expected.echo, described.echo)


def _match_fast_open(comparison: Comparison, expected: FastOpen, described: FastOpen) -> None:
    name = "FOEXP" if expected.is_experimental else "FO"
    if expected.cookie is None:
        comparison.check_presence(f"{name} cookie", expected=True, got=bool(described.cookie))
    else:
        comparison.check(f"{name} cookie", expected.cookie, described.cookie, hexadecimal)


def hexadecimal(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() or "an empty one"
    return f"{value:#x}" if isinstance(value, int) else str(value)


# --- MPTCP ---


def _match_mptcp(comparison: Comparison, expected: ScriptOption, got: MptcpOption) -> None:
    match expected, got:
        case MpCapableOption(), MpCapable():
            _match_capable(comparison, expected, got)
        case DssOption(), Dss():
            _match_dss(comparison, expected, got)
        case MpJoinSynOption(), MpJoinSyn():
            _match_join_syn(comparison, expected, got)
        case MpJoinSynAckOption(), MpJoinSynAck():
            _match_join_syn_ack(comparison, expected, got)
        case MpJoinAckOption(), MpJoinAck():
            _match_join_hmac(comparison, "mp_join_ack sender_hmac", expected, got.hmac)
        case _:
            _match_signal(comparison, expected, got)


def _match_signal(comparison: Comparison, expected: ScriptOption, got: MptcpOption) -> None:
    match expected, got:
        case AddAddressOption(), AddAddr():
            _match_add_address(comparison, expected, got)
        case RemoveAddressOption(), RemoveAddr():
            wanted, came = list(expected.address_ids), list(got.address_ids)
            comparison.check("remove_address address_id", wanted, came)
        case MpPrioOption(), MpPrio():
            _match_prio(comparison, expected, got)
        case MpFailOption(), MpFail():
            _match_fail(comparison, expected, got)
        case MpFastcloseOption(), MpFastclose():
            if expected.key is not None:
                _match_key(comparison, "mp_fastclose key", expected.key, got.receiver_key)
        case MpResetOption(), MpTcpRst():
            comparison.check("mp_reset reason", expected.reason, got.reason)
            comparison.check("mp_reset flags", expected.flags, got.flags | got.transient, hexadecimal)
        case _:
            raise TypeError(f"{type(expected).__name__} cannot be compared with {type(got).__name__}")


def _match_key(comparison: Comparison, name: str, expected: KeyReference, got: bytes | None) -> None:
    """A free variable takes the key that came."""
    keys = comparison.context.bindings.keys
    if expected.value is not None:
        keys[expected.name] = expected.value.to_bytes(8, "big")
    elif expected.name not in keys:
        if got is not None:
            keys[expected.name] = got
        return
    comparison.check(name, keys[expected.name], got, lambda key: f"{expected.name}={_hexadecimal_key(key)}")


def _hexadecimal_key(key: object) -> str:
    return f"0x{key.hex()}" if isinstance(key, bytes) else str(key)


def _match_capable(comparison: Comparison, expected: MpCapableOption, got: MpCapable) -> None:
    comparison.check("mpcapable version", expected.version, got.version)
    comparison.check("mpcapable flags", expected.flags, got.flags, hexadecimal)
    if expected.keys is None:
        return
    got_keys = (got.sender_key, got.receiver_key)
    for index, name in enumerate(("mpcapable sender key", "mpcapable receiver key")):
        got_key = got_keys[index]
        has_key = index < len(expected.keys)
        if has_key != (got_key is not None):
            comparison.check_presence(name, expected=has_key, got=got_key is not None)
        elif has_key:
            _match_key(comparison, name, expected.keys[index], got_key)
    if len(expected.keys) < 2:
        return
    comparison.check("mpcapable mpcdatalen", expected.data_length, got.data_length)
    if got.data_length is not None:
        context = comparison.context
        initial = context.sending_connection.initial_data_sequence
        correct = context.data_checksum((initial + 1) % (1 << 64), 1, got.data_length)
        _match_checksum(comparison, "mpcapable checksum", expected.checksum, got.checksum, correct)


def _match_checksum(
    comparison: Comparison, name: str, expected: int | ChecksumForm, got: int | None, correct: int
) -> None:
    if expected is ChecksumForm.NEGOTIATED:
        return
    if expected is ChecksumForm.NONE:
        comparison.check_presence(name, expected=False, got=got is not None)
    else:
        comparison.check(name, correct if expected is ChecksumForm.CORRECT else expected, got, hexadecimal)


def _match_join_syn(comparison: Comparison, expected: MpJoinSynOption, got: MpJoinSyn) -> None:
    _match_join_head(comparison, "mp_join_syn", expected, got)
    if isinstance(expected.token, int):
        comparison.check("mp_join_syn token", expected.token, got.token, hexadecimal)
    elif expected.token is not None:
        function = expected.token if isinstance(expected.token, KeyFunction) else None
        comparison.check("mp_join_syn token", comparison.context.token(function), got.token, hexadecimal)


def _match_join_head(
    comparison: Comparison,
    name: str,
    expected: MpJoinSynOption | MpJoinSynAckOption,
    got: MpJoinSyn | MpJoinSynAck,
) -> None:
    comparison.check(f"{name} backup", expected.backup, got.backup, _switch)
    if isinstance(expected.address_id, int):
        comparison.check(f"{name} address_id", expected.address_id, got.address_id)
    comparison.check(f"{name} rand", expected.nonce, got.nonce)


def _switch(value: object) -> str:
    return str(int(bool(value)))


def _match_join_syn_ack(comparison: Comparison, expected: MpJoinSynAckOption, got: MpJoinSynAck) -> None:
    _match_join_head(comparison, "mp_join_syn_ack", expected, got)
    _match_join_hmac(comparison, "mp_join_syn_ack sender_hmac", expected, got.truncated_hmac)


def _match_join_hmac(
    comparison: Comparison, name: str, expected: MpJoinSynAckOption | MpJoinAckOption, got: bytes
) -> None:
    if expected.hmac is None:
        return
    if isinstance(expected.hmac, int):
        wanted = expected.hmac.to_bytes(len(got), "big")
    else:
        function = expected.hmac if isinstance(expected.hmac, KeyFunction) else None
        wanted = comparison.context.join_hmac(function)[: len(got)]
    comparison.check(name, wanted, got, hexadecimal)


def _match_dss(comparison: Comparison, expected: DssOption, got: Dss) -> None:
    context = comparison.context
    _match_data_number(
        comparison,
        "dack",
        context.receiving_connection,
        expected.data_ack,
        got.data_ack,
        is_64bit=got.data_ack_is_64bit,
    )
    _match_data_number(
        comparison,
        "dsn",
        context.sending_connection,
        expected.data_sequence,
        got.data_sequence,
        is_64bit=got.data_sequence_is_64bit,
    )
    if got.data_sequence is None:
        # Without a mapping there is nothing of these.
        comparison.check("dss ssn", expected.subflow_sequence, None)
        comparison.check("dss dll", expected.data_length, None)
        _match_checksum(comparison, "dss checksum", expected.checksum, None, 0)
    else:
        comparison.check("dss ssn", expected.subflow_sequence, got.subflow_sequence)
        comparison.check("dss dll", expected.data_length, got.data_length)
        side = context.sending_connection
        number = context.full_data_number(got.data_sequence, side, is_64bit=got.data_sequence_is_64bit)
        correct = context.data_checksum(number, got.subflow_sequence, got.data_length)
        _match_checksum(comparison, "dss checksum", expected.checksum, got.checksum, correct)
    comparison.check_presence("dss fin", expected=expected.fin, got=got.data_fin)


def _match_data_number(
    comparison: Comparison,
    name: str,
    side: ConnectionSide,
    expected: DataSequence | Absent | None,
    got: int | None,
    *,
    is_64bit: bool,
) -> None:
    name = f"dss {name}"
    if expected is None:
        return
    is_wanted = expected is not Absent.ABSENT
    if not comparison.check_presence(name, expected=is_wanted, got=got is not None):
        return
    if expected is Absent.ABSENT or got is None:
        return
    if expected.is_64bit is not None:
        comparison.check(f"{name} width", 8 if expected.is_64bit else 4, 8 if is_64bit else 4)
    if expected.value is None:
        return
    context = comparison.context
    wanted = context.data_number(expected.value, side)
    came = context.full_data_number(got, side, is_64bit=is_64bit)
    if is_64bit or (wanted ^ came) & UINT32_MASK:
        comparison.check(name, wanted, came, _relative_to(side))


def _relative_to(side: ConnectionSide) -> Callable[[object], str]:
    initial = side.initial_data_sequence

    def render(number: object) -> str:
        return str((number - initial) % (1 << 64)) if isinstance(number, int) else str(number)

    return render


def _match_add_address(comparison: Comparison, expected: AddAddressOption, got: AddAddr) -> None:
    context = comparison.context
    comparison.check("add_address address_id", expected.address_id, got.address_id)
    comparison.check_presence("add_address addr_echo", expected=expected.is_echo, got=got.echo)
    # An echo repeats an address of the script's.
    wanted = context.bindings.expect_address(expected.address, got.address, of_stack=not got.echo)
    comparison.check("add_address addr", wanted, got.address, _address)
    comparison.check("add_address port", expected.port, got.port)
    if isinstance(expected.hmac, int):
        comparison.check("add_address hmac", expected.hmac.to_bytes(8, "big"), got.hmac, hexadecimal)
    elif expected.hmac is not None:
        correct = context.address_hmac(got.address_id, got.address, got.port)
        comparison.check("add_address hmac", correct, got.hmac, hexadecimal)


def _address(value: object) -> str:
    return format_address(value) if isinstance(value, bytes) else str(value)


def _match_prio(comparison: Comparison, expected: MpPrioOption, got: MpPrio) -> None:
    comparison.check("mp_prio backup", expected.backup, got.backup, _switch)
    comparison.check("mp_prio address_id", expected.address_id, got.address_id)


def _match_fail(comparison: Comparison, expected: MpFailOption, got: MpFail) -> None:
    if expected.data_sequence is not None:
        # The number belongs to the data that the other side sent (RFC 8684 §3.7).
        side = comparison.context.receiving_connection
        wanted = comparison.context.data_number(expected.data_sequence, side)
        comparison.check("mp_fail dsn8", wanted, got.data_sequence, _relative_to(side))
