"""The command line: quick to answer, and every failure ends in one clear message and the right code."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import cli
from testbed.backend.runtime import RUNTIME_VARIABLE
from testbed.bench.topology import Sample, Summary, ratios_to_mininet, summarise
from testbed.cli import COMMANDS, Command
from testbed.commands.up import parse_variables
from testbed.errors import CapabilityError, ExitCode, LabError, UsageError

HEAVY = ("pyroute2", "pydantic", "yaml", "jinja2", "mptcp_stack", "asyncio", "testbed.topology.model")
TOPOLOGY = """\
version: 1
name: small-lab
nodes:
  a: {kind: host, stack: tcp}
  b: {kind: host, stack: tcp}
links:
  - endpoints: [a:eth0, b:eth0]
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mt-test-", dir="/tmp") as directory:
        monkeypatch.setenv(RUNTIME_VARIABLE, directory)
        yield Path(directory)


@pytest.fixture(autouse=True)
def interruption_handlers() -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell starts what is to run in the background without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def topology_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.topo.yaml"
    path.write_text(TOPOLOGY)
    return path


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException) -> None:
    """Put a command in the place of ``list`` that ends like this."""

    def run(_arguments: argparse.Namespace) -> int:
        if isinstance(outcome, signal.Signals):
            signal.raise_signal(outcome)
        if isinstance(outcome, int):
            return outcome
        raise outcome

    monkeypatch.setattr(cli, "load_command", lambda _name: Command(lambda _parser: None, run))


