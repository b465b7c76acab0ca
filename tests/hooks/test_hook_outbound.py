"""Outbound webhooks: from an event to a signed request, tried again until it is taken."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import pytest
import trio
import trio.testing
import trustme

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.hookblocks import WEBHOOK_EVENTS, HooksConfig, OutboundHook
from openclaw_gateway.hooks import outbound
from openclaw_gateway.hooks.outbound import OutboundHooks
from openclaw_gateway.hooks.sender import is_public
from openclaw_gateway.hooks.signature import SignatureRules, read_claim, signed_id
from openclaw_gateway.queues import QueuedMessage, RetryLater
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from tests.hooks.sink import Heard, open_sink

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def target(port: int, name: str = "ops", **changes: Any) -> OutboundHook:
    hook = OutboundHook(
        name=name, url=f"http://127.0.0.1:{port}/in?x=1", secret=SECRET, events=("chat", "shutdown"), allow_private=True
    )
    return attrs.evolve(hook, **changes)


@asynccontextmanager
async def opened(targets: Sequence[OutboundHook], **changes: Any) -> AsyncIterator[Gateway]:
    config = GatewayConfig(hooks=HooksConfig(outbound=tuple(targets)), **changes)
    async with open_memory_gateway(config) as gateway:
        queue = gateway.messaging.outbound
        queue.rules = attrs.evolve(queue.rules, first_retry_ms=1, longest_retry_ms=1)
        while not gateway.events._subscriptions:
            await trio.lowlevel.checkpoint()
        yield gateway


def verified(heard: Heard) -> Any:
    """The body of a request whose signature is right."""
    rules = SignatureRules(scheme="standard")
    claim = read_claim(rules, heard.headers, float(heard.headers["webhook-timestamp"]))
    assert claim is not None
    assert signed_id(rules, claim, SECRET, heard.body) == f"id:{heard.headers['webhook-id']}"
    return json.loads(heard.body)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.001)


async def settled(gateway: Gateway) -> list[QueuedMessage]:
    """What is left in the outbound queue once nothing waits or runs."""
    queue = gateway.messaging.outbound
    await until(lambda: not (queue.counts["waiting"] or queue.counts["running"]))
    return queue.messages()


async def test_the_end_of_a_run_is_told_signed() -> None:
    async with open_sink() as sink, opened([target(sink.port)]) as gateway:
        async with connect_peer(gateway, scopes=["operator.read", "operator.write"]) as peer:
            await peer.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r1"})
            (heard,) = await sink.wait(1)
        told = verified(heard)
        assert (heard.method, heard.target) == ("POST", "/in?x=1")
        assert heard.headers["content-type"] == "application/json"
        assert heard.headers["host"] == f"127.0.0.1:{sink.port}"
        assert (told["type"], told["data"]["state"], told["data"]["runId"]) == ("chat", "final", "r1")
        assert told["timestamp"].endswith("Z")
        assert await settled(gateway) == []
        assert len(sink.heard) == 1  # no delta was told


async def test_s029_the_end_of_a_run_and_the_word_of_it_are_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes between them: the word goes out although nobody hears the bus, and once where somebody does."""
    heard_on_the_bus: list[str] = []
    take = OutboundHooks.take

    async def deaf(self: OutboundHooks, event: str, payload: Any) -> None:
        heard_on_the_bus.append(event)

    async with (
        open_sink() as sink,
        opened([target(sink.port)]) as gateway,
        connect_peer(gateway, scopes=["operator.read", "operator.write"]) as peer,
    ):
        monkeypatch.setattr(OutboundHooks, "take", deaf)
        await peer.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r1"})
        await sink.wait(1)
        assert verified(sink.heard[0])["data"]["runId"] == "r1"
        await until(lambda: "chat" in heard_on_the_bus)
        monkeypatch.setattr(OutboundHooks, "take", take)
        await peer.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r2"})
        await sink.wait(2)
        gateway.events.publish_nowait("chat", {"state": "final", "runId": "an embedding program's"})
        await sink.wait(3)
        assert [verified(heard)["data"]["runId"][:2] for heard in sink.heard] == ["r1", "r2", "an"]


async def test_cap_what_is_known_to_be_committed() -> None:
    async with open_sink() as sink, opened([target(sink.port, enabled=True)]) as gateway:
        hooks = gateway.messaging.webhooks
        assert hooks is not None
        for number in range(outbound.MAX_COMMITTED + 5):
            hooks._remember(b"%d" % number, None)
        assert len(hooks._committed) == outbound.MAX_COMMITTED


