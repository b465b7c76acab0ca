"""``GET /auth/login`` and ``/auth/callback``: operators log in at an OpenID provider and get a token of this gateway.

Owns the two routes, logins under way, and the tokens that come of them. It must not know what an ID token is worth
(`hooks.oidc`) nor what a token may do: it is an API key with the configured scopes, admitted by the gatekeeper like
every other, so it ends by itself (``gateway.auth.expiresIn``, else 12 hours), shows in ``openclaw tokens list``, can be
revoked there, and ends the sessions that came in with it.

Invariants: a login ends only in the browser that began it (cookie), once, within ten minutes, with an answer of the
provider that was asked (state, nonce, PKCE, ``iss``); the provider sends people back to one exact address, never to one
that a request names; the token leaves in the fragment of an address or in a page, never in a query, and is in no log;
one person has at most `MAX_PER_PERSON` tokens, the oldest gives way; when who may log in or what they may do changes,
every token of before ends (V16); logins under way have a cap.
"""

from __future__ import annotations

import hashlib
import html
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.hooks.oidc import Attempt, Identity, LoginRefused, authorization_url, may_log_in, new_attempt
from openclaw_gateway.hooks.provider import OidcProvider
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import ApiKey, ApiKeyRefused, ApiKeys, ApiKeysUnreadable
from openclaw_gateway.policy.secrets import compare
from openclaw_gateway.policy.setup import JoinLimiter
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["MAX_ATTEMPTS", "MAX_PER_PERSON", "OidcLogin", "is_login_key", "login_rules"]

LOGIN: Final = "/auth/login"
CALLBACK: Final = "/auth/callback"
MAX_ATTEMPTS: Final = 1024
ATTEMPT_SECONDS: Final = 600.0
MAX_PER_PERSON: Final = 4
LONGEST_LIFE_MS: Final = 12 * 3_600_000  # of a token where gateway.auth.expiresIn says nothing
EXCHANGES: Final = 8  # codes that are being exchanged at once
EXCHANGE_SECONDS: Final = 25.0
MAX_CODE: Final = 4096
_PREFIX: Final = "login-"
_COOKIE: Final = "openclaw-login-"

log = get_logger("auth")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoginRules(Value):
    """Everything about logins that configuration decides."""

    issuer: str
    client_id: str
    client_secret: str | None = attrs.field(default=None, repr=False)
    allow_users: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    redirect_uri: str
    life_ms: int = LONGEST_LIFE_MS
    dashboard: bool = False

    @property
    def mark(self) -> str:
        """Names who may log in and what they may do; tokens of other rules end."""
        parts = (self.issuer, self.client_id, *sorted(self.allow_users), "", *sorted(self.scopes))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def login_rules(config: GatewayConfig, port: int) -> LoginRules | None:
    """The rules of a configuration; None: there is no login."""
    oidc, auth = config.auth.oidc, config.auth
    if oidc.issuer is None or oidc.client_id is None:
        return None
    redirect = oidc.redirect_uri
    if redirect is None and config.public_url is not None:
        public = config.public_url.rstrip("/")
        redirect = ("http" + public[2:] if public.startswith("ws") else public) + CALLBACK
    return LoginRules(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        client_secret=oidc.client_secret,
        allow_users=oidc.allow_users,
        scopes=oidc.scopes,
        redirect_uri=redirect or f"http://127.0.0.1:{port}{CALLBACK}",
        life_ms=round(auth.expires_in * 1000) if auth.expires_in is not None else LONGEST_LIFE_MS,
        dashboard=config.control_ui.enabled and config.control_ui.root is not None,
    )


def is_login_key(key: ApiKey) -> bool:
    """Whether an API key came of a login (and not from a person who named his key so)."""
    return key.name.startswith(_PREFIX) and key.created_by.startswith("oidc:")


