"""``testbed list``: the labs of this user."""

from __future__ import annotations

import argparse
import json
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.ownership import read_labs

    labs = read_labs()
    if arguments.json:
        rows = [
            {
                "name": lab.name,
                "state": lab.state,
                "fault": lab.fault(),
                "topology": lab.topology,
                "nodes": list(lab.namespaces),
                "persistent": lab.persistent,
                "rootless": lab.rootless,
                "created_at": lab.created_at,
                "directory": str(lab.directory),
            }
            for lab in labs
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not labs:
        if not arguments.quiet:
            print("no labs; 'testbed up TOPOLOGY' builds one")
        return 0
    width = max(len("LAB"), *(len(lab.name) for lab in labs))
    print(f"{'LAB':<{width}}  {'STATE':<8}  {'NODES':>5}  {'AGE':>6}  TOPOLOGY")
    for lab in labs:
        age = _age(time.time() - lab.created_at)
        fault = lab.fault()
        note = f"  ({fault}; 'testbed clean' removes it)" if fault is not None else ""
        print(
            f"{lab.name:<{width}}  {lab.state:<8}  {len(lab.namespaces):>5}  {age:>6}  {lab.topology}{note}"
        )
    return 0


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
