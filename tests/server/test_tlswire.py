"""TLS on one connection: the handshake, both directions, back pressure, and what comes of a peer that does it wrong."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trustme

from openclaw_gateway.server.tlswire import TlsWire
from openclaw_gateway.server.wire import SocketWire
from openclaw_gateway.server.writer import SharedFrame, Writer

CA = trustme.CA()
SERVER = CA.issue_cert("localhost")
CLIENT = CA.issue_cert(common_name="somebody")


@attrs.define
class Facts:
    context: ssl.SSLContext
    refuse: str | None = None

    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        if self.refuse is not None:
            raise ValueError(self.refuse)
        return "device-of-the-certificate"


def server_context(*, client_auth: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    SERVER.configure_cert(context)
    if client_auth:
        context.verify_mode = ssl.CERT_REQUIRED
        CA.configure_trust(context)
    return context


def client_context(*, certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if certificate:
        CLIENT.configure_cert(context)
    return context


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[SocketWire, trio.SocketStream]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = await trio.open_tcp_stream(*server.getsockname()[:2])
        accepted, address = server.accept()
        wire = SocketWire(accepted, address[:2])
        try:
            yield wire, client
        finally:
            wire.abort()
            await trio.aclose_forcefully(client)


@asynccontextmanager
async def tls_pair(
    *, facts: Facts | None = None, certificate: bool = False
) -> AsyncIterator[tuple[TlsWire, trio.SSLStream[trio.SocketStream], trio.SocketStream]]:
    async with tcp_pair() as (inner, tcp):
        wire = TlsWire(inner, facts or Facts(server_context()))
        stream = trio.SSLStream(tcp, client_context(certificate=certificate), server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.open)
            await stream.do_handshake()
        yield wire, stream, tcp


async def test_bytes_go_both_ways_and_the_end_is_told() -> None:
    async with tls_pair() as (wire, stream, _):
        await wire.send_all(b"from the gateway")
        assert await stream.receive_some() == b"from the gateway"
        await stream.send_all(b"from the client")
        assert await wire.receive_some() == b"from the client"
        await wire.send_eof()
        assert await stream.receive_some() == b""
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.aclose()


class _Watching:
    """An OpenSSL object that notes how much waits in the buffer behind it after each write."""

    def __init__(self, wire: TlsWire) -> None:
        assert wire._tls is not None
        self._tls, self._outgoing, self.most = wire._tls, wire._outgoing, 0

    def write(self, data: Any) -> int:
        count = self._tls.write(data)
        self.most = max(self.most, self._outgoing.pending)
        return count


@pytest.mark.parametrize("by", ["send_all", "try_send", "send_part"])
@pytest.mark.parametrize(("size", "most"), [(300, 400), (3_600, 1_100), (64 * 1024, 16 * 1024 + 64)])
async def test_v46_a_buffer_that_never_shrinks_is_never_made_big(by: str, size: int, most: int) -> None:
    """What a memory BIO has held once it keeps room for, on each connection that has ever had a big answer."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with tls_pair() as (wire, stream, _):
        wire._tls = watching = _Watching(wire)  # type: ignore[assignment]
        if by == "send_all":
            await wire.send_all(data)
        elif by == "try_send":
            assert wire.try_send(data) == len(data)
        else:
            assert await wire.send_part(memoryview(data)) == len(data)
        assert 0 < watching.most <= most
        got = b""
        while len(got) < len(data):
            got += await stream.receive_some()
        assert got == data
        wire._tls = watching._tls


async def test_a_megabyte_arrives_whole_in_both_directions() -> None:
    data = bytes(range(256)) * 4096
    async with tls_pair() as (wire, stream, _):

        async def take(receive: Any) -> None:
            got = b""
            while len(got) < len(data):
                got += await receive()
            assert got == data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, data)
            nursery.start_soon(take, stream.receive_some)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            nursery.start_soon(take, wire.receive_some)


