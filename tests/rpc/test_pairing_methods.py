"""`device.pair.*` and `device.token.*` as a client meets them: shapes, events, closes (wire.md sections 3, 6, 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway import CallContext, CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.pairing import rows
from openclaw_gateway.store import StoreUnavailable
from openclaw_gateway.testing import (
    PeerClosed,
    ScriptedPeer,
    connect_params,
    connect_peer,
    open_memory_gateway,
    open_memory_stream,
)

CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token="token-of-the-pairing-tests-0123456789"))
FAR = "192.0.2.7"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def admin(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway) as peer:
        yield peer


async def turned_away(gateway: Gateway, *, address: str = FAR, **who: Any) -> CallFailed:
    """The error of a connect that is refused."""
    if not {"token", "password", "device_token"} & set(who):
        who["token"] = gateway.token
    async with connect_peer(gateway, address=address, connect=False) as peer:
        with pytest.raises(CallFailed) as caught:
            await peer.connect(**who)
    assert caught.value.details is not None
    return caught.value


async def ask(gateway: Gateway, device: DeviceIdentity, *scopes: str, role: str = "operator", **who: Any) -> str:
    """A connect from another host that is turned away; the id of its request."""
    error = await turned_away(gateway, device=device, role=role, scopes=scopes, **who)
    assert error.details is not None
    return str(error.details["requestId"])


async def pair(gateway: Gateway, admin: ScriptedPeer, device: DeviceIdentity, *scopes: str) -> None:
    await admin.request("device.pair.approve", {"requestId": await ask(gateway, device, *scopes)})


@asynccontextmanager
async def connected(gateway: Gateway, device: DeviceIdentity, *scopes: str, **who: Any) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway, address=FAR, device=device, scopes=scopes, **who) as peer:
        yield peer


async def refusal(peer: ScriptedPeer, method: str, params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await peer.request(method, params)
    return caught.value


async def test_approve_answers_with_the_device_and_tells_everybody(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    request_id = await ask(gateway, device, "operator.read")
    asked = await admin.expect_event("device.pair.requested")
    (row,) = (await admin.request("device.pair.list"))["pending"]
    assert row["requestId"] == asked["requestId"] == request_id
    result = await admin.request("device.pair.approve", {"requestId": request_id, "askHash": row["askHash"]})
    assert result["requestId"] == request_id
    approved = result["device"]
    assert {
        "deviceId", "publicKey", "platform", "clientId", "clientMode", "role", "roles", "scopes", "approvedVia",
        "createdAtMs", "approvedAtMs", "tokens",
    } <= set(approved)  # fmt: skip
    assert (approved["deviceId"], approved["scopes"], approved["roles"]) == (
        device.device_id,
        ["operator.read"],
        ["operator"],
    )
    resolved = await admin.expect_event("device.pair.resolved")
    assert (resolved["requestId"], resolved["decision"]) == (request_id, "approved")
    async with connected(gateway, device, "operator.read") as peer:
        assert peer.hello["auth"]["scopes"] == ["operator.read"]
        listed = await admin.request("device.pair.list")
        assert (listed["pending"], listed["paired"][0]["connected"]) == ([], True)
    token = peer.hello["auth"]["deviceToken"]
    assert token not in str(result) + str(listed)


async def test_reject_answers_with_ids_and_tells_everybody(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    request_id = await ask(gateway, device, "operator.read")
    assert await admin.request("device.pair.reject", {"requestId": request_id}) == {
        "requestId": request_id,
        "deviceId": device.device_id,
    }
    assert (await admin.expect_event("device.pair.resolved"))["decision"] == "rejected"
    again = await refusal(admin, "device.pair.approve", {"requestId": request_id})
    assert again.code == "INVALID_REQUEST"
    assert again.message == "unknown requestId: it was rejected already"


async def test_pair3_a_superseded_id_answers_with_the_new_one_and_the_difference(
    gateway: Gateway, admin: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    old = await ask(gateway, device, "operator.read")
    new = await ask(gateway, device, "operator.read", "operator.write")
    for method in ("device.pair.approve", "device.pair.reject"):
        error = await refusal(admin, method, {"requestId": old})
        assert error.message == f"unknown requestId: superseded by {new}, which also asks for operator.write"
        assert error.details is not None
        assert (error.details["replacedBy"], error.details["addedScopes"]) == (new, ["operator.write"])
        assert error.details["remediationHint"] == f"openclaw devices approve {new}"
    await admin.request("device.pair.approve", {"requestId": f" {new} "})


async def test_unknown_ids_say_so_in_the_words_that_clients_look_for(admin: ScriptedPeer) -> None:
    assert (await refusal(admin, "device.pair.approve", {"requestId": "none"})).message == "unknown requestId"
    assert (await refusal(admin, "device.pair.reject", {"requestId": "none"})).message == "unknown requestId"
    for method, params in (
        ("device.pair.remove", {"deviceId": "none"}),
        ("device.pair.rename", {"deviceId": "none", "label": "x"}),
        ("device.token.rotate", {"deviceId": "none", "role": "operator"}),
        ("device.token.revoke", {"deviceId": "none", "role": "operator"}),
    ):
        error = await refusal(admin, method, params)
        assert (error.code, error.message) == ("INVALID_REQUEST", "unknown deviceId")


async def test_pair5_another_hash_is_not_what_was_listed(gateway: Gateway, admin: ScriptedPeer) -> None:
    request_id = await ask(gateway, DeviceIdentity.generate(), "operator.read")
    error = await refusal(admin, "device.pair.approve", {"requestId": request_id, "askHash": "0" * 64})
    assert error.details is not None
    assert error.details["code"] == "ASK_CHANGED"
    assert len((await admin.request("device.pair.list"))["pending"]) == 1


async def test_v19_the_denial_says_what_is_missing(gateway: Gateway) -> None:
    operator_id = await ask(gateway, DeviceIdentity.generate(), "operator.admin")
    node_id = await ask(gateway, DeviceIdentity.generate(), role="node")
    async with connect_peer(gateway, scopes=["operator.pairing", "operator.read"]) as pairing:
        for request_id in (operator_id, node_id):
            error = await refusal(pairing, "device.pair.approve", {"requestId": request_id})
            # The official command line tries again with operator.admin when it reads these words.
            assert "device pairing approval denied" in error.message
            assert error.details is not None
            assert error.details["missingScopes"] == ["operator.admin"]
        await pairing.request("device.pair.reject", {"requestId": node_id})  # to refuse needs no more


async def test_rename_is_trimmed_bounded_and_told(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    params = {"deviceId": device.device_id, "label": "  Kitchen\n Mac\x1b "}
    assert await admin.request("device.pair.rename", params) == {
        "deviceId": device.device_id,
        "label": "Kitchen Mac",
    }
    assert await admin.expect_event("device.pair.changed") == {}
    for label in ("", "   ", "\n", "x" * 65):
        error = await refusal(admin, "device.pair.rename", {"deviceId": device.device_id, "label": label})
        assert "at /label" in error.message
    (row,) = (await admin.request("device.pair.list"))["paired"]
    assert row["displayName"] == row["operatorLabel"] == "Kitchen Mac"


async def test_rotate_gives_the_new_token_to_the_device_itself_alone(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read", "operator.pairing")
    async with connected(gateway, device, "operator.read") as peer:
        token = peer.hello["auth"]["deviceToken"]
        params = {"deviceId": device.device_id, "role": "operator"}
        result = await admin.request("device.token.rotate", params)
        assert set(result) == {"deviceId", "role", "scopes", "rotatedAtMs", "tokenDelivery"}
        assert (result["scopes"], result["tokenDelivery"]) == (
            ["operator.pairing", "operator.read"],
            "withheld-cross-device",
        )
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (4001, "device removed")
    error = await turned_away(gateway, device=device, scopes=["operator.read"], device_token=token)
    assert error.details is not None
    assert error.details["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
    scopes = ("operator.read", "operator.pairing")
    async with connected(gateway, device, *scopes) as peer:  # the shared secret hands out the current one (AUTH-3)
        token = peer.hello["auth"]["deviceToken"]
        # Whoever holds the secret can have the token with the next hello; it is not put into a reply.
        assert (await peer.request("device.token.rotate", params))["tokenDelivery"] == "withheld-cross-device"
        assert (await peer.wait_closed()).code == 4001
    async with connected(gateway, device, *scopes) as peer:
        token = peer.hello["auth"]["deviceToken"]
    async with connected(gateway, device, *scopes, device_token=token) as peer:
        result = await peer.request("device.token.rotate", {**params, "scopes": list(scopes)})
        assert (result["tokenDelivery"], len(result["token"])) == ("in-band", 43)
        assert result["token"] != token
        assert (await peer.wait_closed()).code == 4001  # after the answer
    async with connected(gateway, device, *scopes, device_token=result["token"]):
        pass


async def test_a_narrowed_device_keeps_what_is_left(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.write", "operator.pairing")
    params = {"deviceId": device.device_id, "role": "operator", "scopes": ["operator.read"]}
    assert (await admin.request("device.token.rotate", params))["scopes"] == ["operator.read"]
    for wanted in (["operator.write"], ["operator.admin"], ["operator.nonsense"]):
        error = await refusal(admin, "device.token.rotate", {**params, "scopes": wanted})
        assert (error.code, error.message.split(":")[0]) == ("FORBIDDEN", "device token rotation denied")
    async with connected(gateway, device, "operator.read"):
        pass
    await ask(gateway, device, "operator.write")


async def test_revoke_closes_and_only_an_approval_brings_it_back(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    params = {"deviceId": device.device_id, "role": "operator"}
    async with connected(gateway, device, "operator.read") as peer:
        result = await admin.request("device.token.revoke", params)
        assert set(result) == {"deviceId", "role", "revokedAtMs"}
        assert (await peer.wait_closed()).code == 4001
    assert await admin.request("device.token.revoke", params) == result  # once more changes nothing
    error = await turned_away(gateway, device=device, scopes=["operator.read"])
    assert error.details is not None
    assert error.details["reason"] == "role-upgrade"
    await admin.request("device.pair.approve", {"requestId": error.details["requestId"]})
    async with connected(gateway, device, "operator.read"):
        pass


async def test_remove_ends_all_roles_and_the_device_has_to_ask_again(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    await admin.request("device.pair.approve", {"requestId": await ask(gateway, device, role="node")})
    async with (
        connected(gateway, device, "operator.read") as operator,
        connected(gateway, device, role="node") as node,
    ):
        params = {"deviceId": device.device_id}
        assert await admin.request("device.pair.remove", params) == params
        for peer in (operator, node):
            closed = await peer.wait_closed()
            assert (closed.code, closed.reason) == (4001, "device removed")
    assert (await admin.request("device.pair.list"))["paired"] == []
    # Not even from this host with the secret, where strangers pair by themselves (V26).
    error = await turned_away(gateway, address="127.0.0.1", device=device, scopes=["operator.read"])
    assert error.details is not None
    assert error.details["reason"] == "not-paired"
    await admin.request("device.pair.approve", {"requestId": error.details["requestId"]})
    async with connect_peer(gateway, device=device, scopes=["operator.read"]):
        pass


async def test_a_device_that_removes_itself_reads_its_answer_first(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.pairing")
    async with connected(gateway, device, "operator.pairing") as peer, connected(gateway, device) as twin:
        params = {"deviceId": device.device_id}
        assert await peer.request("device.pair.remove", params) == params
        assert (await peer.wait_closed()).code == 4001
        assert (await twin.wait_closed()).code == 4001
    assert gateway._book.paired() == ()


async def test_auth5_a_batch_ends_where_it_gives_up_its_own_authority(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.pairing")
    other = DeviceIdentity.generate()
    await pair(gateway, admin, other, "operator.read")
    async with connect_peer(gateway, address=FAR, connect=False) as peer:
        params = connect_params(peer.challenge, device=device, scopes=["operator.pairing"], token=gateway.token)
        await peer.send({"jsonrpc": "2.0", "id": 1, "method": "connect", "params": params})
        assert "result" in await peer.receive()
        me = {"deviceId": device.device_id}
        calls = [("device.pair.remove", me), ("device.pair.remove", {"deviceId": other.device_id})]
        await peer.send(
            [
                {"jsonrpc": "2.0", "id": index, "method": name, "params": what}
                for index, (name, what) in enumerate(calls)
            ]
        )
        replies = await peer.receive()
        while not isinstance(replies, list):
            replies = await peer.receive()
        assert [reply["id"] for reply in replies] == [0]
        assert (await peer.wait_closed()).code == 4001
    assert [record.device_id for record in gateway._book.paired()] == [other.device_id]


async def test_auth5_no_answer_leaves_after_a_revocation(gateway: Gateway, admin: ScriptedPeer) -> None:
    """The call would be answered in ten seconds; what is answered in the very step of the revocation is dropped too."""
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    running = trio.Event()
    release = trio.Event()

    async def slow(context: CallContext, params: Any) -> str:
        running.set()
        with trio.CancelScope(shield=True):  # a handler that does not let itself be cancelled answers all the same
            await release.wait()
        return "secret"

    gateway.rpc.method("test.slow", scope="operator.read", deadline=60)(slow)
    async with connected(gateway, device, "operator.read") as peer:
        await peer.start("test.slow")
        await running.wait()
        cut = gateway._core.registry.cut_device

        def cut_and_release(device_id: str, role: str | None, spared: str | None) -> None:
            cut(device_id, role, spared)
            release.set()

        gateway._book.on_cut = cut_and_release
        started = trio.current_time()
        await admin.request("device.token.revoke", {"deviceId": device.device_id, "role": "operator"})
        frames = []
        with pytest.raises(PeerClosed) as closed:  # noqa: PT012 - reads until it raises
            while True:
                frames.append(await peer.receive())
        assert (closed.value.code, closed.value.reason) == (4001, "device removed")
        assert trio.current_time() - started < 5.0  # a second, and what a busy machine adds
        assert [frame for frame in frames if frame.get("type") == "res"] == []


async def test_auth5_answers_that_wait_to_be_read_are_dropped(gateway: Gateway, admin: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    async with open_memory_stream(gateway, address=FAR, lockstep=True) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.connect(device=device, scopes=["operator.read"], token=gateway.token)
        ids = [await peer.start("health") for _ in range(5)]  # and reads nothing
        await trio.testing.wait_all_tasks_blocked()
        await admin.request("device.token.revoke", {"deviceId": device.device_id, "role": "operator"})
        answered = []
        with pytest.raises(PeerClosed) as closed:  # noqa: PT012 - reads until it raises
            while True:
                message = await peer.receive()
                if message["type"] == "res":
                    answered.append(message["id"])
        assert closed.value.code == 4001
        assert answered == ids[:1]  # half of it had left already


async def test_auth5_a_device_that_answers_nothing_is_gone_within_a_second(
    gateway: Gateway, admin: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    ours, theirs = trio.testing.memory_stream_pair()
    served = trio.Event()

    async def serve() -> None:
        await gateway.serve_stream(theirs, peer=(FAR, 50_000))
        served.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        peer = ScriptedPeer(ours)
        await peer.upgrade()
        await peer.connect(device=device, scopes=["operator.read"], token=gateway.token)
        started = trio.current_time()
        await admin.request("device.token.revoke", {"deviceId": device.device_id, "role": "operator"})
        assert gateway._core.registry.of_device(device.device_id) == []
        await served.wait()  # nobody reads the Close frame, nobody answers it
        assert trio.current_time() - started < 5.0  # a second, and what a busy machine adds
    await trio.aclose_forcefully(ours)


@pytest.mark.parametrize("change", ["device.token.revoke", "device.token.rotate", "device.pair.remove"])
async def test_auth5_a_connect_that_is_under_way_meets_the_revocation(change: str) -> None:
    """The password is still being compared (in a thread) while the device that asks is revoked."""
    import bcrypt

    auth = AuthConfig(type="password", password_hash=bcrypt.hashpw(b"the Passw0rd!", bcrypt.gensalt(10)).decode())
    async with open_memory_gateway(attrs.evolve(CONFIG, auth=auth)) as gateway:
        device = DeviceIdentity.generate()
        async with connect_peer(gateway, password="the Passw0rd!") as admin:
            request_id = await ask(gateway, device, "operator.read", password="the Passw0rd!")
            await admin.request("device.pair.approve", {"requestId": request_id})
            [checker] = gateway.gatekeeper.credentials._passwords.values()
            matches = checker.matches
            compared, go_on = trio.Event(), trio.Event()

            async def hold(value: str) -> bool:
                right = await matches(value)
                compared.set()
                await go_on.wait()
                return right

            checker.matches = hold  # type: ignore[method-assign, assignment]
            outcome: list[CallFailed] = []

            async def connect() -> None:
                who: dict[str, Any] = {"device": device, "scopes": ["operator.read"], "password": "the Passw0rd!"}
                outcome.append(await turned_away(gateway, **who))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await compared.wait()
                params = {"deviceId": device.device_id}
                if change.startswith("device.token"):
                    params["role"] = "operator"
                await admin.request(change, params)
                go_on.set()
            (error,) = outcome
            assert (error.code, error.retryable) == ("UNAVAILABLE", True)
            assert error.details is not None
            assert error.details["code"] == "PAIRING_CHANGED"
            assert gateway._core.registry.of_device(device.device_id) == []


async def test_auth3_a_wrong_device_token_deletes_nothing_and_heals_in_one_round_trip(
    gateway: Gateway, admin: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    async with connected(gateway, device, "operator.read") as peer:
        token = peer.hello["auth"]["deviceToken"]
    for broken in ("x" * 43, token[:-1], ""):
        who = {"device_token": broken} if broken else {"device_token": token[::-1]}
        error = await turned_away(gateway, device=device, scopes=["operator.read"], **who)
        assert error.details is not None
        assert error.details["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
        assert "gateway's token" in str(error.details["remediationHint"])
        assert gateway._book.lookup(device.device_id, "operator") is not None
    async with connected(gateway, device, "operator.read", device_token="x" * 43, token=gateway.token) as peer:
        assert peer.hello["auth"]["deviceToken"] == token
    async with connected(gateway, device, "operator.read", device_token=token):
        pass


async def test_v60_a_store_that_cannot_write_changes_nothing_and_says_retry(
    gateway: Gateway, admin: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = DeviceIdentity.generate()
    await pair(gateway, admin, device, "operator.read")
    request_id = await ask(gateway, device, "operator.admin")

    async def full(*args: Any, **how: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(gateway._book._store, "run", full)
    me = {"deviceId": device.device_id}
    async with connected(gateway, device, "operator.read") as peer:
        for method, params in (
            ("device.pair.approve", {"requestId": request_id}),
            ("device.pair.reject", {"requestId": request_id}),
            ("device.pair.remove", me),
            ("device.pair.rename", {**me, "label": "x"}),
            ("device.token.rotate", {**me, "role": "operator"}),
            ("device.token.revoke", {**me, "role": "operator"}),
        ):
            error = await refusal(admin, method, params)
            assert (error.code, error.retryable) == ("UNAVAILABLE", True)
        await peer.request("health")  # still here
        listed = await admin.request("device.pair.list")
        assert [row["requestId"] for row in listed["pending"]] == [request_id]
        assert listed["paired"][0]["scopes"] == ["operator.read"]


async def test_no_more_devices_can_be_approved_than_are_kept(
    gateway: Gateway, admin: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_DEVICES", 1)
    await pair(gateway, admin, DeviceIdentity.generate(), "operator.read")
    request_id = await ask(gateway, DeviceIdentity.generate(), "operator.read")
    error = await refusal(admin, "device.pair.approve", {"requestId": request_id})
    assert error.message == "device pairing approval denied: no more devices can be paired"


async def test_parameters_are_checked(admin: ScriptedPeer) -> None:
    for method, params in (
        ("device.pair.approve", {}),
        ("device.pair.approve", {"requestId": 1}),
        ("device.pair.approve", {"requestId": "x", "scopes": ["operator.admin"]}),
        ("device.pair.remove", {"deviceId": None}),
        ("device.token.rotate", {"deviceId": "x"}),
        ("device.token.rotate", {"deviceId": "x", "role": "operator", "scopes": "operator.admin"}),
    ):
        error = await refusal(admin, method, params)
        assert error.message.startswith(f"invalid {method} params"), error
