"""Numbers, truths, words, texts, and lists and maps of them, or the reason why a value is none.

Owns `BadValueError`, the caps of a text, a list and a map, and how a list loses its faulty entries. It must know no
setting, nor what an entry stands for: the other modules of `config.values` do, and build on this one.

Invariants: nothing is converted that was written as another kind ("1" is no number, 1 no truth); from a list the good
entries survive and the bad ones are named, so ``kept`` is never wider than what was written; a `BadValueError` shows an
entry only where it is plainly an address or a name.
"""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import cattrs

from openclaw_gateway.config.interpolate import Unresolved
from openclaw_gateway.config.issues import nearest

__all__ = [
    "MAX_LIST",
    "MAX_TEXT",
    "BadValueError",
    "all_or_nothing",
    "argv",
    "converter",
    "entries",
    "named",
    "number",
    "text",
    "unresolved",
    "unset",
]

MAX_LIST: Final = 1_000
MAX_TEXT: Final = 4_096


@attrs.define(eq=False)
class BadValueError(ValueError):
    """``kept`` is what remains of a list, None where the value was no list."""

    message: str
    allowed: tuple[str, ...] = ()
    nearest: str | None = None
    fix: str | None = None
    kept: tuple[str, ...] | None = None
    unset: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


def unset(value: Unresolved) -> BadValueError:
    names = ", ".join(value.names)
    plural = "s are" if len(value.names) > 1 else " is"
    return BadValueError(
        f"environment variable{plural} not set: {names}", fix=f"export {value.names[0]}=...", unset=value.names
    )


def unresolved(value: Any) -> list[Unresolved]:
    """Every reference to the environment in a tree that found no variable."""
    if isinstance(value, Unresolved):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for item in inner for found in unresolved(item)]


@cache
def converter() -> cattrs.BaseConverter:
    """cattrs picks the hook by the annotation; ours are strict where its own would convert ("1" is no number, 1 no
    truth).
    """
    converter = cattrs.BaseConverter()
    converter.register_structure_hook(bool, lambda value, _: _bool(value))
    converter.register_structure_hook(int, lambda value, _: _int(value))
    converter.register_structure_hook(float, lambda value, _: number(value))
    converter.register_structure_hook(str, lambda value, _: text(value))
    converter.register_structure_hook(Path, lambda value, _: Path(text(value)).expanduser())
    converter.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) is Literal, _word)
    return converter


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    hint = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
    raise BadValueError("must be true or false", ("true", "false"), hint.get(str(value).lower()))


def _int(value: Any) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValueError("must be a whole number" + (" (without quotes)" if isinstance(value, str) else ""))
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadValueError("must be a number")
    return float(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValueError("must be text in quotes")
    if not value or len(value) > MAX_TEXT or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise BadValueError(f"must be 1 to {MAX_TEXT} characters without control characters")
    return value


def _word(value: Any, kind: Any) -> str:
    allowed = tuple(typing.get_args(kind))
    if isinstance(value, str) and value in allowed:
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word in allowed:
        return word
    raise BadValueError("not one of the allowed values", allowed, nearest(word, allowed))


def named(value: Any, kind: Any) -> dict[str, Any]:
    """A free block: names nobody knows beforehand, with values of one kind (`Any`: as they stand)."""
    if not isinstance(value, dict):
        raise BadValueError("must be a block { ... }")
    if len(value) > MAX_LIST:
        raise BadValueError(f"has more than {MAX_LIST} entries")
    missing = sorted({name for found in unresolved(value) for name in found.names})
    if missing:
        raise unset(Unresolved("", tuple(missing)))
    return {text(name): converter().structure(inner, kind) for name, inner in value.items()}


def entries(value: Any, path: str, one: Callable[[Any], tuple[str, ...]]) -> tuple[str, ...]:
    """A list read entry by entry. One faulty entry costs that entry, not the list."""
    listed = [value] if isinstance(value, str) and not isinstance(value, Unresolved) else value
    if not isinstance(listed, list):
        raise BadValueError("must be a list")
    if len(listed) > MAX_LIST:
        raise BadValueError(f"has more than {MAX_LIST} entries")
    kept: list[str] = []
    mended: list[str] = []
    faults: list[str] = []
    hint: str | None = None
    for index, entry in enumerate(listed):
        try:
            if isinstance(entry, Unresolved):
                raise unset(entry)
            good = one(entry)
            kept += good
            mended += good
        except BadValueError as bad:
            faults.append(f"entry {index + 1} {_shown(entry)}{bad.message}")
            if bad.nearest is not None:
                hint = hint or bad.nearest
                mended.append(bad.nearest)
    if faults:
        fix = f"openclaw config set {path} '{json.dumps(list(dict.fromkeys(mended)))}'"
        raise BadValueError("; ".join(faults[:5]), nearest=hint, fix=fix, kept=tuple(dict.fromkeys(kept)))
    return tuple(dict.fromkeys(kept))


def _shown(entry: Any) -> str:
    """The entry itself where it is plainly an address, nothing where it might be something else."""
    harmless = isinstance(entry, str) and re.fullmatch(r"[A-Za-z0-9.:/\[\]*-]{1,80}", entry) is not None
    return f"({entry}) " if harmless else ""


def all_or_nothing(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """A list of which no part may be used alone: with an entry less it would ask for less, or let more people in."""

    def strict(value: Any, path: str) -> Any:
        try:
            return read(value, path)
        except BadValueError as bad:
            raise attrs.evolve(bad, kept=None) from None

    return strict


def argv(value: Any, path: str) -> tuple[str, ...]:
    """A command as a list of its arguments: order and repetition count, and one bad entry spoils it."""
    if isinstance(value, Unresolved) or not isinstance(value, list) or not 0 < len(value) <= MAX_LIST:
        raise BadValueError('must be a list of arguments such as ["python3", "/opt/agent.py"]')
    return tuple(text(entry) for entry in value)
