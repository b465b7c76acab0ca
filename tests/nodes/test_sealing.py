"""Sealed invokes, the cryptography (S096): held against RFC 9180's vectors and a second implementation; every swap that
a gateway could make is refused."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.nodes.sealing import (
    OpenedRequest,
    SentRequest,
    open_reply,
    open_request,
    seal_reply,
    seal_request,
)
from openclaw_gateway.protocol.sealed import (
    MAX_REPLY_BYTES,
    Envelope,
    ReplyBody,
    RequestBody,
    SealContext,
    SealFault,
    encode_box,
    pad,
    read_reply,
    read_request,
    read_request_body,
    reply_info,
    reply_payload,
    request_info,
    sender_payload,
)
from tests.nodes import hpke_oracle

OPERATOR, NODE, OTHER = DeviceIdentity.generate(), DeviceIdentity.generate(), DeviceIdentity.generate()
KEY = X25519PrivateKey.generate()
PRIVATE, PUBLIC = KEY.private_bytes_raw(), KEY.public_key().public_bytes_raw()
CONTEXT = SealContext(
    node_id=NODE.device_id, command="system.run", key="key-1", issued_at_ms=1000, expires_at_ms=2000, node_key=PUBLIC
)
PARAMS = {"command": ["cat", "/secret/of/mine"]}


def raw(identity: DeviceIdentity) -> bytes:
    import base64

    return base64.urlsafe_b64decode(identity.public_key + "=")


def opened_of(sent: SentRequest) -> OpenedRequest:
    opened = open_request(PRIVATE, sent.context, sent.envelope)
    assert isinstance(opened, OpenedRequest), opened
    return opened


# --- RFC 9180 appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
# Source: https://www.rfc-editor.org/rfc/rfc9180.html#appendix-A.2.1

RFC: dict[str, bytes] = {
    name: bytes.fromhex(text)
    for name, text in {
        "info": "4f6465206f6e2061204772656369616e2055726e",
        "skEm": "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600",
        "pkRm": "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
        "skRm": "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        "enc": "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        "shared_secret": "0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7",
        "key": "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91",
        "base_nonce": "5c4d98150661b848853b547f",
        "pt": "4265617574792069732074727574682c20747275746820626561757479",
        "aad": "436f756e742d30",
        "ct": "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    }.items()
}


def test_s096_the_oracle_holds_the_vectors_of_rfc_9180() -> None:
    assert hpke_oracle.encap(RFC["pkRm"], RFC["skEm"]) == (RFC["shared_secret"], RFC["enc"])
    assert hpke_oracle.decap(RFC["enc"], RFC["skRm"]) == RFC["shared_secret"]
    assert hpke_oracle.key_schedule(RFC["shared_secret"], RFC["info"]) == (RFC["key"], RFC["base_nonce"])
    box = hpke_oracle.seal_base(RFC["pkRm"], RFC["pt"], RFC["info"], ephemeral=RFC["skEm"], aad=RFC["aad"])
    assert box == RFC["enc"] + RFC["ct"]
    assert hpke_oracle.open_base(RFC["skRm"], box, RFC["info"], RFC["aad"]) == RFC["pt"]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5))
def test_s096_what_we_seal_the_oracle_opens(params: dict[str, str]) -> None:
    sent = seal_request(OPERATOR, CONTEXT, params)
    padded = hpke_oracle.open_base(PRIVATE, sent.envelope.box, request_info(CONTEXT))
    assert read_request_body(padded) == read_request_body(padded)
    opened = opened_of(sent)
    assert (opened.params, opened.sender_id) == (params, OPERATOR.device_id)
    box = read_reply(seal_reply(NODE, opened, {"ok": True, "payload": params}))
    assert isinstance(box, bytes)
    hpke_oracle.open_base(sent.reply_key.private_bytes_raw(), box, reply_info(CONTEXT, sent.envelope.box))
    assert open_reply(sent, {"sealed": {"v": 1, "box": encode_box(box)}}, node_public_key=raw(NODE)) == {
        "ok": True, "payload": params
    }  # fmt: skip


def test_s096_what_the_oracle_seals_we_open() -> None:
    reply = X25519PrivateKey.generate()
    reply_key = reply.public_key().public_bytes_raw()
    signature = sign(OPERATOR, sender_payload(CONTEXT, reply_key, '{"a":1}'))
    body = RequestBody(params_json='{"a":1}', reply_key=reply_key, public_key=raw(OPERATOR), signature=signature)
    box = hpke_oracle.seal_base(PUBLIC, body.encode(), request_info(CONTEXT), ephemeral=os.urandom(32))
    opened = open_request(PRIVATE, CONTEXT, envelope(box))
    assert isinstance(opened, OpenedRequest), opened
    assert opened.params == {"a": 1}


def sign(identity: DeviceIdentity, payload: bytes) -> bytes:
    import base64

    return base64.urlsafe_b64decode(identity.sign(payload) + "==")


def envelope(box: bytes) -> Envelope:
    return Envelope(key_id="0" * 32, issued_at_ms=1000, expires_at_ms=2000, box=box)


# --- a gateway that lies


@pytest.mark.parametrize(
    "change",
    [
        {"command": "system.which"}, {"node_id": OTHER.device_id}, {"key": "key-2"}, {"issued_at_ms": 1001},
        {"expires_at_ms": 9000}, {"node_key": X25519PrivateKey.generate().public_key().public_bytes_raw()},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_s096_a_request_opens_for_nothing_but_what_it_was_sealed_for(change: dict[str, Any]) -> None:
    sent = seal_request(OPERATOR, CONTEXT, PARAMS)
    fault = open_request(PRIVATE, attrs.evolve(CONTEXT, **change), sent.envelope)
    assert isinstance(fault, SealFault)
    assert "sealed for another node, command, key or time" in fault.message


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_s096_a_changed_or_cut_box_does_not_open(data: st.DataObject) -> None:
    sent = seal_request(OPERATOR, CONTEXT, PARAMS)
    box = sent.envelope.box
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(box) - 1))
        changed = box[:at] + bytes([box[at] ^ data.draw(st.integers(1, 255))]) + box[at + 1 :]
    else:
        changed = box[: data.draw(st.integers(0, len(box) - 1))]
    assert isinstance(open_request(PRIVATE, CONTEXT, envelope(changed)), SealFault)


def test_s096_nobody_speaks_for_another_operator() -> None:
    """Whoever knows the node's public key can seal; only the operator can sign."""
    reply_key = X25519PrivateKey.generate().public_key().public_bytes_raw()
    payload = sender_payload(CONTEXT, reply_key, "{}")
    for signature in (sign(OTHER, payload), bytes(64), sign(OPERATOR, payload + b"x")):
        body = RequestBody(params_json="{}", reply_key=reply_key, public_key=raw(OPERATOR), signature=signature)
        box = hpke_oracle.seal_base(PUBLIC, body.encode(), request_info(CONTEXT), ephemeral=os.urandom(32))
        fault = open_request(PRIVATE, CONTEXT, envelope(box))
        assert isinstance(fault, SealFault)
        assert "signature" in fault.message


