"""``openclaw doctor --network`` and ``remote advise`` over a real gateway, asked from outside its process."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.ops.doctor_network import (
    MAX_DOORS,
    _doors_of,
    _tailscale_door,
    _tunnel_doors,
    look_around,
    ssh_answers,
)
from openclaw_gateway.policy.exposure import Door
from tests.cli.program import Program, free_port

TOKEN = "token-of-the-network-doctor-tests-0123456789"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path / "state", {"HOME": str(tmp_path)})
    config = {
        "gateway": {
            "port": free_port(),
            "auth": {"type": "token", "token": TOKEN},
            "publicUrl": f"http://127.0.0.1:{free_port()}",
            "trustedProxies": ["127.0.0.1"],
            "listeners": [
                {"name": "secure", "port": free_port(), "bind": "127.0.0.2", "tls": True, "scopes": ["operator.read"]},
                {"name": "behind", "port": free_port(), "proxyProtocol": True},
            ],
        }
    }
    made.config(json.dumps(config))
    return made


def test_every_listener_is_found_and_asked_with_its_certificate_pinned(program: Program) -> None:
    with program.foreground():
        done = program("doctor", "--network", "--json")
        assert done.returncode == 1, done.stderr  # publicUrl is in clear
        report = json.loads(done.stdout)
        assert (report["ok"], report["trouble"], report["failed"]) == (False, None, 1)
        rows: dict[str, Any] = {}
        for row in report["doors"]:
            rows.setdefault(row["listener"] if row["kind"] != "proxy" else "proxy", row)
        main, secure, proxy = rows["main"], rows["secure"], rows["proxy"]
        assert (main["kind"], main["answers"], main["state"], main["tls"]) == ("loopback", True, "ok", False)
        assert 0 < main["roundTripMs"] < 3000
        assert main["who"].startswith("programs on this host")
        assert (secure["url"].split(":")[0], secure["answers"], secure["tls"]) == ("https", True, True)
        assert secure["tlsFingerprint"]
        assert "at most operator.read" in secure["who"]
        assert (rows["behind"]["answers"], rows["behind"]["state"]) == (False, "ok")
        assert rows["behind"]["who"].startswith("proxies in gateway.trustedProxies")
        assert (proxy["state"], proxy["fix"]) == ("fail", "openclaw config set gateway.publicUrl https://<name>")
        assert TOKEN not in done.stdout
        text = program("doctor", "--network")
        assert text.returncode == 1
        assert "published in clear" in text.stdout
        assert "fix: openclaw config set gateway.publicUrl" in text.stdout
        advised = json.loads(program("remote", "advise", "--for", "enterprise", "--json").stdout)
        assert advised["recipe"] == "reverse-proxy"
        assert "on the other one:" in program("remote", "advise").stdout


def test_a_gateway_that_does_not_run_is_the_finding(program: Program) -> None:
    done = program("doctor", "--network", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert (report["trouble"], report["fix"]) == ("no gateway runs here", "openclaw gateway start")


def test_a_wrong_secret_on_this_side_still_shows_the_doors(program: Program) -> None:
    with program.foreground():
        program.config(json.dumps({"gateway": {"auth": {"type": "token", "token": "x" * 43}, "port": 1}}))
        stale = Program(program.state, {**program.env, "OPENCLAW_CONFIG_PATH": str(program.state / "other.json")})
        (program.state / "other.json").write_text('{ gateway: { auth: { type: "token", token: "' + "y" * 43 + '" } } }')
        (program.state / "other.json").chmod(0o600)
        report = look_around(stale.environment)
        assert report.trouble is not None
        assert "cannot be asked" in report.trouble
        assert any(door.listener == "main" and door.answers for door, _ in report.doors)


def test_a_listener_on_every_address_is_a_door_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("192.168.1.4", "2001:db8::4")
    monkeypatch.setattr("openclaw_gateway.server.ownaddresses.own_lan_addresses", lambda: own)
    monkeypatch.setattr("openclaw_gateway.server.addresses.own_tailnet_address", lambda: "100.64.0.9")

    def urls(host: str) -> list[tuple[str, str]]:
        found = _doors_of({"name": "main", "addresses": [{"host": host, "port": 7}], "tls": False}, "token")
        return [(door.kind, door.url) for door in found]

    assert urls("0.0.0.0") == [
        ("loopback", "http://127.0.0.1:7"), ("lan", "http://192.168.1.4:7"), ("tailnet", "http://100.64.0.9:7"),
    ]  # fmt: skip
    assert ("lan", "http://[2001:db8::4]:7") in urls("::")
    assert urls("127.0.0.1") == [("loopback", "http://127.0.0.1:7")]
    assert _doors_of({"addresses": [{"host": "127.0.0.1", "port": 1}], "provenance": "tailscale-serve"}, "token") == []


def test_tailscale_and_tunnels_are_told_by_the_gateways_own_status() -> None:
    assert _tailscale_door({"tailscale": {"mode": "off", "state": "off"}}, "token") == []
    served = _tailscale_door({"tailscale": {"mode": "serve", "state": "serving", "url": "https://gw.ts.net"}}, "token")
    assert [(door.kind, door.url, door.answers) for door in served] == [("serve", "https://gw.ts.net", None)]
    status = {"tailscale": {"mode": "funnel", "state": "logged-out", "reason": "logged out", "url": None}}
    (door,) = _tailscale_door(status, "password")
    assert (door.kind, door.answers, door.fault) == ("funnel", False, "logged out")
    rows = [
        {"name": "office", "direction": "remote", "state": "up", "target": "me@h", "bindPort": 1},
        {"name": "down", "direction": "remote", "state": "waiting", "message": "no route", "target": "h"},
        {"name": "there", "direction": "local", "state": "up"},
    ]
    assert [(door.listener, door.answers, door.fault) for door in _tunnel_doors({"tunnels": rows}, "token")] == [
        ("office", True, None), ("down", False, "no route"),
    ]  # fmt: skip


async def test_an_ssh_server_is_known_by_its_greeting() -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    async def grumble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        for handler, right in ((greet, True), (grumble, False)):
            listeners: Any = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
            assert await ssh_answers("127.0.0.1", listeners[0].socket.getsockname()[1]) is right
        nursery.cancel_scope.cancel()
    assert await ssh_answers("127.0.0.1", free_port()) is False


def test_the_number_of_doors_has_a_cap() -> None:
    many = [{"host": f"127.0.1.{number}", "port": 1} for number in range(MAX_DOORS)]
    assert len(_doors_of({"addresses": many}, "token")) == MAX_DOORS
    assert Door(kind="lan", url="x").answers is None
