"""kill -9 at any moment: every acknowledged write is there afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from openclaw_gateway.store import open_store
from tests.store.rows import names

WRITER = """
import sys
from pathlib import Path
import trio
from openclaw_gateway.store import open_store
from tests.store.rows import pair

async def write(store, worker, start):
    for number in range(start, start + 1_000_000):
        name = f"{worker}-{number:07}"
        await store.run(lambda db: pair(db, name), precious=number % 50 == 0)
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()

async def main():
    async with open_store(Path(sys.argv[1])) as store, trio.open_nursery() as nursery:
        for worker in range(4):
            nursery.start_soon(write, store, worker, int(sys.argv[2]))

trio.run(main)
"""
ROUNDS = 5
LINES = 300


async def test_state1_kill_9_loses_no_acknowledged_write(state_dir: Path) -> None:
    acknowledged: set[str] = set()
    for turn in range(ROUNDS):
        argv = [sys.executable, "-c", WRITER, str(state_dir), str(turn * 1_000_000)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - killed in a moment
            assert process.stdout is not None
            for _ in range(LINES):
                acknowledged.add(process.stdout.readline().strip())
            process.kill()
            # What it had told before it died counts as well; a line that was cut off does not.
            acknowledged.update(line.strip() for line in process.stdout if line.endswith("\n"))
        async with open_store(state_dir) as store:
            assert store.recovery is None
            kept = set(await store.run(names))
            assert await store.run(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        assert acknowledged <= kept
    assert len(acknowledged) >= ROUNDS * LINES
