"""The life of a node: connect, serve, come back, until it is told to stop or refused for good.

Owns the named states (design rule 12): ``connecting`` (also after a loss; 1 to 30 s), ``waiting-for-approval`` (asks
again every 2 to 15 s until a person decided), ``connected``, ``refused`` (ends), ``stopped``. It must not print or read
flags. Invariants: a device token is tried first, then the secret that was given, each wrong one once and no more, so a
gateway counts no guesses; a proof goes only to the address it belongs to, and once that address has shown an
end-to-end key, only to who proves it again; nothing invoked outlives its connection.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal
from urllib.parse import quote, urlsplit

import attrs
import trio

from openclaw_gateway.client import ClientClosed, ConnectFailed, Credentials, DeviceIdentity, GatewayClient, open_client
from openclaw_gateway.client.errors import CLIENT_CERTIFICATE
from openclaw_gateway.client.resolve import Target
from openclaw_gateway.client.secure import KnownGateway, SecureChannelWish
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.errors import GatewayError, flat_errors
from openclaw_gateway.nodes.host.certificate import NodeCertificate
from openclaw_gateway.nodes.host.commands import CAPS
from openclaw_gateway.nodes.host.errors import NodeRefused
from openclaw_gateway.nodes.host.invocations import Handler
from openclaw_gateway.nodes.host.keeping import Keeping, SecurePin
from openclaw_gateway.nodes.host.pace import CONNECTING, WAITING
from openclaw_gateway.nodes.host.seals import Seals
from openclaw_gateway.nodes.host.session import Surface, serve_connection
from openclaw_gateway.nodes.host.status import Report
from openclaw_gateway.nodes.host.verdicts import judge_refusal
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.addresses import is_loopback
from openclaw_gateway.policy.secrets import compare
from openclaw_gateway.protocol.keystatement import KeyStatement, decode_key, fingerprint

__all__ = ["HEALTHY_SECONDS", "NodeSetup", "approval_link", "beyond_this_host", "run_node"]

HEALTHY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 2.0
_REMOVED: Final = 4001
_IDENTITY_SECONDS: Final = 15.0
_PAGE_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_DEVICE_ID: Final = re.compile(r"[0-9a-f]{64}")

log = get_logger("node")
_chance = random.SystemRandom().random


@attrs.frozen(kw_only=True)
class NodeSetup:
    """``url``: the gateway's WebSocket URL; ``secret``: token, password or bootstrap token for it, empty for none."""

    url: str
    identity: DeviceIdentity
    keeping: Keeping
    handlers: Mapping[str, Handler]
    display_name: str
    secret: Credentials = attrs.field(factory=Credentials)
    tls_fingerprint: str | None = None
    client_certificate: ClientCertificate | None = None
    instance_id: str | None = None
    allow_insecure: bool = False
    secure_channel: Literal["off", "on", "required"] = "on"
    gateway_id: str | None = None  # the gateway's device id, where it was told beforehand
    seals: Seals | None = attrs.field(default=None, repr=False)
    device_token: str | None = attrs.field(default=None, repr=False)  # from another address of this gateway
    route: Target | None = None  # where the way is chosen anew for each connection; ``url`` then only names it


def approval_link(url: str, request_id: str) -> str | None:
    """Where an operator decides about a request: on the gateway itself, over HTTP, behind the same path prefix.

    None where no browser could open it: an address with a zone (RFC 6874, which browsers leave out), or no URL at all.
    """
    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname, _PAGE_SCHEMES.get(parts.scheme)
    except ValueError:
        return None
    if not host or scheme is None or "%" in host:
        return None
    where = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return f"{where}/nodes/approve?request={quote(request_id, safe='')}"


def beyond_this_host(url: str) -> str | None:
    """The address that a route led to, where others reach it too; None for the near end of a tunnel, to which no link
    leads from anywhere else."""
    host = urlsplit(url).hostname or ""
    return None if host == "localhost" or is_loopback(host) else url


class _Proofs:
    """What may prove who we are, best first; a proof that was refused is not tried again."""

    def __init__(self, setup: NodeSetup) -> None:
        known = setup.keeping.gateway(setup.url)
        secret = setup.secret
        token = known.device_token if known is not None else setup.device_token
        device = Credentials(device_token=token) if token else None
        bootstrap = Credentials(bootstrap_token=secret.bootstrap_token) if secret.bootstrap_token else None
        shared = Credentials(token=secret.token, password=secret.password)
        offered = [bootstrap, device, shared if shared.to_wire() else None]
        self._left = [proof for proof in offered if proof is not None] or [Credentials()]

    @property
    def current(self) -> Credentials:
        return self._left[0]

    def drop_current(self) -> bool:
        """False where it was the last one; then it stays."""
        if len(self._left) == 1:
            return False
        del self._left[0]
        return True

    def accept(self, device_token: str | None) -> None:
        """We were let in: a bootstrap token is spent, and the device token comes first from now on."""
        rest = [proof for proof in self._left if not proof.bootstrap_token and not proof.device_token]
        device = [Credentials(device_token=device_token)] if device_token else []
        self._left = [*device, *rest] or self._left


