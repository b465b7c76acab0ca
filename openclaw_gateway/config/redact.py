"""Secrets taken out of a configuration before anybody sees it, and the marker kept out of everything that is written.

Owns which values are secrets (by the schema, by the name of the key, by the shape of the value), the marker, and
putting the old secrets back where a client returns a block it was shown. Must not know files or who asks.

Invariants: `redact` returns no secret whatever the block, known or not; a marker is never written: `restore` puts the
present value in its place or raises `MarkerRefusedError`. A
whole ``${NAME}`` names a secret without being one and stays
in views of the configuration *as written*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.config import json5
from openclaw_gateway.config.interpolate import REFERENCE
from openclaw_gateway.config.settings import canonical_path, pattern, settings
from openclaw_gateway.errors import GatewayError

__all__ = [
    "MARKER",
    "MarkerRefusedError",
    "is_secret_key",
    "redact",
    "redact_raw",
    "refuse_marker",
    "restore",
    "restore_raw",
    "secret_values",
]

MARKER: Final = "__OPENCLAW_REDACTED__"

_SECRET_KEY: Final = re.compile(
    r"(token|password|passwd|passphrase|passcode|passwordhash|secret|apikey|accesskey|accesskeyid|privatekey|signingkey"
    r"|secretkey|encryptionkey|sharedkey|authkey|hmackey|credential|authorization|cookie|bearer|webhookurl"
    r"|connectionstring)s?$"
)
# A count, a switch or a pointer that merely has such a word at its end.
_COUNT_KEY: Final = re.compile(
    r"^(max|min|num|total|budget|context|reserve|keep|target|limit|input|output|prompt|soft|hard)"
)
_SECRET_SHAPE: Final = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@"  # user:password@ in a URL
    r"|[?&#](?:[a-z_]*token|[a-z_]*key|secret|password|sig|signature|auth)=[^&\s]"
    r"|\b(?:sk-|sk_live_|rk_live_|xox[abeoprs]-|xapp-|gh[pousr]_|github_pat_|glpat-|AKIA|AIza|npm_|hf_|tskey-|Bearer\s)"
    r"[A-Za-z0-9_-]{8}"
    r"|\b\d{6,12}:[A-Za-z0-9_-]{30,}"  # a Telegram bot token
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # a JSON Web Token
    r"|\$2[aby]\$\d{2}\$[./A-Za-z0-9]{53}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY",
    re.IGNORECASE,
)
_FLAG: Final = re.compile(r"--?([A-Za-z][A-Za-z-]*)(?:=(.*))?", re.DOTALL)
# Comments are people's notes; a setting that was commented out may still hold its secret.
_COMMENT: Final = re.compile(r"//[^\n\r\u2028\u2029]*|/\*[\s\S]*?\*/")
_COMMENTED_SECRET: Final = re.compile(r"[\"']?([A-Za-z_][\w-]*)[\"']?\s*[:=]\s*(\"[^\"]*\"|'[^']*'|[^\s,;}]+)")
_SHORTEST_SCRUBBED: Final = 6
_CREDENTIAL_BLOCKS: Final = ("gateway.auth.", "gateway.remote.")


@attrs.define(eq=False)
class MarkerRefusedError(GatewayError):
    """Something to be written holds the redaction marker where there is no secret to keep."""

    path: str

    def __str__(self) -> str:
        where = self.path or "the value"
        return f"{where}: {MARKER} stands for a secret that was not shown and cannot be written; give the secret itself"


def is_secret_key(key: str) -> bool:
    """Whether a key's name says that its value is a secret (``botToken``, ``OPENAI_API_KEY``, ``x-api-key``)."""
    folded = re.sub(r"[^a-z0-9]", "", key.lower())
    return _SECRET_KEY.search(folded) is not None and _COUNT_KEY.match(folded) is None


def redact(value: Any, path: str = "", *, as_written: bool = False) -> Any:
    """A deep copy with every secret replaced by `MARKER`. ``path`` is where ``value`` stands in the configuration.

    ``as_written``: the value still has its ``${NAME}`` references; whole references stay.
    """
    return _redact(value, path, under_secret=_secret_at(path, path.rsplit(".", 1)[-1]), as_written=as_written)


def _secret_at(path: str, key: str) -> bool:
    """The schema knows its own settings (``autoApprove.sharedSecret`` is a word, no secret); elsewhere the name
    decides, and in the blocks that hold nothing but credentials a name nobody knows counts as one.
    """
    canonical = pattern(canonical_path(path))
    ours = settings().get(canonical)
    if ours is not None:
        return ours.secret
    if canonical.startswith(_CREDENTIAL_BLOCKS):
        return not any(name.startswith(f"{canonical}.") for name in settings())
    return is_secret_key(key) or key == "headers"  # whoever sets headers by hand mostly sets a credential


