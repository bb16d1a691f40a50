"""Report files: what cannot be written is known before the run, and what is written is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.errors import ExitCode
from testbed.report.files import ReportError, check_writable, write_report


def test_written_in_full_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    check_writable([path])
    assert not path.exists()
    write_report(path, "grüße\n")
    assert path.read_text(encoding="utf-8") == "grüße\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_report_is_replaced_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old and much longer")
    check_writable([path])
    assert path.read_text() == "old and much longer"
    write_report(path, "new")
    assert path.read_text() == "new"


def test_the_file_follows_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_report(tmp_path / "report", "text")
    finally:
        os.umask(previous)
    assert (tmp_path / "report").stat().st_mode & 0o777 == 0o640


def test_all_unwritable_paths_are_named_before_the_run(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "report.xml"
    file_as_directory = tmp_path / "file"
    file_as_directory.touch()
    below_file = file_as_directory / "report.json"
    with pytest.raises(ReportError) as caught:
        check_writable([missing, below_file, tmp_path])
    assert [
        str(path) in line
        for path, line in zip((missing, below_file, tmp_path), str(caught.value).splitlines(), strict=True)
    ] == [True] * 3
    assert caught.value.exit_code is ExitCode.FAIL


def test_two_reports_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "report"
    with pytest.raises(ReportError, match="two reports"):
        check_writable([path, path])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_message_with_its_reason() -> None:
    path = Path("/dev/full")
    with pytest.raises(ReportError, match="cannot write the report /dev/full: No space left on device"):
        write_report(path, "text")


def test_a_directory_that_went_away_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="No such file or directory"):
        write_report(tmp_path / "gone" / "report", "text")


def test_a_failed_write_leaves_the_old_report_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("testbed.report.files.os.fsync", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write_report(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_can_take_a_report(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable([path])
        write_report(path, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
