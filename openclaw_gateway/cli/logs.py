"""``openclaw logs``: the gateway's log, from the gateway, or from the file where this host's gateway does not answer.

Owns how a log line looks to a person. Invariant (requirement LOG-2): the output is the same wherever the gateway
runs, because the lines come over the wire; when the gateway is down, its file is read the same way. """

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import printable

__all__ = ["logs", "render"]

_COLOURS = {"error": "red", "warning": "yellow", "debug": "bright_black"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep showing new lines.")
@click.option("--limit", "-n", type=click.IntRange(1, 5000), default=200, show_default=True, help="Lines to show.")
@click.option(
    "--max-bytes", type=click.IntRange(1, 1_048_576), default=250_000, show_default=True, help="Bytes to read."
)
@click.option("--interval", type=click.IntRange(100), default=1000, show_default=True, metavar="MS", help="How often.")
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

    async def show() -> None:
        async for answer in _answers(reach, follow, limit, max_bytes, interval / 1000):
            if answer.get("reset") and not as_json:
                click.echo("-- the log was rotated --", err=True)
            for line in answer.get("lines") or ():
                click.echo(_as_json(line) if as_json else render(line, utc=utc, coloured=coloured))
            sys.stdout.flush()

    trio.run(show)


async def _answers(
    reach: Reach, follow: bool, limit: int, max_bytes: int, interval: float
) -> AsyncIterator[dict[str, Any]]:
    """The answers of logs.tail, one after the other; a connection that breaks is made again while following."""
    import trio

    from openclaw_gateway.client import CallTimedOut, ClientClosed, ConnectFailed, open_client

    target = reach.target()
    cursor: int | None = None
    told = False
    async with AsyncExitStack() as stack:
        client = None
        while True:
            params: dict[str, Any] = {"limit": limit, "maxBytes": max_bytes}
            if cursor is not None:
                params["cursor"] = cursor
            answer: dict[str, Any] | None = None
            try:
                if client is None or client.closed is not None:
                    await stack.aclose()
                    client = await stack.enter_async_context(
                        open_client(
                            target.url, auth=target.credentials, client_id="cli", mode="cli",
                            tls_fingerprint=target.tls_fingerprint, allow_insecure=target.local, timeout=reach.timeout,
                        )
                    )  # fmt: skip
                answer = await client.call("logs.tail", params, timeout=reach.timeout)
            except (ConnectFailed, ClientClosed, CallTimedOut) as error:
                client = None
                gone = not isinstance(error, ConnectFailed) or error.stage in {"tcp", "http", "websocket"}
                if not gone or not (target.local or follow):
                    raise
                if target.local:
                    answer = _from_file(target, params)
                if not told:
                    click.echo(
                        "-- the gateway does not answer; this is its file --" if target.local
                        else "-- the gateway does not answer; waiting --", err=True,
                    )  # fmt: skip
                    told = True
            else:
                told = False
            if answer is not None:
                cursor = answer["cursor"]
                yield answer
            if not follow:
                return
            await trio.sleep(interval)


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


def _as_json(line: str) -> str:
    import msgspec

    return line if _parse(line) is not None else msgspec.json.encode({"type": "raw", "raw": line}).decode()


def render(line: str, *, utc: bool = False, coloured: bool = False) -> str:
    """One log line for a person; what is not one of ours is shown as it is, escaped."""
    fields = _parse(line)
    if fields is None:
        return printable(line, 4096)
    time_, level = _clock(str(fields.pop("time", "")), utc), str(fields.pop("level", ""))
    subsystem, event = fields.pop("subsystem", ""), fields.pop("event", "")
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
