"""What of a conversation a model is handed.

Pure. Owns the estimate of tokens, the choice of messages that fit, and their shape: the first is a user's, the two
sides take turns. It must not know services or the store.

Invariants: the question is always there, whole; of what was said before the newest stays, without a hole; an answer
never comes without the question before it; an answer that failed or was empty is left out, as if it had not been.
The estimate is on the safe side for prose in any script; the service counts for itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from openclaw_gateway.agents.records import Attachment, Message, RunRequest
from openclaw_gateway.models.provider import Image, Spoken

__all__ = ["IMAGE_TOKENS", "conversation", "estimate", "fitting"]

PER_MESSAGE: Final = 6  # tokens around each message
IMAGE_TOKENS: Final = 1_600
MAX_INLINED: Final = 64 * 1024  # characters of a text file that is put into its message
_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_TEXTS: Final = ("text/", "application/json", "application/xml", "application/yaml")
_NOTHING: Final = "(nothing)"


def estimate(text: str) -> int:
    """About how many tokens a text has: a quarter of its ASCII characters and one for each other one."""
    if text.isascii():
        return (len(text) + 3) // 4
    plain = len(text.encode("ascii", "ignore"))
    return (plain + 3) // 4 + len(text) - plain


def fitting(said: Sequence[Spoken], budget: int) -> tuple[Spoken, ...]:
    """The newest of ``said`` (the last is the question) that fit ``budget`` tokens, beginning with a user's. The
    question stays whatever it costs."""
    room = budget - _cost(said[-1])
    first = len(said) - 1
    while first > 0:
        room -= _cost(said[first - 1])
        if room < 0:
            break
        first -= 1
    while said[first].role != "user":
        first += 1
    return tuple(said[first:])


def conversation(history: Sequence[Message], request: RunRequest, *, images: bool, named: bool = False) -> list[Spoken]:
    """A conversation with its newest question as one side after the other. ``images``: the model takes them;
    ``named``: several people write, and the model is told who."""
    said: list[Spoken] = []
    for message in history:
        if message.role == "system" or (message.role == "assistant" and not message.text.strip()):
            continue
        role = "user" if message.role == "user" else "assistant"
        one = _spoken(role, message.text, message.attachments, message.sender_name if named else None, images=images)
        _add(said, one)
    _add(
        said, _spoken("user", request.text, request.attachments, request.sender_name if named else None, images=images)
    )
    return said


def _add(said: list[Spoken], one: Spoken) -> None:
    """Two messages of one side in a row become one: no service takes them otherwise."""
    if not said and one.role == "assistant":
        return
    if said and said[-1].role == one.role:
        before = said.pop()
        one = Spoken(one.role, f"{before.text}\n\n{one.text}", before.images + one.images)
    said.append(one)


def _spoken(
    role: str, text: str, attachments: Sequence[Attachment], sender: str | None, *, images: bool
) -> Spoken:  # fmt: skip
    if role == "assistant":
        return Spoken("assistant", text)
    pictures, notes = [], []
    for one in attachments:
        if images and one.mime in _IMAGES and _is_base64(one.data):
            pictures.append(Image(one.mime, one.data))
        else:
            notes.append(_note(one))
    whole = "\n\n".join(part for part in (text, *notes) if part.strip())
    if sender:
        whole = f"{sender}: {whole}"
    return Spoken("user", whole if whole.strip() or pictures else _NOTHING, tuple(pictures))


def _note(one: Attachment) -> str:
    """A file in words: its text where it is text, else that it is there."""
    label = f"[attachment {one.name or 'without a name'}, {one.mime}"
    if one.mime.startswith(_TEXTS):
        try:
            text = base64.b64decode(one.data, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return f"{label}: cannot be read]"
        return f"{label}]\n{text[:MAX_INLINED]}"
    return f"{label}: not shown to the model]"


def _is_base64(data: str) -> bool:
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(data)


def _cost(one: Spoken) -> int:
    return estimate(one.text) + IMAGE_TOKENS * len(one.images) + PER_MESSAGE
