"""Dead letters: apart from the queue, with limits of their own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway.ops.doctor import Finding, Patient
from openclaw_gateway.ops.doctor_queues import queues
from openclaw_gateway.queues import MessageQueue, QueueFull, QueueRules, Undeliverable
from openclaw_gateway.queues import rows as queue_rows
from openclaw_gateway.store import StoreUnavailable
from tests.queues.test_message_queue import Seen, message, open_queue, served, wait_empty

NEVER = [Undeliverable("no")] * 20
GIVEN_UP = pytest.mark.expect_error_log("message given up")


@GIVEN_UP
async def test_cap_dead_letters_take_no_room_and_the_newest_are_kept(tmp_path: Path) -> None:
    rules = QueueRules(max_messages=2, max_bytes=200, max_dead=3)
    async with open_queue(tmp_path, rules) as queue:
        async with served(queue, Seen(*NEVER)):
            for number in range(8):
                await queue.put(message(number, payload=b"x" * 90))
                await wait_empty(queue, dead=min(number + 1, 3))
        assert [one.dedupe for one in queue.messages("dead")] == ["m5", "m6", "m7"]
        assert queue.counts == {"waiting": 0, "running": 0, "dead": 3, "bytes": 0, "deadBytes": 270}
        assert queue.fullness == 0
    async with open_queue(tmp_path, rules) as queue:  # and on the disk
        assert [one.dedupe for one in queue.messages("dead")] == ["m5", "m6", "m7"]
        assert queue.counts["deadBytes"] == 270
        assert (await queue.put(message(1))).duplicate, "what went is known again all the same"


@GIVEN_UP
async def test_cap_dead_letters_have_a_limit_of_bytes() -> None:
    async with open_queue(rules=QueueRules(max_dead_bytes=1_000)) as queue, served(queue, Seen(*NEVER)):
        for number, size in enumerate((400, 400, 300, 900)):
            await queue.put(message(number, payload=b"x" * size))
            await wait_empty(queue, dead=(1, 2, 2, 1)[number])
        assert [one.dedupe for one in queue.messages("dead")] == ["m3"]


@GIVEN_UP
async def test_cap_what_an_older_version_left_is_cut_and_counted(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue, served(queue, Seen(*NEVER)):
        for number in range(6):
            await queue.put(message(number))
        await wait_empty(queue, dead=6)
    told: list[int] = []
    async with open_queue(tmp_path, QueueRules(max_dead=2)) as queue:
        queue.on_discarded = told.append
        with trio.move_on_after(0.1):
            await queue.supervise_upkeep()
        assert [one.dedupe for one in queue.messages()] == ["m4", "m5"]
    assert told == [4]


@GIVEN_UP
async def test_dead_letters_come_back_as_far_as_there_is_room(tmp_path: Path) -> None:
    async with open_queue(tmp_path, QueueRules(max_messages=3)) as queue:
        async with served(queue, Seen(*NEVER)):
            for number in range(5):
                await queue.put(message(number))
                await wait_empty(queue, dead=number + 1)
        ids = [one.id for one in queue.messages("dead")]
        assert await queue.retry(ids) == ids[:3]
        assert queue.counts["waiting"] == 3
        with pytest.raises(QueueFull):
            await queue.put(message(9))
        with pytest.raises(QueueFull):
            await queue.retry(ids[3:])
        assert queue.counts == {"waiting": 3, "running": 0, "dead": 2, "bytes": 6, "deadBytes": 4}
        seen = Seen()
        async with served(queue, seen):
            await wait_empty(queue, dead=2)
        assert [one.dedupe for one in seen.messages] == ["m0", "m1", "m2"]


@GIVEN_UP
async def test_dead_letters_that_cannot_be_removed_wait_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise StoreUnavailable("disk full")

    async with open_queue(rules=QueueRules(max_dead=1)) as queue:
        with monkeypatch.context() as broken:
            broken.setattr(queue_rows, "drop", fail)
            async with served(queue, Seen(*NEVER)):
                for number in range(3):
                    await queue.put(message(number))
                await wait_empty(queue, dead=3)
        with trio.move_on_after(0.1):
            await queue.supervise_upkeep()
        assert [one.dedupe for one in queue.messages()] == ["m2"]


async def at_once(queue: MessageQueue, *works: Callable[[], Awaitable[object]]) -> None:
    """All of these begin before the store has carried out a job of any."""
    gate = threading.Event()

    def hold(db: object) -> None:
        assert gate.wait(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue._store.run, hold)
        try:
            for work in works:
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
        finally:
            gate.set()


async def some_dead(state_dir: Path, count: int) -> None:
    async with open_queue(state_dir) as queue, served(queue, Seen(*NEVER)):
        for number in range(count):
            await queue.put(message(number))
        await wait_empty(queue, dead=count)


@GIVEN_UP
async def test_what_is_going_is_not_promised_another_try_and_is_counted_once(tmp_path: Path) -> None:
    await some_dead(tmp_path, 4)
    async with open_queue(tmp_path, QueueRules(max_dead=2)) as queue:
        ids = [one.id for one in queue.messages("dead")]
        done: list[str] = []

        async def retry() -> None:
            done.extend(await queue.retry(ids))

        await at_once(queue, queue._ledger.discard, queue._ledger.discard, retry)
        assert done == ids[2:], "the oldest two were on their way out"
        assert queue._contents.dead.take_discarded() == 2
        seen = Seen()
        async with served(queue, seen):
            await wait_empty(queue)
        assert [one.dedupe for one in seen.messages] == ["m2", "m3"]
        assert queue.counts == {"waiting": 0, "running": 0, "dead": 0, "bytes": 0, "deadBytes": 0}


@GIVEN_UP
async def test_what_is_dropped_while_it_is_made_ready_is_not_tried(tmp_path: Path) -> None:
    await some_dead(tmp_path, 1)
    async with open_queue(tmp_path) as queue:
        ids = [one.id for one in queue.messages("dead")]
        done: list[str] = []

        async def retry() -> None:
            done.extend(await queue.retry(ids))

        async def drop() -> None:
            assert await queue.drop(ids) == ids

        await at_once(queue, retry, drop)
        assert done == []
        seen = Seen()
        async with served(queue, seen):
            await queue.put(message(9))
            await wait_empty(queue)
        assert [one.dedupe for one in seen.messages] == ["m9"]
        assert queue.counts == {"waiting": 0, "running": 0, "dead": 0, "bytes": 0, "deadBytes": 0}


@GIVEN_UP
async def test_obs1_the_doctor_tells_of_dead_letters_and_of_a_queue_that_fills(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    patient = Patient({}, state_dir, None)
    assert queues(patient) == [Finding("queues", "ok", "there is no store yet")]
    async with open_queue(state_dir) as queue:
        async with served(queue, Seen(*NEVER)):
            await queue.put(attrs.evolve(message(1), payload=b'"private words"'))
            await wait_empty(queue, dead=1)
        await queue.put(message(2))
        (finding,) = queues(patient)
        assert (finding.state, finding.fix) == ("warn", "openclaw queue list --dead")
        assert "1 messages of the inbound queue were given up" in finding.text
        assert "private" not in str(finding)
        await queue.drop([one.id for one in queue.messages("dead")])
        assert queues(patient) == [Finding("queues", "ok", "inbound: 1 waiting")]
        full = QueueRules().max_bytes // 4_000_000
        for number in range(full):
            await queue.put(attrs.evolve(message(10 + number), payload=b"x" * 4_000_000))
        assert [(one.state, one.fix) for one in queues(patient)] == [("warn", "openclaw queue list")]
