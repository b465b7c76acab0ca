"""``/v1`` on the port: admission, sessions, streams, and clients that leave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import AgentFailed, Delta, Outcome, Turn, Usage
from openclaw_gateway.completions import routes
from openclaw_gateway.config.schema import (
    AgentEntry,
    AgentsConfig,
    AuthConfig,
    ChatCompletionsConfig,
    EndpointsConfig,
    HttpSurfaceConfig,
)
from openclaw_gateway.server import underway
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from tests.server.test_http import Answer, ask, dial

TOKEN = "token-of-the-tests-of-completions-0123456789"
AUTH: dict[str, Any] = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
CHAT, MODELS = "/v1/chat/completions", "/v1/models"
ON = HttpSurfaceConfig(endpoints=EndpointsConfig(chat_completions=ChatCompletionsConfig(enabled=True)))
AGENTS = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
CONFIG = GatewayConfig(auth=AuthConfig(token=TOKEN), agents=AGENTS, http=ON)


class Scripted:
    """An agent that notes its turns and waits where a test wants it to."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.failure: AgentFailed | None = None
        self.go: trio.Event | None = None
        self.spoke, self.cancelled = trio.Event(), trio.Event()

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.turns.append(turn)
        if self.failure is not None:
            raise self.failure
        emit(Delta(text="Hello"))
        self.spoke.set()
        if self.go is not None:
            try:
                await self.go.wait()
            except trio.Cancelled:
                self.cancelled.set()
                raise
        emit(Delta(text=f" {turn.request.text}"))
        return Outcome(usage=Usage(input=3, output=4))


@pytest.fixture
def agent() -> Scripted:
    return Scripted()


@pytest.fixture
async def gateway(agent: Scripted) -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as opened:
        opened.agents.register("main", agent)
        yield opened


def body(text: str = "world", **more: Any) -> bytes:
    return json.dumps({"model": "openclaw", "messages": [{"role": "user", "content": text}], **more}).encode()


async def chat(gateway: Gateway, text: str = "world", headers: dict[str, Any] | None = None, **more: Any) -> Answer:
    return await ask(gateway, "POST", CHAT, body(text, **more), **{**AUTH, **(headers or {})})


async def key_of(gateway: Gateway, *scopes: str) -> dict[str, Any]:
    """The headers of a caller with an API key of these scopes."""
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.admin"]) as peer:
        made = await peer.request("tokens.create", {"name": "-".join(scopes), "scopes": list(scopes)})
    return {"Authorization": f"Bearer {made['key']}"}


async def stream(client: Any, **more: Any) -> AsyncIterator[Any]:
    """The events of a streamed answer: JSON, or the text [DONE]."""
    await client.send("POST", CHAT, body(stream=True, **more), **AUTH)
    head = await client.answer(head_only=True)
    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    text, wire = "", client.data
    while True:
        while b"\r\n" in wire:
            size, _, rest = wire.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            if not length:
                client.data = rest[2:]
                return
            text += rest[:length].decode()
            wire = rest[length + 2 :]
        while "\n\n" in text:
            event, _, text = text.partition("\n\n")
            if event.startswith("data: "):
                data = event.removeprefix("data: ")
                yield data if data == "[DONE]" else json.loads(data)
        more_bytes = await client.stream.receive_some(65_536)
        assert more_bytes, f"the stream broke off: {text!r}"
        wire += bytes(more_bytes)


async def collect(gateway: Gateway, **more: Any) -> list[Any]:
    async with dial(gateway) as client:
        return [event async for event in stream(client, **more)]


async def test_s013_off_unless_the_configuration_asks_for_it() -> None:
    async with open_memory_gateway(attrs.evolve(CONFIG, http=HttpSurfaceConfig())) as gateway:
        assert (await chat(gateway)).status == 404
        assert (await ask(gateway, "GET", MODELS, **AUTH)).status == 404
        gateway.apply(CONFIG, gateway.auth)
        assert (await chat(gateway)).json["choices"][0]["message"]["content"] == "world"
        gateway.apply(attrs.evolve(CONFIG, http=HttpSurfaceConfig()), gateway.auth)
        assert (await chat(gateway)).status == 404
        assert (await ask(gateway, "GET", f"{MODELS}/openclaw", **AUTH)).status == 404


