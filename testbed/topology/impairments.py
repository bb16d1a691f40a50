"""The words of impairments, as tc-netem(8) has them: from text or mappings to an Impairment, and back.

Topology files and ``testbed link set`` speak them alike. A word's value is text in netem's order
(``delay: 10ms 2ms 25%``), or a mapping that names its parts (``delay: {time: 10ms, jitter: 2ms}``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mptcp_stack.device.link_model import DISTRIBUTIONS, FourStates, GilbertElliott, LinkSettings, Slot
from testbed.topology.model import Impairment
from testbed.topology.problems import did_you_mean, quoted
from testbed.topology.units import (
    DURATION_PATTERN,
    PERCENTAGE_PATTERN,
    RATE_PATTERN,
    SIZE_PATTERN,
    duration_text,
    parse_duration_us,
    parse_percentage,
    parse_rate_bit_s,
    parse_size_bytes,
    percentage_text,
    rate_text,
)

Fields = dict[str, Any]
"""Some fields of an Impairment with their values."""

MAXIMUM_NUMBER = 2**63 - 1
_QUEUES_PER_SECOND = 20
_SMALLEST_QUEUE_PACKETS = 20
_ETHERNET_HEADER_BYTES = 14


@dataclass(frozen=True, slots=True)
class _Part:
    """One value of a word: its name in mappings, how it is read, and the field that it becomes."""

    name: str
    parse: Callable[[object], object]
    field: str
    pattern: str
    """What its text looks like."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The values of a word in their order, the first one required; then those that text names too."""

    parts: tuple[_Part, ...]
    named: tuple[_Part, ...] = ()

    def read(self, word: str, value: object) -> Fields:
        if isinstance(value, Mapping):
            return self._from_mapping(word, value)
        return self._from_tokens(word, _tokens(word, value))

    def _from_mapping(self, word: str, value: Mapping[Any, object]) -> Fields:
        parts = {part.name: part for part in (*self.parts, *self.named)}
        fields: Fields = {}
        for name, given in value.items():
            if name not in parts:
                raise ValueError(f"unknown key {quoted(name)} of {word!r}; {did_you_mean(str(name), parts)}")
            fields[parts[name].field] = _parsed(parts[name], given, f"{word!r}, {name!r}: ")
        if self.parts[0].field not in fields:
            raise ValueError(f"{word!r} needs {self.parts[0].name!r}")
        return fields

    def _from_tokens(self, word: str, tokens: Sequence[object]) -> Fields:
        named = {part.name: part for part in self.named}
        fields: Fields = {}
        position = 0
        rest = iter(tokens)
        for token in rest:
            part = named.get(token) if isinstance(token, str) else None
            given = token if part is None else next(rest, None)
            if part is None:
                if position == len(self.parts):
                    raise ValueError(f"{word!r} has no place for {quoted(token)}; {self.usage(word)}")
                part = self.parts[position]
                position += 1
            if given is None:
                raise ValueError(f"{part.name!r} of {word!r} needs a value")
            if part.field in fields:
                raise ValueError(f"{part.name!r} of {word!r} is said twice")
            fields[part.field] = _parsed(part, given, "")
        if not position:
            raise ValueError(f"{word!r} needs a value; {self.usage(word)}")
        return fields

    @property
    def pattern(self) -> str:
        """What the text of all values looks like."""
        first, *others = (part.pattern for part in self.parts)
        optional = "".join(rf"(\s+{other}" for other in others) + ")?" * len(others)
        named = "|".join(rf"{part.name}\s+{part.pattern}" for part in self.named)
        return f"{first}{optional}" + (rf"(\s+({named}))*" if named else "")

    def usage(self, word: str) -> str:
        """What the word takes, as a manual page would say it."""
        first, *others = (part.name.upper().replace("_", "-") for part in self.parts)
        named = "".join(f" [{part.name} {part.name.upper()}]" for part in self.named)
        return f"it is '{word} {first}{''.join(f' [{other}' for other in others)}{']' * len(others)}{named}'"


def _parsed(part: _Part, value: object, where: str) -> object:
    try:
        return part.parse(value)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def _tokens(word: str, value: object) -> list[object]:
    if isinstance(value, str):
        return list(value.split())
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    raise ValueError(f"{word!r} is text or a mapping, not {quoted(value)}")


