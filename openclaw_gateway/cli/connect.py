"""How a command reaches the gateway: the shared options and one call on a fresh connection.

Owns ``--url --token --password --port --timeout`` and who the command line says it is (spec wire.md section 2). It
must not know what a method means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import click

from openclaw_gateway._version import __version__
from openclaw_gateway.cli.speech import protocol_option

__all__ = ["Reach", "aimed_at", "call", "call_many", "reach_options", "refuse_empty"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@attrs.frozen
class Reach:
    """What the shared options said. ``timeout`` in seconds."""

    url: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    port: int | None = None
    timeout: float = 10.0

    def target(self) -> Any:
        from openclaw_gateway.client.resolve import resolve_target

        return resolve_target(env=os.environ, url=self.url, token=self.token, password=self.password, port=self.port)


def reach_options(timeout_ms: int = 10_000) -> Callable[[_Command], _Command]:
    """Adds the shared options; the command gets them as one `Reach` in ``reach``."""

    def decorate(command: _Command) -> _Command:
        def wrapper(
            *args: Any, url: str | None, token: str | None, password: str | None, port: int | None, timeout: int,
            **options: Any,
        ) -> Any:  # fmt: skip
            refuse_empty(url=url, token=token, password=password)
            return command(*args, reach=Reach(url, token, password, port, timeout / 1000), **options)

        wrapper.__doc__ = command.__doc__
        wrapper.__name__ = command.__name__
        wrapper.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        for option in (
            protocol_option(),
            click.option("--url", metavar="URL", help="The gateway's WebSocket URL (needs --token or --password)."),
            click.option("--token", metavar="TOKEN", help="The gateway's token."),
            click.option("--password", metavar="PASSWORD", help="The gateway's password."),
            click.option("--port", type=click.IntRange(1, 65535), help="The port of this host's gateway."),
            click.option(
                "--timeout", type=click.IntRange(1), default=timeout_ms, show_default=True, metavar="MS",
                help="Give up after so many milliseconds.",
            ),
        ):  # fmt: skip
            wrapper = option(wrapper)
        return wrapper  # type: ignore[return-value]

    return decorate


def refuse_empty(**options: str | None) -> None:
    """An option that was given with nothing in it (an unset shell variable) must not fall through to the next source.

    Raises `click.BadParameter`: wrong usage, exit code 2.
    """
    for name, value in options.items():
        if value is not None and not value.strip():
            raise click.BadParameter("is empty", param_hint=f"--{name}")


def call(reach: Reach, method: str, params: object = None, *, scopes: Sequence[str] = ("operator.read",)) -> Any:
    """One request on a connection of its own: the decoded payload. Raises as `GatewayClient.call` and `open_client`
    do."""
    return call_many(reach, [(method, params)], scopes=scopes)[0]


def call_many(
    reach: Reach, requests: Sequence[tuple[str, object]], *, scopes: Sequence[str] = ("operator.read",)
) -> list[Any]:
    """Several requests on one connection, in order."""
    import trio

    from openclaw_gateway.client import open_client

    target = reach.target()

    async def run() -> list[Any]:
        with aimed_at(target):
            return await ask()

    async def ask() -> list[Any]:
        async with open_client(
            target.address.url if target.address.resource == "/" else _full_url(target.address),
            auth=target.credentials,
            scopes=scopes,
            client_id="cli",
            mode="cli",
            version=__version__,
            tls_fingerprint=target.tls_fingerprint,
            allow_insecure=target.local,
            timeout=reach.timeout,
        ) as client:
            return [await client.call(method, params, timeout=reach.timeout) for method, params in requests]

    return trio.run(run)


@contextmanager
def aimed_at(target: Any) -> Iterator[None]:
    """What cannot be reached is mended on its own host: this host's gateway has no part in an address named by hand."""
    from openclaw_gateway.client.errors import ConnectFailed

    try:
        yield
    except ConnectFailed as error:
        if error.stage == "tcp" and not target.local:
            error.fix = f"check the address and port ({target.source}), and that a gateway runs there"
        raise


def _full_url(address: Any) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'wss' if address.tls else 'ws'}://{host}:{address.port}{address.resource}"
