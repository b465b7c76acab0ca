"""OpenClaw frames: what is read, what is refused and why, what goes out."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.frames import (
    FrameFault,
    Request,
    decode_request,
    encode_error,
    encode_event,
    encode_ok,
    splice_seq,
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FRAMES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["req", "res", "event", ""]) | JSON_VALUES,
        "id": st.text(max_size=300) | JSON_VALUES,
        "method": st.text(max_size=300) | JSON_VALUES,
        "params": JSON_VALUES,
        "more": JSON_VALUES,
    },
)


def test_request_keeps_params_raw() -> None:
    request = decode_request(b'{"type":"req","id":"1:a","method":"node.list","params":{"a": [1, 2]}}')
    assert isinstance(request, Request)
    assert (request.id, request.method) == ("1:a", "node.list")
    assert msgspec.json.decode(request.params) == {"a": [1, 2]}


def test_request_without_params_has_empty_params() -> None:
    request = decode_request(b'{"type":"req","id":"1","method":"health"}')
    assert isinstance(request, Request)
    assert bytes(memoryview(request.params)) == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: type) -> None:
    assert isinstance(decode_request(kind(b'{"type":"req","id":"1","method":"health"}')), Request)


@pytest.mark.parametrize(
    ("data", "fault", "is_json", "id_"),
    [
        (b"", "not JSON", False, None),
        (b"\xff\xfe", "not JSON", False, None),
        (b'{"type":"req"', "not JSON", False, None),
        (b"[" * 100_000, "not JSON", False, None),
        (b"null", "must be an object", True, None),
        (b"[1]", "must be an object", True, None),
        (b'{"type":"event","id":"7","method":"x"}', "at /type: must be equal to constant", True, "7"),
        (b'{"id":"7","method":"x"}', "at /type: must be equal to constant", True, "7"),
        (b'{"type":"req","method":"x"}', "at root: must have required property 'id'", True, None),
        (b'{"type":"req","id":7,"method":"x"}', "at /id: must be string", True, None),
        (b'{"type":"req","id":"","method":"x"}', "at /id: must NOT have fewer than 1 characters", True, None),
        (b'{"type":"req","id":"7"}', "at root: must have required property 'method'", True, "7"),
        (b'{"type":"req","id":"7","method":null}', "at /method: must be string", True, "7"),
        (b'{"type":"req","id":"7","method":""}', "at /method: must NOT have fewer than 1 characters", True, "7"),
    ],
)
def test_fault_names_the_place(data: bytes, fault: str, is_json: bool, id_: str | None) -> None:
    assert decode_request(data) == FrameFault(fault, json=is_json, id=id_)


@pytest.mark.parametrize("key", ["id", "method"])
def test_id_and_method_are_capped(key: str) -> None:
    frame = {"type": "req", "id": "1", "method": "m"} | {key: "x" * 257}
    assert isinstance(decode_request(json.dumps(frame).encode()), FrameFault)
    frame[key] = "x" * 256
    assert isinstance(decode_request(json.dumps(frame).encode()), Request)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_fault(data: bytes) -> None:
    assert isinstance(decode_request(data), Request | FrameFault)


@given(FRAMES)
def test_any_frame_gives_a_request_or_a_fault_and_never_loses_its_id(frame: dict[str, object]) -> None:
    result = decode_request(json.dumps(frame).encode())
    if isinstance(result, Request):
        assert (result.type, result.id, result.method) == ("req", frame["id"], frame["method"])
    else:
        assert result.json
        assert result.id is None or result.id == frame["id"]


@given(st.text(max_size=40), JSON_VALUES)
def test_replies_are_one_json_object(id_: str, payload: object) -> None:
    assert json.loads(encode_ok(id_, payload)) == {"type": "res", "id": id_, "ok": True, "payload": payload}
    error = {"code": "UNAVAILABLE", "message": "no"}
    assert json.loads(encode_error(id_, error)) == {"type": "res", "id": id_, "ok": False, "error": error}


def test_payload_may_be_encoded_before() -> None:
    assert json.loads(encode_ok("1", msgspec.Raw(b'{"a":1}')))["payload"] == {"a": 1}


@given(JSON_VALUES, st.integers(1, 2**53))
def test_seq_is_spliced_without_touching_the_rest(payload: object, seq: int) -> None:
    encoded = encode_event("presence", payload, state_version={"presence": 2, "health": 3})
    plain = json.loads(encoded)
    assert "seq" not in plain
    assert json.loads(splice_seq(encoded, seq)) == plain | {"seq": seq}
