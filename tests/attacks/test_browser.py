"""V1 to V6: what a web page in a browser of this host can do to the gateway. Attackers choose every header."""

from __future__ import annotations

import hmac
import json
from functools import partial
from typing import Any

import attrs
import msgspec
import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway
from openclaw_gateway.config.schema import ControlUiConfig
from openclaw_gateway.rpc.table import MethodSpec, ParamsReader
from tests.websocket.rawclient import TEXT, frame

from .attacker import (
    ALL_SCOPES,
    PASSWORD,
    TOKEN,
    Attacker,
    Device,
    http,
    legit_client_works,
    open_victim,
    remote_door,
    rpc,
)

EVIL = "https://evil.example"
MODES = {"none": {}, "token": {"token": TOKEN}, "password": {"password": PASSWORD}, "trusted-proxy": {"token": TOKEN}}


class Bait:
    """A method with an effect that can be counted."""

    def __init__(self, gateway: Gateway) -> None:
        self.bites = 0
        gateway.rpc.method("bait", scope="operator.admin")(self._bite)

    def _bite(self, context: Any, params: Any) -> dict[str, int]:
        self.bites += 1
        return {"bites": self.bites}


# --- V1


async def test_v1_page_ignores_query_and_ships_no_script(victim: Gateway) -> None:
    plain = await http(victim.port, "GET", "/")
    status, headers, body = await http(victim.port, "GET", "/?gatewayUrl=wss://evil.example&token=stolen&session=1")
    assert status == 200
    assert body == plain[2]
    assert b"evil" not in body
    assert b"stolen" not in body
    assert "script-src" not in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("origin", [EVIL, "null", "file://", "http://127.0.0.1.evil.example", "http://evil@127.0.0.1"])
