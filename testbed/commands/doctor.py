"""``testbed doctor``: what this machine can do, tried rather than guessed, and what that means."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict

from testbed.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit codes: 0 when labs can be built and the userspace stack can run, 5 otherwise."
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from testbed.backend.capabilities import PROBES, probe_all

    findings = probe_all(PROBES)
    can_run = all(finding.works for finding in findings if finding.is_essential)
    if arguments.json:
        document = {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "can_run": can_run,
            "findings": [asdict(finding) for finding in findings],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"Linux {platform.release()}, Python {platform.python_version()} ({sys.executable})")
        for finding in findings:
            mark = "yes" if finding.works else "NO" if finding.is_essential else "no"
            detail = finding.detail if finding.works else f"{finding.detail}: {finding.meaning}"
            print(f"  {mark:<4} {finding.name:<20} {detail}".rstrip())
        print("labs can be built here" if can_run else "labs cannot be built here: see the lines with NO")
    return ExitCode.PASS if can_run else ExitCode.UNAVAILABLE