async def test_models_are_agents(gateway: Gateway) -> None:
    listed = (await ask(gateway, "GET", MODELS, **AUTH)).json
    assert [one["id"] for one in listed["data"]] == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/second"]
    assert (await ask(gateway, "GET", f"{MODELS}/openclaw/second", **AUTH)).json["id"] == "openclaw/second"
    for unknown in ("openclaw/third", "gpt-x"):
        assert (await ask(gateway, "GET", f"{MODELS}/{unknown}", **AUTH)).status == 404
    assert (await ask(gateway, "GET", f"{MODELS}/openclaw%2Fsecond", **AUTH)).status == 400, "V40: one spelling"


async def test_s013_an_answer_in_one_piece(gateway: Gateway, agent: Scripted) -> None:
    answer = (await chat(gateway, temperature=0.5)).json
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello world", "refusal": None}
    assert (answer["model"], answer["choices"][0]["finish_reason"]) == ("openclaw", "stop")
    assert answer["usage"]["total_tokens"] == 7
    request = agent.turns[0].request
    assert request.sampling is not None
    assert (request.sampling.temperature, request.interactive, request.source) == (0.5, True, "http:token:operator")


async def test_s013_an_answer_that_streams(gateway: Gateway) -> None:
    events = await collect(gateway, stream_options={"include_usage": True})
    *chunks, last, usage, done = events
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == "Hello world"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 7)
    assert "usage" not in (await collect(gateway))[-2]


async def test_a_request_is_a_conversation_of_its_own(gateway: Gateway, agent: Scripted) -> None:
    talk = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    for _ in range(2):
        await chat(gateway, messages=talk)
    turn = agent.turns[1]
    assert [(one.role, one.text) for one in turn.history] == [("user", "one"), ("assistant", "two")]
    assert (turn.request.system, turn.request.text) == ("be kind", "three")
    assert gateway.messaging.sessions.all() == [], "nothing of it is kept"


async def test_user_names_a_conversation_that_lasts(gateway: Gateway, agent: Scripted) -> None:
    await chat(gateway, "one", user="ann")
    await chat(gateway, "two", user="ann")
    await chat(gateway, "three", user="agent:main:main")
    assert [(one.role, one.text) for one in agent.turns[1].history] == [("user", "one"), ("assistant", "Hello one")]
    assert agent.turns[2].history == ()
    keys = [session.key for session in gateway.messaging.sessions.all()]
    assert "agent:main:openai-user:ann" in keys
    assert "agent:main:main" not in keys, "a user cannot spell another session's key"


async def test_a_session_can_be_named(gateway: Gateway, agent: Scripted) -> None:
    answer = await chat(gateway, headers={"x-openclaw-session-key": "agent:main:work"})
    assert answer.status == 200
    assert agent.turns[0].request.session_key == "agent:main:work"
    for reserved in ("subagent:x", "agent:main:cron:x", "acp:1"):
        refused = await chat(gateway, headers={"x-openclaw-session-key": reserved})
        assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")
    assert (
        await chat(gateway, headers={"x-openclaw-session-key": "agent:second:x"}, model="openclaw/main")
    ).status == 400


async def test_another_agent(gateway: Gateway) -> None:
    assert (await chat(gateway, model="openclaw/second")).json["choices"][0]["message"]["content"] == "world"
    answer = await chat(gateway, headers={"x-openclaw-agent-id": "second"})
    assert answer.json["choices"][0]["message"]["content"] == "world"
    unknown = await chat(gateway, model="openclaw/third")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b'{"model": "gpt-x"}', b'{"model": "openclaw", "messages": []}'])
async def test_a_request_that_cannot_be_served(gateway: Gateway, given: bytes) -> None:
    answer = await ask(gateway, "POST", CHAT, given, **AUTH, **({} if given else {"Content-Length": "0"}))
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


async def test_what_is_not_done_is_told_and_never_left_out_in_silence(gateway: Gateway, agent: Scripted) -> None:
    """OpenAI's shape of an error, before anything runs; and what was taken without effect is in a header."""
    for streamed in (False, True):
        refused = await chat(gateway, n=3, stream=streamed)
        error = refused.json["error"]
        assert refused.status == 400
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "n", "unsupported_value")
        assert "one answer" in error["message"]
        assert agent.turns == []
        answer = await chat(gateway, top_k=40, reasoning_effort="low", stream=streamed)
        assert (answer.status, answer.headers["x-openclaw-ignored"]) == (200, "reasoning_effort, top_k")
        agent.turns.clear()
    assert "x-openclaw-ignored" not in (await chat(gateway, temperature=1)).headers


