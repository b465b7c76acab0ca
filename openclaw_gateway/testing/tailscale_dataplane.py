"""What tailscale serve does with a request: end TLS, rewrite the headers, pass it on over pooled connections.

Owns the data plane of a pretended tailscaled (spec network-facts 1.4). A machine of the tailnet is a loopback source
address here (`FakeNode.source`); the whole internet, which comes through the funnel, is `INTERNET`. It must not know
the LocalAPI.

Invariants: what a client says in a header that the daemon writes is dropped; identity is written for untagged
machines only and never for the internet; a Host that is not served is the daemon's own 404; connections to the
backend are kept and used again, so an Upgrade may be the n-th request of one; whatever protocol a 101 agrees on is
passed through.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import h11
import trio

from openclaw_gateway.testing.tailscale_model import FakeNode, TailnetModel

__all__ = ["INTERNET", "DataPlane"]

INTERNET: Final = "127.9.9.9"
_INTERNET_CLIENT: Final = "203.0.113.9"
_HOP: Final = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_WRITTEN: Final = (b"tailscale-user-", b"tailscale-funnel-request", b"tailscale-headers-info", b"tailscale-app-cap")
_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})


@attrs.define(eq=False)
class _Backend:
    """A kept connection to what a port proxies to."""

    stream: trio.SocketStream
    connection: h11.Connection


def _q_encoded(text: str) -> str:
    """RFC 2047 as Go's mime.QEncoding writes it (short words)."""
    if text.isascii() and text.isprintable():
        return text
    safe = {*b"!*+-/", *range(48, 58), *range(65, 91), *range(97, 123)}
    body = "".join("_" if byte == 32 else chr(byte) if byte in safe else f"={byte:02X}" for byte in text.encode())
    return f"=?utf-8?q?{body}?="


