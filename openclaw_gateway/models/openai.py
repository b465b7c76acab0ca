"""OpenAI's chat completions API, streamed: OpenAI's own and the many servers that speak it too.

Pure. Owns how a question becomes ``POST /chat/completions`` (behind a base URL that ends in /v1) and its chunks an
answer. Servers differ in how they name the limit of tokens, in whether they count, and in ``reasoning_content``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from openclaw_gateway.agents.records import Delta, Usage
from openclaw_gateway.models.provider import Finish, ModelRequest, Reason, Spoken, Trouble, WireCall
from openclaw_gateway.models.reading import decode, dig, reason_of_status, text_of, tokens
from openclaw_gateway.models.sse import SseEvent

__all__ = ["OpenAI"]

_ERRORS: Final[dict[str, Reason]] = {
    "invalid_api_key": "auth",
    "context_length_exceeded": "context_length",
    "insufficient_quota": "billing",
    "billing_not_active": "billing",
    "rate_limit_exceeded": "rate_limit",
    "model_not_found": "not_found",
    "content_filter": "refusal",
    "content_policy_violation": "refusal",
    "server_error": "server",
}


class OpenAI:
    name = "openai-completions"
    base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"

    def call(self, request: ModelRequest, *, at_home: bool) -> WireCall:
        wanted = request.sampling
        messages = [_message(one) for one in request.messages]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        body: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        most = wanted.max_tokens or request.max_tokens
        if most is not None:
            body["max_completion_tokens" if at_home else "max_tokens"] = most
        for name in ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"):
            value = getattr(wanted, name)
            if value is not None:
                body[name] = value
        if wanted.stop:
            body["stop"] = list(wanted.stop)
        return WireCall("/chat/completions", body)

    def key_header(self, key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {key}"

    def reader(self) -> OpenAIReader:
        return OpenAIReader()

    def trouble(self, status: int, body: Any) -> Trouble:
        return _trouble(status, body)


def _trouble(status: int, body: Any) -> Trouble:
    text = text_of(body, "error", "message") or text_of(body, "error") or text_of(body, "detail")
    for key in ("code", "type"):
        reason = _ERRORS.get(text_of(body, "error", key))
        if reason is not None:
            return Trouble(reason, text)
    return Trouble(reason_of_status(status, text), text)


def _message(one: Spoken) -> dict[str, Any]:
    if not one.images:
        return {"role": one.role, "content": one.text}  # many servers know no other form
    parts: list[dict[str, Any]] = [{"type": "text", "text": one.text}] if one.text.strip() else []
    parts += [
        {"type": "image_url", "image_url": {"url": f"data:{image.mime};base64,{image.data}"}} for image in one.images
    ]
    return {"role": one.role, "content": parts}


class OpenAIReader:
    """``done`` is ``[DONE]``; servers that end without it have at least said why they finished."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._stop: str | None = None
        self._model: str | None = None
        self.done = False

    def take(self, event: SseEvent) -> Iterable[Delta]:
        if event.data.strip() == "[DONE]":
            self.done = True
            return
        body = decode(event.data)
        if not isinstance(body, dict):
            raise Trouble("malformed", "a chunk that is no object")
        if body.get("error") is not None:
            raise _trouble(tokens(body, "error", "code") or 500, body)
        self._model = text_of(body, "model") or self._model
        if isinstance(body.get("usage"), dict):
            cached = tokens(body, "usage", "prompt_tokens_details", "cached_tokens")
            self._usage = Usage(
                max(0, tokens(body, "usage", "prompt_tokens") - cached),
                tokens(body, "usage", "completion_tokens"),
                cached,
            )
        choice = dig(body, "choices", 0)
        for key in ("reasoning_content", "reasoning"):
            if text := text_of(choice, "delta", key):
                yield Delta("thinking", text)
        # A refusal is what the model has to say: it is the answer, in words.
        for key in ("content", "refusal"):
            if text := text_of(choice, "delta", key):
                yield Delta("text", text)
        self._stop = text_of(choice, "finish_reason") or self._stop

    def finish(self) -> Finish:
        if self._stop is None:
            raise Trouble("cut_off")
        if self._stop == "content_filter":
            raise Trouble("refusal")
        if self._stop in {"error", "network_error", "malformed_response"}:
            raise Trouble("server", self._stop)
        return Finish("length" if self._stop == "length" else "stop", self._usage, self._model)
