"""TLS in front of a gateway, as a proxy would do it: ``python tlsfront.py PORT TARGET CERTIFICATE RECORD``.

Forwards bytes to 127.0.0.1:TARGET (0: answers ``/health`` itself and swallows the rest). Appends everything that a
client sent, in clear, to RECORD: what a spoofed gateway would get to know.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import trio

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


async def main(port: int, target: int, certificate: str, record: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        try:
            if target:
                await forward(stream)
            else:
                while data := await stream.receive_some():
                    note(bytes(data))
                    await stream.send_all(HEALTHY)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def note(data: bytes) -> None:
        with record.open("ab") as file:
            file.write(data)

    async def forward(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", target) as inner, trio.open_nursery() as nursery:

            async def answers() -> None:
                async for data in inner:
                    await stream.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(answers)
            async for data in stream:
                note(bytes(data))
                await inner.send_all(data)
            nursery.cancel_scope.cancel()

    async def accept_all() -> None:
        await trio.serve_tcp(serve, port, host="0.0.0.0", task_status=_Said())

    await accept_all()


class _Said:
    def started(self, value: object = None) -> None:
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
