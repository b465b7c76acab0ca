"""OpenAI's chat completions API as this gateway serves it: what comes in, what goes out.

Pure. Owns the reading of a request (names, limits, what is refused), and the spelling of answers, chunks and errors. It
must not know HTTP, sessions or runs. What is not done here is the list of `unsupported`.

Invariants: ``model`` names an agent, never a service's model; a request that asks for what cannot be done (tools,
several answers, pictures from the net) is refused with words, never half done; the newest message is a user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec

from openclaw_gateway.agents.keys import is_agent_id
from openclaw_gateway.agents.records import Attachment, Said, Sampling, Usage
from openclaw_gateway.completions.refusal import BadAsk
from openclaw_gateway.completions.unsupported import refuse_unsupported, refuse_unsupported_message, unused
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.value import Value

__all__ = ["DONE", "Asked", "BadAsk", "agent_of_model", "answer", "chunk", "error_body", "model_entry", "read_ask"]

DEFAULT: Final = "default"
DONE: Final = b"data: [DONE]\n\n"
MAX_MESSAGES: Final = 1_000
MAX_IMAGES: Final = 8
MAX_STOPS: Final = 4
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


@attrs.frozen(eq=False, repr=False)
class Asked(Value):
    """A request that can be served. ``agent_id`` None: the default agent. ``user``: whose conversation it is."""

    model: str
    agent_id: str | None
    system: str | None = attrs.field(repr=False)
    history: tuple[Said, ...] = attrs.field(repr=False)
    text: str = attrs.field(repr=False)
    attachments: tuple[Attachment, ...] = attrs.field(repr=False)
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    user: str | None = None
    unused: tuple[str, ...] = ()  # parameters that were taken and change nothing


def agent_of_model(model: str) -> str | None:
    """``openclaw/<agent>``, ``openclaw:<agent>`` and ``agent:<agent>`` name an agent, ``openclaw`` and
    ``openclaw/default`` the default one (None). Raises `BadAsk`."""
    for prefix in ("openclaw/", "openclaw:", "agent:"):
        if model.startswith(prefix):
            named = model.removeprefix(prefix)
            if named == DEFAULT:
                return None
            if is_agent_id(named):
                return named
            break
    if model == "openclaw":
        return None
    raise BadAsk(
        "model names an agent here: openclaw/default or openclaw/<agent id>; GET /v1/models lists them", "model"
    )


def read_ask(body: bytes) -> Asked:
    """Raises `BadAsk`."""
    try:
        given = decode_whole(msgspec.json.decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadAsk("the body is no JSON") from None
    if not isinstance(given, dict):
        raise BadAsk("the body is no JSON object")
    model = given.get("model")
    if not isinstance(model, str):
        raise BadAsk("model is missing", "model")
    refuse_unsupported(given)
    system, said, attachments = _conversation(given.get("messages"))
    stream, options = given.get("stream"), given.get("stream_options")
    if stream is not None and not isinstance(stream, bool):
        raise BadAsk("stream is true or false", "stream")
    if options is not None and not isinstance(options, dict):
        raise BadAsk("stream_options is an object", "stream_options")
    user = given.get("user")
    if user is not None and (not isinstance(user, str) or len(user) > 512):
        raise BadAsk("user is a text of at most 512 characters", "user")
    return Asked(
        model=model,
        agent_id=agent_of_model(model),
        system=system,
        history=tuple(said[:-1]),
        text=said[-1].text,
        attachments=attachments,
        sampling=_sampling(given),
        stream=stream is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        user=user or None,
        unused=unused(given),
    )


def _conversation(messages: Any) -> tuple[str | None, list[Said], tuple[Attachment, ...]]:
    """The system prompt, both sides' messages (the last is the question), and the question's pictures."""
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise BadAsk(f"messages is a list of 1 to {MAX_MESSAGES} messages", "messages")
    system: list[str] = []
    said: list[Said] = []
    pictures: tuple[Attachment, ...] = ()
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise BadAsk(f"{where} has a role that is not supported (system, developer, user, assistant)", where)
        refuse_unsupported_message(message, where)
        text, images = _content(message.get("content"), where)
        if role in {"system", "developer"}:
            system.append(text)
        else:
            said.append(Said("user" if role == "user" else "assistant", text))
            pictures = images
    if not said or said[-1].role != "user":
        raise BadAsk("the last message must be a user's", "messages")
    if not said[-1].text.strip() and not pictures:
        raise BadAsk("the last message is empty", "messages")
    return "\n\n".join(text for text in system if text) or None, said, pictures


def _content(content: Any, where: str) -> tuple[str, tuple[Attachment, ...]]:
    if content is None:
        return "", ()
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    images: list[Attachment] = []
    for given in content if isinstance(content, list) else ({},):
        part: dict[str, Any] = given if isinstance(given, dict) else {}
        kind = part.get("type")
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            texts.append(part[kind])
        elif kind == "image_url":
            images.append(_image(part.get("image_url"), where))
        else:
            raise BadAsk(f"{where} has content that is not supported (text, image_url with a data: URL)", where)
    if len(images) > MAX_IMAGES:
        raise BadAsk(f"{where} has more than {MAX_IMAGES} pictures", where)
    return "\n".join(texts), tuple(images)


def _image(value: Any, where: str) -> Attachment:
    url = value.get("url") if isinstance(value, dict) else value
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64") or not data:
        raise BadAsk(f"{where}: a picture is given as data:image/...;base64,...; this gateway fetches none", where)
    return Attachment(mime=head.removeprefix("data:").removesuffix(";base64")[:100], data=data)


def _sampling(given: Mapping[str, Any]) -> Sampling:
    numbers: dict[str, Any] = {}
    for name, (low, high) in _RANGES.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadAsk(f"{name} is a number from {low} to {high}", name)
        numbers[name] = float(value)
    for name in ("max_tokens", "max_completion_tokens"):  # the second is the current name and wins
        most = _whole(given, name, 1)
        numbers["max_tokens"] = most if most is not None else numbers.get("max_tokens")
    stop = given.get("stop")
    stops = [stop] if isinstance(stop, str) else stop if stop is not None else []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(one, str) and one for one in stops):
        raise BadAsk(f"stop is a text or a list of at most {MAX_STOPS} texts", "stop")
    return Sampling(seed=_whole(given, "seed", -(2**53)), stop=tuple(stops), **numbers)


def _whole(given: Mapping[str, Any], name: str, least: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**53:
        raise BadAsk(f"{name} is a whole number" + (" of at least 1" if least == 1 else ""), name)
    return value


# --- what goes out


def answer(
    *, id_: str, created: int, model: str, text: str, finish: Literal["stop", "length"], usage: Usage | None
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": id_,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(usage or Usage()),
    }


def chunk(
    *,
    id_: str,
    created: int,
    model: str,
    delta: Mapping[str, Any] | None = None,
    finish: str | None = None,
    usage: Usage | None = None,
) -> bytes:
    """One event of a stream; with ``usage`` the one that tells it."""
    choices = [] if usage is not None else [{"index": 0, "delta": dict(delta or {}), "finish_reason": finish}]
    body: dict[str, Any] = {
        "id": id_,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
    }
    if usage is not None:
        body["usage"] = _usage(usage)
    return event(body)


def event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_entry(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "openclaw"}


def _usage(usage: Usage) -> dict[str, Any]:
    prompt = usage.input + usage.cache_read + usage.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
    }
