"""Sealed invokes: what an operator and a node say to each other through a gateway that can read neither (S096).

Owns the envelope, what it is bound to, the bodies inside, padding and freshness. Pure: values and ``now`` in, values
or a `SealFault` out. It must not encrypt, know keys on disk or remember what it has seen: `nodes.sealing` does the
first (HPKE, RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305), `nodes.host.replays` the
last.

On the wire, in ``params`` of ``node.invoke`` (a gateway adds ``runId`` beside it for system.run):

    {"sealed": {"v": 1, "keyId": …, "issuedAtMs": …, "expiresAtMs": …, "box": …}}

and in the ``payload`` of the answer ``{"sealed": {"v": 1, "box": …}}``. ``box`` is base64url of HPKE's enc and
ciphertext. A request's body names its sender and carries that identity's Ed25519 signature over the context, so that
an opened box cannot be sealed again for another node or under another command; the answer goes to a key that was made
for this one request and carries the node's signature.

Invariants: everything a gateway could exchange (node, command, idempotency key, both times, the node's key) goes into
HPKE's ``info``, each part with its length before it, so that no two contexts have the same bytes; a reply is bound to
the very bytes of its request; sizes are capped before anything is decoded; a body's length shows only as a power of
two; any bytes give a value or a `SealFault`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.protocol.device import decode_base64url, device_id_of
from openclaw_gateway.value import Value

__all__ = [
    "CAPABILITY",
    "MAX_LIFE_MS",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "MEMBER",
    "SKEW_MS",
    "VERSION",
    "Envelope",
    "ReplyBody",
    "RequestBody",
    "SealContext",
    "SealFault",
    "check_times",
    "decode_box",
    "encode_box",
    "is_sealed",
    "key_id",
    "pad",
    "read_answer",
    "read_reply",
    "read_reply_body",
    "read_request",
    "read_request_body",
    "reply_info",
    "reply_payload",
    "request_info",
    "sender_payload",
    "unpad",
]

CAPABILITY: Final = "sealed-invoke.v1"
MEMBER: Final = "sealed"
VERSION: Final = 1
MAX_REQUEST_BYTES: Final = 512 * 1024  # of a padded body
MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
MAX_LIFE_MS: Final = 3_600_000  # as long as an invoke may last
SKEW_MS: Final = 120_000  # how far the clocks of operator and node may be apart
OVERHEAD_BYTES: Final = 48  # HPKE's enc and the AEAD's tag
_LEAST: Final = 1024
_LENGTH_BYTES: Final = 4
_MAX_MS: Final = 2**53
_MAX_NAME: Final = 256

_REQUEST: Final = b"openclaw-sealed-invoke-v1 request"
_REPLY: Final = b"openclaw-sealed-invoke-v1 reply"
# Words that no other signature of a device begins with (`protocol.device`, `protocol.keystatement`).
_SENDER: Final = b"openclaw-sealed-invoke-v1 sender"
_NODE: Final = b"openclaw-sealed-invoke-v1 node"


@attrs.frozen(eq=False, repr=False)
class SealFault(Value):
    """Why something sealed is refused: ``code`` as a node answers it, ``message`` for a person."""

    code: str
    message: str


def _invalid(message: str) -> SealFault:
    return SealFault("SEALED_INVALID", message)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SealContext(Value):
    """What a request is bound to. ``node_key``: the 32 bytes of the node's X25519 key; times in Unix ms by the
    operator's clock; ``key`` is the idempotency key."""

    node_id: str
    command: str
    key: str
    issued_at_ms: int
    expires_at_ms: int
    node_key: bytes

    @property
    def encoded(self) -> bytes:
        times = (str(self.issued_at_ms).encode(), str(self.expires_at_ms).encode())
        names = (self.node_id, self.command, self.key)
        return _bind(b"context", *(_utf8(name) for name in names), *times, self.node_key)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Envelope(Value):
    """A request as a gateway sees it. ``box``: HPKE's enc and ciphertext."""

    key_id: str
    issued_at_ms: int
    expires_at_ms: int
    box: bytes = attrs.field(repr=False)

    def to_wire(self) -> dict[str, Any]:
        return {
            MEMBER: {
                "v": VERSION,
                "keyId": self.key_id,
                "issuedAtMs": self.issued_at_ms,
                "expiresAtMs": self.expires_at_ms,
                "box": encode_box(self.box),
            }
        }


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestBody(Value):
    """What is inside of a request. ``params_json``: the parameters; ``reply_key``: where the answer is sealed to;
    ``public_key`` and ``signature``: the sender's Ed25519 identity and its word for all of it."""

    params_json: str = attrs.field(repr=False)
    reply_key: bytes
    public_key: bytes
    signature: bytes

    @property
    def sender_id(self) -> str:
        """The device id of who signed; believed only after the signature was checked."""
        return device_id_of(self.public_key)

    def encode(self) -> bytes:
        """Padded. Raises ValueError over `MAX_REQUEST_BYTES`."""
        body = {
            "paramsJSON": self.params_json,
            "replyKey": _b64(self.reply_key),
            "publicKey": _b64(self.public_key),
            "signature": _b64(self.signature),
        }
        return pad(json.dumps(body, separators=(",", ":")).encode("ascii"), MAX_REQUEST_BYTES)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReplyBody(Value):
    """What is inside of an answer: ``{ok, payload}`` or ``{ok, error}`` as JSON, and the node's word for it."""

    answer_json: str = attrs.field(repr=False)
    signature: bytes

    def encode(self) -> bytes:
        """Padded. Raises ValueError over `MAX_REPLY_BYTES`."""
        body = {"answerJSON": self.answer_json, "signature": _b64(self.signature)}
        return pad(json.dumps(body, separators=(",", ":")).encode("ascii"), MAX_REPLY_BYTES)


