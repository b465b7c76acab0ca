"""The configuration as it may be shown: ``config.get`` for the wire and ``config get PATH`` for people.

Owns the shape of the answers and that everything in them went through redaction. Must not load or write.
"""

from __future__ import annotations

from typing import Any

import attrs

from openclaw_gateway.config.edit import parse_path
from openclaw_gateway.config.issues import nearest
from openclaw_gateway.config.json5 import MAX_DEPTH
from openclaw_gateway.config.leaves import DURATIONS, BadValueError, duration, duration_text
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.redact import redact, redact_raw
from openclaw_gateway.config.schema import ChannelConfig, GatewayConfig
from openclaw_gateway.config.settings import KNOWN_CHANNELS, canonical_path, settings, to_json
from openclaw_gateway.config.structure import canonicalise

__all__ = ["UnknownPathError", "effective", "get_path", "snapshot"]


@attrs.define(eq=False)
class UnknownPathError(LookupError):
    """No setting of that name, neither ours nor one the file holds. ``nearest`` is the most similar path."""

    path: str
    nearest: str | None

    def __str__(self) -> str:
        return f"no setting {self.path}" + (f"; did you mean {self.nearest}?" if self.nearest else "")


def effective(loaded: LoadedConfig) -> dict[str, Any]:
    """Everything: our settings as they are in use, defaults included, and the blocks of others as the file has them.

    Redacted.
    """
    foreign, _ = canonicalise(loaded.resolved)
    ours = to_json(loaded.config)
    for path in DURATIONS:
        _write_duration(ours, foreign, path)
    shown: dict[str, Any] = redact(_overlay(foreign, ours, 0))
    return shown


def _write_duration(ours: Any, written: Any, path: str) -> None:
    """A time as the file has it where that is what is in use, else as one would write it: never as bare seconds."""
    *blocks, key = path.split(".")
    for block in blocks:
        ours = ours.get(block) if isinstance(ours, dict) else None
        written = written.get(block) if isinstance(written, dict) else None
    if not isinstance(ours, dict) or ours.get(key) is None:
        return
    try:
        as_written = written[key] if isinstance(written, dict) else None
        ours[key] = as_written if duration(as_written) == ours[key] else duration_text(ours[key])
    except (BadValueError, KeyError):
        ours[key] = duration_text(ours[key])


def _overlay(under: Any, over: Any, depth: int) -> Any:
    if not isinstance(under, dict) or not isinstance(over, dict) or depth > MAX_DEPTH:
        return over
    out = dict(under)
    for key, value in over.items():
        out[key] = _overlay(under[key], value, depth + 1) if key in under else value
    return out


def get_path(loaded: LoadedConfig, path: str) -> Any:
    """The effective value at a dotted path, redacted. Raises `UnknownPathError`, `edit.EditError` for what is no path.

    The channels this program knows answer with their defaults even where the file does not name them.
    """
    steps = parse_path(canonical_path(path.strip()))
    tree = effective(loaded)
    if steps[0] == "channels" and len(steps) > 1 and steps[1] in KNOWN_CHANNELS:
        defaults = to_json(GatewayConfig(channels={steps[1]: ChannelConfig()}))["channels"][steps[1]]
        tree["channels"].setdefault(steps[1], defaults)
    value: Any = tree
    for step in steps:
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            raise UnknownPathError(path, _nearest(steps, tree))
    return value


def _nearest(steps: tuple[str, ...], tree: dict[str, Any]) -> str | None:
    wanted = ".".join(steps)
    known = set(_paths(tree, "")) | {row for row in settings() if "*" not in row}
    if steps[0] == "channels" and len(steps) > 2:
        known |= {row.replace("*", steps[1], 1) for row in settings() if row.startswith("channels.*.")}
    exact = [path for path in known if path.rsplit(".", 1)[-1].lower() == steps[-1].lower()]
    return min(exact, key=len) if exact else nearest(wanted, known)


def _paths(value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [path]
    inner = [found for key, item in value.items() for found in _paths(item, f"{path}.{key}" if path else key)]
    return [path, *inner] if path else inner


def snapshot(loaded: LoadedConfig, *, applied_hash: str | None = None) -> dict[str, Any]:
    """The result of ``config.get``. ``applied_hash``: `LoadedConfig.hash` of what the gateway runs with, when that
    differs.
    """
    written = redact(loaded.parsed, as_written=True)
    resolved = redact(loaded.resolved)
    in_use = effective(loaded)
    return {
        "path": str(loaded.path),
        "includedPaths": [],
        "includeProvenance": [],
        "exists": loaded.exists,
        "raw": redact_raw(loaded.raw) if loaded.raw.strip() else loaded.raw,
        "parsed": written,
        "sourceConfig": written,
        "resolved": resolved,
        "valid": not loaded.degraded,
        "runtimeConfig": in_use,
        "config": in_use,
        "hash": loaded.hash,
        "issues": [issue.to_wire() for issue in loaded.issues if issue.severity != "warning"],
        "warnings": [
            *({"path": "", "message": line} for line in loaded.warnings[:1] if loaded.ignored),
            *(issue.to_wire() for issue in loaded.issues if issue.severity == "warning"),
        ],
        "legacyIssues": [],
        "configRevisionHash": loaded.hash,
        "appliedConfigHash": applied_hash if applied_hash is not None else loaded.hash,
    }
