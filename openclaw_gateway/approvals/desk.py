"""``/nodes/approve``: where the link of a node that asks to be let in leads. Signs a person in, shows, decides.

Owns the steps of the page and what each of them needs. It must not decide anything about pairing nor know who may:
whoever signs in passes the gatekeeper as with ``POST /rpc``, and everything that is shown or done is an answer of
`device.pair.*` and `node.pair.*`, called as that person through `HttpMethods.call`, with their scopes, refusals,
ceilings and audit rows (V41).

Invariants: before somebody is admitted and may list requests, the answer does not depend on whether a request exists
(V47: nor is the form read, where nobody could be admitted); a credential comes in the body or as Authorization, never
in an address, and only where nobody can listen; what is decided is what was shown (ask hash, one-time token); a
sign-in counts for `SIGN_IN_SECONDS`, from one address, under the rules it was made by, and where a proxy or the
tailnet vouched it is asked for again each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway.approvals import page
from openclaw_gateway.approvals.form import CONTENT_TYPE, Form, is_form, read_form, request_in
from openclaw_gateway.approvals.offers import SIGN_IN_SECONDS, Kind, Offer, Offers, SignIn
from openclaw_gateway.approvals.review import Review, review_of_device, review_of_surface, span
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.pairing.records import Resolution
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.origin import HttpVerdict, check_http_request
from openclaw_gateway.protocol.errors import FORBIDDEN, UNAVAILABLE, WireError, hinted, wire_error
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.server.gatekeeper import Gatekeeper, Rejection
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest
from openclaw_gateway.server.httpmethods import HttpCaller
from openclaw_gateway.server.incoming import BodyTooBig
from openclaw_gateway.server.routes import bearer_of
from openclaw_gateway.server.underway import under_way

__all__ = ["ApprovalDesk"]

_MAX_SUPERSEDED: Final = 8  # how far a request is followed to the one that took its place
# Ways in that need nothing typed: whoever vouches for a person is heard at every step.
_UNTYPED: Final = frozenset({"none", "tailscale", "trusted-proxy"})
_SAID: Final = {
    "auth-token-missing": "nothing was typed.",
    "auth-token-mismatch": "that is not the gateway's token.",
    "auth-password-missing": "nothing was typed.",
    "auth-password-mismatch": "that is not the gateway's password.",
}
_OVERHEARD: Final = "This page came unencrypted: what you type here could be read on its way."

log = get_logger("pairing")


@attrs.define(eq=False, repr=False)
class _Answered(Exception):  # control flow: the answer is known already
    reply: HttpReply


class ApprovalDesk:
    """The steps. ``resolution``: what became of a request id; ``clock``: Unix milliseconds."""

    def __init__(
        self,
        http: HttpApp,
        gatekeeper: Gatekeeper,
        *,
        resolution: Callable[[str], Resolution | None],
        clock: Callable[[], int] = now_ms,
        offers: Offers | None = None,
    ) -> None:
        self._http = http
        self._gatekeeper = gatekeeper
        self._resolution = resolution
        self._clock = clock
        self._offers = offers if offers is not None else Offers()

    async def answer(self, request: HttpRequest) -> HttpReply:
        """Answer one request. Raises nothing; cancelled, a decision is made whole or not at all."""
        try:
            self._must_be_safe(request)
            if request.method != "POST":
                return self._sign_in(request.peer, request_in(request.query))
            return await self._post(request)
        except _Answered as answered:
            return answered.reply
        except DeviceBookUnreadable:
            return self._failed(wire_error("store-unavailable"), "")

    def refused(self, status: int, reason: str, fix: str | None) -> HttpReply:
        """The page for what is refused before anything is looked at."""
        if status == 421:
            text = "This gateway does not know the name that the page was opened under."
            return _reply(421, page.trouble("Not this address", text, fix or ""))
        log.warning("approval page: a foreign page's form was refused", reason=reason)
        text = "This form did not come from the gateway's own page, so nothing was done. Open the link itself."
        return _reply(status, page.trouble("Nothing was done", text, fix or ""))

    # --- before anybody is known

    def _must_be_safe(self, request: HttpRequest) -> None:
        """Nobody is asked for a secret where others could read it, or where his form would be refused afterwards."""
        peer = request.peer
        if request.method != "POST":
            verdict = self._own_page(peer)
            if verdict.status != 200:
                text = "This gateway takes no forms under the name that the page was opened under."
                raise _Answered(_reply(421, page.trouble("Not this address", text, verdict.fix or "")))
        if not (self._vouched(peer) or peer.direct_loopback or peer.encrypted):
            request_id = request_in(request.query) or "REQUEST"
            text = f"{_OVERHEARD} Open it over https, or decide on the gateway's host:"
            fix = f"openclaw devices approve {request_id}"
            raise _Answered(_reply(403, page.trouble("Not over this connection", text, fix)))

    def _own_page(self, peer: Peer) -> HttpVerdict:
        """What will be said to the form of the page that is asked for."""
        origin = f"{'https' if peer.encrypted else 'http'}://{peer.host}" if peer.host is not None else None
        return check_http_request(
            "POST", attrs.evolve(peer, origin=origin), self._http.rules.origins,
            sec_fetch_site="same-origin", content_type=CONTENT_TYPE, bearer=False, cors_allowed=False,
        )  # fmt: skip

    @staticmethod
    def _vouched(peer: Peer) -> bool:
        return peer.tailnet is not None or (peer.vouched is not None and peer.vouched.ok)

    def _sign_in(self, peer: Peer, request_id: str, alert: str = "", fix: str = "") -> HttpReply:
        asks, needed = self._asks(peer)
        return _reply(200, page.sign_in(request_id, asks=asks, needed=needed, alert=alert, fix=fix))

    def _asks(self, peer: Peer) -> tuple[str | None, bool]:
        """What this peer may type as his credential, and whether he has to."""
        if self._vouched(peer):
            return ("API key" if peer.direct_loopback or peer.encrypted else None), False
        kind = self._gatekeeper.rules.on(peer.arrival).admission.auth_type
        if kind == "none" and peer.direct_loopback:
            return None, False
        # Without a device, the gateway's own secret counts on its own host alone (as with POST /rpc).
        if not peer.direct_loopback or kind not in {"token", "password"}:
            return "API key", True
        return ("Gateway password or API key" if kind == "password" else "Gateway token or API key"), True

    # --- steps

    async def _post(self, request: HttpRequest) -> HttpReply:
        form = await self._read(request)
        if form.step == "show":
            sign_in = await self._enter(request, form.request, form.secret)
            return await self._admitted(request, lambda: self._show(_Visit(request.peer, sign_in), form.request))
        offer = self._offers.take(
            form.ticket, step=form.step, request_id=form.request, address=_address(request.peer), now=time.monotonic()
        )
        if offer is None:
            raise _Answered(self._again(request.peer, form.request))
        visit = _Visit(request.peer, await self._still(request, offer))
        return await self._admitted(request, lambda: self._next(visit, offer, form.step))

    async def _read(self, request: HttpRequest) -> Form:
        if not is_form(request.headers.get(b"content-type", b"")):
            raise _Answered(_reply(415, page.trouble("Not a form", "This page takes its own form and nothing else.")))
        try:
            form = read_form(await request.body())
        except BodyTooBig:
            raise _Answered(_reply(413, page.trouble("Too long", "What was sent is longer than this form."))) from None
        except trio.TooSlowError:
            raise _Answered(_reply(408, page.trouble("Too slow", "The form did not arrive in time."))) from None
        if form is None:
            raise _Answered(_reply(400, page.trouble("Not this form", "What was sent is not this page's form.")))
        return form

    async def _admitted(self, request: HttpRequest, work: Callable[[], Any]) -> HttpReply:
        """Do ``work`` for somebody who was admitted, and whose connection is nobody's stranger meanwhile."""
        with under_way() as counted:
            if not counted:
                text = "Too many requests are under way. Try again in a moment."
                return _reply(503, page.trouble("Busy", text), (b"retry-after", b"2"))
            reply: HttpReply = await work()
            return reply

    async def _enter(self, request: HttpRequest, request_id: str, secret: str | None) -> SignIn:
        """Let somebody in as with ``POST /rpc``. Raises `_Answered` with the sign-in page where he is refused."""
        peer, bearer = request.peer, secret or bearer_of(request.headers)
        verdict = await self._gatekeeper.http(peer=peer, bearer=bearer)
        rules = self._gatekeeper.rules
        if isinstance(verdict, Rejection):
            if verdict.delay:
                await trio.sleep(verdict.delay)
            raise _Answered(self._turned_away(verdict, peer, request_id))
        return SignIn(
            grant=verdict,
            rules=rules,
            address=_address(peer),
            by_secret=verdict.method not in _UNTYPED,
            until=time.monotonic() + SIGN_IN_SECONDS,
        )

    def _turned_away(self, verdict: Rejection, peer: Peer, request_id: str) -> HttpReply:
        error = hinted(verdict.error)
        details = error.details or {}
        # In the words of the page where the table's are for a client's log; what helps stands beside the field then.
        said = _SAID.get(error.key or "")
        fix = str(details.get("remediationHint", "")) if said is None else ""
        shown = self._sign_in(peer, request_id, f"You were not let in: {said or error.message}", fix)
        headers: list[tuple[bytes, bytes]] = []
        if verdict.http_status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="openclaw-gateway"'))
        if error.retry_after_ms:
            headers.append((b"retry-after", b"%d" % max(1, error.retry_after_ms // 1000)))
        return attrs.evolve(shown, status=verdict.http_status, headers=(*shown.headers, *headers))

    async def _still(self, request: HttpRequest, offer: Offer) -> SignIn:
        """The sign-in of an offer, if it would still be let in. Raises `_Answered` where it would not."""
        sign_in, peer = offer.sign_in, request.peer
        if not sign_in.by_secret:
            now = await self._enter(request, offer.request_id, None)
            if now.grant.principal != sign_in.grant.principal:
                raise _Answered(self._again(peer, offer.request_id))
            return attrs.evolve(now, until=sign_in.until)
        rules, grant = self._gatekeeper.rules, sign_in.grant
        expires = rules.on(peer.arrival).password_expires_at if grant.method == "password" else None
        over = expires is not None and time.time() >= expires
        if sign_in.rules is not rules or over or self._gatekeeper.lapsed(grant) is not None:
            raise _Answered(self._again(peer, offer.request_id))
        return sign_in

    def _again(self, peer: Peer, request_id: str) -> HttpReply:
        text = "Nothing was done: this page was used already, or its time is over. Sign in again."
        return attrs.evolve(self._sign_in(peer, request_id, text), status=403)

    # --- for somebody who was admitted

    async def _show(self, visit: _Visit, request_id: str) -> HttpReply:
        """The request of that id, or the one that took its place, or what became of it."""
        for _ in range(_MAX_SUPERSEDED):
            listed = await self._ask(visit, "device.pair.list")
            row = _with(listed["pending"], "requestId", request_id)
            if row is not None:
                return self._review(visit, review_of_device(row, self._clock()))
            surfaces = await self._ask(visit, "node.pair.list")
            row = _with(surfaces["pending"], "requestId", request_id)
            if row is not None:
                return self._review(visit, review_of_surface(row, self._clock()))
            known = self._resolution(request_id)
            if known is None or known.replaced_by is None:
                return await self._became(visit, request_id, known)
            request_id = known.replaced_by
        return await self._became(visit, request_id, None)

    async def _became(self, visit: _Visit, request_id: str, known: Resolution | None) -> HttpReply:
        if known is None:
            text = (
                "It was answered long ago, or it waited for too long. A device that still wants in asks again by "
                "itself, under a new id; its own screen and the list on the gateway's host show that one."
            )
            return _reply(404, page.trouble("No such request waits", text, "openclaw devices list"))
        ago = f"{span(self._clock() - known.at_ms)} ago"
        if known.decision == "approved" and known.role == "node":
            listed = await self._ask(visit, "node.pair.list")
            paired = _with(listed["paired"], "nodeId", known.device_id)
            if paired is not None:
                name = str(paired.get("displayName") or "The node")
                return await self._look_for(visit, known.device_id, name, request_id)
        text = f"This request was {known.decision} already, {ago}. Nothing is left to decide."
        return _reply(200, page.settled("Decided already", text, command="openclaw devices list"))

    async def _next(self, visit: _Visit, offer: Offer, step: str) -> HttpReply:
        if offer.kind == "node":
            return await self._look_for(visit, offer.device_id, offer.name, offer.request_id)
        method = f"{'device' if offer.kind == 'device' else 'node'}.pair.{step}"
        params: dict[str, Any] = {"requestId": offer.request_id}
        if method == "device.pair.approve":
            params["askHash"] = offer.ask_hash
        try:
            await self._ask(visit, method, params)
        except CallError as failed:
            if (failed.error.details or {}).get("code") == "UNKNOWN_REQUEST":
                return await self._show(visit, offer.request_id)
            return self._failed(failed.error, offer.request_id)
        return self._settled(visit, offer, step)

    def _settled(self, visit: _Visit, offer: Offer, step: str) -> HttpReply:
        if step == "reject":
            text = "was not let in." if offer.kind == "device" else "lends none of the commands it offered."
            return _reply(200, page.settled("Rejected", text, name=offer.name))
        if offer.kind == "surface":
            return _reply(200, page.settled("Approved", "lends these commands from now on.", name=offer.name))
        if offer.role != "node":
            return _reply(200, page.settled("Approved", "is let in when it connects again.", name=offer.name))
        onward = attrs.evolve(offer, kind="node", ask_hash=None, sign_in=visit.sign_in)
        tickets = self._offers.issue(onward, ("next",), now=time.monotonic())
        text = "is let in. It comes back by itself within 15 seconds and tells which commands it offers."
        shown = page.settled("Approved", text, name=offer.name, request=offer.request_id, tickets=tickets)
        return _reply(200, shown)

    async def _look_for(self, visit: _Visit, node_id: str, name: str, request_id: str) -> HttpReply:
        """The commands that a paired node waits with; else where it stands."""
        listed = await self._ask(visit, "node.pair.list")
        row = _with(listed["pending"], "nodeId", node_id)
        if row is not None:
            return self._review(visit, review_of_surface(row, self._clock()))
        paired = _with(listed["paired"], "nodeId", node_id)
        if paired is None:
            text = "is not paired any more."
            return _reply(200, page.settled("Removed", text, name=name, command="openclaw nodes list"))
        if "approvedAtMs" in paired:
            place = "online" if paired.get("connected") else "not connected now"
            text = f"is approved and {place}. Nothing of it waits for you."
            return _reply(200, page.settled("All is decided", text, name=name))
        offer = Offer(
            kind="node", request_id=request_id, device_id=node_id, name=name, role="node", sign_in=visit.sign_in
        )
        tickets = self._offers.issue(offer, ("next",), now=time.monotonic())
        return _reply(200, page.found_nothing(name, request_id, tickets))

    def _review(self, visit: _Visit, shown: Review) -> HttpReply:
        kind: Kind = shown.kind
        offer = Offer(
            kind=kind, request_id=shown.request_id, device_id=shown.device_id, name=shown.name, role=shown.role,
            ask_hash=shown.ask_hash, sign_in=visit.sign_in,
        )  # fmt: skip
        tickets = self._offers.issue(offer, ("approve", "reject"), now=time.monotonic())
        return _reply(200, page.review(shown, tickets, who=visit.sign_in.grant.user))

    async def _ask(self, visit: _Visit, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """What a method answers this person. Raises `CallError`, and `_Answered` where he is somebody no longer."""
        caller = HttpCaller(grant=visit.sign_in.grant, peer=visit.peer)
        try:
            answer = await self._http.methods.call(caller, method, msgspec.Raw(msgspec.json.encode(params or {})))
        except CallError as failed:
            if method.endswith(".list"):
                raise _Answered(self._failed(failed.error, "")) from None
            raise
        if method.endswith(".list") and self._gatekeeper.lapsed(visit.sign_in.grant) is not None:
            raise _Answered(self._again(visit.peer, ""))  # revoked while it ran: its answer is dropped (AUTH-5)
        return answer

    @staticmethod
    def _failed(error: WireError, request_id: str) -> HttpReply:
        fix = str((hinted(error).details or {}).get("remediationHint", ""))
        if request_id:
            fix = fix.replace("<requestId>", request_id)
        status = {FORBIDDEN: 403, UNAVAILABLE: 503}.get(error.code, 409)
        if "missingScope" in (error.details or {}):
            status = 403
        more = ((b"retry-after", b"2"),) if status == 503 else ()
        return _reply(status, page.trouble("Nothing was done", error.message, fix), *more)


@attrs.frozen(eq=False, repr=False)
class _Visit:
    """One request of somebody who was admitted."""

    peer: Peer
    sign_in: SignIn


def _with(rows: list[Mapping[str, Any]], member: str, value: str) -> Mapping[str, Any] | None:
    return next((row for row in rows if row[member] == value), None)


def _address(peer: Peer) -> str:
    return f"{peer.arrival.listener} {peer.limiter_key}"


def _reply(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(status=status, body=body, content_type=page.CONTENT_TYPE, headers=(*page.HEADERS, *headers))