def _redact(value: Any, path: str, *, under_secret: bool, as_written: bool) -> Any:
    if isinstance(value, dict):
        if _is_reference(value):
            return dict(value)
        out: dict[str, Any] = {}
        for key, inner in value.items():
            at = f"{path}.{key}" if path else key
            out[key] = _redact(inner, at, under_secret=under_secret or _secret_at(at, key), as_written=as_written)
        return out
    if isinstance(value, list):
        after_flag = [False, *(_names_secret_flag(item) for item in value)]
        return [
            _redact(item, f"{path}.{index}", under_secret=under_secret or flagged, as_written=as_written)
            for index, (item, flagged) in enumerate(zip(value, after_flag, strict=False))
        ]
    return MARKER if _hidden(value, under_secret=under_secret, as_written=as_written) else value


def _hidden(value: Any, *, under_secret: bool, as_written: bool) -> bool:
    if isinstance(value, str):
        if not value or (as_written and (match := REFERENCE.fullmatch(value)) is not None and not match[1]):
            return False
        return under_secret or _SECRET_SHAPE.search(value) is not None or _secret_flag_with_value(value)
    return under_secret and isinstance(value, int | float) and not isinstance(value, bool)


def _is_reference(value: Mapping[str, Any]) -> bool:
    """OpenClaw's reference object: says where a secret lies, holds none."""
    return "source" in value and "id" in value and value.keys() <= {"source", "provider", "id"}


def _names_secret_flag(item: Any) -> bool:
    match = _FLAG.fullmatch(item) if isinstance(item, str) else None
    return match is not None and match[2] is None and is_secret_key(match[1])


def _secret_flag_with_value(value: str) -> bool:
    match = _FLAG.fullmatch(value)
    return match is not None and bool(match[2]) and is_secret_key(match[1])


def secret_values(value: Any) -> Iterator[str]:
    """Every secret text in a tree, each as it stands: what must not appear in logs, replies or reports."""
    yield from _differing(value, redact(value))


