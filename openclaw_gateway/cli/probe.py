"""``gateway probe``: may one come in, as whom, and can the gateway be read? OpenClaw's keys in ``--json``."""

from __future__ import annotations

import time
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["probe"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@reach_options(timeout_ms=3000)
def probe(as_json: bool, reach: Reach) -> None:
    """Is the gateway reachable, does it let us in, can it be read? Exit code 1 where it cannot be reached."""
    from openclaw_gateway.cli.rows import look

    started = time.monotonic()
    target = reach.target()
    journey = look(target, timeout=reach.timeout, methods=("health", "status", "system-presence"))
    took = round((time.monotonic() - started) * 1000)
    if as_json:
        print_json(_as_json(journey, took, reach.timeout))
    else:
        word = "reachable" if journey.reachable else "unreachable"
        click.echo(f"{target.url}: {word}, {_capability(journey)} ({took} ms)")
        if journey.error is not None:
            click.echo(f"  {printable(journey.error.message, 300)}")
            if journey.error.fix:
                click.echo(f"  fix: {printable(journey.error.fix, 300)}")
    if not journey.reachable:
        raise click.exceptions.Exit(1)


def _capability(journey: Any) -> str:
    """OpenClaw's words for what a probe is able to do."""
    if journey.hello is None:
        if journey.error is not None and (journey.error.details or {}).get("code") == "PAIRING_REQUIRED":
            return "pairing_pending"
        return "unknown"
    scopes = set(journey.hello.scopes)
    if "operator.admin" in scopes:
        return "admin_capable"
    if "operator.write" in scopes:
        return "write_capable"
    return "read_only" if "operator.read" in scopes else "connected_no_operator_scope"


def _as_json(journey: Any, took: int, timeout: float) -> dict[str, Any]:
    error, hello = journey.error, journey.hello
    auth = {
        "role": hello.role if hello is not None else None,
        "scopes": list(hello.scopes) if hello is not None else [],
        "capability": _capability(journey),
    }
    connect: dict[str, Any] = {
        "ok": hello is not None,
        "rpcOk": "status" in journey.answers,
        "scopeLimited": hello is not None and "status" not in journey.answers,
        "latencyMs": journey.latency_ms,
        "error": error.message if error is not None else None,
        "close": {"code": error.close_code, "reason": error.close_reason} if error is not None else None,
    }
    return {
        "ok": hello is not None,
        "degraded": hello is not None and "status" not in journey.answers,
        "capability": _capability(journey),
        "ts": time.time_ns() // 1_000_000,
        "durationMs": took,
        "timeoutMs": round(timeout * 1000),
        "targets": [
            {
                "id": "localLoopback" if journey.target.local else "explicit",
                "kind": "localLoopback" if journey.target.local else "explicit",
                "url": journey.target.url,
                "active": True,
                "connect": connect,
                "auth": auth,
                "server": {
                    "version": hello.server_version if hello is not None else None,
                    "connId": hello.conn_id if hello is not None else None,
                },
                "health": journey.answers.get("health"),
                "summary": journey.answers.get("status"),
                "presence": journey.answers.get("system-presence"),
            }
        ],
    }
