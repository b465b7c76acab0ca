"""An admitted connection: calls, limits, the crash barrier, and the one exit path at every step."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from websockets.frames import Opcode

from openclaw_gateway import CallContext, CallError, CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, TransportsConfig, WebSocketConfig
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.server.calls import MAX_RUNNING, MAX_WRONG_ROLE
from openclaw_gateway.server.session import Session
from openclaw_gateway.server.wire import SocketWire, StreamWire, Wire
from openclaw_gateway.testing import PeerClosed, ScriptedPeer, connect_peer, open_memory_gateway

from .conftest import CONFIG, TOKEN


def _is_empty(gateway: Gateway) -> bool:
    core = gateway._core
    return (
        core.registry.live == ()
        and len(core.registry) == 0
        and len(core.registry.strangers) == 0
        and gateway._server.wires == {}
        and gateway.events._listeners == {}
        and [entry["mode"] for entry in gateway.presence.entries()] == ["gateway"]
    )


@attrs.frozen
class Echo:
    text: str = ""
    idempotency_key: str | None = None


# --- one exit path, whatever step is cut off


class _CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` once the tasks under ``root`` have made ``step`` steps: a cancellation at every checkpoint."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.scope: trio.CancelScope | None = None
        self.family: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self.family:
            self.family.add(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self.family and self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def _talk(peer: ScriptedPeer, seen: list[Any], *, device: DeviceIdentity | None) -> None:
    """A whole life: upgrade, connect, calls of every kind, an event, goodbye."""
    try:
        if (await peer.upgrade()).status_code != 101:
            return
        who: dict[str, Any] = {"role": "node", "mode": "node", "scopes": [], "device": device} if device else {}
        await peer.connect(token=TOKEN, **who)
        seen.append("hello")
        method = "test.node" if device else "test.later"
        await peer.request(method)
        await peer.start("test.stuck" if not device else "test.node.stuck")
        await peer.request(method)
        seen.append(await peer.close())
    except PeerClosed as closed:
        seen.append(closed)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        seen.append("broken")


async def _later(context: CallContext, params: Any) -> str:
    await trio.lowlevel.checkpoint()
    return "done"


async def _stuck(context: CallContext, params: Any) -> None:
    await trio.sleep_forever()


async def _pair(transport: str, port: int) -> tuple[trio.abc.Stream, Wire]:
    if transport == "memory":
        ours, theirs = memory_stream_pair()
        return ours, StreamWire(theirs, ("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await trio.open_tcp_stream(*server.getsockname())
        return stream, SocketWire(server.accept()[0], ("127.0.0.1", port))


@pytest.mark.parametrize("transport", ["memory", "tcp"])
@pytest.mark.parametrize("kind", ["operator", "node"])
async def test_rule9_cancelled_at_every_step_nothing_is_left_and_the_peer_is_told(
    gateway: Gateway, kind: str, transport: str
) -> None:
    gateway.rpc.method("test.later", scope="operator.read")(_later)
    gateway.rpc.method("test.stuck", scope="operator.read")(_stuck)
    gateway.rpc.method("test.node", role="node")(_later)
    gateway.rpc.method("test.node.stuck", role="node")(_stuck)
    # The device is paired before, so that no store thread makes the number of steps depend on time.
    device = DeviceIdentity.generate() if kind == "node" else None
    if device is not None:
        async with connect_peer(gateway, role="node", mode="node", scopes=[], device=device):
            pass
    endings: list[Any] = []
    after_hello: list[Any] = []
    step = 0
    while True:
        step += 1
        instrument = _CancelAtStep(step)
        ours, wire = await _pair(transport, step)
        seen: list[Any] = []

        async def serve(instrument: _CancelAtStep = instrument, wire: Wire = wire) -> None:
            with trio.CancelScope() as instrument.scope:
                instrument.family.add(trio.lowlevel.current_task())
                try:
                    await gateway._server.serve(wire)
                finally:
                    await trio.aclose_forcefully(wire)

        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await _talk(ScriptedPeer(ours), seen, device=device)
                await trio.aclose_forcefully(ours)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        assert _is_empty(gateway), step
        assert seen, step
        endings.append(seen[-1])
        if seen[0] == "hello":
            after_hello.append(seen[-1])
        if instrument.left > 0:
            break  # the whole life was shorter than this many steps: nothing is left to cut off
    assert step > 15  # a whole life; over TCP a receive may bring two frames, which saves a step
    assert isinstance(endings[-1], PeerClosed)
    assert endings[-1].code == 1005  # the last one lived to its own goodbye
    codes = [ending.code if isinstance(ending, PeerClosed) else ending for ending in after_hello]
    if transport == "memory":
        # Any stream but a socket cannot tell how much of a cut-off send arrived: it ends without a Close frame then.
        assert set(codes) == {1005, 1006, 1012}
    else:
        assert set(codes) == {1005, 1012}


async def test_s051_close_scope_ends_calls_presence_and_registry(gateway: Gateway) -> None:
    ended = trio.Event()

    async def handler(context: CallContext, params: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    gateway.rpc.method("test.node.stuck", role="node")(handler)
    async with connect_peer(gateway, role="node", mode="node", scopes=[], device=DeviceIdentity.generate()) as peer:
        await peer.start("test.node.stuck")
        await wait_all_tasks_blocked()
        [session] = gateway._core.registry
        assert len(gateway.presence.entries()) == 2
        session.scope.close(CloseCode.DEVICE_REMOVED, "device removed")
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (4001, "device removed")
        assert ended.is_set()
        assert _is_empty_but_wires(gateway)
    assert _is_empty(gateway)


def _is_empty_but_wires(gateway: Gateway) -> bool:
    return gateway._core.registry.live == () and gateway.events._listeners == {}


async def test_a_peer_that_vanishes_leaves_nothing(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        await trio.aclose_forcefully(peer.stream)
    assert _is_empty(gateway)


# --- the crash barrier


@pytest.mark.expect_error_log("handler failed")
@pytest.mark.parametrize("inline", [True, False])
async def test_rob1_a_handler_that_raises_costs_one_error_reply(gateway: Gateway, inline: bool) -> None:
    def boom(context: CallContext, params: Any) -> None:
        raise RuntimeError("secret detail")

    async def boom_later(context: CallContext, params: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret detail")

    gateway.rpc.method("test.boom", scope="operator.read")(boom if inline else boom_later)
    async with connect_peer(gateway) as peer:
        for _ in range(3):
            with pytest.raises(CallFailed, match="internal error") as failed:
                await peer.request("test.boom")
            assert "secret" not in str(failed.value)
            assert (failed.value.details or {})["code"] == "INTERNAL"
        assert (await peer.request("health"))["ok"]


@pytest.mark.expect_error_log("result cannot be encoded")
@pytest.mark.parametrize("inline", [True, False])
async def test_rob1_a_result_that_is_no_json_costs_one_error_reply(gateway: Gateway, inline: bool) -> None:
    def bad(context: CallContext, params: Any) -> Any:
        return {"x": object()}

    async def bad_later(context: CallContext, params: Any) -> Any:
        return {"x": object()}

    gateway.rpc.method("test.bad", scope="operator.read")(bad if inline else bad_later)
    async with connect_peer(gateway) as peer:
        with pytest.raises(CallFailed, match="internal error"):
            await peer.request("test.bad")
        assert (await peer.request("health"))["ok"]


@pytest.mark.expect_error_log("connection failed")
async def test_rob1_a_bug_in_the_reader_ends_that_connection_with_1011(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect_peer(gateway) as victim, connect_peer(gateway) as other:
        [session, _] = gateway._core.registry

        def bug(data: bytes) -> None:
            raise RuntimeError("a bug of ours")

        session._reader.on_message = bug
        await victim.send("{}")
        assert (await victim.wait_closed()).code == 1011
        assert (await other.request("health"))["ok"]


@pytest.mark.expect_error_log("admission failed")
async def test_rob1_a_bug_in_admission_ends_that_connection_with_1011(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(gateway.gatekeeper, "connect", bug)
    async with connect_peer(gateway, connect=False) as peer:
        await peer.start("connect", {})
        assert (await peer.wait_closed()).code == 1011
        assert len(gateway._core.registry) == 0


# --- limits


async def test_more_than_64_calls_in_flight_get_a_retryable_error(gateway: Gateway) -> None:
    gateway.rpc.method("test.stuck", scope="operator.read")(_stuck)
    async with connect_peer(gateway) as peer:
        for _ in range(MAX_RUNNING):
            await peer.start("test.stuck")
        with pytest.raises(CallFailed, match=r"too many calls in flight .* \(limit 64\)") as failed:
            await peer.request("test.stuck")
        assert failed.value.retryable
        assert (await peer.request("health"))["ok"]  # inline calls need no place


async def test_more_than_64_json_rpc_calls_in_flight_are_answered_too(gateway: Gateway) -> None:
    gateway.rpc.method("test.stuck", scope="operator.read")(_stuck)
    async with connect_peer(gateway, connect=False) as peer:
        await peer.send({"jsonrpc": "2.0", "id": 0, "method": "connect", "params": {"token": TOKEN}})
        await peer.receive()
        for index in range(MAX_RUNNING + 1):
            await peer.send({"jsonrpc": "2.0", "id": index, "method": "test.stuck"})
        reply = await peer.receive()
        assert (reply["id"], reply["error"]["code"]) == (MAX_RUNNING, -32000)
        await peer.send({"jsonrpc": "2.0", "method": "test.stuck"})  # a notification is never answered
        await peer.send([{"jsonrpc": "2.0", "id": 1, "method": "test.stuck"}])
        reply = await peer.receive()
        assert (reply["id"], reply["error"]["data"]["details"]["code"]) == (None, "TOO_MANY_CALLS")


async def test_more_than_10_calls_of_the_wrong_role_end_with_1008(gateway: Gateway) -> None:
    gateway.rpc.method("test.node", role="node")(_later)
    async with connect_peer(gateway) as peer:
        for _ in range(MAX_WRONG_ROLE):
            with pytest.raises(CallFailed, match="unauthorized role: operator"):
                await peer.request("test.node")
        assert (await peer.request("health"))["ok"]
        await peer.start("test.node")
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (1008, "repeated unauthorized calls")


async def test_a_deadline_ends_the_handler_and_is_told(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway:
        gateway.rpc.method("test.stuck", scope="operator.read", deadline=3.0)(_stuck)
        async with connect_peer(gateway) as peer:
            id_ = await peer.start("test.stuck")
            await wait_all_tasks_blocked()
            mock_clock.jump(3.1)
            error = (await peer.reply(id_))["error"]
            assert (error["code"], error["details"]["code"]) == ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            assert error["message"] == "test.stuck did not finish within 3 s"


async def test_invalid_frames_after_hello_are_answered_and_the_connection_stays(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        for sent, id_, fault in (
            ({"type": "req", "id": "a"}, "a", "at root: must have required property 'method'"),
            ({"type": "event"}, "invalid", "at /type: must be equal to constant"),
            ([1], "invalid", "must be an object"),
        ):
            await peer.send(sent)
            reply = await peer.receive()
            assert (reply["id"], reply["error"]["message"]) == (id_, f"invalid request frame: {fault}")
        await peer.send("{not json")  # silently ignored
        await peer.send_frame(Opcode.BINARY, b'{"type":"req","id":"bin","method":"last-heartbeat"}')
        assert await peer.receive() == {"type": "res", "id": "bin", "ok": True, "payload": None}


async def test_same_id_twice_in_flight_is_answered_twice(gateway: Gateway) -> None:
    gateway.rpc.method("test.later", scope="operator.read")(_later)
    async with connect_peer(gateway) as peer:
        for _ in range(2):
            await peer.send({"type": "req", "id": "same", "method": "test.later"})
        assert [(await peer.receive())["id"] for _ in range(2)] == ["same", "same"]


async def test_rule6_the_reader_goes_on_while_handlers_wait(gateway: Gateway) -> None:
    gateway.rpc.method("test.stuck", scope="operator.read")(_stuck)
    async with connect_peer(gateway) as peer:
        await peer.start("test.stuck")
        await peer.send_frame(Opcode.PING, b"now")
        frame = await peer.receive_frame()
        assert (frame.opcode, bytes(frame.data)) == (Opcode.PONG, b"now")


async def test_a_method_registered_later_can_be_called_and_a_removed_one_cannot(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        with pytest.raises(CallFailed, match=r"unknown method: test\.later"):
            await peer.request("test.later")
        gateway.rpc.method("test.later", scope="operator.read")(_later)
        assert await peer.request("test.later") == "done"
        gateway.rpc.remove("test.later")
        with pytest.raises(CallFailed, match="unknown method"):
            await peer.request("test.later")


async def test_a_call_error_raised_by_a_handler_is_its_answer(gateway: Gateway) -> None:
    async def refuse(context: CallContext, params: Any) -> None:
        raise CallError(wire_error("unknown-node", node="n1"))

    gateway.rpc.method("test.refuse", scope="operator.read")(refuse)
    async with connect_peer(gateway) as peer:
        with pytest.raises(CallFailed, match="unknown node: n1"):
            await peer.request("test.refuse")


async def test_handlers_see_who_calls(gateway: Gateway) -> None:
    seen: list[CallContext] = []
    gateway.rpc.method("test.who", scope="operator.read")(lambda context, params: seen.append(context))
    async with connect_peer(gateway, address="127.0.0.1", scopes=["operator.read"]) as peer:
        await peer.request("test.who")
        [context] = seen
        assert isinstance(context, Session)
        assert (context.role, context.scopes, context.client_id) == (
            "operator",
            frozenset({"operator.read"}),
            "gateway-client",
        )
        assert (context.principal, context.device_id, context.client_address) == ("token:operator", None, "127.0.0.1")
        assert context.connected_for >= 0


# --- slow consumers (WS-2, WS-3)


def _small_budget(budget: int) -> GatewayConfig:
    websocket = WebSocketConfig(max_buffered_bytes=budget)
    return GatewayConfig(
        port=0, auth=AuthConfig(type="token", token=TOKEN), transports=TransportsConfig(websocket=websocket)
    )


@pytest.fixture
def open_small() -> Callable[[int], Any]:
    from openclaw_gateway import open_gateway

    return lambda budget: open_gateway(_small_budget(budget), env={})


async def _dial(gateway: Gateway, *, receive_buffer: int | None = None) -> ScriptedPeer:
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", gateway.port))
    peer = ScriptedPeer(trio.SocketStream(sock))
    await peer.upgrade()
    await peer.connect(token=TOKEN)
    return peer


async def test_ws2_a_paused_reader_is_told_1008_and_others_do_not_wait(open_small: Callable[[int], Any]) -> None:
    async with open_small(1_000_000) as gateway:
        paused, other = await _dial(gateway, receive_buffer=4096), await _dial(gateway)
        slow, _ = gateway._core.registry
        slowest = 0.0
        payload = {"text": "x" * 50_000}
        for index in range(400):
            gateway.events.publish_nowait("big", {**payload, "n": index})
            began = trio.current_time()
            await other.request("health")
            other.events.clear()
            slowest = max(slowest, trio.current_time() - began)
            assert slow.writer.size <= 1_000_000
            if slow.scope.closing:
                break
        assert slow.scope.closing
        assert slowest < 1.0
        closed = await paused.wait_closed()
        assert (closed.code, closed.reason) == (1008, "slow consumer")
        await paused.stream.aclose()
        await other.stream.aclose()


async def test_ws2_ws3_droppable_events_go_first_and_numbers_have_no_gap(open_small: Callable[[int], Any]) -> None:
    async with open_small(1_000_000) as gateway:
        peer = await _dial(gateway, receive_buffer=4096)
        taken = 0
        for index in range(300):
            taken += gateway.events.publish_nowait("noise", {"n": index, "text": "x" * 20_000}, droppable=True)
        assert 0 < taken < 300
        assert gateway.events.publish_nowait("must", {"n": "kept"}) == 1
        await peer.expect_event("must")
        numbers = [event["seq"] for event in peer.events]
        assert numbers == list(range(1, taken + 1))
        await wait_all_tasks_blocked()
        assert gateway.events.publish_nowait("noise", {"n": "again"}, droppable=True) == 1
        last = await peer.receive()
        assert last["seq"] == taken + 2
        await peer.stream.aclose()


@pytest.mark.parametrize("answers", [True, False])
async def test_s046_s048_a_peer_that_answers_pings_stays_and_one_that_does_not_goes(
    answers: bool, mock_clock: MockClock
) -> None:
    websocket = WebSocketConfig(ping_interval_ms=100, ping_timeout_ms=100)
    config = attrs.evolve(CONFIG, transports=TransportsConfig(websocket=websocket))
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as peer:
        peer.answers = answers
        mock_clock.autojump_threshold = 0.02  # time passes only while everybody waits: a slow peer is no silent one
        pings = 0
        ended = None
        while pings < 5 and ended is None:
            try:
                pings += (await peer.receive_frame()).opcode is Opcode.PING
            except PeerClosed as closed:
                ended = closed.code
        assert (pings, ended) == ((5, None) if answers else (1, 1006))


async def test_ws3_events_for_one_peer_alone_have_no_number(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        [session] = gateway._core.registry
        gateway.events.publish_nowait("private", {"n": 1}, numbered=False, only=[session])
        gateway.events.publish_nowait("public", {"n": 2})
        first, second = await peer.receive(), await peer.receive()
        assert "seq" not in first
        assert second["seq"] == 1


async def test_c13_an_oversize_message_is_answered_with_its_id_then_1009() -> None:
    websocket = WebSocketConfig(max_message_size=100_000)
    config = attrs.evolve(CONFIG, transports=TransportsConfig(websocket=websocket))
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as peer:
        big = {"type": "req", "id": "too-big", "method": "health", "params": {"x": "y" * 100_000}}
        await peer.send(big)
        reply = await peer.reply("too-big")
        assert reply["error"]["details"]["code"] == "PAYLOAD_TOO_LARGE"
        assert (await peer.wait_closed()).code == 1009


# --- idempotency


async def test_idempotent_calls_run_once_for_a_key(gateway: Gateway) -> None:
    runs: list[str] = []
    release = trio.Event()

    async def send(context: CallContext, params: Echo) -> dict[str, Any]:
        runs.append(params.text)
        await release.wait()
        return {"run": len(runs)}

    gateway.rpc.method("agent.send", scope="operator.write", params=Echo, idempotent=True)(send)
    async with connect_peer(gateway) as peer, connect_peer(gateway) as twin:
        params = {"text": "hi", "idempotencyKey": "k1"}
        first, second = await peer.start("agent.send", params), await twin.start("agent.send", params)
        await wait_all_tasks_blocked()
        assert runs == ["hi"]
        release.set()
        assert (await peer.reply(first))["payload"] == (await twin.reply(second))["payload"] == {"run": 1}
        assert await peer.request("agent.send", params) == {"run": 1}
        with pytest.raises(CallFailed, match="used before with other parameters"):
            await peer.request("agent.send", {**params, "text": "other"})
        assert await peer.request("agent.send", {"text": "no key"}) == {"run": 2}


async def test_a_twin_of_a_call_cancelled_with_its_connection_is_told_to_retry(gateway: Gateway) -> None:
    runs = 0

    async def send(context: CallContext, params: Echo) -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            await trio.sleep_forever()
        return "second"

    gateway.rpc.method("agent.send", scope="operator.write", params=Echo, idempotent=True)(send)
    async with connect_peer(gateway) as twin:
        async with connect_peer(gateway) as first:
            await first.start("agent.send", {"idempotencyKey": "k"})
            await wait_all_tasks_blocked()
            waiting = await twin.start("agent.send", {"idempotencyKey": "k"})
            await wait_all_tasks_blocked()
        error = (await twin.reply(waiting))["error"]
        assert error["retryable"]
        assert await twin.request("agent.send", {"idempotencyKey": "k"}) == "second"


async def test_s029_a_declared_method_without_a_handler_says_how_to_register_one(gateway: Gateway) -> None:
    gateway.rpc.declare("my.method", scope="operator.write")
    async with connect_peer(gateway) as peer:
        with pytest.raises(CallFailed, match=r"gateway\.rpc\.method") as failed:
            await peer.request("my.method", {"text": "hi"})
        assert (failed.value.code, (failed.value.details or {})["code"]) == ("UNAVAILABLE", "NO_HANDLER")


async def test_life4_a_running_admission_does_not_outlive_its_connection(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, ended = trio.Event(), trio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr(gateway.gatekeeper, "connect", slow)
    async with connect_peer(gateway, connect=False) as peer:
        await peer.start("connect", {})
        await entered.wait()
    assert ended.is_set()
    assert _is_empty(gateway)


async def test_v52_frames_are_not_logged_even_at_debug(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for name in ("openclaw_gateway", "websockets"):
        caplog.set_level("DEBUG", logger=name)
    async with connect_peer(gateway) as peer:
        await peer.request("health")
    assert TOKEN not in caplog.text
    assert "connect" in caplog.text
