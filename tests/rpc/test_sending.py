"""`send` and `message.action`: text by hand to people on channels, through the outbound queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import CallFailed, GatewayConfig
from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.queues import NewMessage, QueuedMessage, RetryLater
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from openclaw_gateway.testing.telegram import open_fake_telegram

from .test_channel_methods import open_telegram

WRITE = ("operator.read", "operator.write")


async def refusal(peer: ScriptedPeer, method: str, params: Any) -> str:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    return failed.value.message


async def test_s083_send_brings_text_to_a_person_and_says_that_it_waits() -> None:
    async with open_telegram() as (gateway, telegram, _), connect_peer(gateway, scopes=WRITE) as peer:
        with trio.fail_after(10):
            told = await peer.request("send", {"to": "111", "message": "dinner?", "idempotencyKey": "k"})
            assert (told["status"], told["channel"], told["accountId"], told["to"], told["runId"]) == (
                "queued", "telegram", "default", "111", "k",
            )  # fmt: skip
            (sent,) = await telegram.wait_sent(1)
    assert (str(sent["chat_id"]), sent["text"]) == ("111", "dinner?")


async def test_the_same_idempotency_key_of_the_same_caller_sends_once() -> None:
    async with open_telegram() as (gateway, telegram, _), connect_peer(gateway, scopes=WRITE) as peer:
        with trio.fail_after(10):
            params = {"to": "user:111", "message": "once", "idempotencyKey": "k"}
            first = await peer.request("send", params)
            again = await peer.request("send", params)
            assert (first["duplicate"], again["duplicate"]) == (False, True)
            assert again["queueId"] == first["queueId"]
            await peer.request("send", {**params, "message": "last", "idempotencyKey": "k2"})
            sent = await telegram.wait_sent(2)
    assert [one["text"] for one in sent] == ["once", "last"]


async def test_message_action_is_what_the_official_command_line_calls() -> None:
    inner = {"channel": "telegram", "target": "channel:-100222", "message": "to the group", "threadId": "7"}
    async with open_telegram() as (gateway, telegram, _), connect_peer(gateway, scopes=WRITE) as peer:
        with trio.fail_after(10):
            action = {"channel": "telegram", "action": "send", "params": inner, "idempotencyKey": "k"}
            dry = await peer.request("message.action", {**action, "params": {**inner, "dryRun": True}})
            assert dry["dryRun"]
            await peer.request("message.action", action)
            (sent,) = await telegram.wait_sent(1)
            assert (str(sent["chat_id"]), sent["message_thread_id"]) == ("-100222", 7)
            assert "cannot 'poll'" in await refusal(peer, "message.action", {**action, "action": "poll"})
            with_file = {**action, "params": {**inner, "media": "/etc/passwd"}}
            assert "only text" in await refusal(peer, "message.action", with_file)


@pytest.mark.parametrize(
    ("target", "chat", "topic"),
    [
        ("telegram:111", "111", None),
        ("telegram:user:111", "111", None),
        ("telegram:group:-100222:topic:7", "-100222", 7),
        ("-100222:topic:7", "-100222", 7),
        ("chat:-100222", "-100222", None),
        ("@somebody", "@somebody", None),
    ],
)
async def test_targets_as_the_official_command_line_spells_them(target: str, chat: str, topic: int | None) -> None:
    async with open_telegram() as (gateway, telegram, _), connect_peer(gateway, scopes=WRITE) as peer:
        with trio.fail_after(10):
            action = {"channel": "telegram", "action": "send", "idempotencyKey": "k"}
            await peer.request("message.action", {**action, "params": {"to": target, "message": "x"}})
            (sent,) = await telegram.wait_sent(1)
    assert (str(sent["chat_id"]), sent.get("message_thread_id")) == (chat, topic)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"message": " "}, "at /message"),
        ({"message": "x" * 524_289}, "at /message"),
        ({"to": ""}, "at /to"),
        ({"to": "a b"}, "at /to"),
        ({"idempotencyKey": ""}, "at /idempotencyKey"),
        ({"mediaUrl": "https://example.org/cat.png"}, "at /mediaUrl"),
        ({"asVoice": True}, "at /asVoice"),
        ({"channel": "discord"}, "unknown channel: discord"),
        ({"accountId": "nobody"}, "unknown channel: telegram/nobody"),
        ({"threadId": "1?x=2"}, "at /threadId"),
        ({"to": "111:topic:1?x=2"}, "at /threadId"),
        ({"to": "111:topic:7/../8", "threadId": "7"}, "at /to"),
        ({"to": "111:topic:" + "7" * 600, "threadId": "7"}, "at /to"),
    ],
)
async def test_what_cannot_be_sent_is_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    async with open_telegram() as (gateway, _, __), connect_peer(gateway, scopes=WRITE) as peer:
        params = {"to": "111", "message": "x", "channel": "telegram", "idempotencyKey": "k", **wrong}
        assert told in await refusal(peer, "send", params)
        assert gateway.messaging.outbound.counts["waiting"] == 0


@pytest.mark.parametrize(
    "target",
    ["channel:../../guilds/1", "../users/@me", "channel:1/messages/2", "1?limit=1", "1#x", "1%2f2", "channel:.."],
)
async def test_v51_a_target_cannot_reach_into_the_path_of_a_services_request(target: str) -> None:
    async with open_telegram() as (gateway, _, __), connect_peer(gateway, scopes=WRITE) as peer:
        params = {"to": target, "message": "x", "idempotencyKey": "k"}
        assert "at /to" in await refusal(peer, "send", params)


async def test_s031_sending_needs_write() -> None:
    async with open_telegram() as (gateway, _, __), connect_peer(gateway, scopes=("operator.read",)) as reader:
        for method in ("send", "message.action"):
            assert "operator.write" in await refusal(reader, method, {})


async def test_without_a_channel_there_is_nothing_to_send_with() -> None:
    async with open_memory_gateway() as gateway, connect_peer(gateway, scopes=WRITE) as peer:
        params = {"to": "111", "message": "x", "idempotencyKey": "k"}
        assert "there are: none" in await refusal(peer, "send", params)


async def test_s029_what_was_acknowledged_survives_a_restart_while_the_service_is_away(tmp_path: Path) -> None:
    tmp_path = tmp_path / "state"
    async with open_fake_telegram() as telegram:
        extra = {"botToken": telegram.token, "apiRoot": telegram.url}
        config = GatewayConfig(state_dir=tmp_path, channels={"telegram": ChannelConfig(extra=extra)})
        telegram.fail_next("getMe", *[_away() for _ in range(50)])
        async with open_memory_gateway(config) as gateway, connect_peer(gateway, scopes=WRITE) as peer:
            await peer.request("send", {"to": "111", "message": "later", "idempotencyKey": "k"})
        assert telegram.texts_to(111) == []
        async with open_fake_telegram() as back:
            extra = {"botToken": back.token, "apiRoot": back.url}
            again = GatewayConfig(state_dir=tmp_path, channels={"telegram": ChannelConfig(extra=extra)})
            async with open_memory_gateway(again):
                with trio.fail_after(10):
                    (sent,) = await back.wait_sent(1)
    assert json.dumps(sent["text"]) == '"later"'


async def test_rob1_what_is_sent_by_hand_leaves_room_for_answers() -> None:
    """Else one caller, while a service is away, keeps every answer on every channel from being written."""
    async with open_telegram() as (gateway, _, __), connect_peer(gateway, scopes=WRITE) as peer:
        outbound = gateway.messaging.outbound
        outbound.rules = attrs.evolve(outbound.rules, max_messages=8)
        gateway.messaging.outbound_kinds["channel.send"] = _not_now
        with trio.fail_after(10):
            for number in range(6):
                await peer.request("send", {"to": "111", "message": "x", "idempotencyKey": f"k{number}"})
            params = {"to": "111", "message": "x", "idempotencyKey": "one more"}
            assert "too many messages are waiting" in await refusal(peer, "send", params)
        answer = NewMessage("telegram:default:222", "reply:r1", "agent", "channel.send", b"{}")
        assert not (await outbound.put(answer)).duplicate


async def _not_now(message: QueuedMessage) -> None:
    await trio.lowlevel.checkpoint()
    raise RetryLater("the service is away", 60_000, counts=False)


def _away() -> Any:
    from openclaw_gateway.testing.telegram import telegram_fault

    return telegram_fault(502, "Bad Gateway")
