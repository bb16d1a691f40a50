"""Parse tree → packet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lark import Token, Tree

from testbed.packetdrill.constants import TCP_FLAGS, icmp_names
from testbed.packetdrill.errors import did_you_mean, quoted
from testbed.packetdrill.option_fields import UINT8, UINT16, UINT32, read_address_reference
from testbed.packetdrill.option_reader import read_options
from testbed.packetdrill.syntax import (
    AddressReference,
    Direction,
    Ecn,
    IcmpPart,
    IpPart,
    Packet,
    ScriptOption,
    SequenceRange,
    TcpPart,
)
from testbed.packetdrill.tree_context import (
    RejectionError,
    TreeContext,
    subtree,
    subtrees,
    token_of,
    tokens_of,
)

MAXIMUM_PAYLOAD_BYTES = 1 << 24
MAXIMUM_INCOMING_PAYLOAD_BYTES = 65535 - 40 - 60
"""What fits an IPv6 or an IPv4 packet with the longest headers."""
_ECN_NAMES = {ecn.value: ecn for ecn in Ecn}
_IP_FIELDS = ("tos", "ttl", "flowlabel")


def read_packet(context: TreeContext, tree: Tree[Token]) -> Packet:
    """Notes what is wrong in each part of the packet, then raises RejectionError if anything is."""
    first, *_, content_tree = subtrees(tree)
    direction = Direction.IN if first.data == "incoming" else Direction.OUT
    failed = False
    content: TcpPart | IcmpPart | None = None
    ip = IpPart()
    quoted_range: SequenceRange | None = None
    source: AddressReference | None = None
    destination: AddressReference | None = None
    for part in subtrees(tree):
        try:
            if part.data == "addresses":
                source, destination = (_read_address(context, address) for address in subtrees(part))
            elif part.data == "ip_part":
                ip = _read_ip_part(context, part, ip)
            elif part.data == "quoted_range":
                quoted_range = _read_range(context, next(subtrees(part)))
            elif part is content_tree:
                content = _read_content(context, part, direction, quoted_range)
        except RejectionError:
            failed = True
    if failed or content is None:
        raise RejectionError("packet")
    location = context.location(tree)
    return Packet(direction, content, ip, source, destination, location=location)


def _read_content(
    context: TreeContext, tree: Tree[Token], direction: Direction, quoted_range: SequenceRange | None
) -> TcpPart | IcmpPart:
    if tree.data == "icmp":
        return _read_icmp(context, tree, quoted_range)
    if quoted_range is not None:
        raise context.reject(tree, "a range in brackets is what an ICMP message quotes, not part of TCP")
    return _read_tcp(context, tree, direction)


def _read_address(context: TreeContext, tree: Tree[Token]) -> AddressReference:
    ports = tokens_of(tree)
    port = context.integer(ports[0], "port", UINT16, 1) if ports else None
    return read_address_reference(context, next(subtrees(tree)), port)


def _read_ip_part(context: TreeContext, tree: Tree[Token], ip: IpPart) -> IpPart:
    for item in subtrees(tree):
        name, *values = tokens_of(item)
        if name in _ECN_NAMES:
            if values:
                raise context.reject(values[0], f"{name} takes no value")
            ip = replace(ip, ecn=_ECN_NAMES[name])
            continue
        if name not in _IP_FIELDS:
            hint = did_you_mean(name, (*_ECN_NAMES, *_IP_FIELDS))
            raise context.reject(name, f"unknown IP field {quoted(name)}", hint)
        if not values:
            raise context.reject(name, f"{name} lacks its value")
        if name == "tos":
            ip = replace(ip, traffic_class=context.integer(values[0], "tos", UINT8))
        elif name == "ttl":
            ip = replace(ip, hop_limit=context.integer(values[0], "ttl", UINT8))
        else:
            ip = replace(ip, flow_label=context.integer(values[0], "flowlabel", 0xFFFFF))
    return replace(ip, location=context.location(tree))


def _read_range(context: TreeContext, tree: Tree[Token]) -> SequenceRange:
    start_token, end_token, length_token = tokens_of(tree)
    start = context.integer(start_token, "sequence number", UINT32)
    end = context.integer(end_token, "end of the range", UINT32 + MAXIMUM_PAYLOAD_BYTES)
    length = context.integer(length_token, "length", MAXIMUM_PAYLOAD_BYTES)
    if (start + length) & UINT32 != end & UINT32:
        raise context.reject(
            length_token, f"the range {start}:{end} does not have {length} bytes", f"write ({end - start})"
        )
    return SequenceRange(start, length, location=context.location(tree))


def read_flags(context: TreeContext, token: Token) -> int:
    """The bits of ``S.``; ``-`` is none. Raises RejectionError."""
    if token == "-":
        return 0
    bits = 0
    for letter in token:
        bit = TCP_FLAGS.get(letter)
        if bit is None:
            hint = (
                did_you_mean(letter, TCP_FLAGS)
                if letter.upper() in TCP_FLAGS
                else "known: S F R P . U E C W -"
            )
            raise context.reject(token, f"unknown TCP flag {quoted(letter)}", hint)
        if bits & bit:
            raise context.reject(token, f"TCP flag {quoted(letter)} is given twice")
        bits |= bit
    return bits


def _read_tcp(context: TreeContext, tree: Tree[Token], direction: Direction) -> TcpPart:
    failed = False
    flags = 0
    try:
        flags = read_flags(context, token_of(tree))
    except RejectionError:
        failed = True
    numbers: dict[str, int] = {}
    sequence: SequenceRange | None = None
    options: tuple[ScriptOption, ...] | None = ()
    for part in subtrees(tree):
        try:
            if part.data == "range":
                sequence = _read_range(context, part)
                _check_length(context, part, sequence, direction)
            elif part.data == "tcp_field":
                _read_tcp_field(context, part, numbers)
            elif part.data == "option_list":
                options = read_options(context, part, direction)
        except RejectionError:
            failed = True
    if failed or sequence is None:
        raise RejectionError("tcp")
    return TcpPart(
        flags,
        sequence,
        numbers.get("ack"),
        numbers.get("win"),
        numbers.get("urg"),
        options,
        location=context.location(tree),
    )


def _check_length(
    context: TreeContext, part: Tree[Token], sequence: SequenceRange, direction: Direction
) -> None:
    if direction is Direction.IN and sequence.length > MAXIMUM_INCOMING_PAYLOAD_BYTES:
        raise context.reject(
            part, f"no packet holds more than {MAXIMUM_INCOMING_PAYLOAD_BYTES} bytes of data"
        )


_TCP_FIELDS = {"ack": UINT32, "win": UINT16, "urg": UINT16}


def _read_tcp_field(context: TreeContext, tree: Tree[Token], numbers: dict[str, int]) -> None:
    name, value = tokens_of(tree)
    if name not in _TCP_FIELDS:
        hint = did_you_mean(name, _TCP_FIELDS)
        raise context.reject(name, f"unknown TCP field {quoted(name)}", hint)
    if name in numbers:
        raise context.reject(name, f"{name} is given twice")
    numbers[str(name)] = context.integer(value, str(name), _TCP_FIELDS[name])


def _read_icmp(context: TreeContext, tree: Tree[Token], quoted_range: SequenceRange | None) -> IcmpPart:
    protocol, type_name, *words = tokens_of(tree)
    trailing = subtree(tree, "range")
    if trailing is not None:
        if quoted_range is not None:
            raise context.reject(trailing, "the quoted range is given twice")
        quoted_range = _read_range(context, trailing)
    is_icmpv6 = protocol != "icmp"
    types, codes = icmp_names(is_icmpv6, type_name)
    if not _is_known(type_name, types):
        raise context.reject(
            type_name, f"unknown type of {protocol}: {quoted(type_name)}", did_you_mean(type_name, types)
        )
    code_name = None
    if words and words[0] != "mtu":
        code = words.pop(0)
        if not _is_known(code, codes):
            hint = did_you_mean(code, codes) if codes else f"{type_name} has no named codes"
            raise context.reject(code, f"unknown code of {type_name}: {quoted(code)}", hint)
        code_name = str(code)
    mtu = None
    if words:
        if words[0] != "mtu" or len(words) != 2:
            raise context.reject(words[0], "expected 'mtu N' or the end of the packet")
        mtu = context.integer(words[1], "mtu", UINT32)
    location = context.location(tree)
    return IcmpPart(is_icmpv6, str(type_name), code_name, mtu, quoted_range, location=location)


def _is_known(token: Token, names: Mapping[str, int]) -> bool:
    if token.isdecimal():
        return len(token) <= 3 and int(token) <= UINT8
    return token in names
