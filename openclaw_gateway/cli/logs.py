"""``openclaw logs``: the gateway's log, from the gateway, or from the file where this host's gateway does not answer.

Owns how a log line looks to a person. Invariant (requirement LOG-2): the output is the same wherever the gateway
runs, because the lines come over the wire; when the gateway is down, its file is read the same way."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_gateway.cli.connect import Reach, aimed_at, reach_options
from openclaw_gateway.cli.output import printable

if TYPE_CHECKING:
    from openclaw_gateway.client import GatewayClient

__all__ = ["logs", "render"]

_FOLLOW_LINES: Final = 5000  # the most that one page may hold
_COLOURS = {"error": "red", "warning": "yellow", "debug": "bright_black"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep showing new lines.")
@click.option("--limit", "-n", type=click.IntRange(1, 5000), default=200, show_default=True, help="Lines to show.")
@click.option(
    "--max-bytes", type=click.IntRange(1, 1_048_576), default=250_000, show_default=True, help="Bytes to read."
)
@click.option(
    "--interval",
    type=click.IntRange(100),
    default=1000,
    show_default=True,
    metavar="MS",
    help="How often to look, with --follow.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--plain", is_flag=True, help="No styling.")
@click.option("--no-color", is_flag=True, help="No colours.")
@click.option("--utc", is_flag=True, help="Times in UTC.")
@click.option("--local-time", is_flag=True, help="Times in the local zone (the default).")
@click.option("--expect-final", is_flag=True, hidden=True)
@reach_options(timeout_ms=30_000)
def logs(
    follow: bool, limit: int, max_bytes: int, interval: int, as_json: bool, plain: bool, no_color: bool, utc: bool,
    local_time: bool, expect_final: bool, reach: Reach,
) -> None:  # fmt: skip
    """Show the gateway's log, or follow it."""
    import trio

    coloured = sys.stdout.isatty() and not (plain or no_color or os.environ.get("NO_COLOR"))

    told_meta: list[object] = []

    def show(answer: dict[str, Any]) -> None:
        if as_json and (not told_meta or answer.get("reset")):
            told_meta.append(answer)
            click.echo(_meta(answer))
        if answer.get("reset") and not as_json:
            click.echo("-- the log was rotated --", err=True)
        for line in answer.get("lines") or ():
            click.echo(_as_json(line) if as_json else render(line, utc=utc, coloured=coloured))
        sys.stdout.flush()

    source = _Source(reach, limit, max_bytes)
    trio.run(source.follow if follow else source.once, show, interval / 1000)


