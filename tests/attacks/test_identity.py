"""V8 to V15 and V59: passing for somebody one is not. The attacker chooses every byte of connect and every header."""

from __future__ import annotations

import hmac
import itertools
import json
from typing import Any

import msgspec
import pytest

from openclaw_gateway import Gateway
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from tests.websocket.rawclient import TEXT, frame

from .attacker import (
    ALL_SCOPES,
    CLIENT_IDS,
    CLIENT_MODES,
    TOKEN,
    Attacker,
    Device,
    http,
    legit_client_works,
    open_victim,
    remote_door,
    rpc,
)


def _state(gateway: Gateway) -> dict[str, Any]:
    """What a call could have changed."""
    return {
        "heartbeats": gateway.health.heartbeats_enabled,
        "presence": gateway.presence.version,
        "book": gateway._book.to_wire(),
        "sessions": len(gateway._core.registry),
    }


# --- V8


async def test_v8_every_method_before_hello_closes_and_does_nothing(victim: Gateway) -> None:
    ran: list[str] = []
    for scope in (*ALL_SCOPES, "any"):
        victim.rpc.method(f"bait.{scope}", scope=scope)(lambda context, params, scope=scope: ran.append(scope))
    methods = [*victim.rpc.names, "config.apply", "exec", "node.invoke", "no.such.method", "Connect", "connect "]
    assert len(methods) > 20
    before = _state(victim)
    for method in methods:
        for call in (
            {"type": "req", "id": "1", "method": method, "params": {}},
            {"type": "req", "id": "1", "method": method, "params": {"raw": "{}", "enabled": False, "text": "x"}},
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"enabled": False, "text": "x"}},
            [{"jsonrpc": "2.0", "id": 1, "method": method}, {"method": method}],
        ):
            async with await Attacker.at(victim.port) as client:
                await client.open()
                await client.send(frame(TEXT, json.dumps(call).encode()))
                got = await client.read_frame()
                assert got is not None
                assert '"ok":true' not in got.payload.decode("latin-1")
                assert '"result"' not in got.payload.decode("latin-1")
                assert (await client.read_close()).close_code == 1008
        status, body = await rpc(victim.port, method, token=None)
        assert status in {401, 403}
        assert "result" not in body
    assert ran == []
    assert _state(victim) == before


async def test_v8_calls_pipelined_behind_a_refused_connect_do_nothing(victim: Gateway) -> None:
    ran: list[str] = []
    victim.rpc.method("bait", scope="operator.read")(lambda context, params: ran.append("ran"))
    async with await Attacker.at(victim.port) as client:
        await client.open()
        burst = frame(TEXT, client.connect_request("wrong")) + frame(TEXT, client.request("bait")) * 10
        await client.send(burst)
        outcome = await client.outcome()
        assert outcome.detail == "AUTH_TOKEN_MISMATCH"
    assert ran == []


# --- V9

TAILSCALE = {
    "tailscale_user_login": "owner@example.com",
    "tailscale_user_name": "Owner",
    "x_forwarded_for": "100.64.0.7",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "gw.tail1234.ts.net",
}
WRONG = [
    {"token": "wrong"},
    {"token": "wrong", "deviceToken": "wrong"},
    {"token": "wrong", "password": TOKEN + "x"},
    {"token": "wrong", "bootstrapToken": "wrong"},
    {"deviceToken": TOKEN},
    {"bootstrapToken": TOKEN},
    {"token": ""},
    {},
]


@pytest.mark.parametrize("number", range(len(WRONG)))
async def test_v9_a_wrong_token_without_a_device_opens_nothing(number: int, victim: Gateway, far_port: int) -> None:
    for port, headers in itertools.product((victim.port, far_port), ({}, TAILSCALE)):
        for role in ("operator", "node"):
            async with await Attacker.at(port) as client:
                outcome = await client.connect(role=role, headers=headers, **WRONG[number])
                assert not outcome.admitted
                assert outcome.close_code == 1008


async def test_v9_tailscale_headers_help_nobody_with_a_wrong_token(victim: Gateway) -> None:
    for headers in (TAILSCALE, {"tailscale_user_login": "owner@example.com"}):
        for auth in ({"token": "wrong"}, {}):
            async with await Attacker.at(victim.port) as client:
                assert not (await client.connect(headers=headers, **auth)).admitted
            spelled = {name.replace("_", "-"): value for name, value in headers.items()}
            status, _ = await rpc(victim.port, "health", token=auth.get("token"), headers=spelled)
            assert status in {401, 403}


# --- V12


