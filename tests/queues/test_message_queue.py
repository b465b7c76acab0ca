"""Acceptance, hand-out, tries, dead letters and what a person does, on a real store with a clock moved by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from openclaw_gateway.queues import (
    Accepted,
    Effect,
    MessageQueue,
    NewMessage,
    QueuedMessage,
    QueueFull,
    QueueRules,
    RetryLater,
    Undeliverable,
    open_queues,
    rows,
)
from openclaw_gateway.queues.handout import Handler
from openclaw_gateway.queues.records import MAX_PAYLOAD
from openclaw_gateway.store import StoreUnavailable, open_store

RULES = QueueRules(max_attempts=3, first_retry_ms=20, longest_retry_ms=40)


class Clock:
    """Trio's own clock in Unix milliseconds, so that waits of a queue end in a test."""

    def __call__(self) -> int:
        return 1_800_000_000_000 + int(trio.current_time() * 1000)


def message(number: int, lane: str = "a", payload: bytes = b"{}") -> NewMessage:
    return NewMessage(lane=lane, dedupe=f"m{number}", source="test", kind="test", payload=payload)


@asynccontextmanager
async def open_queue(state_dir: Path | None = None, rules: QueueRules = RULES) -> AsyncIterator[MessageQueue]:
    with trio.fail_after(20):
        async with open_store(state_dir) as store, open_queues(store, "inbound", clock=Clock(), rules=rules) as found:
            yield found[0]


class Seen:
    """A handler that notes what it was handed, and does as told."""

    def __init__(self, *verdicts: Exception | Sequence[Effect] | None) -> None:
        self.messages: list[QueuedMessage] = []
        self.verdicts = list(verdicts)
        self._more = trio.Event()

    async def __call__(self, message: QueuedMessage) -> Sequence[Effect] | None:
        self.messages.append(message)
        self._more.set()
        self._more = trio.Event()
        verdict = self.verdicts.pop(0) if self.verdicts else None
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def wait(self, count: int) -> None:
        while len(self.messages) < count:
            await self._more.wait()


async def wait_empty(queue: MessageQueue, dead: int = 0) -> None:
    while queue.counts["waiting"] or queue.counts["running"] or queue.counts["dead"] != dead:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served(queue: MessageQueue, handler: Handler, concurrency: int = 4) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await queue.serve(handler, concurrency=concurrency)

        nursery.start_soon(serve)
        yield
        nursery.cancel_scope.cancel()


async def test_s029_messages_arrive_in_the_order_of_their_lane() -> None:
    seen = Seen()
    async with open_queue() as queue:
        for number in range(20):
            await queue.put(message(number, lane="ab"[number % 2], payload=b"%d" % number))
        async with served(queue, seen):
            await wait_empty(queue)
    for parity in (0, 1):
        got = [int(one.payload) for one in seen.messages if one.lane == "ab"[parity]]
        assert got == list(range(parity, 20, 2))


async def test_s029_a_known_key_is_accepted_once() -> None:
    seen = Seen()
    async with open_queue() as queue:
        first = await queue.put(message(1))
        again = await queue.put(message(1))
        assert (again.id, again.duplicate) == (first.id, True)
        async with served(queue, seen):
            await wait_empty(queue)
            assert (await queue.put(message(1))).duplicate  # done, and still within the window
            await wait_empty(queue)
    assert len(seen.messages) == 1


@pytest.mark.expect_error_log("message given up")
async def test_s029_a_failed_try_waits_and_comes_again_then_lies_dead() -> None:
    seen = Seen(RetryLater("busy"), RetryLater("busy"), RetryLater("still busy"))
    gone: list[QueuedMessage] = []
    async with open_queue() as queue:
        queue.on_dead = gone.append
        await queue.put(message(1))
        await queue.put(message(2))
        async with served(queue, seen):
            await wait_empty(queue, dead=1)
        assert [one.attempts for one in seen.messages] == [0, 1, 2, 0]
        (dead,) = queue.messages("dead")
        assert (dead.last_error, dead.attempts, gone[0].id) == ("still busy", 3, dead.id)


@pytest.mark.expect_error_log("message given up")
async def test_what_cannot_be_delivered_is_not_tried_again_until_a_person_says_so() -> None:
    seen = Seen(Undeliverable("no such chat"))
    async with open_queue() as queue:
        accepted = await queue.put(message(1))
        async with served(queue, seen):
            await wait_empty(queue, dead=1)
            assert len(seen.messages) == 1
            assert await queue.retry([accepted.id, "nobody"]) == [accepted.id]
            await wait_empty(queue)
        assert [one.attempts for one in seen.messages] == [0, 0]


@pytest.mark.expect_error_log("message given up")
async def test_a_person_drops_a_dead_letter() -> None:
    async with open_queue(rules=QueueRules(max_messages=1)) as queue:
        accepted = await queue.put(message(1))
        async with served(queue, Seen(Undeliverable("no"))):
            await wait_empty(queue, dead=1)
        assert queue.counts == {"waiting": 0, "running": 0, "dead": 1, "bytes": 0, "deadBytes": 2}
        await queue.put(message(2))
        assert await queue.drop([accepted.id]) == [accepted.id]
        assert queue.counts == {"waiting": 1, "running": 0, "dead": 0, "bytes": 2, "deadBytes": 0}


