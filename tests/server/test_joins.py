"""`GET /j/<code>`, and setup codes redeemed over the wire: what each side sees."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.policy.setup import PROFILES
from openclaw_gateway.server.ownaddresses import MAX_ADDRESSES, own_lan_addresses
from openclaw_gateway.testing import connect_peer
from tests.attacks.attacker import TOKEN, Attacker, Device, http, open_victim, remote_door

from .conftest import CONFIG

FAR = "192.0.2.7"
NODE: dict[str, Any] = {"client_id": "node-host", "mode": "node", "role": "node", "scopes": ()}
PHONE: dict[str, Any] = {**NODE, "client_id": "openclaw-ios"}


@pytest.fixture
async def joining() -> AsyncIterator[Gateway]:
    """A gateway that listens, and says of itself that it is reached at its own loopback address."""
    async with open_gateway(CONFIG, env={}) as gateway:
        gateway._in_force.config = attrs.evolve(CONFIG, public_url=f"http://127.0.0.1:{gateway.port}")
        yield gateway


async def make(gateway: Gateway, **params: Any) -> dict[str, Any]:
    async with connect_peer(gateway) as admin:
        answer: dict[str, Any] = await admin.request("device.pair.setupCode", {"includeQr": False, **params})
    return answer


async def make_refused(gateway: Gateway, **params: Any) -> CallFailed:
    async with connect_peer(gateway) as admin:
        with pytest.raises(CallFailed) as refused:
            await admin.request("device.pair.setupCode", {"includeQr": False, **params})
    return refused.value


async def refusal(gateway: Gateway, **who: Any) -> dict[str, Any]:
    """The details of the error that a peer from far away gets for its connect."""
    async with connect_peer(gateway, address=FAR, connect=False) as peer:
        with pytest.raises(CallFailed) as refused:
            await peer.connect(**who)
    assert refused.value.details is not None
    return dict(refused.value.details)


def decode(code: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    return value


async def code_for(gateway: Gateway, **params: Any) -> str:
    params.setdefault("publicUrl", "wss://gw.example")
    token: str = decode((await make(gateway, **params))["setupCode"])["bootstrapToken"]
    return token


# --- the URL


async def test_c23_a_join_url_answers_once_and_the_node_gets_in_with_it(joining: Gateway) -> None:
    answer = await make(joining, bootstrapProfile="node", joinUrl=True)
    base, _, code = answer["joinUrl"].rpartition("/")
    assert base == f"http://127.0.0.1:{joining.port}/j"
    assert len(code) == 22
    for method in ("HEAD", "POST", "PUT", "OPTIONS", "DELETE"):
        status, _, body = await http(joining.port, method, f"/j/{code}")
        assert status == 404
        assert method == "HEAD" or json.loads(body) == {"error": "not_found"}
    status, _, _ = await http(joining.port, "GET", f"/j/{code}", headers={"Sec-Purpose": "prefetch;prerender"})
    assert status == 404
    status, headers, body = await http(joining.port, "GET", f"/j/{code}")
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "application/json"
    assert "access-control-allow-origin" not in headers
    payload = json.loads(body)
    assert payload == {
        "url": f"ws://127.0.0.1:{joining.port}",
        "bootstrapToken": decode(answer["setupCode"])["bootstrapToken"],
        "expiresAtMs": answer["expiresAtMs"],
    }
    status, _, body = await http(joining.port, "GET", f"/j/{code}")
    assert (status, json.loads(body)) == (404, {"error": "not_found"})
    identity = DeviceIdentity.generate()
    async with connect_peer(
        joining, address=FAR, device=identity, bootstrap_token=payload["bootstrapToken"], **NODE
    ) as node:
        assert node.hello["auth"]["method"] == "bootstrap-token"


async def test_v23_unknown_used_and_malformed_codes_get_the_same_answer(joining: Gateway) -> None:
    url = (await make(joining, bootstrapProfile="node", joinUrl=True))["joinUrl"]
    used = "/j/" + url.rpartition("/")[2]
    assert (await http(joining.port, "GET", used))[0] == 200
    answers = set()
    for path in (used, "/j/" + "A" * 22, "/j/" + "A" * 21, "/j/" + "A" * 23, "/j/", "/j/a/b", used + "?x=1"):
        status, headers, body = await http(joining.port, "GET", path)
        headers.pop("date")
        answers.add((status, body, tuple(sorted(headers.items()))))
    assert len(answers) == 1
    assert (await http(joining.port, "GET", "/j"))[0] == 404


async def test_v14_one_address_asks_so_often_and_others_are_served(joining: Gateway) -> None:
    url = (await make(joining, bootstrapProfile="node", joinUrl=True))["joinUrl"]
    statuses = [(await http(joining.port, "GET", "/j/" + "A" * 22))[0] for _ in range(25)]
    assert statuses == [404] * 20 + [429] * 5
    _, headers, body = await http(joining.port, "GET", "/j/" + "A" * 22)
    assert json.loads(body) == {"error": "rate_limited"}
    assert 1 <= int(headers["retry-after"]) <= 60
    status, _, _ = await http(joining.port, "GET", "/j/" + url.rpartition("/")[2], source="127.0.0.2")
    assert status == 200


async def test_a_join_url_needs_https_or_this_host_and_served_http(joining: Gateway) -> None:
    plain = await make_refused(joining, publicUrl="ws://192.168.1.2:1", joinUrl=True)
    assert plain.details is not None
    assert plain.details["code"] == "SETUP_CODE_UNREACHABLE"
    assert (await make(joining, publicUrl="wss://gw.example/x", joinUrl=True))["joinUrl"].startswith(
        "https://gw.example/x/j/"
    )
    transports = attrs.evolve(CONFIG.transports, http=attrs.evolve(CONFIG.transports.http, enabled=False))
    joining._in_force.config = attrs.evolve(joining.config, transports=transports)
    assert "gateway.transports.http.enabled" in (await make_refused(joining, joinUrl=True)).message


# --- making codes


async def test_pair11_a_loopback_gateway_refuses_with_the_reason_and_the_command(gateway: Gateway) -> None:
    refused = await make_refused(gateway)
    assert refused.code == "INVALID_REQUEST"
    assert refused.message.startswith("Gateway is only bound to loopback")
    assert refused.details is not None
    assert "openclaw config set gateway.bind lan" in str(refused.details["remediationHint"])


async def test_pair11_a_code_made_through_a_proxy_names_its_public_origin_first() -> None:
    headers = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "claw.example.com"}
    device = Device()
    async with open_victim(trusted_proxies=("10.0.0.9",), public_url="https://other.example") as gateway:
        async with await Attacker.at(gateway.port) as local:
            assert (await local.connect(device=device, token=TOKEN)).admitted
        async with remote_door(gateway, "10.0.0.9") as door, await Attacker.at(door) as admin:
            outcome = await admin.connect(device=device, token=TOKEN, headers=headers)
            assert outcome.admitted, outcome
            answer = (await admin.call("device.pair.setupCode", {"includeQr": False}))["payload"]
    payload = decode(answer["setupCode"])
    assert payload["url"] == answer["gatewayUrl"] == "wss://claw.example.com"
    assert payload["urls"] == answer["gatewayUrls"] == ["wss://claw.example.com", "wss://other.example"]
    assert (answer["urlSource"], answer["access"]) == ("trusted proxy", "full")


async def test_v24_a_code_over_plaintext_gives_no_administration(gateway: Gateway) -> None:
    answer = await make(gateway, publicUrl="ws://192.168.1.2:18789")
    assert (answer["access"], answer["accessDowngraded"]) == ("limited", True)
    assert (await make(gateway, publicUrl="ws://127.0.0.1:18789"))["access"] == "full"
    assert "accessDowngraded" not in await make(gateway, publicUrl="wss://gw.example")


async def test_a_code_comes_with_a_picture_unless_it_is_not_wanted(gateway: Gateway) -> None:
    answer = await make(gateway, publicUrl="wss://gw.example", includeQr=True)
    picture = answer["qrDataUrl"]
    assert picture.startswith("data:image/png;base64,iVBOR")
    assert len(picture) <= 16_384
    assert "qrDataUrl" not in await make(gateway, publicUrl="wss://gw.example")


@pytest.mark.parametrize(
    "params",
    [{"bootstrapProfile": "full"}, {"bootstrapProfile": "owner"}, {"publicUrl": ""}, {"publicUrl": 1}, {"zzz": 1}],
)
async def test_parameters_that_are_none_are_refused(gateway: Gateway, params: dict[str, Any]) -> None:
    assert (await make_refused(gateway, **params)).code == "INVALID_REQUEST"


# --- redeeming


async def test_a_node_is_paired_told_about_and_comes_back_with_its_own_token(gateway: Gateway) -> None:
    identity = DeviceIdentity.generate()
    async with connect_peer(gateway) as admin:
        answer = await admin.request(
            "device.pair.setupCode", {"publicUrl": "wss://gw.example", "bootstrapProfile": "node", "includeQr": False}
        )
        assert await admin.request("device.pair.setupStatus", {"setupId": answer["setupId"]}) == {}
        token = decode(answer["setupCode"])["bootstrapToken"]
        who: dict[str, Any] = {**NODE, "client": {"displayName": "Shed"}}
        async with connect_peer(gateway, address=FAR, device=identity, bootstrap_token=token, **who) as node:
            auth = node.hello["auth"]
        assert (auth["method"], auth["role"], auth["scopes"]) == ("bootstrap-token", "node", [])
        assert "deviceTokens" not in auth
        resolved = await admin.expect_event("device.pair.resolved")
        assert (resolved["deviceId"], resolved["decision"]) == (identity.device_id, "approved")
        completed = await admin.expect_event("device.pair.setup.completed")
        assert completed == {
            "setupId": answer["setupId"],
            "deviceId": identity.device_id,
            "deviceName": "Shed",
            "access": "node",
            "ts": completed["ts"],
        }
        status = await admin.request("device.pair.setupStatus", {"setupId": answer["setupId"]})
        assert status == {"completion": completed}
    async with connect_peer(gateway, address=FAR, device=identity, device_token=auth["deviceToken"], **NODE) as node:
        assert node.hello["auth"]["method"] == "device-token"
    again = await refusal(gateway, device=identity, bootstrap_token=token, **NODE)
    assert again["code"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"


async def test_a_phone_takes_an_operators_token_along_and_can_use_it(gateway: Gateway) -> None:
    identity, token = DeviceIdentity.generate(), await code_for(gateway)
    async with connect_peer(gateway, address=FAR, device=identity, bootstrap_token=token, **PHONE) as phone:
        auth = phone.hello["auth"]
    (handed,) = auth["deviceTokens"]
    assert (handed["role"], set(handed["scopes"])) == ("operator", set(PROFILES["full"].operator_scopes))
    assert isinstance(handed["issuedAtMs"], int)
    assert handed["deviceToken"] != auth["deviceToken"]
    async with connect_peer(
        gateway, address=FAR, device=identity, device_token=handed["deviceToken"], client_id="openclaw-ios",
        mode="ui", scopes=("operator.admin",),
    ) as operator:  # fmt: skip
        assert operator.hello["auth"]["scopes"] == ["operator.admin"]


async def test_a_node_host_with_a_phones_code_waits_for_a_person_and_then_comes_in(gateway: Gateway) -> None:
    identity, token = DeviceIdentity.generate(), await code_for(gateway)
    who: dict[str, Any] = {**NODE, "device": identity, "bootstrap_token": token}
    waits = await refusal(gateway, **who)
    assert waits["code"] == "PAIRING_REQUIRED"
    assert (waits["recommendedNextStep"], waits["pauseReconnect"]) == ("wait_then_retry", False)
    thief = await refusal(gateway, **{**PHONE, "device": DeviceIdentity.generate(), "bootstrap_token": token})
    assert thief["code"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"
    async with connect_peer(gateway) as admin:
        await admin.request("device.pair.approve", {"requestId": waits["requestId"]})
    async with connect_peer(gateway, address=FAR, **who) as node:
        assert node.hello["auth"]["method"] == "bootstrap-token"
        assert "deviceTokens" not in node.hello["auth"]


async def test_v16_a_new_shared_token_ends_the_codes_of_the_old_one(gateway: Gateway) -> None:
    token = await code_for(gateway, bootstrapProfile="node")
    auth = attrs.evolve(gateway.auth, token="another-token-0123456789abcdef")
    gateway.apply(gateway.config, auth)
    refused = await refusal(gateway, device=DeviceIdentity.generate(), bootstrap_token=token, **NODE)
    assert refused["code"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"


def test_own_addresses_are_addresses_that_neighbours_can_use() -> None:
    found = own_lan_addresses()
    assert len(found) <= MAX_ADDRESSES
    assert len(set(found)) == len(found)
    assert not any(address.startswith(("127.", "169.254.", "fe80:", "::1")) for address in found)
