"""A runtime directory of the test's own."""

from __future__ import annotations

from tests.backend.conftest import lab_name, runtime

__all__ = ["lab_name", "runtime"]
