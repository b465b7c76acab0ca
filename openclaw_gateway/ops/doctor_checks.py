"""Checks of the doctor that look at this host alone: files, store, network settings, log, clock, versions.

Each takes the `Patient` and gives findings. They read and never write; the store is opened read-only. They must not
dial."""

from __future__ import annotations

import ipaddress
import os
import shutil
import sqlite3
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openclaw_gateway.ops.doctor import Finding, Patient, State

__all__ = ["clock", "found", "log", "network", "state_directory", "store", "versions"]

_MAX_FILES: Final = 5000
_LOW_DISK_BYTES: Final = 200 * 1024 * 1024
_FUTURE_SECONDS: Final = 300
_EARLIEST: Final = 1_750_000_000  # before this package existed (2025-06-15)
_PRIVATE_RANGES: Final = tuple(
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_DEPENDENCIES: Final = (
    "attrs", "bcrypt", "cattrs", "click", "cryptography", "hypercorn", "msgspec", "trio", "trio-websocket",
    "websockets",
)  # fmt: skip


def found(check: str, state: State, text: str, fix: str | None = None) -> Finding:
    from openclaw_gateway.ops.doctor import Finding

    return Finding(check, state, text, fix)


def state_directory(patient: Patient) -> list[Finding]:
    """Ours alone: directories 0700, files 0600 (attack V53)."""
    root = patient.state_dir
    try:
        there = root.stat(follow_symlinks=False)
    except FileNotFoundError:
        return [found("state", "ok", f"{root} is not there yet; the first start makes it")]
    if not stat.S_ISDIR(there.st_mode):
        return [found("state", "fail", f"{root} is not a directory", f"mv '{root}' '{root}.old'")]
    if there.st_uid != os.geteuid():
        return [found("state", "fail", f"{root} belongs to user id {there.st_uid}", f"sudo chown -R $USER '{root}'")]
    if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return [found("state", "fail", f"{root} can be written by others", f"chmod 700 '{root}'")]
    open_to_others = []
    for number, path in enumerate(root.rglob("*")):
        if number >= _MAX_FILES:
            break
        try:
            mode = path.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode) and mode & 0o077:
            open_to_others.append(path)
    if there.st_mode & 0o077 or open_to_others:
        count = len(open_to_others) or 1
        example = open_to_others[0] if open_to_others else root
        text = f"{count} of its files or folders can be read by others, for example {example}"
        return [found("state", "warn", text, f"chmod -R go= '{root}'")]
    return [found("state", "ok", f"{root} is private")]


def store(patient: Patient) -> list[Finding]:
    """The database answers and holds together (SQLite's quick_check); read-only."""
    path = patient.state_dir / "gateway.db"
    if not path.exists():
        return [found("store", "ok", "there is no store yet")]
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            answers = [row[0] for row in database.execute("PRAGMA quick_check(5)")]
            version = database.execute("PRAGMA user_version").fetchone()[0]
        finally:
            database.close()
    except sqlite3.Error as error:
        fix = "openclaw gateway restart   (the start puts back the newest good backup; the damaged file is kept)"
        return [found("store", "fail", f"{path} cannot be read: {error}", fix)]
    if answers != ["ok"]:
        fix = "openclaw gateway restart   (the start puts back the newest good backup; the damaged file is kept)"
        return [found("store", "fail", f"{path} is damaged: {answers[0]}", fix)]
    return [found("store", "ok", f"{path} holds together (schema {version}, {path.stat().st_size // 1024} KiB)")]


def network(patient: Patient) -> list[Finding]:
    """Settings that work on paper and not in the world."""
    if patient.loaded is None:
        return []
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.server.addresses import in_container

    config = patient.loaded.config
    if config.mode == "remote":
        return []  # nothing listens here
    # A flag, or an edit that is not applied yet: what the running gateway does counts, not what the file says.
    holder = read_holder(patient.state_dir)
    bind = holder.bind if holder is not None and holder.bind is not None else config.bind
    port = holder.port if holder is not None and holder.port is not None else config.port
    findings = []
    if bind == "loopback" and in_container():
        findings.append(
            found(
                "network", "warn", "bound to loopback inside a container: a published port cannot reach it (NET-7)",
                "openclaw config set gateway.bind lan",
            )
        )  # fmt: skip
    for entry in config.trusted_proxies:
        try:
            network_ = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            continue
        if any(entry in issue.message for issue in patient.loaded.issues):
            continue  # the configuration's own validator has said so
        wide = any(
            private.version == network_.version and private.subnet_of(network_)  # type: ignore[arg-type]
            for private in _PRIVATE_RANGES
        )
        if wide:
            findings.append(
                found(
                    "network", "warn",
                    f"gateway.trustedProxies: {entry} covers a whole private range: clients count as proxies",
                    "openclaw config set gateway.trustedProxies '[\"<address of the proxy>\"]'",
                )
            )  # fmt: skip
    return findings or [found("network", "ok", f"bind {bind}, port {port}")]


def log(patient: Patient) -> list[Finding]:
    """The log can be written and has room."""
    if patient.loaded is None:
        return []
    from openclaw_gateway.ops.log import log_path

    path = log_path(patient.loaded.config.logging, patient.state_dir)
    if path is None:
        return [found("log", "warn", "no log file is written")]
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.exists() and not os.access(path, os.W_OK):
        return [found("log", "fail", f"{path} cannot be written", f"ls -l '{path}'")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [found("log", "fail", f"{folder} cannot be written", f"ls -ld '{folder}'")]
    free = shutil.disk_usage(folder).free
    if free < _LOW_DISK_BYTES:
        return [found("log", "warn", f"only {free // 1024 // 1024} MB are free in {folder}", f"df -h '{folder}'")]
    return [found("log", "ok", f"{path}, {free // 1024**3} GB free")]


def clock(patient: Patient) -> list[Finding]:
    """A clock that is plainly wrong breaks certificates and signatures of other hosts (AUTH-7)."""
    fix = "timedatectl set-ntp true"
    now = time.time()
    if now < _EARLIEST:
        return [found("clock", "fail", f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}", fix)]
    newest = max((_mtime(path) for path in (patient.state_dir, *_children(patient.state_dir))), default=0.0)
    if newest > now + _FUTURE_SECONDS:
        text = f"files of ours are dated {round((newest - now) / 60)} min ahead: the clock was set back"
        return [found("clock", "warn", text, fix)]
    return [found("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))]


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())[:_MAX_FILES]
    except OSError:
        return []


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def versions(patient: Patient) -> list[Finding]:
    """Python and the packages a start needs."""
    from importlib.metadata import PackageNotFoundError, version

    installed, missing = [], []
    for name in _DEPENDENCIES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    python = ".".join(map(str, sys.version_info[:3]))
    if missing:
        fix = f"{sys.executable} -m pip install {' '.join(missing)}"
        return [found("versions", "fail", f"not installed: {', '.join(missing)}", fix)]
    return [found("versions", "ok", f"Python {python}, {', '.join(installed)}")]
