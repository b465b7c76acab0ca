"""Talking to agents through a gateway: acceptance, streams, order, failures, aborts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents import rows as session_rows
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.answering import Answering
from openclaw_gateway.agents.records import MAX_REPLY, AgentFailed, Delta, Outcome, Reply, RunRequest, Turn
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.queues import QueueFull
from openclaw_gateway.queues import rows as queue_rows
from openclaw_gateway.store import StoreUnavailable
from openclaw_gateway.testing import connect_peer, open_memory_gateway

TOKEN = "token-of-the-tests-of-chats-0123456789"
ALL = ["operator.read", "operator.write", "operator.admin"]


class Scripted:
    """An agent that does what a test says, and notes its turns."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.turns: list[Turn] = []
        self.go: trio.Event | None = None
        self.speaking = trio.Event()

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.turns.append(turn)
        answer = self.answers.pop(0) if self.answers else "fine"
        if isinstance(answer, Exception):
            raise answer
        half = len(answer) // 2
        emit(Delta(text=answer[:half]))
        self.speaking.set()
        if self.go is not None:
            await self.go.wait()
        emit(Delta(text=answer[half:]))
        return Outcome(model="scripted/one")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
    async with open_memory_gateway(GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents)) as opened:
        yield opened


async def until(peer: Any, state: str, run_id: str | None = None) -> list[dict[str, Any]]:
    """The chat events up to one in this state."""
    seen = []
    while True:
        payload = await peer.expect_event("chat")
        if run_id in {None, payload["runId"]}:
            seen.append(payload)
            if payload["state"] == state:
                return seen


