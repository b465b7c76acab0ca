"""The state directory and its private files: nobody else reads them, and a failed write loses nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.ops.statedir import (
    StateDirUnsafe,
    ensure_private_dir,
    read_private_file,
    write_private_file,
)

SYSCALLS = ("open", "write", "fsync", "fchmod", "replace", "close")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_directories_are_created_private_with_their_parents(tmp_path: Path) -> None:
    ensure_private_dir(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o700] * 3
    ensure_private_dir(tmp_path / "a" / "b" / "c")


def test_our_own_directory_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)
    ensure_private_dir(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_a_directory_that_others_write_is_refused_with_the_fix(tmp_path: Path, bits: int) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(bits)
    with pytest.raises(StateDirUnsafe, match="chmod 700"):
        ensure_private_dir(place)
    assert mode(place) == bits


def test_a_symbolic_link_or_a_file_is_no_state_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(StateDirUnsafe, match="symbolic link"):
        ensure_private_dir(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateDirUnsafe, match="not a directory"):
        ensure_private_dir(tmp_path / "file")


def test_another_owner_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_private_file(tmp_path / "secret", b"x")
    actual = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: actual + 1)
    with pytest.raises(StateDirUnsafe, match="belongs to user id"):
        ensure_private_dir(tmp_path)
    with pytest.raises(StateDirUnsafe, match="belongs to user id"):
        read_private_file(tmp_path / "secret")


@pytest.mark.usefixtures("open_umask")
def test_v53_a_file_is_private_whatever_the_umask_and_the_old_mode(tmp_path: Path) -> None:
    target = tmp_path / "key"
    target.write_bytes(b"old")
    target.chmod(0o644)
    write_private_file(target, b"new")
    assert (mode(target), read_private_file(target)) == (0o600, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_reading_tightens_refuses_and_tells_absent_from_unreadable(tmp_path: Path) -> None:
    target = tmp_path / "key"
    with pytest.raises(FileNotFoundError):
        read_private_file(target)
    target.write_bytes(b"abc")
    target.chmod(0o644)
    assert read_private_file(target) == b"abc"
    assert mode(target) == 0o600
    with pytest.raises(StateDirUnsafe, match="over 2 bytes"):
        read_private_file(target, limit=2)
    target.chmod(0o620)
    with pytest.raises(StateDirUnsafe, match="written by others"):
        read_private_file(target)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(StateDirUnsafe, match="symbolic link"):
        read_private_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StateDirUnsafe, match="regular file"):
        read_private_file(tmp_path / "pipe")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (tmp_path / "key").symlink_to("elsewhere")
    write_private_file(tmp_path / "key", b"ours")
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"
    assert not (tmp_path / "key").is_symlink()


def test_leftovers_of_a_killed_process_go_and_young_ones_stay(tmp_path: Path) -> None:
    old, young = tmp_path / ".key.1.aa.tmp", tmp_path / ".key.2.bb.tmp"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    os.utime(old, (1, 1))
    write_private_file(tmp_path / "key", b"x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [young.name, "key"]


@pytest.mark.parametrize("name", SYSCALLS)
def test_state1_each_system_call_of_a_save_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = tmp_path / "key"
    write_private_file(target, b"old")
    real = getattr(os, name)
    failed = 0
    for turn in range(10):
        count = 0

        def faulty(*args: Any, _turn: int = turn, **kwargs: Any) -> Any:
            nonlocal count, failed
            count += 1
            if count == _turn + 1:
                failed += 1
                if name == "close":
                    real(*args, **kwargs)  # the descriptor is gone either way
                raise OSError(errno.EIO, "injected")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, faulty)
            try:
                write_private_file(target, b"new")
            except OSError:
                outcome = "failed"
            else:
                outcome = "saved"
        assert target.read_bytes() in ({b"new"} if outcome == "saved" else {b"old", b"new"})
        assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
        if outcome == "saved":
            break
        write_private_file(target, b"old")
    else:
        pytest.fail("a save never got through")
    assert failed == turn > 0
