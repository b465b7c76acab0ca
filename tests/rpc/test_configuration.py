"""`config.get/set/patch` over the wire, and what a running gateway does when its file changes (CFG-3, AUTH-4, V16)."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import CallFailed, Gateway, load_config, open_gateway
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.watch import ConfigChange, changed_paths
from openclaw_gateway.server.listener import Probed
from openclaw_gateway.testing import ScriptedPeer, connect_peer

TOKEN = "token-of-the-config-tests-0123456789"
TEXT = """{
  // kept
  gateway: { port: 0, auth: { token: "%s" }, },
  logging: { level: "info" },
}
"""


@attrs.frozen
class Home:
    """A state directory with its openclaw.json."""

    path: Path
    env: dict[str, str]

    @property
    def file(self) -> Path:
        return self.path / "openclaw.json"

    def write(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.replace(self.file)

    def load(self, flags: dict[str, Any] | None = None) -> LoadedConfig:
        return load_config(env=self.env, path=self.file, overrides=flags)

    @asynccontextmanager
    async def open(self, *, listen: bool = False) -> AsyncIterator[Gateway]:
        async with open_gateway(loaded=self.load(), env=self.env, listen=listen) as gateway:
            yield gateway

    def change(self, gateway: Gateway, text: str) -> None:
        """What the watcher does a moment after the file changed."""
        assert gateway.loaded is not None
        self.write(text)
        new = self.load()
        changed = changed_paths(gateway.loaded, new)
        gateway.take_over(ConfigChange(old=gateway.loaded, new=new, changed=changed, issues=new.issues))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    home = Home(tmp_path, {"OPENCLAW_STATE_DIR": str(tmp_path)})
    home.write(TEXT % TOKEN)
    return home


def _config(**gateway: Any) -> str:
    return json.dumps({"gateway": {"port": 0, "auth": {"token": TOKEN}, **gateway}})


# --- reading and writing


async def test_auth4_v51_config_get_shows_no_secret_and_its_text_can_be_set_back(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        before = home.file.read_bytes()
        shown = await peer.request("config.get")
        assert TOKEN not in json.dumps(shown)
        assert MARKER in shown["raw"]
        assert (shown["path"], shown["exists"], shown["valid"]) == (str(home.file), True, True)
        assert shown["hash"] == shown["appliedConfigHash"]
        result = await peer.request("config.set", {"raw": shown["raw"], "baseHash": shown["hash"]})
        assert result["ok"]
        assert home.file.read_bytes() == before


async def test_v50_config_get_does_not_tell_readers_where_the_file_lies(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway, scopes=["operator.read"]) as peer:
        assert (await peer.request("config.get"))["path"] == "openclaw.json"
        home.write("{ broken")
        shown = await peer.request("config.get")
        assert (shown["valid"], shown["path"]) == (False, "openclaw.json")
        assert shown["issues"]


async def test_cfg5_config_patch_keeps_comments_mode_and_a_backup(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        result = await peer.request("config.patch", {"raw": '{ logging: { level: "debug" } }'})
        assert result["config"]["logging"]["level"] == "debug"
        assert TOKEN not in json.dumps(result)
    text = home.file.read_text()
    assert "// kept" in text
    assert "debug" in text
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o600
    assert (home.path / "openclaw.json.bak").read_text() == TEXT % TOKEN


async def test_cfg5_a_change_made_meanwhile_is_not_overwritten(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        stale = (await peer.request("config.get"))["hash"]
        home.write(_config(bind="loopback"))
        now = home.file.read_bytes()
        for method, raw in (("config.set", "{}"), ("config.patch", '{"logging":{"level":"debug"}}')):
            with pytest.raises(CallFailed) as failed:
                await peer.request(method, {"raw": raw, "baseHash": stale})
            details = failed.value.details or {}
            assert details["code"] == "CONFIG_CONFLICT"
            assert details["hash"] == (await peer.request("config.get"))["hash"]
        assert home.file.read_bytes() == now


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("config.set", "{ broken"),
        ("config.set", "[]"),
        ("config.patch", "[]"),
        ("config.patch", "{ broken"),
        ("config.patch", '{"gateway":{"port":"many"}}'),
        ("config.patch", json.dumps({"gateway": {"auth": {"token": f"{MARKER}-x"}}})),
    ],
)
async def test_cfg1_what_would_break_the_file_is_not_written(home: Home, method: str, raw: str) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        before = home.file.read_bytes()
        with pytest.raises(CallFailed) as failed:
            await peer.request(method, {"raw": raw})
        assert (failed.value.details or {})["code"] == "CONFIG_INVALID"
        assert home.file.read_bytes() == before


# --- taking a new file over


async def test_cfg3_the_watcher_takes_a_changed_file_over_by_itself(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        applied, apply = trio.Event(), gateway._reloading.apply

        def tell(*args: Any) -> None:
            apply(*args)
            applied.set()

        monkeypatch.setattr(gateway._reloading, "apply", tell)
        home.write(_config(transports={"websocket": {"concurrentConnections": 7}}))
        await applied.wait()
        assert (await peer.request("config.get"))["appliedConfigHash"] == home.load().hash
        assert (await peer.request("status"))["connections"]["limit"] == 7


async def test_cfg3_limits_and_origins_apply_without_a_dropped_socket(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        home.change(
            gateway,
            _config(
                transports={
                    "websocket": {"concurrentConnections": 3, "maxMessageSize": 70_000, "pingIntervalMs": 5000},
                    "http": {"cors": {"origins": ["https://a.example"]}},
                },
                controlUi={"allowedOrigins": ["https://ui.example"]},
            ),
        )
        assert (await peer.request("health"))["ok"]
        assert gateway._http.rules.cors_origins == ("https://a.example",)
        assert gateway._parts.heartbeat.interval == 5.0
        async with connect_peer(gateway) as late:
            assert late.hello["policy"]["maxPayload"] == 70_000
        assert gateway.gatekeeper.rules.origins.allowed


async def test_v16_another_secret_closes_the_sessions_of_the_old_one_and_lets_the_new_one_in(home: Home) -> None:
    other = "another-token-of-the-config-tests-0123"
    async with home.open() as gateway, connect_peer(gateway) as peer:
        home.change(gateway, json.dumps({"gateway": {"port": 0, "auth": {"token": other}}}))
        closed = await peer.wait_closed()
        assert (closed.code, closed.reason) == (1008, "gateway credentials changed")
        async with connect_peer(gateway, connect=False) as refused:
            with pytest.raises(CallFailed, match="token mismatch"):
                await refused.connect(token=TOKEN)
        async with connect_peer(gateway, token=other) as welcome:
            assert welcome.hello["auth"]["method"] == "token"
        assert gateway.token == other


async def test_v16_who_came_in_without_a_secret_goes_when_one_is_asked_for(home: Home) -> None:
    home.write(json.dumps({"gateway": {"port": 0, "auth": {"type": "none"}}}))
    async with home.open() as gateway, connect_peer(gateway, token=None) as peer:
        home.change(gateway, _config())
        assert (await peer.wait_closed()).code == 1008


async def test_v16_a_grant_by_rules_that_were_replaced_meanwhile_opens_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with home.open() as gateway, connect_peer(gateway, connect=False) as peer:
        let_in = gateway.gatekeeper._enrolment.let_in

        async def slow(*args: Any) -> Any:
            grant = await let_in(*args)
            home.change(gateway, json.dumps({"gateway": {"port": 0, "auth": {"token": "fresh-" + TOKEN}}}))
            return grant

        monkeypatch.setattr(gateway.gatekeeper._enrolment, "let_in", slow)
        with pytest.raises(CallFailed, match="token mismatch"):
            await peer.connect(token=TOKEN)


async def test_cfg3_the_same_values_written_differently_change_nothing(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        home.change(gateway, f"// a comment\n{_config()}")
        assert (await peer.request("health"))["ok"]
        assert len(gateway._core.registry) == 1


async def test_cfg1_a_broken_file_changes_nothing_and_is_told(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        assert gateway.loaded is not None
        before = gateway.config
        home.write(_config(port="many"))
        new = home.load()
        gateway.take_over(ConfigChange(old=gateway.loaded, new=gateway.loaded, issues=new.issues))
        assert gateway.config is before
        assert gateway.health.config_issues == ("gateway.port",)
        assert (await peer.request("status"))["configIssues"] == ["gateway.port"]
        home.change(gateway, _config())
        assert not gateway.health.config_issues


async def _get_health(port: int) -> dict[str, Any]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join([chunk async for chunk in stream])
    body: dict[str, Any] = json.loads(text.partition(b"\r\n\r\n")[2])
    return body


def _lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [line for line in caplog.messages if text in line]


async def test_cfg1_a_start_says_what_is_not_in_use_as_written(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    faulty = {"port": 0, "auth": {"token": TOKEN}, "frobnicate": 1, "nodes": {"invokeTimeoutMs": "soon"}}
    home.write(json.dumps({"gateway": faulty, "agents": {}, "mcp": {}}))
    async with home.open(listen=True) as gateway, connect_peer(gateway) as peer:
        assert (await _get_health(gateway.port))["degraded"] == ["gateway.nodes.invokeTimeoutMs"]
        assert (await peer.request("health"))["configReload"] == {"hotReloadStatus": "active"}
        assert (await peer.request("status"))["configIssues"] == ["gateway.nodes.invokeTimeoutMs"]
        (fault,) = _lines(caplog, "configuration fault")
        assert "key=gateway.nodes.invokeTimeoutMs" in fault
        (ignored,) = _lines(caplog, "ignored, because")
        assert all(name in ignored for name in ("mcp", "gateway.frobnicate"))
        home.change(gateway, _config())
        assert "degraded" not in await _get_health(gateway.port)
        assert (await peer.request("status"))["configIssues"] == []


async def test_net5_a_forced_token_is_told_once_with_its_place(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.write('{gateway: {port: 0, bind: "lan", auth: {type: "none"}}}')
    async with home.open() as gateway:
        home.change(gateway, '{gateway: {port: 0, bind: "lan", auth: {type: "none"}}} // a comment')
        (line,) = [line for line in caplog.messages if "a token is" in line]
        assert f"source=file {home.path / 'credentials' / 'gateway-token'}" in line
        assert gateway.token is not None
        assert gateway.token not in caplog.text


async def test_an_edit_under_a_flag_is_told(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    flags = {"gateway.port": 0}
    async with open_gateway(loaded=home.load(flags), overrides=flags, env=home.env, listen=True) as gateway:
        before = gateway.port
        assert gateway.loaded is not None
        for text, told in ((_config(nodes={"invokeTimeoutMs": 200}), 0), (_config(port=_free_port()), 1)):
            home.write(text)
            new = home.load(flags)
            gateway.take_over(ConfigChange(old=gateway.loaded, new=new, changed=changed_paths(gateway.loaded, new)))
            assert len(_lines(caplog, "a flag of the command line overrides it key=gateway.port")) == told
        assert gateway.port == before


async def test_status_tells_the_hash_of_what_is_applied_and_no_path(home: Home) -> None:
    async with home.open() as gateway, connect_peer(gateway) as peer:
        old = (await peer.request("status"))["appliedConfigHash"]
        home.change(gateway, _config(nodes={"invokeTimeoutMs": 200}))
        assert old != (await peer.request("status"))["appliedConfigHash"] == home.load().hash


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def _dial(port: int) -> ScriptedPeer:
    peer = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", port))
    await peer.upgrade()
    await peer.connect(token=TOKEN)
    return peer


async def test_cfg3_another_port_moves_the_listener_and_drops_nobody(home: Home) -> None:
    async with home.open(listen=True) as gateway:
        old, new = gateway.port, _free_port()
        peer = await _dial(old)
        home.change(gateway, _config(port=new))
        assert gateway.port == new
        assert gateway.configured.probe_address() == Probed("127.0.0.1", new)
        assert (await peer.request("health"))["ok"]
        other = await _dial(new)
        assert (await other.request("health"))["ok"]
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", old)
        await peer.stream.aclose()
        await other.stream.aclose()


async def test_cfg3_other_addresses_on_the_same_port_drop_nobody(home: Home) -> None:
    port = _free_port()
    home.write(_config(port=port))
    async with home.open(listen=True) as gateway:
        peer = await _dial(port)
        home.change(gateway, _config(port=port, bind="127.0.0.1"))
        assert gateway.urls == [f"ws://127.0.0.1:{port}"]
        other = await _dial(port)
        for each in (peer, other):
            assert (await each.request("health"))["ok"]
            await each.stream.aclose()


@pytest.mark.expect_error_log("configuration cannot be applied")
async def test_cfg3_an_address_that_cannot_be_had_leaves_the_old_one(home: Home) -> None:
    async with home.open(listen=True) as gateway:
        old = gateway.port
        for text, changed in (
            (_config(bind="192.0.2.77"), {"gateway.bind"}),
            (_config(port=1, bind="192.0.2.77"), {"gateway.port", "gateway.bind"}),
        ):
            home.change(gateway, text)
            assert gateway.port == old
            peer = await _dial(old)
            assert (await peer.request("health"))["ok"]
            await peer.stream.aclose()
            paths = [path for path in ("gateway.port", "gateway.bind") if path in changed]
            assert list(gateway.health.config_issues) == paths


async def test_cfg3_100_reloads_drop_none_of_20_clients(home: Home) -> None:
    async with home.open(listen=True) as gateway, AsyncExitStack() as stack:
        peers = [await _dial(gateway.port) for _ in range(20)]
        for peer in peers:
            stack.push_async_callback(peer.stream.aclose)
        for index in range(100):
            limit = 100 + index % 7
            home.change(
                gateway,
                _config(
                    transports={"websocket": {"concurrentConnections": limit}},
                    trustedProxies=[f"10.0.0.{index}"],
                    controlUi={"allowedOrigins": [f"https://n{index}.example"]},
                ),
            )
            assert gateway._core.registry.limit == limit
        assert len(gateway._core.registry) == 20
        for peer in peers:
            assert (await peer.request("health"))["ok"]
