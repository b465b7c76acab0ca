"""Attacks on what a proxy says about people and addresses: V3, V4, V13, V35, V36, V37, PROXY-1; WebSocket and HTTP the
same.

The proxy is a peer whose accepted stream is handed over with the address 192.0.2.7, because all of 127.0.0.0/8 is this
host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.schema import AuthConfig, ListenerConfig, TrustedProxyConfig
from openclaw_gateway.config.secrets import resolve_auth
from openclaw_gateway.policy.network import Arrival
from openclaw_gateway.server.wire import StreamWire

from .attacker import TOKEN, Attacker, Device, Outcome, http, open_victim, remote_door, rpc

PROXY = "192.0.2.7"
SECRET = "0123456789abcdef01234567"
NAMED = {"x-forwarded-for": "198.51.100.9", "x-auth-user": "nick@example.com"}
READ = ("operator.read",)
WHO = TrustedProxyConfig(user_header="x-auth-user", allow_users=("nick@example.com", "root"))
SCOPES = {"nick@example.com": READ}


def vouching(token: str | None = TOKEN, **changes: Any) -> AuthConfig:
    scopes = changes.pop("identity_scopes", SCOPES)
    return AuthConfig(
        type="trusted-proxy", token=token, trusted_proxy=attrs.evolve(WHO, **changes), identity_scopes=scopes
    )


@asynccontextmanager
async def behind_proxy(
    trusted: tuple[str, ...] = (PROXY,), *, peer: str = PROXY, auth: AuthConfig | None = None, **config: Any
) -> AsyncIterator[tuple[Gateway, int]]:
    async with (
        open_victim(auth or vouching(), trusted_proxies=trusted, **config) as gateway,
        remote_door(gateway, peer) as port,
    ):
        yield gateway, port


async def over_websocket(port: int, headers: Mapping[str, str], **claims: Any) -> Outcome:
    lines = {name.replace("-", "_"): value for name, value in headers.items()}
    async with await Attacker.at(port) as client:
        return await client.connect(headers=lines, scopes=("operator.read", "operator.admin"), **claims)


async def opens(port: int, headers: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether these headers alone let somebody in: over WebSocket, over HTTP."""
    status, _ = await rpc(port, "health", token=None, headers={"Host": "127.0.0.1", **headers})
    return (await over_websocket(port, headers)).admitted, status == 200


async def test_s065_a_person_whom_a_trusted_proxy_names_comes_in_with_the_scopes_of_the_name() -> None:
    async with behind_proxy() as (_, port):
        assert await opens(port, NAMED) == (True, True)
        outcome = await over_websocket(port, NAMED)
        assert outcome.scopes == {"operator.read"}
        assert outcome.hello["auth"]["method"] == "trusted-proxy"
        status, body = await rpc(port, "config.patch", {"raw": "{}"}, token=None, headers=NAMED)
        assert (status, body["error"]["data"]["details"]["code"]) == (200, "MISSING_SCOPE")
        status, _, body = await http(port, "POST", "/rpc", headers={**NAMED, "x-auth-user": "root"}, body=b"{}")
        assert status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"x-auth-user": "nick@example.com"},
        {"x-forwarded-for": "198.51.100.9"},
        {**NAMED, "x-auth-user": ""},
        {**NAMED, "x-auth-user": "mallory"},
        {**NAMED, "x-auth-user": "Nick@example.com"},
        {**NAMED, "x-auth-user": "mallory, nick@example.com"},
        {**NAMED, "x-auth-user": "nick@example.com\r\nx-auth-user: nick@example.com"},
        {**NAMED, "x_auth_user_": "nick@example.com", "x-auth-user": " "},
        {**NAMED, "x-forwarded-for": "127.0.0.1"},
        {**NAMED, "x-forwarded-for": "::1"},
        {**NAMED, "x-forwarded-for": "198.51.100.9, 127.0.0.1"},
        {**NAMED, "x-forwarded-for": "198.51.100.9, unknown"},
        {**NAMED, "x-forwarded-for": "unknown"},
        {**NAMED, "x-forwarded-for": ""},
        {"x-auth-user": "nick@example.com", "forwarded": "for=198.51.100.9"},
        {"x-auth-user": "nick@example.com", "x-real-ip": "198.51.100.9"},
        {"tailscale-user-login": "nick@example.com", "x-forwarded-for": "198.51.100.9"},
    ],
    ids=str,
)
async def test_v35_v36_v37_what_does_not_name_one_listed_person_for_one_client_opens_nothing(
    headers: dict[str, str],
) -> None:
    async with behind_proxy() as (_, port):
        assert await opens(port, headers) == (False, False)
        assert await opens(port, NAMED) == (True, True)


