"""The WhatsApp adapter against a Graph API written from Meta's documentation; V45, V47, V51, V56 on its webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.channels.adapter import AdapterFailed, Outgoing, WebhookReply, WebhookRequest
from openclaw_gateway.channels.whatsapp import WhatsAppAdapter, open_adapter, read_notification
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.testing.httpservice import Told
from openclaw_gateway.testing.whatsapp import (
    APP_SECRET,
    NUMBER,
    VERIFY_TOKEN,
    FakeWhatsApp,
    graph_fault,
    notification,
    open_fake_whatsapp,
    sign,
)

from .ports import Port

ANN = "4915112345678"


@asynccontextmanager
async def running(whatsapp: FakeWhatsApp) -> AsyncIterator[tuple[WhatsAppAdapter, Port]]:
    adapter, port = open_adapter("default", whatsapp.settings()), Port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(adapter.run, port)
        await port.wait()
        yield adapter, port
        nursery.cancel_scope.cancel()


def out(text: str = "hi", to: str = ANN, **more: Any) -> Outgoing:
    return Outgoing(key="k", conversation=to, text=text, **more)


def post(body: bytes, signature: str | None) -> WebhookRequest:
    async def read() -> bytes:
        await trio.lowlevel.checkpoint()
        return body

    return WebhookRequest("POST", {} if signature is None else {"x-hub-signature-256": signature}, {}, read)


async def bring(adapter: WhatsAppAdapter, port: Port, body: bytes) -> WebhookReply:
    return await adapter.webhook(port, post(body, sign(body)))


# --- in


async def test_a_signed_notification_brings_its_messages() -> None:
    async with open_fake_whatsapp() as whatsapp, running(whatsapp) as (adapter, port):
        assert (await bring(adapter, port, whatsapp.write(ANN, "hello"))).status == 200
        (taken,) = port.taken
        assert (taken.sender_id, taken.conversation, taken.text, taken.sender_name) == (ANN, ANN, "hello", "Ann")
        assert (taken.key, taken.context) == ("wamid.1", "dm")
        assert port.identity == {"id": NUMBER, "transport": "webhook", "name": "Test", "phone": "+1 555 0100"}


@pytest.mark.parametrize(
    "signature",
    [None, "", "sha256=", "sha1=" + "0" * 40, "sha256=" + "0" * 63, "sha256=" + "G" * 64, "SHA256=" + "0" * 64],
)
async def test_v47_without_a_signature_the_body_is_not_even_read(signature: str | None) -> None:
    adapter, port = open_adapter("default", FakeSettings), Port()

    async def read() -> bytes:
        raise AssertionError("the body was read")

    request = attrs.evolve(post(b"", signature), read=read)
    assert (await adapter.webhook(port, request)).status == 401


FakeSettings = {
    "accessToken": "T" * 20, "appSecret": APP_SECRET, "verifyToken": VERIFY_TOKEN, "phoneNumberId": NUMBER,
}  # fmt: skip


async def test_v45_a_wrong_signature_brings_nothing() -> None:
    adapter, port = open_adapter("default", FakeSettings), Port()
    body = notification(ANN)
    for wrong in (sign(body, "another secret"), sign(body + b" "), sign(b""), "sha256=" + "0" * 64):
        assert (await adapter.webhook(port, post(body, wrong))).status == 401
    changed = body.replace(b"hello", b"hullo")
    assert (await adapter.webhook(port, post(changed, sign(body)))).status == 401
    assert not port.taken
    assert (await adapter.webhook(port, post(body, sign(body)))).status == 200
    assert len(port.taken) == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1158201444"}, 200),
        ({"hub.mode": "subscribe", "hub.verify_token": "wrong", "hub.challenge": "1"}, 403),
        ({"hub.mode": "subscribe", "hub.verify_token": "", "hub.challenge": "1"}, 403),
        ({"hub.mode": "other", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1"}, 403),
        ({"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "<script>"}, 403),
        ({"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN}, 403),
        ({}, 403),
    ],
)
async def test_the_webhook_is_verified_with_its_token(query: dict[str, str], status: int) -> None:
    adapter = open_adapter("default", FakeSettings)
    reply = await adapter.webhook(Port(), attrs.evolve(post(b"", None), method="GET", query=query))
    assert reply.status == status
    assert reply.body == (b"1158201444" if status == 200 else b"Forbidden")


async def test_a_notification_that_cannot_be_kept_comes_again() -> None:
    adapter, port = open_adapter("default", FakeSettings), Port(refuse=[QueueFull("inbound", 5)])
    assert (await bring(adapter, port, notification(ANN))).status == 503
    assert (await bring(adapter, port, notification(ANN))).status == 200
    assert len(port.taken) == 1


def test_statuses_reactions_and_other_numbers_are_no_messages() -> None:
    def only(**value: Any) -> Any:
        def change(known: dict[str, Any]) -> None:
            known.clear()
            known.update({"metadata": {"phone_number_id": NUMBER}, **value})

        return change

    def read(body: bytes) -> list[Any]:
        return list(read_notification(msgspec.json.decode(body), NUMBER))

    assert len(read(notification(ANN))) == 1
    assert not read(notification(ANN, number="999999"))
    assert not read(notification(ANN, change=only(statuses=[{"id": "x", "status": "delivered"}])))
    reaction = {"from": ANN, "id": "r", "timestamp": "1", "type": "reaction", "reaction": {"emoji": "👍"}}
    assert not read(notification(ANN, change=only(messages=[reaction])))
    image = {"from": ANN, "id": "i", "timestamp": "1", "type": "image", "image": {"caption": "look"}}
    (seen,) = read(notification(ANN, change=only(messages=[image])))
    assert (seen.text, seen.attachments) == ("look", ("[photo]",))
    choice = {"button_reply": {"title": "Yes"}}
    button = {"from": ANN, "id": "b", "timestamp": "1", "type": "interactive", "interactive": choice}
    (pressed,) = read(notification(ANN, change=only(messages=[button])))
    assert pressed.text == "Yes"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["object", "entry", "changes", "value", "field", "messages", "metadata", "phone_number_id", "from", "id",
             "type", "timestamp", "text", "body", "contacts", "profile", "statuses", "errors"]
        ),
        inner,
        max_size=4,
    ),
)  # fmt: skip


@given(JSON)
def test_no_shape_of_json_breaks_the_reading(value: Any) -> None:
    body = {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]}
    for whole in (value, body):
        assert not list(read_notification(whole, NUMBER))


# --- out


async def test_a_text_goes_out_as_a_reply() -> None:
    async with open_fake_whatsapp() as whatsapp, running(whatsapp) as (adapter, _):
        whatsapp.write(ANN)
        await adapter.send(out("**hi**", reply_to="wamid.7"))
        (sent,) = whatsapp.sent
        assert (sent["to"], sent["text"]["body"], sent["context"]) == (ANN, "**hi**", {"message_id": "wamid.7"})


async def test_outside_of_the_24_hours_it_is_undeliverable_and_says_why() -> None:
    async with open_fake_whatsapp() as whatsapp, running(whatsapp) as (adapter, _):
        with pytest.raises(Undeliverable, match=r"24 hours.*templates"):
            await adapter.send(out())
        assert not whatsapp.sent


@pytest.mark.parametrize(
    ("answer", "kind", "counts"),
    [
        (graph_fault(400, 131026, "Message undeliverable"), Undeliverable, None),
        (graph_fault(400, 131030, "Recipient not in allowed list"), Undeliverable, None),
        (graph_fault(400, 130429, "Rate limit hit"), RetryLater, False),
        (graph_fault(429, 80007, "Rate limit", retry_after="7"), RetryLater, False),
        (graph_fault(500, 131000, "Something went wrong"), RetryLater, True),
        (graph_fault(401, 190, "expired"), RetryLater, True),
        (Told(status=502, body=b"<html>"), RetryLater, True),
        (Told(body=b"{}", cut=True), RetryLater, True),
        (Told(status=307, headers={"location": "http://127.0.0.1:1/"}), RetryLater, True),
    ],
)
async def test_each_fault_of_the_service_means_one_thing(answer: Told, kind: Any, counts: bool | None) -> None:
    async with open_fake_whatsapp() as whatsapp, running(whatsapp) as (adapter, _):
        whatsapp.write(ANN)
        whatsapp.commands.append(answer)
        with pytest.raises(kind) as failed:
            await adapter.send(out())
        assert "EAAG" not in str(failed.value)
        if counts is not None:
            assert failed.value.counts is counts
        if counts is False:
            with pytest.raises(RetryLater):
                await adapter.send(out())
            assert not whatsapp.sent, "nothing more is asked while WhatsApp wants to be left alone"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (graph_fault(401, 190, "expired"), "auth-failed"),
        (graph_fault(400, 100, "no such object"), "auth-failed"),
        (graph_fault(403, 10, "no permission"), "auth-failed"),
        (graph_fault(500, 1, "later"), "reconnecting"),
        (Told(body=b"["), "reconnecting"),
        (Told(body=b'{"id": "other"}'), "reconnecting"),
    ],
)
async def test_each_fault_at_the_start_has_its_state(answer: Told, state: str) -> None:
    async with open_fake_whatsapp() as whatsapp:
        whatsapp.commands.append(answer)
        adapter = open_adapter("default", whatsapp.settings())
        with trio.fail_after(5), pytest.raises(AdapterFailed) as failed:
            await adapter.run(Port())
        assert failed.value.state == state
        assert "EAAG" not in str(failed.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accessToken": ""}, {"appSecret": None}, {"verifyToken": "short"}, {"phoneNumberId": "+49151"},
        {"phoneNumberId": "../me"}, {"apiVersion": "../v1"}, {"apiRoot": "file:///"}, {"accessToken": "a b"},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_misconfigured_with_a_command(wrong: dict[str, Any]) -> None:
    with pytest.raises(AdapterFailed) as failed:
        open_adapter("work", {**FakeSettings, **wrong})
    assert failed.value.state == "misconfigured"
    assert (failed.value.fix or "").startswith("openclaw config set channels.whatsapp.")
