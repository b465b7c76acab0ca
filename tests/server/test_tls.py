"""The certificate: made, read, judged by the clock, renewed while clients stay; a gateway that speaks TLS."""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import CallFailed, ConnectFailed, Credentials, open_client
from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.http import get
from openclaw_gateway.client.tls import file_pins, key_pin
from openclaw_gateway.config.schema import ListenerConfig, TlsConfig
from openclaw_gateway.server.certificates import CertificateFault, make_pair, own_pair_paths, read_pair, server_names
from openclaw_gateway.server.listener import Probed, _answers
from openclaw_gateway.server.tls import TlsKeeper
from tests.server.conftest import CONFIG, TOKEN

DAY = 86_400.0
CA = trustme.CA()


async def wait_until(there: Callable[[], bool]) -> None:
    """The gateway looks at its files each second by the wall clock; nothing tells when it has."""
    with trio.fail_after(10):
        while not there():  # noqa: ASYNC110
            await trio.sleep(0.05)


class NoClients:
    def authorities(self) -> str:
        return ""

    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        return None


def issue(folder: Path, *names: str, days: float = 90, ago: float = 1) -> TlsConfig:
    """A certificate of some authority in two files, as a person would configure it."""
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    leaf = CA.issue_cert(*(names or ("localhost", "127.0.0.1")), not_before=now - timedelta(days=ago),
                         not_after=now + timedelta(days=days))  # fmt: skip
    cert, key = folder / "cert.pem", folder / "key.pem"
    leaf.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return TlsConfig(enabled=True, cert_path=cert, key_path=key)


@attrs.define
class Kept:
    keeper: TlsKeeper
    told: list[str | None]
    clock: list[float]

    @property
    def state(self) -> str:
        return self.keeper.standing.state

    def configure(self, config: GatewayConfig, *fixed: str) -> None:
        self.keeper.configure(config, {"off"}, server_names(fixed), fixed)


@pytest.fixture
def kept() -> Any:
    told: list[str | None] = []
    clock = [time.time()]
    keeper = TlsKeeper(tell=told.append, clients=NoClients(), now=lambda: clock[0])
    yield Kept(keeper, told, clock)
    keeper.close()


# --- pairs of files


def test_net8_a_made_certificate_names_every_address_and_is_ours_alone(tmp_path: Path) -> None:
    cert, key = own_pair_paths(tmp_path / "state")
    pair = make_pair(cert, key, server_names(["192.0.2.7", "fd00::7", "0.0.0.0"], "gw.example.com"))
    for name in ("localhost", "127.0.0.1", "::1", "192.0.2.7", "fd00::7", "gw.example.com"):
        assert pair.covers(name), name
    assert not pair.covers("0.0.0.0")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cert, key)} == {0o600}
    assert stat.S_IMODE(cert.parent.stat().st_mode) == 0o700
    assert pair == read_pair(cert, key)
    assert pair.key_pin == key_pin(ssl.PEM_cert_to_DER_cert(cert.read_text()))


def test_net8_renewal_keeps_the_key(tmp_path: Path) -> None:
    cert, key = own_pair_paths(tmp_path)
    first = make_pair(cert, key, ["localhost"])
    second = make_pair(cert, key, ["localhost", "192.0.2.7"])
    assert first.fingerprint != second.fingerprint
    assert first.key_pin == second.key_pin


def test_what_is_wrong_with_a_pair_is_named_with_its_fix(tmp_path: Path) -> None:
    good, other = issue(tmp_path / "good"), issue(tmp_path / "other")
    assert good.cert_path is not None
    assert good.key_path is not None
    assert other.key_path is not None

    def fault(cert: Path, key: Path) -> CertificateFault:
        with pytest.raises(CertificateFault) as failed:
            read_pair(cert, key)
        assert failed.value.fix
        return failed.value

    assert fault(tmp_path / "no.pem", good.key_path).kind == "missing"
    assert fault(good.cert_path, other.key_path).kind == "mismatched"
    assert fault(good.key_path, good.key_path).kind == "invalid"
    (tmp_path / "rubbish.pem").write_bytes(b"\x00" * 10)
    assert fault(good.cert_path, tmp_path / "rubbish.pem").kind == "invalid"
    assert fault(tmp_path, good.key_path).kind == "unreadable"
    (tmp_path / "big.pem").write_bytes(b"x" * 300_000)
    assert fault(tmp_path / "big.pem", good.key_path).kind == "invalid"


def test_an_encrypted_key_is_refused_instead_of_asking_on_the_terminal(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec

    config = issue(tmp_path / "good")
    assert config.cert_path is not None
    secret = tmp_path / "encrypted.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    secret.write_bytes(
        key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"passphrase"))
    )
    with pytest.raises(CertificateFault) as failed:
        read_pair(config.cert_path, secret)
    assert failed.value.kind == "encrypted"


