"""``testbed packetdrill``: play packet scripts against the bundled stack and the kernel's."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from testbed.errors import CapabilityError
from testbed.packetdrill.constants import KNOWN_NEEDS, SCRIPT_OPTIONS, SCRIPT_OPTIONS_WITHOUT_EFFECT

EPILOG = """\
A script is code: what stands in its %{ }% is run as Python, and on the kernel its commands by a shell.
docs/packet-scripts.md describes the language.

exit codes: 0 all passed (skips allowed), 1 a failure, 2 usage or a script with errors, 4 all skipped,
130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER", help="scripts, or folders")
    parser.add_argument(
        "--stack", default="userspace", metavar="NAME", help="userspace, kernel or both (default: userspace)"
    )
    parser.add_argument(
        "--ip",
        default="4,6,4-mapped",
        metavar="LIST",
        help="IPv4, IPv6, IPv4 over IPv6 sockets (default: 4,6,4-mapped)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="scripts at once (default: one a processor, on the kernel three)",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="of a script (default: 60)"
    )
    parser.add_argument(
        "--tolerance-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="stretch the scripts' tolerances on a slow machine (default: 1)",
    )
    parser.add_argument("--trace", action="store_true", help="print every packet and call in the language")
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="write the packets of one run as pcapng")
    parser.add_argument("--tap", action="store_true", help="write TAP 13 to standard output")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit XML report")
    _add_script_options(parser)


def _add_script_options(parser: argparse.ArgumentParser) -> None:
    """The options of the language, for all scripts."""
    group = parser.add_argument_group(
        "options of scripts", "For all scripts of the run; they take precedence over what stands in one."
    )
    for name, form in SCRIPT_OPTIONS.items():
        group.add_argument(
            f"--{name}",
            dest="script_options",
            action=_ScriptOption,
            nargs=0 if form == "flag" else None,
            metavar=_METAVARS.get(form, "TEXT"),
            default=[],
            help=argparse.SUPPRESS if name in SCRIPT_OPTIONS_WITHOUT_EFFECT else _HELP.get(name),
        )


_METAVARS = {"integer": "N", "needs": "LIST", "ipv4|ipv6|ipv4-mapped-ipv6": "VERSION"}
_HELP = {
    "tolerance_usecs": "how far an event may be off in real time",
    "needs": f"skip on machines that lack one of {KNOWN_NEEDS}",
    "define": "NAME=NUMBER, a constant",
    "strict_segments": "compare packet by packet instead of ranges of bytes",
}


class _ScriptOption(argparse.Action):
    """Adds the option's name and value to the others."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        value = values if isinstance(values, str) else None
        name = self.option_strings[0].removeprefix("--")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (name, value)])


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit code; raises TestbedError."""
    # These take longer to import than ``--help`` may take.
    from testbed.packetdrill.session import SessionOptions, run_session

    if arguments.stack in ("kernel", "both"):
        from testbed.backend.privileges import ensure_privileges

        # Without them every run on the kernel is skipped, with the reason.
        with suppress(CapabilityError):
            ensure_privileges()

    options = SessionOptions(
        paths=tuple(arguments.paths),
        stack=arguments.stack,
        ip=arguments.ip,
        jobs=arguments.jobs,
        timeout_s=arguments.timeout,
        tolerance_factor=arguments.tolerance_factor,
        tap=arguments.tap,
        junit=arguments.junit,
        trace=arguments.trace,
        pcap=arguments.pcap,
        verbosity=arguments.verbose - arguments.quiet,
        command_line=tuple(sys.argv[1:]),
        script_options=tuple(arguments.script_options),
    )
    return run_session(options, sys.stdout, sys.stderr)
