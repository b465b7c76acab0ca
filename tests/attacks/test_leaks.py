"""V50 to V52: what low scopes learn, where secrets turn up, and what a peer can write into the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.config.schema import LoggingConfig
from openclaw_gateway.ops.log import open_log
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.rpc.table import ParamsReader
from tests.websocket.rawclient import BINARY, CLOSE, TEXT, close_payload, frame

from .attacker import ALL_SCOPES, Attacker, Device, http, remote_door, rpc

# Every secret is recognisable by this word and long enough to be one.
SEED = "SEEDEDSECRET"


def _secret(name: str) -> str:
    return f"{SEED}-{name}-0123456789-{SEED}"  # at both ends: a text cut in the middle shows it too


def _config() -> dict[str, Any]:
    """A configuration with a secret in every place where OpenClaw's users keep one, ours, theirs and misplaced."""
    return {
        "gateway": {
            "auth": {"type": "token", "token": _secret("auth-token"), "password": _secret("auth-password")},
            "remote": {
                "url": "wss://far.example",
                "token": _secret("remote-token"),
                "password": _secret("remote-password"),
            },
            "tls": {"keyPassphrase": _secret("tls")},
        },
        "channels": {
            "telegram": {"enabled": True, "botToken": "123456789:" + _secret("tg"), "hookSecret": _secret("hook")},
            "discord": {"enabled": True, "token": _secret("dc"), "accounts": {"b": {"token": _secret("discord-2")}}},
            "whatsapp": {"enabled": False, "credentials": {"session": _secret("whatsapp")}},
        },
        "models": {
            "providers": {"one": {"apiKey": _secret("api"), "headers": {"Authorization": f"Bearer {_secret('auth')}"}}}
        },
        "hooks": {"token": _secret("hooks"), "url": f"https://user:{_secret('url')}@hooks.example/x?key={_secret('query')}"},
        "skills": {"entries": {"x": {"env": {"OPENAI_API_KEY": _secret("env")}}}},
        "mcp": {
            "servers": {"x": {"command": "x", "args": ["--api-key", _secret("argument"), f"--token={_secret('flag')}"]}}
        },
        "unknownBlock": {"deep": [{"clientSecret": _secret("deep")}], "privateKey": _secret("key")},
    }  # fmt: skip


class Home:
    def __init__(self, folder: Path) -> None:
        folder.chmod(0o700)
        self.folder = folder
        self.path = folder / "openclaw.json"
        text = json.dumps(_config(), indent=1)
        comment = f"// old token: {_secret('comment')}\n/* botToken: '{_secret('comment-2')}' */\n"
        self.path.write_text(comment + text)
        self.path.chmod(0o600)
        self.env = {
            "OPENCLAW_STATE_DIR": str(folder),
            "HOME": str(folder),
            "OPENCLAW_GATEWAY_PASSWORD": _secret("environment"),
        }
        self.token = _secret("auth-token")
        self.logging = LoggingConfig(console=False, level="debug")

    def load(self) -> LoadedConfig:
        return load_config(env=self.env, overrides={"gateway.port": 0})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gateway]:
        loaded = self.load()
        with open_log(self.logging, self.folder):
            async with open_gateway(loaded=loaded, overrides={"gateway.port": 0}, env=self.env) as gateway:
                gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
                yield gateway

    @property
    def log(self) -> bytes:
        return b"".join(path.read_bytes() for path in (self.folder / "logs").iterdir())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path)
    for name, value in home.env.items():  # config.get looks at the process's own
        monkeypatch.setenv(name, value)
    return home


# --- V50

OUTSIDE = {"type", "protocol", "server", "features", "snapshot", "auth", "policy"}
SERVER = {"version", "controlUiBuildSource", "bootId", "connId"}
SNAPSHOT = {"presence", "health", "stateVersion", "uptimeMs"}
PRIVATE = {"configPath", "stateDir", "authMode", "appliedConfigHash"}
GRANTS: dict[str, tuple[list[str], set[str], bool]] = {
    "nothing": ([], SNAPSHOT, False),
    "read": (["operator.read"], SNAPSHOT, True),
    "write": (["operator.write"], SNAPSHOT, True),
    "pairing": (["operator.pairing"], SNAPSHOT, False),
    "approvals": (["operator.approvals"], SNAPSHOT, False),
    "secrets": (["operator.talk.secrets"], SNAPSHOT, False),
    "all but admin": ([s for s in ALL_SCOPES if s != "operator.admin"], SNAPSHOT, True),
    "admin": (["operator.admin"], SNAPSHOT | PRIVATE, True),
}