async def test_v1_foreign_origin_with_a_valid_token_is_refused_before_the_token_is_looked_at(
    origin: str, victim: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def spy(a: Any, b: Any) -> bool:
        compared.append(a)
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    ways: list[dict[str, Any]] = [
        {"token": TOKEN},
        {"token": TOKEN, "client": "openclaw-control-ui", "mode": "webchat"},
        {"path": f"/?token={TOKEN}"},
        {"headers": {"authorization": f"Bearer {TOKEN}"}},
    ]
    for way in ways:
        async with await Attacker.at(victim.port) as page:
            outcome = await page.connect(**{**way, "headers": {**way.get("headers", {}), "origin": origin}})
            assert not outcome.admitted
            assert outcome.detail == "CONTROL_UI_ORIGIN_NOT_ALLOWED"
            assert outcome.close_code == 1008
    assert compared == []
    assert len(victim.gatekeeper.ledger) == 0
    await legit_client_works(victim.port)
    assert compared != []  # the spy does see comparisons


# --- V2


async def test_v2_foreign_page_on_this_host_cannot_guess(victim: Gateway) -> None:
    for guess in ("a", "b", TOKEN):
        async with await Attacker.at(victim.port) as page:
            outcome = await page.connect(password=guess, headers={"origin": EVIL})
            assert outcome.detail == "CONTROL_UI_ORIGIN_NOT_ALLOWED"


async def test_v2_guesses_of_a_page_count_even_on_loopback(victim: Gateway) -> None:
    page_headers = {"origin": f"http://localhost:{victim.port}"}
    for number in range(10):
        async with await Attacker.at(victim.port) as page:
            outcome = await page.connect(token=f"guess-{number}", headers=page_headers)
            assert outcome.detail == "AUTH_TOKEN_MISMATCH"
    async with await Attacker.at(victim.port) as page:
        outcome = await page.connect(token=TOKEN, headers=page_headers)
        assert not outcome.admitted
        assert outcome.detail == "AUTH_RATE_LIMITED"
    # The person at the keyboard has not been locked out by a page.
    await legit_client_works(victim.port)


async def test_v2_guesses_through_cors_count_even_on_loopback(victim: Gateway) -> None:
    bait = Bait(victim)
    page = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    statuses = [(await rpc(victim.port, "bait", token=f"guess-{n}", headers=page))[0] for n in range(10)]
    assert set(statuses) <= {401, 403}
    status, _ = await rpc(victim.port, "bait", headers=page)
    assert status == 429
    assert bait.bites == 0
    assert (await rpc(victim.port, "bait"))[0] == 200


# --- V3


@pytest.mark.parametrize("mode", MODES)
async def test_v3_origin_is_checked_behind_a_trusted_proxy_too(mode: str) -> None:
    headers = {
        "origin": EVIL,
        "x_forwarded_for": "203.0.113.9",
        "x_forwarded_host": "evil.example",
        "x_forwarded_proto": "https",
    }
    async with open_victim(mode, trusted_proxies=("127.0.0.2",)) as gateway:
        bait = Bait(gateway)
        for sent in (headers, {**headers, "forwarded": "for=203.0.113.9"}, {**headers, "tailscale_user_login": "me@x"}):
            async with await Attacker.at(gateway.port, source="127.0.0.2") as page:
                outcome = await page.connect(headers=sent, **MODES[mode])
                assert not outcome.admitted
                assert outcome.detail == "CONTROL_UI_ORIGIN_NOT_ALLOWED"
        forwarded = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _ = await rpc(
            gateway.port,
            "bait",
            token=None,
            source="127.0.0.2",
            headers={**forwarded, "Content-Type": "text/plain"},
        )
        assert status in {403, 421}
        assert bait.bites == 0


# --- V4

CROSS_SITE = {
    "form": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    "no-origin": {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    "same-site": {"Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"},
    "opaque": {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"},
    "other-port": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"},
    "json": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"},
}


@pytest.mark.parametrize("mode", ["none", "token"])
@pytest.mark.parametrize("trick", CROSS_SITE)
async def test_v4_cross_site_post_has_no_effect(trick: str, mode: str) -> None:
    async with open_victim(mode) as gateway:
        bait = Bait(gateway)
        for path in ("/rpc", "/rpc?x=1"):
            body = json.dumps({"method": "bait"}).encode()
            status, _, _ = await http(gateway.port, "POST", path, headers=CROSS_SITE[trick], body=body)
            assert status == 403
        assert bait.bites == 0


async def test_v4_cors_does_not_open_a_gateway_without_authentication() -> None:
    """A page that may send Authorization (the preflight says so) has proved nothing where nothing is asked for."""
    async with open_victim("none") as gateway:
        bait = Bait(gateway)
        page = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
        status, _ = await rpc(gateway.port, "bait", token="anything", headers=page)
        assert bait.bites == 0
        assert status == 403
        assert (await rpc(gateway.port, "bait", token=None))[0] == 200  # the person at the keyboard may


@pytest.mark.parametrize("mode", ["none", "token"])
async def test_v4_rebound_host_is_misdirected(mode: str) -> None:
    async with open_victim(mode) as gateway:
        bait = Bait(gateway)
        name = f"rebound.evil.example:{gateway.port}"
        for page in ({"Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "same-origin"}):
            status, _ = await rpc(gateway.port, "bait", headers={"Host": name, **page})
            assert status == 421
            async with await Attacker.at(gateway.port) as client:
                outcome = await client.connect(
                    token=TOKEN, headers={"host": name, **{k.lower().replace("-", "_"): v for k, v in page.items()}}
                )
                # Without an Origin it is no page; the Host alone must already cost it what this host's own may do.
                assert not outcome.admitted
        assert bait.bites == 0


async def test_v4_reading_methods_change_nothing(victim: Gateway) -> None:
    bait = Bait(victim)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
        status, _, _ = await http(
            victim.port, method, "/rpc?method=bait", headers={"Authorization": f"Bearer {TOKEN}", "Origin": EVIL}
        )
        assert status in {204, 405}
    assert bait.bites == 0


async def test_v4_cors_never_allows_credentials(victim: Gateway) -> None:
    preflight = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Cookie": "a=b"}
    for method, headers in (("OPTIONS", preflight), ("POST", {"Origin": EVIL})):
        _, received, _ = await http(victim.port, method, "/rpc", headers=headers)
        assert "access-control-allow-credentials" not in received
        assert received.get("access-control-allow-origin") in {None, "*"}


# --- V5


async def test_v5_no_page_leaks_where_it_came_from(victim: Gateway) -> None:
    for path in ("/", f"/?token={TOKEN}", f"/health?token={TOKEN}", "/nowhere", "/rpc"):
        _, headers, body = await http(victim.port, "GET", path)
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert TOKEN.encode() not in body


async def test_v5_a_query_token_counts_only_where_nobody_can_listen(victim: Gateway, far_port: int) -> None:
    path = f"/?token={TOKEN}"
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(path=path)).admitted
    for port, headers in ((far_port, {}), (victim.port, {"x_forwarded_for": "127.0.0.1"})):
        async with await Attacker.at(port) as client:
            assert (await client.connect(path=path, headers=headers)).detail == "DEVICE_IDENTITY_REQUIRED"
        async with await Attacker.at(port) as client:  # with a device, only the token is missing
            assert (await client.connect(path=path, headers=headers, device=Device())).detail == "AUTH_TOKEN_MISSING"
    async with await Attacker.at(victim.port) as page:
        assert (await page.connect(path=path, headers={"origin": EVIL})).detail == "CONTROL_UI_ORIGIN_NOT_ALLOWED"
    status, _, _ = await http(victim.port, "POST", f"/rpc?token={TOKEN}", body=b'{"method":"health"}')
    assert status in {401, 403}


# --- V6

CANARY = "canary.invalid"


def _with_url_everywhere(spec: MethodSpec, url: str) -> list[dict[str, Any]]:
    """Parameters of one method with the URL in every text: all at once, and each alone."""
    if not isinstance(spec.params, ParamsReader):
        return [{"url": url, "gatewayUrl": url}]
    texts = [f.name for f in attrs.fields(spec.params.type) if "str" in str(f.type)]
    shapes = []
    for chosen in (texts, *([name] for name in texts)):
        params: dict[str, Any] = {}
        for field in attrs.fields(spec.params.type):
            if field.name in chosen:
                params[_camel(field.name)] = [url] if "tuple" in str(field.type) else url
            elif field.default is attrs.NOTHING:
                plain = {"bool": False, "int": 1}
                params[_camel(field.name)] = next((v for t, v in plain.items() if t in str(field.type)), url)
        shapes.append(params)
    return shapes


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


async def test_v6_no_method_dials_an_address_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[Any] = []
    looked_up: list[Any] = []
    real = trio.socket.getaddrinfo

    async def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        looked_up.append(host)
        return await real(host, *rest, **options)

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    async with open_victim() as gateway, trio.open_nursery() as nursery:

        async def note(stream: trio.SocketStream) -> None:
            dialled.append(await stream.receive_some(100))
            await stream.aclose()

        listeners: Any = await nursery.start(partial(trio.serve_tcp, note, 0, host="127.0.0.9"))
        canary_port = listeners[0].socket.getsockname()[1]
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(token=TOKEN)).admitted
            looked_up.clear()
            called = 0
            for url in (f"ws://127.0.0.9:{canary_port}", f"http://{CANARY}:{canary_port}/", f"127.0.0.9:{canary_port}"):
                for name in gateway.rpc.names:
                    spec = gateway.rpc.get(name)
                    assert spec is not None
                    if "operator" not in spec.roles:
                        continue  # refused by role; ten of those end the connection
                    for params in _with_url_everywhere(spec, url):
                        await client.call(name, params)
                        called += 1
                for extra in ("gatewayUrl", "url", "callbackUrl", "webhook"):
                    await client.call("health", {extra: url})
        assert called > 3 * len(gateway.rpc.view("operator", frozenset(ALL_SCOPES)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert dialled == []
    assert [host for host in looked_up if host not in {"127.0.0.1", "127.0.0.9"}] == []


# Official clients may send these; whatever they hold is refused by name (and, above, never dialled).
REFUSED_ADDRESSES: dict[str, dict[str, Any]] = {
    "send.media_url": {"mediaUrl": "http://127.0.0.9/", "to": "1", "message": "x", "idempotencyKey": "k"},
    "send.media_urls": {"mediaUrls": ["http://127.0.0.9/"], "to": "1", "message": "x", "idempotencyKey": "k"},
    "sessions.create.project_git_url": {"projectGitUrl": "http://127.0.0.9/"},
}


async def test_v6_no_parameter_is_called_an_address(victim: Gateway) -> None:
    suspicious = []
    for name in victim.rpc.names:
        spec = victim.rpc.get(name)
        assert spec is not None
        if isinstance(spec.params, ParamsReader):
            suspicious += [
                f"{name}.{field.name}"
                for field in attrs.fields(spec.params.type)
                if any(word in field.name for word in ("url", "uri", "endpoint", "gateway", "callback", "target"))
            ]
    suspicious.remove("sessions.patchMany.targets")  # conversations, by their keys
    assert sorted(suspicious) == sorted(REFUSED_ADDRESSES)
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(token=TOKEN)).admitted
        for field, params in REFUSED_ADDRESSES.items():
            reply = await client.call(field.rpartition(".")[0], params)
            assert reply["error"]["code"] == "INVALID_REQUEST", field
            assert next(name for name in params if name.endswith(("Url", "Urls"))) in reply["error"]["message"]


# --- the ones above, from a page that is allowed


async def test_v1_a_configured_origin_still_needs_the_secret() -> None:
    ui = ControlUiConfig(allowed_origins=("https://claw.example.com",))
    async with open_victim(control_ui=ui) as gateway, remote_door(gateway) as port:
        for guess in ("", "wrong"):
            async with await Attacker.at(port) as page:
                outcome = await page.connect(token=guess, headers={"origin": "https://claw.example.com"})
                assert not outcome.admitted


async def test_v4_jsonrpc_on_the_websocket_is_no_way_round(victim: Gateway) -> None:
    bait = Bait(victim)
    async with await Attacker.at(victim.port) as page:
        await page.open(origin=EVIL, path=f"/?token={TOKEN}")
        await page.send(frame(TEXT, msgspec.json.encode({"method": "bait"})))
        close = await page.read_close()
        assert close.close_code == 1008
    assert bait.bites == 0
