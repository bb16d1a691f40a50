"""Messages survive the way through JSON, and nothing else passes for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.host.messages import MessageError, decode_line, encode_line, from_json, to_json
from testbed.host.protocol import (
    AgentConfiguration,
    CloseKind,
    ConnectionResult,
    EndpointRequest,
    Role,
    Workload,
    WorkloadKind,
)

WORKLOAD = Workload(
    WorkloadKind.ECHO, Role.CONNECT, "10.0.0.1", 80, send_bytes=7, close=CloseKind.ABORT, abort_after_bytes=3
)
CONFIGURATION = AgentConfiguration(
    lab="lab",
    host="a",
    stack="kernel",
    namespace_path="/run/netns/a",
    control_socket="/run/a.sock",
    log_file="/run/a.log",
    interfaces=({"name": "eth0", "addresses": ["10.0.0.1/24"]},),
    sysctls=(("net.mptcp.enabled", "1"),),
)


@pytest.mark.parametrize(
    "message",
    [
        WORKLOAD,
        CONFIGURATION,
        EndpointRequest("::1", ("signal",), port=3),
        ConnectionResult(1, 2, "a", "b", 3, True, None),
    ],
)
def test_messages_survive_json(message: object) -> None:
    assert from_json(type(message), decode_line(encode_line(to_json(message)))) == message


def test_every_problem_is_named_at_once() -> None:
    value = to_json(WORKLOAD) | {"port": "80", "kind": "dance", "connections": True, "colour": 1}
    del value["address"]
    with pytest.raises(MessageError) as caught:
        from_json(Workload, value)
    text = str(caught.value)
    assert "port: must be int, not '80'" in text
    assert "kind: must be one of transfer, echo, request_response, hold, steps, not 'dance'" in text
    assert "connections: must be int, not True" in text
    assert "colour: unknown" in text
    assert "address: missing" in text


@pytest.mark.parametrize("flags", ["signal", [1], {"signal": 1}])
def test_a_list_of_words_is_nothing_else(flags: object) -> None:
    with pytest.raises(MessageError, match="flags"):
        from_json(EndpointRequest, {"address": "::1", "flags": flags})


def test_a_pair_has_two_entries() -> None:
    with pytest.raises(MessageError, match="sysctls: must have 2 entries, not 1"):
        from_json(AgentConfiguration, to_json(CONFIGURATION) | {"sysctls": [["net.mptcp.enabled"]]})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda children: st.lists(children) | st.dictionaries(st.text(max_size=8), children),
    )
)
def test_anything_else_is_refused_without_a_crash(value: object) -> None:
    with pytest.raises(MessageError):
        from_json(Workload, value)


@pytest.mark.parametrize("line", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, json.dumps("x").encode()])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(MessageError):
        decode_line(line)


def test_only_messages_are_written() -> None:
    with pytest.raises(TypeError):
        to_json({"port": 1})
