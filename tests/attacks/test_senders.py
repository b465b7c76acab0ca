"""V19 on the chat path, V27, V28, V29: getting past the gate of message channels.

Each attack runs against a whole gateway with a scripted channel; the attacker writes messages and, where the attack
says so, holds `operator.pairing` and nothing more.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.schema import ChannelConfig, DirectMessageConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.testing import ScriptedChannel, connect_peer, open_memory_gateway, open_scripted_channel

from .attacker import ALL_SCOPES, Attacker, Device, open_victim, remote_door, rpc

CHAT_COMMANDS = (
    "/pair approve {id}", "/pair approve {code}", "/approve {code}", "/approve {id}", "{code}", "/pair {code}",
    "openclaw pairing approve telegram {code}", "openclaw devices approve {device}", "/devices approve {device}",
    "/pair approve latest", "/pairing policy telegram 111 allow", "/pair\napprove {code}",
)  # fmt: skip


@asynccontextmanager
async def open_chat(channel: str = "telegram", **dm: Any) -> AsyncIterator[tuple[Gateway, ScriptedChannel]]:
    config = GatewayConfig(channels={channel: ChannelConfig(dm=DirectMessageConfig(**dm))})
    async with (
        open_memory_gateway(config) as gateway,
        open_scripted_channel(gateway.senders, channel) as scripted,
    ):
        yield gateway, scripted


def code_to(channel: ScriptedChannel, sender: str) -> str:
    text = next(message.text for message in channel.outbox if message.sender_id == sender)
    return text.split("Pairing code: ")[1].split("\n")[0]


async def let_in(gateway: Gateway, channel: ScriptedChannel, sender: str) -> None:
    await channel.write(sender)
    await gateway.senders.book.approve("telegram", code=code_to(channel, sender), actor="operator:test")


# --- V19


async def test_v19_no_text_in_a_chat_approves_anything() -> None:
    """A paired sender, and the stranger himself, know the codes and ids; saying them gives nothing."""
    async with open_victim() as gateway, open_scripted_channel(gateway.senders) as channel:
        await let_in(gateway, channel, "999")
        await channel.write("111")
        async with remote_door(gateway) as far, await Attacker.at(far) as client:
            outcome = await client.connect(client="cli", device=Device(), scopes=ALL_SCOPES, token="x" * 40)
            assert not outcome.admitted
        book = gateway.senders.book
        (request,) = book.waiting()
        facts = {"id": request.request_id, "code": code_to(channel, "111"), "device": "any"}
        for sender, text in itertools.product(("111", "222", "999"), CHAT_COMMANDS):
            await channel.write(sender, text.format(**facts))
        assert "111" in {row.sender_id for row in book.waiting()}, "and it does not end it either"
        assert {sender.sender_id for sender in book.senders()} == {"999"}
        assert (await channel.write("111", "hello")).kind == "silent"


async def test_v19_approving_a_sender_makes_nobody_a_command_owner_without_admin() -> None:
    async with open_chat() as (gateway, channel), connect_peer(gateway, scopes=("operator.pairing",)) as peer:
        await channel.write("111")
        (row,) = (await peer.request("channels.pairing.list", {}))["requests"]
        ask = {"channel": "telegram", "accountId": "default", "requestId": row["requestId"]}
        with pytest.raises(CallFailed) as refused:
            await peer.request("channels.pairing.approve", {**ask, "bootstrapCommandOwner": True})
        assert refused.value.details is not None
        assert refused.value.details["missingScope"] == "operator.admin"
        assert (await channel.write("111")).kind == "silent", "refused as a whole"
        assert len(gateway.senders.book.waiting()) == 1
        await peer.request("channels.pairing.approve", ask)
        assert (await channel.write("111")).kind == "allow"


async def test_v19_without_the_secret_http_decides_nothing() -> None:
    async with open_victim() as gateway, open_scripted_channel(gateway.senders) as channel, remote_door(gateway) as far:
        await channel.write("111")
        ask = {"channel": "telegram", "code": code_to(channel, "111")}
        for port, token in itertools.product((gateway.port, far), (None, "wrong" * 8)):
            status, _ = await rpc(port, "channels.pairing.approve", ask, token=token)
            assert status == 401
        assert (await channel.write("111")).kind == "silent"


# --- V27


async def test_v27_a_pairing_counts_in_one_account_and_one_context() -> None:
    async with open_chat() as (gateway, channel):
        await let_in(gateway, channel, "111")
        assert (await channel.write("111", "hello")).kind == "allow"
        for account in ("work", "Default", "default ", "default/", ""):
            assert (await channel.write("111", account=account)).kind != "allow", account
        for account in ("default", "work"):
            verdict = await channel.write("111", context="group", account=account)
            assert verdict.kind == "deny"
            assert "context group" in verdict.trail[-1]
        assert len(channel.delivered) == 1


async def test_v27_a_pairing_of_one_channel_counts_on_no_other() -> None:
    async with open_chat() as (gateway, telegram):
        await let_in(gateway, telegram, "175928847299117063")
        async with open_scripted_channel(gateway.senders, "discord") as discord:
            assert (await discord.write("175928847299117063")).kind == "challenge"


async def test_v27_a_code_of_one_account_opens_no_other() -> None:
    async with open_chat() as (gateway, channel), connect_peer(gateway, scopes=("operator.pairing",)) as peer:
        await channel.write("111", account="work")
        code = code_to(channel, "111")
        for wrong in ({"accountId": "default"}, {"accountId": "home"}):
            with pytest.raises(CallFailed):
                await peer.request("channels.pairing.approve", {"channel": "telegram", "code": code, **wrong})
        with pytest.raises(CallFailed):
            await peer.request("channels.pairing.approve", {"channel": "discord", "code": code})
        await peer.request("channels.pairing.approve", {"channel": "telegram", "code": code, "accountId": "work"})
        assert (await channel.write("111", account="work")).kind == "allow"
        assert (await channel.write("111", account="default")).kind == "challenge"


@pytest.mark.parametrize("session", ["allow", "pair", "deny"])
async def test_v27_no_session_policy_reaches_a_group(session: Any) -> None:
    async with open_chat(policy="open", allow_from=("111",)) as (gateway, channel):
        async with connect_peer(gateway, scopes=("operator.pairing",)) as peer:
            ask = {"channel": "telegram", "senderId": "111", "policy": session}
            await peer.request("channels.pairing.policy", ask)
        assert (await channel.write("111", context="group")).kind == "deny"


# --- V28


@pytest.mark.parametrize(
    ("channel", "listed"), [("telegram", "ann"), ("telegram", "@ann"), ("discord", "ann#1"), ("whatsapp", "Ann")]
)
async def test_v28_a_display_name_matches_nothing(channel: str, listed: str) -> None:
    async with open_chat(channel, policy="allowlist", allow_from=(listed,)) as (gateway, scripted):
        own = {"telegram": "666", "discord": "666666666666666666", "whatsapp": "+4915199999999"}[channel]
        for name in (listed, listed.lstrip("@"), listed.upper(), f" {listed} "):
            assert (await scripted.write(own, name=name)).kind == "deny"
            assert (await scripted.write(name, name=name)).kind == "deny", "an adapter that gives names gets nowhere"
        assert not scripted.delivered
        assert gateway.senders.faults[0][0] == f"channels.{channel}.dm.allowFrom"


async def test_v28_a_name_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.json"
    path.write_text('{ channels: { telegram: { dm: { allowFrom: ["123", "@ann"] } } } }')
    path.chmod(0o600)
    loaded = load_config(env={"OPENCLAW_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}, path=path)
    (issue,) = [issue for issue in loaded.issues if issue.path == "channels.telegram.dm.allowFrom"]
    assert "@ann" in issue.message
    assert issue.fix == "openclaw config set channels.telegram.dm.allowFrom '[\"123\"]'"


async def test_v28_taking_over_a_paired_ones_name_gives_nothing() -> None:
    async with open_chat() as (gateway, channel):
        await channel.write("111", name="Ann")
        await gateway.senders.book.approve("telegram", code=code_to(channel, "111"), actor="operator:test")
        assert (await channel.write("222", name="Ann")).kind == "challenge"
        assert (await channel.write("111", name="Somebody else")).kind == "allow", "and losing it costs nothing"


# --- V29


@pytest.mark.parametrize("path", ["approve", "reject", "dismiss", "mixed"])
async def test_v29_ten_wrong_codes_on_any_path_end_what_waits(path: str) -> None:
    async with open_chat() as (gateway, channel), connect_peer(gateway, scopes=("operator.pairing",)) as peer:
        for sender in ("111", "222", "333"):
            await channel.write(sender)
        right = code_to(channel, "111")
        methods = itertools.cycle(["approve", "reject", "dismiss"] if path == "mixed" else [path])
        guesses = (f"AAAAA{a}{b}{c}" for a, b, c in itertools.product("BCDEFGHJ", repeat=3))
        for number, guess in zip(range(1, 11), guesses, strict=False):
            with pytest.raises(CallFailed):
                await peer.request(f"channels.pairing.{next(methods)}", {"channel": "telegram", "code": guess})
            assert len(gateway.senders.book.waiting()) == (0 if number == 10 else 3)
        with pytest.raises(CallFailed):
            await peer.request("channels.pairing.approve", {"channel": "telegram", "code": right})
        assert (await channel.write("111")).kind == "challenge", "a new code, which the guesses say nothing about"
        newest = channel.outbox[-1].text
        assert right not in newest


async def test_v29_a_right_code_in_between_resets_nothing_for_the_others() -> None:
    async with open_chat() as (gateway, channel), connect_peer(gateway, scopes=("operator.pairing",)) as peer:
        for sender in ("111", "222"):
            await channel.write(sender)

        async def guess() -> None:
            with pytest.raises(CallFailed):
                await peer.request("channels.pairing.approve", {"channel": "telegram", "code": "AAAAAAAA"})

        for _ in range(9):
            await guess()
        ask = {"channel": "telegram", "code": code_to(channel, "111")}
        await peer.request("channels.pairing.approve", ask)
        await guess()
        assert gateway.senders.book.waiting() == ()
