"""nginx in front, with the configuration text of docs/how-to/nginx.md: WebSocket on kept-alive connections, who is who,
people that nginx signs in, and the h2c attack (S065, V3, V36, V57).
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.schema import ControlUiConfig
from openclaw_gateway.nodes.host.loop import approval_link
from openclaw_gateway.rpc.table import CallContext, NoParams
from tests.approvals.visitor import Page as VisitedPage
from tests.approvals.visitor import knock
from tests.attacks.attacker import TOKEN, Attacker, Device, open_victim, rpc
from tests.attacks.test_http import UPGRADES, H2cAttack

from .running import NAME, Certificate, blocks, filled, free_port, need, running, tls_client

PAGE = "nginx.md"
SECRET = "ab" * 32
PASSWORD = "the password of nginx"
# What many pages on the net say: it forwards every upgrade that a client asks for.
NAIVE = """
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://127.0.0.1:{gateway};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "$http_connection";
        proxy_set_header X-Forwarded-For $remote_addr;
    }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, port: int, http_block: str) -> AsyncIterator[None]:
    """A real nginx with this text inside its ``http`` block."""
    program = need("nginx")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\nworker_processes 1;\npid {folder}/pid;\nuser root;\nerror_log stderr warn;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{http_block}\n}}\n"
    )
    with running([program, "-p", str(folder), "-c", str(main), "-e", "stderr"], port, log=folder / "log"):
        yield


def documented(gateway: Gateway, port: int, certificate: Certificate, *, location: str = "") -> str:
    site, _ = blocks(PAGE, "nginx")
    places = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/claw.example.com.pem": str(certificate.pem),
        "/etc/ssl/claw.example.com.key": str(certificate.key),
        "server 127.0.0.1:18789": f"server 127.0.0.1:{gateway.port}",
    }
    if location:
        places['        proxy_set_header X-OpenClaw-Proxy-Secret "";\n'] = location
    return filled(site, places)


def seen_addresses(gateway: Gateway) -> list[str]:
    """A method ``who`` that notes the address its caller is taken for."""
    seen: list[str] = []

    def who(context: CallContext, params: NoParams) -> None:
        seen.append(context.client_address)

    gateway.rpc.method("who", scope="operator.read")(who)
    return seen


async def paired(gateway: Gateway, client: Attacker, device: Device) -> None:
    """Approve the request that ``client`` has just left."""
    async with await Attacker.at(gateway.port) as owner:
        assert (await owner.connect(token=TOKEN)).admitted
        pending = (await owner.call("device.pair.list"))["payload"]["pending"]
        request = next(row["requestId"] for row in pending if row["deviceId"] == device.id)
        assert (await owner.call("device.pair.approve", {"requestId": request}))["ok"]


