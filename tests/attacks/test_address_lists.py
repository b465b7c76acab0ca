"""Attacks on gateway.network through a proxy: the lists are about people's addresses, and a proxy's own is not theirs
(S130, V14, V16, V35). The proxy is a peer whose stream is handed over with the address 192.0.2.7.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.config.schema import ListenerConfig, NetworkConfig
from openclaw_gateway.config.secrets import resolve_auth
from openclaw_gateway.policy.network import Arrival, Provenance
from openclaw_gateway.server.wire import StreamWire
from tests.websocket.rawclient import TEXT, RawClient, frame

from .attacker import TOKEN, Attacker, http, open_victim, remote_door, rpc

PROXY, INNER = "192.0.2.7", "192.0.2.8"
GOOD, BAD = "198.51.100.9", "203.0.113.66"
DENY = NetworkConfig(deny=("203.0.113.0/24",))
ALLOW = NetworkConfig(allow=("198.51.100.0/24", PROXY, "127.0.0.1"))


@asynccontextmanager
async def behind(network: NetworkConfig, *, peer: str = PROXY, **config: Any) -> AsyncIterator[tuple[Gateway, int]]:
    async with (
        open_victim(trusted_proxies=(PROXY, INNER), network=network, **config) as gateway,
        remote_door(gateway, peer) as port,
    ):
        yield gateway, port


@asynccontextmanager
async def door(gateway: Gateway, peer: str, arrival: Arrival) -> AsyncIterator[int]:
    """A port whose connections came in from ``peer`` as ``arrival`` says."""
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            await gateway._server.serve(StreamWire(stream, (peer, 4), arrival))

        listeners: Any = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def statuses(port: int, *said: tuple[str, str]) -> set[int]:
    """What a client with these header lines gets: WebSocket, RPC with the right token, a probe, a page, no page."""
    lines = {"Host": "127.0.0.1", **dict(said)}
    found = {(await rpc(port, "health", headers=lines))[0]}
    for path in ("/health", "/nothing-here", "//not/canonical"):
        found.add(403 if (status := (await http(port, "GET", path, headers=lines))[0]) == 403 else min(status, 404))
    async with await Attacker.at(port) as client:
        found.add(await upgrade_status(client, lines))
    return found


async def upgrade_status(client: RawClient, lines: dict[str, str]) -> int:
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    await client.send(
        f"GET / HTTP/1.1\r\n{head}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    status, _ = await client.read_head()
    return status


KEPT_OUT = {403}


@pytest.mark.parametrize(
    "value",
    [
        BAD,
        f"{GOOD}, {BAD}",
        f"127.0.0.1, {BAD}",
        f"{BAD}, {INNER}",
        f"{BAD}:4711",
        f"[::ffff:{BAD}]:4711",
        "64:ff9b::203.0.113.66",
    ],
)
async def test_v35_a_denied_client_is_kept_out_behind_a_trusted_proxy(value: str) -> None:
    async with behind(DENY) as (gateway, port):
        assert await statuses(port, ("X-Forwarded-For", value)) == KEPT_OUT
        rows = [row for row in await gateway.audit.recent(50) if row.get("code") == "NETWORK_DENIED"]
        assert rows, "one line in the audit trail, as for a socket"
        assert all("203.0.113.66" in row["address"] or row["address"].startswith("64:ff9b") for row in rows)
        assert 200 in await statuses(port, ("X-Forwarded-For", f"{BAD}, {GOOD}")), "what the client wrote itself"


@pytest.mark.parametrize("value", [BAD, "unknown", "", f"{GOOD}, _hidden", INNER, f"{GOOD}, {INNER}x", "2001:db8::1"])
async def test_v35_whoever_is_not_on_the_allow_list_is_kept_out_behind_a_trusted_proxy(value: str) -> None:
    """What cannot be read included: a list that is there means that nobody else comes in."""
    async with behind(ALLOW) as (_, port):
        assert await statuses(port, ("X-Forwarded-For", value)) == KEPT_OUT
        assert await statuses(port, ("X-Forwarded-Proto", "https")) == KEPT_OUT
        assert 200 in await statuses(port, ("X-Forwarded-For", GOOD))
        assert 200 in await statuses(port), "the proxy's own health check has the address that connects"


async def test_v35_a_denied_client_that_is_trusted_as_a_proxy_names_nobody_before_itself() -> None:
    """A trusted network that holds clients too: the walk goes on to what the client made up."""
    async with behind(NetworkConfig(deny=(INNER,))) as (_, port):
        assert await statuses(port, ("X-Forwarded-For", f"{GOOD}, {INNER}")) == KEPT_OUT
        assert 200 in await statuses(port, ("X-Forwarded-For", GOOD))


async def test_v35_the_header_that_the_proxies_write_is_the_one_that_counts() -> None:
    async with behind(DENY, client_address_header="forwarded") as (_, port):
        assert await statuses(port, ("Forwarded", f"for={BAD}"), ("X-Forwarded-For", GOOD)) == KEPT_OUT
        assert 200 in await statuses(port, ("Forwarded", f"for={GOOD}"), ("X-Forwarded-For", BAD))
    async with behind(ALLOW, client_address_header="forwarded") as (_, port):
        assert await statuses(port, ("Forwarded", f'for="{GOOD}')) == KEPT_OUT, "a quote left open"


@pytest.mark.parametrize("begun", ['for="', "for=1;for=1", "for=[", ";;", 'for="198.51.100.9'])
async def test_v35_a_denied_client_does_not_hide_by_breaking_the_header_that_its_proxy_appends_to(begun: str) -> None:
    """What the client began may swallow what the proxy wrote: on a deny list only what can be read is let by."""
    async with behind(DENY, client_address_header="forwarded") as (gateway, port):
        assert await statuses(port, ("Forwarded", f"{begun}, for={BAD}")) == KEPT_OUT
        assert 200 in await statuses(port, ("Forwarded", f"for=_hidden, for={GOOD}"))
        assert 200 in await statuses(port, ("Forwarded", f"for={BAD}, for=unknown")), "the proxy's own word"
        rows = [row for row in await gateway.audit.recent(50) if row.get("code") == "NETWORK_DENIED"]
        assert {row["address"] for row in rows} == {"unreadable"}
    async with behind(NetworkConfig(), client_address_header="forwarded") as (_, port):
        assert 200 in await statuses(port, ("Forwarded", f"{begun}, for={BAD}")), "no list, nobody to keep out"


async def test_proxy1_headers_of_a_proxy_that_is_not_trusted_keep_nobody_out() -> None:
    async with behind(DENY, peer="192.0.2.99") as (_, port):
        assert 200 in await statuses(port, ("X-Forwarded-For", BAD))


async def test_v14_a_client_named_by_a_proxy_header_and_again_by_a_trusted_proxy_meets_the_lists() -> None:
    async with (
        open_victim(trusted_proxies=(PROXY, INNER), network=DENY) as gateway,
        door(gateway, INNER, Arrival(proxy=PROXY)) as port,
    ):
        assert await statuses(port, ("X-Forwarded-For", BAD)) == KEPT_OUT
        assert 200 in await statuses(port, ("X-Forwarded-For", GOOD))


@pytest.mark.parametrize("provenance", ["tailscale-serve", "tailscale-funnel"])
async def test_c6_the_lists_hold_for_whom_tailscaled_speaks_for(provenance: Provenance) -> None:
    async with (
        open_victim(network=ALLOW) as gateway,
        door(gateway, "127.0.0.1", Arrival(listener="tailscale", provenance=provenance)) as port,
    ):
        assert await statuses(port, ("X-Forwarded-For", "100.64.0.9")) == KEPT_OUT
        assert 200 in await statuses(port, ("X-Forwarded-For", GOOD))


async def test_a_further_listeners_own_lists_hold_for_its_own_clients() -> None:
    own = ListenerConfig(name="partner", port=0, deny=("198.51.100.9",))
    async with (
        open_victim(trusted_proxies=(PROXY,), network=DENY, listeners=(own,)) as gateway,
        door(gateway, PROXY, Arrival(listener="partner")) as partner,
        door(gateway, PROXY, Arrival()) as main,
    ):
        assert await statuses(partner, ("X-Forwarded-For", GOOD)) == KEPT_OUT
        assert await statuses(partner, ("X-Forwarded-For", BAD)) == KEPT_OUT
        assert 200 in await statuses(main, ("X-Forwarded-For", GOOD))


async def test_v16_whoever_the_lists_of_now_keep_out_goes_and_a_kept_alive_connection_asks_them_anew() -> None:
    async with (
        behind(NetworkConfig()) as (gateway, port),
        await Attacker.at(port) as bad,
        await Attacker.at(port) as good,
        await Attacker.at(port) as pooled,
    ):
        await bad.open(x_forwarded_for=BAD)
        await good.open(x_forwarded_for=GOOD)
        request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {BAD}\r\n\r\n".encode()
        answers = []
        for _ in range(2):
            await pooled.send(request)
            status, received = await pooled.read_head()
            await pooled.read_body(received)
            answers.append(status)
            config = attrs.evolve(gateway.config, network=DENY)
            gateway.apply(config, resolve_auth(config, None, {}))
        assert answers == [200, 403], "the proxy's connection stays, its clients are asked about one by one"
        assert (await bad.outcome()).close_code == 1012
        await good.send(frame(TEXT, good.request("connect", good.params(token=TOKEN))))
        assert (await good.outcome()).detail == "DEVICE_IDENTITY_REQUIRED", "heard, as anybody remote is"


async def test_explain_knows_the_lists() -> None:
    async with behind(ALLOW) as (gateway, _), await Attacker.at(gateway.port) as owner:
        assert (await owner.connect(token=TOKEN)).admitted
        for asked, address in (
            ({"ip": BAD}, BAD),
            ({"ip": PROXY, "forwarded": BAD}, BAD),
            ({"ip": PROXY, "forwarded": "hidden"}, "unknown"),
        ):
            told = (await owner.call("gateway.explain", asked))["payload"]
            assert (told["verdict"], told["code"], told["address"]) == ("refused", "NETWORK_DENIED", address)
            assert told["fix"] == "openclaw config get gateway.network.allow"
        told = (await owner.call("gateway.explain", {"ip": PROXY, "forwarded": GOOD}))["payload"]
        assert told.get("code") != "NETWORK_DENIED"
