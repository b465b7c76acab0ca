"""Programs under guard, really run: they end with their block, with their guard, and with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from openclaw_gateway.tunnels.guard import MAX_LINE, open_guarded
from tests.tunnels.processes import alive, our_zombies, wait_gone

SLEEP = ("/bin/sleep", "100000")


async def test_its_id_is_the_programs_own() -> None:
    said: list[str] = []
    async with open_guarded(["/bin/sh", "-c", "echo $$"], stdout_line=said.append) as process:
        assert await process.wait() == 0
    assert said == [str(process.pid)]


async def test_a_stopped_program_is_killed() -> None:
    async with open_guarded(SLEEP) as process:
        os.kill(process.pid, signal.SIGSTOP)
    assert not alive(process.pid)
    assert our_zombies() == []


async def test_it_is_asked_first_with_sigterm() -> None:
    async with open_guarded(SLEEP) as process:
        pass
    assert process.returncode == 128 + signal.SIGTERM


async def test_lines_and_exit_status_come_back() -> None:
    heard: list[str] = []
    said: list[str] = []
    script = "echo one >&2; printf 'two\\033[31m\\ntail' >&2; echo out; exit 7"
    async with open_guarded(["sh", "-c", script], stderr_line=heard.append, stdout_line=said.append) as process:
        assert await process.wait() == 7
    assert heard == ["one", "two\\x1b[31m", "tail"]
    assert said == ["out"]


async def test_a_line_without_end_is_cut() -> None:
    heard: list[str] = []
    async with open_guarded(
        ["sh", "-c", f"head -c {3 * MAX_LINE} /dev/zero | tr '\\0' x >&2"], stderr_line=heard.append
    ) as process:
        await process.wait()
    assert [len(line) for line in heard] == [MAX_LINE] * 3


async def test_v54_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    said: list[str] = []
    words = ["$(touch x)", "; touch x", "`touch x`", "a b", "'", '"', "-n", "*"]
    async with open_guarded(["/usr/bin/printf", "%s\\n", *words], stdout_line=said.append) as process:
        await process.wait()
    assert said == words
    assert not (tmp_path / "x").exists()


async def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        async with open_guarded(["/nonexistent/program"]):
            raise AssertionError("not reached")


async def test_it_reads_nothing_of_ours() -> None:
    async with open_guarded(["/bin/cat"]) as process:
        with trio.fail_after(5):
            assert await process.wait() == 0


async def test_one_that_ignores_sigterm_is_killed_and_so_is_its_group() -> None:
    said: list[str] = []
    ready = trio.Event()

    def hear(line: str) -> None:
        said.append(line)
        ready.set()

    script = "trap '' TERM; sleep 100000 & echo $!; while :; do sleep 1000; done"
    async with open_guarded(["sh", "-c", script], stdout_line=hear) as process:
        with trio.fail_after(5):
            await ready.wait()
    wait_gone(process.pid, int(said[0]))
    assert our_zombies() == []


async def test_cancelling_ends_it_all_the_same() -> None:
    with trio.CancelScope() as scope:
        async with open_guarded(SLEEP) as process:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not alive(process.pid)


async def test_what_the_block_raises_leaves_as_itself() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_guarded(SLEEP):
            raise ValueError("mine")


async def test_kill_9_of_the_program_is_seen_at_once() -> None:
    async with open_guarded(SLEEP) as process:
        os.kill(process.pid, signal.SIGKILL)
        with trio.fail_after(10):
            assert await process.wait() == 128 + signal.SIGKILL
    assert our_zombies() == []


async def test_kill_9_of_the_guard_ends_the_program() -> None:
    async with open_guarded(SLEEP) as process:
        os.kill(os.getpgid(process.pid), signal.SIGKILL)
        with trio.fail_after(10):
            assert await process.wait() == 128 + signal.SIGKILL
    wait_gone(process.pid)


OWNER = """
import sys, trio
from openclaw_gateway.tunnels.guard import open_guarded
async def main():
    async with open_guarded(["/bin/sleep", "100000"]) as process:
        print(process.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_our_own_death_ends_the_program(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        group = os.getpgid(pid)
        assert alive(pid)
        owner.send_signal(number)
        owner.wait(5)
        wait_gone(pid, group)
