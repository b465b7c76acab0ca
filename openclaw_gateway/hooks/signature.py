"""Signatures of webhooks: HMAC-SHA256 in the spellings that services use, checked and made.

Owns the spellings. Pure: the time comes in as Unix seconds. Sources: GitHub's ``X-Hub-Signature-256`` (over the body);
Slack's ``v0=`` (over ``v0:<time>:<body>``); Stripe's ``t=...,v1=...`` (over ``<time>.<body>``); Standard Webhooks 1.0
(base64, over ``<id>.<time>.<body>``, several signatures while a secret is being changed).

Invariants: what can be refused by the headers alone is refused before a body is read (V47); digests are compared with
`hmac.compare_digest` (V15); a time of signing outside the tolerance is no signature, and what names a request for the
dedupe window is always something that was signed (V44): its id, else the signature itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = ["Claim", "Scheme", "SignatureRules", "key_of", "read_claim", "sign_headers", "signed_id"]

Scheme = Literal["body", "timestamped", "standard", "slack", "stripe"]

_MAX_SIGNATURES: Final = 8
_MAX_ID: Final = 256
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_TIME: Final = re.compile(r"[0-9]{1,12}")
_HEADERS: Final[Mapping[str, tuple[str, str, str]]] = {  # signature, time, id
    "body": ("x-hub-signature-256", "", ""),
    "timestamped": ("x-signature-256", "x-signature-timestamp", ""),
    "standard": ("webhook-signature", "webhook-timestamp", "webhook-id"),
    "slack": ("x-slack-signature", "x-slack-request-timestamp", ""),
    "stripe": ("stripe-signature", "", ""),
}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SignatureRules(Value):
    """How one sender signs. Names of headers in lower case; None: the scheme's own."""

    scheme: Scheme
    header: str | None = None
    timestamp_header: str | None = None
    id_header: str | None = None
    tolerance: int = 300  # seconds


@attrs.frozen(eq=False, repr=False)
class Claim(Value):
    """What the headers say: digests that may be the right one, the time and the id that were signed with the body."""

    digests: tuple[bytes, ...]
    timestamp: str = ""
    id: str = ""


def read_claim(rules: SignatureRules, headers: Mapping[str, str], now: float) -> Claim | None:
    """The claim in a request's headers (lower-case names); None where it can be no signature of now."""
    own = _HEADERS[rules.scheme]
    signature = headers.get(rules.header or own[0], "").strip()
    timestamp = headers.get(rules.timestamp_header or own[1], "").strip()
    id_ = headers.get(rules.id_header or own[2], "").strip()
    if rules.scheme == "stripe":
        fields = [part.strip().partition("=") for part in signature.split(",")[: _MAX_SIGNATURES + 1]]
        timestamp = next((value for key, _, value in fields if key == "t"), "")
        digests = [_hex(value) for key, _, value in fields if key == "v1"]
    elif rules.scheme == "standard":
        marked = [part.partition(",") for part in signature.split()[:_MAX_SIGNATURES]]
        digests = [_base64(value) for version, _, value in marked if version == "v1"]
    elif rules.scheme == "slack":
        digests = [_hex(signature.removeprefix("v0=")) if signature.startswith("v0=") else None]
    else:
        digests = [_hex(signature.removeprefix("sha256="))]
    found = tuple(digest for digest in digests if digest is not None)
    if not found:
        return None
    if rules.scheme == "body":
        return Claim(found)
    if _TIME.fullmatch(timestamp) is None or abs(now - int(timestamp)) > rules.tolerance:
        return None
    if rules.scheme == "standard" and not (0 < len(id_) <= _MAX_ID and id_.isprintable() and "." not in id_):
        return None
    return Claim(found, timestamp, id_ if rules.scheme == "standard" else "")


def signed_id(rules: SignatureRules, claim: Claim, secret: str, body: bytes) -> str | None:
    """What names the request, where ``secret`` signed it; None where it did not."""
    expected = _digest(rules, secret, body, claim.timestamp, claim.id)
    good = [hmac.compare_digest(digest, expected) for digest in claim.digests]
    if not any(good):
        return None
    return f"id:{claim.id}" if claim.id else expected.hex()


def sign_headers(rules: SignatureRules, secret: str, body: bytes, *, id_: str, now: int) -> dict[str, str]:
    """The headers with which a sender signs a request. ``now``: Unix seconds."""
    own = _HEADERS[rules.scheme]
    name, when, which = rules.header or own[0], rules.timestamp_header or own[1], rules.id_header or own[2]
    digest = _digest(rules, secret, body, str(now), id_)
    spelled = {
        "body": f"sha256={digest.hex()}",
        "timestamped": f"sha256={digest.hex()}",
        "slack": f"v0={digest.hex()}",
        "stripe": f"t={now},v1={digest.hex()}",
        "standard": "v1," + base64.b64encode(digest).decode(),
    }[rules.scheme]
    headers = {name: spelled}
    if rules.scheme in {"timestamped", "slack", "standard"}:
        headers[when] = str(now)
    if rules.scheme == "standard":
        headers[which] = id_
    return headers


def _digest(rules: SignatureRules, secret: str, body: bytes, timestamp: str, id_: str) -> bytes:
    before = {
        "body": "",
        "timestamped": f"{timestamp}.",
        "stripe": f"{timestamp}.",
        "slack": f"v0:{timestamp}:",
        "standard": f"{id_}.{timestamp}.",
    }[rules.scheme]
    key = key_of(secret) if rules.scheme == "standard" else secret.encode()
    return hmac.new(key, before.encode() + body, hashlib.sha256).digest()


def key_of(secret: str) -> bytes:
    """``whsec_<base64>`` → its bytes; any other text → the text."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def _hex(text: str) -> bytes | None:
    return bytes.fromhex(text) if _HEX.fullmatch(text) is not None else None


def _base64(text: str) -> bytes | None:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest if len(digest) == hashlib.sha256().digest_size else None