@pytest.mark.parametrize("name", GRANTS)
async def test_v50_hello_holds_exactly_what_the_scopes_may_see(name: str, home: Home) -> None:
    scopes, snapshot, reads = GRANTS[name]
    async with home.open() as gateway, await Attacker.at(gateway.port) as client:
        hello = (await client.connect(token=home.token, scopes=scopes)).hello
        assert set(hello) == OUTSIDE
        assert set(hello["server"]) == SERVER
        assert set(hello["snapshot"]) == snapshot
        assert bool(hello["snapshot"]["presence"]) is reads
        assert bool(hello["snapshot"]["health"]) is reads
        assert set(hello["auth"]) == {"method", "role", "scopes"}
        assert set(hello["policy"]) == {"maxPayload", "maxBufferedBytes", "tickIntervalMs"}
        assert set(hello["features"]) == {"methods", "events", "capabilities"}
        if name != "admin":
            assert str(home.folder) not in json.dumps(hello)


async def test_v50_a_node_is_told_nothing_of_others(home: Home) -> None:
    async with home.open() as gateway, await Attacker.at(gateway.port) as client:
        outcome = await client.connect(
            client="node-host", mode="node", role="node", scopes=[], token=home.token, device=Device()
        )
        hello = outcome.hello
        assert set(hello["snapshot"]) == SNAPSHOT
        assert (hello["snapshot"]["presence"], hello["snapshot"]["health"]) == ([], {})
        assert set(hello["auth"]) == {"method", "role", "scopes", "deviceToken", "issuedAtMs"}
        assert str(home.folder) not in json.dumps(hello)


async def test_v50_probes_tell_others_nothing_of_this_host(home: Home) -> None:
    async with home.open() as gateway, remote_door(gateway) as far:
        for path in ("/", "/health", "/healthz", "/ready", "/readyz", "/startupz"):
            status, headers, body = await http(far, "GET", path)
            assert status == 200
            assert str(home.folder).encode() not in body
            assert "server" not in headers
            if path != "/":
                assert set(json.loads(body)) <= {"ok", "status", "ready", "uptimeMs"}


# --- V51


def _everything(gateway: Gateway) -> list[tuple[str, Any]]:
    """Every method, without parameters and with each text parameter holding something."""
    calls: list[tuple[str, Any]] = []
    for name in gateway.rpc.names:
        spec = gateway.rpc.get(name)
        assert spec is not None
        if "operator" not in spec.roles:
            continue  # refused by role; ten of those end the connection
        calls.append((name, None))
        if isinstance(spec.params, ParamsReader):
            fields = {f.name: f.type for f in attrs.fields(spec.params.type)}
            params = {_camel(n): "{}" for n, t in fields.items() if "str" in str(t) and "tuple" not in str(t)}
            calls.append((name, params))
            switches = [_camel(n) for n, t in fields.items() if "bool" in str(t)]
            calls += [(name, params | dict.fromkeys(switches, value)) for value in (True, False)]
    return calls


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@pytest.mark.parametrize(
    "scopes",
    [["operator.read"], ["operator.read", "operator.write", "operator.pairing"], list(ALL_SCOPES)],
    ids=["read", "read+write+pairing", "all"],
)
async def test_v51_no_secret_leaves_in_any_reply_event_hello_or_log_line(scopes: list[str], home: Home) -> None:
    heard: list[bytes] = []
    async with home.open() as gateway:
        async with await Attacker.at(gateway.port) as client:
            raw = client.request("connect", client.params(token=home.token, scopes=scopes))
            await client.open()
            await client.send(frame(TEXT, raw))
            calls = _everything(gateway)
            for number, (method, params) in enumerate(calls):
                await client.send(frame(TEXT, client.request(method, params, id_=f"call-{number}")))
            # What went wrong for others is another way to hear of secrets.
            for guess in (_secret("guess"), home.token[:-1]):
                async with await Attacker.at(gateway.port) as wrong:
                    await wrong.connect(token=guess, password=guess, path=f"/?token={guess}")
            async with await Attacker.at(gateway.port) as short:
                await short.open()
                hello = {"method": "connect", "params": {"token": home.token}}
                await short.send(frame(TEXT, json.dumps(hello).encode()))
                assert b"result" in (await short.read_frame()).payload  # type: ignore[union-attr]
            for odd in ({"authorization": f"Bearer {home.token}\x01"}, {"cookie": f"token={home.token}\x01"}):
                async with await Attacker.at(gateway.port) as other:
                    await other.send(other.upgrade_request(**odd))
                    with trio.fail_after(5):
                        await other.stream.receive_some(100)
            for line in (f"/?token={home.token}", f"/x?a=b&token={home.token}"):
                async with await Attacker.at(gateway.port) as other:
                    assert (await other.connect(path=line)).admitted
            home.path.write_text(home.path.read_text().replace('"wss://far.example"', '"wss://farther.example"'))
            while "wss://farther" not in gateway.loaded.raw:  # type: ignore[union-attr]  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
            await client.send(frame(TEXT, client.request("health", id_="end")))
            while (got := await client.read_frame()) is not None:
                heard.append(got.payload)
                if got.opcode == TEXT and got.json.get("id") == "end":
                    break
        assert len(heard) > len(calls)
        answered = [message for message in heard if b'"ok":true' in message]
        assert any(b"__OPENCLAW_REDACTED__" in message for message in answered)
        for method, params in calls:
            status, body = await rpc(gateway.port, method, params, token=home.token)
            assert status == 200
            heard.append(json.dumps(body).encode())
        heard.append((await http(gateway.port, "GET", f"/?token={home.token}"))[2])
    log = home.log
    assert log.count(b"\n") > 5
    for message in (*heard, log):
        at = message.find(SEED.encode())
        assert at < 0, message[max(0, at - 200) : at + 80]


