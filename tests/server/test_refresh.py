"""``POST /auth/refresh`` over real HTTP, and the life of a device token as a client meets it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.config.schema import AuthConfig, RefreshConfig
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.protocol.errors import ERRORS
from tests.attacks.attacker import TOKEN, Attacker, Device, http, open_victim, rpc

DAY = 86_400.0


def living(seconds: float | None = DAY, **refresh: Any) -> AuthConfig:
    return AuthConfig(type="token", token=TOKEN, expires_in=seconds, refresh=RefreshConfig(**refresh))


async def ask(port: int, token: Any, **headers: str) -> tuple[int, Any]:
    body = json.dumps({"refreshToken": token}).encode()
    lines = {"Content-Type": "application/json", **headers}
    status, _, answer = await http(port, "POST", "/auth/refresh", headers=lines, body=body)
    return status, json.loads(answer)


def word(answer: Any) -> str:
    details = answer["error"]["details"]
    assert details["remediationHint"] == ERRORS[details["authReason"].replace("_", "-")].fix
    return str(details["authReason"])


async def introduce(port: int, device: Device, **auth: Any) -> Any:
    async with await Attacker.at(port) as client:
        outcome = await client.connect(device=device, scopes=["operator.read"], **(auth or {"token": TOKEN}))
        assert outcome.admitted, outcome
        return outcome.hello["auth"]


async def test_s148_an_expired_token_is_refreshed_over_http_and_lets_the_device_in() -> None:
    async with open_victim(living()) as gateway:
        device = Device()
        auth = await introduce(gateway.port, device)
        status, renewed = await ask(gateway.port, auth["refreshToken"])
        assert status == 200
        assert (await introduce(gateway.port, device, deviceToken=renewed["deviceToken"]))["method"] == "device-token"
        # Another key does nothing with the same tokens: they are bound to the device.
        async with await Attacker.at(gateway.port) as thief:
            outcome = await thief.connect(device=Device(), deviceToken=renewed["deviceToken"], scopes=[])
            assert outcome.detail == "AUTH_DEVICE_TOKEN_MISMATCH"


async def test_auth2_auth3_an_expired_token_says_so_and_one_round_trip_heals_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_victim(living()) as gateway:
        device = Device()
        auth = await introduce(gateway.port, device)
        ahead = [0]
        keeper = gateway.gatekeeper
        real = keeper._now_ms
        for part in (keeper, keeper.credentials, keeper._measuring, keeper._enrolment):
            monkeypatch.setattr(part, "_now_ms", lambda: real() + ahead[0])
        for place in ("deviceToken", "token"):
            ahead[0] = 0
            async with await Attacker.at(gateway.port) as client:
                credential: dict[str, Any] = {place: auth["deviceToken"]}
                assert (await client.connect(device=device, scopes=[], **credential)).admitted
            ahead[0] = round(DAY * 1000)
            # The clock of the device's signature is the gateway's challenge, so it does not suffer from ours moving.
            async with await Attacker.at(gateway.port) as client:
                outcome = await client.connect(device=device, scopes=[], **credential)
                assert outcome.detail == "AUTH_DEVICE_TOKEN_MISMATCH"
                assert outcome.error["details"]["authReason"] == "device_token_expired"
                assert "/auth/refresh" in outcome.error["details"]["remediationHint"]
        assert len(gateway.gatekeeper.ledger) == 0  # nobody guessed
        async with await Attacker.at(gateway.port) as client:
            healed = await client.connect(device=device, scopes=[], token=TOKEN, deviceToken=auth["deviceToken"])
            assert healed.hello["auth"]["deviceToken"] != auth["deviceToken"]
        async with await Attacker.at(gateway.port) as client:
            by_itself = await client.connect(device=device, scopes=[], deviceToken=healed.hello["auth"]["deviceToken"])
            assert by_itself.hello["auth"]["method"] == "device-token"


async def test_s147_a_connection_ends_when_the_token_it_came_in_with_does() -> None:
    async with open_victim(living(1.2)) as gateway:
        device = Device()
        auth = await introduce(gateway.port, device)
        async with await Attacker.at(gateway.port) as stays, await Attacker.at(gateway.port) as secret:
            assert (await stays.connect(device=device, scopes=[], deviceToken=auth["deviceToken"])).admitted
            assert (await secret.connect(token=TOKEN, scopes=["operator.read"])).admitted
            close = await stays.read_close()
            assert (close.close_code, close.payload[2:]) == (4001, b"device token expired")
            await secret.assert_alive()


async def test_auth2_every_refusal_has_its_own_word_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_victim(living()) as gateway:
        device = Device()
        auth = await introduce(gateway.port, device)
        for token, expected in (("x", "refresh_token_malformed"), ("oc-pair://eyJ", "refresh_token_is_setup_code")):
            status, answer = await ask(gateway.port, token)
            assert (status, word(answer)) == (401, expected)
        async with open_victim(living()) as other:
            theirs = await introduce(other.port, device)
        status, answer = await ask(gateway.port, theirs["refreshToken"])
        assert (status, word(answer)) == (401, "refresh_token_wrong")
        assert len(gateway.gatekeeper.ledger) == 1  # guesses are counted

        status, renewed = await ask(gateway.port, auth["refreshToken"])
        await introduce(gateway.port, device, deviceToken=renewed["deviceToken"])
        status, answer = await ask(gateway.port, auth["refreshToken"])
        assert (status, word(answer)) == (401, "refresh_token_reused")
        status, answer = await ask(gateway.port, renewed["refreshToken"])
        assert (status, word(answer)) == (401, "refresh_token_revoked")
    async with open_victim(living(None)) as gateway:
        status, answer = await ask(gateway.port, "x")
        assert (status, word(answer)) == (403, "refresh_disabled")


async def test_v2_guessing_refresh_tokens_gets_slower() -> None:
    async with open_victim(living()) as gateway:
        gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.2,)))
        began = trio.current_time()
        assert (await ask(gateway.port, "x"))[0] == 401
        assert trio.current_time() - began >= 0.2


async def test_v47_bodies_that_are_no_question_are_refused_cheaply() -> None:
    async with open_victim(living()) as gateway:
        for body, expected in ((b"{", 400), (b"[]", 400), (b'{"refreshToken":1}', 400), (b"x" * 20_000, 413)):
            headers = {"Content-Type": "application/json"}
            status, _, _ = await http(gateway.port, "POST", "/auth/refresh", headers=headers, body=body)
            assert status == expected
        status, headers, _ = await http(gateway.port, "GET", "/auth/refresh")
        assert (status, headers["allow"]) == (405, "POST")
        huge = {"Content-Type": "application/json", "Content-Length": str(10**9)}
        status, _, _ = await http(gateway.port, "POST", "/auth/refresh", headers=huge)
        assert status == 413


async def test_v4_a_foreign_page_cannot_ask() -> None:
    async with open_victim(living()) as gateway:
        auth = await introduce(gateway.port, Device())
        status, _ = await ask(gateway.port, auth["refreshToken"], Origin="https://evil.example")
        assert status == 403
        status, _ = await ask(gateway.port, auth["refreshToken"], **{"Sec-Fetch-Site": "cross-site"})
        assert status == 403
        assert (await ask(gateway.port, auth["refreshToken"]))[0] == 200


@pytest.mark.parametrize("path", ["/auth/refresh/", "/auth//refresh", "/auth/%72efresh"])
async def test_v40_there_is_one_spelling(path: str, listening: Gateway) -> None:
    status, _, _ = await http(listening.port, "POST", path, body=b"{}")
    assert status in {400, 404}


async def test_rpc_with_a_refresh_token_as_bearer_is_no_login() -> None:
    async with open_victim(living()) as gateway:
        auth = await introduce(gateway.port, Device())
        for credential in (auth["refreshToken"], auth["deviceToken"]):
            status, _ = await rpc(gateway.port, "health", token=credential)
            assert status == 401
