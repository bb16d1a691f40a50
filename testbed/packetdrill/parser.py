"""Text of a packet script → `syntax.Script`, or one error with everything that is wrong in it."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from importlib.resources import files
from pathlib import Path

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from testbed.packetdrill.code_blocks import CodeBlockError, compiled
from testbed.packetdrill.errors import PacketScriptError, ProblemCollector, ScriptText, quoted
from testbed.packetdrill.expression_reader import read_system_call
from testbed.packetdrill.packet_reader import read_packet
from testbed.packetdrill.script_options import NO_OPTIONS, ScriptOptions
from testbed.packetdrill.statements import Statement, StatementKind, split
from testbed.packetdrill.syntax import (
    Action,
    CodeBlock,
    Command,
    Event,
    EventTime,
    Packet,
    Script,
    SystemCall,
    TimeKind,
)
from testbed.packetdrill.tree_context import (
    RejectionError,
    TreeContext,
    subtrees,
    token_of,
    tokens_of,
)

MAXIMUM_SCRIPT_CHARACTERS = 1_000_000
MAXIMUM_TIME_SECONDS = 1_000_000

_OPTION = re.compile(r'--([A-Za-z_][\w-]*)(?:=("[^"\n]*"|\S*))?')

_TERMINAL_NAMES = {
    "ATOM": "a name or number",
    "STRING": "a string",
    "TIME": "a time",
    "NOTE": "a note in parentheses",
    "FLAGS": "TCP flags",
    "ICMP": "'icmp'",
    "COMMAND": "a command in backticks",
    "CODE": "code in %{ }%",
    "ADDR": "'addr'",
    "$END": "the end of the event",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LESSTHAN": "'<'",
    "MORETHAN": "'>'",
    "COMMA": "','",
    "COLON": "':'",
    "EQUAL": "'='",
    "PLUS": "'+'",
    "MINUS": "'-'",
    "STAR": "'*'",
    "TILDE": "'~'",
    "QMARK": "'?'",
    "VBAR": "'|'",
}


@cache
def _grammar() -> Lark:
    text = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        parser="lalr",
        lexer="contextual",
        start=["event", "packet"],
        propagate_positions=True,
        maybe_placeholders=False,
    )


def parse_script(text: str, path: str = "<script>", given: ScriptOptions = NO_OPTIONS) -> Script:
    """The script in ``text``; ``path`` is for messages. Raises PacketScriptError with all problems.

    ``given`` are options from elsewhere, which take precedence over those in the text.
    """
    source = ScriptText(path, text)
    if len(text) > MAXIMUM_SCRIPT_CHARACTERS:
        raise PacketScriptError(f"{path}: more than {MAXIMUM_SCRIPT_CHARACTERS} characters", path)
    problems = ProblemCollector(source)
    statements, header = split(text, problems)
    reader = _ScriptReader(problems, given)
    for statement in statements:
        reader.read(statement)
    problems.raise_if_any()
    options = reader.options
    return Script(
        path,
        options.values_with(given),
        options.defines_with(given),
        reader.init_command,
        tuple(reader.events),
        header,
    )


def load_script(path: Path, given: ScriptOptions = NO_OPTIONS) -> Script:
    """Reads the file; raises PacketScriptError, also where it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(4 * MAXIMUM_SCRIPT_CHARACTERS + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise PacketScriptError(f"{path}: {error.strerror}", str(path)) from None
    except UnicodeDecodeError as error:
        raise PacketScriptError(f"{path}: byte {error.start} is not UTF-8", str(path)) from None
    return parse_script(text, str(path), given)


def parse_packet(text: str) -> Packet:
    """One packet without a time, ``> S. 0:0(0) ack 1 <...>``; raises PacketScriptError."""
    problems = ProblemCollector(ScriptText("<packet>", text))
    context = TreeContext(problems, 0, {})
    tree = _parse(problems, Statement(StatementKind.EVENT, 0, text), "packet")
    if tree is not None:
        try:
            return read_packet(context, tree)
        except RejectionError:
            pass
    problems.raise_if_any()
    raise AssertionError("a packet was rejected without a problem")


class _ScriptReader:
    def __init__(self, problems: ProblemCollector, given: ScriptOptions) -> None:
        self._problems = problems
        self._given = given
        self.options = ScriptOptions()
        self.init_command: Command | None = None
        self.events: list[Event] = []

    def read(self, statement: Statement) -> None:
        match statement.kind:
            case StatementKind.OPTIONS:
                self._read_options(statement)
            case StatementKind.COMMAND:
                self._read_init_command(statement)
            case StatementKind.EVENT:
                event = self._read_event(statement)
                if event is not None:
                    self.events.append(event)

    def _complain(self, offset: int, message: str, hint: str = "") -> None:
        self._problems.add(self._problems.text.location(offset), message, hint)

    def _read_init_command(self, statement: Statement) -> None:
        location = self._problems.text.location(statement.start)
        if self.init_command is not None or self.events:
            self._problems.add(location, "a command needs a time, unless it is the first thing in a script")
        elif statement.text.find("`", 1) != len(statement.text) - 1:
            self._problems.add(location, "unexpected text after the command")
        else:
            self.init_command = Command(statement.text[1:-1].strip(), location=location)

    # --- options ---

    def _read_options(self, statement: Statement) -> None:
        if self.events or self.init_command is not None:
            self._complain(statement.start, "options stand before the first command and event")
            return
        position = 0
        while position < len(statement.text):
            match = _OPTION.match(statement.text, position)
            offset = statement.start + position
            if match is None:
                self._complain(offset, "expected an option, --name or --name=value")
                return
            complaint = self.options.set(match[1], match[2])
            if complaint is not None:
                self._complain(offset, *complaint)
            position = match.end()
            while position < len(statement.text) and statement.text[position].isspace():
                position += 1

    # --- events ---

    def _read_event(self, statement: Statement) -> Event | None:
        tree = _parse(self._problems, statement, "event")
        if tree is None:
            return None
        context = TreeContext(self._problems, statement.start, self.options.defines_with(self._given))
        time_tree, action_tree = subtrees(tree)
        time: EventTime | None = None
        action: Action | None = None
        try:
            time = _read_time(context, time_tree)
        except RejectionError:
            time = None
        try:
            action = _read_action(context, action_tree)
        except RejectionError:
            return None
        if time is None:
            return None
        if time.blocking_end_us is not None and not isinstance(action, SystemCall):
            context.reject(time_tree, "only a system call takes time: START...END")
            return None
        location = self._problems.text.location(statement.start)
        return Event(time, action, statement.text, location=location)


def _parse(problems: ProblemCollector, statement: Statement, start: str) -> Tree[Token] | None:
    """The parse tree of one event or packet; notes the problem and returns None if it has none."""
    try:
        return _grammar().parse(statement.text, start=start)
    except UnexpectedInput as error:
        offset, found, expected = _explain(error, statement.text)
        listed = ", ".join(sorted({_TERMINAL_NAMES.get(name, _anonymous(name)) for name in expected}))
        location = problems.text.location(statement.start + offset)
        problems.add(location, f"unexpected {found}", f"expected {listed}" if listed else "")
        return None


def _explain(error: UnexpectedInput, text: str) -> tuple[int, str, set[str]]:
    """Where the error is in the text, what stands there, and the terminals that might."""
    if isinstance(error, UnexpectedToken):
        token = error.token
        if token.type == "$END":
            return len(text), "end of the event", set(error.accepts or error.expected)
        return token.start_pos or 0, quoted(token), set(error.accepts or error.expected)
    offset = error.pos_in_stream or 0
    expected = set(error.allowed) if isinstance(error, UnexpectedCharacters) else set()
    return offset, quoted(text[offset]), expected


def _anonymous(terminal: str) -> str:
    return "'...'" if terminal.startswith("__ANON") else terminal.lower()


# --- times ---


def _read_time(context: TreeContext, tree: Tree[Token]) -> EventTime:
    location = context.location(tree)
    if tree.data == "any_time":
        return EventTime(TimeKind.ANY, location=location)
    tokens = tokens_of(tree)
    is_relative = tokens[0].startswith("+")
    start_us = _microseconds(context, tokens[0])
    kind = TimeKind.RELATIVE if is_relative else TimeKind.ABSOLUTE
    if tree.data == "moment":
        return EventTime(kind, start_us, start_us, location=location)
    end_us = _microseconds(context, tokens[1])
    ends_relative = tokens[1].startswith("+")
    if end_us < start_us:
        raise context.reject(tokens[1], f"{quoted(tokens[1])} is before {quoted(tokens[0])}")
    if tree.data == "blocking":
        if ends_relative and not is_relative:
            raise context.reject(tokens[1], "both times are counted from the same moment: no '+' here")
        return EventTime(kind, start_us, start_us, end_us, location=location)
    if ends_relative != is_relative:
        raise context.reject(tokens[1], "a range is relative on both sides or on none: '+0~+.1' or '0~.1'")
    kind = TimeKind.RELATIVE_RANGE if is_relative else TimeKind.ABSOLUTE_RANGE
    return EventTime(kind, start_us, end_us, location=location)


def _microseconds(context: TreeContext, token: Token) -> int:
    whole, _, fraction = token.removeprefix("+").partition(".")
    if len(whole) > 12 or int(whole or "0") > MAXIMUM_TIME_SECONDS:
        raise context.reject(token, f"a time of more than {MAXIMUM_TIME_SECONDS} s")
    if fraction[6:].strip("0"):
        raise context.reject(token, "times are whole microseconds: at most 6 digits after the point")
    return int(whole or "0") * 1_000_000 + int(fraction[:6].ljust(6, "0"))


# --- actions ---


def _read_action(context: TreeContext, tree: Tree[Token]) -> Action:
    match tree.data:
        case "system_call":
            return read_system_call(context, tree)
        case "packet":
            return read_packet(context, tree)
        case "command":
            return Command(token_of(tree)[1:-1].strip(), location=context.location(tree))
        case _:
            text = textwrap.dedent(token_of(tree)[2:-2].strip("\n")).strip()
            try:
                compiled(text)
            except CodeBlockError as error:
                raise context.reject(tree, str(error)) from None
            return CodeBlock(text, location=context.location(tree))
