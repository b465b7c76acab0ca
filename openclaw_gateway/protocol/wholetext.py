"""Texts that are no Unicode: lone surrogates and broken UTF-8 become U+FFFD, wherever they come in.

Pure. Owns the mending of a text, of a plain value, and of JSON before it is read. A half of a surrogate pair can be
spelled in JSON (``"\\ud83d"``; RFC 8259 section 8.2 leaves open what that means) and held in a Python string, but it
has no UTF-8: it can be neither stored nor sent on. Services do send them, when they cut a text in the middle of an
emoji. It must not know where a text comes from.

Invariants: what is whole is handed back as it is, and costs a look; what is mended can be encoded, and mending it again
changes nothing; JSON keeps its structure: only what stands for a character is replaced; halves that belong together
become their character; what is over the limits is not mended, and whoever reads it finds it malformed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

__all__ = ["MAX_ESCAPES", "MAX_MENDED", "decode_whole", "mend_json", "whole", "whole_or_none", "whole_value"]

MAX_MENDED: Final = 16 * 1024 * 1024  # bytes of JSON
MAX_ESCAPES: Final = 200_000  # backslashes in it: each costs a step of a loop
MAX_DEPTH: Final = 100
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_T = TypeVar("_T")


def whole(text: str) -> str:
    """``text`` with U+FFFD for each half of a pair that stands alone."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def whole_or_none(text: str | None) -> str | None:
    return whole(text) if text is not None else None


def whole_value(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The same for every text in a plain value (lists, tuples and mappings, ``depth`` deep; None below that)."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole_value(key): whole_value(item, depth - 1) for key, item in value.items()} if depth else None
    if isinstance(value, list | tuple):
        return [whole_value(item, depth - 1) for item in value] if depth else None
    return value


def mend_json(data: bytes) -> bytes | None:
    """``data`` as UTF-8 without lone halves, raw or escaped; None where there is nothing to mend, or too much."""
    if len(data) > MAX_MENDED or data.count(b"\\") > MAX_ESCAPES:
        return None
    mended = data.decode("utf-8", "replace").encode()
    mended = _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], mended)
    return mended if mended != data else None


def decode_whole(decode: Callable[[bytes], _T], data: str | bytes | bytearray | memoryview) -> _T:
    """What ``decode`` (of msgspec) makes of JSON, mended where it cannot be read as it is. Raises what ``decode``
    raises."""
    given = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        return decode(given)  # type: ignore[arg-type] # msgspec takes every buffer
    except msgspec.ValidationError:
        raise  # it is JSON, of another shape
    except _FAULTS:
        mended = mend_json(bytes(given))
        if mended is None:
            raise
    return decode(mended)
