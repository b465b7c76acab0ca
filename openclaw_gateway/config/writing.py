"""The only way in which openclaw.json is written: asked for by a person, checked, whole, with the old one kept.

Owns replacing the file (temporary file, fsync, rename), its mode, its backups, the check before, and the two requests
of the wire (``config.set``, ``config.patch``). Must not decide what is valid (`config.load` does) nor reload
anything.

Invariants: a crash leaves the old or the new file, whole; a change made meanwhile by somebody else is never overwritten
(``base_hash``, and a lock on the directory between our own writers); an edit that brings a new fault is refused;
every file written is 0600, or has the mode it had if others could not read it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from openclaw_gateway.config.edit import EditError, merge_patch
from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.json5 import MAX_BYTES, Json5Error, parse
from openclaw_gateway.config.load import LoadedConfig, check_text
from openclaw_gateway.config.paths import state_dir
from openclaw_gateway.config.redact import MARKER, restore_raw
from openclaw_gateway.errors import GatewayError

__all__ = [
    "BACKUPS",
    "ConfigConflictError",
    "apply_patch",
    "apply_raw",
    "backup_paths",
    "put_back",
    "read_text",
    "write_config",
]

BACKUPS: Final = 5


@attrs.define(eq=False)
class ConfigConflictError(GatewayError):
    """The file is not the one that the change was made from. ``present_hash`` is the SHA-256 of what is there now."""

    path: Path
    present_hash: str

    def __str__(self) -> str:
        return f"{self.path} was changed meanwhile; read it again (config.get) and repeat the change"


def read_text(path: Path) -> str:
    """The file as text, "" when there is none. Raises `OSError`, `ConfigError` for what is no UTF-8 text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ""
    try:
        return data[: MAX_BYTES + 4].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError((ConfigIssue(path="", message=f"{path} is not UTF-8 text", severity="fatal"),)) from None


def backup_paths(path: Path) -> tuple[Path, ...]:
    """The newest first: openclaw.json.bak, .bak.1, …"""
    return (path.with_name(f"{path.name}.bak"), *(path.with_name(f"{path.name}.bak.{n}") for n in range(1, BACKUPS)))


def write_config(
    path: Path, raw: str, *, env: Mapping[str, str], base_hash: str | None = None
) -> tuple[LoadedConfig | None, tuple[ConfigIssue, ...]]:
    """Check and write. Returns what the file now says (None when it is still fatal) and the issues that remain.

    ``base_hash``: SHA-256 of the text the change was made from; None means what is there now. An edit may leave
    faults that were there before (files are mended one step at a time) but may not bring new ones; a variable that is
    unset in this process's environment is no fault of the file. Raises `ConfigError` (refused, with the new issues),
    `ConfigConflictError`, `OSError`, `MarkerRefusedError`. Two disk flushes.
    """
    if MARKER in raw:
        # Values are handled by the edit; this is the net under everything else, comments included.
        raise EditError("", f"{MARKER} would be written; nothing was changed")
    target = path.resolve() if path.is_symlink() else path
    _make_parent(target, env)
    with _locked(target.parent):
        present = read_text(target)
        present_hash = hashlib.sha256(present.encode()).hexdigest()
        if base_hash is not None and base_hash != present_hash:
            raise ConfigConflictError(path, present_hash)
        loaded, issues = _judge(raw, env, path)
        _, before = _judge(present, env, path)
        known = {(issue.path, issue.message) for issue in before}
        # Nothing of the refused text comes into use, whatever a start would have put in its place.
        new = tuple(
            attrs.evolve(issue, message=issue.message.split("; in use:")[0])
            for issue in issues
            if issue.severity != "warning" and not issue.unset and (issue.path, issue.message) not in known
        )
        if new:
            raise ConfigError(new)
        if raw != present or not target.exists():
            _replace(target, raw.encode())
    return loaded, issues


def put_back(path: Path, raw: str, *, base_hash: str) -> None:
    """Replace the text by one that stood here before, without judging it: it is what its owner had.

    Raises `ConfigConflictError` where the file is not the one of ``base_hash``, `OSError`.
    """
    target = path.resolve() if path.is_symlink() else path
    with _locked(target.parent):
        present_hash = hashlib.sha256(read_text(target).encode()).hexdigest()
        if present_hash != base_hash:
            raise ConfigConflictError(path, present_hash)
        _replace(target, raw.encode())


def apply_patch(
    loaded: LoadedConfig, patch: Mapping[str, Any], *, env: Mapping[str, str], base_hash: str | None = None
) -> tuple[LoadedConfig | None, tuple[ConfigIssue, ...]]:
    """``config.patch``: merge an RFC 7396 patch into the file. Errors as `write_config`."""
    raw = merge_patch(loaded.raw, patch)
    return write_config(loaded.path, raw, env=env, base_hash=base_hash if base_hash is not None else loaded.hash)


def apply_raw(
    loaded: LoadedConfig, raw: str, *, env: Mapping[str, str], base_hash: str | None = None
) -> tuple[LoadedConfig | None, tuple[ConfigIssue, ...]]:
    """``config.set``: replace the whole text by one that a client edited; markers in it keep what is there."""
    try:
        root = parse(raw)
    except Json5Error as error:
        issue = ConfigIssue(path="", message=f"not valid JSON5: {error}", severity="fatal")
        raise ConfigError((issue,)) from error
    if not isinstance(root.value, dict):
        raise ConfigError((ConfigIssue(path="", message="must be one block { ... }", severity="fatal"),))
    restored = restore_raw(raw, loaded.raw)
    return write_config(loaded.path, restored, env=env, base_hash=base_hash if base_hash is not None else loaded.hash)


def _judge(raw: str, env: Mapping[str, str], path: Path) -> tuple[LoadedConfig | None, tuple[ConfigIssue, ...]]:
    try:
        loaded = check_text(raw, env=env, path=path)
    except ConfigError as error:
        return None, error.issues
    return loaded, loaded.issues


def _make_parent(target: Path, env: Mapping[str, str]) -> None:
    from openclaw_gateway.ops.statedir import ensure_private_dir

    # A directory that somebody else made for their own purposes (/etc, a mounted volume) is left as it is.
    if target.parent == state_dir(env) or not target.parent.exists():
        ensure_private_dir(target.parent)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One writer at a time. The lock is on the directory itself, so no lock file is left behind."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some network file systems have no locks; base_hash still guards there.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(target: Path, data: bytes) -> None:
    mode, owner = 0o600, None
    with contextlib.suppress(FileNotFoundError):
        found = target.stat()
        permissions = stat.S_IMODE(found.st_mode)
        mode = 0o600 if permissions & 0o007 else permissions | 0o600
        owner = (found.st_uid, found.st_gid)
        _keep(target)
    temporary = _write_temporary(target, data, mode, owner)
    try:
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def _write_temporary(target: Path, data: bytes, mode: int, owner: tuple[int, int] | None) -> Path:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                # root editing a user's file must not take it away from the user
                with contextlib.suppress(OSError):
                    os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _keep(target: Path) -> None:
    """Move the backups up by one and put the present file first, 0600 whatever its own mode was."""
    backups = backup_paths(target)
    for newer, older in zip(reversed(backups[:-1]), reversed(backups[1:]), strict=True):
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)
            older.chmod(0o600)
    found = target.stat()
    _write_temporary(target, target.read_bytes(), 0o600, (found.st_uid, found.st_gid)).replace(backups[0])


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
