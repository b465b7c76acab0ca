"""HAProxy in front, with the texts of docs/how-to/haproxy.md: HTTP, and the PROXY protocol (S065, V13, V57)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.schema import ListenerConfig
from tests.attacks.attacker import TOKEN, Attacker, Device, open_victim
from tests.attacks.test_http import UPGRADES, H2cAttack

from .running import NAME, Certificate, blocks, filled, free_port, need, running, tls_client
from .test_nginx import get, paired, seen_addresses

PAGE = "haproxy.md"
LISTENER = ListenerConfig(name="haproxy", port=0, proxy_protocol=True)


@asynccontextmanager
async def haproxy(folder: Path, port: int, text: str) -> AsyncIterator[None]:
    program = need("haproxy")
    file = folder / "haproxy.cfg"
    file.write_text(f"global\n    tune.ssl.default-dh-param 2048\n{text}")
    with running([program, "-db", "-f", str(file)], port, log=folder / "log"):
        yield


def tcp(gateway: Gateway, port: int, *, version: str = "send-proxy-v2") -> str:
    further = gateway.listening.get("haproxy")
    assert further is not None
    text = filled(
        blocks(PAGE, "haproxy")[1],
        {"bind :18443": f"bind 127.0.0.1:{port}", "127.0.0.1:18790": f"127.0.0.1:{further.port}"},
    )
    return filled(text, {"send-proxy-v2": version})


async def test_s065_websockets_pass_through_haproxy_and_the_h2c_attack_gets_nothing(tmp_path: Path) -> None:
    certificate, port, device = Certificate(tmp_path), free_port(), Device()
    async with open_victim(trusted_proxies=("127.0.0.1/32",)) as gateway:
        seen = seen_addresses(gateway)
        text = filled(
            blocks(PAGE, "haproxy")[0],
            {
                "bind :443": f"bind 127.0.0.1:{port}",
                "/etc/haproxy/claw.example.com.pem": str(certificate.both),
                "127.0.0.1:18789": f"127.0.0.1:{gateway.port}",
            },
        )
        async with haproxy(tmp_path, port, text):
            for number in range(2):
                async with tls_client(port, certificate, source="127.0.0.9") as client:
                    assert await get(client) == 200
                    outcome = await client.connect(
                        token=TOKEN, device=device, scopes=["operator.read"],
                        headers={"host": NAME, "x_forwarded_for": "127.0.0.1"},
                    )  # fmt: skip
                    if number == 0:
                        assert outcome.detail == "PAIRING_REQUIRED"
                        await paired(gateway, client, device)
                        continue
                    assert outcome.admitted, outcome
                    assert (await client.call("who"))["ok"]
            assert seen == ["127.0.0.9"]
            for token, *extra in UPGRADES:
                async with tls_client(port, certificate) as client:
                    assert await H2cAttack(client).upgrade(token, *extra) != 101, (token, extra)


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
async def test_s065_haproxy_names_the_client_in_a_proxy_header(version: str, tmp_path: Path) -> None:
    port, device = free_port(), Device()
    async with open_victim(trusted_proxies=("127.0.0.1/32",), listeners=(LISTENER,)) as gateway:
        seen = seen_addresses(gateway)
        async with haproxy(tmp_path, port, tcp(gateway, port, version=version)):
            for number in range(2):
                async with await Attacker.at(port, source="127.0.0.9") as client:
                    outcome = await client.connect(token=TOKEN, device=device, scopes=["operator.read"])
                    if number == 0:  # V13: whatever address is named, nobody who came through is local
                        assert outcome.detail == "PAIRING_REQUIRED"
                        await paired(gateway, client, device)
                        continue
                    assert outcome.admitted, outcome
                    assert (await client.call("who"))["ok"]
        assert seen == ["127.0.0.9"]


async def test_v13_only_a_trusted_proxy_is_listened_to_and_only_with_a_header() -> None:
    async with open_victim(trusted_proxies=("127.0.0.1/32",), listeners=(LISTENER,)) as gateway:
        further = gateway.listening.get("haproxy")
        assert further is not None
        request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        line = b"PROXY TCP4 198.51.100.9 127.0.0.1 4711 80\r\n"
        for source, data in (
            ("127.0.0.5", line + request),  # not a proxy
            ("127.0.0.5", request),
            ("127.0.0.1", request),  # a proxy that says nothing
            ("127.0.0.1", b"PROXY TCP4 198.51.100.9\r\n" + request),
            ("127.0.0.1", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + request),
            ("127.0.0.1", b"\n" + line + request),
        ):
            async with await Attacker.at(further.port, source=source) as client:
                await client.send(data)
                with pytest.raises((AssertionError, trio.BrokenResourceError)):
                    await client.read_head()
        # Whole, in pieces, and with the request glued to it.
        for pieces in ([line + request], [line[:4], line[4:-1], line[-1:] + request], [line, request]):
            async with await Attacker.at(further.port, source="127.0.0.1") as client:
                for piece in pieces:
                    await client.send(piece)
                assert (await client.read_head())[0] == 200
        # On the main listener the same bytes are no header but bad HTTP, and nobody is renamed.
        async with await Attacker.at(gateway.port) as client:
            await client.send(line + request)
            assert (await client.read_head())[0] == 400


async def test_v14_failures_are_counted_for_the_client_that_the_header_names() -> None:
    async with open_victim(trusted_proxies=("127.0.0.1/32",), listeners=(LISTENER,)) as gateway:
        further = gateway.listening.get("haproxy")
        assert further is not None

        async def guess(address: str, token: str) -> str | None:
            async with await Attacker.at(further.port, source="127.0.0.1") as client:
                await client.send(f"PROXY TCP4 {address} 127.0.0.1 1 2\r\n".encode())
                return (await client.connect(token=token, device=Device())).detail

        for number in range(10):
            assert await guess("198.51.100.9", f"guess-{number}") == "AUTH_TOKEN_MISMATCH"
        assert await guess("198.51.100.9", TOKEN) == "AUTH_RATE_LIMITED"
        assert await guess("198.51.100.10", TOKEN) == "PAIRING_REQUIRED"


async def test_network_rules_are_asked_about_the_client_that_the_header_names() -> None:
    from openclaw_gateway.config.schema import NetworkConfig

    network = NetworkConfig(deny=("198.51.100.0/24",))
    async with open_victim(trusted_proxies=("127.0.0.1/32",), listeners=(LISTENER,), network=network) as gateway:
        further = gateway.listening.get("haproxy")
        assert further is not None
        request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        async with await Attacker.at(further.port, source="127.0.0.1") as client:
            await client.send(b"PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\n" + request)
            with pytest.raises((AssertionError, trio.BrokenResourceError)):
                await client.read_head()
        async with await Attacker.at(further.port, source="127.0.0.1") as client:
            await client.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n" + request)
            assert (await client.read_head())[0] == 200


def test_the_pages_configuration_is_read_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.json"
    path.write_text(blocks(PAGE, "json5")[0])
    loaded = load_config(env={"OPENCLAW_STATE_DIR": str(tmp_path)}, path=path)
    assert (loaded.issues, loaded.ignored) == ((), ())
    assert loaded.config.listeners[0].proxy_protocol
