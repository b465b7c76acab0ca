"""Sealed invokes at the node (S096, V30, V34): opened, judged like any other, never carried out twice, answered
sealed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.nodes.host import invocations
from openclaw_gateway.nodes.host.commands import make_handlers
from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import ExecPolicy, load_policy, policy_path, save_policy
from openclaw_gateway.nodes.host.invocations import NOT_READY, Handler, Invocation, Invocations
from openclaw_gateway.nodes.host.lookup import resolve_program, search_path
from openclaw_gateway.nodes.host.replays import MAX_LINES, MAX_MARKS, Replays
from openclaw_gateway.nodes.host.seals import Seals
from openclaw_gateway.nodes.sealing import SentRequest, open_reply, seal_request
from openclaw_gateway.ops.statickey import make_static_key
from openclaw_gateway.protocol.sealed import SKEW_MS, SealContext, SealFault
from tests.nodes.host.test_invocations import FakeGateway
from tests.nodes.test_sealing import raw

OPERATOR, STRANGER = DeviceIdentity.generate(), DeviceIdentity.generate()
SECRET = "the-word-that-no-gateway-may-read"
NOW = 1_800_000_000_000


@attrs.define
class Scene:
    """A node whose clock stands still, and the gateway between it and the operator."""

    gateway: FakeGateway
    node: Invocations
    nursery: trio.Nursery
    identity: DeviceIdentity
    seals: Seals
    key: Any
    numbers: int = 0
    now: int = NOW

    def seal(
        self, command: str, params: object, *, key: str = "k1", by: DeviceIdentity = OPERATOR, at: int = NOW
    ) -> SentRequest:
        context = SealContext(
            node_id=self.identity.device_id, command=command, key=key, issued_at_ms=at, expires_at_ms=at + 60_000,
            node_key=self.key.public,
        )  # fmt: skip
        return seal_request(by, context, params)

    async def relay(self, command: str, params: object, *, key: str | None = "k1") -> dict[str, Any]:
        """What a gateway sends on, under an invoke id of its own; the node's answer."""
        self.numbers += 1
        id_ = f"i{self.numbers}"
        asked = {
            "id": id_, "nodeId": self.identity.device_id, "command": command,
            "paramsJSON": json.dumps(params), "timeoutMs": 10_000, "idempotencyKey": key,
        }  # fmt: skip
        with trio.fail_after(5):
            self.node.take(self.nursery, asked)
            answer: dict[str, Any] = await self.gateway.result(id_)
        return answer

    async def refused(self, command: str, params: object, *, key: str | None = "k1") -> tuple[str, str]:
        answer = await self.relay(command, params, key=key)
        assert not answer["ok"], answer
        return answer["error"]["code"], answer["error"]["message"]

    async def exchange(self, command: str, params: object, **options: Any) -> dict[str, Any]:
        sent = self.seal(command, params, **options)
        answer = await self.relay(command, sent.envelope.to_wire(), key=sent.context.key)
        return self.opened(sent, answer)

    def opened(self, sent: SentRequest, answer: dict[str, Any]) -> dict[str, Any]:
        assert answer["ok"], answer
        found = open_reply(sent, json.loads(answer["payloadJSON"]), node_public_key=raw(self.identity))
        assert not isinstance(found, SealFault), found
        return found


async def echo(_: Invocation, params: dict[str, Any]) -> Any:
    return params


@asynccontextmanager
async def open_scene(folder: Path, handlers: dict[str, Handler] | None = None) -> AsyncIterator[Scene]:
    identity, key, gateway = DeviceIdentity.generate(), make_static_key(), FakeGateway()
    policy = policy_path(folder)
    scene: Scene
    seals = Seals(identity, key, Replays(folder / "sealed-seen"), lambda: load_policy(policy), clock=lambda: scene.now)
    table = {**make_handlers(folder), "echo": echo} if handlers is None else handlers
    async with trio.open_nursery() as nursery:
        node = Invocations(gateway, table, identity.device_id, seals)
        scene = Scene(gateway, node, nursery, identity, seals, key)
        yield scene
        nursery.cancel_scope.cancel()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_scene(tmp_path / "node") as scene:
        yield scene


def program(name: str) -> str:
    found = resolve_program(name, search_path())
    assert found is not None
    return str(found)


def allow(tmp_path: Path, **fields: Any) -> None:
    save_policy(policy_path(tmp_path / "node"), ExecPolicy(**fields))


async def test_s096_params_result_and_events_never_leave_readable(scene: Scene, tmp_path: Path) -> None:
    allow(tmp_path, programs=(program("echo"),))
    answer = await scene.exchange("system.run", {"command": ["echo", SECRET]})
    assert (answer["ok"], answer["payload"]["stdout"]) == (True, SECRET + "\n")
    said = json.dumps(scene.gateway.said)
    assert SECRET not in said
    assert "exec.finished" not in said  # an event would say what was run
    plain = await scene.relay("system.run", {"command": ["echo", SECRET]}, key="k2")
    assert plain["ok"]
    assert "exec.finished" in json.dumps(scene.gateway.said)  # unsealed it is told, as ever


