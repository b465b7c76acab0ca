"""The Discord adapter against a gateway and REST API written from Discord's documentation, faults included."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.channels import discordwire as wire
from openclaw_gateway.channels.adapter import AdapterFailed, Outgoing
from openclaw_gateway.channels.discord import DiscordAdapter, open_adapter
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError
from openclaw_gateway.testing.discord import BOT, TOKEN, FakeDiscord, open_fake_discord
from openclaw_gateway.testing.httpservice import Told

from .ports import Port

ANN = "111111111111111111"
CHAT = "711111111111111111"


async def life(adapter: DiscordAdapter, port: Port, ends: list[AdapterFailed]) -> None:
    """What the hub does: run it again on the same adapter."""
    while True:
        try:
            await adapter.run(port)
        except AdapterFailed as exc:
            ends.append(exc)
            if exc.state != "reconnecting" or len(ends) > 20:
                return
            await trio.sleep(min(exc.after_ms or 0, 20) / 1000)


@asynccontextmanager
async def running(discord: FakeDiscord) -> AsyncIterator[tuple[DiscordAdapter, Port, list[AdapterFailed]]]:
    adapter, port = open_adapter("default", discord.settings()), Port()
    ends: list[AdapterFailed] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life, adapter, port, ends)
        await port.wait()
        yield adapter, port, ends
        nursery.cancel_scope.cancel()


def out(text: str = "hi", key: str = "k:0", **more: Any) -> Outgoing:
    return Outgoing(key=key, conversation=CHAT, text=text, **more)


def ops(discord: FakeDiscord, *wanted: int) -> list[dict[str, Any]]:
    return [frame for frame in discord.heard if frame["op"] in wanted]


# --- in


async def test_it_identifies_for_direct_messages_alone_and_hands_messages_on() -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, _ends):
        (hello,) = ops(discord, 2)
        assert hello["d"]["intents"] == 4096
        await discord.write(ANN, "hello", attachments=[{"filename": "a.png"}])
        await port.wait(1)
        (taken,) = port.taken
        assert (taken.sender_id, taken.conversation, taken.context, taken.text) == (ANN, CHAT, "dm", "hello")
        assert (taken.sender_name, taken.attachments) == ("Ann", ("[file: a.png]",))
        assert abs(taken.sent_at_ms - time.time() * 1000) < 60_000
        assert port.identity == {"id": BOT, "username": "fake-bot", "transport": "gateway"}


@pytest.mark.parametrize("code", [1001, 4000, 4001, 4008])
async def test_after_a_lost_connection_it_resumes_and_misses_nothing(code: int) -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, ends):
        await discord.write(ANN, "one")
        await port.wait(1)
        await discord.drop(code)
        await discord.write(ANN, "two")
        await port.wait(2)
        assert [message.text for message in port.taken] == ["one", "two"]
        (again,) = ops(discord, 6)
        assert again["d"] == {"token": TOKEN, "session_id": "session-1", "seq": 2}
        assert len(ops(discord, 2)) == 1
        assert [end.state for end in ends] == ["reconnecting"]


async def test_what_was_not_durable_comes_again_after_a_resume() -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, ends):
        port.refuse = [QueueFull("inbound", 5), StoreError("the disk is full")]
        await discord.write(ANN, "kept")
        await port.wait(1)
        assert [message.text for message in port.taken] == ["kept"]
        assert len(ops(discord, 6)) == 1
        assert "cannot be kept" in ends[0].why


async def test_reconnect_and_invalid_session_are_obeyed() -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, ends):
        await discord.say({"op": 7, "d": None})
        with trio.fail_after(5):
            await discord.until(lambda: len(ops(discord, 6)) == 1)
        discord.resumable = False
        await discord.say({"op": 7, "d": None})
        with trio.fail_after(5):
            await discord.until(lambda: len(ops(discord, 2)) == 2)
            await discord.until(lambda: discord.current is not None and discord.current.id == "session-2")
        await discord.write(ANN, "in the new session")
        await port.wait(1)
        waits = [end.after_ms for end in ends if end.why == "Discord ended the session"]
        assert all(wait is not None and 1_000 <= wait <= 5_000 for wait in waits)
        assert len(waits) == 1


@pytest.mark.parametrize("code", [4003, 4007, 4009])
async def test_codes_that_end_the_session_mean_a_new_identify(code: int) -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, _ends):
        await discord.drop(code)
        with trio.fail_after(5):
            await discord.until(lambda: len(discord.sessions) == 2)
        await discord.write(ANN)
        await port.wait(1)
        assert not ops(discord, 6)


async def test_a_heartbeat_that_is_not_acknowledged_ends_a_dead_connection() -> None:
    async with open_fake_discord() as discord:
        discord.interval_ms = 100
        discord.acknowledges = False
        async with running(discord) as (_, _port, ends):
            with trio.fail_after(5):
                await discord.until(lambda: discord.connections >= 2)
                await discord.until(lambda: len(ops(discord, 6)) >= 1)
            assert ends[0].why == "Discord no longer answers heartbeats"


async def test_heartbeats_name_the_last_event_and_are_sent_when_asked_for() -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, ends):
        await discord.write(ANN)
        await port.wait(1)
        await discord.say({"op": 1, "d": None})
        with trio.fail_after(5):
            await discord.until(lambda: ops(discord, 1))
        assert ops(discord, 1)[0]["d"] == 2
        assert not ends


async def test_heartbeats_keep_a_connection_alive() -> None:
    async with open_fake_discord() as discord:
        discord.interval_ms = 100
        async with running(discord) as (_, _port, ends):
            with trio.fail_after(5):
                await discord.until(lambda: len(ops(discord, 1)) >= 5)
            assert discord.connections == 1
            assert not ends


@pytest.mark.parametrize(
    ("code", "why"), [(4004, "bot token"), (4013, "direct messages"), (4014, "direct messages"), (4011, "cannot do")]
)
async def test_closes_that_no_retry_mends_need_a_person(code: int, why: str) -> None:
    async with open_fake_discord() as discord:
        discord.close_identify_with = code
        adapter = open_adapter("default", discord.settings())
        with trio.fail_after(5), pytest.raises(AdapterFailed, match=why) as failed:
            await adapter.run(Port())
        assert failed.value.state == "auth-failed"
        assert failed.value.fix
        assert TOKEN not in str(failed.value)


@pytest.mark.parametrize(
    "raw", ["{", "[]", "5", '"x"', "[" * 50_000, '{"op": 0}', '{"op": "0", "s": 1, "t": 5}', '{"op": 11}']
)
async def test_no_frame_breaks_it(raw: str) -> None:
    async with open_fake_discord() as discord, running(discord) as (_, port, ends):
        await discord.say(raw)
        await discord.write(ANN, "after")
        await port.wait(1)
        assert {end.state for end in ends} <= {"reconnecting"}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Told.json({"message": "401: Unauthorized", "code": 0}, 401), "auth-failed"),
        (Told.json({"message": "slow", "retry_after": 2.5}, 429), "reconnecting"),
        (Told(status=502, body=b"<html>"), "reconnecting"),
        (Told(body=b"{"), "reconnecting"),
        (Told.json({"url": "http://x"}), "reconnecting"),
        (Told.json({"url": "wss://127.0.0.1:1"}), "reconnecting"),
        (Told.json({"url": "ws://x", "session_start_limit": {"remaining": 0, "reset_after": 777_000}}), "reconnecting"),
    ],
)
async def test_each_fault_at_the_start_has_its_state(answer: Told, state: str) -> None:
    async with open_fake_discord() as discord:
        discord.commands.append(answer)
        adapter = open_adapter("default", discord.settings())
        with trio.fail_after(5), pytest.raises(AdapterFailed) as failed:
            await adapter.run(Port())
        assert failed.value.state == state
        assert TOKEN not in str(failed.value)
        if b"777000" in answer.body:
            assert failed.value.after_ms == 777_000
        if b"2.5" in answer.body:
            assert failed.value.after_ms == 2_500


@pytest.mark.parametrize(
    "change",
    [
        {"author": {"id": ANN, "bot": True}},
        {"author": {"id": BOT}},
        {"author": {}},
        {"webhook_id": "1"},
        {"type": 7},
        {"id": "x"},
        {"channel_id": None},
        {"channel_id": "1/../2"},
    ],
)
def test_what_no_person_wrote_is_no_message(change: dict[str, Any]) -> None:
    message = {"id": "175928847299117063", "channel_id": CHAT, "author": {"id": ANN}, "content": "x", "type": 0}
    assert wire.read_message(message, own_id=BOT) is not None
    assert wire.read_message({**message, **change}, own_id=BOT) is None


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["id", "author", "channel_id", "content", "type", "attachments", "bot"]), x)))  # fmt: skip
def test_no_shape_of_json_breaks_the_reading(data: Any) -> None:
    wire.read_message(data, own_id=BOT)


def test_v27_a_server_or_a_group_is_no_direct_chat() -> None:
    message = {"id": "175928847299117063", "channel_id": CHAT, "author": {"id": ANN}, "content": "x"}
    for change in ({"guild_id": "1"}, {"channel_type": 3}):
        read = wire.read_message({**message, **change}, own_id=BOT)
        assert read is not None
        assert read.context == "group"


# --- out


async def test_a_text_goes_out_once_however_often_it_is_sent() -> None:
    async with open_fake_discord() as discord, running(discord) as (adapter, _, _ends):
        for _ in range(3):
            await adapter.send(out("hi @everyone", reply_to="5"))
        await adapter.send(out("another", key="k:1"))
        assert [sent["content"] for sent in discord.sent] == ["hi @everyone", "another"]
        first = discord.sent[0]
        assert (first["channel"], first["allowed_mentions"]) == (CHAT, {"parse": []})
        assert first["message_reference"] == {"message_id": "5", "fail_if_not_exists": False}


async def test_a_notice_opens_the_direct_chat_first() -> None:
    async with open_fake_discord() as discord, running(discord) as (adapter, _, _ends):
        assert await adapter.conversation_with(ANN) == CHAT
        assert discord.service is not None
        asked = len(discord.service.asked)
        assert await adapter.conversation_with(ANN) == CHAT
        assert len(discord.service.asked) == asked


async def test_a_bucket_that_is_empty_is_left_alone() -> None:
    async with open_fake_discord() as discord, running(discord) as (adapter, _, _ends):
        discord.message_headers = {
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset-after": "30",
            "x-ratelimit-bucket": "a",
        }
        await adapter.send(out())
        with pytest.raises(RetryLater) as later:
            await adapter.send(out(key="k:1"))
        assert 29_000 < (later.value.after_ms or 0) <= 30_001
        assert not later.value.counts
        assert len(discord.sent) == 1
        await adapter.conversation_with(ANN)


async def test_429_is_obeyed_and_a_global_one_by_every_route() -> None:
    async with open_fake_discord() as discord, running(discord) as (adapter, _, _ends):
        discord.commands.append(Told.json({"message": "slow", "retry_after": 20.5, "global": True}, 429))
        with pytest.raises(RetryLater) as later:
            await adapter.send(out())
        assert 20_000 < (later.value.after_ms or 0) <= 20_501
        with pytest.raises(RetryLater):
            await adapter.conversation_with(ANN)
        assert not discord.sent


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Told.json({"message": "Cannot send messages to this user", "code": 50007}, 403), Undeliverable),
        (Told.json({"message": "Unknown Channel", "code": 10003}, 404), Undeliverable),
        (Told.json({"message": "401: Unauthorized", "code": 0}, 401), RetryLater),
        (Told(status=500), RetryLater),
        (Told(status=200, body=b"<html>"), RetryLater),
        (Told(body=b"{}  ", cut=True), RetryLater),
        (Told(status=308, headers={"location": "http://127.0.0.1:1/"}), RetryLater),
    ],
)
async def test_each_fault_of_sending_means_one_thing(answer: Told, kind: Any) -> None:
    async with open_fake_discord() as discord, running(discord) as (adapter, _, _ends):
        discord.commands.append(answer)
        with pytest.raises(kind) as failed:
            await adapter.send(out())
        assert TOKEN not in str(failed.value)


def test_buckets_are_capped_and_forget_what_is_over() -> None:
    buckets = wire.Buckets()
    for number in range(wire.MAX_BUCKETS + 100):
        buckets.learn(f"r{number}", 429, {}, {"retry_after": 100}, 0.0)
    assert len(buckets) == wire.MAX_BUCKETS
    buckets.learn("later", 429, {}, {"retry_after": 1}, 1000.0)
    assert len(buckets) == 1
    assert buckets.wait("later", 1000.5) == 0.5
    buckets.learn("odd", 429, {"retry-after": "nan"}, {"retry_after": "x"}, 2000.0)
    assert 0 < buckets.wait("odd", 2000.0) <= 1


# --- where the token may go


@pytest.mark.parametrize(
    ("url", "first", "may"),
    [
        ("wss://gateway-us-east1-b.discord.gg", "wss://gateway.discord.gg", True),
        ("wss://gateway.discord.gg", "wss://gateway.discord.gg", True),
        ("ws://gateway.discord.gg", "wss://gateway.discord.gg", False),
        ("wss://evil.example", "wss://gateway.discord.gg", False),
        ("wss://discord.gg.evil.example", "wss://gateway.discord.gg", False),
        ("wss://evildiscord.gg", "wss://gateway.discord.gg", False),
        ("wss://user@gateway.discord.gg", "wss://gateway.discord.gg", False),
        ("wss://gateway.discord.gg:444", "wss://gateway.discord.gg", False),
        ("ws://127.0.0.2:5", "ws://127.0.0.1:5", False),
        ("wss://[", "wss://gateway.discord.gg", False),
    ],
)
def test_v56_the_token_stays_with_the_service(url: str, first: str, may: bool) -> None:
    assert wire.same_service(url, first) is may


async def test_v56_a_foreign_resume_url_is_not_followed() -> None:
    async with open_fake_discord() as discord, open_fake_discord() as thief:
        discord.resume_url = thief.gateway_url.replace("127.0.0.1", "127.0.0.2")
        async with running(discord) as (_, port, _ends):
            await discord.drop()
            with trio.fail_after(5):
                await discord.until(lambda: len(ops(discord, 6)) == 1)
            await discord.write(ANN)
            await port.wait(1)
        assert thief.connections == 0


@pytest.mark.parametrize("settings", [{}, {"token": "x y"}, {"token": TOKEN, "apiRoot": "gopher://x"}])
def test_settings_that_cannot_work_are_misconfigured_with_a_command(settings: dict[str, Any]) -> None:
    with pytest.raises(AdapterFailed) as failed:
        open_adapter("work", settings)
    assert failed.value.state == "misconfigured"
    assert (failed.value.fix or "").startswith("openclaw config set channels.discord.")
    assert TOKEN not in str(failed.value)


async def test_probe_needs_no_run() -> None:
    async with open_fake_discord() as discord:
        assert (await open_adapter("default", discord.settings()).probe())["id"] == BOT
        with pytest.raises(AdapterFailed) as failed:
            await open_adapter("default", discord.settings(token="wrong-token-1")).probe()
        assert failed.value.state == "auth-failed"