def _differing(value: Any, redacted: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _differing(inner, redacted[key])
    elif isinstance(value, list):
        for item, other in zip(value, redacted, strict=True):
            yield from _differing(item, other)
    elif redacted == MARKER and value != MARKER:
        yield str(value)


def redact_raw(raw: str) -> str:
    """The text of a configuration file with its secrets replaced where they stand, comments included.

    Text that cannot be read cannot be redacted either: it comes back empty.
    """
    try:
        root = json5.parse(raw)
    except json5.Json5Error:
        return ""
    hidden: set[tuple[int, int]] = set()
    leaves: list[tuple[int, int]] = []
    _collect(root, redact(root.value, as_written=True), hidden, leaves)
    secrets = _long_secrets(root.value)
    out: list[str] = []
    at = 0
    for start, end in sorted(leaves):
        out.append(_scrub_comments(raw[at:start], secrets))
        out.append(f'"{MARKER}"' if (start, end) in hidden else raw[start:end])
        at = end
    out.append(_scrub_comments(raw[at:], secrets))
    return "".join(out)


def _collect(node: json5.Node, redacted: Any, hidden: set[tuple[int, int]], leaves: list[tuple[int, int]]) -> None:
    """The places of all leaf values (so that what lies between them is only syntax and comments) and of the secret
    ones.
    """
    if node.members:
        for member in node.members:
            # Of a key that stands twice the earlier one is dead text: it is hidden whole, whatever it was.
            if node.member(member.key) is member:
                _collect(member.value, redacted[member.key], hidden, leaves)
            else:
                hidden.add((member.value.start, member.value.end))
                leaves.append((member.value.start, member.value.end))
    elif node.items:
        for item, other in zip(node.items, redacted, strict=True):
            _collect(item, other, hidden, leaves)
    else:
        leaves.append((node.start, node.end))
        if redacted == MARKER:
            hidden.add((node.start, node.end))


def _scrub_comments(text: str, secrets: list[str]) -> str:
    if "/" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        comment = match[0]
        for secret in secrets:
            comment = comment.replace(secret, MARKER)
        comment = _COMMENTED_SECRET.sub(
            lambda found: found[0].replace(found[2], MARKER) if is_secret_key(found[1]) else found[0], comment
        )
        return (
            comment[:2] + MARKER + ("*/" if comment.endswith("*/") else "")
            if _SECRET_SHAPE.search(comment)
            else comment
        )

    return _COMMENT.sub(one, text)


def refuse_marker(value: Any, path: str = "") -> None:
    """Raise `MarkerRefusedError` when the marker stands anywhere in ``value``: in part or whole, key or value."""
    if isinstance(value, str):
        if MARKER in value:
            raise MarkerRefusedError(path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            refuse_marker(key, path)
            refuse_marker(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            refuse_marker(item, f"{path}.{index}")


def restore(new: Any, present: Any, path: str = "") -> Any:
    """``new`` with each marker replaced by what ``present`` (the value as written now) holds in the same place.

    In lists places shift: a marker is only filled when the list still has its length and the element is otherwise
    unchanged. A marker with nothing behind it, and one that is only part of a text, raises `MarkerRefusedError`.
    """
    return _restore(new, present, (redact(present, path, as_written=True), redact(present, path)), path)


def _restore(new: Any, present: Any, views: tuple[Any, Any], path: str) -> Any:
    """``views`` are what clients are shown of ``present``."""
    if isinstance(new, dict):
        refuse_marker(list(new), path)
        held, *shown = (tree if isinstance(tree, dict) else {} for tree in (present, *views))
        return {
            key: _restore(
                inner, held.get(key), (shown[0].get(key), shown[1].get(key)), f"{path}.{key}" if path else key
            )
            for key, inner in new.items()
        }
    if isinstance(new, list):
        if isinstance(present, list) and len(new) == len(present):
            return [
                old if any(item == view[index] for view in views) else _without_marker(item, f"{path}.{index}")
                for index, (item, old) in enumerate(zip(new, present, strict=True))
            ]
        return _without_marker(new, path)
    if new == MARKER and isinstance(present, str | int | float) and not isinstance(present, bool):
        return _without_marker(present, path)
    return _without_marker(new, path)


def _without_marker(value: Any, path: str) -> Any:
    refuse_marker(value, path)
    return value


def restore_raw(new: str, present: str) -> str:
    """The text of a file as a client returned it, with each marker replaced by what ``present`` has there.

    Values by their place in the tree, comments by their own text. Raises `MarkerRefusedError`, `json5.Json5Error`.
    """
    if MARKER not in new:
        return new
    root = json5.parse(new)
    try:
        held = json5.parse(present)
    except json5.Json5Error:
        held = json5.parse("{}")
    markers: list[tuple[int, int, Any]] = []
    leaves: list[tuple[int, int]] = []
    _markers(root, restore(root.value, held.value), markers, leaves)
    comments = {scrubbed: whole for whole, scrubbed in _scrubbed_comments(held, present)}
    filled = {(start, end): json.dumps(value, ensure_ascii=False) for start, end, value in markers}
    out: list[str] = []
    at = 0
    for start, end in (*sorted(leaves), (len(new), len(new))):
        between = _COMMENT.sub(lambda match: comments.get(match[0], match[0]), new[at:start])
        refuse_marker(between)
        out += [between, filled.get((start, end), new[start:end])]
        at = end
    return "".join(out)


def _markers(
    node: json5.Node, restored: Any, markers: list[tuple[int, int, Any]], leaves: list[tuple[int, int]]
) -> None:
    if node.members:
        for member in node.members:
            if node.member(member.key) is member:
                _markers(member.value, restored[member.key], markers, leaves)
            else:
                refuse_marker(member.value.value, member.key)
                leaves.append((member.value.start, member.value.end))
    elif node.items:
        for item, inner in zip(node.items, restored, strict=True):
            _markers(item, inner, markers, leaves)
    else:
        leaves.append((node.start, node.end))
        if node.value == MARKER:
            markers.append((node.start, node.end, restored))


def _scrubbed_comments(root: json5.Node, text: str) -> Iterator[tuple[str, str]]:
    """Every comment that `redact_raw` would change, with what it becomes."""
    hidden: set[tuple[int, int]] = set()
    leaves: list[tuple[int, int]] = []
    _collect(root, redact(root.value, as_written=True), hidden, leaves)
    secrets = _long_secrets(root.value)
    at = 0
    for start, end in (*sorted(leaves), (len(text), len(text))):
        for match in _COMMENT.finditer(text, at, start):
            scrubbed = _scrub_comments(match[0], secrets)
            if scrubbed != match[0]:
                yield match[0], scrubbed
        at = end


def _long_secrets(value: Any) -> list[str]:
    found = {text for text in secret_values(value) if len(text) >= _SHORTEST_SCRUBBED}
    return sorted(found, key=len, reverse=True)
