"""RFC 7239's ``Forwarded`` header, read strictly.

Pure. Owns the grammar of section 4 (elements, pairs, quoted strings) and of node identifiers (section 6). It must not
know which proxies are trusted: `policy.locality` walks what comes out. Invariants: a header that breaks the grammar
anywhere is unreadable as a whole, because a proxy appends to what a client began, and a quote that the client left
open would swallow what the proxy wrote; nothing obfuscated, ``unknown`` or with a bad port is an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from openclaw_gateway.policy.addresses import canonical_text
from openclaw_gateway.value import Value

__all__ = ["UNKNOWN", "UNREADABLE", "ForwardedHop", "hop_address", "parse_forwarded"]

UNKNOWN: Final = "unknown"
UNREADABLE: Final = "unreadable"  # the whole header: whatever a proxy wrote there, the client may have broken it
MAX_LENGTH: Final = 16 * 1024
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*)")')
_GAP: Final = re.compile(r"[ \t]*")
_NODE: Final = re.compile(r"\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?")
_ADDRESS: Final = re.compile(
    r"\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\](?::(\d{1,5}))?|([0-9.]+):(\d{1,5})|([0-9a-fA-F:.]+(?:%[\w.-]+)?)"
)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ForwardedHop(Value):
    """One element: what one proxy said about who spoke to it. Missing pairs are None."""

    address: str  # canonical text, or `UNKNOWN`
    proto: str | None = None
    host: str | None = None


def hop_address(text: str) -> str:
    """The address of one X-Forwarded-For item (bare, with a port, in brackets, with a zone), or `UNKNOWN`."""
    found = _ADDRESS.fullmatch(text.strip(" \t"))
    if found is None or any(int(port) > 65535 for port in (found[2], found[4]) if port):
        return UNKNOWN
    return canonical_text(found[1] or found[3] or found[5])


def parse_forwarded(values: Iterable[str]) -> tuple[ForwardedHop, ...] | None:
    """All elements of all header lines, in order; None where the grammar is broken anywhere."""
    text = ",".join(values)
    if len(text) > MAX_LENGTH:
        return None
    hops: list[ForwardedHop] = []
    at = 0
    while at <= len(text):
        pairs, at = _element(text, at)
        if pairs is None:
            return None
        if pairs:
            node = pairs.get("for")
            hops.append(
                ForwardedHop(
                    address=_node(node) if node is not None else UNKNOWN,
                    proto=pairs.get("proto"),
                    host=pairs.get("host"),
                )
            )
        at += 1  # the comma
    return tuple(hops)


def _element(text: str, at: int) -> tuple[dict[str, str] | None, int]:
    """One element from ``at`` up to its comma; None where it is broken. An empty element has no pairs."""
    pairs: dict[str, str] = {}
    while True:
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]  # matches the empty text too
        found = _PAIR.match(text, at)
        if found is not None:
            name = found[1].lower()
            if name in pairs:  # section 4: each parameter at most once per element
                return None, at
            pairs[name] = found[2] if found[2] is not None else re.sub(r"\\(.)", r"\1", found[3])
            at = _GAP.match(text, found.end()).end()  # type: ignore[union-attr]
        if at == len(text) or text[at] == ",":
            return pairs, at
        if text[at] != ";" or found is None:
            return None, at
        at += 1


def _node(text: str) -> str:
    found = _NODE.fullmatch(text)
    if found is None or any(int(port) > 65535 for port in (found[2], found[4]) if port):
        return UNKNOWN
    return canonical_text(found[1] or found[3])
