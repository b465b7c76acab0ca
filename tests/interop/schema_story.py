"""A day of a gateway, for the conformance test: everything that this gateway says to official clients, once.

Owns the story (operators, a page, a node, a phone's setup code, people on a channel, an agent that answers, fails and
is interrupted) and keeps each message that crossed the wire. It must not know schemas or judge what it saw.
Invariants: the gateway is the whole one, with a configuration file and a state folder; nothing listens beyond loopback.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from openclaw_gateway import CallFailed, Gateway, load_config, open_gateway
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import AgentFailed, Delta, Outcome, Turn
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.rpc.dashboard import EMPTY
from openclaw_gateway.testing import PeerClosed, ScriptedPeer, open_memory_stream, open_scripted_channel
from openclaw_gateway.testing.telegram import FakeTelegram, open_fake_telegram

__all__ = ["Reply", "Story", "open_storied_gateway", "tell_story"]

TOKEN = "token-of-the-schema-story-0123456789abcd"
COMMANDS = ["system.which", "system.run", "location.get"]
PAGE_SCOPES = tuple(f"operator.{name}" for name in ("admin", "approvals", "pairing", "questions", "read", "write"))

SKILL = {"name": "weather", "description": "tells the weather", "content": "Look out of the window."}
TOOL = {
    "pluginId": "acme", "name": "look", "description": "looks", "command": "system.which",
    "parameters": {"type": "object", "properties": {}},
}  # fmt: skip
SESSION = {"sessionKey": "agent:main:main"}
PAGE_PARAMS = {
    "sessions.observer.visibility": {"visible": True},
    **dict.fromkeys(("progressCard.get", "sessions.branches.list", "sessions.companion.state"), SESSION),
}


@attrs.frozen
class Reply:
    """One answered request. ``asked`` is the method; ``payload`` is None where it was refused."""

    asked: str
    params: Any
    frame: dict[str, Any]

    @property
    def payload(self) -> Any:
        return self.frame.get("payload")


@attrs.define
class Story:
    """What was said: ``replies`` in the order of the questions, ``events`` as frames, ``hellos`` with who asked."""

    methods: frozenset[str] = frozenset()
    event_names: tuple[str, ...] = ()
    replies: list[Reply] = attrs.field(factory=list)
    events: list[dict[str, Any]] = attrs.field(factory=list)

    def results(self, method: str) -> list[Any]:
        return [reply.payload for reply in self.replies if reply.asked == method and reply.frame["ok"]]


class Witness(ScriptedPeer):
    """A peer whose every message goes into the story."""

    story: Story
    asked: dict[str, tuple[str, Any]]

    async def receive(self) -> Any:
        message = await super().receive()
        if message.get("type") == "event":
            self.story.events.append(message)
        elif message.get("type") == "res" and message["id"] in self.asked:
            method, params = self.asked[message["id"]]
            self.story.replies.append(Reply(method, params, message))
        return message

    async def start(self, method: str, params: Any = None) -> str:
        id_ = await super().start(method, params)
        self.asked[id_] = (method, params)
        return id_

    async def refused(self, method: str, params: Any = None) -> CallFailed:
        try:
            await self.request(method, params)
        except CallFailed as failed:
            return failed
        raise AssertionError(f"{method} was not refused")


class Moody:
    """An agent that says what it is told to be: fine, broken, or silent until somebody interrupts it."""

    def __init__(self) -> None:
        self.speaking = trio.Event()

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        emit(Delta(text="Well, "))
        if turn.request.text == "fail":
            raise AgentFailed("the model service did not answer", kind="timeout", detail={"provider": "acme"})
        if turn.request.text == "wait":
            self.speaking.set()
            await trio.sleep_forever()
        emit(Delta(kind="tool", text="", data={"phase": "start", "name": "clock", "toolCallId": "t1"}))
        emit(Delta(text="it is noon."))
        return Outcome(model="acme/one")


@asynccontextmanager
async def open_storied_gateway(folder: Path) -> AsyncIterator[tuple[Gateway, FakeTelegram]]:
    """The whole gateway in ``folder`` (which nobody else may read), with agents, models and a message channel."""
    async with open_fake_telegram() as telegram:
        config = {
            "gateway": {
                "port": 0,
                "publicUrl": "https://gateway.example",
                "auth": {"type": "token", "token": TOKEN},
                "transports": {"websocket": {"tickIntervalMs": 1000}},
            },
            "channels": {"telegram": {"botToken": telegram.token, "apiRoot": telegram.url}},
            "agents": {"list": [{"id": "main", "kind": "echo"}, {"id": "second", "kind": "echo"}]},
            "models": {"providers": {"acme": {"api": "openai-completions", "baseUrl": "http://127.0.0.1:9",
                                              "apiKey": "key-of-the-story", "models": [{"id": "one"}]}}},
        }  # fmt: skip
        file = trio.Path(folder / "openclaw.json")
        await file.write_text(json.dumps(config))
        await file.chmod(0o600)
        env = {"OPENCLAW_STATE_DIR": str(folder), "OPENCLAW_DISABLE_BONJOUR": "1"}
        loaded = load_config(env=env, path=Path(file))
        async with open_gateway(loaded=loaded, env=env) as gateway:
            yield gateway, telegram


@asynccontextmanager
async def witness(
    story: Story, gateway: Gateway, *, address: str = "127.0.0.1", connect: bool = True, **who: Any
) -> AsyncIterator[Witness]:
    async with open_memory_stream(gateway, address=address) as stream:
        peer = Witness(stream)
        peer.story, peer.asked = story, {}
        origin = {"Origin": "http://127.0.0.1"} if who.get("mode") == "webchat" else None
        await peer.upgrade(headers=origin)
        await peer.expect_event("connect.challenge")
        if connect:
            if not {"token", "device_token", "bootstrap_token"}.intersection(who):
                who["token"] = TOKEN
            await peer.connect(**who)
        yield peer


def node(device: DeviceIdentity, **more: Any) -> dict[str, Any]:
    facts = {"displayName": "Node One", "deviceFamily": "Linux", "version": "1.2.3"}
    asked = {"role": "node", "mode": "node", "scopes": [], "client_id": "node-host", "client": facts, "device": device}
    return {**asked, "commands": COMMANDS, "caps": ["system"], **more}


def page(device: DeviceIdentity, **more: Any) -> dict[str, Any]:
    facts = {"instanceId": "page-1", "version": "2026.9.6", "platform": "web"}
    return {"client_id": "openclaw-control-ui", "mode": "webchat", "scopes": PAGE_SCOPES, "client": facts,
            "device": device, "signature": "v2", **more}  # fmt: skip


async def tell_story(folder: Path) -> Story:
    """Live through the day and return what was said. Ends within a minute or raises."""
    story = Story()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            gateway, telegram = await nursery.start(_serve, folder)
            admin = frozenset({"operator.admin"})
            story.methods = frozenset({*gateway.rpc.view("operator", admin), *gateway.rpc.view("node", frozenset())})
            here = page(DeviceIdentity.generate())
            async with witness(story, gateway) as operator, witness(story, gateway, **here) as ui:
                await _pages(ui)
                await _system(operator)
                await _refusals(story, gateway)
                await _nodes(story, gateway, operator)
                await _devices(story, gateway, operator)
                await _people(gateway, operator)
                await _channels(operator, telegram)
                await _conversations(gateway, operator, ui)
                await _configuration(operator)
                await operator.expect_event("tick")
                story.event_names = tuple(gateway.events.names)
                gateway.request_stop("the day is over")
                for peer in (operator, ui):
                    await peer.wait_closed()
    return story


async def _serve(folder: Path, *, task_status: trio.TaskStatus[tuple[Gateway, FakeTelegram]]) -> None:
    async with open_storied_gateway(folder) as opened:
        task_status.started(opened)
        await opened[0].wait_stopped()


async def _pages(ui: Witness) -> None:
    """What the Control UI asks for when its pages open."""
    for method in sorted(EMPTY):
        await ui.request(method, PAGE_PARAMS.get(method, {}))
    await ui.request("sessions.subscribe", {})
    await ui.request("channels.status", {"probe": False})
    for method in ("config.get", "config.schema", "agents.list", "last-heartbeat", "system.info", "models.authStatus"):
        await ui.request(method, {})
    await ui.request("models.list", {"view": "configured"})
    await ui.request("agent.identity.get", {"agentId": "main"})


async def _system(operator: Witness) -> None:
    await operator.request("health", {"probe": True})
    await operator.expect_event("health")
    await operator.request("status", {})
    await operator.request("system-event", {"text": "a person came", "deviceId": "d", "mode": "desk", "tags": ["x"]})
    await operator.request("system-presence", {})
    await operator.request("set-heartbeats", {"enabled": False})
    for method in ("gateway.identity.get", "diagnostics.stability"):
        await operator.request(method, {})
    tail = await operator.request("logs.tail", {"limit": 5, "maxBytes": 20_000})
    await operator.request("logs.tail", {"cursor": tail["cursor"]})
    await operator.request("audit.activity.list", {"limit": 50})


async def _refusals(story: Story, gateway: Gateway) -> None:
    """Errors of every kind that a client meets, of connects and of methods."""
    stranger = DeviceIdentity.generate()
    refused: tuple[dict[str, Any], ...] = (
        {"token": "not-the-token"},
        {"device_token": "not-a-device-token", "device": stranger},
        {"bootstrap_token": "not-a-setup-code", "device": stranger},
        {"min_protocol": 9, "max_protocol": 9},
        {"client_id": "nobody-knows-me"},
        {"device": stranger, "address": "192.0.2.9"},
    )
    for who in refused:
        address = who.pop("address", "127.0.0.1")
        async with witness(story, gateway, connect=False, address=address) as peer:
            params = {"token": TOKEN} | who if "device_token" not in who and "bootstrap_token" not in who else who
            await _refused_connect(peer, params)
    async with witness(story, gateway, scopes=["operator.read"]) as reader:
        await reader.refused("node.invoke", {"nodeId": "x", "command": "y", "idempotencyKey": "z"})
        await reader.refused("device.pair.list", {})
        await reader.refused("no.such.method", {})
        await reader.refused("logs.tail", {"limit": "many"})
        await reader.refused("node.describe", {"nodeId": "nobody"})
        await reader.refused("sessions.patch", {"key": "main"})
        await reader.refused("device.cert.revoke", {"deviceId": "of-another"})
        await reader.refused("device.cert.list", {"deviceId": "of-another"})
    async with witness(story, gateway, scopes=["operator.read", "operator.write"]) as writer:
        await writer.refused("agent", {"message": "x", "idempotencyKey": "m", "model": "acme/two"})


async def _refused_connect(peer: Witness, who: dict[str, Any]) -> None:
    try:
        await peer.connect(**who)
    except CallFailed:
        await peer.wait_closed()
    except PeerClosed:
        pass
    else:
        raise AssertionError(f"was let in: {sorted(who)}")


async def _nodes(story: Story, gateway: Gateway, operator: Witness) -> None:
    """A node comes, is approved, is asked, reports, is forgotten; a second one is turned away."""
    device = DeviceIdentity.generate()
    async with witness(story, gateway, **node(device)) as host:
        asked = await operator.expect_event("node.pair.requested")
        await operator.request("node.pair.list", {})
        await operator.request("node.list", {})
        await operator.request("node.pair.approve", {"requestId": asked["requestId"]})
        await operator.expect_event("node.pair.resolved")
        id_ = device.device_id
        stats = {"cpuCount": 8, "loadAverage": [1.25, 1, 0.9], "memoryTotalBytes": 100, "memoryFreeBytes": 40}
        for event, payload in (
            ("node.host.stats", stats),
            ("node.presence.alive", {"trigger": "connect", "sentAtMs": 1}),
            ("exec.finished", {"runId": "of nobody"}),
            ("something.else", {}),
        ):
            await host.request("node.event", {"event": event, "payloadJSON": json.dumps(payload)})
        await host.request("node.skills.update", {"skills": [SKILL]})
        await host.request("node.pluginTools.update", {"tools": [TOOL]})
        await host.request("node.runnerInventory.update", {"protocolFeatures": ["a"], "workerHost": {"enabled": False}})
        invoke = {"nodeId": id_, "command": "system.which", "params": {"bins": ["uname"]}, "idempotencyKey": "k1"}
        waiting = await operator.start("node.invoke", invoke)
        request = await host.expect_event("node.invoke.request")
        await host.request(
            "node.invoke.progress", {"invokeId": request["id"], "nodeId": id_, "seq": 0, "chunk": "looking"}
        )
        answer = {"id": request["id"], "nodeId": id_, "ok": True, "payloadJSON": '{"bins": {}}'}
        await host.request("node.invoke.result", answer)
        await operator.reply(waiting)
        ran = {"nodeId": id_, "command": "system.run", "params": {"command": ["uname"]}, "idempotencyKey": "k2"}
        waiting = await operator.start("node.invoke", ran)
        request = await host.expect_event("node.invoke.request")
        run_id = json.loads(request["paramsJSON"])["runId"]
        finished = {"sessionKey": "main", "runId": run_id, "host": "node", "exitCode": 0, "success": True}
        await host.request("node.event", {"event": "exec.finished", "payloadJSON": json.dumps(finished)})
        broken = {"id": request["id"], "nodeId": id_, "ok": False, "error": {"code": "BROKEN", "message": "no"}}
        await host.request("node.invoke.result", broken)
        await operator.reply(waiting)
        late = {**invoke, "idempotencyKey": "k3", "timeoutMs": 50}
        await operator.refused("node.invoke", late)
        await host.expect_event("node.invoke.cancel")
        await operator.refused("node.invoke", {**invoke, "command": "camera.snap", "idempotencyKey": "k4"})
        for type_ in ("status.request", "location.request"):
            await operator.request("node.pending.enqueue", {"nodeId": id_, "type": type_, "priority": "high"})
        pulled = await host.request("node.pending.pull", {})
        await host.request("node.pending.ack", {"ids": [pulled["actions"][0]["id"]]})
        await host.request("node.pending.drain", {"maxItems": 4})
        await operator.request("node.describe", {"nodeId": id_})
        await operator.request("node.rename", {"nodeId": id_, "displayName": "The cellar"})
        await operator.request("node.list", {})
        await operator.request("node.pair.list", {})
        await operator.request("system-presence", {})
        await operator.request("device.pair.list", {})
        await operator.request("node.pair.remove", {"nodeId": id_})
        await host.wait_closed()
    async with witness(story, gateway, **node(DeviceIdentity.generate())):
        asked = await operator.expect_event("node.pair.requested")
        await operator.request("node.pair.reject", {"requestId": asked["requestId"]})
    mac = node(DeviceIdentity.generate(), client_id="openclaw-macos", commands=[], caps=[])
    mac["client"] = {**mac["client"], "platform": "macos", "deviceFamily": "Mac"}
    async with witness(story, gateway, **mac) as desk:
        await desk.request("node.event", {"event": "node.presence.activity", "payloadJSON": '{"idleSeconds": 5}'})


async def _devices(story: Story, gateway: Gateway, operator: Witness) -> None:
    """Devices that wait, are let in, renamed, given tokens and sent away; a phone with a setup code."""
    first, second = DeviceIdentity.generate(), DeviceIdentity.generate()
    for device in (first, second):
        async with witness(story, gateway, connect=False, address="192.0.2.7") as peer:
            await _refused_connect(peer, {"client_id": "cli", "mode": "cli", "device": device, "token": TOKEN})
    waiting = (await operator.request("device.pair.list", {}))["pending"]
    ids = {row["deviceId"]: row["requestId"] for row in waiting}
    await operator.request("device.pair.approve", {"requestId": ids[first.device_id]})
    await operator.request("device.pair.reject", {"requestId": ids[second.device_id]})
    id_ = first.device_id
    await operator.request("device.pair.rename", {"deviceId": id_, "label": "Desk"})
    async with witness(story, gateway, client_id="cli", mode="cli", device=first) as own:
        token = own.hello["auth"]["deviceToken"]
    async with witness(story, gateway, client_id="cli", mode="cli", device=first, device_token=token) as own:
        rotated = await own.request("device.token.rotate", {"deviceId": id_, "role": "operator"})
        assert rotated["token"] != token
    await operator.request("device.token.rotate", {"deviceId": id_, "role": "operator", "scopes": ["operator.read"]})
    await operator.request("device.token.revoke", {"deviceId": id_, "role": "operator"})
    await operator.request("device.pair.list", {})
    await operator.request("device.pair.remove", {"deviceId": id_})

    made = await operator.request("device.pair.setupCode", {"includeQr": True, "joinUrl": True})
    bootstrap = json.loads(base64.urlsafe_b64decode(made["setupCode"] + "==="))["bootstrapToken"]
    phone = node(DeviceIdentity.generate(), client_id="openclaw-ios", bootstrap_token=bootstrap, commands=[], caps=[])
    async with witness(story, gateway, address="192.0.2.8", **phone):
        await operator.expect_event("device.pair.setup.completed")
    await operator.request("device.pair.setupStatus", {"setupId": made["setupId"]})


async def _people(gateway: Gateway, operator: Witness) -> None:
    """Strangers write on a channel; one is let in, one is turned away."""
    async with open_scripted_channel(gateway.senders, "telegram", account="second") as channel:
        for sender in ("111", "222", "333"):
            await channel.write(sender, name="Ann")
        rows = (await operator.request("channels.pairing.list", {}))["requests"]
        ids = {row["senderId"]: row["requestId"] for row in rows}
        where = {"channel": "telegram", "accountId": "second"}
        await operator.request("channels.pairing.approve", {**where, "requestId": ids["111"], "notify": True})
        await operator.request("channels.pairing.approve", {**where, "requestId": ids["333"]})
        await operator.request("channels.pairing.dismiss", {**where, "requestId": ids["222"]})
        await operator.request("channels.pairing.list", {})


async def _channels(operator: Witness, telegram: FakeTelegram) -> None:
    await telegram.wait_called("getUpdates")
    await operator.request("channels.status", {"probe": True, "timeoutMs": 2000})
    await operator.request("send", {"to": "111", "message": "hello", "idempotencyKey": "by-hand"})
    await telegram.wait_sent(1)
    await operator.request("diagnostics.lanes", {})
    await operator.request("channels.stop", {"channel": "telegram"})
    await operator.request("channels.start", {"channel": "telegram"})
    await operator.request("channels.logout", {"channel": "telegram"})
    await operator.request("channels.status", {})


async def _conversations(gateway: Gateway, operator: Witness, ui: Witness) -> None:
    """An agent answers, fails and is interrupted; the transcript is read, named and thrown away."""
    agent = Moody()
    gateway.agents.register("main", agent)
    key = "agent:main:main"
    await ui.request("sessions.messages.subscribe", {"key": key})
    for number, text in enumerate(("hello", "fail")):
        sent = {"sessionKey": "main", "message": text, "deliver": False, "idempotencyKey": f"run-{number}"}
        await operator.request("chat.send", sent)
        await operator.request("agent.wait", {"runId": f"run-{number}", "timeoutMs": 5000})
    await operator.request("chat.send", {"sessionKey": "main", "message": "wait", "idempotencyKey": "run-2"})
    await agent.speaking.wait()
    await operator.request("agent.wait", {"runId": "run-2", "timeoutMs": 1})
    await operator.request("chat.send", {"sessionKey": "main", "message": "and then", "idempotencyKey": "run-3"})
    await operator.request("chat.history", {"sessionKey": key, "inputRunIds": ["run-0", "run-3", "none"]})
    await operator.request("sessions.list", {})
    await operator.request("chat.abort", {"sessionKey": key, "runId": "run-2"})
    await operator.request("agent.wait", {"runId": "run-3", "timeoutMs": 5000})
    await operator.request("sessions.abort", {"key": key})
    await operator.request("agent", {"message": "hello", "agentId": "second", "idempotencyKey": "run-4"})
    await operator.request("agent.wait", {"runId": "run-4", "timeoutMs": 5000})
    await operator.request("chat.inject", {"sessionKey": key, "message": "said by hand", "label": "me"})
    history = await operator.request("chat.history", {"sessionKey": key, "limit": 2})
    await operator.request("chat.history", {"sessionKey": key, "cursor": "of another day"})
    message = {"sessionKey": key, "messageId": history["messages"][0]["__openclaw"]["id"]}
    await operator.request("chat.message.get", message)
    await operator.request("chat.message.get", {**message, "messageId": "none"})
    await ui.request("chat.startup", {"sessionKey": key, "limit": 50})
    await ui.request("chat.metadata", {"sessionKey": key})
    await operator.request("sessions.list", {"limit": 1, "includeLastMessage": True})
    await operator.request("sessions.describe", {"key": key})
    await operator.request("sessions.describe", {"key": "agent:main:nothing"})
    await operator.request("sessions.resolve", {"key": "main"})
    await operator.request("sessions.patch", {"key": key, "label": "Mine", "pinned": True, "archived": True})
    await operator.request("sessions.patch", {"key": key, "unread": True, "archived": False})
    await ui.expect_event("sessions.changed")
    plan = {"label": "My plan", "message": "hello", "idempotencyKey": "run-5"}
    made = await operator.request("sessions.create", plan)
    await operator.request("agent.wait", {"runId": "run-5", "timeoutMs": 5000})
    await operator.request("sessions.create", {"agentId": "second"})
    await operator.request("sessions.send", {"key": made["key"], "message": "hello", "idempotencyKey": "run-6"})
    await operator.request("agent.wait", {"runId": "run-6", "timeoutMs": 5000})
    await operator.request("sessions.preview", {"keys": [made["key"], "nothing"]})
    await operator.request("sessions.search", {"query": "hello", "scope": {"archived": "all"}})
    targets = [{"key": made["key"], "agentId": "main"}, {"key": "agent:main:nothing"}]
    await operator.request("sessions.patchMany", {"targets": targets, "patch": {"pinned": True}})
    await _usage(operator, key)
    short = made["key"].rpartition(":")[2].partition("-")[0]
    for reference in ({"shortId": short, "slugHint": "my-plan"}, {"shortId": "f" * 32}):
        await operator.request("sessions.resolve", reference)
        await ui.request("chat.startup", {**reference, "agentId": "main"})
    await operator.request("sessions.reset", {"key": key})
    await operator.request("sessions.delete", {"key": key})
    await operator.request("sessions.delete", {"key": "agent:main:nothing"})
    await ui.request("sessions.messages.unsubscribe", {"key": key})


async def _usage(operator: Witness, key: str) -> None:
    """What the Usage page and the command line ask of a gateway where something was said."""
    asked = {"agentScope": "all", "groupBy": "family", "limit": 1000, "mode": "gateway", "range": "all"}
    await operator.request("sessions.usage", {**asked, "includeContextWeight": True})
    await operator.request("sessions.usage.timeseries", {"key": key})
    await operator.request("sessions.usage.logs", {"key": key, "limit": 1000})
    await operator.request("usage.cost", {"days": 30})
    await operator.request("usage.status", {})


async def _configuration(operator: Witness) -> None:
    for path in (".", "gateway", "gateway.auth.token", "agents.list[0]", "channels.*"):
        await operator.request("config.schema.lookup", {"path": path})
    await operator.refused("config.schema.lookup", {"path": "no.such.place"})
    got = await operator.request("config.get", {})
    await operator.request("config.patch", {"raw": "{ logging: { level: 'debug' } }", "baseHash": got["hash"]})
    got = await operator.request("config.get", {})
    await operator.request("config.set", {"raw": got["raw"], "baseHash": got["hash"]})
    await operator.request("audit.activity.list", {"limit": 200})
