"""S095, S096: whoever stands between a node and its gateway reads nothing, changes nothing, and takes nothing away."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import ConnectFailed, Credentials, DeviceIdentity, GatewayClient, open_client
from openclaw_gateway.client.errors import ClientClosed
from openclaw_gateway.client.handshake import Introduction, connect_params
from openclaw_gateway.client.secure import SecureChannelWish
from openclaw_gateway.config.schema import (
    AuthConfig,
    AutoApproveConfig,
    NodesConfig,
    PairingConfig,
    TransportsConfig,
    WebSocketConfig,
)
from openclaw_gateway.errors import CallFailed, LocalProtocolError
from openclaw_gateway.nodes.host import loop, pace
from openclaw_gateway.nodes.host.invocations import Handler, Invocation
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.nodes.host.loop import NodeSetup
from openclaw_gateway.nodes.host.setupcode import read_setup_code
from openclaw_gateway.ops.statickey import make_static_key
from openclaw_gateway.protocol.keystatement import KeyStatement, make_key_statement, verify_key_statement
from openclaw_gateway.protocol.noise import public_key
from openclaw_gateway.protocol.noisegreeting import ClientGreeting, ServerGreeting, bound_nonce
from tests.nodes.host.test_loop import Running
from tests.websocket.rawclient import BINARY, TEXT, frame

from .attacker import Attacker, Device, http
from .inbetween import Direction, InBetween, open_in_between

TOKEN = "the-token-that-nobody-may-see-0123456789"
ASKED = "what-was-asked-5f1c"
ANSWERED = "what-was-answered-77aa"
ADMIN = ("operator.admin", "operator.read", "operator.write", "operator.pairing")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CONNECTING", pace.Pace(0.01, 0.02))
    monkeypatch.setattr(loop, "WAITING", pace.Pace(0.01, 0.02))


@asynccontextmanager
async def gateway_at(state: Path | None = None, **config: Any) -> AsyncIterator[Gateway]:
    whole = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN), state_dir=state, **config)
    async with open_gateway(whole, env={}) as gateway:
        yield gateway


async def echo(_: Invocation, params: dict[str, Any]) -> Any:
    await trio.lowlevel.checkpoint()
    return {"bins": {ANSWERED: str(params.get("bins"))}, "size": "x" * int(params.get("size", 0))}


HANDLERS: dict[str, Handler] = {"system.which": echo}


def setup_of(keeping: Keeping, url: str, **changes: Any) -> NodeSetup:
    given: dict[str, Any] = {
        "url": url,
        "identity": keeping.identity(),
        "keeping": keeping,
        "handlers": HANDLERS,
        "display_name": "Between",
        "secret": Credentials(token=TOKEN),
    }
    return NodeSetup(**{**given, **changes})


@asynccontextmanager
async def node_at(keeping: Keeping, url: str, **changes: Any) -> AsyncIterator[Running]:
    running = Running()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run, setup_of(keeping, url, **changes))
        yield running
        running.stop.set()
        await running.done.wait()


@asynccontextmanager
async def operator_at(gateway: Gateway) -> AsyncIterator[GatewayClient]:
    async with open_client(gateway.urls[0], auth=Credentials(token=TOKEN), scopes=ADMIN) as client:
        yield client


async def approve_surface(operator: GatewayClient, node: Running) -> None:
    while True:
        pending = (await operator.call("node.pair.list"))["pending"]
        if pending:
            await operator.call("node.pair.approve", {"requestId": pending[0]["requestId"]})
            break
        await trio.sleep(0.01)
    await node.until_surface("approved")


def invoke(node_id: str, **params: Any) -> dict[str, Any]:
    given = {"bins": [ASKED], **params}
    return {"nodeId": node_id, "command": "system.which", "params": given, "idempotencyKey": os.urandom(8).hex()}


async def rows_of(gateway: Gateway, action: str) -> list[dict[str, Any]]:
    await gateway.audit.flush()
    return [row for row in await gateway.audit.recent(100) if row["action"] == action]


# --- what can be read


async def test_s096_who_listens_between_node_and_gateway_reads_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    node_id = keeping.identity().device_id
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire, operator_at(gateway) as operator:
        for _ in range(2):  # a first contact (XX), then the known gateway (IK) with the device token
            async with node_at(keeping, wire.url) as node:
                report = await node.until("connected")
                assert report.secure is True
                if not (await operator.call("node.describe", {"nodeId": node_id}))["commands"]:
                    await approve_surface(operator, node)
                answer = await operator.call("node.invoke", invoke(node_id, size=200_000))
                assert ANSWERED in answer["payload"]["bins"]
                assert len(answer["payload"]["size"]) == 200_000
        row = await operator.call("node.describe", {"nodeId": node_id})
    known = keeping.gateway(wire.url)
    assert known is not None
    seen = wire.everything()
    assert len(seen) > 400_000
    secrets = (TOKEN, known.device_token, ASKED, ANSWERED, node_id, keeping.identity().public_key, "Between")
    words = ("hello-ok", '"connect"', "node.invoke", "system.which", "node.event", "deviceToken", '"params"', "payload")
    for text in (*secrets, *words):
        assert text.encode() not in seen.replace(b'"type":"event","event":"connect.challenge","payload"', b""), text
    assert {opcode for way, opcode, _ in wire.seen if way == "up"} <= {BINARY, 8, 9, 10}
    first, *rest = wire.messages("down")
    assert json.loads(first)["event"] == "connect.challenge"
    assert len([message for message in rest if message[:1] == b"{"]) == 1  # the second connection's challenge
    statement = verify_key_statement(row["keyStatement"], device_id=node_id, subject="node")
    assert isinstance(statement, KeyStatement)
    assert statement.raw_key == keeping.static_key().public


@pytest.mark.skipif(shutil.which("tcpdump") is None or os.geteuid() != 0, reason="needs tcpdump and root")
@pytest.mark.parametrize("mode", ["on", "off"])
async def test_s096_a_capture_of_the_network_holds_no_plaintext(tmp_path: Path, mode: str) -> None:
    """With the channel off the same capture does hold it, so the test can fail. The operator asks through a channel,
    so that what shows is the node's."""
    keeping, capture = Keeping(tmp_path / "node"), tmp_path / "lo.pcap"
    node_id = keeping.identity().device_id
    wish = SecureChannelWish(key=make_static_key(), mode="required")
    async with (
        gateway_at() as gateway,
        open_client(
            gateway.urls[0],
            auth=Credentials(token=TOKEN),
            identity=DeviceIdentity.generate(),
            scopes=ADMIN,
            secure=wish,
        ) as operator,
    ):
        command = ["tcpdump", "-i", "lo", "-U", "-s", "0", "-w", str(capture), f"tcp port {gateway.port}"]
        tcpdump = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
        try:
            assert tcpdump.stderr is not None
            said = b""
            while b"listening on" not in said:
                said += await tcpdump.stderr.receive_some(4096)
            async with node_at(keeping, gateway.urls[0], secure_channel=mode) as node:
                await node.until("connected")
                await approve_surface(operator, node)
                answer = await operator.call("node.invoke", invoke(node_id))
                assert ANSWERED in answer["payload"]["bins"]
            known = keeping.gateway(gateway.urls[0])
            assert known is not None
            # What was captured is written in order: when this shows, all before it is there.
            await http(gateway.port, path="/the-end-of-the-capture")
            while b"/the-end-of-the-capture" not in capture.read_bytes():  # noqa: ASYNC110  another process writes it
                await trio.sleep(0.02)
        finally:
            tcpdump.terminate()
            await tcpdump.wait()
    data = capture.read_bytes()
    assert b"connect.challenge" in data
    for text in ("hello-ok", known.device_token, TOKEN, node_id, "system.which", ASKED, ANSWERED):
        assert holds(data, text) is (mode == "off"), text


