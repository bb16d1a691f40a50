"""A small git repository to send about."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def make_repository(folder: Path, files: Mapping[str, str]) -> Path:
    """One commit with the files; those that begin with ``#!`` can be executed."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Files for a test"]):
        command = ["git", "-C", str(folder), *arguments]
        subprocess.run(command, check=True, env=os.environ | _IDENTITY, timeout=30, capture_output=True)
    return folder
