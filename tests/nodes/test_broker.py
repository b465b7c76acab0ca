"""The broker: every invoke ends, at its one deadline at the latest, and everything it keeps is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway.nodes import broker as broker_module
from openclaw_gateway.nodes.broker import LATE_SECONDS, MAX_LATE, Broker, Invocation, NodeAnswer
from openclaw_gateway.nodes.registry import NodeRegistry, NodeSession
from openclaw_gateway.rpc.table import CallError

from .conftest import Link, make_link


@attrs.define
class Scene:
    """A broker with one live node that may be asked anything."""

    registry: NodeRegistry
    broker: Broker
    link: Link
    node: NodeSession

    def call(self, key: str | None = "k", **more: Any) -> Invocation:
        facts: dict[str, Any] = {"node_id": self.node.node_id, "command": "system.which", "timeout": 10.0, "key": key}
        return Invocation(**(facts | more))

    def asked(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.link.last("node.invoke.request")
        return payload

    def answer(self, asked: dict[str, Any], payload_json: str | None = "1", **more: Any) -> bool:
        answer = NodeAnswer(payload_json, **more)
        return self.broker.answered(self.link, asked["id"], self.node.node_id, answer)


def scene(**limits: Any) -> Scene:
    registry, link = NodeRegistry(), make_link()
    assert link.device_id is not None
    node, _ = registry.join(link.device_id, link, "cli", 0)

    def authorise(call: Invocation) -> NodeSession:
        return node

    return Scene(registry, Broker(registry, authorise=authorise, **limits), link, node)


async def refused(run: Callable[[], Any]) -> CallError:
    with pytest.raises(CallError) as failed:
        await run()
    return failed.value


async def test_node1_the_deadline_is_the_same_on_both_sides(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    at = scene()
    begun = trio.current_time()
    error = await refused(lambda: at.broker.invoke(at.call(timeout=7.5)))
    assert trio.current_time() - begun == pytest.approx(7.5)
    assert at.asked()["timeoutMs"] == 7500
    assert error.error.message == "TIMEOUT: node invoke timed out"
    assert error.repeatable
    assert at.broker.open_count == 0


async def test_not_ready_is_tried_five_times_at_most(autojump_clock: MockClock) -> None:
    at = scene()
    sent: list[float] = []

    async def never_ready() -> None:
        while True:
            await wait_all_tasks_blocked()
            if at.broker.open_count:
                sent.append(trio.current_time())
                at.answer(at.asked(), None, error=("NODE_NOT_READY", "asleep"))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(never_ready)
        error = await refused(lambda: at.broker.invoke(at.call(timeout=60.0)))
        nursery.cancel_scope.cancel()
    assert error.error.message == "NODE_NOT_READY: asleep"
    assert len(sent) == 5
    assert {one["idempotencyKey"] for name, one in at.link.offered if name == "node.invoke.request"} == {"k"}


async def test_a_result_that_is_too_large_is_an_error_not_a_crash() -> None:
    at = scene(max_result_chars=100)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            error = await refused(lambda: at.broker.invoke(at.call()))
            assert error.error.message.startswith("RESULT_TOO_LARGE")

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert at.answer(at.asked(), '"' + "x" * 100 + '"')


async def test_params_that_are_too_large_are_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "MAX_PARAMS_BYTES", 64)
    at = scene()
    error = await refused(lambda: at.broker.invoke(at.call(params={"x": "y" * 64}, has_params=True)))
    assert error.error.key == "invalid-params"
    assert at.link.offered == []
    assert at.broker.open_count == 0


async def test_rule8_open_invokes_are_bounded_per_node_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("MAX_OPEN_PER_NODE", 2), ("MAX_OPEN", 2)):
        at = scene()
        with monkeypatch.context() as patch:
            patch.setattr(broker_module, name, limit)
            async with trio.open_nursery() as nursery:
                for index in range(2):
                    nursery.start_soon(at.broker.invoke, at.call(str(index)))
                await wait_all_tasks_blocked()
                error = await refused(lambda at=at: at.broker.invoke(at.call("one more")))  # type: ignore[misc]
                assert (error.error.message, error.error.retryable) == ("node has 2 commands in flight", True)
                nursery.cancel_scope.cancel()
        assert at.broker.open_count == 0


async def test_rule8_late_invokes_are_bounded_by_count_and_time(autojump_clock: MockClock) -> None:
    at = scene()
    async with trio.open_nursery() as nursery:
        for index in range(broker_module.MAX_OPEN_PER_NODE):
            nursery.start_soon(at.broker.invoke, at.call(str(index)))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for index in range(10):
        await refused(lambda index=index: at.broker.invoke(at.call(f"more {index}", timeout=0.1)))  # type: ignore[misc]
    assert at.broker.late_count == MAX_LATE
    await trio.sleep(LATE_SECONDS + 1)
    at.broker.expire()
    assert at.broker.late_count == 0


async def test_rule8_late_results_are_bounded_in_size(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_LATE_CHARS", 1000)
    at = scene()
    for index in range(5):
        await refused(lambda index=index: at.broker.invoke(at.call(str(index), timeout=0.1)))  # type: ignore[misc]
        assert at.answer(at.asked(), '"' + "x" * 400 + '"')
    assert at.broker.late_count == 2
    newest = await at.broker.invoke(at.call("4"))
    assert newest["payload"] == "x" * 400


async def test_a_late_result_without_a_key_is_counted_and_forgotten(autojump_clock: MockClock) -> None:
    at = scene()
    await refused(lambda: at.broker.invoke(at.call(None, timeout=0.1)))
    asked = at.asked()
    assert not at.answer(asked)
    assert not at.answer(asked)
    assert (at.registry.drops["late"], at.registry.drops["unknown"], at.broker.late_count) == (1, 1, 0)


async def test_a_poll_learns_that_the_node_is_gone_and_nothing_is_sent_twice(autojump_clock: MockClock) -> None:
    at = scene()
    await refused(lambda: at.broker.invoke(at.call(timeout=0.1)))
    at.registry.leave(at.link)
    at.broker.lost(at.node, "its connection ended")
    error = await refused(lambda: at.broker.invoke(at.call()))
    assert error.error.message == "DISCONNECTED: node disconnected (its connection ended)"
    assert [name for name, _ in at.link.offered] == ["node.invoke.request", "node.invoke.cancel"]


async def test_a_connection_that_takes_nothing_is_not_connected() -> None:
    at = scene()
    at.link.open = False
    error = await refused(lambda: at.broker.invoke(at.call()))
    assert error.error.key == "node-not-connected"
    assert at.broker.open_count == 0


async def test_live1_a_retired_connection_that_still_talks_is_not_heard(autojump_clock: MockClock) -> None:
    at = scene()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            error = await refused(lambda: at.broker.invoke(at.call()))
            assert error.error.message == "DISCONNECTED: node disconnected (a newer one came)"

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        asked, newer = at.asked(), make_link()
        _, retired = at.registry.join(at.node.node_id, newer, "cli", 1)
        assert retired is at.node
        assert not at.answer(asked)  # between the retirement and the end of its connection
        at.broker.lost(at.node, "a newer one came")
        assert not at.broker.answered(newer, asked["id"], at.node.node_id, NodeAnswer("2"))
    assert (at.registry.drops["retired"], at.registry.drops["foreign"] + at.registry.drops["unknown"]) == (1, 1)


async def test_a_late_invoke_keeps_neither_params_nor_caller(autojump_clock: MockClock) -> None:
    at = scene()
    await refused(lambda: at.broker.invoke(at.call(params={"big": "x"}, has_params=True, hearer=at.link, timeout=0.1)))
    [late] = at.broker._late.values()
    assert (late.open.call.params, late.open.call.hearer) == (None, None)