async def test_v51_a_config_that_does_not_load_tells_no_secret_either(home: Home) -> None:
    """The messages of faults quote values; a secret in the wrong place is one of those."""
    async with home.open() as gateway, await Attacker.at(gateway.port) as client:
        await client.connect(token=home.token, scopes=["operator.read"])
        for broken in (
            {"gateway": {"auth": {"type": _secret("type"), "token": home.token}}},
            {"gateway": {"auth": _secret("auth")}},
            {"gateway": {"auth": {"token": [_secret("list")]}}},
            {"gateway": {"auth": {"token": home.token, "mode": "token", "type": "password"}, "remote": {"token": 5}}},
            {"channels": {"telegram": {"botToken": {"x": _secret("nested")}, "dm": "open"}}},
        ):
            home.path.write_text(json.dumps(broken))
            reply = await client.call("config.get")
            assert SEED not in json.dumps(reply), json.dumps(reply)[:2000]
        home.path.write_text("{ gateway: { auth: { token: '" + _secret("cut"))
        assert SEED not in json.dumps(await client.call("config.get"))
    assert SEED.encode() not in home.log


async def test_v51_a_secret_under_a_misspelt_name_is_still_one(home: Home) -> None:
    """In the blocks that hold nothing but authentication, a name nobody knows may be the name of a secret."""
    async with home.open() as gateway, await Attacker.at(gateway.port) as client:
        await client.connect(token=home.token, scopes=["operator.read"])
        for block in ("auth", "remote"):
            auth = {"type": "token", "token": home.token}
            whole = {"gateway": {"auth": auth, block: {**(auth if block == "auth" else {}), "tokn": _secret("typo")}}}
            home.path.write_text(json.dumps(whole))
            reply = await client.call("config.get")
            assert reply["ok"]
            assert SEED not in json.dumps(reply)


async def test_v51_a_device_token_goes_to_its_device_alone(home: Home) -> None:
    device = Device()
    async with home.open() as gateway, await Attacker.at(gateway.port) as watcher:
        assert (await watcher.connect(token=home.token, scopes=ALL_SCOPES)).admitted
        async with await Attacker.at(gateway.port) as client:
            outcome = await client.connect(token=home.token, device=device, scopes=["operator.read"])
        token = outcome.hello["auth"]["deviceToken"]
        for method, params in _everything(gateway):
            await watcher.send(frame(TEXT, watcher.request(method, params)))
        await watcher.send(frame(TEXT, watcher.request("health", id_="end")))
        heard = b""
        while (got := await watcher.read_frame()) is not None:
            heard += got.payload
            if got.json.get("id") == "end":
                break
        assert device.id.encode() in heard  # the sweep does see this device
        assert token.encode() not in heard
    assert token.encode() not in home.log


# --- V52

POISON = 'x\r\n{"level":"error","event":"forged"}\n\x1b[2J\x1b]0;owned\x07\x00\x7f\x85\u2028\u202e\u200b'


