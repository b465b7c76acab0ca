"""Texts that nobody may see: secrets, hashes, and maps whose values count as secrets.

Owns what cannot be a secret (the redaction marker, an unset reference, white space at an end). It must not compare or
store one. Invariant: a fault repeats no part of a secret, and of a map no value.
"""

from __future__ import annotations

import re
from typing import Any, Final

from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError

__all__ = ["bcrypt", "header_lines", "proxy_secret", "secret", "variables"]

_MIN_PROXY_SECRET: Final = 24
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d{2})\$[./A-Za-z0-9]{53}")
_BCRYPT_COST: Final = (4, 16)  # below, the format allows none; above, one check takes seconds


def secret(value: Any, path: str) -> str:
    """A secret as written: any text that cannot be an accident. Never repeated in the fault."""
    if isinstance(value, dict) and value.get("source") in {"file", "exec", "store"}:
        raise BadValueError(f'secret references of source "{value["source"]}" are not supported; use "${{NAME}}"')
    if not isinstance(value, str):
        raise BadValueError("must be text in quotes")
    if not value.strip():
        raise BadValueError("is empty", fix=f"openclaw config unset {path}")
    if MARKER in value:
        raise BadValueError(
            "is the redaction marker, not a secret", fix=f"openclaw config set {path} <the real secret>"
        )
    if value.startswith("${") and value.endswith("}"):
        raise BadValueError("looks like a reference to the environment but is none; names are letters, digits and _")
    if (
        value != value.strip()
        or len(value) > plain.MAX_TEXT
        or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value)
    ):
        raise BadValueError("has white space at an end, control characters, or is too long")
    return value


def bcrypt(value: Any, path: str) -> str:
    text = secret(value, path)
    match = _BCRYPT.fullmatch(text)
    if match is None:
        raise BadValueError("is not a bcrypt hash ($2a$, $2b$ or $2y$, 60 characters)")
    low, high = _BCRYPT_COST
    if not low <= int(match[1]) <= high:
        raise BadValueError(f"has a bcrypt cost outside {low} to {high}")
    return text


def proxy_secret(value: Any, path: str) -> str:
    text = secret(value, path)
    if len(text) < _MIN_PROXY_SECRET or not text.isascii():
        raise BadValueError(f"must be at least {_MIN_PROXY_SECRET} ASCII characters; make one: openssl rand -hex 32")
    return text


def header_lines(value: Any, path: str) -> dict[str, str]:
    """Headers of requests by name. Their values count as secrets: none is repeated in the fault."""
    named = plain.named(value, str)
    for name, text in named.items():
        if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name) is None:
            raise BadValueError("holds a name that no HTTP header can have")
        if not text.isascii() or MARKER in text or name.lower() in {"host", "content-length", "transfer-encoding"}:
            raise BadValueError(f"cannot be sent: {name}")
    return named


def variables(value: Any, path: str) -> dict[str, str]:
    """Environment variables of a program. Their values count as secrets."""
    named = plain.named(value, str)
    for name, text in named.items():
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name) is None or MARKER in text:
            raise BadValueError("must be names of environment variables and their values")
    return named
