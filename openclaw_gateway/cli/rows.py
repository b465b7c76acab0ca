"""How far one gets on the way to the gateway: process, port, HTTP, WebSocket, authentication, scope, each on its own.

Owns the rows of ``status`` (requirement OBS-1). Invariant: "unreachable" is said only where TCP or HTTP fail; a
refused secret is a gateway that is well and does not know us."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Literal

import attrs

from openclaw_gateway.cli.connect import aimed_at
from openclaw_gateway.client.errors import STAGES, ConnectFailed

if TYPE_CHECKING:
    from openclaw_gateway.client.resolve import Target

__all__ = ["Journey", "Row", "look"]

State = Literal["ok", "failed", "unknown"]


@attrs.frozen
class Row:
    name: str
    state: State
    text: str
    fix: str | None = None


@attrs.define
class Journey:
    """``rows`` in the order of the way. ``hello`` and ``answers`` where it came that far; ``error`` where it ended."""

    target: Target
    rows: list[Row] = attrs.field(factory=list)
    hello: Any = None
    answers: dict[str, Any] = attrs.field(factory=dict)
    error: ConnectFailed | None = None
    holder: Any = None
    owners: tuple[Any, ...] = ()
    latency_ms: int | None = None

    @property
    def reachable(self) -> bool:
        return self.error is None or STAGES.index(self.error.stage) >= STAGES.index("websocket")

    @property
    def ok(self) -> bool:
        return self.error is None and all(row.state != "failed" for row in self.rows)


def look(
    target: Target, *, timeout: float, mode: str = "cli", methods: tuple[str, ...] = ("status",), probe: bool = True
) -> Journey:
    """Go the whole way once. Never raises for what it finds on it."""
    import trio

    journey = Journey(target)
    if target.local:
        _look_at_process(journey)
    if probe:
        trio.run(_travel, journey, timeout, mode, methods)
    return journey


def _look_at_process(journey: Journey) -> None:
    from openclaw_gateway.cli.output import printable
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.ops.portowner import port_owners

    holder = journey.holder = read_holder(state_dir(os.environ))
    if holder is None:
        journey.rows.append(Row("process", "failed", "no gateway holds this state directory", "openclaw gateway start"))
    elif holder.pid is None:
        journey.rows.append(Row("process", "unknown", "the lock is held, by whom cannot be proven", "openclaw doctor"))
    elif holder.stopped:
        text = f"process {holder.pid} is suspended"
        journey.rows.append(Row("process", "failed", text, f"kill -CONT {holder.pid}"))
    else:
        up = "" if holder.started_at_ms is None else f", up {_span(time.time() - holder.started_at_ms / 1000)}"
        journey.rows.append(Row("process", "ok", f"process {holder.pid}{up}"))
    port = journey.target.address.port
    owners = journey.owners = port_owners(port)
    if not owners:
        journey.rows.append(Row("port", "failed", f"nobody listens on {port}", "openclaw gateway start"))
        return
    names = ", ".join(f"process {owner.pid} ({printable(owner.command, 60)})" for owner in owners)
    ours = holder is not None and any(owner.pid in {holder.pid, None} for owner in owners)
    if ours:
        journey.rows.append(Row("port", "ok", f"{port}, held by the gateway"))
    else:
        journey.rows.append(
            Row("port", "failed" if holder is None else "unknown", f"{port} is held by {names}", "stop that process")
        )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86400:.0f} d"


async def _travel(journey: Journey, timeout: float, mode: str, methods: tuple[str, ...]) -> None:
    if not journey.target.routes:
        await _go_on(journey, timeout, mode, methods)
        return
    from openclaw_gateway.client.route_dial import open_route

    try:
        async with open_route(journey.target, timeout=max(timeout, 5.0)) as reached:
            journey.target = reached
            journey.rows.append(Row("route", "ok", f"{reached.via} ({reached.source})"))
            await _go_on(journey, timeout, mode, methods)
    except ConnectFailed as error:
        journey.error = error
        others = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        journey.rows.append(Row("route", "failed", f"{error.url}: {error.message}{others}", error.fix))
        journey.rows += [Row(name, "unknown", "not tried") for name in ("http", "websocket", "auth", "scope")]


async def _go_on(journey: Journey, timeout: float, mode: str, methods: tuple[str, ...]) -> None:
    from openclaw_gateway.client.http import get

    target = journey.target
    try:
        with aimed_at(target):
            answer = await get(
                target.address, "/health", timeout=timeout, tls_fingerprint=target.tls_fingerprint,
                client_certificate=target.client_certificate,
            )  # fmt: skip
    except ConnectFailed as error:
        journey.error = error
        journey.rows.append(Row("http", "failed", f"unreachable: {error.message}", error.fix))
        journey.rows += [Row(name, "unknown", "not tried") for name in ("websocket", "auth", "scope")]
        return
    healthy = answer.status == 200
    text = f"/health {answer.status}"
    fix = None if healthy else "openclaw logs"
    if answer.status == 400 and not target.address.tls and b"speaks TLS" in answer.body:
        fix = f"openclaw status --url wss{target.url.removeprefix('ws')} --token TOKEN"
        text = "this port speaks TLS alone"
        journey.error = ConnectFailed(stage="http", url=target.url, message=text, fix=fix)
        journey.rows.append(Row("http", "failed", text, fix))
        journey.rows += [Row(name, "unknown", "not tried") for name in ("websocket", "auth", "scope")]
        return
    journey.rows.append(Row("http", "ok" if healthy else "failed", text, fix))
    await _shake_hands(journey, timeout, mode, methods)


async def _shake_hands(journey: Journey, timeout: float, mode: str, methods: tuple[str, ...]) -> None:
    import trio

    from openclaw_gateway.client import CallFailed, CallTimedOut, ClientClosed
    from openclaw_gateway.client.reach import open_reached

    target = journey.target
    started = time.monotonic()
    refusals: dict[str, Any] = {}
    try:
        async with open_reached(target, mode=mode, timeout=timeout) as client:
            journey.latency_ms = round((time.monotonic() - started) * 1000)
            journey.hello = client.hello

            async def ask(method: str) -> None:
                try:
                    journey.answers[method] = await client.call(method, timeout=timeout)
                except (CallFailed, CallTimedOut, ClientClosed) as error:
                    refusals[method] = error

            async with trio.open_nursery() as nursery:
                for method in methods:
                    nursery.start_soon(ask, method)
    except ConnectFailed as error:
        journey.error = error
        _explain_refusal(journey, error)
        return
    hello = journey.hello
    if target.address.tls:
        journey.rows.append(_tls_row(journey.answers.get("status") or {}))
    journey.rows.append(Row("websocket", "ok", f"protocol {hello.protocol}, {journey.latency_ms} ms"))
    journey.rows.append(Row("auth", "ok", f"{hello.method or 'accepted'} ({_secret(target)})"))
    if refusals:
        method, refused = next(iter(refusals.items()))
        journey.rows.append(Row("scope", "failed", f"{method}: {refused}", "openclaw devices list"))
    else:
        journey.rows.append(Row("scope", "ok", ", ".join(hello.scopes) or "none"))
    _look_at_config(journey)
    _look_at_discovery(journey)
    _look_at_tailscale(journey)


def _look_at_tailscale(journey: Journey) -> None:
    """How the tailnet reaches this gateway. Trouble there is not the gateway's: it never turns the exit status."""
    told = (journey.answers.get("status") or {}).get("tailscale") or {}
    if told.get("mode", "off") == "off":
        return
    if told.get("state") == "serving":
        journey.rows.append(Row("tailscale", "ok", f"{told['mode']}: {told.get('url')} ({told.get('reason')})"))
        return
    where = f" ({told['url']})" if told.get("url") else ""
    text = f"{told['mode']}: {told.get('state')}: {told.get('reason') or 'no reason given'}{where}"
    journey.rows.append(Row("tailscale", "unknown", text, told.get("fix")))


