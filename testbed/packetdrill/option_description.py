"""Bytes of options → options of a script with every field, in relative numbers and known names."""

from __future__ import annotations

import struct

from mptcp_stack.mptcp import crypto
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
from testbed.packetdrill import wire_packet
from testbed.packetdrill.bindings import ConnectionSide
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.syntax import (
    AddAddressOption,
    AddressReference,
    ChecksumForm,
    Computed,
    DataSequence,
    DssOption,
    EndOfOptions,
    FastOpen,
    KeyFunction,
    KeyReference,
    MaximumSegmentSize,
    Md5Signature,
    MpCapableOption,
    MpFailOption,
    MpFastcloseOption,
    MpJoinAckOption,
    MpJoinSynAckOption,
    MpJoinSynOption,
    MpPrioOption,
    MpResetOption,
    NoOperation,
    RawOption,
    RemoveAddressOption,
    Sack,
    SackPermitted,
    ScriptOption,
    Timestamps,
    Truncation,
    WindowScale,
)
from testbed.packetdrill.wire_packet import (
    FAST_OPEN_MAGIC,
    KIND_END,
    KIND_EXPERIMENTAL,
    KIND_FAST_OPEN,
    KIND_NO_OPERATION,
    KIND_SACK,
    WireOption,
)


def describe_option(context: PacketContext, option: WireOption) -> ScriptOption:
    """What a script would have to say to get these bytes; ``raw …`` where nothing else says it."""
    mptcp = option.mptcp()
    if mptcp is not None:
        return _describe_mptcp(context, mptcp)
    data = option.data
    if option.kind == KIND_END:
        return EndOfOptions()
    if option.kind == KIND_NO_OPERATION:
        return NoOperation()
    if len(data) < 2 or data[1] != len(data):
        return RawOption(data)
    return _describe_common(context, option.kind, data) or _describe_rare(context, option.kind, data)


def _describe_common(context: PacketContext, kind: int, data: bytes) -> ScriptOption | None:
    match kind, len(data):
        case wire_packet.KIND_MAXIMUM_SEGMENT_SIZE, 4:
            return MaximumSegmentSize(int.from_bytes(data[2:], "big"))
        case wire_packet.KIND_WINDOW_SCALE, 3:
            return WindowScale(data[2])
        case wire_packet.KIND_SACK_PERMITTED, 2:
            return SackPermitted()
        case wire_packet.KIND_TIMESTAMPS, 10:
            return _timestamps(context, data)
        case wire_packet.KIND_MD5_SIGNATURE, 18:
            return Md5Signature(data[2:])
        case _:
            return None


def _describe_rare(context: PacketContext, kind: int, data: bytes) -> ScriptOption:
    if kind == KIND_SACK and len(data) in (10, 18, 26, 34):
        base = context.receiver.base
        edges = [(edge - base) & UINT32_MASK for (edge,) in struct.iter_unpack("!I", data[2:])]
        return Sack(tuple(zip(edges[::2], edges[1::2], strict=True)))
    if kind == KIND_FAST_OPEN:
        return FastOpen(data[2:])
    if kind == KIND_EXPERIMENTAL and data[2:4] == FAST_OPEN_MAGIC:
        return FastOpen(data[4:], is_experimental=True)
    return RawOption(data)


def _timestamps(context: PacketContext, data: bytes) -> Timestamps:
    value, echo = struct.unpack_from("!II", data, 2)
    base = context.sender.timestamp_base or 0
    echo_base = context.receiver.timestamp_base or 0
    return Timestamps((value - base) & UINT32_MASK, (echo - echo_base) & UINT32_MASK if echo else 0)


# --- MPTCP ---


def _describe_mptcp(context: PacketContext, option: MptcpOption) -> ScriptOption:
    match option:
        case MpCapable():
            return _mp_capable(context, option)
        case MpJoinSyn(backup, address_id, token, nonce):
            return MpJoinSynOption(backup, address_id, _token(context, token), nonce)
        case MpJoinSynAck(backup, address_id, hmac, nonce):
            return MpJoinSynAckOption(backup, address_id, _hmac(context, hmac), nonce)
        case MpJoinAck(hmac):
            return MpJoinAckOption(_hmac(context, hmac))
        case Dss():
            return _dss(context, option)
        case AddAddr():
            return _add_address(context, option)
        case _:
            return _describe_signal(context, option)


