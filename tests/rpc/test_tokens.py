"""`auth.refresh` and `tokens.*` over a memory gateway: who may call them, what comes back, the word of each refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, RefreshConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.pairing.apikeys import MAX_KEYS
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.testing import connect_peer, open_memory_gateway

TOKEN = "token-of-the-tests-of-tokens-0123456789"
DAY = 86_400.0


def config(expires_in: float | None = DAY, **refresh: Any) -> GatewayConfig:
    return GatewayConfig(auth=AuthConfig(token=TOKEN, expires_in=expires_in, refresh=RefreshConfig(**refresh)))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(config()) as opened:
        yield opened


async def refusal(call: Any, *, hint: bool = True) -> tuple[str, str]:
    """The machine code and the word of a refusal; the hint must be the table's."""
    with pytest.raises(CallFailed) as caught:
        await call
    details = caught.value.details or {}
    word = str(details.get("authReason", ""))
    if word and hint:
        assert details["remediationHint"] == ERRORS[word.replace("_", "-")].fix
    return str(details.get("code")), word


async def test_s148_hello_hands_out_a_refresh_token_and_auth_refresh_takes_it(gateway: Gateway) -> None:
    device = DeviceIdentity.generate()
    async with connect_peer(gateway, device=device, scopes=["operator.read"]) as peer:
        auth = peer.hello["auth"]
        assert auth["expiresAtMs"] == auth["issuedAtMs"] + DAY * 1000
        assert auth["refreshExpiresAtMs"] > auth["expiresAtMs"]
        renewed = await peer.request("auth.refresh", {"refreshToken": auth["refreshToken"]})
        assert renewed["deviceId"] == device.device_id
        assert renewed["scopes"] == ["operator.read"]
        assert renewed["usesLeft"] == 999
        assert await peer.request("health")  # the connection lives on
    async with connect_peer(gateway, device=device, device_token=renewed["deviceToken"], scopes=[]) as peer:
        assert peer.hello["auth"]["method"] == "device-token"
        assert peer.hello["auth"]["refreshToken"] == renewed["refreshToken"]
    async with connect_peer(gateway, connect=False) as peer:
        got = await refusal(peer.connect(device=device, device_token=auth["deviceToken"], scopes=[]), hint=False)
        assert got == ("AUTH_DEVICE_TOKEN_MISMATCH", "device_token_mismatch")


async def test_s148_nodes_refresh_too(gateway: Gateway) -> None:
    node = DeviceIdentity.generate()
    async with connect_peer(gateway, device=node, role="node", scopes=[], client_id="node-host", mode="node") as peer:
        renewed = await peer.request("auth.refresh", {"refreshToken": peer.hello["auth"]["refreshToken"]})
        assert renewed["role"] == "node"


@pytest.mark.parametrize("off", [config(None), config(enabled=False)], ids=["no expiresIn", "refresh off"])
async def test_s148_without_a_life_or_with_refresh_off_nothing_is_handed_out(off: GatewayConfig) -> None:
    async with open_memory_gateway(off) as gateway, connect_peer(gateway, device=DeviceIdentity.generate()) as peer:
        assert "refreshToken" not in peer.hello["auth"]
        assert ("expiresAtMs" in peer.hello["auth"]) == (off.auth.expires_in is not None)
        got = await refusal(peer.request("auth.refresh", {"refreshToken": "ocr_" + "x" * 64}))
        assert got == ("REFRESH_DISABLED", "refresh_disabled")


