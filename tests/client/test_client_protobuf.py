"""The client in Protocol Buffers beside the client in JSON: the same gateway, the same methods, equal values (S017)."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, cast

import attrs
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from openclaw_gateway import CallContext, Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import (
    CallFailed,
    ClientEvent,
    ConnectFailed,
    Credentials,
    DeviceIdentity,
    GatewayClient,
    open_client,
)
from openclaw_gateway.client.speech import Form, preferred_form, speech_of
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.protocol import protobuf
from tests.protocol.test_protojson import canonical, values

TOKEN = "token-of-the-protobuf-tests-0123456789"
ADMIN = ("operator.admin",)


@attrs.frozen
class Anything:
    value: Any = None


@asynccontextmanager
async def opened() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"),))
    config = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN), agents=agents)
    async with open_gateway(config, env={}) as gateway:

        @gateway.rpc.method("test.inline", scope="operator.read", params=Anything)
        def inline(context: CallContext, params: Anything) -> Any:
            return params.value

        @gateway.rpc.method("test.async", scope="operator.read", params=Anything)
        async def later(context: CallContext, params: Anything) -> Any:
            return {"value": params.value, "more": params.value, "ts": params.value}

        @gateway.rpc.method("test.unencodable", scope="operator.read")
        def unencodable(context: CallContext, params: Any) -> Any:
            return {"value": object()}

        yield gateway


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with opened() as gateway:
        yield gateway


def connect(gateway: Gateway, protocol: Form, **who: Any) -> Any:
    url = f"ws://127.0.0.1:{gateway.port}"
    who = {"auth": Credentials(token=TOKEN), "scopes": ADMIN, **who}
    return open_client(url, protocol=protocol, **who)


@pytest.fixture
async def both(gateway: Gateway) -> AsyncIterator[tuple[GatewayClient, GatewayClient]]:
    async with connect(gateway, "json") as plain, connect(gateway, "proto") as proto:
        yield plain, proto


def steady(value: Any) -> Any:
    """Without what differs from call to call: times, durations, ids of connections and runs."""
    moving = {"ts", "durationMs", "uptimeMs", "connId", "eventLoop", "processMemory", "id", "timestamp", "runId"}
    moving |= {"startedAt", "endedAt", "lastUsedAtMs", "updatedAt", "stateVersion", "connections", "generatedAt"}
    if isinstance(value, dict):
        return {name: "moves" if name in moving else steady(item) for name, item in value.items()}
    if isinstance(value, list):
        return [steady(item) for item in value]
    return value


def kinds(value: Any) -> Any:
    return {name: type(item) for name, item in value.items()} if isinstance(value, dict) else type(value)


async def ask(client: GatewayClient, method: str, params: Any = None) -> Any:
    try:
        return await client.call(method, params)
    except CallFailed as error:
        return attrs.asdict(error)


async def test_s017_both_are_told_the_same_at_hello(both: tuple[GatewayClient, GatewayClient]) -> None:
    plain, proto = both
    assert plain.hello.methods == proto.hello.methods
    assert steady(plain.hello.raw) == steady(proto.hello.raw)
    assert (plain.hello.scopes, plain.hello.method) == (proto.hello.scopes, proto.hello.method)
    assert plain.hello.conn_id != proto.hello.conn_id


QUIET = {"diagnostics.stability", "audit.activity.list", "logs.tail"}  # they tell of the calls themselves


async def test_s017_every_method_answers_both_alike(
    gateway: Gateway, both: tuple[GatewayClient, GatewayClient]
) -> None:
    plain, proto = both
    answered = set()
    for method in sorted(gateway.rpc.view("operator", frozenset(ADMIN)).keys() - QUIET):
        if method.startswith("test.") or "restart" in method or "stop" in method:
            continue
        for params in (None, {}, {"surprise": None}):
            wanted, found = await ask(plain, method, params), await ask(proto, method, params)
            if steady(await ask(plain, method, params)) == steady(wanted):
                assert steady(found) == steady(wanted), (method, params)
            else:
                assert kinds(found) == kinds(wanted), (method, params)
        if isinstance(wanted, dict) and "code" not in wanted:
            answered.add(method)
    assert len(answered) > 10


# Hypothesis wants functions that return: each example is a gateway and two clients, and a list of values.
batches = st.lists(values, min_size=15, max_size=40)
few = settings(max_examples=8, deadline=None)


@few
@given(batch=batches)
def test_s017_any_value_goes_there_and_back_unchanged(batch: list[Any]) -> None:
    async def run() -> None:
        with trio.fail_after(30):
            async with opened() as gateway, connect(gateway, "json") as plain, connect(gateway, "proto") as proto:
                for value, method in itertools.product(batch, ("test.inline", "test.async")):
                    wanted = await ask(plain, method, {"value": value})
                    assert canonical(await ask(proto, method, {"value": value})) == canonical(wanted)

    trio.run(run)


@pytest.mark.expect_error_log("result cannot be encoded")
async def test_s017_what_a_handler_cannot_say_is_the_same_incident(both: tuple[GatewayClient, GatewayClient]) -> None:
    plain, proto = both
    wanted, found = await ask(plain, "test.unencodable"), await ask(proto, "test.unencodable")
    assert wanted["code"] == found["code"] == "UNAVAILABLE"
    assert wanted["message"].split(" ")[0] == found["message"].split(" ")[0]


async def next_event(client: GatewayClient, name: str) -> ClientEvent:
    async with aclosing(cast("AsyncGenerator[ClientEvent, None]", client.events())) as events:
        async for event in events:
            if event.name == name:
                return event
    raise AssertionError


@few
@given(batch=batches)
def test_s017_any_event_is_heard_alike(batch: list[Any]) -> None:
    async def run() -> None:
        with trio.fail_after(30):
            async with opened() as gateway, connect(gateway, "json") as plain, connect(gateway, "proto") as proto:
                for payload, name in itertools.product(batch, ("chat", "test.news")):
                    gateway.events.publish_nowait(name, payload)
                    wanted, found = await next_event(plain, name), await next_event(proto, name)
                    assert canonical(found.payload) == canonical(wanted.payload)
                    assert found.seq is not None
                    assert found.gap == 0

    trio.run(run)


async def chat(client: GatewayClient, params: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    ack = await client.call("chat.send", params)
    heard = []
    async with aclosing(cast("AsyncGenerator[ClientEvent, None]", client.events())) as events:
        async for event in events:
            if event.name in {"chat", "agent"} and event.payload["runId"] == ack["runId"]:
                heard.append((event.name, event.payload))
                if event.payload.get("state") == "final":
                    break
    history = await client.call("chat.history", {"sessionKey": params["sessionKey"]})
    return ack, heard, history


async def test_s050_a_chat_with_a_file_streams_alike(gateway: Gateway) -> None:
    content = base64.b64encode(bytes(range(256)) * 40).decode()
    seen = []
    for form in ("json", "proto"):
        async with connect(gateway, form, scopes=("operator.read", "operator.write")) as client:
            params = {
                "sessionKey": f"agent:main:{form}",
                "message": "hällo\x01 there",
                "idempotencyKey": f"run-{form}",
                "attachments": [{"type": "image", "mimeType": "image/png", "fileName": "a.png", "content": content}],
            }
            said = msgspec.json.encode(steady(await chat(client, params))).decode()
            seen.append(msgspec.json.decode(said.replace(form, "FORM")))
    assert seen[0][0]["status"] == "started"
    texts = [event["deltaText"] for name, event in seen[1][1] if name == "chat" and event["state"] == "delta"]
    assert "hällo" in "".join(texts)
    kinds = [(name, event.get("state") or event["stream"]) for name, event in seen[0][1]]
    assert kinds == [(name, event.get("state") or event["stream"]) for name, event in seen[1][1]]
    assert steady(seen[0][2]["messages"]) == steady(seen[1][2]["messages"])
    assert len(seen[1][2]["messages"]) == 2


async def test_s017_a_node_in_protocol_buffers_is_asked_and_answers(gateway: Gateway) -> None:
    async def serve(node: GatewayClient) -> None:
        asked = (await next_event(node, "node.invoke.request")).payload
        assert msgspec.json.decode(asked["paramsJSON"]) == {"bins": ["ls", None]}
        result = {"id": asked["id"], "nodeId": asked["nodeId"], "ok": True, "payloadJSON": '{"big":9007199254740993}'}
        assert await node.call("node.invoke.result", result) == {"ok": True}
        said = await node.call("node.event", {"event": "node.presence.alive", "payload": {"reason": "manual"}})
        assert said["ok"]

    device = DeviceIdentity.generate()
    node_side = {"role": "node", "scopes": (), "mode": "node", "client_id": "node-host", "commands": ("system.which",)}
    async with connect(gateway, "json") as operator, connect(gateway, "proto", identity=device, **node_side) as node:
        requested = await next_event(operator, "node.pair.requested")
        await operator.call("node.pair.approve", {"requestId": requested.payload["requestId"]})
        async with connect(gateway, "proto") as asker, trio.open_nursery() as nursery:
            nursery.start_soon(serve, node)
            params = {"nodeId": device.device_id, "command": "system.which", "params": {"bins": ["ls", None]}}
            answer = await asker.call("node.invoke", {**params, "idempotencyKey": "once"})
    assert answer["payload"] == {"big": 2**53 + 1}
    assert answer["payloadJSON"] == '{"big":9007199254740993}'


async def test_s018_a_wrong_token_is_refused_alike(gateway: Gateway) -> None:
    refused = []
    for form in ("json", "proto"):
        with pytest.raises(ConnectFailed) as caught:
            async with connect(gateway, form, auth=Credentials(token="wrong")):
                pass
        error = caught.value
        refused.append((error.stage, error.message, error.details, error.close_code, error.close_reason, error.fix))
    assert refused[0] == refused[1]
    assert refused[0][0] == "auth"


# --- the choice


async def test_c21_the_preferred_form_is_spoken_where_none_was_named(gateway: Gateway) -> None:
    url = f"ws://127.0.0.1:{gateway.port}"

    async def spoken(protocol: Form | None = None) -> str:
        async with open_client(url, auth=Credentials(token=TOKEN), protocol=protocol) as client:
            assert (await client.call("health"))["ok"]
            (session,) = gateway._core.registry.live
            return session.dialect

    assert await spoken() == "openclaw"
    before = preferred_form.set("proto")
    try:
        assert await spoken() == "protobuf"
        assert await spoken("json") == "openclaw"
    finally:
        preferred_form.reset(before)
    assert await spoken("proto") == "protobuf"


async def test_c21_another_form_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="json or proto, not 'xml'"):
        speech_of("xml")


@pytest.mark.parametrize("echoes", [True, False])
async def test_c21_a_gateway_that_does_not_agree_gets_no_secret(echoes: bool) -> None:
    """OpenClaw's own echoes any subprotocol and goes on in JSON; another may go on in what it did not agree to."""
    heard = []

    async def other(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=request.proposed_subprotocols[0] if echoes else None)
        said = {"nonce": "n", "ts": 1}
        plain = msgspec.json.encode({"type": "event", "event": "connect.challenge", "payload": said}).decode()
        proto = protobuf.number_event(protobuf.encode_event("connect.challenge", said), None)
        with suppress(ConnectionClosed):
            await websocket.send_message(plain if echoes else proto)
            heard.append(await websocket.get_message())

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, other, "127.0.0.1", 0, None)
        with pytest.raises(ConnectFailed, match="does not speak Protocol Buffers") as caught:
            async with open_client(f"ws://127.0.0.1:{server.port}", protocol="proto", timeout=5):
                pass
        assert "--protocol" in (caught.value.fix or "")
        nursery.cancel_scope.cancel()
    assert heard == []


@pytest.mark.parametrize("bad", [b"\xff", b"", b"\x12\x00", b'{"type":"event"}'])
async def test_v39_a_gateway_that_sends_no_frames_is_left(bad: bytes) -> None:
    async def other(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=request.proposed_subprotocols[0])
        challenge = protobuf.encode_event("connect.challenge", {"nonce": "n", "ts": 1})
        await websocket.send_message(protobuf.number_event(challenge, None))
        await websocket.get_message()
        await websocket.send_message(bad)
        with suppress(ConnectionClosed):
            await websocket.get_message()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, other, "127.0.0.1", 0, None)
        with pytest.raises(ConnectFailed, match="speak Protocol Buffers"):
            async with open_client(f"ws://127.0.0.1:{server.port}", protocol="proto"):
                pass
        nursery.cancel_scope.cancel()
