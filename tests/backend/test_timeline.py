"""The timeline of a lab: events happen when they are due, those that fail are told, and all is noted."""

from __future__ import annotations

import pytest

from testbed import cli
from testbed.backend.namespaces import NamespaceBackend
from testbed.backend.timeline import happened_so_far, run_events
from testbed.errors import ExitCode, LabError
from testbed.topology.impairments import impairment_text
from testbed.topology.load import load_topology
from testbed.topology.model import Topology

pytestmark = pytest.mark.root

EVENTS = """[
  {at: 150ms, link: "client:wwan0", impair: {"->": {delay: 30ms, loss: 5%}}},
  {at: 50ms, link: "r1:eth1", set: down},
  {at: 200ms, interface: "client:wlan0", move_to: office},
  {at: 250ms, link: "client:wwan0", middlebox: {strip: {}}},
]"""


def roaming() -> Topology:
    return load_topology("roaming", {"client_stack": "tcp", "server_stack": "tcp", "events": EVENTS})


def test_events_happen_in_their_order_when_they_are_due(lab_name: str) -> None:
    waited: list[float] = []
    with NamespaceBackend(with_agents=False).up(roaming(), lab_name) as lab:
        assert happened_so_far(lab.directory) == []
        events = run_events(lab, waited.append)
        assert next(events).text == "link r1:eth1 down"
        assert "LOWER_UP" not in lab.run_in("r1", ["ip", "link", "show", "eth1"]).stdout
        happened = list(events)
        assert [each.text for each in happened] == [
            "link client:wwan0: -> delay 30ms loss 5%",
            "client:wlan0 moved to office",
            "middlebox on client:wwan0: strip {}",
        ]
        state = lab.links.state(lab.links.link_at("client:wwan0"))
        assert impairment_text(state.forward.impairment) == "delay 30ms loss 5%"
        assert [box.kind for box in state.middlebox] == ["strip"]
        assert len(happened_so_far(lab.directory)) == 4
    assert waited[0] == pytest.approx(0.05, abs=0.02)


def test_events_of_a_lab_happen_once_at_a_time(lab_name: str) -> None:
    with NamespaceBackend(with_agents=False).up(roaming(), lab_name) as lab:
        events = run_events(lab, lambda _seconds: None)
        next(events)
        with pytest.raises(LabError, match="are happening already"):
            next(run_events(lab, lambda _seconds: None))
        assert len(happened_so_far(lab.directory)) == 1
        assert len(list(events)) == 3
        assert next(run_events(lab, lambda _seconds: None)).text == "link r1:eth1 down"


def test_commands_run_and_show_events(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with NamespaceBackend(with_agents=False).up(roaming(), lab_name):
        assert cli.run(["events", "show", lab_name]) == ExitCode.PASS
        assert capsys.readouterr().out.count("(due)") == 4
        assert cli.run(["events", "run", lab_name]) == ExitCode.PASS
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("    0.050 s  link r1:eth1 down  (at 0.0")
        times = [float(line.rpartition("(at ")[2].removesuffix(" s)")) for line in lines]
        assert times == sorted(times)
        assert all(time >= due for time, due in zip(times, (0.05, 0.15, 0.2, 0.25), strict=True))
        assert cli.run(["events", "run", lab_name]) == ExitCode.FAIL
        assert "FAILED: client:wlan0 is in 'office' already" in capsys.readouterr().out
        assert cli.run(["events", "show", lab_name]) == ExitCode.PASS
        assert "(due)" not in capsys.readouterr().out


def test_a_topology_without_events_says_so(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with NamespaceBackend(with_agents=False).up(load_topology("star", {"stack": "tcp"}), lab_name):
        assert cli.run(["events", "run", lab_name]) == ExitCode.PASS
        assert "has no events" in capsys.readouterr().out
