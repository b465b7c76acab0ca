"""V16 and V17: an old secret after its rotation, and a secret that cannot be had. Real openclaw.json, real reload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.config.issues import ConfigError
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.schema import AuthConfig, GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth, resolve_auth
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from openclaw_gateway.server import passwords
from tests.websocket.rawclient import TEXT, frame

from .attacker import Attacker, Device, legit_client_works, open_victim, rpc

OLD, NEW = "the-old-token-0123456789abcdef", "the-new-token-0123456789abcdef"


class Home:
    """A state directory with an openclaw.json that tests rewrite."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.path = folder / "openclaw.json"
        self.env: Mapping[str, str] = {"OPENCLAW_STATE_DIR": str(folder), "HOME": str(folder), **variables}

    def write(self, **auth: Any) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"gateway": {"auth": auth}}))
        fresh.chmod(0o600)
        fresh.replace(self.path)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Gateway]:
        overrides = {"gateway.port": 0}
        loaded = load_config(env=self.env, overrides=overrides)
        async with open_gateway(loaded=loaded, overrides=overrides, env=self.env) as gateway:
            gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
            yield gateway


@pytest.fixture
def home(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    return Home(tmp_path)


async def test_v16_after_a_rotation_the_old_secret_opens_nothing(home: Home) -> None:
    home.write(type="token", token=OLD)
    device = Device()
    async with home.open() as gateway:
        held = await Attacker.at(gateway.port)
        assert (await held.connect(token=OLD)).admitted
        paired = await Attacker.at(gateway.port)
        own = await paired.connect(token=OLD, device=device, scopes=["operator.read"])
        jsonrpc = await Attacker.at(gateway.port)
        await jsonrpc.open(path=f"/?token={OLD}")
        await jsonrpc.send(frame(TEXT, b'{"method":"status","id":1}'))
        assert b"result" in (await jsonrpc.read_frame()).payload  # type: ignore[union-attr]
        keeps = await Attacker.at(gateway.port)
        by_itself = await keeps.connect(
            deviceToken=own.hello["auth"]["deviceToken"], device=device, scopes=["operator.read"]
        )
        assert by_itself.hello["auth"]["method"] == "device-token"

        home.write(type="token", token=NEW)
        for session in (held, paired, jsonrpc):  # everybody who came in with the shared secret is put out
            close = await session.read_close()
            assert (close.close_code, close.payload[2:]) == (1008, b"gateway credentials changed")
        await keeps.assert_alive()  # a device's own token was not rotated

        for path in ("/", f"/?token={OLD}"):
            async with await Attacker.at(gateway.port) as client:
                assert not (await client.connect(token=OLD, path=path)).admitted
        assert (await rpc(gateway.port, "health", token=OLD))[0] == 401
        async with await Attacker.at(gateway.port) as client:
            assert not (await client.connect(token=OLD, device=device, scopes=["operator.read"])).admitted
        await legit_client_works(gateway.port, token=NEW)
        for client in (held, paired, jsonrpc, keeps):
            await client.__aexit__()


async def test_v16_a_password_hash_that_matched_before_is_forgotten(home: Home) -> None:
    import bcrypt

    first, second = (
        bcrypt.hashpw(word, bcrypt.gensalt(4)).decode() for word in (b"first-Passw0rd", b"second-Passw0rd")
    )
    home.write(type="password", passwordHash=first)
    async with home.open() as gateway:
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(password="first-Passw0rd")).admitted
            home.write(type="password", passwordHash=second)
            assert (await client.read_close()).close_code == 1008
        async with await Attacker.at(gateway.port) as client:
            assert not (await client.connect(password="first-Passw0rd")).admitted
        assert (await rpc(gateway.port, "health", token="first-Passw0rd"))[0] == 401
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(password="second-Passw0rd")).admitted


async def test_v16_sessions_that_came_without_a_secret_end_when_one_is_asked_for() -> None:
    async with open_victim("none") as gateway, await Attacker.at(gateway.port) as client:
        assert (await client.connect()).hello["auth"]["method"] == "none"
        config = GatewayConfig(port=0, auth=AuthConfig(type="token", token=NEW))
        gateway.apply(config, resolve_auth(config, None, {}))
        with trio.fail_after(5):
            reply = await _call_or_close(client)
        assert reply == 1008


async def _call_or_close(client: Attacker) -> Any:
    """The answer to a privileged call, or the close code where there is none any more."""
    await client.send(frame(TEXT, client.request("set-heartbeats", {"enabled": False}, id_="late")))
    while True:
        got = await client.read_frame()
        if got is None:
            return None
        if got.opcode == 0x8:
            return got.close_code
        if got.json.get("id") == "late":
            return got.json


