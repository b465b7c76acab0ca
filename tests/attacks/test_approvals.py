"""The approval page (`/nodes/approve`) under attack: V4, V5, V7, V9, V13, V14, V16, V19, V41, V47, V52."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.approvals import desk
from openclaw_gateway.approvals import offers as offer_table
from openclaw_gateway.approvals.door import MAX_BODY
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import (
    AuthConfig,
    CorsConfig,
    HttpConfig,
    PasswordPolicy,
    TransportsConfig,
    TrustedProxyConfig,
)
from openclaw_gateway.config.secrets import resolve_auth
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.policy.network import Arrival, Ceiling
from openclaw_gateway.server import incoming, underway
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from tests.approvals.visitor import FAR, PATH, Page, Visitor, knock

from .attacker import PASSWORD, TOKEN, Attacker, http, legit_client_works, open_victim, rpc
from .test_browser import CROSS_SITE

CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN))
OUTSIDE = "198.51.100.9"
WHO = TrustedProxyConfig(user_header="x-auth-user", allow_users=("nick@example.com", "anna@example.com"))


@asynccontextmanager
async def open_page(config: GatewayConfig = CONFIG) -> AsyncIterator[tuple[Gateway, Visitor]]:
    async with open_memory_gateway(config) as gateway:
        gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
        yield gateway, Visitor(gateway)


@pytest.fixture
async def page() -> AsyncIterator[tuple[Gateway, Visitor]]:
    async with open_page() as opened:
        yield opened


@pytest.fixture
def device() -> DeviceIdentity:
    return DeviceIdentity.generate()


async def undecided(gateway: Gateway, request_id: str) -> bool:
    waiting = [request.request_id for request in gateway._book.pending()]
    return request_id in waiting and gateway._book.paired() == ()


async def key_with(gateway: Gateway, *scopes: str) -> str:
    async with connect_peer(gateway) as admin:
        made = await admin.request("tokens.create", {"name": "-".join(scopes)[:40], "scopes": list(scopes)})
    return str(made["key"])


# --- who may: the same as with the methods (V41, V19)


async def test_v41_without_a_credential_nothing_is_shown_and_nothing_done(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    assert (await visitor.show(request_id)).status == 401
    for step in ("approve", "reject", "next"):
        for ticket in ("", "x", "A" * 43):
            refused = await visitor.send({"step": step, "request": request_id, "ticket": ticket})
            assert refused.status == 403
            # Nor does a credential beside it make up for the page that was not shown.
            refused = await visitor.send({"step": step, "request": request_id, "ticket": ticket, "secret": TOKEN})
            assert refused.status == 403
    assert await undecided(gateway, request_id)


@pytest.mark.parametrize("scopes", [("operator.read",), ("operator.write",), ("operator.approvals",)])
async def test_v41_who_may_not_call_the_methods_learns_nothing_from_the_page(
    scopes: tuple[str, ...], page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    key = await key_with(gateway, *scopes)
    real, unknown = await visitor.show(request_id, key), await visitor.show("unknown", key)
    assert (real.status, real.raw) == (403, unknown.raw)
    assert "operator.pairing" in real.text


async def test_v19_nobody_grants_more_than_he_holds(page: tuple[Gateway, Visitor], device: DeviceIdentity) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    key = await key_with(gateway, "operator.pairing")
    shown = await visitor.show(request_id, key)
    assert shown.status == 200
    refused = await visitor.press(shown, "approve")
    assert refused.status == 403
    assert "operator.admin" in refused.text
    assert f"openclaw devices approve {request_id}" in refused.text
    assert await undecided(gateway, request_id)


@pytest.mark.parametrize(
    ("methods", "status"),
    [
        ((PATH, "device.pair.list", "node.pair.list"), 200),
        ((PATH, "node.*"), 403),
        (("device.pair.*", "node.*"), 404),
    ],
)
async def test_v41_a_ceiling_of_the_listener_holds_for_the_page(
    methods: tuple[str, ...], status: int, page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    """Also where the page is allowed and the decision is not."""
    gateway, _ = page
    request_id = await knock(gateway, device)
    arrival = Arrival(ceiling=Ceiling(methods=methods))
    async with under(gateway, arrival) as visitor_below:
        shown = await visitor_below.show(request_id, TOKEN)
        assert shown.status == status
        if status == 200:
            assert (await visitor_below.press(shown, "approve")).status == 403
    assert await undecided(gateway, request_id)


# --- what a stranger learns


async def test_v14_an_answer_to_a_stranger_is_the_same_for_every_request(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    """Waiting, answered, never made: the same page, but for the id that he sent himself."""
    gateway, visitor = page
    answered = await knock(gateway, DeviceIdentity.generate())
    async with connect_peer(gateway) as admin:
        await admin.request("device.pair.approve", {"requestId": answered})
    ids = [await knock(gateway, device), answered, "0abd4ef7-3aa3-4747-b38c-8d9664783f99"]

    async def all_alike(*answers: Page) -> None:
        seen = {
            (a.status, a.raw.replace(i, ""), str({**a.headers, "date": ""})) for a, i in zip(answers, ids, strict=True)
        }
        assert len({(status, raw) for status, raw, _ in seen}) == 1
        lengths = {len(a.raw) - len(i) for a, i in zip(answers, ids, strict=True)}
        assert len(lengths) == 1

    await all_alike(*[await visitor.open(one) for one in ids])
    for secret in ("", "wrong", "ocg_wrong"):
        await all_alike(*[await visitor.show(one, secret) for one in ids])
    for step in ("approve", "reject", "next"):
        await all_alike(*[await visitor.send({"step": step, "request": one, "ticket": "A" * 43}) for one in ids])


async def test_v5_a_secret_in_the_address_counts_for_nothing(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    for query in (f"token={TOKEN}", f"secret={TOKEN}", f"step=show&secret={TOKEN}&request={request_id}"):
        got = await visitor.request("GET", f"{PATH}?{query}&request={request_id}")
        assert device.device_id not in got.raw
        assert TOKEN not in got.raw
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        sent = urlencode({"step": "show", "request": request_id}).encode()
        posted = await visitor.request("POST", f"{PATH}?{query}", sent, **form)
        assert posted.status == 401
        assert device.device_id not in posted.raw


async def test_v52_the_secret_is_in_no_page_no_log_and_no_row(
    device: DeviceIdentity, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = attrs.evolve(CONFIG, state_dir=tmp_path / "state")
    async with open_page(config) as (gateway, visitor):
        request_id = await knock(gateway, device)
        tried = [await visitor.show(request_id, "a-wrong-guess-0123456789"), await visitor.show(request_id, TOKEN)]
        tickets = [fields["ticket"] for fields in tried[1].buttons.values()]
        tried.append(await visitor.press(tried[1], "approve"))
    written = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file())
    everything = caplog.text + "".join(one.raw for one in (tried[0], tried[2]))
    for secret in (TOKEN, "a-wrong-guess-0123456789", *tickets):
        assert secret not in everything
        if secret != TOKEN:
            assert secret.encode() not in written


# --- guessing


async def test_v14_guesses_at_the_page_lock_the_rpc_out_and_the_other_way_round() -> None:
    for first in ("page", "rpc"):
        async with open_victim() as gateway:
            own = f"http://127.0.0.1:{gateway.port}"
            as_page = {"Origin": own, "Sec-Fetch-Site": "same-origin"}

            async def at_page(secret: str, port: int = gateway.port, headers: Any = as_page) -> int:
                body = urlencode({"step": "show", "request": "r1", "secret": secret}).encode()
                kind = {"Content-Type": "application/x-www-form-urlencoded", **headers}
                return (await http(port, "POST", PATH, headers=kind, body=body))[0]

            async def at_rpc(secret: str, port: int = gateway.port, headers: Any = as_page) -> int:
                return (await rpc(port, "health", token=secret, headers=headers))[0]

            guess = at_page if first == "page" else at_rpc
            assert {await guess(f"guess-{number}") for number in range(10)} == {401}
            assert await at_page(TOKEN) == 429
            assert await at_rpc(TOKEN) == 429
            await legit_client_works(gateway.port)  # the person at the keyboard is not locked out by a page


async def test_v14_a_wrong_guess_waits_as_long_as_at_the_rpc(
    page: tuple[Gateway, Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, visitor = page
    gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(1.5,)))
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(desk, "trio", SimpleNamespace(sleep=wait, TooSlowError=trio.TooSlowError))
    assert (await visitor.show("r1", "guess")).status == 401
    assert waited == [1.5]


async def test_v13_a_secret_is_asked_for_only_where_nobody_can_listen(
    page: tuple[Gateway, Visitor], device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over plain HTTP from elsewhere there is no field to type it into, and one that is sent is not looked at."""
    gateway, _ = page
    request_id = await knock(gateway, device)
    visitor = Visitor(gateway, address=OUTSIDE, host="192.168.1.10:18789")
    compared: list[Any] = []
    real = hmac.compare_digest

    def spy(a: Any, b: Any) -> bool:
        compared.append(a)
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    got = await visitor.open(request_id)
    assert (got.status, got.heading) == (403, "Not over this connection")
    assert "<input" not in got.raw
    assert f"openclaw devices approve {request_id}" in got.text
    assert (await visitor.show(request_id, TOKEN)).status == 403
    assert compared == []
    assert await undecided(gateway, request_id)


