"""Sealed invokes, the pure part (S096): what is bound, padded and read."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol import sealed
from openclaw_gateway.protocol.sealed import (
    MAX_LIFE_MS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    SKEW_MS,
    Envelope,
    ReplyBody,
    RequestBody,
    SealContext,
    SealFault,
    check_times,
    pad,
    read_answer,
    read_reply,
    read_reply_body,
    read_request,
    read_request_body,
    unpad,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
CONTEXTS = st.builds(
    SealContext,
    node_id=st.text(max_size=8),
    command=st.text(max_size=8),
    key=st.text(max_size=8),
    issued_at_ms=st.integers(0, 2000),
    expires_at_ms=st.integers(0, 2000),
    node_key=st.binary(min_size=32, max_size=32),
)
ENVELOPE = Envelope(key_id="0" * 32, issued_at_ms=1, expires_at_ms=2, box=bytes(100))


@given(CONTEXTS, CONTEXTS)
def test_s096_two_contexts_never_have_the_same_bytes(one: SealContext, other: SealContext) -> None:
    assert (one.encoded == other.encoded) == (one == other)


def test_s096_a_border_between_two_names_cannot_move() -> None:
    context = SealContext(node_id="ab", command="c", key="k", issued_at_ms=1, expires_at_ms=2, node_key=bytes(32))
    assert context.encoded != attrs.evolve(context, node_id="a", command="bc").encoded


def test_s096_a_request_a_reply_and_both_signatures_are_bound_to_different_words() -> None:
    context = SealContext(node_id="n", command="c", key="k", issued_at_ms=1, expires_at_ms=2, node_key=bytes(32))
    bound = [
        sealed.request_info(context), sealed.reply_info(context, b""), sealed.sender_payload(context, b"", ""),
        sealed.reply_payload(context, b"", ""),
    ]  # fmt: skip
    assert len(set(bound)) == 4
    # No other thing that a device signs begins like these (v3|…, openclaw-key-statement-v1|…).
    assert all(payload[4:].startswith(b"openclaw-sealed-invoke-v1 ") for payload in bound)


@given(st.binary(max_size=70_000))
def test_s096_padding_comes_off_and_shows_only_a_power_of_two(body: bytes) -> None:
    padded = pad(body, 1 << 20)
    assert unpad(padded) == body
    assert len(padded) >= 1024
    assert len(padded) & (len(padded) - 1) == 0
    assert len(padded) <= max(1024, 2 * (len(body) + 4))


@given(st.binary(max_size=1100) | st.binary(max_size=1020).map(lambda body: body + bytes(1024 - len(body))))
def test_s096_what_pad_did_not_make_is_refused_or_comes_from_one_body_only(padded: bytes) -> None:
    body = unpad(padded)
    assert body is None or pad(body, len(padded))[: 4 + len(body)] == padded[: 4 + len(body)]


def test_s096_padding_refuses_hidden_bytes_and_what_is_too_long() -> None:
    padded = pad(b"body", 1024)
    assert unpad(padded[:-1] + b"\1") is None
    assert unpad(padded[:-1]) is None
    assert unpad((1100).to_bytes(4, "big") + padded[4:]) is None
    assert len(pad(bytes(1020), 1024)) == 1024
    with pytest.raises(ValueError, match="1024 bytes"):
        pad(bytes(1021), 1024)


@given(JSON | st.fixed_dictionaries({"sealed": JSON}))
def test_s096_any_json_is_an_envelope_or_a_fault(value: object) -> None:
    assert isinstance(read_request(value), SealFault)
    assert isinstance(read_reply(value), SealFault)


@given(st.binary(max_size=300) | JSON.map(lambda value: pad(json.dumps(value).encode(), 1 << 20)))
def test_s096_any_bytes_inside_are_a_body_or_a_fault(padded: bytes) -> None:
    assert isinstance(read_request_body(padded), SealFault)
    assert isinstance(read_reply_body(padded), SealFault)


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_s096_any_text_is_an_answer_or_a_fault(text: str) -> None:
    answer = read_answer(text)
    assert isinstance(answer, SealFault) or set(answer) in ({"ok", "payload"}, {"ok", "error"})


@given(st.text(max_size=2000))
def test_s096_bodies_come_back_as_they_went(text: str) -> None:
    request = RequestBody(params_json=text, reply_key=bytes(32), public_key=b"\1" * 32, signature=b"\2" * 64)
    assert read_request_body(request.encode()) == request
    reply = ReplyBody(answer_json=text, signature=b"\3" * 64)
    assert read_reply_body(reply.encode()) == reply


def test_s096_the_envelope_comes_back_and_nothing_readable_stands_beside_it() -> None:
    wire = ENVELOPE.to_wire()
    assert read_request(wire) == ENVELOPE
    beside = {**wire, "runId": "r"}
    assert isinstance(read_request(beside), SealFault)
    assert read_request(beside, beside=frozenset({"runId"})) == ENVELOPE
    assert isinstance(read_request({**wire, "command": ["id"]}, beside=frozenset({"runId"})), SealFault)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2), ("v", True), ("v", "1"), ("keyId", "0" * 31), ("keyId", "G" * 32), ("keyId", 1), ("issuedAtMs", -1),
        ("issuedAtMs", True), ("issuedAtMs", 1.0), ("expiresAtMs", 2**53), ("box", ""), ("box", "A" * 64),
        ("box", "=" * 200), ("box", "a+b/" * 40), ("box", None), ("box", "é" * 200), ("extra", 1),
    ],
)  # fmt: skip
def test_s096_an_envelope_has_one_shape(member: str, value: object) -> None:
    inner = {**ENVELOPE.to_wire()["sealed"], member: value}
    fault = read_request({"sealed": inner})
    assert isinstance(fault, SealFault)
    assert fault.code == ("SEALED_UNSUPPORTED" if member == "v" else "SEALED_INVALID")


def test_s096_boxes_over_the_caps_are_refused_before_they_are_decoded() -> None:
    for most, read, wire in (
        (MAX_REQUEST_BYTES, read_request, lambda box: {"sealed": {**ENVELOPE.to_wire()["sealed"], "box": box}}),
        (MAX_REPLY_BYTES, read_reply, lambda box: {"sealed": {"v": 1, "box": box}}),
    ):
        assert not isinstance(read(wire(sealed.encode_box(bytes(most + 48)))), SealFault)
        assert isinstance(read(wire(sealed.encode_box(bytes(most + 52)))), SealFault)
    with pytest.raises(ValueError, match="bytes"):
        RequestBody(
            params_json="x" * MAX_REQUEST_BYTES, reply_key=bytes(32), public_key=bytes(32), signature=bytes(64)
        ).encode()


def test_s096_only_what_is_of_now_counts() -> None:
    now = 1_800_000_000_000
    assert check_times(now, now + 30_000, now) is None
    assert check_times(now + SKEW_MS, now + SKEW_MS + 1, now) is None
    assert check_times(now - 1 - SKEW_MS, now - SKEW_MS, now) is None
    for issued, expires, code in (
        (now + SKEW_MS + 1, now + SKEW_MS + 2, "SEALED_EXPIRED"),
        (now - SKEW_MS - 2, now - SKEW_MS - 1, "SEALED_EXPIRED"),
        (now, now, "SEALED_INVALID"),
        (now, now - 1, "SEALED_INVALID"),
        (now, now + MAX_LIFE_MS + 1, "SEALED_INVALID"),
    ):
        fault = check_times(issued, expires, now)
        assert fault is not None
        assert fault.code == code
