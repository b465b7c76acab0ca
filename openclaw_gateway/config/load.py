"""openclaw.json → `LoadedConfig`: the one way in, for the start, the doctor, ``config validate`` and the hot reload.

Owns the order of the steps: read, parse, fill ``${NAME}``, settle aliases, lay environment and flags over it,
structure, apply the rules that look at several settings. Must not write anything, and never starts or stops a thing.

Precedence, for every setting: command-line flag > file > environment (``OPENCLAW_GATEWAY_TOKEN``, ``_PASSWORD``,
``_PORT``) > default (for the token: the generated token file, `config.secrets`). A setting that is written but cannot
be resolved is an error and never falls through to the next source.

Invariants: `load_config` raises `ConfigError` only where starting would be unsafe or nothing at all can be read;
every other fault is in `LoadedConfig.issues` with what is used instead. Same file, environment and flags: same
result, whoever asks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.config.interpolate import interpolate, plain
from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.json5 import MAX_BYTES, Json5Error, loads
from openclaw_gateway.config.lastgood import read_good
from openclaw_gateway.config.paths import config_path, state_dir
from openclaw_gateway.config.redact import redact
from openclaw_gateway.config.rules import apply_rules
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.settings import SECRETS, canonical_path, is_ours, pattern, settings, to_json
from openclaw_gateway.config.structure import Tree, canonicalise, structure
from openclaw_gateway.value import Value

__all__ = ["PORT_VARIABLE", "LoadedConfig", "check_text", "load_config"]

PORT_VARIABLE: Final = "OPENCLAW_GATEWAY_PORT"
_MAX_LISTED: Final = 20


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoadedConfig(Value):
    """A configuration and how it came about.

    ``raw`` is the file as it stands, ``hash`` its SHA-256; ``parsed`` its value as written, ``resolved`` the same with
    ``${NAME}`` filled. ``resolved_hash`` is over the effective configuration without its secrets: it may be shown,
    and a rotated secret does not change it (`watch.changed_paths` tells). ``degraded``: something written is not in
    use. ``overridden``: the paths that flags or the environment set.
    """

    config: GatewayConfig
    path: Path
    exists: bool
    raw: str = attrs.field(repr=False)
    parsed: Tree = attrs.field(repr=False)
    resolved: Tree = attrs.field(repr=False)
    hash: str
    resolved_hash: str
    issues: tuple[ConfigIssue, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    degraded: bool = False
    overridden: frozenset[str] = frozenset()


def load_config(
    *, env: Mapping[str, str], path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """Read the configuration. ``overrides``: dotted path → value, from command-line flags.

    A file that is not there gives the defaults. Raises `ConfigError` with every fault when the configuration cannot
    be used safely. Reads two small files at most, writes none; does not block otherwise.
    """
    where = path if path is not None else config_path(env)
    state = state_dir(env)
    raw, broken = "", None
    exists = True
    try:
        raw = _read(where)
    except FileNotFoundError:
        exists = False
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        broken = ConfigIssue(
            path="", message=f"{where} cannot be read: {reason}", severity="fatal", fix=f"ls -l '{where}'"
        )
    if broken is None:
        try:
            return _load_text(raw, where, exists, env, state, overrides or {}, extra=())
        except Json5Error as error:
            broken = ConfigIssue(
                path="",
                message=f"{where}: {error}",
                severity="fatal",
                fix=f"mend line {error.line} of {where}, then: openclaw config validate",
            )
    good = read_good(state)
    if good is None:
        raise ConfigError((broken,))
    told = attrs.evolve(broken, severity="fallback", message=broken.message + "; in use: the last good configuration")
    try:
        loaded = _load_text(good, where, True, env, state, overrides or {}, extra=(told,))
    except Json5Error:
        raise ConfigError((broken,)) from None
    return attrs.evolve(loaded, raw=raw, hash=_sha256(raw))


def check_text(raw: str, *, env: Mapping[str, str], path: Path | None = None) -> LoadedConfig:
    """What `load_config` would make of a file with this text, without the last good one standing in for its syntax.

    Raises `ConfigError`. This is what an edit is held against before it is written.
    """
    where = path if path is not None else config_path(env)
    try:
        return _load_text(raw, where, True, env, state_dir(env), {}, extra=(), look_at_mode=False)
    except Json5Error as error:
        raise ConfigError((ConfigIssue(path="", message=str(error), severity="fatal"),)) from None


def _read(path: Path) -> str:
    # O_NONBLOCK: a pipe in the place of the file must not hold the start up.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    with os.fdopen(fd, "rb") as file:
        # One byte over the limit is enough for the reader to refuse it.
        return file.read(MAX_BYTES + 1).decode("utf-8-sig")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _load_text(
    raw: str,
    where: Path,
    exists: bool,
    env: Mapping[str, str],
    state: Path,
    overrides: Mapping[str, Any],
    *,
    extra: tuple[ConfigIssue, ...],
    look_at_mode: bool = True,
) -> LoadedConfig:
    parsed = loads(raw) if raw.strip() else {}
    if not isinstance(parsed, dict):
        raise Json5Error("the file must hold one block { ... }")
    resolved = interpolate(parsed, env)
    tree, issues = canonicalise(resolved)
    overridden = _overlay(tree, env, overrides)
    type_given = _get(tree, "gateway.auth.type") is not None
    if not type_given:
        type_given = _infer_type(tree, overridden)
    structured = structure(tree, _Good(state, env))
    config = attrs.evolve(structured.config, state_dir=state)
    flagged = tuple(_from_flag(issue, overrides) for issue in (*issues, *structured.issues))
    config, issues = apply_rules(config, flagged, env=env, type_given=type_given)
    if look_at_mode and exists:
        issues += _exposed_file(where, parsed)
    # The fatal ones first: they are what has to be mended.
    ranks = {"fatal": 0, "fallback": 1, "warning": 2}
    issues = tuple(sorted((*extra, *issues), key=lambda issue: ranks[issue.severity]))
    if any(issue.severity == "fatal" for issue in issues):
        raise ConfigError(issues)
    return LoadedConfig(
        config=config,
        path=where,
        exists=exists,
        raw=raw,
        parsed=parsed,
        resolved=plain(resolved),
        hash=_sha256(raw),
        resolved_hash=hashlib.sha256(msgspec.json.encode(redact(to_json(config)), order="sorted")).hexdigest(),
        issues=issues,
        warnings=(
            *_ignored_line(structured.ignored),
            *(str(issue) for issue in issues if issue.severity == "warning"),
        ),
        ignored=structured.ignored,
        degraded=any(issue.severity == "fallback" for issue in issues),
        overridden=overridden,
    )


class _Good:
    """The last good tree, read only when a value needs it."""

    def __init__(self, state: Path, env: Mapping[str, str]) -> None:
        self._state, self._env = state, env
        self._tree: Tree | None = None

    def __call__(self) -> Tree:
        if self._tree is None:
            self._tree = {}
            try:
                value = loads(read_good(self._state) or "{}")
            except Json5Error:
                value = None
            if isinstance(value, dict):
                self._tree, _ = canonicalise(interpolate(value, self._env))
        return self._tree


def _get(tree: Tree, path: str) -> Any:
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _put(tree: Tree, path: str, value: Any) -> None:
    *blocks, key = path.split(".")
    for block in blocks:
        inner = tree.get(block)
        if inner is None:
            inner = tree[block] = {}
        elif not isinstance(inner, dict):
            return  # a fault of its own, which the structure step names
        tree = inner
    tree[key] = value


def _overlay(tree: Tree, env: Mapping[str, str], overrides: Mapping[str, Any]) -> frozenset[str]:
    laid: dict[str, Any] = {}
    port = env.get(PORT_VARIABLE, "").strip()
    if port and _get(tree, "gateway.port") is None:
        laid["gateway.port"] = int(port) if port.isascii() and port.isdigit() and len(port) < 8 else port
    for written, value in overrides.items():
        path = canonical_path(written)
        if pattern(path) not in settings():
            raise KeyError(written)
        if value is not None:
            laid[path] = value
    for path, value in laid.items():
        _put(tree, path, value)
        # A flag for the one port must not quarrel with its second name in the file.
        if path == "gateway.port" and "gateway.port" in overrides:
            _put(tree, "gateway.transports.http.port", None)
    return frozenset(laid)


def _infer_type(tree: Tree, overridden: frozenset[str]) -> bool:
    """A file with a password and no type means the password (OpenClaw reads it so too); a flag says what it is.

    Whether a flag settled it.
    """
    auth = _get(tree, "gateway.auth")
    if not isinstance(auth, dict):
        return False
    flags = [kind for kind in ("token", "password") if f"gateway.auth.{kind}" in overridden]
    if len(flags) == 1:
        auth["type"] = flags[0]
        return True
    has_password = auth.get("password") is not None or auth.get("passwordHash") is not None
    if has_password and auth.get("token") is None:
        auth["type"] = "password"
    return False


def _from_flag(issue: ConfigIssue, overrides: Mapping[str, Any]) -> ConfigIssue:
    """A faulty flag is the caller's own slip, made just now: say so instead of going on with something else."""
    if issue.path in {canonical_path(path) for path, value in overrides.items() if value is not None}:
        return attrs.evolve(
            issue, severity="fatal", message=f"{issue.message.split('; in use:')[0]} (given as a flag)", fix=None
        )
    return issue


def _exposed_file(where: Path, parsed: Tree) -> tuple[ConfigIssue, ...]:
    try:
        mode = stat.S_IMODE(where.stat().st_mode)
    except OSError:
        return ()
    if not mode & 0o077 or redact(parsed, as_written=True) == parsed:
        return ()
    return (
        ConfigIssue(
            path="",
            message=f"{where} holds secrets and others can read it (mode {mode:04o})",
            severity="warning",
            fix=f"chmod 600 '{where}'",
        ),
    )


def _ignored_line(ignored: tuple[str, ...]) -> tuple[str, ...]:
    if not ignored:
        return ()
    rest = len(ignored) - _MAX_LISTED
    listed = ", ".join(ignored[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
    return (f"ignored, because this gateway has no such setting: {listed}",)


assert all(is_ours(path) for path in SECRETS)