async def test_v13_the_shared_secret_counts_on_this_host_alone_as_with_the_rpc(device: DeviceIdentity) -> None:
    """Over https from elsewhere it takes an API key."""
    async with open_page(attrs.evolve(CONFIG, trusted_proxies=(FAR,))) as (gateway, _):
        request_id = await knock(gateway, device)
        key = await key_with(gateway, "operator.admin")
        visitor = Visitor(
            gateway, address=FAR, host="192.168.1.10", scheme="https",
            headers={"X-Forwarded-For": OUTSIDE, "X-Forwarded-Proto": "https"},
        )  # fmt: skip
        assert "API key" in (await visitor.open(request_id)).text
        refused = await visitor.show(request_id, TOKEN)
        status, _, _ = await _rpc_of(visitor, TOKEN)
        assert (refused.status, refused.buttons) == (status, {})
        shown = await visitor.show(request_id, key)
        assert (await visitor.press(shown, "approve")).heading == "Approved"


async def _rpc_of(visitor: Visitor, secret: str) -> tuple[int, dict[str, str], Any]:
    body = json.dumps({"method": "device.pair.list", "id": 1}).encode()
    got = await visitor.request(
        "POST", "/rpc", body, Authorization=f"Bearer {secret}", **{"Content-Type": "application/json"}
    )
    return got.status, got.headers, json.loads(got.raw)


