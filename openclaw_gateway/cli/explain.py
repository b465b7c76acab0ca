"""``gateway explain``: why a connection was let in or turned away, or what would become of one that might come.

Owns the options and how an explanation looks. The running gateway answers (`gateway.explain`); when this host's gateway
is stopped, the same decision is made here with the configuration and the paired devices on the disk. It must not
decide anything itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_gateway.cli import connect
from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import colour, print_json, printable

if TYPE_CHECKING:
    from openclaw_gateway.config.load import LoadedConfig
    from openclaw_gateway.policy.explain import Supposition

__all__ = ["explain"]

_COLOURS: Final = {"admitted": "green", "pairing-needed": "yellow", "refused": "red"}


@click.command()
@click.option("--conn", "conn_id", metavar="ID", help="A connection of the running gateway, by its id in log or audit.")
@click.option("--ip", metavar="ADDRESS", help="A peer that might come: its network address.")
@click.option("--role", type=click.Choice(["operator", "node"]), default="operator", help="Its role (operator).")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope it asks for (default operator.read).")
@click.option("--client-id", default="cli", show_default=True, metavar="NAME", help="The client id it states.")
@click.option("--device", metavar="ID", help="Its device: an id, the beginning of one, or new.")
@click.option("--host", metavar="HOST", help="The Host header it sends.")
@click.option("--origin", metavar="ORIGIN", help="The Origin header it sends (a browser).")
@click.option("--forwarded", metavar="ADDRESSES", help="The X-Forwarded-For header that a proxy adds.")
@click.option(
    "--auth", type=click.Choice(["token", "password", "device", "none"]),
    help="The credential it has, a right one (default: what such a peer would have).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@reach_options()
def explain(
    conn_id: str | None, ip: str | None, role: str, scopes: tuple[str, ...], client_id: str, device: str | None,
    host: str | None, origin: str | None, forwarded: str | None, auth: str | None, as_json: bool, reach: Reach,
) -> None:  # fmt: skip
    """Say why a connection was let in or turned away, by which rule, and the one command that changes it."""
    if (conn_id is None) == (ip is None):
        raise click.UsageError("give either --conn ID or --ip ADDRESS")
    if auth == "device" and device is None:
        raise click.UsageError("--auth device needs --device ID")
    params: dict[str, Any] = {"connId": conn_id} if conn_id is not None else {
        "ip": ip, "role": role, "scopes": list(scopes or ("operator.read",)), "clientId": client_id, "device": device,
        "host": host, "origin": origin, "forwarded": forwarded, "auth": auth,
    }  # fmt: skip
    params = {name: value for name, value in params.items() if value is not None}
    try:
        answer = connect.call(reach, "gateway.explain", params, scopes=("operator.admin",))
    except Exception as error:
        if not _is_down(error) or ip is None or not reach.target().local:
            raise
        click.echo("-- no gateway runs here; decided with the configuration and the devices on the disk --", err=True)
        answer = _offline(params)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _is_down(error: Exception) -> bool:
    from openclaw_gateway.client import ConnectFailed

    return isinstance(error, ConnectFailed) and error.stage == "tcp"


def _show(answer: dict[str, Any]) -> None:
    verdict = str(answer["verdict"])
    who = "  ".join(
        f"{name} {printable(answer[name])}" for name in ("address", "client", "role", "device") if answer.get(name)
    )
    click.echo(f"{colour(verdict, fg=_COLOURS.get(verdict))}  {who}".rstrip())
    for step in answer["path"]:
        click.echo(f"  - {printable(step, 200)}")
    click.echo(f"rule:     {printable(answer['rule'], 200)}")
    click.echo(f"because:  {printable(answer['because'], 300)}")
    if answer.get("scopes"):
        click.echo(f"scopes:   {printable(', '.join(answer['scopes']), 300)}")
    click.echo(f"change:   {printable(answer['fix'], 400)}")


# --- without a gateway


def _offline(params: dict[str, Any]) -> dict[str, Any]:
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.config.secrets import resolve_auth
    from openclaw_gateway.policy.explain import Supposition, explain_kept_out, explain_supposition, suppose
    from openclaw_gateway.server.addresses import own_tailnet_address
    from openclaw_gateway.server.rules import gatekeeper_rules

    loaded: LoadedConfig = load_config(env=os.environ)
    directory = state_dir(os.environ)
    auth = resolve_auth(loaded.config, directory, os.environ, overridden=loaded.overridden, create=False)
    tailnet = own_tailnet_address()
    rules = gatekeeper_rules(loaded.config, auth, own_tailnet=frozenset({tailnet} if tailnet else ()))
    supposed = Supposition(
        ip=params["ip"], role=params["role"], scopes=tuple(params["scopes"]), client_id=params["clientId"],
        device=params.get("device"), host=params.get("host"), origin=params.get("origin"),
        forwarded=params.get("forwarded"), presents=params.get("auth"),
    )  # fmt: skip
    supposed, records, removed, request_id = _look_up(directory, supposed)
    question = suppose(
        supposed, rules=rules.admission, peers=rules.peers, origins=rules.origins, records=records, removed=removed
    )
    kept_out = explain_kept_out(question.peer, rules.network)
    return (kept_out if kept_out is not None else explain_supposition(question, request_id)).to_wire()


def _look_up(directory: Path, supposed: Supposition) -> tuple[Supposition, Any, bool, str | None]:
    """What the store knows of the device, read while no gateway runs. Nothing is written."""
    import sqlite3
    import time

    import attrs

    from openclaw_gateway.pairing import rows
    from openclaw_gateway.policy.admission import UNREADABLE
    from openclaw_gateway.policy.explain import NEW_DEVICE

    path = directory / "gateway.db"
    if supposed.device is None:
        return supposed, (), False, None
    if not path.exists():
        return attrs.evolve(supposed, device=_full_id(supposed.device, set()) or NEW_DEVICE), (), False, None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            snapshot = rows.load(db)
        finally:
            db.close()
    except (sqlite3.Error, ValueError, TypeError):
        return supposed, UNREADABLE, False, None
    known = {record.device_id for record in snapshot.paired} | {request.device_id for request in snapshot.pending}
    device = _full_id(supposed.device, known) or NEW_DEVICE
    now = time.time_ns() // 1_000_000
    waiting = (
        request.request_id
        for request in snapshot.pending
        if (request.device_id, request.role) == (device, supposed.role) and request.expires_at_ms > now
    )
    records = tuple(record for record in snapshot.paired if record.device_id == device)
    removed = not records and device in snapshot.removed
    return attrs.evolve(supposed, device=device), records, removed, next(waiting, None)


def _full_id(wanted: str, known: set[str]) -> str | None:
    """The id that begins so; a full id that nobody knows stays as it is; None: a new device."""
    if wanted == "new":
        return None
    matches = [device for device in known if device.startswith(wanted)]
    if len(matches) > 1:
        raise click.BadParameter("more than one device begins with this", param_hint="--device")
    return matches[0] if matches else wanted