def test_s096_a_node_cannot_pass_an_opened_request_on_as_the_operators() -> None:
    """Surreptitious forwarding: the signature names the node and its key, so it holds nowhere else."""
    body = read_request_body(
        hpke_oracle.open_base(PRIVATE, seal_request(OPERATOR, CONTEXT, PARAMS).envelope.box, request_info(CONTEXT))
    )
    assert isinstance(body, RequestBody)
    victim = X25519PrivateKey.generate()
    there = attrs.evolve(CONTEXT, node_id=OTHER.device_id, node_key=victim.public_key().public_bytes_raw())
    box = hpke_oracle.seal_base(there.node_key, body.encode(), request_info(there), ephemeral=os.urandom(32))
    fault = open_request(victim.private_bytes_raw(), there, envelope(box))
    assert isinstance(fault, SealFault)
    assert "signature" in fault.message


def test_s096_a_reply_answers_its_own_request_only() -> None:
    one, two = seal_request(OPERATOR, CONTEXT, PARAMS), seal_request(OPERATOR, CONTEXT, PARAMS)
    answer = seal_reply(NODE, opened_of(one), {"ok": True, "payload": 1})
    assert open_reply(one, answer, node_public_key=raw(NODE)) == {"ok": True, "payload": 1}
    assert isinstance(open_reply(two, answer, node_public_key=raw(NODE)), SealFault)
    # With the key of the other request too: what it is bound to decides.
    mixed = attrs.evolve(two, reply_key=one.reply_key)
    fault = open_reply(mixed, answer, node_public_key=raw(NODE))
    assert isinstance(fault, SealFault)
    assert "answers another request" in fault.message  # HPKE's info says so already, before the signature does


