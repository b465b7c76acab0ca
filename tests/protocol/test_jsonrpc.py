"""JSON-RPC 2.0: calls, the seed's short form, batches, notifications, errors, and which dialect a frame is (C15)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.protocol.jsonrpc import (
    MAX_BATCH,
    Batch,
    Call,
    Invalid,
    decode_message,
    encode_batch,
    encode_error,
    encode_event,
    encode_invalid,
    encode_result,
    sniff,
    splice_seq,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
IDS = st.none() | st.text(max_size=20) | st.integers(-(2**53), 2**53)


def decode(value: object) -> Call | Invalid | Batch:
    return decode_message(json.dumps(value).encode())


def call(value: object) -> Call:
    decoded = decode(value)
    assert isinstance(decoded, Call), decoded
    return decoded


def test_s050_the_seeds_short_form_is_a_call_that_is_answered_with_id_null() -> None:
    decoded = call({"method": "agent.send", "params": {"a": 1}})
    assert (decoded.id, decoded.method, decoded.notification) == (None, "agent.send", False)
    assert msgspec.json.decode(decoded.params) == {"a": 1}


@pytest.mark.parametrize(
    ("message", "id_", "notification"),
    [
        ({"jsonrpc": "2.0", "method": "m"}, None, True),
        ({"jsonrpc": "2.0", "method": "m", "id": None}, None, False),
        ({"jsonrpc": "2.0", "method": "m", "id": 7}, 7, False),
        ({"jsonrpc": "2.0", "method": "m", "id": "a"}, "a", False),
        ({"method": "m", "id": 7}, 7, False),
        ({"method": "m", "id": 1.5}, 1.5, False),
    ],
)
def test_c15_only_a_strict_message_without_id_is_a_notification(
    message: dict[str, Any], id_: object, notification: bool
) -> None:
    decoded = call(message)
    assert (decoded.id, decoded.notification) == (id_, notification)
    assert bytes(memoryview(decoded.params)) == b""


@pytest.mark.parametrize("params", [{"a": 1}, [1, 2], {}, []])
def test_params_are_an_object_or_an_array(params: object) -> None:
    decoded = decode_message(b'{"method":"m","params":  %b }' % json.dumps(params).encode())
    assert isinstance(decoded, Call)
    assert msgspec.json.decode(decoded.params) == params


@pytest.mark.parametrize(
    ("message", "id_"),
    [
        ({}, None),
        ({"id": 3}, 3),
        ({"method": 5, "id": 3}, 3),
        ({"method": "", "id": 3}, 3),
        ({"method": "x" * 257}, None),
        ({"jsonrpc": "1.0", "method": "m", "id": 3}, 3),
        ({"jsonrpc": None, "method": "m", "id": 3}, 3),
        ({"method": "m", "id": True}, None),
        ({"method": "m", "id": [1]}, None),
        ({"method": "m", "id": "x" * 257}, None),
        ({"method": "m", "params": "text", "id": 3}, 3),
        ({"method": "m", "params": None, "id": 3}, 3),
        ([], None),
        (None, None),
        ("text", None),
        (17, None),
    ],
)
def test_what_is_not_a_call_is_an_invalid_request_with_the_id_where_it_can_be_read(
    message: object, id_: object
) -> None:
    decoded = decode(message)
    assert isinstance(decoded, Invalid)
    assert (decoded.code, decoded.id) == (-32600, id_)
    assert json.loads(encode_invalid(decoded)) == {
        "jsonrpc": "2.0",
        "id": id_,
        "error": {"code": -32600, "message": decoded.message},
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[1,", b'{"method":', b"\xff", b"[" * 100_000, b'{"method":"m"} x'])
def test_what_is_not_json_is_a_parse_error(data: bytes) -> None:
    decoded = decode_message(data)
    assert isinstance(decoded, Invalid)
    assert decoded.code == -32700


def test_a_batch_keeps_order_and_judges_each_item_by_itself() -> None:
    decoded = decode(
        [{"jsonrpc": "2.0", "method": "a", "id": 1}, 5, {"jsonrpc": "2.0", "method": "b"}, {"method": "c"}]
    )
    assert isinstance(decoded, Batch)
    first, second, third, fourth = decoded.items
    assert isinstance(first, Call)
    assert isinstance(second, Invalid)
    assert isinstance(third, Call)
    assert isinstance(fourth, Call)
    assert (first.method, second.code, third.notification, fourth.notification) == ("a", -32600, True, False)


def test_a_batch_is_capped() -> None:
    full = decode([{"method": "m"}] * MAX_BATCH)
    assert isinstance(full, Batch)
    assert len(full.items) == MAX_BATCH
    assert isinstance(decode([{"method": "m"}] * (MAX_BATCH + 1)), Invalid)


@given(IDS, JSON_VALUES)
def test_results_and_batches_are_json(id_: str | int | None, result: object) -> None:
    one = encode_result(id_, result)
    assert json.loads(one) == {"jsonrpc": "2.0", "id": id_, "result": result}
    assert json.loads(encode_batch([one, one])) == [json.loads(one)] * 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wire_error("unknown-method", method="x"), -32601),
        (wire_error("invalid-params", method="x", fault="at root: no"), -32602),
        (wire_error("internal", incident="i"), -32603),
        (wire_error("invalid-frame", fault="x"), -32600),
        (wire_error("device-identity-required"), -32001),
        (wire_error("missing-scope", scope="operator.read"), -32002),
        (wire_error("shutting-down"), -32000),
        (WireError("SOMETHING_ELSE", "x"), -32000),
    ],
)
def test_errors_are_mapped_and_keep_their_own_fields(error: WireError, code: int) -> None:
    encoded = json.loads(encode_error(9, error))
    wire = error.to_wire()
    message = wire.pop("message")
    assert encoded == {"jsonrpc": "2.0", "id": 9, "error": {"code": code, "message": message, "data": wire}}


@given(JSON_VALUES, st.integers(1, 2**53))
def test_events_are_notifications_and_seq_is_spliced_into_their_params(payload: object, seq: int) -> None:
    encoded = encode_event("presence", payload, state_version={"presence": 1, "health": 1})
    plain = json.loads(encoded)
    assert plain == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": {"event": "presence", "payload": payload, "stateVersion": {"presence": 1, "health": 1}},
    }
    plain["params"]["seq"] = seq
    assert json.loads(splice_seq(encoded, seq)) == plain


@pytest.mark.parametrize(
    ("data", "dialect"),
    [
        (b'{"type":"req","id":"1","method":"connect"}', "openclaw"),
        (b'{"type":"event","event":"x"}', "openclaw"),
        (b'{"method":"agent.send","params":{}}', "jsonrpc"),
        (b'{"jsonrpc":"2.0"}', "jsonrpc"),
        (b'[{"method":"a"}]', "jsonrpc"),
        (b"[]", None),
        (b"[1]", None),
        (b"null", None),
        (b"{}", None),
        (b"\x00\x01", None),
        (b"", None),
    ],
)
def test_c15_the_first_frame_decides(data: bytes, dialect: str | None) -> None:
    assert sniff(data) == dialect


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value(data: bytes) -> None:
    assert isinstance(decode_message(data), Call | Invalid | Batch)
    assert sniff(data) in ("openclaw", "jsonrpc", None)


@given(st.lists(st.dictionaries(st.sampled_from(["id", "method", "params", "jsonrpc"]), JSON_VALUES), max_size=5))
def test_any_batch_has_one_verdict_for_each_item(items: list[dict[str, Any]]) -> None:
    decoded = decode(items)
    if items:
        assert isinstance(decoded, Batch)
        assert len(decoded.items) == len(items)
    else:
        assert isinstance(decoded, Invalid)
