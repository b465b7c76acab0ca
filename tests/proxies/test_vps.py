"""A rented host in front, with the texts of docs/how-to/vps-in-front.md: HAProxy, sshd, ssh -R, a PROXY header, and TLS
at home (S065, S134, V13, V14)."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.schema import GatewayConfig, NetworkConfig
from tests.attacks.attacker import TOKEN, Attacker, Device, open_victim
from tests.tunnels.sshd import Sshd, needs_sshd, open_sshd

from .running import blocks, filled, free_port, need, running
from .test_nginx import get, paired, seen_addresses

PAGE = "vps-in-front.md"
DENIED = "127.0.0.66"
pytestmark = [needs_sshd, pytest.mark.deadline(60)]


def documented(folder: Path) -> GatewayConfig:
    """The page's configuration, as it is read."""
    path = folder / "openclaw.json"
    path.write_text(blocks(PAGE, "json5")[0])
    path.chmod(0o600)
    loaded = load_config(env={"OPENCLAW_STATE_DIR": str(folder)}, path=path)
    assert [issue for issue in loaded.issues if issue.severity != "warning"] == []
    assert loaded.ignored == ()
    return loaded.config


@pytest.fixture
def vps(tmp_path: Path) -> Iterator[tuple[Sshd, int]]:
    """The rented host's sshd, with the page's line for the key; and the port that the tunnel listens on there."""
    port = free_port()
    with open_sshd(tmp_path / "sshd") as sshd:
        (line,) = re.findall(r"^restrict,.*$", blocks(PAGE, "text")[0], re.MULTILINE)
        options = filled(line.partition(" ssh-ed25519")[0], {"18790": str(port)})
        key = (tmp_path / "sshd" / "client_key.pub").read_text()
        (tmp_path / "sshd" / "authorized_keys").write_text(f"{options} {key}")
        yield sshd, port


@asynccontextmanager
async def home(folder: Path, sshd: Sshd, port: int) -> AsyncIterator[Gateway]:
    page = documented(folder)
    (listener,), (tunnel,) = page.listeners, page.tunnels
    here = free_port()
    tunnel = attrs.evolve(
        tunnel, host="127.0.0.1", port=sshd.port, user=sshd.user, identity=sshd.identity, bind_port=port,
        target_port=here, known_hosts=sshd.known_hosts,
    )  # fmt: skip
    async with open_victim(
        trusted_proxies=page.trusted_proxies, public_url=page.public_url, tunnels=(tunnel,),
        listeners=(attrs.evolve(listener, port=here),), network=NetworkConfig(deny=(DENIED,)),
    ) as gateway:  # fmt: skip
        async with await Attacker.at(gateway.port) as owner:
            assert (await owner.connect(token=TOKEN)).admitted
            while (await owner.call("status"))["payload"]["tunnels"][0]["state"] != "up":  # noqa: ASYNC110 - ssh's doing
                await trio.sleep(0.05)
        yield gateway


@asynccontextmanager
async def haproxy(folder: Path, port: int, tunnel: int) -> AsyncIterator[None]:
    text = filled(
        blocks(PAGE, "haproxy")[0],
        {"bind :443": f"bind 127.0.0.1:{port}", "127.0.0.1:18790": f"127.0.0.1:{tunnel}"},
    )
    file = folder / "haproxy.cfg"
    file.write_text(text)
    with running([need("haproxy"), "-db", "-f", str(file)], port, log=folder / "log"):
        yield


@asynccontextmanager
async def client(port: int, pin: str | None, source: str, *, header: bytes = b"") -> AsyncIterator[Attacker]:
    """Somebody on the internet, who pins the certificate of the gateway at home. ``header`` goes before TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tcp = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
    await tcp.send_all(header)
    async with trio.SSLStream(tcp, context, server_hostname="claw.example.com", https_compatible=True) as stream:
        await stream.do_handshake()
        shown = stream.getpeercert(binary_form=True)
        assert hashlib.sha256(shown).hexdigest() == pin, "TLS ends at home, and nowhere before"
        yield Attacker(stream, port)  # type: ignore[arg-type]  # a stream is all it uses


async def test_s065_s134_the_clients_addresses_arrive_through_a_rented_host(
    vps: tuple[Sshd, int], tmp_path: Path
) -> None:
    (sshd, tunnel), port, device = vps, free_port(), Device()
    async with home(tmp_path, sshd, tunnel) as gateway, haproxy(tmp_path, port, tunnel):
        seen = seen_addresses(gateway)
        listener = gateway.listening.get("vps")
        assert listener is not None
        assert listener.plan.tls is not None
        pin = listener.plan.tls.fingerprint
        for number in range(2):
            async with client(port, pin, "127.0.0.9") as somebody:
                assert await get(somebody) == 200
                outcome = await somebody.connect(token=TOKEN, device=device, scopes=["operator.read"])
                if number == 0:  # V13: whatever address is named, nobody who came through is local
                    assert outcome.detail == "PAIRING_REQUIRED"
                    await paired(gateway, somebody, device)
                    continue
                assert outcome.admitted, outcome
                assert (await somebody.call("who"))["ok"]
        assert seen == ["127.0.0.9"]
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):
            async with client(port, pin, DENIED):
                raise AssertionError("a denied client came in through the rented host")
        rows = await gateway.audit.recent(50)
        assert [row["address"] for row in rows if row.get("code") == "NETWORK_DENIED"] == [DENIED]


async def test_v14_who_leaves_the_header_out_on_the_rented_host_is_dropped(
    vps: tuple[Sshd, int], tmp_path: Path
) -> None:
    sshd, tunnel = vps
    async with home(tmp_path, sshd, tunnel) as gateway:
        listener = gateway.listening.get("vps")
        assert listener is not None
        assert listener.plan.tls is not None
        pin = listener.plan.tls.fingerprint
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):
            async with client(tunnel, pin, "127.0.0.1"):
                raise AssertionError("a connection without a PROXY header was served")
        # The other side of it, as the page tells: who is on that host may name any address, and is remote all the same.
        async with client(tunnel, pin, "127.0.0.1", header=b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n") as liar:
            assert (await liar.connect(token=TOKEN, device=Device())).detail == "PAIRING_REQUIRED"
