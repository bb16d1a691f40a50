"""Links of a lab that is up: what is shown is in force, and what is asked for takes effect or is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given

from testbed import cli
from testbed.backend.lab import Lab
from testbed.backend.link_control import changed, impairment_in_force
from testbed.backend.namespaces import NamespaceBackend
from testbed.errors import ExitCode, UsageError
from testbed.topology.impairments import impairment_text, link_settings
from testbed.topology.model import Impairment, LinkEnd
from tests.topology.test_impairments import IMPAIRMENTS

from .conftest import namespaces_of
from .test_impaired_links import carrier, emulated, two_hosts


@given(IMPAIRMENTS)
def test_what_is_in_force_is_what_was_asked_for(impairment: Impairment) -> None:
    again = impairment_in_force(link_settings(impairment, 1500), 1500)
    assert link_settings(again, 1500) == link_settings(impairment, 1500)


def test_a_derived_limit_follows_the_rate() -> None:
    in_force = impairment_in_force(link_settings(Impairment(rate_bit_s=100_000_000), 1500), 1500)
    faster = changed(in_force, {"rate": "200mbit"})
    assert link_settings(faster, 1500).queue_limit_bytes == 1_250_000
    said = impairment_in_force(link_settings(Impairment(rate_bit_s=10**8, limit_bytes=9000), 1500), 1500)
    assert changed(said, {"rate": "200mbit"}).limit_bytes == 9000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dely": "5ms"}, "dely: no such impairment; did you mean 'delay'?"),
        ({"delay": "5msms"}, "delay=5msms: unknown unit of time 'msms'"),
        ({"reorder": "5%"}, "'reorder' needs 'delay'"),
        ({"delay": "5ms 1ms", "jitter": "1ms"}, "'jitter' says again what 'delay' says"),
    ],
)
def test_words_that_make_no_sense_are_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        changed(Impairment(), words)


def run(*words: str) -> int:
    return cli.run(words)


@pytest.mark.root
def test_commands_show_and_change_a_link(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with NamespaceBackend(with_agents=False).up(emulated("{rate: 5mbit, delay: 3ms}"), lab_name, seed=1):
        assert run("link", "show", lab_name) == ExitCode.PASS
        shown = capsys.readouterr().out
        assert "a:eth0 <-> b:eth0" in shown
        assert shown.count("rate 5mbit delay 3ms  (link emulator)") == 2
        assert run("link", "set", lab_name, "b:eth0", "delay=20ms 2ms", "loss=gemodel 1% 10%", "--sent") == 0
        assert run("link", "set", lab_name, "b:eth0", "rate=7mbit", "--received") == 0
        capsys.readouterr()
        assert run("link", "show", lab_name, "b:eth0", "--json") == ExitCode.PASS
        (link,) = json.loads(capsys.readouterr().out)
        assert link["->"]["impairment"] == "rate 7mbit delay 3ms"
        assert link["<-"]["impairment"] == "rate 5mbit delay 20ms 2ms loss gemodel 1% 10% 100% 0%"
        assert link["->"]["realised_by"] == "link emulator"
        assert link["->"]["counters"]["lost"] == 0
        assert run("link", "set", lab_name, "a:eth0", "none") == ExitCode.PASS
        assert capsys.readouterr().out.count("not impaired  (link emulator)") == 2
        assert run("show", lab_name) == ExitCode.PASS
        assert "host a, tcp stack" in capsys.readouterr().out


@pytest.mark.root
def test_commands_refuse_nonsense(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert run("link", "set", lab_name, *words) == ExitCode.USAGE
        return capsys.readouterr().err

    with NamespaceBackend(with_agents=False).up(two_hosts("delay 3ms"), lab_name):
        assert "no link ends at 'b:eth1'; did you mean 'b:eth0'?" in refused("b:eth1", "delay=1ms")
        assert "delay: expected WORD=VALUE" in refused("b:eth0", "delay")
        assert "delay: said twice" in refused("b:eth0", "delay=1ms", "delay=2ms")
        assert "unknown key 'stripp' — did you mean 'strip'?" in refused("b:eth0", "middlebox=stripp: {}")
        wrong = "middlebox=strip: {subtypes: [mp_jion], packts: []}, nat66: {}, reset: 5"
        said = refused("b:eth0", wrong)
        assert "'subtypes' cannot be 'mp_jion' — did you mean 'mp_join'?" in said
        assert "unknown key 'packts' — did you mean 'packets'?" in said
        assert "'address' is missing" in said
        assert "'reset' must be a mapping, not 5" in said
        assert "'nat44' needs an 'address'" in refused("b:eth0", "middlebox=nat44")
        assert "middlebox:1:16: not valid YAML" in refused("b:eth0", "middlebox=strip: [mp_join")
        assert "both directions" in refused("b:eth0", "down", "--sent")
        assert "loss=1: a share needs a unit" in refused("b:eth0", "loss=1")
        run("link", "show", lab_name)
        assert capsys.readouterr().out.count("delay 3ms") == 2


@pytest.mark.root
@pytest.mark.parametrize("impair", ["delay 3ms", "{}"])
def test_commands_take_a_link_down_and_up(
    lab_name: str, impair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ups() -> list[bool]:
        capsys.readouterr()
        assert run("link", "show", lab_name, "--json") == ExitCode.PASS
        return [link["up"] for link in json.loads(capsys.readouterr().out)]

    with NamespaceBackend(with_agents=False).up(two_hosts(impair), lab_name) as lab:
        assert ups() == [True]
        assert run("link", "set", lab_name, "b:eth0", "down") == ExitCode.PASS
        assert capsys.readouterr().out.startswith("a:eth0 <-> b:eth0  mtu 1500  down\n")
        assert ups() == [False]
        assert (carrier(lab, "a"), carrier(lab, "b")) == ("0", None)
        assert run("link", "set", lab_name, "a:eth0", "up") == ExitCode.PASS
        assert run("link", "set", lab_name, "b:eth0", "up") == ExitCode.PASS
        assert ups() == [True]
        assert (carrier(lab, "a"), carrier(lab, "b")) == ("1", "1")


@pytest.mark.root
def test_a_token_bucket_changes_its_rate_and_nothing_else(lab_name: str) -> None:
    with NamespaceBackend(with_agents=False).up(two_hosts('{"->": {rate: 5mbit}}'), lab_name) as lab:
        link = lab.links.link_at("a:eth0")
        state = lab.links.change(link, {"rate": "9mbit"}, ["->"])
        assert impairment_text(state.forward.impairment) == "rate 9mbit"
        assert state.forward.realised_by == "tbf on the sending host"
        assert (state.backward.impairment, state.backward.realised_by) == (Impairment(), "")
        for words, direction in (({"delay": "1ms"}, "->"), ({"rate": "1mbit"}, "<-"), ({}, "->")):
            with pytest.raises(UsageError, match="built without a link emulator"):
                lab.links.change(link, words, [direction])


@pytest.mark.root
def test_the_emulator_can_be_chosen_for_everything(lab_name: str) -> None:
    try:
        assert (
            run("up", "one-path", "--set", "rate=5mbit", "--name", lab_name, "--impairments", "emulator") == 0
        )
        with NamespaceBackend().open_lab(lab_name) as lab:
            assert isinstance(lab, Lab)
            state = lab.links.state(lab.links.link_at("server:eth0"))
            assert {state.forward.realised_by, state.backward.realised_by} == {"link emulator"}
            assert state.link.first == LinkEnd("r1", "eth1")
        assert f"mt-{lab_name}-_links" in namespaces_of(lab_name)
    finally:
        run("down", lab_name)


@pytest.mark.root
def test_an_emulated_link_can_be_impaired_and_get_boxes_later(
    lab_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topology = two_hosts("{}")
    (plain,) = topology.links
    with NamespaceBackend(with_agents=False).up(
        replace(topology, links=(replace(plain, is_emulated=True),)), lab_name
    ):
        assert run("link", "set", lab_name, "b:eth0", "delay=7ms", "--sent") == ExitCode.PASS
        assert "<-  delay 7ms  (link emulator)" in capsys.readouterr().out
        box = "middlebox=strip: {subtypes: [mp_join]}, firewall: {}"
        assert run("link", "set", lab_name, "a:eth0", box) == ExitCode.PASS
        shown = capsys.readouterr().out
        assert "middlebox  firewall {}\n  middlebox  strip {subtypes: [mp_join]}" in shown
        assert run("link", "set", lab_name, "a:eth0", "middlebox=stripe: {}") == ExitCode.USAGE
        assert "unknown key 'stripe' — did you mean 'strip'?" in capsys.readouterr().err
        assert run("link", "set", lab_name, "a:eth0", "middlebox=none") == ExitCode.PASS
        assert "middlebox" not in capsys.readouterr().out


@pytest.mark.root
def test_a_plain_link_says_what_it_lacks(lab_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with NamespaceBackend(with_agents=False).up(two_hosts("{}"), lab_name):
        for change in ("delay=1ms", "middlebox=strip: {}"):
            assert run("link", "set", lab_name, "a:eth0", change) == ExitCode.USAGE
            assert "write 'emulated: true' at the link in the topology" in capsys.readouterr().err