async def test_v12_client_id_grants_nothing(victim: Gateway, far_port: int) -> None:
    """From elsewhere, with the right secret, whatever program one claims to be: a device is asked for."""
    details = set()
    for client_id, mode in itertools.product(CLIENT_IDS, CLIENT_MODES):
        async with await Attacker.at(far_port) as client:
            outcome = await client.connect(client=client_id, mode=mode, token=TOKEN)
            assert not outcome.admitted
            details.add(outcome.detail)
    assert details == {"DEVICE_IDENTITY_REQUIRED", "CONTROL_UI_ORIGIN_NOT_ALLOWED"}
    for client_id, mode in (("gateway-client", "backend"), ("cli", "cli"), ("cli", "probe"), ("node-host", "node")):
        async with await Attacker.at(far_port) as client:
            outcome = await client.connect(client=client_id, mode=mode, token=TOKEN, device=Device())
            assert outcome.detail == "PAIRING_REQUIRED"
    assert victim._book.paired() == ()


async def test_v12_client_id_replaces_no_secret_on_this_host(victim: Gateway) -> None:
    for client_id, mode in itertools.product(CLIENT_IDS, CLIENT_MODES):
        for auth in ({}, {"token": "wrong"}):
            async with await Attacker.at(victim.port) as client:
                outcome = await client.connect(client=client_id, mode=mode, **auth)
                assert not outcome.admitted


# --- V13

FORWARDING = {
    "forwarded": "for=127.0.0.1;host=localhost",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "localhost",
    "x-forwarded-proto": "https",
    "x-forwarded-port": "443",
    "x-forwarded-server": "proxy",
    "x-forwarded": "127.0.0.1",
    "forwarded-for": "127.0.0.1",
    "x-real-ip": "127.0.0.1",
    "x-client-ip": "127.0.0.1",
    "x-cluster-client-ip": "127.0.0.1",
    "x-original-forwarded-for": "127.0.0.1",
    "x-originating-ip": "127.0.0.1",
    "x-remote-ip": "127.0.0.1",
    "x-remote-addr": "127.0.0.1",
    "true-client-ip": "127.0.0.1",
    "client-ip": "127.0.0.1",
    "cf-connecting-ip": "127.0.0.1",
    "cf-ray": "1",
    "fastly-client-ip": "127.0.0.1",
    "fly-client-ip": "127.0.0.1",
    "incap-client-ip": "127.0.0.1",
    "x-sucuri-clientip": "127.0.0.1",
    "x-envoy-external-address": "127.0.0.1",
    "x-azure-clientip": "127.0.0.1",
    "x-appengine-user-ip": "127.0.0.1",
    "x-vercel-forwarded-for": "127.0.0.1",
    "x-amzn-trace-id": "Root=1-1",
    "via": "1.1 proxy",
    "cdn-loop": "cloudflare",
    "tailscale-user-login": "me@example.com",
}
FAR_HOSTS = [
    "gw.example.com",
    "gw.example.com:18789",
    "192.0.2.1",
    "localhost.evil.example",
    "[2001:db8::1]",
    "x@localhost",
]


@pytest.mark.parametrize("name", FORWARDING)
async def test_v13_a_forwarding_header_ends_locality(name: str, victim: Gateway) -> None:
    header = {name.replace("-", "_"): FORWARDING[name]}
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(token=TOKEN, headers=header)
        assert not outcome.admitted
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(token=TOKEN, headers=header, device=Device())
        assert outcome.detail == "PAIRING_REQUIRED"
    status, _ = await rpc(victim.port, "health", headers={name: FORWARDING[name]})
    assert status == 403
    assert victim._book.paired() == ()  # no token that lasts was minted


@pytest.mark.parametrize("host", FAR_HOSTS)
async def test_v13_a_host_that_is_not_loopback_ends_locality(host: str, victim: Gateway) -> None:
    async with await Attacker.at(victim.port) as client:
        assert not (await client.connect(token=TOKEN, headers={"host": host})).admitted
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(token=TOKEN, headers={"host": host}, device=Device())
        assert outcome.detail == "PAIRING_REQUIRED"
    assert victim._book.paired() == ()


async def test_v13_a_remote_peer_that_says_localhost_is_remote(victim: Gateway, far_port: int) -> None:
    for host in ("localhost", "127.0.0.1", "[::1]"):
        async with await Attacker.at(far_port) as client:
            outcome = await client.connect(token=TOKEN, headers={"host": host}, device=Device())
            assert outcome.detail == "PAIRING_REQUIRED"
    assert victim._book.paired() == ()


async def test_v13_a_trusted_proxy_cannot_pass_on_locality() -> None:
    async with open_victim(trusted_proxies=("127.0.0.2",)) as gateway:
        for hops in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2", "203.0.113.9, 127.0.0.1"):
            async with await Attacker.at(gateway.port, source="127.0.0.2") as client:
                outcome = await client.connect(token=TOKEN, headers={"x_forwarded_for": hops}, device=Device())
                assert outcome.detail == "PAIRING_REQUIRED"
        assert gateway._book.paired() == ()


