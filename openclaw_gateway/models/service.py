"""One model service over HTTPS: a question goes out, its answer comes in as it is spoken.

Owns the HTTP client of the service (one, shared by all runs), time and size limits, and the way from what can go wrong
to `ModelFailed`. It must not know an API's spelling (its `Dialect` does), agents or other services.

Invariants: TLS is verified; a redirect is never followed, because the key would go with it (V56); the key and the
configured headers appear in no error, no log and no repr; an answer ends within `MAX_ANSWER` bytes and each silence
within the service's time; cancellation closes the connection at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.agents.records import Delta
from openclaw_gateway.config.redact import MARKER, redact
from openclaw_gateway.httpbody import put_body
from openclaw_gateway.models.provider import (
    Finish,
    ModelFailed,
    ModelRequest,
    Reason,
    ServiceSettings,
    Trouble,
    policy_of,
)
from openclaw_gateway.models.reading import decode
from openclaw_gateway.models.sse import SseParser, SseTooLarge

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["MAX_ANSWER", "ModelService", "retry_after_ms"]

MAX_ANSWER: Final = 64 * 1024 * 1024  # bytes of one answer on the wire
MAX_ERROR_BODY: Final = 64 * 1024
MAX_TOLD: Final = 300  # characters of a service's own words
MAX_CONNECTIONS: Final = 64  # of one service
CONNECT_SECONDS: Final = 10.0
SEND_SECONDS: Final = 30.0
REST_SECONDS: Final = 0.2  # for what follows the end of an answer
CLOSE_SECONDS: Final = 2.0
LONGEST_WAIT_MS: Final = 3_600_000

_SAID: Final[Mapping[Reason, str]] = {
    "auth": "does not accept the key",
    "billing": "asks for payment: the account's credit is used up",
    "rate_limit": "has had too many requests from this key",
    "overloaded": "is overloaded",
    "server": "failed",
    "unreachable": "cannot be reached",
    "timeout": "did not answer in time",
    "cut_off": "broke off in the middle of the answer",
    "malformed": "sent what is not of its API",
    "not_found": "does not know the model",
    "context_length": "cannot take a conversation that long",
    "refusal": "refused to answer",
    "bad_request": "did not accept the request",
}


class ModelService:
    """A `ModelProvider`. Close it with `aclose` when nobody asks it any more."""

    def __init__(self, settings: ServiceSettings, *, clock: Callable[[], int]) -> None:
        self.settings = settings
        self.name = settings.name
        self.under_way = 0
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close idle connections, and break those in use."""
        client, self._client = self._client, None
        if client is not None:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await client.aclose()

    async def answer(self, request: ModelRequest, emit: Callable[[Delta], None]) -> Finish:
        """See `ModelProvider.answer`."""
        shown = False

        def tell(delta: Delta) -> None:
            nonlocal shown
            shown = shown or delta.kind == "text"
            emit(delta)

        self.under_way += 1
        try:
            return await self._ask(request, tell)
        except Trouble as trouble:
            raise self._failed(trouble, request, shown=shown) from None  # the cause may quote the request
        finally:
            self.under_way -= 1

    async def _ask(self, request: ModelRequest, tell: Callable[[Delta], None]) -> Finish:
        settings = self.settings
        if settings.key is None and settings.at_home:
            raise Trouble("auth", f"there is no key; {settings.key_fix}", ours=True)
        if settings.key is not None and not (settings.key.isascii() and settings.key.isprintable()):
            raise Trouble("auth", f"the key holds what no key can hold; {settings.key_fix}", ours=True)
        call = settings.dialect.call(request, at_home=settings.at_home)
        headers = {"accept": "text/event-stream", "content-type": "application/json", **call.headers}
        if settings.key is not None:
            name, value = settings.dialect.key_header(settings.key)
            headers.update({"authorization": f"Bearer {settings.key}"} if settings.bearer else {name: value})
        headers.update({name.lower(): value for name, value in settings.headers.items()})
        url = _joined(settings.base_url, call.path)
        async with self._posted(url, msgspec.json.encode(call.body), headers) as response:
            if response.status_code != 200:
                raise await self._refused(response)
            return await self._read(response, tell)

    async def _read(self, response: httpx.Response, tell: Callable[[Delta], None]) -> Finish:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream" or response.headers.get("content-encoding", "identity") != "identity":
            raise Trouble("malformed", f"an answer of type {kind[:80] or 'unknown'} instead of a stream of events")
        reader, parser, size = self.settings.dialect.reader(), SseParser(), 0
        async with _chunks(response) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_ANSWER:
                    raise Trouble("malformed", f"an answer of more than {MAX_ANSWER} bytes")
                try:
                    for event in parser.feed(chunk):
                        for delta in reader.take(event):
                            tell(delta)
                except SseTooLarge as exc:
                    raise Trouble("malformed", str(exc)) from exc
                if reader.done:
                    break
            finish = reader.finish()
            with trio.move_on_after(REST_SECONDS):  # read to the end, the connection can be used again
                async for chunk in chunks:
                    size += len(chunk)
                    if size > MAX_ANSWER:
                        break
        return finish

    async def _refused(self, response: httpx.Response) -> Trouble:
        status = response.status_code
        if 300 <= status < 400:
            fix = f"set models.providers.{self.name}.baseUrl to where it is"
            return Trouble("unreachable", f"it answers with a redirect (HTTP {status}), which is not followed; {fix}")
        data = bytearray()
        async with _chunks(response) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > MAX_ERROR_BODY:
                    break
        body = None
        if len(data) <= MAX_ERROR_BODY:
            try:
                body = decode(bytes(data))
            except Trouble:
                body = None  # a page of some proxy in between: the status says what can be said
        trouble = self.settings.dialect.trouble(status, body)
        after_ms = trouble.after_ms if trouble.after_ms is not None else retry_after_ms(response.headers, self._clock())
        text = trouble.text or f"HTTP {status}"
        return Trouble(trouble.reason, text, min(after_ms, LONGEST_WAIT_MS) if after_ms is not None else None)

    @asynccontextmanager
    async def _posted(self, url: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """The head of the answer; its body is read inside. Faults of the way become `Trouble`."""
        tls = await trio.to_thread.run_sync(_tls_context)  # and httpx with it: half a second on a slow machine
        import httpx

        client = self._open(tls)
        began = False
        try:
            request = client.build_request("POST", url, headers=dict(headers))
            put_body(request, body)
            response = await client.send(request, stream=True)
            try:
                began = True
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as exc:
            raise Trouble("timeout", f"nothing came for {self.settings.seconds:g} s" if began else "") from exc
        except httpx.ConnectError as exc:
            raise Trouble("unreachable", str(exc)) from exc
        except httpx.HTTPError as exc:
            raise Trouble("cut_off" if began else "unreachable") from exc
        except (httpx.InvalidURL, httpx.StreamError) as exc:
            raise Trouble("malformed", type(exc).__name__) from exc

    def _open(self, tls: ssl.SSLContext) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            seconds = self.settings.seconds
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS, write=SEND_SECONDS, pool=seconds),
                limits=httpx.Limits(
                    max_connections=MAX_CONNECTIONS, max_keepalive_connections=8, keepalive_expiry=30.0
                ),
                verify=tls,
                follow_redirects=False,
                trust_env=not _is_near(self.settings.base_url),  # a proxy of the environment, never for this host
                headers={"user-agent": f"openclaw-gateway/{__version__}", "accept-encoding": "identity"},
            )
            self._client.cookies.jar.set_policy(_no_cookies())
        return self._client

    def _failed(self, trouble: Trouble, request: ModelRequest, *, shown: bool) -> ModelFailed:
        policy = policy_of(trouble.reason)
        message = f"the model service {self.name} {_SAID[trouble.reason]}"
        if trouble.reason == "not_found":
            message += f" {request.model[:128]}"
        told = self._harmless(trouble)
        if told:
            message += f": {told}"
        if trouble.reason == "auth" and self.settings.key_fix not in message:
            message += f" ({self.settings.key_fix})"
        return ModelFailed(
            message,
            policy.kind,
            policy.again,
            trouble.after_ms,
            {"reason": trouble.reason, "provider": self.name, "model": request.model},
            trouble.reason,
            shown,
        )

    def _harmless(self, trouble: Trouble) -> str:
        """The service's own words without what it may have repeated of our credentials."""
        if trouble.reason == "auth" and not trouble.ours:
            return ""  # services quote parts of the key
        text = trouble.text
        for secret in (self.settings.key, *self.settings.headers.values()):
            if secret:
                text = text.replace(secret, MARKER)
        text = re.sub(r"\s+", " ", text).strip()[:MAX_TOLD]
        return "" if redact(text) == MARKER else text


