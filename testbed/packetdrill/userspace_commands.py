"""A script's commands, carried out on the bundled stack: ``ip mptcp``, ``ip addr``, ``sysctl``, ``nstat``.

How they are written is in :mod:`testbed.packetdrill.command_lines`. Nothing is run by a shell.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping

from mptcp_stack.errors import ConfigurationError
from mptcp_stack.ip.interface import Interface, InterfaceAddress
from mptcp_stack.path_managers.table import Endpoint
from mptcp_stack.settings import apply_sysctl, read_sysctl
from mptcp_stack.stack import Stack
from mptcp_stack.wire.addresses import format_address, parse_address
from testbed.counters.nstat import GAUGES, format_columns, format_json, without_zeros
from testbed.packetdrill.command_lines import filtered, read_commands, with_variables

_CHANGED_FLAGS = frozenset({"backup", "nobackup", "fullmesh", "nofullmesh"})
_ENDPOINT_FLAGS = frozenset({"signal", "subflow", "backup", "fullmesh", "laminar"})


class Commands:
    def __init__(self, stack: Stack, interface: Interface, variables: Mapping[str, str]) -> None:
        """``variables`` are what ``$name`` stands for."""
        self._variables = variables
        self._stack = stack
        self._interface = interface
        self._counters_before: dict[str, int] = {}
        self._programs: Mapping[str, Callable[[list[str]], str]] = {
            "ip": self._ip,
            "sysctl": self._sysctl,
            "nstat": self._nstat,
            "true": lambda _words: "",
        }

    def run(self, text: str) -> str:
        """What the commands print. Raises ConfigurationError, at the first that fails."""
        return "".join(
            filtered(pipeline, self._programs[pipeline.words[0]](list(pipeline.words[1:])))
            for pipeline in read_commands(with_variables(text, self._variables))
        )

    # --- ip ---

    def _ip(self, words: list[str]) -> str:
        words = [word for word in words if word not in ("-4", "-6", "-n", "-batch")]
        match words:
            case ["mptcp", ("endpoint" | "endpoints"), *rest]:
                return self._endpoint(rest)
            case ["mptcp", ("limits" | "limit"), *rest]:
                return self._limits(rest)
            case ["addr" | "address" | "a", "add", *rest]:
                return self._add_address(rest)
            case ["addr" | "address" | "a", "del" | "delete", *rest]:
                return self._delete_address(rest)
            case ["link", "set", *_]:
                return self._set_link(words[2:])
        shown = " ".join(words[:3])
        raise ConfigurationError(
            f"ip {shown}: the bundled stack has ip mptcp endpoint, ip mptcp limits, ip addr add, ip addr del"
            " and ip link set dev … up|down"
        )

    def _endpoint(self, words: list[str]) -> str:
        manager = self._stack.path_manager
        match words:
            case ["add", address, *rest]:
                options, flags = _endpoint_options(rest)
                manager.add_endpoint(
                    parse_address(address),
                    flags=flags,
                    interface=options.get("dev"),
                    identifier=_optional_number(options.get("id"), "id"),
                    port=_optional_number(options.get("port"), "port"),
                )
            case ["del" | "delete", "id", identifier]:
                manager.delete_endpoint(_number(identifier, "id"))
            case ["del" | "delete", "id", identifier, address]:
                manager.delete_endpoint(_number(identifier, "id"), parse_address(address))
            case ["flush"]:
                manager.flush_endpoints()
            case ["change", "id", identifier, *flags]:
                self._change_endpoint(_number(identifier, "id"), flags)
            case ["change", address, *flags]:
                packed = parse_address(address)
                found = [each for each in manager.endpoints() if each.address == packed]
                if not found:
                    raise ConfigurationError(f"there is no endpoint {address}")
                self._change_endpoint(found[0].identifier, flags)
            case ["show", "id", identifier]:
                chosen = _number(identifier, "id")
                return "".join(
                    _endpoint_line(each) for each in manager.endpoints() if each.identifier == chosen
                )
            case [] | ["show"]:
                return "".join(map(_endpoint_line, manager.endpoints()))
            case _:
                raise ConfigurationError(
                    f"ip mptcp endpoint {' '.join(words)}: expected add ADDRESS [id N] [dev NAME] [signal]"
                    " [subflow] [backup], delete id N, change id N [no]backup [no]fullmesh, flush or show"
                )
        return ""

    def _change_endpoint(self, identifier: int, flags: list[str]) -> None:
        given = frozenset(flags)
        if not given or given - _CHANGED_FLAGS:
            raise ConfigurationError(
                f"ip mptcp endpoint change: expected [no]backup or [no]fullmesh, got {' '.join(flags)!r}"
            )
        self._stack.path_manager.set_flags(identifier, given - {"nobackup", "nofullmesh"})

    def _limits(self, words: list[str]) -> str:
        manager = self._stack.path_manager
        if words in ([], ["show"]):
            limits = manager.limits
            return f"add_addr_accepted {limits.add_addr_accepted} subflows {limits.subflows} \n"
        if words[0] != "set":
            raise ConfigurationError(f"ip mptcp limits {words[0]}: expected set or show")
        values = _pairs(words[1:], {"subflow", "subflows", "add_addr_accepted"})
        subflows = values.get("subflows", values.get("subflow"))
        accepted = values.get("add_addr_accepted")
        manager.set_limits(
            manager.limits.subflows if subflows is None else _number(subflows, "subflows"),
            manager.limits.add_addr_accepted if accepted is None else _number(accepted, "add_addr_accepted"),
        )
        return ""

    def _add_address(self, words: list[str]) -> str:
        address, prefix_length = _network(words)
        self._stack.ip.add_address(self._interface, InterfaceAddress(address, prefix_length))
        return ""

    def _delete_address(self, words: list[str]) -> str:
        self._stack.ip.remove_address(self._interface, _network(words)[0])
        return ""

    def _set_link(self, words: list[str]) -> str:
        rest = [word for word in words if word not in ("dev", self._interface.name)]
        match rest:
            case ["up" | "down"]:
                self._stack.ip.set_up(self._interface, rest[0] == "up")
            case ["mtu", mtu]:
                self._stack.ip.set_mtu(self._interface, _number(mtu, "mtu"))
            case _:
                raise ConfigurationError(f"ip link set {' '.join(words)}: expected up, down or mtu N")
        return ""

    # --- sysctl ---

    def _sysctl(self, words: list[str]) -> str:
        options = [word for word in words if word.startswith("-")]
        letters = set("".join(option.lstrip("-") for option in options))
        if unknown := letters - set("wqn"):
            raise ConfigurationError(f"sysctl -{''.join(sorted(unknown))}: expected options of -wqn")
        settings = self._stack.settings
        lines = []
        for assignment in (word for word in words if not word.startswith("-")):
            name, has_value, value = assignment.partition("=")
            name = name.strip().replace("/", ".")
            if has_value:
                settings = apply_sysctl(settings, name, value.strip())
            value = value.strip() if has_value else read_sysctl(settings, name)
            if not has_value or "q" not in letters:
                lines.append(f"{value}\n" if "n" in letters else f"{name} = {value}\n")
        self._stack.settings = self._stack.environment.settings = settings
        return "".join(lines)

    # --- nstat ---

    def _nstat(self, words: list[str]) -> str:
        """``nstat [-naszj] [PATTERN…]``: since the last nstat, or with ``-a`` since the start."""
        letters = set("".join(word[1:] for word in words if word.startswith("-") and word != "--json"))
        if unknown := letters - set("naszj"):
            raise ConfigurationError(f"nstat -{''.join(sorted(unknown))}: expected options of -naszj")
        patterns = [word for word in words if not word.startswith("-")]
        now = self._stack.counters.snapshot()
        since = {} if "a" in letters else self._counters_before
        if "s" not in letters:
            self._counters_before = now
        if "n" in letters and not patterns:
            return ""
        shown = {
            name: value if name in GAUGES else value - since.get(name, 0)
            for name, value in now.items()
            if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }
        if "z" not in letters:
            shown = without_zeros(shown)
        text = format_json(shown) if "j" in letters or "--json" in words else format_columns(shown)
        return text + "\n"


def _number(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{what}: expected a number, got {text!r}") from None


def _optional_number(text: str | None, what: str) -> int | None:
    return None if text is None else _number(text, what)


def _pairs(words: list[str], known: set[str]) -> dict[str, str]:
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or set(pairs) - known:
        raise ConfigurationError(
            f"{' '.join(words)}: expected pairs of {', '.join(sorted(known))} and a number"
        )
    return pairs


def _endpoint_options(words: list[str]) -> tuple[dict[str, str], frozenset[str]]:
    """``id N``, ``dev NAME``, ``port N`` and flags."""
    options: dict[str, str] = {}
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word in ("id", "dev", "port"):
            options[word] = next(rest, "")
        elif word in _ENDPOINT_FLAGS:
            flags.add(word)
        else:
            raise ConfigurationError(f"ip mptcp endpoint add: unexpected {word!r}")
    return options, frozenset(flags)


def _endpoint_line(endpoint: Endpoint) -> str:
    words = [format_address(endpoint.address)]
    if endpoint.port is not None:
        words.append(f"port {endpoint.port}")
    words += [f"id {endpoint.identifier}", *sorted(endpoint.flags)]
    if endpoint.is_implicit:
        words.append("implicit")
    if endpoint.interface is not None:
        words.append(f"dev {endpoint.interface}")
    return " ".join(words) + " \n"


def _network(words: list[str]) -> tuple[bytes, int]:
    text, _, prefix = words[0].partition("/") if words else ("", "", "")
    address = parse_address(text)
    return address, _number(prefix, "prefix length") if prefix else 8 * len(address)
