"""Noticing that openclaw.json changed, and telling what that means.

Owns the watching and the difference between two configurations by their *resolved* values. Must not apply anything:
whoever runs the gateway takes the new `LoadedConfig` over, or not.

Why a look at the file each second and not watchfiles: under Trio its watcher sits in a thread that takes up to 5 s to
let go after a cancel (measured 4.6 s; a stop must take 5 s in all) and idles at 0.14 % of a core and 3.4 MB; a `stat`
a second costs 0.04 % and nothing, and works on network file systems and mounted secrets, where notification does not.

Invariants: a text that is half written is not read (the file must look the same twice); a file that is broken, unsafe
or gone changes nothing, it only brings issues; each state of the file is reported once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import trio

from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.config.settings import canonical_path, to_json
from openclaw_gateway.config.structure import canonicalise
from openclaw_gateway.value import Value

__all__ = ["REBIND", "ConfigChange", "changed_paths", "overridden_edits", "watch_config"]

# The settings that need the listener opened again; everything else applies to what is running.
REBIND: Final = frozenset({"gateway.bind", "gateway.customBindHost", "gateway.port"})

_INTERVAL: Final = 1.0
_SETTLE: Final = 0.1

_Stamp = tuple[int, int, int, int] | None


class Load(Protocol):
    """How a configuration is read: `load_config`."""

    def __call__(
        self, *, env: Mapping[str, str], path: Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> LoadedConfig: ...


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConfigChange(Value):
    """A new state of the file. Where it cannot be used, ``new`` is ``old`` and ``issues`` says why.

    ``changed``: dotted paths of the settings whose resolved values differ (secrets included, by path only). It may be
    empty: a comment was edited, and ``new.hash`` is what is applied from now on.
    """

    old: LoadedConfig
    new: LoadedConfig
    changed: tuple[str, ...] = ()
    issues: tuple[ConfigIssue, ...] = ()
    needs_rebind: bool = False

    @property
    def applied(self) -> bool:
        return self.new is not self.old


def changed_paths(old: LoadedConfig, new: LoadedConfig) -> tuple[str, ...]:
    """The dotted paths whose effective values differ, in order of the schema; a block that came or went counts as
    one.
    """
    return tuple(_differences(to_json(old.config), to_json(new.config), ""))


def overridden_edits(old: LoadedConfig, new: LoadedConfig, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings whose values in the file differ, but that a flag (``overrides``) sets all the same."""
    before, now = canonicalise(old.resolved)[0], canonicalise(new.resolved)[0]
    flags = [canonical_path(path) for path, value in overrides.items() if value is not None]
    return tuple(path for path in flags if _written(before, path) != _written(now, path))


def _written(tree: Any, path: str) -> Any:
    for step in path.split("."):
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            found
            for key in keys
            for found in _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new and type(old) is type(new) else [path]


async def watch_config(
    loaded: LoadedConfig,
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    load: Load = load_config,
    interval: float = _INTERVAL,
) -> AsyncGenerator[ConfigChange, None]:
    """Yield a `ConfigChange` for every new state of the file ``loaded`` came from, for ever.

    Iterate to the end of the task, or wrap in `contextlib.aclosing` where the loop may be left.

    ``env`` and ``overrides`` as at the start. ``interval``: seconds between looks. Cancellation leaves at once; there
    is no thread and nothing to close. Faults of the file never raise. Reading happens on the loop: milliseconds for a
    file of some KiB.
    """
    current = loaded
    # What is there now may already differ from what was loaded; an impossible stamp makes the first look compare texts.
    seen: _Stamp = (-1, -1, -1, -1)
    seen_hash: str | None = loaded.hash
    while True:
        stamp = _stamp(current.path)
        if stamp == seen:
            await trio.sleep(interval)
            continue
        # A writer that is still at it changes the stamp again.
        await trio.sleep(min(_SETTLE, interval))
        if _stamp(current.path) != stamp:
            continue
        seen = stamp
        if stamp is None:
            if current.exists and seen_hash is not None:
                seen_hash = None
                gone = f"{current.path} is gone; the running configuration stays"
                yield ConfigChange(old=current, new=current, issues=(ConfigIssue(path="", message=gone),))
            continue
        change = _read(current, env, overrides, load, seen_hash)
        if change is not None:
            seen_hash = change.new.hash if change.applied else ""
            current = change.new
            yield change


def _read(
    current: LoadedConfig,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None,
    load: Load,
    seen_hash: str | None,
) -> ConfigChange | None:
    try:
        new = load(env=env, path=current.path, overrides=overrides)
    except ConfigError as error:
        return ConfigChange(old=current, new=current, issues=error.issues)
    if new.hash == seen_hash:
        return None
    if new.degraded:
        return ConfigChange(old=current, new=current, issues=new.issues)
    changed = changed_paths(current, new)
    return ConfigChange(
        old=current, new=new, changed=changed, issues=new.issues, needs_rebind=not REBIND.isdisjoint(changed)
    )


def _stamp(path: Path) -> _Stamp:
    """Whatever changes when a file is written, replaced, or its link is turned elsewhere."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the loop calls this each second for ever; Path.stat costs three times as much
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