async def test_rob1_no_run_waits_for_room_for_a_webhook() -> None:
    async with open_sink() as sink, opened([target(sink.port)]) as gateway:
        gateway.messaging.outbound.rules = attrs.evolve(gateway.messaging.outbound.rules, max_messages=0)
        async with connect_peer(gateway, scopes=["operator.read", "operator.write"]) as peer:
            await peer.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "r1"})
            assert (await peer.request("agent.wait", {"runId": "r1", "timeoutMs": 5000}))["status"] == "ok"
        assert gateway.messaging.webhooks is not None
        assert gateway.messaging.webhooks.lost >= 1
        assert sink.heard == []


async def test_a_try_that_failed_is_repeated_with_the_same_id_and_body() -> None:
    async with open_sink() as sink, opened([target(sink.port)]) as gateway:
        sink.answers = [
            (500, [], b"x"),
            (302, [("location", f"http://127.0.0.1:{sink.port}/other")], b""),
            (404, [], b""),
        ]
        gateway.events.publish_nowait("chat", msgspec.Raw(b'{"state": "final", "runId": "r"}'))
        heard = await sink.wait(4)
        assert len({one.headers["webhook-id"] for one in heard}) == len({one.body for one in heard}) == 1
        assert {one.target for one in heard} == {"/in?x=1"}
        for one in heard:
            verified(one)
        assert await settled(gateway) == []


@pytest.mark.expect_error_log("message given up")
async def test_a_target_that_is_gone_gets_no_more() -> None:
    async with open_sink() as sink, opened([target(sink.port)]) as gateway:
        sink.answers = [(410, [], b"")]
        gateway.events.publish_nowait("chat", {"state": "final"})
        (message,) = await _dead(gateway, 1)
        assert "410" in (message.last_error or "")
        gateway.events.publish_nowait("chat", {"state": "final"})
        assert gateway.messaging.webhooks is not None
        await gateway.messaging.webhooks.take("chat", {"state": "final"})
        assert len(sink.heard) == 1
        gateway.apply(gateway.config, gateway.auth)  # a change of the configuration tries again
        gateway.events.publish_nowait("chat", {"state": "final"})
        await sink.wait(2)


async def _dead(gateway: Gateway, count: int) -> list[QueuedMessage]:
    await until(lambda: len(gateway.messaging.outbound.messages("dead")) >= count)
    return gateway.messaging.outbound.messages("dead")


async def test_one_target_that_is_down_holds_up_no_other() -> None:
    async with open_sink() as down, open_sink() as up:
        down.respond = lambda heard: (503, [("retry-after", "3000")], b"")
        both = [target(down.port, "down"), target(up.port, "up")]
        async with opened(both) as gateway:
            for number in range(3):
                gateway.events.publish_nowait("chat", {"state": "final", "n": number})
            heard = await up.wait(3)
            assert [json.loads(one.body)["data"]["n"] for one in heard] == [0, 1, 2]
            await down.wait(1)
            await until(lambda: not gateway.messaging.outbound.counts["running"])
            left = gateway.messaging.outbound.messages("waiting")
            assert [one.lane for one in left] == ["webhook:down"] * 3
            assert left[0].due_at_ms - left[0].accepted_at_ms > 2_900_000  # as the target asked


async def test_a_target_that_says_nothing_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "SEND_SECONDS", 0.2)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _say_nothing, 0)
        port = listeners[0].socket.getsockname()[1]
        async with opened([target(port)]) as gateway:
            gateway.messaging.outbound.rules = attrs.evolve(
                gateway.messaging.outbound.rules, first_retry_ms=600_000, longest_retry_ms=600_000
            )
            gateway.events.publish_nowait("chat", {"state": "final"})
            await until(lambda: any(one.attempts for one in gateway.messaging.outbound.messages("waiting")))
            (message,) = gateway.messaging.outbound.messages()
            assert message.last_error == "no answer within 0.2 s"
        nursery.cancel_scope.cancel()


