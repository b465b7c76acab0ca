"""`sessions.usage`, `usage.cost`, `usage.status`: honest numbers, in the shapes of the official page, at a bounded
cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import ANY

import pytest
import trio

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.agents import usagereading
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.counting import QUARTER_MS
from openclaw_gateway.agents.records import AgentFailed, Delta, Message, Outcome, Session, Turn, Usage
from openclaw_gateway.agents.sessions import Sessions, open_sessions
from openclaw_gateway.agents.span import read_span
from openclaw_gateway.agents.usage import (
    MAX_LOG_CHARS,
    MAX_POINTS,
    Counted,
    cost_view,
    log_view,
    points_view,
    sessions_view,
)
from openclaw_gateway.agents.usagereading import UsageReader
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig
from openclaw_gateway.rpc.usage import WAITING
from openclaw_gateway.store import open_store
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway

ALL = ("operator.read", "operator.write", "operator.admin")
MAIN = "agent:main:main"
DAY = 96
NOW = 1_800_000_000_000
TODAY = NOW // QUARTER_MS


class Counting:
    """Answers with tokens; fails when told to."""

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        if turn.request.text == "fail":
            raise AgentFailed("no")
        emit(Delta(text="well"))
        return Outcome(model="acme/one", usage=Usage(100, 20, 3, 4))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
    async with open_memory_gateway(GatewayConfig(agents=agents)) as opened:
        opened.agents.register("main", Counting())
        yield opened


@pytest.fixture
async def peer(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    with trio.fail_after(20):
        async with connect_peer(gateway, scopes=ALL) as connected:
            yield connected


async def say(peer: ScriptedPeer, number: int, text: str = "hello", **where: Any) -> None:
    await peer.request("agent", {"message": text, "idempotencyKey": f"r{number}", **where})
    await peer.request("agent.wait", {"runId": f"r{number}"})


async def test_the_page_is_told_what_runs_used(peer: ScriptedPeer) -> None:
    await say(peer, 1)
    await say(peer, 2)
    await say(peer, 3, "fail")
    await say(peer, 4, agentId="second")
    asked = {"agentScope": "all", "range": "7d", "mode": "specific", "timeZone": "Asia/Kolkata", "limit": 1000}
    told = await peer.request("sessions.usage", {**asked, "groupBy": "instance", "includeContextWeight": False})
    assert [row["key"] for row in told["sessions"]] == ["agent:second:main", MAIN]
    row = told["sessions"][1]
    assert (row["modelProvider"], row["model"], row["label"], row["agentId"]) == ("acme", "one", "main", "main")
    counts = {"total": 6, "user": 3, "assistant": 3, "toolCalls": 0, "toolResults": 0, "errors": 1}
    assert row["usage"]["messageCounts"] == counts
    assert [row["usage"][name] for name in ("input", "output", "cacheRead", "cacheWrite")] == [200, 40, 6, 8]
    (day,) = row["usage"]["dailyBreakdown"]
    assert (day["date"], day["tokens"], day["cost"]) == (told["endDate"], 254, 0)
    assert sum(one["totalTokens"] for one in row["usage"]["utcQuarterHourTokenUsage"]) == 254
    assert told["totals"]["totalTokens"] == 254
    assert told["aggregates"]["messages"]["total"] == 8
    assert told["aggregates"]["sessionCount"] == 2
    (model,) = told["aggregates"]["byModel"]
    assert (model["provider"], model["model"], model["count"]) == ("acme", "one", 2)
    (nobody,) = told["aggregates"]["byCreator"]
    assert (nobody["sessionCount"], nobody["totals"]["totalTokens"]) == (2, 254)
    assert nobody["sessionActivity"] == [{"dates": [told["endDate"]], "sessionCount": 2}]
    assert told["creatorOptions"] == [{"key": nobody["key"]}]
    assert await peer.request("sessions.usage", {**asked, "creatorKey": nobody["key"]}) == told | {"updatedAt": ANY}
    agents = [(one["agentId"], one["totals"]["totalTokens"]) for one in told["aggregates"]["byAgent"]]
    assert agents == [("main", 254), ("second", 0)]


async def test_no_price_is_made_up(peer: ScriptedPeer) -> None:
    await say(peer, 1)
    told = await peer.request("usage.cost", {"days": 30})
    assert (told["days"], len(told["daily"])) == (30, 1)
    for row in (told["totals"], told["daily"][0]):
        assert (row["totalTokens"], row["totalCost"], row["missingCostEntries"]) == (127, 0, 1)
        assert row["missingCostByModel"] == {"acme/one": 1}
    assert (await peer.request("usage.status", {}))["providers"] == []


async def test_the_default_agent_is_meant_where_none_is_named(peer: ScriptedPeer) -> None:
    await say(peer, 1)
    await say(peer, 2, agentId="second")
    assert [row["agentId"] for row in (await peer.request("sessions.usage", {}))["sessions"]] == ["main"]
    (other,) = (await peer.request("sessions.usage", {"agentId": "second"}))["sessions"]
    assert other["key"] == "agent:second:main"
    (one,) = (await peer.request("sessions.usage", {"key": "agent:second:main"}))["sessions"]
    assert one["key"] == "agent:second:main"
    assert (await peer.request("usage.cost", {"agentId": "nobody"}))["daily"] == []
    assert (await peer.request("sessions.usage", {"creatorKey": "somebody"}))["sessions"] == []


async def test_a_reset_makes_another_instance_of_one_family(peer: ScriptedPeer) -> None:
    await say(peer, 1)
    await peer.request("sessions.reset", {"key": MAIN})
    await say(peer, 2)
    rows = (await peer.request("sessions.usage", {}))["sessions"]
    assert sorted(row["usage"]["totalTokens"] for row in rows) == [127, 127]
    assert len({row["key"] for row in rows}) == 2, "the page tells rows apart by their keys"
    for family in ({"groupBy": "family"}, {"includeHistorical": True}):
        (row,) = (await peer.request("sessions.usage", family))["sessions"]
        assert (row["key"], row["historicalInstanceCount"], row["usage"]["totalTokens"]) == (MAIN, 2, 254)


async def test_what_a_deleted_conversation_used_is_counted_without_its_name(peer: ScriptedPeer) -> None:
    await say(peer, 1, sessionKey="agent:main:secret-plan")
    await peer.request("sessions.delete", {"key": "agent:main:secret-plan"})
    told = await peer.request("sessions.usage", {"agentScope": "all"})
    assert (told["sessions"], told["totals"]["totalTokens"]) == ([], 127)
    assert "secret-plan" not in str(told)


async def test_the_lines_of_one_conversation(peer: ScriptedPeer) -> None:
    await say(peer, 1)
    await say(peer, 2)
    told = await peer.request("sessions.usage.timeseries", {"key": MAIN})
    assert [one["cumulativeTokens"] for one in told["points"]] == [127, 254]
    logs = (await peer.request("sessions.usage.logs", {"key": MAIN, "limit": 1000}))["logs"]
    assert [(one["role"], one["content"], one.get("tokens")) for one in logs[:2]] == [
        ("user", "hello", None), ("assistant", "well", 127)
    ]  # fmt: skip
    assert (await peer.request("sessions.usage.timeseries", {"key": "nothing"}))["points"] == []
    assert (await peer.request("sessions.usage.logs", {"key": "nothing"}))["logs"] == []


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"startDate": "2026-01-01"}, "together"),
        ({"mode": "specific", "timeZone": "Nowhere"}, "IANA"),
        ({"agentScope": "all", "agentId": "main"}, "cannot be combined"),
        ({"agentScope": "some"}, "agentScope is all"),
    ],
)
@pytest.mark.parametrize("method", ["sessions.usage", "usage.cost"])
async def test_what_cannot_be_meant_is_refused(
    peer: ScriptedPeer, method: str, params: dict[str, Any], told: str
) -> None:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    assert failed.value.code == "INVALID_REQUEST"
    assert told in failed.value.message


@pytest.mark.parametrize(
    ("method", "params"), [("sessions.usage", {}), ("usage.cost", {}), ("sessions.search", {"query": "well"})]
)
async def test_cap_who_asks_without_end_is_told_to_come_again(
    peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch, method: str, params: dict[str, Any]
) -> None:
    await say(peer, 1)
    go, read = trio.Event(), Sessions.look

    async def held(sessions: Sessions, work: Any) -> Any:
        await go.wait()
        return await read(sessions, work)

    monkeypatch.setattr(Sessions, "look", held)
    asked = {await peer.start(method, params) for _ in range(1 + WAITING + 1)}

    async def next_reply() -> dict[str, Any]:  # whichever it is
        while (message := await peer.receive()).get("id") not in asked:
            pass
        return dict(message)

    assert (await next_reply())["error"]["details"]["code"] == "METHOD_BUSY"
    go.set()
    assert all([(await next_reply())["ok"] for _ in range(1 + WAITING)])


def row(quarter: int, session: str = "s1", model: str = "acme/one", tokens: int = 1, asked: int = 0) -> Counted:
    at = quarter * QUARTER_MS
    key = f"agent:main:{session}" if session else ""
    return Counted(quarter, session, model, "main", key, asked, 1, 0, int(bool(model)), tokens, 0, 0, 0, at, at + 5)


def nobody(key: str) -> Session | None:
    return None


def test_cap_details_of_conversations_have_a_bound_and_totals_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_gateway.agents.usage.MAX_DETAILS", 8)
    rows = [row(TODAY - number, f"s{number}") for number in range(5)]
    told = sessions_view(rows, read_span(NOW, range_="7d"), NOW, sessions=nobody, family=False, limit=4)
    assert ["dailyBreakdown" in one["usage"] for one in told["sessions"]] == [True, True, False, False]
    assert [one["usage"]["totalTokens"] for one in told["sessions"]] == [1, 1, 1, 1]
    assert (told["totals"]["totalTokens"], told["aggregates"]["sessionCount"]) == (5, 5)


def test_days_are_those_of_the_callers_zone() -> None:
    midnight = NOW // 86_400_000 * DAY  # of UTC
    span = read_span(NOW, mode="specific", utc_offset="UTC+5:45", range_="7d")
    rows = [row(midnight + 73 - DAY), row(midnight + 72 - DAY)]  # 18:15 and 18:00 in UTC
    assert [one["totalTokens"] for one in cost_view(rows, span, NOW)["daily"]] == [1, 1]
    assert len(cost_view(rows, read_span(NOW, range_="7d"), NOW)["daily"]) == 1


def test_models_without_a_provider_and_nothing_at_all() -> None:
    span = read_span(NOW, range_="7d")
    told = sessions_view([row(TODAY, model="mine")], span, NOW, sessions=nobody, family=True, limit=9)
    assert told["aggregates"]["byProvider"][0]["provider"] == "unknown"
    assert "modelProvider" not in told["sessions"][0]
    empty = sessions_view([], span, NOW, sessions=nobody, family=False, limit=9)
    assert (empty["sessions"], empty["totals"]["totalTokens"], empty["aggregates"]["daily"]) == ([], 0, [])


def test_cap_points_and_lines_of_a_conversation() -> None:
    answers = [
        Message(id=str(number), role="assistant", text="x" * 9_999, at_ms=number, usage=Usage(1, 0, 0, 0))
        for number in range(999)
    ]
    points = points_view("s", answers)["points"]
    assert len(points) <= MAX_POINTS
    assert sum(one["totalTokens"] for one in points) == points[-1]["cumulativeTokens"] == 999
    assert {len(one["content"]) for one in log_view(answers)["logs"]} == {MAX_LOG_CHARS + 1}


async def test_v_questions_are_answered_one_at_a_time_in_slices_and_with_rests(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(usagereading, "SLICE", 3)
    looked: list[float] = []
    async with open_store(None) as store, open_sessions(store, clock=lambda: NOW) as sessions:
        session = sessions.current("agent:main:main", agent_id="main")
        for number in range(7):
            await sessions.append(
                session, Message(id=str(number), role="user", text="x", at_ms=NOW - number * QUARTER_MS)
            )
        read = sessions.look

        async def slow(work: Any) -> Any:
            looked.append(trio.current_time())
            await trio.sleep(1)
            return await read(work)

        monkeypatch.setattr(sessions, "look", slow)
        reader, span = UsageReader(sessions), read_span(NOW)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await reader.answer(span, len, agent_id="main"))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask)
        assert answers == [7, 7]
        began = looked[0]
        assert [round(at - began) for at in looked] == [0, 1, 2, 9, 10, 11]
        assert await reader.answer(span, len, agent_id="nobody") == 0
