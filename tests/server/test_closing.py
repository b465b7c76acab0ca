"""`CloseScope`: a cancellation that carries a close code (design rule 9), under a clock moved by hand."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.server.closing import CloseScope


def _cause(scope: CloseScope) -> tuple[CloseCode, str, bool, bool] | None:
    cause = scope.cause
    return (cause.close.code, cause.close.reason, cause.by_peer, cause.abrupt) if cause is not None else None


async def test_s051_first_cause_wins_and_cancels() -> None:
    with CloseScope() as scope:
        scope.close(CloseCode.POLICY, "first")
        scope.close(CloseCode.INTERNAL_ERROR, "second", abrupt=True)
        assert scope.closing
        await trio.sleep_forever()
    assert _cause(scope) == (CloseCode.POLICY, "first", False, False)


async def test_s051_close_before_entering_and_after_leaving() -> None:
    early = CloseScope()
    early.close(CloseCode.GOING_AWAY)
    with early:
        await trio.sleep_forever()
    assert _cause(early) == (CloseCode.GOING_AWAY, "", False, False)
    with CloseScope() as late:
        pass
    late.close(CloseCode.POLICY, "too late")
    assert _cause(late) == (CloseCode.ABNORMAL, "", True, True)


async def test_s051_close_from_another_task_ends_the_body() -> None:
    scope = CloseScope()
    ended = False

    async def body() -> None:
        nonlocal ended
        with scope:
            await trio.sleep_forever()
        ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(body)
        await wait_all_tasks_blocked()
        scope.close(CloseCode.DEVICE_REMOVED, "device removed")
        await wait_all_tasks_blocked()
    assert ended
    assert scope.cause is not None
    assert scope.cause.close.code is CloseCode.DEVICE_REMOVED


async def test_life4_outer_cancel_gets_service_restart_and_is_passed_on() -> None:
    scope = CloseScope()
    with trio.CancelScope() as outer:
        outer.cancel()
        with scope:
            await trio.sleep_forever()
        pytest.fail("the outer cancellation must go on")
    assert outer.cancelled_caught
    assert _cause(scope) == (CloseCode.SERVICE_RESTART, "service restart", False, False)


async def test_own_close_wins_over_an_outer_cancel() -> None:
    scope = CloseScope()
    with trio.CancelScope() as outer, scope:
        scope.close(CloseCode.POLICY, "ours")
        outer.cancel()
        await trio.sleep_forever()
    assert _cause(scope) == (CloseCode.POLICY, "ours", False, False)


async def test_rule8_deadline_closes_with_the_value_it_was_given(mock_clock: MockClock) -> None:
    scope = CloseScope()

    async def body() -> None:
        with scope:
            scope.close_at(trio.current_time() + 15, Close(CloseCode.NORMAL))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(body)
        await wait_all_tasks_blocked()
        mock_clock.jump(14.99)
        await wait_all_tasks_blocked()
        assert not scope.closing
        mock_clock.jump(0.02)
    assert _cause(scope) == (CloseCode.NORMAL, "", False, False)


async def test_keep_open_lifts_the_deadline(mock_clock: MockClock) -> None:
    with CloseScope() as scope:
        scope.close_at(trio.current_time() + 15, Close(CloseCode.NORMAL))
        scope.keep_open()
        mock_clock.jump(1000)
        await trio.lowlevel.checkpoint()
        assert not scope.closing
        scope.close(CloseCode.POLICY)
        await trio.lowlevel.checkpoint()
    assert _cause(scope) == (CloseCode.POLICY, "", False, False)


async def test_an_exception_passes_through_and_leaves_a_cause() -> None:
    scope = CloseScope()
    with pytest.raises(RuntimeError, match="bug"), scope:
        raise RuntimeError("bug")
    assert scope.cause is not None


async def test_a_reason_is_clipped_to_what_a_close_frame_carries() -> None:
    with CloseScope() as scope:
        scope.close(CloseCode.POLICY, "é" * 200)
        await trio.sleep_forever()
    assert scope.cause is not None
    assert len(scope.cause.close.reason.encode()) <= 123
