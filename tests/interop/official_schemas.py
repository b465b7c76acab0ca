"""OpenClaw's own schemas at test time: which there are, what they say of a value, and values that they permit.

Owns the way to the installed packages (schemas.mjs) and the naming rule that leads from a method or an event to its
schema. It must not know the gateway. Nothing of the schemas is kept in the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from .processes import Official

__all__ = ["TEXT", "Asked", "OfficialSchemas", "params_samples"]

MAX_PER_PROPERTY = 8
# Texts that satisfy a pattern where TEXT does not; a pattern that is new shows as a faulty sample.
PATTERNS = {r"^\d{4}-\d{2}-\d{2}$": "2026-01-31", r"^UTC[+-]\d{1,2}(?::[0-5]\d)?$": "UTC+1"}
TEXT = "c0ffee00"  # what stands for any text: a word, a name, an id, hexadecimal digits


@attrs.frozen
class Asked:
    """One value and the schema that it must satisfy (``Name``, or ``Name/json/pointer``); ``subject`` names it."""

    subject: str
    schema: str
    value: Any


@attrs.define
class OfficialSchemas:
    """Both editions: the one that OpenClaw's own gateway carries, and the package for authors of clients."""

    official: Official
    bundled: dict[str, Any] = attrs.field(factory=dict)
    published: dict[str, Any] = attrs.field(factory=dict)
    error_codes: frozenset[str] = frozenset()
    connect_codes: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    _by_word: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        listed = self.official.script("schemas.mjs", "list")
        assert listed.code == 0, listed.text[-3000:]
        self.bundled, self.published = listed.json["bundled"], listed.json["published"]
        self.error_codes = frozenset(listed.json["errorCodes"])
        self.connect_codes = frozenset(listed.json["connectCodes"])
        self.methods = frozenset(listed.json["methods"])
        self._by_word = {name.lower(): name for name in {**self.published, **self.bundled}}

    def named(self, wire_name: str, suffix: str) -> str | None:
        """The schema of a wire name by official naming: ``node.pair.list``, ``Params`` → ``NodePairListParams``."""
        return self._by_word.get(re.sub(r"[.\-]", "", wire_name).lower() + suffix.lower())

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.bundled[name] if name in self.bundled else self.published[name]
        return found

    def editions(self, name: str) -> Iterator[dict[str, Any]]:
        for edition in (self.bundled, self.published):
            if name in edition:
                yield edition[name]

    def faults(self, asked: Sequence[Asked], scratch: Path) -> list[list[str]]:
        """What the official validator says against each value: lines ``/path: words``, numbers in paths as ``*``."""
        document = scratch / "asked.json"
        document.write_text(json.dumps([{"schema": one.schema, "value": one.value} for one in asked]))
        checked = self.official.script("schemas.mjs", "check", str(document))
        assert checked.code == 0, checked.text[-3000:]
        answers: list[list[str]] = checked.json
        return [[re.sub(r"/\d+(?=[/:])", "/*", line) for line in lines] for lines in answers]


def params_samples(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parameters that ``schema`` permits: the required ones alone, then each optional member with each kind of value.

    Yields what is tried (``""``: nothing optional) and the parameters.
    """
    branches = schema.get("anyOf")
    if branches:
        for branch in branches:
            yield from params_samples(branch)
        return
    members: dict[str, Any] = schema.get("properties", {})
    required = {name: _first(members[name]) for name in schema.get("required", [])}
    yield "", required
    for name, member in members.items():
        for value in list(_values(member))[:MAX_PER_PROPERTY]:
            if required.get(name, ...) != value:
                yield name, {**required, name: value}


def _first(schema: dict[str, Any]) -> Any:
    return next(_values(schema))


def _values(schema: dict[str, Any]) -> Iterator[Any]:
    if "const" in schema:
        yield schema["const"]
    elif "enum" in schema:
        yield from schema["enum"]
    elif "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from _values(branch)
    else:
        yield from _of_type(schema)


def _of_type(schema: dict[str, Any]) -> Iterator[Any]:
    kind = schema.get("type")
    if schema.get("pattern") in PATTERNS:
        yield PATTERNS[schema["pattern"]]
    elif kind == "string":
        yield TEXT.ljust(int(schema.get("minLength", 0)), "0")[: int(schema.get("maxLength", len(TEXT)))]
    elif kind in {"integer", "number"}:
        yield schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    elif kind == "boolean":
        yield from (True, False)
    elif kind == "null":
        yield None
    elif kind == "array":
        items = schema.get("items", {})
        yield [_first(items)] if isinstance(items, dict) else []
    elif kind == "object":
        members = schema.get("properties", {})
        named = dict.fromkeys([*schema.get("required", []), *list(members)[: schema.get("minProperties", 0)]])
        yield {name: _first(members[name]) for name in named}
    else:
        yield "x"
