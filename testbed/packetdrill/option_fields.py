"""The fields of one TCP option as a script writes them, sorted by how they are written, and single values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from lark import Token, Tree

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.wire.addresses import parse_address
from testbed.packetdrill.errors import did_you_mean, quoted
from testbed.packetdrill.expression_reader import unescape
from testbed.packetdrill.syntax import AddressReference, Computed, KeyFunction, KeyReference, Truncation
from testbed.packetdrill.tree_context import (
    TreeContext,
    subtree,
    subtrees,
    token_of,
    tokens_of,
)

UINT8, UINT16, UINT32, UINT64 = 0xFF, 0xFFFF, (1 << 32) - 1, (1 << 64) - 1
_FUNCTIONS = {function.value: function for function in Truncation}


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Which fields an option may have, by how they are written."""

    words: Collection[str] = ()
    """``nokey``"""
    values: Collection[str] = ()
    """``token=5`` or ``token 5``"""
    optional_values: Collection[str] = ()
    """``dack8`` or ``dack8=5``"""
    listings: Collection[str] = ()
    """``flags[flag_a]``"""
    takes_positional: bool = False
    takes_pairs: bool = False

    def all_names(self) -> list[str]:
        return [*self.words, *self.values, *self.optional_values, *self.listings]


@dataclass(slots=True)
class OptionFields:
    """What was found; trees keep their places for complaints about values."""

    words: dict[str, Token] = field(default_factory=dict)
    values: dict[str, Tree[Token] | Token] = field(default_factory=dict)
    listings: dict[str, Tree[Token]] = field(default_factory=dict)
    positional: list[Tree[Token]] = field(default_factory=list)
    pairs: list[Tree[Token]] = field(default_factory=list)


class OptionFieldsReader:
    """Reads the items after an option's name; every method raises RejectionError for what makes no sense."""

    def __init__(self, context: TreeContext, option: Tree[Token]) -> None:
        self.context = context
        self.name = token_of(option)
        self._items = list(subtrees(option))

    def read(self, names: FieldNames) -> OptionFields:
        fields = OptionFields()
        seen: set[str] = set()
        items = iter(self._items)
        for item in items:
            if item.data == "pair" and names.takes_pairs:
                fields.pairs.append(item)
                continue
            if item.data == "ellipsis" and names.takes_positional:
                fields.positional.append(item)
                continue
            if item.data in ("pair", "ellipsis"):
                raise self.context.reject(item, f"{self.name}: unexpected field")
            token = token_of(item)
            if token in seen:
                raise self.context.reject(token, f"{self.name}: {quoted(token)} is given twice")
            if token in names.all_names():
                seen.add(str(token))
            if item.data == "word" and token in names.values:
                following = next(items, None)
                if following is None or following.data != "word":
                    raise self.context.reject(token, f"{self.name}: {token} lacks its value")
                fields.values[str(token)] = token_of(following)
                continue
            self._sort(item, token, names, fields)
        return fields

    def _sort(self, item: Tree[Token], token: Token, names: FieldNames, fields: OptionFields) -> None:
        if item.data == "word" and (token in names.words or token in names.optional_values):
            fields.words[str(token)] = token
        elif item.data == "assignment" and (token in names.values or token in names.optional_values):
            fields.values[str(token)] = next(subtrees(item))
        elif item.data == "listing" and token in names.listings:
            fields.listings[str(token)] = item
        elif item.data == "word" and names.takes_positional:
            fields.positional.append(item)
        elif token in names.all_names():
            raise self.context.reject(
                token, f"{self.name}: {token} is not written like this", _form(token, names)
            )
        else:
            hint = did_you_mean(token, names.all_names()) if names.all_names() else ""
            raise self.context.reject(token, f"{self.name} has no field {quoted(token)}", hint)

    def raw_items(self) -> list[Tree[Token]]:
        return self._items

    # --- values ---

    def number(self, fields: OptionFields, name: str, maximum: int) -> int | None:
        """The number given for ``name``; None if there is none."""
        value = fields.values.get(name)
        if value is None:
            return None
        return self.context.integer(self.plain(value, name), f"{self.name} {name}", maximum)

    def plain(self, value: Tree[Token] | Token, name: str) -> Token:
        """The one word that ``value`` is."""
        if isinstance(value, Token):
            return value
        term = next(subtrees(value))
        if term.data != "word" or tokens_of(value):
            raise self.context.reject(value, f"{self.name} {name}: expected a number")
        return token_of(term)

    def switch(self, fields: OptionFields, name: str) -> bool | None:
        number = self.number(fields, name, 1)
        return None if number is None else bool(number)

    def number_or_auto(self, fields: OptionFields, name: str, maximum: int) -> int | Computed | None:
        value = fields.values.get(name)
        if value is not None and self.plain(value, name) == Computed.AUTO.value:
            return Computed.AUTO
        return self.number(fields, name, maximum)

    def key_value(
        self, fields: OptionFields, name: str, maximum: int, functions: Collection[Truncation]
    ) -> int | KeyFunction | Computed | None:
        """A number, ``auto`` or one of ``functions`` over keys."""
        value = fields.values.get(name)
        if isinstance(value, Tree):
            term = next(subtrees(value))
            if term.data == "function":
                return self._key_function(value, term, name, functions)
        return self.number_or_auto(fields, name, maximum)

    def _key_function(
        self, value: Tree[Token], term: Tree[Token], name: str, functions: Collection[Truncation]
    ) -> KeyFunction:
        called = token_of(term)
        function = _FUNCTIONS.get(called)
        if function is None or function not in functions:
            hint = did_you_mean(called, [known.value for known in functions])
            raise self.context.reject(called, f"{self.name} {name} cannot be {quoted(called)}", hint)
        variables = tuple(self.variable(token_of(argument)) for argument in subtrees(term))
        wanted = 2 if function in (Truncation.LEFT_64, Truncation.FULL_160) else 1
        if len(variables) != wanted:
            raise self.context.reject(called, f"{called} takes {wanted} key(s), got {len(variables)}")
        offsets = tokens_of(value)
        offset = self.context.integer(offsets[0], f"{self.name} {name}", UINT64) if offsets else 0
        return KeyFunction(function, variables, offset, location=self.context.location(term))

    def variable(self, token: Token) -> str:
        if not token.isidentifier():
            raise self.context.reject(token, f"{self.name}: {quoted(token)} is not the name of a variable")
        return str(token)

    def flags(self, fields: OptionFields, known: dict[str, int]) -> int | None:
        """``flags[flag_a, …]`` or ``flags 0xNN``; None if neither is given."""
        listing = fields.listings.get("flags")
        if listing is None:
            return self.number(fields, "flags", UINT8)
        bits = 0
        for entry in subtrees(listing, "entry"):
            token = token_of(entry)
            if token not in known:
                raise self.context.reject(token, f"unknown flag {quoted(token)}", did_you_mean(token, known))
            bits |= known[token]
        return bits

    def keys(self, listing: Tree[Token]) -> tuple[KeyReference, ...]:
        """``key[x]``, ``key[x, y=5]``."""
        keys = tuple(self._key(entry) for entry in subtrees(listing, "entry"))
        if not 1 <= len(keys) <= 2:
            raise self.context.reject(listing, f"{self.name}: one key or two, got {len(keys)}")
        return keys

    def _key(self, entry: Tree[Token]) -> KeyReference:
        value = subtree(entry, "value")
        return self.key_reference(token_of(entry), value)

    def key_reference(self, token: Token, value: Tree[Token] | None) -> KeyReference:
        number = None
        if value is not None:
            number = self.context.integer(self.plain(value, str(token)), f"key {token}", UINT64)
        return KeyReference(self.variable(token), number, location=self.context.location(token))

    def numbers(self, fields: OptionFields, name: str, maximum: int) -> tuple[int, ...]:
        """``name=[1,2]`` or ``name=1``."""
        value = fields.values.get(name)
        if isinstance(value, Tree):
            term = next(subtrees(value))
            if term.data == "numbers" and not tokens_of(value):
                return tuple(
                    self.context.integer(token, f"{self.name} {name}", maximum) for token in tokens_of(term)
                )
        single = self.number(fields, name, maximum)
        return () if single is None else (single,)


