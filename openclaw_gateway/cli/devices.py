"""``openclaw devices``: who is paired, who asks to be, and what a person decides about them.

Owns the flags and the ``--json`` shapes, which are those of OpenClaw's own commands, and the command that follows each
refusal. It must not decide: the gateway does. Invariant: nothing is approved that was not named by its id, except
with ``--latest`` where exactly one request waits; and an approval carries the hash of what was listed (PAIR-5).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_failure, print_json, print_table, printable

__all__ = ["approve", "clear", "devices", "list_devices", "reject", "remove", "rename", "revoke", "rotate"]

_HERE = "openclaw_gateway.cli.devices"
_PAIRING = ("operator.pairing",)
_ADMIN = ("operator.admin",)
_MIN_PREFIX = 6


@click.group(
    cls=LazyGroup,
    table={
        "list": (f"{_HERE}:list_devices", "Devices that are paired or ask to be."),
        "approve": (f"{_HERE}:approve", "Approve a request by its id."),
        "reject": (f"{_HERE}:reject", "Reject a request."),
        "remove": (f"{_HERE}:remove", "Forget a paired device; its connections end."),
        "rename": (f"{_HERE}:rename", "Give a paired device a name of your own."),
        "rotate": (f"{_HERE}:rotate", "Give a device a new token, and narrower scopes if you like."),
        "revoke": (f"{_HERE}:revoke", "Take a device's token away in one role."),
        "cert": ("openclaw_gateway.cli.devicecert:cert", "Get a device a client certificate for mutual TLS."),
        "clear": (f"{_HERE}:clear", "Forget all paired devices."),
        "discover": ("openclaw_gateway.cli.discover:discover", "Find the gateways around."),
        "join-code": ("openclaw_gateway.cli.joincode:join_code", "Make a join URL for a node."),
    },
)
def devices() -> None:
    """Devices that are paired or ask to be."""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_devices(as_json: bool, reach: Reach) -> None:
    """List devices: those that ask to be paired, and those that are."""
    answer = _listed(reach)
    if as_json:
        print_json(answer)
        return
    now = time.time() * 1000
    pending, paired = answer["pending"], answer["paired"]
    if pending:
        _print_pending(pending, now)
        click.echo("\nApprove with: openclaw devices approve <request>\n")
    if paired:
        click.echo(f"Paired ({len(paired)})")
        print_table(
            [
                (
                    row.get("deviceId"), row.get("displayName") or row.get("clientId"), row.get("platform"),
                    ",".join(row.get("roles") or ()) or "none (revoked)", _scopes(row),
                    "end-to-end" if row.get("keyStatement") else "", row.get("remoteIp"),
                    "now" if row.get("connected") else ago(row.get("lastSeenAtMs") or row.get("approvedAtMs"), now),
                )
                for row in paired
            ],
            ("DEVICE", "NAME", "PLATFORM", "ROLES", "SCOPES", "CHANNEL", "ADDRESS", "SEEN"),
        )  # fmt: skip
    if not pending and not paired:
        click.echo("No device is paired, and none asks to be.")


@click.command()
@click.argument("request_id", required=False, metavar="[REQUEST]")
@click.option("--latest", is_flag=True, help="Approve the request that waits, where it is the only one.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def approve(request_id: str | None, latest: bool, as_json: bool, reach: Reach) -> None:
    """Approve the request REQUEST. Without it, print what waits and approve nothing (exit code 1)."""
    pending = _listed(reach)["pending"]
    if not request_id:
        if not latest or len(pending) != 1:
            _only_show(pending, as_json)
        request_id = str(pending[0].get("requestId"))
    row = _meant(pending, request_id)
    params: dict[str, Any] = {"requestId": request_id}
    scopes: tuple[str, ...] = _PAIRING
    if row is not None:
        request_id = str(row.get("requestId"))
        params = {"requestId": request_id, "askHash": row.get("askHash")}
        scopes = _needed(str(row.get("role")), row.get("scopes") or ())
    answer = _decide(reach, "device.pair.approve", params, scopes=scopes)
    if as_json:
        print_json(answer)
        return
    device = answer.get("device") or {}
    name = device.get("displayName") or device.get("clientId") or ""
    click.echo(f"Approved {device.get('deviceId')} {printable(name)} ({request_id}): {_granted(row or device)}")


@click.command()
@click.argument("request_id", metavar="REQUEST")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def reject(request_id: str, as_json: bool, reach: Reach) -> None:
    """Reject the request REQUEST. What the device holds already is unchanged."""
    row = _meant(_listed(reach)["pending"], request_id)
    request_id = str(row.get("requestId")) if row is not None else request_id
    answer = _decide(reach, "device.pair.reject", {"requestId": request_id})
    print_json(answer) if as_json else click.echo(f"Rejected {answer.get('deviceId')} ({request_id})")


@click.command()
@click.argument("device_id", metavar="DEVICE")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def remove(device_id: str, as_json: bool, reach: Reach) -> None:
    """Forget the device DEVICE in all its roles. Its connections end; it comes back by an approval alone."""
    answer = _decide(reach, "device.pair.remove", {"deviceId": device_id})
    print_json(answer) if as_json else click.echo(f"Removed {answer.get('deviceId')}")


@click.command()
@click.option("--device", "device_id", required=True, metavar="ID", help="The device's id, as listed.")
@click.option("--name", "label", required=True, metavar="LABEL", help="Your name for it, at most 64 characters.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def rename(device_id: str, label: str, as_json: bool, reach: Reach) -> None:
    """Give a paired device a name of your own; the device cannot change it."""
    answer = _decide(reach, "device.pair.rename", {"deviceId": device_id, "label": label})
    print_json(answer) if as_json else click.echo(f"Renamed {answer.get('deviceId')}: {answer.get('label')}")


@click.command()
@click.option("--device", "device_id", required=True, metavar="ID", help="The device's id, as listed.")
@click.option("--role", required=True, metavar="ROLE", help="operator or node.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What it keeps; repeat for more. Default: all.")
@click.option("--no-scopes", is_flag=True, help="It keeps no scope at all.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def rotate(device_id: str, role: str, scopes: tuple[str, ...], no_scopes: bool, as_json: bool, reach: Reach) -> None:
    """Give a device a new token in one role. The old one is worthless at once, and its connections end.

    The device gets the new one with its next connect by the gateway's token. Scopes that are not kept come back by an
    approval alone.
    """
    if scopes and no_scopes:
        raise click.UsageError("--scope and --no-scopes exclude each other")
    params: dict[str, Any] = {"deviceId": device_id, "role": role}
    if scopes or no_scopes:
        params["scopes"] = list(scopes)
    kept = scopes if scopes or no_scopes else _held(reach, device_id, role)
    answer = _decide(reach, "device.token.rotate", params, scopes=_needed(role, kept))
    if as_json:
        print_json(answer)
        return
    click.echo(f"Rotated the {role} token of {answer.get('deviceId')}; it keeps: {_scopes(answer) or 'no scopes'}")
    click.echo("It gets the new one when it connects with the gateway's token.")


@click.command()
@click.option("--device", "device_id", required=True, metavar="ID", help="The device's id, as listed.")
@click.option("--role", required=True, metavar="ROLE", help="operator or node.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def revoke(device_id: str, role: str, as_json: bool, reach: Reach) -> None:
    """Take a device's token away in one role. Its connections end; only an approval brings it back."""
    params = {"deviceId": device_id, "role": role}
    needed = _needed(role, _held(reach, device_id, role))
    answer = _decide(reach, "device.token.revoke", params, scopes=needed)
    print_json(answer) if as_json else click.echo(f"Revoked the {role} token of {answer.get('deviceId')}")


