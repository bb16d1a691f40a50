from __future__ import annotations

from mptcp_stack.wire.frame import Frame


def test_whole_frame_is_head_and_payload() -> None:
    frame = Frame(bytearray(b"head"), (b"one", memoryview(b"two"), b""))
    assert frame.to_bytes() == b"headonetwo"
    assert len(frame) == 10


def test_received_frame_has_everything_in_its_head() -> None:
    frame = Frame(memoryview(b"head"))
    assert frame.to_bytes() == b"head"
    assert len(frame) == 4
