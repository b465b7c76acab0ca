"""Attacks on the door itself: TLS, client certificates, network rules, several listeners (issue 6; V13, V14, V36, V46).

openssl and curl are the attackers where they can be: a mistake made by the same hand on both sides would hide.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.client import ConnectFailed, Credentials, DeviceIdentity, load_or_create_identity, open_client
from openclaw_gateway.client.certificate import keep, make_request
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.config.schema import AuthConfig, GatewayConfig, ListenerConfig, NetworkConfig, TlsConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.policy.addresses import parse_networks
from openclaw_gateway.policy.network import NetworkRules
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server import connection
from openclaw_gateway.server.listening import ListenerPlan

from .attacker import TOKEN

PAIRING = ("operator.read", "operator.pairing")


@asynccontextmanager
async def victim(state: Path, client_auth: str = "off", **more: Any) -> AsyncIterator[Gateway]:
    config = GatewayConfig(
        port=0,
        auth=AuthConfig(type="token", token=TOKEN),
        tls=TlsConfig(enabled=True, client_auth=client_auth),  # type: ignore[arg-type]
        state_dir=state,
        **more,
    )
    async with open_gateway(config, env={}) as gateway:
        yield gateway


async def run(*command: str) -> tuple[int, str]:
    with trio.fail_after(20):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, stdin=b"")
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@asynccontextmanager
async def connected(gateway: Gateway, **more: Any) -> AsyncIterator[Any]:
    async with open_client(
        gateway.urls[0], auth=Credentials(token=TOKEN), tls_fingerprint=gateway.tls_fingerprint, **more
    ) as client:
        yield client


async def certified(gateway: Gateway, folder: Path) -> tuple[DeviceIdentity, ClientCertificate]:
    """A paired device with a certificate that it asked for itself."""
    identity = load_or_create_identity(folder / "device.json")
    where = ClientCertificate(folder / "cert.pem", folder / "key.pem")
    new = make_request()
    async with connected(gateway, identity=identity, scopes=PAIRING) as client:
        answer = await client.call("device.cert.issue", {"csrPem": new.csr})
    assert answer["deviceId"] == identity.device_id
    keep(new, answer["certPem"], where)
    return identity, where


# --- TLS


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
async def test_openssl_refuses_everything_below_tls_1_3(tmp_path: Path, version: str) -> None:
    async with victim(tmp_path) as gateway:
        code, said = await run("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", version)
        assert code != 0
        assert "Cipher is (NONE)" in said or "no protocols available" in said
        code, said = await run("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-brief")
        assert (code, "TLSv1.3" in said) == (0, True)


async def test_v57_alpn_offers_http_1_1_and_nothing_else(tmp_path: Path) -> None:
    async with victim(tmp_path) as gateway:
        where = f"127.0.0.1:{gateway.port}"
        _, said = await run("openssl", "s_client", "-connect", where, "-alpn", "h2,http/1.1")
        assert "ALPN protocol: http/1.1" in said
        _, said = await run("openssl", "s_client", "-connect", where, "-alpn", "h2")
        assert "No ALPN negotiated" in said
        _, version = await run("curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{http_version}", f"https://{where}/health")
        assert version == "1.1"


async def test_no_ticket_lets_a_second_connection_skip_the_certificates(tmp_path: Path) -> None:
    async with victim(tmp_path) as gateway:
        tcp = await trio.open_tcp_stream("127.0.0.1", gateway.port)
        stream = trio.SSLStream(tcp, _context(), server_hostname="localhost")
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")  # tickets come ahead of data
        assert not stream.session.has_ticket
        await trio.aclose_forcefully(stream)


async def test_v46_a_handshake_that_never_ends_is_counted_and_has_a_deadline(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    assert connection.OPENING_SECONDS <= 15
    async with victim(tmp_path) as gateway:
        silent = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(40)]
        for sock in silent[20:]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello that goes no further
        strangers = gateway._core.registry.strangers
        while strangers.evicted < 8:
            await trio.lowlevel.checkpoint()
        assert len(strangers) <= 32
        async with connected(gateway) as client:
            assert await client.call("health"), "an honest client gets in meanwhile"
        assert len(strangers)
        mock_clock.jump(connection.OPENING_SECONDS + 0.1)
        while len(strangers):
            await trio.lowlevel.checkpoint()
        for sock in silent:
            sock.close()


# --- mutual TLS


async def test_v46_stalled_handshakes_behind_a_proxy_push_out_nobody_else_behind_it(tmp_path: Path) -> None:
    def announced(client: str) -> bytes:
        return f"PROXY TCP4 {client} 192.0.2.1 5 6\r\n".encode()

    further = ListenerConfig(name="behind", port=0, proxy_protocol=True)
    async with victim(tmp_path / "state", trusted_proxies=("127.0.0.1",), listeners=(further,)) as gateway:
        listener = gateway.listening.get("behind")
        assert listener is not None
        strangers, stalled = gateway._core.registry.strangers, []
        with trio.fail_after(8):
            honest = await trio.open_tcp_stream("127.0.0.1", listener.port)
            await honest.send_all(announced("198.51.100.7"))
            while not strangers.count("198.51.100.7"):  # noqa: ASYNC110 - what is watched has no event
                await trio.sleep(0.01)
            for _ in range(strangers.per_address + 4):
                stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
                await stream.send_all(announced("203.0.113.1") + b"\x16\x03\x01")
                stalled.append(stream)
            while strangers.evicted < 4:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
            assert strangers.count("127.0.0.1") == 0
            tls = trio.SSLStream(honest, _context(), server_hostname="localhost")
            await tls.do_handshake()
        for stream in (honest, *stalled):
            await trio.aclose_forcefully(stream)


async def test_mtls_curl_without_a_certificate_fails_the_handshake(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        _, where = await certified(gateway, tmp_path)
        gateway.apply(attrs.evolve(gateway.config, tls=TlsConfig(enabled=True, client_auth="required")), gateway.auth)
        url = f"https://127.0.0.1:{gateway.port}/health"
        code, said = await run("curl", "-sSk", url)
        assert code != 0
        assert '"ok":true' not in said
        code, said = await run("curl", "-sSk", "--cert", str(where.cert_path), "--key", str(where.key_path), url)
        assert (code, '"ok":true' in said) == (0, True)
        with pytest.raises(ConnectFailed) as failed:
            async with connected(gateway):
                pass
        assert (failed.value.stage, "client certificate" in failed.value.message) == ("tls", True)


async def test_mtls_a_certificate_of_somebody_elses_authority_is_refused(tmp_path: Path) -> None:
    from openclaw_gateway.pairing.clientca import load_authority

    async with victim(tmp_path / "state", "optional") as gateway:
        identity, _ = await certified(gateway, tmp_path)
        new = make_request()
        where = ClientCertificate(tmp_path / "forged.pem", tmp_path / "forged-key.pem")
        keep(new, load_authority(None).sign(new.csr, identity.device_id).pem, where)
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass


async def test_mtls_a_certificate_that_is_signed_but_not_on_record_is_refused(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, _ = await certified(gateway, tmp_path)
        new = make_request()
        where = ClientCertificate(tmp_path / "stolen.pem", tmp_path / "stolen-key.pem")
        keep(new, gateway._parts.services.certificates.authority.sign(new.csr, identity.device_id).pem, where)
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass


async def test_mtls_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "required") as gateway:
        new = make_request()
        where = ClientCertificate(tmp_path / "old.pem", tmp_path / "old-key.pem")
        keep(new, gateway._parts.services.certificates.authority.sign(new.csr, "ab" * 32, days=0).pem, where)
        await trio.sleep(1.1)  # the dates of a certificate are whole seconds
        code, said = await run(
            "curl", "-sSk", "--cert", str(where.cert_path), "--key", str(where.key_path),
            f"https://127.0.0.1:{gateway.port}/health",
        )  # fmt: skip
        assert code != 0
        assert "expired" in said


async def test_mtls_the_certificate_of_a_removed_device_is_refused_and_its_connections_are_cut(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, where = await certified(gateway, tmp_path)
        # The certificate opens TLS; what it carries inside is the gateway's secret, which outlives the device.
        async with connected(gateway, client_certificate=where) as through, connected(gateway, scopes=PAIRING) as admin:
            idle = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", gateway.port), _context(where), server_hostname="localhost"
            )
            await idle.do_handshake()
            await idle.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"live"}'):
                answer += await idle.receive_some()
            await admin.call("device.pair.remove", {"deviceId": identity.device_id})
            with trio.fail_after(10):
                assert (await through.wait_closed()).code == CloseCode.DEVICE_REMOVED
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await idle.receive_some() == b""
            assert await admin.call("device.cert.list") == {"certificates": [], "clientAuth": "optional"}
        await trio.aclose_forcefully(idle)
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass
        # Paired anew, the old certificate stays dead.
        with pytest.raises(ConnectFailed) as asked:
            async with connected(gateway, identity=identity, scopes=PAIRING):
                pass
        request = (asked.value.details or {})["requestId"]
        async with connected(gateway, scopes=(*PAIRING, "operator.admin")) as admin:
            await admin.call("device.pair.approve", {"requestId": request})
        async with connected(gateway, identity=identity, scopes=PAIRING):
            pass
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass


async def test_mtls_revoking_certificates_ends_them_and_leaves_the_device(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, where = await certified(gateway, tmp_path)
        async with connected(gateway, client_certificate=where) as through, connected(gateway, scopes=PAIRING) as admin:
            done = await admin.call("device.cert.revoke", {"deviceId": identity.device_id})
            assert done == {"deviceId": identity.device_id, "revoked": 1}
            with trio.fail_after(10):
                await through.wait_closed()
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass
        async with connected(gateway, identity=identity):
            pass
        rows = [row["action"] for row in await gateway.audit.recent(50)]
        assert rows.count("certificate.issued") == 1
        assert rows.count("certificate.revoked") == 1


async def test_mtls_taking_a_device_its_last_role_ends_what_its_certificate_opened(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, where = await certified(gateway, tmp_path)
        role = {"deviceId": identity.device_id, "role": "operator"}
        async with connected(gateway, client_certificate=where) as through, connected(gateway, scopes=PAIRING) as admin:
            await admin.call("device.token.rotate", role)
            assert await through.call("health"), "a new token is no end of the certificate"
            await admin.call("device.token.revoke", role)
            with trio.fail_after(10):
                assert (await through.wait_closed()).code == CloseCode.DEVICE_REMOVED
        with pytest.raises(ConnectFailed):
            async with connected(gateway, client_certificate=where):
                pass


async def test_mtls_a_device_that_removes_itself_over_its_certificate_reads_the_answer(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, where = await certified(gateway, tmp_path)
        async with connected(gateway, identity=identity, client_certificate=where, scopes=PAIRING) as leaving:
            with trio.fail_after(5):
                assert await leaving.call("device.pair.remove", {"deviceId": identity.device_id})
                assert (await leaving.wait_closed()).code == CloseCode.DEVICE_REMOVED


async def test_mtls_one_devices_certificate_does_not_carry_another_device(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        _, where = await certified(gateway, tmp_path)
        other = load_or_create_identity(tmp_path / "other.json")
        with pytest.raises(ConnectFailed, match="belongs to another device") as failed:
            async with connected(gateway, identity=other, client_certificate=where):
                pass
        assert (failed.value.details or {})["code"] == "CLIENT_CERTIFICATE_MISMATCH"


async def test_mtls_nobody_gets_a_certificate_for_a_device_that_is_not_his(tmp_path: Path) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        identity, _ = await certified(gateway, tmp_path)
        csr = make_request().csr
        async with connected(gateway, scopes=("operator.read",)) as reader:
            for params, code in (
                ({"csrPem": csr}, "CERTIFICATE_WHOSE"),
                ({"csrPem": csr, "deviceId": identity.device_id}, "MISSING_SCOPE"),
            ):
                with pytest.raises(CallFailed) as failed:
                    await reader.call("device.cert.issue", params)
                assert (failed.value.details or {})["code"] == code
        async with connected(gateway, scopes=PAIRING) as admin:
            for params, code in (
                ({"csrPem": csr, "deviceId": "ab" * 32}, "CERTIFICATE_UNKNOWN_DEVICE"),
                ({"csrPem": "rubbish", "deviceId": identity.device_id}, "CERTIFICATE_REQUEST_REFUSED"),
                ({"csrPem": _forged(csr), "deviceId": identity.device_id}, "CERTIFICATE_REQUEST_REFUSED"),
            ):
                with pytest.raises(CallFailed) as failed:
                    await admin.call("device.cert.issue", params)
                assert (failed.value.details or {})["code"] == code
            for _ in range(6):
                await admin.call("device.cert.issue", {"csrPem": make_request().csr, "deviceId": identity.device_id})
            listed = await admin.call("device.cert.list", {"deviceId": identity.device_id})
            assert len(listed["certificates"]) == 4, "the oldest give way"


def _forged(csr: str) -> str:
    """The request with its signature broken: a key that its sender does not hold."""
    import base64

    raw = bytearray(base64.b64decode("".join(csr.splitlines()[1:-1])))
    raw[-1] ^= 1
    text = base64.b64encode(bytes(raw)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"


def _context(where: ClientCertificate | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if where is not None:
        context.load_cert_chain(where.cert_path, where.key_path)
    return context


async def test_mtls_what_was_issued_is_known_after_a_restart_and_the_key_of_the_authority_is_private(
    tmp_path: Path,
) -> None:
    async with victim(tmp_path / "state", "optional") as gateway:
        _, where = await certified(gateway, tmp_path)
    assert (tmp_path / "state" / "credentials" / "client-ca.pem").stat().st_mode & 0o777 == 0o600
    async with (
        victim(tmp_path / "state", "required") as gateway,
        connected(gateway, client_certificate=where) as client,
    ):
        assert await client.call("health")


# --- network rules


async def test_net_a_denied_peer_gets_nothing_not_even_a_handshake(tmp_path: Path) -> None:
    async with victim(tmp_path, network=NetworkConfig(deny=("127.0.0.0/8", "::1"))) as gateway:
        code, said = await run("curl", "-sSk", f"https://127.0.0.1:{gateway.port}/health")
        assert code in {7, 35, 52, 56}, said  # reset at one stage or another
        code, said = await run("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}")
        assert "BEGIN CERTIFICATE" not in said
        assert gateway.listening.get("main").denied >= 2  # type: ignore[union-attr]


async def test_v14_a_mapped_address_is_the_address(tmp_path: Path) -> None:
    rules = NetworkRules(deny=parse_networks(["127.0.0.1"])[0])
    async with victim(tmp_path) as gateway:
        both = gateway.listening.open(ListenerPlan(name="both", hosts=("::",), port=0, network=rules))
        code, _ = await run("curl", "-sS", f"http://127.0.0.1:{both.port}/health")
        assert code != 0
        code, _ = await run("curl", "-sS", f"http://[::ffff:127.0.0.1]:{both.port}/health")
        assert code != 0
        code, said = await run("curl", "-sS", f"http://[::1]:{both.port}/health")
        assert (code, '"ok":true' in said) == (0, True)


async def test_isolation_no_header_moves_a_request_to_another_listener(tmp_path: Path) -> None:
    narrow = ListenerConfig(name="narrow", port=0, tls=False, methods=("health",), scopes=("operator.read",))
    async with victim(tmp_path, listeners=(narrow,)) as gateway:
        listener = gateway.listening.get("narrow")
        assert listener is not None
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "config.get"})
        for extra in ((), ("-H", f"Host: localhost:{gateway.port}"), ("-H", "X-Forwarded-Port: 443")):
            _, said = await run(
                "curl", "-sS", f"http://127.0.0.1:{listener.port}/rpc", "-H", f"Authorization: Bearer {TOKEN}",
                "-H", "Content-Type: application/json", "-d", body, *extra,
            )  # fmt: skip
            assert '"result"' not in said
