"""OpenAI's chat completions API: what comes in and what goes out, pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.records import Said, Sampling, Usage
from openclaw_gateway.completions.wire import Asked, BadAsk, agent_of_model, answer, chunk, read_ask

USER = {"role": "user", "content": "hi"}


def ask(**given: Any) -> Asked:
    return read_ask(json.dumps({"model": "openclaw", "messages": [USER], **given}).encode())


@pytest.mark.parametrize(
    ("model", "agent"),
    [
        ("openclaw", None),
        ("openclaw/default", None),
        ("openclaw/main", "main"),
        ("openclaw:main", "main"),
        ("agent:main", "main"),
    ],
)
def test_a_model_names_an_agent(model: str, agent: str | None) -> None:
    assert agent_of_model(model) == agent


@pytest.mark.parametrize("model", ["", "gpt-x", "openclaw/", "openclaw/Main", "openclaw/a/b", "anthropic/claude-x"])
def test_v43_what_names_no_agent_is_refused(model: str) -> None:
    with pytest.raises(BadAsk, match="GET /v1/models"):
        agent_of_model(model)


def test_a_conversation() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    asked = ask(
        messages=[
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "one"}]},
            {"role": "assistant", "content": "two"},
            {"role": "developer", "content": "and short"},
            {"role": "user", "content": parts},
        ],
        stream=True,
        stream_options={"include_usage": True},
        user="u1",
    )
    assert asked.system == "be kind\n\nand short"
    assert asked.history == (Said("user", "one"), Said("assistant", "two"))
    assert (asked.text, asked.attachments[0].mime, asked.attachments[0].data) == ("see", "image/png", "aGk=")
    assert (asked.stream, asked.include_usage, asked.user) == (True, True, "u1")


def test_sampling() -> None:
    given = {"temperature": 1, "top_p": 0.5, "max_tokens": 5, "max_completion_tokens": 7, "stop": "X", "seed": -3}
    assert ask(**given).sampling == Sampling(temperature=1.0, top_p=0.5, max_tokens=7, stop=("X",), seed=-3)
    assert ask(max_tokens=5, max_completion_tokens=None).sampling == Sampling(max_tokens=5)
    assert ask(tools=[{"type": "function"}], tool_choice="none").text == "hi"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER] * 1_001}, "messages"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1]"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0]"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"tools": {"type": "function"}}, "tools"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"user": 5}, "user"),
        ({"user": "x" * 513}, "user"),
    ],
)
def test_what_cannot_be_done_is_refused_with_words(given: dict[str, Any], param: str) -> None:
    with pytest.raises(BadAsk) as found:
        ask(**given)
    assert found.value.param == param


UNSUPPORTED: list[tuple[str, Any, Any]] = [  # what asks for something, and what asks for nothing
    ("n", 2, 1),
    ("n", 0, None),
    ("logprobs", True, False),
    ("top_logprobs", 5, 0),
    ("response_format", {"type": "json_object"}, {"type": "text"}),
    ("response_format", {"type": "json_schema", "json_schema": {}}, None),
    ("response_format", "text", None),
    ("logit_bias", {"50256": -100}, {}),
    ("modalities", ["text", "audio"], ["text"]),
    ("audio", {"voice": "alloy"}, None),
    ("web_search_options", {}, None),
    ("store", True, False),
    ("tools", [{"type": "function", "function": {"name": "f"}}], []),
    ("tool_choice", "required", "auto"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}, "none"),
    ("tool_choice", {"type": "allowed_tools"}, None),
    ("functions", [{"name": "f"}], []),
    ("function_call", {"name": "f"}, "auto"),
]


@pytest.mark.parametrize(("name", "wanted", "nothing"), UNSUPPORTED)
def test_what_is_not_done_here_is_refused_by_its_name(name: str, wanted: Any, nothing: Any) -> None:
    with pytest.raises(BadAsk) as found:
        ask(**{name: wanted})
    assert (found.value.param, found.value.status) == (name, 400)
    assert found.value.code in {"unsupported_parameter", "unsupported_value"}
    assert ask(**{name: nothing}).unused == ()


@pytest.mark.parametrize("name", ["tool_calls", "function_call", "audio"])
def test_what_a_message_brings_along_is_refused_with_its_place(name: str) -> None:
    message = {"role": "assistant", "content": None, name: [{"id": "call_1"}]}
    with pytest.raises(BadAsk) as found:
        ask(messages=[message, USER])
    assert (found.value.param, found.value.code) == ("messages[0]", "unsupported_parameter")
    assert ask(messages=[USER, {**message, name: None}, USER]).text == "hi"


def test_hints_and_members_of_front_ends_are_taken_and_named() -> None:
    hints = {
        "reasoning_effort": "low", "verbosity": "low", "service_tier": "auto", "metadata": {"a": "b"},
        "parallel_tool_calls": True, "prediction": {"type": "content"}, "safety_identifier": "x", "top_k": 40,
        "chat_id": "c", "prompt_cache_key": "k", "session_id": None,
    }  # fmt: skip
    assert ask(**hints).unused == tuple(sorted(name for name, value in hints.items() if value is not None))
    assert ask(**{"a\r\nx-evil": 1, "ä": 1, "": 1, "x" * 65: 1}).unused == ()
    assert len(ask(**{f"hint_{number}": 1 for number in range(99)}).unused) == 16


@pytest.mark.parametrize(
    "url", ["https://intranet/x.png", "file:///etc/passwd", "data:text/html;base64,aGk=", "data:image/png,x", 5, None]
)
def test_v56_no_picture_is_fetched(url: Any) -> None:
    with pytest.raises(BadAsk, match="fetches none"):
        ask(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])


def test_cap_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert len(ask(messages=[{"role": "user", "content": [picture] * 8}]).attachments) == 8
    with pytest.raises(BadAsk, match="more than 8"):
        ask(messages=[{"role": "user", "content": [picture] * 9}])


def test_answers() -> None:
    whole = answer(id_="x", created=5, model="openclaw", text="hi", finish="stop", usage=Usage(3, 4, 2))
    assert whole["choices"][0]["message"]["content"] == "hi"
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]) == (5, 9)
    piece = chunk(id_="x", created=5, model="openclaw", delta={"content": "h\n\nx"})
    assert piece.count(b"\n") == 2, "one event is one line and an empty one"
    assert json.loads(piece.removeprefix(b"data: "))["object"] == "chat.completion.chunk"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "image_url", "url"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["model", "messages", "stop", "n", "user", "temperature", "tools"]), JSON))
def test_law_any_request_is_read_or_refused(given: dict[str, Any]) -> None:
    try:
        asked = read_ask(json.dumps({"model": "openclaw", "messages": [USER], **given}).encode())
    except BadAsk as refused:
        assert str(refused)  # noqa: PT017 - any words will do
    else:
        assert asked.text or asked.attachments


@given(st.binary(max_size=60))
def test_law_any_bytes_are_refused_with_words(body: bytes) -> None:
    with pytest.raises(BadAsk):
        read_ask(body)
