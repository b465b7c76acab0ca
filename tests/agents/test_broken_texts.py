"""Half an emoji, and bytes that are no UTF-8, at every entrance: a text with U+FFFD in it, never a fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from websockets.frames import Opcode

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import AgentFailed, Attachment, Delta, Outcome, RunRequest, Turn
from openclaw_gateway.channels.adapter import Incoming
from openclaw_gateway.channels.discord import _frame
from openclaw_gateway.channels.service import Answer
from openclaw_gateway.channels.telegram import read_update
from openclaw_gateway.channels.whatsapp import open_adapter as open_whatsapp
from openclaw_gateway.config.hookblocks import HooksConfig
from openclaw_gateway.config.schema import (
    AgentEntry,
    AgentsConfig,
    AuthConfig,
    ChatCompletionsConfig,
    EndpointsConfig,
    HttpSurfaceConfig,
)
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from openclaw_gateway.testing.whatsapp import notification
from tests.agents.test_model_agent import config as model_config
from tests.agents.test_model_agent import end, talking
from tests.agents.test_subprocess_agent import agent as program
from tests.agents.test_subprocess_agent import ask as ask_program
from tests.channels.ports import Port
from tests.channels.test_whatsapp import ANN, FakeSettings, bring
from tests.completions.test_routes import CHAT
from tests.models.scripted import open_service
from tests.server.test_http import ask

TOKEN = "token-of-the-tests-of-broken-texts-0123456789"
HOOK = "a-secret-of-the-hooks-0123456789-abcdef"
ALL = ["operator.read", "operator.write", "operator.admin"]
HALF, MENDED = "half \ud83d", "half \ufffd"


class Speaker:
    """In-process: a Python string can hold what UTF-8 cannot."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.fails = False

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.turns.append(turn)
        await trio.lowlevel.checkpoint()
        emit(Delta("tool", HALF, {HALF: [HALF]}))
        emit(Delta("text", HALF))
        if self.fails:
            raise AgentFailed(HALF, detail={"a": HALF})
        return Outcome(model=HALF)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    surface = HttpSurfaceConfig(endpoints=EndpointsConfig(chat_completions=ChatCompletionsConfig(enabled=True)))
    config = GatewayConfig(
        auth=AuthConfig(token=TOKEN),
        agents=AgentsConfig(list=(AgentEntry(id="main", kind="echo"),)),
        hooks=HooksConfig(enabled=True, token=HOOK),
        http=surface,
        state_dir=tmp_path,
    )
    async with open_memory_gateway(config) as opened:
        yield opened


async def said(peer: Any, run_id: str, key: str = "main") -> list[str]:
    with trio.fail_after(10):
        assert (await peer.request("agent.wait", {"runId": run_id, "timeoutMs": 9_000}))["status"] == "ok"
    history = await peer.request("chat.history", {"sessionKey": key})
    return [entry["content"][0]["text"] for entry in history["messages"]]


@pytest.mark.parametrize("binary", [False, True])
async def test_a_call(gateway: Gateway, binary: bool) -> None:
    params = {"sessionKey": "main", "message": "TEXT", "idempotencyKey": "r"}
    frame = json.dumps({"type": "req", "id": "1", "method": "chat.send", "params": params}).encode()
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        if binary:  # a text frame that is no UTF-8 ends the connection (RFC 6455 section 8.1)
            await peer.send_frame(Opcode.BINARY, frame.replace(b"TEXT", b"half \xff"))
        else:
            await peer.send_frame(Opcode.TEXT, frame.replace(b"TEXT", b"half \\ud83d"))
        assert (await peer.reply("1"))["payload"]["runId"] == "r"
        assert await said(peer, "r") == [MENDED, MENDED]


async def test_json_rpc_over_http(gateway: Gateway) -> None:
    for number, text in enumerate((b"half \\ud83d", b"half \xff")):
        body = b'{"jsonrpc":"2.0","id":1,"method":"chat.send","params":{"message":"%s","sessionKey":"main",' % text
        body += b'"idempotencyKey":"r%d"}}' % number
        answer = await ask(gateway, "POST", "/rpc", body, Authorization=f"Bearer {TOKEN}")
        assert answer.json["result"]["runId"] == f"r{number}"
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            assert (await said(peer, f"r{number}"))[-1] == MENDED


