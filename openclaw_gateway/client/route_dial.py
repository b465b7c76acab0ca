"""Getting to a remote gateway by the best of several routes, and noticing when that one is gone.

Owns the race (RFC 8305: routes one after the other, `STAGGER_SECONDS` apart or as soon as one fails; the first through
which a gateway answers is kept, the others are given up), the tunnels it needs for it, and the memory of what worked.
`client.routes` owns the order. It must not know credentials: nothing secret is sent before a route is chosen.

Invariants: what lost the race is closed before anything is handed out; when the block ends the tunnel ends with it; a
route's TLS is checked (pin, or chain and name) by the very question that chooses it; a tailnet name that leads anywhere
else is refused.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import msgspec
import trio

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.errors import ClientClosed, ConnectFailed
from openclaw_gateway.client.routes import STAGGER_SECONDS, Route, preferred
from openclaw_gateway.errors import GatewayError, flat_errors
from openclaw_gateway.protocol.close import CloseCode

if TYPE_CHECKING:
    from openclaw_gateway.client.resolve import Target

__all__ = ["PULSE_SECONDS", "open_route"]

PULSE_SECONDS: Final = 0.5
PULSE_PATIENCE: Final = 1.0
MISSED: Final = 2
ASK_SECONDS: Final = 10.0


class _Memory(msgspec.Struct):
    name: str
    at: float  # Unix seconds


@asynccontextmanager
async def open_route(target: Target, *, timeout: float = 15.0, pulse: bool = False) -> AsyncIterator[Target]:
    """Hand out ``target`` with the address to dial now; tunnels stay open while the block lasts.

    A target without routes comes back as it is. ``timeout``: seconds for the whole race. ``pulse`` (for connections
    that live long): where there is more than one route, the chosen one is asked every `PULSE_SECONDS`, and when it has
    died the block is cancelled and `ClientClosed` raised, within four seconds. Raises `ConnectFailed`, or what the
    block raised. Cancellation ends the tunnel within two seconds.
    """
    if not target.routes:
        yield target
        return
    memory = _Keeper(target.state)
    routes = preferred(target.routes, *memory.read())
    with flat_errors():
        async with trio.open_nursery() as nursery:
            race = _Race(target, routes)
            reached = await race.run(nursery, timeout)
            memory.write(race.winner)
            if pulse and len(routes) > 1:
                nursery.start_soon(_pulse, reached)
            yield reached
            nursery.cancel_scope.cancel()


class _Race:
    def __init__(self, target: Target, routes: tuple[Route, ...]) -> None:
        self._target = target
        self._routes = routes
        self._failed: dict[str, ConnectFailed] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._news = trio.Event()
        self._open = 0
        self._reached: Target | None = None
        self.winner = ""

    async def run(self, nursery: trio.Nursery, timeout: float) -> Target:
        """The first route through which a gateway answers. Raises `ConnectFailed`: the first route's, with what the
        others met as notes. What no time mends (stage ``address``) is said where it holds for every route."""
        with trio.move_on_after(timeout):
            for route in self._routes:
                self._open += 1
                nursery.start_soon(self._attempt, route)
                with trio.move_on_after(STAGGER_SECONDS):
                    await self._wait_news()
                if self._reached is not None:
                    break
            while self._reached is None and len(self._failed) < len(self._routes):
                await self._wait_news()
        for name, scope in self._scopes.items():
            if name != self.winner:
                scope.cancel()
        while self._open > (self._reached is not None):  # those who lost are closed first
            await self._wait_news()
        if self._reached is not None:
            return self._reached
        raise self._failure(timeout)

    async def _wait_news(self) -> None:
        await self._news.wait()
        self._news = trio.Event()

    async def _attempt(self, route: Route) -> None:
        try:
            with trio.CancelScope() as self._scopes[route.name]:
                async with _open(route, self._target) as reached:
                    await _ask(reached, ASK_SECONDS)
                    if self._reached is None:
                        self._reached, self.winner = reached, route.name
                        self._news.set()
                        await trio.sleep_forever()
        except ConnectFailed as error:
            self._failed[route.name] = error
        finally:
            self._open -= 1
            self._news.set()
        if self.winner == route.name and not self._scopes[route.name].cancel_called:
            raise ClientClosed(CloseCode.ABNORMAL, f"the route is gone: {route.name}")

    def _failure(self, timeout: float) -> ConnectFailed:
        first = next((route for route in self._routes if not self._is_wrong(route)), self._routes[0])
        error = self._failed.get(first.name)
        if error is None:
            message, fix = f"no answer within {timeout:g} s", "check the network in between"
            error = ConnectFailed(stage="tcp", url=first.name, message=message, retryable=True, fix=fix)
        for route in self._routes:
            if route is not first:
                other = self._failed.get(route.name)
                error.add_note(f"{route.name}: {other.message if other is not None else 'no answer'}")
        return error

    def _is_wrong(self, route: Route) -> bool:
        error = self._failed.get(route.name)
        return error is not None and error.stage == "address"


@asynccontextmanager
async def _open(route: Route, target: Target) -> AsyncIterator[Target]:
    if route.tunnel is None:
        address = await _on_tailnet(route.address) if route.transport == "tailnet" else route.address
        yield _reached(target, route, address)
        return
    from openclaw_gateway.tunnels.process import TunnelFailed, free_port, open_ssh
    from openclaw_gateway.tunnels.spec import TunnelRefused

    try:
        spec = attrs.evolve(route.tunnel, bind_port=free_port())
        async with open_ssh(spec) as ssh:
            await ssh.wait_up()
            async with trio.open_nursery() as nursery:

                async def heed_end() -> None:
                    raise TunnelFailed.because(spec, await ssh.wait_end())

                nursery.start_soon(heed_end)
                reached = _reached(target, route, attrs.evolve(route.address, port=ssh.port))
                yield attrs.evolve(reached, tunnel=(ssh.pid, spec.target_port))
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _as_connect_failed(route, group) from group
    except (TunnelFailed, TunnelRefused, OSError) as error:
        raise _as_connect_failed(route, error) from error


def _as_connect_failed(route: Route, error: BaseException) -> BaseException:
    """What became of a tunnel, told as what became of the way to the gateway; everything else as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ConnectFailed) or not isinstance(error, (GatewayError, OSError)):
        return error
    message = getattr(error, "message", None) or str(error)
    return ConnectFailed(stage="tcp", url=route.name, message=message, retryable=True, fix=getattr(error, "fix", None))


