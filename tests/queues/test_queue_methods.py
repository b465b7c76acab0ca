"""`queue.*` and ``openclaw queue`` against a running gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.ops.audit import audit_folder
from openclaw_gateway.ops.auditfile import tail_lines
from openclaw_gateway.queues import NewMessage
from openclaw_gateway.testing import connect_peer
from tests.cli.program import Program

TOKEN = "token-of-the-tests-of-queues-0123456789"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    config = GatewayConfig(auth=AuthConfig(token=TOKEN), port=0, state_dir=tmp_path / "state")
    async with open_gateway(config) as opened:
        yield opened


def note(number: int, lane: str = "telegram:1") -> NewMessage:
    return NewMessage(
        lane, f"n{number}", "channel:telegram", "channel.message", b'{"text":"private words %d"}' % number
    )


async def given_up(gateway: Gateway, count: int) -> None:
    """No channel is configured here: the gateway itself gives such messages up."""
    with trio.fail_after(10):
        while gateway.messaging.inbound.counts["dead"] != count:
            await trio.lowlevel.checkpoint()


@pytest.mark.expect_error_log("message given up")
async def test_s029_an_administrator_sees_retries_and_drops(gateway: Gateway) -> None:
    for number in range(3):
        await gateway.messaging.inbound.put(note(number))
    await given_up(gateway, 3)
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.admin"]) as peer:
        answer = await peer.request("queue.list", {"state": "dead", "limit": 2})
        assert [answer["total"], len(answer["messages"])] == [3, 2]
        assert answer["messages"][0]["lastError"].startswith("nobody here handles channel.message")
        assert "private words" not in json.dumps(answer)
        one = answer["messages"][0]["id"]
        assert "private words 0" in (await peer.request("queue.list", {"id": one}))["messages"][0]["payload"]
        assert await peer.request("queue.retry", {"ids": [one]}) == {"retried": [one]}
        await given_up(gateway, 3)
        others = [row["id"] for row in (await peer.request("queue.list", {}))["messages"] if row["id"] != one]
        assert (await peer.request("queue.drop", {"ids": others}))["dropped"] == others
        left = await peer.request("queue.list", {})
        assert [row["id"] for row in left["messages"]] == [one]
        assert left["queues"]["inbound"]["dead"] == 1
        for method in ("queue.retry", "queue.drop"):
            with pytest.raises(CallFailed) as fault:
                await peer.request(method, {"ids": ["nobody"]})
            assert (fault.value.details or {})["code"] == "QUEUE_MESSAGE_UNKNOWN"
    assert gateway.config.state_dir is not None
    rows = [row["action"] for row in tail_lines(audit_folder(gateway.config.state_dir), 20)]
    assert [action for action in rows if action.startswith("queue.")] == ["queue.retried", "queue.dropped"]


@pytest.mark.expect_error_log("message given up")
async def test_v51_what_people_wrote_is_for_administrators(gateway: Gateway) -> None:
    await gateway.messaging.inbound.put(note(1))
    await given_up(gateway, 1)
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.read", "operator.write"]) as peer:
        for method, params in (("queue.list", {}), ("queue.retry", {"dead": True}), ("queue.drop", {"dead": True})):
            with pytest.raises(CallFailed) as fault:
                await peer.request(method, params)
            assert (fault.value.details or {})["code"] == "MISSING_SCOPE"


@pytest.mark.expect_error_log("message given up")
async def test_cap_dead_letters_that_had_to_go_are_in_the_audit_trail(gateway: Gateway) -> None:
    inbound = gateway.messaging.inbound
    inbound._contents.dead._most = 2
    for number in range(5):
        await inbound.put(note(number))
    with trio.fail_after(10):
        while inbound.counts["waiting"] or inbound.counts["running"] or inbound.counts["dead"] != 2:
            await trio.lowlevel.checkpoint()
    with trio.move_on_after(0.5):
        await inbound.supervise_upkeep()
    async with connect_peer(gateway, token=TOKEN, scopes=["operator.admin"]) as peer:
        shown = (await peer.request("queue.list", {}))["queues"]["inbound"]
        assert (shown["dead"], shown["bytes"], shown["maxDead"]) == (2, 0, inbound.rules.max_dead)
        assert shown["deadBytes"] == 2 * len(note(1).payload)
    await gateway.audit.flush()
    assert gateway.config.state_dir is not None
    rows = [row for row in tail_lines(audit_folder(gateway.config.state_dir), 20) if row["action"] == "queue.discarded"]
    assert [(row["count"], row["reason"]) for row in rows] == [(3, "more dead letters than the inbound queue keeps")]


@pytest.mark.deadline(60)
@pytest.mark.expect_error_log("message given up")
async def test_s029_the_command_line_does_the_same(gateway: Gateway, tmp_path: Path) -> None:
    for number in range(2):
        await gateway.messaging.inbound.put(note(number, lane="telegram:\x1b[31m1"))
    await given_up(gateway, 2)
    openclaw = Program(tmp_path / "cli")
    reach = ("--url", f"ws://127.0.0.1:{gateway.port}", "--token", TOKEN)

    async def run(*arguments: str) -> str:
        done = await trio.to_thread.run_sync(lambda: openclaw("queue", *arguments, *reach))
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        return done.stdout

    listed = await run("list", "--dead")
    assert "nobody here handles" in listed
    ids = [row["id"] for row in json.loads(await run("list", "--json"))["messages"]]
    assert "private words 0" in await run("list", ids[0])
    assert "Trying again: 1" in await run("retry", ids[0])
    await given_up(gateway, 2)
    assert "Dropped: 2" in await run("drop", "--dead", "--yes")
    assert len(gateway.messaging.inbound) == 0
    wrong = await trio.to_thread.run_sync(lambda: openclaw("queue", "drop", "--yes", *reach))
    assert wrong.returncode == 2
