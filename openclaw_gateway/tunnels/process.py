"""One ssh, from its start to its end, in ssh's own words.

Owns what is heard from a single process: when its forwarding stands, and why it ended. It must not restart anything.
Invariants: it is the guard's (kill -9 of us ends it); a failure that was heard before the tunnel stood is the first
one, because the words after it are only its consequences; one heard later is the last.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.tunnels.guard import GuardedProcess, open_guarded
from openclaw_gateway.tunnels.spec import Failure, TunnelSpec, failure_text, fix_for, read_line, ssh_argv

__all__ = ["Ssh", "TunnelFailed", "answers", "free_port", "open_ssh"]

SETTLE_SECONDS: Final = 15.0
PROBE_SECONDS: Final = 5.0
POLL_AFTER_SECONDS: Final = 3.0
POLL_SECONDS: Final = 1.0


@attrs.define(eq=False)
class TunnelFailed(GatewayError):
    """A tunnel did not come up, or ended. ``failure`` names why; ``fix`` is what to do about it."""

    name: str
    failure: Failure
    message: str
    fix: str

    def __str__(self) -> str:
        return f"tunnel {self.name}: {self.message}"

    @classmethod
    def because(cls, spec: TunnelSpec, failure: Failure) -> TunnelFailed:
        return cls(spec.name, failure, f"{spec.target}: {failure_text(failure)}", fix_for(failure, spec))


class Ssh:
    """A running ssh, made by `open_ssh`. ``port`` is the one that is listened on, 0 until that is known."""

    def __init__(self, spec: TunnelSpec) -> None:
        self.spec = spec
        self.port = spec.bind_port
        self.pid = 0
        self.denied = False
        self._process: GuardedProcess | None = None
        self._up = trio.Event()
        self._failure: Failure | None = None

    async def wait_up(self) -> None:
        """Wait until the forwarding stands. Raises `TunnelFailed` where ssh ends before, or takes too long.

        Ready is what ssh says; should a later version say it in other words, an answer through the tunnel counts too.
        """
        assert self._process is not None
        with trio.move_on_after(self.spec.connect_timeout + SETTLE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._poll)
                nursery.start_soon(self._heed_end, nursery.cancel_scope)
                await self._up.wait()
                nursery.cancel_scope.cancel()
        if not self._up.is_set():
            raise TunnelFailed.because(self.spec, self._why("timed-out"))

    async def wait_end(self) -> Failure:
        """Wait until ssh has ended, and say why."""
        assert self._process is not None
        await self._process.wait()
        await trio.lowlevel.checkpoint()
        return self._why("ended")

    def _why(self, otherwise: Failure) -> Failure:
        return self._failure or ("ended" if self._process is not None and self._process.returncode else otherwise)

    async def _heed_end(self, scope: trio.CancelScope) -> None:
        assert self._process is not None
        await self._process.wait()
        scope.cancel()

    async def _poll(self) -> None:
        if self.spec.direction != "local":
            return
        await trio.sleep(POLL_AFTER_SECONDS)
        while not await answers(self.port):  # noqa: ASYNC110  another process decides when
            await trio.sleep(POLL_SECONDS)
        self._up.set()

    def _hear(self, line: str) -> None:
        word = read_line(line, self.spec.direction)
        if word is None:
            return
        if word.kind == "failure":
            if self._failure is None or self._up.is_set():
                self._failure = word.failure
        elif word.kind == "channel-denied":
            self.denied = True
        elif word.kind == "authenticated":
            self._failure = None  # one of several keys was of no use; another was
        elif word.kind == "forwarding":
            self._failure = None
            self.port = word.port or self.port
            self._up.set()


@asynccontextmanager
async def open_ssh(
    spec: TunnelSpec, *, env: Mapping[str, str] | None = None, program: str = "ssh"
) -> AsyncIterator[Ssh]:
    """Start ssh for ``spec``; it ends with the block. Raises `TunnelRefused`, `TunnelFailed` ``no-ssh`` or OSError."""
    if shutil.which(program, path=(os.environ if env is None else env).get("PATH")) is None:
        raise TunnelFailed.because(spec, "no-ssh")
    ssh = Ssh(spec)
    argv = ssh_argv(spec, program=program)
    async with open_guarded(argv, env=env, stderr_line=ssh._hear) as process:  # noqa: SLF001  the same module
        ssh._process, ssh.pid = process, process.pid  # noqa: SLF001  the same module
        yield ssh


async def answers(port: int, *, tls: bool = False, tls_fingerprint: str | None = None) -> bool:
    """Whether a gateway answers at the end of a tunnel that is listened on here: GET /healthz, nothing secret in it."""
    from openclaw_gateway.client.address import GatewayAddress
    from openclaw_gateway.client.errors import ConnectFailed
    from openclaw_gateway.client.http import get

    address = GatewayAddress("127.0.0.1", port, tls)
    try:
        answer = await get(address, "/healthz", timeout=PROBE_SECONDS, tls_fingerprint=tls_fingerprint)
    except ConnectFailed as error:
        # A certificate that names the gateway by its own name is no reason to doubt the tunnel.
        return tls and error.stage == "tls" and tls_fingerprint is None
    return answer.status < 500


def free_port() -> int:
    """A loopback port that nobody holds now; ssh cannot be asked to choose one (-L has no port 0)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
