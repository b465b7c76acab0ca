"""What lies in a queue, in memory: room, bytes, payloads at hand, and who is under way."""

from __future__ import annotations

import attrs
import pytest

from openclaw_gateway.queues.contents import AT_HAND_BYTES, Contents
from openclaw_gateway.queues.lanes import Held
from openclaw_gateway.queues.records import QueuedMessage, QueueFull, QueueRules

RULES = QueueRules(max_messages=2, max_bytes=100)


def admit(contents: Contents, number: int, *, size: int = 10, payload: bytes | None = None) -> Held:
    name = str(number)
    contents.admit(QueuedMessage(name, "q", f"lane{name}", name, "t", "k", b"", 0, order=number), size, payload)
    held = contents.get(name)
    assert held is not None
    return held


def kill(contents: Contents, held: Held) -> None:
    contents.replace(held, attrs.evolve(held.message, state="dead"))


def test_room_that_is_spoken_for_is_not_given_twice() -> None:
    contents = Contents("q", RULES)
    with contents.reserved(60):
        with pytest.raises(QueueFull):
            contents.check_room(41)
        with contents.reserved(40), pytest.raises(QueueFull):
            contents.check_room(0)
        contents.check_room(40)
    with contents.reserved(100):
        assert contents.fullness == 0, "only what is here counts"
    contents.check_room(100)


def test_room_is_free_again_where_a_put_broke() -> None:
    contents = Contents("q", RULES)
    with pytest.raises(RuntimeError), contents.reserved(100):
        raise RuntimeError
    contents.check_room(100)


def test_dead_letters_take_no_room_and_come_back_into_it() -> None:
    contents = Contents("q", RULES)
    held = admit(contents, 1, size=100)
    assert (contents.has_room(1), contents.fullness) == (False, 1.0)
    kill(contents, held)
    assert (contents.has_room(100), contents.holds("1"), contents.lanes.take(0)) == (True, False, None)
    assert contents.counts == {"waiting": 0, "running": 0, "dead": 1, "bytes": 0, "deadBytes": 100}
    kill(contents, held)
    assert contents.counts["deadBytes"] == 100, "a message is dead once"
    contents.replace(held, attrs.evolve(held.message, state="waiting"))
    assert contents.counts == {"waiting": 1, "running": 0, "dead": 0, "bytes": 100, "deadBytes": 0}
    contents.forget(held)
    contents.forget(held)
    assert (contents.counts["bytes"], len(contents)) == (0, 0)


def test_cap_payloads_at_hand_and_a_change_lets_go_of_them() -> None:
    contents = Contents("q", QueueRules())
    half = AT_HAND_BYTES // 2 + 1
    first = admit(contents, 1, size=half, payload=b"1")
    second = admit(contents, 2, size=half, payload=b"2")
    assert (first.payload, second.payload, contents.at_hand) == (b"1", None, half)
    contents.replace(first, attrs.evolve(first.message, attempts=1))
    assert (first.payload, contents.at_hand) == (None, 0)
    third = admit(contents, 3, size=half, payload=b"3")
    contents.forget(third)
    assert contents.at_hand == 0


def test_what_is_handed_out_runs_until_it_is_released_and_rests_nowhere() -> None:
    contents = Contents("q", RULES)
    held, other = admit(contents, 1), admit(contents, 2)
    assert contents.take(0) is held
    assert [one.state for one in contents.messages()] == ["running", "waiting"]
    assert contents.messages("running")[0].id == "1"
    assert contents.resting(["1", "2", "2", "3"]) == [other]
    contents.release(held)
    assert contents.resting(["2", "1"]) == [other, held]


def test_whoever_waits_for_work_is_woken_by_a_message_that_comes() -> None:
    contents = Contents("q", RULES)
    woken = contents.woken
    admit(contents, 1)
    assert woken.is_set()
    assert not contents.woken.is_set()