async def get(client: Attacker, path: str = "/health", **headers: str) -> int:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await client.send(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n".encode())
    status, received = await client.read_head()
    await client.read_body(received)
    return status


async def test_s065_websockets_pass_through_nginx_on_kept_alive_connections(tmp_path: Path) -> None:
    certificate, port, device = Certificate(tmp_path), free_port(), Device()
    async with (
        open_victim(trusted_proxies=("127.0.0.1/32",), public_url=f"https://{NAME}") as gateway,
        nginx(tmp_path, port, documented(gateway, port, certificate)),
    ):
        seen = seen_addresses(gateway)
        for number in range(4):
            async with tls_client(port, certificate, source="127.0.0.9") as client:
                for _ in range(3):
                    assert await get(client) == 200
                # Forged on the way in; nginx writes its own.
                forged = {"x_forwarded_for": "127.0.0.1", "x_forwarded_proto": "http", "forwarded": "for=10.0.0.1"}
                outcome = await client.connect(
                    token=TOKEN, device=device, scopes=["operator.read"], headers={"host": NAME, **forged}
                )
                if number == 0:
                    assert outcome.detail == "PAIRING_REQUIRED"
                    await paired(gateway, client, device)
                    continue
                assert outcome.admitted, outcome
                assert (await client.call("who"))["ok"]
                await client.assert_alive()
                await client.leave()
        assert seen == ["127.0.0.9"] * 3
        # An API key's rule needs to know that the client's side is encrypted: nginx says so, and is believed.
        async with await Attacker.at(gateway.port) as owner:
            assert (await owner.connect(token=TOKEN)).admitted


async def test_v3_v13_behind_nginx_a_foreign_page_and_a_stranger_are_what_they_are(tmp_path: Path) -> None:
    certificate, port = Certificate(tmp_path), free_port()
    async with (
        open_victim(trusted_proxies=("127.0.0.1/32",)) as gateway,
        nginx(tmp_path, port, documented(gateway, port, certificate)),
    ):
        for headers, detail in (
            ({"host": "localhost"}, "DEVICE_IDENTITY_REQUIRED"),
            ({"host": NAME, "origin": f"https://{NAME}"}, "CONTROL_UI_ORIGIN_NOT_ALLOWED"),
            ({"host": NAME, "origin": "https://evil.example"}, "CONTROL_UI_ORIGIN_NOT_ALLOWED"),
        ):
            async with tls_client(port, certificate) as client:
                assert (await client.connect(token=TOKEN, headers=headers)).detail == detail
        # Beside the proxy, a program on this host is still local.
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(token=TOKEN)).admitted


@pytest.mark.parametrize("kind", ["documented", "naive"])
async def test_v57_the_h2c_attack_through_nginx_gets_nothing(kind: str, tmp_path: Path) -> None:
    certificate, port = Certificate(tmp_path), free_port()
    async with open_victim(trusted_proxies=("127.0.0.1/32",)) as gateway:
        seen = seen_addresses(gateway)
        naive = NAIVE.format(port=port, gateway=gateway.port)
        async with nginx(tmp_path, port, naive if kind == "naive" else documented(gateway, port, certificate)):
            for token, *extra in UPGRADES:
                if kind == "naive":
                    async with await Attacker.at(port) as client:
                        assert await H2cAttack(client).upgrade(token, *extra) != 101, (token, extra)
                else:
                    async with tls_client(port, certificate) as client:
                        assert await H2cAttack(client).upgrade(token, *extra) != 101, (token, extra)
        assert seen == []


def configured(tmp_path: Path) -> dict[str, Any]:
    """The page's own openclaw.json, read as a start reads it."""
    text = blocks(PAGE, "json5")[0]
    path = tmp_path / "openclaw.json"
    path.write_text(text)
    path.chmod(0o600)
    env = {"OPENCLAW_GATEWAY_TOKEN": TOKEN, "OPENCLAW_PROXY_SECRET": SECRET, "OPENCLAW_STATE_DIR": str(tmp_path)}
    loaded = load_config(env=env, path=path)
    assert loaded.issues == ()
    assert loaded.ignored == ()
    config = loaded.config
    return {"auth": config.auth, "trusted_proxies": config.trusted_proxies, "public_url": config.public_url,
            "control_ui": config.control_ui}  # fmt: skip


