"""What `health` and `status` tell of agents and conversations, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents.overview import RECENT
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig
from openclaw_gateway.testing import connect_peer, open_memory_gateway


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"), AgentEntry(id="second", kind="echo", default=True)))
    async with open_memory_gateway(GatewayConfig(agents=agents)) as opened:
        yield opened


async def test_conversations_are_counted_and_the_last_used_come_first(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        for number in range(RECENT + 2):
            await peer.request("sessions.create", {"key": f"k{number}", "agentId": "main"})
        await peer.request("sessions.create", {"key": "other", "agentId": "second"})
        await peer.request("chat.inject", {"sessionKey": "agent:main:k0", "message": "x"})
        health = await peer.request("health")
        assert health["defaultAgentId"] == "second"
        assert health["sessions"]["count"] == RECENT + 3
        recent = [row["key"] for row in health["sessions"]["recent"]]
        assert len(recent) == RECENT
        assert recent[0] == "agent:main:k0"
        by_agent = {row["agentId"]: (row["isDefault"], row["sessions"]["count"]) for row in health["agents"]}
        assert by_agent == {"main": (False, RECENT + 2), "second": (True, 1)}
        status = (await peer.request("status"))["sessions"]
        assert status["count"] == RECENT + 3
        assert {row["agentId"]: row["count"] for row in status["byAgent"]} == {"main": RECENT + 2, "second": 1}
        assert status["recent"][0]["key"] == "agent:main:k0"
        await peer.request("sessions.delete", {"key": "agent:main:k0"})
        assert (await peer.request("health"))["sessions"]["recent"][0]["key"] != "agent:main:k0"


async def test_v51_who_may_not_read_learns_no_session_key(gateway: Gateway) -> None:
    """`health` needs no scope; a key can be somebody's telephone number."""
    async with connect_peer(gateway) as admin, connect_peer(gateway, scopes=()) as probe:
        await admin.request("sessions.create", {"key": "telegram:direct:111", "agentId": "main"})
        shown = await probe.request("health")
        assert shown["sessions"] == {"path": "", "count": 1, "recent": []}
        assert "111" not in str(shown["agents"])
        assert "111" in str((await admin.request("health"))["agents"])
