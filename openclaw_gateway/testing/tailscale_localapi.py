"""The LocalAPI of a pretended tailscaled: HTTP/1.1 on a unix socket that anybody may open.

Owns endpoints, status codes, texts and headers as the genuine daemon has them (spec network-facts 1.3), and the
faults that tests inject. It must not know what a configuration means: `tailscale_model` does.

Invariants: who may write is asked of the kernel (SO_PEERCRED), not of the request; an ``Origin`` or ``Referer`` is
refused before anything else; a watch stream that ends, for whatever reason, takes its session with it.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import trio

from openclaw_gateway.testing.tailscale_model import STATES, ConfigRefused, EtagMismatch, TailnetModel

__all__ = ["Fault", "LocalApiServer"]

MAX_BODY: Final = 1024 * 1024
_HOSTS: Final = frozenset({"", "local-tailscaled.sock"})
_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; script-src-attr 'none'"
)


@attrs.define
class Fault:
    """What goes wrong at an endpoint (its name, or "" for all) the next ``times`` times (None: always)."""

    endpoint: str
    kind: Literal["hang", "slow", "eof", "503", "garbage", "412"]
    times: int | None = 1
    seconds: float = 0.0  # of "slow"


@attrs.define
class _Request:
    method: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    uid: int


@attrs.define(eq=False)
class LocalApiServer:
    """Serves accepted unix connections of one model. ``faults`` and ``requests`` are for tests to set and to read."""

    model: TailnetModel
    faults: list[Fault] = attrs.field(factory=list)
    requests: list[tuple[str, str, int]] = attrs.field(factory=list)  # (method, endpoint, status)
    _watchers: dict[str, trio.MemorySendChannel[dict[str, Any]]] = attrs.field(factory=dict)
    _connections: dict[trio.CancelScope, None] = attrs.field(factory=dict)
    _moved: trio.Event = attrs.field(factory=trio.Event)  # somebody began or ended to watch

    def __attrs_post_init__(self) -> None:
        self.model.on_session_closed = self._end_watch

    # --- for tests

    def tell(self, **members: Any) -> None:
        """Say something on every bus, such as ``State=6``."""
        for channel in self._watchers.values():
            channel.send_nowait(members)

    def drop_all(self) -> None:
        """The daemon dies: every connection breaks, every claim goes."""
        for scope in tuple(self._connections):
            scope.cancel()

    @property
    def watching(self) -> int:
        return len(self._watchers)

    async def wait_unwatched(self) -> None:
        """Wait until no bus is watched."""
        while self._watchers:
            await self._moved.wait()

    async def wait_watched(self) -> None:
        """Wait until some bus is watched."""
        while not self._watchers:
            await self._moved.wait()

    def _stir(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    def _end_watch(self, sid: str) -> None:
        channel = self._watchers.pop(sid, None)
        if channel is not None:
            channel.close()

    # --- connections

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        uid = struct.unpack("3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        connection = h11.Connection(h11.SERVER)
        with trio.CancelScope() as scope, self._counted(scope):
            try:
                while await self._one(stream, connection, uid):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
                pass
            finally:
                await trio.aclose_forcefully(stream)

    @contextmanager
    def _counted(self, scope: trio.CancelScope) -> Iterator[None]:
        self._connections[scope] = None
        try:
            yield
        finally:
            del self._connections[scope]

    async def _one(self, stream: trio.SocketStream, connection: h11.Connection, uid: int) -> bool:
        head, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    return False
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert head is not None
        target = urlsplit(head.target.decode())
        request = _Request(
            method=head.method.decode(),
            name=target.path.removeprefix("/localapi/v0/"),
            query={name: values[0] for name, values in parse_qs(target.query).items()},
            headers={name.decode().lower(): value.decode("latin-1") for name, value in head.headers},
            body=bytes(body),
            uid=uid,
        )
        fault = self._fault(request.name)
        if fault is not None and not await self._misbehave(fault, stream, connection, request):
            return False
        if request.name == "watch-ipn-bus" and self._refusal(request) is None:
            await self._watch(stream, connection, int(request.query.get("mask", "0")))
            return False
        await self._answer(stream, connection, request)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def _fault(self, name: str) -> Fault | None:
        for fault in self.faults:
            if fault.endpoint in {"", name}:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                return fault
        return None

    async def _misbehave(
        self, fault: Fault, stream: trio.SocketStream, connection: h11.Connection, request: _Request
    ) -> bool:
        """True: answer all the same."""
        if fault.kind == "hang":
            await trio.sleep_forever()
        if fault.kind == "slow":
            await trio.sleep(fault.seconds)
            return True
        if fault.kind == "garbage":
            await stream.send_all(b"\x15\x03\x01\x00\x02\x02\x16 what\r\n\r\n")
        elif fault.kind in {"503", "412"}:
            text = "no backend\n" if fault.kind == "503" else "etag mismatch\n"
            await self._send(stream, connection, request, int(fault.kind), text.encode(), "text/plain; charset=utf-8")
            return False
        return False

    def _refusal(self, request: _Request) -> tuple[int, str] | None:
        odd = "origin" in request.headers or "referer" in request.headers
        if odd or request.headers.get("host", "") not in _HOSTS:
            return 403, "invalid localapi request"
        return None

    # --- endpoints

    async def _answer(self, stream: trio.SocketStream, connection: h11.Connection, request: _Request) -> None:
        refusal = self._refusal(request) or self._wrong_method(request)
        extra: tuple[tuple[str, str], ...] = ()
        kind, body = "application/json", b""
        if refusal is not None:
            status, text = refusal
            kind, body = "text/plain; charset=utf-8", f"{text}\n".encode()
        elif request.name == "status":
            listed = request.query.get("peers", "true") != "false"
            status, body = 200, _indented(self.model.status(peers=listed)) + b"\n"
        elif request.name == "whois":
            status, kind, body = self._whois(request)
        elif request.name == "serve-config" and request.method == "GET":
            status, body, extra = 200, self.model.encoded(), (("Etag", self.model.etag),)
        elif request.name == "serve-config":
            status, kind, body = self._set_config(request)
        elif request.name == "query-feature":
            status, body = 200, json.dumps(self.model.feature(request.query.get("feature", ""))).encode() + b"\n"
        elif request.name == "prefs":
            operator = "" if self.model.operator is None else str(self.model.operator)
            prefs = {"ControlURL": "http://10.99.0.1:9911", "WantRunning": True, "OperatorUser": operator}
            status, body = 200, _indented(prefs) + b"\n"
        else:
            status, kind, body = 404, "text/plain; charset=utf-8", b"404 not found\n"
        await self._send(stream, connection, request, status, body, kind, extra)

    def _wrong_method(self, request: _Request) -> tuple[int, str] | None:
        if request.name == "query-feature" and request.method != "POST":
            return 405, "use POST"
        if request.name == "serve-config" and request.method not in {"GET", "POST"}:
            return 405, "use GET or POST"
        return None

    def _whois(self, request: _Request) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        address = request.query.get("addr", "")
        if not address:
            return 400, plain, b"missing 'addr' parameter\n"
        try:
            found = self.model.whois(address)
        except ValueError:
            return 400, plain, b"invalid 'addr' parameter\n"
        if found is None:
            return 404, plain, b"no match for IP:port\n"
        return 200, "application/json", _indented(found)

    def _set_config(self, request: _Request) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if not self.model.may_write(request.uid):
            return 403, plain, b"serve config denied\n"
        try:
            self.model.set_config(json.loads(request.body), request.headers.get("if-match", ""))
        except EtagMismatch:
            return 412, plain, b"etag mismatch\n"
        except ConfigRefused as refused:
            return 500, "application/json", json.dumps({"error": str(refused)}).encode() + b"\n"
        except ValueError as error:
            return 500, "application/json", json.dumps({"error": f"decoding config: {error}"}).encode() + b"\n"
        return 200, plain, b""

    def _headers(self, kind: str, extra: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        return [
            ("Content-Security-Policy", _POLICY),
            ("Content-Type", kind),
            *extra,
            ("Tailscale-Cap", str(self.model.capability)),
            ("Tailscale-Version", self.model.version),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Date", formatdate(usegmt=True)),
        ]

    async def _send(
        self,
        stream: trio.SocketStream,
        connection: h11.Connection,
        request: _Request,
        status: int,
        body: bytes,
        kind: str,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.requests.append((request.method, request.name, status))
        headers = [*self._headers(kind, extra), ("Content-Length", str(len(body)))]
        data = connection.send(h11.Response(status_code=status, reason=_reason(status), headers=headers)) or b""
        data += connection.send(h11.Data(data=body)) or b""
        data += connection.send(h11.EndOfMessage()) or b""
        await stream.send_all(data)

    # --- the bus

    async def _watch(self, stream: trio.SocketStream, connection: h11.Connection, mask: int) -> None:
        sid = secrets.token_hex(8)
        send, receive = trio.open_memory_channel[dict[str, Any]](64)
        self._watchers[sid] = send
        self._stir()
        self.model.sessions.add(sid)
        self.requests.append(("GET", "watch-ipn-bus", 200))
        try:
            headers = self._headers("application/json", ())
            await stream.send_all(connection.send(h11.Response(status_code=200, reason="OK", headers=headers)) or b"")
            first = _notice(self.model.version, {})
            if mask & 2:
                url = self.model.auth_url or None
                state = {"State": STATES.index(self.model.state), "BrowseToURL": url}
                first = _notice(self.model.version, {"SessionID": sid, **state})
            await stream.send_all(connection.send(h11.Data(data=first)) or b"")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_closed, stream, nursery.cancel_scope)
                async with receive:
                    async for members in receive:
                        line = _notice(self.model.version, members)
                        await stream.send_all(connection.send(h11.Data(data=line)) or b"")
                nursery.cancel_scope.cancel()
        finally:
            self._watchers.pop(sid, None)
            self.model.close_session(sid)
            self._stir()


async def _wait_closed(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(1024):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


def _notice(version: str, members: dict[str, Any]) -> bytes:
    notice: dict[str, Any] = {"Version": version}
    if "SessionID" in members:
        notice["SessionID"] = members["SessionID"]
    for name in ("ErrMessage", "LoginFinished", "State", "Prefs", "NetMap", "Engine", "BrowseToURL", "DriveShares"):
        notice[name] = members.get(name)
    return json.dumps(notice, separators=(",", ":")).encode() + b"\n"


def _indented(value: Any) -> bytes:
    return json.dumps(value, indent="\t", ensure_ascii=False).encode()


def _reason(status: int) -> str:
    return {
        200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
        412: "Precondition Failed", 500: "Internal Server Error", 503: "Service Unavailable",
    }[status]  # fmt: skip