# --- what things are bound to


def _bind(label: bytes, *parts: bytes) -> bytes:
    """One text for one list of parts: each with its length before it."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def request_info(context: SealContext) -> bytes:
    """HPKE's ``info`` of a request."""
    return _bind(_REQUEST, context.encoded)


def reply_info(context: SealContext, box: bytes) -> bytes:
    """HPKE's ``info`` of the answer to the request whose box that was."""
    return _bind(_REPLY, context.encoded, hashlib.sha256(box).digest())


def sender_payload(context: SealContext, reply_key: bytes, params_json: str) -> bytes:
    """What the sender signs: for whom, which command, where the answer goes and with what."""
    return _bind(_SENDER, context.encoded, reply_key, hashlib.sha256(_utf8(params_json)).digest())


def reply_payload(context: SealContext, box: bytes, answer_json: str) -> bytes:
    """What the node signs: which request, and what it answers."""
    digests = (hashlib.sha256(box).digest(), hashlib.sha256(_utf8(answer_json)).digest())
    return _bind(_NODE, context.encoded, *digests)


def key_id(node_key: bytes) -> str:
    """Which of a node's keys a request was sealed to: 32 hex digits of its SHA-256."""
    return hashlib.sha256(node_key).hexdigest()[:32]


# --- padding


def pad(body: bytes, most: int) -> bytes:
    """Length, body, zeros: to a power of two, at least 1024. Raises ValueError where that is over ``most``."""
    size = max(_LEAST, 1 << (len(body) + _LENGTH_BYTES - 1).bit_length())
    if size > most:
        raise ValueError(f"over {most} bytes with its padding")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body + bytes(size - _LENGTH_BYTES - len(body))


def unpad(padded: bytes) -> bytes | None:
    """What `pad` was given; None where it was not made by `pad`."""
    size = len(padded)
    if size < _LEAST or size & (size - 1):
        return None
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    if length > size - _LENGTH_BYTES or any(padded[_LENGTH_BYTES + length :]):
        return None
    return padded[_LENGTH_BYTES : _LENGTH_BYTES + length]


# --- reading


def is_sealed(value: object) -> bool:
    """Whether parameters or a payload claim to be sealed."""
    return isinstance(value, Mapping) and MEMBER in value


def encode_box(box: bytes) -> str:
    return _b64(box)


def decode_box(text: object, most: int) -> bytes | None:
    """Strict base64url of at most ``most`` bytes of body and HPKE's own."""
    if not isinstance(text, str) or not text.isascii() or len(text) > (most + OVERHEAD_BYTES) * 4 // 3 + 2:
        return None
    size = len(text) * 3 // 4
    return decode_base64url(text, size) if size > OVERHEAD_BYTES else None