@pytest.mark.parametrize("way", ["websocket", "http"])
async def test_v16_a_secret_that_is_rotated_while_it_is_being_checked_opens_nothing(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bcrypt takes its time in a thread; a rotation in the meantime must win."""
    import threading

    import bcrypt

    word = "old-Passw0rd-of-ours"
    old = bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()
    started, go_on = threading.Event(), threading.Event()
    real = passwords.PasswordChecker._check

    def slow(self: passwords.PasswordChecker, raw: bytes) -> bool:
        started.set()
        go_on.wait(10)
        return real(self, raw)

    monkeypatch.setattr(passwords.PasswordChecker, "_check", slow)
    outcomes: list[bool] = []
    async with (
        open_victim("password", resolved=ResolvedAuth(type="password", password_hash=old)) as gateway,
        trio.open_nursery() as nursery,
    ):

        async def attack() -> None:
            if way == "http":
                outcomes.append((await rpc(gateway.port, "health", token=word))[0] == 200)
                return
            async with await Attacker.at(gateway.port) as client:
                outcome = await client.connect(password=word)
                outcomes.append(outcome.admitted and (await _call_or_close(client)) != 1008)

        nursery.start_soon(attack)
        await trio.to_thread.run_sync(started.wait, 10)
        config = GatewayConfig(port=0, auth=AuthConfig(type="token", token=NEW))
        gateway.apply(config, resolve_auth(config, None, {}))
        go_on.set()
    assert outcomes == [False]


# --- V17


REMOTE = "the-remote-token-0123456789abcdef"
KEPT = "the-kept-token-0123456789abcdefghijkl"


def test_v17_an_unresolvable_secret_closes_and_never_falls_through(home: Home) -> None:
    credentials = home.path.parent / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "gateway-token").write_text(KEPT)
    (credentials / "gateway-token").chmod(0o600)
    home.path.write_text(
        json.dumps(
            {
                "gateway": {
                    "auth": {"type": "token", "token": "${NO_SUCH_VARIABLE_HERE}"},
                    "remote": {"url": "wss://far.example", "token": REMOTE},
                }
            }
        )
    )
    home.path.chmod(0o600)
    env = {**home.env, "OPENCLAW_GATEWAY_TOKEN": "from-the-environment-0123456789", "PATH": os.environ["PATH"]}
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", "0"],
        env={**env, "PYTHONPATH": root}, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "NO_SUCH_VARIABLE_HERE" in done.stderr
    assert "listens on" not in done.stdout
    for secret in (REMOTE, KEPT, env["OPENCLAW_GATEWAY_TOKEN"]):
        assert secret not in done.stdout + done.stderr
    with pytest.raises(ConfigError):
        load_config(env=env)


async def test_v17_a_reload_to_an_unresolvable_secret_opens_no_other_source(home: Home) -> None:
    home.write(type="token", token=OLD)
    async with home.open() as gateway:
        home.write(type="token", token="${NO_SUCH_VARIABLE_HERE}", password=NEW)
        while not gateway.health.config_issues:  # noqa: ASYNC110 - the watcher tells nobody else
            await trio.sleep(0.01)
        for guess in (REMOTE, NEW, "", "${NO_SUCH_VARIABLE_HERE}", "undefined", "null"):
            for claim in ("token", "password"):
                async with await Attacker.at(gateway.port) as client:
                    outcome = await client.connect(**{claim: guess})
                    assert not outcome.admitted
        await legit_client_works(gateway.port, token=OLD)  # what was in force stays in force


@pytest.mark.parametrize("kind", ["token", "password", "trusted-proxy"])
async def test_v17_a_gateway_whose_secret_is_not_there_admits_nobody(kind: Any) -> None:
    async with open_victim("token", resolved=ResolvedAuth(type=kind)) as gateway:
        for guess in ("", "None", "null", "undefined", "\0", OLD):
            for claim in ("token", "password"):
                async with await Attacker.at(gateway.port) as client:
                    assert not (await client.connect(**{claim: guess})).admitted
                async with await Attacker.at(gateway.port) as client:
                    assert not (await client.connect(device=Device(), **{claim: guess})).admitted
        for token in (None, "None", OLD):
            assert (await rpc(gateway.port, "health", token=token))[0] in {401, 403}
        assert gateway._book.to_wire() == {"pending": [], "paired": []}
