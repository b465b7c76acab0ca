"""JSON5 with positions: the reader of openclaw.json and the ground that editing stands on.

Owns text → tree of nodes, each with the place it stands at (https://spec.json5.org). Must not know what the keys mean.
Strict JSON, which programs write, goes through msgspec; only what msgspec refuses takes the slower reader below.

Own reader rather than a package: json-five 1.1.2 costs 48 ms and 7 MB to import and 15 ms per KiB to read (a 58 KiB
file took 0.9 s), and its tree does not say where a value stands. tests/config holds this reader against it, as a
second opinion.

Invariants: at most `MAX_BYTES` of text and `MAX_DEPTH` levels, checked before the work is done; any text gives a
value or a `Json5Error` with line and column, never another exception, and the error repeats nothing of the text (it
may be a secret); strings are valid Unicode (no lone surrogates).
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.value import Value

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Json5Error", "Member", "Node", "is_identifier", "loads", "parse"]

MAX_BYTES: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 64

_WS: Final = "\t\n\v\f\r \u00a0\u2028\u2029\ufeff\u1680\u2000-\u200a\u202f\u205f\u3000"
_TRIVIA: Final = re.compile(rf"(?:[{_WS}]+|//[^\n\r\u2028\u2029]*|/\*[\s\S]*?\*/)*")
_NUMBER: Final = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
    r"|\.[0-9]+(?:[eE][+-]?[0-9]+)?|Infinity|NaN)"
)
_WORD: Final = re.compile(r"(?:[\w$\u200c\u200d]|\\u[0-9a-fA-F]{4})+")
_PLAIN: Final = {'"': re.compile(r'[^"\\\n\r]*'), "'": re.compile(r"[^'\\\n\r]*")}
_UNICODE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_SIMPLE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LITERALS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_LINE_END: Final = re.compile(r"\r\n|[\n\r\u2028\u2029]")
_MAX_DIGITS: Final = 400  # beyond any double; Python refuses to convert more than 4300 anyway


@attrs.define(eq=False, repr=False)
class Json5Error(ValueError):
    """The text is not JSON5. ``line`` and ``column`` count from 1."""

    message: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.message} at line {self.line}, column {self.column}"


@attrs.frozen(eq=False, repr=False)
class Member(Value):
    """``key: value`` in an object. ``comma`` is the place of the comma that follows, None where none does."""

    key: str
    start: int
    quote: str
    value: Node
    comma: int | None


@attrs.frozen(eq=False, repr=False)
class Node(Value):
    """A value and where it stands: ``text[start:end]``. ``members`` for objects, ``items`` for arrays."""

    value: Any
    start: int
    end: int
    members: tuple[Member, ...] = ()
    items: tuple[Node, ...] = ()

    def member(self, key: str) -> Member | None:
        """The member that counts: of several with one key, the last."""
        return next((member for member in reversed(self.members) if member.key == key), None)


def loads(text: str) -> Any:
    """Text → dicts, lists, str, int, float, bool, None. Raises `Json5Error`."""
    _check_size(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return parse(text).value
    _check_depth(value)
    return value


def parse(text: str) -> Node:
    """Text → tree with positions. Raises `Json5Error`."""
    _check_size(text)
    reader = _Reader(text)
    at = reader.skip(0)
    node = reader.value(at, 0)
    end = reader.skip(node.end)
    if end != len(text):
        raise reader.error("something follows the value", end)
    return node


def is_identifier(word: str) -> bool:
    """Whether a key may stand without quotes (kept to the ASCII part of what ES5 allows)."""
    return re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", word) is not None


def _check_size(text: str) -> None:
    # A character is at least one byte: the cheap count refuses most, the exact one is made only near the limit.
    if len(text) > MAX_BYTES or (len(text) > MAX_BYTES // 4 and len(text.encode("utf-8", "replace")) > MAX_BYTES):
        raise Json5Error(f"the file is over {MAX_BYTES // (1024 * 1024)} MiB")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise Json5Error(f"nested deeper than {MAX_DEPTH} levels")


class _Reader:
    """Recursive descent, one method per production; ``at`` in, a node or the next place out."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def error(self, message: str, at: int) -> Json5Error:
        before = self.text[:at]
        breaks = list(_LINE_END.finditer(before))
        return Json5Error(message, len(breaks) + 1, at - (breaks[-1].end() if breaks else 0) + 1)

    def skip(self, at: int) -> int:
        match = _TRIVIA.match(self.text, at)
        end = at if match is None else match.end()
        if self.text.startswith("/*", end):
            raise self.error("comment without an end", end)
        return end

    def value(self, at: int, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels", at)
        if at >= len(self.text):
            raise self.error("a value is missing: the file ends here", at)
        first = self.text[at]
        if first == "{":
            return self.object(at, depth)
        if first == "[":
            return self.array(at, depth)
        if first in "\"'":
            string, end = self.string(at)
            return Node(string, at, end)
        match = _NUMBER.match(self.text, at)
        if match is not None:
            return self.number(match)
        word = _WORD.match(self.text, at)
        if word is not None and word[0] in _LITERALS:
            return Node(_LITERALS[word[0]], at, word.end())
        # What stands here may be a secret that lacks its quotes: it is not repeated.
        raise self.error("expected a value (text needs quotes)", at)

    def object(self, at: int, depth: int) -> Node:
        start, members = at, list[Member]()
        at = self.skip(at + 1)
        while not self.text.startswith("}", at):
            key_at = at
            key, quote, at = self.key(at)
            at = self.skip(at)
            if not self.text.startswith(":", at):
                raise self.error("expected ':' after the key", at)
            node = self.value(self.skip(at + 1), depth + 1)
            at = self.skip(node.end)
            comma = at if self.text.startswith(",", at) else None
            members.append(Member(key, key_at, quote, node, comma))
            if comma is not None:
                at = self.skip(at + 1)
            elif not self.text.startswith("}", at):
                raise self.error("expected ',' or '}'" + ("" if at < len(self.text) else ": the file ends here"), at)
        return Node({member.key: member.value.value for member in members}, start, at + 1, members=tuple(members))

    def array(self, at: int, depth: int) -> Node:
        start, items = at, list[Node]()
        at = self.skip(at + 1)
        while not self.text.startswith("]", at):
            node = self.value(at, depth + 1)
            items.append(node)
            at = self.skip(node.end)
            if self.text.startswith(",", at):
                at = self.skip(at + 1)
            elif not self.text.startswith("]", at):
                raise self.error("expected ',' or ']'" + ("" if at < len(self.text) else ": the file ends here"), at)
        return Node([item.value for item in items], start, at + 1, items=tuple(items))

    def key(self, at: int) -> tuple[str, str, int]:
        if at >= len(self.text):
            raise self.error("expected a key or '}': the file ends here", at)
        if self.text[at] in "\"'":
            string, end = self.string(at)
            return string, self.text[at], end
        match = _WORD.match(self.text, at)
        if match is None:
            raise self.error("expected a key", at)
        word = _UNICODE.sub(lambda found: chr(int(found[1], 16)), match[0])
        if not word.replace("$", "_").replace("\u200c", "").replace("\u200d", "").isidentifier():
            raise self.error("this key must stand in quotes", at)
        return word, "", match.end()

    def number(self, match: re.Match[str]) -> Node:
        text, start, end = match[0], match.start(), match.end()
        if end < len(self.text) and (self.text[end].isalnum() or self.text[end] in "_$."):
            raise self.error("malformed number (text needs quotes)", start)
        if len(text) > _MAX_DIGITS:
            raise self.error("number with too many digits", start)
        sign, body = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
        if body[:2] in ("0x", "0X"):
            return Node(sign * int(body, 16), start, end)
        if body.isdigit():
            return Node(sign * int(body), start, end)
        return Node(sign * float(body), start, end)

    def string(self, at: int) -> tuple[str, int]:
        start, quote = at, self.text[at]
        plain, parts = _PLAIN[quote], list[str]()
        at += 1
        while True:
            match = plain.match(self.text, at)
            if match is not None:
                parts.append(match[0])
                at = match.end()
            if at >= len(self.text):
                raise self.error("string without an end", start)
            if self.text[at] == quote:
                break
            if self.text[at] != "\\":
                raise self.error("line break inside a string", at)
            escaped, at = self.escape(at + 1)
            parts.append(escaped)
        whole = "".join(parts)
        if any("\ud800" <= char <= "\udfff" for char in whole):
            # \ud83d\ude00 written as two escapes is one character; half a pair is none.
            try:
                whole = whole.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self.error("half of a surrogate pair in a string", start) from None
        return whole, at + 1

    def escape(self, at: int) -> tuple[str, int]:
        if at >= len(self.text):
            raise self.error("string without an end", at - 1)
        char = self.text[at]
        if char in "xu":
            width = 2 if char == "x" else 4
            digits = self.text[at + 1 : at + 1 + width]
            if re.fullmatch(rf"[0-9a-fA-F]{{{width}}}", digits) is None:
                raise self.error(f"\\{char} needs {width} hexadecimal digits", at - 1)
            return chr(int(digits, 16)), at + 1 + width
        if char == "\r" and self.text.startswith("\n", at + 1):
            return "", at + 2
        if char in "\n\r\u2028\u2029":
            return "", at + 1
        if char == "0" and not self.text[at + 1 : at + 2].isdigit():
            return "\0", at + 1
        if char.isdigit():
            raise self.error(f"escape \\{char} is not allowed", at - 1)
        return _SIMPLE.get(char, char), at + 1
