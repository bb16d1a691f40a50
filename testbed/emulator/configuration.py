"""What a link emulator is told: its links, and what each direction does to packets; as JSON.

Written by hand because the emulator's process has no validation library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mptcp_stack.device.link_model import FourStates, GilbertElliott, LinkSettings, Slot
from testbed.middlebox.settings import BoxSettings, boxes_from_objects, boxes_to_objects


@dataclass(frozen=True, slots=True)
class DirectionConfiguration:
    """One direction of a link."""

    settings: LinkSettings
    seed: int


@dataclass(frozen=True, slots=True)
class LinkConfiguration:
    """A link: the emulator's interfaces towards its first and its second end."""

    name: str
    near: str
    far: str
    mtu: int
    forward: DirectionConfiguration
    backward: DirectionConfiguration
    middlebox: tuple[BoxSettings, ...] = ()


def settings_to_object(settings: LinkSettings) -> dict[str, Any]:
    """A JSON object of what is not as by default."""
    default = dataclasses.asdict(LinkSettings())
    return {name: value for name, value in dataclasses.asdict(settings).items() if value != default[name]}


def settings_from_object(value: Mapping[str, Any]) -> LinkSettings:
    """Raises ValueError, TypeError or ConfigurationError for what makes no settings."""
    fields = dict(value)
    model, slot = fields.get("loss_model"), fields.get("slot")
    if model is not None:
        fields["loss_model"] = GilbertElliott(**model) if "p" in model else FourStates(**model)
    if slot is not None:
        fields["slot"] = Slot(**slot)
    return LinkSettings(**fields)


def write_links(links: list[LinkConfiguration], path: Path) -> None:
    """Raises OSError."""
    objects = [
        {
            "name": link.name,
            "near": link.near,
            "far": link.far,
            "mtu": link.mtu,
            "forward": _direction_object(link.forward),
            "backward": _direction_object(link.backward),
            "middlebox": boxes_to_objects(link.middlebox),
        }
        for link in links
    ]
    path.write_text(json.dumps(objects))


def _direction_object(direction: DirectionConfiguration) -> dict[str, Any]:
    return {"settings": settings_to_object(direction.settings), "seed": direction.seed}


def read_links(path: Path) -> list[LinkConfiguration]:
    """Raises OSError, or ValueError for a damaged file."""
    return [
        LinkConfiguration(
            name=entry["name"],
            near=entry["near"],
            far=entry["far"],
            mtu=entry["mtu"],
            forward=_direction(entry["forward"]),
            backward=_direction(entry["backward"]),
            middlebox=boxes_from_objects(entry["middlebox"]),
        )
        for entry in json.loads(path.read_bytes())
    ]


def _direction(value: Mapping[str, Any]) -> DirectionConfiguration:
    return DirectionConfiguration(settings_from_object(value["settings"]), value["seed"])
