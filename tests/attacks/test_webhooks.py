"""V41 to V45, V47: webhooks as the way in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway
from openclaw_gateway.config.hookblocks import HookMapping, HookMatch, HooksConfig, HookSignature
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.hooks import inbound
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.server import incoming

from .attacker import TOKEN, Attacker, http, legit_client_works, open_victim, remote_door, rpc

HOOK = "the-secret-of-the-hooks-0123456789"
OTHER = "the-secret-of-another-tenant-0123456789"
KEY = "the-key-that-signs-0123456789"
BEARER = {"Authorization": f"Bearer {HOOK}"}
AGENTS = AgentsConfig(
    list=(
        AgentEntry(id="main", kind="echo"),
        AgentEntry(id="second", kind="echo"),
        AgentEntry(id="closed", kind="echo"),
    )
)
MAPPINGS = (
    HookMapping(
        match=HookMatch(path="one"), secret=KEY, signature=HookSignature(scheme="body"), message_template="{{t}}"
    ),
    HookMapping(
        match=HookMatch(path="two"), secret=KEY, signature=HookSignature(scheme="body"), message_template="{{t}}"
    ),
    HookMapping(
        match=HookMatch(path="std"), secret=KEY, signature=HookSignature(scheme="standard"), message_template="{{t}}"
    ),
    HookMapping(match=HookMatch(path="shared", source="a"), secret=HOOK + "-a", message_template="{{t}}"),
    HookMapping(match=HookMatch(path="shared", source="b"), secret=OTHER, message_template="{{t}}"),
    HookMapping(match=HookMatch(path="listed"), message_template="{{t}}", agent_id="closed"),
)
CONFIG = HooksConfig(enabled=True, token=HOOK, mappings=MAPPINGS, allowed_agent_ids=("main", "second"))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_victim(hooks=CONFIG, agents=AGENTS) as opened:
        _hooks(opened).ledger = FailureLedger(LockoutRules(delays=(0.0,), attempts=20, window=60.0, lockout=60.0))
        yield opened


def _hooks(gateway: Gateway) -> inbound.InboundHooks:
    assert gateway._parts.on_demand.hooks is not None
    return gateway._parts.on_demand.hooks


def _messages(gateway: Gateway) -> int:
    """How many questions were ever accepted."""
    return len(gateway.messaging.runs._known)


async def _post(port: int, name: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = await http(
        port, "POST", f"/hooks/{name}", headers=BEARER if headers is None else headers, body=raw
    )
    return status, json.loads(answer) if answer.startswith(b"{") else answer.decode()


def _signed(body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()}


def _standard(body: bytes, id_: str, at: float) -> dict[str, str]:
    digest = hmac.new(KEY.encode(), f"{id_}.{int(at)}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": id_, "webhook-timestamp": str(int(at)), "webhook-signature": signature}


# --- V42


async def test_v42_a_hooks_secret_opens_nothing_but_hooks(gateway: Gateway) -> None:
    status, answer = await rpc(gateway.port, "config.get", token=HOOK)
    assert status == 401
    assert "result" not in (answer or {})
    async with await Attacker.at(gateway.port) as client:
        assert not (await client.connect(token=HOOK, scopes=["operator.read"])).admitted
    async with await Attacker.at(gateway.port) as client:
        assert not (await client.connect(headers=BEARER, scopes=["operator.read"])).admitted


async def test_v42_the_gateways_secrets_open_no_hook(gateway: Gateway) -> None:
    key = await rpc(gateway.port, "tokens.create", {"name": "all", "scopes": ["operator.admin"]})
    for secret in (TOKEN, key[1].get("result", {}).get("key", "ocg_" + "a" * 43)):
        for headers in ({"Authorization": f"Bearer {secret}"}, {"X-OpenClaw-Token": secret}):
            for name in ("wake", "agent", "one", "shared", "listed", "unknown"):
                assert await _post(gateway.port, name, {"text": "x", "message": "x", "t": "x"}, headers) == (
                    401,
                    "Unauthorized",
                )
        _hooks(gateway).ledger = FailureLedger(LockoutRules(delays=(0.0,), attempts=1000))
    assert _messages(gateway) == 0


@pytest.mark.expect_error_log("webhooks stay off")
@pytest.mark.parametrize("kind", ["token", "password"])
async def test_v42_a_hook_with_the_gateways_own_secret_stays_off(kind: str) -> None:
    auth = AuthConfig(token=HOOK) if kind == "token" else AuthConfig(type="password", password=HOOK)
    async with open_victim(auth, hooks=CONFIG, agents=AGENTS) as gateway:
        assert await _post(gateway.port, "wake", {"text": "x"}) == (404, "Not Found")


# --- V43


@pytest.mark.parametrize("agent", ["", " ", "\t", "closed", "CLOSED", " main", "main ", "../main", "*", 7, [], {}])
async def test_v43_the_agent_of_a_payload_goes_through_the_list(gateway: Gateway, agent: Any) -> None:
    for name, body in (("agent", {"message": "x"}), ("wake", {"text": "x"})):
        status, answer = await _post(gateway.port, name, {**body, "agentId": agent})
        assert (status, answer["ok"]) == (400, False), answer
    assert _messages(gateway) == 0


async def test_v43_the_list_holds_for_mappings_and_for_the_default_agent() -> None:
    async with open_victim(hooks=CONFIG, agents=AGENTS) as gateway:
        assert (await _post(gateway.port, "listed", {"t": "x"}))[0] == 400
    async with open_victim(hooks=attrs.evolve(CONFIG, allowed_agent_ids=()), agents=AGENTS) as gateway:
        assert (await _post(gateway.port, "agent", {"message": "x"}))[0] == 400
        assert (await _post(gateway.port, "wake", {"text": "x"}))[0] == 400
        assert _messages(gateway) == 0


async def test_v43_a_payload_chooses_no_conversation(gateway: Gateway) -> None:
    for body in ({"message": "x", "sessionKey": "agent:main:main"}, {"message": "x", "sessionMode": "persistent"}):
        assert (await _post(gateway.port, "agent", body))[0] == 400
    assert (await _post(gateway.port, "wake", {"text": "x", "sessionKey": "agent:second:main"}))[0] == 400
    raw = b'{"t":"x","sessionKey":"agent:main:main","agentId":"second","hook":"wake","action":"wake"}'
    status, answer = await _post(gateway.port, "one", raw, _signed(raw))
    assert status == 200
    run = gateway.messaging.runs.get(answer["runId"])
    key = run.request.session_key if hasattr(run, "request") else run.session_key  # type: ignore[union-attr]
    assert key == "agent:main:hook:one"


# --- V44


async def test_v44_a_replayed_request_is_not_run_again(gateway: Gateway) -> None:
    body = b'{"t":"pay"}'
    first = await _post(gateway.port, "one", body, _signed(body))
    # What was not signed does not make it another request.
    again = await _post(
        gateway.port, "one", body, {**_signed(body), "Idempotency-Key": "new", "X-GitHub-Delivery": "n"}
    )
    assert first == again
    assert first[0] == 200
    assert _messages(gateway) == 1
    now = time.time()
    first = await _post(gateway.port, "std", body, _standard(body, "msg_1", now))
    assert await _post(gateway.port, "std", body, _standard(body, "msg_1", now + 1)) == first  # the sender's own retry
    assert (await _post(gateway.port, "std", body, _standard(body, "msg_2", now)))[1] != first[1]
    for off in (-301, 302):
        assert (await _post(gateway.port, "std", body, _standard(body, "msg_3", now + off)))[0] == 401
    assert _messages(gateway) == 3


async def test_v44_what_one_hook_has_seen_is_not_seen_by_another(gateway: Gateway) -> None:
    body = b'{"t":"same"}'
    runs = {(await _post(gateway.port, name, body, _signed(body)))[1]["runId"] for name in ("one", "two")}
    assert len(runs) == 2
    headers = {"Idempotency-Key": "1"}
    a = await _post(gateway.port, "shared", {"source": "a", "t": "x"}, {**headers, "X-OpenClaw-Token": HOOK + "-a"})
    b = await _post(gateway.port, "shared", {"source": "b", "t": "x"}, {**headers, "X-OpenClaw-Token": OTHER})
    direct = [await _post(gateway.port, "agent", {"message": text}, {**BEARER, **headers}) for text in ("x", "x", "y")]
    assert direct[0] == direct[1] != direct[2]
    assert len({a[1]["runId"], b[1]["runId"], direct[0][1]["runId"]}) == 3
    assert _messages(gateway) == 6


async def test_v44_a_tenants_secret_opens_his_own_mapping_only(gateway: Gateway) -> None:
    for source, secret in (("a", OTHER), ("b", HOOK + "-a"), ("a", HOOK), ("b", HOOK)):
        status, _ = await _post(gateway.port, "shared", {"source": source, "t": "x"}, {"X-OpenClaw-Token": secret})
        assert status in {401, 404}
    assert _messages(gateway) == 0


# --- V45


async def test_v45_loopback_is_no_credential(gateway: Gateway) -> None:
    for forwarded in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "::1"}):
        for name in ("wake", "agent", "one", "shared"):
            assert (await _post(gateway.port, name, {"text": "x"}, dict(forwarded)))[0] == 401
    async with remote_door(gateway) as port:
        assert (await _post(port, "wake", {"text": "x"}, {}))[0] == 401
        assert (await _post(port, "wake", {"text": "x"}))[0] == 200
    async with open_victim("none", hooks=CONFIG, agents=AGENTS) as open_gateway:
        assert (await _post(open_gateway.port, "wake", {"text": "x"}, {}))[0] == 401


async def test_v45_who_guesses_is_locked_out_on_this_host_too(gateway: Gateway) -> None:
    for number in range(20):
        assert (await _post(gateway.port, "wake", {"text": "x"}, {"X-OpenClaw-Token": f"guess {number}"}))[0] == 401
    status, headers, _ = await http(gateway.port, "POST", "/hooks/wake", headers=BEARER, body=b'{"text":"x"}')
    assert (status, headers["retry-after"]) == (429, "60")
    async with remote_door(gateway) as port:
        assert (await _post(port, "wake", {"text": "x"}))[0] == 200
    await legit_client_works(gateway.port)


# --- V47


async def test_v47_no_body_is_read_before_the_headers_are_right(gateway: Gateway) -> None:
    signed = {"X-Hub-Signature-256": "sha256=zz"}
    for name, headers in (("wake", {}), ("agent", {"Authorization": "Bearer x"}), ("one", signed), ("std", {})):
        async with await Attacker.at(gateway.port) as client:
            lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
            head = f"POST /hooks/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n{lines}\r\n"
            await client.send(head.encode())
            with trio.fail_after(8):
                assert (await client.read_head())[0] == 401


async def test_v47_slow_bodies_are_few_and_end(mock_clock: trio.testing.MockClock, gateway: Gateway) -> None:
    assert incoming.BODY_SECONDS <= 10
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(await Attacker.at(gateway.port)) for _ in range(6)]
        head = (
            "POST /hooks/one HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nX-Hub-Signature-256: "
            + "0" * 64
            + "\r\n\r\n"
        )
        kept, more = slow[: inbound.MAX_UNPROVEN_PER_PEER], slow[inbound.MAX_UNPROVEN_PER_PEER :]
        for client in kept:
            await client.send(head.encode() + b"{")
        while _hooks(gateway)._unproven.total() < len(kept):
            await trio.lowlevel.checkpoint()
        for client in more:
            await client.send(head.encode() + b"{")
            assert (await client.read_head())[0] == 503
        mock_clock.jump(incoming.BODY_SECONDS + 0.1)
        assert [(await client.read_head())[0] for client in kept] == [408] * len(kept)
    assert not _hooks(gateway)._unproven
    body = b'{"t":"x"}'
    assert (await _post(gateway.port, "one", body, _signed(body)))[0] == 200


async def test_v16_rules_that_change_while_a_body_is_read_are_asked_again(gateway: Gateway) -> None:
    async with await Attacker.at(gateway.port) as client:
        head = f"POST /hooks/agent HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {HOOK}\r\nContent-Length: 15\r\n\r\n"
        await client.send(head.encode())
        await trio.testing.wait_all_tasks_blocked(0.05)
        changed = attrs.evolve(gateway.config, hooks=attrs.evolve(CONFIG, token=OTHER + "-new"))
        gateway.apply(changed, gateway.auth)
        await client.send(b'{"message":"x"}')
        assert (await client.read_head())[0] == 401
    assert _messages(gateway) == 0


async def test_v41_browsers_cannot_send_a_secret_that_they_do_not_know(gateway: Gateway) -> None:
    page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    assert (await _post(gateway.port, "wake", {"text": "x"}, page))[0] == 401
    status, headers, _ = await http(
        gateway.port, "OPTIONS", "/hooks/wake", headers={**page, "Access-Control-Request-Method": "POST"}
    )
    assert status == 405
    assert not any(name.startswith("access-control") for name in headers)