@pytest.mark.expect_error_log("handler failed")
async def test_v52_nothing_a_peer_sends_makes_a_second_line_or_moves_a_terminal(home: Home) -> None:
    async with home.open() as gateway:
        port = gateway.port
        headers = {
            "user_agent": "x\x1b[2Jy\x85\xa0\xad",
            "x_forwarded_for": "x\x1b[31m",
            "forwarded": "for=\x1b[2J",
            "sec_websocket_protocol": "forged",
        }
        raw = ["openclaw-control-ui", "webchat"]
        poisoned: tuple[dict[str, Any], ...] = (
            {"client": raw[0], "mode": raw[1]},
            {"role": POISON},
            {"scopes": [POISON]},
            {"client": POISON},
            {"mode": POISON},
            {"token": POISON},
        )
        for claims in poisoned:
            for extra in ({}, headers, {"origin": "http://x\x1b[2J\x85.example"}):
                async with await Attacker.at(port) as client:
                    # Odd header bytes may cost the upgrade (400); dropped without an answer it must not be.
                    await client.send(client.upgrade_request(**extra))
                    status, _ = await client.read_head()
                    assert status in {101, 400}
                    if status == 101:
                        params = client.params(**{"token": home.token, **claims})
                        await client.send(frame(TEXT, client.request("connect", params)))
                        await client.outcome()
        # Names and ids that are only shown, from a device that is let in and from one that asks.
        for claimed in ("displayName", "version", "platform", "instanceId", "deviceFamily", "modelIdentifier"):
            async with await Attacker.at(port) as client:
                await client.open()
                params = client.params(token=home.token)
                params["client"][claimed] = POISON
                await client.send(frame(TEXT, client.request("connect", params, id_="c" + POISON)))
                assert (await client.outcome()).admitted
                for method in (POISON, "health" + POISON, "\x1b]0;x\x07"):
                    await client.call(method, {POISON: POISON})
                await client.call(
                    "system-event", {"text": POISON, "host": POISON, "reason": POISON, "instanceId": POISON}
                )
                await client.send(frame(TEXT, POISON.encode()) + frame(BINARY, POISON.encode("utf-8")))
                await client.send(
                    frame(CLOSE, close_payload(4000, POISON.encode()[:100].decode("utf-8", "ignore").encode()))
                )
                while await client.read_frame() is not None:
                    pass
        async with remote_door(gateway) as far:
            for claimed in ("displayName", "platform", "version"):
                async with await Attacker.at(far) as client:
                    challenge = await client.open()
                    params = client.params(token=home.token)
                    params["client"][claimed] = "x\x1b[2J\ny"
                    device = Device()
                    params["device"] = device.prove(params, challenge)
                    params["device"]["id"] = POISON[:10] + params["device"]["id"]
                    await client.send(frame(TEXT, client.request("connect", params)))
                    assert not (await client.outcome()).admitted
        for path in ("/\x1b[2J", "/rpc\x85", "/rpc?x=%0d%0aforged", "/%0d%0aforged", "/health?\x1b[2J"):
            async with await Attacker.at(port) as client:
                lines = "Host: localhost\r\nUser-Agent: \x1b[2J\r\n"
                await client.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
                with trio.move_on_after(2):
                    await client.read_head()
        # A handler that fails puts the peer's text into a stack trace.
        gateway.rpc.method("fails", scope="operator.read", params=_Text)(_fail)
        async with await Attacker.at(port) as client:
            await client.connect(token=home.token)
            await client.call("fails", {"text": POISON})
    assert home.log.count(b"\n") > 30
    for line in home.log.split(b"\n")[:-1]:
        event = msgspec.json.decode(line)
        assert event["event"] != "forged"
        assert {"time", "level", "subsystem", "event"} <= event.keys()
    text = home.log.decode()
    allowed = {"\n", "…"}
    bad = {char for char in text if not char.isprintable() and char not in allowed}
    assert not bad, sorted(map(hex, map(ord, bad)))
    # JSON hides control bytes as escapes; who prints the fields after decoding must not get them back either.
    for raw_line in home.log.split(b"\n")[:-1]:
        for value in _texts(msgspec.json.decode(raw_line)):
            assert value.isprintable(), value


@attrs.frozen
class _Text:
    text: str


def _fail(context: Any, params: _Text) -> None:
    raise RuntimeError(params.text)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


async def test_v52_a_flood_of_one_event_does_not_fill_the_disk(home: Home) -> None:
    home.logging = attrs.evolve(home.logging, max_bytes=8192, backups=2)
    async with home.open() as gateway:
        for _ in range(200):
            async with await Attacker.at(gateway.port) as client:
                await client.connect(token="wrong")
        lines = [msgspec.json.decode(line) for line in home.log.splitlines()]
    assert sum(line["event"] == "auth refused" for line in lines) <= 1
    total = sum(path.stat().st_size for path in (home.folder / "logs").iterdir())
    assert total <= (home.logging.backups + 1) * (home.logging.max_bytes + 4096)
