"""``${NAME}`` in the strings of a configuration.

Owns finding and filling references to the environment. Must not know which settings exist: it marks what it could not
resolve, and who reads the value decides how bad that is.

Invariants: a string with a reference that cannot be filled becomes `Unresolved` as a whole, never a half-filled text;
the value of a variable is taken as it is and not searched again; ``$${NAME}`` stands for the text ``${NAME}``. An
empty variable counts as unset: an empty secret must not look like a configured one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Self

__all__ = ["REFERENCE", "Unresolved", "fill", "interpolate", "plain"]

REFERENCE: Final = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_REFERENCE_KEYS: Final = {"source", "provider", "id"}


class Unresolved(str):
    """A string as written whose references could not all be filled; ``names`` are the unset variables."""

    __slots__ = ("names",)
    names: tuple[str, ...]

    def __new__(cls, written: str, names: tuple[str, ...]) -> Self:
        self = super().__new__(cls, written)
        self.names = names
        return self


def fill(text: str, env: Mapping[str, str]) -> str:
    """One string. Returns `Unresolved` when a variable is unset or empty."""
    if "${" not in text:
        return text
    missing: list[str] = []

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        value = env.get(match[2], "")
        if not value:
            missing.append(match[2])
        return value

    filled = REFERENCE.sub(one, text)
    return Unresolved(text, tuple(dict.fromkeys(missing))) if missing else filled


def interpolate(value: Any, env: Mapping[str, str]) -> Any:
    """A deep copy of a JSON value with every string filled; keys are left alone.

    OpenClaw's reference object for the environment, ``{source: "env", id: "NAME"}``, counts as ``"${NAME}"``.
    """
    if isinstance(value, str):
        return fill(value, env)
    if isinstance(value, dict):
        if (
            value.get("source") == "env"
            and isinstance(name := value.get("id"), str)
            and value.keys() <= _REFERENCE_KEYS
        ):
            return fill(f"${{{name}}}", env)
        return {key: interpolate(inner, env) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(item, env) for item in value]
    return value


def plain(value: Any) -> Any:
    """A deep copy in which `Unresolved` is ordinary text again."""
    if isinstance(value, Unresolved):
        return str.__str__(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