async def test_s050_an_answer_streams_and_is_in_the_history(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        ack = await peer.request("chat.send", {"sessionKey": "main", "message": "hello there", "idempotencyKey": "r1"})
        assert ack == {"runId": "r1", "status": "started", "sessionKey": "agent:main:main"}
        events = await until(peer, "final")
        assert "".join(event["deltaText"] for event in events if event["state"] == "delta") == "hello there"
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["message"]["content"][0]["text"] == "hello there"
        history = await peer.request("chat.history", {"sessionKey": "agent:main:main"})
        told = [(entry["role"], entry["content"][0]["text"]) for entry in history["messages"]]
        assert told == [("user", "hello there"), ("assistant", "hello there")]
        assert history["sessionInfo"]["key"] == "agent:main:main"


async def test_s050_agent_send_is_the_seeds_name_of_it(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        ack = await peer.request("agent.send", {"text": "hi"})
        done = await peer.request("agent.wait", {"runId": ack["runId"], "timeoutMs": 5000})
        assert done["status"] == "ok"
        assert (await until(peer, "final"))[-1]["runId"] == ack["runId"]


async def test_an_embedding_program_takes_over_agent_send(gateway: Gateway) -> None:
    def mine(context: Any, params: Any) -> dict[str, bool]:
        return {"mine": True}

    gateway.rpc.method("agent.send", scope="operator.write")(mine)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        assert await peer.request("agent.send", {}) == {"mine": True}


async def test_s027_an_embedding_program_registers_an_agent(gateway: Gateway) -> None:
    gateway.agents.register("main", Scripted("I am yours"))
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r"})
        assert (await until(peer, "final"))[-1]["message"]["model"] == "scripted/one"


async def test_s029_a_session_answers_in_order_and_others_do_not_wait(gateway: Gateway) -> None:
    slow = Scripted("first", "second")
    slow.go = trio.Event()
    gateway.agents.register("main", slow)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for number in (1, 2):
            await peer.request(
                "chat.send", {"sessionKey": "main", "message": f"m{number}", "idempotencyKey": f"r{number}"}
            )
        await peer.request("agent.send", {"text": "other", "agentId": "second", "idempotencyKey": "r3"})
        assert (await peer.request("agent.wait", {"runId": "r3", "timeoutMs": 5000}))["status"] == "ok"
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [item["runId"] for item in history["pendingInputs"]["items"]] == ["r2"]
        assert history["inFlightRun"]["runId"] == "r1"
        slow.go.set()
        assert (await peer.request("agent.wait", {"runId": "r2", "timeoutMs": 5000}))["status"] == "ok"
    assert [turn.request.run_id for turn in slow.turns] == ["r1", "r2"]
    assert [message.text for message in slow.turns[1].history] == ["m1", "first"]


async def test_v44_a_run_id_is_one_run_and_no_way_into_another(gateway: Gateway) -> None:
    agent = Scripted("once")
    gateway.agents.register("main", agent)
    params = {"sessionKey": "main", "message": "m", "idempotencyKey": "same"}
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", params)
        await peer.request("agent.wait", {"runId": "same"})
        assert (await peer.request("chat.send", params))["status"] == "ok"
        with pytest.raises(CallFailed, match="idempotency"):
            await peer.request("chat.send", {**params, "sessionKey": "agent:second:main"})
        with pytest.raises(CallFailed, match="idempotency"):
            await peer.request("chat.send", {**params, "message": "another"})
    assert len(agent.turns) == 1


async def test_v43_an_unknown_or_blank_agent_or_session_is_refused(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for params, code in (
            ({"agentId": "nobody", "text": "x"}, "AGENT_UNKNOWN"),
            ({"agentId": "", "text": "x"}, "AGENT_UNKNOWN"),
            ({"sessionKey": "agent:nobody:main", "text": "x"}, "AGENT_UNKNOWN"),
            ({"sessionKey": "agent:second:main", "agentId": "main", "text": "x"}, None),
            ({"sessionKey": "a b", "text": "x"}, None),
            ({"text": "  "}, None),
            ({}, None),
        ):
            with pytest.raises(CallFailed) as fault:
                await peer.request("agent.send", params)
            assert (fault.value.details or {}).get("code") == code, params
        assert (await peer.request("sessions.list", {}))["count"] == 0


async def test_s031_talking_needs_write_and_throwing_away_needs_admin(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.read"]) as peer:
        for method in ("chat.send", "agent.send", "agent", "chat.abort", "sessions.patch"):
            with pytest.raises(CallFailed, match=r"operator\.write"):
                await peer.request(method, {"sessionKey": "main", "message": "x"})
        assert (await peer.request("chat.history", {"sessionKey": "main"}))["messages"] == []
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.read", "operator.write"]) as peer:
        for method in ("sessions.delete", "sessions.reset", "chat.inject"):
            with pytest.raises(CallFailed, match=r"operator\.admin"):
                await peer.request(method, {"key": "main"})


async def test_who_did_not_ask_hears_the_end_and_who_follows_hears_all(gateway: Gateway) -> None:
    async with (
        connect_peer(gateway, token=TOKEN, scopes=ALL) as asker,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as bystander,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as follower,
    ):
        assert (await follower.request("sessions.messages.subscribe", {"key": "main"}))["subscribed"]
        await follower.request("sessions.subscribe", {})
        await asker.request("chat.send", {"sessionKey": "main", "message": "a b c", "idempotencyKey": "r"})
        assert [event["state"] for event in await until(bystander, "final")] == ["final"]
        assert (await until(follower, "final"))[0]["state"] == "delta"
        assert (await follower.expect_event("sessions.changed"))["sessionKey"] == "agent:main:main"
        await follower.request("sessions.messages.unsubscribe", {"key": "main"})
        await asker.request("chat.send", {"sessionKey": "main", "message": "d e f", "idempotencyKey": "r2"})
        assert [event["state"] for event in await until(follower, "final", "r2")] == ["final"]
    with trio.fail_after(5):
        while gateway.messaging.broadcast._lists or gateway.messaging.broadcast._keys:
            await trio.lowlevel.checkpoint()


async def test_an_abort_keeps_what_was_said(gateway: Gateway) -> None:
    agent = Scripted("one two", "never")
    agent.go = trio.Event()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for run in ("r1", "r2"):
            await peer.request("chat.send", {"sessionKey": "main", "message": run, "idempotencyKey": run})
        await agent.speaking.wait()
        aborted = await peer.request("chat.abort", {"sessionKey": "main"})
        assert sorted(aborted["runIds"]) == ["r1", "r2"]
        assert (await until(peer, "aborted", "r1"))[-1]["message"]["content"][0]["text"] == "one"
        assert (await peer.request("agent.wait", {"runId": "r2"}))["stopReason"] == "aborted"
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [entry["content"][0]["text"] for entry in history["messages"]] == ["r1", "one", "r2"]
    assert len(agent.turns) == 1


async def test_a_failure_is_told_in_words_and_ends_the_run(gateway: Gateway) -> None:
    gateway.agents.register("main", Scripted(AgentFailed("the key was refused", kind="refusal", retryable=True)))
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r"})
        failed = (await until(peer, "error"))[-1]
        assert (failed["errorMessage"], failed["errorKind"]) == ("the key was refused", "refusal")
        waited = await peer.request("agent.wait", {"runId": "r"})
        assert (waited["status"], waited["error"]) == ("error", "the key was refused")


class Dying:
    """An agent that answers its own end with a failure, as one whose program is killed does."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.uncertain: list[bool] = []

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.uncertain.append(turn.uncertain)
        if len(self.uncertain) > 1:
            emit(Delta(text="here again"))
            return Outcome(model="scripted/one")
        emit(Delta(text="so far"))
        self.asked.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise AgentFailed("its program ended with status 143") from None
        raise AssertionError("sleeps for ever")


async def test_life4_an_agent_that_fails_because_the_gateway_stops_is_asked_again_after_the_start(
    tmp_path: Path,
) -> None:
    """The stop is not the agent's answer: nothing that was acknowledged is lost, and the stop is clean."""
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"),))
    config, agent = GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents, state_dir=tmp_path), Dying()
    async with open_memory_gateway(config) as gateway:
        gateway.agents.register("main", agent)
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r"})
            await agent.asked.wait()
    async with open_memory_gateway(config) as gateway:
        gateway.agents.register("main", agent)
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            waited = await peer.request("agent.wait", {"runId": "r", "timeoutMs": 10_000})
            history = await peer.request("chat.history", {"sessionKey": "main"})
    assert waited["status"] == "ok"
    assert agent.uncertain == [False, True]
    assert [entry["content"][0]["text"] for entry in history["messages"]] == ["x", "here again"]


@pytest.mark.parametrize("by", ["abort", "deadline"])
async def test_an_agent_that_fails_because_it_is_ended_ended_as_asked(gateway: Gateway, by: str) -> None:
    agent = Dying()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        params = {"sessionKey": "main", "message": "x", "idempotencyKey": "r"}
        await peer.request("chat.send", params | ({"timeoutMs": 50} if by == "deadline" else {}))
        await agent.asked.wait()
        if by == "abort":
            await peer.request("chat.abort", {"sessionKey": "main"})
            assert (await until(peer, "aborted"))[-1]["message"]["content"][0]["text"] == "so far"
        else:
            assert (await until(peer, "error"))[-1]["errorKind"] == "timeout"
        assert gateway.messaging.runs.active() == []


@pytest.mark.expect_error_log("agent broke")
async def test_an_agent_that_breaks_ends_its_run_and_nothing_else(gateway: Gateway) -> None:
    gateway.agents.register("main", Scripted(ZeroDivisionError("secret words"), "back again"))
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r"})
        failed = (await until(peer, "error"))[-1]
        assert "secret words" not in str(failed)
        await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r2"})
        assert (await until(peer, "final"))[-1]["message"]["content"][0]["text"] == "back again"


async def test_a_run_has_a_deadline_and_an_answer_a_limit(gateway: Gateway) -> None:
    agent = Scripted("late", "x" * 2_000_000)
    agent.go = trio.Event()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        params = {"sessionKey": "main", "message": "x", "idempotencyKey": "r", "timeoutMs": 50}
        await peer.request("chat.send", params)
        assert (await until(peer, "error"))[-1]["errorKind"] == "timeout"
        agent.go.set()
        await peer.request("chat.send", {"sessionKey": "main", "message": "x", "idempotencyKey": "r2"})
        assert "longer than" in (await until(peer, "error"))[-1]["errorMessage"]


async def test_sessions_are_listed_named_reset_and_deleted(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "work", "message": "x", "idempotencyKey": "r"})
        await peer.request("agent.wait", {"runId": "r"})
        key = "agent:main:work"
        await peer.request("sessions.patch", {"key": key, "label": "Work", "pinned": True})
        (row,) = (await peer.request("sessions.list", {"limit": 5, "includePeople": True}))["sessions"]
        assert (row["key"], row["label"], row["pinned"], row["messageCount"]) == (key, "Work", True, 2)
        assert (await peer.request("sessions.resolve", {"label": "Work"}))["key"] == key
        injected = await peer.request("chat.inject", {"sessionKey": key, "message": "by hand", "label": "Note"})
        found = await peer.request("chat.message.get", {"sessionKey": key, "messageId": injected["messageId"]})
        assert "by hand" in found["message"]["content"][0]["text"]
        page = await peer.request("chat.history", {"sessionKey": key, "limit": 1})
        assert (page["hasMore"], page["nextOffset"], page["totalMessages"]) == (True, 1, 3)
        older = await peer.request("chat.history", {"sessionKey": key, "limit": 1, "offset": page["nextOffset"]})
        assert older["messages"][0]["role"] == "assistant"
        old = row["sessionId"]
        assert (await peer.request("sessions.reset", {"key": key}))["entry"]["sessionId"] != old
        assert (await peer.request("chat.history", {"sessionKey": key}))["messages"] == []
        assert (await peer.request("sessions.delete", {"key": key}))["deleted"]
        assert (await peer.request("sessions.describe", {"key": key}))["session"] is None
        assert [agent["id"] for agent in (await peer.request("agents.list", {}))["agents"]] == ["main", "second"]
        assert (await peer.request("agent.identity.get", {"agentId": "second"}))["name"] == "Second"


async def test_s029_a_question_survives_the_process(tmp_path: Path) -> None:
    """Accepted, under way, and the gateway stops: the next one answers it."""
    config = GatewayConfig(auth=AuthConfig(token=TOKEN), state_dir=tmp_path, port=0)
    stuck = Scripted("never")
    stuck.go = trio.Event()
    async with open_memory_gateway(config) as gateway:
        gateway.agents.register("main", stuck)
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            await peer.request("chat.send", {"sessionKey": "main", "message": "still there?", "idempotencyKey": "r"})
            await stuck.speaking.wait()
    async with (
        open_memory_gateway(config) as gateway,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as peer,
    ):
        runs: AgentRuns = gateway.messaging.runs
        with trio.fail_after(10):
            while runs.inbound.counts["waiting"] or runs.inbound.counts["running"]:
                await trio.lowlevel.checkpoint()
        history = await peer.request("chat.history", {"sessionKey": "main"})
        told = [(entry["role"], entry["content"][0]["text"]) for entry in history["messages"]]
        assert told == [("user", "still there?"), ("assistant", "still there?")]


async def test_s028_a_reset_or_delete_in_the_middle_of_a_run_stays_done(gateway: Gateway) -> None:
    for method in ("sessions.reset", "sessions.delete"):
        agent = Scripted("one two", "never")
        agent.go = trio.Event()
        gateway.agents.register("main", agent)
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            runs = [f"{method}-{number}" for number in (1, 2)]
            for run in runs:
                await peer.request("chat.send", {"sessionKey": "main", "message": run, "idempotencyKey": run})
            await agent.speaking.wait()
            done = await peer.request(method, {"key": "main"})
            for run in runs:
                assert (await peer.request("agent.wait", {"runId": run}))["stopReason"] == "aborted"
            history = await peer.request("chat.history", {"sessionKey": "main"})
            assert history["messages"] == []
            wanted = done["entry"]["sessionId"] if "entry" in done else None
            assert history["sessionId"] == wanted
        assert len(agent.turns) == 1


async def test_an_answer_whose_end_cannot_be_written_is_written_later_and_said_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Scripted("once", "never")
    gateway.agents.register("main", agent)
    faults = [QueueFull("outbound", 1), StoreUnavailable("no disk")]
    end, finish = Answering._end, queue_rows.finish

    def failing_end(self: Answering, *args: Any) -> Any:
        if len(faults) == 2:
            raise faults.pop(0)
        return end(self, *args)

    def failing_finish(*args: Any, **keywords: Any) -> Any:
        if faults:
            raise faults.pop()
        return finish(*args, **keywords)

    monkeypatch.setattr(Answering, "_end", failing_end)
    monkeypatch.setattr(queue_rows, "finish", failing_finish)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "m", "idempotencyKey": "r"})
        events = await until(peer, "final")
        assert events[-1]["message"]["content"][0]["text"] == "once"
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [entry["content"][0]["text"] for entry in history["messages"]] == ["m", "once"]
    assert (len(agent.turns), faults) == (1, [])