# --- which one is in use


def test_without_files_one_is_made_kept_and_found_again(kept: Kept, tmp_path: Path) -> None:
    config = GatewayConfig(tls=TlsConfig(enabled=True), state_dir=tmp_path / "state")
    kept.configure(config)
    assert kept.state == "generated"
    first = kept.keeper.pair
    assert first is not None
    again = TlsKeeper(tell=kept.told.append, clients=NoClients())
    again.configure(config, {"off"}, server_names([]))
    assert again.pair == first
    assert kept.told == [None, None]


def test_an_address_that_is_written_down_gets_a_certificate_that_names_it(kept: Kept, tmp_path: Path) -> None:
    config = GatewayConfig(tls=TlsConfig(enabled=True), state_dir=tmp_path)
    kept.configure(config)
    first = kept.keeper.pair
    kept.configure(config, "192.0.2.7")
    second = kept.keeper.pair
    assert first is not None
    assert second is not None
    assert second.covers("192.0.2.7")
    assert second.key_pin == first.key_pin


@pytest.mark.expect_error_log("certificate trouble")
@pytest.mark.parametrize(
    ("days", "ago", "later", "state"),
    [(90, 1, 0, "ok"), (90, 1, 80, "expiring"), (90, 1, 91, "expired"), (90, 1, -2, "not-yet-valid")],
)
def test_bad_input_the_clock_is_told_in_named_states(
    kept: Kept, tmp_path: Path, days: float, ago: float, later: float, state: str
) -> None:
    kept.configure(GatewayConfig(tls=issue(tmp_path / "files", days=days, ago=ago)))
    kept.clock[0] += later * DAY
    kept.keeper.look()
    assert kept.state == state
    assert kept.keeper.ready, "it is shown all the same: who pins it decides for himself"
    if state == "ok":
        kept.clock[0] += 91 * DAY
        kept.keeper.look()
        assert kept.told[-1] is not None


@pytest.mark.expect_error_log("certificate trouble")
def test_bad_input_a_new_file_that_cannot_be_used_changes_nothing_and_says_so(kept: Kept, tmp_path: Path) -> None:
    tls = issue(tmp_path / "files")
    kept.configure(GatewayConfig(tls=tls))
    before, context = kept.keeper.pair, kept.keeper.layer("off").context
    assert tls.cert_path is not None
    good = tls.cert_path.read_bytes()
    tls.cert_path.write_text("half a certifi")
    assert not kept.keeper.look(), "it may still be being written"
    assert kept.state == "ok"
    assert not kept.keeper.look()
    assert kept.state == "kept"
    assert kept.keeper.pair is before
    assert kept.keeper.layer("off").context is context
    tls.cert_path.write_bytes(good)
    kept.keeper.look()
    assert kept.state == "ok"
    assert kept.told[-1] is None


def test_a_key_that_follows_its_certificate_by_a_moment_is_no_trouble(kept: Kept, tmp_path: Path) -> None:
    tls, fresh = issue(tmp_path / "files"), issue(tmp_path / "fresh")
    kept.configure(GatewayConfig(tls=tls))
    assert tls.cert_path is not None
    assert tls.key_path is not None
    assert fresh.cert_path is not None
    assert fresh.key_path is not None
    tls.cert_path.write_bytes(fresh.cert_path.read_bytes())
    assert not kept.keeper.look()
    tls.key_path.write_bytes(fresh.key_path.read_bytes())
    assert kept.keeper.look()
    assert kept.told == [None]


@pytest.mark.expect_error_log("certificate trouble")
@pytest.mark.parametrize("auto", [True, False])
def test_bad_input_at_the_start_our_own_takes_its_place_or_nothing_is_served(
    kept: Kept, tmp_path: Path, auto: bool
) -> None:
    tls = attrs.evolve(issue(tmp_path / "files"), key_path=tmp_path / "missing.pem", auto_generate=auto)
    kept.configure(GatewayConfig(tls=tls, state_dir=tmp_path / "state"))
    assert kept.state == ("fallback" if auto else "unusable")
    assert kept.keeper.ready is auto
    assert "missing.pem" in (kept.keeper.standing.trouble or "")
    assert kept.keeper.standing.fix
    key = (tmp_path / "files" / "key.pem").read_bytes()
    (tmp_path / "missing.pem").write_bytes(key)
    assert kept.keeper.look()
    assert kept.state == "ok"


def test_our_own_is_renewed_before_it_ends_with_the_same_key(kept: Kept, tmp_path: Path) -> None:
    kept.configure(GatewayConfig(tls=TlsConfig(enabled=True), state_dir=tmp_path))
    first = kept.keeper.pair
    assert first is not None
    kept.clock[0] = first.not_after - 20 * DAY
    # The new one's dates come from the real clock; what counts is that it was made at all.
    assert kept.keeper.look()
    second = kept.keeper.pair
    assert second is not None
    assert (second.fingerprint != first.fingerprint, second.key_pin) == (True, first.key_pin)