@pytest.mark.expect_error_log("message failed")
async def test_a_handler_that_breaks_harms_no_other_message() -> None:
    seen = Seen(KeyError("bug"))
    async with open_queue() as queue:
        await queue.put(message(1))
        await queue.put(message(2, lane="b"))
        async with served(queue, seen):
            await wait_empty(queue)
    assert sorted(one.dedupe for one in seen.messages) == ["m1", "m1", "m2"]


async def test_v47_the_queue_has_limits_of_count_and_bytes_and_says_when_to_come_again() -> None:
    async with open_queue(rules=QueueRules(max_messages=2, max_bytes=100, full_retry_ms=700)) as queue:
        await queue.put(message(1, payload=b"x" * 99))
        with pytest.raises(QueueFull) as fault:
            await queue.put(message(2))
        assert fault.value.retry_after_ms == 700
        with pytest.raises(QueueFull):
            queue.put_effect(message(2))
        await queue.put(message(3, payload=b"x"))
        with pytest.raises(QueueFull):
            await queue.put(message(4, payload=b""))
    with pytest.raises(ValueError, match="larger"):
        message(1, payload=b"x" * (MAX_PAYLOAD + 1))
    with pytest.raises(ValueError, match="lane"):
        message(1, lane="")


async def test_limits_hold_against_puts_at_the_same_time(tmp_path: Path) -> None:
    outcomes: list[bool] = []
    async with open_queue(tmp_path, QueueRules(max_messages=5)) as queue:

        async def put(number: int) -> None:
            try:
                await queue.put(message(number))
            except QueueFull:
                outcomes.append(False)
            else:
                outcomes.append(True)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(put, number)
    assert outcomes.count(True) == 5


@pytest.mark.expect_error_log("message failed")
async def test_effects_are_committed_with_the_end_of_the_message(tmp_path: Path) -> None:
    """The answer lies in the other queue exactly when the question is gone."""
    async with open_store(tmp_path) as store, open_queues(store, "in", "out", clock=Clock(), rules=RULES) as queues:
        questions, answers = queues

        async def answer(question: QueuedMessage) -> list[Effect]:
            return [answers.put_effect(NewMessage("a", f"re:{question.id}", "test", "test", b"42"))]

        await questions.put(message(1))
        with trio.fail_after(10):
            async with served(questions, answer):
                await wait_empty(questions)
        assert [one.dedupe[:3] for one in answers.messages()] == ["re:"]
        assert await answers.payload_of(answers.messages()[0].id) == b"42"

        def broken(db: sqlite3.Connection) -> None:
            raise sqlite3.IntegrityError("no")

        tries = Seen([answers.put_effect(message(7)), Effect(broken)])
        await questions.put(message(2))
        with trio.fail_after(10):
            async with served(questions, tries):
                await tries.wait(1)
                while not questions.messages()[0].last_error:
                    await trio.lowlevel.checkpoint()
                # Nothing of the failed end happened: neither the answer nor the removal.
                assert "m7" not in [one.dedupe for one in answers.messages()]