async def test_an_abort_while_the_transcript_is_read_is_heard(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Scripted("never")
    gateway.agents.register("main", agent)
    runs = gateway.messaging.runs
    history = runs.sessions.history

    async def reading(*args: Any, **keywords: Any) -> Any:
        assert runs.abort_nowait("agent:main:main") == ["r"]
        return await history(*args, **keywords)

    monkeypatch.setattr(runs.sessions, "history", reading)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "m", "idempotencyKey": "r"})
        assert (await peer.request("agent.wait", {"runId": "r"}))["stopReason"] == "aborted"
    assert agent.turns == []


async def test_a_question_that_a_person_drops_ends_its_run(gateway: Gateway) -> None:
    agent = Scripted("first")
    agent.go = trio.Event()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for run in ("r1", "r2"):
            await peer.request("chat.send", {"sessionKey": "main", "message": run, "idempotencyKey": run})
        await agent.speaking.wait()
        (waiting,) = (await peer.request("queue.list", {"queue": "inbound", "state": "waiting"}))["messages"]
        await peer.request("queue.drop", {"ids": [waiting["id"]]})
        assert (await until(peer, "error", "r2"))[-1]["errorMessage"].endswith("dropped from the queue")
        assert (await peer.request("agent.wait", {"runId": "r2"}))["status"] == "error"
        agent.go.set()
        await until(peer, "final", "r1")
    assert gateway.messaging.runs.active() == []