async def test_s096_the_nodes_own_policy_still_decides_and_its_refusal_is_sealed(scene: Scene) -> None:
    sent = scene.seal("system.run", {"command": ["echo", SECRET]})
    answer = await scene.relay("system.run", sent.envelope.to_wire())
    told = scene.opened(sent, answer)
    assert (told["ok"], told["error"]["code"]) == (False, "SYSTEM_RUN_DENIED")
    assert "openclaw node allow" in told["error"]["message"]
    assert "echo" not in json.dumps(scene.gateway.said)


@pytest.mark.parametrize(
    "params",
    [{"command": ["id"], "approved": True}, {"a": {"b": [{"systemRunPlan": 1}]}}, {"x": {"runId": "forged"}}],
)
async def test_v30_reserved_fields_are_refused_inside_too(scene: Scene, params: object) -> None:
    answer = await scene.exchange("system.run", params)
    assert answer["error"]["code"] == "INVALID_REQUEST"
    assert "reserved" in answer["error"]["message"]


async def test_v30_the_run_id_is_the_gateways_own_also_of_a_sealed_run(scene: Scene) -> None:
    sent = scene.seal("echo", {"runId": "forged", "a": 1})
    told = scene.opened(sent, await scene.relay("echo", {**sent.envelope.to_wire(), "runId": "given"}))
    # What the gateway gave stands where the caller's stood; elsewhere a run id is no parameter at all.
    assert told["error"]["code"] == "INVALID_REQUEST"
    sent = scene.seal("echo", {"runId": "forged", "a": 1}, key="k2")
    told = scene.opened(sent, await scene.relay("echo", sent.envelope.to_wire(), key="k2"))
    assert told == {"ok": True, "payload": {"a": 1}}


async def test_s096_nothing_readable_stands_beside_what_is_sealed(scene: Scene) -> None:
    wire = scene.seal("echo", {"a": 1}).envelope.to_wire()
    code, message = await scene.refused("echo", {**wire, "a": 2})
    assert (code, "readable" in message) == ("SEALED_INVALID", True)


async def test_s096_a_gateway_can_swap_neither_command_nor_key_nor_node(scene: Scene, tmp_path: Path) -> None:
    wire = scene.seal("system.which", {"bins": ["sh"]}).envelope.to_wire()
    for command, key in (("system.run", "k1"), ("echo", "k1"), ("system.which", "k2")):
        code, message = await scene.refused(command, wire, key=key)
        assert code == "SEALED_INVALID"
        assert "sealed for another node, command, key or time" in message
    code, message = await scene.refused("system.which", wire, key=None)
    assert (code, "idempotencyKey" in message) == ("SEALED_INVALID", True)
    async with open_scene(tmp_path / "other") as other:
        assert (await other.refused("system.which", wire))[0] == "SEALED_KEY_UNKNOWN"
        lying = {"sealed": {**wire["sealed"], "keyId": other.seal("x", {}).envelope.key_id}}
        assert (await other.refused("system.which", lying))[0] == "SEALED_INVALID"
    assert (await scene.relay("system.which", wire))["ok"]  # none of that spent it


async def test_s096_a_gateway_cannot_stretch_a_requests_life(scene: Scene) -> None:
    wire = scene.seal("echo", {}).envelope.to_wire()["sealed"]
    longer = {"sealed": {**wire, "expiresAtMs": wire["expiresAtMs"] + 1}}
    assert (await scene.refused("echo", longer))[0] == "SEALED_INVALID"
    scene.now = NOW + 60_000 + SKEW_MS + 1
    code, message = await scene.refused("echo", {"sealed": wire})
    assert (code, "expired" in message) == ("SEALED_EXPIRED", True)
    scene.now = NOW - SKEW_MS - 1
    code, message = await scene.refused("echo", {"sealed": wire})
    assert (code, "clocks" in message) == ("SEALED_EXPIRED", True)


