"""The audit trail's chain: how a row becomes a line that holds on to the one before, and what makes a line whole.

Owns the canonical form of a line and its check. Pure: no files, no clock. It must not know what may be recorded
(`ops.auditrows`) nor what a trail as a whole is worth (`ops.auditwalk`).

Theory of operation. A line is one JSON object without white space, members in the order of `auditrows.FIELDS`, then
``prev`` and ``hash``. ``hash`` is the SHA-256 of the line's bytes without the member ``hash`` itself; ``prev`` is the
hash of the line before (64 zeros for the first). The bytes are what is hashed, so any changed byte shows, white space
too. What a chain cannot show by itself, a tail that was cut off, shows by the `Head`, which is kept elsewhere (in the
store).

Invariant: no line is longer than a reader takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.value import Value

__all__ = ["GENESIS", "MAX_LINE_BYTES", "Head", "Links", "check_line", "links_of", "read_row", "seal"]

GENESIS: Final = "0" * 64
MAX_LINE_BYTES: Final = 65_536
MAX_SHORT: Final = 256

_encode = msgspec.json.Encoder().encode
_HASH_HEAD: Final = b',"hash":"'
_HASH_TAIL: Final = b'"}'
_SUFFIX: Final = len(_HASH_HEAD) + 64 + len(_HASH_TAIL)


@attrs.frozen(eq=False, repr=False)
class Head(Value):
    """How far a chain goes: the number and hash of its last row. ``seq`` 0: nothing yet."""

    seq: int = 0
    hash: str = GENESIS


def seal(row: Mapping[str, object], head: Head) -> tuple[bytes, Head]:
    """The line that follows ``head``, with its line end, and the new head."""
    seq = head.seq + 1
    body = _encode({"seq": seq, **row, "prev": head.hash})
    if len(body) > MAX_LINE_BYTES - _SUFFIX:
        # Only escaping can blow a row up like this; what a peer sends must not make a line that no reader takes.
        short = {name: _shortened(value) for name, value in row.items() if not isinstance(value, list)}
        short["fields_dropped"] = len(row) - len(short)
        body = _encode({"seq": seq, **short, "prev": head.hash})
    digest = hashlib.sha256(body).hexdigest()
    return b"%b%b%b%b\n" % (body[:-1], _HASH_HEAD, digest.encode(), _HASH_TAIL), Head(seq, digest)


def _shortened(value: object) -> object:
    return value[:MAX_SHORT] if isinstance(value, str) else value


class Links(msgspec.Struct):
    """What the check needs of a row."""

    seq: int
    action: str
    prev: str
    hash: str
    first_seq: Any = None
    missing_to: Any = None


_links = msgspec.json.Decoder(Links).decode
_any = msgspec.json.Decoder(dict[str, Any]).decode


def read_row(line: bytes) -> dict[str, Any] | None:
    """A line as a mapping; None where it is not one. Says nothing about the chain."""
    try:
        return _any(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def check_line(line: bytes) -> Head | None:
    """The head that a line (without its end) makes, if the line is whole in itself; None where it is not."""
    links = links_of(line)
    return Head(links.seq, links.hash) if isinstance(links, Links) else None


def links_of(line: bytes) -> Links | str:
    """The row's links if its bytes fit its hash, else what is wrong in a few words."""
    if len(line) > MAX_LINE_BYTES:
        return "a line that is too long"
    try:
        links = _links(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "a line that is no row"
    at = len(line) - _SUFFIX
    well_formed = at > 0 and line[at : at + len(_HASH_HEAD)] == _HASH_HEAD and line.endswith(_HASH_TAIL)
    if not well_formed or hashlib.sha256(line[:at] + b"}").hexdigest() != links.hash:
        return f"row {links.seq} with other content (its hash does not fit)"
    return links
