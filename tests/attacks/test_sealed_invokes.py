"""S096: a gateway that lies between an operator and a node that seal. The node and the operator's client are the real
ones; the gateway is a script that swaps, replays, cuts, forges and drops.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.nodekeys import NodeKeyRefused, NodeKeys
from openclaw_gateway.client.sealed import SealedAnswerRefused, believed_key, invoke_sealed
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.nodes.host.invocations import Invocations
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.nodes.host.seals import open_seals, static_key_of
from openclaw_gateway.nodes.sealing import open_request, seal_reply
from openclaw_gateway.ops.statickey import make_static_key
from openclaw_gateway.protocol.keystatement import make_key_statement
from openclaw_gateway.protocol.sealed import CAPABILITY, SealContext, SealFault, read_request
from tests.nodes.host.test_invocations import FakeGateway

SECRET = "the-word-that-no-gateway-may-read"
Json = dict[str, Any]


def statement(identity: DeviceIdentity, key: bytes, device_id: str | None = None) -> Json:
    made = make_key_statement(
        lambda payload: base64.urlsafe_b64decode(identity.sign(payload) + "=="),
        public_key=base64.urlsafe_b64decode(identity.public_key + "="), key=key, subject="node", created_at_ms=1,
    ).to_wire()  # fmt: skip
    return made if device_id is None else {**made, "deviceId": device_id}


@attrs.define
class Liar:
    """A gateway between the two. ``ask`` changes what goes to the node, ``answer`` what comes back."""

    node: Invocations
    link: FakeGateway
    nursery: trio.Nursery
    row: Json
    ask: Callable[[Json], Json] = attrs.field(default=lambda asked: asked)
    answer: Callable[[Any], Any] = attrs.field(default=lambda payload: payload)
    asked: list[Json] = attrs.field(factory=list)
    answered: list[Any] = attrs.field(factory=list)

    async def call(self, method: str, params: Any = None, *, timeout: float | None = 30.0) -> Any:
        assert method == "node.invoke"
        self.asked.append(json.loads(json.dumps(params)))
        given = self.ask(copy.deepcopy(self.asked[-1]))
        request = {
            "id": f"i{len(self.asked)}", "nodeId": self.row["nodeId"], "command": given["command"],
            "paramsJSON": json.dumps(given["params"]), "timeoutMs": given["timeoutMs"],
            "idempotencyKey": given["idempotencyKey"],
        }  # fmt: skip
        self.node.take(self.nursery, request)
        result = await self.link.result(request["id"])
        if not result["ok"]:
            error = result["error"]
            raise CallFailed(code="UNAVAILABLE", message=f"{error['code']}: {error['message']}")
        payload = json.loads(result["payloadJSON"])
        self.answered.append(payload)
        return {"ok": True, "nodeId": self.row["nodeId"], "command": params["command"], "payload": self.answer(payload)}


@attrs.define
class Scene:
    liar: Liar
    identity: DeviceIdentity
    keys: NodeKeys
    ran: list[Json]
    node: DeviceIdentity
    keeping: Keeping

    async def invoke(self, command: str = "echo", params: object = None, **options: Any) -> Json:
        with trio.fail_after(5):
            return await invoke_sealed(
                self.liar, self.liar.row, command, {"word": SECRET} if params is None else params,
                identity=self.identity, keys=self.keys, **options,
            )  # fmt: skip


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    keeping = Keeping(tmp_path / "node")
    node, link = keeping.identity(), FakeGateway()
    ran: list[Json] = []

    async def echo(_: object, params: Json) -> Json:
        ran.append(params)
        return {"heard": params}

    row = {
        "nodeId": node.device_id, "caps": ["system", CAPABILITY], "displayName": "Desk",
        "keyStatement": statement(node, static_key_of(keeping).public),
    }  # fmt: skip
    async with trio.open_nursery() as nursery:
        seals = open_seals(keeping)
        invocations = Invocations(link, {"echo": echo, "other": echo}, node.device_id, seals)
        liar = Liar(invocations, link, nursery, row)
        yield Scene(liar, DeviceIdentity.generate(), NodeKeys(tmp_path / "operator"), ran, node, keeping)
        nursery.cancel_scope.cancel()


async def test_s096_an_honest_gateway_carries_what_it_cannot_read(scene: Scene) -> None:
    answer = await scene.invoke()
    assert answer["payload"] == {"heard": {"word": SECRET}}
    passed = json.dumps([scene.liar.asked, scene.liar.answered, scene.liar.link.said])
    assert SECRET not in passed
    assert scene.identity.device_id not in passed  # nor who asks
    assert scene.liar.asked[0]["command"] == "echo"  # what it enforces


@pytest.mark.parametrize("member", ["command", "idempotencyKey"])
async def test_s096_swapped_names_are_refused(scene: Scene, member: str) -> None:
    scene.liar.ask = lambda asked: {**asked, member: "other"}
    with pytest.raises(CallFailed, match="SEALED_INVALID: it does not open: it was sealed for another node, command"):
        await scene.invoke()
    assert scene.ran == []


async def test_s096_a_request_for_another_node_is_refused(scene: Scene, tmp_path: Path) -> None:
    elsewhere = Keeping(tmp_path / "elsewhere")
    link = FakeGateway()
    there = Invocations(link, {"echo": lambda *_: None}, elsewhere.identity().device_id, open_seals(elsewhere))  # type: ignore[dict-item]
    liar = attrs.evolve(scene.liar, node=there, link=link)
    scene.liar = liar
    target = elsewhere.identity().device_id

    async def call(method: str, params: Any = None, *, timeout: float | None = 30.0) -> Any:
        request = {
            "id": "x", "nodeId": target, "command": params["command"], "paramsJSON": json.dumps(params["params"]),
            "timeoutMs": 1000, "idempotencyKey": params["idempotencyKey"],
        }  # fmt: skip
        there.take(liar.nursery, request)
        error = (await link.result("x"))["error"]
        raise CallFailed(code="UNAVAILABLE", message=f"{error['code']}: {error['message']}")

    class Router:
        async def call(self, *args: Any, **options: Any) -> Any:
            return await call(*args, **options)

    with pytest.raises(CallFailed, match="SEALED_KEY_UNKNOWN: it was sealed to a key that is not this node's"):
        await invoke_sealed(Router(), liar.row, "echo", {}, identity=scene.identity, keys=scene.keys)


async def test_s096_a_replay_is_refused_and_runs_nothing(scene: Scene) -> None:
    await scene.invoke()
    first = scene.liar.asked[0]
    with pytest.raises(CallFailed, match="SEALED_REPLAYED: this very request came before"):
        await scene.liar.call("node.invoke", first)
    scene.liar.ask = lambda asked: first
    with pytest.raises(CallFailed, match="SEALED_REPLAYED"):
        await scene.invoke()
    assert len(scene.ran) == 1


@pytest.mark.parametrize("cut", [4, 100, 1000])
async def test_s096_a_truncated_request_is_refused(scene: Scene, cut: int) -> None:
    def shorten(asked: Json) -> Json:
        asked["params"]["sealed"]["box"] = asked["params"]["sealed"]["box"][:-cut]
        return asked

    scene.liar.ask = shorten
    with pytest.raises(CallFailed, match="SEALED_INVALID"):
        await scene.invoke()
    assert scene.ran == []


async def test_s096_a_substituted_key_is_refused_before_anything_is_sent(scene: Scene) -> None:
    await scene.invoke()
    honest = dict(scene.liar.row)
    own, identity = make_static_key(), DeviceIdentity.generate()
    node_id = scene.node.device_id
    for lie in (
        statement(identity, own.public),  # signed by the gateway's own identity
        statement(identity, own.public, device_id=node_id),  # and with the node's id written over it
        {**honest["keyStatement"], "key": statement(identity, own.public)["key"]},  # the node's words, another key
        {**honest["keyStatement"], "subject": "gateway"},
        None,
    ):
        scene.liar.row = {**honest, "keyStatement": lie}
        with pytest.raises(NodeKeyRefused, match="no key that can be believed"):
            await scene.invoke()
    scene.liar.row = {**honest, "keyStatement": statement(scene.node, own.public)}  # signed, and not the pinned one
    with pytest.raises(NodeKeyRefused, match="is not the one it had") as refused:
        await scene.invoke()
    assert "openclaw nodes trust --node" in refused.value.fix
    assert len(scene.liar.asked) == 1


async def test_s096_a_node_of_the_gateways_own_under_a_known_name_is_refused(scene: Scene) -> None:
    await scene.invoke(name="Desk")
    impostor = DeviceIdentity.generate()
    scene.liar.row = {
        **scene.liar.row, "nodeId": impostor.device_id, "keyStatement": statement(impostor, make_static_key().public)
    }  # fmt: skip
    with pytest.raises(NodeKeyRefused, match="Desk was node"):
        await scene.invoke(name="Desk")
    assert len(scene.liar.asked) == 1


async def test_s096_a_dropped_capability_does_not_make_it_go_readable(scene: Scene) -> None:
    scene.liar.row = {**scene.liar.row, "caps": ["system"]}
    with pytest.raises(NodeKeyRefused, match="nothing was sent"):
        await scene.invoke()
    assert scene.liar.asked == []


async def test_s096_an_unsealed_request_in_its_place_is_refused_where_sealing_is_required(scene: Scene) -> None:
    policy = scene.keeping.directory / "exec-policy.json5"
    policy.write_text(json.dumps({"sealedOnly": ["echo"], "operators": [scene.identity.device_id]}))
    policy.chmod(0o600)
    assert (await scene.invoke())["ok"]
    scene.liar.ask = lambda asked: {**asked, "params": {"word": "the gateway's own"}}
    with pytest.raises(CallFailed, match="SEALED_REQUIRED"):
        await scene.invoke()
    assert scene.ran == [{"word": SECRET}]


async def test_s096_a_gateways_own_operator_is_refused_where_operators_are_named(scene: Scene) -> None:
    policy = scene.keeping.directory / "exec-policy.json5"
    policy.write_text(json.dumps({"operators": [scene.identity.device_id]}))
    policy.chmod(0o600)
    mine = scene.identity
    scene.identity = DeviceIdentity.generate()
    with pytest.raises(CallFailed, match="SEALED_SENDER_DENIED"):
        await scene.invoke()
    scene.identity = mine
    assert (await scene.invoke())["ok"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda payload: {"heard": {"word": "something else"}},
        lambda payload: None,
        lambda payload: {"sealed": {**payload["sealed"], "box": payload["sealed"]["box"][:-4]}},
        lambda payload: {**payload, "heard": 1},
    ],
    ids=["readable", "none", "cut", "beside"],
)
async def test_s096_an_answer_of_the_gateways_own_is_refused(scene: Scene, lie: Callable[[Any], Any]) -> None:
    scene.liar.answer = lie
    with pytest.raises(SealedAnswerRefused, match="not this node's"):
        await scene.invoke()


async def test_s096_an_earlier_answer_is_not_a_later_ones(scene: Scene) -> None:
    await scene.invoke()
    old = scene.liar.answered[0]
    scene.liar.answer = lambda payload: old
    with pytest.raises(SealedAnswerRefused, match="answers another request"):
        await scene.invoke()


async def test_s096_an_answer_that_another_node_signed_is_refused(scene: Scene) -> None:
    """Even with the node's X25519 key in hand an answer needs the node's signature."""
    key = static_key_of(scene.keeping)

    def forge(payload: Any) -> Any:
        asked = scene.liar.asked[-1]
        envelope = read_request(asked["params"])
        assert not isinstance(envelope, SealFault)
        context = SealContext(
            node_id=scene.node.device_id, command="echo", key=asked["idempotencyKey"],
            issued_at_ms=envelope.issued_at_ms, expires_at_ms=envelope.expires_at_ms, node_key=key.public,
        )  # fmt: skip
        opened = open_request(key.private, context, envelope)
        assert not isinstance(opened, SealFault)
        return seal_reply(DeviceIdentity.generate(), opened, {"ok": True, "payload": "forged"})

    scene.liar.answer = forge
    with pytest.raises(SealedAnswerRefused, match="not the node that signed"):
        await scene.invoke()


async def test_s096_the_nodes_own_error_comes_sealed(scene: Scene) -> None:
    with pytest.raises(CallFailed, match="INVALID_REQUEST: /approved is reserved") as failed:
        await scene.invoke(params={"approved": True})
    assert (failed.value.details or {})["sealed"] is True
    assert "reserved" not in json.dumps(scene.liar.answered)


async def test_s096_the_gateways_own_error_does_not_pass_for_the_nodes(scene: Scene) -> None:
    """``details.sealed`` tells the node's word from the gateway's, so a gateway cannot write it."""

    class Forger:
        async def call(self, method: str, params: Any = None, *, timeout: float | None = 30.0) -> Any:
            raise CallFailed(
                code="UNAVAILABLE", message="SYSTEM_RUN_FAILED: gone", details={"sealed": True, "other": 1}
            )

    with pytest.raises(CallFailed) as failed:
        await invoke_sealed(Forger(), scene.liar.row, "echo", identity=scene.identity, keys=scene.keys)
    assert failed.value.details == {"other": 1}


async def test_s096_another_known_node_in_the_place_of_the_one_that_was_meant_is_refused(scene: Scene) -> None:
    await scene.invoke(name="Desk")
    other = DeviceIdentity.generate()
    mine = scene.liar.row
    theirs = {**mine, "nodeId": other.device_id, "keyStatement": statement(other, make_static_key().public)}
    scene.keys.pin(believed_key(theirs), "Shelf")
    scene.liar.row = {**theirs, "displayName": "Desk"}
    with pytest.raises(NodeKeyRefused, match="Desk was node"):
        await scene.invoke(name="Desk")
    assert len(scene.liar.asked) == 1
