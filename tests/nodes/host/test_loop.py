"""The node against a gateway that does what the test says: approval, refusal, loss, removal, goodbye."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import WebSocketConnection

from openclaw_gateway.client import Credentials
from openclaw_gateway.nodes.host import loop, pace, session
from openclaw_gateway.nodes.host.commands import COMMANDS, make_handlers
from openclaw_gateway.nodes.host.errors import NodeRefused
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.nodes.host.loop import NodeSetup, run_node
from openclaw_gateway.nodes.host.status import NodeState, Report
from tests.scripted_gateway import ScriptedGateway, hello_ok, open_scripted_gateway, send

APPROVED = hello_ok(auth={"role": "node", "scopes": [], "method": "token", "deviceToken": "device-token-1"})
TAKEN = {
    "node.event": {"ok": True}, "node.runnerInventory.update": {}, "node.skills.update": {},
    "node.pluginTools.update": {}, "node.invoke.result": {"ok": True},
}  # fmt: skip


def pairing_required(request_id: str) -> dict[str, Any]:
    details = {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": request_id}
    return {"code": "NOT_PAIRED", "message": "pairing required: device is not approved yet", "details": details}


def refusal(detail: str) -> dict[str, Any]:
    return {"code": "INVALID_REQUEST", "message": f"refused: {detail}", "details": {"code": detail}}


@attrs.define
class Running:
    """A node under test and what it told."""

    stop: trio.Event = attrs.field(factory=trio.Event)
    done: trio.Event = attrs.field(factory=trio.Event)
    reports: list[Report] = attrs.field(factory=list)
    refused: NodeRefused | None = None
    _wake: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, report: Report) -> None:
        self.reports.append(report)
        self._wake.set()
        self._wake = trio.Event()

    async def until(self, state: NodeState, times: int = 1) -> Report:
        while [report.state for report in self.reports].count(state) < times:
            await self._wake.wait()
        return next(report for report in reversed(self.reports) if report.state == state)

    async def until_surface(self, surface: str) -> None:
        while not self.reports or self.reports[-1].surface != surface:
            await self._wake.wait()

    async def run(self, setup: NodeSetup) -> None:
        try:
            await run_node(setup, tell=self.tell, stop=self.stop)
        except NodeRefused as error:
            self.refused = error
        self.done.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds: these tests are about what follows a wait, not about its length."""
    monkeypatch.setattr(loop, "CONNECTING", pace.Pace(0.01, 0.02))
    monkeypatch.setattr(loop, "WAITING", pace.Pace(0.01, 0.02))


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path / "node")


@asynccontextmanager
async def open_node(gateway: ScriptedGateway, keeping: Keeping, **changes: Any) -> AsyncIterator[Running]:
    given: dict[str, Any] = {
        "url": gateway.url,
        "identity": keeping.identity(),
        "keeping": keeping,
        "handlers": make_handlers(keeping.directory),
        "display_name": "Test",
        "secret": Credentials(token="shared"),
    }
    setup = NodeSetup(**{**given, **changes})
    running = Running()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run, setup)
        yield running
        running.stop.set()
        await running.done.wait()


async def test_s097_it_says_who_it_is_and_what_it_offers(keeping: Keeping) -> None:
    async with open_scripted_gateway(ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)) as gateway:
        async with open_node(gateway, keeping, instance_id="mine") as node:
            await node.until("connected")
        (connect,) = gateway.connects
        assert (connect["role"], connect["scopes"]) == ("node", [])
        client = connect["client"]
        assert (client["id"], client["mode"], client["displayName"]) == ("node-host", "node", "Test")
        assert client["instanceId"] == "mine"
        assert connect["commands"] == list(COMMANDS)
        assert connect["device"]["id"] == keeping.identity().device_id
        assert node.reports[-1].state == "stopped"
        await gateway.gone.wait()
        assert [code for code, _ in gateway.closes] == [1000]


async def test_the_device_token_is_kept_and_comes_first_next_time(keeping: Keeping) -> None:
    async with open_scripted_gateway(ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)) as gateway:
        for _ in range(2):
            async with open_node(gateway, keeping) as node:
                await node.until("connected")
        assert [connect["auth"] for connect in gateway.connects] == [
            {"token": "shared"}, {"deviceToken": "device-token-1"},
        ]  # fmt: skip