@pytest.mark.expect_error_log("certificate trouble")
def test_authorities_that_cannot_be_read_let_nobody_in_and_are_named(kept: Kept, tmp_path: Path) -> None:
    tls = attrs.evolve(issue(tmp_path / "files"), ca_path=tmp_path / "none.pem", client_auth="required")
    kept.keeper.configure(GatewayConfig(tls=tls), {"required"}, ["localhost"])
    assert kept.keeper.ready
    assert "none.pem" in (kept.keeper.standing.trouble or "")
    assert kept.keeper.layer("required").context.cert_store_stats()["x509_ca"] == 0


# --- a gateway


def secure(state: Path, **tls: Any) -> GatewayConfig:
    return attrs.evolve(CONFIG, tls=TlsConfig(**{"enabled": True, **tls}), state_dir=state)


@asynccontextmanager
async def connected(gateway: Gateway, pins: str | None = None, **more: Any) -> AsyncIterator[Any]:
    pinned = gateway.tls_fingerprint if pins is None else pins
    async with open_client(gateway.urls[0], auth=Credentials(token=TOKEN), tls_fingerprint=pinned, **more) as client:
        yield client


async def test_a_gateway_over_tls_serves_websocket_rpc_and_probes(tmp_path: Path) -> None:
    async with open_gateway(secure(tmp_path), env={}) as gateway:
        assert gateway.urls[0].startswith("wss://127.0.0.1:")
        assert gateway.tls_fingerprint is not None
        async with connected(gateway) as client:
            [main] = (await client.call("gateway.listeners"))["listeners"]
            assert main["tlsFingerprint"] == gateway.tls_fingerprint
            with pytest.raises(CallFailed, match="missing scope"):
                await client.call("system-event", {"text": "x" * 3_000_000})
        address = GatewayAddress.parse(gateway.urls[0])
        answer = await get(address, "/health", tls_fingerprint=gateway.tls_fingerprint)
        assert answer.status == 200
        assert gateway.health.parts["tls"] is None
        probed = gateway.configured.probe_address()
        assert probed is not None
        assert probed.tls
        assert await _answers(probed, 5.0)
        assert not await _answers(Probed("127.0.0.1", 1, tls=True), 1.0)