async def test_v13_without_authentication_a_proxy_makes_nobody_local() -> None:
    async with open_victim("none") as gateway:
        for headers in ({"x_forwarded_for": "203.0.113.9"}, {"via": "1.1 x"}, {"host": "gw.example.com"}):
            async with await Attacker.at(gateway.port) as client:
                assert not (await client.connect(headers=headers)).admitted
            async with await Attacker.at(gateway.port) as client:
                outcome = await client.connect(headers=headers, device=Device())
                assert outcome.detail == "PAIRING_REQUIRED"


# --- V14


async def _guess_until_locked(port: int, *, headers: dict[str, str] | None = None, **bogus: Any) -> None:
    for number in range(10):
        async with await Attacker.at(port) as client:
            outcome = await client.connect(token=f"guess-{number}", headers=headers, **bogus)
            assert outcome.detail == "AUTH_TOKEN_MISMATCH"


@pytest.mark.parametrize("bogus", ["deviceToken", "bootstrapToken", "password", "a fresh key each", "jsonrpc"])
async def test_v14_bogus_extras_do_not_dodge_the_lockout(bogus: str, victim: Gateway, far_port: int) -> None:
    for number in range(11):
        async with await Attacker.at(far_port) as client:
            if bogus == "jsonrpc":
                await client.open()
                call = {"method": "connect", "id": 1, "params": {"token": f"guess-{number}"}}
                await client.send(frame(TEXT, msgspec.json.encode(call)))
                reply = (await client.read_frame()).json  # type: ignore[union-attr]
                detail = reply["error"]["data"]["details"]["code"]
            else:
                extra: dict[str, Any] = {"device": Device()} if " " in bogus else {bogus: "bogus"}
                detail = (await client.connect(token=f"guess-{number}", **extra)).detail
            assert detail == ("AUTH_TOKEN_MISMATCH" if number < 10 else "AUTH_RATE_LIMITED")
    async with await Attacker.at(far_port) as client:
        assert (await client.connect(token=TOKEN, device=Device())).detail == "AUTH_RATE_LIMITED"