class OidcLogin:
    """The routes of the login; `configure` switches them on and off. ``clock`` gives Unix milliseconds."""

    def __init__(
        self,
        http: HttpApp,
        keys: ApiKeys,
        *,
        audit: AuditTrail,
        clock: Callable[[], int],
        make_provider: Callable[[str, str, str | None], OidcProvider] = OidcProvider,
        limiter: JoinLimiter | None = None,
    ) -> None:
        self._http = http
        self._keys = keys
        self._audit = audit
        self._clock = clock
        self._make_provider = make_provider
        self._limiter = limiter if limiter is not None else JoinLimiter()
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._exchanges = trio.CapacityLimiter(EXCHANGES)
        self._issuing = trio.Lock()
        self.rules: LoginRules | None = None
        self._provider: OidcProvider | None = None

    def __len__(self) -> int:
        """Logins under way."""
        return len(self._attempts)

    def configure(self, rules: LoginRules | None) -> None:
        """Use other rules from now on; logins under way start over."""
        self.rules = rules
        self._attempts.clear()
        self._provider = None
        for path, handler in ((LOGIN, self._begin), (CALLBACK, self._end)):
            self._http.routes.pop(path, None)
            if rules is not None:
                self._http.routes[path] = Route(methods=("GET",), handler=handler, needs_admission=False)
        if rules is not None:
            self._provider = self._make_provider(rules.issuer, rules.client_id, rules.client_secret)

    # --- to the provider

    async def _begin(self, request: HttpRequest, grant: object) -> HttpReply:
        rules, provider = self.rules, self._provider
        if rules is None or provider is None:
            return _page(404, "There is no login here.")
        wait = self._limiter.wait(request.peer.limiter_key, now=time.monotonic())
        if wait > 0:
            return _page(429, "Too many logins were begun from your address.", (b"retry-after", b"%d" % max(1, wait)))
        home = urlsplit(rules.redirect_uri)
        if request.peer.host is not None and request.peer.host != home.netloc and request.query != b"here":
            # The cookie has to be set where the provider sends people back to.
            return _go(f"{home.scheme}://{home.netloc}{LOGIN}?here")
        try:
            metadata = await provider.metadata()
        except LoginRefused as refused:
            return self._refused(refused, request)
        now = time.monotonic()
        attempt = new_attempt(rules.redirect_uri, now=now)
        while self._attempts and (
            len(self._attempts) >= MAX_ATTEMPTS or now - next(iter(self._attempts.values())).began > ATTEMPT_SECONDS
        ):
            self._attempts.popitem(last=False)
        self._attempts[attempt.state] = attempt
        secure = "; Secure" if home.scheme == "https" else ""
        cookie = (
            f"{_cookie_name(attempt.state)}={attempt.binding}; Max-Age={ATTEMPT_SECONDS:.0f}; Path={home.path}; "
            f"HttpOnly; SameSite=Lax{secure}"
        )
        return _go(authorization_url(metadata, rules.client_id, attempt), (b"set-cookie", cookie.encode()))

    # --- and back

    async def _end(self, request: HttpRequest, grant: object) -> HttpReply:
        rules, provider = self.rules, self._provider
        if rules is None or provider is None:
            return _page(404, "There is no login here.")
        try:
            attempt, code = await self._answer(provider, request)
            if self._exchanges.statistics().tasks_waiting >= EXCHANGES:
                raise LoginRefused("too many logins end at this moment; try again", 503)
            with trio.move_on_after(EXCHANGE_SECONDS) as scope:
                async with self._exchanges:
                    identity = await provider.redeem(code, attempt)
            if scope.cancelled_caught:
                raise LoginRefused("the provider did not answer in time", 502)
            if self.rules is not rules:
                raise LoginRefused("the configuration changed meanwhile; log in again", 409)
            if not may_log_in(identity, rules.allow_users):
                self._note(request, identity, "not in gateway.auth.oidc.allowUsers")
                raise LoginRefused("you are not one of the people who may log in here")
            text = await self._issue(identity, rules, request)
        except LoginRefused as refused:
            return self._refused(refused, request)
        except (StoreError, ApiKeysUnreadable, ApiKeyRefused) as exc:
            log.error("auth: a login cannot be written", error=str(exc))
            return _page(503, "The gateway cannot keep your login now. Try again.", (b"retry-after", b"5"))
        if rules.dashboard:
            return _go(f"/#token={text}")
        return _page(200, "You are logged in. Your token:", token=text)

    async def _answer(self, provider: OidcProvider, request: HttpRequest) -> tuple[Attempt, str]:
        """The login that an answer of the provider belongs to, and its code. Raises `LoginRefused`."""
        try:
            pairs = parse_qsl(request.query.decode("ascii"), strict_parsing=True, max_num_fields=20)
        except ValueError as exc:
            raise LoginRefused("this address is not complete", 400) from exc
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise LoginRefused("this address says one thing twice", 400)
        attempt = self._attempts.get(fields.get("state", ""))
        cookie = _cookie(request, attempt) if attempt is not None else None
        if attempt is None or cookie is None or not compare(cookie.decode("latin-1"), attempt.binding):
            raise LoginRefused("this login was not begun in this browser, or it is over; begin it again", 400)
        del self._attempts[attempt.state]
        if time.monotonic() - attempt.began > ATTEMPT_SECONDS:
            raise LoginRefused("this login took too long; begin it again", 400)
        metadata = await provider.metadata()
        if fields.get("iss", metadata.issuer) != metadata.issuer or (metadata.names_itself and "iss" not in fields):
            raise LoginRefused("this answer is not the provider's", 400)
        code = fields.get("code", "")
        if "error" in fields or not 0 < len(code) <= MAX_CODE:
            raise LoginRefused("the provider did not log you in")
        return attempt, code

    # --- tokens

    async def _issue(self, identity: Identity, rules: LoginRules, request: HttpRequest) -> str:
        now = self._clock()
        whose = hashlib.sha256(f"{rules.issuer}\0{identity.subject}".encode()).hexdigest()[:16]
        begin = f"{_PREFIX}{rules.mark}-{whose}-"
        async with self._issuing:
            mine = [key for key in self._keys.listed() if key.name.startswith(begin) and key.revoked_at_ms is None]
            over = [key for key in mine if key.state(self._keys.rules, now) != "live"]
            live = [key for key in mine if key not in over]
            for key in (*over, *live[: max(0, len(live) - MAX_PER_PERSON + 1)]):
                await self._revoke(key, "made way for a new login")
            name = f"{begin}{now:x}"
            key, text = await self._keys.create(
                name, rules.scopes, by=f"oidc:{identity.subject}", now=now, expires_at_ms=now + rules.life_ms
            )
        log.info("auth: logged in", subject=key.key_id, peer=request.peer.client_address, scopes=key.scopes)
        with suppress(StoreError):  # the token stands; the row stays queued
            await self._audit.commit(
                Action.API_KEY_CREATED, actor=f"oidc:{identity.subject}", address=request.peer.client_address,
                key_id=key.key_id, label=key.name, scopes=key.scopes, expires_at=key.expires_at_ms,
            )  # fmt: skip
        return text

    async def end_stale(self) -> None:
        """End the tokens of logins by other rules than today's. Raises `StoreError`, `ApiKeysUnreadable`."""
        begin = f"{_PREFIX}{self.rules.mark}-" if self.rules is not None else None
        async with self._issuing:
            for key in self._keys.listed():
                if is_login_key(key) and key.revoked_at_ms is None and not (begin and key.name.startswith(begin)):
                    await self._revoke(key, "who may log in has changed")

    async def _revoke(self, key: ApiKey, why: str) -> None:
        with suppress(ApiKeyRefused):  # somebody was faster
            await self._keys.revoke(key.key_id, self._clock())
            self._audit.note(Action.API_KEY_REVOKED, actor="gateway", key_id=key.key_id, label=key.name, reason=why)

    def _note(self, request: HttpRequest, identity: Identity, why: str) -> None:
        self._audit.note(
            Action.CONNECT, actor=f"oidc:{identity.subject}", outcome="refused", role="operator",
            address=request.peer.client_address, reason=why, transport="http",
        )  # fmt: skip

    @staticmethod
    def _refused(refused: LoginRefused, request: HttpRequest) -> HttpReply:
        log.warning("auth refused", peer=request.peer.client_address, path=request.path, reason=refused.why)
        return _page(refused.status, f"Not logged in: {refused.why}.")


