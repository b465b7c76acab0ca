"""What of OpenAI's chat completions API is not done here: named, and refused before anything runs.

Pure. Owns the list: parameters whose effect would be missing from the answer are refused with their name
(``unsupported_parameter``, or ``unsupported_value`` where another value would do); hints, whose absence nobody can tell
from the answer, are taken; so is what OpenAI's API does not know, because front ends send members of their own. It must
not know what the parameters that are used mean (`wire` does).

Invariants: nothing that a client asked for is left out in silence: what is taken and not used is `unused`, and its
names go back with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from openclaw_gateway.completions.refusal import BadAsk

__all__ = ["refuse_unsupported", "refuse_unsupported_message", "unused"]

MAX_UNUSED: Final = 16
MAX_NAME: Final = 64

_TEXT_ONLY: Final = "the agents behind this API answer in text"

# What makes sense of a request here. The rest is refused below, or unused.
_USED: Final = frozenset(
    {
        "model", "messages", "stream", "stream_options", "user", "n", "temperature", "top_p", "max_tokens",
        "max_completion_tokens", "stop", "seed", "frequency_penalty", "presence_penalty", "tools", "tool_choice",
        "functions", "function_call", "logprobs", "top_logprobs", "response_format", "logit_bias", "modalities",
    }
)  # fmt: skip


def _is_text_format(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


# name -> (what may be said, why everything else is refused)
_LIMITED: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "n": (lambda value: value == 1, "only one answer at a time (n = 1)"),
    "logprobs": (lambda value: value is False, "logprobs are not known here: model services are behind an agent"),
    "top_logprobs": (lambda value: value == 0, "logprobs are not known here: model services are behind an agent"),
    "response_format": (_is_text_format, f"response_format other than text is not supported: {_TEXT_ONLY}"),
    "logit_bias": (lambda value: value == {}, "logit_bias is not supported: an agent may ask several models"),
    "modalities": (lambda value: value == ["text"], f"modalities other than text are not supported: {_TEXT_ONLY}"),
    "audio": (lambda value: False, f"audio is not supported: {_TEXT_ONLY}"),
    "web_search_options": (lambda value: False, "web_search_options are not supported: an agent has its own tools"),
    "store": (lambda value: value is False, "store is not supported: name the conversation with user instead"),
    "functions": (lambda value: value == [], f"functions are not supported: {_TEXT_ONLY}"),
    "function_call": (lambda value: value in ("auto", "none"), f"functions are not supported: {_TEXT_ONLY}"),
}
_OF_MESSAGE: Final = ("tool_calls", "function_call", "audio")


def refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Raises `BadAsk` for the first parameter that asks for what is not done here. None (null) asks for nothing."""
    for name, (allowed, why) in _LIMITED.items():
        value = given.get(name)
        if value is not None and not allowed(value):
            raise BadAsk(why, name, code="unsupported_parameter" if name in {"audio", "store"} else "unsupported_value")
    _refuse_tools(given)


def _refuse_tools(given: Mapping[str, Any]) -> None:
    tools, choice = given.get("tools"), given.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise BadAsk("tools is a list", "tools")
    if choice not in (None, "auto", "none"):
        why = f"tools that must be called are not supported: {_TEXT_ONLY}"
        raise BadAsk(why, "tool_choice", code="unsupported_value")
    if tools and choice != "none":
        why = f"tools of a request are not called here: {_TEXT_ONLY} (tool_choice none works)"
        raise BadAsk(why, "tools", code="unsupported_parameter")


def refuse_unsupported_message(message: Mapping[str, Any], where: str) -> None:
    """The same for one entry of ``messages``. Raises `BadAsk`."""
    for name in _OF_MESSAGE:
        if message.get(name) not in (None, []):
            raise BadAsk(f"{where}.{name} is not supported: {_TEXT_ONLY}", where, code="unsupported_parameter")


def unused(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what was taken and changes nothing, as far as they are names."""
    plain = (name for name, value in given.items() if value is not None and name not in _USED)
    found = [name for name in plain if name not in _LIMITED and len(name) <= MAX_NAME and _is_name(name)]
    return tuple(sorted(found)[:MAX_UNUSED])


def _is_name(text: str) -> bool:
    return text.isascii() and text.replace("_", "").replace("-", "").replace(".", "").isalnum()
