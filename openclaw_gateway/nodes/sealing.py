"""Sealing and opening: the cryptography of sealed invokes, for the operator's side and the node's.

Owns the calls into `cryptography` (HPKE base mode, RFC 9180; Ed25519, RFC 8032), imported when the first thing is
sealed. It must not know sockets, files, clocks or policies; `protocol.sealed` says what is bound to what. One sealing
takes some 100 microseconds and 10 more for each 10 KB.

Invariants: a request opens only with the context it was sealed for and only if its sender signed that very context; a
reply opens only for the request it answers and only if the node that was asked signed it; what does not open is a
`SealFault`, never an exception.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from openclaw_gateway.protocol.keystatement import is_small_order
from openclaw_gateway.protocol.sealed import (
    MEMBER,
    VERSION,
    Envelope,
    ReplyBody,
    RequestBody,
    SealContext,
    SealFault,
    encode_box,
    key_id,
    read_answer,
    read_reply,
    read_reply_body,
    read_request_body,
    reply_info,
    reply_payload,
    request_info,
    sender_payload,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from openclaw_gateway.client.identity import DeviceIdentity

__all__ = ["OpenedRequest", "SentRequest", "open_reply", "open_request", "seal_reply", "seal_request"]

_WRONG: Final = "it does not open: it was sealed for another node, command, key or time, or was changed on the way"


@attrs.frozen
class SentRequest:
    """What an operator keeps to open the answer: the context, the box and the key made for this one request."""

    context: SealContext
    envelope: Envelope
    reply_key: X25519PrivateKey = attrs.field(repr=False)


@attrs.frozen
class OpenedRequest:
    """What a node has of a request. ``params`` is decoded; ``sender_id`` is the device id that signed."""

    context: SealContext
    box: bytes = attrs.field(repr=False)
    params: Any = attrs.field(repr=False)
    sender_id: str
    reply_key: bytes


def seal_request(identity: DeviceIdentity, context: SealContext, params: Any) -> SentRequest:
    """Seal ``params`` (what msgspec can encode) for the node of ``context``. Raises ValueError over the cap of
    `MAX_REQUEST_BYTES`, or for a node key that is no key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    if is_small_order(context.node_key):
        raise ValueError("the node's key is a point of small order")
    params_json = msgspec.json.encode(params).decode()
    reply_key = X25519PrivateKey.generate()
    reply_public = reply_key.public_key().public_bytes_raw()
    body = RequestBody(
        params_json=params_json,
        reply_key=reply_public,
        public_key=_raw(identity.public_key),
        signature=_raw(identity.sign(sender_payload(context, reply_public, params_json))),
    )
    node_key = X25519PublicKey.from_public_bytes(context.node_key)
    box = _suite().encrypt(body.encode(), node_key, info=request_info(context))
    envelope = Envelope(
        key_id=key_id(context.node_key),
        issued_at_ms=context.issued_at_ms,
        expires_at_ms=context.expires_at_ms,
        box=box,
    )
    return SentRequest(context, envelope, reply_key)


def open_request(private_key: bytes, context: SealContext, envelope: Envelope) -> OpenedRequest | SealFault:
    """Open what came for the node whose X25519 key (raw, 32 bytes) that is. Times are not looked at."""
    padded = _open(private_key, envelope.box, request_info(context))
    if padded is None:
        return SealFault("SEALED_INVALID", _WRONG)
    body = read_request_body(padded)
    if isinstance(body, SealFault):
        return body
    if not _signed(body.public_key, body.signature, sender_payload(context, body.reply_key, body.params_json)):
        return SealFault("SEALED_INVALID", "the sender's signature does not fit what it sealed")
    if is_small_order(body.reply_key):
        return SealFault("SEALED_INVALID", "the key for the answer is a point of small order")
    try:
        params = msgspec.json.decode(body.params_json)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return SealFault("SEALED_INVALID", "the parameters inside are not JSON")
    return OpenedRequest(context, envelope.box, params, body.sender_id, body.reply_key)


def seal_reply(identity: DeviceIdentity, opened: OpenedRequest, answer: dict[str, Any]) -> dict[str, Any]:
    """The payload that answers ``opened``; ``answer`` is ``{ok, payload}`` or ``{ok, error}``. Raises ValueError over
    the cap of `MAX_REPLY_BYTES`."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    answer_json = msgspec.json.encode(answer).decode()
    signature = _raw(identity.sign(reply_payload(opened.context, opened.box, answer_json)))
    body = ReplyBody(answer_json=answer_json, signature=signature)
    reply_key = X25519PublicKey.from_public_bytes(opened.reply_key)
    box = _suite().encrypt(body.encode(), reply_key, info=reply_info(opened.context, opened.box))
    return {MEMBER: {"v": VERSION, "box": encode_box(box)}}


def open_reply(sent: SentRequest, payload: object, *, node_public_key: bytes) -> dict[str, Any] | SealFault:
    """The answer to what was sent: ``{ok, payload}`` or ``{ok, error}``. ``node_public_key``: the node's Ed25519
    identity, raw."""
    box = read_reply(payload)
    if isinstance(box, SealFault):
        return box
    padded = _open(sent.reply_key.private_bytes_raw(), box, reply_info(sent.context, sent.envelope.box))
    if padded is None:
        return SealFault("SEALED_INVALID", "it does not open: it answers another request, or was changed on the way")
    body = read_reply_body(padded)
    if isinstance(body, SealFault):
        return body
    if not _signed(node_public_key, body.signature, reply_payload(sent.context, sent.envelope.box, body.answer_json)):
        return SealFault("SEALED_INVALID", "it was not the node that signed the answer")
    return read_answer(body.answer_json)


def _suite() -> Any:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _open(private_key: bytes, box: bytes, info: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        opened: bytes = _suite().decrypt(box, X25519PrivateKey.from_private_bytes(private_key), info=info)
    except (InvalidTag, ValueError):
        return None
    return opened


def _signed(public_key: bytes, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
