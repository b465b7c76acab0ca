"""Google's Generative Language API (Gemini), streamed with ``alt=sse``.

Pure. Owns how a question becomes ``POST /models/<model>:streamGenerateContent`` and its chunks an answer. The key goes
into a header, never into the address, where proxies would log it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from openclaw_gateway.agents.records import Delta, Usage
from openclaw_gateway.models.provider import Finish, ModelRequest, Reason, Spoken, Trouble, WireCall
from openclaw_gateway.models.reading import decode, dig, reason_of_status, text_of, tokens
from openclaw_gateway.models.sse import SseEvent

__all__ = ["Google"]

_REFUSALS: Final = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE"}
)
_ERRORS: Final[dict[str, Reason]] = {
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "UNAVAILABLE": "overloaded",
    "DEADLINE_EXCEEDED": "timeout",
    "NOT_FOUND": "not_found",
    "INTERNAL": "server",
}


class Google:
    name = "google-generative-ai"
    base_url = "https://generativelanguage.googleapis.com/v1beta"
    key_variable = "GEMINI_API_KEY"

    def call(self, request: ModelRequest, *, at_home: bool) -> WireCall:
        wanted = request.sampling
        body: dict[str, Any] = {"contents": [_content(one) for one in request.messages]}
        if request.system:
            body["systemInstruction"] = {"parts": [{"text": request.system}]}
        config: dict[str, Any] = {
            "maxOutputTokens": wanted.max_tokens or request.max_tokens,
            "temperature": wanted.temperature,
            "topP": wanted.top_p,
            "seed": wanted.seed,
            "frequencyPenalty": wanted.frequency_penalty,
            "presencePenalty": wanted.presence_penalty,
            "stopSequences": list(wanted.stop) or None,
            "thinkingConfig": {"includeThoughts": True} if request.reasoning else None,
        }
        given = {name: value for name, value in config.items() if value is not None}
        if given:
            body["generationConfig"] = given
        return WireCall(f"/models/{quote(request.model, safe='')}:streamGenerateContent?alt=sse", body)

    def key_header(self, key: str) -> tuple[str, str]:
        return "x-goog-api-key", key

    def reader(self) -> GoogleReader:
        return GoogleReader()

    def trouble(self, status: int, body: Any) -> Trouble:
        return _trouble(status, body)


def _trouble(status: int, body: Any) -> Trouble:
    if isinstance(body, list):  # without alt=sse an error comes in a list of one
        body = dig(body, 0)
    text = text_of(body, "error", "message")
    by_status = reason_of_status(status, text)
    if "API key not valid" in text or "API_KEY_INVALID" in text:
        by_status = "auth"  # it comes as 400 INVALID_ARGUMENT
    elif by_status != "context_length":
        by_status = _ERRORS.get(text_of(body, "error", "status"), by_status)
    return Trouble(by_status, text, _retry_delay(dig(body, "error", "details")))


def _retry_delay(details: Any) -> int | None:
    """``{"@type": ".../google.rpc.RetryInfo", "retryDelay": "34.07s"}`` in milliseconds."""
    for detail in details if isinstance(details, list) else ():
        text = text_of(detail, "retryDelay").removesuffix("s")
        try:
            seconds = float(text)
        except ValueError:
            continue
        if 0 <= seconds < 86_400:
            return int(seconds * 1000)
    return None


def _content(one: Spoken) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"inlineData": {"mimeType": img.mime, "data": img.data}} for img in one.images]
    if one.text.strip():
        parts.append({"text": one.text})
    return {"role": "model" if one.role == "assistant" else "user", "parts": parts}


class GoogleReader:
    def __init__(self) -> None:
        self._usage = Usage()
        self._stop: str | None = None
        self._model: str | None = None
        self.done = False  # nothing says so but the end of the stream

    def take(self, event: SseEvent) -> Iterable[Delta]:
        body = decode(event.data)
        if not isinstance(body, dict):
            raise Trouble("malformed", "a chunk that is no object")
        if body.get("error") is not None:
            raise _trouble(tokens(body, "error", "code") or 500, body)
        self._model = text_of(body, "modelVersion") or self._model
        if isinstance(body.get("usageMetadata"), dict):
            count = body["usageMetadata"]
            cached = tokens(count, "cachedContentTokenCount")
            self._usage = Usage(
                max(0, tokens(count, "promptTokenCount") - cached),
                tokens(count, "candidatesTokenCount") + tokens(count, "thoughtsTokenCount"),
                cached,
            )
        if text_of(body, "promptFeedback", "blockReason"):
            raise Trouble("refusal")
        parts = dig(body, "candidates", 0, "content", "parts")
        for part in parts if isinstance(parts, list) else ():
            if text := text_of(part, "text"):
                yield Delta("thinking" if dig(part, "thought") is True else "text", text)
        self._stop = text_of(body, "candidates", 0, "finishReason") or self._stop

    def finish(self) -> Finish:
        if self._stop is None:
            raise Trouble("cut_off")
        if self._stop in _REFUSALS:
            raise Trouble("refusal")
        return Finish("length" if self._stop == "MAX_TOKENS" else "stop", self._usage, self._model)