def _form(name: str, names: FieldNames) -> str:
    if name in names.listings:
        return f"write {name}[…]"
    if name in names.words:
        return f"write {name} alone"
    return f"write {name}=…"


def read_address_reference(
    context: TreeContext, entry: Tree[Token], port: int | None = None
) -> AddressReference:
    """``name`` or ``name=inet_addr("…")`` between the brackets of ``addr[…]``; raises RejectionError."""
    name = token_of(entry)
    if not name.isidentifier():
        raise context.reject(name, f"{quoted(name)} is not the name of a variable")
    value = subtree(entry, "value")
    address = None if value is None else _literal_address(context, value)
    return AddressReference(str(name), address, port, location=context.location(entry))


def _literal_address(context: TreeContext, value: Tree[Token]) -> bytes:
    term = next(subtrees(value))
    arguments = list(subtrees(term)) if term.data == "function" else [term]
    if term.data == "function" and token_of(term) not in ("inet_addr", "inet_pton", "inet6_addr"):
        hint = did_you_mean(token_of(term), ("inet_addr", "inet6_addr"))
        raise context.reject(term, f"{quoted(token_of(term))} does not give an address", hint)
    if arguments[-1].data != "string" or tokens_of(value):
        raise context.reject(term, 'expected an address, as in inet_addr("10.0.0.1")')
    text = unescape(token_of(arguments[-1])).decode("utf-8", "replace")
    try:
        return parse_address(text)
    except ConfigurationError as error:
        raise context.reject(arguments[-1], str(error)) from None


def hexadecimal(context: TreeContext, item: Tree[Token], what: str, maximum_bytes: int) -> bytes:
    """``0a1b…``, with or without 0x, as bytes; raises RejectionError."""
    token = token_of(item)
    digits = token[2:] if token[:2] in ("0x", "0X") else str(token)
    if len(digits) % 2 or len(digits) > 2 * maximum_bytes or "_" in digits:
        raise context.reject(token, f"{what}: expected up to {maximum_bytes} bytes, two digits each")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise context.reject(token, f"{what}: {quoted(token)} is not hexadecimal") from None
