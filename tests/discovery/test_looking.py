"""What looks: the probe, the queue of changes, whom one knows, and the plan of `dns setup`."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway import GatewayConfig, open_gateway
from openclaw_gateway.cli.dns import setup
from openclaw_gateway.client import discover
from openclaw_gateway.client.discovery import merge_changes
from openclaw_gateway.config.schema import DiscoveryConfig, RemoteConfig, WideAreaConfig
from openclaw_gateway.discovery.browser import MAX_PENDING, _key, _Pending
from openclaw_gateway.discovery.found import Change, FoundGateway, Known, Table
from openclaw_gateway.discovery.known import known_gateways
from openclaw_gateway.discovery.probe import MAX_BODY, probe
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.pairing.identity import load_gateway_identity
from tests.discovery.test_found import PIN, both, identity

Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def _listening(nursery: trio.Nursery, serve: Serve) -> int:
    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    return int(listeners[0].socket.getsockname()[1])


# --- the probe


async def test_v39_a_probe_sends_no_secret_follows_nothing_and_tells_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENCLAW_GATEWAY_TOKEN", "a-secret-of-ours")
    made = trustme.CA().issue_cert("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.configure_cert(context)
    heard = bytearray()

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        heard.extend(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await _listening(nursery, serve)
            reach = await probe("127.0.0.1", port, tls=True)
            nursery.cancel_scope.cancel()
    assert (reach.ok, reach.fault) == (False, "/health answers 302")
    assert reach.fingerprint is not None
    assert len(reach.fingerprint) == 64
    assert heard.startswith(b"GET /health HTTP/1.1\r\n")
    names = {line.split(b":")[0].lower() for line in bytes(heard).split(b"\r\n")[1:] if line}
    assert names == {b"host", b"connection", b"accept"}
    assert b"secret" not in heard


async def test_rob1_a_body_without_end_is_not_read() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            reach = await probe("127.0.0.1", await _listening(nursery, serve), tls=False)
            nursery.cancel_scope.cancel()
    assert (reach.ok, reach.fault) == (False, "too large an answer for a probe")


@pytest.mark.parametrize("how", ["silence", "endless", "rubbish", "closed"])
async def test_rob1_whatever_answers_a_probe_ends_in_time_and_without_an_error(how: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if how == "silence":
                await trio.sleep_forever()
            if how == "rubbish":
                await stream.send_all(b"\x00\xff SSH-2.0\r\n\r\n")
            if how == "endless":
                await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(MAX_BODY):
                    await stream.send_all(b"400\r\n" + b"x" * 1024 + b"\r\n")

    async def serve_quietly(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except trio.BrokenResourceError:
            return

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await _listening(nursery, serve_quietly)
            with trio.fail_after(5):
                reach = await probe("127.0.0.1", port, tls=False, timeout=0.3)
            nursery.cancel_scope.cancel()
    assert not reach.ok
    assert reach.fault


async def test_a_running_gateway_is_reachable_and_a_node_may_ask_who_it_is(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_gateway(GatewayConfig(port=0, state_dir=tmp_path)) as gateway:
            reach = await probe("127.0.0.1", gateway.port, tls=False)
            assert reach.ok
            assert reach.ms is not None
            spec = gateway.rpc.get("gateway.identity.get")
            assert spec is not None
            assert spec.allows("node", frozenset())
            assert gateway.discovery.view().keys() >= {"state", "text"}
            assert gateway.wide_area.view()["domain"] is None


async def test_a_gateway_with_a_domain_that_only_its_host_reaches_writes_no_zone_and_says_why(tmp_path: Path) -> None:
    wide = DiscoveryConfig(wide_area=WideAreaConfig(domain="openclaw.internal."))
    with trio.fail_after(20):
        async with open_gateway(GatewayConfig(port=0, state_dir=tmp_path, discovery=wide)) as gateway:
            await gateway.wide_area.look()
            assert "listens on this host only" in gateway.wide_area.view()["fault"]
    assert not (tmp_path / "dns").exists()


# --- the queue of changes


def _row(number: int) -> FoundGateway:
    table = Table()
    table.update(both(identity(number)))
    return table.gateways[0]


@given(st.lists(st.booleans(), max_size=12))
def test_changes_that_nobody_took_are_one_change_a_gateway(steps: list[bool]) -> None:
    """What a reader who sleeps is told brings him from where he was to what is there now."""
    row, there, waiting = _row(1), False, None
    for appears in steps:
        kind = "removed" if not appears else "changed" if there else "added"
        if appears or there:
            waiting = merge_changes(waiting, Change(kind, row))  # type: ignore[arg-type]
        there = appears
    assert (waiting.kind if waiting is not None else None) == ("added" if there else None)


def test_gone_and_back_is_a_change() -> None:
    row = _row(1)
    merged = merge_changes(Change("removed", row), Change("added", row))
    assert merged == Change("changed", row)
    assert merge_changes(Change("changed", row), Change("removed", row)) == Change("removed", row)


async def test_nothing_is_looked_for_where_nothing_is_asked_and_a_bad_name_is_refused() -> None:
    with trio.fail_after(5):
        async with discover(multicast=False) as found:
            with trio.move_on_after(0.05) as waited:
                await anext(found)
            assert waited.cancelled_caught
            assert (found.gateways, found.problems, found.dropped) == ((), (), 0)
        for wrong in ({"domains": ["box.local"]}, {"domains": ["a.b"], "nameserver": "x"}):
            with pytest.raises(ValueError, match="DNS"):
                async with discover(multicast=False, **wrong):
                    raise AssertionError


async def test_disc1_names_that_wait_have_a_limit_and_the_last_state_counts() -> None:
    class State:
        def __init__(self, name: str) -> None:
            self.name = name

    wakes: list[None] = []
    pending = _Pending(lambda: wakes.append(None))
    for number in range(MAX_PENDING * 3):
        pending.note(None, "_x._tcp.local.", f"n{number}", State("Added"))  # type: ignore[arg-type]
    pending.note(None, "_x._tcp.local.", "n0", State("Removed"))  # type: ignore[arg-type]
    await trio.testing.wait_all_tasks_blocked(0.01)
    taken = []
    while batch := pending.take():
        taken += batch
    assert len(taken) == MAX_PENDING
    assert taken[0] == (("_x._tcp.local.", "n0"), False)
    assert 1 <= len(wakes) <= MAX_PENDING * 3 + 1


@pytest.mark.parametrize(
    ("service_type", "name", "instance"),
    [
        ("_openclaw._tcp.local.", "A.b c._openclaw._tcp.local.", "A.b c"),
        ("_OpenClaw._tcp.local.", "x._OPENCLAW._tcp.local.", "x"),
        ("_openclaw._tcp.local.", "_openclaw._tcp.local.", None),
        ("_openclaw._tcp.local.", "x._other._tcp.local.", None),
        ("_other._tcp.local.", "x._other._tcp.local.", None),
    ],
)
def test_names_are_taken_apart_whatever_is_in_them(service_type: str, name: str, instance: str | None) -> None:
    key = _key(service_type, name)
    assert (key[2] if key is not None else None) == instance


# --- whom one knows


def test_v39_the_known_are_read_without_their_secrets_and_a_damaged_list_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    env = {"OPENCLAW_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    assert known_gateways(env) == ()
    assert list(tmp_path.iterdir()) == []
    own = load_gateway_identity(tmp_path)
    keeping = Keeping(tmp_path / "node")
    keeping.keep("wss://10.0.0.1:1", "a-device-token", f"SHA256:{PIN.upper()}")
    keeping.keep_identity("wss://10.0.0.1:1", "ef" * 32)
    keeping.keep_identity("wss://10.0.0.1:1", "00" * 32)  # the first answer stays
    keeping.keep("wss://10.0.0.1:1", "another-token", PIN)  # and a new token keeps it
    keeping.keep_identity("wss://elsewhere:1", "11" * 32)  # nobody that let us in
    remote = RemoteConfig(url="wss://10.0.0.2:1", token="remote-token", tls_fingerprint=PIN)
    known = known_gateways(env, remote)
    assert known == (
        Known(device_id=own.device_id, source="this machine's own gateway"),
        Known(device_id="ef" * 32, tls_sha256=PIN, url="wss://10.0.0.1:1",
              source="a gateway that let this machine's node in"),
        Known(tls_sha256=PIN, url="wss://10.0.0.2:1", source="config gateway.remote"),
    )  # fmt: skip
    assert "token" not in repr(known)
    kept = tmp_path / "credentials" / "gateway-identity.json"
    before = kept.read_text()
    kept.write_text('{"deviceId": 5}')
    assert len(known_gateways(env, remote)) == 2
    kept.write_text(before)
    (tmp_path / "node" / "gateways.json").write_text("{")
    troubles: list[str] = []
    assert len(known_gateways(env, remote, troubles.append)) == 2
    assert "gateways.json" in troubles[0]


# --- the plan


def _plan(folder: Path, *words: str) -> Any:
    env = {**os.environ, "OPENCLAW_STATE_DIR": str(folder), "HOME": str(folder), "OPENCLAW_CONFIG_PATH": ""}
    return CliRunner().invoke(setup, [*words], env=env)


def test_c8_dns_setup_prints_every_step_and_changes_nothing(tmp_path: Path) -> None:
    done = _plan(tmp_path, "--domain", "Openclaw.Internal")
    assert done.exit_code == 0, done.output
    for said in (
        "Domain:      openclaw.internal.", "openclaw config set discovery.wideArea.domain openclaw.internal",
        "openclaw config set gateway.bind ", "openclaw.internal:53 {", "coredns -conf", "named.conf.local",
        "discovery.wideArea.zoneFile", "dig @", "openclaw devices discover --domain openclaw.internal",
    ):  # fmt: skip
        assert said in done.output
    assert list(tmp_path.iterdir()) == []


def test_dns_setup_applies_into_the_state_directory_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_gateway.discovery.widearea.reachable_addresses", lambda listening: ("100.64.0.9",))
    tmp_path.chmod(0o700)
    done = _plan(tmp_path, "--domain", "openclaw.internal", "--apply", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    zone = tmp_path / "dns" / "openclaw.internal.db"
    assert sorted(told["written"]) == [str(tmp_path / "dns" / "Corefile"), str(zone)]
    assert told["nameservers"] == ["100.64.0.9"]
    assert "ns1 IN A 100.64.0.9" in zone.read_text()
    zone.write_text("; written by the gateway meanwhile\n")
    assert _plan(tmp_path, "--domain", "openclaw.internal", "--apply").exit_code == 0
    assert zone.read_text() == "; written by the gateway meanwhile\n"


@pytest.mark.parametrize("words", [(), ("--domain", "box.local"), ("--domain", "../etc")])
def test_dns_setup_without_a_usable_domain_is_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = _plan(tmp_path, *words)
    assert done.exit_code == 2
    assert "openclaw.internal" in done.output
