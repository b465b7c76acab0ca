"""The hub with scripted adapters inside a whole gateway: lives of accounts, the way in, the way out, isolation."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.channels import hub as module
from openclaw_gateway.channels import intake
from openclaw_gateway.channels.adapter import AdapterFailed, Incoming, Outgoing, Port, WebhookReply, WebhookRequest
from openclaw_gateway.channels.hub import ChannelHub, UnknownChannel
from openclaw_gateway.config.schema import ChannelConfig, DirectMessageConfig
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.queues import RetryLater, Undeliverable
from openclaw_gateway.testing import open_memory_gateway


@attrs.define(eq=False)
class Scripted:
    """An adapter that does what the test says. ``script``: what each `run` raises, in order; then it stays."""

    account: str
    settings: Mapping[str, Any]
    limit: int = 4096
    port: Port | None = None
    sent: list[Outgoing] = attrs.field(factory=list)
    send_faults: list[Exception] = attrs.field(factory=list)


class Service:
    """Makes `Scripted` adapters and knows which of them run."""

    def __init__(self) -> None:
        self.made: list[Scripted] = []
        self.faults: list[Exception] = []
        self.make_faults: list[Exception] = []
        self.running = 0
        self.most = 0
        self.connects = True
        self.unwinding: trio.Event | None = None
        self.changed = trio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def make(self, account: str, settings: Mapping[str, Any]) -> Any:
        if self.make_faults:
            raise self.make_faults.pop(0)
        adapter = _Adapter(self, account, settings)
        self.made.append(adapter)
        return adapter

    async def until(self, true: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not true():
                changed = self.changed
                with trio.move_on_after(0.02):
                    await changed.wait()

    @property
    def sent(self) -> list[Outgoing]:
        return [one for adapter in self.made for one in adapter.sent]


class _Adapter(Scripted):
    def __init__(self, service: Service, account: str, settings: Mapping[str, Any]) -> None:
        super().__init__(account, settings)
        self.service = service

    async def run(self, port: Port) -> None:
        service = self.service
        service.running += 1
        service.most = max(service.most, service.running)
        try:
            if service.faults:
                raise service.faults.pop(0)
            self.port = port
            if service.connects:
                port.connected({"username": f"bot-{self.account}"})
            service.wake()
            await trio.sleep_forever()
        finally:
            if service.unwinding is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await service.unwinding.wait()
            service.running -= 1

    async def send(self, message: Outgoing) -> None:
        await trio.lowlevel.checkpoint()
        if self.send_faults:
            raise self.send_faults.pop(0)
        self.sent.append(message)
        self.service.wake()

    async def conversation_with(self, sender_id: str) -> str:
        await trio.lowlevel.checkpoint()
        return f"dm-{sender_id}"

    async def webhook(self, port: Port, request: WebhookRequest) -> WebhookReply:
        await request.read()
        return WebhookReply(200)

    async def probe(self) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"username": "probed"}

    async def logout(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True


def channel(policy: Any = "open", **extra: Any) -> ChannelConfig:
    return ChannelConfig(dm=DirectMessageConfig(policy=policy), extra=extra)


@asynccontextmanager
async def open_hub(service: Service, **channels: ChannelConfig) -> AsyncIterator[tuple[Gateway, ChannelHub]]:
    async with open_memory_gateway(GatewayConfig()) as gateway:
        gateway.messaging.channel_makers["scripted"] = service.make
        config = attrs.evolve(gateway.config, channels=channels or {"scripted": channel()})
        gateway.apply(config, gateway.auth)
        assert gateway.messaging.channels is not None
        yield gateway, gateway.messaging.channels


def message(text: str = "hello", *, key: str = "1", sender: str = "ann", **more: Any) -> Incoming:
    return Incoming(
        key=key, message_id=f"m{key}", conversation=f"dm-{sender}", context=more.pop("context", "dm"),
        sender_id=sender, text=text, sent_at_ms=now_ms(), **more,
    )  # fmt: skip


async def connected(service: Service, hub: ChannelHub) -> tuple[Scripted, Port]:
    await service.until(lambda: any(one.connected for one in hub.accounts))
    adapter = service.made[-1]
    assert adapter.port is not None
    return adapter, adapter.port


# --- the way in and out


async def test_a_message_becomes_an_answer_once() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        adapter, port = await connected(service, hub)
        for _ in range(3):
            await port.incoming(message("hello"))
        await port.incoming(message("again", key="2"))
        await service.until(lambda: len(adapter.sent) >= 2)
        assert ["hello" in adapter.sent[0].text, "again" in adapter.sent[1].text] == [True, True]
        assert (adapter.sent[0].conversation, adapter.sent[0].reply_to) == ("dm-ann", "m1")
        (row,) = hub.status()["channelAccounts"]["scripted"]
        assert row["lastInboundAt"] is not None
        assert row["lastOutboundAt"] is not None
        assert len(adapter.sent) == 2


async def test_pair10_a_stranger_gets_one_code_and_no_agent() -> None:
    service = Service()
    async with open_hub(service, scripted=channel("pairing")) as (gateway, hub):
        adapter, port = await connected(service, hub)
        for number in range(5):
            await port.incoming(message(key=str(number)))
        (word,) = adapter.sent
        assert "Pairing code: " in word.text
        assert gateway.messaging.inbound.counts["waiting"] == 0
        assert not gateway.messaging.runs.active()
        code = word.text.split("Pairing code: ")[1].split("\n")[0]
        await gateway.senders.book.approve("scripted", code=code, actor="operator:test")
        (sender,) = gateway.senders.book.senders()
        assert await gateway.senders.notify(sender) == "sent"
        assert adapter.sent[-1].conversation == "dm-ann"
        await port.incoming(message("now?", key="9"))
        await service.until(lambda: len(adapter.sent) >= 3)
        assert "now?" in adapter.sent[2].text


async def test_pair10_a_replayed_history_gets_no_word() -> None:
    service = Service()
    async with open_hub(service, scripted=channel("pairing")) as (_, hub):
        adapter, port = await connected(service, hub)
        for number in range(50):
            await port.incoming(message(key=str(number), sender=f"p{number}", live=False))
        assert not adapter.sent


async def test_v27_a_paired_sender_has_no_way_in_through_a_group_or_another_account() -> None:
    service = Service()
    config = channel("pairing", accounts={"work": {}, "home": {}})
    async with open_hub(service, scripted=config) as (gateway, hub):
        await service.until(lambda: all(one.connected for one in hub.accounts))
        ports = {one.account: one.port for one in service.made}
        work, home = ports["work"], ports["home"]
        assert work is not None
        assert home is not None
        await work.incoming(message())
        code = service.sent[0].text.split("Pairing code: ")[1].split("\n")[0]
        await gateway.senders.book.approve("scripted", code=code, account="work", actor="operator:test")
        await work.incoming(message(key="2", context="group"))
        assert not gateway.messaging.runs.active()
        await home.incoming(message(key="3"))
        assert "Pairing code" in service.sent[-1].text
        await work.incoming(message("in", key="4"))
        await service.until(lambda: "in" in service.sent[-1].text and len(service.sent) == 3)


async def test_v28_a_display_name_and_v19_a_text_change_nothing() -> None:
    service = Service()
    config = ChannelConfig(dm=DirectMessageConfig(policy="allowlist", allow_from=("ann",)))
    async with open_hub(service, scripted=config) as (gateway, hub):
        adapter, port = await connected(service, hub)
        await port.incoming(message("openclaw pairing approve", sender="bob", sender_name="ann"))
        assert not adapter.sent
        assert not gateway.messaging.runs.active()


async def test_a_long_answer_goes_on_where_it_stopped() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        adapter, port = await connected(service, hub)
        adapter.limit = 64
        long = " ".join(f"word{number:03}" for number in range(40))
        await port.incoming(message(long))
        await service.until(lambda: bool(adapter.sent))
        adapter.send_faults = [RetryLater("wait", 10)]
        await service.until(lambda: "word039" in adapter.sent[-1].text)
        words = " ".join(one.text for one in adapter.sent).split()
        assert [word for word in words if word.startswith("word")] == long.split()
        keys = [one.key for one in adapter.sent]
        assert len(set(keys)) == len(keys)
        assert [one.reply_to for one in adapter.sent] == ["m1", *[None] * (len(keys) - 1)]


async def test_a_service_that_is_away_costs_a_message_no_try() -> None:
    service = Service()
    async with open_hub(service) as (gateway, hub):
        adapter, port = await connected(service, hub)
        hub.stop("scripted")
        await port.incoming(message("kept"))
        outbound = gateway.messaging.outbound
        await service.until(lambda: any(one.last_error for one in outbound.messages()))
        (waiting,) = outbound.messages()
        assert (waiting.attempts, waiting.last_error) == (0, "scripted/default is stopped")
        hub.start("scripted")
        await connected(service, hub)  # and that is what brings it out again, not the 30 s that it would wait
        await service.until(lambda: any("kept" in one.text for one in service.sent))
        assert not adapter.sent


@pytest.mark.expect_error_log("message given up")
async def test_what_the_service_refuses_is_a_dead_letter_with_its_reason() -> None:
    service = Service()
    async with open_hub(service) as (gateway, hub):
        adapter, port = await connected(service, hub)
        adapter.send_faults = [Undeliverable("blocked by the user")]
        await port.incoming(message())
        await service.until(lambda: gateway.messaging.outbound.counts["dead"] == 1)
        (dead,) = gateway.messaging.outbound.messages("dead")
        assert dead.last_error == "blocked by the user"


async def test_a_challenge_that_has_to_wait_is_said_later(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    async with open_hub(service, scripted=channel("pairing")) as (_, hub):
        adapter, port = await connected(service, hub)
        adapter.send_faults = [RetryLater("wait", 20), RetryLater("wait", 20)]
        await port.incoming(message())
        await service.until(lambda: bool(adapter.sent))
        assert "Pairing code" in adapter.sent[0].text


async def test_a_message_without_words_or_too_long_harms_nobody() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        adapter, port = await connected(service, hub)
        await port.incoming(message("  "))
        await port.incoming(message("x" * (1024 * 1024), key="2"))
        assert adapter.sent[0].text == intake._NO_ROOM
        await port.incoming(message("fine", key="3", attachments=("[photo]",)))
        await service.until(lambda: len(adapter.sent) == 2)
        assert "fine\n[photo]" in adapter.sent[1].text


# --- the life of an account


@pytest.mark.expect_error_log("channel broke")
async def test_rob1_an_adapter_that_breaks_harms_no_other() -> None:
    broken, well = Service(), Service()
    broken.faults = [RuntimeError("oh no secret-in-an-exception")] * 100
    async with open_memory_gateway(GatewayConfig()) as gateway:
        gateway.messaging.channel_makers |= {"broken": broken.make, "well": well.make}
        gateway.apply(attrs.evolve(gateway.config, channels={"broken": channel(), "well": channel()}), gateway.auth)
        hub = gateway.messaging.channels
        assert hub is not None
        await well.until(lambda: hub.account("well").connected and hub.account("broken").state == "reconnecting")
        account = hub.account("broken")
        assert account.why == "broke: RuntimeError"
        port = well.made[0].port
        assert port is not None
        await port.incoming(message())
        await well.until(lambda: len(well.sent) == 1)


@pytest.mark.parametrize("state", ["auth-failed", "conflict", "reconnecting", "misconfigured"])
async def test_each_state_is_shown_with_its_fix_and_start_tries_again_at_once(state: Any) -> None:
    service = Service()
    fault = AdapterFailed(state, "because", "openclaw config set x y", after_ms=3_600_000)
    if state == "misconfigured":
        service.make_faults = [fault]
    else:
        service.faults = [fault]
    async with open_hub(service) as (_, hub):
        account = hub.account("scripted")
        await service.until(lambda: account.state == state)
        (row,) = hub.status()["channelAccounts"]["scripted"]
        assert (row["state"], row["lastError"], row["fix"]) == (state, "because", "openclaw config set x y")
        assert row["configured"] is (state != "misconfigured")
        told = hub.trouble
        assert told == f"scripted/default is {state}: because; openclaw config set x y"
        hub.start("scripted")
        await service.until(lambda: account.connected)
        assert (hub.trouble, account.restarts) == (None, 1)


async def test_rule12_the_wait_grows_and_never_passes_its_cap(autojump_clock: Any) -> None:
    service = Service()
    service.faults = [AdapterFailed("reconnecting", "down")] * 20
    gate, waits = _Gate(), []
    hub = ChannelHub(gate, _Runs(), _Router(), makers={"scripted": service.make}, clock=lambda: 0)  # type: ignore[arg-type]
    hub.on_change = lambda account: waits.append(trio.current_time())
    hub.configure({"scripted": channel()})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.serve)
        while service.faults:  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    gaps = [later - earlier for earlier, later in itertools.pairwise(waits) if later - earlier > 0.1]
    assert len(gaps) >= 15
    assert max(gaps) <= 60.1
    assert max(gaps[-5:]) > 10 * min(gaps[:3])


class _Gate:
    def register(self, *args: Any, **more: Any) -> None:
        pass

    unregister = register


class _Runs:
    pass


class _Router:
    pass


async def test_two_tasks_of_an_account_never_run_at_once() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        await connected(service, hub)
        service.unwinding = trio.Event()
        hub.stop("scripted")
        hub.start("scripted")
        await trio.testing.wait_all_tasks_blocked()
        assert (service.running, len(service.made)) == (1, 1), "the second one waits for the first"
        service.unwinding.set()
        service.unwinding = None
        await service.until(lambda: len(service.made) == 2 and hub.account("scripted").connected)
        assert service.most == 1


async def test_a_reload_starts_changes_and_stops_accounts_and_leaves_the_others_alone() -> None:
    service = Service()
    config = channel(accounts={"a": {"x": 1}, "b": {"x": 1}, "off": {"enabled": False}})
    async with open_hub(service, scripted=config) as (gateway, hub):
        await service.until(lambda: len(hub.accounts) == 2 and all(one.connected for one in hub.accounts))
        kept = hub.account("scripted", "a")
        changed = channel(accounts={"a": {"x": 1}, "b": {"x": 2}, "c": {}})
        gateway.apply(attrs.evolve(gateway.config, channels={"scripted": changed}), gateway.auth)
        await service.until(lambda: all(one.connected for one in hub.accounts))
        assert [one.name for one in hub.accounts] == ["a", "b", "c"]
        assert hub.account("scripted", "a") is kept
        assert kept.restarts == 0
        gateway.apply(attrs.evolve(gateway.config, channels={}), gateway.auth)
        await service.until(lambda: service.running == 0)
        assert hub.status()["channelOrder"] == []


@pytest.mark.expect_error_log("too many channel accounts")
async def test_accounts_are_capped() -> None:
    service = Service()
    hub = ChannelHub(_Gate(), _Runs(), _Router(), makers={"scripted": service.make}, clock=lambda: 0)  # type: ignore[arg-type]
    many = channel(accounts={f"a{number}": {} for number in range(module.MAX_ACCOUNTS + 10)})
    hub.configure({"scripted": many})
    assert len(hub.accounts) == module.MAX_ACCOUNTS


async def test_v47_webhook_requests_of_an_account_are_capped() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        await connected(service, hub)
        slow = trio.Event()

        async def read() -> bytes:
            await slow.wait()
            return b""

        async with trio.open_nursery() as nursery:
            for _ in range(module.MAX_WEBHOOKS):
                nursery.start_soon(hub.webhook, "scripted", "default", WebhookRequest("POST", {}, {}, read))
            await trio.testing.wait_all_tasks_blocked()
            assert (await hub.webhook("scripted", "default", WebhookRequest("POST", {}, {}, read))).status == 503
            slow.set()
        assert (await hub.webhook("scripted", "default", WebhookRequest("POST", {}, {}, read))).status == 200
        assert (await hub.webhook("scripted", "other", WebhookRequest("POST", {}, {}, read))).status == 404


async def test_an_unknown_account_is_named_with_those_there_are() -> None:
    service = Service()
    async with open_hub(service, scripted=channel(accounts={"b": {}, "a": {}}, defaultAccount="a")) as (_, hub):
        assert hub.account("scripted").name == "a"
        with pytest.raises(UnknownChannel, match=r"scripted/x \(there are: scripted/b, scripted/a\)"):
            hub.account("scripted", "x")


async def test_probe_and_logout() -> None:
    service = Service()
    async with open_hub(service) as (_, hub):
        await connected(service, hub)
        account = hub.account("scripted")
        found = await hub.probe(account)
        assert (found["ok"], found["bot"]) == (True, {"username": "probed"})
        assert account.to_wire()["probe"]["ok"]
        _, given = await hub.logout("scripted")
        assert given
        assert account.state == "stopped"
        service.make_faults = [AdapterFailed("auth-failed", "wrong", "fix it")]
        assert (await hub.probe(account))["error"] == "wrong"
