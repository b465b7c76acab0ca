"""Programs, really run: their group dies with them, with their time, with their caller and with the node itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway.nodes.host.process import run_program

ENV = {"PATH": "/usr/bin:/bin"}
SLEEP = "100000"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_gone(pids: list[int], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, f"still there: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)


def words_of(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def written(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def wait_pids(file: Path, count: int) -> list[int]:
    """Wait until a program has written so many process ids; another process does it, so only time can be waited on."""
    while True:
        words = words_of(file)
        if len(words) >= count:
            return [int(word) for word in words]
        await trio.sleep(0.01)


async def run(*argv: str, seconds: float = 10, max_bytes: int = 100_000, cwd: str = "/") -> object:
    return await run_program(argv, cwd=cwd, env=ENV, seconds=seconds, max_bytes=max_bytes)


FORK = 'echo $$ >"$0"; sleep 100000 & echo $! >>"$0"; (sleep 100000 & echo $! >>"$0"; wait) & {}'


async def test_output_and_exit_code_come_back(tmp_path: Path) -> None:
    outcome = await run_program(
        ["/bin/sh", "-c", "pwd; echo $LANG; echo err >&2; exit 3"],
        cwd=str(tmp_path), env={**ENV, "LANG": "xx"}, seconds=10, max_bytes=1000,
    )  # fmt: skip
    assert (outcome.exit_code, outcome.timed_out, outcome.truncated) == (3, False, False)
    assert outcome.stdout.decode().splitlines() == [str(tmp_path), "xx"]
    assert outcome.stderr == b"err\n"


async def test_v54_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    hostile = ["$(touch pwned)", "; touch pwned", "a b", "*", "-n", "\n touch pwned", "`touch pwned`", ""]
    outcome = await run_program(
        ["/usr/bin/printf", "%s|", *hostile], cwd=str(tmp_path), env=ENV, seconds=10, max_bytes=1000
    )
    assert outcome.stdout.decode() == "".join(f"{word}|" for word in hostile)
    assert written(tmp_path) == []


async def test_a_program_has_no_input_and_no_handle_on_the_guard() -> None:
    outcome = await run_program(
        ["/bin/sh", "-c", "cat; ls /proc/self/fd"], cwd="/", env=ENV, seconds=10, max_bytes=1000
    )
    assert set(outcome.stdout.decode().split()) <= {"0", "1", "2", "3"}  # 3: ls' own look into the folder
    assert outcome.exit_code == 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Set when a program has been started and its time runs."""
    event, real = trio.Event(), trio.lowlevel.open_process

    async def noted(*args: Any, **kwargs: Any) -> trio.Process:
        process = await real(*args, **kwargs)
        event.set()
        return process

    monkeypatch.setattr(trio.lowlevel, "open_process", noted)
    return event


async def test_the_time_is_over_for_the_whole_group(
    tmp_path: Path, mock_clock: trio.testing.MockClock, opened: trio.Event
) -> None:
    """Time passes when the test says so: a program that the machine was slow to start is not cut before it is there."""
    pids, outcomes = tmp_path / "pids", []

    async def run_it() -> None:
        script = FORK.format("trap '' TERM; wait")
        outcomes.append(
            await run_program(
                ["/bin/sh", "-c", script, str(pids)], cwd="/", env=ENV, seconds=0.5, max_bytes=100
            )
        )  # fmt: skip

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_it)
        await opened.wait()
        while len(words_of(pids)) < 3:
            await trio.lowlevel.checkpoint()
        mock_clock.jump(0.6)
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.rate = 1  # and now for SIGKILL
    assert (outcomes[0].exit_code, outcomes[0].timed_out) == (None, True)
    wait_gone(await wait_pids(pids, 3))


async def test_a_program_may_end_gracefully_when_its_time_is_over(
    tmp_path: Path, mock_clock: trio.testing.MockClock, opened: trio.Event
) -> None:
    ready, outcomes = tmp_path / "ready", []
    script = f"trap 'echo bye; exit 0' TERM; : >{ready}; while :; do sleep 0.05; done"

    async def run_it() -> None:
        outcomes.append(await run_program(["/bin/sh", "-c", script], cwd="/", env=ENV, seconds=0.3, max_bytes=100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_it)
        await opened.wait()
        while not ready.exists():
            await trio.lowlevel.checkpoint()
        mock_clock.jump(0.4)
    assert outcomes[0].timed_out
    assert outcomes[0].stdout == b"bye\n"


async def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = trio.current_time()
    outcome = await run_program(
        ["/bin/sh", "-c", FORK.format("exit 0"), str(pids)], cwd="/", env=ENV, seconds=60, max_bytes=100
    )
    assert outcome.exit_code == 0
    assert trio.current_time() - began < 10
    wait_gone(await wait_pids(pids, 2))


async def test_cancellation_kills_the_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "/bin/sh", "-c", FORK.format("wait"), str(pids))
        running = await wait_pids(pids, 3)
        nursery.cancel_scope.cancel()
    wait_gone(running)


async def test_output_is_bounded_and_the_program_is_not_held_up() -> None:
    outcome = await run_program(
        ["/bin/sh", "-c", "head -c 3000000 /dev/zero; echo done >&2"], cwd="/", env=ENV, seconds=20, max_bytes=1000
    )
    assert (len(outcome.stdout), outcome.truncated, outcome.stderr) == (1000, True, b"done\n")


async def test_what_left_the_group_cannot_hold_the_answer_up(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = trio.current_time()
    script = 'setsid sh -c \'echo $$ >"$0"; exec sleep 100000\' "$0" & while ! [ -s "$0" ]; do sleep 0.01; done'
    outcome = await run_program(["/bin/sh", "-c", script, str(pids)], cwd="/", env=ENV, seconds=60, max_bytes=100)
    assert outcome.exit_code == 0
    assert trio.current_time() - began < 10
    for pid in await wait_pids(pids, 1):
        os.kill(pid, signal.SIGKILL)


async def test_what_cannot_be_started_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await run("/bin/true", cwd=str(tmp_path / "no-such"))


async def test_a_signal_is_told_as_a_shell_tells_it() -> None:
    outcome = await run_program(["/bin/sh", "-c", "kill -9 $$"], cwd="/", env=ENV, seconds=10, max_bytes=1000)
    assert outcome.exit_code == 128 + 9
    assert outcome.stderr == b""  # the guard's remarks are not the program's


KILLED_NODE = """
import sys, trio
from openclaw_gateway.nodes.host.process import run_program
async def main():
    await run_program(["/bin/sh", "-c", sys.argv[1], sys.argv[2]], cwd="/", env={"PATH": "/usr/bin:/bin"},
                      seconds=1000, max_bytes=100)
trio.run(main)
"""


async def test_children_die_with_a_node_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    root = Path(__file__).parents[3]
    node = subprocess.Popen(  # noqa: ASYNC220  started, not waited for: it is killed
        [sys.executable, "-c", KILLED_NODE, FORK.format("wait"), str(pids)],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        running = await wait_pids(pids, 3)
        assert all(alive(pid) for pid in running)
    finally:
        node.kill()
        node.wait()
    wait_gone(running)
