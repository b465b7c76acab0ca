"""tailscaled's LocalAPI: HTTP/1.1 on its unix socket, and a route that is held by keeping a stream open.

Owns requests, the bus and the claim (executed against a genuine daemon: prototypes/tailscale_localapi_claim.py). It
must not know when to try again (`supervisor`) nor whose the port is that it proxies to. No library but h11.

Invariants: every request has a deadline and a size limit; a configuration is only written under the ETag it was read
with, so nobody's change is lost; whatever ends the stream, ours or the daemon's end, takes the claim with it (kill -9
included); nothing is ever reset.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs
import h11
import msgspec
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.policy.tailnet import TailnetPerson
from openclaw_gateway.tailscale import conditions
from openclaw_gateway.tailscale.conditions import Condition
from openclaw_gateway.tailscale.plan import Conflict, InPlace, Route, Write, plan_background, plan_claim, plan_release
from openclaw_gateway.tailscale.protocol import (
    NodeStatus,
    Notice,
    TailscaleUnreadable,
    read_config,
    read_feature,
    read_notice,
    read_status,
    read_whois,
)

__all__ = ["DEFAULT_SOCKET", "Bus", "DaemonUnreachable", "LocalApi"]

DEFAULT_SOCKET: Final = Path("/var/run/tailscale/tailscaled.sock")
REQUEST_SECONDS: Final = 5.0
RECONCILE_SECONDS: Final = 30.0
MAX_BODY: Final = 4 * 1024 * 1024
MAX_LINE: Final = 256 * 1024
MAX_MISMATCHES: Final = 5
_ROOT: Final = "/localapi/v0/"
_WATCH: Final = "watch-ipn-bus?mask=258"  # InitialState | RateLimit
_HEADERS: Final = [("Host", "local-tailscaled.sock"), ("Accept", "application/json")]


@attrs.define(eq=False)
class DaemonUnreachable(GatewayError):
    """No answer from tailscaled. ``absent``: nobody listens; otherwise it is there and does not answer."""

    reason: str
    absent: bool = False

    def __str__(self) -> str:
        return f"tailscaled: {self.reason}"


@attrs.frozen
class Answer:
    status: int
    etag: str
    body: bytes


class Bus:
    """An open watch of the daemon: the session that a claim belongs to, and its notices."""

    def __init__(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection
        self._buffer = bytearray()
        self._skipping = False
        self.session = ""

    async def receive(self) -> Notice | None:
        """The next notice; None when the daemon ended the stream. A line over `MAX_LINE` is a notice without content:
        something happened.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if not self._skipping:
                    return read_notice(bytes(line))
                self._skipping = False
                return Notice()
            if len(self._buffer) > MAX_LINE:
                self._skipping, self._buffer = True, bytearray()
            try:
                event = await _next(self._stream, self._connection)
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                return None
            if not isinstance(event, h11.Data):
                return None
            self._buffer += event.data
            if self._skipping and b"\n" not in self._buffer:
                self._buffer = bytearray()

    async def pause(self, seconds: float) -> bool:
        """Wait until something happens, ``seconds`` at most. False: the stream has ended, and any claim with it."""
        with trio.move_on_after(seconds):
            if await self.receive() is None:
                return False
            # A daemon that starts says many things at once: one look at it answers them all.
            with trio.move_on_after(0.05):
                while True:
                    if await self.receive() is None:
                        return False
        return True


