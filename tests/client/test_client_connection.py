"""The client against a scripted gateway over real sockets: every stage, every way to end."""

import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import WebSocketConnection, serve_websocket

from openclaw_gateway.client import (
    CallFailed,
    CallTimedOut,
    ClientClosed,
    ConnectFailed,
    Credentials,
    DeviceIdentity,
    open_client,
)
from openclaw_gateway.client.connection import MAX_CALLS, MAX_EVENTS
from openclaw_gateway.errors import LocalProtocolError
from tests.scripted_gateway import NO_ANSWER, ScriptedGateway, hello_ok, open_scripted_gateway, send

TOKEN = Credentials(token="secret-token")


@asynccontextmanager
async def tcp_peer(handler: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# --- being let in ---------------------------------------------------------------------------------------------------


async def test_hello_and_call() -> None:
    async with open_scripted_gateway(ScriptedGateway({"health": {"ok": True}})) as gateway:
        async with open_client(gateway.url, auth=TOKEN, client_id="cli", mode="cli") as client:
            assert client.hello.protocol == 4
            assert client.hello.scopes == ("operator.read",)
            assert client.hello.methods == {"health"}
            assert await client.call("health") == {"ok": True}
        await gateway.gone.wait()
    (connect,) = gateway.connects
    assert connect["auth"] == {"token": "secret-token"}
    assert (connect["minProtocol"], connect["maxProtocol"]) == (4, 4)
    assert "device" not in connect
    assert gateway.requests == [("health", None)]  # no params: absent, as the official client has it
    assert gateway.closes == [(1000, None)]


async def test_a_probe_offers_the_older_protocol_too() -> None:
    async with open_scripted_gateway(ScriptedGateway()) as gateway, open_client(gateway.url, mode="probe"):
        pass
    assert gateway.connects[0]["minProtocol"] == 3
    assert "auth" not in gateway.connects[0]


async def test_auth7_the_challenge_time_is_signed() -> None:
    identity = DeviceIdentity.generate()
    async with (
        open_scripted_gateway(ScriptedGateway()) as gateway,
        open_client(gateway.url, auth=TOKEN, identity=identity),
    ):
        pass
    device = gateway.connects[0]["device"]
    assert device["signedAt"] == 1_700_000_000_000
    assert device["nonce"] == "nonce-1"
    assert device["id"] == identity.device_id


# --- every stage ----------------------------------------------------------------------------------------------------


async def failed(url: str, **options: Any) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        async with open_client(url, auth=TOKEN, **options):
            pytest.fail("connected")
    assert "secret-token" not in str(caught.value)
    assert "secret-token" not in repr(caught.value)
    return caught.value


async def test_obs1_stage_resolve() -> None:
    error = await failed("wss://no-such-host.invalid")
    assert error.stage == "resolve"


async def test_obs1_stage_tcp() -> None:
    error = await failed(f"ws://127.0.0.1:{free_port()}")
    assert error.stage == "tcp"
    assert "refused" in error.message
    assert error.fix == "openclaw gateway start"


async def test_obs1_stage_http() -> None:
    async with open_scripted_gateway(ScriptedGateway(reject_status=503)) as gateway:
        error = await failed(gateway.url)
    assert (error.stage, error.http_status, error.retryable) == ("http", 503, True)


async def test_v56_a_redirect_is_not_followed() -> None:
    async with open_scripted_gateway(ScriptedGateway()) as elsewhere:
        script = ScriptedGateway(reject_status=302, reject_headers=[(b"location", elsewhere.url.encode())])
        async with open_scripted_gateway(script) as gateway:
            error = await failed(gateway.url)
    assert (error.stage, error.http_status) == ("http", 302)
    assert elsewhere.paths == []


async def test_obs1_stage_websocket_when_something_else_listens() -> None:
    async def not_http(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"SSH-2.0-OpenSSH_9.9\r\n")
        await stream.aclose()

    async with tcp_peer(not_http) as url:
        error = await failed(url)
    assert error.stage == "websocket"


async def test_obs1_stage_websocket_when_it_is_no_gateway() -> None:
    async with open_scripted_gateway(ScriptedGateway(challenge={"hello": 1})) as gateway:
        error = await failed(gateway.url)
    assert error.stage == "websocket"
    assert "nonce" in error.message


async def test_silence_before_the_upgrade_ends_at_the_timeout(mock_clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        mock_clock.jump(16)
        await trio.sleep_forever()

    async with tcp_peer(silent) as url:
        error = await failed(url)
    assert error.stage == "websocket"
    assert "15 s" in error.message


async def test_silence_after_the_upgrade_ends_at_the_timeout(mock_clock: trio.testing.MockClock) -> None:
    async with open_scripted_gateway(ScriptedGateway(challenge=None)) as gateway, trio.open_nursery() as nursery:

        async def late() -> None:
            while not gateway.paths:
                await trio.lowlevel.checkpoint()
            mock_clock.jump(16)

        nursery.start_soon(late)
        error = await failed(gateway.url)
    assert error.stage == "websocket"


@pytest.mark.parametrize(
    ("details", "stage", "fix"),
    [
        ({"code": "AUTH_TOKEN_MISMATCH"}, "auth", "openclaw doctor"),
        ({"code": "AUTH_TOKEN_MISSING"}, "auth", "--token"),
        ({"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "req-7"}, "auth", "approve req-7"),
        ({"code": "PAIRING_REQUIRED", "reason": "scope-upgrade", "requestId": "req-8"}, "scope", "approve req-8"),
        ({"code": "AUTH_SCOPE_MISMATCH"}, "scope", "approve"),
        ({"code": "PROTOCOL_MISMATCH"}, "websocket", "update"),
        ({"code": "AUTH_TOKEN_MISMATCH", "hint": "the gateway's own words"}, "auth", "the gateway's own words"),
    ],
)
async def test_auth2_a_refusal_says_stage_and_fix(details: dict[str, str], stage: str, fix: str) -> None:
    refusal = {"code": "INVALID_REQUEST", "message": "unauthorized: no", "details": details}
    script = ScriptedGateway(refusal=refusal, close_reason="unauthorized: no")
    async with open_scripted_gateway(script) as gateway:
        error = await failed(gateway.url)
    assert error.stage == stage
    assert fix in str(error.fix)
    assert error.details == details
    assert (error.close_code, error.close_reason) == (1008, "unauthorized: no")


async def test_a_starting_gateway_is_retryable() -> None:
    refusal = {"code": "UNAVAILABLE", "message": "gateway starting", "retryable": True, "retryAfterMs": 500}
    async with open_scripted_gateway(ScriptedGateway(refusal=refusal, close_code=1013)) as gateway:
        error = await failed(gateway.url)
    assert (error.stage, error.retryable, error.retry_after_ms, error.close_code) == ("websocket", True, 500, 1013)


async def test_v56_credentials_go_nowhere_on_an_address_error() -> None:
    error = await failed("ws://gw.example.org:18789")
    assert error.stage == "address"


# --- TLS ------------------------------------------------------------------------------------------------------------


async def test_tls_by_authority_by_pin_and_refused() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    import hashlib

    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    pin = hashlib.sha256(der).hexdigest()
    script = ScriptedGateway()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, script.handle, "127.0.0.1", 0, server_side)
        url = f"wss://127.0.0.1:{server.port}"
        async with open_client(url, auth=TOKEN, ssl_context=trusting) as client:
            assert client.hello.protocol == 4
        colons = ":".join(pin[i : i + 2] for i in range(0, 64, 2)).upper()
        async with open_client(url, auth=TOKEN, tls_fingerprint=f"sha256:{colons}") as client:
            assert client.hello.protocol == 4
        before = len(script.paths)
        assert (await failed(url)).stage == "tls"
        wrong = await failed(url, tls_fingerprint="00" * 32)
        assert wrong.stage == "tls"
        assert pin in str(wrong.fix)
        assert len(script.paths) == before  # nothing was sent to a peer that did not prove itself
        nursery.cancel_scope.cancel()


# --- calls ----------------------------------------------------------------------------------------------------------


async def test_a_failed_call_carries_the_error() -> None:
    fault = {
        "code": "FORBIDDEN", "message": "missing scope: operator.write", "details": {"code": "MISSING_SCOPE"},
        "retryable": False, "retryAfterMs": 5,
    }  # fmt: skip
    async with (
        open_scripted_gateway(ScriptedGateway({"agent.send": Exception(fault)})) as gateway,
        open_client(gateway.url) as client,
    ):
        with pytest.raises(CallFailed) as caught:
            await client.call("agent.send", {"text": "hi"})
    assert caught.value.code == "FORBIDDEN"
    assert caught.value.details == {"code": "MISSING_SCOPE"}
    assert caught.value.retry_after_ms == 5


async def test_answers_out_of_order_find_their_calls() -> None:
    async with open_scripted_gateway(ScriptedGateway({"echo": lambda params: params})) as gateway:
        results: dict[int, Any] = {}
        async with open_client(gateway.url) as client, trio.open_nursery() as nursery:

            async def one(number: int) -> None:
                results[number] = await client.call("echo", {"n": number})

            for number in range(200):
                nursery.start_soon(one, number)
        assert results == {number: {"n": number} for number in range(200)}


async def test_a_call_times_out_and_the_connection_stays() -> None:
    script = ScriptedGateway({"slow": NO_ANSWER, "health": {"ok": True}})
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        with pytest.raises(CallTimedOut):
            await client.call("slow", timeout=0.05)
        assert await client.call("health") == {"ok": True}
        assert client._pending == {}


async def test_a_cancelled_call_leaves_nothing_and_the_connection_stays() -> None:
    script = ScriptedGateway({"slow": NO_ANSWER, "health": {"ok": True}})
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, "slow")
                await trio.testing.wait_all_tasks_blocked()
                assert len(client._pending) == 1
                scope.cancel()
        assert scope.cancelled_caught
        assert client._pending == {}
        assert await client.call("health") == {"ok": True}


async def test_cap_calls_that_wait() -> None:
    async with (
        open_scripted_gateway(ScriptedGateway({"slow": NO_ANSWER})) as gateway,
        open_client(gateway.url) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(MAX_CALLS):
            nursery.start_soon(client.call, "slow")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LocalProtocolError):
            await client.call("slow")
        nursery.cancel_scope.cancel()


async def test_a_close_ends_every_waiting_call() -> None:
    async def close_soon(websocket: WebSocketConnection) -> None:
        await websocket.aclose(1012, "service restart")

    script = ScriptedGateway({"slow": NO_ANSWER}, after_hello=close_soon)
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        with pytest.raises(ClientClosed) as caught:
            await client.call("slow")
        assert (caught.value.code, caught.value.reason, caught.value.by_us) == (1012, "service restart", False)
        with pytest.raises(ClientClosed):
            await client.call("health")
        assert (await client.wait_closed()).code == 1012


async def test_a_gateway_that_talks_nonsense_is_left_with_1002() -> None:
    async def nonsense(websocket: WebSocketConnection) -> None:
        await websocket.send_message("[not a frame")
        await trio.sleep_forever()

    script = ScriptedGateway(after_hello=nonsense)
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        assert (await client.wait_closed()).code == 1002
        await gateway.gone.wait()
    assert gateway.closes[0][0] == 1002


async def test_what_the_block_raises_comes_out_as_itself() -> None:
    async with open_scripted_gateway(ScriptedGateway()) as gateway:
        with pytest.raises(ZeroDivisionError):
            async with open_client(gateway.url):
                raise ZeroDivisionError
        await gateway.gone.wait()


async def test_an_outer_cancellation_still_says_goodbye() -> None:
    async with open_scripted_gateway(ScriptedGateway()) as gateway:
        with trio.CancelScope() as scope:
            async with open_client(gateway.url):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await gateway.gone.wait()
    assert gateway.closes[0][0] == 1000


# --- events and silence ---------------------------------------------------------------------------------------------


async def test_events_in_order_with_gaps_counted() -> None:
    async def tell(websocket: WebSocketConnection) -> None:
        for seq in (1, 2, 5):
            await send(websocket, type="event", event="presence", payload={"n": seq}, seq=seq)
        await send(websocket, type="event", event="node.invoke.request", payload={})
        await websocket.aclose(1001, "bye")

    async with open_scripted_gateway(ScriptedGateway(after_hello=tell)) as gateway, open_client(gateway.url) as client:
        seen = []

        async def collect() -> None:
            async for event in client.events():
                seen.append((event.name, event.seq, event.gap))  # noqa: PERF401  the loop ends by an exception

        with pytest.raises(ClientClosed) as caught:
            await collect()
        assert caught.value.code == 1001
    assert seen == [("presence", 1, 0), ("presence", 2, 0), ("presence", 5, 2), ("node.invoke.request", None, 0)]


async def test_cap_events_that_nobody_takes() -> None:
    sent = MAX_EVENTS + 500

    async def flood(websocket: WebSocketConnection) -> None:
        for seq in range(1, sent + 1):
            await send(websocket, type="event", event="x", payload=seq, seq=seq)
        await websocket.aclose(1001, "done")

    async with open_scripted_gateway(ScriptedGateway(after_hello=flood)) as gateway, open_client(gateway.url) as client:
        await client.wait_closed()
        assert len(client._events) == MAX_EVENTS
        first = client._events[0]
        assert (first.seq, first.gap) == (501, 500)


async def test_silence_for_two_ticks_closes_with_4000() -> None:
    script = ScriptedGateway(hello=hello_ok(policy={"tickIntervalMs": 1000}))
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        started = trio.current_time()
        why = await client.wait_closed()
        assert trio.current_time() - started > 0.5
        assert (why.code, why.reason) == (4000, "tick timeout")
        await gateway.gone.wait()
    assert gateway.closes == [(4000, "tick timeout")]


async def test_ticks_keep_it_alive(mock_clock: trio.testing.MockClock) -> None:
    """Time passes only while everybody waits, so that a slow machine is no silence."""
    mock_clock.autojump_threshold = 0.02
    script = ScriptedGateway({"health": 1}, hello=hello_ok(policy={"tickIntervalMs": 400}))

    async def tick(websocket: WebSocketConnection) -> None:
        for seq in range(1, 6):
            await trio.sleep(0.25)
            await send(websocket, type="event", event="tick", payload={"ts": 1}, seq=seq)
        await websocket.aclose(1001, "enough")

    script.after_hello = tick
    async with open_scripted_gateway(script) as gateway, open_client(gateway.url) as client:
        assert (await client.wait_closed()).code == 1001
