"""Reading what a service sent without trusting its shape.

Pure. Owns the look into foreign JSON: every function gives a value of its type or a neutral one.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from openclaw_gateway.models.provider import Reason, Trouble
from openclaw_gateway.protocol.wholetext import decode_whole

__all__ = ["decode", "dig", "reason_of_status", "text_of", "tokens"]

_CONTEXT: Final = re.compile(
    r"context[_ ]length|context window|maximum context|prompt is too long|too many (?:input )?tokens"
    r"|exceeds? the (?:maximum|limit).{0,40}tokens|input token count",
    re.IGNORECASE,
)
_decode: Final = msgspec.json.Decoder().decode


def decode(data: str | bytes) -> Any:
    """Raises `Trouble` (malformed)."""
    try:
        return decode_whole(_decode, data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Trouble("malformed", "not JSON") from exc


def dig(value: Any, *path: str | int) -> Any:
    """What lies at a path of keys and indexes; None where nothing does."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def text_of(value: Any, *path: str | int) -> str:
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def tokens(value: Any, *path: str | int) -> int:
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53 else 0


def reason_of_status(status: int, text: str) -> Reason:
    """What an HTTP status means where the body says nothing better (RFC 9110 section 15)."""
    if status in {400, 413, 422} and _CONTEXT.search(text):
        return "context_length"
    if status in {401, 403}:
        return "auth"
    if status == 402:
        return "billing"
    if status == 404:
        return "not_found"
    if status in {408, 504, 522, 524}:
        return "timeout"
    if status == 429:
        return "rate_limit"
    if status in {503, 529}:
        return "overloaded"
    if status >= 500:
        return "server"
    if status >= 400:
        return "bad_request"
    return "malformed"
