"""API keys and refresh tokens from the attacker's side: V16, V18, V26, V51, AUTH-5, and who may use a key where."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.protocol.errors import ERRORS
from tests.websocket.rawclient import TEXT, frame

from .attacker import ALL_SCOPES, CLIENT_IDS, TOKEN, Attacker, Device, http, legit_client_works, open_victim, rpc

HTTPS = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "gw.example"}


async def make_key(gateway: Gateway, name: str = "ci", *scopes: str, **more: Any) -> dict[str, Any]:
    params = {"name": name, "scopes": list(scopes or ("operator.read",)), **more}
    status, answer = await rpc(gateway.port, "tokens.create", params)
    assert status == 200, answer
    made: dict[str, Any] = answer["result"]
    return made


def word(answer: Any) -> str:
    details = answer["error"]["details"]
    reason = str(details["authReason"])
    assert details["remediationHint"] == ERRORS[f"auth-{reason.replace('_', '-')}"].fix
    return reason


class Slow:
    """`slow.call` says when it has started and ends when it is let go."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.let_go = trio.Event()

    async def handle(self, context: Any, params: Any) -> dict[str, Any]:
        self.started.set()
        await self.let_go.wait()
        return {"secret": "answer of a call that outlived its key"}


@pytest.fixture
async def slow(victim: Gateway) -> Slow:
    slow = Slow()
    victim.rpc.method("slow.call", scope="operator.read")(slow.handle)
    return slow


async def test_v16_auth5_a_revoked_key_is_out_everywhere_within_a_second(victim: Gateway, slow: Slow) -> None:
    made = await make_key(victim)
    async with await Attacker.at(victim.port) as held, await Attacker.at(victim.port) as owner:
        assert (await held.connect(token=made["key"], scopes=["operator.read"])).hello["auth"]["method"] == "api-key"
        assert (await owner.connect(token=TOKEN)).admitted
        await held.send(frame(TEXT, held.request("slow.call")))
        await slow.started.wait()
        began = trio.current_time()
        assert (await owner.call("tokens.revoke", {"name": "ci"}))["ok"]
        slow.let_go.set()
        got = await held.read_frame()
        assert got is not None
        assert got.close_code == 4001  # and no answer of the running call came before it
        assert trio.current_time() - began < 5  # a second, and what a busy machine adds
        await owner.assert_alive()
    status, answer = await rpc(victim.port, "health", token=made["key"])
    assert (status, word(answer)) == (401, "api_key_revoked")
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(token=made["key"], scopes=["operator.read"])
        assert (outcome.detail, outcome.close_code) == ("AUTH_TOKEN_MISMATCH", 1008)
        assert outcome.error["details"]["authReason"] == "api_key_revoked"


