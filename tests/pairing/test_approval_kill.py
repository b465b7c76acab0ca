"""kill -9 in the middle of approvals: every approval that was acknowledged is there afterwards, and no half of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_gateway.pairing import load_device_tokens, open_device_book
from openclaw_gateway.store import open_store

APPROVER = """
import sys
from pathlib import Path
import trio
from openclaw_gateway.pairing import Ask, load_device_tokens, open_device_book
from openclaw_gateway.pairing.decisions import OWNER
from openclaw_gateway.store import open_store

NOW = 1_800_000_000_000

async def approve(book, worker, start):
    for number in range(start, start + 1_000_000):
        name = f"{worker}-{number:07}"
        ask = Ask(device_id=name, public_key=f"key-{name}", role="operator", scopes=("operator.read",),
                  source_ip=f"10.0.0.{worker}")
        waiting = (await book.request_pairing(ask, NOW)).request
        device = (await book.approve(waiting.request_id, OWNER, NOW)).device
        sys.stdout.write(f"{name} {book.tokens.issue(device)}\\n")
        sys.stdout.flush()

async def main():
    state = Path(sys.argv[1])
    async with open_store(state) as store:
        tokens = load_device_tokens(state)
        async with open_device_book(store, clock=lambda: NOW, tokens=tokens) as book, trio.open_nursery() as nursery:
            for worker in range(4):
                nursery.start_soon(approve, book, worker, int(sys.argv[2]))

trio.run(main)
"""


@pytest.mark.deadline(1800)
@pytest.mark.parametrize(
    ("rounds", "lines"), [pytest.param(10, 20, id="10"), pytest.param(1000, 8, id="1000", marks=pytest.mark.soak)]
)
async def test_state1_kill_9_loses_no_acknowledged_approval(rounds: int, lines: int, state_dir: Path) -> None:
    acknowledged: dict[str, str] = {}
    for turn in range(rounds):
        argv = [sys.executable, "-c", APPROVER, str(state_dir), str(turn * 1_000_000)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - killed in a moment
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(lines + turn % 7)]
            process.kill()
            # What it had told before it died counts as well; a line that was cut off does not.
            told += list(process.stdout)
        # An approver that ended by itself (20,000 devices are the cap) would tell empty lines.
        assert all(line.endswith("\n") for line in told[:lines])
        for line in told:
            if line.endswith("\n"):
                name, token = line.split()
                acknowledged[name] = token
        tokens = load_device_tokens(state_dir)
        async with open_store(state_dir) as store, open_device_book(store, clock=lambda: 0, tokens=tokens) as book:
            assert store.recovery is None
            for name, token in acknowledged.items():
                record = book.lookup(name, "operator")
                assert record is not None, name
                assert tokens.verify(record, token)
            waiting = {request.device_id for request in book.pending()}
            assert not waiting & {record.device_id for record in book.paired()}
    assert len(acknowledged) >= rounds * lines