def retry_after_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """How long a service asks to be left alone: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date (RFC
    9110 section 10.2.3). None where it does not say, or says it in no known way."""
    for name, unit in (("retry-after-ms", 1.0), ("retry-after", 1000.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
            return int(float(text) * unit)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, TypeError):
        return None
    return max(0, int(moment.timestamp() * 1000) - now_ms)


@asynccontextmanager
async def _chunks(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body as it comes, uncompressed because we asked for nothing else.

    httpx nests generators, and closing the outer one leaves the others to the garbage collector, which Trio rightly
    complains about. Reading on from what was closed ends them all.
    """
    import httpx

    chunks = response.aiter_raw()
    try:
        yield chunks
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await response.aclose()
            with suppress(httpx.HTTPError, httpx.StreamError):
                async for _ in chunks:
                    pass


@cache
def _tls_context() -> ssl.SSLContext:
    """What httpx would make for each client: certificates and host names are verified. Runs in a thread (design rule 10
    knows two places for threads; this is the third, because reading all the authorities holds the loop up)."""
    import httpx

    return httpx.create_ssl_context()


def _joined(base_url: str, path: str) -> str:
    """People write an Anthropic base URL with and without /v1."""
    base = base_url.rstrip("/")
    return base + (path.removeprefix("/v1") if base.endswith("/v1") else path)


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_cookies() -> Any:
    """A service's cookies would tie one person's questions to another's."""
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])