async def test_auth5_the_answer_of_a_running_http_call_is_dropped_when_its_key_is_revoked(
    victim: Gateway, slow: Slow
) -> None:
    made = await make_key(victim)
    answers: list[tuple[int, Any]] = []

    async def call() -> None:
        answers.append(await rpc(victim.port, "slow.call", token=made["key"]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await slow.started.wait()
        assert (await rpc(victim.port, "tokens.revoke", {"name": "ci"}))[0] == 200
        slow.let_go.set()
    assert answers[0][0] == 401
    assert "outlived" not in json.dumps(answers[0][1])


async def test_v16_rotating_the_shared_secret_leaves_keys_and_closes_the_secrets_sessions(victim: Gateway) -> None:
    made = await make_key(victim)
    async with await Attacker.at(victim.port) as with_key, await Attacker.at(victim.port) as with_secret:
        await with_key.connect(token=made["key"], scopes=["operator.read"])
        await with_secret.connect(token=TOKEN)
        fresh = ResolvedAuth(type="token", token="another-token-0123456789-abcdef", source="test")
        victim.apply(victim.config, fresh)
        assert (await with_secret.read_close()).close_code == 1008
        await with_key.assert_alive()
    assert (await rpc(victim.port, "health", token=TOKEN))[0] == 401
    assert (await rpc(victim.port, "health", token=made["key"]))[0] == 200


async def test_s147_a_key_that_expires_ends_its_connections() -> None:
    async with open_victim() as victim:
        made = await make_key(victim, "brief", expiresInMs=700)
        async with await Attacker.at(victim.port) as held:
            assert (await held.connect(token=made["key"], scopes=["operator.read"])).admitted
            assert (await held.read_close()).close_code == 4001
        status, answer = await rpc(victim.port, "health", token=made["key"])
        assert (status, word(answer)) == (401, "api_key_expired")


@pytest.mark.parametrize("held", [("operator.read",), ("operator.write",), ("operator.pairing",), ("operator.admin",)])
async def test_v10_v18_a_key_gives_at_most_its_own_scopes(victim: Gateway, held: tuple[str, ...]) -> None:
    made = await make_key(victim, "k", *held)
    implied = {"operator.read"} if "operator.write" in held else set(ALL_SCOPES) if "operator.admin" in held else set()
    for client in CLIENT_IDS:
        async with await Attacker.at(victim.port) as attacker:
            outcome = await attacker.connect(
                token=made["key"], client=client, headers={"x-openclaw-scopes": "operator.admin"}
            )
            if outcome.admitted:
                assert outcome.scopes <= set(held) | implied
            else:
                assert client == "openclaw-control-ui"  # has to come with an Origin
    status, answer = await rpc(victim.port, "tokens.list", token=made["key"])
    assert ("result" in answer) == (held == ("operator.admin",)), (status, answer)


async def test_v22_a_key_asked_for_nothing_gives_nothing(victim: Gateway) -> None:
    made = await make_key(victim, "k", "operator.admin")
    async with await Attacker.at(victim.port) as attacker:
        outcome = await attacker.connect(token=made["key"], scopes=[])
        assert outcome.scopes == set()
        assert not (await attacker.call("tokens.list"))["ok"]


async def test_v9_without_a_device_a_key_works_on_this_host_and_over_encrypted_http_only(
    victim: Gateway, far_port: int
) -> None:
    made = await make_key(victim)
    async with await Attacker.at(far_port) as attacker:
        outcome = await attacker.connect(token=made["key"], scopes=["operator.read"])
        assert outcome.detail == "DEVICE_IDENTITY_REQUIRED"
    status, answer = await rpc(far_port, "health", token=made["key"])
    assert (status, word(answer)) == (403, "api_key_needs_encryption")
    # A forged "it was https" from a proxy that nobody trusts is no encryption, and nobody is local behind a proxy.
    assert (await rpc(far_port, "health", token=made["key"], headers=HTTPS))[0] == 403
    assert (await rpc(victim.port, "health", token=made["key"], headers=HTTPS))[0] == 403
    async with open_victim(trusted_proxies=("127.0.0.1",)) as behind_proxy:
        key = (await make_key(behind_proxy))["key"]
        hosted = {**HTTPS, "Host": f"127.0.0.1:{behind_proxy.port}"}
        del hosted["X-Forwarded-Host"]
        assert (await rpc(behind_proxy.port, "health", token=key, headers=hosted))[0] == 200
        plain = {**hosted, "X-Forwarded-Proto": "http"}
        assert (await rpc(behind_proxy.port, "health", token=key, headers=plain))[0] == 403
        # The shared secret still needs a device from there.
        assert (await rpc(behind_proxy.port, "health", headers=hosted))[0] == 403


async def test_v59_a_self_made_device_with_a_key_is_paired_by_nobody_and_a_key_is_no_node(
    victim: Gateway, far_port: int
) -> None:
    made = await make_key(victim, "k", "operator.admin")
    for port in (victim.port, far_port):
        async with await Attacker.at(port) as attacker:
            outcome = await attacker.connect(token=made["key"], device=Device())
            assert outcome.detail == "PAIRING_REQUIRED"
    for device in (None, Device()):
        async with await Attacker.at(victim.port) as attacker:
            outcome = await attacker.connect(
                token=made["key"], device=device, role="node", scopes=[], client="node-host", mode="node"
            )
            assert outcome.error["details"]["authReason"] == "api_key_role"


async def test_auth2_each_fault_of_a_key_has_its_own_word_on_both_ways_in(victim: Gateway) -> None:
    victim.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,), attempts=1000))
    key = (await make_key(victim))["key"]
    code = "eyJib290c3RyYXBUb2tlbiI6IngifQ"  # {"bootstrapToken":"x"}
    for presented, expected in (
        ("ocg_" + "x" * 43, "api_key_wrong"),
        (key[:-1], "api_key_malformed"),
        (key + "\u00e9", "api_key_malformed"),
        ("${OPENCLAW_TOKEN}", "token_malformed"),
        ("no-key-at-all", "token_mismatch"),
        (code, "token_is_setup_code"),
    ):
        async with await Attacker.at(victim.port) as attacker:
            outcome = await attacker.connect(token=presented)
            assert outcome.error["details"]["authReason"] == expected
        if presented.isascii():
            status, answer = await rpc(victim.port, "health", token=presented)
            assert (status, answer["error"]["details"]["authReason"]) == (401, expected)
    await legit_client_works(victim.port)


