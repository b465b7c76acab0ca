"""Operators log in at an OpenID provider; and whoever is not one does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import jwt
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.config.hookblocks import OidcConfig
from openclaw_gateway.config.schema import AuthConfig, ControlUiConfig, GatewayConfig
from openclaw_gateway.hooks import login, provider
from openclaw_gateway.hooks.oidc import Identity, LoginRefused, Metadata, may_log_in, read_metadata, verify_id_token
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.testing.oidc import OidcServer, open_oidc_provider
from tests.attacks.attacker import TOKEN, Attacker, http, rpc
from tests.cli.program import free_port

USER = {"sub": "alice-1", "email": "alice@example.com", "email_verified": True}


@attrs.define
class Browser:
    """What a browser does of it: cookies per host, and one address after the other."""

    port: int
    cookies: dict[str, str] = attrs.field(factory=dict)

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        status, received, body = await http(self.port, "GET", path, headers=headers)
        cookie = received.get("set-cookie", "").partition(";")[0]
        if cookie:
            name, _, value = cookie.partition("=")
            self.cookies[name] = value
        return status, received, body.decode()

    async def begin(self) -> str:
        """The address of the provider."""
        status, headers, _ = await self.get("/auth/login")
        assert status == 303
        return headers["location"]

    async def log_in(self, server: OidcServer) -> tuple[int, dict[str, str], str]:
        return await self.get(_path(at_provider(server, await self.begin())))


def at_provider(server: OidcServer, address: str) -> str:
    """Where the provider sends the browser after somebody agreed."""
    return server.authorize({name: values[0] for name, values in parse_qs(urlsplit(address).query).items()})


def _path(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def token_of(body: str) -> str:
    found = re.search(r"<code>(ocg_[A-Za-z0-9_-]{43})</code>", body)
    assert found is not None, body
    return found[1]


@asynccontextmanager
async def opened(user: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[tuple[Gateway, OidcServer]]:
    port = free_port()
    redirect = f"http://127.0.0.1:{port}/auth/callback"
    async with open_oidc_provider(
        redirect_uri=redirect, user=USER if user is None else user, client_secret="secret of the client"
    ) as server:
        oidc = OidcConfig(
            issuer=server.issuer, client_id="gateway", client_secret="secret of the client",
            allow_users=("alice@example.com",), scopes=("operator.read", "operator.write"),
        )  # fmt: skip
        auth = AuthConfig(token=TOKEN, oidc=attrs.evolve(oidc, **changes.pop("oidc", {})))
        auth = attrs.evolve(auth, **changes.pop("auth", {}))
        async with open_gateway(GatewayConfig(port=port, auth=auth, **changes), env={}) as gateway:
            gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
            yield gateway, server


def logins(gateway: Gateway) -> login.OidcLogin:
    assert gateway._parts.on_demand.login is not None
    return gateway._parts.on_demand.login


async def test_s013_an_operator_logs_in_and_works() -> None:
    async with opened() as (gateway, server):
        browser = Browser(gateway.port)
        status, headers, body = await browser.log_in(server)
        assert status == 200, body
        assert headers["cache-control"] == "no-store"
        key = token_of(body)
        assert (await rpc(gateway.port, "health", token=key))[0] == 200
        async with await Attacker.at(gateway.port) as client:
            outcome = await client.connect(token=key, scopes=["operator.read", "operator.write", "operator.admin"])
            assert outcome.hello["auth"]["scopes"] == ["operator.read", "operator.write"]
        (row,) = (await rpc(gateway.port, "tokens.list"))[1]["result"]["keys"]
        assert row["createdBy"] == "oidc:alice-1"
        assert row["expiresAtMs"] - row["createdAtMs"] == login.LONGEST_LIFE_MS
        asked = next(headers for method, path, headers in server.requests if path == "/token")
        assert base64.b64decode(asked["authorization"].removeprefix("Basic ")) == b"gateway:secret%20of%20the%20client"


async def test_the_dashboard_gets_the_token_in_the_fragment(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html><head></head></html>")
    async with opened(control_ui=ControlUiConfig(root=tmp_path)) as (gateway, server):
        status, headers, body = await Browser(gateway.port).log_in(server)
        assert (status, body) == (303, "")
        assert re.fullmatch(r"/#token=ocg_[A-Za-z0-9_-]{43}", headers["location"])


async def test_a_login_ends_with_its_token_and_cuts_who_came_in_with_it() -> None:
    async with opened(auth={"expires_in": 1.0}) as (gateway, server):
        key = token_of((await Browser(gateway.port).log_in(server))[2])
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(token=key, scopes=["operator.read"])).admitted
            with trio.fail_after(10):
                assert (await client.read_close()) is not None
        assert (await rpc(gateway.port, "health", token=key))[0] == 401


async def test_v16_who_may_log_in_changes_and_old_logins_end(tmp_path: Path) -> None:
    async with opened() as (gateway, server):
        key = token_of((await Browser(gateway.port).log_in(server))[2])
        made = await rpc(gateway.port, "tokens.create", {"name": "login-by-hand", "scopes": ["operator.read"]})
        narrower = attrs.evolve(gateway.config.auth.oidc, allow_users=("bob@example.com",))
        config = attrs.evolve(gateway.config, auth=attrs.evolve(gateway.config.auth, oidc=narrower))
        gateway.apply(config, gateway.auth)
        with trio.fail_after(5):
            while (await rpc(gateway.port, "health", token=key))[0] == 200:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert (await rpc(gateway.port, "health", token=made[1]["result"]["key"]))[0] == 200
        assert (await Browser(gateway.port).log_in(server))[0] == 403
        gateway.apply(attrs.evolve(config, auth=AuthConfig(token=TOKEN)), gateway.auth)
        assert (await http(gateway.port, "GET", "/auth/login"))[0] == 404


async def test_a_person_has_few_tokens_and_the_oldest_gives_way() -> None:
    async with opened() as (gateway, server):
        keys = [token_of((await Browser(gateway.port).log_in(server))[2]) for _ in range(login.MAX_PER_PERSON + 1)]
        alive = [(await rpc(gateway.port, "health", token=key))[0] for key in keys]
        assert alive == [401, *[200] * login.MAX_PER_PERSON]


async def test_it_is_off_by_default() -> None:
    async with open_gateway(GatewayConfig(port=0), env={}) as gateway:
        assert gateway._parts.on_demand.login is None
        assert (await http(gateway.port, "GET", "/auth/login"))[0] == 404
        assert (await http(gateway.port, "GET", "/auth/callback?code=a&state=b"))[0] == 404


async def test_another_name_of_this_host_begins_at_the_registered_one() -> None:
    async with opened() as (gateway, server):
        status, headers, _ = await http(gateway.port, "GET", "/auth/login", headers={"Host": "evil.example"})
        assert (status, headers["location"]) == (303, f"http://127.0.0.1:{gateway.port}/auth/login?here")
        status, headers, _ = await http(gateway.port, "GET", "/auth/login?here", headers={"Host": "behind.a.proxy"})
        assert headers["location"].startswith(f"{server.issuer}/authorize?")
        asked = parse_qs(urlsplit(headers["location"]).query)
        assert asked["redirect_uri"] == [f"http://127.0.0.1:{gateway.port}/auth/callback"]
        assert "openclaw-login-" in headers["set-cookie"]
        assert all(word in headers["set-cookie"] for word in ("HttpOnly", "SameSite=Lax", "Path=/auth/callback"))


# --- attacks


async def test_csrf_a_login_ends_only_in_the_browser_that_began_it() -> None:
    async with opened() as (gateway, server):
        attacker, victim = Browser(gateway.port), Browser(gateway.port)
        address = _path(at_provider(server, await attacker.begin()))
        await victim.begin()
        assert (await victim.get(address))[0] == 400
        assert (await Browser(gateway.port).get(address))[0] == 400
        assert (await attacker.get(address))[0] == 200


async def test_replay_an_answer_is_good_once() -> None:
    async with opened() as (gateway, server):
        browser = Browser(gateway.port)
        address = _path(at_provider(server, await browser.begin()))
        assert (await browser.get(address))[0] == 200
        assert (await browser.get(address))[0] == 400
        assert len([path for _, path, _ in server.requests if path == "/token"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda address: address.replace("iss=", "iss=https%3A%2F%2Fevil.example&was="),  # mix-up (RFC 9207)
        lambda address: re.sub(r"&iss=[^&]*", "", address),
        lambda address: re.sub(r"state=[^&]*", "state=" + "A" * 43, address),
        lambda address: re.sub(r"&state=[^&]*", "", address),
        lambda address: "/auth/callback?code=other&" + address.partition("?")[2],
        lambda address: address + "&error=access_denied",
        lambda address: re.sub(r"code=[^&]*", "code=", address),
        lambda address: re.sub(r"code=[^&]*", "code=" + "x" * 5000, address),
        lambda address: re.sub(r"code=[^&]*", "code=made-up", address),
        lambda address: address.partition("?")[0],
        lambda address: address + "&" + "&".join(f"x{number}=1" for number in range(40)),
    ],
)
async def test_an_answer_that_was_tampered_with_is_refused(change: Callable[[str], str]) -> None:
    async with opened() as (gateway, server):
        browser = Browser(gateway.port)
        status, _, body = await browser.get(change(_path(at_provider(server, await browser.begin()))))
        assert status in {400, 403, 502}
        assert "ocg_" not in body
        assert gateway._parts.services.keys.names("login-") == []


def _hmac_with_the_public_key(server: OidcServer, claims: dict[str, Any]) -> str:
    public = server.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body = ({"alg": "HS256", "typ": "JWT", "kid": server.kid}, claims)
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body)]
    signed = b".".join(parts)
    digest = base64.urlsafe_b64encode(hmac.new(public, signed, hashlib.sha256).digest()).rstrip(b"=")
    return (signed + b"." + digest).decode()


def _by_a_stranger(server: OidcServer, claims: dict[str, Any]) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": server.kid})


SIGNERS: dict[str, Callable[[OidcServer, dict[str, Any]], str]] = {
    "none": lambda server, claims: jwt.encode(claims, "", algorithm="none", headers={"kid": server.kid}),
    "the public key as an HMAC key": _hmac_with_the_public_key,
    "the client's secret": lambda server, claims: jwt.encode(claims, "secret of the client".ljust(32, "x"), "HS256"),
    "another key": _by_a_stranger,
    "another key of an unknown id": lambda server, claims: _by_a_stranger(attrs.evolve(server, kid="else"), claims),
    "no token": lambda server, claims: "not.a.token",
    "a signature cut off": lambda server, claims: jwt.encode(
        claims, server.key, algorithm="RS256", headers={"kid": server.kid}
    ).rsplit(".", 1)[0] + ".",
    "an unnamed algorithm": lambda server, claims: jwt.encode(
        claims, server.key, algorithm="PS512", headers={"kid": server.kid}
    ),
    "an extension nobody knows": lambda server, claims: jwt.encode(
        claims, server.key, algorithm="RS256", headers={"kid": server.kid, "crit": ["x"], "x": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", SIGNERS)
async def test_algorithm_confusion_and_foreign_signatures(how: str) -> None:
    async with opened() as (gateway, server):
        server.sign = lambda claims: SIGNERS[how](server, claims)
        server.names_algorithm = False
        status, _, body = await Browser(gateway.port).log_in(server)
        assert status == 403, body
        assert gateway._parts.services.keys.names("login-") == []


CLAIMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another issuer": lambda claims: {**claims, "iss": "https://evil.example"},
    "the issuer with a slash": lambda claims: {**claims, "iss": claims["iss"] + "/"},
    "another audience": lambda claims: {**claims, "aud": "other"},
    "several audiences": lambda claims: {**claims, "aud": ["gateway", "other"]},
    "another party": lambda claims: {**claims, "azp": "other"},
    "another nonce": lambda claims: {**claims, "nonce": "n"},
    "no nonce": lambda claims: {key: value for key, value in claims.items() if key != "nonce"},
    "no expiry": lambda claims: {key: value for key, value in claims.items() if key != "exp"},
    "expired": lambda claims: {**claims, "exp": int(time.time()) - 120},
    "not yet": lambda claims: {**claims, "nbf": int(time.time()) + 3600},
    "from the future": lambda claims: {**claims, "iat": int(time.time()) + 3600},
    "no subject": lambda claims: {**claims, "sub": ""},
    "a subject of another kind": lambda claims: {**claims, "sub": 7},
    "an unverified address": lambda claims: {**claims, "email_verified": False},
    "a verified address as text": lambda claims: {**claims, "email_verified": "true"},
    "an address as subject": lambda claims: {**claims, "sub": "alice@example.com", "email": "x@example.com"},
    "somebody else": lambda claims: {**claims, "email": "mallory@example.com", "sub": "m"},
}


@pytest.mark.parametrize("what", CLAIMS)
async def test_a_token_that_does_not_fit_logs_nobody_in(what: str) -> None:
    async with opened() as (gateway, server):
        server.change_claims = CLAIMS[what]
        status, _, body = await Browser(gateway.port).log_in(server)
        assert status == 403, body
        assert gateway._parts.services.keys.names("login-") == []


METADATA: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://evil.example"},
    "keys in the clear": {"jwks_uri": "http://192.0.2.1/jwks"},
    "a token endpoint elsewhere in the clear": {"token_endpoint": "http://127.0.0.2/token"},
    "no authorization endpoint": {"authorization_endpoint": None},
    "a scheme of its own": {"authorization_endpoint": "javascript:alert(1)"},
    "no PKCE with S256": {"code_challenge_methods_supported": ["plain"]},
}


@pytest.mark.parametrize("what", METADATA)
async def test_v56_metadata_that_lead_astray_are_not_followed(what: str) -> None:
    async with opened() as (gateway, server):
        server.change_metadata = lambda metadata: {**metadata, **METADATA[what]}
        status, headers, _ = await Browser(gateway.port).get("/auth/login")
        assert status == 502
        assert "location" not in headers
        assert {path for _, path, _ in server.requests} == {"/.well-known/openid-configuration"}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # the provider signs with it
async def test_a_key_that_is_short_or_private_is_not_used() -> None:
    async with opened() as (gateway, server):
        server.key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        status, _, body = await Browser(gateway.port).log_in(server)
        assert status == 403
        assert "2048" in body
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaked = {**jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True), "kid": "k"}
    metadata = Metadata(issuer="i", authorization_endpoint="a", token_endpoint="t", jwks_uri="j")
    with pytest.raises(KeyError):
        verify_id_token(
            jwt.encode({"iss": "i"}, key, "RS256", {"kid": "k"}), [leaked], metadata=metadata, client_id="c", nonce="n"
        )


async def test_v16_a_login_that_ends_under_other_rules_is_none() -> None:
    async with opened() as (gateway, server):
        browser = Browser(gateway.port)
        address = _path(at_provider(server, await browser.begin()))

        def change(claims: dict[str, Any]) -> dict[str, Any]:
            oidc = attrs.evolve(gateway.config.auth.oidc, scopes=("operator.read",))
            config = attrs.evolve(gateway.config, auth=attrs.evolve(gateway.config.auth, oidc=oidc))
            gateway.apply(config, gateway.auth)
            return claims

        server.change_claims = change
        assert (await browser.get(address))[0] == 409
        assert gateway._parts.services.keys.names("login-") == []


async def test_a_key_that_was_changed_is_fetched_anew_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as (gateway, server):
        assert (await Browser(gateway.port).log_in(server))[0] == 200
        server.rotate()
        assert (await Browser(gateway.port).log_in(server))[0] == 403  # asked a moment ago
        monkeypatch.setattr(provider, "KEYS_AGAIN_SECONDS", 0.0)
        assert (await Browser(gateway.port).log_in(server))[0] == 200
        asked = [path for _, path, _ in server.requests if path == "/jwks"]
        assert len(asked) == 2


async def test_rule8_logins_under_way_have_a_cap_and_an_address_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "MAX_ATTEMPTS", 3)
    async with opened() as (gateway, server):
        browsers = [Browser(gateway.port) for _ in range(5)]
        addresses = [_path(at_provider(server, await browser.begin())) for browser in browsers]
        assert len(logins(gateway)) == 3
        statuses = [(await browser.get(address))[0] for browser, address in zip(browsers, addresses, strict=True)]
        assert statuses == [400, 400, 200, 200, 200]
        answers = [(await http(gateway.port, "GET", "/auth/login"))[0] for _ in range(20)]
        assert answers.count(429) == 5


def test_who_is_on_the_list() -> None:
    assert may_log_in(Identity("s", "Alice@Example.com"), ["alice@example.COM"])
    assert may_log_in(Identity("s"), ["s"])
    assert not may_log_in(Identity("s"), ["S"])
    assert not may_log_in(Identity("s", None), ["alice@example.com"])
    assert not may_log_in(Identity("a@b"), ["a@b"])
    assert not may_log_in(Identity("s", "a@b"), [])


def test_metadata_of_https_issuers_name_https_only() -> None:
    good = {
        "issuer": "https://id.example", "authorization_endpoint": "https://id.example/a",
        "token_endpoint": "https://tokens.example/t", "jwks_uri": "https://id.example/k",
    }  # fmt: skip
    assert read_metadata(good, "https://id.example").algorithms == ("RS256",)
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        for bad in ("http://id.example/x", "https://user@id.example/x", "https://", "//id.example", 7):
            with pytest.raises(LoginRefused):
                read_metadata({**good, name: bad}, "https://id.example")
    others: list[Any] = [None, [], {}, {**good, "issuer": "https://id.example/"}]
    for document in others:
        with pytest.raises(LoginRefused):
            read_metadata(document, "https://id.example")