# --- a foreign page (V4)


@pytest.mark.parametrize("trick", CROSS_SITE)
@pytest.mark.parametrize("mode", ["none", "token"])
async def test_v4_a_foreign_pages_form_does_nothing(trick: str, mode: str, device: DeviceIdentity) -> None:
    """Neither with the secret nor with a ticket that the page got hold of."""
    config = CONFIG if mode == "token" else GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_page(config) as (gateway, visitor):
        request_id = await knock(gateway, device) if mode == "token" else "r1"
        secret = TOKEN if mode == "token" else ""
        shown = await visitor.show(request_id, secret)
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "", "Sec-Fetch-Site": ""}
        headers = {**kind, **{name: value for name, value in CROSS_SITE[trick].items() if name != "Content-Type"}}
        steps = [{"step": "show", "request": request_id, "secret": secret}, *shown.buttons.values()]
        for fields in steps:
            refused = await visitor.send(fields, **headers)
            assert (refused.status, refused.heading) == (403, "Nothing was done")
        if mode == "token":
            assert await undecided(gateway, request_id)
            assert (await visitor.press(shown, "approve")).heading == "Approved"  # the person's own page still works


@pytest.mark.parametrize("mode", ["none", "token"])
async def test_v4_a_rebound_name_gets_no_form(mode: str) -> None:
    config = CONFIG if mode == "token" else GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_page(config) as (gateway, _):
        visitor = Visitor(gateway, host="rebound.evil.example:18789")
        got = await visitor.open("r1")
        assert (got.status, "<input" in got.raw) == (421, False)
        assert "openclaw config set gateway.controlUi.allowedOrigins" in got.text
        sent = await visitor.show("r1", TOKEN)
        assert (sent.status, sent.heading) == (421, "Not this address")


