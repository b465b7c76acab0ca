"""A node's own client certificate against a real gateway: fetched, shown, renewed, and left out where it is refused."""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import ConnectFailed, Credentials
from openclaw_gateway.client.certificate import begins_and_ends, keep, make_request
from openclaw_gateway.client.errors import CLIENT_CERTIFICATE
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.config.schema import AuthConfig, TlsConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.nodes.host import certificate, loop, pace
from openclaw_gateway.nodes.host.certificate import NodeCertificate
from openclaw_gateway.nodes.host.commands import make_handlers
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.keeping import MAX_GATEWAYS, Keeping
from openclaw_gateway.nodes.host.loop import NodeSetup, run_node
from openclaw_gateway.nodes.host.status import Report
from openclaw_gateway.pairing.clientca import load_authority
from openclaw_gateway.pairing.clientcerts import CertificateRecord
from openclaw_gateway.protocol.close import CloseCode

TOKEN = "the-token-of-the-node-certificate-tests-01"
DAY = 86_400.0
pytestmark = pytest.mark.deadline(60)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CONNECTING", pace.Pace(0.01, 0.02))


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path / "node" / "node")


@asynccontextmanager
async def tls_gateway(state: Path, client_auth: Any) -> AsyncIterator[Gateway]:
    auth = AuthConfig(type="token", token=TOKEN)
    tls = TlsConfig(enabled=True, client_auth=client_auth)
    async with open_gateway(GatewayConfig(port=0, auth=auth, tls=tls, state_dir=state), env={}) as gateway:
        yield gateway


def ask_for(gateway: Gateway, client_auth: Any) -> None:
    gateway.apply(attrs.evolve(gateway.config, tls=TlsConfig(enabled=True, client_auth=client_auth)), gateway.auth)


@attrs.define
class Node:
    keeping: Keeping
    reports: list[Report] = attrs.field(factory=list)
    stop: trio.Event = attrs.field(factory=trio.Event)
    _wake: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, report: Report) -> None:
        self.reports.append(report)
        self._wake.set()
        self._wake = trio.Event()

    async def until(self, *, connected: int = 1, certified: bool | None = None) -> Report:
        """The first report from which on it was connected so often, and shows (or not) how long a certificate lasts."""
        while True:
            times = [report for report in self.reports if report.state == "connected"]
            joins = sum(
                now.state == "connected" and before.state != "connected"
                for before, now in zip(self.reports, self.reports[1:], strict=False)
            )
            if joins >= connected and times:
                last = times[-1]
                if certified is None or (last.certificate_ends_at is not None) is certified:
                    return last
            await self._wake.wait()


@asynccontextmanager
async def running(gateway: Gateway, keeping: Keeping, **more: Any) -> AsyncIterator[Node]:
    setup = NodeSetup(
        url=gateway.urls[0], identity=keeping.identity(), keeping=keeping, handlers=make_handlers(keeping.directory),
        display_name="Test", secret=Credentials(token=TOKEN), tls_fingerprint=gateway.tls_fingerprint, **more,
    )  # fmt: skip
    node = Node(keeping)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_node(setup, tell=node.tell, stop=node.stop)

        nursery.start_soon(run)
        yield node
        node.stop.set()


def shown_by(gateway: Gateway) -> list[str | None]:
    return [session.peer.arrival.certificate for session in gateway._core.registry if session.role == "node"]


async def test_a_node_fetches_its_certificate_and_comes_in_where_one_is_required(
    tmp_path: Path, keeping: Keeping
) -> None:
    async with tls_gateway(tmp_path / "state", "optional") as gateway, running(gateway, keeping) as node:
        report = await node.until(certified=True)
        assert report.to_wire()["certificateEndsAtMs"] == round((report.certificate_ends_at or 0) * 1000)
        assert shown_by(gateway) == [None]
        path = keeping.certificate_file(gateway.urls[0])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        [record] = gateway._parts.services.certificates.listed()
        assert record.device_id == keeping.identity().device_id
        ask_for(gateway, "required")
        for session in gateway._core.registry:
            if session.role == "node":
                session.scope.close(CloseCode.SERVICE_RESTART, "to come in again")
        await node.until(connected=2)
        assert shown_by(gateway) == [record.device_id]
        assert len(gateway._parts.services.certificates.listed()) == 1, "what lasts is not fetched again"


