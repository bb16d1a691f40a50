"""Scenarios: drawn from the seed alone, of every kind, and printable."""

from __future__ import annotations

from testbed.soak.drawing import draw_scenario
from testbed.soak.scenario import (
    LOSES,
    AddressChange,
    PathChange,
    Pattern,
    Stripping,
    Trouble,
    describe,
)

SCENARIOS = [draw_scenario(seed) for seed in range(600)]


def test_the_same_seed_is_the_same_scenario() -> None:
    assert draw_scenario(7) == draw_scenario(7)
    assert draw_scenario(7) != draw_scenario(8)


def test_every_kind_of_trouble_and_event_comes_up() -> None:
    assert {trouble for each in SCENARIOS for trouble in each.troubles} == set(Trouble)
    assert {event.change for each in SCENARIOS for event in each.path_events} == set(PathChange)
    assert {event.change for each in SCENARIOS for event in each.address_events} == set(AddressChange)
    assert {path.stripping for each in SCENARIOS for path in each.paths} == {None, *Stripping}
    assert {plan.pattern for each in SCENARIOS for plan in each.conversations} == set(Pattern)
    assert {len(each.paths) for each in SCENARIOS} == {1, 2, 3, 4}


def test_some_have_no_trouble_and_some_have_no_data() -> None:
    assert any(not each.troubles for each in SCENARIOS)
    plans = [plan for each in SCENARIOS for plan in each.conversations]
    assert any(not plan.upload_bytes and not plan.download_bytes for plan in plans)
    assert any(plan.upload_bytes + plan.download_bytes > 1_000_000 for plan in plans)
    assert {plan.is_ipv6 for plan in plans} == {False, True}


def test_damage_that_only_dss_can_find_comes_with_its_checksum() -> None:
    for each in SCENARIOS:
        if any(path.damages_data for path in each.paths):
            assert each.client.checksum_enabled
            assert each.server.checksum_enabled


def test_without_trouble_the_wires_do_nothing() -> None:
    for each in SCENARIOS:
        if not each.troubles & LOSES:
            for path in each.paths:
                for settings in (path.forward, path.backward):
                    assert settings.loss == settings.corrupt == 0.0
                    assert settings.loss_model is None


def test_what_happens_is_in_the_description() -> None:
    scenario = next(each for each in SCENARIOS if Trouble.OUTAGES in each.troubles and len(each.paths) == 2)
    text = describe(scenario)
    assert text.startswith(f"seed {scenario.seed}: ")
    assert Trouble.OUTAGES.value in text
    assert f"at {scenario.path_events[0].at_us} µs: path" in text
    assert text.count("\nconversation ") == len(scenario.conversations)
    assert "path 1: forward (" in text
