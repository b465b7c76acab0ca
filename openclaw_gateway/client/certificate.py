"""A key and a request for a client certificate, and the files in which both are kept.

Owns what a device does for its own certificate: make a key (ECDSA P-256), ask for it (PKCS #10), keep key and
certificate. It must not know how the request gets to a gateway. Invariants: the private key is made here and never
leaves its file (0600, in a folder of mode 0700); a new key takes the old one's place only together with its
certificate.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from openclaw_gateway.client.tls import ClientCertificate

__all__ = ["NewKey", "begins_and_ends", "keep", "make_request"]


@attrs.frozen
class NewKey:
    """A fresh key that has no certificate yet. Both are PEM."""

    csr: str
    key: bytes = attrs.field(repr=False)

    def fits(self, cert_pem: str) -> bool:
        """Whether this is a certificate, and for this key."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            certified = x509.load_pem_x509_certificate(cert_pem.encode("ascii")).public_key()
            asked = x509.load_pem_x509_csr(self.csr.encode("ascii")).public_key()
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):  # the last two have no base of their own
            return False
        return certified == asked


def make_request() -> NewKey:
    """A new key and the request for it. What a request names counts for nothing: the gateway writes the names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return NewKey(
        csr=csr.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def keep(new: NewKey, cert_pem: str, where: ClientCertificate) -> None:
    """Write both files, the key first. Raises `StateDirUnsafe`, `OSError`."""
    from openclaw_gateway.ops.statedir import ensure_private_dir, write_private_file

    ensure_private_dir(where.cert_path.parent)
    ensure_private_dir(where.key_path.parent)
    write_private_file(where.key_path, new.key)
    write_private_file(where.cert_path, cert_pem.encode("ascii"))


def begins_and_ends(path: Path) -> tuple[float, float] | None:
    """The life of the certificate in ``path``, Unix seconds; None where there is none that can be read."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return None
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