async def test_s096_a_request_is_carried_out_once_also_after_a_restart(tmp_path: Path) -> None:
    ran: list[object] = []

    async def count(_: Invocation, params: dict[str, Any]) -> Any:
        ran.append(params)
        return {}

    async with open_scene(tmp_path / "node", {"count": count}) as scene:
        wire = scene.seal("count", {"n": 1}).envelope.to_wire()
        assert (await scene.relay("count", wire))["ok"]
        code, message = await scene.refused("count", wire)
        assert (code, "came before" in message) == ("SEALED_REPLAYED", True)
        # Another box with the same key by the same operator is the same request.
        again = scene.seal("count", {"n": 2}).envelope.to_wire()
        assert (await scene.refused("count", again))[0] == "SEALED_REPLAYED"
        key, identity = scene.key, scene.identity
    async with trio.open_nursery() as nursery:
        seals = Seals(identity, key, Replays(tmp_path / "node" / "sealed-seen"), ExecPolicy, clock=lambda: NOW)
        gateway = FakeGateway()
        later = Scene(gateway, Invocations(gateway, {"count": count}, identity.device_id, seals), nursery, identity,
                      seals, key)  # fmt: skip
        assert (await later.refused("count", wire))[0] == "SEALED_REPLAYED"
        nursery.cancel_scope.cancel()
    assert ran == [{"n": 1}]


async def test_s096_two_copies_at_once_are_carried_out_once(tmp_path: Path) -> None:
    ran: list[object] = []

    async def count(_: Invocation, params: dict[str, Any]) -> Any:
        ran.append(params)
        return {}

    async with open_scene(tmp_path / "node", {"count": count}) as scene:
        wire = scene.seal("count", {}).envelope.to_wire()
        answers: list[dict[str, Any]] = []

        async def one() -> None:
            answers.append(await scene.relay("count", wire))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
    assert len(ran) == 1
    assert sum(answer["ok"] for answer in answers) == 1


async def test_s096_what_was_not_carried_out_for_want_of_room_may_come_again(tmp_path: Path) -> None:
    busy = True

    async def sometimes(_: Invocation, params: dict[str, Any]) -> Any:
        if busy:
            raise CommandFailed(NOT_READY, f"no room for {SECRET}")
        return params

    async with open_scene(tmp_path / "node", {"sometimes": sometimes}) as scene:
        sent = scene.seal("sometimes", {"a": 1})
        code, message = await scene.refused("sometimes", sent.envelope.to_wire())
        assert code == NOT_READY
        assert SECRET not in message
        busy = False
        answer = scene.opened(sent, await scene.relay("sometimes", sent.envelope.to_wire()))
        assert answer == {"ok": True, "payload": {"a": 1}}


async def test_s096_no_downgrade_of_a_command_that_must_come_sealed(scene: Scene, tmp_path: Path) -> None:
    allow(tmp_path, mode="allow", sealed_only=("system.run",), operators=(OPERATOR.device_id,))
    code, message = await scene.refused("system.run", {"command": ["echo", "x"]})
    assert (code, "nodes invoke --sealed" in message) == ("SEALED_REQUIRED", True)
    assert (await scene.relay("system.which", {"bins": ["sh"]}))["ok"]  # the others go on as before
    run = await scene.exchange("system.run", {"command": ["echo", "x"]})
    assert run["payload"]["stdout"] == "x\n"
    allow(tmp_path, mode="allow", sealed_only=("*",), operators=(OPERATOR.device_id,))
    assert (await scene.refused("system.which", {"bins": ["sh"]}))[0] == "SEALED_REQUIRED"


async def test_s096_a_gateway_with_a_key_of_its_own_is_no_operator(scene: Scene, tmp_path: Path) -> None:
    allow(tmp_path, mode="allow", sealed_only=("system.run",), operators=(OPERATOR.device_id,))
    wire = scene.seal("system.run", {"command": ["echo", "x"]}, by=STRANGER).envelope.to_wire()
    code, message = await scene.refused("system.run", wire)
    assert code == "SEALED_SENDER_DENIED"
    assert f"openclaw node allow --operator {STRANGER.device_id}" in message
    # Default-deny: a list that is empty (edited by hand) lets nobody in where sealing is required.
    allow(tmp_path, mode="allow", sealed_only=("system.run",))
    code, _ = await scene.refused("system.run", scene.seal("system.run", {}).envelope.to_wire())
    assert code == "SEALED_SENDER_DENIED"


async def test_s096_a_node_without_a_key_says_so(tmp_path: Path) -> None:
    async with open_scene(tmp_path / "node") as scene:
        gateway = FakeGateway()
        bare = Invocations(gateway, {"echo": echo}, scene.identity.device_id)
        scene.node, scene.gateway = bare, gateway
        code, _ = await scene.refused("echo", scene.seal("echo", {}).envelope.to_wire())
        assert code == "SEALED_UNSUPPORTED"


async def test_s096_a_result_over_the_cap_is_refused(tmp_path: Path) -> None:
    async def much(_: Invocation, params: dict[str, Any]) -> Any:
        return "x" * invocations.MAX_RESULT_BYTES

    async with open_scene(tmp_path / "node", {"much": much}) as scene:
        code, _ = await scene.refused("much", scene.seal("much", {}).envelope.to_wire())
        assert code == "RESULT_TOO_LARGE"


