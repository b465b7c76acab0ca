"""How each API spells questions and answers: pure, event by event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.records import Delta, Sampling, Usage
from openclaw_gateway.models.anthropic import Anthropic
from openclaw_gateway.models.google import Google
from openclaw_gateway.models.openai import OpenAI
from openclaw_gateway.models.provider import REASONS, Dialect, Finish, Image, ModelRequest, Spoken, Trouble
from openclaw_gateway.models.sse import SseEvent

DIALECTS: list[Dialect] = [Anthropic(), OpenAI(), Google()]
PICTURE = Spoken("user", "what is it?", (Image("image/png", "aGk="),))
TALK = (Spoken("user", "hi"), Spoken("assistant", "hello"), PICTURE)
SAMPLING = Sampling(temperature=1.5, top_p=0.5, max_tokens=7, stop=("X",), seed=3)


def read(dialect: Dialect, *bodies: Any) -> tuple[list[Delta], Finish]:
    reader = dialect.reader()
    deltas: list[Delta] = []
    for body in bodies:
        deltas += reader.take(SseEvent(body if isinstance(body, str) else json.dumps(body)))
    return deltas, reader.finish()


def trouble(dialect: Dialect, *bodies: Any) -> Trouble:
    with pytest.raises(Trouble) as found:
        read(dialect, *bodies)
    return found.value


def test_s012_anthropic_question() -> None:
    call = Anthropic().call(ModelRequest("claude-x", TALK, system="be kind", sampling=SAMPLING), at_home=True)
    assert (call.path, call.headers) == ("/v1/messages", {"anthropic-version": "2023-06-01"})
    assert call.body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "text", "text": "what is it?"},
            ],
        },
    ]
    assert (call.body["system"], call.body["max_tokens"], call.body["temperature"]) == ("be kind", 7, 1.0)
    assert call.body["stop_sequences"] == ["X"]
    thinking = Anthropic().call(ModelRequest("claude-x", TALK, reasoning=True, sampling=SAMPLING), at_home=True).body
    assert thinking["max_tokens"] > thinking["thinking"]["budget_tokens"] >= 1024
    assert "temperature" not in thinking


def test_s012_anthropic_answer() -> None:
    deltas, finish = read(
        Anthropic(),
        {"type": "message_start", "message": {"model": "claude-x-1", "usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "abc"}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "something_new"},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    )
    assert [(one.kind, one.text) for one in deltas] == [("thinking", "hm"), ("text", "Hel"), ("text", "lo")]
    assert finish == Finish("length", Usage(input=9, output=5), "claude-x-1")
    assert trouble(Anthropic(), {"type": "message_start"}).reason == "cut_off"
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert trouble(Anthropic(), overloaded).reason == "overloaded"
    refused = ({"type": "message_delta", "delta": {"stop_reason": "refusal"}}, {"type": "message_stop"})
    assert trouble(Anthropic(), *refused).reason == "refusal"


def test_s012_openai_question() -> None:
    call = OpenAI().call(ModelRequest("gpt-x", TALK, system="be kind", sampling=SAMPLING), at_home=True)
    assert call.path == "/chat/completions"
    assert call.body["messages"][:3] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]
    assert call.body["messages"][3]["content"][1]["image_url"] == {"url": "data:image/png;base64,aGk="}
    assert (call.body["max_completion_tokens"], call.body["seed"], call.body["stop"]) == (7, 3, ["X"])
    elsewhere = OpenAI().call(ModelRequest("m", TALK, max_tokens=9), at_home=False).body
    assert elsewhere["max_tokens"] == 9
    assert "max_completion_tokens" not in elsewhere


def test_s012_openai_answer() -> None:
    deltas, finish = read(
        OpenAI(),
        {"model": "gpt-x-1", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "Hello"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}},
        },
        "[DONE]",
    )
    assert [(one.kind, one.text) for one in deltas] == [("thinking", "hm"), ("text", "Hello")]
    assert finish == Finish("stop", Usage(input=3, output=4, cache_read=6), "gpt-x-1")
    assert trouble(OpenAI(), {"choices": [{"delta": {"content": "Hel"}}]}).reason == "cut_off"
    assert trouble(OpenAI(), {"choices": [{"delta": {}, "finish_reason": "content_filter"}]}).reason == "refusal"
    assert trouble(OpenAI(), {"error": {"message": "x", "code": "rate_limit_exceeded"}}).reason == "rate_limit"


def test_s012_google_question() -> None:
    call = Google().call(ModelRequest("gemini-x", TALK, system="be kind", sampling=SAMPLING), at_home=True)
    assert call.path == "/models/gemini-x:streamGenerateContent?alt=sse"
    assert [one["role"] for one in call.body["contents"]] == ["user", "model", "user"]
    assert call.body["contents"][2]["parts"][0] == {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    assert call.body["systemInstruction"] == {"parts": [{"text": "be kind"}]}
    assert call.body["generationConfig"]["maxOutputTokens"] == 7
    assert "generationConfig" not in Google().call(ModelRequest("gemini-x", TALK), at_home=True).body
    sneaky = Google().call(ModelRequest("../../v1/x?key=1#", TALK), at_home=True)
    assert sneaky.path == "/models/..%2F..%2Fv1%2Fx%3Fkey%3D1%23:streamGenerateContent?alt=sse"


def test_s012_google_answer() -> None:
    thought = {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "Hel"}]}}]}
    counted = {"promptTokenCount": 9, "candidatesTokenCount": 4, "thoughtsTokenCount": 2, "cachedContentTokenCount": 5}
    last = {
        "candidates": [{"content": {"parts": [{"text": "lo"}]}, "finishReason": "MAX_TOKENS"}],
        "usageMetadata": counted,
        "modelVersion": "gemini-x-1",
    }
    deltas, finish = read(Google(), thought, last)
    assert [(one.kind, one.text) for one in deltas] == [("thinking", "hm"), ("text", "Hel"), ("text", "lo")]
    assert finish == Finish("length", Usage(input=4, output=6, cache_read=5), "gemini-x-1")
    assert trouble(Google(), thought).reason == "cut_off"
    assert trouble(Google(), {"promptFeedback": {"blockReason": "SAFETY"}}).reason == "refusal"
    assert trouble(Google(), {"candidates": [{"finishReason": "SAFETY"}]}).reason == "refusal"


@pytest.mark.parametrize(
    ("dialect", "status", "body", "reason"),
    [
        (Anthropic(), 401, {"error": {"type": "authentication_error", "message": "invalid x-api-key"}}, "auth"),
        (
            Anthropic(),
            400,
            {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9"}},
            "context_length",
        ),
        (Anthropic(), 400, {"error": {"type": "invalid_request_error", "message": "max_tokens: x"}}, "bad_request"),
        (Anthropic(), 529, {"error": {"type": "overloaded_error"}}, "overloaded"),
        (Anthropic(), 404, {"error": {"type": "not_found_error"}}, "not_found"),
        (OpenAI(), 429, {"error": {"code": "insufficient_quota"}}, "billing"),
        (OpenAI(), 429, {"error": {"type": "tokens", "code": "rate_limit_exceeded"}}, "rate_limit"),
        (OpenAI(), 400, {"error": {"code": "context_length_exceeded"}}, "context_length"),
        (OpenAI(), 404, {"error": {"code": "model_not_found"}}, "not_found"),
        (OpenAI(), 401, None, "auth"),
        (OpenAI(), 502, None, "server"),
        (OpenAI(), 503, None, "overloaded"),
        (OpenAI(), 400, {"detail": "This model's maximum context length is 4096 tokens"}, "context_length"),
        (Google(), 400, {"error": {"status": "INVALID_ARGUMENT", "message": "API key not valid."}}, "auth"),
        (Google(), 429, {"error": {"status": "RESOURCE_EXHAUSTED"}}, "rate_limit"),
        (Google(), 400, [{"error": {"message": "The input token count (9) exceeds the maximum"}}], "context_length"),
        (Google(), 503, {"error": {"status": "UNAVAILABLE"}}, "overloaded"),
    ],
)
def test_s012_errors_are_told_apart(dialect: Dialect, status: int, body: Any, reason: str) -> None:
    assert dialect.trouble(status, body).reason == reason


def test_google_says_when_to_come_back() -> None:
    details = [{"@type": "x"}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]
    assert Google().trouble(429, {"error": {"details": details}}).after_ms == 34_070
    assert Google().trouble(429, {"error": {"details": [{"retryDelay": "soon"}]}}).after_ms is None


KEYS = ["type", "error", "message", "usage", "delta", "choices", "candidates", "content", "parts", "text"]
KEYS += ["finish_reason", "code", "status", "model"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "error",
                    "message",
                    "usage",
                    "delta",
                    "choices",
                    "candidates",
                    "content",
                    "parts",
                    "text",
                    "finish_reason",
                    "code",
                    "status",
                    "model",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(DIALECTS), st.lists(JSON | st.text(max_size=20), max_size=4), st.integers(300, 599))
def test_law_whatever_a_service_sends_is_an_answer_or_trouble(dialect: Dialect, bodies: list[Any], status: int) -> None:
    assert dialect.trouble(status, bodies[0] if bodies else None).reason in REASONS
    try:
        deltas, finish = read(dialect, *bodies)
    except Trouble:
        return
    assert all(isinstance(one.text, str) for one in deltas)
    assert finish.stop in {"stop", "length"}