def _reached(target: Target, route: Route, address: GatewayAddress) -> Target:
    pin = target.tls_fingerprint or route.tls_fingerprint
    if route.tunnel is not None and not address.tls:
        pin = None  # ssh has checked its own host key; inside there is no certificate to compare
    return attrs.evolve(
        target, address=address, tls_fingerprint=pin, via=route.name, source=route.source, routes=()
    )  # fmt: skip


async def _on_tailnet(address: GatewayAddress) -> GatewayAddress:
    """``address`` where it lies in the tailnet. Cleartext goes to the very address that was looked at."""
    from openclaw_gateway.client.address import in_tailnet

    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"the name {address.host} has no address: {error.strerror}"
        raise ConnectFailed(stage="resolve", url=address.url, message=message, fix="tailscale status") from error
    hosts = [str(entry[4][0]) for entry in found]
    inside = [host for host in hosts if in_tailnet(host)]
    if not inside:
        raise ConnectFailed(
            stage="address", url=address.url, message="does not lead into the tailnet", fix="tailscale status"
        )
    return address if address.tls else attrs.evolve(address, host=inside[0])


async def _ask(reached: Target, timeout: float) -> None:
    """Whether a gateway answers there: GET /healthz. Raises `ConnectFailed`."""
    from openclaw_gateway.client.http import get

    answer = await get(
        reached.address, "/healthz", timeout=timeout, tls_fingerprint=reached.tls_fingerprint,
        client_certificate=reached.client_certificate,
    )  # fmt: skip
    if answer.status != 200:
        message = f"/healthz answers {answer.status}"
        raise ConnectFailed(stage="http", url=reached.url, message=message, retryable=True, fix="openclaw logs")


async def _pulse(reached: Target) -> None:
    """Returns never; raises `ClientClosed` when the route has died."""
    missed = 0
    while missed < MISSED:
        await trio.sleep(PULSE_SECONDS)
        try:
            await _ask(reached, PULSE_PATIENCE)
            missed = 0
        except ConnectFailed:
            missed += 1
    raise ClientClosed(CloseCode.ABNORMAL, f"the route is gone: {reached.via}")


class _Keeper:
    """The name of the route that worked last, in ``<state>/run/route.json``. A hint: what cannot be read or written is
    no loss."""

    def __init__(self, state: Path | None) -> None:
        self._path = state / "run" / "route.json" if state is not None else None

    def read(self) -> tuple[str | None, float | None]:
        from openclaw_gateway.ops.statedir import read_private_file

        if self._path is None:
            return None, None
        try:
            memory = msgspec.json.decode(read_private_file(self._path), type=_Memory)
        except (OSError, GatewayError, msgspec.DecodeError, UnicodeDecodeError):
            return None, None
        return memory.name, time.time() - memory.at

    def write(self, name: str) -> None:
        from openclaw_gateway.ops.statedir import ensure_private_dir, write_private_file

        if self._path is None:
            return
        with contextlib.suppress(OSError, GatewayError):
            ensure_private_dir(self._path.parent)
            write_private_file(self._path, msgspec.json.encode(_Memory(name, time.time())))
