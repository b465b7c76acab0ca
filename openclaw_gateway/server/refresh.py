"""``POST /auth/refresh``: a device that is not connected (its token has expired) gets its next token.

Owns the route and the shapes of its question and answers: ``{"refreshToken": "ocr_..."}`` in, the result of
`auth.refresh` out. The refresh token is the credential; what it yields is worth nothing without the device's private
key, which every connect asks for. It must not know what is rotated (`pairing.issued`).

Invariants: the cross-site and Host rule of `server.http` stands in front of it; a body that is not the question costs
no look-up; a refusal has its own word and the next command, and waits the delay of whoever guesses.
"""

from __future__ import annotations

import msgspec
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.server.gatekeeper import Gatekeeper, Grant, Rejection
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, json_reply
from openclaw_gateway.server.incoming import BodyTooBig
from openclaw_gateway.server.routes import refuse

__all__ = ["PATH", "add_refresh"]

PATH = "/auth/refresh"
_MAX_BODY = 16 * 1024

log = get_logger("auth")


class _Question(msgspec.Struct, rename="camel"):
    refresh_token: str


def add_refresh(app: HttpApp, gatekeeper: Gatekeeper) -> None:
    """Add the route to ``app``."""

    async def answer(request: HttpRequest, grant: Grant | None) -> HttpReply:
        try:
            body = await request.body()
        except BodyTooBig:
            body = bytes(_MAX_BODY + 1)
        except trio.TooSlowError:
            return json_reply(408, {"error": {"message": "body not received in time", "type": "request_timeout"}})
        if len(body) > _MAX_BODY:
            return json_reply(413, {"error": {"message": f"over {_MAX_BODY} bytes", "type": "payload_too_large"}})
        try:
            question = msgspec.json.decode(body, type=_Question)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = 'send {"refreshToken": "ocr_..."} as application/json'
            return json_reply(400, {"error": {"message": message, "type": "invalid_request"}})
        handout = await gatekeeper.refresh(question.refresh_token, peer=request.peer)
        if isinstance(handout, Rejection):
            return await refuse(handout)
        record = handout.record
        peer = request.peer.client_address
        log.info("auth token refreshed", device_id=record.device_id, role=record.role, peer=peer)
        return json_reply(200, handout.to_wire())

    app.routes[PATH] = Route(methods=("POST",), handler=answer, needs_admission=False)