async def _say_nothing(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_only_named_events_leave_and_no_secret_does() -> None:
    async with open_sink() as sink, opened([target(sink.port, events=("chat",))]) as gateway:
        gateway.events.publish_nowait("health", {"ok": True})
        gateway.events.publish_nowait("shutdown", {"reason": "x"})
        gateway.events.publish_nowait("chat", {"state": "delta", "deltaText": "piece"})
        secret = "a-token-that-must-not-leave-0123456789"
        gateway.events.publish_nowait("chat", {"state": "final", "token": secret, "nested": [{"apiKey": secret}]})
        (heard,) = await sink.wait(1)
        assert secret.encode() not in heard.body
        assert verified(heard)["data"]["state"] == "final"
        assert await settled(gateway) == []
        assert len(sink.heard) == 1


async def test_an_event_that_is_too_large_is_told_in_short() -> None:
    async with open_sink() as sink, opened([target(sink.port)]) as gateway:
        gateway.events.publish_nowait("chat", {"state": "final", "runId": "r", "message": "x" * outbound.MAX_BODY})
        (heard,) = await sink.wait(1)
        assert len(heard.body) < 2048
        assert verified(heard)["data"] == {"state": "final", "runId": "r"}
        assert verified(heard)["truncated"] is True


async def test_events_wait_on_the_disk_for_a_target_that_was_down(tmp_path: Any) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with open_sink() as sink:
        sink.respond = lambda heard: (503, [], b"")
        async with opened([target(sink.port)], state_dir=state) as gateway:
            gateway.events.publish_nowait("chat", {"state": "final", "runId": "kept"})
            await sink.wait(1)
        sink.respond = None
        before = len(sink.heard)
        async with opened([target(sink.port)], state_dir=state) as gateway:
            heard = await sink.wait(before + 1)
            assert verified(heard[before])["data"]["runId"] == "kept"
            assert heard[0].headers["webhook-id"] == heard[before].headers["webhook-id"]


async def test_v56_tls_is_verified_against_the_name_while_the_checked_address_is_dialled() -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with open_sink(server) as sink, open_memory_gateway() as gateway:
        message = QueuedMessage("1", "outbound", "webhook:ops", "msg_1", "gateway", outbound.KIND, b"{}", 0)
        for context, name, reached in (
            (trusting, "localhost", True),
            (None, "localhost", False),
            (trusting, "127.0.0.1", False),
        ):
            hooks = OutboundHooks(gateway.events, gateway.messaging.outbound, clock=lambda: 0, tls=context)
            hooks.configure([target(0, url=f"https://{name}:{sink.port}/")])
            with contextlib.nullcontext() if reached else pytest.raises(RetryLater):
                await hooks.deliver(message)
            await hooks.aclose()
        assert len(sink.heard) == 1


@pytest.mark.expect_error_log("message given up")
async def test_v56_a_private_target_needs_the_owners_word() -> None:
    async with open_sink() as sink:
        closed = [
            target(sink.port, "a", allow_private=False, url=f"https://127.0.0.1:{sink.port}/"),
            target(sink.port, "b", allow_private=False, url=f"https://localhost:{sink.port}/"),
            target(sink.port, "c", allow_private=False, url="http://192.0.2.1/"),
        ]
        async with opened(closed) as gateway:
            gateway.events.publish_nowait("chat", {"state": "final"})
            dead = await _dead(gateway, 3)
        said = {message.lane: message.last_error or "" for message in dead}
        assert all("allowPrivate" in error for error in said.values())
        assert "in the clear" in said["webhook:c"]
        assert "private network" in said["webhook:a"]
        assert "private network" in said["webhook:b"]
        assert sink.connections == 0


async def test_v56_nothing_of_ours_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    async with open_sink() as sink, open_sink() as proxy:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login me password netrc-password-0123\n")
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sink.respond = lambda heard: (200, [("set-cookie", "a=b")], b"y" * 100_000)
        async with opened([target(sink.port)]) as gateway:
            for _ in range(2):
                gateway.events.publish_nowait("chat", {"state": "final"})
            heard = await sink.wait(2)
            assert proxy.connections == 0
            token = gateway.token or ""
        allowed = {
            "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length",
            "webhook-id", "webhook-timestamp", "webhook-signature",
        }  # fmt: skip
        for one in heard:
            assert set(one.headers) == allowed
            assert token.encode() not in one.body


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.0.0.1", False),
        ("169.254.169.254", False), ("100.100.100.100", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::101:101", True), ("2002:7f00:1::", False), ("ff02::1", False),
        ("not an address", False),
    ],
)  # fmt: skip
def test_v56_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_rule8_a_full_queue_loses_events_and_counts_them() -> None:
    async with opened([target(9)]) as gateway:
        queue = gateway.messaging.outbound
        queue.rules = attrs.evolve(queue.rules, max_messages=0)
        hooks = gateway.messaging.webhooks
        assert hooks is not None
        await hooks.take("chat", {"state": "final"})
        assert (hooks.lost, len(queue)) == (1, 0)


async def test_rob1_events_leave_room_for_answers_to_people() -> None:
    async with opened([target(9)]) as gateway:
        queue, hooks = gateway.messaging.outbound, gateway.messaging.webhooks
        queue.rules = attrs.evolve(queue.rules, max_messages=10, first_retry_ms=60_000, longest_retry_ms=60_000)
        assert hooks is not None
        for _ in range(10):
            await hooks.take("chat", {"state": "final"})
        assert (hooks.lost, len(queue)) == (5, 5)


async def test_every_event_that_can_be_named_is_one_that_is_sent() -> None:
    async with open_memory_gateway() as gateway:
        assert set(WEBHOOK_EVENTS) <= set(gateway.events.names)