async def test_pins_of_certificate_or_key_several_at_once_and_nothing_else(tmp_path: Path) -> None:
    async with open_gateway(secure(tmp_path), env={}) as gateway:
        assert gateway.configured.tls is not None
        pair = gateway.configured.tls.pair
        assert pair is not None
        wrong = "ab" * 32
        colons = ":".join(pair.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
        for pins in (pair.fingerprint, pair.key_pin, f"{wrong},{pair.key_pin}", f"sha256:{colons}"):
            async with connected(gateway, pins):
                pass
        for pins, stage in ((wrong, "tls"), ("", "address"), ("ab", "address")):
            with pytest.raises(ConnectFailed) as failed:
                async with connected(gateway, pins):
                    pass
            assert failed.value.stage == stage
            told = f"{failed.value.message} {failed.value.fix}"
            assert "--tls-fingerprint" in told
            assert "on the gateway's host, openclaw gateway status" in told
            if pins == wrong:
                assert f"expects sha256 {wrong}, seen sha256 {pair.fingerprint}" in told
        with pytest.raises(ConnectFailed) as failed:
            async with open_client(gateway.urls[0], auth=Credentials(token=TOKEN)):
                pass
        assert failed.value.stage == "tls", "self-signed is not trusted without a pin"


async def test_net8_renewal_keeps_clients_connected_and_the_next_one_sees_the_new_certificate(tmp_path: Path) -> None:
    tls = issue(tmp_path / "files")
    config = attrs.evolve(CONFIG, tls=tls)
    async with open_gateway(config, env={}) as gateway:
        before = gateway.tls_fingerprint
        announced: list[str | None] = []
        gateway.configured.on_certificate = lambda: announced.append(gateway.tls_fingerprint)
        async with connected(gateway) as client:
            fresh = issue(tmp_path / "files")
            assert fresh.cert_path == tls.cert_path
            await wait_until(lambda: gateway.tls_fingerprint != before)
            await wait_until(lambda: bool(announced))
            assert announced == [gateway.tls_fingerprint], "who looks for this gateway learns its new pin"
            assert await client.call("health"), "who was connected stays"
            async with connected(gateway) as other:
                assert await other.call("health")
            with pytest.raises(ConnectFailed):
                async with connected(gateway, before):
                    pass


@pytest.mark.expect_error_log("certificate trouble")
async def test_bad_input_health_answers_within_a_second_whatever_the_certificate(tmp_path: Path) -> None:
    files = issue(tmp_path / "files", days=-1, ago=30)
    broken = {"cert_path": files.cert_path, "key_path": tmp_path / "missing.pem"}
    expired = {"cert_path": files.cert_path, "key_path": files.key_path}
    for tls in (broken, expired):
        with trio.fail_after(10):
            async with open_gateway(secure(tmp_path / "state", **tls), env={}) as gateway:
                began = trio.current_time()
                answer = await get(
                    GatewayAddress.parse(gateway.urls[0]), "/health", tls_fingerprint=gateway.tls_fingerprint
                )
                assert answer.status == 200
                assert trio.current_time() - began < 3  # a second, and what a busy machine adds
                assert "tls" in gateway.health.failing


@pytest.mark.expect_error_log("certificate trouble")
async def test_bad_input_where_nothing_may_be_made_the_listener_waits_for_a_good_file(tmp_path: Path) -> None:
    files = issue(tmp_path / "files")
    missing = tmp_path / "later.pem"
    config = secure(tmp_path / "state", cert_path=files.cert_path, key_path=missing, auto_generate=False)
    async with open_gateway(config, env={}) as gateway:
        assert gateway.urls == []
        assert gateway.port == 0
        assert files.key_path is not None
        missing.write_bytes(files.key_path.read_bytes())
        await wait_until(lambda: bool(gateway.urls))
        async with connected(gateway) as client:
            assert await client.call("health")


async def test_a_listener_beside_a_plain_one_may_be_encrypted_and_the_other_way_round(tmp_path: Path) -> None:
    plain_main = attrs.evolve(CONFIG, listeners=(ListenerConfig(name="safe", port=0, tls=True),), state_dir=tmp_path)
    async with open_gateway(plain_main, env={}) as gateway:
        safe = gateway.listening.get("safe")
        assert safe is not None
        assert gateway.urls[0].startswith("ws://")
        assert safe.urls[0].startswith("wss://")
        assert safe.plan.tls is not None
        async with open_client(
            safe.urls[0], auth=Credentials(token=TOKEN), tls_fingerprint=safe.plan.tls.fingerprint
        ) as client:
            assert await client.call("health")


async def test_reload_switches_tls_on_and_off_on_the_same_port(tmp_path: Path) -> None:
    config = attrs.evolve(CONFIG, state_dir=tmp_path)
    async with open_gateway(config, env={}) as gateway:
        port = gateway.port
        config = attrs.evolve(config, port=port)
        gateway.apply(config, gateway.auth)
        gateway.apply(attrs.evolve(config, tls=TlsConfig(enabled=True)), gateway.auth)
        assert (gateway.port, gateway.urls[0]) == (port, f"wss://127.0.0.1:{port}")
        async with connected(gateway) as client:
            assert await client.call("health")
        gateway.apply(config, gateway.auth)
        assert gateway.urls[0].startswith("ws://")
        assert "tls" not in gateway.health.parts


async def test_a_session_over_tls_is_watched_by_tcps_own_accounting(tmp_path: Path) -> None:
    async with open_gateway(secure(tmp_path), env={}) as gateway, connected(gateway):
        [session] = list(gateway._core.registry)
        assert session.wire.unacknowledged >= 0
        assert session.peer.encrypted
        assert session.peer.arrival.encrypted




@pytest.mark.expect_error_log("certificate trouble")
def test_a_listener_that_asks_for_client_certificates_opens_while_the_former_certificate_is_kept(
    kept: Kept, tmp_path: Path
) -> None:
    """`config set gateway.tls.clientAuth optional` while the files are broken: the new kind has a context, too."""
    tls = issue(tmp_path / "given")
    config = GatewayConfig(state_dir=tmp_path / "state", tls=tls)
    kept.configure(config)
    before = kept.keeper.pair
    assert tls.cert_path is not None
    in_use = tmp_path / "state" / "tls" / "in-use.pem"
    assert in_use.read_bytes() == tls.cert_path.read_bytes()
    tls.cert_path.write_text("garbage")
    kept.keeper.configure(config, {"off", "optional"}, server_names(()))
    assert (kept.state, kept.keeper.pair) == ("kept", before)
    assert isinstance(kept.keeper.layer("optional").context, ssl.SSLContext)
    kept.keeper.refresh_clients()  # a device got a certificate meanwhile
    assert file_pins(in_use) is not None
    assert before is not None
    assert before.fingerprint in str(file_pins(in_use))


@pytest.mark.expect_error_log("certificate trouble")
def test_a_certificate_that_ends_soon_is_told_and_readiness_stays(kept: Kept, tmp_path: Path) -> None:
    kept.configure(GatewayConfig(state_dir=tmp_path / "state", tls=issue(tmp_path / "given", days=5)))
    assert kept.state == "expiring"
    assert [said for said in kept.told if said] == []
