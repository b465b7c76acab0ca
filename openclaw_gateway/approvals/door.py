"""The route of the approval page, there while the configuration asks for it; everything behind it is loaded when the
page is first opened, so that a start does not pay for it.

Owns the route. It must not know what the page says or does (`approvals.desk`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route

if TYPE_CHECKING:
    from openclaw_gateway.approvals.desk import ApprovalDesk
    from openclaw_gateway.pairing.records import Resolution
    from openclaw_gateway.server.gatekeeper import Gatekeeper, Grant

__all__ = ["MAX_BODY", "PATH", "ApprovalDoor"]

PATH: Final = "/nodes/approve"
MAX_BODY: Final = 8 * 1024  # bytes of its form


class ApprovalDoor:
    """``resolution`` says what became of a request id that waits no longer."""

    def __init__(
        self, http: HttpApp, gatekeeper: Gatekeeper, *, resolution: Callable[[str], Resolution | None]
    ) -> None:
        self._http = http
        self._gatekeeper = gatekeeper
        self._resolution = resolution
        self._desk: ApprovalDesk | None = None

    def configure(self, *, enabled: bool) -> None:
        """Whether the page is served from now on; whoever had signed in does so again."""
        self._desk = None
        if enabled:
            self._http.routes[PATH] = Route(
                methods=("GET", "HEAD", "POST"),
                handler=self._answer,
                needs_admission=False,  # the credential is in the form: the desk asks the gatekeeper itself
                max_body=MAX_BODY,
                refusal_page=self._refused,
            )
        else:
            self._http.routes.pop(PATH, None)

    def _loaded(self) -> ApprovalDesk:
        if self._desk is None:
            from openclaw_gateway.approvals.desk import ApprovalDesk

            self._desk = ApprovalDesk(self._http, self._gatekeeper, resolution=self._resolution)
        return self._desk

    async def _answer(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        return await self._loaded().answer(request)

    def _refused(self, status: int, reason: str, fix: str | None) -> HttpReply:
        return self._loaded().refused(status, reason, fix)