@pytest.mark.parametrize("peer", ["192.0.2.8", "127.0.0.1", "::1", "::ffff:192.0.2.8", "unknown"])
async def test_v36_an_identity_header_from_anybody_else_opens_nothing(peer: str) -> None:
    async with behind_proxy(peer=peer) as (_, port):
        assert await opens(port, NAMED) == (False, False)


async def test_v36_a_process_on_this_host_forges_nobody_although_loopback_is_trusted() -> None:
    proof = {"x-openclaw-proxy-secret": SECRET}
    for changes, right in (
        ({}, False),
        ({"secret": SECRET}, False),
        ({"allow_loopback": True}, False),
        ({"allow_loopback": True, "secret": SECRET}, True),
    ):
        async with open_victim(vouching(**changes), trusted_proxies=("127.0.0.0/8",)) as gateway:
            assert await opens(gateway.port, NAMED) == (False, False)
            assert await opens(gateway.port, {**NAMED, "x-openclaw-proxy-secret": "x" * 24}) == (False, False)
            assert await opens(gateway.port, {**NAMED, **proof}) == (right, right)


async def test_v36_an_address_of_this_host_is_this_host() -> None:
    async with behind_proxy() as (gateway, port):
        gateway.gatekeeper.peers.own_addresses = lambda: (PROXY,)
        assert await opens(port, NAMED) == (False, False)


async def test_v13_the_identity_header_alone_ends_locality() -> None:
    """On this host, with the right token and no device: local, unless a header says that somebody is in between."""
    async with open_victim(vouching()) as gateway:
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(token=TOKEN)).admitted
        for name in ("x_auth_user", "x_openclaw_proxy_secret"):
            async with await Attacker.at(gateway.port) as client:
                assert not (await client.connect(token=TOKEN, headers={name: "x"})).admitted


async def test_proxy1_whom_nobody_attributes_is_unauthenticated_and_still_has_the_other_ways_in() -> None:
    for trusted in ((), (PROXY,)):
        async with behind_proxy(trusted) as (gateway, port):
            forged = {"x-auth-user": "nick@example.com", "x-forwarded-for": "127.0.0.1"}
            status, body = await rpc(port, "health", token=None, headers=forged)
            assert status == 401
            assert body["error"]["details"]["code"] in {"AUTH_IDENTITY_HEADER_REQUIRED", "AUTH_UNAUTHORIZED"}
            outcome = await over_websocket(port, forged, token=TOKEN, device=Device())
            assert outcome.detail == "PAIRING_REQUIRED"  # let in as far as anybody remote with the token
            assert (await over_websocket(port, forged, token=TOKEN)).detail == "DEVICE_IDENTITY_REQUIRED"
            wrong = await over_websocket(port, forged, token="wrong")
            assert wrong.detail == "AUTH_TOKEN_MISMATCH"
            assert len(gateway.gatekeeper.ledger) == 1


async def test_a_persons_device_is_paired_by_a_person_and_a_name_adds_for_the_session_only() -> None:
    device = Device()
    async with behind_proxy() as (gateway, port):
        outcome = await over_websocket(port, NAMED, device=device)
        assert outcome.detail == "PAIRING_REQUIRED"
        async with await Attacker.at(gateway.port) as owner:
            assert (await owner.connect(token=TOKEN)).admitted
            reply = await owner.call("device.pair.approve", {"requestId": outcome.error["details"]["requestId"]})
            assert reply["ok"], reply
        assert (await over_websocket(port, NAMED, device=device)).admitted


async def test_v3_v4_a_foreign_page_behind_the_proxys_sign_on_gets_nothing() -> None:
    """The browser adds the cookie, so the proxy names the person: the page must be refused by where it is from."""
    async with behind_proxy(public_url="https://claw.example.com") as (_, port):
        evil = {**NAMED, "Host": "claw.example.com", "Origin": "https://evil.example", "X-Forwarded-Proto": "https"}
        bearer = {"Authorization": "Bearer x", "Content-Type": "application/json"}
        for extra in ({}, bearer, {"Content-Type": "text/plain"}):
            status, _ = await rpc(port, "health", token=None, headers={**evil, **extra})
            assert status == 403, extra
        outcome = await over_websocket(port, {name: value for name, value in evil.items() if name != "Host"})
        assert outcome.detail is not None
        assert "ORIGIN" in outcome.detail
        rebound = {**NAMED, "Host": "rebound.example", "Sec-Fetch-Site": "same-origin"}
        assert (await rpc(port, "health", token=None, headers=rebound))[0] == 421
        own = {**NAMED, "Host": "claw.example.com"}
        assert (await rpc(port, "health", token=None, headers=own))[0] == 200


