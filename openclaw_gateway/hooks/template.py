"""The template language of hook mappings: text with fields of a payload in it, and nothing else.

Owns its grammar and its limits. Pure. ``{{repository.owner.name}}``, ``{{payload.commits[0].id}}``,
``{{headers.x-github-event}}``, ``{{path}}``, ``{{now}}``. A field that is not there is empty, an object is JSON.

Invariants: a template can only pick fields, by name and by index: there are no calls, no filters, no attributes of
Python objects; what was put in is never read as a template again (V43); headers that carry credentials cannot be
picked; the result has at most `MAX_RENDERED` characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.value import Value

__all__ = ["MAX_RENDERED", "Facts", "Template", "TemplateFault", "parse_template"]

MAX_TEMPLATE: Final = 16_384
MAX_FIELDS: Final = 64
MAX_STEPS: Final = 16
MAX_RENDERED: Final = 256 * 1024
_FIELD: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH: Final = re.compile(r"[A-Za-z0-9_$@-]{1,64}(?:\.[A-Za-z0-9_$@-]{1,64}|\[\d{1,6}\])*")
_STEP: Final = re.compile(r"[A-Za-z0-9_$@-]+|\[\d+\]")
_CREDENTIALS: Final = re.compile(r"auth|cookie|token|secret|signature|key|password|assertion")


@attrs.define(eq=False)
class TemplateFault(GatewayError):
    """A template that is none, or a result that is too long."""

    why: str

    def __str__(self) -> str:
        return self.why


@attrs.frozen(eq=False, repr=False)
class Facts(Value):
    """What a template may pick from. ``headers``: lower-case names; those that may hold credentials are left out."""

    payload: Any
    headers: Mapping[str, str] = attrs.field(factory=dict)
    path: str = ""
    now: str = ""


@attrs.frozen(eq=False, repr=False)
class Template(Value):
    """Made by `parse_template`: texts, and paths as tuples of names and indexes."""

    parts: tuple[str | tuple[str | int, ...], ...]

    def render(self, facts: Facts) -> str:
        """The text with its fields filled in. Raises `TemplateFault` over `MAX_RENDERED` characters."""
        out: list[str] = []
        size = 0
        for part in self.parts:
            text = part if isinstance(part, str) else _shown(_pick(part, facts))
            size += len(text)
            if size > MAX_RENDERED:
                raise TemplateFault(f"the rendered text is longer than {MAX_RENDERED} characters")
            out.append(text)
        return "".join(out)


def parse_template(text: str) -> Template:
    """Raises `TemplateFault` for what is no template, in words for whoever wrote it."""
    if len(text) > MAX_TEMPLATE:
        raise TemplateFault(f"is longer than {MAX_TEMPLATE} characters")
    parts: list[str | tuple[str | int, ...]] = []
    at = 0
    for match in _FIELD.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        parts.append(_read_path(match[1].strip()))
        at = match.end()
    rest = text[at:]
    if "{{" in rest or "}}" in rest or any(isinstance(part, str) and "}}" in part for part in parts):
        raise TemplateFault("has {{ without }} or }} without {{")
    if rest:
        parts.append(rest)
    if sum(not isinstance(part, str) for part in parts) > MAX_FIELDS:
        raise TemplateFault(f"has more than {MAX_FIELDS} fields")
    return Template(tuple(parts))


def _read_path(text: str) -> tuple[str | int, ...]:
    if _PATH.fullmatch(text) is None:
        raise TemplateFault(f"{text[:80]!r} is no field: write names and indexes such as {{{{commits[0].message}}}}")
    steps = tuple(int(step[1:-1]) if step.startswith("[") else step for step in _STEP.findall(text))
    if len(steps) > MAX_STEPS:
        raise TemplateFault(f"a field has at most {MAX_STEPS} steps")
    if steps[0] == "headers" and len(steps) == 2 and _CREDENTIALS.search(str(steps[1]).lower()):
        raise TemplateFault(f"the header {steps[1]} may hold a credential and cannot be used")
    return steps


def _pick(steps: tuple[str | int, ...], facts: Facts) -> Any:
    first, *rest = steps
    if first == "payload":
        return _walk(facts.payload, rest)
    if first == "headers" and len(rest) == 1:
        name = str(rest[0]).lower()
        return None if _CREDENTIALS.search(name) else facts.headers.get(name)
    if first in {"path", "now"} and not rest:
        return facts.path if first == "path" else facts.now
    return _walk(facts.payload, list(steps))


def _walk(value: Any, steps: list[str | int]) -> Any:
    for step in steps:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
