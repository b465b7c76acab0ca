"""Shared by the store's tests: a directory, and a look at the modes of what lies in it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def modes() -> Callable[[Path], dict[str, int]]:
    """The permission bits of everything under a directory that does not have the private ones."""

    def look(root: Path) -> dict[str, int]:
        wrong = {}
        for path in (root, *root.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode != (0o700 if path.is_dir() else 0o600):
                wrong[str(path.relative_to(root))] = mode
        return wrong

    return look
