"""Pairing from the attacker's side: V11, V18, V19, V20 (devices), V21, V25, V26, over real sockets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from openclaw_gateway import CallContext, Gateway
from tests.websocket.rawclient import CLOSE, TEXT, frame

from .attacker import ALL_SCOPES, TOKEN, Attacker, Device, Outcome, rpc

WITHOUT_ADMIN = [scope for scope in ALL_SCOPES if scope != "operator.admin"]


async def connect(port: int, device: Device | None = None, **claims: Any) -> tuple[Attacker, Outcome]:
    client = await Attacker.at(port)
    return client, await client.connect(device=device, **claims)


async def ask(far_port: int, device: Device, scopes: Sequence[str], role: str = "operator") -> str:
    """A request of a device on another host that waits for a person."""
    client, outcome = await connect(far_port, device, token=TOKEN, scopes=scopes, role=role)
    async with client:
        assert not outcome.admitted
        request_id: str = outcome.error["details"]["requestId"]
        return request_id


async def pair(victim: Gateway, far_port: int, device: Device, scopes: Sequence[str], role: str = "operator") -> str:
    """A paired device on another host; its token."""
    request_id = await ask(far_port, device, scopes, role)
    admin, outcome = await connect(victim.port, token=TOKEN)
    async with admin:
        assert (await admin.call("device.pair.approve", {"requestId": request_id}))["ok"]
    client, outcome = await connect(far_port, device, token=TOKEN, scopes=scopes, role=role)
    async with client:
        token: str = outcome.hello["auth"]["deviceToken"]
        await client.leave()
    return token


def scopes_of(victim: Gateway, device: Device) -> set[str]:
    return {scope for record in victim._book.records_of(device.id) if record.live for scope in record.scopes}


# --- V11


async def test_v11_no_path_of_a_paired_device_widens_it_by_itself(victim: Gateway, far_port: int) -> None:
    device = Device()
    token = await pair(victim, far_port, device, ["operator.read", "operator.pairing"])
    for port, auth in itertools.product((victim.port, far_port), ({"token": TOKEN}, {"deviceToken": token})):
        client, outcome = await connect(port, device, **auth, scopes=ALL_SCOPES)
        async with client:
            assert not outcome.admitted
    client, outcome = await connect(far_port, device, deviceToken=token, scopes=["operator.read", "operator.pairing"])
    async with client:
        (pending,) = (await client.call("device.pair.list"))["payload"]["pending"]
        reply = await client.call("device.pair.approve", {"requestId": pending["requestId"]})
        assert reply["error"]["details"]["code"] == "APPROVAL_DENIED"
        reply = await client.call(
            "device.token.rotate", {"deviceId": device.id, "role": "operator", "scopes": list(ALL_SCOPES)}
        )
        assert reply["error"]["details"]["code"] == "TOKEN_CHANGE_DENIED"
    assert scopes_of(victim, device) == {"operator.read", "operator.pairing"}


# --- V18


@pytest.mark.parametrize("held", [["operator.pairing"], ["operator.pairing", "operator.read"], WITHOUT_ADMIN])
async def test_v18_rotation_mints_nothing_that_the_caller_or_the_device_lacks(
    held: list[str], victim: Gateway, far_port: int
) -> None:
    admin_device, reader, node = Device(), Device(), Device()
    await pair(victim, far_port, admin_device, ["operator.admin"])
    await pair(victim, far_port, reader, ["operator.read"])
    await pair(victim, far_port, node, [], role="node")
    before = set(victim._book.paired())
    client, _ = await connect(victim.port, token=TOKEN, scopes=held)
    async with client:
        for target, role, scopes in (
            (admin_device, "operator", None),  # would keep admin
            (admin_device, "operator", ["operator.admin"]),
            (reader, "operator", ["operator.admin"]),
            (reader, "operator", ["operator.read", "operator.write"]),
            (reader, "node", None),  # a role that was never approved
            (reader, "node", []),
            (reader, "admin", None),
            (node, "node", None),
            (node, "operator", ["operator.read"]),
            (node, "node", ["operator.read"]),
        ):
            params = {"deviceId": target.id, "role": role} | ({} if scopes is None else {"scopes": scopes})
            reply = await client.call("device.token.rotate", params)
            assert reply["error"]["details"]["code"] == "TOKEN_CHANGE_DENIED", params
            assert "token" not in reply
    assert set(victim._book.paired()) == before


# --- V19, V20


async def test_v19_no_way_in_lets_somebody_approve_more_than_he_holds(victim: Gateway, far_port: int) -> None:
    wanted = {
        await ask(far_port, Device(), ["operator.admin"]): "operator.admin",
        await ask(far_port, Device(), ["operator.read", "operator.talk.secrets"]): "operator.talk.secrets",
        await ask(far_port, Device(), [], role="node"): "operator.admin",
    }
    held = ["operator.pairing", "operator.read", "operator.write"]
    for request_id, missing in wanted.items():
        client, _ = await connect(victim.port, token=TOKEN, scopes=held)
        async with client:
            for params in ({"requestId": request_id}, {"requestId": f" {request_id} "}):
                reply = await client.call("device.pair.approve", params)
                assert "device pairing approval denied" in reply["error"]["message"]
                assert missing in reply["error"]["details"]["missingScopes"]
            # Who may not approve cannot get round it by an idle claim in the parameters either.
            for extra in ({"approved": True}, {"scopes": ["operator.read"]}, {"callerScopes": ["operator.admin"]}):
                reply = await client.call("device.pair.approve", {"requestId": request_id, **extra})
                assert reply["error"]["code"] == "INVALID_REQUEST"
    assert victim._book.paired() == ()
    assert len(victim._book.pending()) == 3


@pytest.mark.parametrize("held", [["operator.write"], ["operator.read"], ["operator.approvals"], []])
async def test_v20_without_the_pairing_scope_nothing_is_decided(
    held: list[str], victim: Gateway, far_port: int
) -> None:
    request_id = await ask(far_port, Device(), ["operator.read"])
    client, _ = await connect(victim.port, token=TOKEN, scopes=held)
    async with client:
        for method, params in (
            ("device.pair.list", {}),
            ("device.pair.approve", {"requestId": request_id}),
            ("device.pair.reject", {"requestId": request_id}),
            ("device.pair.remove", {"deviceId": "x"}),
            ("device.pair.rename", {"deviceId": "x", "label": "y"}),
            ("device.token.rotate", {"deviceId": "x", "role": "operator"}),
            ("device.token.revoke", {"deviceId": "x", "role": "operator"}),
        ):
            reply = await client.call(method, params)
            assert reply["error"]["details"]["code"] == "MISSING_SCOPE", method
    assert len(victim._book.pending()) == 1


async def test_v20_a_node_decides_nothing(victim: Gateway, far_port: int) -> None:
    node = Device()
    await pair(victim, far_port, node, [], role="node")
    request_id = await ask(far_port, Device(), ["operator.read"])
    client, outcome = await connect(far_port, node, token=TOKEN, scopes=ALL_SCOPES, role="node")
    async with client:
        assert outcome.scopes == set()
        reply = await client.call("device.pair.approve", {"requestId": request_id})
        assert reply["error"]["message"] == "unauthorized role: node"


async def test_v41_post_rpc_has_the_same_rules(victim: Gateway, far_port: int) -> None:
    request_id = await ask(far_port, Device(), ["operator.admin"])
    status, _ = await rpc(victim.port, "device.pair.approve", {"requestId": request_id}, token="wrong")
    assert status == 401
    status, _ = await rpc(far_port, "device.pair.approve", {"requestId": request_id})
    assert status in {401, 403}
    assert len(victim._book.pending()) == 1


# --- V21


async def test_v21_a_device_token_session_sees_and_handles_its_own_device_alone(victim: Gateway, far_port: int) -> None:
    nosy, other = Device(), Device()
    scopes = ["operator.pairing", "operator.read", "operator.write"]
    token = await pair(victim, far_port, nosy, scopes)
    await pair(victim, far_port, other, ["operator.read"])
    stranger = Device()
    foreign = await ask(far_port, stranger, ["operator.read"])
    own = await ask(far_port, nosy, [*scopes, "operator.approvals"])
    client, outcome = await connect(far_port, nosy, deviceToken=token, scopes=scopes)
    async with client:
        assert outcome.scopes == set(scopes)
        listed = (await client.call("device.pair.list"))["payload"]
        assert [row["requestId"] for row in listed["pending"]] == [own]
        assert [row["deviceId"] for row in listed["paired"]] == [nosy.id]
        for method in ("device.pair.approve", "device.pair.reject"):
            reply = await client.call(method, {"requestId": foreign})
            assert reply["error"]["message"] == "unknown requestId"  # as for an id that nobody ever had
        target = {"deviceId": other.id}
        for method, params in (
            ("device.pair.remove", target),
            ("device.pair.rename", {**target, "label": "mine"}),
            ("device.token.rotate", {**target, "role": "operator"}),
            ("device.token.revoke", {**target, "role": "operator"}),
        ):
            assert (await client.call(method, params))["error"]["message"] == "unknown deviceId"
        # Nor does it hear of others: what follows its own answer is only about itself.
        await ask(far_port, Device(), ["operator.read"])
        await client.send(frame(TEXT, client.request("device.pair.reject", {"requestId": own}, id_="mine")))
        heard = []
        while (got := await client.read_frame()) is not None:
            if got.opcode == TEXT and got.json.get("type") == "event":
                heard.append(got.json["payload"])
            if got.opcode == TEXT and got.json.get("id") == "mine":
                break
        about = {payload["deviceId"] for payload in heard if "deviceId" in payload}
        assert about == {nosy.id}
    assert {request.device_id for request in victim._book.pending()} >= {stranger.id}


async def test_v21_the_holder_of_the_secret_and_an_administrator_see_all(victim: Gateway, far_port: int) -> None:
    device = Device()
    token = await pair(victim, far_port, device, ["operator.admin"])
    foreign = await ask(far_port, Device(), ["operator.read"])
    ways: list[dict[str, Any]] = [
        {"deviceToken": token, "scopes": ["operator.admin"], "device": device},
        {"token": TOKEN, "scopes": ["operator.pairing"], "device": device},
    ]
    for claims in ways:
        client, outcome = await connect(far_port, **claims)
        async with client:
            assert outcome.admitted
            listed = (await client.call("device.pair.list"))["payload"]
            assert [row["requestId"] for row in listed["pending"]] == [foreign]


# --- V25


@pytest.mark.parametrize("change", ["device.token.revoke", "device.token.rotate", "device.pair.remove"])
@pytest.mark.parametrize("came_with", ["token", "deviceToken"])
async def test_v25_authority_that_is_taken_back_ends_the_socket_and_what_runs_on_it(
    change: str, came_with: str, victim: Gateway, far_port: int
) -> None:
    device = Device()
    token = await pair(victim, far_port, device, ["operator.read"])
    started = trio.Event()

    async def slow(context: CallContext, params: Any) -> str:
        started.set()
        await trio.sleep(10)
        return "too late"

    victim.rpc.method("test.slow", scope="operator.read", deadline=60)(slow)
    client, outcome = await connect(
        far_port, device, scopes=["operator.read"], **{came_with: token if came_with == "deviceToken" else TOKEN}
    )
    admin, _ = await connect(victim.port, token=TOKEN)
    async with client, admin:
        assert outcome.admitted
        await client.send(frame(TEXT, client.request("test.slow", id_="slow")))
        await started.wait()
        params = {"deviceId": device.id} | ({} if change == "device.pair.remove" else {"role": "operator"})
        at = trio.current_time()
        assert (await admin.call(change, params))["ok"]
        # Whatever it still says is not heard any more.
        await client.send(frame(TEXT, client.request("health", id_="late")))
        answers = []
        while (got := await client.read_frame()) is not None:
            if got.opcode == CLOSE:
                assert (got.close_code, got.payload[2:]) == (4001, b"device removed")
                break
            if got.json.get("type") == "res":
                answers.append(got.json["id"])
        assert trio.current_time() - at < 5.0  # a second, and what a busy machine adds; the call under way takes ten
        assert answers == []
        assert victim._core.registry.of_device(device.id) == []
    again, outcome = await connect(far_port, device, scopes=["operator.read"], deviceToken=token)
    async with again:
        assert not outcome.admitted
        assert outcome.detail == "AUTH_DEVICE_TOKEN_MISMATCH"


# --- V26


@pytest.mark.parametrize("change", ["device.token.revoke", "device.pair.remove"])
async def test_v26_nothing_but_an_approval_restores_what_was_taken(change: str, victim: Gateway, far_port: int) -> None:
    device = Device()
    token = await pair(victim, far_port, device, ["operator.read", "operator.pairing"])
    admin, _ = await connect(victim.port, token=TOKEN)
    async with admin:
        params = {"deviceId": device.id} | ({} if change == "device.pair.remove" else {"role": "operator"})
        assert (await admin.call(change, params))["ok"]
        refused = await admin.call("device.token.rotate", {"deviceId": device.id, "role": "operator"})
        assert not refused["ok"]
        ways: list[dict[str, str]] = [
            {"token": TOKEN},
            {"deviceToken": token},
            {"token": TOKEN, "deviceToken": token},
            {"token": token},
        ]
        for port, auth, scopes in itertools.product((victim.port, far_port), ways, ([], ["operator.read"])):
            client, outcome = await connect(port, device, scopes=scopes, **auth)
            async with client:
                assert not outcome.admitted, (auth, scopes)
        (waiting,) = (await admin.call("device.pair.list"))["payload"]["pending"]
        assert (await admin.call("device.pair.approve", {"requestId": waiting["requestId"]}))["ok"]
    assert scopes_of(victim, device) == {"operator.read"}  # what was asked now, not what it held
    client, outcome = await connect(far_port, device, scopes=["operator.read"], deviceToken=token)
    async with client:
        assert outcome.detail == "AUTH_DEVICE_TOKEN_MISMATCH"  # the old token stays dead
    client, outcome = await connect(far_port, device, scopes=["operator.read"], token=TOKEN)
    async with client:
        assert outcome.admitted
