"""The files of a run's capture: what they are called, and what is in each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mptcp_stack.device.capture import CaptureWriter
from testbed.errors import HostError
from testbed.selftests.key_log import KeyLog
from testbed.topology.model import Link


class CaptureError(HostError):
    """A capture could not be taken or written; the message says which."""


@dataclass(frozen=True, slots=True)
class LinkFile:
    """One link's file; its one interface is called after the link's first end."""

    link: Link
    path: Path
    writer: CaptureWriter


@dataclass(frozen=True, slots=True)
class CaptureFiles:
    """All files of one run. ``keys`` is written when the capture ends."""

    links: tuple[LinkFile, ...]
    all_paths: tuple[Path, ...]
    """In the order of the links, those included that somebody else writes."""
    keys: KeyLog
    keys_path: Path

    @property
    def paths(self) -> tuple[str, ...]:
        return (*map(str, self.all_paths), str(self.keys_path))


@contextmanager
def capture_files(
    links: Iterable[Link],
    directory: Path,
    stem: str,
    write_elsewhere: Callable[[Link, Path], bool] = lambda _link, _path: False,
) -> Iterator[CaptureFiles]:
    """A pcapng file for each link and a key log, closed at the end of the body. Raises CaptureError.

    ``write_elsewhere`` says whether somebody else writes the file of a link.
    """
    with ExitStack() as closing:
        files, paths = [], []
        for link in links:
            path = directory / f"{file_name(stem)}.{file_name(f'{link.first}-{link.second}')}.pcapng"
            paths.append(path)
            if write_elsewhere(link, path):
                continue
            try:
                stream = path.open("wb")
                closing.callback(_close, stream)
                writer = CaptureWriter(stream)
                writer.add_interface(str(link.first))
            except OSError as error:
                raise CaptureError(f"cannot capture {link.first} into {path}: {error.strerror}") from error
            files.append(LinkFile(link, path, writer))
        keys_path = directory / f"{file_name(stem)}.keys"
        captured = CaptureFiles(tuple(files), tuple(paths), KeyLog(), keys_path)
        try:
            yield captured
        finally:
            _finish(captured)


def _close(stream: BinaryIO) -> None:
    """What could not be written was told before."""
    with suppress(OSError):
        stream.close()


def _finish(captured: CaptureFiles) -> None:
    try:
        for file in captured.links:
            file.writer.flush()
        captured.keys_path.write_text(captured.keys.text(), encoding="utf-8")
    except OSError as error:
        raise CaptureError(
            f"the capture {captured.keys_path.stem} is incomplete: {error.strerror}"
        ) from error


def file_name(text: str) -> str:
    """``join/no-join[4,kernel-kernel]`` → ``join_no-join_4_kernel-kernel``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")
