"""The body of a request that we send with httpx.

Owns one class, made when httpx is first used. It must not know who sends what. httpx's own bodies (bytes, or anything
iterable given as ``content``) are async generators: a request that breaks or is cancelled while it is sent leaves them
to the garbage collector half-way, with a warning. Invariant: an iterator of ours is nothing that has to be closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

__all__ = ["put_body"]


def put_body(request: httpx.Request, content: bytes) -> None:
    """Let ``request`` send ``content``, whatever it was built with."""
    request.headers["content-length"] = str(len(content))
    request.stream = _body_type()(content)  # type: ignore[call-arg]  # the class is made in a function


@cache
def _body_type() -> type[httpx.AsyncByteStream]:
    import httpx

    class Body(httpx.AsyncByteStream):
        def __init__(self, content: bytes) -> None:
            self._content: bytes | None = content

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            content, self._content = self._content, None
            if content is None:
                raise StopAsyncIteration
            return content

    return Body