@click.command()
@click.option("--yes", is_flag=True, help="Confirm: there is no way back but to approve each device anew.")
@click.option("--pending", "and_pending", is_flag=True, help="Reject all that wait, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def clear(yes: bool, and_pending: bool, as_json: bool, reach: Reach) -> None:
    """Forget all paired devices; with --pending reject all requests as well."""
    listed = _listed(reach)
    paired, pending = listed["paired"], listed["pending"] if and_pending else []
    if not yes:
        also = f", and reject {len(pending)} requests" if and_pending else ""
        again = "openclaw devices clear --yes" + (" --pending" if and_pending else "")
        _fail(f"this would remove {len(paired)} paired devices{also}", again)
    removed = [str(row["deviceId"]) for row in paired]
    rejected = [str(row["requestId"]) for row in pending]
    for device_id in removed:
        _decide(reach, "device.pair.remove", {"deviceId": device_id})
    for request_id in rejected:
        _decide(reach, "device.pair.reject", {"requestId": request_id})
    if as_json:
        print_json({"removedDevices": removed, "rejectedPending": rejected})
        return
    click.echo(f"Removed {len(removed)} paired devices" + (f", rejected {len(rejected)} requests" if rejected else ""))


# --- inside


def _listed(reach: Reach) -> dict[str, list[dict[str, Any]]]:
    answer = call(reach, "device.pair.list", {}, scopes=_PAIRING)
    if not isinstance(answer, dict):
        answer = {}
    return {**answer, "pending": answer.get("pending") or [], "paired": answer.get("paired") or []}


def _decide(reach: Reach, method: str, params: dict[str, Any], *, scopes: tuple[str, ...] = _PAIRING) -> dict[str, Any]:
    """One decision. A refusal is told with what became of the request, and the command to run next."""
    from openclaw_gateway.errors import CallFailed

    try:
        answer = call(reach, method, params, scopes=scopes)
    except CallFailed as error:
        details = error.details or {}
        following = details.get("remediationHint") or _NEXT.get(str(details.get("code")))
        if following is None:
            raise
        _fail(f"the gateway refused: {error.message}", str(following))
    return answer if isinstance(answer, dict) else {}


_NEXT = {
    "UNKNOWN_REQUEST": "openclaw devices list",
    "ASK_CHANGED": "openclaw devices list",
    "APPROVAL_DENIED": "run it on the gateway's host, or give the gateway's own token with --token",
    "APPROVAL_IMPOSSIBLE": "openclaw devices remove <device>",
    "UNKNOWN_DEVICE": "openclaw devices list",
    "TOKEN_CHANGE_DENIED": "openclaw devices list",
    "PAIRING_REQUIRED": "openclaw devices approve <request>   (on the gateway's host)",
}


def _meant(pending: list[dict[str, Any]], given: str) -> dict[str, Any] | None:
    """The one row whose id, or whose request or device id begins like that; more than one is an error, none is None."""
    for row in pending:
        if row.get("requestId") == given:
            return row
    names = ("requestId", "deviceId")
    if len(given) < _MIN_PREFIX:
        return None
    found = [row for row in pending if any(str(row.get(name)).startswith(given) for name in names)]
    if len(found) > 1:
        _fail(f"{len(found)} requests begin with {given}", "openclaw devices list, then give a whole id")
    return found[0] if found else None


def _held(reach: Reach, device_id: str, role: str) -> tuple[str, ...]:
    """What the device's token has in that role; a decision about it needs as much."""
    for row in _listed(reach)["paired"]:
        if row.get("deviceId") == device_id:
            for token in row.get("tokens") or ():
                if token.get("role") == role:
                    return tuple(token.get("scopes") or ())
    return ()


def _needed(role: str, scopes: Sequence[str]) -> tuple[str, ...]:
    """The least that this command line asks for: nobody decides about more than he holds."""
    return tuple(dict.fromkeys((*_PAIRING, *scopes))) if role == "operator" else _ADMIN


def _only_show(pending: list[dict[str, Any]], as_json: bool) -> NoReturn:
    """What waits, and how each is approved; nothing is."""
    if as_json:
        fix = "openclaw devices approve <requestId>" if pending else "openclaw devices list"
        error = {"type": "nothing-approved", "message": "nothing was approved: name exactly one request", "fix": fix}
        commands = [_command(row) for row in pending]
        print_json({"ok": False, "error": error, "pending": pending, "approveCommands": commands})
        raise click.exceptions.Exit(1)
    if not pending:
        _fail("no device asks to be paired", "openclaw devices list")
    _print_pending(pending, time.time() * 1000)
    click.echo("\nNothing was approved. Approve exactly one with:", err=True)
    for row in pending:
        click.echo(f"  {_command(row)}", err=True)
    raise click.exceptions.Exit(1)


def _command(row: dict[str, Any]) -> str:
    return f"openclaw devices approve {row.get('requestId')}"


def _print_pending(pending: list[dict[str, Any]], now: float) -> None:
    click.echo(f"Pending ({len(pending)})")
    print_table(
        [
            (
                row.get("requestId"), str(row.get("deviceId"))[:16], row.get("displayName") or row.get("clientId"),
                row.get("role"), _scopes(row), row.get("reason"), row.get("remoteIp"), ago(row.get("ts"), now),
            )
            for row in pending
        ],
        ("REQUEST", "DEVICE", "NAME", "ROLE", "ASKS FOR", "WHY", "ADDRESS", "SINCE"),
    )  # fmt: skip


def _scopes(row: dict[str, Any]) -> str:
    return ",".join(str(scope).removeprefix("operator.") for scope in row.get("scopes") or ())


def _granted(row: dict[str, Any]) -> str:
    return " ".join(filter(None, (str(row.get("role")), _scopes(row))))


def _fail(message: str, fix: str) -> NoReturn:
    click.echo(f"openclaw: {printable(message, 500)}\n  fix: {printable(fix, 300)}", err=True)
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        print_failure("devices", message, fix)
    raise click.exceptions.Exit(1)
