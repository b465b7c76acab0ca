"""A model service over real sockets: faults, limits, credentials, cancellation, failover."""

from __future__ import annotations

import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.records import AgentFailed, Delta
from openclaw_gateway.config.schema import GatewayConfig, ModelEntry, ModelsConfig, ProviderConfig
from openclaw_gateway.models import service as service_module
from openclaw_gateway.models.catalog import Model, parse_ref
from openclaw_gateway.models.provider import Finish, ModelFailed, ModelRequest, Reason, Spoken
from openclaw_gateway.models.service import retry_after_ms
from openclaw_gateway.models.services import ModelServices
from openclaw_gateway.models.sse import SseParser

from .scripted import answer, open_service, sse

KEY = "sk-secret-of-the-tests-0123456789"
TENANT = "tenant-secret-7788"
OTHERS = "hf_a-key-of-somebody-else-0123"
FINE = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
HELLO = sse({"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}, "[DONE]")
HALF = sse({"choices": [{"delta": {"content": "hel"}}]}, whole=False)


class Clock:
    now = 1_000

    def __call__(self) -> int:
        return self.now


class Talk:
    """Model services with what a test needs to ask them."""

    def __init__(self, services: ModelServices, clock: Clock, pauses: list[float]) -> None:
        self.services, self.clock, self.pauses = services, clock, pauses
        self.said: list[Delta] = []

    async def ask(self, *models: str) -> tuple[str, Finish]:
        self.said.clear()

        def prepare(model: Model) -> ModelRequest:
            return ModelRequest(model.ref.model, (Spoken("user", "hi"),))

        ref, finish = await self.services.ask([parse_ref(one) for one in models], prepare, self.said.append)
        return str(ref), finish

    async def fail(self, *models: str) -> ModelFailed:
        with pytest.raises(ModelFailed) as found:
            await self.ask(*models)
        told = f"{found.value!r} {found.value} {found.value.detail}"
        assert KEY[:6] not in told
        assert TENANT not in told
        assert OTHERS not in told
        return found.value

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.said if one.kind == "text")


def config(patience: int = 20, **urls: str) -> GatewayConfig:
    providers = {
        name: ProviderConfig(base_url=url, api_key=KEY, headers={"X-Tenant": TENANT}, timeout_seconds=patience)
        for name, url in urls.items()
    }
    return GatewayConfig(models=ModelsConfig(providers=providers))


@asynccontextmanager
async def talking(patience: int = 20, **urls: str) -> AsyncIterator[Talk]:
    clock, pauses = Clock(), []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    services = ModelServices(config(patience, **urls), {}, clock=clock, pause=pause)
    try:
        yield Talk(services, clock, pauses)
    finally:
        await services.aclose()


async def test_s012_an_answer_and_the_connection_is_used_again() -> None:
    async with open_service(HELLO, HELLO) as service, talking(a=service.url) as talk:
        assert (await talk.ask("a/m"))[1].stop == "stop"
        assert not service.gone.is_set()
        await talk.ask("a/m")
        assert talk.text == "hello"
        assert not service.gone.is_set(), "the second question came on the first one's connection"
        sent = service.asked[1].headers
        assert (sent["authorization"], sent["x-tenant"]) == (f"Bearer {KEY}", TENANT)
        assert service.asked[0].path == "/chat/completions"


@pytest.mark.parametrize(
    ("reply", "reason", "kind"),
    [
        (answer(401, b'{"error": {"message": "Incorrect API key provided: sk-sec*****789"}}'), "auth", "unknown"),
        (answer(402), "billing", "unknown"),
        (answer(500, b"<html>" + KEY.encode()), "server", "unknown"),
        (answer(503), "overloaded", "rate_limit"),
        (answer(400, f'{{"error": {{"message": "bad {KEY} {TENANT}"}}}}'.encode()), "bad_request", "unknown"),
        (answer(400, f'{{"error": {{"message": "not for {TENANT}"}}}}'.encode()), "bad_request", "unknown"),
        (answer(404, b'{"error": {"message": "no such model"}}'), "not_found", "unknown"),
        (answer(400, b'{"error": {"code": "context_length_exceeded"}}'), "context_length", "context_length"),
        (answer(200, b'{"choices": []}'), "malformed", "unknown"),
        (answer(200, FINE, "text/event-stream", content_encoding="gzip"), "malformed", "unknown"),
        (answer(400, f'{{"error": {{"message": "{OTHERS} is bad"}}}}'.encode()), "bad_request", "unknown"),
        (sse("{not json"), "malformed", "unknown"),
        (sse("[1, 2"), "malformed", "unknown"),
        (b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", "unreachable", "unknown"),
        (b"\x00\xff not http at all\r\n\r\n", "unreachable", "unknown"),
        (b"", "unreachable", "unknown"),
        (sse({"choices": [{"finish_reason": "content_filter"}]}), "refusal", "refusal"),
        (sse({"error": {"message": "boom", "code": "server_error"}}), "server", "unknown"),
        (sse(whole=False), "cut_off", "unknown"),
    ],
)
async def test_s012_every_fault_has_a_reason_and_no_secret(reply: bytes, reason: Reason, kind: str) -> None:
    async def say(stream: trio.SocketStream) -> None:
        await stream.send_all(reply or b"\r\n")

    async with open_service(*[say] * 3) as service, talking(a=service.url) as talk:
        failed = await talk.fail("a/m")
        assert (failed.reason, failed.kind) == (reason, kind)
        assert failed.detail is not None
        assert failed.detail["provider"] == "a"


async def test_s012_transient_faults_are_tried_again_with_growing_waits() -> None:
    async with open_service(answer(500), sse(whole=False), HELLO) as service, talking(a=service.url) as talk:
        await talk.ask("a/m")
        assert talk.text == "hello"
        assert len(service.asked) == 3
        assert 0.4 <= talk.pauses[0] <= 0.5 < 0.8 <= talk.pauses[1] <= 1.0


async def test_s012_429_with_retry_after_is_kept() -> None:
    async with open_service(answer(429, retry_after="2"), HELLO) as service, talking(a=service.url) as talk:
        await talk.ask("a/m")
        assert 2.0 <= talk.pauses[0] <= 2.5
    async with open_service(answer(429, retry_after="60"), HELLO) as service, talking(a=service.url) as talk:
        failed = await talk.fail("a/m")
        assert (failed.reason, failed.after_ms, failed.retryable) == ("rate_limit", 60_000, True)
        again = await talk.fail("a/m")
        assert len(service.asked) == 1, "asked to be left alone, it is not asked"
        assert again.after_ms == 60_000
        talk.clock.now += 60_000
        await talk.ask("a/m")


async def test_s012_another_service_answers_where_the_first_cannot() -> None:
    async with (
        open_service(answer(401)) as first,
        open_service(HELLO, HELLO) as second,
        talking(a=first.url, b=second.url) as talk,
    ):
        assert (await talk.ask("a/m", "b/m"))[0] == "b/m"
        assert talk.text == "hello"
        assert (await talk.ask("a/m", "b/m"))[0] == "b/m"
        assert len(first.asked) == 1, "it rests"
        talk.services.configure(config(a=first.url + "/new", b=second.url))
        first.answers.append(HELLO)
        assert (await talk.ask("a/m", "b/m"))[0] == "a/m", "other settings, another service"


async def test_s012_nothing_is_said_twice_when_a_service_breaks_off() -> None:
    async with open_service(HALF) as first, open_service(HELLO) as second, talking(a=first.url, b=second.url) as talk:
        failed = await talk.fail("a/m", "b/m")
        assert (failed.reason, failed.shown) == ("cut_off", True)
        assert talk.text == "hel"
        assert second.asked == []


async def test_the_first_failure_is_the_one_that_is_told() -> None:
    async with (
        open_service(answer(401)) as first,
        open_service(answer(404)) as second,
        talking(a=first.url, b=second.url) as talk,
    ):
        failed = await talk.fail("a/m", "b/m", "nowhere/m")
        assert failed.reason == "auth"
        assert "models.providers.a.apiKey" in failed.message


async def test_v56_a_redirect_is_not_followed() -> None:
    async with open_service(HELLO) as thief:
        reply = answer(307, location=f"{thief.url}/chat/completions")
        async with open_service(reply, reply, reply) as service, talking(a=service.url) as talk:
            failed = await talk.fail("a/m")
            assert "redirect" in failed.message
            assert thief.asked == []


async def test_v56_no_cookie_of_a_service_comes_back() -> None:
    head, _, body = HELLO.partition(b"\r\n\r\n")
    reply = head + b"\r\nset-cookie: who=one; Path=/\r\n\r\n" + body
    async with open_service(reply, HELLO) as service, talking(a=service.url) as talk:
        await talk.ask("a/m")
        await talk.ask("a/m")
        assert "cookie" not in service.asked[1].headers


async def test_a_silent_service_is_given_up() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await stream.send_all(HALF)
        await stream.receive_some(1)

    async with open_service(silent) as service, talking(1, a=service.url) as talk:
        failed = await talk.fail("a/m")
        assert (failed.reason, failed.kind) == ("timeout", "timeout")
        with trio.fail_after(10):
            await service.gone.wait()


async def test_nobody_there() -> None:
    async with open_service() as service:
        url = service.url
    async with talking(a=url) as talk:
        failed = await talk.fail("a/m")
        assert failed.reason == "unreachable"
        assert len(talk.pauses) == 2


@pytest.mark.parametrize("line", [b"data: " + b"x" * 70_000, b"x" * 70_000])
async def test_cap_a_huge_line(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(SseParser):
        def __init__(self) -> None:
            super().__init__(max_event=65_536)

    monkeypatch.setattr(service_module, "SseParser", Small)
    reply = answer(200, line, "text/event-stream")
    async with open_service(reply, reply, reply) as service, talking(a=service.url) as talk:
        assert (await talk.fail("a/m")).reason == "malformed"


async def test_cap_an_endless_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_ANSWER", 100_000)

    async def endless(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        while True:
            await stream.send_all(b": x\n\n" * 10_000)

    async with open_service(endless, endless, endless) as service, talking(a=service.url) as talk:
        assert (await talk.fail("a/m")).reason == "malformed"
        assert len(service.asked) == 3


async def test_cap_an_endless_error() -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 500 No\r\ncontent-type: application/json\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 10_000)

    async with open_service(endless, endless, endless) as service, talking(a=service.url) as talk:
        assert (await talk.fail("a/m")).reason == "server"


async def test_cancellation_closes_the_connection_at_once() -> None:
    spoke = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await stream.send_all(HALF)
        spoke.set()
        await stream.receive_some(1)

    async with open_service(slow) as service, talking(a=service.url) as talk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.ask, "a/m")
            await spoke.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            await service.gone.wait()


async def test_a_service_with_other_settings_ends_what_it_began() -> None:
    go = trio.Event()

    async def waits(stream: trio.SocketStream) -> None:
        await go.wait()
        await stream.send_all(HELLO)

    async with open_service(waits, HELLO) as service, talking(a=service.url) as talk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.ask, "a/m")
            while not service.asked:
                await trio.lowlevel.checkpoint()
            talk.services.configure(config(a=service.url, b=service.url))
            talk.services.configure(config(b=service.url))
            go.set()
        assert talk.text == "hello"
        with pytest.raises(AgentFailed, match=r"models\.providers\.a\.baseUrl"):
            await talk.ask("a/m")


async def test_a_key_that_no_header_can_carry() -> None:
    async with open_service() as service, talking() as talk:
        providers = {"a": ProviderConfig(base_url=service.url, api_key="schlüssel")}
        talk.services.configure(GatewayConfig(models=ModelsConfig(providers=providers)))
        failed = await talk.fail("a/m")
        assert failed.reason == "auth"
        assert "schl" not in failed.message
        assert service.asked == []


async def test_a_maker_is_not_asked_without_a_key() -> None:
    async with talking() as talk:
        failed = await talk.fail("anthropic/claude-x")
        assert failed.reason == "auth"
        assert "ANTHROPIC_API_KEY" in failed.message


async def test_the_key_can_go_as_a_bearer() -> None:
    reply = sse(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    async with open_service(reply) as service, talking() as talk:
        one = ProviderConfig(
            api="anthropic-messages",
            base_url=f"{service.url}/v1",
            api_key=KEY,
            auth_header=True,
            models=(ModelEntry(id="m", max_tokens=77),),
        )
        talk.services.configure(GatewayConfig(models=ModelsConfig(providers={"a": one})))
        await talk.ask("a/m")
        asked = service.asked[0]
        assert (asked.path, asked.headers["authorization"]) == ("/v1/messages", f"Bearer {KEY}")
        assert "x-api-key" not in asked.headers


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7_000),
        ({"retry-after-ms": "250", "retry-after": "7"}, 250),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 59_000),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_rfc9110_retry_after(headers: dict[str, str], wait: int | None) -> None:
    assert retry_after_ms(headers, 1_000) == wait


@given(st.text(max_size=40))
def test_law_retry_after_never_fails(text: str) -> None:
    found = retry_after_ms({"retry-after": text}, 1_000)
    assert found is None or found >= 0


async def test_a_service_that_resets_while_it_is_asked_leaves_nothing_to_the_garbage_collector() -> None:
    """Where a warning is an error, a body that was not sent to its end and not closed would be one."""

    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, reset, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with talking(a=url) as talk:
            for _ in range(20):
                assert (await talk.fail("a/m")).kind in {"unknown", "timeout"}
            gc.collect()
        nursery.cancel_scope.cancel()
