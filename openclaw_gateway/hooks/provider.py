"""An OpenID provider over HTTPS: its metadata, its keys, and the exchange of a code for an ID token.

Owns the requests, their limits, and how long answers are remembered. It must not know what an ID token is worth
(`hooks.oidc`).

Invariants: nothing but the client's own credential goes to the provider, and that only to the token endpoint of its own
metadata (V56); no redirect is followed; an answer has at most `MAX_ANSWER` bytes and comes within `ANSWER_SECONDS`;
keys are fetched anew for an unknown ``kid`` at most once in `KEYS_AGAIN_SECONDS`, so nobody can make us ask for ever.
"""

from __future__ import annotations

import base64
import ssl
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import msgspec
import trio

from openclaw_gateway.hooks.oidc import Attempt, Identity, LoginRefused, Metadata, read_metadata, verify_id_token
from openclaw_gateway.hooks.transport import open_answer, open_client

if TYPE_CHECKING:
    import httpx

__all__ = ["OidcProvider"]

ANSWER_SECONDS: Final = 10.0
MAX_ANSWER: Final = 256 * 1024
MAX_KEYS: Final = 64
REMEMBER_SECONDS: Final = 3600.0
KEYS_AGAIN_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 2.0
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class OidcProvider:
    """One provider and our place at it. ``tls`` (tests): what it is verified with instead of the system's
    certificates."""

    def __init__(
        self, issuer: str, client_id: str, client_secret: str | None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._secret = client_secret
        self._tls = tls
        self._client: httpx.AsyncClient | None = None
        self._lock = trio.Lock()
        self._opening = trio.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[dict[str, Any]]] | None = None

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await client.aclose()

    async def metadata(self) -> Metadata:
        """The provider's metadata, at most an hour old. Raises `LoginRefused`."""
        async with self._lock:
            now = trio.current_time()
            if self._metadata is None or now - self._metadata[0] > REMEMBER_SECONDS:
                document = await self._ask("GET", self.issuer.rstrip("/") + _WELL_KNOWN)
                self._metadata = (now, read_metadata(document, self.issuer))
            return self._metadata[1]

    async def redeem(self, code: str, attempt: Attempt) -> Identity:
        """Who stands behind a code. Raises `LoginRefused`."""
        metadata = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
            "client_id": self.client_id,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if self._secret is not None and metadata.basic:
            pair = f"{quote(self.client_id, safe='')}:{quote(self._secret, safe='')}"  # RFC 6749 section 2.3.1
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif self._secret is not None:
            form["client_secret"] = self._secret
        answer = await self._ask("POST", metadata.token_endpoint, headers, urlencode(form).encode())
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginRefused("the provider sent no ID token", 502)
        await trio.to_thread.run_sync(import_module, "jwt")  # takes a tenth of a second the first time
        try:
            return self._verify(token, await self._jwks(metadata, again=False), metadata, attempt)
        except KeyError:
            pass
        try:
            return self._verify(token, await self._jwks(metadata, again=True), metadata, attempt)
        except KeyError as exc:
            raise LoginRefused("the ID token is signed with a key that the provider does not publish") from exc

    def _verify(self, token: str, keys: list[dict[str, Any]], metadata: Metadata, attempt: Attempt) -> Identity:
        return verify_id_token(token, keys, metadata=metadata, client_id=self.client_id, nonce=attempt.nonce)

    async def _jwks(self, metadata: Metadata, *, again: bool) -> list[dict[str, Any]]:
        async with self._lock:
            now = trio.current_time()
            age = now - self._keys[0] if self._keys is not None else None
            if age is None or age > REMEMBER_SECONDS or (again and age > KEYS_AGAIN_SECONDS):
                keys = (await self._ask("GET", metadata.jwks_uri)).get("keys")
                listed = keys if isinstance(keys, list) else []
                self._keys = (now, [key for key in listed[:MAX_KEYS] if isinstance(key, dict)])
            assert self._keys is not None
            return self._keys[1]

    async def _ask(
        self, method: str, url: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> dict[str, Any]:
        async with self._opening:
            if self._client is None:
                self._client = await open_client(ANSWER_SECONDS, self._tls)
        client = self._client
        import httpx

        data = bytearray()
        lines = {"accept": "application/json", **(headers or {})}
        try:
            with trio.fail_after(ANSWER_SECONDS):
                async with open_answer(client, method, url, headers=lines, body=body) as response:
                    async for chunk in response.aiter_raw():
                        data += chunk
                        if len(data) > MAX_ANSWER:
                            raise LoginRefused("the provider's answer is too large", 502)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as exc:
            raise LoginRefused(f"the provider cannot be reached ({type(exc).__name__})", 502) from exc
        if response.status_code != 200:
            raise LoginRefused(f"the provider answered HTTP {response.status_code}", 502)
        try:
            answer = msgspec.json.decode(bytes(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise LoginRefused("the provider's answer is no JSON", 502) from exc
        if not isinstance(answer, dict):
            raise LoginRefused("the provider's answer is no JSON object", 502)
        return answer
