"""OpenID Connect, the part without a network: what is asked of a provider and what of its answers is believed.

Owns the authorization request, the reading of a provider's metadata, and the verdict on an ID token. It must not know
HTTP, configuration or sessions; PyJWT checks signatures and times. Sources: OpenID Connect Core 1.0 section 3.1
(authorization code flow), Discovery 1.0 section 4.3, RFC 7636 (PKCE, S256 only), RFC 9207 (issuer in the answer), RFC
8725 (JWT best practice).

Invariants: only signatures with a public key are taken, and only by a key whose kind fits the algorithm: never ``none``
and never HMAC, whose key everybody would know (algorithm confusion); issuer and audience are compared exactly; nonce,
state and PKCE verifier are 256 random bits each and used once; an e-mail address counts only where the provider says
that it verified it, and never as a subject.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.policy.secrets import compare
from openclaw_gateway.value import Value

__all__ = [
    "ALGORITHMS",
    "Attempt",
    "Identity",
    "LoginRefused",
    "Metadata",
    "authorization_url",
    "may_log_in",
    "new_attempt",
    "read_metadata",
    "verify_id_token",
]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY: Final = 60  # seconds that clocks may differ
LEAST_RSA_BITS: Final = 2048
MAX_TOKEN: Final = 64 * 1024
MAX_SUBJECT: Final = 255  # OpenID Connect Core section 2
_KINDS: Final[Mapping[str, str]] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


@attrs.define(eq=False)
class LoginRefused(GatewayError):
    """Nobody is logged in; ``why`` may be shown to whoever tried."""

    why: str
    status: int = 403

    def __str__(self) -> str:
        return self.why


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Metadata(Value):
    """What is used of a provider's metadata."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    algorithms: tuple[str, ...] = ("RS256",)
    names_itself: bool = False  # answers carry ``iss`` (RFC 9207)
    basic: bool = True  # client_secret_basic, else client_secret_post


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Attempt(Value):
    """One login under way. ``binding`` stands in a cookie: only the browser that began may end it."""

    state: str = attrs.field(repr=False)
    nonce: str = attrs.field(repr=False)
    verifier: str = attrs.field(repr=False)
    binding: str = attrs.field(repr=False)
    redirect_uri: str
    began: float  # monotonic seconds


@attrs.frozen(eq=False, repr=False)
class Identity(Value):
    """Who logged in. ``email`` None: there is none that the provider verified."""

    subject: str
    email: str | None = None


def read_metadata(document: Any, issuer: str) -> Metadata:
    """The metadata of ``issuer``. Raises `LoginRefused` where they are another's, or lack what is needed."""
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise LoginRefused("the provider's metadata are not those of gateway.auth.oidc.issuer", 502)
    endpoints = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        url = document.get(name)
        if not isinstance(url, str) or not _may_be_asked(url, issuer):
            raise LoginRefused(f"the provider's metadata name no {name} under https://", 502)
        endpoints[name] = url
    challenges = document.get("code_challenge_methods_supported")
    if isinstance(challenges, list) and "S256" not in challenges:
        raise LoginRefused("the provider does not know PKCE with S256", 502)
    named = document.get("id_token_signing_alg_values_supported")
    algorithms = tuple(name for name in ALGORITHMS if name in named) if isinstance(named, list) else ("RS256",)
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        issuer=issuer,
        **endpoints,
        algorithms=algorithms,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        basic=not isinstance(methods, list) or "client_secret_basic" in methods or "client_secret_post" not in methods,
    )


def _may_be_asked(url: str, issuer: str) -> bool:
    """https, or the plain http of a provider on this host (configured so by its issuer)."""
    try:
        parts, own = urlsplit(url), urlsplit(issuer)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == own.scheme == "http" and parts.netloc == own.netloc)


def new_attempt(redirect_uri: str, *, now: float) -> Attempt:
    state, nonce, verifier, binding = (secrets.token_urlsafe(32) for _ in range(4))
    return Attempt(state=state, nonce=nonce, verifier=verifier, binding=binding, redirect_uri=redirect_uri, began=now)


def authorization_url(metadata: Metadata, client_id: str, attempt: Attempt) -> str:
    """Where the browser goes to log in."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": attempt.redirect_uri,
            "scope": "openid email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
    return f"{metadata.authorization_endpoint}{joint}{query}"


def verify_id_token(
    token: str, keys: Sequence[Mapping[str, Any]], *, metadata: Metadata, client_id: str, nonce: str
) -> Identity:
    """Who an ID token names. ``keys``: the provider's JWKs. Raises `LoginRefused`; `KeyError` where no key has the
    token's ``kid`` (the keys may have been changed: get them anew, once)."""
    import jwt

    if len(token) > MAX_TOKEN:
        raise LoginRefused("the provider's token is too large")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise LoginRefused("the provider sent no ID token") from exc
    algorithm = header.get("alg")
    if algorithm not in metadata.algorithms or "crit" in header:
        raise LoginRefused("the ID token is not signed in a way that the provider's metadata name")
    key = _key(keys, str(algorithm), header.get("kid"))
    try:
        public = jwt.PyJWK(dict(key), algorithm=str(algorithm)).key
        if key["kty"] == "RSA" and public.key_size < LEAST_RSA_BITS:
            raise LoginRefused(f"the provider signs with an RSA key of less than {LEAST_RSA_BITS} bits")
        claims = jwt.decode(
            token,
            key=public,
            algorithms=[str(algorithm)],
            audience=client_id,
            issuer=metadata.issuer,
            leeway=LEEWAY,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as exc:
        raise LoginRefused(f"the ID token is not good: {type(exc).__name__}") from exc
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise LoginRefused("the ID token was made for several clients and does not say for which")
    if claims.get("azp", client_id) != client_id:
        raise LoginRefused("the ID token was made for another client")
    if not isinstance(claims["nonce"], str) or not compare(claims["nonce"], nonce):
        raise LoginRefused("the ID token belongs to another login")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        raise LoginRefused("the ID token names nobody")
    email = claims.get("email")
    verified = claims.get("email_verified") is True and isinstance(email, str)
    return Identity(subject, email if verified else None)


def _key(keys: Iterable[Mapping[str, Any]], algorithm: str, kid: Any) -> Mapping[str, Any]:
    """The key for a token. Raises `KeyError` where there is none, `LoginRefused` where it must not be used."""
    fitting = [
        key
        for key in keys
        if key.get("kty") == _KINDS[algorithm[:2]]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid") == kid)
        and "d" not in key  # a private key has no business there
    ]
    if not fitting:
        raise KeyError(str(kid))
    if len(fitting) > 1:
        raise LoginRefused("the provider has several keys and the ID token does not say which")
    return fitting[0]


def may_log_in(identity: Identity, allowed: Iterable[str]) -> bool:
    """Whether somebody is on the list: an entry with ``@`` is a verified e-mail address, any other a subject."""
    for entry in allowed:
        if "@" in entry:
            if identity.email is not None and identity.email.casefold() == entry.casefold():
                return True
        elif entry == identity.subject:
            return True
    return False
