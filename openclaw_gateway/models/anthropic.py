"""Anthropic's Messages API (version 2023-06-01), streamed.

Pure. Owns how a question becomes ``POST /v1/messages`` and its events an answer. Its events: message_start,
content_block_start/delta/stop, ping, message_delta, message_stop, error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from openclaw_gateway.agents.records import Delta, Usage
from openclaw_gateway.models.provider import Finish, ModelRequest, Reason, Trouble, WireCall
from openclaw_gateway.models.reading import decode, dig, reason_of_status, text_of, tokens
from openclaw_gateway.models.sse import SseEvent

__all__ = ["Anthropic"]

VERSION: Final = "2023-06-01"
DEFAULT_MAX_TOKENS: Final = 8_192  # the API wants to be told; every model since Claude 3.5 can do it
THOUGHT_TOKENS: Final = 4_096
_STOPS: Final = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "stop", "max_tokens": "length"}
_ERRORS: Final[dict[str, Reason]] = {
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "billing",
    "not_found_error": "not_found",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "api_error": "server",
}


class Anthropic:
    name = "anthropic-messages"
    base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"

    def call(self, request: ModelRequest, *, at_home: bool) -> WireCall:
        wanted = request.sampling
        most = wanted.max_tokens or request.max_tokens or DEFAULT_MAX_TOKENS
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": most,
            "stream": True,
            "messages": [{"role": one.role, "content": list(_content(one))} for one in request.messages],
        }
        if request.system:
            body["system"] = request.system
        if request.reasoning:
            body["max_tokens"] = most + THOUGHT_TOKENS
            body["thinking"] = {"type": "enabled", "budget_tokens": THOUGHT_TOKENS}
        elif wanted.temperature is not None:  # the API takes none beside thinking, and at most 1
            body["temperature"] = min(wanted.temperature, 1.0)
        if wanted.top_p is not None and "temperature" not in body and not request.reasoning:
            body["top_p"] = wanted.top_p
        if wanted.stop:
            body["stop_sequences"] = list(wanted.stop)
        return WireCall("/v1/messages", body, {"anthropic-version": VERSION})

    def key_header(self, key: str) -> tuple[str, str]:
        return "x-api-key", key

    def reader(self) -> AnthropicReader:
        return AnthropicReader()

    def trouble(self, status: int, body: Any) -> Trouble:
        text = text_of(body, "error", "message")
        by_status = reason_of_status(status, text)
        if by_status == "context_length":
            return Trouble(by_status, text)
        return Trouble(_ERRORS.get(text_of(body, "error", "type"), by_status), text)


def _content(one: Any) -> Iterator[dict[str, Any]]:
    for image in one.images:
        yield {"type": "image", "source": {"type": "base64", "media_type": image.mime, "data": image.data}}
    if one.text.strip():
        yield {"type": "text", "text": one.text}


class AnthropicReader:
    def __init__(self) -> None:
        self._usage: dict[str, int] = {}
        self._stop: str | None = None
        self._model: str | None = None
        self.done = False

    def take(self, event: SseEvent) -> Iterable[Delta]:
        body = decode(event.data)
        kind = text_of(body, "type")
        if kind == "content_block_delta":
            if text := text_of(body, "delta", "text"):
                yield Delta("text", text)
            elif text := text_of(body, "delta", "thinking"):
                yield Delta("thinking", text)
        elif kind == "message_start":
            self._model = text_of(body, "message", "model") or None
            self._count(dig(body, "message", "usage"))
        elif kind == "message_delta":
            self._stop = text_of(body, "delta", "stop_reason") or self._stop
            self._count(dig(body, "usage"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            raise Trouble(_ERRORS.get(text_of(body, "error", "type"), "server"), text_of(body, "error", "message"))
        elif not kind:
            raise Trouble("malformed", "an event without a type")

    def _count(self, usage: Any) -> None:
        """Counts are totals so far: a later one takes the place of an earlier one."""
        for ours, theirs in (
            ("input", "input_tokens"),
            ("output", "output_tokens"),
            ("cache_read", "cache_read_input_tokens"),
            ("cache_write", "cache_creation_input_tokens"),
        ):
            self._usage[ours] = tokens(usage, theirs) or self._usage.get(ours, 0)

    def finish(self) -> Finish:
        if not self.done:
            raise Trouble("cut_off")
        if self._stop == "refusal":
            raise Trouble("refusal")
        return Finish(_STOPS.get(self._stop or "", "stop"), Usage(**self._usage), self._model)