@pytest.mark.expect_error_log("sealed requests cannot be remembered")
async def test_s096_what_cannot_be_remembered_is_not_carried_out(tmp_path: Path) -> None:
    ran: list[object] = []

    async def count(_: Invocation, params: dict[str, Any]) -> Any:
        ran.append(params)

    async with open_scene(tmp_path / "node", {"count": count}) as scene:
        (tmp_path / "node").mkdir(mode=0o700)
        (tmp_path / "node" / "sealed-seen").write_text("not what a node writes\n")
        (tmp_path / "node" / "sealed-seen").chmod(0o600)
        code, _ = await scene.refused("count", scene.seal("count", {}).envelope.to_wire())
        assert (code, ran) == ("SEALED_BUSY", [])


# --- the memory of what came before


def mark(number: int) -> str:
    return f"{number:032x}"


def test_s096_marks_are_bounded_and_a_full_memory_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    replays = Replays(tmp_path / "sealed-seen")
    for number in range(MAX_MARKS):
        assert replays.take(mark(number), NOW + 1000 + number % 2 * 100, NOW) == "fresh"
    assert replays.take(mark(MAX_MARKS), NOW + 1000, NOW) == "full"
    assert replays.take(mark(5), NOW + 1000, NOW) == "seen"  # and forgets nothing early
    assert replays.take(mark(MAX_MARKS), NOW + 9000, NOW + 1050) == "fresh"  # those that are over made room
    assert len(replays) <= MAX_MARKS
    for number in range(2 * MAX_LINES):
        replays.release(mark(number % MAX_MARKS))
        replays.take(mark(number % MAX_MARKS), NOW + 9000, NOW + 1050)
    lines = (tmp_path / "sealed-seen").read_text().count("\n")
    assert lines <= MAX_LINES + 1


def test_s096_marks_survive_a_restart_a_torn_line_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "sealed-seen"
    replays = Replays(path)
    assert replays.take(mark(1), NOW + 1000, NOW) == "fresh"
    assert replays.take(mark(2), NOW + 1000, NOW) == "fresh"
    replays.release(mark(2))
    with path.open("a") as file:
        file.write(mark(3)[:20])  # cut off by a power failure: never flushed, never carried out
    later = Replays(path)
    assert later.take(mark(1), NOW + 1000, NOW) == "seen"
    assert later.take(mark(2), NOW + 1000, NOW) == "fresh"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert Replays(path).take(mark(1), NOW + 5000, NOW + 2000) == "fresh"  # it would be refused as expired
    path.write_text("zz\n")
    path.chmod(0o600)
    with pytest.raises(NodeError, match="not what this node wrote"):
        Replays(path).take(mark(9), NOW + 1000, NOW)


async def test_s096_a_mark_outlives_every_request_that_could_still_open(tmp_path: Path) -> None:
    path = tmp_path / "node" / "sealed-seen"
    async with open_scene(tmp_path / "node", {"echo": echo}) as scene:
        wire = scene.seal("echo", {}).envelope.to_wire()
        scene.now = NOW + 60_000 + SKEW_MS  # the last moment
        assert (await scene.relay("echo", wire))["ok"]
        assert (await scene.refused("echo", wire))[0] == "SEALED_REPLAYED"
        found = Replays(path).take(path.read_text()[:32], scene.now + 1, scene.now)
        assert found == "seen"


async def test_s096_a_clock_that_ran_ahead_and_is_set_back_makes_no_replay(tmp_path: Path) -> None:
    """The node starts with a wrong clock, forgets what seems to be over, and is then set right."""
    async with open_scene(tmp_path / "node", {"echo": echo}) as scene:
        sent = scene.seal("echo", {})
        wire = sent.envelope.to_wire()
        assert (await scene.relay("echo", wire))["ok"]
        for started_ahead in (True, False):
            replays = Replays(tmp_path / "node" / "sealed-seen")
            replays.take(mark(1), NOW + 5 * 3_600_000, NOW + (4 * 3_600_000 if started_ahead else 0))
            scene.seals._replays = replays  # a restart
            assert (await scene.refused("echo", wire))[0] == "SEALED_REPLAYED"
        # What is sealed later than anything that was forgotten is taken.
        again = scene.seal("echo", {}, key="k2", at=NOW + 1)
        assert (await scene.relay("echo", again.envelope.to_wire(), key="k2"))["ok"]


def test_s096_making_room_under_a_wrong_clock_makes_no_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    path = tmp_path / "sealed-seen"
    replays = Replays(path)
    for number in range(1, MAX_MARKS + 1):
        assert replays.take(mark(number), NOW + 1000, NOW) == "fresh"
    assert replays.take(mark(MAX_MARKS + 1), NOW + 9000, NOW + 5000) == "fresh"
    assert replays.take(mark(7), NOW + 1000, NOW) == "seen"
    assert Replays(path).take(mark(7), NOW + 1000, NOW) == "seen"
