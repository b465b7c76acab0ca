"""One place of the JSON Schema of openclaw.json, and what lies directly below it: `config.schema.lookup`.

Owns paths into the schema (``gateway.auth``, ``agents.list[0].model``, ``channels.*``, ``.`` for the whole) and the
shape of the answer, OpenClaw's. Pure; it must not know values, files or who asks. Loaded when somebody asks.

Invariants: what is told of a place is its own keywords and, for blocks in a list or a map, the keywords of a few levels
below (`DEPTH`): an answer is never the whole schema; a path that leads nowhere is None, whatever it spells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["look_up"]

MAX_PATH: Final = 1_024
MAX_STEPS: Final = 32
DEPTH: Final = 4
RESTART: Final = frozenset({"logging"})  # every other change is taken over by a running gateway
_INDEX: Final = re.compile(r"\[(\*|\d*)\]", re.ASCII)
_PLAIN: Final = frozenset(
    {
        "$id", "$schema", "title", "description", "format", "pattern", "type", "enum", "const", "default", "examples",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "deprecated", "readOnly", "writeOnly",
    }
)  # fmt: skip
Schema = Mapping[str, Any]


def look_up(root: Schema, path: str, secret: frozenset[str] = frozenset()) -> dict[str, Any] | None:
    """What OpenClaw's pages are told of ``path``; None where nothing of ours is there. ``secret``: the settings whose
    values are never shown, ``*`` for any key or index."""
    steps = _steps(path)
    if steps is None:
        return None
    node, pattern = root, ""
    for step in steps:
        found = _child(node, step)
        if found is None:
            return None
        node, name = found
        pattern = f"{pattern}.{name}" if pattern else name
    base = ".".join(steps)
    children = [
        {
            "key": name,
            "path": f"{base}.{name}" if base else name,
            **({"type": child["type"]} if "type" in child else {}),
            "required": name in node.get("required", ()),
            "hasChildren": _has_children(child),
            **_told(f"{pattern}.{name}" if pattern else name, secret),
        }
        for name, child in _children(node)
    ]
    return {"path": base or ".", "schema": _shown(node, 0), **_told(pattern, secret), "children": children}


def _told(pattern: str, secret: frozenset[str]) -> dict[str, Any]:
    top = pattern.partition(".")[0]
    kind = {"reloadKind": "restart" if top in RESTART else "hot"} if top else {}
    return {**kind, **({"hint": {"sensitive": True}, "hintPath": pattern} if pattern in secret else {})}


def _steps(path: str) -> list[str] | None:
    text = path.strip()
    if text == ".":
        return []
    if len(text) > MAX_PATH:
        return None
    steps = [step for step in _INDEX.sub(lambda found: f".{found[1] or '*'}", text).split(".") if step]
    return steps if 0 < len(steps) <= MAX_STEPS else None


def _child(node: Schema, step: str) -> tuple[Schema, str] | None:
    """The schema one step below, and the step as settings spell it."""
    named = node.get("properties", {})
    if step in named:
        return named[step], step
    items = node.get("items")
    if isinstance(items, dict):
        return (items, "*") if step == "*" or (step.isdecimal() and step.isascii()) else None
    rest = node.get("additionalProperties")
    return (rest, "*") if isinstance(rest, dict) else None


def _children(node: Schema) -> Iterator[tuple[str, Schema]]:
    yield from node.get("properties", {}).items()
    for slot in ("additionalProperties", "items"):
        if isinstance(node.get(slot), dict):
            yield "*", node[slot]


def _has_children(node: Schema) -> bool:
    return next(_children(node), None) is not None


def _shown(node: Schema, depth: int) -> dict[str, Any]:
    out = {name: value for name, value in node.items() if name in _PLAIN}
    if isinstance(node.get("additionalProperties"), bool):
        out["additionalProperties"] = node["additionalProperties"]
    blocks = isinstance(node.get("additionalProperties"), dict)
    if "properties" in node and (blocks or 0 < depth <= DEPTH):
        out["properties"] = {name: _shown(child, depth + 1) for name, child in node["properties"].items()}
    if depth <= DEPTH:
        for slot in ("additionalProperties", "items"):
            if isinstance(node.get(slot), dict):
                out[slot] = _shown(node[slot], depth + 1)
        if "anyOf" in node:
            out["anyOf"] = [_shown(one, depth + 1) for one in node["anyOf"]]
    return out