@pytest.mark.parametrize(
    ("guesser", "twin"),
    [
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:c000:207"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:fffe"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
async def test_v14_one_client_has_one_key(guesser: str, twin: str, victim: Gateway) -> None:
    async with remote_door(victim, guesser) as port, remote_door(victim, twin) as other:
        await _guess_until_locked(port)
        async with await Attacker.at(other) as client:
            assert (await client.connect(token=TOKEN, device=Device())).detail == "AUTH_RATE_LIMITED"
    async with remote_door(victim, "2001:db8:1:3::1") as neighbour, await Attacker.at(neighbour) as client:
        assert (await client.connect(token=TOKEN, device=Device())).detail == "PAIRING_REQUIRED"


async def test_v14_mapped_addresses_of_a_dual_stack_listener_are_ipv4() -> None:
    """Real sockets: an IPv4 peer of a ``::`` listener arrives as ::ffff:a.b.c.d and is that IPv4 address."""
    async with open_victim(bind="::") as gateway:
        for host, address in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
            async with await Attacker.at(gateway.port, host=host) as client:
                assert (await client.connect(token=TOKEN)).admitted
                (session,) = gateway._core.registry
                assert (session.peer.address, session.peer.limiter_key) == (address, address)
                await client.leave()
        assert gateway._core.registry.strangers.count("::ffff:127.0.0.1") == 0


async def test_v14_invented_hops_do_not_dodge_the_lockout() -> None:
    async with open_victim(trusted_proxies=("127.0.0.2",)) as gateway:
        for number in range(11):
            async with await Attacker.at(gateway.port, source="127.0.0.2") as client:
                hops = f"198.51.100.{number}, 203.0.113.9"
                outcome = await client.connect(token=f"guess-{number}", headers={"x_forwarded_for": hops})
        assert outcome.detail == "AUTH_RATE_LIMITED"
        for number in range(11):  # and a proxy that nobody trusts attributes nothing
            async with await Attacker.at(gateway.port, source="127.0.0.3") as client:
                hops = f"198.51.100.{number}"
                outcome = await client.connect(token=f"guess-{number}", headers={"x_forwarded_for": hops})
        assert outcome.detail == "AUTH_RATE_LIMITED"
        await legit_client_works(gateway.port)


async def test_v14_http_and_websocket_share_one_account(victim: Gateway, far_port: int) -> None:
    for number in range(5):
        status, _ = await rpc(far_port, "health", token=f"guess-{number}")
        assert status == 401
        async with await Attacker.at(far_port) as client:
            assert (await client.connect(token=f"guess {number}")).detail == "AUTH_TOKEN_MISMATCH"
    async with await Attacker.at(far_port) as client:
        assert (await client.connect(token=TOKEN, device=Device())).detail == "AUTH_RATE_LIMITED"
    assert (await rpc(far_port, "health"))[0] == 429


async def test_v14_wrong_methods_and_paths_cost_nobody_an_attempt(victim: Gateway, far_port: int) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    for method, path in itertools.product(("GET", "HEAD", "PUT", "DELETE"), ("/rpc", "/rpc?x=1")):
        for _ in range(4):
            assert (await http(far_port, method, path, headers=wrong))[0] == 405
    for path in ("/nowhere", "/health", "/", "//rpc", "/%72pc"):
        for _ in range(4):
            await http(far_port, "GET", path, headers=wrong)
    assert len(victim.gatekeeper.ledger) == 0


async def test_v14_a_retry_while_locked_does_not_extend_the_lock(victim: Gateway) -> None:
    ledger = FailureLedger(LockoutRules(delays=(0.0,), lockout=0.4))
    victim.gatekeeper.ledger = ledger
    async with remote_door(victim) as port:
        await _guess_until_locked(port)
        (key,) = ledger._rows
        locked_until = ledger._rows[key].locked_until
        for _ in range(3):
            async with await Attacker.at(port) as client:
                await client.connect(token="wrong", device=Device())
        assert ledger._rows[key].locked_until == locked_until


# --- V15


async def test_v15_secrets_are_compared_as_digests_of_one_length(
    victim: Gateway, far_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def spy(a: Any, b: Any) -> bool:
        assert type(a) is bytes
        assert type(b) is bytes
        lengths.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    device = Device()
    for guess in ("", "x", TOKEN[:-1], TOKEN + "x", "\u00e9" * 100, "y" * 4000, TOKEN):
        async with await Attacker.at(victim.port) as client:
            await client.connect(token=guess)
        async with await Attacker.at(victim.port) as client:
            await client.connect(token=guess, device=device)
        async with await Attacker.at(victim.port) as client:
            await client.connect(deviceToken=guess, device=device)
        await rpc(victim.port, "health", token=guess.encode("ascii", "replace").decode() or None)
    assert len(lengths) > 10
    assert {length for pair in lengths for length in pair} == {32}


# --- V59


async def test_v59_a_self_made_key_does_not_outweigh_a_wrong_token(victim: Gateway, far_port: int) -> None:
    for port in (victim.port, far_port):
        for role, mode in (("operator", "backend"), ("node", "node")):
            victim.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
            async with await Attacker.at(port) as client:
                outcome = await client.connect(token="wrong", device=Device(), role=role, mode=mode, scopes=[])
                assert outcome.detail == "AUTH_TOKEN_MISMATCH"
            assert len(victim.gatekeeper.ledger) == 1
    book = victim._book.to_wire()
    assert book == {"pending": [], "paired": []}
    stored = await victim._book._store.run(
        lambda db: [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("devices", "pending_requests")]
    )
    assert stored == [0, 0]


async def test_v59_neither_do_other_credentials_beside_it(victim: Gateway) -> None:
    for auth in ({}, {"token": ""}, {"deviceToken": "bogus"}, {"bootstrapToken": "bogus"}, {"password": "bogus"}):
        async with await Attacker.at(victim.port) as client:
            assert not (await client.connect(device=Device(), **auth)).admitted
    assert victim._book.to_wire() == {"pending": [], "paired": []}


async def test_v59_a_signature_of_another_challenge_or_key_is_refused(victim: Gateway) -> None:
    device, other = Device(), Device()
    async with await Attacker.at(victim.port) as first:
        old = await first.open()
        async with await Attacker.at(victim.port) as second:
            fresh = await second.open()
            params = second.params(token=TOKEN)
            params["device"] = device.prove(params, old)
            await second.send(frame(TEXT, second.request("connect", params)))
            assert (await second.outcome()).detail == "DEVICE_AUTH_NONCE_MISMATCH"
        assert fresh["nonce"] != old["nonce"]
    for field, value in (("publicKey", other.public_key), ("id", other.id), ("signature", "A" * 86)):
        async with await Attacker.at(victim.port) as client:
            challenge = await client.open()
            params = client.params(token=TOKEN)
            params["device"] = {**device.prove(params, challenge), field: value}
            await client.send(frame(TEXT, client.request("connect", params)))
            assert not (await client.outcome()).admitted
    assert victim._book.to_wire() == {"pending": [], "paired": []}
