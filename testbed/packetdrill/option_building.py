"""Options of a script → the bytes of an incoming packet. What the script leaves out is worked out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.mptcp_options import (
    CHECKSUM_REQUIRED,
    HMAC_SHA256,
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
    emit_mptcp_option,
)
from testbed.packetdrill.errors import PacketError
from testbed.packetdrill.packet_context import UINT32_MASK, PacketContext
from testbed.packetdrill.syntax import (
    AddAddressOption,
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
    WindowScale,
)
from testbed.packetdrill.wire_packet import (
    FAST_OPEN_MAGIC,
    KIND_END,
    KIND_EXPERIMENTAL,
    KIND_FAST_OPEN,
    KIND_MAXIMUM_SEGMENT_SIZE,
    KIND_MD5_SIGNATURE,
    KIND_NO_OPERATION,
    KIND_SACK,
    KIND_SACK_PERMITTED,
    KIND_TIMESTAMPS,
    KIND_WINDOW_SCALE,
)

MAXIMUM_OPTION_BYTES = 40


def build_options(context: PacketContext, options: Sequence[ScriptOption]) -> bytes:
    """The options in the order written, padded to a multiple of 4.

    The padding is NOPs, or zeros after an ``eol``; `padding_bytes` tells whether there was any. Raises
    PacketError for options that do not fit a header or that lack what they are worked out from.
    """
    parts = [build_option(context, option) for option in options]
    encoded = b"".join(parts)
    padding = b"\0" if options and isinstance(options[-1], EndOfOptions) else b"\1"
    encoded += padding * (-len(encoded) % 4)
    if len(encoded) > MAXIMUM_OPTION_BYTES:
        raise PacketError(f"{len(encoded)} bytes of TCP options, more than {MAXIMUM_OPTION_BYTES}")
    return encoded


def build_option(context: PacketContext, option: ScriptOption) -> bytes:
    """One option with its kind and length, without padding; raises PacketError."""
    try:
        plain = _PLAIN.get(type(option))
        if plain is not None:
            return plain(option)
        if isinstance(option, Timestamps):
            return _timestamps(context, option)
        if isinstance(option, Sack):
            return _sack(context, option)
        return emit_mptcp_option(_mptcp_option(context, option))
    except (ConfigurationError, struct.error, ValueError) as error:
        raise PacketError(f"TCP option: {error}") from None


# --- TCP ---


def _plain(option: ScriptOption) -> bytes:
    """Options that depend on nothing but themselves."""
    match option:
        case NoOperation():
            return bytes((KIND_NO_OPERATION,))
        case EndOfOptions():
            return bytes((KIND_END,))
        case MaximumSegmentSize(value):
            return struct.pack("!BBH", KIND_MAXIMUM_SEGMENT_SIZE, 4, value)
        case WindowScale(shift):
            return bytes((KIND_WINDOW_SCALE, 3, shift))
        case SackPermitted():
            return bytes((KIND_SACK_PERMITTED, 2))
        case Md5Signature(digest):
            return bytes((KIND_MD5_SIGNATURE, 18)) + (digest if isinstance(digest, bytes) else bytes(16))
        case RawOption(data):
            return data
        case FastOpen():
            return _fast_open(option)
        case _:
            raise TypeError(f"{type(option).__name__} depends on its packet")


_PLAIN: Mapping[type, Callable[[ScriptOption], bytes]] = dict.fromkeys(
    (
        NoOperation,
        EndOfOptions,
        MaximumSegmentSize,
        WindowScale,
        SackPermitted,
        Md5Signature,
        RawOption,
        FastOpen,
    ),
    _plain,
)


def _fast_open(option: FastOpen) -> bytes:
    if option.cookie is None:
        raise PacketError("an incoming packet needs the cookie itself instead of '...'")
    if option.is_experimental:
        return bytes((KIND_EXPERIMENTAL, 4 + len(option.cookie))) + FAST_OPEN_MAGIC + option.cookie
    return bytes((KIND_FAST_OPEN, 2 + len(option.cookie))) + option.cookie


def _timestamps(context: PacketContext, option: Timestamps) -> bytes:
    """Left out: the sender's value again, and an echo of what came last."""
    value = context.sender.last_timestamp if option.value is None else option.value
    echo = context.receiver.last_timestamp
    if option.echo is not None:
        # 0 is what stands there before anything was received, whatever the other side counts from.
        base = context.receiver.timestamp_base or 0
        echo = (option.echo + base) & UINT32_MASK if option.echo else 0
    return struct.pack("!BBII", KIND_TIMESTAMPS, 10, value, echo)