def test_help_names_every_command_and_the_exit_codes() -> None:
    shown = program("--help").stdout
    assert all(re.search(rf"^    {name}\s+{re.escape(line)}", shown, re.M) for name, line in COMMANDS.items())
    assert "5 something is missing" in shown


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom testbed.cli import run\n"
        "try:\n    run(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in sys.modules if name.startswith({HEAVY!r})], file=sys.stderr)"
    )
    for arguments in (["--help"], ["exec", "--help"], ["up", "--help"], ["selftest", "--help"]):
        shown = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert shown.stderr == "[]\n", arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    shown = program(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"usage: testbed {name}" in shown.stdout
    assert "%%" not in shown.stdout


def test_a_full_disk_is_no_internal_error() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "testbed", "plan", "one-path"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (ExitCode.FAIL, "testbed: No space left on device\n")


def test_standard_streams_may_be_closed() -> None:
    shell = f"{sys.executable} -m testbed {{}} <&- >&- 2>&-; exit $?"
    for command, code in (("plan one-path", ExitCode.PASS), ("plan no-path", ExitCode.USAGE)):
        assert subprocess.run(["sh", "-c", shell.format(command)], check=False).returncode == code


def test_examples_of_link_set_can_be_copied() -> None:
    assert (
        "\n  testbed link set LAB client:eth0 'loss=gemodel 1% 10%' --sent\n"
        in program("link", "set", "--help").stdout
    )


def test_a_command_that_is_misspelt_is_named() -> None:
    ended = program("-q", "calibrat")
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr == "testbed: no command is called 'calibrat'; did you mean 'calibrate'?\n"


def test_the_version_is_the_distributions() -> None:
    assert re.fullmatch(r"testbed \d+\.\d+\.\d+\S*\n", program("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [[], ["nosuch"], ["up"], ["up", "x", "--nosuch"], ["bench", "nosuch"], ["exec", "lab", "node"]],
)
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    ended = program(*arguments)
    assert ended.returncode == ExitCode.USAGE
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (0, 0, ""),
        (ExitCode.SKIP, 4, ""),
        (UsageError("no such thing"), 2, "testbed: no such thing\n"),
        (LabError("it broke"), 1, "testbed: it broke\n"),
        (CapabilityError("no veth"), 5, "testbed: no veth\n"),
        (signal.SIGINT, 130, "testbed: interrupted\n"),
        (signal.SIGTERM, 143, "testbed: terminated\n"),
        (
            ZeroDivisionError("by zero"),
            70,
            """\
testbed: internal error: ZeroDivisionError: by zero
testbed: run with --debug for the traceback
""",
        ),
    ],
)
def test_every_end_has_its_code_and_one_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: int | BaseException,
    code: int,
    message: str,
) -> None:
    pretend(monkeypatch, outcome)
    assert cli.run(["list"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_turned_into_its_own_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def command(_arguments: argparse.Namespace) -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise ValueError("could not serialize: KeyboardInterrupt") from error
        return 0

    monkeypatch.setattr(cli, "load_command", lambda _name: Command(lambda _parser: None, command))
    assert cli.run(["list"]) == 128 + number
    assert "internal error" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--debug", "list"], ["list", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    pretend(monkeypatch, ZeroDivisionError("by zero"))
    with pytest.raises(ZeroDivisionError):
        cli.run(arguments)


def test_common_options_may_stand_on_both_sides() -> None:
    for arguments in (["-q", "list"], ["list", "-q"]):
        _command, parsed = cli.parse(arguments)
        assert (parsed.quiet, parsed.verbose, parsed.debug) == (1, 0, False)


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        ended = subprocess.run(
            [sys.executable, "-m", "testbed", "list"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_check_reports_every_file_and_ends_with_2(topology_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.topo.yaml"
    broken.write_text(TOPOLOGY.replace("[a:eth0, b:eth0]", "[a:eth0, c:eth0]"))
    ended = program("check", str(topology_file), str(broken))
    assert ended.returncode == ExitCode.USAGE
    assert ended.stdout == f"{topology_file}: 2 nodes, 1 links, no problems\n"
    assert ended.stderr.startswith(f"{broken}:7:")
    assert program("check", "-q", str(topology_file)).stdout == ""


def test_plan_prints_what_was_derived(topology_file: Path) -> None:
    assert "host a" in program("plan", str(topology_file)).stdout
    planned = json.loads(program("plan", "--json", str(topology_file)).stdout)
    assert [node["name"] for node in planned["nodes"]] == ["a", "b"]


def test_lists_are_empty_without_labs() -> None:
    assert program("list").stdout.startswith("no labs")
    assert json.loads(program("list", "--json").stdout) == []
    assert program("clean").stdout == "nothing to clean\n"


@pytest.mark.parametrize("command", ["down", "exec", "shell"])
def test_an_unknown_lab_is_one_clear_message(command: str) -> None:
    arguments = {"down": ["nolab"], "exec": ["nolab", "a", "true"], "shell": ["nolab", "a"]}[command]
    ended = program(command, *arguments)
    assert ended.returncode == ExitCode.FAIL
    assert ended.stderr == "testbed: there is no lab 'nolab'; 'testbed list' shows those that are up\n"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creating network namespaces needs root")
def test_a_labs_life_on_the_command_line(topology_file: Path) -> None:
    name = f"c{os.getpid()}"
    up = program("up", str(topology_file), "--name", name)
    assert up.returncode == 0, up.stderr
    try:
        assert f"lab '{name}' is up: 2 nodes in" in up.stdout
        assert re.search(rf"^{name}\s+up\s+2\s+\d+s\s+small-lab", program("list").stdout, re.M)
        for argv, code in (
            (["sh", "-c", "exit 42"], 42),
            (["--", "sh", "-c", "kill -9 $$"], -signal.SIGKILL),
            (["no-such-program"], 127),
            (["/etc/passwd"], 126),
        ):
            assert program("exec", name, "a", *argv).returncode == code
        assert program("exec", name, "a", "ls", "/sys/class/net").stdout == "eth0\nlo\n"
        shell = subprocess.run(
            [sys.executable, "-m", "testbed", "shell", name, "b"],
            input="echo $MPTCP_TESTBED_NODE; exit 5\n",
            env=os.environ | {"SHELL": "/bin/sh"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (shell.returncode, shell.stdout) == (5, "b\n")
        assert "would remove namespace" in program("down", "--dry-run", name).stdout
        refused = program("down", "no-lab", name, "nor-this")
        assert refused.returncode == ExitCode.FAIL
        assert "there is no lab 'no-lab'" in refused.stderr
        assert "there is no lab 'nor-this'" in refused.stderr
        assert f"nothing was taken down: {name} is up as before" in refused.stderr
    finally:
        down = program("down", name)
    assert (down.returncode, down.stdout) == (0, f"lab '{name}' is down\n")


def test_variables_of_a_template() -> None:
    assert parse_variables(["hosts=4", "title=a=b", "empty="]) == {"hosts": "4", "title": "a=b", "empty": ""}
    with pytest.raises(UsageError, match=r"--set hosts: expected NAME=VALUE\n--set 1=2: expected"):
        parse_variables(["hosts", "1=2"])


def test_benchmarks_compare_medians() -> None:
    samples = [Sample(3.0, 1.0), Sample(1.0, 1.0), Sample(2.0, 5.0)]
    assert summarise("testbed", samples) == Summary("testbed", 2.0, 1.0, 4.0)
    mininet = Summary("mininet", 30.0, 10.0, 40.0)
    assert ratios_to_mininet([Summary("testbed", 2.0, 1.0, 4.0), mininet]) == {"testbed": 10.0}
    assert ratios_to_mininet([Summary("testbed", 2.0, 1.0, 4.0)]) == {}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creating network namespaces needs root")
def test_the_topology_benchmark_measures_real_labs() -> None:
    ended = program("bench", "topology", "--nodes", "3", "--repetitions", "1", "--json")
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert measured["nodes"] == 3
    names = [result["name"] for result in measured["results"]]
    assert names[:2] == ["testbed", "testbed with agents"]
    assert all(0 < result["up_s"] < 60 and 0 < result["down_s"] < 60 for result in measured["results"])
    assert set(measured["ratio_to_mininet"]) == (set(names) - {"mininet"} if "mininet" in names else set())
    assert program("bench", "topology", "--nodes", "0").returncode == ExitCode.USAGE