async def test_receiving_never_takes_more_than_was_asked_for() -> None:
    async with tls_pair() as (wire, stream, _):
        await stream.send_all(b"0123456789" * 4000)
        first = await wire.receive_some(7)
        assert first == b"0123456"
        assert len(await wire.receive_some(20_000)) <= 20_000


async def test_try_send_counts_only_what_has_left() -> None:
    """The peer reads nothing: sooner or later a record stays behind and is not counted until it has left."""
    async with tls_pair() as (wire, stream, _):
        block = b"x" * 60_000
        sent = 0
        while count := wire.try_send(block):
            sent += count
        assert wire.try_send(block) == 0
        assert wire.unacknowledged > 0
        got = 0

        async def read() -> None:
            nonlocal got
            while got < sent + len(block):
                got += len(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            assert await wire.send_part(memoryview(block)) == len(block), "what was encrypted already is sent once"
        assert got == sent + len(block)


async def test_the_writer_keeps_frames_whole_when_the_peer_is_slow() -> None:
    frames = [bytes([number % 251]) * 30_000 for number in range(200)]
    async with tls_pair() as (wire, stream, _), trio.open_nursery() as nursery:
        writer = Writer(wire, budget=10**8, spawn=nursery.start_soon, on_overflow=lambda: None, on_broken=lambda: None)
        for number, frame in enumerate(frames):
            writer.push(frame if number % 3 else SharedFrame(frame[:4], memoryview(frame)[4:-2], frame[-2:]))
            writer.flush()
        writer.finish(b"the end", keep_pending=True)
        want = b"".join(frames) + b"the end"
        got = bytearray()
        while len(got) < len(want):
            got += await stream.receive_some(10_000)
        assert got == want
        await writer.wait_drained()
        assert writer.size == 0


async def test_a_cancelled_wait_loses_nothing() -> None:
    async with tls_pair() as (wire, stream, _):
        with trio.move_on_after(0.01):
            await wire.receive_some()
        await stream.send_all(b"later")
        assert await wire.receive_some() == b"later"


async def test_a_cancelled_send_breaks_the_stream_for_good() -> None:
    async with tls_pair() as (wire, _, __):
        with trio.move_on_after(0.05) as scope:
            await wire.send_all(b"x" * 50_000_000)
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await wire.send_all(b"more")
        assert wire.try_send(b"more") == 0


async def opened(data: bytes, *, facts: Facts | None = None, end: bool = True) -> tuple[str, bytes]:
    """What the gateway's side says when a peer begins with ``data``, and what the peer gets."""
    async with tcp_pair() as (inner, tcp):
        wire = TlsWire(inner, facts or Facts(server_context()))
        await tcp.send_all(data)
        if end:
            await tcp.send_eof()
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as failed:
            await wire.open()
        wire.abort()
        answer = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while part := await tcp.receive_some():
                answer += part
        return str(failed.value), answer


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "closed before a handshake"),
        (b"\x00" * 100, "not TLS"),
        (b"\x16\x03\x01\x00\x05hello", ""),
        (b"\x16\x03\x01\xff\xff" + b"\x00" * 2000, ""),
        (b"\x16", "closed during the handshake"),
    ],
)
async def test_v47_rubbish_ends_the_handshake(data: bytes, said: str) -> None:
    reason, _ = await opened(data)
    assert said in reason


