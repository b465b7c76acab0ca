"""A gateway behind a pretended tailscaled: who comes in through the tailnet, the funnel, and round them.

Requests go through the data plane (TLS, headers rewritten as serve does) from loopback addresses that stand for the
tailnet's machines: 127.0.0.2 is user 2's phone, 127.0.0.1 this host itself, 127.9.9.9 the internet.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway.app import Gateway, open_gateway
from openclaw_gateway.client import Credentials, open_client
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, GatewayConfig, TailscaleConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.server.rules import tailnet_identity
from openclaw_gateway.testing import ScriptedPeer
from openclaw_gateway.testing.fake_tailscaled import FakeTailscaled, open_fake_tailscaled
from openclaw_gateway.testing.tailscale_dataplane import INTERNET
from openclaw_gateway.testing.tailscale_model import FakeNode

NAME = "gw.tail-test.ts.net"
ORIGIN = f"https://{NAME}"
PHONE, SELF = "127.0.0.2", "127.0.0.1"
SECRET = "a-token-of-more-than-twenty-four-characters"


@asynccontextmanager
async def open_both(
    folder: Path, *, mode: Any = "serve", auth: AuthConfig | None = None
) -> AsyncIterator[tuple[FakeTailscaled, Gateway]]:
    """Daemon and gateway, served."""
    auth = auth if auth is not None else AuthConfig(token=SECRET)
    async with open_fake_tailscaled(folder / "d.sock") as daemon:
        config = GatewayConfig(port=0, auth=auth, tailscale=TailscaleConfig(mode=mode, socket=daemon.path))
        async with open_gateway(config, env={}) as gateway:
            await daemon.data.wait_port(443)
            yield daemon, gateway


async def dial(daemon: FakeTailscaled, source: str) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection to the node's name from one machine."""
    sock = trio.socket.socket()
    await sock.bind((source, 0))
    await sock.connect(("127.0.0.1", daemon.data.ports[443]))
    context = ssl.create_default_context()
    daemon.authority.configure_trust(context)
    stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname=NAME, https_compatible=True)
    await stream.do_handshake()
    return stream


