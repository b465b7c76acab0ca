"""The way to hello, and every way of not getting there (spec wire.md section 5), over memory streams."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.frames import Opcode

from openclaw_gateway import CallFailed, Gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, GatewayConfig
from openclaw_gateway.server.handshake import MAX_PARKED, PRE_AUTH_BYTES
from openclaw_gateway.testing import (
    ScriptedPeer,
    connect_params,
    connect_peer,
    open_memory_gateway,
    open_memory_stream,
)

from .conftest import CONFIG, TOKEN


def _close(closed: Any) -> tuple[int, str]:
    return closed.code, closed.reason


async def test_s044_connect_to_hello(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        assert peer.hello["type"] == "hello-ok"
        assert peer.hello["protocol"] == 4
        assert peer.hello["auth"] == {"method": "token", "role": "operator", "scopes": ["operator.admin"]}
        policy = peer.hello["policy"]
        assert policy == {"maxPayload": 104_857_600, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000}
        assert len(gateway._core.registry) == 1
        assert len(gateway._core.registry.strangers) == 0
        assert (await peer.close()).code == 1005
    assert gateway._core.registry.live == ()


async def test_rule8_silence_after_the_challenge_ends_with_1000_after_15_seconds(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway, connect_peer(gateway, connect=False) as peer:
        mock_clock.jump(14.9)
        await wait_all_tasks_blocked()
        assert len(gateway._core.registry.live) == 1
        mock_clock.jump(0.2)
        assert _close(await peer.wait_closed()) == (1000, "")


async def test_rule8_an_admitted_connection_has_no_such_deadline(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway, connect_peer(gateway) as peer:
        mock_clock.jump(16)
        await wait_all_tasks_blocked()
        assert (await peer.request("health"))["ok"]


@pytest.mark.parametrize("first", ['{"type":"event","event":"x"}', "[]", "null", "42", '{"type":"req","id":1}'])
async def test_first_frame_that_is_no_request_ends_with_1008(first: str, gateway: Gateway) -> None:
    async with connect_peer(gateway, connect=False) as peer:
        await peer.send(first)
        assert _close(await peer.wait_closed()) == (1008, "invalid request frame")


@pytest.mark.parametrize("junk", [b"{not json", b"", b"\x00\xff\xfe"])
async def test_junk_before_authentication_ends_with_a_silent_1000(junk: bytes, gateway: Gateway) -> None:
    async with connect_peer(gateway, connect=False) as peer:
        await peer.send_frame(Opcode.BINARY, junk)
        assert _close(await peer.wait_closed()) == (1000, "")


async def test_c13_64_kib_before_authentication(gateway: Gateway) -> None:
    assert PRE_AUTH_BYTES == 65_536
    async with connect_peer(gateway, connect=False) as peer:
        await peer.send_frame(Opcode.TEXT, b" " * (PRE_AUTH_BYTES + 1))
        assert _close(await peer.wait_closed()) == (1009, "")
    async with connect_peer(gateway, connect=False) as peer:
        request = {"type": "req", "id": "1", "method": "connect", "params": connect_params(peer.challenge, token=TOKEN)}
        padded = msgspec.json.encode(request)
        await peer.send_frame(Opcode.TEXT, padded + b" " * (PRE_AUTH_BYTES - len(padded)))
        assert (await peer.reply("1"))["ok"]


async def test_first_request_must_be_connect(gateway: Gateway) -> None:
    async with connect_peer(gateway, connect=False) as peer:
        with pytest.raises(CallFailed) as failed:
            await peer.request("health")
        assert failed.value.code == "INVALID_REQUEST"
        assert failed.value.message == "invalid handshake: first request must be connect"
        assert _close(await peer.wait_closed()) == (1008, failed.value.message)


CASES: dict[str, tuple[dict[str, Any], str, str | None, int]] = {
    "wrong-token": ({"token": "wrong" * 8}, "INVALID_REQUEST", "AUTH_TOKEN_MISMATCH", 1008),
    "no-credential": ({"token": None}, "NOT_PAIRED", "DEVICE_IDENTITY_REQUIRED", 1008),
    "empty-token": ({"token": ""}, "NOT_PAIRED", "DEVICE_IDENTITY_REQUIRED", 1008),
    "old-protocol": ({"min_protocol": 1, "max_protocol": 2}, "INVALID_REQUEST", "PROTOCOL_MISMATCH", 1002),
    "new-protocol": ({"min_protocol": 5, "max_protocol": 6}, "INVALID_REQUEST", "PROTOCOL_MISMATCH", 1002),
    "unknown-role": ({"role": "king"}, "INVALID_REQUEST", None, 1008),
    "unknown-client": ({"client_id": "mine"}, "INVALID_REQUEST", None, 1008),
    "extra-member": ({"zzz": 1}, "INVALID_REQUEST", None, 1008),
    "bad-device-token": (
        {"device": DeviceIdentity.generate(), "device_token": "x" * 43, "token": None},
        "INVALID_REQUEST",
        "AUTH_DEVICE_TOKEN_MISMATCH",
        1008,
    ),
    "no-token-with-device": (
        {"device": DeviceIdentity.generate(), "token": None},
        "INVALID_REQUEST",
        "AUTH_TOKEN_MISSING",
        1008,
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_refusals_of_connect(case: str, gateway: Gateway) -> None:
    who, code, detail, close_code = CASES[case]
    async with connect_peer(gateway, connect=False) as peer:
        with pytest.raises(CallFailed) as failed:
            await peer.connect(**{"token": TOKEN, **who})
        error = failed.value
        assert (error.code, (error.details or {}).get("code")) == (code, detail)
        closed = await peer.wait_closed()
        assert closed.code == close_code
        assert error.message.encode()[:100].decode() in closed.reason or closed.reason == error.message
        assert len(gateway._core.registry) == 0


async def test_schema_faults_name_their_path(gateway: Gateway) -> None:
    for who, fault in (
        ({"client_id": "mine"}, "at /client/id: must be equal to one of the allowed values"),
        ({"zzz": 1}, "at root: unexpected property 'zzz'"),
    ):
        async with connect_peer(gateway, connect=False) as peer:
            with pytest.raises(CallFailed, match="invalid connect params") as failed:
                await peer.connect(token=TOKEN, **who)
            assert failed.value.message == f"invalid connect params: {fault}"


@pytest.mark.parametrize("version", ["v2", "v3"])
async def test_s095_both_signatures_are_verified_and_local_devices_paired(version: str, gateway: Gateway) -> None:
    device = DeviceIdentity.generate()
    async with connect_peer(gateway, device=device, signature=version, role="node", scopes=[], mode="node") as peer:
        first = peer.hello["auth"]["deviceToken"]
    async with connect_peer(
        gateway, device=device, signature=version, role="node", scopes=[], mode="node", device_token=first
    ) as peer:
        assert peer.hello["auth"]["method"] == "device-token"
        assert peer.hello["auth"]["deviceToken"] == first


async def test_a_tampered_signature_is_refused(gateway: Gateway) -> None:
    device, other = DeviceIdentity.generate(), DeviceIdentity.generate()
    for name, value, detail in (
        ("signature", other.sign(b"x"), "DEVICE_AUTH_SIGNATURE_INVALID"),
        ("nonce", "other", "DEVICE_AUTH_NONCE_MISMATCH"),
        ("nonce", "", "DEVICE_AUTH_NONCE_REQUIRED"),
        ("id", other.device_id, "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
        ("signedAt", 1_600_000_000_000, "DEVICE_AUTH_SIGNATURE_EXPIRED"),
    ):
        async with connect_peer(gateway, connect=False) as peer:
            params = connect_params(peer.challenge, token=TOKEN, device=device)
            with pytest.raises(CallFailed) as failed:
                await peer.request("connect", {**params, "device": {**params["device"], name: value}})
            assert (failed.value.details or {})["code"] == detail


async def test_pair1_a_remote_device_waits_for_approval(gateway: Gateway) -> None:
    device = DeviceIdentity.generate()
    async with connect_peer(gateway, connect=False, address="203.0.113.9") as peer:
        with pytest.raises(CallFailed) as failed:
            await peer.connect(token=TOKEN, device=device)
        details = failed.value.details
        assert details is not None
        assert (failed.value.code, details["code"]) == ("NOT_PAIRED", "PAIRING_REQUIRED")
        closed = await peer.wait_closed()
        assert closed.code == 1008
        assert str(details["requestId"]) in closed.reason
    async with connect_peer(gateway) as operator:
        pending = (await operator.request("device.pair.list"))["pending"]
        assert [row["requestId"] for row in pending] == [details["requestId"]]


async def test_requests_pipelined_behind_connect_are_answered_after_hello(gateway: Gateway) -> None:
    async with connect_peer(gateway, connect=False) as peer:
        connect = {"type": "req", "id": "c", "method": "connect", "params": connect_params(peer.challenge, token=TOKEN)}
        await peer.send(connect)
        for index in range(MAX_PARKED):
            await peer.send({"type": "req", "id": f"{index}", "method": "last-heartbeat"})
        replies = [await peer.receive() for _ in range(MAX_PARKED + 1)]
        assert [reply["id"] for reply in replies] == ["c", *(f"{index}" for index in range(MAX_PARKED))]
        assert all(reply["ok"] for reply in replies)


async def test_more_than_15_pipelined_frames_end_with_1008() -> None:
    config = attrs.evolve(CONFIG, auth=AuthConfig(type="password", password_hash="$2b$12$" + "a" * 53))
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, connect=False) as peer:
        connect = {
            "type": "req",
            "id": "c",
            "method": "connect",
            "params": connect_params(peer.challenge, password="Correct horse 1!"),
        }
        for message in [connect] + [{"type": "req", "id": "x", "method": "health"}] * (MAX_PARKED + 1):
            await peer.send(message)
        assert _close(await peer.wait_closed()) == (1008, "too many pending handshake frames")


async def test_auth6_a_wrong_secret_is_answered_late_and_the_delay_grows(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway:
        for delay in (0.25, 0.5, 1.0):
            async with connect_peer(gateway, connect=False) as peer:
                await peer.start("connect", connect_params(peer.challenge, token="wrong" * 8))
                await wait_all_tasks_blocked()
                mock_clock.jump(delay - 0.01)
                await wait_all_tasks_blocked()
                with trio.move_on_after(0):
                    await peer.receive()
                    pytest.fail("answered too early")
                mock_clock.jump(0.02)
                assert (await peer.reply("peer-1"))["ok"] is False
                assert (await peer.wait_closed()).code == 1008


async def test_c14_the_connection_over_the_limit_gets_1013(gateway: Gateway) -> None:
    gateway._core.registry.limit = 1
    async with connect_peer(gateway), connect_peer(gateway, connect=False) as second:
        with pytest.raises(CallFailed) as failed:
            await second.connect(token=TOKEN)
        assert (failed.value.code, failed.value.retryable) == ("UNAVAILABLE", True)
        assert _close(await second.wait_closed()) == (1013, "connection limit")


async def test_v12_a_probe_without_a_device_holds_no_scopes(gateway: Gateway) -> None:
    async with connect_peer(gateway, client_id="cli", mode="probe", scopes=["operator.read"], min_protocol=3) as peer:
        assert peer.hello["auth"]["scopes"] == []
        assert (await peer.request("health"))["ok"]
        with pytest.raises(CallFailed, match=r"missing scope: operator\.read"):
            await peer.request("status")


async def test_headers_outside_ascii_are_read_past_or_refused_with_400(gateway: Gateway) -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
    )
    for extra, status in ((b"User-Agent: caf\xe9\r\n", b"101"), (b"Sec-WebSocket-Protocol: caf\xe9\r\n", b"400")):
        async with open_memory_stream(gateway) as stream:
            await stream.send_all(head % extra)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)


# --- the JSON-RPC dialect: C15


async def _rpc_peer(stream: Any, path: str) -> ScriptedPeer:
    peer = ScriptedPeer(stream)
    assert (await peer.upgrade(path)).status_code == 101
    await peer.expect_event("connect.challenge")
    return peer


async def test_s050_s057_json_rpc_with_a_token_in_the_query(gateway: Gateway) -> None:
    async with open_memory_stream(gateway) as stream:
        peer = await _rpc_peer(stream, f"/?token={TOKEN}")
        await peer.send({"method": "last-heartbeat", "params": {}})
        assert await peer.receive() == {"jsonrpc": "2.0", "id": None, "result": None}
        await peer.send({"jsonrpc": "2.0", "id": 7, "method": "node.list"})
        reply = await peer.receive()
        assert (reply["id"], reply["result"]["nodes"]) == (7, [])
        await peer.send({"jsonrpc": "2.0", "method": "last-heartbeat"})  # a notification: no answer
        await peer.send(
            [
                {"jsonrpc": "2.0", "id": "a", "method": "last-heartbeat"},
                {"jsonrpc": "2.0", "method": "last-heartbeat"},
                {"jsonrpc": "2.0", "id": "b", "method": "nope"},
                17,
            ]
        )
        batch = await peer.receive()
        assert [item["id"] for item in batch] == ["a", "b", None]
        assert [item.get("error", {}).get("code") for item in batch] == [None, -32002, -32600]
        await peer.send("{not json")
        assert (await peer.receive())["error"]["code"] == -32700
        await peer.send({"jsonrpc": "2.0", "id": 1, "method": "node.list", "params": {"zzz": 1}})
        error = (await peer.receive())["error"]
        assert error["code"] == -32602
        assert error["message"] == "invalid node.list params: at root: unexpected property 'zzz'"


async def test_c15_json_rpc_connect_and_its_short_form(gateway: Gateway) -> None:
    for params in ({"token": TOKEN, "scopes": ["operator.admin"]}, None):
        async with open_memory_stream(gateway) as stream:
            peer = await _rpc_peer(stream, "/")
            given = params or connect_params(peer.challenge, token=TOKEN)
            await peer.send({"jsonrpc": "2.0", "id": 1, "method": "connect", "params": given})
            assert (await peer.receive())["result"]["auth"]["scopes"] == ["operator.admin"]
            await peer.send({"jsonrpc": "2.0", "id": 2, "method": "nope"})
            assert (await peer.receive())["error"]["code"] == -32601


async def test_c11_json_rpc_without_a_credential_is_refused(gateway: Gateway) -> None:
    async with open_memory_stream(gateway) as stream:
        peer = await _rpc_peer(stream, "/")
        await peer.send({"method": "health"})
        assert (await peer.receive())["error"]["data"]["code"] == "NOT_PAIRED"
        assert (await peer.wait_closed()).code == 1008


async def test_json_rpc_peers_hear_events_as_notifications(gateway: Gateway) -> None:
    async with open_memory_stream(gateway) as stream:
        peer = await _rpc_peer(stream, f"/?token={TOKEN}")
        await peer.send({"method": "last-heartbeat"})
        await peer.receive()
        gateway.events.publish_nowait("my.event", {"n": 1})
        assert await peer.receive() == {
            "jsonrpc": "2.0",
            "method": "event",
            "params": {"event": "my.event", "payload": {"n": 1}, "seq": 1},
        }


async def test_an_open_gateway_needs_no_secret() -> None:
    config = GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=None) as peer:
        assert peer.hello["auth"]["method"] == "none"


async def test_rule8_frames_parked_behind_a_connect_are_bounded_in_bytes_too(gateway: Gateway) -> None:
    async with open_memory_stream(gateway) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.expect_event("connect.challenge")
        await peer.start("connect", connect_params(peer.challenge, token="wrong-token-for-the-delay"))
        for _ in range(4):
            await peer.start("health", {"pad": "x" * 40_000})
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (1008, "too many pending handshake frames")


async def test_hello_names_what_there_is_now(gateway: Gateway) -> None:
    """The lists are encoded once and kept, until something is added or taken away."""

    async def named() -> tuple[list[str], list[str]]:
        async with connect_peer(gateway) as peer:
            features = peer.hello["features"]
            return features["methods"], features["events"]

    methods, events = await named()
    assert methods[0] == "connect"
    assert "later.method" not in methods
    assert "later.event" not in events
    gateway.rpc.method("later.method", scope="operator.read")(lambda context, params: None)
    gateway.events.declare(["later.event"])
    assert await named() == ([*methods, "later.method"], [*events, "later.event"])
    gateway.rpc.remove("later.method")
    assert await named() == (methods, [*events, "later.event"])