async def test_v4_cors_lets_no_other_page_read_it(device: DeviceIdentity) -> None:
    cors = CorsConfig(enabled=True, origins=("*",))
    config = attrs.evolve(CONFIG, transports=TransportsConfig(http=HttpConfig(cors=cors)))
    async with open_page(config) as (gateway, visitor):
        request_id = await knock(gateway, device)
        evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        answers = [
            await visitor.request("GET", PATH, b"", **evil),
            await visitor.request("OPTIONS", PATH, b"", **evil, **{"Access-Control-Request-Method": "POST"}),
            await visitor.show(
                request_id, TOKEN, **evil, Authorization=f"Bearer {TOKEN}", **{"Content-Type": "application/json"}
            ),
        ]
        assert [answer.status for answer in answers] == [200, 405, 403]
        for answer in answers:
            assert not any(name.startswith("access-control-") for name in answer.headers)


async def test_v4_a_ticket_is_good_once_for_one_step_of_one_request(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    mine, other = await knock(gateway, device), await knock(gateway, DeviceIdentity.generate())
    shown = await visitor.show(mine, TOKEN)
    assert (await visitor.send({**shown.buttons["approve"], "request": other})).status == 403
    assert (await visitor.press(shown, "approve")).status == 403  # it was spent by the wrong use
    shown = await visitor.show(mine, TOKEN)
    assert (await visitor.send({**shown.buttons["reject"], "step": "approve"})).status == 403
    assert await undecided(gateway, mine)
    shown = await visitor.show(mine, TOKEN)
    assert (await visitor.press(shown, "reject")).heading == "Rejected"
    replayed = await visitor.press(shown, "reject")
    assert (replayed.status, "used already" in replayed.text) == (403, True)


async def test_v4_a_ticket_is_good_from_where_it_was_given_alone(device: DeviceIdentity) -> None:
    async with open_page(attrs.evolve(CONFIG, trusted_proxies=(FAR,))) as (gateway, visitor):
        request_id = await knock(gateway, device)
        shown = await visitor.show(request_id, TOKEN)
        thief = Visitor(
            gateway, address=FAR, host="192.168.1.10", scheme="https",
            headers={"X-Forwarded-For": OUTSIDE, "X-Forwarded-Proto": "https"},
        )  # fmt: skip
        assert (await thief.press(shown, "approve")).status == 403
        assert await undecided(gateway, request_id)


async def test_v16_a_sign_in_does_not_outlive_the_rules_it_was_made_by(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)
    gateway.gatekeeper.configure(attrs.evolve(gateway.gatekeeper.rules))  # as when the tailnet's name changes
    assert (await visitor.press(shown, "approve")).status == 403
    shown = await visitor.show(request_id, TOKEN)
    changed = attrs.evolve(CONFIG, auth=AuthConfig(type="token", token="another-token-0123456789-0123456789"))
    gateway.apply(changed, resolve_auth(changed, None, {}))
    assert (await visitor.press(shown, "approve")).status == 403
    assert await undecided(gateway, request_id)


async def test_v16_a_sign_in_ends_by_itself_however_it_is_used(
    page: tuple[Gateway, Visitor], device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    now = [1000.0]
    monkeypatch.setattr(desk, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    shown = await visitor.press(await visitor.show(request_id, TOKEN), "approve")
    for _ in range(3):  # pressing on does not make it longer
        now[0] += offer_table.SIGN_IN_SECONDS / 4
        shown = await visitor.press(shown, "next")
        assert shown.heading == "Waiting for “ Node One ”"
    now[0] += offer_table.SIGN_IN_SECONDS / 4
    assert (await visitor.press(shown, "next")).status == 403


async def test_v16_a_sign_in_does_not_outlive_its_password(
    device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = AuthConfig(
        type="password", password=PASSWORD, password_changed_at=time.time(), policy=PasswordPolicy(max_age=60.0)
    )
    async with open_page(GatewayConfig(port=0, auth=auth)) as (gateway, visitor):
        request_id = await knock(gateway, device, password=PASSWORD)
        shown = await visitor.show(request_id, PASSWORD)
        assert shown.status == 200
        monkeypatch.setattr(desk, "time", SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + 61))
        assert (await visitor.press(shown, "approve")).status == 403
        assert await undecided(gateway, request_id)


async def test_too_many_requests_under_way_decide_nothing(
    page: tuple[Gateway, Visitor], device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)
    monkeypatch.setattr(underway, "MAX_UNDER_WAY", 0)
    busy = await visitor.press(shown, "approve")
    assert (busy.status, busy.headers["retry-after"]) == (503, "2")
    assert await undecided(gateway, request_id)


async def test_v9_who_is_vouched_for_is_asked_for_again_at_each_step(device: DeviceIdentity) -> None:
    """Nothing is typed; the proxy says at every step who it is, and a ticket is that person's alone."""
    scopes = {"nick@example.com": ("operator.admin",), "anna@example.com": ("operator.admin",)}
    auth = AuthConfig(type="trusted-proxy", token=TOKEN, trusted_proxy=WHO, identity_scopes=scopes)
    async with open_page(GatewayConfig(port=0, auth=auth, trusted_proxies=(FAR,))) as (gateway, _):
        request_id = await knock(gateway, device)
        through = {"X-Forwarded-For": OUTSIDE, "X-Forwarded-Proto": "https"}
        nobody = Visitor(gateway, address=FAR, host="192.168.1.10", scheme="https", headers=through)
        nick, anna = (
            attrs.evolve(nobody, headers={**through, "X-Auth-User": f"{name}@example.com"}) for name in ("nick", "anna")
        )
        assert "You need no secret here" in (await nick.open(request_id)).text
        clear = attrs.evolve(nick, headers={**nick.headers, "X-Forwarded-Proto": "http"})
        assert 'name="secret"' not in (await clear.open(request_id)).raw
        shown = await nick.show(request_id)
        assert "You decide as nick@example.com" in shown.text
        assert (await nobody.press(shown, "approve")).status == 401
        shown = await nick.show(request_id)
        assert (await anna.press(shown, "approve")).status == 403
        assert await undecided(gateway, request_id)
        # A wrong secret is not outweighed by the proxy's word on the /rpc either; here it is the same function.
        shown = await nick.show(request_id)
        assert (await nick.press(shown, "approve")).heading == "Approved"
        (record,) = gateway._book.paired()
        assert record.approved_via == "operator:trusted-proxy:nick@example.com"


async def test_v16_the_sign_in_of_a_vouched_person_ends_by_itself_too(
    device: DeviceIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = {"nick@example.com": ("operator.admin",)}
    auth = AuthConfig(type="trusted-proxy", token=TOKEN, trusted_proxy=WHO, identity_scopes=scopes)
    async with open_page(GatewayConfig(port=0, auth=auth, trusted_proxies=(FAR,))) as (gateway, local):
        request_id = await knock(gateway, device)
        through = {"X-Forwarded-For": OUTSIDE, "X-Forwarded-Proto": "https", "X-Auth-User": "nick@example.com"}
        nick = attrs.evolve(local, address=FAR, host="192.168.1.10", scheme="https", headers=through)
        now = [1000.0]
        monkeypatch.setattr(desk, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
        shown = await nick.press(await nick.show(request_id), "approve")
        for _ in range(3):
            now[0] += offer_table.SIGN_IN_SECONDS / 4
            shown = await nick.press(shown, "next")
            assert shown.status == 200
        now[0] += offer_table.SIGN_IN_SECONDS / 4
        assert (await nick.press(shown, "next")).status == 403


async def test_pair5_what_waits_must_ask_for_what_was_shown(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    """Whatever happens to the row: the hash of what was shown goes with the decision."""
    gateway, visitor = page
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)
    await gateway._book._store.run(lambda db: db.execute("UPDATE pending_requests SET ask_hash = 'other'").rowcount)
    refused = await visitor.press(shown, "approve")
    assert (refused.status, refused.heading) == (409, "Nothing was done")
    assert await undecided(gateway, request_id)


async def test_auth5_a_key_that_is_revoked_while_the_list_is_made_sees_nothing_of_it(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    key = await key_with(gateway, "operator.admin")
    spec = gateway.rpc.get("device.pair.list")
    assert spec is not None
    listed = spec.handler

    async def overtaken(context: Any, params: Any) -> Any:
        async with connect_peer(gateway) as admin:
            await admin.request("tokens.revoke", {"name": "operator.admin"})
        return listed(context, params)

    gateway.rpc.method("device.pair.list", scope="operator.pairing", replace=True)(overtaken)
    got = await visitor.show(request_id, key)
    assert got.status == 403
    assert device.device_id not in got.raw


async def test_v9_a_vouched_person_without_scopes_may_still_show_a_key(device: DeviceIdentity) -> None:
    auth = AuthConfig(type="trusted-proxy", token=TOKEN, trusted_proxy=WHO, identity_scopes={})
    async with open_page(GatewayConfig(port=0, auth=auth, trusted_proxies=(FAR,))) as (gateway, local):
        request_id = await knock(gateway, device)
        key = await key_with(gateway, "operator.admin")
        through = {"X-Forwarded-For": OUTSIDE, "X-Forwarded-Proto": "https", "X-Auth-User": "nick@example.com"}
        nick = attrs.evolve(local, address=FAR, host="192.168.1.10", scheme="https", headers=through)
        assert 'name="secret"' in (await nick.open(request_id)).raw
        assert (await nick.show(request_id)).buttons == {}
        shown = await nick.show(request_id, key)
        assert (await nick.press(shown, "approve")).heading == "Approved"


async def test_v4_sign_ins_have_a_cap(page: tuple[Gateway, Visitor], device: DeviceIdentity) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    for _ in range(offer_table.MAX_OFFERS + 5):
        await visitor.show(request_id, TOKEN)
    opened = gateway._parts.on_demand.approvals._desk
    assert opened is not None
    assert len(opened._offers) == offer_table.MAX_OFFERS


# --- names: V7


async def test_v7_hostile_names_over_the_wire_are_text(page: tuple[Gateway, Visitor]) -> None:
    gateway, visitor = page
    hostile = "<script>alert(1)</script>\u202e\"'&\u2066"
    facts = {"displayName": hostile, "version": hostile, "deviceFamily": hostile, "platform": hostile}
    commands = ["system.run", "<img src=x onerror=alert(1)>", "evil\u202ecommand"]
    request_id = await knock(gateway, DeviceIdentity.generate(), client=facts, commands=commands, caps=["<b>"])
    shown = await visitor.show(request_id, TOKEN)
    done = await visitor.press(shown, "approve")
    for one in (shown, done):
        assert one.status == 200
        for raw in ("<script", "<img", "<b>", "\u202e", "\u2066"):
            assert raw not in one.raw
    assert "&lt;script&gt;" in shown.raw
    reflected = await visitor.request("GET", f"{PATH}?request=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "alert" not in reflected.raw


async def test_v7_every_answer_is_closed_to_frames_and_scripts(
    page: tuple[Gateway, Visitor], device: DeviceIdentity
) -> None:
    gateway, visitor = page
    request_id = await knock(gateway, device)
    shown = await visitor.show(request_id, TOKEN)
    answers = [
        await visitor.open(request_id), await visitor.open(request_id, "HEAD"), await visitor.show(request_id, "wrong"),
        shown, await visitor.press(shown, "approve"), await visitor.press(shown, "approve"),
        await visitor.show("unknown", TOKEN), await visitor.send({"step": "nonsense"}),
        await visitor.send({"step": "show"}, Origin="https://evil.example"),
        await attrs.evolve(visitor, host="evil.example").open(request_id),
        await attrs.evolve(visitor, address=OUTSIDE).open(request_id),
    ]  # fmt: skip
    assert [answer.status for answer in answers] == [200, 200, 401, 200, 200, 403, 404, 400, 403, 421, 403]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers


# --- bodies and methods: V47, V40


async def test_v47_a_form_is_small_whoever_sends_it(victim: Gateway) -> None:
    assert MAX_BODY == 8192
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    fitting = b"step=show&secret=" + b"a" * (MAX_BODY - 17)
    assert (await http(victim.port, "POST", PATH, headers=kind, body=fitting))[0] == 401
    assert (await http(victim.port, "POST", PATH, headers=kind, body=fitting + b"a"))[0] == 413
    async with await Attacker.at(victim.port) as client:
        head = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n"
        await client.send(f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode())
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(4):
                await client.send(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        assert (await client.read_head())[0] == 413
    await legit_client_works(victim.port)


async def test_v47_a_form_that_drips_is_given_up(victim: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "BODY_SECONDS", 0.2)
    async with await Attacker.at(victim.port) as client:
        head = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n"
        await client.send(f"POST {PATH} HTTP/1.1\r\n{head}\r\nstep=".encode())
        with trio.fail_after(5):
            assert (await client.read_head())[0] == 408


async def test_v47_no_form_is_read_where_nobody_could_be_let_in(victim: Gateway, far_port: int) -> None:
    """A body announced and never sent: the answer comes all the same."""
    kind = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n"
    for port, headers, want in (
        (far_port, "Host: 192.168.1.10\r\n", 403),
        (victim.port, "Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        (victim.port, "Host: evil.example\r\n", 421),
    ):
        async with await Attacker.at(port) as client:
            await client.send(f"POST {PATH} HTTP/1.1\r\n{headers}{kind}\r\n".encode())
            with trio.fail_after(3):
                assert (await client.read_head())[0] == want


async def test_v40_other_methods_spellings_and_types_do_nothing(victim: Gateway) -> None:
    body = urlencode({"step": "show", "request": "r1", "secret": TOKEN}).encode()
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"):
        status, headers, _ = await http(victim.port, method, PATH, body=b"")
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    for path in ("/nodes/approve/", "/nodes", "/nodes/", "/Nodes/Approve"):
        assert (await http(victim.port, "POST", path, body=body))[0] == 404
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
        typed = {"Content-Type": kind} if kind else {}
        assert (await http(victim.port, "POST", PATH, headers=typed, body=body))[0] == 415
    for broken in (b"", b"step", b"step=show&step=show", b"\xff", b"step=show&x=1", b"step=show&secret=%ff"):
        typed = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await http(victim.port, "POST", PATH, headers=typed, body=broken))[0] == 400


@asynccontextmanager
async def under(gateway: Gateway, arrival: Arrival) -> AsyncIterator[Visitor]:
    """A visitor whose connection came in as ``arrival`` says."""
    wires = gateway._server.serve

    async def serve(wire: Any) -> None:
        wire.arrival = arrival
        await wires(wire)

    gateway._server.serve = serve  # type: ignore[method-assign]
    try:
        yield Visitor(gateway)
    finally:
        gateway._server.serve = wires  # type: ignore[method-assign]
