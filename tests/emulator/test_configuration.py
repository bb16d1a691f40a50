"""What an emulator is told survives its way through a file, and nonsense is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mptcp_stack.device.link_model import FourStates, GilbertElliott, LinkSettings, Slot
from mptcp_stack.errors import ConfigurationError
from testbed.emulator.configuration import (
    DirectionConfiguration,
    LinkConfiguration,
    read_links,
    settings_from_object,
    write_links,
)
from testbed.middlebox.settings import RandomiseSequence, Split, Strip


def test_links_survive_their_file(tmp_path: Path) -> None:
    forward = LinkSettings(delay_us=5, loss_model=GilbertElliott(0.1, 0.2, 0.3, 0.4), slot=Slot(1, 2, 3, 4))
    backward = LinkSettings(rate_bit_s=7, loss_model=FourStates(0.1, 0.2, 0.3, 0.4, 0.5), gap=3)
    link = LinkConfiguration(
        "a:eth0",
        "near",
        "far",
        1400,
        DirectionConfiguration(forward, 1),
        DirectionConfiguration(backward, 2**63),
        (Strip("->", ("dss", "mp_join"), ("data",)), Split("<-", 700), RandomiseSequence()),
    )
    write_links([link, link], tmp_path / "links.json")
    assert read_links(tmp_path / "links.json") == [link, link]


@pytest.mark.parametrize(
    "value", [{"delay": 5}, {"delay_us": -5}, {"loss_model": {"p": 2.0, "r": 0.1}}, {"slot": {"shortest": 1}}]
)
def test_impossible_settings_are_refused(value: dict[str, object]) -> None:
    with pytest.raises((TypeError, ConfigurationError)):
        settings_from_object(value)
