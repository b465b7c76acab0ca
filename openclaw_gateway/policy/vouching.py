"""Whether somebody in front of the gateway vouches for the person behind a request, and as whom.

Pure. Owns the rule of ``gateway.auth.type: trusted-proxy``: which proxy may say who a user is, what it must prove, and
which scopes that user has. It must not know how a user got authenticated at the proxy, nor what an identity opens
(`policy.admission`). ``Vouched`` is also what Tailscale's whois is handed over in.

Invariants: an identity header counts only from an address in gateway.trustedProxies that attributed the request to a
client (V13, V35: never to a loopback one); from this very host only where the proxy also proves itself with a secret,
because every local process could write the same headers (V36); a header that came twice, or folded into one with a
comma, names nobody; what is missing makes a request unauthenticated, nothing more (PROXY-1). A secret is compared in
constant time and shows in no result.

The reasons are the words that OpenClaw's documentation lists, and ``proxy_secret_*`` for what it does not have.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = ["SECRET_HEADER", "VouchRules", "Vouched", "Voucher", "judge_vouching", "scopes_of"]

Source = Literal["trusted-proxy", "tailscale"]

SECRET_HEADER: Final = b"x-openclaw-proxy-secret"
SCOPES_HEADER: Final = b"x-openclaw-scopes"
MAX_USER: Final = 256
MAX_SCOPES_TEXT: Final = 1024


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VouchRules(Value):
    """``gateway.auth.trustedProxy`` and ``identityScopes``. Header names are lower case."""

    user_header: bytes
    required_headers: tuple[bytes, ...] = ()
    allow_users: tuple[str, ...] = ()  # (): everybody whom the proxy authenticated
    allow_loopback: bool = False
    secret: str | None = attrs.field(default=None, repr=False)
    identity_scopes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Vouched(Value):
    """What came of it. ``user`` is None unless somebody vouches; ``reason`` is a constant word, "ok" where one does.

    ``scopes``: what the configuration gives this person without any approved device. ``cap``: the scopes the proxy
    limits this connection to; None: no limit.
    """

    source: Source
    user: str | None = None
    scopes: tuple[str, ...] = ()
    cap: tuple[str, ...] | None = None
    reason: str = "ok"
    epoch: int = 0  # of the configuration that this was judged by

    @property
    def ok(self) -> bool:
        return self.user is not None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Voucher(Value):
    """Where a request comes from, as far as vouching asks. ``here``: the socket's peer is an address of this host."""

    trusted: bool  # the socket's peer is in gateway.trustedProxies
    here: bool
    attributed: bool  # it said on whose behalf, and that is no loopback address


def scopes_of(user: str, identity_scopes: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The entry for ``user``; e-mail addresses compare without case, every other identity exactly."""
    exact = identity_scopes.get(user)
    if exact is not None or "@" not in user:
        return exact or ()
    folded = user.lower()
    return next((scopes for name, scopes in identity_scopes.items() if name.lower() == folded), ())


def judge_vouching(voucher: Voucher, headers: Iterable[tuple[bytes, bytes]], rules: VouchRules) -> Vouched:
    """Decide. Never raises for anything a peer can send."""
    seen: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        seen.setdefault(name.lower(), []).append(value.strip())
    reason = _fault(voucher, seen, rules)
    if reason is not None:
        return Vouched(source="trusted-proxy", reason=reason)
    user = _name(seen.get(rules.user_header, ()))
    if user is None:
        blank = not any(seen.get(rules.user_header, ()))
        return Vouched(
            source="trusted-proxy", reason="trusted_proxy_user_missing" if blank else "trusted_proxy_user_ambiguous"
        )
    if rules.allow_users and user not in rules.allow_users:
        return Vouched(source="trusted-proxy", reason="trusted_proxy_user_not_allowed")
    return Vouched(
        source="trusted-proxy",
        user=user,
        scopes=scopes_of(user, rules.identity_scopes),
        cap=_cap(seen.get(SCOPES_HEADER)),
    )


def _fault(voucher: Voucher, seen: Mapping[bytes, list[bytes]], rules: VouchRules) -> str | None:
    if not voucher.trusted:
        return "trusted_proxy_untrusted_source"
    if voucher.here and not rules.allow_loopback:
        return "trusted_proxy_loopback_source"
    if voucher.here and rules.secret is None:
        return "proxy_secret_required"
    if rules.secret is not None and not _proven(seen.get(SECRET_HEADER, ()), rules.secret):
        return "proxy_secret_mismatch"
    if not voucher.attributed:
        return "proxy_attribution_required"
    if not all(any(seen.get(name, ())) for name in rules.required_headers):
        return "trusted_proxy_missing_header"
    return None


def _proven(values: Collection[bytes], secret: str) -> bool:
    if len(values) != 1:
        return False
    given_digest, kept_digest = (hashlib.sha256(text).digest() for text in (next(iter(values)), secret.encode()))
    return hmac.compare_digest(given_digest, kept_digest)


def _name(values: Collection[bytes]) -> str | None:
    if len(values) != 1:
        return None
    try:
        text = next(iter(values)).decode("utf-8")
    except UnicodeDecodeError:
        return None
    # Some proxies fold a header that came twice into one with a comma: one of the two is the client's own.
    if not 0 < len(text) <= MAX_USER or "," in text or not text.isprintable():
        return None
    return text


def _cap(values: Collection[bytes] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    text = b",".join(values).decode("latin-1")[:MAX_SCOPES_TEXT]
    return tuple(part.strip() for part in text.split(",") if part.strip())