def test_s096_a_reply_that_the_node_did_not_sign_is_refused() -> None:
    sent = seal_request(OPERATOR, CONTEXT, PARAMS)
    fault = open_reply(sent, seal_reply(OTHER, opened_of(sent), {"ok": True, "payload": 1}), node_public_key=raw(NODE))
    assert isinstance(fault, SealFault)
    assert "not the node that signed" in fault.message


def test_s096_a_reply_with_a_borrowed_signature_is_refused() -> None:
    sent = seal_request(OPERATOR, CONTEXT, PARAMS)
    opened = opened_of(sent)
    signature = sign(NODE, reply_payload(CONTEXT, sent.envelope.box, '{"ok":true,"payload":1}'))
    body = ReplyBody(answer_json='{"ok":true,"payload":2}', signature=signature)
    info = reply_info(CONTEXT, sent.envelope.box)
    box = hpke_oracle.seal_base(opened.reply_key, body.encode(), info, ephemeral=os.urandom(32))
    fault = open_reply(sent, {"sealed": {"v": 1, "box": encode_box(box)}}, node_public_key=raw(NODE))
    assert isinstance(fault, SealFault)
    assert "not the node that signed" in fault.message


def test_s096_readable_or_cut_answers_are_none() -> None:
    sent = seal_request(OPERATOR, CONTEXT, PARAMS)
    answer = seal_reply(NODE, opened_of(sent), {"ok": True, "payload": 1})
    for payload in (
        None, {}, {"exitCode": 0}, {**answer, "exitCode": 0}, {"sealed": answer["sealed"]["box"]},
        {"sealed": {"v": 1, "box": answer["sealed"]["box"][:-4]}},
    ):  # fmt: skip
        assert isinstance(open_reply(sent, payload, node_public_key=raw(NODE)), SealFault)


def test_s096_sizes_are_capped_and_lengths_hidden() -> None:
    lengths = {len(seal_request(OPERATOR, CONTEXT, {"word": "x" * n}).envelope.box) for n in range(1, 400, 7)}
    assert len(lengths) == 1
    with pytest.raises(ValueError, match="bytes"):
        seal_request(OPERATOR, CONTEXT, {"word": "x" * 600_000})
    opened = opened_of(seal_request(OPERATOR, CONTEXT, {}))
    with pytest.raises(ValueError, match="bytes"):
        seal_reply(NODE, opened, {"ok": True, "payload": "x" * MAX_REPLY_BYTES})
    wire = seal_request(OPERATOR, CONTEXT, {"word": "x" * 250_000}).envelope.to_wire()
    assert isinstance(read_request(wire), Envelope)


def test_s096_a_key_of_small_order_is_never_sealed_to() -> None:
    with pytest.raises(ValueError, match="small order"):
        seal_request(OPERATOR, attrs.evolve(CONTEXT, node_key=bytes(32)), {})
    body = RequestBody(
        params_json="{}", reply_key=bytes(32), public_key=raw(OPERATOR),
        signature=sign(OPERATOR, sender_payload(CONTEXT, bytes(32), "{}")),
    )  # fmt: skip
    box = hpke_oracle.seal_base(PUBLIC, body.encode(), request_info(CONTEXT), ephemeral=os.urandom(32))
    fault = open_request(PRIVATE, CONTEXT, envelope(box))
    assert isinstance(fault, SealFault)
    assert "small order" in fault.message


@given(st.binary(max_size=400))
@settings(max_examples=40, deadline=None)
def test_s096_any_bytes_inside_a_box_are_a_fault(body: bytes) -> None:
    padded = pad(body, 1 << 20)
    box = hpke_oracle.seal_base(PUBLIC, padded, request_info(CONTEXT), ephemeral=b"\7" * 32)
    assert isinstance(open_request(PRIVATE, CONTEXT, envelope(box)), SealFault)
