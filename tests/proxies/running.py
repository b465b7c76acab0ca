"""Starting real proxies with the configuration text of the documentation, and clients that speak TLS to them.

Owns taking a fenced block out of a page, putting test addresses in its place-holders, and the life of the process.
Invariants: a place-holder that the page no longer has fails the test; everything listens on 127.0.0.1; a process is
ended by its pid and waited for.
"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
import trustme

from tests.attacks.attacker import Attacker

__all__ = ["NAME", "Certificate", "blocks", "filled", "free_port", "need", "running", "tls_client"]

NAME = "claw.example.com"
PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def need(program: str) -> str:
    """The program's path; the test is skipped where it is not installed (scripts/test installs it)."""
    import shutil

    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of that language on a how-to page."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def filled(text: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        assert place in text, f"the page no longer says {place!r}"
        text = text.replace(place, value)
    return text


def free_port() -> int:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        return int(raw.getsockname()[1])


class Certificate:
    """A certificate for `NAME` in files, and the client's side of it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(NAME)
        self.pem, self.key, self.both = folder / "c.pem", folder / "c.key", folder / "both.pem"
        issued.cert_chain_pems[0].write_to_path(self.pem)
        issued.private_key_pem.write_to_path(self.key)
        issued.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        self.context.set_alpn_protocols(["http/1.1"])


@contextmanager
def running(argv: Sequence[str], port: int, *, log: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """The process, from when its port accepts until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
    try:
        _wait_listening(process, port, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _wait_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import time

    until = time.monotonic() + 10
    while True:  # another process's start: there is nothing to wait on but time
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"{process.args!r}: exit {process.returncode}\n{log.read_text(errors='replace')}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


@asynccontextmanager
async def tls_client(port: int, certificate: Certificate, *, source: str | None = None) -> AsyncIterator[Attacker]:
    """A client that has done its TLS handshake with whoever listens on ``port``."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
    stream = trio.SSLStream(tcp, certificate.context, server_hostname=NAME, https_compatible=True)
    async with stream:
        await stream.do_handshake()
        yield Attacker(stream, port)  # type: ignore[arg-type]  # a stream is all it uses