async def test_v36_a_person_whom_nginx_signs_in_comes_in_by_name(tmp_path: Path) -> None:
    certificate, port = Certificate(tmp_path), free_port()
    hashed = (await trio.run_process(["openssl", "passwd", "-apr1", PASSWORD], capture_stdout=True)).stdout.decode()
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"nick:{hashed}mallory:{hashed}")
    location = filled(
        blocks(PAGE, "nginx")[1],
        {"/etc/nginx/openclaw.htpasswd": str(passwords), "the secret of openssl rand -hex 32": SECRET},
    )
    async with open_victim(**configured(tmp_path)) as gateway:
        seen = seen_addresses(gateway)
        # A client on this host is never attributed (V35); nginx's own real_ip module gives it an address elsewhere.
        elsewhere = "set_real_ip_from 127.0.0.0/8;\nreal_ip_header X-Test-Client;\n"
        site = elsewhere + documented(gateway, port, certificate, location=location)
        async with nginx(tmp_path, port, site):

            def signed_in(user: str) -> str:
                return "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()

            async with tls_client(port, certificate, source="127.0.0.9") as client:
                assert await get(client) == 401
                assert await get(client, Authorization=signed_in("nick")) == 200
                headers = {"host": NAME, "authorization": signed_in("nick"), "origin": f"https://{NAME}"}
                headers["x_test_client"] = "198.51.100.9"
                forged = {"x_forwarded_user": "root", "x_openclaw_proxy_secret": "x"}
                outcome = await client.connect(
                    client="openclaw-control-ui", mode="webchat", headers={**headers, **forged}
                )
                assert outcome.scopes == {"operator.read", "operator.write"}, outcome
                assert (await client.call("who"))["ok"]
                assert (await client.call("config.patch", {"raw": "{}"}))["error"]["details"]["code"] == "MISSING_SCOPE"
            assert seen == ["198.51.100.9"]
            async with tls_client(port, certificate) as client:  # V35: from this host a name is not believed
                headers = {"host": NAME, "authorization": signed_in("nick")}
                outcome = await client.connect(headers=headers)
                assert outcome.error["details"]["authReason"] == "proxy_attribution_required"
            async with tls_client(port, certificate) as client:
                headers = {"host": NAME, "authorization": signed_in("mallory"), "x_forwarded_user": "nick"}
                outcome = await client.connect(headers={**headers, "x_test_client": "198.51.100.9"})
                assert outcome.error["details"]["authReason"] == "trusted_proxy_user_not_allowed"
            async with await Attacker.at(gateway.port) as client:  # past nginx, from this host
                headers = {"x_forwarded_user": "nick", "x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "https"}
                assert not (await client.connect(headers=headers)).admitted


async def test_s091_the_approval_page_works_behind_a_path_of_nginx(tmp_path: Path) -> None:
    """Its form goes back to where the page came from, and the browser's Origin is the name that nginx serves."""
    certificate, port = Certificate(tmp_path), free_port()
    own = f"https://{NAME}"
    ui = ControlUiConfig(allowed_origins=(own,))
    async with open_victim(trusted_proxies=("127.0.0.1",), control_ui=ui) as gateway:
        text = documented(gateway, port, certificate).replace("location / {", "location /claw/ {")
        text = text.replace("proxy_pass http://openclaw;", "proxy_pass http://openclaw/;")
        _, made = await rpc(gateway.port, "tokens.create", {"name": "page", "scopes": ["operator.admin"]})
        request_id = await knock(gateway, DeviceIdentity.generate())
        async with nginx(tmp_path, port, text), tls_client(port, certificate) as client:

            async def ask(method: str, path: str, form: Mapping[str, str] | None = None) -> VisitedPage:
                body = urlencode(form or {}).encode()
                kind = f"Content-Type: application/x-www-form-urlencoded\r\nOrigin: {own}\r\n" if form else ""
                head = f"Host: {NAME}\r\n{kind}Sec-Fetch-Site: same-origin\r\nContent-Length: {len(body)}\r\n"
                await client.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
                status, headers = await client.read_head()
                return VisitedPage(status, headers, (await client.read_body(headers)).decode())

            link = approval_link(f"wss://{NAME}/claw", request_id)
            assert link == f"{own}/claw/nodes/approve?request={request_id}"
            page = await ask("GET", link.removeprefix(own))
            action = page.raw.split('action="')[1].split('"')[0]
            target = urlsplit(urljoin(link, action)).path
            assert target == "/claw/nodes/approve"
            assert "API key" in page.text
            key = made["result"]["key"]
            shown = await ask("POST", target, {"step": "show", "request": request_id, "secret": key})
            assert shown.status == 200
            assert (await ask("POST", target, shown.buttons["approve"])).heading == "Approved"