def read_request(params: object, *, beside: frozenset[str] = frozenset()) -> Envelope | SealFault:
    """The envelope in decoded parameters; ``beside``: members that may stand next to it."""
    if not isinstance(params, Mapping) or not set(params) <= {MEMBER, *beside}:
        return _invalid("next to sealed parameters stands something readable")
    found = params.get(MEMBER)
    if not isinstance(found, Mapping) or set(found) != {"v", "keyId", "issuedAtMs", "expiresAtMs", "box"}:
        return _invalid("sealed must be an object with exactly v, keyId, issuedAtMs, expiresAtMs and box")
    if found["v"] != VERSION or isinstance(found["v"], bool):
        return SealFault("SEALED_UNSUPPORTED", f"only version {VERSION} of sealed invokes is known here")
    times = (found["issuedAtMs"], found["expiresAtMs"])
    if not all(isinstance(at, int) and not isinstance(at, bool) and 0 <= at < _MAX_MS for at in times):
        return _invalid("issuedAtMs and expiresAtMs must be Unix milliseconds")
    name = found["keyId"]
    if not isinstance(name, str) or len(name) != 32 or set(name) - set("0123456789abcdef"):
        return _invalid("keyId must be 32 hex digits")
    box = decode_box(found["box"], MAX_REQUEST_BYTES)
    if box is None:
        return _invalid(f"box must be base64url of at most {MAX_REQUEST_BYTES} bytes")
    return Envelope(key_id=name, issued_at_ms=times[0], expires_at_ms=times[1], box=box)


def read_reply(payload: object) -> bytes | SealFault:
    """The box in a decoded payload."""
    if not isinstance(payload, Mapping) or set(payload) != {MEMBER}:
        return _invalid("the answer is not sealed")
    found = payload[MEMBER]
    if not isinstance(found, Mapping) or set(found) != {"v", "box"} or found["v"] != VERSION:
        return _invalid("sealed must be an object with exactly v and box")
    box = decode_box(found["box"], MAX_REPLY_BYTES)
    return box if box is not None else _invalid(f"box must be base64url of at most {MAX_REPLY_BYTES} bytes")


def read_request_body(padded: bytes) -> RequestBody | SealFault:
    """What was inside of a request's box, its signature not checked yet."""
    body = _members(padded, {"paramsJSON", "replyKey", "publicKey", "signature"})
    if body is None:
        return _invalid("what is sealed is not a request")
    reply, public = decode_base64url(body["replyKey"], 32), decode_base64url(body["publicKey"], 32)
    signature = decode_base64url(body["signature"], 64)
    if reply is None or public is None or signature is None:
        return _invalid("a key or the signature inside is not base64url")
    return RequestBody(params_json=body["paramsJSON"], reply_key=reply, public_key=public, signature=signature)


def read_reply_body(padded: bytes) -> ReplyBody | SealFault:
    """What was inside of an answer's box, its signature not checked yet."""
    body = _members(padded, {"answerJSON", "signature"})
    signature = decode_base64url(body["signature"], 64) if body is not None else None
    if body is None or signature is None:
        return _invalid("what is sealed is not an answer")
    return ReplyBody(answer_json=body["answerJSON"], signature=signature)


def read_answer(answer_json: str) -> dict[str, Any] | SealFault:
    """The answer inside of a believed reply: ``{ok: true, payload}`` or ``{ok: false, error: {code, message}}``."""
    answer = _loads(answer_json)
    if not isinstance(answer, dict):
        return _invalid("the answer inside is not an object")
    if answer.get("ok") is True and set(answer) == {"ok", "payload"}:
        return answer
    error = answer.get("error")
    if answer.get("ok") is not False or not isinstance(error, dict):
        return _invalid("the answer inside is neither a result nor an error")
    if not isinstance(error.get("code"), str) or not isinstance(error.get("message"), str):
        return _invalid("the error inside has no code or message")
    return answer


def check_times(issued_at_ms: int, expires_at_ms: int, now_ms: int) -> SealFault | None:
    """Whether a request is of now, by a clock that may be `SKEW_MS` from the operator's."""
    if not 0 < expires_at_ms - issued_at_ms <= MAX_LIFE_MS:
        return _invalid(f"a sealed request lives at most {MAX_LIFE_MS // 60_000} minutes")
    if issued_at_ms > now_ms + SKEW_MS:
        ahead = (issued_at_ms - now_ms) // 1000
        return SealFault("SEALED_EXPIRED", f"sealed {ahead} s in this node's future: set the clocks of both machines")
    if now_ms > expires_at_ms + SKEW_MS:
        past = (now_ms - expires_at_ms) // 1000
        return SealFault("SEALED_EXPIRED", f"it expired {past} s ago by this node's clock: send it again")
    return None


def _members(padded: bytes, names: set[str]) -> dict[str, str] | None:
    """A body's JSON object with exactly these members, all texts."""
    raw = unpad(padded)
    body = _loads(raw) if raw is not None else None
    if not isinstance(body, dict) or set(body) != names:
        return None
    return body if all(isinstance(text, str) for text in body.values()) else None


def _loads(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
