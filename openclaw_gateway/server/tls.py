"""The certificate that the gateway shows, kept fresh while it runs.

Owns which pair of files is in use, the OpenSSL contexts made of it (one for each kind of client authentication), and
what is to be said about it (`Standing`). It must not know sockets (`server.tlswire`) or PEM (`server.certificates`).
Loaded only where a listener speaks TLS.

Invariants: TLS 1.3 and ``http/1.1`` only, no session tickets (a resumed session would not show its certificate again);
a new file that cannot be used changes nothing and says so, whatever was good stays in use, connections live on; where
nothing was good yet, the gateway's own certificate takes the place (clients that pin or verify refuse it, nobody is
served in the clear), unless gateway.tls.autoGenerate forbids that: then the listener waits for a good file.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import attrs

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, write_private_file
from openclaw_gateway.server.certificates import (
    RENEW_DAYS,
    CertificateFault,
    Pair,
    load_pair,
    make_pair,
    own_pair_paths,
    read_pair,
    stamp_of,
)
from openclaw_gateway.server.tlswire import TlsWire
from openclaw_gateway.server.wire import SocketWire
from openclaw_gateway.value import Value

__all__ = ["ClientCertificates", "Layer", "Standing", "TlsKeeper"]

State = Literal["ok", "generated", "expiring", "expired", "not-yet-valid", "fallback", "kept", "unusable"]
SOON_SECONDS: Final = 14 * 86_400.0
IN_USE: Final = "in-use.pem"  # the certificate alone, without its key
_DAY: Final = 86_400.0

log = get_logger("tls")


@attrs.frozen(eq=False, repr=False)
class Standing(Value):
    """How the certificate is doing. ``trouble`` None: well."""

    state: State
    trouble: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.state}: {self.trouble}" + (f"; fix: {self.fix}" if self.fix else "")


class ClientCertificates(Protocol):
    """Who may come with a client certificate: `pairing.clientcerts.IssuedCertificates`."""

    def authorities(self) -> str:
        """PEM of the authorities whose certificates are accepted."""
        ...

    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        """The device that a verified certificate belongs to; None for one of a further authority that names none.
        Raises `ValueError` with the reason where it was revoked, or is not known.
        """
        ...


class Layer:
    """TLS as one kind of listener speaks it. ``context`` is replaced when the certificate is."""

    def __init__(self, keeper: TlsKeeper, client_auth: str) -> None:
        self._keeper = keeper
        self.client_auth = client_auth
        self.context: ssl.SSLContext

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the certificate in DER: OpenClaw's ``tlsFingerprint``."""
        assert self._keeper.pair is not None
        return self._keeper.pair.fingerprint

    def wrap(self, wire: SocketWire) -> TlsWire:
        return TlsWire(wire, self)

    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        return self._keeper.clients.identify(described, der)


