"""The gateway's own authority for client certificates.

Owns its key and certificate (``<state>/credentials/client-ca.pem``, 0600) and the signing. It must not know who may
have a certificate. Loaded only when client certificates are in use. ECDSA P-256; a certificate is good for one device
(CN and URI SAN name its id, the extended key usage is clientAuth) and for `LIFE_DAYS`.

Invariants: the authority signs what it is given a *request* or a *public key* for, never a key that it made; nothing of
a request but its key gets into a certificate; the authority's key never leaves the file.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file, write_private_file
from openclaw_gateway.pairing.tokens import CredentialDamaged
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["DEVICE_URN", "LIFE_DAYS", "ClientAuthority", "RequestRefused", "SignedCertificate", "load_authority"]

DEVICE_URN: Final = "urn:openclaw:device:"
LIFE_DAYS: Final = 365
MAX_REQUEST_CHARS: Final = 16_384
CA_FILE: Final = "client-ca.pem"
_CA_DAYS: Final = 7300
_MIN_RSA_BITS: Final = 2048
_DEVICE_ID: Final = re.compile(r"[0-9a-f]{64}")


@attrs.define(eq=False)
class RequestRefused(GatewayError):
    """What was sent is no request that can be signed."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SignedCertificate(Value):
    """``fingerprint``: hex SHA-256 of the DER certificate. Times are Unix milliseconds."""

    pem: str
    fingerprint: str
    serial: str
    not_after_ms: int


class ClientAuthority:
    """Made by `load_authority`."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding

        self._cert = cert
        self._key = key
        self.pem = cert.public_bytes(Encoding.PEM).decode("ascii")

    def sign(self, csr_pem: str, device_id: str, *, days: int = LIFE_DAYS) -> SignedCertificate:
        """A certificate for the key of a PKCS #10 request (RFC 2986), whose own signature proves that its sender holds
        the key. Raises `RequestRefused`.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        if _DEVICE_ID.fullmatch(device_id) is None:
            raise RequestRefused("not a device id")
        if len(csr_pem) > MAX_REQUEST_CHARS:
            raise RequestRefused(f"over {MAX_REQUEST_CHARS} characters is no certificate request")
        try:
            request = x509.load_pem_x509_csr(csr_pem.encode())
            proven, key = request.is_signature_valid, request.public_key()
        except (ValueError, TypeError) as exc:
            raise RequestRefused("not a PEM certificate request") from exc
        except Exception as exc:  # cryptography.exceptions.UnsupportedAlgorithm has no base of its own
            raise RequestRefused("a kind of key that is not supported") from exc
        if not proven:
            raise RequestRefused("the request is not signed by its own key")
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
            raise RequestRefused("a kind of key that is not supported; use ECDSA P-256 or Ed25519")
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
            raise RequestRefused(f"an RSA key of under {_MIN_RSA_BITS} bits")
        now = datetime.now(UTC)
        ends = min(now + timedelta(days=days), self._cert.not_valid_after_utc)
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)]))
            .issuer_name(self._cert.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(DEVICE_URN + device_id)]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        der = cert.public_bytes(Encoding.DER)
        return SignedCertificate(
            pem=cert.public_bytes(Encoding.PEM).decode("ascii"),
            fingerprint=hashlib.sha256(der).hexdigest(),
            serial=f"{cert.serial_number:x}",
            not_after_ms=round(cert.not_valid_after_utc.timestamp() * 1000),
        )


def load_authority(state_dir: Path | None) -> ClientAuthority:
    """Read the authority, or make it at the first call. None: one for this process only.

    Blocks for one disk flush when it makes one. Raises `CredentialDamaged`, `StateDirUnsafe`, `OSError`.
    """
    if state_dir is None:
        return _make()[0]
    folder = state_dir / "credentials"
    ensure_private_dir(state_dir)
    ensure_private_dir(folder)
    path = folder / CA_FILE
    try:
        raw = read_private_file(path)
    except FileNotFoundError:
        authority, text = _make()
        write_private_file(path, text)
        return authority
    return _read(path, raw)


def _read(path: Path, raw: bytes) -> ClientAuthority:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    fix = f"restore it from a backup, or: mv '{path}' '{path}.damaged' (every device then needs a new certificate)"
    try:
        cert, key = x509.load_pem_x509_certificate(raw), load_pem_private_key(raw, password=None)
    except (ValueError, TypeError) as exc:
        raise CredentialDamaged(path, "holds no authority", fix) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        raise CredentialDamaged(path, "its key does not belong to its certificate", fix)
    return ClientAuthority(cert, key)


def _make() -> tuple[ClientAuthority, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "openclaw-gateway devices")])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    text = cert.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ClientAuthority(cert, key), text
