"""Finding programs: a name in the node's own PATH, and what the file behind a path really is.

Owns ``system.which`` and the resolution that `exec_policy` decides about. It must not start anything. Invariants: only
absolute folders of PATH count; a name is one path component; a program is a regular file that we may execute.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["MAX_BINS", "MAX_NAME", "find_program", "resolve_program", "search_path"]

MAX_BINS: Final = 128
MAX_NAME: Final = 255
_DEFAULT: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def search_path() -> str:
    """The node's own PATH, absolute folders only."""
    folders = [folder for folder in os.environ.get("PATH", _DEFAULT).split(os.pathsep) if folder.startswith("/")]
    return os.pathsep.join(folders) or _DEFAULT


def find_program(name: str, path: str) -> str | None:
    """The first executable file called ``name`` in ``path``, None where there is none."""
    if not name or len(name) > MAX_NAME or "/" in name or "\0" in name or name in {".", ".."}:
        return None
    for folder in path.split(os.pathsep):
        candidate = Path(folder) / name
        if _is_program(candidate):
            return str(candidate)
    return None


def resolve_program(name: str, path: str) -> Path | None:
    """The real file behind a name or an absolute path, every symbolic link resolved. None where there is no program.

    A relative path is no program: what it means would depend on the caller's choice of folder.
    """
    if "\0" in name or len(name) > 4096:
        return None
    found = name if name.startswith("/") else find_program(name, path)
    if found is None:
        return None
    try:
        real = Path(found).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if _is_program(real) else None


def _is_program(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False
