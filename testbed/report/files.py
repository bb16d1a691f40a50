"""Report files: checked before the run, written in one step after it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import ExitCode, TestbedError


class ReportError(TestbedError):
    """A report that cannot be written; the message names the file and the system's reason."""

    exit_code = ExitCode.FAIL


def check_writable(paths: Sequence[Path]) -> None:
    """Raises ReportError, with every problem at once, for paths that :func:`write_report` could not write.

    A long run must not end in the discovery that its results have nowhere to go. Existing files are left as
    they are.
    """
    problems = []
    for path in paths:
        try:
            _check_one(path)
        except OSError as error:
            problems.append(_message(path, error))
    duplicates = {path for path in paths if paths.count(path) > 1}
    problems += [f"two reports cannot both be written to {path}" for path in sorted(duplicates)]
    if problems:
        raise ReportError("\n".join(problems))


def _check_one(path: Path) -> None:
    if _is_special(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as trial:
        # a full disk lets files be made and refuses their content
        trial.write(b" " * 4096)
        trial.flush()
        os.fsync(trial.fileno())


def write_report(path: Path, text: str) -> None:
    """Replace the file by ``text``; whoever reads it meanwhile sees the old one or the new one, never a part.

    Devices and pipes, which cannot be replaced, are written to. Raises ReportError.
    """
    try:
        if _is_special(path):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path, text)
    except OSError as error:
        raise ReportError(_message(path, error)) from error


def _replace(path: Path, text: str) -> None:
    # a report of reports of several users follows the umask, not mkstemp's 0600
    mask = os.umask(0)
    os.umask(mask)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _message(path: Path, error: OSError) -> str:
    return f"cannot write the report {path}: {error.strerror or error}"