async def test_nothing_is_fetched_where_nothing_asks_for_it(tmp_path: Path, keeping: Keeping) -> None:
    asked: list[str] = []
    async with tls_gateway(tmp_path / "state", "off") as gateway:
        issued = gateway._parts.services.certificates.listed

        def listed(device_id: str | None = None) -> list[CertificateRecord]:
            asked.append("list")
            return issued(device_id)

        gateway._parts.services.certificates.listed = listed  # type: ignore[method-assign]  # the only trace of having been asked
        async with running(gateway, keeping) as node:
            await node.until()
            while not asked:
                await trio.testing.wait_all_tasks_blocked(0.05)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert not keeping.certificate_file(gateway.urls[0]).exists()
        assert gateway._parts.services.certificates.listed() == []


async def test_v_a_revoked_certificate_is_left_out_and_replaced_once_the_node_is_in_again(
    tmp_path: Path, keeping: Keeping
) -> None:
    """Shown again and again it would lock the node out of a gateway that takes it without one."""
    async with tls_gateway(tmp_path / "state", "optional") as gateway, running(gateway, keeping) as node:
        await node.until(certified=True)
        first = keeping.certificate_file(gateway.urls[0]).read_bytes()
        await gateway._parts.services.certificates.revoke(keeping.identity().device_id)
        for session in gateway._core.registry:
            if session.role == "node":
                session.scope.close(CloseCode.SERVICE_RESTART, "to come in again")
        await node.until(connected=2)
        while not gateway._parts.services.certificates.listed():
            await trio.testing.wait_all_tasks_blocked(0.05)
        await node.until(connected=2, certified=True)
        while keeping.certificate_file(gateway.urls[0]).read_bytes() == first:
            await trio.testing.wait_all_tasks_blocked(0.05)


@attrs.define
class Authority:
    """The gateway's side of the two methods, as `keep_current` calls them."""

    device_id: str
    client_auth: str = "required"
    forged: str | None = None
    requests: list[str] = attrs.field(factory=list)
    refuse: list[Exception] = attrs.field(factory=list)
    ca: Any = attrs.field(factory=lambda: load_authority(None))

    async def call(self, method: str, params: Any, timeout: float) -> Any:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            raise self.refuse.pop()
        if method == "device.cert.list":
            return {"certificates": [], "clientAuth": self.client_auth}
        assert set(params) == {"csrPem"}, "a request and no more"
        self.requests.append(params["csrPem"])
        days = 365 if len(self.requests) == 1 else 3 * 365  # signed at the true time, which the test's is ahead of
        return {"certPem": self.forged or self.ca.sign(params["csrPem"], self.device_id, days=days).pem}


