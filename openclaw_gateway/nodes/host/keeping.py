"""What a node keeps between runs: its keys, and the device token and end-to-end key of each gateway that let it in.

Owns ``<state>/node/identity.json``, ``x25519.json`` and ``gateways.json``, all 0600 in a folder 0700, and where the
client certificate for a gateway lies. It must not connect. Invariants: a device token is handed out only for the very
URL it was issued at (attack V56), and so is a certificate; what cannot be read is an error, never "nothing was kept"
(STATE-1); at most `MAX_GATEWAYS` are kept, the one not used longest gives way.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

import attrs
import msgspec

from openclaw_gateway.client.identity import DeviceIdentity, load_or_create_identity
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file, write_private_file
from openclaw_gateway.ops.statickey import StaticKey, load_or_create_static_key

__all__ = ["MAX_GATEWAYS", "Keeping", "KnownGateway", "SecurePin", "node_dir"]

MAX_GATEWAYS: Final = 16


def node_dir(state: Path) -> Path:
    """The node's own folder below the state directory."""
    return state / "node"


class _Row(msgspec.Struct):
    url: str
    deviceToken: str  # noqa: N815  as in the file
    usedAtMs: int  # noqa: N815
    tlsFingerprint: str | None = None  # noqa: N815
    gatewayId: str | None = None  # noqa: N815
    gatewayKey: str | None = None  # noqa: N815


class _File(msgspec.Struct):
    version: int = 1
    gateways: list[_Row] = []


@attrs.frozen
class SecurePin:
    """A gateway's identity (device id) and its X25519 key (base64url), as it proved them."""

    device_id: str
    key: str


@attrs.frozen
class KnownGateway:
    """``gateway_id``: the device id of its identity, as it said itself over a connection that let us in;
    ``device_token`` is empty where the gateway has given none, yet its key is known."""

    url: str
    device_token: str = attrs.field(repr=False)
    tls_fingerprint: str | None = None
    secure: SecurePin | None = None  # from the first end-to-end encrypted connection on, nothing else is accepted
    gateway_id: str | None = None


class Keeping:
    """The files in ``directory``. Every method blocks for a small file; none is needed while commands run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def identity(self) -> DeviceIdentity:
        """The node's key, made on first use. Raises `IdentityUnreadable`, `StateDirUnsafe` or OSError."""
        ensure_private_dir(self.directory)
        return load_or_create_identity(self.directory / "identity.json")

    def static_key(self) -> StaticKey:
        """The node's X25519 key, made on first use. Raises `StaticKeyDamaged`, `StateDirUnsafe` or OSError."""
        return load_or_create_static_key(self.directory / "x25519.json")

    def certificate_file(self, url: str) -> Path:
        """Where the client certificate that the gateway at ``url`` issued is kept."""
        return self.directory / "certificates" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.pem"

    def gateway(self, url: str) -> KnownGateway | None:
        return next((_known(row) for row in self._read().gateways if row.url == url), None)

    def gateways(self) -> list[KnownGateway]:
        """All that let us in, the latest first."""
        rows = [row for row in self._read().gateways if row.deviceToken]
        return [_known(row) for row in sorted(rows, key=lambda row: -row.usedAtMs)]

    def latest(self) -> KnownGateway | None:
        """The gateway that let us in last."""
        rows = [row for row in self._read().gateways if row.deviceToken]
        return _known(max(rows, key=lambda row: row.usedAtMs)) if rows else None

    def keep(
        self, url: str, device_token: str, tls_fingerprint: str | None, *, secure: SecurePin | None = None
    ) -> None:
        """Remember that ``url`` let us in with ``device_token`` from now on, and with which end-to-end key (None: as
        before). Durable when it returns."""
        kept = self._read()
        known = next((row for row in kept.gateways if row.url == url), None)
        others = [row for row in kept.gateways if row.url != url]
        others.sort(key=lambda row: row.usedAtMs, reverse=True)
        for dropped in others[MAX_GATEWAYS - 1 :]:
            self.certificate_file(dropped.url).unlink(missing_ok=True)
        pin = secure or (_known(known).secure if known is not None else None)
        gateway_id = known.gatewayId if known is not None else None
        row = _Row(url, device_token, round(time.time() * 1000), tls_fingerprint, gateway_id)
        if pin is not None:
            row.gatewayId, row.gatewayKey = pin.device_id, pin.key
        kept.gateways = [row, *others[: MAX_GATEWAYS - 1]]
        ensure_private_dir(self.directory)
        write_private_file(self._path, msgspec.json.encode(kept))

    def keep_pin(self, url: str, secure: SecurePin) -> None:
        """Remember the end-to-end key of a gateway that gave no device token, or has not let us in yet; what else is
        known of it stays. Durable when it returns."""
        known = self.gateway(url)
        token, tls = (known.device_token, known.tls_fingerprint) if known is not None else ("", None)
        self.keep(url, token, tls, secure=secure)

    def forget(self, url: str) -> bool:
        """Know nothing of ``url`` any more: neither its device token, its key nor the certificate for it. False where
        nothing was known."""
        self.certificate_file(url).unlink(missing_ok=True)
        kept = self._read()
        left = [row for row in kept.gateways if row.url != url]
        if len(left) == len(kept.gateways):
            return False
        kept.gateways = left
        write_private_file(self._path, msgspec.json.encode(kept))
        return True

    def urls(self) -> tuple[str, ...]:
        """The gateways that are known, the one used last first."""
        rows = sorted(self._read().gateways, key=lambda row: row.usedAtMs, reverse=True)
        return tuple(row.url for row in rows)

    def keep_identity(self, url: str, gateway_id: str) -> None:
        """Remember who the gateway at ``url`` is, where it is one that let us in. The first answer stays: another
        identity at that URL later is for a person to look at, not for us to take over."""
        kept = self._read()
        for row in kept.gateways:
            if row.url == url and row.gatewayId is None:
                row.gatewayId = gateway_id
                write_private_file(self._path, msgspec.json.encode(kept))

    @property
    def _path(self) -> Path:
        return self.directory / "gateways.json"

    def _read(self) -> _File:
        try:
            data = read_private_file(self._path)
        except FileNotFoundError:
            return _File()
        try:
            return msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NodeError(f"{self._path} is not what this node wrote", "look at it, then move it away") from error


def _known(row: _Row) -> KnownGateway:
    pin = SecurePin(row.gatewayId, row.gatewayKey) if row.gatewayId and row.gatewayKey else None
    return KnownGateway(row.url, row.deviceToken, row.tlsFingerprint, pin, row.gatewayId)