class _Life:
    def __init__(self, setup: NodeSetup, tell: Callable[[Report], None], stop: trio.Event) -> None:
        self._setup = setup
        self._tell = tell
        self._stop = stop
        self._proofs = _Proofs(setup)
        self._report = Report(state="connecting", gateway=setup.url, device_id=setup.identity.device_id)
        self._failures = 0
        self._token: str | None = None
        known = setup.keeping.gateway(setup.url)
        self._pin: SecurePin | None = known.secure if known is not None else None
        self._kept_pin = self._pin
        self._page_at: str | None = setup.url if setup.route is None else None  # what an approval link is made of
        path = setup.keeping.certificate_file(setup.url)
        self._certificate = NodeCertificate(path, setup.client_certificate)
        self._tls = False
        self._key = setup.keeping.static_key() if setup.secure_channel != "off" else None
        self.dialing = False

    async def run(self) -> None:
        self._say(Report(state="connecting", gateway=self._report.gateway, device_id=self._report.device_id))
        while not self._stop.is_set():
            try:
                wait = await self._connect_once()
            except ConnectFailed as error:
                wait = self._after_refusal(error)
            except ClientClosed as error:
                wait = self._retry(str(error), None)  # the route died under the connection: the next one is tried
            except Exception as exc:
                # The crash barrier of a connection: no outside event ends the node (design rule 5).
                log.exception("node connection failed", exc=exc, url=self._setup.url)
                wait = self._retry(f"internal error: {type(exc).__name__}", None)
            self.dialing = False
            with trio.move_on_after(wait):
                await self._stop.wait()

    def say_stopped(self) -> None:
        self._change("stopped")

    async def _connect_once(self) -> float:
        """Connect and serve. Seconds to wait before the next try. Raises `ConnectFailed`."""
        setup = self._setup
        self.dialing = True
        async with self._open() as client:
            self.dialing = False
            began = trio.current_time()
            token = client.hello.device_token
            if token is not None and (self._pin != self._kept_pin or not compare(token, self._token or "")):
                self._keep(token)
            self._keep_pin()
            self._proofs.accept(token)
            key = self._shown_pin() if client.secure else None
            ends_at = self._certificate.ends_at if self._tls else None
            self._change("connected", secure=client.secure, gateway_key=key, certificate_ends_at=ends_at)
            log.info("node connected", url=setup.url, auth=client.hello.method, secure=client.secure)
            node_id = setup.identity.device_id
            with flat_errors():
                async with trio.open_nursery() as beside:
                    beside.start_soon(self._learn_identity, client)
                    if self._tls:
                        beside.start_soon(self._certificate.keep_current, client, self._certified)
                    why = await serve_connection(
                        client, setup.handlers, node_id, stop=self._stop, surface=self._surface, seals=setup.seals
                    )
                    beside.cancel_scope.cancel()
        if why is None:
            return 0.0
        if trio.current_time() - began >= HEALTHY_SECONDS:
            self._failures = 0
        log.info("node disconnected", url=setup.url, close_code=why.code, reason=why.reason)
        reason = "removed from the gateway" if why.code == _REMOVED else str(why)
        return self._retry(reason, None)

    def _keep(self, token: str) -> None:
        try:
            self._setup.keeping.keep(self._setup.url, token, self._setup.tls_fingerprint, secure=self._pin)
            self._kept_pin = self._pin
        except (OSError, GatewayError) as error:
            # A full disk is no reason to stop serving; the next start needs the shared secret again.
            log.warning("device token not kept", error=str(error))
        self._token = token

    def _keep_pin(self) -> None:
        """What was said inside the channel comes from this very gateway: a node that starts anew holds it to its key,
        also where no device token was given (an API key) or nobody has approved the node yet."""
        if self._pin is None or self._pin == self._kept_pin:
            return
        try:
            self._setup.keeping.keep_pin(self._setup.url, self._pin)
            self._kept_pin = self._pin
        except (OSError, GatewayError) as error:
            log.warning("the gateway's key not kept", error=str(error))

    def _met(self, gateway: KeyStatement) -> None:
        """From the first greeting on, waiting for approval included, this URL is this gateway and no other."""
        self._pin = SecurePin(gateway.device_id, gateway.key)

    def _shown_pin(self) -> str | None:
        return fingerprint(decode_key(self._pin.key)) if self._pin is not None else None

    def _wish(self) -> SecureChannelWish | None:
        setup = self._setup
        if self._key is None or setup.secure_channel == "off":
            return None
        known = None if self._pin is None else KnownGateway(self._pin.device_id, decode_key(self._pin.key))
        return SecureChannelWish(
            key=self._key, mode=setup.secure_channel, known=known, expected_id=setup.gateway_id, met=self._met
        )

    async def _learn_identity(self, client: GatewayClient) -> None:
        """Keep who the gateway is that let us in, to know it again when its address changes."""
        try:
            answer = await client.call("gateway.identity.get", timeout=_IDENTITY_SECONDS)
            said = answer.get("deviceId") if isinstance(answer, dict) else None
            if isinstance(said, str) and _DEVICE_ID.fullmatch(said):
                self._setup.keeping.keep_identity(self._setup.url, said)
        except (OSError, GatewayError) as error:
            log.debug("gateway identity not learned", error=str(error))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[GatewayClient]:
        setup = self._setup
        if setup.route is None:
            async with self._dial(setup.url, setup.tls_fingerprint) as client:
                yield client
            return
        from openclaw_gateway.client.route_dial import open_route

        async with (
            open_route(setup.route, pulse=True) as reached,
            self._dial(self._routed(reached.url), reached.tls_fingerprint) as client,
        ):
            yield client

    def _routed(self, url: str) -> str:
        self._page_at = beyond_this_host(url)
        return url

    def _dial(self, url: str, tls_fingerprint: str | None) -> AbstractAsyncContextManager[GatewayClient]:
        setup = self._setup
        self._tls = url.startswith("wss:")
        return open_client(
            url,
            auth=self._proofs.current,
            identity=setup.identity,
            role="node",
            scopes=(),
            client_id="node-host",
            mode="node",
            display_name=setup.display_name,
            instance_id=setup.instance_id,
            caps=CAPS,
            commands=tuple(setup.handlers),
            tls_fingerprint=tls_fingerprint,
            client_certificate=self._certificate.shown if self._tls else None,
            allow_insecure=setup.allow_insecure,
            secure=self._wish(),
            protocol="json",
        )

    def _after_refusal(self, error: ConnectFailed) -> float:
        verdict = judge_refusal(error)
        unheard = error.stage == "websocket" and error.code is None and error.close_code is None
        if self._tls and (error.code == CLIENT_CERTIFICATE or unheard):
            self._certificate.refused()
        log.info("node connect failed", url=error.url, reason=error.message, detail=(error.details or {}).get("code"))
        if verdict == "other-proof" and self._proofs.drop_current():
            return 0.0
        if verdict in {"stop", "other-proof"}:
            self._change("refused", reason=error.message, fix=error.fix)
            raise NodeRefused(error.message, error.fix, code=str((error.details or {}).get("code") or error.code or ""))
        asked = (error.retry_after_ms or 0) / 1000
        if verdict == "wait":
            self._keep_pin()
            return self._wait_for_approval(error, asked)
        return self._retry(error.message, error.fix, at_least=asked)

    def _wait_for_approval(self, error: ConnectFailed, asked: float) -> float:
        request = (error.details or {}).get("requestId")
        request_id = request[:128] if isinstance(request, str) and request.isprintable() else None
        same = self._report.state == "waiting-for-approval" and self._report.request_id == request_id
        self._failures = self._failures + 1 if same else 1
        delay = WAITING.delay(self._failures, _chance(), at_least=asked)
        self._change(
            "waiting-for-approval",
            reason=error.message,
            fix=f"openclaw devices approve {request_id}" if request_id else "openclaw devices list",
            request_id=request_id,
            link=approval_link(self._page_at, request_id) if request_id and self._page_at else None,
            retry_in=delay,
            failures=self._failures,
        )
        return delay

    def _retry(self, reason: str, fix: str | None, *, at_least: float = 0.0) -> float:
        self._failures = self._failures + 1 if self._report.state != "waiting-for-approval" else 1
        delay = CONNECTING.delay(self._failures, _chance(), at_least=at_least)
        self._change("connecting", reason=reason, fix=fix, retry_in=delay, failures=self._failures)
        return delay

    def _certified(self) -> None:
        self._say(attrs.evolve(self._report, certificate_ends_at=self._certificate.ends_at))

    def _surface(self, surface: Surface) -> None:
        if surface != self._report.surface:
            self._say(attrs.evolve(self._report, surface=surface))

    def _change(self, state: str, **fields: object) -> None:
        self._say(Report(state=state, gateway=self._report.gateway, device_id=self._report.device_id, **fields))  # type: ignore[arg-type]

    def _say(self, report: Report) -> None:
        self._report = report
        self._tell(report)


async def run_node(setup: NodeSetup, *, tell: Callable[[Report], None], stop: trio.Event) -> None:
    """Keep ``setup`` connected until ``stop`` is set: then a Close frame is sent and this returns within two seconds.

    ``tell`` hears every change of state; it must not block. Raises `NodeRefused` where trying again is useless, or what
    the state directory's files raise. Cancellation ends everything that was invoked, then the connection.
    """
    life = _Life(setup, tell, stop)
    with flat_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cut_after_stop, stop, life, nursery.cancel_scope)
            await life.run()
            nursery.cancel_scope.cancel()
    if stop.is_set():
        life.say_stopped()


async def _cut_after_stop(stop: trio.Event, life: _Life, scope: trio.CancelScope) -> None:
    await stop.wait()
    if not life.dialing:
        await trio.sleep(STOP_SECONDS)
    scope.cancel()