async def passing(own: NodeCertificate, authority: Authority, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await own.keep_current(authority, lambda: None)  # type: ignore[arg-type]


async def test_it_is_renewed_with_a_third_of_its_life_left_and_the_key_with_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    authority, clock = Authority("a" * 64), [time.time()]
    began = trio.current_time()

    def now() -> float:
        return clock[0] + trio.current_time() - began

    own = NodeCertificate(tmp_path / "certificates" / "one.pem", now=now)
    await passing(own, authority, DAY)
    assert len(authority.requests) == 1
    before = own.path.read_bytes()
    life = begins_and_ends(own.path)
    assert life is not None
    await passing(own, authority, (life[1] - life[0]) * 0.6)
    assert len(authority.requests) == 1, "most of its life it is left alone"
    await passing(own, authority, (life[1] - life[0]) * 0.12)
    assert len(authority.requests) == 2
    assert own.path.read_bytes() != before
    assert own.path.read_bytes().count(b"PRIVATE KEY") == 2
    assert "PRIVATE KEY" not in "".join(authority.requests)
    clock[0] += 3 * 366 * DAY
    assert (own.ends_at, own.shown) == (None, None), "one that has ended is not shown"


async def test_trouble_is_met_with_patience_and_a_gateway_that_issues_none_is_left_in_peace(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "_chance", lambda: 0.5)
    passing_by = [CallFailed("UNAVAILABLE", "later", retryable=True) for _ in range(3)]
    authority = Authority("a" * 64, refuse=list(passing_by))
    own = NodeCertificate(tmp_path / "one.pem")
    await passing(own, authority, 30)
    assert len(authority.refuse) == 2, "not before a minute has nearly passed"
    await passing(own, authority, 3600)
    assert len(authority.requests) == 1
    none = Authority("a" * 64, refuse=[CallFailed("INVALID_REQUEST", "unknown method: device.cert.list")] * 9)
    await passing(NodeCertificate(tmp_path / "two.pem"), none, DAY)
    assert 3 <= len(none.refuse) <= 4


async def test_what_is_not_for_the_key_that_was_made_is_not_kept(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    foreign = load_authority(None).sign(make_request().csr, "b" * 64).pem
    assert begins_and_ends(_written(tmp_path / "version.pem", _of_no_version(foreign))) is None
    for forged in (foreign, "no certificate", foreign * 100, _of_no_version(foreign)):
        own = NodeCertificate(tmp_path / "one.pem")
        await passing(own, Authority("a" * 64, forged=forged), 30)
        assert not own.path.exists()
    with pytest.raises(NodeError):
        await own._fetch(Authority("a" * 64, forged=foreign))  # type: ignore[arg-type]


def _of_no_version(pem: str) -> str:
    """The same certificate as of version 10, which X.509 does not have (RFC 5280 section 4.1.2.1: 0 to 2)."""
    der = ssl.PEM_cert_to_DER_cert(pem)
    v3, other = bytes.fromhex("a003020102"), bytes.fromhex("a003020109")
    assert v3 in der
    return ssl.DER_cert_to_PEM_cert(der.replace(v3, other, 1))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_is_shown_and_what_is_left_out(tmp_path: Path) -> None:
    given = ClientCertificate(tmp_path / "given.pem", tmp_path / "given-key.pem")
    ca = load_authority(None)
    new = make_request()
    keep(new, ca.sign(new.csr, "a" * 64).pem, given)
    own = NodeCertificate(tmp_path / "own.pem", given)
    assert own.shown == given
    own.path.write_bytes(b"rubbish")
    assert own.shown == given, "what cannot be loaded would end every connection"
    own.path.write_bytes(given.cert_path.read_bytes() + b"\n" + given.key_path.read_bytes())
    mine = ClientCertificate(own.path, own.path)
    shown = []
    for _ in range(3):
        shown.append(own.shown)
        own.refused()
    assert shown == [mine, given, mine], "in turns: a refusal may pass, and so may the need for one"


@pytest.mark.parametrize(
    ("error", "replaced"),
    [
        (ConnectFailed(stage="tls", url="wss://gw", message="bad certificate", code=CLIENT_CERTIFICATE), True),
        (ConnectFailed(stage="websocket", url="wss://gw", message="closed before the WebSocket was open"), True),
        (ConnectFailed(stage="websocket", url="wss://gw", message="closed: 1012", close_code=1012), False),
        (ConnectFailed(stage="tcp", url="wss://gw", message="refused"), False),
    ],
)
def test_a_gateway_that_restarts_costs_no_certificate(keeping: Keeping, error: ConnectFailed, replaced: bool) -> None:
    """Whoever says goodbye in WebSocket's words has taken the certificate."""
    setup = NodeSetup(
        url="wss://gw", identity=keeping.identity(), keeping=keeping, handlers={}, display_name="Test",
        secret=Credentials(token=TOKEN),
    )  # fmt: skip
    file = keeping.certificate_file("wss://gw")
    file.parent.mkdir(mode=0o700)
    new = make_request()
    file.write_bytes(load_authority(None).sign(new.csr, "a" * 64).pem.encode() + b"\n" + new.key)
    life = loop._Life(setup, lambda report: None, trio.Event())
    life._tls = True
    assert life._certificate.shown is not None
    life._after_refusal(error)
    assert (life._certificate.shown is None) is replaced


def test_v56_certificates_belong_to_one_url_and_go_with_what_is_known_of_it(keeping: Keeping) -> None:
    urls = [f"wss://gw{number}.example" for number in range(MAX_GATEWAYS + 1)]
    files = [keeping.certificate_file(url) for url in urls]
    assert len(set(files)) == len(urls)
    keeping.identity()
    files[0].parent.mkdir(mode=0o700)
    for url, file in zip(urls, files, strict=True):
        file.write_bytes(b"certificate")
        keeping.keep(url, "token", None)
    assert [file.exists() for file in files] == [False] + [True] * MAX_GATEWAYS
    assert keeping.forget(urls[3])
    assert not files[3].exists()
