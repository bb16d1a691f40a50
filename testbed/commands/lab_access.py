"""Labs that are up, for commands that do something in their namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.backend.lab import Lab


def open_lab_inside(name: str) -> Lab:
    """The lab of that name, from where its namespaces are visible: this process goes there for good.

    Raises LabError, or CapabilityError for the lab of another user.
    """
    from testbed.backend import ownership
    from testbed.backend.namespaces import NamespaceBackend
    from testbed.backend.privileges import enter_lab

    record = ownership.read_lab(name)
    ownership.check_usable(record)
    enter_lab(record)
    return NamespaceBackend().open_lab(name)