def _tls_row(told: dict[str, Any]) -> Row:
    """The certificate that others have to pin, and what troubles it."""
    tls = told.get("tls")
    if not isinstance(tls, dict):
        return Row("tls", "ok", "ended in front of the gateway, or not told")
    text = f"{tls.get('state')}, sha256 {tls.get('fingerprint')}"
    if tls.get("trouble"):
        expiring = tls.get("state") == "expiring"  # it still does what it should
        return Row("tls", "unknown" if expiring else "failed", f"{text}: {tls['trouble']}", tls.get("fix"))
    return Row("tls", "ok", text)


def _look_at_discovery(journey: Journey) -> None:
    """Whether others find the gateway. Not being found is never a failure of the gateway."""
    told = (journey.answers.get("status") or {}).get("discovery") or {}
    state, text = told.get("state"), told.get("text")
    if state in {None, "off"} or not isinstance(text, str):
        return
    well = state == "announcing" and not any(row.get("trouble") for row in told.get("interfaces") or ())
    settling = state == "claiming" or text.endswith("starting")  # a second or two of every start: nothing to mend
    fix = None if well or settling else "openclaw doctor"
    journey.rows.append(Row("discovery", "ok" if well else "unknown", text, fix))


def _look_at_config(journey: Journey) -> None:
    """Whether the gateway runs with what the file says now (requirement CFG-4)."""
    loaded, told = journey.target.loaded, journey.answers.get("status") or {}
    applied = told.get("appliedConfigHash")
    if not journey.target.local or loaded is None or not applied:
        return
    waiting = _on_probation()
    if waiting is not None:
        fix = "openclaw config confirm   (or: openclaw config rollback)"
        journey.rows.append(Row("config", "unknown", waiting, fix))
        return
    if applied != loaded.hash:
        text = f"file {loaded.hash[:8]} changed since {applied[:8]} was applied: SIGHUP or wait a second"
        if told.get("configIssues"):
            text = f"file {loaded.hash[:8]} is not applied ({', '.join(told['configIssues'])}); in use: {applied[:8]}"
        journey.rows.append(Row("config", "unknown", text, "openclaw config validate"))
    elif told.get("configIssues"):
        text = f"applied ({applied[:8]}), but not as written: {', '.join(told['configIssues'])}"
        journey.rows.append(Row("config", "unknown", text, "openclaw config validate"))
    else:
        journey.rows.append(Row("config", "ok", f"applied ({applied[:8]})"))


