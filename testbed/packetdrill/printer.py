"""Syntax tree → text of a script, such that reading it gives the same tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mptcp_stack.wire.addresses import format_address
from testbed.packetdrill.constants import MP_CAPABLE_FLAGS, MP_RESET_FLAGS
from testbed.packetdrill.syntax import (
    Absent,
    Action,
    AddAddressOption,
    AddressReference,
    AnyOptions,
    Array,
    BitwiseOr,
    ChecksumForm,
    CodeBlock,
    Command,
    Computed,
    Constant,
    DataSequence,
    DssOption,
    Ellipsis,
    EndOfOptions,
    Event,
    EventTime,
    Expression,
    FastOpen,
    FunctionCall,
    IcmpPart,
    Integer,
    IpPart,
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
    Packet,
    RawOption,
    RemoveAddressOption,
    Sack,
    SackPermitted,
    Script,
    ScriptOption,
    SequenceRange,
    String,
    Structure,
    StructureField,
    SystemCall,
    TcpPart,
    TimeKind,
    Timestamps,
    WindowScale,
)

_FLAG_LETTERS = ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (32, "U"), (64, "E"), (128, "W"), (16, "."))
"""In the order in which they are customarily written."""
_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r"}


def print_script(script: Script) -> str:
    """The whole script, an event a line; its comments are gone."""
    lines = [f"--{name}={value}" if value else f"--{name}" for name, value in script.options.items()]
    lines += [f"--define={name}={value}" for name, value in script.defines.items()]
    if script.init_command is not None:
        lines.append(f"`{script.init_command.text}`")
    lines += [print_event(event) for event in script.events]
    return "\n".join(lines) + "\n"


def print_event(event: Event) -> str:
    """Its time and what happens."""
    return f"{print_time(event.time)} {print_action(event.action)}"


def print_time(time: EventTime) -> str:
    """``+0.1``, ``0~0.5``, ``+0...0.2``, ``*``."""
    if time.kind is TimeKind.ANY:
        return "*"
    sign = "+" if time.is_relative else ""
    text = sign + print_seconds(time.start_us)
    if time.kind in (TimeKind.ABSOLUTE_RANGE, TimeKind.RELATIVE_RANGE):
        return f"{text}~{sign}{print_seconds(time.end_us)}"
    if time.blocking_end_us is not None:
        return f"{text}...{print_seconds(time.blocking_end_us)}"
    return text


def print_seconds(time_us: int) -> str:
    """Microseconds as seconds, without trailing zeros."""
    seconds, fraction = divmod(time_us, 1_000_000)
    return f"{seconds}.{fraction:06}".rstrip("0").rstrip(".")


def print_action(action: Action) -> str:
    """What happens, without its time."""
    match action:
        case SystemCall():
            return print_system_call(action)
        case Packet():
            return print_packet(action)
        case Command(text):
            return f"`{text}`"
        case CodeBlock(text):
            indented = "\n".join(f"  {line}" if line else line for line in text.splitlines())
            return f"%{{\n{indented}\n}}%" if "\n" in text else f"%{{ {text} }}%"


# --- system calls ---


def print_system_call(call: SystemCall) -> str:
    """``name(arguments) = result ERRNO (note)``."""
    text = f"{call.name}({_joined(call.arguments)})"
    if call.result is not None:
        text += f" = {print_expression(call.result)}"
        text += f" {call.errno_name}" if call.errno_name else ""
        text += f" ({call.note})" if call.note is not None else ""
    return text


def _joined(expressions: Iterable[Expression]) -> str:
    return ", ".join(print_expression(expression) for expression in expressions)


def print_expression(expression: Expression) -> str:
    """One argument or result."""
    match expression:
        case Integer(value, is_hexadecimal):
            return f"{value:#x}" if is_hexadecimal else str(value)
        case String(value):
            return f'"{_escaped(value)}"'
        case Constant(name):
            return name
        case Ellipsis():
            return "..."
        case Array(items):
            return f"[{_joined(items)}]"
        case Structure(fields):
            return "{" + ", ".join(_print_field(entry) for entry in fields) + "}"
        case FunctionCall(name, arguments):
            return f"{name}({_joined(arguments)})"
        case BitwiseOr(terms):
            return "|".join(print_expression(term) for term in terms)


def _print_field(entry: StructureField) -> str:
    value = print_expression(entry.value)
    if entry.name is None:
        return value
    count = f"({print_expression(entry.count)})" if entry.count is not None else ""
    return f"{entry.name}{count}={value}"


def _escaped(value: bytes) -> str:
    # Three octal digits: a hexadecimal escape would swallow a digit that follows.
    return "".join(
        _ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in value
    )


# --- packets ---


def print_packet(packet: Packet) -> str:
    """``> [ip] flags start:end(length) …``."""
    parts = [packet.direction.value]
    if packet.source is not None and packet.destination is not None:
        parts += [_print_endpoint(packet.source), ">", _print_endpoint(packet.destination)]
    ip = _print_ip(packet.ip)
    if ip:
        parts.append(f"[{ip}]")
    content = packet.content
    parts.append(_print_tcp(content) if isinstance(content, TcpPart) else _print_icmp(content))
    return " ".join(parts)


def _print_endpoint(reference: AddressReference) -> str:
    port = f":{reference.port}" if reference.port is not None else ""
    return _print_address(reference) + port


def _print_address(reference: AddressReference) -> str:
    value = f'=inet_addr("{format_address(reference.value)}")' if reference.value is not None else ""
    return f"addr[{reference.name}{value}]"


def _print_ip(ip: IpPart) -> str:
    parts = [ip.ecn.value] if ip.ecn is not None else []
    for name, value, form in (
        ("tos", ip.traffic_class, "#x"),
        ("ttl", ip.hop_limit, "d"),
        ("flowlabel", ip.flow_label, "#x"),
    ):
        if value is not None:
            parts.append(f"{name} {value:{form}}")
    return ", ".join(parts)


def print_range(sequence: SequenceRange) -> str:
    """``start:end(length)``."""
    return f"{sequence.start}:{sequence.end}({sequence.length})"


def print_flags(flags: int) -> str:
    """``S.``, or ``-`` for none."""
    return "".join(letter for bit, letter in _FLAG_LETTERS if flags & bit) or "-"


def _print_tcp(tcp: TcpPart) -> str:
    parts = [print_flags(tcp.flags), print_range(tcp.sequence)]
    for name, value in (("ack", tcp.acknowledgement), ("win", tcp.window), ("urg", tcp.urgent_pointer)):
        if value is not None:
            parts.append(f"{name} {value}")
    if tcp.options is None:
        parts.append("<...>")
    elif tcp.options:
        parts.append(f"<{print_options(tcp.options)}>")
    return " ".join(parts)


def _print_icmp(icmp: IcmpPart) -> str:
    parts = [f"[{print_range(icmp.quoted)}]"] if icmp.quoted is not None else []
    parts += ["icmpv6" if icmp.is_icmpv6 else "icmp", icmp.type_name]
    if icmp.code_name is not None:
        parts.append(icmp.code_name)
    if icmp.mtu is not None:
        parts.append(f"mtu {icmp.mtu}")
    return " ".join(parts)


# --- options ---


def print_options(options: Iterable[ScriptOption]) -> str:
    """The options without the angle brackets."""
    return ", ".join(print_option(option) for option in options)


_SINGLE_WORDS: Mapping[type, str] = {
    AnyOptions: "...",
    NoOperation: "nop",
    EndOfOptions: "eol",
    SackPermitted: "sackOK",
}


def print_option(option: ScriptOption) -> str:
    """One option; what it leaves out is left out."""
    match option:
        case AnyOptions() | NoOperation() | EndOfOptions() | SackPermitted():
            return _SINGLE_WORDS[type(option)]
        case MaximumSegmentSize(value):
            return f"mss {value}"
        case WindowScale(shift):
            return f"wscale {shift}"
        case Sack(blocks):
            return "sack " + " ".join(f"{left}:{right}" for left, right in blocks)
        case Timestamps(value, echo):
            return _words(
                "TS", None if value is None else f"val {value}", None if echo is None else f"ecr {echo}"
            )
        case _:
            return _print_rarer_option(option)


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _print_rarer_option(option: ScriptOption) -> str:
    match option:
        case FastOpen(cookie, is_experimental):
            name = "FOEXP" if is_experimental else "FO"
            return _words(name, "..." if cookie is None else cookie.hex())
        case RawOption(data):
            return f"raw {data.hex()}"
        case Md5Signature(digest):
            return _words("md5", digest.value if isinstance(digest, Computed) else (digest or b"").hex())
        case MpCapableOption():
            return _print_capable(option)
        case DssOption():
            return _print_dss(option)
        case AddAddressOption():
            return _print_add_address(option)
        case MpJoinSynOption() | MpJoinSynAckOption() | MpJoinAckOption():
            return _print_join(option)
        case _:
            return _print_signal(option)


def _assignment(name: str, value: object) -> str | None:
    """``name=value``, None for None. Numbers without an order are written in hexadecimal."""
    match value:
        case None:
            return None
        case bool():
            return f"{name}={int(value)}"
        case int():
            return f"{name}={value:#x}" if value > 0xFFFF and name in _HEXADECIMAL else f"{name}={value}"
        case Computed():
            return f"{name}={value.value}"
        case KeyFunction():
            return f"{name}={_print_function(value)}"
        case _:
            return f"{name}={value}"


_HEXADECIMAL = ("token", "sender_hmac", "hmac", "cksum")


def _print_function(function: KeyFunction) -> str:
    offset = f"+{function.offset}" if function.offset else ""
    return f"{function.function.value}({' '.join(function.variables)}){offset}"


def _print_key(key: KeyReference) -> str:
    return key.name if key.value is None else f"{key.name}={key.value:#x}"


def _print_flag_bits(flags: int | None, names: Mapping[str, int]) -> str | None:
    if flags is None:
        return None
    listed = [name for name, bit in names.items() if flags & bit]
    # Bits without a name can only be written as a number.
    if not listed or sum(names[name] for name in listed) != flags:
        return f"flags {flags:#x}"
    return f"flags[{', '.join(listed)}]"


def _print_checksum(checksum: int | ChecksumForm) -> str | None:
    if isinstance(checksum, ChecksumForm):
        return checksum.value or None
    return _assignment("cksum", checksum)


def _print_capable(option: MpCapableOption) -> str:
    keys = None
    if option.keys is not None:
        keys = f"key[{', '.join(_print_key(key) for key in option.keys)}]" if option.keys else "nokey"
    return _words(
        "mpcapable",
        None if option.version is None else f"v{option.version}",
        _print_flag_bits(option.flags, MP_CAPABLE_FLAGS),
        keys,
        None if option.data_length is None else f"mpcdatalen {option.data_length}",
        _print_checksum(option.checksum),
    )


def _print_join(option: MpJoinSynOption | MpJoinSynAckOption | MpJoinAckOption) -> str:
    if isinstance(option, MpJoinAckOption):
        return _words("mp_join_ack", _assignment("sender_hmac", option.hmac))
    head = _assignment("backup", option.backup), _assignment("address_id", option.address_id)
    nonce = _assignment("rand", option.nonce)
    if isinstance(option, MpJoinSynOption):
        return _words("mp_join_syn", *head, _assignment("token", option.token), nonce)
    return _words("mp_join_syn_ack", *head, _assignment("sender_hmac", option.hmac), nonce)


_WIDTHS = {None: "", False: "4", True: "8"}


def _print_data_sequence(prefix: str, sequence: DataSequence | Absent | None) -> str | None:
    if sequence is None:
        return None
    if sequence is Absent.ABSENT:
        return f"no{prefix}"
    name = prefix + _WIDTHS[sequence.is_64bit]
    return _assignment(name, sequence.value) or name


def _print_dss(option: DssOption) -> str:
    return _words(
        "dss",
        _print_data_sequence("dack", option.data_ack),
        _print_data_sequence("dsn", option.data_sequence),
        _assignment("ssn", option.subflow_sequence),
        _assignment("dll", option.data_length),
        _print_checksum(option.checksum),
        "fin" if option.fin else None,
    )


def _print_add_address(option: AddAddressOption) -> str:
    return _words(
        "add_address",
        _assignment("address_id", option.address_id),
        _print_address(option.address),
        _assignment("port", option.port),
        _assignment("hmac", option.hmac),
        "addr_echo" if option.is_echo else None,
    )


def _print_signal(option: ScriptOption) -> str:
    match option:
        case RemoveAddressOption(address_ids):
            return f"remove_address address_id=[{','.join(map(str, address_ids))}]"
        case MpPrioOption(backup, address_id):
            return _words("mp_prio", _assignment("backup", backup), _assignment("address_id", address_id))
        case MpFailOption(data_sequence):
            return _words("mp_fail", _assignment("dsn8", data_sequence))
        case MpFastcloseOption(key):
            return _words("mp_fastclose", None if key is None else _print_key(key))
        case MpResetOption(reason, flags):
            bits = _print_flag_bits(flags, MP_RESET_FLAGS)
            return _words("mp_reset", None if reason is None else str(reason), bits)
        case _:
            raise TypeError(f"{type(option).__name__} cannot be printed")
