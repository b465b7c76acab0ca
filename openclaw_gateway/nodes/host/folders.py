"""``fs.listDir``: the folders in a folder, inside the roots that the policy names and nowhere else.

Owns the walk. It must not know the wire. Invariants: every step below a root is opened relative to the step before,
without following symbolic links, so what is listed is what was checked whatever is swapped in between; ``..`` is not a
step; at most `MAX_LISTED` entries come out and `MAX_SEEN` are looked at.

The shape is OpenClaw's: folders only, hidden ones last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from openclaw_gateway.nodes.host.errors import CommandFailed

__all__ = ["MAX_LISTED", "MAX_SEEN", "list_folder", "real_folder"]

MAX_LISTED: Final = 4096
MAX_SEEN: Final = 65_536
_MAX_STEPS: Final = 128
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def list_folder(roots: Sequence[str], asked: str | None) -> dict[str, Any]:
    """``{path, parent?, home, entries: [{name, path, hidden?}], truncated?}``. Raises `CommandFailed`.

    Blocks for as long as the file system takes. ``asked`` None: the first root.
    """
    if not roots:
        raise CommandFailed("FS_DENIED", "no folder may be listed; on this node: openclaw node allow --root <folder>")
    root, steps = _place(roots, roots[0] if asked is None else asked)
    shown = PurePosixPath(root, *steps)
    fd = _open(root, steps, shown)
    try:
        entries, truncated = _entries(fd, shown)
    except OSError as error:
        raise _failed(shown, error) from error
    finally:
        os.close(fd)
    listing: dict[str, Any] = {"path": str(shown), "home": root, "entries": entries}
    if steps:
        listing["parent"] = str(shown.parent)
    if truncated:
        listing["truncated"] = True
    return listing


def _place(roots: Sequence[str], asked: str) -> tuple[str, tuple[str, ...]]:
    """The root that ``asked`` lies in, the innermost of several, and the steps from there."""
    if not asked.startswith("/") or "\0" in asked or len(asked) > 4096:
        raise CommandFailed("INVALID_REQUEST", "fs.listDir: path must be absolute")
    path = PurePosixPath(asked)
    best: tuple[str, tuple[str, ...]] | None = None
    for root in roots:
        inside = path.parts[: len(PurePosixPath(root).parts)] == PurePosixPath(root).parts
        if inside and (best is None or len(root) > len(best[0])):
            best = root, path.parts[len(PurePosixPath(root).parts) :]
    if best is None or ".." in best[1] or len(best[1]) > _MAX_STEPS:
        raise CommandFailed(
            "FS_DENIED",
            "the path is in no folder that may be listed; on this node: openclaw node allow --root <folder>",
        )
    return best


def _open(root: str, steps: Sequence[str], shown: PurePosixPath) -> int:
    try:
        fd = os.open(root, _FLAGS)
        for step in steps:
            outer = fd
            try:
                fd = os.open(step, _FLAGS, dir_fd=outer)
            finally:
                os.close(outer)
    except OSError as error:
        raise _failed(shown, error) from error
    return fd


def _entries(fd: int, shown: PurePosixPath) -> tuple[list[dict[str, Any]], bool]:
    found: list[dict[str, Any]] = []
    truncated = False
    with os.scandir(fd) as listing:
        for number, entry in enumerate(listing):
            if number >= MAX_SEEN or len(found) >= MAX_LISTED:
                truncated = True
                break
            name = entry.name
            if not entry.is_dir(follow_symlinks=False) or not name.isprintable():
                continue
            row: dict[str, Any] = {"name": name, "path": str(shown / name)}
            found.append({**row, "hidden": True} if name.startswith(".") else row)
    found.sort(key=lambda row: ("hidden" in row, row["name"]))
    return found, truncated


def _failed(shown: PurePosixPath, error: OSError) -> CommandFailed:
    return CommandFailed("FS_FAILED", f"{shown}: {error.strerror or 'cannot be listed'}")


def real_folder(path: str) -> str:
    """The folder behind ``path`` as a root is written down: absolute, without symbolic links. Raises OSError."""
    real = Path(path).expanduser().resolve(strict=True)
    os.close(os.open(real, _FLAGS))
    return str(real)