def _number(smallest: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{quoted(value)} is not a whole number")
        if value < smallest:
            raise ValueError(f"must be at least {smallest}, not {value}")
        if value > MAXIMUM_NUMBER:
            raise ValueError(f"must be at most {MAXIMUM_NUMBER}, not {value}")
        return value

    return parse


def _size(value: object) -> int:
    size_bytes = parse_size_bytes(value)
    if size_bytes < 1:
        raise ValueError("this size is at least 1B")
    return size_bytes


def _distribution(value: object) -> str:
    if value not in DISTRIBUTIONS:
        hint = did_you_mean(str(value), DISTRIBUTIONS)
        raise ValueError(f"{quoted(value)} is no distribution; {hint}")
    return str(value)


def _inner(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix("$")


_TIME = _inner(DURATION_PATTERN)
_SHARE = _inner(PERCENTAGE_PATTERN)
_SIZE = _inner(SIZE_PATTERN)
_WHOLE_NUMBER = r"[0-9]{1,19}"
_DIGITS = re.compile(r"-?[0-9]{1,60}", re.ASCII)
_CORRELATION = "correlation"
_GAP = _Part("gap", _number(1), "gap", _WHOLE_NUMBER)
_JITTER = _Part("jitter", parse_duration_us, "jitter_us", _TIME)
_DELAY_CORRELATION = _Part(_CORRELATION, parse_percentage, "delay_correlation", _SHARE)
_DISTRIBUTION = _Part("distribution", _distribution, "distribution", f"({'|'.join(DISTRIBUTIONS)})")
_LIMIT = {"packets": ("limit_packets", _number(1)), "bytes": ("limit_bytes", _size)}
_SLOT = _Form(
    (
        _Part("min", parse_duration_us, "shortest_us", _TIME),
        _Part("max", parse_duration_us, "longest_us", _TIME),
    ),
    (_Part("packets", _number(1), "packets", _WHOLE_NUMBER), _Part("bytes", _size, "bytes", _SIZE)),
)
_GILBERT_ELLIOTT = _Form(
    (
        _Part("p", parse_percentage, "p", _SHARE),
        _Part("r", parse_percentage, "r", _SHARE),
        _Part("1-h", parse_percentage, "loss_in_bad", _SHARE),
        _Part("1-k", parse_percentage, "loss_in_good", _SHARE),
    )
)
_FOUR_STATES = _Form(
    tuple(_Part(name, parse_percentage, name, _SHARE) for name in ("p13", "p31", "p32", "p23", "p14"))
)


def _share_form(word: str, *named: _Part) -> _Form:
    first = "random" if word == "loss" else "share"
    return _Form(
        (
            _Part(first, parse_percentage, word, _SHARE),
            _Part(_CORRELATION, parse_percentage, f"{word}_{_CORRELATION}", _SHARE),
        ),
        named,
    )


_FORMS: dict[str, _Form] = {
    "rate": _Form(
        (
            _Part("rate", parse_rate_bit_s, "rate_bit_s", _inner(RATE_PATTERN)),
            _Part("overhead", parse_size_bytes, "packet_overhead_bytes", _SIZE),
            _Part("cell", _size, "cell_bytes", _SIZE),
            _Part("cell_overhead", parse_size_bytes, "cell_overhead_bytes", _SIZE),
        )
    ),
    "delay": _Form(
        (_Part("time", parse_duration_us, "delay_us", _TIME), _JITTER, _DELAY_CORRELATION), (_DISTRIBUTION,)
    ),
    "jitter": _Form((_JITTER, _DELAY_CORRELATION)),
    "distribution": _Form((_DISTRIBUTION,)),
    "loss": _share_form("loss"),
    "duplicate": _share_form("duplicate"),
    "corrupt": _share_form("corrupt"),
    "reorder": _share_form("reorder", _GAP),
    "gap": _Form((_GAP,)),
    "slot": _SLOT,
    "seed": _Form((_Part("seed", _number(0), "seed", _WHOLE_NUMBER),)),
}
WORDS = (*_FORMS, "limit")
"""Every impairment that there is."""


def word_schema(word: str) -> dict[str, object]:
    """The JSON Schema of a word's value."""
    if word == "limit":
        pattern = rf"({_WHOLE_NUMBER}(\s+{_SIZE})?|{_SIZE}(\s+{_WHOLE_NUMBER})?)"
    elif word == "loss":
        models = rf"gemodel\s+{_GILBERT_ELLIOTT.pattern}|state\s+{_FOUR_STATES.pattern}"
        pattern = rf"((random\s+)?{_FORMS[word].pattern}|{models})"
    else:
        pattern = _FORMS[word].pattern
    forms: list[dict[str, object]] = [
        {"type": "string", "pattern": rf"^\s*{pattern}\s*$"},
        {"type": "object"},
    ]
    if word in {"gap", "limit", "seed"}:
        forms.insert(0, {"type": "integer", "minimum": 0 if word == "seed" else 1})
    return {"anyOf": forms}


def parse_word(word: str, value: object) -> Fields:
    """What one word says. Raises ValueError that says what is wrong and what was expected."""
    if word == "loss":
        return _loss(value)
    if word == "limit":
        return _limit(value)
    if word == "slot":
        return _slot(value)
    if word == "rate":
        return _rate(value)
    return _FORMS[word].read(word, value)


def _loss(value: object) -> Fields:
    """``1%``, ``random 1% 25%``, ``gemodel P R 1-H 1-K`` or ``state P13 P31 P32 P23 P14``."""
    models = {"gemodel": (_GILBERT_ELLIOTT, _gilbert_elliott), "state": (_FOUR_STATES, _four_states)}
    if isinstance(value, Mapping):
        chosen = [name for name in models if name in value]
        if chosen:
            if len(value) > 1:
                raise ValueError(
                    f"'loss' is one of random, gemodel and state, not {', '.join(map(str, value))}"
                )
            form, make = models[chosen[0]]
            return make(form.read(chosen[0], value[chosen[0]]))
        return _FORMS["loss"].read("loss", value)
    kind, *rest = _tokens("loss", value) or [None]
    if kind == "random":
        return _FORMS["loss"].read("loss", " ".join(map(str, rest)))
    if isinstance(kind, str) and kind in models:
        form, make = models[kind]
        return make(form.read(kind, " ".join(map(str, rest))))
    if isinstance(kind, str) and kind[:1].isalpha():
        hint = did_you_mean(kind, ("random", *models))
        raise ValueError(f"{quoted(kind)} is no kind of loss; {hint}")
    return _FORMS["loss"].read("loss", value)


def _gilbert_elliott(fields: Fields) -> Fields:
    """With netem's defaults: r = 1 - p, all lost in the bad state, nothing in the good one."""
    return {"loss_model": GilbertElliott(**({"r": 1.0 - fields["p"]} | fields))}


def _four_states(fields: Fields) -> Fields:
    """With netem's defaults: p31 = 1 - p13, the others as the model has them."""
    return {"loss_model": FourStates(**({"p31": 1.0 - fields["p13"]} | fields))}


def _limit(value: object) -> Fields:
    """Packets, bytes or both: ``200``, ``64kB``, ``200 64kB``."""
    if isinstance(value, Mapping):
        said = [(str(name), given) for name, given in value.items()]
    else:
        said = [("packets" if _is_number(token) else "bytes", token) for token in _tokens("limit", value)]
    fields: Fields = {}
    for name, given in said:
        field, parse = _LIMIT.get(name, ("", _size))
        if not field or field in fields:
            said = []
            break
        fields[field] = parse(given)
    if not said:
        raise ValueError("'limit' is a number of packets, bytes like '64kB', or one of each")
    return fields


def _is_number(token: object) -> bool:
    return isinstance(token, int) or (isinstance(token, str) and token.isascii() and token.isdigit())


def _slot(value: object) -> Fields:
    fields = _SLOT.read("slot", value)
    slot = Slot(**({"longest_us": fields["shortest_us"]} | fields))
    if not slot.shortest_us:
        raise ValueError("a slot lasts longer than nothing, like '5ms'")
    if slot.longest_us < slot.shortest_us:
        raise ValueError("the longest slot is shorter than the shortest; it is 'slot MIN [MAX]'")
    return {"slot": slot}


def _rate(value: object) -> Fields:
    fields = _FORMS["rate"].read("rate", value)
    if fields.get("cell_overhead_bytes", 0) < 0:
        raise ValueError("the overhead of a cell is not negative")
    return fields


def split_words(text: str) -> dict[str, str]:
    """``delay 10ms 2ms loss 1%`` → ``{"delay": "10ms 2ms", "loss": "1%"}``. Raises ValueError."""
    words: dict[str, list[str]] = {}
    current: list[str] | None = None
    for token in text.split():
        if token in WORDS:
            if token in words:
                raise ValueError(f"{token!r} is said twice")
            current = words[token] = []
        elif current is None:
            raise ValueError(f"{quoted(token)} is no impairment; {did_you_mean(token, WORDS)}")
        else:
            current.append(token)
    if not words:
        raise ValueError("no impairment is said, like 'delay 10ms loss 1%'")
    return {word: " ".join(tokens) for word, tokens in words.items()}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Words that fit the format one by one, but not each other. ``word`` is the one to complain about."""

    word: str
    message: str
    hint: str


def said_twice(said: Mapping[str, Fields]) -> Iterator[Contradiction]:
    """Values that two words give, as 'delay 10ms 2ms' and 'jitter 3ms' do."""
    first: dict[str, str] = {}
    for word, fields in said.items():
        for field in fields:
            if first.setdefault(field, word) != word:
                yield Contradiction(
                    word, f"{word!r} says again what {first[field]!r} says", "remove one of them"
                )
                break


def contradictions(impairment: Impairment) -> Iterator[Contradiction]:
    """What cannot be meant."""
    if impairment.jitter_us > impairment.delay_us:
        yield Contradiction(
            "jitter" if impairment.delay_us else "delay",
            f"'jitter' {duration_text(impairment.jitter_us)} is more than"
            f" 'delay' {duration_text(impairment.delay_us)}",
            "no packet arrives before it was sent: raise 'delay' or lower 'jitter'",
        )
    if impairment.distribution != "uniform" and not impairment.jitter_us:
        yield Contradiction("distribution", "'distribution' needs 'jitter'", "say how much the delay varies")
    if impairment.reorder and not impairment.delay_us:
        yield Contradiction(
            "reorder", "'reorder' needs 'delay'", "a packet overtakes others by going without their delay"
        )
    if impairment.gap != 1 and not impairment.reorder:
        yield Contradiction("gap", "'gap' needs 'reorder'", "it chooses which packets may be reordered")
    has_limit = impairment.limit_packets is not None or impairment.limit_bytes is not None
    if has_limit and impairment.rate_bit_s is None:
        yield Contradiction("limit", "'limit' needs 'rate'", "without a rate nothing waits in a queue")


def combine(said: Mapping[str, Fields], base: Impairment | None = None) -> Impairment:
    """The impairment that the words make, in addition to those of ``base``."""
    impairment = base if base is not None else Impairment()
    for word, fields in said.items():
        impairment = replace(impairment, **(_CLEARED.get(word, {}) | fields))
    return impairment


_CLEARED: dict[str, Fields] = {
    "rate": {"packet_overhead_bytes": 0, "cell_bytes": 0, "cell_overhead_bytes": 0},
    "loss": {"loss": 0.0, "loss_correlation": 0.0, "loss_model": None},
    "duplicate": {"duplicate_correlation": 0.0},
    "corrupt": {"corrupt_correlation": 0.0},
    "reorder": {"reorder_correlation": 0.0},
    "limit": {"limit_packets": None, "limit_bytes": None},
}
"""What a word takes back when it is said anew."""


def default_limit_bytes(rate_bit_s: int, mtu: int) -> int:
    """What may wait where no limit is said: 50 ms of the rate, and room for 20 packets at low rates."""
    queue_bytes = rate_bit_s // 8 // _QUEUES_PER_SECOND
    return max(queue_bytes, _SMALLEST_QUEUE_PACKETS * (mtu + _ETHERNET_HEADER_BYTES))


def link_settings(impairment: Impairment, mtu: int) -> LinkSettings:
    """What the link model is told; ``mtu`` is the link's."""
    limit_bytes = impairment.limit_bytes
    if impairment.rate_bit_s is not None and limit_bytes is None and impairment.limit_packets is None:
        limit_bytes = default_limit_bytes(impairment.rate_bit_s, mtu)
    return LinkSettings(
        delay_us=impairment.delay_us,
        rate_bit_s=impairment.rate_bit_s,
        packet_overhead_bytes=impairment.packet_overhead_bytes,
        cell_bytes=impairment.cell_bytes,
        cell_overhead_bytes=impairment.cell_overhead_bytes,
        queue_limit_packets=impairment.limit_packets,
        queue_limit_bytes=limit_bytes,
        jitter_us=impairment.jitter_us,
        delay_correlation=impairment.delay_correlation,
        distribution=impairment.distribution,
        loss=impairment.loss,
        loss_correlation=impairment.loss_correlation,
        loss_model=impairment.loss_model,
        duplicate=impairment.duplicate,
        duplicate_correlation=impairment.duplicate_correlation,
        corrupt=impairment.corrupt,
        corrupt_correlation=impairment.corrupt_correlation,
        reorder=impairment.reorder,
        reorder_correlation=impairment.reorder_correlation,
        gap=impairment.gap,
        slot=impairment.slot,
    )


def impairment_text(impairment: Impairment) -> str:
    """In netem's words, such that the words read again give the same; empty for none."""
    return " ".join(_texts(impairment))


def _texts(impairment: Impairment) -> Iterator[str]:
    if impairment.rate_bit_s is not None:
        yield f"rate {rate_text(impairment.rate_bit_s)}{_rate_details(impairment)}"
    if impairment.limit_packets is not None or impairment.limit_bytes is not None:
        yield f"limit{_limit_text(impairment)}"
    if impairment.delay_us or impairment.jitter_us:
        jitter = f" {duration_text(impairment.jitter_us)}" if impairment.jitter_us else ""
        correlation = _correlation(impairment.delay_correlation)
        yield f"delay {duration_text(impairment.delay_us)}{jitter}{correlation}"
    if impairment.distribution != "uniform":
        yield f"distribution {impairment.distribution}"
    yield from _loss_texts(impairment)
    for word in ("duplicate", "corrupt", "reorder"):
        if share := getattr(impairment, word):
            correlation = getattr(impairment, f"{word}_{_CORRELATION}")
            yield f"{word} {percentage_text(share)}{_correlation(correlation)}"
    if impairment.gap != 1:
        yield f"gap {impairment.gap}"
    if impairment.slot is not None:
        yield _slot_text(impairment.slot)
    if impairment.seed is not None:
        yield f"seed {impairment.seed}"


def _correlation(share: float) -> str:
    return f" {percentage_text(share)}" if share else ""


def _limit_text(impairment: Impairment) -> str:
    packets = f" {impairment.limit_packets}" if impairment.limit_packets is not None else ""
    octets = f" {impairment.limit_bytes}B" if impairment.limit_bytes is not None else ""
    return packets + octets


def _rate_details(impairment: Impairment) -> str:
    details = [impairment.packet_overhead_bytes, impairment.cell_bytes, impairment.cell_overhead_bytes]
    while details and not details[-1]:
        details = details[:-1]
    return "".join(f" {size}B" for size in details)


def _loss_texts(impairment: Impairment) -> Iterator[str]:
    """The random loss and a loss model exclude each other in this language."""
    model = impairment.loss_model
    if isinstance(model, GilbertElliott):
        values = (model.p, model.r, model.loss_in_bad, model.loss_in_good)
        yield "loss gemodel " + " ".join(map(percentage_text, values))
    elif model is not None:
        values_of_states = (model.p13, model.p31, model.p32, model.p23, model.p14)
        yield "loss state " + " ".join(map(percentage_text, values_of_states))
    elif impairment.loss:
        yield f"loss {percentage_text(impairment.loss)}{_correlation(impairment.loss_correlation)}"


def _slot_text(slot: Slot) -> str:
    longest = f" {duration_text(slot.longest_us)}" if slot.longest_us != slot.shortest_us else ""
    packets = f" packets {slot.packets}" if slot.packets is not None else ""
    octets = f" bytes {slot.bytes}B" if slot.bytes is not None else ""
    return f"slot {duration_text(slot.shortest_us)}{longest}{packets}{octets}"
