"""The Telegram adapter against a Bot API server written from Telegram's documentation, faults included."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway.channels import telegram as module
from openclaw_gateway.channels.adapter import AdapterFailed, Outgoing, WebhookRequest
from openclaw_gateway.channels.service import Answer
from openclaw_gateway.channels.telegram import TelegramAdapter, open_adapter, read_update
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError
from openclaw_gateway.testing.httpservice import Told
from openclaw_gateway.testing.telegram import FakeTelegram, open_fake_telegram, telegram_fault

from .ports import Port

TOKEN = "123456:fake-token-of-the-tests"


@asynccontextmanager
async def running(telegram: FakeTelegram, **settings: Any) -> AsyncIterator[tuple[TelegramAdapter, Port]]:
    adapter = open_adapter("default", {"botToken": telegram.token, "apiRoot": telegram.url, **settings})
    port = Port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(adapter.run, port)
        await port.wait()
        yield adapter, port
        nursery.cancel_scope.cancel()


def out(text: str = "hi", **more: Any) -> Outgoing:
    return Outgoing(key="k", conversation="111", text=text, **more)


# --- receiving


async def test_messages_come_in_order_and_are_confirmed_once_taken() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (_, port):
        for number in range(250):
            telegram.write(111, f"text {number}")
        await port.wait(250)
        assert [message.text for message in port.taken] == [f"text {number}" for number in range(250)]
        with trio.fail_after(5):
            await telegram.wait_confirmed()
        first = port.taken[0]
        assert (first.sender_id, first.conversation, first.context, first.sender_name) == ("111", "111", "dm", "Ann")
        assert first.key.startswith("123456:"), "another bot's update of the same number is another message"
        assert port.identity == {"id": "123456", "username": "fake_bot", "transport": "polling"}


async def test_what_is_not_durable_is_not_confirmed() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (_, port):
        port.refuse = [QueueFull("inbound", 50), QueueFull("inbound", 50)]
        telegram.write(111, "one")
        await port.wait(1)
        assert [message.text for message in port.taken] == ["one"]


async def test_a_store_that_cannot_write_ends_the_poll_and_the_update_comes_again() -> None:
    async with open_fake_telegram() as telegram:
        adapter = open_adapter("default", {"botToken": TOKEN, "apiRoot": telegram.url})
        port = Port(refuse=[StoreError("the disk is full")])
        telegram.write(111, "kept")
        with trio.fail_after(5), pytest.raises(AdapterFailed) as failed:
            await adapter.run(port)
        assert failed.value.state == "reconnecting"
        assert telegram.unconfirmed == 1
        async with running(telegram) as (_, again):
            await again.wait(1)
            assert again.taken[0].text == "kept"


async def test_pair10_history_is_not_live_and_what_came_a_moment_ago_is() -> None:
    async with open_fake_telegram() as telegram:
        for _ in range(50):
            telegram.write(222, "old", age=module.RECENT_SECONDS + 60)
        telegram.write(222, "fresh")
        async with running(telegram) as (_, port):
            await port.wait(51)
            assert [message.live for message in port.taken] == [False] * 50 + [True]
            telegram.write(222, "now")
            await port.wait(52)
            assert port.taken[-1].live


async def test_an_album_is_one_message() -> None:
    async with open_fake_telegram() as telegram:
        telegram.write(111, None, photo=[{}], media_group_id="g", caption="Look")
        telegram.write(111, None, photo=[{}], media_group_id="g")
        telegram.write(111, None, video={}, media_group_id="g")
        telegram.write(111, None, photo=[{}], media_group_id="h")
        telegram.write(111, "after")
        async with running(telegram) as (_, port):
            await port.wait(3)
            assert [(one.text, one.attachments) for one in port.taken] == [
                ("Look", ("[photo]", "[photo]", "[video]")),
                ("", ("[photo]",)),
                ("after", ()),
            ]
            with trio.fail_after(5):
                await telegram.wait_confirmed()


NOT_A_MESSAGE: list[Any] = [
    {}, {"message": None}, {"message": []}, {"message": {"chat": {"id": 1}}}, {"edited_message": {"text": "x"}},
    {"message": {"chat": {"id": 1, "type": "private"}, "from": {"id": 2, "is_bot": True}, "date": 1, "text": "bot"}},
    {"message": {"chat": {"id": "1"}, "from": {"id": 2}, "date": 1, "text": "x"}},
    {"message": {"chat": {"id": 1}, "from": {"id": "2"}, "date": 1, "text": "x"}},
    {"message": {"chat": {"id": 1}, "from": {"id": 2}, "date": "now", "text": "x"}},
]  # fmt: skip


async def test_updates_that_are_no_message_are_confirmed_and_forgotten() -> None:
    async with open_fake_telegram() as telegram:
        for update in NOT_A_MESSAGE:
            assert read_update({"update_id": 1, **update}) is None
            telegram.deliver(update)
        async with running(telegram) as (_, port):
            telegram.write(111, "real")
            await port.wait(1)
            assert [message.text for message in port.taken] == ["real"]


def test_v28_the_sender_is_the_number_and_a_group_is_no_direct_chat() -> None:
    message = {
        "message_id": 5, "date": 1, "text": "hi", "message_thread_id": 7, "is_topic_message": True,
        "chat": {"id": -100, "type": "supergroup"}, "from": {"id": 42, "first_name": "111", "username": "111"},
    }  # fmt: skip
    read = read_update({"update_id": 1, "message": message})
    assert read is not None
    assert (read.sender_id, read.context, read.conversation, read.thread) == ("42", "group", "-100", "7")


@pytest.mark.parametrize(
    ("media", "line"),
    [
        ({"photo": [{}]}, "[photo]"),
        ({"document": {"file_name": "a.pdf"}}, "[file: a.pdf]"),
        ({"voice": {}}, "[voice message]"),
        ({"animation": {}, "document": {}}, "[animation]"),
    ],
)
def test_media_become_a_line_of_words(media: dict[str, Any], line: str) -> None:
    chat = {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, "from": {"id": 1}, **media}
    read = read_update({"update_id": 1, "message": chat})
    assert read is not None
    assert read.attachments == (line,)


async def test_a_server_that_answers_a_poll_at_once_is_not_asked_in_a_loop(autojump_clock: Any) -> None:
    polls = 0

    class Hasty:
        async def call(self, method: str, path: str, **more: Any) -> Any:
            nonlocal polls
            await trio.lowlevel.checkpoint()
            polls += path == "getUpdates"
            return Answer(200, {}, b'{"ok": true, "result": []}')

    adapter = open_adapter("default", {"botToken": TOKEN})
    adapter._service = Hasty()  # type: ignore[assignment]
    with trio.move_on_after(30):
        await adapter._poll(Port())
    assert 0 < polls <= 30 / module.IDLE_SECONDS + 2


# --- faults


FAULTS = [
    (telegram_fault(401, "Unauthorized"), "auth-failed"),
    (telegram_fault(404, "Not Found"), "auth-failed"),
    (telegram_fault(409, "Conflict: terminated by other getUpdates request"), "conflict"),
    (telegram_fault(429, "Too Many Requests: retry after 7", retry_after=7), "reconnecting"),
    (telegram_fault(500, "Internal Server Error"), "reconnecting"),
    (Told(body=b"<html>"), "reconnecting"),
    (Told(body=b'{"ok": true'), "reconnecting"),
    (Told(body=b"[" * 100_000), "reconnecting"),
    (Told(status=302, headers={"location": "http://127.0.0.1:1/"}), "reconnecting"),
    (Told(body=b'{"ok": true, "result": []}', cut=True), "reconnecting"),
    (Told(body=b" " * (5 * 1024 * 1024)), "reconnecting"),
]
NO_LIST = Told(body=b'{"ok": true, "result": 5}')


@pytest.mark.parametrize(
    ("method", "answer", "state"),
    [
        *(("getMe", *fault) for fault in FAULTS),
        *(("getUpdates", *fault) for fault in FAULTS),
        ("getUpdates", NO_LIST, "reconnecting"),
    ],
)
async def test_each_fault_of_the_service_has_its_state(method: str, answer: Told, state: str) -> None:
    async with open_fake_telegram() as telegram:
        telegram.fail_next(method, answer)
        adapter = open_adapter("default", {"botToken": TOKEN, "apiRoot": telegram.url})
        with trio.fail_after(10), pytest.raises(AdapterFailed) as failed:
            await adapter.run(Port())
        assert failed.value.state == state
        assert "fake-token" not in str(failed.value) + repr(failed.value)
        if "retry after" in str(answer.body):
            assert failed.value.after_ms == 7_000


async def test_nobody_there_is_reconnecting() -> None:
    adapter = open_adapter("default", {"botToken": TOKEN, "apiRoot": "http://127.0.0.1:1"})
    with trio.fail_after(10), pytest.raises(AdapterFailed) as failed:
        await adapter.run(Port())
    assert failed.value.state == "reconnecting"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"botToken": ""},
        {"botToken": "no token"},
        {"botToken": "1:a/../../x"},
        {"botToken": 5},
        {"botToken": TOKEN, "apiRoot": "ftp://x"},
        {"botToken": TOKEN, "apiRoot": "http://user:pw@x"},
        {"botToken": TOKEN, "webhookUrl": "nonsense"},
        {"botToken": TOKEN, "webhookSecret": "short"},
    ],
)
def test_settings_that_cannot_work_are_misconfigured_with_a_command(settings: dict[str, Any]) -> None:
    with pytest.raises(AdapterFailed) as failed:
        open_adapter("work", settings)
    assert failed.value.state == "misconfigured"
    assert failed.value.fix is not None
    assert failed.value.fix.startswith("openclaw config ")
    assert "fake-token" not in str(failed.value)


# --- sending


async def test_a_text_goes_out_as_html_as_a_reply() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, _):
        await adapter.send(out("**hi** <you>", reply_to="7"))
        (sent,) = telegram.sent
        assert (sent["text"], sent["shown"]) == ("<b>hi</b> &lt;you&gt;", "hi <you>")
        assert sent["reply_parameters"] == {"message_id": 7, "allow_sending_without_reply": True}


async def test_html_that_telegram_cannot_parse_goes_out_plain() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, _):
        telegram.fail_next("sendMessage", telegram_fault(400, "Bad Request: can't parse entities: oh no"))
        await adapter.send(out("**hi**"))
        assert [(sent["text"], sent.get("parse_mode")) for sent in telegram.sent] == [("**hi**", None)]


@pytest.mark.parametrize(
    "answer",
    [
        telegram_fault(403, "Forbidden: bot was blocked by the user"),
        telegram_fault(400, "Bad Request: chat not found"),
    ],
)
async def test_what_can_never_arrive_is_undeliverable(answer: Told) -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, _):
        telegram.fail_next("sendMessage", answer)
        with pytest.raises(Undeliverable, match=r"blocked|not found"):
            await adapter.send(out())


@pytest.mark.parametrize("answer", [telegram_fault(500), Told(body=b"{", status=502), Told(body=b"{}  ", cut=True)])
async def test_trouble_while_sending_is_tried_again(answer: Told) -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, _):
        telegram.fail_next("sendMessage", answer)
        with pytest.raises(RetryLater) as later:
            await adapter.send(out())
        assert later.value.counts
        assert "fake-token" not in str(later.value)


async def test_429_holds_every_message_back_as_long_as_telegram_asked() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, _):
        telegram.fail_next("sendMessage", telegram_fault(429, "Too Many Requests", retry_after=30))
        for _ in range(2):
            with pytest.raises(RetryLater) as later:
                await adapter.send(out())
            assert 29_000 <= (later.value.after_ms or 0) <= 30_001
            assert not later.value.counts
        assert telegram.calls.count("sendMessage") == 1, "the second one was not even asked"


# --- webhooks

HOOK = "https://gateway.example/channels/telegram/default/webhook"


def request(body: bytes, secret: str | None, *, method: str = "POST") -> WebhookRequest:
    async def read() -> bytes:
        await trio.lowlevel.checkpoint()
        return body

    headers = {} if secret is None else {"x-telegram-bot-api-secret-token": secret}
    return WebhookRequest(method, headers, {}, read)


def unread() -> Any:
    raise AssertionError("the body was read")


UPDATE = (
    b'{"update_id": 5, "message": {"message_id": 1, "date": 1, "text": "hi", "chat": {"id": 1, "type": "private"}, '
    b'"from": {"id": 1}}}'
)


async def test_v45_a_webhook_is_known_by_its_secret_before_its_body_is_read() -> None:
    async with open_fake_telegram() as telegram, running(telegram, webhookUrl=HOOK) as (adapter, port):
        assert telegram.webhook is not None
        secret = telegram.webhook["secret_token"]
        assert telegram.webhook["url"] == HOOK
        assert len(secret) >= 32
        for wrong in (None, "", "x", secret[:-1], secret.upper(), "é"):
            reply = await adapter.webhook(port, attrs.evolve(request(b"", wrong), read=unread))
            assert reply.status == 401
        assert not port.taken
        assert (await adapter.webhook(port, request(UPDATE, secret))).status == 200
        assert port.taken[0].key == "123456:5"
        assert (await adapter.webhook(port, request(b"{", secret))).status == 400
        assert (await adapter.webhook(port, request(b"[]", secret))).status == 200
        port.refuse = [QueueFull("inbound", 5)]
        assert (await adapter.webhook(port, request(UPDATE, secret))).status == 503, "Telegram brings it again"


async def test_v45_without_a_webhook_configured_there_is_none() -> None:
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, port):
        reply = await adapter.webhook(port, attrs.evolve(request(b"", "x"), read=unread))
        assert reply.status == 404


async def test_logout_takes_the_webhook_back_and_without_one_there_is_nothing() -> None:
    async with open_fake_telegram() as telegram:
        async with running(telegram) as (adapter, _):
            assert not await adapter.logout()
        stopped = open_adapter("default", {"botToken": TOKEN, "apiRoot": telegram.url, "webhookUrl": HOOK})
        telegram.webhook = {"url": HOOK}
        assert await stopped.logout()
        assert telegram.webhook is None


async def test_probe_needs_no_run() -> None:
    async with open_fake_telegram() as telegram:
        adapter = open_adapter("default", {"botToken": TOKEN, "apiRoot": telegram.url})
        assert (await adapter.probe())["username"] == "fake_bot"
        wrong = open_adapter("default", {"botToken": "1:wrong", "apiRoot": telegram.url})
        with pytest.raises(AdapterFailed) as failed:
            await wrong.probe()
        assert failed.value.state == "auth-failed"


async def test_v51_no_log_line_holds_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    async with open_fake_telegram() as telegram, running(telegram) as (adapter, port):
        telegram.write(111)
        await port.wait(1)
        await adapter.send(out())
    assert not [record for record in caplog.records if "fake-token" in record.getMessage()]


async def test_v56_a_redirect_carries_the_token_nowhere() -> None:
    async with open_fake_telegram() as telegram, open_fake_telegram() as thief, running(telegram) as (adapter, _):
        where = f"{thief.url}/bot{TOKEN}/sendMessage"
        telegram.fail_next("sendMessage", Told(status=307, headers={"location": where}))
        with pytest.raises(RetryLater):
            await adapter.send(out())
        assert thief.service is not None
        assert not thief.service.asked
