"""V23 and V24: codes that carry too much, are used twice, by others, for more, or by those who may not make them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from tests.websocket.rawclient import TEXT, frame

from .attacker import ALL_SCOPES, PASSWORD, TOKEN, Attacker, Device, Outcome, open_victim, remote_door

PUBLIC = "wss://gw.example"
NODE: dict[str, Any] = {"client": "node-host", "mode": "node", "role": "node", "scopes": ()}
PHONE: dict[str, Any] = {**NODE, "client": "openclaw-ios"}


async def issue(gateway: Gateway, **params: Any) -> dict[str, Any]:
    async with await Attacker.at(gateway.port) as owner:
        assert (await owner.connect(token=TOKEN)).admitted
        reply = await owner.call("device.pair.setupCode", {"publicUrl": PUBLIC, "includeQr": False, **params})
    assert reply["ok"], reply
    payload: dict[str, Any] = reply["payload"]
    return payload


def read(answer: dict[str, Any]) -> dict[str, Any]:
    code = answer["setupCode"]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    return value


async def redeem(port: int, token: str, *, device: Device | None = None, **claims: Any) -> Outcome:
    async with await Attacker.at(port) as client:
        return await client.connect(device=device or Device(), bootstrapToken=token, **{**NODE, **claims})


def text_below(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def paired(gateway: Gateway) -> list[str]:
    return [record.device_id for record in gateway._book.paired()]


# --- V23


@pytest.mark.parametrize("kind", ["token", "password"])
async def test_v23_a_code_holds_no_lasting_secret_and_lives_ten_minutes_at_most(kind: str) -> None:
    secret = TOKEN if kind == "token" else PASSWORD
    async with open_victim(kind) as gateway, await Attacker.at(gateway.port) as owner:
        credential: dict[str, Any] = {kind: secret}
        assert (await owner.connect(**credential)).admitted
        for params in ({}, {"bootstrapProfile": "node"}, {"bootstrapProfile": "limited"}):
            reply = await owner.call("device.pair.setupCode", {"publicUrl": PUBLIC, "includeQr": False, **params})
            payload = read(reply["payload"])
            public = {"gatewayId"} if params.get("bootstrapProfile") == "node" else set()
            assert set(payload) == {"url", "bootstrapToken", "expiresAtMs"} | public
            assert len(base64.urlsafe_b64decode(payload["bootstrapToken"] + "=")) == 32
            assert secret not in json.dumps(reply)
            now = gateway._book._clock()
            assert 0 < payload["expiresAtMs"] - now <= 600_000
            assert (await redeem(gateway.port, secret)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"


async def test_v23_a_code_is_no_token_and_no_password(victim: Gateway) -> None:
    answer = await issue(victim)
    token = read(answer)["bootstrapToken"]
    for field in ("token", "password", "deviceToken"):
        for value in (token, answer["setupCode"]):
            async with await Attacker.at(victim.port) as client:
                outcome = await client.connect(device=Device(), **{field: value})
            assert not outcome.admitted, field
    assert paired(victim) == []


async def test_v23_nothing_of_a_code_is_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with open_victim(state_dir=tmp_path / "state") as gateway, remote_door(gateway) as far:
        answer = await issue(gateway, bootstrapProfile="node")
        token = read(answer)["bootstrapToken"]
        assert (await redeem(far, token)).admitted
        assert (await redeem(far, token)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"
    written = caplog.text + text_below(tmp_path)
    assert token not in written
    assert answer["setupCode"] not in written
    assert answer["setupId"] in written


# --- V24


async def test_v24_two_redeemers_race_and_one_wins(victim: Gateway, far_port: int) -> None:
    for _ in range(3):
        token = read(await issue(victim, bootstrapProfile="node"))["bootstrapToken"]
        devices = [Device() for _ in range(6)]
        outcomes: dict[str, Outcome] = {}

        async def race(device: Device, token: str = token, outcomes: dict[str, Outcome] = outcomes) -> None:
            outcomes[device.id] = await redeem(far_port, token, device=device)

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(race, device)
        winners = [id_ for id_, outcome in outcomes.items() if outcome.admitted]
        assert len(winners) == 1
        assert all(o.detail == "AUTH_BOOTSTRAP_TOKEN_INVALID" for o in outcomes.values() if not o.admitted)
        assert set(paired(victim)) & {device.id for device in devices} == set(winners)


async def test_v24_a_used_code_stays_used_for_the_same_key_too(victim: Gateway, far_port: int) -> None:
    token, device = read(await issue(victim, bootstrapProfile="node"))["bootstrapToken"], Device()
    assert (await redeem(far_port, token, device=device)).admitted
    assert (await redeem(far_port, token, device=device)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"


async def test_v24_a_restart_keeps_it_spent(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with open_victim(state_dir=state) as gateway, remote_door(gateway) as far:
        spent = read(await issue(gateway, bootstrapProfile="node"))["bootstrapToken"]
        waits = read(await issue(gateway))["bootstrapToken"]
        fresh = read(await issue(gateway, bootstrapProfile="node"))["bootstrapToken"]
        first = Device()
        assert (await redeem(far, spent, device=first)).admitted
        assert (await redeem(far, waits, device=Device())).detail == "PAIRING_REQUIRED"
    async with open_victim(state_dir=state) as gateway, remote_door(gateway) as far:
        for device in (first, Device()):
            assert (await redeem(far, spent, device=device)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"
        assert (await redeem(far, waits, **PHONE)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"
        assert (await redeem(far, fresh)).admitted


@pytest.mark.parametrize(
    ("profile", "claims"),
    [
        ("node", {"role": "operator", "client": "cli", "mode": "cli"}),
        ("node", {"role": "operator", "client": "openclaw-ios", "mode": "ui", "scopes": ["operator.read"]}),
        ("node", {"scopes": ["operator.admin"]}),
        ("limited", {"role": "operator", "scopes": ["operator.admin"]}),
        ("limited", {"role": "operator", "scopes": ["operator.pairing"]}),
        ("limited", {**PHONE, "scopes": ["operator.write"]}),
        (None, {**PHONE, "scopes": ["operator.admin"]}),
    ],
)
async def test_v24_wider_than_the_profile_is_refused_and_leaves_the_code_good(
    victim: Gateway, far_port: int, profile: str | None, claims: dict[str, Any]
) -> None:
    params = {} if profile is None else {"bootstrapProfile": profile}
    token = read(await issue(victim, **params))["bootstrapToken"]
    outcome = await redeem(far_port, token, **claims)
    assert not outcome.admitted
    assert outcome.detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"
    assert paired(victim) == []
    assert victim._book.pending() == ()
    assert (await redeem(far_port, token, **(NODE if profile == "node" else PHONE))).admitted


async def test_v24_a_limited_phone_never_gets_administration(victim: Gateway, far_port: int) -> None:
    token, device = read(await issue(victim, bootstrapProfile="limited"))["bootstrapToken"], Device()
    outcome = await redeem(far_port, token, device=device, **PHONE)
    (handed,) = outcome.hello["auth"]["deviceTokens"]
    assert "operator.admin" not in handed["scopes"]
    async with await Attacker.at(far_port) as client:
        wider = await client.connect(
            device=device, client="openclaw-ios", mode="ui", scopes=["operator.admin"],
            deviceToken=handed["deviceToken"],
        )  # fmt: skip
    assert wider.detail == "AUTH_SCOPE_MISMATCH"


async def test_v24_only_an_administrator_makes_codes(victim: Gateway) -> None:
    for scope in ALL_SCOPES:
        async with await Attacker.at(victim.port) as client:
            assert (await client.connect(token=TOKEN, scopes=[scope])).admitted
            made = await client.call("device.pair.setupCode", {"publicUrl": PUBLIC, "bootstrapProfile": "node"})
            asked = await client.call("device.pair.setupStatus", {"setupId": "x"})
        assert made["ok"] == asked["ok"] == (scope == "operator.admin")
    async with await Attacker.at(victim.port) as node:
        assert (await node.connect(device=Device(), token=TOKEN, **NODE)).admitted
        assert not (await node.call("device.pair.setupCode", {"publicUrl": PUBLIC}))["ok"]


async def test_v24_codes_of_a_removed_administrator_are_worthless(victim: Gateway, far_port: int) -> None:
    admin = Device()
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(device=admin, token=TOKEN)).admitted
        reply = await client.call("device.pair.setupCode", {"publicUrl": PUBLIC, "bootstrapProfile": "node"})
    async with await Attacker.at(victim.port) as owner:
        assert (await owner.connect(token=TOKEN)).admitted
        assert (await owner.call("device.pair.remove", {"deviceId": admin.id}))["ok"]
    outcome = await redeem(far_port, read(reply["payload"])["bootstrapToken"])
    assert outcome.detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"


async def test_v24_a_code_needs_a_key_that_signed_this_connect(victim: Gateway, far_port: int) -> None:
    token = read(await issue(victim, bootstrapProfile="node"))["bootstrapToken"]
    async with await Attacker.at(far_port) as client:
        assert not (await client.connect(bootstrapToken=token, **NODE)).admitted
    async with await Attacker.at(far_port) as client:
        challenge = await client.open()
        params = client.params(bootstrapToken="x" * 43, **NODE)
        params["device"] = Device().prove(params, challenge)
        params["auth"]["bootstrapToken"] = token  # swapped in after signing
        outcome = await _finish(client, params)
    assert outcome.detail == "DEVICE_AUTH_SIGNATURE_INVALID"
    assert (await redeem(far_port, token)).admitted


async def _finish(client: Attacker, params: dict[str, Any]) -> Outcome:
    await client.send(frame(TEXT, client.request("connect", params, id_="connect")))
    return await client.outcome()


async def test_v24_wrong_codes_are_counted_and_cost_time_but_lock_nobody_out(victim: Gateway, far_port: int) -> None:
    victim.gatekeeper.ledger = ledger = FailureLedger(LockoutRules(delays=(0.0,), attempts=3))
    for _ in range(6):
        assert (await redeem(far_port, "w" * 43)).detail == "AUTH_BOOTSTRAP_TOKEN_INVALID"
    assert len(ledger) == 1
    token = read(await issue(victim, bootstrapProfile="node"))["bootstrapToken"]
    assert (await redeem(far_port, token)).admitted
