"""X25519 keys in files: made once, private, never replaced (S095)."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openclaw_gateway.ops.statedir import StateDirUnsafe
from openclaw_gateway.ops.statickey import StaticKeyDamaged, load_or_create_static_key, make_static_key


def test_s095_a_key_is_made_once_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "node" / "x25519.json"
    key = load_or_create_static_key(path)
    assert load_or_create_static_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(key.private) == len(key.public) == 32
    assert key.private != key.public
    assert [found.name for found in path.parent.iterdir()] == ["x25519.json"]


def test_of_many_that_start_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "node" / "x25519.json"
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: load_or_create_static_key(path), range(32)))
    assert len({key.private for key in keys}) == 1
    assert [found.name for found in path.parent.iterdir()] == ["x25519.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"privateKey":"AAAA","createdAtMs":1}', b'{"privateKey":"+++","createdAtMs":1}']
)
def test_a_damaged_key_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x25519.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StaticKeyDamaged) as failed:
        load_or_create_static_key(path)
    assert f"mv '{path}'" in str(failed.value)
    assert path.read_bytes() == content


def test_a_key_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x25519.json"
    load_or_create_static_key(path)
    path.chmod(0o666)
    with pytest.raises(StateDirUnsafe):
        load_or_create_static_key(path)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        load_or_create_static_key(tmp_path / "x25519.json")
    assert list(tmp_path.iterdir()) == []


def test_the_private_key_does_not_show(tmp_path: Path) -> None:
    key = load_or_create_static_key(tmp_path / "x25519.json")
    assert repr(key.private) not in repr(key)
    assert json.loads((tmp_path / "x25519.json").read_text())["privateKey"] not in repr(key)
    assert make_static_key() != make_static_key()