async def test_s091_c23_it_waits_for_approval_and_says_how_to_give_it(keeping: Keeping) -> None:
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED, refusal=pairing_required("request-1"))
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        report = await node.until("waiting-for-approval", 2)
        assert report.request_id == "request-1"
        assert report.fix == "openclaw devices approve request-1"
        assert report.link == f"http://127.0.0.1:{gateway.port}/nodes/approve?request=request-1"
        assert report.device_id == keeping.identity().device_id
        gateway.refusal = None  # the operator approved
        await node.until("connected")


@pytest.mark.parametrize("detail", ["AUTH_TOKEN_MISMATCH", "DEVICE_AUTH_SIGNATURE_INVALID", "PROTOCOL_MISMATCH"])
async def test_refused_for_good_it_stops_with_the_reason(keeping: Keeping, detail: str) -> None:
    gateway = ScriptedGateway(refusal=refusal(detail))
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.done.wait()
        assert node.refused is not None
        assert (node.refused.code, node.refused.exit_code) == (detail, 78)
        assert node.reports[-1].state == "refused"
        assert len(gateway.connects) == 1


async def test_each_wrong_proof_is_shown_once_and_the_next_one_tried(keeping: Keeping) -> None:
    gateway = ScriptedGateway(refusal=refusal("AUTH_DEVICE_TOKEN_MISMATCH"))
    async with open_scripted_gateway(gateway):
        keeping.keep(gateway.url, "stale", None)
        secret = Credentials(token="shared", bootstrap_token="spent")
        async with open_node(gateway, keeping, secret=secret) as node:
            await node.done.wait()
            assert node.refused is not None
    assert [connect["auth"] for connect in gateway.connects] == [
        {"bootstrapToken": "spent"}, {"deviceToken": "stale"}, {"token": "shared"},
    ]  # fmt: skip


async def test_a_bootstrap_token_is_used_once(keeping: Keeping) -> None:
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)

    async def cut(websocket: WebSocketConnection) -> None:
        await websocket.aclose(1012, "service restart")

    gateway.after_hello = cut
    async with open_scripted_gateway(gateway):
        async with open_node(gateway, keeping, secret=Credentials(bootstrap_token="boot")) as node:
            await node.until("connected", 2)
        assert gateway.connects[0]["auth"] == {"bootstrapToken": "boot"}
        assert gateway.connects[1]["auth"] == {"deviceToken": "device-token-1"}


async def test_it_comes_back_after_every_kind_of_loss(keeping: Keeping) -> None:
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)
    codes = iter([1012, 4001, 1011, 1000])

    async def cut(websocket: WebSocketConnection) -> None:
        code = next(codes, None)
        if code is not None:
            await websocket.aclose(code, "bye")

    gateway.after_hello = cut
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until("connected", 5)
        reasons = [report.reason for report in node.reports if report.state == "connecting" and report.reason]
        assert any("removed from the gateway" in reason for reason in reasons)


async def test_it_waits_for_a_gateway_that_is_not_there_yet(keeping: Keeping) -> None:
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)
    async with open_scripted_gateway(gateway):
        pass  # only to have a port that nobody listens on
    async with open_node(gateway, keeping) as node:
        report = await node.until("connecting", 4)
        assert "nothing listens there" in (report.reason or "")
        async with open_scripted_gateway(gateway, gateway.port):
            await node.until("connected")


async def test_it_stops_at_once_while_a_gateway_keeps_silent(keeping: Keeping) -> None:
    gateway = ScriptedGateway(challenge=None)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        while not gateway.paths:
            await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        node.stop.set()
        await node.done.wait()
        assert trio.current_time() - began < 5  # the gateway's silence would last fifteen


