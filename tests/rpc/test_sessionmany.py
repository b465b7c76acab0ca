"""`sessions.search` and `sessions.patchMany`: many conversations at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.agents import search
from openclaw_gateway.agents.records import Attachment, Message
from openclaw_gateway.agents.search import TranscriptSearch
from openclaw_gateway.agents.sessions import Sessions, open_sessions
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig
from openclaw_gateway.rpc.sessionmany import MAX_HITS, MAX_KEYS, MAX_QUERY, MAX_TARGETS
from openclaw_gateway.store import open_store
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway

WRITE = ("operator.read", "operator.write")
ALL = (*WRITE, "operator.admin")
NOW = 1_800_000_000_000


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
    async with open_memory_gateway(GatewayConfig(agents=agents)) as opened:
        yield opened


@pytest.fixture
async def peer(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    with trio.fail_after(20):
        async with connect_peer(gateway, scopes=ALL) as connected:
            yield connected


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    async with open_store(None) as store, open_sessions(store, clock=lambda: NOW) as opened:
        yield opened


async def say(peer: ScriptedPeer, text: str, key: str = "main") -> None:
    await peer.request("chat.inject", {"sessionKey": key, "message": text})


async def find(peer: ScriptedPeer, query: str, **where: Any) -> list[tuple[str, str]]:
    told = await peer.request("sessions.search", {"query": query, **where})
    return [(one["sessionKey"], one["snippet"]) for one in told["results"]]


async def write(sessions: Sessions, key: str, texts: list[str]) -> None:
    session = sessions.current(key, agent_id="main")
    for number, text in enumerate(texts):
        said = Message(id=f"{key}{number}", role="user", text=text, at_ms=NOW + number)
        session, _ = await sessions.append(session, said)


async def refusal(peer: ScriptedPeer, method: str, params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    return failed.value


async def test_what_was_said_is_found_with_the_place_where(peer: ScriptedPeer) -> None:
    await say(peer, "The STRASSE is closed " + "for works " * 60, "agent:main:roads")
    await say(peer, "closed is the straße", "agent:main:other")
    await say(peer, "nothing of it")
    told = await peer.request("sessions.search", {"query": " Straße is  closed "})
    first, second = told["results"]
    assert (first["sessionKey"], first["score"], first["role"]) == ("agent:main:roads", 1.0, "assistant")
    assert first["snippet"].startswith("The STRASSE is closed for works")
    assert first["snippet"].endswith("…")
    assert (second["sessionKey"], second["score"]) == ("agent:main:other", 0.5)
    assert set(told) == {"results"}
    message = await peer.request(
        "chat.message.get", {"sessionKey": first["sessionKey"], "messageId": first["messageId"]}
    )
    assert message["ok"]


async def test_which_conversations_are_looked_through(peer: ScriptedPeer) -> None:
    for key in ("agent:main:a", "agent:main:b", "agent:second:c"):
        await say(peer, "plan", key)
    await peer.request("sessions.patch", {"key": "agent:main:b", "archived": True})
    assert {key for key, _ in await find(peer, "plan")} == {"agent:main:a", "agent:main:b"}
    assert await find(peer, "plan", agentId="second") == [("agent:second:c", "plan")]
    assert await find(peer, "plan", sessionKeys=["agent:main:b", "agent:main:none"]) == [("agent:main:b", "plan")]
    told = await peer.request("sessions.search", {"query": "plan", "scope": {"archived": False, "involvingMe": True}})
    assert {row["key"] for row in told["sessions"]} == {"agent:main:a", "agent:second:c"}
    assert {one["sessionKey"] for one in told["results"]} == {row["key"] for row in told["sessions"]}
    assert "nobody" in (await refusal(peer, "sessions.search", {"query": "x", "agentId": "nobody"})).message


@pytest.mark.parametrize(
    "params",
    [
        {"query": "  "},
        {"query": "x" * (MAX_QUERY + 1)},
        {"query": "x", "sessionKeys": ["k"] * (MAX_KEYS + 1)},
        {"query": "x", "scope": {"limit": "many"}},
    ],
)
async def test_what_cannot_be_searched_is_refused(peer: ScriptedPeer, params: dict[str, Any]) -> None:
    assert (await refusal(peer, "sessions.search", params)).message.startswith("invalid sessions.search params")


async def test_cap_hits_of_one_search(peer: ScriptedPeer) -> None:
    for _ in range(MAX_HITS + 5):
        await say(peer, "again")
    told = await peer.request("sessions.search", {"query": "again", "limit": 9_999})
    assert (len(told["results"]), told["truncated"]) == (MAX_HITS, True)
    assert len(await find(peer, "again", limit=1)) == 1


async def test_cap_a_search_ends_when_its_allowance_does_and_says_so(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_BYTES", 20_000)
    monkeypatch.setattr(search, "SLICE_BYTES", 4_000)
    monkeypatch.setattr(search, "SLICE", 3)
    await write(sessions, "agent:main:a", ["needle", *["x" * 900] * 40])
    looked = 0
    read = sessions.look

    async def counted(work: Any) -> Any:
        nonlocal looked
        looked += 1
        return await read(work)

    monkeypatch.setattr(sessions, "look", counted)
    hits, more = await TranscriptSearch(sessions).search(sessions.all(), "needle", 5)
    assert (hits, more) == ([], True)
    assert 5 <= looked <= 10


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
async def test_every_message_is_looked_at_whatever_the_slices(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(search, "SLICE", 3)
    monkeypatch.setattr(search, "SLICE_BYTES", 2_000)
    await write(sessions, "agent:main:a", [f"needle {'x' * (1_500 * (number % 2))}" for number in range(count)])
    hits, more = await TranscriptSearch(sessions).search(sessions.all(), "NEEDLE", 25)
    assert ([hit.message_id for hit in hits], more) == ([f"agent:main:a{n}" for n in reversed(range(count))], False)


async def test_files_are_not_looked_into(sessions: Sessions) -> None:
    session = sessions.current("agent:main:a", agent_id="main")
    file = Attachment(mime="text/plain", data="bmVlZGxl" * 100_000, name="needle")
    await sessions.append(session, Message(id="f", role="user", text="see", at_ms=NOW, attachments=(file,)))
    finder = TranscriptSearch(sessions)
    assert await finder.search(sessions.all(), "needle", 5) == ([], False)
    (hit,), _ = await finder.search(sessions.all(), "SEE", 5)
    assert hit.snippet == "see"


# --- sessions.patchMany


async def keys(peer: ScriptedPeer, *names: str) -> dict[str, str]:
    made = {}
    for name in names:
        opened = await peer.request("sessions.create", {"key": f"agent:main:{name}"})
        made[opened["key"]] = opened["sessionId"]
    return made


async def test_each_target_has_its_own_outcome(peer: ScriptedPeer) -> None:
    a, b = await keys(peer, "a", "b")
    targets = [{"key": a}, {"key": "agent:main:none"}, {"key": b, "agentId": "second"}, {"key": b, "agentId": "main"}]
    told = await peer.request("sessions.patchMany", {"targets": targets, "patch": {"archived": True, "icon": "x"}})
    assert [one["ok"] for one in told["outcomes"]] == [True, False, False, True]
    assert [one["key"] for one in told["outcomes"]] == [target["key"] for target in targets]
    assert told["outcomes"][3] == {"ok": True, "key": b, "agentId": "main"}
    assert told["outcomes"][1]["error"]["code"] == "INVALID_REQUEST"
    assert "no session" in told["outcomes"][1]["error"]["message"]
    rows = (await peer.request("sessions.list", {"archived": "all"}))["sessions"]
    assert {row["key"]: row["archived"] for row in rows} == {a: True, b: True}


async def test_a_conversation_that_was_begun_anew_is_left_alone(peer: ScriptedPeer) -> None:
    ((key, session_id),) = (await keys(peer, "a")).items()
    await peer.request("sessions.reset", {"key": key})
    target = {"key": key, "expectedSessionId": session_id}
    (told,) = (await peer.request("sessions.patchMany", {"targets": [target], "patch": {"archived": True}}))["outcomes"]
    assert "begun anew" in told["error"]["message"]
    assert "begun anew" in (await refusal(peer, "sessions.patch", {**target, "archived": True})).message
    now = (await peer.request("sessions.describe", {"key": key}))["session"]
    assert now["archived"] is False
    target["expectedSessionId"] = now["sessionId"]
    (told,) = (await peer.request("sessions.patchMany", {"targets": [target], "patch": {"archived": True}}))["outcomes"]
    assert told["ok"]


async def test_what_a_caller_expects_and_nobody_has_here_is_no_match(peer: ScriptedPeer) -> None:
    (key,) = await keys(peer, "a")
    targets = [
        {"key": key, "expectedLifecycleRevision": "7"},
        {"key": key, "expectedPermissionMode": "full"},
        {"key": key, "expectedPermissionMode": None, "expectedSandboxMode": None},
    ]
    told = await peer.request("sessions.patchMany", {"targets": targets, "patch": {"pinned": True}})
    assert [one["ok"] for one in told["outcomes"]] == [False, False, True]


@pytest.mark.parametrize(
    "params",
    [
        {"targets": [], "patch": {}},
        {"targets": [{"key": "a"}] * (MAX_TARGETS + 1), "patch": {}},
        {"targets": [{"agentId": "main"}], "patch": {}},
        {"targets": [{"key": ""}], "patch": {}},
        {"targets": [{"key": "a"}], "patch": {"pinned": "yes"}},
        {"targets": [{"key": "a"}]},
    ],
)
async def test_a_faulty_question_changes_nothing(peer: ScriptedPeer, params: dict[str, Any]) -> None:
    assert (await refusal(peer, "sessions.patchMany", params)).message.startswith("invalid sessions.patchMany params")


async def test_a_patch_cannot_name_another_target(peer: ScriptedPeer) -> None:
    a, b = await keys(peer, "a", "b")
    await peer.request("sessions.patchMany", {"targets": [{"key": a}], "patch": {"key": b, "pinned": True}})
    rows = (await peer.request("sessions.list", {}))["sessions"]
    assert {row["key"]: row["pinned"] for row in rows} == {a: True, b: False}


async def test_v41_search_reads_and_patches_write(gateway: Gateway) -> None:
    async with connect_peer(gateway, scopes=("operator.read",)) as reader:
        assert (await reader.request("sessions.search", {"query": "x"})) == {"results": []}
        assert "operator.write" in (await refusal(reader, "sessions.patchMany", {})).message
    async with connect_peer(gateway, scopes=("operator.pairing",)) as other:
        for method in ("sessions.search", "sessions.usage", "usage.cost", "sessions.usage.logs"):
            assert "operator.read" in (await refusal(other, method, {})).message
