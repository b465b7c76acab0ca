"""``status`` and ``gateway status``: the rows of `cli.rows`, for people and as JSON with OpenClaw's keys."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import attrs
import click

from openclaw_gateway._version import __version__
from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import colour, print_json, printable
from openclaw_gateway.cli.probe import capability, own_entry

__all__ = ["status"]

_MARKS = {"ok": ("ok", "green"), "failed": ("FAILED", "red"), "unknown": ("-", "yellow")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--deep", is_flag=True, help="Ask every part: health with probes, channels, presence.")
@click.option("--all", "everything", is_flag=True, help="The same as --deep.")
@click.option("--no-probe", is_flag=True, help="Look at process and port only.")
@click.option("--require-rpc", is_flag=True, help="Exit with 1 where the gateway cannot be read.")
@click.option("--verbose", is_flag=True, hidden=True)
@click.option("--usage", is_flag=True, hidden=True)
@reach_options()
def status(
    as_json: bool, deep: bool, everything: bool, no_probe: bool, require_rpc: bool, verbose: bool, usage: bool,
    reach: Reach,
) -> None:  # fmt: skip
    """How the gateway is doing: process, port, HTTP, WebSocket, authentication and scope, each on its own row.

    Exit code 1 where the gateway is not well or cannot be read.
    """
    from openclaw_gateway.cli.rows import look

    target = reach.target()
    methods: tuple[str, ...] = ("status",)
    if deep or everything:
        methods = ("status", "health", "system-presence", "channels.status", "last-heartbeat")
    journey = look(target, timeout=reach.timeout, methods=methods, probe=not no_probe)
    if as_json:
        print_json(_as_json(journey))
    else:
        _print(journey, deep or everything)
    if not journey.ok:
        raise click.exceptions.Exit(1)


def _print(journey: Any, deep: bool) -> None:
    target = journey.target
    version = f", version {printable(journey.hello.server_version)}" if journey.hello is not None else ""
    click.echo(f"Gateway {printable(target.shown)} (from {target.source}{version})")
    width = max(len(row.name) for row in journey.rows)
    for row in journey.rows:
        word, paint = _MARKS[row.state]
        click.echo(f"  {row.name:<{width}}  {colour(f'{word:<6}', fg=paint)}  {printable(row.text, 300)}")
        if row.state != "ok" and row.fix:
            click.echo(f"  {'':<{width}}          fix: {printable(row.fix, 300)}")
    loaded = target.loaded
    if loaded is not None:
        for issue in loaded.issues:
            click.echo(f"  config    {printable(issue, 300)}")
    if deep:
        for method, answer in journey.answers.items():
            click.echo(f"\n{method}")
            print_json(answer)


def _bind_host(loaded: Any) -> str | None:
    """The address that the configured bind mode means on this host; loopback is listened on beside it."""
    from openclaw_gateway.server.addresses import BindFailed, bind_addresses

    if loaded is None:
        return None
    try:
        hosts = bind_addresses(loaded.config)
    except BindFailed:
        return None
    return hosts[0] if loaded.config.bind in {"loopback", "auto"} else hosts[-1]


def _as_json(journey: Any) -> dict[str, Any]:
    """OpenClaw's keys where it has the same thing (`gateway status --json`), ours (``rows``) beside them."""
    target, hello, error = journey.target, journey.hello, journey.error
    loaded = target.loaded
    body: dict[str, Any] = dict(journey.answers.get("status") or {})
    body.setdefault("channelSummary", [])
    body.setdefault("sessions", {"byAgent": []})
    holder = journey.holder
    body.update(
        cli={"version": __version__, "entrypoint": os.path.realpath(sys.argv[0]) if sys.argv[0] else None},
        ok=journey.ok,
        reachable=journey.reachable,
        rows=[attrs.asdict(row) for row in journey.rows],
        gateway={
            "mode": "local" if target.local else "remote",
            "url": target.url,
            "urlSource": target.source,
            "reachable": journey.reachable,
            "connectLatencyMs": journey.latency_ms,
            "error": error.message if error is not None else None,
            "self": own_entry(journey.answers.get("system-presence")),
            "bindHost": _bind_host(loaded) if target.local else None,
            "controlUiLinks": None,  # no control UI is served on this port
            "port": target.address.port,
            "portSource": target.source,
            "probeUrl": target.url,
            "bindMode": loaded.config.bind if loaded is not None else None,
            "version": hello.server_version if hello is not None else None,
            "pid": holder.pid if holder is not None else None,
            "tls": (journey.answers.get("status") or {}).get("tls"),
            "secretSource": target.secret_source,
            "secretFingerprint": target.fingerprint,
        },
        port={
            "port": target.address.port,
            "status": "busy" if journey.owners else "free",
            "listeners": [{"pid": owner.pid, "command": owner.command} for owner in journey.owners],
            "hints": [row.fix for row in journey.rows if row.name == "port" and row.state == "failed" and row.fix],
        },
        service={"label": None, "loaded": False, "command": None, "runtime": None},  # no service manager is asked
        extraServices=[],
        rpc={
            "ok": error is None and hello is not None,
            "kind": "read" if "status" in journey.answers else "connect",
            "capability": capability(journey),
            "version": hello.server_version if hello is not None else None,
            "url": target.url,
            "latencyMs": journey.latency_ms,
            "auth": {
                "role": hello.role if hello is not None else None,
                "scopes": list(hello.scopes) if hello is not None else [],
            },
            "server": {
                "version": hello.server_version if hello is not None else None,
                "connId": hello.conn_id if hello is not None else None,
            },
        },
        os={
            "platform": platform.system().lower(),
            "arch": platform.machine(),
            "release": platform.release(),
            "label": f"{platform.system().lower()} {platform.release()} ({platform.machine()})",
        },
    )
    if error is not None:
        body["rpc"].update(error=error.message, connectFailure={"kind": error.stage}, fix=error.fix)
    if loaded is not None:
        file = {"path": str(loaded.path), "exists": loaded.exists, "valid": not loaded.degraded}
        body["config"] = {
            "cli": file,
            "daemon": file if holder is not None and target.local else None,  # the same file: found the same way
            "issues": [issue.to_wire() for issue in loaded.issues],
            "hash": loaded.resolved_hash,
            "fileHash": loaded.hash,
            "appliedHash": (journey.answers.get("status") or {}).get("appliedConfigHash"),
        }
        from openclaw_gateway.ops.log import log_path

        body["logFile"] = str(log_path(loaded.config.logging, loaded.config.state_dir) or "")
    body.update({method: answer for method, answer in journey.answers.items() if method != "status"})
    body["environment"] = sorted(name for name in os.environ if name.startswith("OPENCLAW_"))
    return body
