"""`channels.status|start|stop|logout`: shapes, scopes, audit, what `health` and `status` show of channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.ops.audit import audit_folder
from openclaw_gateway.ops.auditfile import tail_lines
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from openclaw_gateway.testing.telegram import FakeTelegram, open_fake_telegram

ADMIN = ("operator.read", "operator.admin")


@asynccontextmanager
async def open_telegram(
    state_dir: Path | None = None, **settings: Any
) -> AsyncIterator[tuple[Gateway, FakeTelegram, ScriptedPeer]]:
    async with open_fake_telegram() as telegram:
        extra = {"botToken": telegram.token, "apiRoot": telegram.url, **settings}
        config = GatewayConfig(state_dir=state_dir, channels={"telegram": ChannelConfig(extra=extra)})
        async with open_memory_gateway(config) as gateway, connect_peer(gateway, scopes=ADMIN) as peer:
            yield gateway, telegram, peer


async def row(peer: ScriptedPeer, state: str) -> dict[str, Any]:
    with trio.fail_after(10):
        while True:
            status = await peer.request("channels.status", {})
            (found,) = status["channelAccounts"]["telegram"]
            if found["state"] == state:
                return dict(found)
            await trio.sleep(0.01)


async def test_status_shows_accounts_as_openclaw_does() -> None:
    async with open_telegram() as (gateway, _, peer):
        found = await row(peer, "connected")
        assert (found["accountId"], found["running"], found["connected"], found["name"]) == (
            "default", True, True, "fake_bot",
        )  # fmt: skip
        assert (found["mode"], found["healthState"], found["lastError"]) == ("polling", "healthy", None)
        status = await peer.request("channels.status", {})
        assert status["channelOrder"] == ["telegram"]
        assert status["channelLabels"] == {"telegram": "Telegram"}
        assert status["channelDefaultAccountId"] == {"telegram": "default"}
        summary = {"configured": True, "running": True, "connected": True, "lastError": None}
        assert status["channels"] == {"telegram": summary}
        assert status["channelMeta"] == [{"id": "telegram", "label": "Telegram", "detailLabel": "Telegram"}]
        assert status["statusIssues"] == []
        health = await peer.request("health", {})
        assert health["channels"]["telegram"]["accounts"]["default"]["connected"]
        assert (await peer.request("status", {}))["channelSummary"] == ["Telegram default: connected as fake_bot"]
        assert (await peer.request("status", {"includeChannelSummary": False}))["channelSummary"] == []
        assert not gateway.health.failing


async def test_a_probe_asks_the_service() -> None:
    async with open_telegram() as (_, telegram, peer):
        await row(peer, "connected")
        asked = telegram.calls.count("getMe")
        status = await peer.request("channels.status", {"probe": True, "timeoutMs": 2000})
        (found,) = status["channelAccounts"]["telegram"]
        assert found["probe"]["ok"]
        assert found["probe"]["bot"]["username"] == "fake_bot"
        assert found["lastProbeAt"] > 0
        assert telegram.calls.count("getMe") == asked + 1


async def test_a_wrong_token_is_an_issue_with_its_fix_and_the_gateway_stays_ready() -> None:
    async with open_telegram(botToken="1:wrong-token-of-this-test") as (gateway, _, peer):
        found = await row(peer, "auth-failed")
        assert found["fix"].startswith("openclaw config set channels.telegram.botToken")
        (issue,) = (await peer.request("channels.status", {}))["statusIssues"]
        assert (issue["channel"], issue["accountId"], issue["kind"]) == ("telegram", "default", "auth")
        assert "wrong-token" not in str(await peer.request("channels.status", {"probe": True}))
        assert not gateway.health.failing, "another program's trouble takes this gateway out of no load balancer"


async def test_without_a_token_the_account_is_misconfigured_and_the_gateway_runs() -> None:
    async with open_telegram(botToken="") as (_, _, peer):
        found = await row(peer, "misconfigured")
        assert found["configured"] is False
        assert found["lastError"] == "channels.telegram.botToken is not set"


async def test_stop_start_and_logout_are_carried_out_and_recorded(tmp_path: Path) -> None:
    async with open_telegram(state_dir=tmp_path) as (gateway, telegram, peer):
        await row(peer, "connected")
        ask = {"channel": "telegram"}
        stopped = {"channel": "telegram", "accountId": "default", "stopped": True}
        assert await peer.request("channels.stop", ask) == stopped
        found = await row(peer, "stopped")
        assert (found["running"], found["connected"]) == (False, False)
        started = await peer.request("channels.start", {**ask, "accountId": "default"})
        assert started == {"channel": "telegram", "accountId": "default", "started": True}
        await row(peer, "connected")
        gone = await peer.request("channels.logout", ask)
        assert gone == {"channel": "telegram", "accountId": "default", "cleared": False, "loggedOut": True}
        await row(peer, "stopped")
        telegram.write(111)
        await trio.testing.wait_all_tasks_blocked()
        assert telegram.unconfirmed == 1, "who stopped it gets it when it is started again"
    assert gateway.config.state_dir is not None
    rows = [row["action"] for row in tail_lines(audit_folder(gateway.config.state_dir), 20)]
    wanted = ["channel.stopped", "channel.started", "channel.logged-out"]
    assert [action for action in rows if action.startswith("channel.")] == wanted


@pytest.mark.parametrize("method", ["start", "stop", "logout"])
async def test_unknown_accounts_and_missing_scopes_are_refused(method: str) -> None:
    async with open_telegram() as (gateway, _, peer):
        for ask in ({"channel": "signal"}, {"channel": "telegram", "accountId": "other"}):
            with pytest.raises(CallFailed) as refused:
                await peer.request(f"channels.{method}", ask)
            assert refused.value.code == "INVALID_REQUEST"
            assert (refused.value.details or {})["code"] == "CHANNEL_UNKNOWN"
        async with connect_peer(gateway, scopes=("operator.read", "operator.write")) as reader:
            with pytest.raises(CallFailed) as refused:
                await reader.request(f"channels.{method}", {"channel": "telegram"})
            assert (refused.value.details or {})["missingScope"] == "operator.admin"


async def test_a_change_of_state_is_an_event_for_whoever_watches() -> None:
    async with open_telegram() as (_, _, peer):
        await row(peer, "connected")
        await peer.request("channels.stop", {"channel": "telegram"})
        with trio.fail_after(5):
            while True:
                event = await peer.expect_event("health")
                rows = event["channels"].get("telegram", {}).get("accounts", {})
                if rows.get("default", {}).get("state") == "stopped":
                    break


async def test_without_channels_everything_is_empty() -> None:
    async with open_memory_gateway() as gateway, connect_peer(gateway, scopes=ADMIN) as peer:
        status = await peer.request("channels.status", {"probe": True})
        assert (status["channels"], status["channelAccounts"], status["statusIssues"]) == ({}, {}, [])
        with pytest.raises(CallFailed):
            await peer.request("channels.stop", {"channel": "telegram"})
