"""Parse tree → TCP options, one function an option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lark import Token, Tree

from testbed.packetdrill.constants import MP_CAPABLE_FLAGS, MP_RESET_FLAGS, OPTION_NAMES
from testbed.packetdrill.errors import did_you_mean, quoted
from testbed.packetdrill.option_fields import (
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    FieldNames,
    OptionFields,
    OptionFieldsReader,
    hexadecimal,
    read_address_reference,
)
from testbed.packetdrill.syntax import (
    Absent,
    AddAddressOption,
    AnyOptions,
    ChecksumForm,
    Computed,
    DataSequence,
    Direction,
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
from testbed.packetdrill.tree_context import (
    RejectionError,
    TreeContext,
    subtree,
    subtrees,
    token_of,
    tokens_of,
)

MAXIMUM_OPTIONS = 40
"""A header has room for no more, not even of one byte each."""


def read_options(
    context: TreeContext, tree: Tree[Token], direction: Direction
) -> tuple[ScriptOption, ...] | None:
    """The options between ``<`` and ``>``, None for ``...`` alone.

    Every bad one is noted, then RejectionError raised.
    """
    options: list[ScriptOption] = []
    failed = False
    for option in subtrees(tree):
        try:
            read = _read_option(context, option)
            if direction is Direction.IN:
                _check_incoming(context, option, read)
            options.append(read)
        except RejectionError:
            failed = True
    if failed:
        raise RejectionError("options")
    if len(options) > MAXIMUM_OPTIONS:
        raise context.reject(tree, f"{len(options)} options, more than {MAXIMUM_OPTIONS}")
    return None if options == [AnyOptions()] else tuple(options)


def _check_incoming(context: TreeContext, tree: Tree[Token], option: ScriptOption) -> None:
    """What only makes sense in a comparison."""
    if isinstance(option, AnyOptions):
        raise context.reject(tree, "'...' is for packets that the stack sends: what should arrive?")
    if isinstance(option, FastOpen) and option.cookie is None:
        raise context.reject(tree, "an incoming packet needs the cookie itself instead of '...'")
    if isinstance(option, DssOption) and not isinstance(option.data_sequence, DataSequence):
        given = {
            "ssn": option.subflow_sequence is not None,
            "dll": option.data_length is not None,
            "cksum": isinstance(option.checksum, int) or option.checksum is ChecksumForm.CORRECT,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise context.reject(tree, f"dss: {name} goes with dsn4 or dsn8")


def _read_option(context: TreeContext, option: Tree[Token]) -> ScriptOption:
    if option.data == "any_options":
        return AnyOptions(location=context.location(option))
    name = token_of(option)
    read = _READERS.get(name)
    if read is None:
        raise context.reject(name, f"unknown TCP option {quoted(name)}", did_you_mean(name, OPTION_NAMES))
    return replace(read(OptionFieldsReader(context, option)), location=context.location(option))


def _without_fields(make: Callable[[], ScriptOption]) -> Callable[[OptionFieldsReader], ScriptOption]:
    def read(reader: OptionFieldsReader) -> ScriptOption:
        reader.read(FieldNames())
        return make()

    return read


def _one_number(reader: OptionFieldsReader, maximum: int) -> int:
    fields = reader.read(FieldNames(takes_positional=True))
    if len(fields.positional) != 1:
        raise reader.context.reject(reader.name, f"{reader.name} takes one number")
    return reader.context.integer(_word(reader, fields.positional[0]), str(reader.name), maximum)


def _word(reader: OptionFieldsReader, item: Tree[Token]) -> Token:
    if item.data == "ellipsis":
        raise reader.context.reject(item, f"{reader.name}: '...' has no meaning here")
    return token_of(item)


def _maximum_segment_size(reader: OptionFieldsReader) -> ScriptOption:
    return MaximumSegmentSize(_one_number(reader, UINT16))


def _window_scale(reader: OptionFieldsReader) -> ScriptOption:
    return WindowScale(_one_number(reader, UINT8))


def _sack(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(takes_pairs=True))
    if not 1 <= len(fields.pairs) <= 4:
        raise reader.context.reject(reader.name, f"sack takes 1 to 4 blocks, got {len(fields.pairs)}")
    blocks = []
    for pair in fields.pairs:
        left, right = (reader.context.integer(token, "sack", UINT32) for token in tokens_of(pair))
        blocks.append((left, right))
    return Sack(tuple(blocks))


def _timestamps(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("val", "ecr")))
    return Timestamps(reader.number(fields, "val", UINT32), reader.number(fields, "ecr", UINT32))


def _fast_open(is_experimental: bool) -> Callable[[OptionFieldsReader], ScriptOption]:
    def read(reader: OptionFieldsReader) -> ScriptOption:
        items = reader.read(FieldNames(takes_positional=True)).positional
        if len(items) > 1:
            raise reader.context.reject(items[1], f"{reader.name} takes one cookie")
        if not items:
            return FastOpen(b"", is_experimental)
        if items[0].data == "ellipsis":
            return FastOpen(None, is_experimental)
        return FastOpen(hexadecimal(reader.context, items[0], "cookie", 36), is_experimental)

    return read


def _md5_signature(reader: OptionFieldsReader) -> ScriptOption:
    items = reader.read(FieldNames(takes_positional=True)).positional
    if not items:
        return Md5Signature()
    if _word(reader, items[0]) == Computed.AUTO.value and len(items) == 1:
        return Md5Signature(Computed.AUTO)
    digest = hexadecimal(reader.context, items[0], "md5", 16)
    if len(digest) != 16 or len(items) > 1:
        raise reader.context.reject(items[0], "md5 takes 32 hexadecimal digits or auto")
    return Md5Signature(digest)


def _raw(reader: OptionFieldsReader) -> ScriptOption:
    items = reader.read(FieldNames(takes_positional=True)).positional
    if len(items) != 1:
        raise reader.context.reject(reader.name, "raw takes the bytes of one option in hexadecimal")
    _word(reader, items[0])
    data = hexadecimal(reader.context, items[0], "raw", 40)
    if not data:
        raise reader.context.reject(items[0], "raw takes at least one byte")
    return RawOption(data)


# --- MPTCP ---


def _checksum(reader: OptionFieldsReader, fields: OptionFields) -> int | ChecksumForm:
    if "nocs" in fields.words and "cksum" in fields.values:
        raise reader.context.reject(fields.words["nocs"], f"{reader.name}: either nocs or cksum")
    if "nocs" in fields.words:
        return ChecksumForm.NONE
    number = reader.number_or_auto(fields, "cksum", UINT16)
    if number is None:
        return ChecksumForm.NEGOTIATED
    return ChecksumForm.CORRECT if isinstance(number, Computed) else number


_VERSIONS = {f"v{number}": number for number in range(16)}
_CAPABLE_FIELDS = FieldNames(
    words=("nokey", "nocs", *_VERSIONS), values=("flags", "mpcdatalen", "cksum"), listings=("flags", "key")
)


def _mp_capable(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(_CAPABLE_FIELDS)
    versions = [word for word in fields.words if word in _VERSIONS]
    if len(versions) > 1:
        raise reader.context.reject(fields.words[versions[1]], "mpcapable: one version only")
    version = _VERSIONS[versions[0]] if versions else None
    keys: tuple[KeyReference, ...] | None = () if "nokey" in fields.words else None
    if "key" in fields.listings:
        if keys is not None:
            raise reader.context.reject(fields.words["nokey"], "mpcapable: either nokey or key[…]")
        keys = reader.keys(fields.listings["key"])
    data_length = reader.number(fields, "mpcdatalen", UINT16)
    if data_length is not None and (keys is None or len(keys) < 2):
        raise reader.context.reject(reader.name, "mpcapable: mpcdatalen goes with two keys")
    checksum = _checksum(reader, fields)
    if data_length is None and checksum not in (ChecksumForm.NEGOTIATED, ChecksumForm.NONE):
        raise reader.context.reject(reader.name, "mpcapable: cksum goes with mpcdatalen")
    return MpCapableOption(version, reader.flags(fields, dict(MP_CAPABLE_FLAGS)), keys, data_length, checksum)


def _mp_join_syn(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("backup", "address_id", "token", "rand")))
    return MpJoinSynOption(
        reader.switch(fields, "backup"),
        reader.number_or_auto(fields, "address_id", UINT8),
        reader.key_value(fields, "token", UINT32, (Truncation.TOKEN,)),
        reader.number(fields, "rand", UINT32),
    )


def _mp_join_syn_ack(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("backup", "address_id", "sender_hmac", "rand")))
    return MpJoinSynAckOption(
        reader.switch(fields, "backup"),
        reader.number_or_auto(fields, "address_id", UINT8),
        reader.key_value(fields, "sender_hmac", UINT64, (Truncation.LEFT_64,)),
        reader.number(fields, "rand", UINT32),
    )


def _mp_join_ack(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("sender_hmac",)))
    maximum = (1 << 160) - 1
    return MpJoinAckOption(reader.key_value(fields, "sender_hmac", maximum, (Truncation.FULL_160,)))


_WIDTHS: Mapping[str, bool | None] = {"": None, "4": False, "8": True}


def _data_sequence(
    reader: OptionFieldsReader, fields: OptionFields, prefix: str
) -> DataSequence | Absent | None:
    found: list[DataSequence | Absent] = [
        DataSequence(is_64bit, _sequence_value(reader, fields, prefix + suffix))
        for suffix, is_64bit in _WIDTHS.items()
        if prefix + suffix in fields.words or prefix + suffix in fields.values
    ]
    if f"no{prefix}" in fields.words:
        found.append(Absent.ABSENT)
    if len(found) > 1:
        raise reader.context.reject(
            reader.name, f"{reader.name}: one of {prefix}, {prefix}4, {prefix}8 and no{prefix}"
        )
    return found[0] if found else None


def _sequence_value(reader: OptionFieldsReader, fields: OptionFields, name: str) -> int | KeyFunction | None:
    value = reader.key_value(fields, name, UINT64, (Truncation.INITIAL_DATA_SEQUENCE,))
    return None if isinstance(value, Computed) else value


def _dss(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(
        FieldNames(
            words=("nocs", "fin", "nodack", "nodsn"),
            values=("ssn", "dll", "cksum"),
            optional_values=("dack", "dack4", "dack8", "dsn", "dsn4", "dsn8"),
        )
    )
    data_sequence = _data_sequence(reader, fields, "dsn")
    if data_sequence is Absent.ABSENT:
        for name in ("ssn", "dll", "cksum"):
            if name in fields.values:
                raise reader.context.reject(reader.name, f"dss: {name} does not go with nodsn")
    return DssOption(
        _data_sequence(reader, fields, "dack"),
        data_sequence,
        reader.number(fields, "ssn", UINT32),
        reader.number(fields, "dll", UINT16),
        _checksum(reader, fields),
        "fin" in fields.words,
    )


def _add_address(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(
        FieldNames(
            words=("addr_echo",),
            values=("address_id", "port", "hmac"),
            listings=("addr", "addr4", "addr6", "inet6_addr"),
        )
    )
    if len(fields.listings) != 1:
        raise reader.context.reject(reader.name, "add_address takes one address: addr[…]")
    entries = list(subtrees(next(iter(fields.listings.values())), "entry"))
    if len(entries) != 1:
        raise reader.context.reject(reader.name, "add_address takes one address: addr[…]")
    hmac = reader.number_or_auto(fields, "hmac", UINT64)
    is_echo = "addr_echo" in fields.words
    if is_echo and hmac is not None:
        raise reader.context.reject(fields.words["addr_echo"], "add_address: an echo has no HMAC")
    return AddAddressOption(
        reader.number(fields, "address_id", UINT8),
        read_address_reference(reader.context, entries[0]),
        reader.number(fields, "port", UINT16),
        hmac,
        is_echo,
    )


def _remove_address(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("address_id",)))
    identifiers = reader.numbers(fields, "address_id", UINT8)
    if not identifiers:
        raise reader.context.reject(reader.name, "remove_address takes address_id=[…]")
    return RemoveAddressOption(identifiers)


def _mp_prio(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("backup", "address_id")))
    return MpPrioOption(reader.switch(fields, "backup"), reader.number(fields, "address_id", UINT8))


def _mp_fail(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(optional_values=("dsn8",)))
    return MpFailOption(_sequence_value(reader, fields, "dsn8"))


def _mp_fastclose(reader: OptionFieldsReader) -> ScriptOption:
    items = reader.raw_items()
    if not items:
        return MpFastcloseOption()
    item = items[0]
    if len(items) > 1 or item.data not in ("word", "assignment", "listing"):
        raise reader.context.reject(item, "mp_fastclose takes one key")
    if item.data == "word":
        return MpFastcloseOption(reader.key_reference(token_of(item), None))
    if item.data == "assignment":
        return MpFastcloseOption(reader.key_reference(token_of(item), subtree(item, "value")))
    keys = reader.keys(item)
    if token_of(item) != "key" or len(keys) != 1:
        raise reader.context.reject(item, "mp_fastclose takes one key")
    return MpFastcloseOption(keys[0])


def _mp_reset(reader: OptionFieldsReader) -> ScriptOption:
    fields = reader.read(FieldNames(values=("flags",), listings=("flags",), takes_positional=True))
    if len(fields.positional) > 1:
        raise reader.context.reject(fields.positional[1], "mp_reset takes one reason")
    reason = None
    if fields.positional:
        reason = reader.context.integer(_word(reader, fields.positional[0]), "mp_reset", UINT8)
    flags = reader.flags(fields, dict(MP_RESET_FLAGS))
    if flags is not None and flags > 0x0F:
        raise reader.context.reject(reader.name, "mp_reset has four flags")
    return MpResetOption(reason, flags)


_READERS: Mapping[str, Callable[[OptionFieldsReader], ScriptOption]] = {
    "nop": _without_fields(NoOperation),
    "eol": _without_fields(EndOfOptions),
    "mss": _maximum_segment_size,
    "wscale": _window_scale,
    "sackOK": _without_fields(SackPermitted),
    "sack": _sack,
    "TS": _timestamps,
    "FO": _fast_open(is_experimental=False),
    "FOEXP": _fast_open(is_experimental=True),
    "md5": _md5_signature,
    "raw": _raw,
    "mpcapable": _mp_capable,
    "mp_join_syn": _mp_join_syn,
    "mp_join_syn_ack": _mp_join_syn_ack,
    "mp_join_ack": _mp_join_ack,
    "dss": _dss,
    "add_address": _add_address,
    "remove_address": _remove_address,
    "mp_prio": _mp_prio,
    "mp_fail": _mp_fail,
    "mp_fastclose": _mp_fastclose,
    "mp_reset": _mp_reset,
}