@attrs.define(eq=False)
class LocalApi:
    """One daemon. ``daemon_uid``: who runs it, known since the first connection (Linux)."""

    path: Path = DEFAULT_SOCKET
    daemon_uid: int | None = None
    name: str = "LocalAPI"

    async def _connect(self) -> trio.SocketStream:
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await sock.connect(str(self.path))
        except BaseException as exc:
            sock.close()
            if not isinstance(exc, OSError):
                raise
            absent = exc.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
            raise DaemonUnreachable(f"{self.path}: {exc.strerror or exc}", absent=absent) from exc
        if sys.platform.startswith("linux"):
            self.daemon_uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        return trio.SocketStream(sock)

    async def meet(self) -> None:
        """Connect once, to learn that somebody listens and who. Raises `DaemonUnreachable`."""
        with trio.move_on_after(REQUEST_SECONDS):
            await trio.aclose_forcefully(await self._connect())
            return
        raise DaemonUnreachable(f"{self.path}: no connection within {REQUEST_SECONDS:g} s")

    async def request(self, method: str, name: str, *, body: bytes = b"", etag: str | None = None) -> Answer:
        """One request on a connection of its own. Raises `DaemonUnreachable`, after `REQUEST_SECONDS` at the latest."""
        with trio.move_on_after(REQUEST_SECONDS):
            stream = await self._connect()
            try:
                return await _exchange(stream, method, name, body, etag)
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
                raise DaemonUnreachable(f"{name}: the connection broke") from exc
            finally:
                await trio.aclose_forcefully(stream)
        raise DaemonUnreachable(f"{name}: no answer within {REQUEST_SECONDS:g} s")

    async def status(self) -> NodeStatus:
        """Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        answer = await self.request("GET", "status?peers=false")
        if answer.status != 200:
            raise DaemonUnreachable(f"status: HTTP {answer.status}")
        return read_status(answer.body)

    async def whois(self, address: str) -> TailnetPerson | None:
        """Whose machine has ``address``; None: nobody's. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        answer = await self.request("GET", f"whois?addr={quote(address, safe=':.')}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise DaemonUnreachable(f"whois: HTTP {answer.status}")
        return read_whois(answer.body)

    async def config(self) -> tuple[dict[str, Any], str]:
        """The serve configuration and its ETag. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        answer = await self.request("GET", "serve-config")
        if answer.status != 200:
            raise DaemonUnreachable(f"serve-config: HTTP {answer.status}")
        return read_config(answer.body), answer.etag

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Bus]:
        """Open the bus; its session ends with the block. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        stream = await self._connect()
        try:
            bus = None
            with trio.move_on_after(REQUEST_SECONDS):
                bus = await _open_bus(stream)
            if bus is None:
                raise DaemonUnreachable(f"watch-ipn-bus: no answer within {REQUEST_SECONDS:g} s")
            yield bus
        finally:
            await trio.aclose_forcefully(stream)

    # --- the route

    async def keep(
        self,
        route: Callable[[NodeStatus], Route],
        *,
        background: bool,
        tell: Callable[[Condition], None],
        node: Callable[[NodeStatus], None],
    ) -> Condition:
        """Hold the route that ``route`` makes of this machine's status until something ends it; returns what did.

        ``tell`` hears each condition, ``node`` each status. Cancelling releases a claim; a background route stays.
        Raises `DaemonUnreachable`, `TailscaleUnreadable`.
        """
        async with self.watch() as bus:
            while True:
                found = await self.status()
                node(found)
                wanted = route(found)
                condition = conditions.of_node(found, funnel=wanted.funnel, port=wanted.port)
                if condition is None:
                    condition = await self._reconcile(bus, wanted, background=background)
                elif condition.state == "https-not-enabled":
                    condition = conditions.https_not_enabled(await self._feature(funnel=wanted.funnel))
                if condition.state == "conflict" and not background:
                    return condition  # closing the stream lets go of whatever of ours is in there
                tell(condition)
                if not await bus.pause(conditions.WAITS[condition.state][1]):
                    return conditions.lost("tailscaled ended the session: it stopped, or somebody reset what it serves")

    async def _feature(self, *, funnel: bool) -> str | None:
        answer = await self.request("POST", f"query-feature?feature={'funnel' if funnel else 'serve'}")
        try:
            return read_feature(answer.body) if answer.status == 200 else None
        except TailscaleUnreadable:
            return None

    async def _reconcile(self, bus: Bus, route: Route, *, background: bool) -> Condition:
        for _ in range(MAX_MISMATCHES):
            config, etag = await self.config()
            plan = plan_background(config, route) if background else plan_claim(config, route, bus.session)
            if isinstance(plan, Conflict):
                return conditions.conflict(plan.what, route.port)
            if isinstance(plan, InPlace):
                return conditions.serving(route.url, funnel=route.funnel)
            refusal = await self._write(plan, etag, route.port)
            if refusal is not None:
                return refusal
        return conditions.failed("somebody else keeps changing what tailscale serves")

    async def _write(self, plan: Write, etag: str, port: int) -> Condition | None:
        """None: written, or changed by somebody meanwhile; look again."""
        answer = await self.request("POST", "serve-config", body=msgspec.json.encode(plan.config), etag=etag)
        if answer.status in {200, 412}:
            return None
        return conditions.of_answer(answer.status, answer.body, port=port)

    async def release(self, route: Route) -> None:
        """Take our background route out. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        for _ in range(MAX_MISMATCHES):
            config, etag = await self.config()
            plan = plan_release(config, route)
            if isinstance(plan, InPlace) or await self._write(plan, etag, route.port) is not None:
                return


async def _open_bus(stream: trio.SocketStream) -> Bus:
    connection = h11.Connection(h11.CLIENT)
    try:
        request = h11.Request(method="GET", target=_ROOT + _WATCH, headers=_HEADERS)
        await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        head = await _next(stream, connection)
        if not isinstance(head, h11.Response) or head.status_code != 200:
            status = head.status_code if isinstance(head, h11.Response) else "none"
            raise DaemonUnreachable(f"watch-ipn-bus: HTTP {status}")
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as exc:
        raise DaemonUnreachable("watch-ipn-bus: the connection broke") from exc
    bus = Bus(stream, connection)
    first = await bus.receive()
    if first is None or first.session is None:
        raise DaemonUnreachable("watch-ipn-bus: it ended before it began")
    bus.session = first.session
    return bus


async def _next(stream: trio.SocketStream, connection: h11.Connection) -> Any:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(bytes(await stream.receive_some(65_536)))


async def _exchange(stream: trio.SocketStream, method: str, name: str, body: bytes, etag: str | None) -> Answer:
    connection = h11.Connection(h11.CLIENT)
    headers = [*_HEADERS, ("Connection", "close")]
    if etag is not None:
        headers.append(("If-Match", etag))
    if method == "POST":
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    data = connection.send(h11.Request(method=method, target=_ROOT + name, headers=headers)) or b""
    data += (connection.send(h11.Data(data=body)) or b"") if body else b""
    await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
    status, tag, found = 0, "", bytearray()
    while True:
        event = await _next(stream, connection)
        if isinstance(event, h11.Response):
            status = event.status_code
            tag = next((value.decode("latin-1") for key, value in event.headers if key == b"etag"), "")
        elif isinstance(event, h11.Data):
            found += event.data
            if len(found) > MAX_BODY:
                raise DaemonUnreachable(f"{name}: an answer over {MAX_BODY} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, tag, bytes(found))
        elif not isinstance(event, h11.InformationalResponse):
            raise DaemonUnreachable(f"{name}: the connection ended early")