async def test_a_plain_request_is_told_in_one_sentence_that_this_is_tls() -> None:
    reason, answer = await opened(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", end=False)
    assert "plain connection" in reason
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"https://" in answer


async def test_nothing_is_made_for_a_connection_that_says_nothing() -> None:
    async with tcp_pair() as (inner, _):
        wire = TlsWire(inner, Facts(server_context()))
        with trio.move_on_after(0.05):
            await wire.open()
        assert wire._tls is None


async def test_tls_1_2_is_refused() -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tcp_pair() as (inner, tcp):
        wire = TlsWire(inner, Facts(server_context()))
        stream = trio.SSLStream(tcp, context, server_hostname="localhost")
        async with trio.open_nursery() as nursery:

            async def refuse() -> None:
                with pytest.raises(trio.BrokenResourceError, match="only TLS"):
                    await wire.open()

            nursery.start_soon(refuse)
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()


async def test_mtls_a_certificate_names_the_device_and_one_that_does_not_count_ends_it() -> None:
    facts = Facts(server_context(client_auth=True))
    async with tls_pair(facts=facts, certificate=True) as (wire, _, __):
        assert wire.arrival.certificate == "device-of-the-certificate"
    facts.refuse = "revoked"
    async with tcp_pair() as (inner, tcp):
        wire = TlsWire(inner, facts)
        stream = trio.SSLStream(tcp, client_context(certificate=True), server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            with pytest.raises(trio.BrokenResourceError, match="revoked"):
                await wire.open()
            assert wire.arrival.certificate is None


async def test_mtls_without_a_certificate_the_handshake_fails() -> None:
    async with tcp_pair() as (inner, tcp):
        wire = TlsWire(inner, Facts(server_context(client_auth=True)))
        stream = trio.SSLStream(tcp, client_context(), server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            with pytest.raises(trio.BrokenResourceError, match="no client certificate"):
                await wire.open()
            wire.abort()


async def test_a_key_update_of_the_peer_is_answered_and_the_stream_goes_on() -> None:
    # RFC 8446 section 4.6.3; OpenSSL's command line sends one for the line "K".
    async with tcp_pair() as (_, tcp), trio.open_nursery() as nursery:
        await trio.aclose_forcefully(tcp)
        listener = await nursery.start(partial(trio.serve_tcp, _echo, 0, host="127.0.0.1"))
        port = listener[0].socket.getsockname()[1]
        process = await trio.lowlevel.open_process(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"],
            stdin=-1, stdout=-1, stderr=-2,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with trio.fail_after(10):
            got = b""
            await process.stdin.send_all(b"one\n")
            while b"one\n" not in got:
                got += await process.stdout.receive_some()
            await process.stdin.send_all(b"K\n")
            while b"KEYUPDATE" not in got:
                got += await process.stdout.receive_some()
            await process.stdin.send_all(b"two\n")  # the update leaves ahead of it
            while b"two\n" not in got:
                got += await process.stdout.receive_some()
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()
        nursery.cancel_scope.cancel()


async def _echo(stream: trio.SocketStream) -> None:
    bare = socket.socket(fileno=stream.socket.dup().detach())
    await stream.aclose()
    wire = TlsWire(SocketWire(bare, ("127.0.0.1", 1)), Facts(server_context()))
    await wire.open()
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await wire.receive_some():
            await wire.send_all(data)
    wire.abort()


async def test_a_peer_that_does_nothing_but_ask_for_new_keys_is_cut() -> None:
    """Python's ssl cannot send a KeyUpdate, so this is libssl itself."""
    library = ctypes.util.find_library("ssl")
    if library is None:
        pytest.skip("libssl is not found")
    lib = ctypes.CDLL(library)
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(lib, name).restype = ctypes.c_void_p
    done = threading.Event()

    def flood(number: int, kind: int) -> int:
        context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        tls = ctypes.c_void_p(lib.SSL_new(context))
        lib.SSL_set_fd(tls, number)
        if lib.SSL_connect(tls) != 1:
            return -1
        for count in range(50_000):
            if done.is_set() or lib.SSL_key_update(tls, kind) != 1 or lib.SSL_do_handshake(tls) != 1:
                return count
        return 50_000

    for kind in (0, 1):  # SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED
        done.clear()
        with socket.create_server(("127.0.0.1", 0)) as server, trio.fail_after(20):
            client = socket.create_connection(server.getsockname())
            accepted, address = server.accept()
            wire = TlsWire(SocketWire(accepted, address[:2]), Facts(server_context()))

            async def serve(wire: TlsWire = wire) -> None:
                try:
                    await wire.open()
                    with pytest.raises(trio.BrokenResourceError, match="too many key updates"):
                        await wire.receive_some()
                finally:
                    done.set()
                    wire.abort()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await trio.to_thread.run_sync(flood, client.fileno(), kind)
            assert len(wire._left) + wire._outgoing.pending < 128 * 1024
            client.close()
