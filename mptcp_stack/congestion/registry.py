"""The controllers by name."""

from __future__ import annotations

from mptcp_stack.congestion.coupled import Balia, Lia, Olia
from mptcp_stack.congestion.cubic import Cubic
from mptcp_stack.congestion.interface import CongestionController, Path
from mptcp_stack.congestion.reno import Reno

CONTROLLERS: dict[str, type[CongestionController]] = {
    controller.name: controller for controller in (Cubic, Reno, Lia, Olia, Balia)
}


def create_controller(name: str, path: Path) -> CongestionController:
    """With the initial window. Raises KeyError for a name that is not in ``settings.CONGESTION_CONTROLS``."""
    return CONTROLLERS[name](path)