@attrs.define(eq=False)
class DataPlane:
    """Listens on 127.0.0.1 for every port that the configuration serves; ``ports`` maps the tailnet's port to ours."""

    model: TailnetModel
    ports: dict[int, int] = attrs.field(factory=dict)
    certificate: Any = None  # a trustme.LeafCert for the node's name
    backend_connections: int = 0  # opened since the start
    backend_requests: int = 0
    _scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    _pool: dict[tuple[str, int], list[_Backend]] = attrs.field(factory=dict)
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _opened: trio.Event = attrs.field(factory=trio.Event)

    def changed(self) -> None:
        """The configuration is another one."""
        self._changed.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the configuration for ever."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            try:
                while True:
                    self._changed = trio.Event()
                    wanted = self.model.web_ports()
                    for port in [port for port in self._scopes if port not in wanted]:
                        self._scopes.pop(port).cancel()
                        del self.ports[port]
                    for port, tls in wanted.items():
                        if port not in self._scopes:
                            await nursery.start(self._listen, port, tls)
                    await self._changed.wait()
            finally:
                self.ports.clear()
                for kept in self._pool.values():
                    for backend in kept:
                        backend.stream.socket.close()

    async def wait_port(self, port: int) -> int:
        """The loopback port behind which ``port`` is served, once it is."""
        while port not in self.ports:
            await self._opened.wait()
        return self.ports[port]

    async def _listen(self, port: int, tls: bool, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.ports[port] = listeners[0].socket.getsockname()[1]
            self._scopes[port] = scope
            self._opened.set()
            self._opened = trio.Event()
            task_status.started()

            async def handler(stream: trio.SocketStream) -> None:
                await self._client(stream, port, tls)

            await trio.serve_listeners(handler, listeners)

    async def _client(self, socket_stream: trio.SocketStream, port: int, tls: bool) -> None:
        source = str(socket_stream.socket.getpeername()[0])
        node = self.model.node_from(source)
        if node is None and source != INTERNET:
            await trio.aclose_forcefully(socket_stream)
            return
        stream: trio.abc.Stream = socket_stream
        if tls and self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.certificate.configure_cert(context)
            context.set_alpn_protocols(["http/1.1"])
            stream = trio.SSLStream(socket_stream, context, server_side=True, https_compatible=True)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
        try:
            while await self._request(stream, connection, node, port, tls):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, OSError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _request(
        self, stream: trio.abc.Stream, connection: h11.Connection, node: FakeNode | None, port: int, tls: bool
    ) -> bool:
        event = await _next(stream, connection)
        if not isinstance(event, h11.Request):
            return False
        headers = [(bytes(name).lower(), bytes(value)) for name, value in event.headers]
        host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
        found = self.model.web(host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host, port)
        if found is None or (node is None and not found[1]):
            return await _plain(stream, connection, 404, b"404 page not found\n")
        path = event.target.decode("latin-1").partition("?")[0]
        mounts = [mount for mount in found[0] if path == mount or path.startswith(mount.rstrip("/") + "/")]
        handler = found[0][max(mounts, key=len)] if mounts else None
        if handler is None or "Proxy" not in handler:
            return await _plain(stream, connection, 404, b"404 page not found\n")
        where = handler["Proxy"].partition("://")[2].rstrip("/").rpartition(":")
        upgrade = next((value for name, value in headers if name == b"upgrade"), None)
        asks = any(name == b"connection" and b"upgrade" in value.lower() for name, value in headers)
        out = self._rewritten(headers, host, node, tls, upgrade if asks else None)
        try:
            backend = await self._backend((where[0], int(where[2])))
        except OSError:
            return await _plain(stream, connection, 502, b"")
        try:
            return await self._pass(stream, connection, backend, (where[0], int(where[2])), event, out, asks)
        except BaseException:
            await trio.aclose_forcefully(backend.stream)
            raise

    def _rewritten(
        self, headers: list[tuple[bytes, bytes]], host: str, node: FakeNode | None, tls: bool, upgrade: bytes | None
    ) -> list[tuple[bytes, bytes]]:
        kept = [
            (name, value)
            for name, value in headers
            if name not in _HOP and name not in _FORWARDED and not name.startswith(_WRITTEN)
        ]
        kept.append((b"x-forwarded-host", host.encode()))
        if tls:
            kept.append((b"x-forwarded-proto", b"https"))
        kept.append((b"x-forwarded-for", (node.ips[0] if node is not None else _INTERNET_CLIENT).encode()))
        if node is None:
            kept.append((b"tailscale-funnel-request", b"?1"))
        elif not node.tags:
            user = self.model.users[node.user]
            kept += [
                (b"tailscale-user-login", _q_encoded(user.login).encode()),
                (b"tailscale-user-name", _q_encoded(user.name).encode()),
                (b"tailscale-user-profile-pic", user.profile()["ProfilePicURL"].encode()),
                (b"tailscale-headers-info", b"https://tailscale.com/s/serve-headers"),
            ]
        if upgrade is not None:
            kept += [(b"connection", b"Upgrade"), (b"upgrade", upgrade)]
        if not any(name == b"accept-encoding" for name, _ in kept):
            kept.append((b"accept-encoding", b"gzip"))
        return kept

    async def _backend(self, where: tuple[str, int]) -> _Backend:
        kept = self._pool.setdefault(where, [])
        while kept:
            backend = kept.pop()
            try:
                alive = not _has_ended(backend.stream)
            except OSError:
                alive = False
            if alive:
                return backend
            await trio.aclose_forcefully(backend.stream)
        stream = await trio.open_tcp_stream(*where)
        self.backend_connections += 1
        return _Backend(stream, h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024))

    async def _pass(
        self,
        stream: trio.abc.Stream,
        connection: h11.Connection,
        backend: _Backend,
        where: tuple[str, int],
        request: h11.Request,
        headers: list[tuple[bytes, bytes]],
        upgrading: bool,
    ) -> bool:
        self.backend_requests += 1
        theirs = backend.connection
        body = bytearray()
        while isinstance(event := await _next(stream, connection), h11.Data):
            body += event.data
        if body and not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        await backend.stream.send_all((theirs.send(head) or b"") + (theirs.send(h11.Data(data=bytes(body))) or b""))
        await backend.stream.send_all(theirs.send(h11.EndOfMessage()) or b"")
        while True:
            event = await _next(backend.stream, theirs)
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101 and upgrading:
                await stream.send_all(_head_of(event))
                await _join(stream, backend.stream, connection.trailing_data[0], theirs.trailing_data[0])
                await trio.aclose_forcefully(backend.stream)
                return False
            if isinstance(event, h11.InformationalResponse):
                continue
            if isinstance(event, h11.Response):
                kept = [(name, value) for name, value in event.headers if name not in _HOP]
                if not any(name == b"content-length" for name, _ in kept):
                    kept.append((b"transfer-encoding", b"chunked"))
                answer = h11.Response(status_code=event.status_code, reason=event.reason, headers=kept)
                await stream.send_all(connection.send(answer) or b"")
            elif isinstance(event, h11.Data):
                await stream.send_all(connection.send(h11.Data(data=bytes(event.data))) or b"")
            elif isinstance(event, h11.EndOfMessage):
                await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
                break
            else:
                await trio.aclose_forcefully(backend.stream)
                return False
        if theirs.our_state is h11.DONE and theirs.their_state is h11.DONE:
            theirs.start_next_cycle()
            self._pool.setdefault(where, []).append(backend)
        else:
            await trio.aclose_forcefully(backend.stream)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _has_ended(stream: trio.SocketStream) -> bool:
    """Whether the other end closed a kept connection (or said something nobody asked for)."""
    import select

    readable, _, _ = select.select([stream.socket], [], [], 0)
    return bool(readable)


async def _next(stream: trio.abc.ReceiveStream, connection: h11.Connection) -> Any:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(bytes(await stream.receive_some(65_536)))


async def _plain(stream: trio.abc.Stream, connection: h11.Connection, status: int, body: bytes) -> bool:
    if connection.their_state is h11.SEND_BODY:
        while isinstance(await _next(stream, connection), h11.Data):
            pass
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    reason = {404: "Not Found", 502: "Bad Gateway"}[status]
    data = connection.send(h11.Response(status_code=status, reason=reason, headers=headers)) or b""
    data += connection.send(h11.Data(data=body)) or b""
    await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _head_of(event: h11.InformationalResponse) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in event.headers.raw_items())]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _join(one: trio.abc.Stream, other: trio.abc.Stream, from_one: bytes, from_other: bytes) -> None:
    async with trio.open_nursery() as nursery:

        async def copy(source: trio.abc.Stream, sink: trio.abc.Stream, first: bytes) -> None:
            try:
                if first:
                    await sink.send_all(first)
                while data := await source.receive_some(65_536):
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        copies: tuple[Callable[..., Awaitable[None]], ...] = (copy, copy)
        nursery.start_soon(copies[0], one, other, bytes(from_one))
        nursery.start_soon(copies[1], other, one, bytes(from_other))
