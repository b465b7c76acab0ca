"""Law: whatever can be JSON can be a message, and comes back as the same value."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_gateway.protocol.pb import chat_pb2, connect_pb2, frames_pb2, nodes_pb2, system_pb2
from openclaw_gateway.protocol.protojson import NotJson, fill, read

MESSAGES: list[type[Message]] = [
    getattr(module, name)
    for module in (chat_pb2, connect_pb2, frames_pb2, nodes_pb2, system_pb2)
    for name, descriptor in module.DESCRIPTOR.message_types_by_name.items()
    if "more" in descriptor.fields_by_name
]
MEMBERS = sorted({field.json_name for message in MESSAGES for field in message.DESCRIPTOR.fields})

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 2.0**53, 1e308, 5e-324, math.nan, math.inf, -math.inf]),
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary().map(lambda data: base64.b64encode(data).decode()),
    st.sampled_from(["", "=", "QQ", "QQ==", "QR==", "Q Q==", "QQ==\n", "null", "{}", "\x00", "\u2028", "😀"]),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(texts, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(MEMBERS), texts), inner, max_size=6),
    ),
    max_leaves=24,
)
objects = st.dictionaries(st.one_of(st.sampled_from(MEMBERS), texts), values, max_size=12)


def canonical(value: Any) -> bytes:
    """Equal for equal values only: 1 and 1.0, 0.0 and -0.0, true and 1 differ."""
    return msgspec.json.encode(value, order="deterministic")


def heard_by_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def through(kind: type[Message], value: dict[Any, Any], *, strict: bool) -> dict[str, Any]:
    sent = kind()
    fill(sent, value)
    received = kind()
    received.ParseFromString(sent.SerializeToString())
    return read(received, strict=strict)


def test_there_are_messages_to_hold_the_law_against() -> None:
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.DESCRIPTOR.name)
@settings(max_examples=15)
@given(value=objects)
def test_s017_every_message_carries_every_object(kind: type[Message], value: dict[str, Any]) -> None:
    wanted = canonical(heard_by_json(value))
    assert canonical(through(kind, value, strict=False)) == wanted
    assert canonical(heard_by_json(through(kind, value, strict=True))) == wanted


def _class_of(descriptor: Any) -> type[Message]:
    return next(kind for kind in MESSAGES if kind.DESCRIPTOR.full_name == descriptor.full_name)


def _fitting(kind: type[Message]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose members have the kinds of their fields, or now and then another."""
    members: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.DESCRIPTOR.fields:
        fits: st.SearchStrategy[Any]
        if field.name == "more":
            continue
        if field.message_type is not None:
            fits = _fitting(_class_of(field.message_type))
        elif field.type == field.TYPE_BOOL:
            fits = st.booleans()
        elif field.type in {field.TYPE_INT64, field.TYPE_DOUBLE}:
            fits = numbers
        elif field.type == field.TYPE_BYTES and field.name.endswith("_json"):
            fits = values
        else:
            fits = texts
        fits = st.lists(fits, max_size=3) if field.is_repeated else fits
        members[field.json_name] = st.one_of(fits, fits, fits, leaves)
    return st.fixed_dictionaries({}, optional={**members, "somethingNew": values})


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.DESCRIPTOR.name)
@settings(max_examples=15)
@given(data=st.data())
def test_s017_values_in_their_own_fields_come_back_unchanged(kind: type[Message], data: st.DataObject) -> None:
    value = data.draw(_fitting(kind))
    wanted = canonical(heard_by_json(value))
    assert canonical(through(kind, value, strict=False)) == wanted
    assert canonical(heard_by_json(through(kind, value, strict=True))) == wanted


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (2**53 + 1, True),
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        (1.0, False),
        (True, False),
        (None, False),
        ("1", False),
    ],
)
def test_s017_what_does_not_fit_a_number_travels_as_json(value: Any, typed: bool) -> None:
    message = system_pb2.Tick()
    fill(message, {"ts": value})
    assert message.HasField("ts") == typed
    assert message.HasField("more") == (not typed)
    assert canonical(read(message, strict=False)) == canonical({"ts": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_s017_nan_and_infinities_are_null_as_in_json_and_refused_when_they_come_in(value: float) -> None:
    message = system_pb2.Health()
    fill(message, {"durationMs": value})
    assert read(message, strict=False) == {"durationMs": None} == heard_by_json({"durationMs": value})
    for strict in (True, False):
        with pytest.raises(NotJson, match="duration_ms"):
            read(system_pb2.Health(duration_ms=value), strict=strict)


def test_s017_files_travel_as_bytes_and_odd_base64_as_it_was_written() -> None:
    content = base64.b64encode(bytes(range(256))).decode()
    message = chat_pb2.ChatAttachment()
    fill(message, {"content": content, "mimeType": "image/png"})
    assert message.content == bytes(range(256))
    assert not message.HasField("more")
    assert read(message, strict=True) == {"content": content, "mimeType": "image/png"}
    for odd in ("QR==", "QQ", "QQ==\n", "Q-_="):
        message = chat_pb2.ChatAttachment()
        fill(message, {"content": odd})
        assert not message.HasField("content")
        assert read(message, strict=False) == {"content": odd}


def test_s017_absent_null_and_empty_stay_apart() -> None:
    entries: list[dict[str, Any]] = [
        {}, {"roles": None}, {"roles": []}, {"roles": ["a"]}, {"roles": [""]}, {"text": ""}, {"text": None},
    ]  # fmt: skip
    for value in entries:
        assert through(system_pb2.PresenceEntry, value, strict=False) == value
    messages: list[dict[str, Any]] = [
        {}, {"usage": None}, {"usage": {}}, {"content": [{}]}, {"content": []}, {"content": [None]},
    ]  # fmt: skip
    for value in messages:
        assert through(chat_pb2.ChatMessage, value, strict=False) == value


def test_s017_what_was_encoded_before_is_looked_into() -> None:
    message = connect_pb2.HelloSnapshot()
    fill(message, {"presence": msgspec.Raw(b'[{"host":"a"}]'), "health": msgspec.Raw(b'{"ok":true}')})
    assert message.presence[0].host == "a"
    assert message.health.ok
    deep = msgspec.Raw(b"[" * 5_000 + b"]" * 5_000)  # more than can be decoded here; it was checked where it came in
    message = connect_pb2.HelloSnapshot()
    fill(message, {"presence": deep})
    assert message.more == b'{"presence":' + bytes(deep) + b"}"


@pytest.mark.parametrize("value", ["\ud800", object(), {"a": {"b": object()}}, [object()]])
def test_s017_what_cannot_be_json_raises_as_json_does(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as json_says:
        msgspec.json.encode({"text": value})
    with pytest.raises(json_says.type):
        fill(system_pb2.PresenceEntry(), {"text": value})


@pytest.mark.parametrize(
    "more", [b"", b"[]", b"1", b"{", b'{"a":}', b'{"a":"\xff"}', b'\xff{"a":1}', b'{"ts":1}', b"[" * 100_000]
)
def test_v39_more_is_an_object_that_repeats_no_field(more: bytes) -> None:
    for strict in (True, False):
        with pytest.raises(NotJson, match=r"Tick\.more"):
            read(system_pb2.Tick(ts=1, more=more), strict=strict)


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b'"\xff"', b"1 2", b"[" * 100_000])
def test_v39_json_in_bytes_is_json(data: bytes) -> None:
    for strict in (True, False):
        with pytest.raises(NotJson, match=r"AgentEvent\.data_json: not JSON"):
            read(chat_pb2.AgentEvent(data_json=data), strict=strict)


def test_v39_a_field_that_is_not_known_is_a_fault_for_the_gateway_alone() -> None:
    newer = system_pb2.Tick.FromString(b"\x08\x01" + b"\xf8\x3f\x01")  # field 1023
    assert read(newer, strict=False) == {"ts": 1}
    with pytest.raises(NotJson, match="not known here"):
        read(newer, strict=True)
    inner = connect_pb2.ConnectParams()
    inner.client.MergeFromString(b"\xf8\x3f\x01")
    with pytest.raises(NotJson, match=r"ConnectParams.client: ClientInfo has a field"):
        read(inner, strict=True)
