"""What a client sends behind the head of a request: its body, within bounds, or word that it left.

Owns the reading of the body (V47: 1 MiB where the route says nothing else, 10 s) and the end of work whose client is
gone. It must not know routes, callers or answers: what was wrong is raised, the caller finds the words. Invariants: no
more than the limit and one receive of it is ever held; a length that is no plain number, or is over the limit, is
refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import trio

from openclaw_gateway.errors import flat_errors

__all__ = ["BODY_SECONDS", "MAX_BODY_BYTES", "BodyTooBig", "ClientLeft", "already", "read_body", "while_there"]

MAX_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 10.0

_Result = TypeVar("_Result")


class BodyTooBig(Exception):
    pass


class ClientLeft(Exception):  # control flow: there is nobody to answer
    pass


async def read_body(headers: Mapping[bytes, bytes], receive: Any, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, of at most ``limit`` bytes. Raises `BodyTooBig`, and `trio.TooSlowError` after `BODY_SECONDS`."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limit:
        raise BodyTooBig
    body = bytearray()
    with trio.fail_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise trio.TooSlowError
            body += message.get("body", b"")
            if len(body) > limit:
                raise BodyTooBig
            if not message.get("more_body", False):
                return bytes(body)


def already(body: bytes) -> Callable[[], Awaitable[bytes]]:
    """A body that was read before, for whoever asks for it again."""

    async def read() -> bytes:
        return body

    return read


async def while_there(receive: Any, work: Callable[[], Awaitable[_Result]]) -> _Result:
    """What ``work`` gives, unless the client leaves before. Raises `ClientLeft`; the body has been read by now."""
    done: list[_Result] = []

    async def watch(scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with flat_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            done.append(await work())
            nursery.cancel_scope.cancel()
    if not done:
        raise ClientLeft
    return done[0]
