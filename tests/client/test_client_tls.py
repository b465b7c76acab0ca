"""Pins: how they are written, what they match, and that nothing else is let through."""

from __future__ import annotations

import hashlib
import socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.dial import dial_stream
from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.tls import MAX_PINS, file_pins, is_pinned, key_pin, parse_pins

LEAF = trustme.CA().issue_cert("localhost").cert_chain_pems[0].bytes()
DER = ssl.PEM_cert_to_DER_cert(LEAF.decode())
CERT = hashlib.sha256(DER).hexdigest()


def test_the_key_pin_is_the_digest_of_the_public_key_as_cryptography_reads_it() -> None:
    public = x509.load_der_x509_certificate(DER).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_pin(DER) == hashlib.sha256(spki).hexdigest()


@given(st.binary(max_size=200) | st.integers(0, len(DER)).map(lambda cut: DER[:cut]))
def test_rubbish_has_no_key_pin_or_one_that_matches_nothing_pinned(data: bytes) -> None:
    assert key_pin(data) != CERT
    if data != DER:
        assert not is_pinned(data, [CERT])


def test_pins_in_every_spelling_and_several_at_once() -> None:
    colons = ":".join(CERT[at : at + 2] for at in range(0, 64, 2)).upper()
    other = "ab" * 32
    for text in (CERT, colons, f"sha256:{CERT}", f"SHA-256={CERT}", f"spki:{CERT}"):
        assert parse_pins(text) == (CERT,)
    assert parse_pins(f"{other}, {CERT}") == (other, CERT)
    assert parse_pins(None) == parse_pins("") == ()
    assert is_pinned(DER, (other, CERT))
    assert is_pinned(DER, (str(key_pin(DER)),))
    assert not is_pinned(DER, (other,))
    assert not is_pinned(None, (CERT,))
    assert not is_pinned(DER, ())


@pytest.mark.parametrize("text", ["abc", CERT[:-1], CERT + "0", "g" * 64, f"{CERT},x"])
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        parse_pins(text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("AB:CD", "seen 4"),
        (CERT[:-1], "seen 63"),
        ("ab" * 20, "seen 40, as SHA-1 has"),
        ("SHA256:" + "Zm9vYmFy" * 5 + "Zm8", "seen base64"),
        ("g" * 64, "seen 'g' among 64 characters"),
        ("\x1b[31m", "seen other signs"),
        ("é" * 64, "seen other signs"),
    ],
)
def test_what_is_no_pin_is_told_with_what_it_looks_like(text: str, seen: str) -> None:
    with pytest.raises(ValueError, match="expected 64 hexadecimal digits") as failed:
        parse_pins(text)
    assert seen in str(failed.value)
    assert "\x1b" not in str(failed.value)


async def test_a_pin_that_cannot_be_kept_is_refused_before_anything_is_dialled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        for url, pin, told in (
            (f"wss://127.0.0.1:{port}", "ab", "no SHA-256 fingerprint"),
            (f"ws://127.0.0.1:{port}", CERT, "nothing is encrypted there"),
        ):
            with trio.fail_after(5), pytest.raises(ConnectFailed) as failed:
                await dial_stream(GatewayAddress.parse(url), tls_fingerprint=pin)
            assert failed.value.stage == "address"
            assert told in failed.value.message
            assert failed.value.fix
        with pytest.raises(TimeoutError):
            server.accept()


def test_there_is_a_cap_on_pins() -> None:
    many = [f"{number:064x}" for number in range(MAX_PINS + 1)]
    assert len(parse_pins(",".join(many[:-1]))) == MAX_PINS
    with pytest.raises(ValueError, match="more than"):
        parse_pins(",".join(many))


def test_pins_of_files_are_of_certificate_and_key_and_unreadable_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(LEAF)
    (tmp_path / "rubbish.pem").write_bytes(b"\xff\x00")
    pins = file_pins(None, tmp_path / "none.pem", tmp_path / "rubbish.pem", tmp_path / "cert.pem")
    assert pins == f"{CERT},{key_pin(DER)}"
    assert file_pins(tmp_path / "none.pem") is None