def _on_probation() -> str | None:
    """The change that goes back unless somebody confirms it; None where none waits."""
    from openclaw_gateway.config.paths import pending_path, state_dir
    from openclaw_gateway.config.pending import PendingUnreadable, read_pending

    directory = state_dir(os.environ)
    if not pending_path(directory).exists():
        return None
    try:
        pending = read_pending(directory)
    except (PendingUnreadable, OSError):
        return None
    if pending is None or pending.undone is not None:
        return None
    left = pending.left_ms(time.time_ns() // 1_000_000) / 1000
    return f"{', '.join(pending.keys) or 'a change'} goes back in {left:.0f} s unless confirmed"


def _explain_refusal(journey: Journey, error: ConnectFailed) -> None:
    names = ("websocket", "auth", "scope")
    stage = error.stage if error.stage in names else "websocket"
    for name in names:
        if names.index(name) < names.index(stage):
            journey.rows.append(Row(name, "ok", "accepted"))
        elif name == stage:
            text = f"{error.message} ({_secret(journey.target)})" if name == "auth" else error.message
            journey.rows.append(Row(name, "failed", text, error.fix))
        else:
            journey.rows.append(Row(name, "unknown", "not tried"))


def _secret(target: Target) -> str:
    if target.fingerprint is None:
        return f"no secret: {target.secret_source}"
    return f"secret {target.fingerprint} from {target.secret_source}"
