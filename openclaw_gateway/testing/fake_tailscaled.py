"""A pretended tailscaled: LocalAPI on a unix socket (mode 0666), a data plane on loopback, one `TailnetModel` behind.

For tests of what depends on Tailscale where no daemon can run. In a test it lives in the test's own Trio run and is
steered by method calls:

    async with open_fake_tailscaled(tmp_path / "tailscaled.sock") as daemon:
        daemon.set_state("NeedsLogin", auth_url="https://login.tailscale.com/a/1")

As a process: ``python -m openclaw_gateway.testing.fake_tailscaled --socket PATH``; each line on its standard input is
a JSON object whose members are set on the model, ``{"restart": true}`` and ``{"state": "Stopped"}`` among them.
`fake_tailscale` is the command line that belongs to it.

Owns the life of both planes. Invariants: the socket is gone when the block is left; a restart ends every stream and
every foreground claim and keeps the background configuration.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from openclaw_gateway.errors import flat_errors
from openclaw_gateway.testing.tailscale_dataplane import DataPlane
from openclaw_gateway.testing.tailscale_localapi import Fault, LocalApiServer
from openclaw_gateway.testing.tailscale_model import STATES, TailnetModel

__all__ = ["FakeTailscaled", "open_fake_tailscaled"]


@attrs.define(eq=False)
class FakeTailscaled:
    """A running daemon; see the module."""

    path: Path
    model: TailnetModel
    api: LocalApiServer
    data: DataPlane
    authority: Any = None  # the trustme.CA that signed the node's certificate
    _listener: trio.SocketListener | None = None
    _nursery: trio.Nursery | None = None
    _accepting: trio.CancelScope | None = None

    def set_state(self, state: str, *, auth_url: str = "") -> None:
        """Move the state machine and tell every bus."""
        self.model.state, self.model.auth_url = state, auth_url
        self.api.tell(State=STATES.index(state), **({"BrowseToURL": auth_url} if auth_url else {}))

    def inject(self, endpoint: str, kind: Any, *, times: int | None = 1, seconds: float = 0.0) -> Fault:
        """Let the next ``times`` requests to ``endpoint`` (None: all that follow) go wrong; see `Fault`."""
        fault = Fault(endpoint, kind, times, seconds)
        self.api.faults.append(fault)
        return fault

    def move(self, name: str, ips: tuple[str, str]) -> None:
        """The node gets another name and other addresses, and tells every bus."""
        self.model.me.name, self.model.me.ips = name, ips
        self.api.tell(NetMap={"SelfNode": {"Name": f"{self.model.dns_name}."}})

    def reset(self) -> None:
        """What somebody's ``tailscale serve reset`` does: everything goes, foreground claims too."""
        self.model.set_config({}, "")

    def _forget_socket(self) -> None:
        self.path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """The daemon dies: every stream breaks, the socket is gone."""
        self._forget_socket()
        if self._accepting is not None:
            self._accepting.cancel()
        self.api.drop_all()
        await trio.lowlevel.checkpoint()

    async def start(self) -> None:
        """The daemon comes up: the socket listens again."""
        assert self._nursery is not None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self.path))
        self.path.chmod(0o666)
        sock.listen(64)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._accepting = trio.CancelScope()
        self._nursery.start_soon(self._accept, self._accepting, self._listener, self._nursery)

    async def restart(self) -> None:
        """All streams end, claims are gone, the background configuration stays."""
        await self.stop()
        await self.api.wait_unwatched()
        await self.start()

    async def _accept(self, scope: trio.CancelScope, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        with scope:
            await trio.serve_listeners(self.api.serve, [listener], handler_nursery=nursery)


@asynccontextmanager
async def open_fake_tailscaled(
    path: Path, model: TailnetModel | None = None, *, tls: bool = True
) -> AsyncIterator[FakeTailscaled]:
    """A daemon at ``path`` while the block lasts. ``tls``: the data plane speaks TLS (needs ``trustme``)."""
    model = model if model is not None else TailnetModel()
    data = DataPlane(model)
    authority = None
    if tls:
        import trustme

        authority = trustme.CA()
        data.certificate = authority.issue_cert(model.dns_name)
    model.on_config = data.changed
    daemon = FakeTailscaled(path, model, LocalApiServer(model), data, authority)
    with flat_errors():
        async with trio.open_nursery() as nursery:
            daemon._nursery = nursery  # noqa: SLF001 - the same module
            await nursery.start(data.serve)
            await daemon.start()
            try:
                yield daemon
            finally:
                daemon._forget_socket()  # noqa: SLF001 - the same module
                nursery.cancel_scope.cancel()


async def _obey(daemon: FakeTailscaled, order: dict[str, Any]) -> None:
    for name, value in order.items():
        if name == "restart":
            await daemon.restart()
        elif name == "reset":
            daemon.reset()
        elif name == "state":
            daemon.set_state(value, auth_url=order.get("auth_url", ""))
        elif name == "fault":
            daemon.inject(**value)
        elif name != "auth_url":
            setattr(daemon.model, name, value)


async def _main(path: Path, model: TailnetModel) -> None:
    async with open_fake_tailscaled(path, model) as daemon:
        print(json.dumps({"socket": str(path), "dnsName": model.dns_name}), flush=True)
        async for line in _lines():
            await _obey(daemon, json.loads(line))
            print(json.dumps({"ports": daemon.data.ports, "config": model.config}), flush=True)


async def _lines() -> AsyncIterator[bytes]:
    buffered = b""
    stream = trio.lowlevel.FdStream(sys.stdin.fileno())
    while data := await stream.receive_some(65_536):
        buffered += data
        *lines, buffered = buffered.split(b"\n")
        for line in lines:
            if line.strip():
                yield line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pretended tailscaled for tests.")
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--state", default="Running", choices=STATES)
    parser.add_argument("--version", default="1.92.3-fake")
    arguments = parser.parse_args()
    trio.run(_main, arguments.socket, TailnetModel(state=arguments.state, version=arguments.version))