async def test_a_gateway_that_knows_none_of_the_announcements_is_served_all_the_same(keeping: Keeping) -> None:
    async def ask(websocket: WebSocketConnection) -> None:
        request = {"id": "i1", "nodeId": keeping.identity().device_id, "command": "system.which"}
        payload = {**request, "paramsJSON": '{"bins":["sh"]}'}
        await send(websocket, type="event", event="node.invoke.request", payload=payload)

    gateway = ScriptedGateway(hello=APPROVED, after_hello=ask)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until("connected")
        while not {"node.invoke.result", "node.pluginTools.update"} <= {method for method, _ in gateway.requests}:
            await trio.testing.wait_all_tasks_blocked(0.01)
        methods = [method for method, _ in gateway.requests]
        assert methods.count("node.runnerInventory.update") == 1
        result = next(params for method, params in gateway.requests if method == "node.invoke.result")
        assert "sh" in json.loads(result["payloadJSON"])["bins"]


async def test_what_a_connection_asked_for_ends_with_it(keeping: Keeping, tmp_path: Path) -> None:
    """The gateway vanishes while a program runs: the program is killed before the node comes back."""
    started = trio.Event()
    ended = trio.Event()

    async def hang(invocation: Any, params: Any) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def ask(websocket: WebSocketConnection) -> None:
        request = {"id": "i1", "nodeId": keeping.identity().device_id, "command": "hang"}
        await send(websocket, type="event", event="node.invoke.request", payload=request)
        await started.wait()
        gateway.after_hello = None
        await websocket.aclose(1012, "service restart")

    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED, after_hello=ask)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping, handlers={"hang": hang}) as node:
        await node.until("connected", 2)
        assert ended.is_set()
        assert "node.invoke.result" not in [method for method, _ in gateway.requests]


async def test_it_tells_when_its_commands_wait_for_approval_and_when_not(keeping: Keeping) -> None:
    waiting = {"code": "UNAVAILABLE", "message": "node surface is awaiting operator approval", "retryable": True}
    gateway = ScriptedGateway(hello=APPROVED, answers={**TAKEN, "node.runnerInventory.update": RuntimeError(waiting)})
    decided = trio.Event()

    async def decide(websocket: WebSocketConnection) -> None:
        await decided.wait()
        payload = {"requestId": "r", "nodeId": keeping.identity().device_id, "decision": "approved", "ts": 1}
        await send(websocket, type="event", event="node.pair.resolved", payload=payload)

    gateway.after_hello = decide
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until_surface("pending")
        decided.set()
        await node.until_surface("approved")


async def test_it_tells_what_the_gateway_says_about_its_own_request_and_not_about_others(keeping: Keeping) -> None:
    decided = trio.Event()

    async def say(websocket: WebSocketConnection) -> None:
        me = keeping.identity().device_id
        other = {"requestId": "s", "nodeId": "0" * 64, "decision": "approved", "ts": 1}
        await send(websocket, type="event", event="node.pair.requested", payload={"requestId": "r", "nodeId": me})
        await send(websocket, type="event", event="node.pair.resolved", payload=other)
        await decided.wait()
        mine = {"requestId": "r", "nodeId": me, "decision": "approved", "ts": 1}
        await send(websocket, type="event", event="node.pair.resolved", payload=mine)

    gateway = ScriptedGateway(hello=APPROVED, answers=dict(TAKEN), after_hello=say)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until_surface("pending")
        decided.set()
        await node.until_surface("approved")
        assert [report.surface for report in node.reports].count("pending") == 1


@pytest.mark.expect_error_log("node connection failed")
async def test_a_fault_of_ours_costs_one_connection_and_not_the_node(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([ZeroDivisionError("ours")])

    async def serve(*args: Any, **options: Any) -> Any:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return await session.serve_connection(*args, **options)

    monkeypatch.setattr(loop, "serve_connection", serve)
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until("connected", 2)
        reasons = [report.reason for report in node.reports if report.state == "connecting"]
        assert "internal error: ZeroDivisionError" in reasons


async def test_a_full_disk_does_not_end_a_connection(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "keep", full)
    gateway = ScriptedGateway(answers=dict(TAKEN), hello=APPROVED)
    async with open_scripted_gateway(gateway), open_node(gateway, keeping) as node:
        await node.until("connected")
        assert [report.state for report in node.reports] == ["connecting", "connected"]
