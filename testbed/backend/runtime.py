"""Where the running labs keep their journals, sockets and logs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from testbed.errors import LabError

RUNTIME_VARIABLE = "MPTCP_TESTBED_RUNTIME_DIRECTORY"
"""Environment variable that overrides :func:`runtime_root`'s choice."""

NAMESPACE_DIRECTORY = Path("/run/netns")
"""Where ``ip netns`` looks."""


def default_runtime_root() -> Path:
    """``/run/mptcp-testbed`` for root, a directory of the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/run/mptcp-testbed")
    session_directory = os.environ.get("XDG_RUNTIME_DIR")
    if session_directory and os.access(session_directory, os.W_OK | os.X_OK):
        return Path(session_directory, "mptcp-testbed")
    return Path(f"/tmp/mptcp-testbed-{os.geteuid()}")


def runtime_root_path() -> Path:
    """The directory's path, whether or not it exists yet."""
    chosen = os.environ.get(RUNTIME_VARIABLE)
    return Path(chosen).absolute() if chosen else default_runtime_root()


def runtime_root() -> Path:
    """The directory that holds one directory per lab; made with mode 0700 when it is missing.

    Raises LabError when it belongs to somebody else or others may write to it: whoever can write there
    decides what ``clean`` removes.
    """
    root = runtime_root_path()
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        raise LabError(
            f"cannot make the runtime directory {root}: {error.strerror}"
            f" (set {RUNTIME_VARIABLE} to a directory of your own)"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise LabError(
            f"the runtime directory {root} is not a directory that only you can write to;"
            f" remove it, or set {RUNTIME_VARIABLE} to a directory of your own"
        )
    return root
