"""The data that workloads send, and what becomes of what they receive."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from testbed.host.data import BLOCK_BYTES, ConstantSource, FileSource, SeededSource, Sink, Source


def drain(source: Source, chunk_bytes: int) -> bytes:
    parts = []
    while chunk := source.next_chunk(chunk_bytes):
        assert len(chunk) <= chunk_bytes
        parts.append(bytes(chunk))
    source.close()
    return b"".join(parts)


@pytest.mark.parametrize("total", [0, 1, 7, 8, 9, 5000, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 3])
def test_the_data_does_not_depend_on_the_chunks(total: int) -> None:
    data = drain(SeededSource(5, 0, total), 1 << 30)
    assert len(data) == total
    assert drain(SeededSource(5, 0, total), 777) == data


def test_seeds_connections_and_blocks_differ() -> None:
    data = drain(SeededSource(5, 0, 3 * BLOCK_BYTES), 1 << 30)
    blocks = {data[offset : offset + BLOCK_BYTES] for offset in range(0, len(data), BLOCK_BYTES)}
    assert len(blocks) == 3
    assert drain(SeededSource(5, 1, 1000), 1000) != data[:1000] != drain(SeededSource(6, 0, 1000), 1000)


def test_chunks_do_not_change_afterwards() -> None:
    source = SeededSource(1, 0, 3 * BLOCK_BYTES)
    chunk = source.next_chunk(BLOCK_BYTES)
    before = bytes(chunk)
    drain(source, BLOCK_BYTES)
    assert bytes(chunk) == before
    assert chunk.readonly


def test_constant_data_has_the_length_that_was_asked_for() -> None:
    assert len(drain(ConstantSource(3 * BLOCK_BYTES + 1), 300_000)) == 3 * BLOCK_BYTES + 1


def test_a_file_is_sent_whole_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 10)
    assert drain(FileSource(str(path), 0), 100) == bytes(range(256)) * 10
    assert drain(FileSource(str(path), 300), 100) == (bytes(range(256)) * 2)[:300]


def test_a_sink_hashes_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    sink = Sink(verify=True, path=str(path))
    sink.take(b"abc")
    sink.take(memoryview(b"def"))
    sink.close()
    assert sink.sha256() == hashlib.sha256(b"abcdef").hexdigest()
    assert path.read_bytes() == b"abcdef"


def test_a_sink_without_verification_says_nothing() -> None:
    sink = Sink(verify=False)
    sink.take(b"abc")
    assert sink.sha256() == ""
