"""The probes: ``/health``, ``/healthz``, ``/ready``, ``/readyz``, ``/startupz``, and the page at ``/``.

Owns their shapes (spec wire.md section 9). They are answered by the same loop that serves everybody (OBS-2) and cost
next to nothing. No authentication, and therefore no detail: what is failing is told to direct loopback alone.
"""

from __future__ import annotations

from collections.abc import Callable

from openclaw_gateway.ops.health import Health
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, json_reply, text_reply

__all__ = ["add_probes"]

_PAGE = """OpenClaw gateway (openclaw_gateway {version})

This port speaks WebSocket (upgrade any path) and HTTP:
  GET  /health    is it alive?
  GET  /readyz    is every part ready?
  POST /rpc       JSON-RPC 2.0, Authorization: Bearer <credential>
                  on this host the gateway's token will do; from elsewhere an API key,
                  over https (on the gateway's host: openclaw tokens create <name>)

Try: openclaw status
"""


def add_probes(
    app: HttpApp,
    health: Health,
    *,
    started: Callable[[], bool],
    draining: Callable[[], bool],
    tailscale: Callable[[], str] = lambda: "off",
) -> None:
    """``tailscale``: the state of the exposure, which is told here and counts for nothing (TS-1)."""

    async def live(request: HttpRequest, grant: Grant | None) -> HttpReply:
        if not health.alive:
            return json_reply(503, {"ok": False, "status": "stalled"})
        body: dict[str, object] = {"ok": True, "status": "live"}
        if health.config_issues:
            body["degraded"] = list(health.config_issues) if request.peer.direct_loopback else True
        return json_reply(200, body)

    async def ready(request: HttpRequest, grant: Grant | None) -> HttpReply:
        failing = [*health.failing, *(["draining"] if draining() else [])]
        status = 503 if failing or not health.alive else 200
        body: dict[str, object] = {"ready": status == 200}
        if request.peer.direct_loopback:
            body |= {
                "failing": failing,
                "uptimeMs": health.uptime_ms,
                "eventLoop": health.loop.view(),
                "parts": {name: trouble or "ready" for name, trouble in health.parts.items()},
                "tailscale": tailscale(),
            }
        return json_reply(status, body)

    async def startup(request: HttpRequest, grant: Grant | None) -> HttpReply:
        if not started():
            return json_reply(503, {"ok": False, "status": "starting", "pendingReason": "listener"})
        body: dict[str, object] = {"ok": True, "status": "started", "uptimeMs": health.uptime_ms}
        if request.peer.direct_loopback:
            body["version"] = health.server_version
        return json_reply(200, body)

    async def page(request: HttpRequest, grant: Grant | None) -> HttpReply:
        return text_reply(200, _PAGE.format(version=health.server_version))

    probe = ("GET", "HEAD")
    for path, handler in (
        ("/health", live),
        ("/healthz", live),
        ("/ready", ready),
        ("/readyz", ready),
        ("/startupz", startup),
    ):
        app.routes[path] = Route(methods=probe, handler=handler, needs_admission=False, probe=True)
    app.routes["/"] = Route(methods=probe, handler=page, needs_admission=False)
