"""The public fakes: what they promise to programs that embed the gateway."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from websockets.frames import Opcode

from openclaw_gateway import CallFailed, GatewayConfig
from openclaw_gateway.client import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.testing import (
    PeerClosed,
    ScriptedPeer,
    connect_params,
    connect_peer,
    open_memory_gateway,
    open_memory_stream,
)


async def test_overrides_replace_fields_and_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAW_GATEWAY_TOKEN", "token-of-the-environment-0123456789")
    async with open_memory_gateway(trusted_proxies=("10.0.0.0/8",)) as gateway:
        assert gateway.config.trusted_proxies == ("10.0.0.0/8",)
        assert gateway.token is not None
        assert "environment" not in gateway.token
    async with open_memory_gateway(auth=AuthConfig(type="password", password="Correct horse 1!")) as gateway:
        assert gateway.token is None
        async with connect_peer(gateway, password="Correct horse 1!") as peer:
            assert peer.hello["auth"]["method"] == "password"


async def test_connect_peer_raises_where_the_gateway_refuses() -> None:
    async with open_memory_gateway() as gateway:
        with pytest.raises(CallFailed, match="token mismatch"):
            async with connect_peer(gateway, token="wrong" * 8):
                pytest.fail("it was let in")
        assert gateway._core.registry.live == ()


async def test_peers_read_only_when_they_are_told_to() -> None:
    async with open_memory_gateway() as gateway, connect_peer(gateway) as peer:
        gateway.events.publish_nowait("a", 1)
        gateway.events.publish_nowait("b", 2)
        assert not peer.events
        assert (await peer.request("health"))["ok"]
        assert [event["event"] for event in peer.events] == ["a", "b"]
        assert await peer.expect_event("b") == 2
        assert [event["event"] for event in peer.events] == ["a"]
        gateway.events.publish_nowait("c", 3)
        assert await peer.expect_event("c") == 3


async def test_lockstep_makes_a_peer_that_does_not_read_felt() -> None:
    async with open_memory_gateway() as gateway, open_memory_stream(gateway, lockstep=True) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.connect(token=gateway.token)
        [session] = gateway._core.registry
        gateway.events.publish_nowait("big", "x" * 100_000)
        await wait_all_tasks_blocked()
        assert session.writer.size > 0
        await peer.expect_event("big")
        await wait_all_tasks_blocked()
        assert session.writer.size == 0


async def test_pings_are_answered_unless_told_otherwise() -> None:
    async with open_memory_gateway() as gateway:
        for answers in (True, False):
            async with connect_peer(gateway) as peer:
                peer.answers = answers
                [session] = gateway._core.registry
                before = session.received
                session.ping()
                assert (await peer.receive_frame()).opcode is Opcode.PING
                await wait_all_tasks_blocked()
                assert (session.received > before) is answers


async def test_how_it_ended_is_told() -> None:
    async with open_memory_gateway() as gateway:
        async with connect_peer(gateway) as peer:
            closed = await peer.close(1000, "done")
            assert (closed.code, closed.reason) == (1000, "done")
            with pytest.raises(PeerClosed):
                await peer.receive()
        async with connect_peer(gateway) as peer:
            [session] = gateway._core.registry
            session.wire.abort()
            assert (await peer.wait_closed()).code == 1006
        async with open_memory_stream(gateway) as stream:
            silent = ScriptedPeer(stream)
            with pytest.raises(Exception, match="upgrade first"):
                await silent.receive()


async def test_a_stream_that_ends_inside_the_upgrade_is_told() -> None:
    ours, theirs = memory_stream_pair()
    peer = ScriptedPeer(ours)
    await theirs.send_stream.aclose()
    with pytest.raises(PeerClosed):
        await peer.upgrade()


async def test_addresses_decide_what_is_local() -> None:
    async with open_memory_gateway() as gateway:
        with pytest.raises(CallFailed, match="device identity required"):
            async with connect_peer(gateway, address="203.0.113.7"):
                pytest.fail("a remote peer without a device was let in")


def test_connect_params_cannot_sign_what_is_no_connect() -> None:
    challenge = {"nonce": "n", "ts": 1}
    with pytest.raises(ValueError, match="cannot be signed"):
        connect_params(challenge, device=DeviceIdentity.generate(), client_id="nobody")
    assert connect_params(challenge, token="t", locale="de")["locale"] == "de"


async def test_two_gateways_in_one_program_do_not_know_each_other() -> None:
    config = GatewayConfig(auth=AuthConfig(type="none"))
    async with open_memory_gateway(config) as one, open_memory_gateway(config) as two, connect_peer(one) as peer:
        two.events.publish_nowait("x", 1)
        one.events.publish_nowait("y", 2)
        assert await peer.expect_event("y") == 2
        assert not peer.events
        assert (len(one._core.registry), len(two._core.registry)) == (1, 0)
        await trio.lowlevel.checkpoint()
