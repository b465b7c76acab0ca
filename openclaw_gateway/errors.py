"""The exceptions a program that embeds the gateway can meet.

Owns the root of the tree and the split that every caller needs: *ours* (`LocalProtocolError`: the embedding program
used the API wrongly), *theirs* (`RemoteProtocolError`: the peer broke the protocol), *settings* (`ConfigError`, in
`openclaw_gateway.config`), *the world* (`StoreError`, in `openclaw_gateway.store`). Exceptions carry fields; the
command line turns fields into sentences. Nothing here imports anything of the package but pure tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

__all__ = ["CallFailed", "GatewayError", "LocalProtocolError", "RemoteProtocolError", "flat_errors"]


class GatewayError(Exception):
    """Root of every exception this package raises on purpose."""


class LocalProtocolError(GatewayError):
    """The calling program used the API in a way the protocol does not allow."""


@attrs.define(eq=False)
class RemoteProtocolError(GatewayError):
    """The peer sent something the protocol does not allow.

    ``close_code`` is the WebSocket close code (RFC 6455 section 7.4) to end the connection with, ``http_status`` the
    answer when the connection is still HTTP.
    """

    message: str
    close_code: int = 1002
    http_status: int = 400

    def __str__(self) -> str:
        return self.message


@attrs.define(eq=False)
class CallFailed(GatewayError):
    """A request was answered with an error; the fields are those of the wire error (`protocol.errors.WireError`)."""

    code: str
    message: str
    details: dict[str, object] | None = None
    retryable: bool = False
    retry_after_ms: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


@contextmanager
def flat_errors() -> Iterator[None]:
    """Let a lone real error out of nested nurseries as itself; several leave as the group they are.

    Nesting depth is not API: without this every caller would have to unpack groups that only tell how many nurseries
    there are.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        import trio  # only who runs a gateway pays for it: commands that read a file import this module too

        real = [exc for exc in _leaves(group) if not isinstance(exc, trio.Cancelled)]
        if len(real) != 1:
            raise
        error = real[0]
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # raising here must not make the group its own cause
            del error, context