async def test_openai_s_api(gateway: Gateway) -> None:
    for text in (b"half \\ud83d", b"half \xff"):
        body = b'{"model":"openclaw","messages":[{"role":"user","content":"%s"}]}' % text
        answer = await ask(gateway, "POST", CHAT, body, Authorization=f"Bearer {TOKEN}")
        assert answer.json["choices"][0]["message"]["content"] == MENDED


async def test_a_webhook(gateway: Gateway) -> None:
    for text in (b"half \\ud83d", b"half \xff"):
        body = b'{"message":"%s","name":"%s"}' % (text, text)
        answer = await ask(gateway, "POST", "/hooks/agent", body, Authorization=f"Bearer {HOOK}")
        assert answer.status == 200
        async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            assert (await said(peer, answer.json["runId"], "agent:main:hook:agent"))[-1] == MENDED


async def test_an_agent_in_this_process(gateway: Gateway) -> None:
    speaker = Speaker()
    gateway.agents.register("main", speaker)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r1"})
        assert await said(peer, "r1") == ["hi", MENDED]
        assert (await end(peer))["message"]["model"] == MENDED
        speaker.fails = True
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r2"})
        failed = await end(peer)
        assert (failed["state"], failed["errorMessage"], failed["errorDetail"]) == ("error", MENDED, {"a": MENDED})
        assert len((await peer.request("chat.history", {"sessionKey": "main"}))["messages"]) == 4


async def test_an_embedding_program_that_starts_a_run(gateway: Gateway) -> None:
    request = RunRequest(
        run_id="r", agent_id="main", session_key="agent:main:main", text=HALF, source="test", accepted_at_ms=1,
        sender_name=HALF, system=HALF, attachments=(Attachment(HALF, "aGk=", HALF),),
    )  # fmt: skip
    await gateway.messaging.runs.start(request)
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        assert await said(peer, "r") == [MENDED, MENDED]


async def test_a_model_that_cuts_an_emoji_in_two() -> None:
    piece = '{"choices":[{"delta":{"content":"half %s"},"finish_reason":%s}]}'
    events = (piece % ("\\ud83d", "null"), piece % ("\\ude00", '"stop"'), "[DONE]")
    body = b"".join(b"data: %b\n\n" % one.encode() for one in events).replace(b"half \\ude00", b"half \xff")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with open_service(head + body) as service, talking(model_config(service)) as (_, peer):
        await peer.request("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "r"})
        final = await end(peer)
        assert final["state"] == "final", final
        assert final["message"]["content"][0]["text"] == MENDED * 2


async def test_a_program_on_standard_output() -> None:
    script = (
        'sys.stdout.buffer.write(b\'{"type":"text","text":"half \\\\ud83d"}\\n\');'
        'sys.stdout.buffer.write(b\'{"type":"text","text":"half \\xff"}\\n\');'
        "sys.stdout.buffer.flush(); say(type='done')"
    )
    told, _ = await ask_program(program(script))
    assert [one.text for one in told] == [MENDED, MENDED]


async def test_whatsapp() -> None:
    adapter, port = open_whatsapp("default", FakeSettings), Port()
    for text in (b"half \\ud83d", b"half \xff"):
        body = notification(ANN).replace(b"hello", text)
        assert (await bring(adapter, port, body)).status == 200
        assert port.taken[-1].text == MENDED


def test_telegram_and_discord() -> None:
    update = {
        "update_id": 1,
        "message": {
            "message_id": 2, "date": 1, "chat": {"id": 3, "type": "private"}, "text": "TEXT",
            "from": {"id": 3, "is_bot": False, "first_name": "TEXT"},
        },
    }  # fmt: skip
    for text in (b"half \\ud83d", b"half \xff"):
        answer = Answer(200, {}, json.dumps({"ok": True, "result": [update]}).encode().replace(b"TEXT", text))
        taken = read_update(answer.json["result"][0])
        assert taken is not None
        assert taken.text == MENDED
        frame = _frame(json.dumps({"op": 0, "d": {"content": "TEXT"}}).encode().replace(b"TEXT", text))
        assert frame["d"]["content"] == MENDED


def test_an_adapter_of_somebody_else() -> None:
    message = Incoming(
        key=HALF, message_id=HALF, conversation=HALF, context="dm", sender_id=HALF, sender_name=HALF, text=HALF,
        thread=HALF, sent_at_ms=1, attachments=(HALF,),
    )  # fmt: skip
    assert MENDED.encode() in msgspec.json.encode(message)
