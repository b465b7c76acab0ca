"""V27 to V29, V45, V47, V51, V56 against real adapters in a whole gateway; only their services are fakes."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig, ChannelConfig, DirectMessageConfig, LoggingConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.ops.log import open_log
from openclaw_gateway.server import channelhooks, incoming
from openclaw_gateway.testing import connect_peer
from openclaw_gateway.testing.discord import FakeDiscord, open_fake_discord
from openclaw_gateway.testing.httpservice import Told
from openclaw_gateway.testing.telegram import FakeTelegram, open_fake_telegram, telegram_fault
from openclaw_gateway.testing.whatsapp import APP_SECRET, VERIFY_TOKEN, FakeWhatsApp, open_fake_whatsapp, sign
from openclaw_gateway.testing.whatsapp import TOKEN as WHATSAPP_TOKEN

from .attacker import TOKEN, Attacker, http, legit_client_works, remote_door

HOOK_SECRET = "webhook-secret-of-the-attack-tests"
PATHS = {name: f"/channels/{name}/default/webhook" for name in ("telegram", "discord", "whatsapp")}

UPDATE = json.dumps(
    {
        "update_id": 7,
        "message": {
            "message_id": 1, "date": 1, "text": "let me in", "chat": {"id": 1, "type": "private"}, "from": {"id": 1},
        },
    }
).encode()  # fmt: skip
READS = (
    "health", "status", "channels.status", "system-presence", "config.get", "queue.list", "sessions.list",
    "diagnostics.stability", "channels.pairing.list", "agents.list", "system.info", "logs.tail", "models.list",
)  # fmt: skip


class World:
    def __init__(self, gateway: Gateway, telegram: FakeTelegram, discord: FakeDiscord, whatsapp: FakeWhatsApp) -> None:
        self.gateway, self.telegram, self.discord, self.whatsapp = gateway, telegram, discord, whatsapp

    async def connected(self) -> None:
        hub = self.gateway.messaging.channels
        assert hub is not None
        with trio.fail_after(10):
            while not all(account.connected for account in hub.accounts):  # noqa: ASYNC110 - nothing tells it
                await trio.sleep(0.01)


@asynccontextmanager
async def open_world(
    policy: Any = "pairing", *, webhook: bool = False, tmp_path: Path | None = None
) -> AsyncIterator[World]:
    async with open_fake_telegram() as telegram, open_fake_discord() as discord, open_fake_whatsapp() as whatsapp:
        extras: dict[str, dict[str, Any]] = {
            "telegram": {"botToken": telegram.token, "apiRoot": telegram.url},
            "discord": discord.settings(),
            "whatsapp": whatsapp.settings(),
        }
        if webhook:
            extras["telegram"] |= {"webhookUrl": "https://gateway.example/x", "webhookSecret": HOOK_SECRET}
        dm = DirectMessageConfig(policy=policy)
        config = GatewayConfig(
            port=0,
            auth=AuthConfig(type="token", token=TOKEN),
            channels={name: ChannelConfig(dm=dm, extra=extra) for name, extra in extras.items()},
            state_dir=tmp_path,
        )
        async with open_gateway(config, env={}) as gateway:
            world = World(gateway, telegram, discord, whatsapp)
            await world.connected()
            yield world


def code_in(text: str) -> str:
    return text.split("Pairing code: ")[1].split("\n")[0]


async def bring(port: int, body: bytes, signature: str | None = None) -> int:
    headers = {"content-type": "application/json", "x-hub-signature-256": signature or sign(body)}
    status, _, _ = await http(port, "POST", PATHS["whatsapp"], headers=headers, body=body)
    return status


# --- V27, V28, V29 over the services' own wires


async def test_v27_paired_on_one_service_is_a_stranger_on_every_other_and_in_groups() -> None:
    async with open_world() as world:
        telegram, discord, whatsapp = world.telegram, world.discord, world.whatsapp
        telegram.write(111)
        with trio.fail_after(10):
            (challenge,) = await telegram.wait_sent(1)
        book = world.gateway.senders.book
        await book.approve("telegram", code=code_in(challenge["text"]), actor="operator:test")
        telegram.write(111, "for the agent")
        with trio.fail_after(10):
            await telegram.wait_sent(2)
        assert "for the agent" in telegram.sent[1]["text"]
        telegram.write(111, "in a group", chat={"id": -5, "type": "group"})
        telegram.write(111, "again")
        await discord.write("111111111111111111", "me again")
        assert await bring(world.gateway.port, whatsapp.write("4911111111", "me again")) == 200
        with trio.fail_after(10):
            await telegram.wait_sent(3)
            await discord.until(lambda: discord.sent)
            await whatsapp.wait_sent(1)
        assert "again" in telegram.sent[2]["text"]
        assert not telegram.texts_to(-5)
        assert "Pairing code" in discord.sent[0]["content"]
        assert "Pairing code" in whatsapp.sent[0]["text"]["body"]


async def test_v28_the_name_of_a_paired_one_opens_nothing() -> None:
    async with open_world() as world:
        telegram = world.telegram
        telegram.write(111)
        with trio.fail_after(10):
            (challenge,) = await telegram.wait_sent(1)
        book = world.gateway.senders.book
        await book.approve("telegram", code=code_in(challenge["text"]), actor="operator:test")
        impostor: dict[str, Any] = {"from": {"id": 222, "is_bot": False, "first_name": "Ann", "username": "111"}}
        telegram.write(222, **impostor)
        with trio.fail_after(10):
            await telegram.wait_sent(2)
        assert "Pairing code" in telegram.texts_to(222)[0]


async def test_v29_ten_wrong_codes_end_what_waits() -> None:
    async with open_world() as world, connect_peer(world.gateway, scopes=("operator.pairing",)) as peer:
        world.telegram.write(111)
        with trio.fail_after(10):
            (challenge,) = await world.telegram.wait_sent(1)
        for letters in itertools.islice(itertools.product("BCDEFGHJ", repeat=3), 10):
            ask = {"channel": "telegram", "code": "AAAAA" + "".join(letters)}
            with pytest.raises(CallFailed):
                await peer.request("channels.pairing.approve", ask)
        with pytest.raises(CallFailed):
            await peer.request("channels.pairing.approve", {"channel": "telegram", "code": code_in(challenge["text"])})


# --- V45, V47: webhooks on the gateway's port


async def test_v45_nobody_on_loopback_or_elsewhere_gets_in_without_the_services_own_secret() -> None:
    async with open_world("open", webhook=True) as world, remote_door(world.gateway) as far:
        runs = world.gateway.messaging.runs
        notification = world.whatsapp.write("4911111111")
        attempts: list[tuple[str, dict[str, str], bytes]] = [
            ("telegram", {}, UPDATE),
            ("telegram", {"authorization": f"Bearer {TOKEN}"}, UPDATE),
            ("telegram", {"x-telegram-bot-api-secret-token": "x" * len(HOOK_SECRET)}, UPDATE),
            ("telegram", {"x-telegram-bot-api-secret-token": HOOK_SECRET + ", " + HOOK_SECRET}, UPDATE),
            ("whatsapp", {}, notification),
            ("whatsapp", {"authorization": f"Bearer {TOKEN}"}, notification),
            ("whatsapp", {"x-hub-signature-256": sign(notification, "guess")}, notification),
            ("whatsapp", {"x-hub-signature-256": sign(b"")}, notification),
        ]
        for port, (name, headers, sent) in itertools.product((world.gateway.port, far), attempts):
            forged = {"x-forwarded-for": "127.0.0.1", "content-type": "application/json", **headers}
            status, _, _ = await http(port, "POST", PATHS[name], headers=forged, body=sent)
            assert status == 401, (name, headers)
        for name in ("discord", "signal", "telegram/../whatsapp"):
            status, _, _ = await http(world.gateway.port, "POST", f"/channels/{name}/default/webhook", body=UPDATE)
            assert status in {400, 404}
        for path in ("/channels/", "/channels/telegram/default", "/channels/telegram/other/webhook", PATHS["discord"]):
            assert (await http(world.gateway.port, "POST", path, body=UPDATE))[0] == 404
        assert not runs.active()
        assert world.gateway.messaging.inbound.counts["waiting"] == 0
        assert not world.telegram.sent + world.whatsapp.sent
        headers = {"x-telegram-bot-api-secret-token": HOOK_SECRET, "content-type": "application/json"}
        assert (await http(far, "POST", PATHS["telegram"], headers=headers, body=UPDATE))[0] == 200
        with trio.fail_after(10):
            await world.telegram.wait_sent(1)
        assert await bring(far, notification) == 200
        with trio.fail_after(10):
            await world.whatsapp.wait_sent(1)


async def test_v47_without_a_secret_not_one_byte_of_a_body_is_waited_for() -> None:
    async with open_world(webhook=True) as world:
        for name, header in (("telegram", "x-telegram-bot-api-secret-token: wrong"), ("whatsapp", "x-a: b")):
            async with await Attacker.at(world.gateway.port) as client:
                head = f"POST {PATHS[name]} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: 1000000\r\n\r\n"
                await client.send(head.encode())
                with trio.fail_after(8):
                    status, _ = await client.read_head()
                assert status == 401


async def test_v47_a_body_is_at_most_1_mib_and_10_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (incoming.MAX_BODY_BYTES, incoming.BODY_SECONDS) == (1024 * 1024, 10.0)
    async with open_world(webhook=True) as world:
        monkeypatch.setattr(incoming, "BODY_SECONDS", 0.3)
        port = world.gateway.port
        secret = f"x-telegram-bot-api-secret-token: {HOOK_SECRET}"
        well_formed = f"x-hub-signature-256: {sign(b'guess')}"
        for name, header in (("telegram", secret), ("whatsapp", well_formed)):
            for length, wanted in (("1048577", 413), ("5000", 408)):
                async with await Attacker.at(port) as client, trio.open_nursery() as nursery:
                    head = f"POST {PATHS[name]} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
                    await client.send(f"{head}Content-Length: {length}\r\n\r\n".encode())

                    async def drip(client: Attacker = client) -> None:
                        with contextlib.suppress(trio.BrokenResourceError):
                            while True:
                                await client.send(b" ")
                                await trio.sleep(0.02)

                    nursery.start_soon(drip)
                    with trio.fail_after(5):
                        status, _ = await client.read_head()
                    assert status == wanted, (name, length)
                    nursery.cancel_scope.cancel()
        monkeypatch.undo()  # an honest client has as long as ever
        await legit_client_works(port)


async def test_v47_one_address_cannot_keep_a_service_out() -> None:
    async with open_world(webhook=True) as world, remote_door(world.gateway, "192.0.2.8") as meta:
        head = f"POST {PATHS['whatsapp']} HTTP/1.1\r\nHost: localhost\r\nx-hub-signature-256: {sign(b'')}\r\n"
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(channelhooks.MAX_OF_ONE_ADDRESS):
                client = await stack.enter_async_context(await Attacker.at(world.gateway.port))
                await client.send(f"{head}Content-Length: 9\r\n\r\n".encode())
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert await bring(world.gateway.port, b"{}") == 503
            assert await bring(meta, b"{}") == 200


async def test_v45_the_webhook_is_verified_only_with_its_token() -> None:
    async with open_world(webhook=True) as world:
        right = f"hub.mode=subscribe&hub.challenge=12345&hub.verify_token={VERIFY_TOKEN}"
        status, _, body = await http(world.gateway.port, "GET", f"{PATHS['whatsapp']}?{right}")
        assert (status, body) == (200, b"12345")
        wrong = right.replace(VERIFY_TOKEN, "guess")
        assert (await http(world.gateway.port, "GET", f"{PATHS['whatsapp']}?{wrong}"))[0] == 403
        assert (await http(world.gateway.port, "GET", PATHS["telegram"]))[0] == 401


async def test_s116_with_http_switched_off_there_is_no_webhook() -> None:
    async with open_world(webhook=True) as world:
        config = world.gateway.config
        http_off = attrs.evolve(config.transports.http, enabled=False)
        transports = attrs.evolve(config.transports, http=http_off)
        world.gateway.apply(attrs.evolve(config, transports=transports), world.gateway.auth)
        headers = {"x-telegram-bot-api-secret-token": HOOK_SECRET}
        assert (await http(world.gateway.port, "POST", PATHS["telegram"], headers=headers, body=b"{}"))[0] == 404


# --- V51: the seeded-secret sweep


@pytest.mark.expect_error_log("message given up")
async def test_v51_no_secret_of_a_channel_is_in_any_answer_event_log_or_file(tmp_path: Path) -> None:
    log_file = tmp_path / "sweep.log"
    heard: list[str] = []
    with open_log(LoggingConfig(level="debug", file=log_file), tmp_path):
        async with open_world("open", webhook=True, tmp_path=tmp_path / "state") as world:
            seeded = [
                world.telegram.token, HOOK_SECRET, "fake.token-of-the-discord",
                WHATSAPP_TOKEN, APP_SECRET, VERIFY_TOKEN,
            ]  # fmt: skip
            async with connect_peer(world.gateway, scopes=("operator.read", "operator.admin")) as peer:
                await bring(world.gateway.port, world.whatsapp.write("4911111111"))
                await bring(world.gateway.port, world.whatsapp.write("4911111111"), sign(b"wrong"))
                world.whatsapp.commands.append(Told(status=500))
                await world.discord.write("111111111111111111")
                await world.discord.drop(4000)
                world.telegram.fail_next("sendMessage", telegram_fault(403, "Forbidden"))
                headers = {"x-telegram-bot-api-secret-token": HOOK_SECRET}
                await http(world.gateway.port, "POST", PATHS["telegram"], body=UPDATE, headers=headers)
                with trio.fail_after(10):
                    while world.gateway.messaging.outbound.counts["dead"] == 0:  # noqa: ASYNC110 - nothing tells it
                        await trio.sleep(0.02)
                for method in READS:
                    for params in ({}, {"probe": True}):
                        with contextlib.suppress(CallFailed):
                            heard.append(json.dumps(await peer.request(method, params)))
                for name in ("telegram", "discord", "whatsapp"):
                    await peer.request("channels.stop", {"channel": name})
                    await peer.request("channels.logout", {"channel": name})
    everything = "\n".join(heard) + log_file.read_text()
    assert "channel state" in everything, "the sweep sees the channels"
    assert len(heard) > 10
    for secret in seeded:
        assert secret not in everything, secret[:6]
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in seeded if secret.encode() in content], path
    logging.getLogger("httpx").setLevel(logging.NOTSET)


# --- V56: what goes out


async def test_v56_no_service_learns_the_gateways_own_credentials() -> None:
    async with open_world("open") as world:
        world.telegram.write(111)
        await world.discord.write("111111111111111111")
        await bring(world.gateway.port, world.whatsapp.write("4911111111"))
        with trio.fail_after(10):
            await world.telegram.wait_sent(1)
            await world.discord.until(lambda: world.discord.sent)
            await world.whatsapp.wait_sent(1)
        token_of = {"discord": "discord", "whatsapp": WHATSAPP_TOKEN}
        for fake in (world.telegram, world.discord, world.whatsapp):
            assert fake.service is not None
            asked = [f"{one.path} {dict(one.headers)} {one.body!r}" for one in fake.service.asked]
            assert asked
            assert not [one for one in asked if TOKEN in one]
        assert world.telegram.service is not None
        assert not [one for one in world.telegram.service.asked if token_of["whatsapp"] in str(one)]
