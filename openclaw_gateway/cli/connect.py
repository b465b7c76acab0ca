"""How a command reaches the gateway: the shared options and one call on a fresh connection.

Owns ``--url --token --password --port --timeout`` and who the command line says it is (spec wire.md section 2). It
must not know what a method means."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from openclaw_gateway.cli.speech import protocol_option

if TYPE_CHECKING:
    from openclaw_gateway.client import GatewayClient

__all__ = ["Reach", "aimed_at", "call", "call_many", "converse", "reach_options", "refuse_empty"]

_Answer = TypeVar("_Answer")
_Command = TypeVar("_Command", bound=Callable[..., Any])


@attrs.frozen
class Reach:
    """What the shared options said. ``timeout`` in seconds."""

    url: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    port: int | None = None
    timeout: float = 10.0
    tls_fingerprint: str | None = None
    ssh: str | None = None
    ssh_identity: str | None = None

    def target(self) -> Any:
        from openclaw_gateway.client.resolve import resolve_target

        return resolve_target(
            env=os.environ, url=self.url, token=self.token, password=self.password, port=self.port,
            tls_fingerprint=self.tls_fingerprint, ssh=self.ssh, ssh_identity=self.ssh_identity,
        )  # fmt: skip


def reach_options(timeout_ms: int = 10_000) -> Callable[[_Command], _Command]:
    """Adds the shared options; the command gets them as one `Reach` in ``reach``."""

    def decorate(command: _Command) -> _Command:
        def wrapper(
            *args: Any, url: str | None, token: str | None, password: str | None, port: int | None, timeout: int,
            tls_fingerprint: str | None, **options: Any,
        ) -> Any:  # fmt: skip
            refuse_empty(url=url, token=token, password=password, tls_fingerprint=tls_fingerprint)
            reach = Reach(url, token, password, port, timeout / 1000, tls_fingerprint)
            return command(*args, reach=reach, **options)

        wrapper.__doc__ = command.__doc__
        wrapper.__name__ = command.__name__
        wrapper.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        for option in (
            protocol_option(),
            click.option("--url", metavar="URL", help="The gateway's WebSocket URL (needs --token or --password)."),
            click.option("--token", metavar="TOKEN", help="The gateway's token."),
            click.option("--password", metavar="PASSWORD", help="The gateway's password."),
            click.option(
                "--tls-fingerprint", metavar="SHA256",
                help="Trust the certificate or key with this fingerprint and no other; several with commas.",
            ),
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
            raise click.BadParameter("is empty", param_hint=f"--{name.replace('_', '-')}")


def call(reach: Reach, method: str, params: object = None, *, scopes: Sequence[str] = ("operator.read",)) -> Any:
    """One request on a connection of its own: the decoded payload. Raises as `GatewayClient.call` and `open_client`
    do."""
    return call_many(reach, [(method, params)], scopes=scopes)[0]


def call_many(
    reach: Reach, requests: Sequence[tuple[str, object]], *, scopes: Sequence[str] = ("operator.read",)
) -> list[Any]:
    """Several requests on one connection, in order."""

    async def ask(client: GatewayClient) -> list[Any]:
        return [await client.call(method, params, timeout=reach.timeout) for method, params in requests]

    return converse(reach, ask, scopes=scopes)


def converse(
    reach: Reach, ask: Callable[[GatewayClient], Awaitable[_Answer]], *, scopes: Sequence[str] = ("operator.read",)
) -> _Answer:
    """Connect, hand the connection to ``ask``, and give what it returns."""
    import trio

    from openclaw_gateway.client.reach import open_reached

    aim = reach.target()

    async def run() -> _Answer:
        with aimed_at(aim):
            if not aim.routes:
                return await connected(aim)
            from openclaw_gateway.client.route_dial import open_route

            async with open_route(aim, timeout=max(reach.timeout, 5.0)) as reached:
                return await connected(reached)

    async def connected(target: Any) -> _Answer:
        url = target.address.url if target.address.resource == "/" else _full_url(target.address)
        async with open_reached(target, url=url, scopes=scopes, timeout=reach.timeout) as client:
            return await ask(client)

    return trio.run(run)


@contextmanager
def aimed_at(target: Any) -> Iterator[None]:
    """What cannot be reached is mended on its own host: this host's gateway has no part in an address named by hand."""
    from openclaw_gateway.client.errors import ConnectFailed

    try:
        yield
    except ConnectFailed as error:
        if error.stage == "tcp" and not target.local and not target.routes:
            error.fix = f"check the address and port ({target.source}), and that a gateway runs there"
        raise


def _full_url(address: Any) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'wss' if address.tls else 'ws'}://{host}:{address.port}{address.resource}"
