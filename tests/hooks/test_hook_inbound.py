"""Webhooks through a real gateway: shapes, secrets, mappings, durability, limits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import Delta, Outcome, Turn
from openclaw_gateway.config.hookblocks import HookMapping, HookMatch, HooksConfig, HookSignature
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig
from openclaw_gateway.hooks import inbound
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.queues import QueuedMessage
from tests.attacks.attacker import Attacker, http, open_victim

HOOK = "the-secret-of-the-hooks-0123456789"
OWN = "the-own-secret-of-a-mapping-0123456789"
SIGNED = "the-key-that-signs-0123456789"
BEARER = {"Authorization": f"Bearer {HOOK}"}
AGENTS = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo")))
MAPPINGS = (
    HookMapping(match=HookMatch(path="own"), secret=OWN, message_template="Own: {{text}}", agent_id="second"),
    HookMapping(
        match=HookMatch(path="github"),
        secret=SIGNED,
        signature=HookSignature(scheme="body"),
        message_template="{{headers.x-github-event}} in {{repository.name}}",
    ),
    HookMapping(
        match=HookMatch(path="std"), secret=SIGNED, signature=HookSignature(scheme="standard"),
        message_template="{{data.text}}", session_mode="persistent",
    ),
    HookMapping(id="alarm", match=HookMatch(path="alarm", source="fire"), action="wake", text_template="{{where}}"),
    HookMapping(id="alarm-2", match=HookMatch(path="alarm"), message_template="{{where}}", agent_id="second"),
    HookMapping(
        id="told", match=HookMatch(path="told"), message_template="{{text}}", channel="scripted", to="room-1",
        timeout_seconds=7, model="a/b", name="Teller",
    ),
)  # fmt: skip
CONFIG = HooksConfig(enabled=True, token=HOOK, mappings=MAPPINGS)


class Recorder:
    """An agent that keeps what it was asked."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.asked = trio.Event()

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.turns.append(turn)
        self.asked.set()
        emit(Delta(text="noted"))
        return Outcome(model="recorder")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_victim(hooks=CONFIG, agents=AGENTS) as opened:
        hooks(opened).ledger = FailureLedger(LockoutRules(delays=(0.0,), attempts=20, window=60.0, lockout=60.0))
        yield opened


def hooks(gateway: Gateway) -> inbound.InboundHooks:
    assert gateway._parts.on_demand.hooks is not None
    return gateway._parts.on_demand.hooks


def recorder(gateway: Gateway, agent: str = "main") -> Recorder:
    made = Recorder()
    gateway.agents.register(agent, made)
    return made


