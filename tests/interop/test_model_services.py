"""Our model services against servers that others wrote, and a client that others wrote against our /v1."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import attrs
import openai
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import (
    AgentDefaults,
    AgentEntry,
    AgentsConfig,
    AuthConfig,
    ChatCompletionsConfig,
    EndpointsConfig,
    HttpSurfaceConfig,
    ModelChoice,
    ModelEntry,
    ModelsConfig,
    ProviderConfig,
)
from openclaw_gateway.testing import connect_peer, open_memory_gateway

from .aimock import Aimock, serve_aimock
from .processes import Official

TOKEN = "token-of-the-tests-of-model-services-0123456789"
KEY = "sk-test-0123456789abcdef"
ROOT = Path(__file__).parents[2]
USAGE = {"input_tokens": 5, "output_tokens": 9, "prompt_tokens": 5, "completion_tokens": 9}
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "hello"}, "response": {"content": "Hello there, how are you today?", "usage": USAGE}},
    {"match": {"userMessage": "think"}, "response": {"content": "42", "reasoning": "let me see"}},
    {"match": {"userMessage": "go on"}, "response": {"content": "and so on", "finishReason": "length"}},
    {
        "match": {"userMessage": "limit"},
        "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 77},
    },
    {"match": {"userMessage": "busy"}, "response": {"error": {"message": "busy"}, "status": 503}},
    {
        "match": {"userMessage": "cut"},
        "response": {"content": "a long answer that breaks off"},
        "truncateAfterChunks": 4,
        "latency": 50,
    },
]


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory, official: Official) -> Iterator[Aimock]:
    folder = os.environ.get("OPENCLAW_TEST_EMULATORS")
    if not folder:
        argv = [str(ROOT / "scripts" / "emulators")]
        installed = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            pytest.skip(f"the emulators are not installed: {installed.stderr[-500:]}")  # a failure on CI
        folder = installed.stdout.strip()
    with serve_aimock(official.node, Path(folder), tmp_path_factory.mktemp("aimock"), FIXTURES) as server:
        yield server


def config(aimock: Aimock, model: str, *fallbacks: str) -> GatewayConfig:
    models = (ModelEntry(id="m", input=("text", "image"), reasoning=True),)

    def provider(api: Any, path: str) -> ProviderConfig:
        return ProviderConfig(api=api, base_url=aimock.url + path, api_key=KEY, models=models)

    providers = {
        "anthropic": provider("anthropic-messages", ""),
        "openai": provider("openai-completions", "/v1"),
        "google": provider("google-generative-ai", "/v1beta"),
    }
    return GatewayConfig(
        auth=AuthConfig(token=TOKEN),
        agents=AgentsConfig(defaults=AgentDefaults(model=ModelChoice(primary=model, fallbacks=fallbacks))),
        models=ModelsConfig(providers=providers),
    )


async def say(gateway: Gateway, text: str, **more: Any) -> dict[str, Any]:
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.read", "operator.write"]) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": text, **more})
        while True:
            payload: dict[str, Any] = await peer.expect_event("chat")
            if payload["state"] != "delta":
                return payload


@pytest.mark.parametrize("provider", ["anthropic", "openai", "google"])
async def test_s012_the_three_services_answer(aimock: Aimock, provider: str) -> None:
    before = len(aimock.journal())
    async with open_memory_gateway(config(aimock, f"{provider}/m")) as gateway:
        picture = {"mimeType": "image/png", "content": "aGk=", "fileName": "a.png"}
        final = await say(gateway, "hello", attachments=[picture])
        assert final["message"]["content"][0]["text"] == "Hello there, how are you today?"
        assert (final["message"]["model"], final["usage"]["input"], final["usage"]["output"]) == (f"{provider}/m", 5, 9)
        assert (await say(gateway, "think"))["message"]["content"][0]["text"] == "42"
        assert (await say(gateway, "go on"))["stopReason"] == "length"
        cut = await say(gateway, "cut")
        assert (cut["state"], cut["errorDetail"]["reason"]) == ("error", "cut_off")
        assert cut["message"]["content"][0]["text"].startswith("a long ")
        limited = await say(gateway, "limit")
        assert (limited["state"], limited["errorKind"], limited["errorDetail"]["provider"]) == (
            "error",
            "rate_limit",
            provider,
        )
    paths = {entry["path"].partition("?")[0] for entry in aimock.journal()[before:]}
    wanted = {
        "anthropic": "/v1/messages",
        "openai": "/v1/chat/completions",
        "google": "/v1beta/models/m:streamGenerateContent",
    }
    assert paths == {wanted[provider]}


async def test_s012_failover_from_one_maker_to_another(aimock: Aimock) -> None:
    async with open_memory_gateway(config(aimock, "nowhere/m", "anthropic/m")) as gateway:
        final = await say(gateway, "hello")
        assert final["message"]["model"] == "anthropic/m"


# --- the official client of OpenAI against us


@pytest.fixture
async def served(aimock: Aimock) -> AsyncIterator[Gateway]:
    on = HttpSurfaceConfig(endpoints=EndpointsConfig(chat_completions=ChatCompletionsConfig(enabled=True)))
    agents = attrs.evolve(
        config(aimock, "openai/m").agents, list=(AgentEntry(id="main"), AgentEntry(id="echo", kind="echo"))
    )
    given = attrs.evolve(config(aimock, "openai/m"), http=on, port=0, agents=agents)
    async with open_gateway(given, env={}) as gateway:
        yield gateway


def client_of(gateway: Gateway, key: str = TOKEN) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key, max_retries=0, timeout=20)


async def test_s013_the_openai_client_chats(served: Gateway) -> None:
    def chat() -> None:
        with client_of(served) as client:
            models = [model.id for model in client.models.list()]
            assert models == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/echo"]
            done = client.chat.completions.create(
                model="openclaw/default",
                messages=[{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}],
                temperature=0.2,
            )
            assert done.choices[0].message.content == "Hello there, how are you today?"
            assert done.choices[0].finish_reason == "stop"
            assert done.usage is not None
            assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (5, 9)

    await trio.to_thread.run_sync(chat)


async def test_s013_the_openai_client_streams(served: Gateway) -> None:
    def chat() -> None:
        with client_of(served) as client:
            for model, text, answer in (
                ("openclaw/main", "hello", "Hello there, how are you today?"),
                ("openclaw/echo", "one two three", "one two three"),
            ):
                with client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": text}],
                    stream=True,
                    stream_options={"include_usage": True},
                ) as stream:
                    chunks = list(stream)
                said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
                assert said == answer
                assert chunks[-1].usage is not None
                assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"

    await trio.to_thread.run_sync(chat)


async def test_s013_the_openai_client_understands_our_refusals(served: Gateway) -> None:
    def chat() -> None:
        with client_of(served, "wrong-key") as stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with client_of(served) as client:
            with pytest.raises(openai.BadRequestError, match="names an agent here"):
                client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])
            failing = client.chat.completions.create(
                model="openclaw", messages=[{"role": "user", "content": "cut"}], stream=True
            )
            with failing as stream, pytest.raises(openai.APIError, match="broke off"):
                list(stream)
            with pytest.raises(openai.RateLimitError, match="slow down"):
                client.chat.completions.create(model="openclaw", messages=[{"role": "user", "content": "limit"}])

    await trio.to_thread.run_sync(chat)