class TlsKeeper:
    """``tell`` hears what troubles the certificate (None: nothing)."""

    def __init__(
        self, *, tell: Callable[[str | None], None], clients: ClientCertificates, now: Callable[[], float] = time.time
    ) -> None:
        self._tell = tell
        self._now = now
        self.clients = clients
        self.pair: Pair | None = None
        self.standing = Standing("unusable", "not loaded yet")
        self._layers: dict[str, Layer] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._config = GatewayConfig()
        self._names: tuple[str, ...] = ()
        self._fixed: tuple[str, ...] = ()
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._doubted: tuple[tuple[int, int, int], ...] | None = None
        self._fault: Standing | None = None
        self._ca_fault: Standing | None = None

    def configure(
        self, config: GatewayConfig, kinds: Iterable[str], names: Iterable[str], fixed: Iterable[str] = ()
    ) -> None:
        """Use this configuration from now on. ``kinds``: the kinds of client authentication that listeners ask for;
        ``names``: what a certificate made now would name; ``fixed``: those of them that a configuration wrote down, for
        which one that lacks them is made anew. Never raises: `standing` says how it went.
        """
        self._config, self._names, self._fixed = config, tuple(names), tuple(fixed)
        for kind in kinds:
            self._layers.setdefault(kind, Layer(self, kind))
        self._load(settled=True)

    @property
    def ready(self) -> bool:
        """Whether there is a certificate to show."""
        return self.pair is not None

    def layer(self, client_auth: str) -> Layer:
        """TLS with this kind of client authentication (off, optional, required), one that `configure` was told of."""
        return self._layers[client_auth]

    def look(self) -> bool:
        """Look at the files and the clock, take over what changed; True where another certificate is shown now."""
        before = self.pair
        own_ends = self._files is None and before is not None and before.not_after - self._now() < RENEW_DAYS * _DAY
        if own_ends or stamp_of(*self._watched) != self._seen:
            self._load(settled=False)
        else:
            self._judge()
        return self.pair is not before

    def refresh_clients(self) -> None:
        """The authorities for client certificates changed: connections from now on are measured by the new ones."""
        if self.pair is not None:
            self._use(self.pair)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def view(self) -> dict[str, Any]:
        """For ``status`` and ``gateway status --json``."""
        pair = self.pair
        return {
            "state": self.standing.state,
            "trouble": self.standing.trouble,
            "fix": self.standing.fix,
            "fingerprint": pair.fingerprint if pair is not None else None,
            "keyPin": pair.key_pin if pair is not None else None,
            "notAfterMs": round(pair.not_after * 1000) if pair is not None else None,
            "certPath": str(pair.cert_path) if pair is not None else None,
            "generated": pair is not None and self._files != (pair.cert_path, pair.key_path),
        }

    # --- choosing

    @property
    def _files(self) -> tuple[Path, Path] | None:
        """The configured pair (a key may stand in the certificate's own file); None: our own."""
        tls = self._config.tls
        return None if tls.cert_path is None else (tls.cert_path, tls.key_path or tls.cert_path)

    @property
    def _watched(self) -> tuple[Path, ...]:
        ca_path = self._config.tls.ca_path
        return (*(self._files or ()), *((ca_path,) if ca_path is not None else ()))

    def _load(self, *, settled: bool) -> None:
        """``settled``: nobody is in the middle of writing the files."""
        stamp, files = stamp_of(*self._watched), self._files
        try:
            self._use(read_pair(*files) if files is not None else self._own())
        except CertificateFault as fault:
            if not settled and stamp != self._doubted:
                self._doubted = stamp  # a certificate is often written a moment before its key: look once more
                return
            self._seen = stamp
            self._fault = self._without(fault)
        else:
            self._seen, self._fault = stamp, None
        self._judge()

    def _without(self, fault: CertificateFault) -> Standing:
        """What is in use where the configured certificate cannot be."""
        if self.pair is not None:
            if any(not hasattr(layer, "context") for layer in self._layers.values()):
                self._use(self.pair)  # a listener that is new asks for client certificates in another way
            return Standing("kept", f"{fault}; the former certificate stays in use", fault.fix)
        if self._files is None or not self._config.tls.auto_generate:
            return Standing("unusable", f"{fault}; nothing is served over TLS", fault.fix)
        try:
            self._use(self._own())
        except CertificateFault as exc:
            return Standing("unusable", f"{fault}, and {exc}", exc.fix)
        return Standing("fallback", f"{fault}; the gateway's own certificate is in use", fault.fix)

    def _use(self, pair: Pair) -> None:
        """Make every context anew, then let all listeners go by them: never half of them. Raises `CertificateFault`."""
        authorities = self._authorities()
        contexts = {kind: _context(pair, kind, authorities) for kind in self._layers}
        before, self.pair = self.pair, pair
        for kind, context in contexts.items():
            self._layers[kind].context = context
        if before is not None and before.fingerprint != pair.fingerprint:
            log.info("certificate renewed", fingerprint=pair.fingerprint, file=str(pair.cert_path))
        if before is not pair:
            self._note(pair)

    def _note(self, pair: Pair) -> None:
        """Leave the certificate where this host's own commands look for what to pin: the files may hold another."""
        state_dir = self._config.state_dir
        if state_dir is None:
            return
        path = state_dir / "tls" / IN_USE
        try:
            ensure_private_dir(path.parent)
            write_private_file(path, pair.cert_pem)
        except (OSError, StateDirUnsafe) as exc:
            log.warning("this host's commands may not know the certificate", file=str(path), error=str(exc))

    def _authorities(self) -> str:
        """Whose client certificates are accepted. A file of them that cannot be read takes nobody in."""
        path, self._ca_fault, ours = self._config.tls.ca_path, None, ""
        if not set(self._layers) - {"off"}:
            return ours
        try:
            ours = self.clients.authorities()
        except (GatewayError, OSError) as exc:
            fix = getattr(exc, "fix", None)
            self._ca_fault = Standing("fallback", f"no client certificate of ours is accepted: {exc}", fix)
        if path is None:
            return ours
        try:
            further = path.read_text("ascii")
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=further)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            text = f"{path}: the authorities for client certificates cannot be loaded: {exc}"
            self._ca_fault = Standing("fallback", text, f"openssl x509 -in '{path}' -noout -text")
            return ours
        return f"{ours}\n{further}"

    def _judge(self) -> None:
        """Say how the certificate is doing: what a file did wrong first, then what the clock says."""
        pair, now = self.pair, self._now()
        trouble = self._fault or self._ca_fault
        if trouble is not None or pair is None:
            self._stand(trouble or self.standing)
            return
        path = pair.cert_path
        fix = f"put a new certificate at {path}; it is taken over at once"
        if now >= pair.not_after:
            self._stand(Standing("expired", f"{path}: expired on {_date(pair.not_after)}", fix))
        elif now < pair.not_before:
            text = f"{path}: not valid before {_date(pair.not_before)}; is the clock right?"
            self._stand(Standing("not-yet-valid", text, "timedatectl status"))
        elif pair.not_after - now < SOON_SECONDS and self._files is not None:
            self._stand(Standing("expiring", f"{path}: expires on {_date(pair.not_after)}", fix))
        else:
            self._stand(Standing("generated" if self._files is None else "ok"))

    def _stand(self, standing: Standing) -> None:
        if standing == self.standing:
            return
        self.standing = standing
        if standing.trouble is not None:
            log.error("certificate trouble", state=standing.state, error=standing.trouble, fix=standing.fix)
        well = standing.trouble is None or standing.state == "expiring"  # it still does what it should
        self._tell(None if well else str(standing))

    def _own(self) -> Pair:
        """The certificate of our own: kept from the last start, or made. Raises `CertificateFault`."""
        state_dir = self._config.state_dir
        if state_dir is None:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="openclaw-gateway-")
            state_dir = Path(self._folder.name)
        cert_path, key_path = own_pair_paths(state_dir)
        try:
            pair = read_pair(cert_path, key_path)
        except CertificateFault as exc:
            if exc.kind != "missing":
                log.warning("the gateway's own certificate is made anew", error=str(exc))
            return make_pair(cert_path, key_path, self._names)
        ends = pair.not_after - self._now() < RENEW_DAYS * _DAY
        lacking = [name for name in self._fixed if not pair.covers(name)]
        if ends or lacking:
            log.info("the gateway's own certificate is renewed", reason="it ends" if ends else "addresses")
            return make_pair(cert_path, key_path, self._names)
        return pair


def _context(pair: Pair, client_auth: str, authorities: str) -> ssl.SSLContext:
    """Raises `CertificateFault`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    load_pair(context, pair)
    if client_auth != "off":
        context.verify_mode = ssl.CERT_REQUIRED if client_auth == "required" else ssl.CERT_OPTIONAL
        if authorities:
            context.load_verify_locations(cadata=authorities)
    return context


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
