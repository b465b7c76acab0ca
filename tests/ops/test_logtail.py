"""The cursor rules of logs.tail."""

import json
import os
from pathlib import Path

import pytest

from openclaw_gateway.ops import logtail
from openclaw_gateway.ops.logtail import MAX_BYTES, MAX_LINES, tail, tail_json


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.log"
    path.write_text("".join(f"line {number}\n" for number in range(10)))
    return path


def test_first_call_gives_the_last_lines(log: Path) -> None:
    answer = tail(log, None, limit=3)
    assert answer.lines == ("line 7", "line 8", "line 9")
    assert answer.cursor == answer.size == log.stat().st_size
    assert answer.truncated
    assert not answer.reset
    assert not tail(log, None, limit=10).truncated


def test_following_gives_each_line_once(log: Path) -> None:
    cursor = tail(log).cursor
    seen: list[str] = []
    for number in range(50):
        with log.open("a") as out:
            out.write(f"new {number}\n" * (number % 3))
        answer = tail(log, cursor)
        assert not answer.reset
        seen += answer.lines
        cursor = answer.cursor
    assert seen == [f"new {number}" for number in range(50) for _ in range(number % 3)]


def test_only_whole_lines(log: Path) -> None:
    cursor = tail(log).cursor
    with log.open("a") as out:
        out.write("half")
        out.flush()
        first = tail(log, cursor)
        assert first.lines == ()
        assert first.cursor == cursor
        out.write(" done\nnext")
    answer = tail(log, first.cursor)
    assert answer.lines == ("half done",)
    assert answer.size - answer.cursor == len("next")


def test_rotation_resets(log: Path) -> None:
    cursor = tail(log).cursor
    log.rename(log.with_suffix(".1"))
    log.write_text("fresh\n")
    answer = tail(log, cursor)
    assert answer.reset
    assert answer.lines == ("fresh",)
    assert answer.cursor == 6


def test_a_cursor_too_far_behind_resets_to_the_end(log: Path) -> None:
    answer = tail(log, 0, max_bytes=16)
    assert answer.reset
    assert answer.truncated
    assert answer.lines == ("line 8", "line 9")


def test_a_window_that_starts_inside_a_line_drops_that_part(log: Path) -> None:
    assert tail(log, None, max_bytes=10).lines == ("line 9",)
    assert tail(log, None, max_bytes=14).lines == ("line 8", "line 9")
    assert tail(log, None, max_bytes=3).lines == ()


def test_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    answer = tail(tmp_path / "none.log")
    assert (answer.lines, answer.cursor, answer.size, answer.reset) == ((), 0, 0, False)
    assert tail(tmp_path / "none.log", 5).reset


def test_a_file_that_cannot_be_read_is_an_error_not_an_empty_answer(tmp_path: Path) -> None:
    link = tmp_path / "gateway.log"
    (tmp_path / "secret").write_text("secret\n")
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        tail(link)


def test_caps_lines_bytes_and_cache(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    path.write_text("x\n" * 1_000_000)
    assert len(tail(path, None, limit=10**9, max_bytes=10**9).lines) == MAX_LINES
    path.write_text(("y" * 99 + "\n") * 50_000)
    answer = tail(path, None, limit=10**9, max_bytes=10**9)
    assert sum(len(line) + 1 for line in answer.lines) <= MAX_BYTES
    for number in range(100):
        tail_json(path, number)
    assert len(logtail._cache) <= 16
    assert len(logtail._encoded) <= 16


def test_unchanged_answers_come_from_the_cache_and_changed_ones_do_not(log: Path) -> None:
    first = tail_json(log)
    assert tail_json(log) is first
    assert tail(log) is tail(log)
    log.write_text("other\n" * 10)  # same file, other content and time
    os.utime(log, ns=(1, 1))
    assert json.loads(tail_json(log))["lines"] == ["other"] * 10


def test_json_has_the_keys_of_the_wire(log: Path) -> None:
    answer = json.loads(tail_json(log, None, 1, 1000))
    assert answer == {
        "file": str(log), "cursor": 70, "size": 70, "lines": ["line 9"], "truncated": True, "reset": False,
    }  # fmt: skip


def test_bytes_that_are_not_utf8_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bin.log"
    path.write_bytes(b"\xff\xfe\nok\n")
    assert tail(path).lines == ("��", "ok")