class _Source:
    """Where the lines come from: the gateway, or while it is down the file of this host's gateway."""

    def __init__(self, reach: Reach, limit: int, max_bytes: int) -> None:
        self._timeout = reach.timeout
        self._target = reach.target()
        self._params: dict[str, Any] = {"limit": limit, "maxBytes": max_bytes}
        self._told = False

    async def once(self, show: Callable[[dict[str, Any]], None], interval: float) -> None:
        """The lines there are now."""
        try:
            with aimed_at(self._target):
                await self._ask_once(show)
        except Exception as error:
            if not self._is_gone(error) or not self._target.local:
                raise
            self._from_file(show)

    async def _ask_once(self, show: Callable[[dict[str, Any]], None]) -> None:
        async with self._connect() as client:
            show(await client.call("logs.tail", self._params, timeout=self._timeout))

    async def follow(self, show: Callable[[dict[str, Any]], None], interval: float) -> None:
        """Never returns. A connection that breaks is made again; until then the file is read."""
        import trio

        while True:
            try:
                async with self._connect(lasting=True) as client:
                    self._told = False
                    while True:
                        answer = await client.call("logs.tail", self._params, timeout=self._timeout)
                        # ``--limit`` is how much of the past is shown; what comes from now on is shown whole.
                        self._params |= {"cursor": answer["cursor"], "limit": _FOLLOW_LINES}
                        show(answer)
                        await trio.sleep(interval)
            except Exception as error:
                if not self._is_gone(error):
                    raise
            if self._target.local:
                self._from_file(show)
            else:
                self._tell("-- the gateway does not answer; waiting --")
            await trio.sleep(interval)

    @asynccontextmanager
    async def _connect(self, *, lasting: bool = False) -> AsyncIterator[GatewayClient]:
        if not self._target.routes:
            async with self._dial(self._target) as client:
                yield client
            return
        from openclaw_gateway.client.route_dial import open_route

        async with (
            open_route(self._target, timeout=self._timeout, pulse=lasting) as reached,
            self._dial(reached) as client,
        ):
            yield client

    def _dial(self, target: Any) -> AbstractAsyncContextManager[GatewayClient]:
        from openclaw_gateway.client.reach import open_reached

        return open_reached(target, timeout=self._timeout)

    def _is_gone(self, error: Exception) -> bool:
        from openclaw_gateway.client import CallTimedOut, ClientClosed, ConnectFailed

        if isinstance(error, ConnectFailed):
            return error.stage in {"tcp", "http", "websocket"}
        return isinstance(error, (ClientClosed, CallTimedOut))

    def _tell(self, text: str) -> None:
        if not self._told:
            click.echo(text, err=True)
        self._told = True

    def _from_file(self, show: Callable[[dict[str, Any]], None]) -> None:
        self._tell("-- the gateway does not answer; this is its file --")
        answer = _from_file(self._target, self._params)
        self._params["cursor"] = answer["cursor"]
        show(answer)


def _from_file(target: Any, params: dict[str, Any]) -> dict[str, Any]:
    import attrs

    from openclaw_gateway.ops.log import log_path
    from openclaw_gateway.ops.logtail import tail

    config = target.loaded.config
    path = log_path(config.logging, config.state_dir)
    if path is None:
        return {"cursor": 0, "lines": []}
    return attrs.asdict(tail(path, params.get("cursor"), params["limit"], params["maxBytes"]))


def _parse(line: str) -> dict[str, Any] | None:
    import msgspec

    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _meta(answer: dict[str, Any]) -> str:
    """The first line of ``--json``: which file, and how far it was read (bytes)."""
    import msgspec

    source = answer.get("sourceKind") or "file"
    meta = {"type": "meta", "file": answer.get("file"), "sourceKind": source, "cursor": answer.get("cursor")}
    return msgspec.json.encode({**meta, "size": answer.get("size")}).decode()


def _as_json(line: str) -> str:
    """OpenClaw's keys (type, time, level, subsystem, message, raw), and the line's own fields beside them."""
    import msgspec

    fields = _parse(line)
    out = {"type": "raw", "raw": line} if fields is None else {**fields, "type": "log", "raw": line}
    return msgspec.json.encode(out).decode()


def render(line: str, *, utc: bool = False, coloured: bool = False) -> str:
    """One log line for a person; what is not one of ours is shown as it is, escaped."""
    fields = _parse(line)
    if fields is None:
        return printable(line, 4096)
    time_, level = _clock(str(fields.pop("time", "")), utc), str(fields.pop("level", ""))
    subsystem, event = fields.pop("subsystem", ""), fields.pop("event", "")
    fields.pop("message", None)  # the same in one string, for OpenClaw's own command line
    stack = fields.pop("stack", None)
    rest = " ".join(
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in fields.items()
    )
    text = printable(f"{time_} {level:<7} {subsystem}: {event} {rest}".rstrip(), 4096)
    if isinstance(stack, list):
        text += "".join(f"\n    {printable(part, 1024)}" for part in stack)
    return click.style(text, fg=_COLOURS[level]) if coloured and level in _COLOURS else text


def _clock(stamp: str, utc: bool) -> str:
    if utc:
        return stamp
    from datetime import datetime

    try:
        return datetime.fromisoformat(stamp).astimezone().isoformat(timespec="milliseconds")
    except ValueError:
        return stamp
