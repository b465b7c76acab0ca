"""Checks of the doctor that concern the running gateway: its process and port, its secret, whether it lets us in.

Each takes the `Patient` and gives findings. Dials only this host's gateway, or the configured remote one. Invariant:
secrets are compared by fingerprint and by trying them, and never shown."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from openclaw_gateway.ops.doctor_checks import found

if TYPE_CHECKING:
    from openclaw_gateway.ops.doctor import Finding, Patient

__all__ = ["gateway", "instance", "secret_sources"]

_SECONDS = 3.0


def instance(patient: Patient) -> list[Finding]:
    """One process holds the lock, and the port is its own."""
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.ops.portowner import port_owners

    holder = read_holder(patient.state_dir)
    if holder is not None:
        if holder.pid is None:
            text = "the lock is held, but it cannot be proven by whom"
            return [found("instance", "warn", text, f"fuser -v '{patient.state_dir / 'gateway.lock'}'")]
        if holder.stopped:
            fix = f"kill -CONT {holder.pid}, or: openclaw gateway stop --force"
            return [found("instance", "fail", f"process {holder.pid} holds the lock and is suspended", fix)]
        return [found("instance", "ok", f"process {holder.pid} at {holder.url or 'no address yet'}")]
    if patient.loaded is None:
        return []
    port = patient.loaded.config.port
    owners = port_owners(port) if port else ()
    if owners and patient.loaded.config.mode == "local":
        who = "; ".join(f"process {owner.pid} ({owner.command[:80]})" for owner in owners)
        fix = f"stop that process, or: openclaw config set gateway.port {port + 1}"
        return [found("instance", "fail", f"no gateway runs, and port {port} is taken by {who}", fix)]
    return [found("instance", "ok", "no gateway runs here")]


def secret_sources(patient: Patient) -> list[Finding]:
    """Everything that names a secret names the same one (requirement AUTH-1)."""
    if patient.loaded is None:
        return []
    from openclaw_gateway.config.rules import PASSWORD_VARIABLE, TOKEN_VARIABLE
    from openclaw_gateway.config.secrets import fingerprint, resolve_auth

    loaded = patient.loaded
    if loaded.config.mode == "remote":
        return []  # the secret of a gateway that does not run here; `gateway` tries the one of gateway.remote
    auth = resolve_auth(loaded.config, patient.state_dir, patient.env, overridden=loaded.overridden, create=False)
    findings = []
    if auth.forced:
        text = "gateway.auth.type is none on a listener that others reach: a token is asked for all the same"
        findings.append(found("secret", "warn", text, "openclaw config set gateway.auth.type token"))
    variable, used = (PASSWORD_VARIABLE, auth.password) if auth.type == "password" else (TOKEN_VARIABLE, auth.token)
    named = patient.env.get(variable, "").strip()
    if named and used is not None and fingerprint(named) != fingerprint(used):
        findings.append(
            found(
                "secret", "fail",
                f"{variable} ({fingerprint(named)}) is not the secret in use ({auth.fingerprint} from {auth.source})",
                f"unset {variable}",
            )
        )  # fmt: skip
    if findings:
        return findings
    if auth.type in {"none", "trusted-proxy"}:
        return [found("secret", "ok", f"authentication: {auth.type}")]
    what = f"fingerprint {auth.fingerprint}" if auth.fingerprint else "not made yet; the first start makes it"
    return [found("secret", "ok", f"{auth.type} from {auth.source}, {what}")]


def gateway(patient: Patient) -> list[Finding]:
    """The running gateway answers, and accepts the secret that this side has."""
    import trio

    from openclaw_gateway.client.errors import CallTimedOut, ClientClosed, ConnectFailed
    from openclaw_gateway.client.resolve import Target, TargetError, resolve_target
    from openclaw_gateway.errors import CallFailed
    from openclaw_gateway.ops.instance import read_holder

    if patient.loaded is None:
        return []
    if patient.loaded.config.mode == "local" and read_holder(patient.state_dir) is None:
        return []
    try:
        target = resolve_target(env=patient.env)
    except (TargetError, ConnectFailed) as error:
        return [found("gateway", "fail", str(error), getattr(error, "fix", None))]

    async def visit(aim: Target) -> list[Finding]:
        if not aim.routes:
            return await look(aim, "")
        from openclaw_gateway.client.route_dial import open_route

        async with open_route(aim) as reached:
            return await look(reached, f"{reached.via}: ")

    async def look(target: Target, via: str) -> list[Finding]:
        from openclaw_gateway.client.http import get
        from openclaw_gateway.client.reach import open_reached

        answer = await get(
            target.address, "/readyz", timeout=_SECONDS, tls_fingerprint=target.tls_fingerprint,
            client_certificate=target.client_certificate,
        )
        async with open_reached(target, timeout=_SECONDS) as client:
            how = client.hello.method or "accepted"
            text = f"{via}{target.url}: ready {answer.status}, auth {how}, version {client.hello.server_version}"
            rows = [found("gateway", "ok", text)]
            if answer.status != HTTPStatus.OK:
                failing = _failing(answer.body)
                rows = [found("gateway", "warn", f"{text}; not ready: {failing}", "openclaw status")]
            try:
                told = await client.call("status", timeout=_SECONDS)
            except (CallFailed, CallTimedOut, ClientClosed):
                told = {}
            return rows + _certificate(told.get("tls")) + _tailscale(told.get("tailscale")) + _tunnels(told)

    try:
        return trio.run(visit, target)
    except ConnectFailed as error:
        secret = f" (this side has {target.fingerprint} from {target.secret_source})" if error.stage == "auth" else ""
        return [found("gateway", "fail", f"{error.message} (at {error.stage}){secret}", error.fix)]


def _failing(body: bytes) -> str:
    """The parts that /readyz names, with the reasons that it tells this host."""
    try:
        told = json.loads(body)
        parts = told.get("parts") or {}
        names = [f"{name} ({parts[name]})" if name in parts else str(name) for name in told["failing"]]
        return ", ".join(names)[:400] or "no part is named"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "no part is named"


def _certificate(told: object) -> list[Finding]:
    """What the gateway itself says about its certificate; nothing where it shows none."""
    if not isinstance(told, dict):
        return []
    state, trouble, fix = told.get("state"), told.get("trouble"), told.get("fix")
    if trouble:
        return [found("tls", "warn" if state == "expiring" else "fail", f"{state}: {trouble}", fix)]
    return [found("tls", "ok", f"{state}, sha256 {told.get('fingerprint')}")]


def _tailscale(told: object) -> list[Finding]:
    """How the tailnet reaches the gateway, in its own words; nothing where it should not."""
    if not isinstance(told, dict) or told.get("mode", "off") == "off":
        return []
    mode, state = told["mode"], told.get("state")
    if state == "serving":
        return [found("tailscale", "ok", f"{mode}: {told.get('url')}")]
    text = f"{mode}: {state}: {told.get('reason') or 'no reason given'}"
    return [found("tailscale", "warn", text, told.get("fix"))]


def _tunnels(told: dict[str, Any]) -> list[Finding]:
    """The tunnels of `gateway.tunnels`: those that are up in one line, every other one with what mends it."""
    rows = [row for row in told.get("tunnels") or () if isinstance(row, dict)]
    up = [str(row.get("name")) for row in rows if row.get("state") == "up"]
    findings = [found("tunnels", "ok", f"up: {', '.join(up)}")] if up else []
    for row in rows:
        if row.get("state") != "up":
            why = f": {row['message']}" if row.get("message") else ""
            text = f"{row.get('name')} to {row.get('target')} is {row.get('state')}{why}"
            findings.append(found("tunnels", "warn", text, row.get("fix") or "openclaw tunnel list"))
    return findings
