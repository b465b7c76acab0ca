"""What TLS and client certificates cost: connects a second and memory for each connection, beside OpenClaw's own.

Owns the certificates of the measurement, the encrypted client session and the rows. Invariants: every server of a row
stands at the same time and is asked in turns; connects are made one at a time with Python's own `ssl`, whose share of
the time is the same for all.
"""

from __future__ import annotations

import datetime
import ssl
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import measure
from .load import Session
from .report import Row
from .servers import TOKEN, Official, Server, openclaw, ours

__all__ = ["ClientFiles", "make_client_files", "rows"]


class ClientFiles(NamedTuple):
    """An authority, and a client certificate of it."""

    ca: Path
    cert: Path
    key: Path


def make_client_files(folder: Path) -> ClientFiles:
    files = ClientFiles(folder / "ca.pem", folder / "client.pem", folder / "client-key.pem")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        return (
            x509.CertificateBuilder()
            .subject_name(issuer if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(ca_key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    files.ca.write_bytes(certificate("bench", ca_key.public_key(), ca=True))
    files.cert.write_bytes(certificate("client", key.public_key(), ca=False))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def client_context(files: ClientFiles | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def connect_rate(server: Server, context: ssl.SSLContext | None, count: int) -> float:
    """Connections to hello a second, one at a time, each closed after its hello."""
    begin = time.perf_counter()
    for _ in range(count):
        session = Session(server.port, context=context)
        try:
            session.hello(TOKEN)
        finally:
            session.close()
    return count / (time.perf_counter() - begin)


def memory(server: Server, context: ssl.SSLContext | None, count: int) -> float:
    """Bytes of resident memory for each of ``count`` idle connections that said hello."""
    connect_rate(server, context, 60)  # what the first sessions load stays; it is not theirs
    before = server.settled_bytes()
    with ExitStack() as stack:
        for _ in range(count):
            session = Session(server.port, context=context)
            stack.callback(session.close)
            session.hello(TOKEN)
        return (server.settled_bytes() - before) / count


Standing = list[tuple[Server, ssl.SSLContext | None]]


@contextmanager
def standing(official: Official, files: ClientFiles, connections: int) -> Iterator[Standing]:
    """Ours plain, TLS, mTLS; OpenClaw's plain, TLS. In this order."""
    plain, certified = client_context(), client_context(files)
    starts: list[tuple[AbstractContextManager[Server], ssl.SSLContext | None]] = [
        (ours(connections=connections), None),
        (ours(connections=connections, tls={"enabled": True}, check=plain), plain),
        (
            ours(
                connections=connections,
                tls={"enabled": True, "clientAuth": "required", "caPath": str(files.ca)},
                check=certified,
            ),
            certified,
        ),
        (openclaw(official), None),
        (openclaw(official, tls=True, check=plain), plain),
    ]
    with ExitStack() as stack:
        found = []
        for start, context in starts:
            server = stack.enter_context(start)
            server.wait_ready(path="/readyz", seconds=60)
            server.pin(measure.SERVER_CORE)
            found.append((server, context))
        yield found


def rows(official: Official, folder: Path, *, rounds: int, count: int, connections: int) -> list[Row]:
    files = make_client_files(folder)
    with standing(official, files, connections + 100) as servers:
        rates: list[list[float]] = [[] for _ in servers]
        for server, context in servers:
            connect_rate(server, context, 30)
        for _ in range(rounds):
            for place, (server, context) in enumerate(servers):
                rates[place].append(connect_rate(server, context, count))
        sizes = [memory(server, context, connections) for server, context in servers]
    return _rows([statistics.median(found) for found in rates], sizes)


def _rows(rates: Sequence[float], sizes: Sequence[float]) -> list[Row]:
    found = []
    for name, mine, theirs in (("plain", 0, 3), ("TLS", 1, 4), ("mTLS, beside TLS", 2, 4)):
        ratio = rates[mine] / rates[theirs]
        cells = (f"connect to hello, one at a time, {name}", f"{rates[mine]:,.0f}/s", f"{rates[theirs]:,.0f}/s")
        found.append(Row(*cells, f"{ratio:.2f}"))
    for name, mine, theirs in (("plain", 0, 3), ("TLS", 1, 4), ("mTLS, beside TLS", 2, 4)):
        ratio = sizes[theirs] / sizes[mine]
        cells = (f"an idle connection, {name}", f"{sizes[mine] / 1024:.1f} KiB", f"{sizes[theirs] / 1024:.1f} KiB")
        found.append(Row(*cells, f"1/{ratio:.1f}"))
    return found
