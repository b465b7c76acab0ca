"""The size of the log under a flood (LOG-1), end to end."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from .churn import churn_refused
from .running import gateway

CONFIG = {"logging": {"console": False}}


def log_bytes_of(tmp_path: Path, refused: int) -> int:
    with gateway(tmp_path, CONFIG, real=True) as running:
        before = running.log_bytes
        seen = churn_refused(running.port, count=refused)
        assert sum(seen.values()) == refused
    folder = tmp_path / "state" / "logs"
    lines = [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    told = [line for line in lines if line["event"] == "auth refused"]
    assert sum(1 + line.get("repeated", 0) - ("repeated" in line) for line in told) == refused, told
    grown = sum(path.stat().st_size for path in folder.iterdir()) - before
    print(f"{refused} refused connects: {grown} bytes of log")
    return grown


def test_log1_3k_identical_refused_connects_take_a_few_lines(tmp_path: Path) -> None:
    assert log_bytes_of(tmp_path, 3000) < 64 * 1024


@pytest.mark.soak
@pytest.mark.deadline(600)
def test_log1_100k_identical_refused_connects_stay_under_5_mb(tmp_path: Path) -> None:
    assert log_bytes_of(tmp_path, 100_000) < 5_000_000


def test_log1_the_store_does_not_grow_with_refused_connects_either(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, real=True) as running:
        churn_refused(running.port, count=300)
    with sqlite3.connect(tmp_path / "state" / "gateway.db") as db:
        assert db.execute("SELECT count(*) FROM pending_requests").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM devices").fetchone() == (0,)
    db.close()