def _describe_signal(context: PacketContext, option: MptcpOption) -> ScriptOption:
    match option:
        case RemoveAddr(address_ids):
            return RemoveAddressOption(address_ids)
        case MpPrio(backup, address_id):
            return MpPrioOption(backup, address_id)
        case MpFail(data_sequence):
            side = context.receiving_connection
            return MpFailOption(context.relative_data_number(data_sequence, side, is_64bit=True))
        case MpFastclose(key):
            return MpFastcloseOption(_key(context, key))
        case MpTcpRst(reason, transient, flags):
            return MpResetOption(reason, flags | transient)
        case _:
            return RawOption(option.to_bytes())


def _key(context: PacketContext, key: bytes) -> KeyReference:
    """The variable with that value; else a new name for it, which gives the value."""
    name = context.bindings.key_name(key)
    if name is not None:
        return KeyReference(name)
    number = int.from_bytes(key, "big")
    return KeyReference(f"key_{key.hex()[:6]}", number)


def _mp_capable(context: PacketContext, option: MpCapable) -> MpCapableOption:
    keys = tuple(_key(context, key) for key in (option.sender_key, option.receiver_key) if key is not None)
    checksum: int | ChecksumForm = ChecksumForm.NEGOTIATED
    if option.data_length is not None:
        checksum = ChecksumForm.NONE
        if option.checksum is not None:
            initial = context.sending_connection.initial_data_sequence
            correct = context.data_checksum((initial + 1) % (1 << 64), 1, option.data_length)
            checksum = ChecksumForm.CORRECT if option.checksum == correct else option.checksum
    return MpCapableOption(option.version, option.flags, keys, option.data_length, checksum)


def _token(context: PacketContext, token: int) -> int | KeyFunction:
    for name, key in context.bindings.keys.items():
        if crypto.derive(key).token == token:
            return KeyFunction(Truncation.TOKEN, (name,))
    return token


def _hmac(context: PacketContext, hmac: bytes) -> int | Computed:
    return Computed.AUTO if _is_right_join_hmac(context, hmac) else int.from_bytes(hmac, "big")


def _is_right_join_hmac(context: PacketContext, hmac: bytes) -> bool:
    try:
        return hmac == context.join_hmac(None)[: len(hmac)]
    except PacketError:
        return False


def _is_right_address_hmac(context: PacketContext, option: AddAddr) -> bool:
    try:
        return option.hmac == context.address_hmac(option.address_id, option.address, option.port)
    except PacketError:
        return False


def _dss(context: PacketContext, option: Dss) -> DssOption:
    data_ack = data_sequence = None
    if option.data_ack is not None:
        data_ack = _data_sequence(
            context, option.data_ack, context.receiving_connection, is_64bit=option.data_ack_is_64bit
        )
    if option.data_sequence is None:
        return DssOption(data_ack, checksum=ChecksumForm.NONE, fin=option.data_fin)
    side = context.sending_connection
    is_64bit = option.data_sequence_is_64bit
    data_sequence = _data_sequence(context, option.data_sequence, side, is_64bit=is_64bit)
    checksum: int | ChecksumForm = ChecksumForm.NONE
    if option.checksum is not None:
        number = context.full_data_number(option.data_sequence, side, is_64bit=is_64bit)
        correct = context.data_checksum(number, option.subflow_sequence, option.data_length)
        checksum = ChecksumForm.CORRECT if option.checksum == correct else option.checksum
    return DssOption(
        data_ack, data_sequence, option.subflow_sequence, option.data_length, checksum, option.data_fin
    )


def _data_sequence(
    context: PacketContext, number: int, side: ConnectionSide, *, is_64bit: bool
) -> DataSequence:
    return DataSequence(is_64bit, context.relative_data_number(number, side, is_64bit=is_64bit))


def _add_address(context: PacketContext, option: AddAddr) -> AddAddressOption:
    name = context.bindings.address_name(option.address)
    reference = AddressReference(name or f"addr_{option.address_id}", None if name else option.address)
    hmac: int | Computed | None = None
    if option.hmac is not None:
        is_right = _is_right_address_hmac(context, option)
        hmac = Computed.AUTO if is_right else int.from_bytes(option.hmac, "big")
    return AddAddressOption(option.address_id, reference, option.port, hmac, option.echo)