async def test_v16_a_persons_session_ends_when_the_rules_change_and_a_waiting_handshake_forgets_the_name() -> None:
    async with behind_proxy() as (gateway, port):
        async with await Attacker.at(port) as waiting, await Attacker.at(port) as inside:
            lines = {name.replace("-", "_"): value for name, value in NAMED.items()}
            assert (await inside.connect(headers=lines, scopes=READ)).admitted
            await waiting.open(**lines)
            auth = vouching(allow_users=("root",))
            config = attrs.evolve(gateway.config, auth=auth)
            gateway.apply(config, resolve_auth(config, None, {}))
            assert (await inside.outcome()).close_code == 1012
            from tests.websocket.rawclient import TEXT, frame

            await waiting.send(frame(TEXT, waiting.request("connect", waiting.params(scopes=READ))))
            assert (await waiting.outcome()).detail == "AUTH_UNAUTHORIZED"
        assert await opens(port, NAMED) == (False, False)


async def test_v16_a_persons_session_ends_when_names_count_no_more_although_the_header_stays_configured() -> None:
    async with behind_proxy() as (gateway, port), await Attacker.at(port) as inside:
        lines = {name.replace("-", "_"): value for name, value in NAMED.items()}
        assert (await inside.connect(headers=lines, scopes=READ)).admitted
        config = attrs.evolve(gateway.config, auth=attrs.evolve(gateway.config.auth, type="token"))
        gateway.apply(config, resolve_auth(config, None, {}))
        assert (await inside.outcome()).close_code == 1012


async def test_v16_a_kept_alive_connection_is_asked_what_its_listener_asks_now() -> None:
    token = attrs.evolve(vouching(), type="token")
    partner = ListenerConfig(name="partner", port=0, auth="trusted-proxy")
    async with (
        open_victim(token, trusted_proxies=(PROXY,), listeners=(partner,)) as gateway,
        trio.open_nursery() as nursery,
    ):
        opened = gateway.listening.get("partner")
        assert opened is not None
        arrival = opened.arrival

        async def serve(stream: trio.SocketStream) -> None:
            await gateway._server.serve(StreamWire(stream, (PROXY, 4), arrival))

        listeners: Any = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        body = b'{"jsonrpc":"2.0","id":1,"method":"health"}'
        lines = "".join(f"{name}: {value}\r\n" for name, value in NAMED.items())
        head = f"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        async with await Attacker.at(listeners[0].socket.getsockname()[1]) as pooled:
            answers = []
            for _ in range(2):
                await pooled.send(head.encode() + body)
                status, received = await pooled.read_head()
                await pooled.read_body(received)
                answers.append(status)
                config = attrs.evolve(gateway.config, listeners=(attrs.evolve(partner, auth="token"),))
                gateway.apply(config, resolve_auth(config, None, {}))
            assert answers == [200, 401]
        nursery.cancel_scope.cancel()


async def test_v13_nobody_who_came_over_a_proxy_header_is_local() -> None:
    """A PROXY header may name 127.0.0.1; the listener's own word about the connection outranks it."""
    async with open_victim() as gateway, trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            wire = StreamWire(stream, ("127.0.0.1", 4))
            wire.arrival = Arrival(proxy=PROXY)
            await gateway._server.serve(wire)

        listeners: Any = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with await Attacker.at(port) as client:
            assert (await client.connect(token=TOKEN)).detail == "DEVICE_IDENTITY_REQUIRED"
        async with await Attacker.at(port) as client:
            assert (await client.connect(token=TOKEN, device=Device())).detail == "PAIRING_REQUIRED"
        nursery.cancel_scope.cancel()


async def test_a_gateway_without_the_rule_reads_no_identity() -> None:
    token = AuthConfig(type="token", token=TOKEN, trusted_proxy=WHO, identity_scopes=SCOPES)
    async with behind_proxy(auth=token) as (_, port):
        assert await opens(port, NAMED) == (False, False)
    bare = GatewayConfig(auth=AuthConfig(type="trusted-proxy", token=TOKEN)).auth
    async with behind_proxy(auth=bare) as (_, port):
        assert await opens(port, {**NAMED, "x-forwarded-user": "root"}) == (False, False)
