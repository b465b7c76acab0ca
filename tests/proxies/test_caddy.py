"""Caddy in front, with the configuration text of docs/how-to/caddy.md (S065, V57)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from openclaw_gateway import Gateway
from tests.attacks.attacker import TOKEN, Device, open_victim
from tests.attacks.test_http import UPGRADES, H2cAttack

from .running import NAME, Certificate, blocks, filled, free_port, need, running, tls_client
from .test_nginx import SECRET, configured, get, paired, seen_addresses

PAGE = "caddy.md"


@asynccontextmanager
async def caddy(
    folder: Path, gateway: Gateway, port: int, certificate: Certificate, people: str = ""
) -> AsyncIterator[None]:
    program = need("caddy")
    site, signed_in = blocks(PAGE, "caddyfile")
    own = f"{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate.pem} {certificate.key}\n"
    places = {f"{NAME} {{\n": own, "reverse_proxy 127.0.0.1:18789": f"reverse_proxy 127.0.0.1:{gateway.port}"}
    if people:
        places["\t\theader_up -X-OpenClaw-Proxy-Secret\n"] = signed_in
        # A client on this host is never attributed (V35): the test says where it would be.
        places["X-Forwarded-For {remote_host}"] = "X-Forwarded-For {http.request.header.X-Test-Client}"
        places["\treverse_proxy"] = f"\t{people}\n\treverse_proxy"
        places = dict(reversed(places.items()))  # the port is filled into what the line above has left
    text = site
    for place, value in places.items():
        text = filled(text, {place: value})
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "OPENCLAW_PROXY_SECRET": SECRET}
    argv = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    with running(argv, port, log=folder / "log", env=env):
        yield


async def test_s065_websockets_pass_through_caddy_and_the_client_is_who_caddy_says(tmp_path: Path) -> None:
    certificate, port, device = Certificate(tmp_path), free_port(), Device()
    async with (
        open_victim(trusted_proxies=("127.0.0.1/32",), public_url=f"https://{NAME}") as gateway,
        caddy(tmp_path, gateway, port, certificate),
    ):
        seen = seen_addresses(gateway)
        for number in range(3):
            async with tls_client(port, certificate, source="127.0.0.9") as client:
                assert await get(client) == 200
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
        assert seen == ["127.0.0.9"] * 2


async def test_v57_the_h2c_attack_through_caddy_gets_nothing(tmp_path: Path) -> None:
    certificate, port = Certificate(tmp_path), free_port()
    async with (
        open_victim(trusted_proxies=("127.0.0.1/32",)) as gateway,
        caddy(tmp_path, gateway, port, certificate),
    ):
        for token, *extra in UPGRADES:
            async with tls_client(port, certificate) as client:
                assert await H2cAttack(client).upgrade(token, *extra) != 101, (token, extra)


async def test_v36_a_person_whom_caddy_signs_in_comes_in_by_name(tmp_path: Path) -> None:
    import base64

    import bcrypt

    certificate, port = Certificate(tmp_path), free_port()
    hashed = base64.b64encode(bcrypt.hashpw(b"pass", bcrypt.gensalt(4))).decode()
    people = f"basicauth bcrypt {{\n\t\tnick {hashed}\n\t}}"
    async with (
        open_victim(**configured(tmp_path)) as gateway,
        caddy(tmp_path, gateway, port, certificate, people),
    ):
        async with tls_client(port, certificate) as client:
            assert await get(client) == 401
        async with tls_client(port, certificate) as client:
            basic = "Basic " + base64.b64encode(b"nick:pass").decode()
            headers = {"host": NAME, "authorization": basic, "x_forwarded_user": "root"}
            headers["x_test_client"] = "198.51.100.9"
            outcome = await client.connect(headers=headers)
            assert outcome.scopes == {"operator.read", "operator.write"}, outcome
