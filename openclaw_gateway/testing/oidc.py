"""An OpenID provider for tests: discovery, authorization with PKCE, token endpoint, keys.

Owns a faithful small provider after OpenID Connect Core 1.0 and RFC 7636: codes are used once, belong to one client and
one redirect address, and are given out only for the right verifier. A test makes it misbehave by replacing ``claims``,
``sign`` or ``metadata``. Needs the packages of the login itself (cryptography, PyJWT); nothing listens before
`open_oidc_provider`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import attrs
import h11
import msgspec
import trio

__all__ = ["OidcServer", "open_oidc_provider"]

Claims = dict[str, Any]
_MAX_BODY = 65_536


@attrs.define(eq=False)
class OidcServer:
    """``user`` is who logs in without being asked; ``requests`` are (method, path, headers) as they came."""

    client_id: str
    client_secret: str | None
    redirect_uri: str
    user: Claims
    issuer: str = ""
    change_claims: Callable[[Claims], Claims] = lambda claims: claims
    change_metadata: Callable[[Claims], Claims] = lambda metadata: metadata
    sign: Callable[[Claims], str] | None = None
    requests: list[tuple[str, str, dict[str, str]]] = attrs.field(factory=list)
    codes: dict[str, dict[str, str]] = attrs.field(factory=dict)
    key: Any = None
    kid: str = "key-1"
    names_algorithm: bool = True  # whether the published key says which algorithm it is for

    def rotate(self) -> None:
        """Sign with another key from now on."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = f"key-{secrets.token_hex(4)}"

    def jwks(self) -> Claims:
        import jwt

        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        algorithm = {"alg": "RS256"} if self.names_algorithm else {}
        return {"keys": [{**public, **algorithm, "kid": self.kid, "use": "sig"}]}

    def metadata(self) -> Claims:
        return self.change_metadata(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    def authorize(self, query: dict[str, str]) -> str:
        """The address that the browser is sent to: as after a person agreed."""
        wanted = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge_method": "S256",
        }
        if any(query.get(name) != value for name, value in wanted.items()) or "openid" not in query["scope"].split():
            return f"{self.issuer}/error"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def token(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, Claims]:
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if not self._is_client(form, headers):
            return 401, {"error": "invalid_client"}
        if asked is None or asked["code_challenge"] != challenge or form.get("redirect_uri") != self.redirect_uri:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}

    def _is_client(self, form: dict[str, str], headers: dict[str, str]) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == self.client_id
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            id_, _, secret = base64.b64decode(value).decode().partition(":")
            return (unquote(id_), unquote(secret)) == (self.client_id, self.client_secret)
        return form.get("client_secret") == self.client_secret

    def id_token(self, nonce: str) -> str:
        import jwt

        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.client_id, "exp": now + 300, "iat": now, "nonce": nonce, **self.user}
        claims = self.change_claims(claims)
        if self.sign is not None:
            return self.sign(claims)
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})

    # --- HTTP

    async def serve(self, stream: trio.abc.Stream) -> None:
        machine = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        body = b""
        async with stream:
            while True:
                event = machine.next_event()
                if event is h11.NEED_DATA:
                    machine.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data) and len(body) <= _MAX_BODY:
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    status, headers, content = self._answer(request, body)
                    lines = [*headers, ("content-length", str(len(content))), ("connection", "close")]
                    out = machine.send(h11.Response(status_code=status, headers=lines)) or b""
                    out += machine.send(h11.Data(content)) or b""
                    await stream.send_all(out + (machine.send(h11.EndOfMessage()) or b""))
                    return
                else:
                    return

    def _answer(self, request: h11.Request, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        parts = urlsplit(request.target.decode())
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.requests.append((request.method.decode(), parts.path, headers))
        known: dict[str, Callable[[], Claims]] = {
            "/.well-known/openid-configuration": self.metadata,
            "/jwks": self.jwks,
        }
        if parts.path == "/authorize":
            return 302, [("location", self.authorize(_flat(parts.query)))], b""
        if parts.path == "/token":
            status, answer = self.token(_flat(body.decode()), headers)
            return status, [("content-type", "application/json")], msgspec.json.encode(answer)
        if parts.path in known:
            return 200, [("content-type", "application/json")], msgspec.json.encode(known[parts.path]())
        return 404, [], b""


def _flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


@asynccontextmanager
async def open_oidc_provider(
    *, client_id: str = "gateway", client_secret: str | None = None, redirect_uri: str, user: Claims
) -> AsyncIterator[OidcServer]:
    """A provider on 127.0.0.1, reached as ``server.issuer``; closed on exit."""
    server = OidcServer(client_id=client_id, client_secret=client_secret, redirect_uri=redirect_uri, user=user)
    server.rotate()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.issuer = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()
