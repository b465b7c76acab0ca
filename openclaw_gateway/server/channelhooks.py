"""``/channels/<channel>/<account>/webhook``: where message services bring what people wrote.

Owns the route and the reading of the body. It must not know any service: the account's adapter checks its secret or
signature and answers. Invariants: a caller on loopback is as much a stranger as any other (V45); the body is read only
when the adapter asks for it, which it does after what the head can prove (V47: 1 MiB, 10 s); every account that has no
webhook answers 404.
"""

from __future__ import annotations

from collections import Counter
from typing import Final
from urllib.parse import parse_qsl

import trio

from openclaw_gateway.channels.adapter import WebhookRequest
from openclaw_gateway.channels.hub import ChannelHub
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, text_reply
from openclaw_gateway.server.incoming import BodyTooBig

__all__ = ["PREFIX", "add_channel_webhooks"]

PREFIX: Final = "/channels/"
MAX_QUERY: Final = 4096
MAX_FIELDS: Final = 32
MAX_OF_ONE_ADDRESS: Final = 4  # requests at a time: whoever guesses signatures must not keep the service out


def add_channel_webhooks(http: HttpApp, hub: ChannelHub) -> None:
    """Serve the webhooks of ``hub``'s accounts on ``http``."""
    busy: Counter[str] = Counter()

    async def bounded(request: HttpRequest, grant: Grant | None) -> HttpReply:
        address = request.peer.limiter_key
        if busy[address] >= MAX_OF_ONE_ADDRESS:
            return text_reply(503, "Try again", (b"retry-after", b"5"))
        busy[address] += 1
        try:
            return await answer(request, grant)
        finally:
            busy[address] -= 1
            if not busy[address]:
                del busy[address]

    async def answer(request: HttpRequest, grant: Grant | None) -> HttpReply:
        steps = request.path.removeprefix(PREFIX).split("/")
        if len(steps) != 3 or steps[2] != "webhook" or len(request.query) > MAX_QUERY:
            return text_reply(404, "Not Found")
        try:
            query = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError:
            return text_reply(404, "Not Found")
        head = WebhookRequest(
            method=request.method,
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()},
            query=query,
            read=request.body,
        )
        try:
            reply = await hub.webhook(steps[0], steps[1], head)
        except BodyTooBig:
            return text_reply(413, "Content Too Large", (b"connection", b"close"))
        except trio.TooSlowError:
            return text_reply(408, "Request Timeout", (b"connection", b"close"))
        retry = [(b"retry-after", b"5")] if reply.status == 503 else []
        return HttpReply(
            status=reply.status, body=reply.body, content_type=reply.content_type.encode("latin-1"), headers=retry
        )

    # The adapter's own secret stands in for admission, and no page can make a browser send it.
    http.prefixes[PREFIX] = Route(methods=("GET", "POST"), handler=bounded, needs_admission=False, every_method=True)