def _sack(context: PacketContext, option: Sack) -> bytes:
    base = context.receiver.base
    edges = [(edge + base) & UINT32_MASK for block in option.blocks for edge in block]
    return struct.pack(f"!BB{len(edges)}I", KIND_SACK, 2 + 4 * len(edges), *edges)


# --- MPTCP ---


def _mptcp_option(context: PacketContext, option: ScriptOption) -> MptcpOption:
    match option:
        case MpCapableOption():
            return _mp_capable(context, option)
        case MpJoinSynOption():
            return _mp_join_syn(context, option)
        case MpJoinSynAckOption():
            return _mp_join_syn_ack(context, option)
        case MpJoinAckOption(hmac):
            return MpJoinAck(_hmac(context, hmac, 20))
        case DssOption():
            return _dss(context, option)
        case AddAddressOption():
            return _add_address(context, option)
        case _:
            return _signal(context, option)


def _signal(context: PacketContext, option: ScriptOption) -> MptcpOption:
    match option:
        case RemoveAddressOption(address_ids):
            return RemoveAddr(address_ids)
        case MpPrioOption(backup, address_id):
            return MpPrio(bool(backup), address_id)
        case MpFailOption(data_sequence):
            # It names data that the other side sent (RFC 8684 §3.7).
            side = context.receiving_connection
            value = side.last_mapping if data_sequence is None else data_sequence
            return MpFail(context.data_number(value, side))
        case MpFastcloseOption(key):
            known = context.receiving_connection.key
            if key is not None:
                known = resolve_key(context, key, known)
            if known is None:
                raise PacketError("mp_fastclose needs a key: the stack has not shown its own yet")
            return MpFastclose(known)
        case MpResetOption(reason, flags):
            bits = flags or 0
            return MpTcpRst(reason or 0, bool(bits & 1), bits & 0x0E)
        case _:
            raise TypeError(f"{type(option).__name__} is no MPTCP option")


def resolve_key(context: PacketContext, reference: KeyReference, default: bytes | None) -> bytes:
    """The value of a key's variable; an unset one takes what the script gives, ``default`` or a new key."""
    keys = context.bindings.keys
    if reference.value is not None:
        keys[reference.name] = reference.value.to_bytes(8, "big")
    elif reference.name not in keys:
        keys[reference.name] = default or context.bindings.generate(f"key {reference.name}", 8)
    return keys[reference.name]


def _mp_capable(context: PacketContext, option: MpCapableOption) -> MpCapable:
    built = MpCapable(
        1 if option.version is None else option.version,
        HMAC_SHA256 if option.flags is None else option.flags,
        data_length=option.data_length,
    )
    context.subflow.connection.checksum_required |= bool(built.flags & CHECKSUM_REQUIRED)
    if option.keys:
        built.sender_key = resolve_key(context, option.keys[0], context.sending_connection.key)
        if context.sending_connection.key is None:
            context.sending_connection.key = built.sender_key
    if option.keys is not None and len(option.keys) == 2:
        built.receiver_key = resolve_key(context, option.keys[1], context.receiving_connection.key)
    if option.data_length is not None:
        initial = context.sending_connection.initial_data_sequence
        correct = context.data_checksum((initial + 1) % (1 << 64), 1, option.data_length)
        built.checksum = _checksum(context, option.checksum, correct)
    return built


def _checksum(context: PacketContext, wanted: int | ChecksumForm, correct: int) -> int | None:
    if isinstance(wanted, int):
        return wanted
    if wanted is ChecksumForm.NEGOTIATED and not context.subflow.connection.checksum_required:
        return None
    return None if wanted is ChecksumForm.NONE else correct


