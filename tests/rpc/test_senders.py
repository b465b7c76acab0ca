"""`channels.pairing.*` and `pairing.list` over a real session: shapes, scopes, events, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.schema import ChannelConfig, DirectMessageConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.testing import (
    ScriptedChannel,
    ScriptedPeer,
    connect_peer,
    open_memory_gateway,
    open_scripted_channel,
)

PAIRING = ("operator.pairing",)


@asynccontextmanager
async def open_hub(**dm: Any) -> AsyncIterator[tuple[Gateway, ScriptedChannel, ScriptedPeer]]:
    config = GatewayConfig(channels={"telegram": ChannelConfig(dm=DirectMessageConfig(**dm))})
    async with (
        open_memory_gateway(config) as gateway,
        open_scripted_channel(gateway.senders) as channel,
        connect_peer(gateway, scopes=PAIRING) as peer,
    ):
        yield gateway, channel, peer


def code_in(channel: ScriptedChannel) -> str:
    return channel.outbox[-1].text.split("Pairing code: ")[1].split("\n")[0]


async def refused(peer: ScriptedPeer, method: str, params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    return failed.value


async def test_the_list_has_the_shape_of_openclaws_schema() -> None:
    async with open_hub() as (_, channel, peer):
        assert await peer.request("channels.pairing.list", {}) == {
            "accounts": [
                {"channel": "telegram", "channelLabel": "Telegram", "accountId": "default", "notifySupported": True}
            ],
            "requests": [],
            "commandOwnerConfigured": False,
            "limits": {"pendingPerAccount": 3, "ttlMs": 3_600_000},
        }
        await channel.write("111", name="Ann")
        (row,) = (await peer.request("channels.pairing.list", {"channel": "telegram"}))["requests"]
        assert set(row) == {
            "requestId", "channel", "channelLabel", "accountId", "senderId", "senderLabel", "metadata", "createdAt",
            "lastSeenAt", "expiresAt", "notifySupported",
        }  # fmt: skip
        assert (row["senderId"], row["senderLabel"], row["metadata"]) == ("111", "Ann", {"name": "Ann"})
        assert row["createdAt"].endswith("Z")
        assert code_in(channel) not in str(row), "the schema has no place for a code"
        assert (await peer.request("channels.pairing.list", {"channel": "discord"}))["requests"] == []
        assert (await peer.request("channels.pairing.list", {"accountId": "work"}))["accounts"] == []


async def test_s077_approve_by_request_id_as_the_official_ui_does() -> None:
    async with open_hub() as (_, channel, peer):
        await channel.write("111")
        requested = await peer.expect_event("channel.pairing.requested")
        answer = await peer.request(
            "channels.pairing.approve",
            {
                "channel": "telegram", "accountId": "default", "requestId": requested["requestId"], "notify": True,
                "bootstrapCommandOwner": False,
            },
        )  # fmt: skip
        assert answer == {
            "requestId": requested["requestId"],
            "senderId": "111",
            "notification": "sent",
            "commandOwnerBootstrap": "not-requested",
        }
        resolved = await peer.expect_event("channel.pairing.resolved")
        assert (resolved["requestId"], resolved["decision"]) == (requested["requestId"], "approved")
        assert (await channel.write("111", "hello")).kind == "allow"


async def test_s078_reject_and_dismiss() -> None:
    async with open_hub() as (_, channel, peer):
        for sender, method in (("111", "channels.pairing.reject"), ("222", "channels.pairing.dismiss")):
            await channel.write(sender)
            answer = await peer.request(method, {"channel": "telegram", "code": code_in(channel)})
            assert answer["senderId"] == sender
            assert set(answer) == {"requestId", "senderId"}
        assert (await peer.request("channels.pairing.list", {}))["requests"] == []


async def test_each_refusal_names_the_next_command() -> None:
    async with open_hub() as (_, channel, peer):
        unknown = await refused(peer, "channels.pairing.approve", {"channel": "telegram", "code": "AAAAAAAA"})
        assert unknown.details is not None
        assert unknown.details["code"] == "PAIRING_CODE_UNKNOWN"
        for params, code in (
            ({"channel": "telegram", "accountId": "default", "requestId": "nope"}, "UNKNOWN_REQUEST_ID"),
            ({"channel": "discord", "requestId": "nope"}, "UNKNOWN_REQUEST_ID"),
        ):
            error = await refused(peer, "channels.pairing.dismiss", params)
            assert error.details is not None
            assert error.details["code"] == code
            assert "unknown requestId" in error.message
        for params in ({"channel": "telegram"}, {"channel": "telegram", "code": "x", "requestId": "y"}):
            error = await refused(peer, "channels.pairing.approve", params)
            assert "requestId" in error.message
        await channel.write("111")
        for _ in range(10):
            error = await refused(peer, "channels.pairing.approve", {"channel": "telegram", "code": "AAAAAAAA"})
        assert error.details is not None
        assert error.details["code"] == "PAIRING_CODES_EXPIRED"


async def test_s080_policy_get_set_clear() -> None:
    async with open_hub() as (_, channel, peer):
        ask = {"channel": "telegram", "senderId": "tg:111"}
        assert (await peer.request("channels.pairing.policy", ask))["policy"] is None
        for policy, kind in (("allow", "allow"), ("deny", "deny"), ("pair", "challenge")):
            answer = await peer.request("channels.pairing.policy", {**ask, "policy": policy})
            assert (answer["policy"], answer["senderId"]) == (policy, "111")
            assert (await channel.write("111")).kind == kind
        assert (await peer.request("channels.pairing.policy", ask))["policy"] == "pair"
        assert (await peer.request("channels.pairing.policy", {**ask, "policy": "clear"}))["policy"] is None
        error = await refused(peer, "channels.pairing.policy", {**ask, "senderId": "@ann", "policy": "allow"})
        assert error.details is not None
        assert error.details["code"] == "SENDER_ID_INVALID"
        await refused(peer, "channels.pairing.policy", {**ask, "policy": "admin"})


async def test_s081_history() -> None:
    async with open_hub() as (_, channel, peer):
        await channel.write("111", name="Ann")
        await peer.request("channels.pairing.approve", {"channel": "telegram", "code": code_in(channel)})
        entries = (await peer.request("channels.pairing.history", {"limit": 1}))["entries"]
        assert [entry["event"] for entry in entries] == ["approved"]
        assert entries[0]["actor"].startswith("operator:")
        assert len((await peer.request("channels.pairing.history", {"channel": "telegram"}))["entries"]) == 2


async def test_pair8_one_table_and_each_row_says_how() -> None:
    async with open_hub(allow_from=("@ann",)) as (_, channel, peer):
        await channel.write("111", name="Ann")
        answer = await peer.request("pairing.list", {})
        (row,) = [row for row in answer["rows"] if row["kind"] == "dm"]
        assert row["code"] == code_in(channel)
        assert (row["state"], row["source"], row["asks"]) == ("pending", "telegram/default", ["direct messages"])
        assert "no scope" in row["grants"]
        assert answer["issues"][0]["path"] == "channels.telegram.dm.allowFrom"
        await peer.request(row["approve"]["method"], row["approve"]["params"])
        (row,) = (await peer.request("pairing.list", {"channel": "telegram"}))["rows"]
        assert (row["state"], row["policy"], row["subject"]) == ("paired", "allow", "111")


@pytest.mark.parametrize(
    "method",
    [
        "channels.pairing.list", "channels.pairing.approve", "channels.pairing.dismiss", "channels.pairing.reject",
        "channels.pairing.policy", "channels.pairing.history", "pairing.list",
    ],
)  # fmt: skip
async def test_all_of_them_need_operator_pairing(method: str) -> None:
    async with open_memory_gateway() as gateway, open_scripted_channel(gateway.senders) as channel:
        scopes = ("operator.read", "operator.write", "operator.approvals", "operator.talk.secrets")
        async with connect_peer(gateway, scopes=scopes) as peer:
            await channel.write("111")
            error = await refused(peer, method, {})
            assert error.details is not None
            assert error.details["missingScope"] == "operator.pairing"
            await peer.request("health")
            assert not [event for event in peer.events if event["event"].startswith("channel.pairing")]


async def test_events_are_declared_and_a_changed_configuration_counts_at_once() -> None:
    async with open_hub() as (gateway, channel, peer):
        assert {"channel.pairing.requested", "channel.pairing.resolved"} <= set(peer.hello["features"]["events"])
        closed = {"telegram": ChannelConfig(dm=DirectMessageConfig(policy="closed"))}
        gateway.senders.configure(closed)
        assert (await channel.write("111")).kind == "deny"