@pytest.mark.expect_error_log("run broke")
async def test_whoever_asked_hears_that_an_agent_cannot_be_made(gateway: Gateway) -> None:
    def broken(entry: AgentEntry) -> Any:
        raise ZeroDivisionError

    gateway.messaging.router._makers["echo"] = broken
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "m", "idempotencyKey": "r"})
        assert (await until(peer, "error"))[-1]["errorMessage"] == "the agent main failed: ZeroDivisionError"
    assert gateway.messaging.runs.active() == []


async def test_s029_nobody_hears_accepted_before_the_question_is_on_the_disk(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = gateway.messaging.inbound.put
    hold, puts = trio.Event(), 0

    async def slow(message: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts == 1:
            await hold.wait()
            raise StoreUnavailable("no disk")
        return await put(message)

    monkeypatch.setattr(gateway.messaging.inbound, "put", slow)
    params = {"sessionKey": "main", "message": "m", "idempotencyKey": "r"}
    answers: dict[str, Any] = {}
    async with (
        connect_peer(gateway, token=TOKEN, scopes=ALL) as one,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as two,
        trio.open_nursery() as nursery,
    ):

        async def first() -> None:
            with pytest.raises(CallFailed):
                await one.request("chat.send", params)
            answers["first"] = "refused"

        async def second() -> None:
            answers["second"] = await two.request("chat.send", params)

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert answers == {}
        hold.set()
    assert (answers["first"], answers["second"]["status"], puts) == ("refused", "started", 2)


async def test_v41_another_model_needs_admin_as_at_the_http_twin(gateway: Gateway) -> None:
    params = {"message": "m", "idempotencyKey": "r", "model": "openai/gpt"}
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.read", "operator.write"]) as peer:
        with pytest.raises(CallFailed, match="missing scope"):
            await peer.request("agent", params)
        await peer.request("agent", {"message": "m", "idempotencyKey": "r"})


async def test_an_answer_that_is_long_as_json_still_leaves(gateway: Gateway) -> None:
    request = RunRequest("r", "main", "agent:main:main", "m", "test", 1)
    effects = gateway.messaging.reply_effects(request, Reply("telegram", "default", "1"), "\x01" * MAX_REPLY)
    assert len(effects) == 1


async def test_what_is_written_and_shown_has_limits(gateway: Gateway) -> None:
    agent = Scripted("first")
    agent.go = trio.Event()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for run, text in (("r1", "m"), ("r2", "x" * 30_000)):
            await peer.request("chat.send", {"sessionKey": "main", "message": text, "idempotencyKey": run})
        await agent.speaking.wait()
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert "omitted" in history["pendingInputs"]["items"][0]["message"]["content"][0]["text"]
        with pytest.raises(CallFailed, match="label"):
            await peer.request("chat.inject", {"sessionKey": "main", "message": "m", "label": "x" * 201})
        with pytest.raises(CallFailed, match="provider/model"):
            await peer.request("sessions.patch", {"key": "main", "model": "x" * 257})


async def test_a_list_of_sessions_looks_at_the_runs_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = gateway.messaging.runs
    looks: list[str | None] = []
    active = runs.active

    def looked(key: str | None = None) -> Any:
        looks.append(key)
        return active(key)

    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for number in range(5):
            await peer.request("chat.inject", {"sessionKey": f"s{number}", "message": "m"})
        monkeypatch.setattr(runs, "active", looked)
        assert len((await peer.request("sessions.list", {}))["sessions"]) == 5
    assert looks == [None]


async def test_older_pages_are_found_when_a_transcript_has_lost_its_oldest(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_rows, "KEPT_MESSAGES", 6)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for number in range(10):
            await peer.request("chat.inject", {"sessionKey": "main", "message": f"m{number}"})
        page = await peer.request("chat.history", {"sessionKey": "main", "limit": 2})
        older = await peer.request("chat.history", {"sessionKey": "main", "limit": 2, "offset": page["nextOffset"]})
    assert [entry["content"][0]["text"] for entry in older["messages"]] == ["m6", "m7"]


async def test_who_follows_a_session_or_the_list_hears_each_message_that_was_written(gateway: Gateway) -> None:
    """OpenClaw's pages show what somebody else wrote as soon as it is in the transcript: `session.message`."""
    async with (
        connect_peer(gateway, token=TOKEN, scopes=ALL) as asker,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as follower,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as lister,
        connect_peer(gateway, token=TOKEN, scopes=ALL) as elsewhere,
    ):
        await follower.request("sessions.messages.subscribe", {"key": "main"})
        await lister.request("sessions.subscribe", {})
        await elsewhere.request("sessions.messages.subscribe", {"key": "other"})
        await asker.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r"})
        for listener in (follower, lister):
            told = [await listener.expect_event("session.message") for _ in range(2)]
            assert [one["message"]["role"] for one in told] == ["user", "assistant"]
            assert [(one["sessionKey"], one["messageSeq"], one["runId"]) for one in told] == [
                ("agent:main:main", 1, "r"), ("agent:main:main", 2, "r"),
            ]  # fmt: skip
            assert told[0]["message"]["__openclaw"]["id"] == told[0]["messageId"]
            assert told[1]["session"]["key"] == "agent:main:main"
        await elsewhere.request("sessions.list", {})
        assert [event for event in elsewhere.events if event["event"] == "session.message"] == []


async def test_an_answer_into_a_transcript_that_was_reset_is_told_to_nobody(gateway: Gateway) -> None:
    agent = Scripted("too late")
    agent.go = trio.Event()
    gateway.agents.register("main", agent)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("sessions.messages.subscribe", {"key": "main"})
        await peer.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r"})
        await agent.speaking.wait()
        assert (await peer.expect_event("session.message"))["message"]["role"] == "user"
        session = gateway.messaging.sessions.get("agent:main:main")
        assert session is not None
        await gateway.messaging.sessions.reset("agent:main:main", agent_id="main")
        agent.go.set()
        assert (await peer.request("agent.wait", {"runId": "r"}))["status"] == "ok"
        await peer.request("sessions.list", {})
        assert [event for event in peer.events if event["event"] == "session.message"] == []