async def test_v27_each_user_has_a_session_of_their_own(gateway: Gateway, agent: Scripted) -> None:
    for user in ("ann", "bob", "ann", "agent:main:main", "../ann"):
        assert (await chat(gateway, user=user)).status == 200
    keys = [turn.request.session_key for turn in agent.turns]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 4
    assert all(key.startswith("agent:main:openai-user:") and key.count(":") == 3 for key in keys)
    assert [len(turn.history) for turn in agent.turns] == [0, 0, 2, 0, 0]


# --- admission


async def test_v41_the_scopes_are_those_of_the_methods_they_stand_for(gateway: Gateway, agent: Scripted) -> None:
    reader = await key_of(gateway, "operator.read")
    assert (await ask(gateway, "GET", MODELS, **reader)).status == 200
    refused = await chat(gateway, headers=reader)
    assert (refused.status, refused.json["error"]["type"]) == (403, "forbidden")
    assert agent.turns == []
    nothing = await key_of(gateway, "operator.pairing")
    assert (await ask(gateway, "GET", MODELS, **nothing)).status == 403
    assert (await ask(gateway, "GET", f"{MODELS}/openclaw", **nothing)).status == 403
    writer = await key_of(gateway, "operator.write")
    assert (await chat(gateway, headers=writer)).status == 200
    with_model = await chat(gateway, headers={**writer, "x-openclaw-model": "a/b"})
    assert (with_model.status, "operator.admin" in with_model.json["error"]["message"]) == (403, True)
    assert (await chat(gateway, headers={"x-openclaw-model": "a/b"})).status == 200
    assert agent.turns[-1].request.model == "a/b"


async def test_v41_every_completions_route_has_a_twin_with_a_scope(gateway: Gateway) -> None:
    http = gateway._http
    found = [route for path, route in (*http.routes.items(), *http.prefixes.items()) if path.startswith("/v1")]
    assert len(found) == 3
    for route in found:
        assert route.needs_admission
        assert route.twin is not None
        assert gateway.rpc.get(route.twin) is not None


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
async def test_v42_nobody_is_let_in_without_a_credential(
    gateway: Gateway, headers: dict[str, Any], agent: Scripted
) -> None:
    for method, path, data in (("GET", MODELS, b""), ("POST", CHAT, body())):
        answer = await ask(gateway, method, path, data, **{"Content-Type": "application/json", **headers})
        assert answer.status == 401
    assert agent.turns == []


async def test_v47_the_body_is_read_after_admission_and_bounded(gateway: Gateway) -> None:
    refused = [{"Authorization": "Bearer wrong"}, await key_of(gateway, "operator.read")]
    for headers, status in zip(refused, (401, 403), strict=True):
        async with dial(gateway) as client:
            await client.send("POST", CHAT, Content_Length="100", Content_Type="application/json", **headers)
            with trio.fail_after(5):
                assert (await client.answer()).status == status, "not a byte of the body was sent"
    async with dial(gateway) as client:
        await client.send("POST", CHAT, Content_Length=str(routes.MAX_BODY + 1), **AUTH)
        assert (await client.answer()).status == 413


# --- clients that leave, agents that fail


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_takes_its_run_with_it(gateway: Gateway, agent: Scripted, streamed: bool) -> None:
    agent.go = trio.Event()
    async with dial(gateway) as client:
        await client.send("POST", CHAT, body(stream=streamed), **AUTH)
        await agent.spoke.wait()
    with trio.fail_after(10):
        await agent.cancelled.wait()
    agent.go = None
    assert (await chat(gateway)).status == 200
    assert gateway.messaging.sessions.all() == []
    assert gateway.messaging.runs.active() == []


