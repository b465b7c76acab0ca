"""Whom a client trusts over TLS: pins of a gateway's certificate or key, and the certificate it shows itself.

Owns reading pins, comparing them, and the OpenSSL context for dialling. It must not dial. A pin is the hex SHA-256 of
the certificate in DER (OpenClaw's ``tlsFingerprint``) or of its SubjectPublicKeyInfo (RFC 7469: it lives on when the
certificate is renewed with the same key). Several pins are accepted at once, so that a gateway can change its key
without locking anybody out: pin both, change, drop the old one.

Invariants: with pins nothing but a pin decides, and it does before a byte is sent; without pins the usual chain and
name are required; there is no way to accept just anything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

__all__ = ["MAX_PINS", "ClientCertificate", "dialling_context", "file_pins", "is_pinned", "key_pin", "parse_pins"]

MAX_PINS: Final = 8
_PREFIX: Final = re.compile(r"^(sha-?256|spki|pin-sha256)\s*[:=]\s*", re.IGNORECASE)


@attrs.frozen
class ClientCertificate:
    """A certificate that a gateway issued to this device (`openclaw devices cert`), and its key: PEM files."""

    cert_path: Path
    key_path: Path


def parse_pins(text: str | None) -> tuple[str, ...]:
    """``"sha256:AB:CD…, …"`` → hex digests, lower case. Raises `ValueError` naming what is no pin."""
    found: dict[str, None] = {}
    for part in re.split(r"[,;\s]+(?=[^\s])", (text or "").strip()):
        if not part:
            continue
        digits = _PREFIX.sub("", part).replace(":", "").lower()
        if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
            fault = f"expected 64 hexadecimal digits, {_seen(digits)}"
            raise ValueError(f"{part[:80]!r} is no SHA-256 fingerprint: {fault}")
        found[digits] = None
    if len(found) > MAX_PINS:
        raise ValueError(f"more than {MAX_PINS} fingerprints")
    return tuple(found)


def _seen(digits: str) -> str:
    """What was given instead, for whoever copied the wrong line."""
    if re.fullmatch(r"[0-9a-f]+", digits):
        kind = {32: ", as MD5 has", 40: ", as SHA-1 has", 128: ", as SHA-512 has"}.get(len(digits), "")
        return f"seen {len(digits)}{kind}"
    if re.fullmatch(r"/?[0-9a-z+/_-]{43}=?", digits):
        return "seen base64 (an ssh key's fingerprint, or a pin of HTTP)"
    odd = next((char for char in digits if char not in "0123456789abcdef"), "")
    return f"seen {odd!r} among {len(digits)} characters" if odd.isascii() and odd.isprintable() else "seen other signs"


def is_pinned(certificate: bytes | None, pins: Iterable[str]) -> bool:
    """Whether one of ``pins`` is that of the certificate (DER) or of its key."""
    if not certificate:
        return False
    digests = [hashlib.sha256(certificate).hexdigest()]
    key = key_pin(certificate)
    if key is not None:
        digests.append(key)
    return any(hmac.compare_digest(pin_digest.encode(), digest.encode()) for pin_digest in pins for digest in digests)


def key_pin(certificate: bytes) -> str | None:
    """Hex SHA-256 of the SubjectPublicKeyInfo of a certificate in DER; None where it cannot be read.

    RFC 5280 section 4.1: Certificate ::= SEQUENCE { tbsCertificate, … }, TBSCertificate ::= SEQUENCE { [0] version
    OPTIONAL, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, … }. Read by hand: importing
    cryptography would cost every command 20 ms.
    """
    try:
        _, start, _ = _element(certificate, 0)
        _, at, _ = _element(certificate, start)
        if certificate[at] == 0xA0:  # version
            at = _element(certificate, at)[2]
        for _ in range(5):
            at = _element(certificate, at)[2]
        tag, _, end = _element(certificate, at)
    except IndexError:
        return None
    return hashlib.sha256(certificate[at:end]).hexdigest() if tag == 0x30 else None


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, start of the content, end) of the DER element at ``at``. Raises `IndexError` where it is cut off."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise IndexError
        start += size
        length = int.from_bytes(data[at + 2 : start], "big")
    if start + length > len(data):
        raise IndexError
    return tag, start, start + length


def file_pins(*paths: Path | None) -> str | None:
    """The pins of the certificates (the first in each PEM file) that can be read, as one text; None: none can."""
    pins: list[str] = []
    for path in paths:
        try:
            text = "" if path is None else path.read_text("ascii")
            begin, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----")
            der = ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")])
        except (OSError, ValueError):
            continue
        pins += [pin for pin in (hashlib.sha256(der).hexdigest(), key_pin(der)) if pin is not None]
    return ",".join(dict.fromkeys(pins)) or None


def dialling_context(pins: tuple[str, ...], certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """The context to dial with. Raises `OSError` or `ssl.SSLError` where the client certificate cannot be loaded."""
    if pins:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # a gateway behind a proxy may have no more to offer
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is stricter than a chain
    else:
        context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate.cert_path, certificate.key_path, password="")
    return context
