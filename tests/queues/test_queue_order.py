"""The order of hand-out and the waits between tries: laws."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.backoff import backoff_ms
from openclaw_gateway.queues.lanes import Held, Lanes
from openclaw_gateway.queues.records import QueuedMessage


def held(order: int, lane: str, due: int = 0) -> Held:
    message = QueuedMessage(
        id=str(order),
        queue="q",
        lane=lane,
        dedupe=str(order),
        source="s",
        kind="k",
        payload=b"",
        accepted_at_ms=0,
        due_at_ms=due,
        order=order,
    )
    return Held(message, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40), st.randoms(use_true_random=False))
def test_s029_a_lane_is_in_order_and_has_one_message_out(incoming: list[tuple[str, int]], chance: Random) -> None:
    lanes = Lanes()
    out: list[Held] = []
    seen: list[Held] = []
    waiting = [held(order, lane, due) for order, (lane, due) in enumerate(incoming, 1)]
    now = 0
    pending = list(waiting)
    while pending or out or lanes.next_due() is not None:
        act = chance.choice(["add", "take", "end", "later"])
        if act == "add" and pending:
            lanes.add(pending.pop(0))
        elif act == "take":
            taken = lanes.take(now)
            if taken is not None:
                assert taken.message.due_at_ms <= now
                assert taken.message.lane not in [other.message.lane for other in out]
                out.append(taken)
        elif act == "end" and out:
            done = out.pop(0)
            lanes.remove(done)
            lanes.release(done.message.lane)
            seen.append(done)
        else:
            now += 10
    assert len(seen) == len(incoming)
    for lane in "abc":
        orders = [one.message.order for one in seen if one.message.lane == lane]
        assert orders == sorted(orders)


def test_s029_who_waits_for_a_later_try_holds_its_lane_back_and_no_other() -> None:
    lanes = Lanes()
    for one in (held(1, "a", due=100), held(2, "a"), held(3, "b")):
        lanes.add(one)
    first = lanes.take(0)
    assert first is not None
    assert first.message.order == 3
    assert lanes.take(0) is None
    assert lanes.next_due() == 100
    later = lanes.take(100)
    assert later is not None
    assert later.message.order == 1


@given(st.integers(1, 10_000), st.integers(1, 60_000), st.integers(1, 10**7), st.floats(0, 1))
def test_backoff_is_capped_and_spread_over_the_upper_half(attempt: int, first: int, cap: int, jitter: float) -> None:
    wait = backoff_ms(attempt, first_ms=first, cap_ms=cap, jitter=jitter)
    step = min(cap, first << min(attempt - 1, 32))
    assert step // 2 <= wait <= step


def test_backoff_doubles() -> None:
    waits = [backoff_ms(attempt, first_ms=1000, cap_ms=10_000, jitter=1.0) for attempt in range(1, 6)]
    assert waits == [1000, 2000, 4000, 8000, 10_000]