@asynccontextmanager
async def browser(
    daemon: FakeTailscaled, source: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[ScriptedPeer]:
    """A page of the gateway's own tailnet name that opened a WebSocket."""
    stream = await dial(daemon, source)
    try:
        peer = ScriptedPeer(stream)
        answer = await peer.upgrade(headers={"Host": NAME, "Origin": ORIGIN, **(headers or {})})
        assert answer.status_code == 101, answer
        yield peer
    finally:
        await trio.aclose_forcefully(stream)


async def refused(peer: ScriptedPeer, **who: Any) -> dict[str, Any]:
    with pytest.raises(CallFailed) as caught:
        await peer.connect(**who)
    details: dict[str, Any] = dict(caught.value.details or {})
    return details


def device() -> DeviceIdentity:
    return DeviceIdentity.generate()


async def request(stream: trio.abc.Stream, data: bytes) -> tuple[int, bytes]:
    await stream.send_all(data)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive_some(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    lengths = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    length = int(next(lengths))
    while len(body) < length:
        body += await stream.receive_some(65_536)
    return int(head.split()[1]), body


async def asked(daemon: FakeTailscaled, source: str, data: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    stream = await dial(daemon, source)
    try:
        return await request(stream, data)
    finally:
        await trio.aclose_forcefully(stream)


UI: dict[str, Any] = {"client_id": "openclaw-control-ui", "mode": "webchat", "scopes": ["operator.read"]}


async def test_s063_ts6_a_person_of_the_tailnet_comes_in_without_a_secret_once_paired(tmp_path: Path) -> None:
    who = device()
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, gateway):
            async with browser(daemon, PHONE) as peer:
                details = await refused(peer, device=who, **UI)
                assert details["code"] == "PAIRING_REQUIRED"  # S101: known, and a person is asked all the same
            outcome = await approve_all(gateway)
            assert outcome == 1
            async with browser(daemon, PHONE) as peer:
                hello = await peer.connect(device=who, **UI)
                assert hello["auth"]["method"] == "tailscale"
                assert (await peer.request("health"))["ok"]


async def approve_all(gateway: Gateway) -> int:
    """What a person does at the gateway's own host: approve whatever waits."""
    auth = Credentials(token=gateway.token)
    scopes = ("operator.pairing", "operator.admin")
    async with open_client(gateway.urls[0], auth=auth, client_id="cli", mode="cli", scopes=scopes) as client:
        listed = await client.call("device.pair.list")
        for pending in listed["pending"]:
            await client.call("device.pair.approve", {"requestId": pending["requestId"]})
        return len(listed["pending"])


async def test_v9_without_a_device_the_tailnet_opens_nothing(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            async with browser(daemon, PHONE) as peer:
                assert (await refused(peer, **UI))["code"] == "DEVICE_IDENTITY_REQUIRED"
            async with browser(daemon, PHONE) as peer:
                details = await refused(peer, device=device(), token="wrong", **UI)
                assert details["code"] == "AUTH_TOKEN_MISMATCH"  # V59: not outweighed by where somebody sits
            async with browser(daemon, PHONE) as peer:
                details = await refused(peer, device=device(), device_token="x" * 43, **UI)
                assert details["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
            async with browser(daemon, PHONE) as peer:
                details = await refused(peer, device=device(), bootstrap_token="x" * 43, **UI)
                assert details["code"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"


async def test_v58_this_host_itself_is_nobody(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, gateway), browser(daemon, SELF) as peer:
            details = await refused(peer, device=device(), **UI)
            assert details["code"] == "AUTH_TOKEN_MISSING"
            trails = [row.get("trail", ()) for row in await gateway.audit.recent(20)]
            assert any("tailscale: tailscale_self" in text for trail in trails for text in trail)


@pytest.mark.parametrize("source", [PHONE, INTERNET])
async def test_c6_behind_the_funnel_nobody_is_known(tmp_path: Path, source: str) -> None:
    auth = AuthConfig(type="token", token=SECRET, allow_tailscale=False)
    with trio.fail_after(20):
        async with open_both(tmp_path, mode="funnel", auth=auth) as (daemon, _), browser(daemon, source) as peer:
            assert (await refused(peer, device=device(), **UI))["code"] == "AUTH_TOKEN_MISSING"
        async with open_both(tmp_path, mode="funnel", auth=auth) as (daemon, gateway), browser(daemon, source) as peer:
            details = await refused(peer, device=device(), token=gateway.token, **UI)
            assert details["code"] == "PAIRING_REQUIRED"  # the secret counts, and a person is asked


async def test_s130_switched_off_the_tailnet_opens_nothing(tmp_path: Path) -> None:
    auth = AuthConfig(token=SECRET, allow_tailscale=False)
    with trio.fail_after(20):
        async with open_both(tmp_path, auth=auth) as (daemon, _), browser(daemon, PHONE) as peer:
            assert (await refused(peer, device=device(), **UI))["code"] == "AUTH_TOKEN_MISSING"


FORGED = {
    "Tailscale-User-Login": "user-2@fake-control.example.net",
    "Tailscale-User-Name": "User 2",
    "X-Forwarded-For": "100.64.0.2",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": NAME,
}


async def test_v36_v37_headers_on_the_ordinary_listener_give_nothing(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (_, gateway):
            async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
                peer = ScriptedPeer(stream)
                await peer.upgrade(headers=FORGED)
                assert (await refused(peer, device=device(), scopes=["operator.read"]))["code"] == "AUTH_TOKEN_MISSING"
            async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
                lines = "".join(f"{name}: {value}\r\n" for name, value in FORGED.items())
                body = b'{"jsonrpc":"2.0","id":1,"method":"health"}'
                head = f"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
                status, _ = await request(stream, head.encode() + body)
                assert status == 401


async def test_ts6_http_gets_the_same_verdict(tmp_path: Path) -> None:
    """POST /rpc brings no device: known or not, it is told that one is needed; unknown, that a token is."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"health"}'
    head = f"POST /rpc HTTP/1.1\r\nHost: {NAME}\r\nOrigin: {ORIGIN}\r\nContent-Type: application/json\r\n"
    call = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            status, answer = await asked(daemon, PHONE, call)
            assert (status, json.loads(answer)["error"]["details"]["code"]) == (403, "DEVICE_IDENTITY_REQUIRED")
            status, answer = await asked(daemon, SELF, call)
            assert (status, json.loads(answer)["error"]["details"]["code"]) == (401, "AUTH_TOKEN_MISSING")


async def test_identity_scopes_let_a_person_in_without_a_device_over_both(tmp_path: Path) -> None:
    auth = AuthConfig(token=SECRET, identity_scopes={"USER-2@fake-control.example.net": ("operator.read",)})
    body = b'{"jsonrpc":"2.0","id":1,"method":"health"}'
    head = f"POST /rpc HTTP/1.1\r\nHost: {NAME}\r\nOrigin: {ORIGIN}\r\nContent-Type: application/json\r\n"
    with trio.fail_after(20):
        async with open_both(tmp_path, auth=auth) as (daemon, _):
            async with browser(daemon, PHONE) as peer:
                hello = await peer.connect(**{**UI, "scopes": ["operator.admin"]})
                assert hello["auth"]["scopes"] == []  # admin was asked for; read is what there is
            async with browser(daemon, PHONE) as peer:
                assert (await peer.connect(**UI))["auth"]["scopes"] == ["operator.read"]
            status, answer = await asked(daemon, PHONE, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert status == 200
            assert json.loads(answer)["result"]["ok"] is True


async def test_what_a_client_of_the_tailnet_forges_is_dropped_and_a_tagged_machine_is_nobody(tmp_path: Path) -> None:
    tagged = FakeNode(
        id=3, name="ci", user=2, ips=("100.64.0.3", "fd7a:115c:a1e0::3"), key="0" * 64, source="127.0.0.3",
        tags=("tag:ci",),
    )  # fmt: skip
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            daemon.model.peers.append(tagged)
            async with browser(daemon, "127.0.0.3", {**FORGED}) as peer:
                assert (await refused(peer, device=device(), **UI))["code"] == "AUTH_TOKEN_MISSING"


async def test_a_name_that_is_not_ascii_is_read(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            daemon.model.users[2].login = "Jürgen@fake-control.example.net"
            async with browser(daemon, PHONE) as peer:
                assert (await refused(peer, device=device(), **UI))["code"] == "PAIRING_REQUIRED"


@pytest.mark.parametrize("kind", ["hang", "eof", "503", "garbage"])
async def test_a_whois_that_fails_lets_nobody_in_and_hangs_nobody(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openclaw_gateway.tailscale import identity

    monkeypatch.setattr(identity, "WHOIS_SECONDS", 0.3)
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            daemon.inject("whois", kind, times=None)
            async with browser(daemon, PHONE) as peer:
                assert (await refused(peer, device=device(), **UI))["code"] == "AUTH_TOKEN_MISSING"


async def test_v36_the_listener_serves_tailscaled_alone(tmp_path: Path) -> None:
    """Another user of this host finds the port and writes what tailscaled would write: the kernel tells them apart."""
    if os.geteuid() != 0:
        pytest.skip("needs to become another user")
    with trio.fail_after(20):
        async with open_both(tmp_path) as (_, gateway):
            listener = gateway.listening.get("tailscale")
            assert listener is not None
            lines = "".join(f"{name}: {value}\r\n" for name, value in {**FORGED, "Host": NAME}.items())
            asked = f"GET /health HTTP/1.1\r\n{lines}\r\n"
            program = (
                "import os, socket, sys; import encodings.idna\n"
                "os.setuid(int(sys.argv[1]))\n"
                f"s = socket.create_connection(('127.0.0.1', {listener.port}), 5)\n"
                f"s.sendall({asked!r}.encode())\n"
                "try: print(len(s.recv(100)))\n"
                "except ConnectionError: print(0)\n"
            )
            said = {}
            for uid in (0, 65534):
                found = await trio.run_process([sys.executable, "-c", program, str(uid)], capture_stdout=True)
                said[uid] = int(found.stdout)
            assert said[0] > 0
            assert said[65534] == 0


async def test_an_upgrade_may_be_the_nth_request_of_a_pooled_connection(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            get = f"GET /health HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
            for _ in range(3):
                assert (await asked(daemon, PHONE, get))[0] == 200
            async with browser(daemon, PHONE) as peer:
                await peer.expect_event("connect.challenge")
            assert daemon.data.backend_connections == 1
            assert daemon.data.backend_requests == 4


async def test_another_host_is_the_daemons_404_and_another_origin_is_refused(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            assert (await asked(daemon, PHONE, b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"))[0] == 404
            async with browser(daemon, PHONE, {"Origin": "https://evil.example"}) as peer:
                assert (await refused(peer, device=device(), **UI))["code"] == "CONTROL_UI_ORIGIN_NOT_ALLOWED"


async def test_v57_h2c_through_serve_gets_nothing(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, _):
            head = f"GET /health HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            status, _ = await asked(daemon, PHONE, f"{head}HTTP2-Settings: AAMAAABk\r\n\r\n".encode())
            assert status == 400


async def test_setup_codes_name_the_tailnet_and_status_tells(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, gateway):
            auth = Credentials(token=gateway.token)
            async with open_client(gateway.urls[0], auth=auth, client_id="cli", mode="cli") as client:
                status = (await client.call("status"))["tailscale"]
            admin = ("operator.admin",)
            async with open_client(gateway.urls[0], auth=auth, client_id="cli", mode="cli", scopes=admin) as client:
                made = await client.call("device.pair.setupCode", {})
            assert status["state"] == "serving"
            assert status["url"] == f"https://{NAME}/"
            assert status["dnsName"] == NAME
            assert gateway.tailnet.dns_name == NAME
            assert made["gatewayUrl"] == f"wss://{NAME}"
            assert "100.64.0.1" in gateway.gatekeeper.rules.admission.own_tailnet_addresses  # S099
            daemon.move("moved", ("100.64.0.9", "fd7a:115c:a1e0::9"))
            while "100.64.0.9" not in gateway.tailnet.addresses:
                await trio.testing.wait_all_tasks_blocked(0.02)
            assert "100.64.0.9" in gateway.gatekeeper.rules.admission.own_tailnet_addresses
            assert "100.64.0.1" not in gateway.gatekeeper.rules.admission.own_tailnet_addresses


async def test_switching_identity_off_ends_who_came_in_by_it(tmp_path: Path) -> None:
    who = device()
    with trio.fail_after(20):
        async with open_both(tmp_path) as (daemon, gateway):
            async with browser(daemon, PHONE) as peer:
                await refused(peer, device=who, **UI)
            await approve_all(gateway)
            async with browser(daemon, PHONE) as peer:
                await peer.connect(device=who, **UI)
                off = AuthConfig(token=SECRET, allow_tailscale=False)
                gateway.apply(attrs.evolve(gateway.config, auth=off), gateway.auth)
                assert (await peer.wait_closed()).code == 1012


async def test_s126_the_mode_is_switched_while_the_gateway_runs(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_fake_tailscaled(tmp_path / "d.sock") as daemon:
            config = GatewayConfig(port=0, auth=AuthConfig(token=SECRET), tailscale=TailscaleConfig(socket=daemon.path))
            async with open_gateway(config, env={}) as gateway:
                assert gateway.tailnet.exposure is None  # nothing of it is loaded or dialled until it is wanted
                assert daemon.api.requests == []
                serve = attrs.evolve(config, tailscale=attrs.evolve(config.tailscale, mode="serve"))
                gateway.apply(serve, gateway.auth)
                await daemon.data.wait_port(443)
                async with browser(daemon, PHONE) as peer:
                    await peer.expect_event("connect.challenge")
                    gateway.apply(config, gateway.auth)
                    await peer.wait_closed()  # the door closes, and who came in by it goes
                await daemon.api.wait_unwatched()
                assert daemon.model.config == {}
                assert gateway.listening.get("tailscale") is None


def config_text(socket_path: Path, port: int, **more: Any) -> str:
    tailscale = {"mode": "serve", "socket": str(socket_path), **more}
    return json.dumps({"gateway": {"port": port, "auth": {"token": SECRET}, "tailscale": tailscale}})


@pytest.mark.parametrize("backend", ["socket", "command"])
async def test_kill_9_of_the_gateway_releases_the_claim(tmp_path: Path, backend: str) -> None:
    from openclaw_gateway.testing.fake_tailscale import write_command
    from tests.cli.program import Program, free_port

    program = Program(tmp_path / "state")
    with trio.fail_after(40):
        async with open_fake_tailscaled(tmp_path / "d.sock") as daemon:
            more = {"command": str(write_command(tmp_path, daemon.path))} if backend == "command" else {}
            program.config(config_text(daemon.path, free_port(), **more))
            process = await trio.lowlevel.open_process(
                [*program.argv, "gateway", "run"], env=program.environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                await daemon.data.wait_port(443)
                process.kill()
                await process.wait()
                await daemon.api.wait_unwatched()
                assert daemon.model.config == {}
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def test_ts4_status_shows_state_and_fix_and_exits_0(tmp_path: Path) -> None:
    from tests.cli.program import Program, free_port

    program = Program(tmp_path / "state")
    with trio.fail_after(40):
        async with open_fake_tailscaled(tmp_path / "d.sock") as daemon:
            daemon.set_state("NeedsLogin", auth_url="https://login.tailscale.com/a/1")
            program.config(config_text(daemon.path, free_port()))
            process = await trio.lowlevel.open_process(
                [*program.argv, "gateway", "run"],
                env=program.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                await daemon.api.wait_watched()
                row = await status_row(program)
                while "needs-login" not in row["text"]:
                    row = await status_row(program)
                assert row["state"] == "unknown"
                assert "https://login.tailscale.com/a/1" in row["text"]
                assert row["fix"] == "tailscale up"
                daemon.set_state("Running")
                await daemon.data.wait_port(443)
                while row["state"] != "ok":
                    row = await status_row(program)
                assert f"https://{NAME}/" in row["text"]
            finally:
                process.terminate()
                assert await process.wait() == 0


async def status_row(program: Any) -> dict[str, Any]:
    """The row of ``openclaw status --json``; the command ends with 0 whatever it says."""
    found = await trio.run_process(
        [*program.argv, "status", "--json"], env=program.environment, capture_stdout=True, check=True
    )
    rows = {row["name"]: row for row in json.loads(found.stdout)["rows"]}
    return dict(rows["tailscale"])


@pytest.mark.parametrize("trouble", ["absent", "hung", "logged-out"])
async def test_ts1_health_is_there_within_a_second_whatever_tailscale_does(tmp_path: Path, trouble: str) -> None:
    """The start, the answer of /health and /readyz, and the exit status are the same as without tailscale."""
    from tests.cli.program import Program, free_port

    program, port = Program(tmp_path / "state"), free_port()
    with trio.fail_after(40):
        async with open_fake_tailscaled(tmp_path / "d.sock") as daemon:
            if trouble == "absent":
                await daemon.stop()
            elif trouble == "hung":
                daemon.inject("", "hang", times=None)
            else:
                daemon.set_state("NeedsLogin", auth_url="https://login.tailscale.com/a/1")
            program.config(config_text(daemon.path, port))
            process = await trio.lowlevel.open_process(
                [*program.argv, "gateway", "run"], env=program.environment, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert process.stdout is not None
            try:
                while b"listens on ws://" not in await process.stdout.receive_some(65_536):
                    pass
                with trio.fail_after(5.0):  # a second, and what a busy machine adds
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        for path in ("health", "readyz"):
                            call = f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
                            assert (await request(stream, call))[0] == 200
                process.terminate()
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await process.stdout.aclose()


@pytest.mark.parametrize(
    ("mode", "kind", "given", "counts"),
    [
        ("serve", "token", None, True),
        ("serve", "password", None, False),
        ("serve", "password", True, True),
        ("serve", "token", False, False),
        ("funnel", "password", None, False),
        ("funnel", "password", True, False),
        ("funnel", "token", True, False),
        ("off", "token", True, False),
    ],
)
def test_c6_where_the_tailnets_word_counts(mode: Any, kind: Any, given: bool | None, counts: bool) -> None:
    auth = AuthConfig(type=kind, token=SECRET, allow_tailscale=given)
    assert tailnet_identity(GatewayConfig(auth=auth, tailscale=TailscaleConfig(mode=mode))) is counts
