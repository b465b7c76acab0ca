"""`sessions.create`, `sessions.send`, `sessions.preview`, and short references to what was opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig
from openclaw_gateway.rpc.sessionstart import MAX_PREVIEWS
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway

WRITE = ("operator.read", "operator.write")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
    async with open_memory_gateway(GatewayConfig(agents=agents)) as opened:
        yield opened


@pytest.fixture
async def peer(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway, scopes=WRITE) as connected:
        yield connected


async def refusal(peer: ScriptedPeer, method: str, params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    return failed.value


async def test_a_conversation_is_opened_and_listed_before_anything_is_said(peer: ScriptedPeer) -> None:
    await peer.request("sessions.subscribe", {})
    made = await peer.request("sessions.create", {"agentId": "second", "label": "My plan"})
    assert made["key"].startswith("agent:second:dashboard:")
    assert (made["ok"], made["runStarted"]) == (True, False)
    told = await peer.expect_event("sessions.changed")
    assert (told["key"], told["reason"]) == (made["key"], "create")
    (row,) = (await peer.request("sessions.list", {}))["sessions"]
    assert (row["key"], row["label"], row["sessionId"]) == (made["key"], "My plan", made["sessionId"])


async def test_an_empty_idempotency_key_is_none_as_with_chat_send(peer: ScriptedPeer) -> None:
    made = [await peer.request("sessions.create", {"message": "x", "idempotencyKey": ""}) for _ in range(2)]
    assert made[0]["key"] != made[1]["key"]
    assert made[0]["runId"] != made[1]["runId"]


async def test_v41_choosing_another_model_needs_admin_for_a_conversation_as_for_a_run(
    gateway: Gateway, peer: ScriptedPeer
) -> None:
    """Else whoever may not choose it for one run chooses it for the conversation and asks there."""
    made = await peer.request("sessions.create", {"key": "main", "model": ""})
    for method, params in (
        ("agent", {"message": "x", "idempotencyKey": "r", "model": "dear/one"}),
        ("sessions.create", {"message": "x", "model": "dear/one"}),
        ("sessions.patch", {"key": made["key"], "model": "dear/one"}),
    ):
        failed = await refusal(peer, method, params)
        assert failed.details is not None
        assert failed.details["missingScope"] == "operator.admin", method
    rows = (await peer.request("sessions.list", {}))["sessions"]
    assert [(row["key"], row.get("modelOverride")) for row in rows] == [(made["key"], None)], "and nothing was opened"
    async with connect_peer(gateway, scopes=(*WRITE, "operator.admin")) as admin:
        entry = (await admin.request("sessions.patch", {"key": made["key"], "model": "dear/one"}))["entry"]
        assert entry["modelOverride"] == "dear/one"
        for method in ("sessions.create", "sessions.patch"):
            assert "provider/model" in (await refusal(admin, method, {"key": "main", "model": "x" * 300})).message
    entry = (await peer.request("sessions.patch", {"key": made["key"], "model": None}))["entry"]
    assert "modelOverride" not in entry, "back to the agent's own"


async def test_a_first_message_starts_a_run_under_the_idempotency_key(peer: ScriptedPeer) -> None:
    made = await peer.request("sessions.create", {"message": "hello", "idempotencyKey": "run-1"})
    assert (made["runStarted"], made["runId"]) == (True, "run-1")
    assert (await peer.request("agent.wait", {"runId": "run-1"}))["status"] == "ok"
    sent = await peer.request("sessions.send", {"key": made["key"], "message": "more", "idempotencyKey": "run-2"})
    assert sent == {"runId": "run-2", "status": "started", "sessionKey": made["key"]}
    assert (await peer.request("agent.wait", {"runId": "run-2"}))["status"] == "ok"
    previews = (await peer.request("sessions.preview", {"keys": [made["key"]], "limit": 3}))["previews"]
    items = [("assistant", "hello"), ("user", "more"), ("assistant", "more")]
    assert previews == [
        {"key": made["key"], "status": "ok", "items": [{"role": role, "text": text} for role, text in items]}
    ]


async def test_v44_the_same_idempotency_key_opens_one_conversation(peer: ScriptedPeer) -> None:
    params = {"message": "hello", "idempotencyKey": "same"}
    first = await peer.request("sessions.create", params)
    again = await peer.request("sessions.create", params)
    assert (first["key"], first["runId"]) == (again["key"], again["runId"])
    assert (await peer.request("sessions.list", {}))["count"] == 1


async def test_where_the_first_message_fails_the_conversation_is_there_and_says_so(peer: ScriptedPeer) -> None:
    made = await peer.request("sessions.create", {"message": " "})
    assert (made["ok"], made["runStarted"], made["runError"]["code"]) == (True, False, "INVALID_REQUEST")
    assert (await peer.request("sessions.describe", {"key": made["key"]}))["session"]["key"] == made["key"]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"incognito": True}, "at /incognito: conversations here are kept"),
        ({"fork": True}, "at /fork"),
        ({"forkFrom": "last-completed"}, "at /forkFrom"),
        ({"worktree": True}, "at /worktree"),
        ({"cwd": "/home"}, "at /cwd"),
        ({"execNode": "n"}, "at /execNode"),
        ({"projectId": "p"}, "at /projectId"),
        ({"repository": {"url": "https://example.org"}}, "at /repository"),
        ({"visibility": "draft"}, "at /visibility"),
        ({"agentId": "nobody"}, "nobody"),
        ({"key": "agent:second:x", "agentId": "main"}, "belongs to the agent second"),
    ],
)
async def test_what_is_not_here_is_refused_and_nothing_is_opened(
    peer: ScriptedPeer, wish: dict[str, Any], told: str
) -> None:
    assert told in (await refusal(peer, "sessions.create", {"label": "x", **wish})).message
    assert (await peer.request("sessions.list", {}))["count"] == 0


async def test_an_existing_key_is_the_conversation_that_there_is(peer: ScriptedPeer) -> None:
    first = await peer.request("sessions.create", {"key": "mine", "label": "First"})
    again = await peer.request("sessions.create", {"key": "mine", "label": "Second"})
    assert again["sessionId"] == first["sessionId"]
    assert again["entry"]["label"] == "First"


async def test_previews_are_short_and_say_what_is_missing(peer: ScriptedPeer) -> None:
    await peer.request("sessions.create", {"key": "empty"})
    answer = await peer.request("sessions.preview", {"keys": ["empty", "nothing", " "]})
    assert [(one["key"], one["status"]) for one in answer["previews"]] == [("empty", "empty"), ("nothing", "missing")]
    many = await peer.request("sessions.preview", {"keys": [f"k{number}" for number in range(MAX_PREVIEWS + 9)]})
    assert len(many["previews"]) == MAX_PREVIEWS
    await peer.request("sessions.send", {"key": "empty", "message": "long " * 100, "idempotencyKey": "r"})
    await peer.request("agent.wait", {"runId": "r"})
    (one,) = (await peer.request("sessions.preview", {"keys": ["empty"], "maxChars": 7}))["previews"]
    assert {item["text"] for item in one["items"]} == {"long lo"}


async def test_s031_opening_needs_write(gateway: Gateway) -> None:
    async with connect_peer(gateway, scopes=("operator.read",)) as reader:
        for method in ("sessions.create", "sessions.send"):
            assert "operator.write" in (await refusal(reader, method, {})).message


async def test_the_tail_of_a_pages_address_leads_to_its_conversation(peer: ScriptedPeer) -> None:
    made = await peer.request("sessions.create", {"label": "My plan", "message": "hello", "idempotencyKey": "r"})
    await peer.request("agent.wait", {"runId": "r"})
    short = made["key"].rpartition(":")[2].partition("-")[0]
    wanted = {"shortId": short, "slugHint": "my-plan"}
    assert (await peer.request("sessions.resolve", wanted))["key"] == made["key"]
    started = await peer.request("chat.startup", {**wanted, "agentId": "main"})
    assert started["resolution"] == {"ok": True, "key": made["key"], "agentId": "main", "displayName": "My plan"}
    assert started["sessionKey"] == made["key"]
    assert await peer.request("chat.startup", {"shortId": "0" * 32, "agentId": "main"}) == {"resolution": {"ok": False}}
    assert "8-32 hexadecimal" in (await refusal(peer, "chat.startup", {"shortId": "x", "agentId": "main"})).message
    assert "sessionKey" in (await refusal(peer, "chat.startup", {})).message
