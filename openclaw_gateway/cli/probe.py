"""``gateway probe``: may one come in, as whom, and can the gateway be read? OpenClaw's keys in ``--json``."""

from __future__ import annotations

import time
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["capability", "own_entry", "probe"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--ssh", metavar="TARGET", help="Through a tunnel to this ssh host: user@host or user@host:port.")
@click.option("--ssh-identity", metavar="PATH", help="The key file for ssh.")
@reach_options(timeout_ms=3000)
def probe(as_json: bool, ssh: str | None, ssh_identity: str | None, reach: Reach) -> None:
    """Is the gateway reachable, does it let us in, can it be read? Exit code 1 where it cannot be reached."""
    import attrs

    from openclaw_gateway.cli.connect import refuse_empty
    from openclaw_gateway.cli.rows import look

    refuse_empty(ssh=ssh, ssh_identity=ssh_identity)
    reach = attrs.evolve(reach, ssh=ssh, ssh_identity=ssh_identity)
    started = time.monotonic()
    target = reach.target()
    journey = look(target, timeout=reach.timeout, methods=("health", "status", "system-presence"))
    took = round((time.monotonic() - started) * 1000)
    if as_json:
        print_json(_as_json(journey, took, reach.timeout))
    else:
        word = "reachable" if journey.reachable else "unreachable"
        click.echo(f"{printable(journey.target.shown)}: {word}, {capability(journey)} ({took} ms)")
        if journey.error is not None:
            click.echo(f"  {printable(journey.error.message, 300)}")
            if journey.error.fix:
                click.echo(f"  fix: {printable(journey.error.fix, 300)}")
    if not journey.reachable:
        raise click.exceptions.Exit(1)


def capability(journey: Any) -> str:
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


def _warnings(target_id: str) -> list[dict[str, Any]]:
    text = "connected, but status could not be read: the connection lacks operator.read"
    return [{"code": "probe_scope_limited", "message": text, "targetIds": [target_id]}]


def own_entry(presence: Any) -> Any:
    """The gateway's own entry among those who are present."""
    entries = presence if isinstance(presence, list) else []
    return next((entry for entry in entries if isinstance(entry, dict) and entry.get("reason") == "self"), None)


def _tunnel(target: Any) -> dict[str, Any] | None:
    if target.tunnel is None:
        return None
    pid, port = target.tunnel
    host = target.via.removeprefix("ssh ").partition(" to port ")[0]
    return {"kind": "ssh", "target": host, "localPort": target.address.port, "remotePort": port, "pid": pid}


def _as_json(journey: Any, took: int, timeout: float) -> dict[str, Any]:
    from openclaw_gateway.server.addresses import own_tailnet_address

    error, hello = journey.error, journey.hello
    target_id = "localLoopback" if journey.target.local else "sshTunnel" if journey.target.tunnel else "explicit"
    port = journey.target.loaded.config.port if journey.target.loaded is not None else None
    port = journey.target.address.port if journey.target.local else port
    tailnet = own_tailnet_address()
    bind = journey.target.loaded.config.bind if journey.target.loaded is not None else ""
    served = bind in {"tailnet", "lan", "0.0.0.0", tailnet}  # noqa: S104 - compared, not bound
    connected, readable = hello is not None, "status" in journey.answers
    auth = {
        "role": hello.role if hello is not None else None,
        "scopes": list(hello.scopes) if hello is not None else [],
        "capability": capability(journey),
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
        "capability": capability(journey),
        "ts": time.time_ns() // 1_000_000,
        "durationMs": took,
        "timeoutMs": round(timeout * 1000),
        "primaryTargetId": target_id if connected else None,
        "warnings": _warnings(target_id) if connected and not readable else [],
        "network": {
            "localLoopbackUrl": f"ws://127.0.0.1:{port}" if port else None,
            "localTailnetUrl": f"ws://{tailnet}:{port}" if tailnet and port and served else None,
            "tailnetIPv4": tailnet,
        },
        "discovery": {"timeoutMs": 0, "count": 0, "beacons": []},  # this command looks for no other gateways
        "targets": [
            {
                "id": target_id,
                "kind": target_id,
                "tunnel": _tunnel(journey.target),
                "self": own_entry(journey.answers.get("system-presence")),
                "config": None,
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
