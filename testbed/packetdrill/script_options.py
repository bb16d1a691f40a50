"""Options of scripts, ``--name=value``: written in a script, or on the command line for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.packetdrill.constants import SCRIPT_OPTION_BOUNDS, SCRIPT_OPTIONS
from testbed.packetdrill.errors import did_you_mean, quoted
from testbed.packetdrill.needs import complaint_about_needs
from testbed.packetdrill.tree_context import parse_integer

_DEFINE = re.compile(r"([A-Za-z_]\w{0,62})=(-?\w{1,40})")


@dataclass(slots=True)
class ScriptOptions:
    """``values`` has them as they were written; ``defines`` what ``--define=NAME=NUMBER`` set."""

    values: dict[str, str] = field(default_factory=dict)
    defines: dict[str, int] = field(default_factory=dict)

    def set(self, name: str, value: str | None) -> tuple[str, str] | None:
        """Takes over one option, or returns what is wrong with it and a hint; ``value`` None: none given."""
        form = SCRIPT_OPTIONS.get(name)
        text = (value or "").strip('"')
        if form is None:
            return f"unknown option {quoted('--' + name)}", did_you_mean(name, SCRIPT_OPTIONS)
        if name in self.values and name != "define":
            return f"--{name} is given twice", ""
        complaint = _complaint_about(form, value is not None, text) or _complaint_about_bounds(name, text)
        if complaint is not None:
            return f"--{name}: {complaint}", ""
        if name == "define":
            return self._define(text)
        self.values[name] = text
        return None

    def _define(self, text: str) -> tuple[str, str] | None:
        match = _DEFINE.fullmatch(text)
        number = parse_integer(match[2].removeprefix("-")) if match else None
        if match is None or number is None:
            return f"--define: expected NAME=NUMBER, got {quoted(text)}", ""
        self.defines[match[1]] = -number if match[2].startswith("-") else number
        return None

    def values_with(self, given: ScriptOptions) -> Mapping[str, str]:
        """The values, those of ``given`` before one's own; what is needed is needed by both."""
        both = {**self.values, **given.values}
        needs = [options.values["needs"] for options in (self, given) if "needs" in options.values]
        return {**both, "needs": ",".join(needs)} if needs else both

    def defines_with(self, given: ScriptOptions) -> Mapping[str, int]:
        return {**self.defines, **given.defines} if given.defines else self.defines


NO_OPTIONS = ScriptOptions()


def _complaint_about_bounds(name: str, value: str) -> str | None:
    """For a number that is one."""
    if name not in SCRIPT_OPTION_BOUNDS:
        return None
    least, most = SCRIPT_OPTION_BOUNDS[name]
    if least <= (parse_integer(value) or 0) <= most:
        return None
    return f"{quoted(value)} is not within {least} to {most}"


def _complaint_about(form: str, has_value: bool, value: str) -> str | None:
    """What is wrong with the value of an option of this form; None if nothing is."""
    if form == "flag":
        return "takes no value" if has_value else None
    if not value:
        return "lacks its value"
    if form == "integer" and parse_integer(value) is None:
        return f"expected a number, got {quoted(value)}"
    if form == "number" and not re.fullmatch(r"\d{1,12}(\.\d{1,12})?", value):
        return f"expected a number, got {quoted(value)}"
    if form == "needs":
        return complaint_about_needs(value)
    if "|" in form and value not in form.split("|"):
        return f"expected one of {', '.join(form.split('|'))}, got {quoted(value)}"
    return None