async def test_auth6_wrong_keys_are_counted_and_lock_trying_keys_but_neither_good_keys_nor_the_secret() -> None:
    async with open_victim(trusted_proxies=("127.0.0.1",)) as gateway:
        key = (await make_key(gateway))["key"]
        far = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        words = []
        for number in range(12):
            _, answer = await rpc(gateway.port, "health", token=f"ocg_{number:043d}", headers=far)
            words.append(answer["error"]["details"]["authReason"])
        assert words == ["api_key_wrong"] * 10 + ["rate_limited"] * 2
        assert (await rpc(gateway.port, "health", token=key, headers=far))[0] == 200
        _, answer = await rpc(gateway.port, "health", token="wrong-secret", headers=far)
        assert answer["error"]["details"]["authReason"] == "token_mismatch"  # counted apart (AUTH-6)


async def test_v51_no_reply_shows_a_key_or_a_refresh_token_to_anybody_else() -> None:
    auth = AuthConfig(type="token", token=TOKEN, expires_in=86_400.0)
    async with open_victim(auth) as victim:
        made = await make_key(victim, "k", "operator.admin")
        device = Device()
        async with await Attacker.at(victim.port) as owner:
            own = (await owner.connect(token=TOKEN, device=device, scopes=["operator.read"])).hello["auth"]
            assert (await owner.call("auth.refresh", {"refreshToken": own["refreshToken"]}))["ok"]
        secrets = [made["key"], own["refreshToken"], own["deviceToken"]]
        seen = ""
        for method in ("tokens.list", "device.pair.list", "status", "health", "config.get", "logs.tail", "node.list"):
            _, answer = await rpc(victim.port, method)
            seen += json.dumps(answer)
        for secret in secrets:
            assert secret not in seen


async def test_c18_a_stolen_refresh_token_ends_with_the_family_and_the_owners_connections() -> None:
    auth = AuthConfig(type="token", token=TOKEN, expires_in=86_400.0)
    async with open_victim(auth) as victim:
        device = Device()
        async with await Attacker.at(victim.port) as owner:
            own = (await owner.connect(token=TOKEN, device=device, scopes=["operator.read"])).hello["auth"]
            stolen = own["refreshToken"]
            renewed = (await owner.call("auth.refresh", {"refreshToken": stolen}))["payload"]
            async with await Attacker.at(victim.port) as second:
                assert (await second.connect(deviceToken=renewed["deviceToken"], device=device, scopes=[])).admitted
                began = trio.current_time()
                body = json.dumps({"refreshToken": stolen}).encode()
                headers = {"Content-Type": "application/json"}
                status, _, answer = await http(victim.port, "POST", "/auth/refresh", headers=headers, body=body)
                assert status == 401
                assert json.loads(answer)["error"]["details"]["authReason"] == "refresh_token_reused"
                for session in (owner, second):
                    close = await session.read_close()
                    assert (close.close_code, close.payload[2:]) == (4001, b"refresh token reused")
                assert trio.current_time() - began < 5  # a second, and what a busy machine adds
        async with await Attacker.at(victim.port) as client:
            outcome = await client.connect(deviceToken=renewed["deviceToken"], device=device, scopes=[])
            assert outcome.detail == "AUTH_DEVICE_TOKEN_MISMATCH"
        async with await Attacker.at(victim.port) as client:  # AUTH-3: the pairing is still there
            healed = await client.connect(token=TOKEN, device=device, scopes=["operator.read"])
            assert healed.hello["auth"]["refreshToken"] not in {stolen, renewed["refreshToken"]}