def _cookie_name(state: str) -> str:
    """A name per login, so that two of them in one browser do not disturb each other."""
    return _COOKIE + hashlib.sha256(state.encode()).hexdigest()[:16]


def _cookie(request: HttpRequest, attempt: Attempt) -> bytes | None:
    wanted = _cookie_name(attempt.state).encode()
    # RFC 9113 section 8.2.3 splits Cookie into several lines, which arrive here joined by a comma.
    for part in request.headers.get(b"cookie", b"").replace(b",", b";").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == wanted:
            return value
    return None


def _go(url: str, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(
        status=303,
        headers=((b"location", url.encode()), (b"cache-control", b"no-store"), *headers),
        content_type=b"text/plain; charset=utf-8",
    )


def _page(status: int, text: str, *headers: tuple[bytes, bytes], token: str | None = None) -> HttpReply:
    shown = f"<p><code>{html.escape(token)}</code></p>" if token is not None else ""
    again = "" if status in {200, 404} else f'<p><a href="{LOGIN}">Log in</a></p>'
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>OpenClaw Gateway</title></head>'
        f"<body><p>{html.escape(text)}</p>{shown}{again}</body></html>"
    )
    return HttpReply(
        status=status,
        body=body.encode(),
        content_type=b"text/html; charset=utf-8",
        headers=((b"cache-control", b"no-store"), *headers),
    )
