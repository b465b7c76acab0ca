"""Listeners at run time: opened, replaced and closed by name; rules and ceilings hold on each of them."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig, ListenerConfig, NetworkConfig
from openclaw_gateway.errors import CallFailed, LocalProtocolError
from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.policy.addresses import parse_networks
from openclaw_gateway.policy.network import Ceiling, NetworkRules
from openclaw_gateway.server.addresses import BindFailed
from openclaw_gateway.server.listening import MAIN, MAX_LISTENERS, ListenerPlan
from openclaw_gateway.testing import ScriptedPeer
from tests.server.conftest import CONFIG, TOKEN

V4 = "127.0.0.1"


def plan(name: str, **facts: Any) -> ListenerPlan:
    return ListenerPlan(**{"name": name, "hosts": (V4,), "port": 0, **facts})


def denying(*entries: str) -> NetworkRules:
    return NetworkRules(deny=parse_networks(entries)[0])


async def get(port: int, path: str = "/health", *, host: str = V4) -> tuple[int, bytes]:
    """Status and body of one request; (0, b"") where the connection ends without an answer."""
    data = b""
    try:
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            while part := await stream.receive_some(65536):
                data += part
    except (OSError, trio.BrokenResourceError):
        return 0, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


async def call(port: int, method: str) -> Any:
    """A JSON-RPC answer over POST /rpc with the gateway's token."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode()
    head = (
        f"POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    data = b""
    async with await trio.open_tcp_stream(V4, port) as stream:
        await stream.send_all(head.encode() + body)
        while part := await stream.receive_some(65536):
            data += part
    return json.loads(data.partition(b"\r\n\r\n")[2])


@asynccontextmanager
async def connected(port: int, **who: Any) -> AsyncIterator[tuple[ScriptedPeer, Any]]:
    async with await trio.open_tcp_stream(V4, port) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.expect_event("connect.challenge")
        yield peer, await peer.connect(**{"token": TOKEN, **who})


async def test_a_listener_is_opened_shown_and_closed_by_name(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra", provenance="tunnel"))
    assert (await get(extra.port))[0] == 200
    shown = {row["name"]: row for row in (await call(listening.port, "gateway.listeners"))["result"]["listeners"]}
    assert shown["extra"]["provenance"] == "tunnel"
    assert shown["extra"]["addresses"] == [{"host": V4, "port": extra.port}]
    assert shown["main"]["accepted"] >= 1
    listening.listening.close("extra")
    listening.listening.close("extra")
    assert (await get(extra.port))[0] == 0
    assert (await get(listening.port))[0] == 200


async def test_names_are_taken_once_and_the_number_of_listeners_is_capped(listening: Gateway) -> None:
    listening.listening.open(plan("extra"))
    with pytest.raises(LocalProtocolError, match="open already"):
        listening.listening.open(plan("extra"))
    while len(listening.listening) < MAX_LISTENERS:
        listening.listening.open(plan(f"more-{len(listening.listening)}"))
    with pytest.raises(LocalProtocolError, match="listeners"):
        listening.listening.open(plan("one-too-many"))


async def test_nothing_can_be_opened_while_nobody_serves(gateway: Gateway) -> None:
    async with open_gateway(CONFIG, env={}) as other:
        pass
    with pytest.raises(LocalProtocolError, match="not serving"):
        other.listening.open(plan("late"))


async def test_a_replacement_that_cannot_listen_leaves_the_old_listener(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra"))
    with socket.create_server((V4, 0)) as other:
        with pytest.raises(BindFailed) as failed:
            listening.listening.replace(plan("extra", port=other.getsockname()[1]))
        assert failed.value.busy
    assert (await get(extra.port))[0] == 200
    with pytest.raises(BindFailed):
        listening.listening.replace(plan("extra", hosts=("192.0.2.1",)))
    assert (await get(extra.port))[0] == 200, "the same port on another address: the old socket is back"


async def test_facts_change_without_another_socket(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra"))
    port = extra.port
    assert listening.listening.replace(plan("extra", network=denying(V4))) is extra
    assert (await get(port))[0] == 0
    listening.listening.replace(plan("extra"))
    assert (await get(port))[0] == 200


async def test_cut_ends_what_came_in_and_nothing_else(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra"))
    async with connected(extra.port) as (through, _), connected(listening.port) as (beside, _):
        listening.listening.cut("extra", "listener closed")
        assert (await through.wait_closed()).code == 1012
        assert await beside.request("health")
    assert listening.listening.get("extra") is None


@asynccontextmanager
async def kept_alive(port: int) -> AsyncIterator[trio.SocketStream]:
    """A connection that has made one HTTP request and may make more."""
    async with await trio.open_tcp_stream(V4, port) as stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"live" not in answer:
            answer += await stream.receive_some()
        yield stream


async def ended(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(1):  # of what stays open nothing else can be said
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True
    return False


@pytest.mark.parametrize("change", ["deny", "cut", "nothing"])
async def test_v16_a_connection_that_was_accepted_and_not_yet_begun_meets_the_rules_of_now(
    listening: Gateway, change: str
) -> None:
    extra = listening.listening.open(plan("extra"))
    with socket.create_server((V4, 0)) as server:
        client = await trio.open_tcp_stream(*server.getsockname())
        accepted, address = server.accept()
        wire = extra.take(accepted, address)
        assert wire is not None
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(listening.listening._welcome, wire)
            if change == "cut":
                listening.listening.cut("extra", "listener closed")
            else:
                network = denying(V4) if change == "deny" else NetworkRules()
                listening.listening.replace(plan("extra", network=network))
            assert await ended(client) == (change != "nothing")
            nursery.cancel_scope.cancel()


async def test_cut_ends_a_kept_alive_connection_that_could_ask_again(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra"))
    async with kept_alive(extra.port) as through, kept_alive(listening.port) as beside:
        listening.listening.cut("extra", "listener closed")
        assert await ended(through)
        assert not await ended(beside)


@pytest.mark.parametrize(
    "facts",
    [
        {"ceiling": Ceiling(methods=("health",))},
        {"ceiling": Ceiling(scopes=frozenset({"operator.read"}))},
        {"network": denying(V4)},
        {"network": NetworkRules(allow=parse_networks(("192.0.2.0/24",))[0])},
        {"provenance": "tunnel"},
    ],
    ids=["methods", "scopes", "deny", "allow", "provenance"],
)
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
async def test_v16_whoever_would_not_come_in_like_that_any_more_goes(
    listening: Gateway, facts: dict[str, Any], moved: bool
) -> None:
    extra = listening.listening.open(plan("extra"))
    async with connected(extra.port) as (through, _), kept_alive(extra.port) as idle:
        listening.listening.replace(plan("extra", network=denying("192.0.2.0/24")))
        assert await through.request("health"), "rules that let everybody in who is there"
        hosts = ("127.0.0.1", "127.0.0.2") if moved else (V4,)
        listening.listening.replace(plan("extra", hosts=hosts, **facts))
        assert (await through.wait_closed()).code == 1012
        assert await ended(idle)


async def test_net_a_denied_peer_is_closed_before_a_byte_and_costs_one_row(listening: Gateway) -> None:
    extra = listening.listening.open(plan("extra", network=denying("127.0.0.0/8")))
    for _ in range(40):
        assert await get(extra.port) == (0, b"")
    assert extra.denied == 40
    assert len(listening._core.registry.strangers) == 0
    assert not listening._server.wires
    rows = [
        row
        for row in await listening.audit.recent(200)
        if row.get("code") == "NETWORK_DENIED"
    ]
    assert 1 <= len(rows) <= 10, "repeats are counted, not written"
    assert {row["action"] for row in rows} == {Action.CONNECT.value}
    assert {row["address"] for row in rows} == {V4}


async def test_net_a_mapped_address_does_not_slip_past_the_list() -> None:
    async with open_gateway(CONFIG, env={}) as gateway:
        extra = gateway.listening.open(plan("both", hosts=("::",), network=denying("127.0.0.1")))
        assert (await get(extra.port, host=V4))[0] == 0, "comes in as ::ffff:127.0.0.1"
        assert (await get(extra.port, host="::1"))[0] == 200


async def test_isolation_a_ceiling_of_methods_holds_on_websocket_rpc_and_http(listening: Gateway) -> None:
    ceiling = Ceiling(methods=("health", "gateway.*"))
    extra = listening.listening.open(plan("narrow", ceiling=ceiling))
    async with connected(extra.port) as (peer, hello):
        methods = set(hello["features"]["methods"])
        assert methods >= {"connect", "health", "gateway.identity.get", "gateway.listeners"}
        assert all(name in {"connect", "health"} or name.startswith("gateway.") for name in methods)
        assert await peer.request("health")
        with pytest.raises(CallFailed, match="not on this listener: status") as refused:
            await peer.request("status")
        assert (refused.value.details or {})["code"] == "LISTENER_CEILING"
    assert "result" in await call(extra.port, "health")
    assert "not on this listener" in (await call(extra.port, "status"))["error"]["message"]
    assert (await get(extra.port, "/"))[0] == 404
    assert (await get(extra.port, "/health"))[0] == 200
    assert (await get(listening.port, "/"))[0] == 200
    assert "result" in await call(listening.port, "status")


async def test_isolation_a_ceiling_of_scopes_clips_every_grant(listening: Gateway) -> None:
    extra = listening.listening.open(plan("readers", ceiling=Ceiling(scopes=frozenset({"operator.read"}))))
    async with connected(extra.port, scopes=("operator.admin",)) as (peer, hello):
        assert hello["auth"]["scopes"] == ["operator.read"]
        assert await peer.request("status")
        with pytest.raises(CallFailed, match="missing scope"):
            await peer.request("set-heartbeats", {"enabled": True})
    assert "missing scope" in (await call(extra.port, "set-heartbeats"))["error"]["message"]


async def test_v36_a_relaying_listener_on_loopback_is_never_this_host(listening: Gateway) -> None:
    extra = listening.listening.open(plan("serve", provenance="tailscale-serve"))
    async with await trio.open_tcp_stream(V4, extra.port) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.expect_event("connect.challenge")
        with pytest.raises(CallFailed, match="device identity required"):
            await peer.connect(token=TOKEN)
    async with connected(listening.port) as (_, hello):
        assert hello["auth"]["role"] == "operator"


async def test_listeners_of_the_configuration_come_go_and_ask_for_what_is_theirs() -> None:
    open_door = ListenerConfig(name="open-here", port=0, auth="none")
    config = attrs.evolve(CONFIG, listeners=(open_door,), network=NetworkConfig(deny=("192.0.2.0/24",)))
    async with open_gateway(config, env={}) as gateway:
        listener = gateway.listening.get("open-here")
        assert listener is not None
        assert listener.plan.network.deny.entries == ("192.0.2.0/24",)
        async with connected(listener.port, token=None) as (_, hello):
            assert hello["auth"]["role"] == "operator"
        async with await trio.open_tcp_stream(V4, gateway.port) as stream:
            peer = ScriptedPeer(stream)
            await peer.upgrade()
            await peer.expect_event("connect.challenge")
            with pytest.raises(CallFailed):
                await peer.connect(token=None)
        gateway.apply(attrs.evolve(config, listeners=()), gateway.auth)
        assert [one.name for one in gateway.listening] == [MAIN]


async def test_net5_an_open_gateway_is_not_open_on_a_listener_that_others_reach() -> None:
    config = GatewayConfig(
        port=0, auth=AuthConfig(type="none"), listeners=(ListenerConfig(name="lan", port=0, bind="0.0.0.0"),)
    )
    async with open_gateway(config, env={}) as gateway:
        lan = gateway.listening.get("lan")
        assert lan is not None
        async with connected(gateway.port, token=None) as (_, hello):
            assert hello["auth"]["role"] == "operator"
        async with await trio.open_tcp_stream(V4, lan.port) as stream:
            peer = ScriptedPeer(stream)
            await peer.upgrade()
            await peer.expect_event("connect.challenge")
            with pytest.raises(CallFailed):
                await peer.connect(token=None)


@pytest.mark.expect_error_log("listener cannot be opened")
async def test_a_further_listener_that_cannot_open_is_trouble_of_its_own() -> None:
    with socket.create_server((V4, 0)) as other:
        config = attrs.evolve(CONFIG, listeners=(ListenerConfig(name="busy", port=other.getsockname()[1]),))
        async with open_gateway(config, env={}) as gateway:
            assert (await get(gateway.port))[0] == 200
            assert "listener:busy" in gateway.health.failing


@pytest.mark.expect_error_log("listener cannot be opened")
async def test_a_further_listener_that_cannot_become_what_it_should_does_not_stay_what_it_was() -> None:
    config = attrs.evolve(CONFIG, listeners=(ListenerConfig(name="further", port=0),))
    async with open_gateway(config, env={}) as gateway:
        before = gateway.listening.get("further")
        assert before is not None
        async with kept_alive(before.port) as idle:
            with socket.create_server((V4, 0)) as other:
                narrow = ListenerConfig(name="further", port=other.getsockname()[1], methods=("health",))
                gateway.apply(attrs.evolve(config, listeners=(narrow,)), gateway.auth)
                assert "listener:further" in gateway.health.failing
                assert (await get(before.port))[0] == 0
                assert await ended(idle)
            gateway.apply(attrs.evolve(config, listeners=(narrow,)), gateway.auth)
            assert "listener:further" not in gateway.health.failing


async def test_the_self_probe_does_not_ask_where_it_may_not_connect() -> None:
    config = attrs.evolve(CONFIG, network=NetworkConfig(allow=("192.0.2.0/24",)))
    async with open_gateway(config, env={}) as gateway:
        assert gateway.configured.probe_address() is None
    async with open_gateway(CONFIG, env={}) as gateway:
        probed = gateway.configured.probe_address()
        assert probed is not None
        assert (probed.port, probed.tls) == (gateway.port, False)