def _nonce(context: PacketContext, written: int | None) -> int:
    """Kept: the HMACs of the handshake are made from it. A retransmission repeats it."""
    if written is not None:
        context.sender.nonce = written
    elif context.sender.nonce is None:
        purpose = f"nonce {context.bindings.subflows.index(context.subflow)}"
        context.sender.nonce = int.from_bytes(context.bindings.generate(purpose, 4), "big")
    return context.sender.nonce


def _address_id(context: PacketContext, written: int | Computed | None) -> int:
    """Left out: where the sender's address stands among the addresses of its side."""
    if isinstance(written, int):
        return written
    pool = context.bindings.remote_addresses
    return pool.index(context.sender.address) if context.sender.address in pool else 0


def _mp_join_syn(context: PacketContext, option: MpJoinSynOption) -> MpJoinSyn:
    if isinstance(option.token, int):
        token = option.token
    else:
        token = context.token(option.token if isinstance(option.token, KeyFunction) else None)
    address_id = _address_id(context, option.address_id)
    return MpJoinSyn(bool(option.backup), address_id, token, _nonce(context, option.nonce))


def _mp_join_syn_ack(context: PacketContext, option: MpJoinSynAckOption) -> MpJoinSynAck:
    nonce = _nonce(context, option.nonce)
    hmac = _hmac(context, option.hmac, 8)
    return MpJoinSynAck(bool(option.backup), _address_id(context, option.address_id), hmac, nonce)


def _hmac(context: PacketContext, written: int | KeyFunction | Computed | None, length: int) -> bytes:
    """The first ``length`` bytes of the HMAC of a join, unless the script gives them."""
    if isinstance(written, int):
        return written.to_bytes(length, "big")
    return context.join_hmac(written if isinstance(written, KeyFunction) else None)[:length]


def _dss(context: PacketContext, option: DssOption) -> Dss:
    built = Dss(data_fin=option.fin)
    if isinstance(option.data_ack, DataSequence):
        side = context.receiving_connection
        built.data_ack_is_64bit = option.data_ack.is_64bit is not False
        built.data_ack = _narrow(
            option.data_ack, _number(context, option.data_ack, side.data_end, is_ack=True)
        )
    if not isinstance(option.data_sequence, DataSequence):
        return built
    number = _number(context, option.data_sequence, context.sending_connection.data_end, is_ack=False)
    built.data_sequence_is_64bit = option.data_sequence.is_64bit is not False
    built.data_sequence = _narrow(option.data_sequence, number)
    length = len(context.payload)
    built.data_length = length + option.fin if option.data_length is None else option.data_length
    built.subflow_sequence = context.sequence_start if length else 0
    if option.subflow_sequence is not None:
        built.subflow_sequence = option.subflow_sequence
    correct = context.data_checksum(number, built.subflow_sequence, built.data_length)
    built.checksum = _checksum(context, option.checksum, correct)
    return built


def _number(context: PacketContext, written: DataSequence, following: int, *, is_ack: bool) -> int:
    side = context.receiving_connection if is_ack else context.sending_connection
    return context.data_number(following if written.value is None else written.value, side)


def _narrow(written: DataSequence, number: int) -> int:
    return number & UINT32_MASK if written.is_64bit is False else number


def _add_address(context: PacketContext, option: AddAddressOption) -> AddAddr:
    # An echo returns what the stack announced; anything else announces an address of the script's.
    address = context.bindings.address(option.address, of_stack=option.is_echo)
    address_id = option.address_id
    if address_id is None:
        pool = context.bindings.local_addresses if option.is_echo else context.bindings.remote_addresses
        address_id = context.bindings.announced.get(address, pool.index(address) if address in pool else 0)
    built = AddAddr(option.is_echo, address_id, address, option.port)
    if isinstance(option.hmac, int):
        built.hmac = option.hmac.to_bytes(8, "big")
    elif not option.is_echo:
        built.hmac = context.address_hmac(address_id, address, option.port)
    return built