async def test_auth5_a_key_that_is_revoked_ends_its_stream(gateway: Gateway, agent: Scripted) -> None:
    agent.go = trio.Event()
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.admin"]) as peer:
        key = (await peer.request("tokens.create", {"name": "test", "scopes": ["operator.write"]}))["key"]
        async with dial(gateway) as client:
            await client.send("POST", CHAT, body(stream=True), **{**AUTH, "Authorization": f"Bearer {key}"})
            await client.answer(head_only=True)
            await agent.spoke.wait()
            await peer.request("tokens.revoke", {"name": "test"})
            agent.go.set()
            text = client.data
            with trio.fail_after(5):
                while b"\r\n0\r\n\r\n" not in text:
                    text += bytes(await client.stream.receive_some(65_536))
        assert b"credential ended" in text
        assert b"Hello world" not in text
        assert b"[DONE]" not in text


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (AgentFailed("slow down", "rate_limit", True, 3_000), 429, "rate_limit_error"),
        (AgentFailed("too long", "context_length"), 400, "server_error"),
        (AgentFailed("no", "refusal"), 400, "server_error"),
        (AgentFailed("late", "timeout"), 504, "server_error"),
        (AgentFailed("broken"), 502, "server_error"),
    ],
)
async def test_an_agent_that_fails(
    gateway: Gateway, agent: Scripted, failure: AgentFailed, status: int, kind: str
) -> None:
    agent.failure = failure
    answer = await chat(gateway)
    assert (answer.status, answer.json["error"]["type"]) == (status, kind)
    assert answer.json["error"]["message"] == failure.message
    assert answer.headers.get("retry-after") == ("3" if failure.after_ms else None)
    events = await collect(gateway)
    assert events[-2]["error"]["message"] == failure.message
    assert events[-1] == "[DONE]"


async def test_an_aborted_run_is_told(gateway: Gateway, agent: Scripted) -> None:
    agent.go = trio.Event()
    answers: list[Answer] = []

    async def run() -> None:
        answers.append(await chat(gateway, user="ann"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await agent.spoke.wait()
        gateway.messaging.runs.abort_nowait("agent:main:openai-user:ann")
    assert (answers[0].status, answers[0].json["error"]["type"]) == (409, "aborted")


async def test_sessions_that_a_dead_process_left_are_removed(gateway: Gateway) -> None:
    sessions = gateway.messaging.sessions
    for key in ("agent:main:openai:chatcmpl-old", "agent:main:openai-user:ann"):
        await sessions.reset(key, agent_id="main")
    await chat(gateway)
    assert [session.key for session in sessions.all()] == ["agent:main:openai-user:ann"]


async def test_a_long_silence_is_filled(gateway: Gateway, agent: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PING_SECONDS", 0.01)
    agent.go = trio.Event()
    async with dial(gateway) as client:
        await client.send("POST", CHAT, body(stream=True), **AUTH)
        await client.answer(head_only=True)
        text = client.data
        with trio.fail_after(5):
            while b": still here\n\n" not in text:
                text += bytes(await client.stream.receive_some(65_536))
        agent.go.set()


async def test_v46_an_answer_that_streams_is_not_pushed_out_by_sockets_of_its_address(
    gateway: Gateway, agent: Scripted
) -> None:
    """A socket that has authenticated is no stranger as long as its request lasts, and is one again afterwards."""
    agent.go = trio.Event()
    strangers = gateway._core.registry.strangers
    strangers.per_address = 4
    async with dial(gateway) as client:
        await client.send("POST", CHAT, body(stream=True), **AUTH)
        await client.answer(head_only=True)
        await agent.spoke.wait()
        assert len(strangers) == 0
        async with AsyncExitStack() as flood:
            for _ in range(8):
                other = await flood.enter_async_context(dial(gateway))
                await other.send("GET", "/health")
                await other.answer()
            assert len(strangers) == 4
            agent.go.set()
            text = client.data
            with trio.fail_after(5):
                while not text.endswith(b"0\r\n\r\n"):
                    text += bytes(await client.stream.receive_some(65_536))
        client.data = b""
        assert (await client.ask("GET", "/health")).status == 200
        assert len(strangers) == 1
    assert gateway._server._under_way.count == 0


async def test_cap_admitted_requests_under_way(
    gateway: Gateway, agent: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(underway, "MAX_UNDER_WAY", 1)
    agent.go = trio.Event()
    async with dial(gateway) as client:
        await client.send("POST", CHAT, body(stream=True), **AUTH)
        await agent.spoke.wait()
        refused = await chat(gateway)
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        agent.go.set()
    agent.go = None
    with trio.fail_after(5):
        while gateway._server._under_way.count:
            await trio.lowlevel.checkpoint()
    assert (await chat(gateway)).status == 200