async def test_cancelled_work_waits_again_as_uncertain_and_does_not_count(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        started = trio.Event()

        async def stuck(message: QueuedMessage) -> None:
            started.set()
            await trio.sleep_forever()

        await queue.put(message(1))
        async with served(queue, stuck):
            await started.wait()
            assert queue.counts["running"] == 1
            assert await queue.drop([queue.messages()[0].id]) == []  # under way
        (one,) = queue.messages()
        assert (one.state, one.uncertain, one.attempts) == ("waiting", True, 0)
    seen = Seen()
    async with open_queue(tmp_path) as queue, served(queue, seen):
        await seen.wait(1)
        assert seen.messages[0].uncertain


async def test_large_payloads_are_not_kept_in_memory(tmp_path: Path) -> None:
    seen = Seen()
    async with open_queue(tmp_path) as queue:
        for number in range(6):
            await queue.put(message(number, payload=b"%d" % number * 1_000_000))
        assert queue._contents.at_hand <= 2 * 1024 * 1024
        async with served(queue, seen):
            await wait_empty(queue)
        assert queue._contents.at_hand == 0
    assert [one.payload[:1] for one in seen.messages] == [b"0", b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.expect_error_log("message given up")
async def test_a_message_that_kills_the_process_is_given_up(tmp_path: Path) -> None:
    """Each death counts as a try: a poisoned message cannot keep a gateway in a loop of crashes."""
    async with open_queue(tmp_path) as queue:
        accepted = await queue.put(message(1))
    async with open_store(tmp_path) as store:
        await store.run(
            lambda db: (
                db.execute(
                    "UPDATE queue_messages SET state = 'running', attempts = 3 WHERE id = ?", (accepted.id,)
                ).rowcount
            )
        )
    seen = Seen()
    async with open_queue(tmp_path) as queue, served(queue, seen):
        await wait_empty(queue, dead=1)
    assert seen.messages == []


async def test_dedupe_keys_are_forgotten_after_their_window_and_over_the_cap(tmp_path: Path) -> None:
    async with open_queue(tmp_path, QueueRules(dedupe_ms=30, max_seen=3)) as queue:
        seen = Seen()
        async with served(queue, seen):
            await queue.put(message(1))
            await wait_empty(queue)
            with trio.move_on_after(0.05):
                await trio.sleep_forever()
            assert not (await queue.put(message(1))).duplicate
            await wait_empty(queue)
        for number in range(10, 20):
            await queue.put(message(number))
        kept = 10
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.supervise_upkeep)
            while kept > 3:
                kept = await queue._store.run(lambda db: db.execute("SELECT count(*) FROM queue_seen").fetchone()[0])
            nursery.cancel_scope.cancel()
        # What is still here is a duplicate whatever was forgotten.
        assert (await queue.put(message(10))).duplicate


async def test_v44_dedupe_keys_outlive_the_process_and_end_with_their_time(tmp_path: Path) -> None:
    """By time and by count alike, whoever asks and however often the process was started anew."""
    now = 1_800_000_000_000
    rules = QueueRules(dedupe_ms=3_600_000, max_seen=5)

    async def put(number: int, digest: bytes | None = None) -> Accepted:
        with trio.fail_after(20):
            async with (
                open_store(tmp_path) as store,
                open_queues(store, "inbound", clock=lambda: now, rules=rules) as (queue,),
            ):
                with trio.move_on_after(0.05):
                    await queue.supervise_upkeep()
                accepted = await queue.put(attrs.evolve(message(number), digest=digest))
                await queue.drop([accepted.id])  # done with: only the key is left
                return accepted

    first = await put(1, b"what was said")
    now += 3_599_999
    assert await put(1, b"what was said") == Accepted(first.id, duplicate=True)
    assert await put(1, b"something else") == Accepted(first.id, duplicate=True, same=False)
    assert (await put(1)).same is False
    now += 1
    assert not (await put(1, b"something else")).duplicate, "the window is over"
    now += 1
    for number in range(2, 8):
        now += 1
        await put(number)
    assert [(await put(number)).duplicate for number in (7, 6, 5, 4)] == [True] * 4
    assert not (await put(1)).duplicate, "over the count the oldest is forgotten"
    assert await put(7, b"asked now") == attrs.evolve(await put(7), same=True), "nothing was noted to differ from"


async def test_who_was_uncertain_once_stays_so() -> None:
    seen = Seen(RetryLater("busy", 1), RetryLater("busy", 1))
    async with open_queue() as queue:
        await queue.put(message(1))
        held = next(iter(queue._contents))
        held.message = attrs.evolve(held.message, uncertain=True)
        async with served(queue, seen):
            await wait_empty(queue)
    assert [one.uncertain for one in seen.messages] == [True, True, True]


@pytest.mark.expect_error_log("an effect broke after its commit")
async def test_an_effect_that_breaks_after_its_commit_keeps_nothing_from_the_others() -> None:
    told: list[str] = []

    def breaks(_: object) -> None:
        raise ZeroDivisionError

    seen = Seen((Effect(lambda db: None, breaks), Effect(lambda db: None, lambda _: told.append("second"))))
    async with open_queue() as queue:
        await queue.put(message(1))
        async with served(queue, seen):
            await wait_empty(queue)
        assert (told, len(seen.messages), queue.counts["bytes"]) == (["second"], 1, 0)


async def test_the_end_of_a_message_comes_once(tmp_path: Path) -> None:
    written: list[int] = []
    async with open_store(tmp_path) as store, open_queues(store, "inbound", clock=Clock(), rules=RULES) as found:
        accepted = await found[0].put(message(1))
        effects = (Effect(lambda db: written.append(1)),)
        for expected in ([None], None):
            assert await store.run(partial(rows.finish, id_=accepted.id, effects=effects)) == expected
    assert written == [1]


async def test_what_cannot_be_dropped_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()

    def broken(db: object, ids: object) -> None:
        raise StoreUnavailable("no disk")

    async with open_queue(tmp_path) as queue:
        first = await queue.put(message(1))
        await queue.put(message(2))
        with monkeypatch.context() as patched:
            patched.setattr(rows, "drop", broken)
            with pytest.raises(StoreUnavailable):
                await queue.drop([first.id])
        async with served(queue, seen):
            await wait_empty(queue)
    assert [one.dedupe for one in seen.messages] == ["m1", "m2"]


async def test_a_listener_hears_of_what_is_dropped() -> None:
    told: list[str] = []
    async with open_queue() as queue:
        queue.on_dropped = lambda one: told.append(one.dedupe)
        await queue.drop([(await queue.put(message(1))).id])
    assert told == ["m1"]