async def post(
    gateway: Gateway, name: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, received, answer = await http(
        gateway.port, "POST", f"/hooks/{name}", headers=BEARER if headers is None else headers, body=raw
    )
    return status, json.loads(answer) if answer.startswith(b"{") else answer.decode(), received


def signature(body: bytes, secret: str = SIGNED) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def standard(body: bytes, id_: str = "msg_1", at: int | None = None) -> dict[str, str]:
    stamp = str(int(time.time()) if at is None else at)
    digest = hmac.new(SIGNED.encode(), f"{id_}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


# --- the direct endpoints


async def test_s013_a_script_posts_and_an_agent_runs(gateway: Gateway) -> None:
    agent = recorder(gateway)
    status, answer, _ = await post(gateway, "agent", {"message": "Summarise", "name": "Smoke", "timeoutSeconds": 9})
    assert (status, answer["ok"]) == (200, True)
    ended = await gateway.messaging.runs.wait(answer["runId"], 5)
    assert getattr(ended, "state", None) == "ok"
    request = agent.turns[0].request
    assert (request.text, request.sender_name, request.timeout_ms) == ("Summarise", "Smoke", 9000)
    assert request.session_key == "agent:main:hook:agent"
    assert request.sender == "hook:agent"
    assert request.reply is None
    assert "not your owner's" in (request.system or "")


async def test_s013_a_wake_reaches_the_main_conversation(gateway: Gateway) -> None:
    agent = recorder(gateway)
    status, answer, _ = await post(gateway, "wake", {"text": "The kettle boils", "mode": "now"})
    assert (status, answer) == (200, {"ok": True, "mode": "now", "eventOutcome": "queued"})
    await agent.asked.wait()
    assert agent.turns[0].request.session_key == "agent:main:main"
    assert agent.turns[0].request.text == "[webhook 'wake'] The kettle boils"
    _, answer, _ = await post(gateway, "wake", {"text": "x", "mode": "next-heartbeat"}, {"X-OpenClaw-Token": HOOK})
    assert answer["mode"] == "next-heartbeat"


@pytest.mark.parametrize(
    ("name", "body", "told"),
    [
        ("wake", {}, "text required"),
        ("wake", {"text": "   "}, "text required"),
        ("agent", {}, "message required"),
        ("agent", {"message": ["x"]}, "message required"),
        ("agent", [], "the body must be a JSON object"),
        ("agent", b"{not json", "the body must be JSON"),
        ("agent", b"[" * 100_000, "the body must be JSON"),
        ("agent", {"message": "x", "agentId": "nobody"}, "unknown agentId 'nobody'"),
    ],
)
async def test_wire9_what_asks_for_nothing_is_400(gateway: Gateway, name: str, body: Any, told: str) -> None:
    status, answer, _ = await post(gateway, name, body)
    assert (status, answer) == (400, {"ok": False, "error": told})


async def test_wire9_methods_paths_and_tokens_in_the_address(gateway: Gateway) -> None:
    for method in ("GET", "HEAD", "PUT", "OPTIONS", "DELETE"):
        status, headers, body = await http(gateway.port, method, "/hooks/wake", headers=BEARER)
        assert (status, headers["allow"]) == (405, "POST")
        assert body == (b"" if method == "HEAD" else b"Method Not Allowed")
        assert not any(name.startswith("access-control") for name in headers)
    for query in ("token=x", "a=1&token=" + HOOK, "%74oken=x", "access_token=x"):
        status, answer, _ = await post(gateway, f"wake?{query}", {"text": "x"})
        assert status == 400
        assert HOOK not in answer
    assert (await post(gateway, "unknown", {}))[:2] == (404, "Not Found")
    assert (await http(gateway.port, "POST", "/hooks", headers=BEARER, body=b"{}"))[0] == 404
    assert (await http(gateway.port, "POST", "/hooks/", headers=BEARER, body=b"{}"))[0] == 404
    status, answer, headers = await post(gateway, "wake", {"text": "x"}, {})
    assert (status, answer) == (401, "Unauthorized")
    assert headers["x-content-type-options"] == "nosniff"


async def test_hooks_are_off_by_default_and_go_off_on_a_reload() -> None:
    async with open_victim() as gateway:
        assert gateway._parts.on_demand.hooks is None
        assert (await post(gateway, "wake", {"text": "x"}))[0] == 404
    async with open_victim(hooks=CONFIG, agents=AGENTS) as gateway:
        assert (await post(gateway, "wake", {"text": "x"}))[0] == 200
        moved = attrs.evolve(gateway.config, hooks=attrs.evolve(CONFIG, path="/in"))
        gateway.apply(moved, gateway.auth)
        assert (await post(gateway, "wake", {"text": "x"}))[0] == 404
        assert (await http(gateway.port, "POST", "/in/wake", headers=BEARER, body=b'{"text":"x"}'))[0] == 200
        gateway.apply(attrs.evolve(gateway.config, hooks=HooksConfig()), gateway.auth)
        assert (await http(gateway.port, "POST", "/in/wake", headers=BEARER, body=b'{"text":"x"}'))[0] == 404


# --- mappings


async def test_a_mapping_makes_a_message_of_a_payload(gateway: Gateway) -> None:
    agent = recorder(gateway, "second")
    status, answer, _ = await post(gateway, "own", {"text": "{{secret}} hi"}, {"X-OpenClaw-Token": OWN})
    assert (status, answer["ok"]) == (200, True)
    await agent.asked.wait()
    request = agent.turns[0].request
    assert (request.text, request.session_key) == ("Own: {{secret}} hi", "agent:second:hook:own")
    assert agent.turns[0].history == ()


async def test_the_first_mapping_whose_source_fits_takes_it(gateway: Gateway) -> None:
    main, second = recorder(gateway), recorder(gateway, "second")
    assert (await post(gateway, "alarm", {"source": "fire", "where": "attic"}))[1]["eventOutcome"] == "queued"
    assert "runId" in (await post(gateway, "alarm", {"where": "cellar"}))[1]
    await main.asked.wait()
    await second.asked.wait()
    assert main.turns[0].request.text == "[webhook 'alarm'] attic"
    assert second.turns[0].request.text == "cellar"
    assert (await post(gateway, "alarm", {"where": " "}))[:2] == (400, {"ok": False, "error": "message required"})
    assert (await post(gateway, "alarm", {"source": "fire"}))[1]["error"] == "text required"


async def test_sessions_isolated_or_persistent(gateway: Gateway) -> None:
    agent = recorder(gateway)
    for number in (1, 2):
        body = json.dumps({"data": {"text": f"persistent {number}"}}).encode()
        _, answer, _ = await post(gateway, "std", body, standard(body, f"msg_{number}"))
        await gateway.messaging.runs.wait(answer["runId"], 5)
        _, answer, _ = await post(gateway, "agent", {"message": f"isolated {number}"})
        await gateway.messaging.runs.wait(answer["runId"], 5)
    seen = {turn.request.text: [message.text for message in turn.history] for turn in agent.turns}
    assert seen["persistent 2"] == ["persistent 1", "noted"]
    assert seen["isolated 2"] == []


async def test_an_answer_is_sent_only_where_the_mapping_says(gateway: Gateway) -> None:
    agent = recorder(gateway)
    sent: list[Any] = []
    done = trio.Event()

    async def deliver(message: QueuedMessage) -> None:
        sent.append(json.loads(message.payload))
        done.set()

    gateway.messaging.outbound_kinds["channel.send"] = deliver
    await post(gateway, "told", {"text": "say it", "channel": "evil", "to": "attacker", "agentId": "second"})
    await agent.asked.wait()
    request = agent.turns[0].request
    assert request.reply is not None
    assert (request.reply.channel, request.reply.account, request.reply.conversation) == (
        "scripted", "default", "room-1",
    )  # fmt: skip
    assert (request.model, request.timeout_ms, request.sender_name) == ("a/b", 7000, "Teller")
    await done.wait()
    assert [(one["channel"], one["conversationId"], one["text"]) for one in sent] == [("scripted", "room-1", "noted")]
    status, answer, _ = await post(gateway, "agent", {"message": "x", "channel": "telegram", "to": "1"})
    assert status == 400
    assert "hooks.mappings" in answer["error"]
    assert (await post(gateway, "agent", {"message": "x", "channel": "a", "to": "1", "deliver": False}))[0] == 200


async def test_a_signed_request_is_taken_and_a_forged_one_is_not(gateway: Gateway) -> None:
    agent = recorder(gateway)
    body = b'{"repository":{"name":"claw"}}'
    headers = {**signature(body), "X-GitHub-Event": "push"}
    assert (await post(gateway, "github", body, headers))[0] == 200
    await agent.asked.wait()
    assert agent.turns[0].request.text == "push in claw"
    for forged in (
        signature(body, "another key"),
        signature(body + b" "),
        {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        {"X-Hub-Signature-256": ""},
        BEARER,
        {"Authorization": f"Bearer {SIGNED}"},
        {},
    ):
        assert (await post(gateway, "github", body, forged))[:2] == (401, "Unauthorized")


# --- acceptance


async def test_a_full_queue_is_503_and_nothing_was_accepted(gateway: Gateway) -> None:
    queue = gateway.messaging.inbound
    queue.rules = attrs.evolve(queue.rules, max_messages=0)
    status, answer, headers = await post(gateway, "agent", {"message": "x"})
    assert (status, answer["ok"], headers["retry-after"]) == (503, False, "5")
    assert len(queue) == 0


async def test_an_accepted_request_outlives_the_process(tmp_path: Any) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with open_victim(hooks=CONFIG, agents=AGENTS, state_dir=state) as gateway:
        agent = Recorder()
        stuck = trio.Event()

        class Stuck:
            async def run(self, turn: Turn, emit: Emit) -> Outcome:
                stuck.set()
                await trio.sleep_forever()
                raise AssertionError

        gateway.agents.register("main", Stuck())
        _, answer, _ = await post(gateway, "agent", {"message": "keep me"})
        await stuck.wait()
    async with open_victim(hooks=CONFIG, agents=AGENTS, state_dir=state) as gateway:
        gateway.agents.register("main", agent)
        await agent.asked.wait()
        assert [turn.request.run_id for turn in agent.turns] == [answer["runId"]]
        assert agent.turns[0].request.text == "keep me"
        assert agent.turns[0].uncertain


async def test_v47_a_body_that_is_announced_too_large_is_413(gateway: Gateway) -> None:
    async with await Attacker.at(gateway.port) as client:
        head = f"POST /hooks/agent HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {HOOK}\r\nContent-Length: 99999999\r\n"
        await client.send(head.encode() + b"\r\n")
        assert (await client.read_head())[0] == 413


def test_rule8_the_limits_are_what_they_are() -> None:
    assert (inbound.MAX_UNPROVEN, inbound.MAX_UNPROVEN_PER_PEER) == (16, 4)
    assert inbound.LOCKOUT.attempts == 20


def test_a_start_without_webhooks_loads_nothing_of_them() -> None:
    program = """
import sys, trio
from openclaw_gateway.testing import open_memory_gateway
async def main():
    async with open_memory_gateway():
        print([name for name in sys.modules if name.startswith("openclaw_gateway.hooks") or name in {"httpx", "jwt"}])
trio.run(main)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=25)
    assert told.stdout == "[]\n"
