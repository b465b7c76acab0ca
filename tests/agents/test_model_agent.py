"""A model service answers through a gateway: which model, what of the conversation, failures, aborts."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents.runstate import Ended
from openclaw_gateway.config.schema import (
    AgentDefaults,
    AgentEntry,
    AgentsConfig,
    AuthConfig,
    ModelChoice,
    ModelEntry,
    ModelsConfig,
    ProviderConfig,
)
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from tests.agents.test_subprocess_agent import alive, gone
from tests.models.scripted import ScriptedService, answer, open_service, sse

TOKEN = "token-of-the-tests-of-model-agents-0123456789"
KEY = "sk-secret-of-the-tests-0123456789"
ALL = ["operator.read", "operator.write", "operator.admin"]


def said(text: str, **usage: int) -> bytes:
    last: dict[str, Any] = {"choices": [], "usage": usage} if usage else {"choices": []}
    return sse({"choices": [{"delta": {"content": text}}]}, {"choices": [{"finish_reason": "stop"}]}, last, "[DONE]")


def config(service: ScriptedService, *, context_tokens: int = 100_000, second: str | None = None) -> GatewayConfig:
    models = (ModelEntry(id="m", input=("text", "image")), ModelEntry(id="other"))
    providers = {"one": ProviderConfig(base_url=service.url, api_key=KEY, models=models)}
    if second is not None:
        providers["two"] = ProviderConfig(base_url=second)
    choice = ModelChoice(primary="one/m", fallbacks=("two/m",) if second else ())
    agents = AgentsConfig(
        defaults=AgentDefaults(model=choice, context_tokens=context_tokens),
        list=(AgentEntry(id="main", system_prompt="be kind"),),
    )
    return GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents, models=ModelsConfig(providers=providers))


@asynccontextmanager
async def talking(config: GatewayConfig) -> AsyncIterator[tuple[Gateway, Any]]:
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        yield gateway, peer


async def end(peer: Any) -> dict[str, Any]:
    while True:
        payload: dict[str, Any] = await peer.expect_event("chat")
        if payload["state"] != "delta":
            return payload


async def test_s012_a_question_goes_out_with_what_was_said_before_and_its_answer_is_kept() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 2}
    async with open_service(said("hello", **usage), said("again")) as service, talking(config(service)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        final = await end(peer)
        assert final["state"] == "final"
        assert (final["message"]["model"], final["usage"]["totalTokens"]) == ("one/m", 13)
        picture = {"mimeType": "image/png", "content": "aGk=", "fileName": "a.png"}
        await peer.request("chat.send", {"sessionKey": "main", "message": "and?", "attachments": [picture]})
        await end(peer)
        assert [one["role"] for one in service.asked[1].body["messages"]] == ["system", "user", "assistant", "user"]
        assert service.asked[1].body["messages"][0]["content"] == "be kind"
        assert service.asked[1].body["messages"][3]["content"][1]["type"] == "image_url"
        described = await peer.request("sessions.describe", {"key": "main"})
        assert KEY not in str(described)


async def test_v56_a_service_gets_its_own_key_and_nothing_of_the_gateways() -> None:
    async with open_service(said("hello")) as service, talking(config(service)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        await end(peer)
        [asked] = service.asked
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert TOKEN not in f"{asked.headers} {asked.body} {asked.path}"
        known = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
        assert asked.headers.keys() == known | {"authorization"}


async def test_s028_the_context_is_trimmed_to_the_configured_tokens() -> None:
    async with (
        open_service(*[said("y" * 2_000) for _ in range(6)]) as service,
        talking(config(service, context_tokens=1_500)) as (_, peer),
    ):
        for number in range(6):
            await peer.request("chat.send", {"sessionKey": "main", "message": f"{number}" + "x" * 800})
            await end(peer)
        sizes = [len(asked.body["messages"]) for asked in service.asked]
        assert sizes == [2, 4, 4, 4, 4, 4]
        assert service.asked[-1].body["messages"][-1]["content"].startswith("5")


async def test_a_conversation_that_proves_too_long_is_asked_once_more_with_half_of_it() -> None:
    too_long = answer(400, b'{"error": {"code": "context_length_exceeded", "message": "x"}}')
    async with open_service(said("a" * 4_000), too_long, said("fine"), too_long, too_long) as service:
        async with talking(config(service, context_tokens=2_500)) as (_, peer):
            for expected in ("final", "final", "error"):
                await peer.request("chat.send", {"sessionKey": "main", "message": "q" * 2_000})
                final = await end(peer)
                assert final["state"] == expected
        counts = [len(asked.body["messages"]) for asked in service.asked]
        assert counts[1] > counts[2]
        assert final["errorKind"] == "context_length"


async def test_s012_a_session_and_a_run_choose_their_model_and_it_is_asked_alone() -> None:
    async with (
        open_service(said("a"), answer(401)) as service,
        open_service() as second,
        talking(config(service, second=second.url)) as (_, peer),
    ):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        await end(peer)
        await peer.request("sessions.patch", {"key": "main", "model": "one/other"})
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        final = await end(peer)
        assert service.asked[1].body["model"] == "other"
        assert (final["state"], final["errorDetail"]["reason"]) == ("error", "auth")
        assert second.asked == []


async def test_s012_failover_between_services_and_no_secret_in_what_clients_hear() -> None:
    async with (
        open_service(answer(401, KEY.encode())) as service,
        open_service(said("from two")) as second,
        talking(config(service, second=second.url)) as (_, peer),
    ):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        final = await end(peer)
        assert (final["state"], final["message"]["model"]) == ("final", "two/m")
        listed = await peer.request("models.list", {})
        models = {f"{one['provider']}/{one['id']}": one for one in listed["models"]}
        assert models["one/m"]["unavailableReason"] == "auth-failed"
        assert models["two/m"]["available"] is True
        assert KEY not in str(final) + str(listed)


async def test_s012_thinking_is_shown_and_not_kept() -> None:
    thought = sse(
        {"choices": [{"delta": {"reasoning_content": "let me see"}}]},
        {"choices": [{"delta": {"content": "42"}, "finish_reason": "stop"}]},
        "[DONE]",
    )
    async with open_service(thought) as service, talking(config(service)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        while True:
            payload = await peer.expect_event("agent")
            if payload["stream"] == "thinking":
                break
        assert payload["data"]["text"] == "let me see"
        assert (await end(peer))["message"]["content"][0]["text"] == "42"


async def test_abort_ends_the_request_to_the_service_at_once() -> None:
    async def slow(stream: trio.SocketStream) -> None:
        await stream.send_all(sse({"choices": [{"delta": {"content": "so far"}}]}, whole=False))
        await stream.receive_some(1)

    async with open_service(slow) as service, talking(config(service)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r1"})
        await peer.expect_event("chat")
        with trio.fail_after(10):
            await peer.request("chat.abort", {"sessionKey": "main", "runId": "r1"})
            await service.gone.wait()
        final = await end(peer)
        assert (final["state"], final["message"]["content"][0]["text"]) == ("aborted", "so far")


async def test_without_a_model_a_person_is_told_what_to_do() -> None:
    agents = AgentsConfig(list=(AgentEntry(id="main"),))
    async with talking(GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        final = await end(peer)
        assert "openclaw config set agents.defaults.model.primary" in final["errorMessage"]


async def test_v51_models_and_their_keys() -> None:
    async with open_service() as service, talking(config(service)) as (gateway, peer):
        status = await peer.request("models.authStatus", {"agentId": "main"})
        assert {"ts", "providers", "providerCapabilities"} <= status.keys()
        [one] = status["providers"]
        assert (one["provider"], one["status"], one["profiles"][0]["profileId"]) == ("one", "static", "one:config")
        metadata = await peer.request("chat.metadata", {})
        assert [model["id"] for model in metadata["models"]] == ["m", "other"]
        assert metadata["models"][0]["input"] == ["text", "image"]
        async with connect_peer(gateway, token=TOKEN, scopes=["operator.read"]) as reader:
            for method in ("models.list", "models.authStatus", "chat.metadata"):
                assert KEY not in str(await reader.request(method, {}))


async def test_models_without_a_key_say_so() -> None:
    agents = AgentsConfig(defaults=AgentDefaults(model=ModelChoice(primary="anthropic/claude-x")))
    async with talking(GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents)) as (_, peer):
        [model] = (await peer.request("models.list", {"view": "all", "sessionKey": "main"}))["models"]
        assert (model["available"], model["unavailableReason"]) == (False, "missing-auth")
        [one] = (await peer.request("models.authStatus", {}))["providers"]
        assert (one["provider"], one["displayName"], one["status"]) == ("anthropic", "Anthropic", "missing")


async def test_cfg3_another_key_is_used_from_the_next_question_on() -> None:
    async with open_service(said("a"), said("b")) as service, talking(config(service)) as (gateway, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        await end(peer)
        changed = {"one": ProviderConfig(base_url=service.url, api_key="another-key-123456")}
        gateway.messaging.configure(
            GatewayConfig(agents=config(service).agents, models=ModelsConfig(providers=changed))
        )
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        await end(peer)
        assert service.asked[1].headers["authorization"] == "Bearer another-key-123456"


async def test_life4_a_gateway_that_stops_lets_go_of_the_service_and_asks_again_after_the_start(tmp_path: Path) -> None:
    async def slow(stream: trio.SocketStream) -> None:
        await stream.send_all(sse({"choices": [{"delta": {"content": "so far"}}]}, whole=False))
        await stream.receive_some(1)

    async with open_service(slow, said("whole")) as service:
        kept = attrs.evolve(config(service), state_dir=tmp_path)
        async with talking(kept) as (_, peer):
            await peer.request("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r1"})
            await peer.expect_event("chat")
        with trio.fail_after(10):
            await service.gone.wait()
        async with talking(kept) as (gateway, peer):
            with trio.fail_after(10):
                while not isinstance(run := gateway.messaging.runs.get("r1"), Ended) or run.state != "ok":
                    await trio.lowlevel.checkpoint()
            history = await peer.request("chat.history", {"sessionKey": "main"})
            assert [one["content"][0]["text"] for one in history["messages"]] == ["hi", "whole"]


async def test_life4_a_gateway_that_stops_takes_programs_with_it() -> None:
    script = "import sys, os, time, json; print(json.dumps({'type': 'text', 'text': str(os.getpid())}), flush=True)\n"
    entry = AgentEntry(id="main", kind="subprocess", command=(sys.executable, "-c", script + "time.sleep(100)"))
    stopping = GatewayConfig(auth=AuthConfig(token=TOKEN), agents=AgentsConfig(list=(entry,)))
    async with talking(stopping) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi"})
        pid = int((await peer.expect_event("chat"))["deltaText"])
        assert alive(pid)
    assert await gone(pid)