async def test_auth2_each_refusal_of_a_refresh_has_its_own_word(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        got = await refusal(peer.request("auth.refresh", {"refreshToken": "x"}))
        assert got == ("REFRESH_NOT_A_DEVICE", "refresh_not_a_device")
    async with (
        connect_peer(gateway, device=DeviceIdentity.generate()) as peer,
        connect_peer(gateway, device=DeviceIdentity.generate()) as other,
    ):
        others = other.hello["auth"]["refreshToken"]
        for token, code, word in (
            ("nonsense", "REFRESH_TOKEN_INVALID", "refresh_token_malformed"),
            ("oc-pair://eyJ", "REFRESH_TOKEN_INVALID", "refresh_token_is_setup_code"),
            (others, "REFRESH_TOKEN_INVALID", "refresh_token_wrong"),
        ):
            assert await refusal(peer.request("auth.refresh", {"refreshToken": token})) == (code, word)
        assert await other.request("auth.refresh", {"refreshToken": others})  # the attempt cost its owner nothing


async def test_v51_keys_are_made_listed_and_revoked_and_the_text_is_told_once(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        made = await peer.request("tokens.create", {"name": "ci", "expiresInMs": 60_000})
        assert made["scopes"] == ["operator.read"]
        assert made["expiresAtMs"] == made["createdAtMs"] + 60_000
        assert made["createdBy"] == "token:operator"
        listed = await peer.request("tokens.list")
        assert [row["name"] for row in listed["keys"]] == ["ci"]
        assert made["key"] not in str(listed)
        async with connect_peer(gateway, token=made["key"], scopes=["operator.read"]):
            pass
        row = (await peer.request("tokens.list"))["keys"][0]
        assert row["lastIp"] == "127.0.0.1"
        assert row["lastUsedAtMs"] >= made["createdAtMs"]
        gone = await peer.request("tokens.revoke", {"name": made["id"]})
        assert (gone["state"], gone["name"]) == ("revoked", "ci")
        assert (await refusal(peer.request("tokens.revoke", {"name": "ci"})))[0] == "API_KEY_UNKNOWN"


async def test_a_key_that_cannot_be_made_says_why(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        await peer.request("tokens.create", {"name": "ci"})
        assert (await refusal(peer.request("tokens.create", {"name": "ci"})))[0] == "API_KEY_NAME_TAKEN"
        for params, where in (
            ({"name": "a b"}, "/name"),
            ({"name": "b", "scopes": []}, "/scopes"),
            ({"name": "b", "scopes": ["operator.everything"]}, "/scopes"),
            ({"name": "b", "expiresInMs": 0}, "/expiresInMs"),
            ({"name": "b", "expiresInMs": 10**15}, "/expiresInMs"),
        ):
            with pytest.raises(CallFailed, match=f"at {where}"):
                await peer.request("tokens.create", params)
        for number in range(MAX_KEYS - 1):
            await peer.request("tokens.create", {"name": f"k{number}"})
        assert (await refusal(peer.request("tokens.create", {"name": "more"})))[0] == "API_KEY_LIMIT"


async def test_v41_only_an_admin_handles_keys(gateway: Gateway) -> None:
    every_other = [
        "operator.read", "operator.write", "operator.pairing", "operator.approvals", "operator.questions",
        "operator.talk.secrets",
    ]  # fmt: skip
    async with connect_peer(gateway, scopes=every_other) as peer:
        for method in ("tokens.create", "tokens.list", "tokens.revoke"):
            assert (await refusal(peer.request(method, {"name": "x"})))[0] == "MISSING_SCOPE"


async def test_v26_a_key_makes_no_keys_and_hands_out_no_device_token(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        key = (await peer.request("tokens.create", {"name": "root", "scopes": ["operator.admin"]}))["key"]
    async with connect_peer(gateway, token=key) as peer:
        assert peer.hello["auth"]["scopes"] == ["operator.admin"]
        assert await refusal(peer.request("tokens.create", {"name": "child"})) == ("API_KEY_MAKES_NO_KEYS", "")
    device = DeviceIdentity.generate()
    async with connect_peer(gateway, connect=False) as peer:
        with pytest.raises(CallFailed, match="pairing required"):  # not even on this host does a key pair a device
            await peer.connect(token=key, device=device)
    async with connect_peer(gateway, device=device):
        pass
    async with connect_peer(gateway, token=key, device=device) as peer:
        assert peer.hello["auth"]["method"] == "api-key"
        assert not {"deviceToken", "refreshToken"} & peer.hello["auth"].keys()


async def test_audit_rows_name_the_key_and_never_show_it(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        made = await peer.request("tokens.create", {"name": "ci"})
        await peer.request("tokens.revoke", {"name": "ci"})
    rows = [row for row in await gateway.audit.recent(50) if str(row["action"]).startswith("apikey.")]
    assert [row["action"] for row in rows] == ["apikey.created", "apikey.revoked"]
    assert all(row["key_id"] == made["id"] and row["label"] == "ci" for row in rows)
    assert made["key"] not in str(rows)


async def test_s147_a_reload_gives_what_was_issued_before_a_life_too(gateway: Gateway) -> None:
    async with connect_peer(gateway, device=DeviceIdentity.generate()) as peer:
        before = peer.hello["auth"]["expiresAtMs"]
        shorter = attrs.evolve(gateway.config, auth=attrs.evolve(gateway.config.auth, expires_in=3600.0))
        gateway.apply(shorter, gateway.auth)
        renewed = await peer.request("auth.refresh", {"refreshToken": peer.hello["auth"]["refreshToken"]})
        assert renewed["expiresAtMs"] < before