def holds(data: bytes, text: str) -> bool:
    """Whether a capture holds ``text``, masked or not: a client's frames are, with four bytes over and over (RFC 6455
    section 5.3), so what remains is how each byte differs from the fourth after it."""
    return text.encode() in data or _differences(text.encode()) in _differences(data)


def _differences(data: bytes) -> bytes:
    size = len(data) - 4
    return (int.from_bytes(data[:size], "big") ^ int.from_bytes(data[4:], "big")).to_bytes(size, "big")


# --- what can be taken away


def without_offer(way: Direction, opcode: int, payload: bytes) -> bytes | None:
    if way == "down" and b"connect.challenge" in payload:
        frame_ = json.loads(payload)
        del frame_["payload"]["secureChannel"]
        return json.dumps(frame_).encode()
    return payload


async def test_s096_a_stripped_offer_is_noticed_by_a_node_that_knows_its_gateway(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        async with node_at(keeping, wire.url) as node:
            await node.until("connected")
        wire.meddle, wire.seen = without_offer, []
        async with node_at(keeping, wire.url) as node:
            report = await node.until("connecting", 3)
            assert "offers none now" in (report.reason or "")
            assert f"openclaw node forget {wire.url}" in (report.fix or "")
            assert wire.messages("up") == []  # not a word, and no secret
            wire.meddle = lambda way, opcode, payload: payload
            await node.until("connected")  # it comes back by itself when the man in the middle is gone


async def test_s096_a_stripped_offer_at_a_first_contact_is_refused_by_who_demands_the_channel(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        wire.meddle = without_offer
        async with node_at(keeping, wire.url, secure_channel="required") as node:
            report = await node.until("connecting", 2)
            assert "demands it" in (report.reason or "")
        assert wire.messages("up") == []


async def test_s096_a_stripped_offer_while_the_node_waits_for_approval_is_noticed(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    asking = PairingConfig(auto_approve=AutoApproveConfig(loopback=False))
    async with (
        gateway_at(pairing=asking) as gateway,
        open_in_between(gateway.port) as wire,
        node_at(keeping, wire.url) as node,
    ):
        await node.until("waiting-for-approval")
        wire.meddle, wire.seen = without_offer, []
        report = await node.until("connecting", 2)
        assert "offers none now" in (report.reason or "")
        assert wire.messages("up") == []


async def test_s096_the_gateway_turns_away_a_device_that_used_the_channel_and_comes_without(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    identity = keeping.identity()
    async with gateway_at() as gateway, operator_at(gateway) as operator:
        async with node_at(keeping, gateway.urls[0]) as node:
            await node.until("connected")
        with pytest.raises(ConnectFailed) as failed:
            await connect_plainly(gateway.urls[0], identity)
        assert (failed.value.details or {})["code"] == "SECURE_CHANNEL_REQUIRED"
        assert f"openclaw devices remove {identity.device_id}" in (failed.value.fix or "")
        assert failed.value.close_code == 1008
        (row, *_) = [row for row in await rows_of(gateway, "connect") if row["outcome"] == "refused"]
        assert (row["code"], row["device"]) == ("SECURE_CHANNEL_REQUIRED", identity.device_id)
        # Only a person ends that.
        await operator.call("device.pair.remove", {"deviceId": identity.device_id})
        with pytest.raises(ConnectFailed) as failed:
            await connect_plainly(gateway.urls[0], identity)
        assert (failed.value.details or {})["code"] == "PAIRING_REQUIRED"
        await operator.call("device.pair.approve", {"requestId": (failed.value.details or {})["requestId"]})
        await connect_plainly(gateway.urls[0], identity)


async def connect_plainly(url: str, identity: DeviceIdentity, **more: Any) -> None:
    async with open_client(
        url, auth=Credentials(token=TOKEN), identity=identity, role="node", scopes=(), client_id="node-host",
        mode="node", commands=("system.which",), **more,
    ) as client:  # fmt: skip
        assert client.hello.role == "node"


# --- what can be swapped


async def test_s096_another_gateway_at_the_same_address_gets_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at(tmp_path / "a") as real, gateway_at(tmp_path / "b") as other:  # noqa: SIM117  needs real.port
        async with open_in_between(real.port) as wire:
            async with node_at(keeping, wire.url) as node:
                await node.until("connected")
            wire.target, wire.seen = other.port, []
            async with node_at(keeping, wire.url) as node:
                report = await node.until("connecting", 2)
                assert "does not prove the key that it had before" in (report.reason or "")
                assert f"openclaw node forget {wire.url}" in (report.fix or "")
            assert all(message[:1] == b"\x02" for message in wire.messages("up"))  # greetings that it cannot read
            (row, *_) = await rows_of(other, "channel.refused")
            assert row["close_code"] == 1008
            assert keeping.forget(wire.url)  # a person says that this is meant to be
            async with node_at(keeping, wire.url) as node:
                await node.until("connected")


async def test_s096_the_gateway_keeps_its_key_over_a_restart(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    fingerprints = set()
    for _ in range(2):
        async with gateway_at(tmp_path / "state") as gateway, open_in_between(gateway.port) as wire:
            async with operator_at(gateway) as operator:
                told = await operator.call("gateway.identity.get")
            statement = verify_key_statement(told["keyStatement"], device_id=told["deviceId"], subject="gateway")
            assert isinstance(statement, KeyStatement)
            async with node_at(keeping, wire.url) as node:
                report = await node.until("connected")
                fingerprints.add(report.gateway_key)
            assert told["keyFingerprint"] == report.gateway_key
    assert len(fingerprints) == 1
    key = tmp_path / "state" / "credentials" / "gateway-x25519.json"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (keeping.directory / "x25519.json").stat().st_mode & 0o777 == 0o600


async def test_s095_a_device_with_a_swapped_key_is_refused(tmp_path: Path) -> None:
    identity = DeviceIdentity.generate()
    async with gateway_at() as gateway:
        mine = SecureChannelWish(key=make_static_key())
        await connect_plainly(gateway.urls[0], identity, secure=mine)
        await connect_plainly(gateway.urls[0], identity, secure=mine)
        with pytest.raises(ConnectFailed) as failed:
            await connect_plainly(gateway.urls[0], identity, secure=SecureChannelWish(key=make_static_key()))
        assert (failed.value.details or {})["code"] == "SECURE_KEY_CHANGED"
        assert "openclaw devices remove" in (failed.value.fix or "")


async def test_s095_a_key_is_registered_when_a_device_that_was_paired_in_the_clear_first_uses_the_channel() -> None:
    identity, mine = DeviceIdentity.generate(), SecureChannelWish(key=make_static_key())
    async with gateway_at() as gateway:
        await connect_plainly(gateway.urls[0], identity)
        assert await rows_of(gateway, "key.registered") == []
        await connect_plainly(gateway.urls[0], identity, secure=mine)
        (row,) = await rows_of(gateway, "key.registered")
        assert row["device"] == identity.device_id
        with pytest.raises(ConnectFailed, match="secure channel required"):
            await connect_plainly(gateway.urls[0], identity)


async def test_s095_the_key_is_part_of_what_is_approved(tmp_path: Path) -> None:
    identity = DeviceIdentity.generate()
    asking = PairingConfig(auto_approve=AutoApproveConfig(loopback=False))
    first, second = SecureChannelWish(key=make_static_key()), SecureChannelWish(key=make_static_key())
    async with gateway_at(pairing=asking) as gateway, operator_at(gateway) as operator:
        asks = []
        for wish in (first, second):
            with pytest.raises(ConnectFailed) as failed:
                await connect_plainly(gateway.urls[0], identity, secure=wish)
            (row,) = (await operator.call("device.pair.list"))["pending"]
            assert row["requestId"] == (failed.value.details or {})["requestId"]
            assert base64.urlsafe_b64decode(row["keyStatement"]["key"] + "=") == wish.key.public
            asks.append(row)
        # Another key is another request: what an operator looked at is not what he would approve.
        assert asks[0]["requestId"] != asks[1]["requestId"]
        assert asks[0]["askHash"] != asks[1]["askHash"]
        with pytest.raises(CallFailed):
            await operator.call("device.pair.approve", {"requestId": asks[0]["requestId"]})
        await operator.call("device.pair.approve", {"requestId": asks[1]["requestId"]})
        (paired,) = (await operator.call("device.pair.list"))["paired"]
        assert paired["keyStatement"] == asks[1]["keyStatement"]
        await connect_plainly(gateway.urls[0], identity, secure=second)
        with pytest.raises(ConnectFailed, match="not the one that it registered"):
            await connect_plainly(gateway.urls[0], identity, secure=first)


# --- what can be replayed, relayed, changed


def said_by(identity: DeviceIdentity, private: bytes) -> KeyStatement:
    return make_key_statement(
        identity.sign_raw, public_key=identity.raw_public_key, key=public_key(private), subject="node", created_at_ms=1
    )


async def test_s096_a_replayed_greeting_opens_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        for _ in range(2):
            async with node_at(keeping, wire.url) as node:
                await node.until("connected")
        (recorded,) = [message for message in wire.messages("up") if message[:1] == b"\x02"]
        async with await Attacker.at(gateway.port) as attacker:
            await attacker.open()
            await attacker.send(frame(BINARY, recorded))
            outcome = await attacker.outcome()
        assert outcome.close_code == 1008
        assert "secure channel" in outcome.close_reason
        (row,) = await rows_of(gateway, "channel.refused")
        assert (row["outcome"], row["close_code"]) == ("refused", 1008)


async def test_s096_a_signature_made_in_one_channel_is_worth_nothing_outside_it() -> None:
    """What a man in the middle of a first contact would have: the client greets him, he greets the gateway or not."""
    victim, gateways = DeviceIdentity.generate(), DeviceIdentity.generate()
    async with gateway_at() as gateway, await Attacker.at(gateway.port) as attacker:
        challenge = await attacker.open()
        mine = make_static_key()
        ours = ServerGreeting(
            private=mine.private, nonce=challenge["nonce"], ephemeral=os.urandom(32),
            statement=make_key_statement(
                gateways.sign_raw, public_key=gateways.raw_public_key, key=mine.public, subject="gateway",
                created_at_ms=1,
            ),
        )  # fmt: skip
        private = os.urandom(32)
        theirs = ClientGreeting(
            private=private, statement=said_by(victim, private), nonce=challenge["nonce"], ephemeral=os.urandom(32)
        )
        answer = ours.read(theirs.begin())
        assert answer is not None
        last = theirs.read(answer)
        assert last is not None
        ours.read(last)
        who = Introduction(
            auth=Credentials(token=TOKEN), identity=victim, role="node", scopes=(), client_id="node-host", mode="node",
            version="1",
        )  # fmt: skip
        nonce = bound_nonce(challenge["nonce"], theirs.channel(0.0).name)
        stolen = connect_params(who, nonce=nonce, ts_ms=challenge["ts"])
        await attacker.send(frame(TEXT, attacker.request("connect", stolen)))
        outcome = await attacker.outcome()
        assert not outcome.admitted
        assert outcome.detail == "DEVICE_AUTH_NONCE_MISMATCH"


async def test_s096_a_channel_is_good_for_the_device_that_opened_it() -> None:
    opener = DeviceIdentity.generate()

    class Borrower(DeviceIdentity):
        """Greets as one device and connects as another."""

        def sign_raw(self, payload: bytes) -> bytes:
            return opener.sign_raw(payload)

    other = Borrower(Ed25519PrivateKey.generate())
    other.raw_public_key = opener.raw_public_key
    async with gateway_at() as gateway:
        with pytest.raises(ConnectFailed) as failed:
            await connect_plainly(gateway.urls[0], other, secure=SecureChannelWish(key=make_static_key()))
        assert (failed.value.details or {})["code"] == "SECURE_CHANNEL_DEVICE"


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_s096_a_changed_frame_ends_the_connection_and_is_recorded(tmp_path: Path, direction: Direction) -> None:
    keeping = Keeping(tmp_path / "node")
    spoiled: list[bytes] = []

    def spoil(way: Direction, opcode: int, payload: bytes) -> bytes | None:
        if way == direction and opcode == BINARY and not spoiled and payload[:1] == b"\x10":
            spoiled.append(payload)
            return payload[:-1] + bytes([payload[-1] ^ 1])
        return payload

    async with (
        gateway_at() as gateway,
        open_in_between(gateway.port) as wire,
        operator_at(gateway) as operator,
        node_at(keeping, wire.url) as node,
    ):
        await node.until("connected")
        await approve_surface(operator, node)
        wire.meddle, wire.seen = spoil, []
        with pytest.raises(CallFailed):
            await operator.call("node.invoke", invoke(keeping.identity().device_id))
        await node.until("connecting", 2)
        await node.until("connected", 3)  # reported at first, with its surface, and after it came back
        closes = [(way, int.from_bytes(payload[:2], "big")) for way, opcode, payload in wire.seen if opcode == 8]
        if direction == "up":
            assert ("down", 1008) in closes
            (row,) = await rows_of(gateway, "channel.refused")
            assert (row["device"], row["close_code"]) == (keeping.identity().device_id, 1008)
            assert row["reason"] == "the message is not genuine"
        else:
            assert ("up", 1002) in closes


@pytest.mark.parametrize("what", ["replayed", "dropped", "plain"])
async def test_s096_a_repeated_lost_or_plain_frame_ends_the_connection(tmp_path: Path, what: str) -> None:
    keeping = Keeping(tmp_path / "node")
    earlier: list[bytes] = []

    def spoil(way: Direction, opcode: int, payload: bytes) -> bytes | None:
        if way != "up" or opcode != BINARY or payload[:1] != b"\x10":
            return payload
        earlier.append(payload)
        if len(earlier) != 2:  # the first after admission: two calls are on their way then, so another frame follows
            return payload
        return {"replayed": earlier[0], "dropped": None, "plain": b'{"type":"req","id":"9","method":"health"}'}[what]

    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        wire.meddle = spoil
        async with node_at(keeping, wire.url) as node:
            await node.until("connecting", 2)
            await node.until("connected", 2)
        (row,) = await rows_of(gateway, "channel.refused")
        assert row["close_code"] == 1008


async def greeted(attacker: Attacker, identity: DeviceIdentity) -> Any:
    """Greet as XX does; the channel."""
    challenge = await attacker.open()
    private = os.urandom(32)
    greeting = ClientGreeting(
        private=private, statement=said_by(identity, private), nonce=challenge["nonce"], ephemeral=os.urandom(32)
    )
    await attacker.send(frame(BINARY, greeting.begin()))
    got = await attacker.read_frame()
    assert got is not None
    last = greeting.read(got.payload)
    assert last is not None
    await attacker.send(frame(BINARY, last))
    return greeting.channel(0.0)


async def test_s096_the_limits_before_and_after_admission_hold_inside_the_channel() -> None:
    identity = DeviceIdentity.generate()
    small = TransportsConfig(websocket=WebSocketConfig(max_message_size=70_000))
    async with gateway_at(transports=small) as gateway:
        async with await Attacker.at(gateway.port) as attacker:  # 64 KiB for strangers, sealed or not
            channel = await greeted(attacker, identity)
            await attacker.send(frame(BINARY, channel.seal(bytes(65_530), 0.0)))
            assert (await attacker.outcome()).close_code == 1009
        async with await Attacker.at(gateway.port) as attacker:  # a greeting is small
            await attacker.open()
            await attacker.send(frame(BINARY, b"\x01" + bytes(5000)))
            assert (await attacker.outcome()).close_code == 1008
        async with await Attacker.at(gateway.port) as attacker:  # and there is one
            await greeted(attacker, identity)
            await attacker.send(frame(BINARY, b"\x01" + bytes(32)))
            assert (await attacker.outcome()).close_code == 1008
        async with await Attacker.at(gateway.port) as attacker:  # a half one is followed by nothing else
            challenge = await attacker.open()
            await attacker.send(frame(BINARY, b"\x01" + os.urandom(32)))
            await attacker.read_frame()
            params = attacker.params(token=TOKEN)
            assert challenge["secureChannel"] == ["noise.v1"]
            await attacker.send(frame(TEXT, attacker.request("connect", params)))
            assert (await attacker.outcome()).close_code == 1008
        wish = SecureChannelWish(key=make_static_key())
        async with open_client(
            gateway.urls[0], auth=Credentials(token=TOKEN), identity=identity, scopes=("operator.read",), secure=wish
        ) as client:
            assert client.hello.max_payload == 70_000
            with pytest.raises(CallFailed, match="unexpected property"):
                await client.call("health", {"pad": "x" * 69_000})
            with pytest.raises((CallFailed, ClientClosed), match="too big"):
                await client.call("health", {"pad": "x" * 71_000})
            assert (await client.wait_closed()).code == 1009


# --- what is offered, and to whom


async def test_s096_an_operator_may_use_it_too_and_others_are_not_concerned() -> None:
    identity, wish = DeviceIdentity.generate(), SecureChannelWish(key=make_static_key(), mode="required")
    async with gateway_at() as gateway:
        async with open_client(
            gateway.urls[0], auth=Credentials(token=TOKEN), identity=identity, scopes=("operator.read",), secure=wish
        ) as client:
            assert client.secure
            assert (await client.call("health"))["ok"]
        async with operator_at(gateway) as plain:
            assert not plain.secure
            assert (await plain.call("health"))["ok"]
        async with await Attacker.at(gateway.port) as somebody:
            assert (await somebody.connect(token=TOKEN, scopes=["operator.read"], device=Device())).admitted


async def test_s096_off_offers_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at(nodes=NodesConfig(secure_channel="off")) as gateway:
        async with await Attacker.at(gateway.port) as somebody:
            assert "secureChannel" not in await somebody.open()
            await somebody.send(frame(BINARY, b"\x01" + os.urandom(32)))
            assert (await somebody.outcome()).close_code == 1000  # as anything that is no request
        async with node_at(keeping, gateway.urls[0]) as node:
            assert (await node.until("connected")).secure is False


async def test_s096_required_takes_no_node_in_the_clear(tmp_path: Path) -> None:
    keeping, official = Keeping(tmp_path / "node"), DeviceIdentity.generate()
    async with gateway_at(nodes=NodesConfig(secure_channel="required")) as gateway:
        with pytest.raises(ConnectFailed) as failed:
            await connect_plainly(gateway.urls[0], official)
        assert (failed.value.details or {})["code"] == "SECURE_CHANNEL_REQUIRED"
        assert "gateway.nodes.secureChannel" in (failed.value.fix or "")
        # Operators are not nodes.
        async with operator_at(gateway) as operator, node_at(keeping, gateway.urls[0]) as node:
            assert (await node.until("connected")).secure is True
            (row,) = (await operator.call("node.list"))["nodes"]
            assert row["secureChannel"] is True
            assert row["keyStatement"]["deviceId"] == row["nodeId"]


async def test_s096_required_holds_at_once_for_nodes_that_are_here_in_the_clear(tmp_path: Path) -> None:
    clear, closed = DeviceIdentity.generate(), Keeping(tmp_path / "node")
    async with (
        gateway_at() as gateway,
        operator_at(gateway) as operator,
        node_at(closed, gateway.urls[0]) as node,
        open_client(
            gateway.urls[0], auth=Credentials(token=TOKEN), identity=clear, role="node", scopes=(),
            client_id="node-host", mode="node", commands=("system.which",),
        ) as plain,
    ):  # fmt: skip
        await node.until("connected")
        nodes = NodesConfig(secure_channel="required")
        gateway.apply(attrs.evolve(gateway.config, nodes=nodes), gateway.auth)
        with trio.fail_after(10), pytest.raises(ClientClosed) as ended:
            async for _ in plain.events():
                pass
        assert (ended.value.code, ended.value.reason) == (1008, "secure channel required")
        rows = (await operator.call("node.list"))["nodes"]
        assert [row.get("secureChannel") for row in rows if row["connected"]] == [True]


async def test_s096_a_damaged_key_of_the_channel_does_not_keep_phones_out(tmp_path: Path) -> None:
    async with gateway_at(tmp_path / "state", public_url="wss://gateway.example") as gateway:
        key = tmp_path / "state" / "credentials" / "gateway-x25519.json"
        key.parent.mkdir(mode=0o700, exist_ok=True)
        key.write_text("{")
        key.chmod(0o600)
        async with operator_at(gateway) as operator:
            assert (await operator.call("device.pair.setupCode", {"includeQr": False}))["setupCode"]


async def test_s096_an_expected_gateway_is_held_to_its_id_at_a_first_contact(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    async with gateway_at(tmp_path / "gw") as gateway:
        async with operator_at(gateway) as operator:
            right = (await operator.call("gateway.identity.get"))["deviceId"]
        async with node_at(keeping, gateway.urls[0], gateway_id="0" * 64) as node:
            report = await node.until("connecting", 2)
            assert "another gateway" in (report.reason or "")
        async with node_at(keeping, gateway.urls[0], gateway_id=right) as node:
            await node.until("connected")


async def test_s096_what_a_person_was_told_outweighs_who_was_met_at_a_first_contact(tmp_path: Path) -> None:
    """A node that once believed somebody in between gets a setup code, or ``--gateway-id``, of the real gateway."""
    keeping = Keeping(tmp_path / "node")
    async with gateway_at(tmp_path / "false") as false, open_in_between(false.port) as wire:
        async with node_at(keeping, wire.url) as node:
            await node.until("connected")  # first contact: pinned
        for mode in ("on", "required"):
            wire.seen = []
            secret = Credentials(bootstrap_token="meant-for-the-real-gateway-alone")
            async with node_at(keeping, wire.url, gateway_id="0" * 64, secret=secret, secure_channel=mode) as node:
                report = await node.until("connecting", 2)
                assert "is not the one that it is told to expect" in (report.reason or "")
                assert f"openclaw node forget {wire.url}" in (report.fix or "")
            assert wire.messages("up") == []


async def test_s096_a_gateway_that_was_met_while_waiting_is_known_after_a_restart(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    asking = PairingConfig(auto_approve=AutoApproveConfig(loopback=False))
    async with gateway_at(pairing=asking) as gateway, open_in_between(gateway.port) as wire:
        async with node_at(keeping, wire.url) as node:
            await node.until("waiting-for-approval")
        assert keeping.latest() is None  # it has not let us in: a setup code is still of use
        wire.meddle, wire.seen = without_offer, []
        async with node_at(keeping, wire.url) as node:
            report = await node.until("connecting", 2)
            assert "offers none now" in (report.reason or "")
        assert wire.messages("up") == []


async def test_s096_who_asks_for_the_channel_without_an_identity_sends_nothing_in_the_clear() -> None:
    wish = SecureChannelWish(key=make_static_key(), mode="required")
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        with pytest.raises(LocalProtocolError, match="takes an identity"):
            async with open_client(wire.url, auth=Credentials(token=TOKEN), scopes=(), secure=wish):
                pass
        assert TOKEN.encode() not in wire.everything()


async def test_s096_a_setup_code_for_a_node_names_the_gateway_that_it_is_for(tmp_path: Path) -> None:
    """So not even the first contact can be taken over: neither by another key nor by taking the offer away."""
    keeping = Keeping(tmp_path / "node")
    async with (
        gateway_at(tmp_path / "real", public_url="wss://gateway.example") as real,
        gateway_at(tmp_path / "other") as other,
        open_in_between(other.port) as wire,
        operator_at(real) as operator,
    ):
        node = await operator.call("device.pair.setupCode", {"bootstrapProfile": "node", "includeQr": False})
        phone = await operator.call("device.pair.setupCode", {"includeQr": False})
        code = read_setup_code(node["setupCode"])
        assert code.gateway_id == (await operator.call("gateway.identity.get"))["deviceId"]
        assert read_setup_code(phone["setupCode"]).gateway_id is None
        secret = Credentials(bootstrap_token=code.bootstrap_token)
        for meddle, reason in ((wire.meddle, "another gateway"), (without_offer, "demands it")):
            wire.meddle, wire.seen = meddle, []
            async with node_at(keeping, wire.url, secret=secret, gateway_id=code.gateway_id) as running:
                report = await running.until("connecting", 2)
                assert reason in (report.reason or "")
            assert all(message[:1] == b"\x01" and len(message) == 33 for message in wire.messages("up"))
        wire.target, wire.meddle = real.port, lambda way, opcode, payload: payload
        async with node_at(keeping, wire.url, secret=secret, gateway_id=code.gateway_id) as running:
            await running.until("connected")
        assert code.bootstrap_token.encode() not in wire.everything()


async def test_inbetween_itself_changes_nothing(tmp_path: Path) -> None:
    async with gateway_at() as gateway, open_in_between(gateway.port) as wire:
        assert isinstance(wire, InBetween)
        async with open_client(wire.url, auth=Credentials(token=TOKEN), scopes=("operator.read",)) as client:
            with pytest.raises(CallFailed, match="unexpected property"):
                await client.call("health", {"pad": "x" * 70_000})
        assert TOKEN.encode() in wire.everything()  # in the clear it is all there to be read
