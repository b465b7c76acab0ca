"""Certificates: reading a pair of files with a verdict on it, and making one of our own.

Owns PEM files, `cryptography`, and the words for what is wrong with a certificate. It must not know listeners or when
to look again. Loaded only where TLS is switched on. Made certificates are self-signed ECDSA P-256, end-entity, with a
SAN for every address the gateway listens on (NET-8); the key stays when the certificate is renewed, so that a pin of
the key (RFC 7469's SPKI) lives on.

Invariants: a private key of ours is in a file of mode 0600 in a folder of mode 0700, written whole or not at all; a
file that cannot be used is a `CertificateFault` that names the file, the state and the one act that mends it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "CertificateFault",
    "FaultKind",
    "Pair",
    "load_chain",
    "load_pair",
    "make_pair",
    "own_pair_paths",
    "read_pair",
    "server_names",
    "stamp_of",
]

FaultKind = Literal["missing", "unreadable", "invalid", "mismatched", "encrypted"]

LIFE_DAYS: Final = 3650
RENEW_DAYS: Final = 30
MAX_BYTES: Final = 256 * 1024
MAX_NAMES: Final = 64


@attrs.define(eq=False)
class CertificateFault(GatewayError):
    """A certificate or key that cannot be used."""

    kind: FaultKind
    file: Path
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Pair(Value):
    """A certificate and its key, as PEM files that load. Times are Unix seconds; both digests are hex SHA-256."""

    cert_path: Path
    key_path: Path
    fingerprint: str  # of the DER certificate: OpenClaw's tlsFingerprint
    key_pin: str  # of the SubjectPublicKeyInfo
    not_before: float
    not_after: float
    names: frozenset[str]
    cert_pem: bytes  # both files as they were read and checked: what is in use depends on the files no more
    key_pem: bytes

    def covers(self, name: str) -> bool:
        """Whether the certificate names a host (RFC 6125, one star label)."""
        lowered = name.lower()
        return lowered in self.names or f"*.{lowered.partition('.')[2]}" in self.names


def own_pair_paths(folder: Path) -> tuple[Path, Path]:
    """Where the generated certificate and its key are kept, below the state directory."""
    return folder / "tls" / "gateway-cert.pem", folder / "tls" / "gateway-key.pem"


def server_names(hosts: Iterable[str], *more: str | None) -> tuple[str, ...]:
    """What a certificate should name: loopback in all spellings, this host, every address listened on."""
    host = socket.gethostname().lower()
    found = dict.fromkeys(("localhost", "127.0.0.1", "::1", host, f"{host.partition('.')[0]}.local"))
    for name in (*hosts, *more):
        if name and name not in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            found[name.lower()] = None
    return tuple(found)[:MAX_NAMES]


def stamp_of(*paths: Path) -> tuple[tuple[int, int, int], ...]:
    """What changes when one of the files does. A file that cannot be looked at has the stamp (0, 0, 0)."""
    found = []
    for path in paths:
        try:
            seen = path.stat()
            found.append((seen.st_ctime_ns, seen.st_size, seen.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise CertificateFault("missing", path, f"there is no such {what} file", f"ls -l '{path.parent}'") from exc
    except OSError as exc:
        reason = f"the {what} cannot be read: {exc.strerror}"
        raise CertificateFault("unreadable", path, reason, f"ls -l '{path}'") from exc
    if len(data) > MAX_BYTES:
        raise CertificateFault("invalid", path, f"over {MAX_BYTES} bytes is no {what}", f"ls -l '{path}'")
    return data


def read_pair(cert_path: Path, key_path: Path) -> Pair:
    """Read, check and describe a certificate (the first in its file) and its key. Raises `CertificateFault`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = _read(cert_path, "certificate")
    key = _read(key_path, "key")
    try:
        cert = x509.load_pem_x509_certificate(text)
        names = _names_of(cert)
        public = cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as exc:
        fix = f"openssl x509 -in '{cert_path}' -noout -text"
        raise CertificateFault("invalid", cert_path, "holds no PEM certificate that can be read", fix) from exc
    if b"ENCRYPTED" in key:
        fix = f"openssl pkey -in '{key_path}' -out '{key_path}.plain'"
        raise CertificateFault("encrypted", key_path, "the key is encrypted with a passphrase", fix)
    load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert_path, key_path)
    return Pair(
        cert_path=cert_path,
        key_path=key_path,
        fingerprint=hashlib.sha256(cert.public_bytes(Encoding.DER)).hexdigest(),
        key_pin=hashlib.sha256(public).hexdigest(),
        not_before=cert.not_valid_before_utc.timestamp(),
        not_after=cert.not_valid_after_utc.timestamp(),
        names=names,
        cert_pem=text,
        key_pem=key,
    )


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Load what was read, whatever the files hold by now. Raises `CertificateFault`."""
    if sys.platform != "linux":
        load_chain(context, pair.cert_path, pair.key_path)
        return
    with ExitStack() as stack:
        names = []
        for data in (pair.cert_pem, pair.key_pem):
            fd = os.memfd_create("openclaw-tls", os.MFD_CLOEXEC)
            file = stack.enter_context(os.fdopen(fd, "wb", buffering=0))
            file.write(data)
            names.append(Path(f"/proc/self/fd/{fd}"))
        load_chain(context, *names)


def load_chain(context: ssl.SSLContext, cert_path: Path, key_path: Path) -> None:
    """Load both files into ``context``. Raises `CertificateFault`."""
    try:
        # The empty passphrase keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            fix = f"openssl pkey -in '{key_path}' -pubout; openssl x509 -in '{cert_path}' -noout -pubkey"
            raise CertificateFault("mismatched", key_path, "the key does not belong to the certificate", fix) from exc
        reason = f"cannot be loaded: {(exc.reason or 'no PEM').replace('_', ' ').lower()}"
        raise CertificateFault("invalid", key_path, reason, f"openssl pkey -in '{key_path}' -noout -text") from exc
    except OSError as exc:
        reason = f"cannot be read: {exc.strerror}"
        raise CertificateFault("unreadable", key_path, reason, f"ls -l '{key_path}'") from exc


def _names_of(cert: x509.Certificate) -> frozenset[str]:
    from cryptography import x509

    try:
        listed = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    dns = (name.lower() for name in listed.get_values_for_type(x509.DNSName))
    return frozenset([*dns, *map(str, listed.get_values_for_type(x509.IPAddress))])


def make_pair(cert_path: Path, key_path: Path, names: Iterable[str], *, days: int = LIFE_DAYS) -> Pair:
    """Make a certificate for ``names`` and keep it; the key that is there is used again. Raises `CertificateFault`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, write_private_file

    try:
        ensure_private_dir(cert_path.parent.parent)
        ensure_private_dir(cert_path.parent)
        key = _own_key(key_path)
        if key is None:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private_file(key_path, pem)
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "openclaw-gateway")])
        cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))  # clocks of a home network differ
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private_file(cert_path, cert.public_bytes(serialization.Encoding.PEM))
    except StateDirUnsafe as exc:
        raise CertificateFault("unreadable", cert_path.parent, str(exc), exc.fix or "") from exc
    except OSError as exc:
        reason = f"cannot be written: {exc.strerror}"
        raise CertificateFault("unreadable", cert_path, reason, f"ls -ld '{cert_path.parent}'") from exc
    return read_pair(cert_path, key_path)


def _own_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """The key of the certificate that is to be renewed; None where there is none that will do."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from openclaw_gateway.ops.statedir import read_private_file

    try:
        found = load_pem_private_key(read_private_file(path, limit=MAX_BYTES), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode() if not name.isascii() else name)
