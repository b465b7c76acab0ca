"""A tree of plain values → the attrs tree, with a verdict on every key.

Owns unknown keys, and what takes the place of a value that cannot be used (`config.closed` lists where that is a closed
door). Must not know where the tree came from (file, last-known-good, flags), other names of a setting
(`config.canonical` has replaced them) nor which combinations are allowed (`config.rules`).

Invariants: always returns a whole `GatewayConfig`; every deviation from what was written is an issue. A value in
harmless places falls back to the last-known-good one, then to the default. A setting that decides who may come in
never falls back to an older value (the edit may have been meant to close a door): it takes the closed value, or is
fatal. An entry of a list or of a map of blocks is in use whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import attrs

from openclaw_gateway.config.canonical import NOT_A_CHANNEL, Tree, canonicalise
from openclaw_gateway.config.closed import CLOSED, FATAL
from openclaw_gateway.config.interpolate import plain
from openclaw_gateway.config.issues import ConfigIssue, Severity, nearest
from openclaw_gateway.config.leaves import BadValueError, read_leaf, unresolved
from openclaw_gateway.config.schema import ChannelConfig, DirectMessageConfig, GatewayConfig
from openclaw_gateway.config.settings import (
    FOREIGN_BLOCKS,
    Collection,
    Setting,
    block_class,
    collection,
    field_types,
    file_path,
    json_name,
    settings,
    top_level,
)
from openclaw_gateway.value import Value

__all__ = ["CLOSED", "FATAL", "Structured", "Tree", "canonicalise", "structure"]

_MAX_CHANNELS: Final = 200
_MAX_ENTRIES: Final = 200
_MAX_IGNORED: Final = 1_000
_LEFT_OUT: Final = "this entry is not in use"


@attrs.frozen(eq=False, repr=False)
class Structured(Value):
    config: GatewayConfig
    issues: tuple[ConfigIssue, ...]
    ignored: tuple[str, ...]


def structure(tree: Tree, good: Callable[[], Tree]) -> Structured:
    """A canonical tree → the configuration. ``good`` gives the last-known-good tree (canonical), {} when there is
    none.
    """
    builder = _Builder(tree, good)
    fields: dict[str, Any] = {}
    gateway = builder.block(tree, "gateway", "gateway")
    known = set()
    types = field_types(GatewayConfig)
    for attribute in attrs.fields(GatewayConfig):
        path = file_path(attribute.name)
        if path is None:
            continue
        if attribute.name == "channels":
            fields["channels"] = builder.channels()
            continue
        if path.startswith("gateway."):
            holder, key = gateway, path.removeprefix("gateway.")
            known.add(key)
        else:
            holder, key = tree, path
        fields[attribute.name] = builder.field(holder, key, path, path, types[attribute.name], attribute.default)
    builder.unknown(gateway, known, "gateway")
    builder.unknown(tree, set(top_level()), "")
    return Structured(GatewayConfig(**fields), tuple(builder.issues), tuple(builder.ignored[:_MAX_IGNORED]))


class _Builder:
    """One pass over one tree; collects issues and ignored keys on the way."""

    def __init__(self, tree: Tree, good: Callable[[], Tree]) -> None:
        self._tree = tree
        self._good = good
        self.issues: list[ConfigIssue] = []
        self.ignored: list[str] = []
        self._entry = False  # inside an entry of a list or a map: one fault and the entry is left out

    def field(self, holder: Tree, key: str, path: str, row: str, annotation: Any, default: Any) -> Any:
        """One attribute: a block or a leaf. Absent and null mean the default.

        ``row`` is ``path`` with ``*`` for the channel, whose own name may hold dots.
        """
        cls, place = block_class(annotation), collection(annotation)
        if place is not None:
            return self.entries(place, holder.get(key), path, row)
        if cls is None:
            setting = settings()[row]
            value = holder.get(key)
            if value is None and setting.required:
                self.entry_fault(path, "is missing", f"openclaw config get {path.rsplit('.', 2)[0]}")
            return setting.default if value is None else self.leaf(setting, path, value)
        if holder.get(key) is None and default is None:
            return None
        return self.instance(cls, self.block(holder, key, path), path, row)

    def instance(self, cls: type, block: Tree, path: str, row: str) -> Any:
        types = field_types(cls)
        fields: dict[str, Any] = {}
        for attribute in attrs.fields(cls):
            key = json_name(attribute.name)
            fields[attribute.name] = self.field(
                block, key, f"{path}.{key}", f"{row}.{key}", types[attribute.name], attribute.default
            )
        self.unknown(block, {json_name(name) for name in fields}, path)
        return cls(**fields)

    def entries(self, place: Collection, value: Any, path: str, row: str) -> Any:
        """A list or a map of blocks; entries with a fault are left out, each with its issue."""
        wanted = list if place.kind == "list" else dict
        if value is not None and not isinstance(value, wanted):
            told = "must be a list of blocks [ { ... } ]" if place.kind == "list" else "must be a block { ... }"
            self.issues.append(
                ConfigIssue(path=path, message=told, severity="fallback", fix=f"openclaw config unset {path}")
            )
            value = None
        items = list(value.items() if isinstance(value, dict) else enumerate(value or ()))
        if len(items) > _MAX_ENTRIES:
            self.issues.append(
                ConfigIssue(
                    path=path,
                    message=f"has more than {_MAX_ENTRIES} entries; the others are not in use",
                    severity="fallback",
                    fix=f"openclaw config get {path}",
                )
            )
        found = {}
        for name, inner in items[:_MAX_ENTRIES]:
            at = f"{path}.{name}"
            before, outer = len(self.issues), self._entry
            self._entry = True
            if not isinstance(inner, dict):
                self.entry_fault(at, "must be a block { ... }", f"openclaw config unset {at}")
            else:
                found[name] = self.instance(place.block, inner, at, f"{row}.*")
            if any(issue.severity != "warning" for issue in self.issues[before:]):
                found.pop(name, None)
            self._entry = outer
        return found if place.kind == "map" else tuple(found.values())

    def entry_fault(self, path: str, message: str, fix: str) -> None:
        """Note what is wrong with an entry as a whole."""
        self.issues.append(ConfigIssue(path=path, message=f"{message}; {_LEFT_OUT}", severity="fallback", fix=fix))

    def block(self, holder: Tree, key: str, path: str) -> Tree:
        value = holder.get(key)
        if isinstance(value, dict):
            return cast("Tree", value)
        if value is not None:
            # Whatever stood there, the secrets of this block are not known: guessing an authentication would be unsafe.
            severity: Severity = "fatal" if path in {"gateway", "gateway.auth"} else "fallback"
            self.issues.append(
                ConfigIssue(
                    path=path, message="must be a block { ... }", severity=severity, fix=f"openclaw config unset {path}"
                )
            )
        return {}

    def leaf(self, setting: Setting, path: str, value: Any) -> Any:
        try:
            return read_leaf(setting, path, value)
        except BadValueError as bad:
            severity: Severity = "fatal" if setting.path in FATAL and not self._entry else "fallback"
            fallback, told = (setting.default, _LEFT_OUT) if self._entry else self._fallback(setting, path, bad)
            self.issues.append(
                ConfigIssue(
                    path=path,
                    message=bad.message + (f"; {told}" if severity == "fallback" else ""),
                    severity=severity,
                    allowed=bad.allowed,
                    nearest=bad.nearest,
                    unset=bad.unset,
                    fix=bad.fix or _fix(setting, path, bad),
                )
            )
            return fallback

    def _fallback(self, setting: Setting, path: str, bad: BadValueError) -> tuple[Any, str]:
        if bad.kept is not None:
            return bad.kept, "the other entries are in use"
        if setting.path in FATAL:
            return setting.default, ""
        if setting.path in CLOSED:
            closed = CLOSED[setting.path]
            return closed, f"in use: {_told(closed)}"
        value: Any = self._good()
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            try:
                known_good = read_leaf(setting, path, value)
            except BadValueError:
                pass
            else:
                return known_good, f"in use: the last good value {_told(known_good)}"
        return setting.default, f"in use: the default {_told(setting.default)}"

    def unknown(self, block: Tree, known: set[str], path: str) -> None:
        for key in block:
            if key in known:
                continue
            name = f"{path}.{key}" if path else key
            guess = nearest(key, known) if path or key not in FOREIGN_BLOCKS else None
            self.ignored.append(f"{name} (did you mean {path + '.' if path else ''}{guess}?)" if guess else name)

    def channels(self) -> dict[str, ChannelConfig]:
        found: dict[str, ChannelConfig] = {}
        for name, value in self.block(self._tree, "channels", "channels").items():
            path = f"channels.{name}"
            if name in NOT_A_CHANNEL or len(found) >= _MAX_CHANNELS:
                self.ignored.append(path)
            elif value is not None:
                found[name] = self.channel(self.block({name: value}, name, path), path)
        return found

    def channel(self, block: Tree, path: str) -> ChannelConfig:
        rows = settings()
        enabled = block.get("enabled")
        on = True if enabled is None else self.leaf(rows["channels.*.enabled"], f"{path}.enabled", enabled)
        dm = self.instance(DirectMessageConfig, self.block(block, "dm", f"{path}.dm"), f"{path}.dm", "channels.*.dm")
        extra = {key: inner for key, inner in block.items() if key not in {"enabled", "dm"}}
        unset = sorted({name for text in unresolved(extra) for name in text.names})
        if unset and on:
            self.issues.append(
                ConfigIssue(
                    path=path,
                    message=f"environment variable not set: {', '.join(unset)}; the channel stays off",
                    unset=tuple(unset),
                    fix=f"export {unset[0]}=...",
                )
            )
        return ChannelConfig(enabled=bool(on) and not unset, dm=dm, extra=plain(extra))


def _told(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fix(setting: Setting, path: str, bad: BadValueError) -> str:
    if setting.secret:
        return f"openclaw config set {path} '${{NAME_OF_A_VARIABLE}}'"
    if bad.nearest is not None or bad.allowed:
        return f"openclaw config set {path} {bad.nearest or bad.allowed[0]}"
    return f"openclaw config unset {path}"
