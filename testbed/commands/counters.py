"""``testbed counters``: a host's counters in nstat's columns, whichever stack it uses."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from testbed.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "MPTcpExt, TcpExt, Tcp and Ip counters have the kernel's names on both kinds of host; StackDrop"
        " counters say why the bundled stack dropped a packet."
    )
    parser.add_argument("host", metavar="HOST", help="LAB/HOST, or HOST of the only lab that is up")
    parser.add_argument("--lab", metavar="NAME", help="the lab, where HOST does not say it")
    parser.add_argument("--all", action="store_true", help="print counters that are zero as well")
    parser.add_argument("--json", action="store_true", help='print {"kernel": {NAME: VALUE}} as nstat does')


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.ownership import read_labs
    from testbed.counters.nstat import format_columns, format_json, without_zeros

    lab_name, host_name = split_host(arguments.host, arguments.lab)
    if lab_name is None:
        lab_name = only_lab([lab.name for lab in read_labs() if lab.fault() is None], host_name)
    with NamespaceBackend().open_lab(lab_name) as lab:
        counters = lab.host(host_name).counters()
    if not arguments.all:
        counters = without_zeros(counters)
    print(format_json(counters) if arguments.json else format_columns(counters))
    return 0


def split_host(text: str, lab_option: str | None) -> tuple[str | None, str]:
    """("lab", "host") of "lab/host" or of "host" with ``--lab``. Raises UsageError."""
    lab_name, slash, host_name = text.rpartition("/")
    if slash and lab_option is not None and lab_name != lab_option:
        raise UsageError(f"HOST names lab '{lab_name}', --lab names '{lab_option}'")
    if not host_name or (slash and not lab_name):
        raise UsageError(f"'{text}' is neither HOST nor LAB/HOST")
    return lab_name or lab_option, host_name


def only_lab(names: Sequence[str], host_name: str) -> str:
    """The lab that is meant when none is named. Raises UsageError unless exactly one is up."""
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("no lab is up; 'testbed up TOPOLOGY' builds one")
    raise UsageError(f"several labs are up: name one, as in '{names[0]}/{host_name}' ({', '.join(names)})")
