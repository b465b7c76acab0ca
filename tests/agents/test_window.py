"""What of a conversation a model is handed: pure, with laws."""

from __future__ import annotations

import base64
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.records import Attachment, Message, RunRequest
from openclaw_gateway.agents.window import IMAGE_TOKENS, conversation, estimate, fitting
from openclaw_gateway.models.provider import Spoken

PNG = Attachment(mime="image/png", data="aGk=", name="a.png")


def message(role: str, text: str, *attachments: Attachment, sender: str | None = None) -> Message:
    return Message(id="m", role=role, text=text, at_ms=0, sender_name=sender, attachments=attachments)  # type: ignore[arg-type]


def question(text: str = "and now?", *attachments: Attachment, sender: str | None = None) -> RunRequest:
    return RunRequest("r", "main", "agent:main:main", text, "test", 0, attachments=attachments, sender_name=sender)


def texts(said: list[Spoken] | tuple[Spoken, ...]) -> list[tuple[str, str]]:
    return [(one.role, one.text) for one in said]


def test_s028_the_two_sides_take_turns_and_a_user_begins() -> None:
    history = [
        message("assistant", "a note from before"),
        message("user", "one"),
        message("user", "two"),
        message("assistant", ""),
        message("user", "three"),
        message("assistant", "yes"),
        message("assistant", "and more"),
        message("system", "not for the model"),
    ]
    assert texts(conversation(history, question(), images=True)) == [
        ("user", "one\n\ntwo\n\nthree"),
        ("assistant", "yes\n\nand more"),
        ("user", "and now?"),
    ]


def test_s028_in_a_group_the_model_is_told_who_wrote() -> None:
    history = [message("user", "hi", sender="Ann"), message("assistant", "hello")]
    said = conversation(history, question("me too", sender="Bob"), images=False, named=True)
    assert texts(said) == [("user", "Ann: hi"), ("assistant", "hello"), ("user", "Bob: me too")]
    assert texts(conversation(history, question(sender="Bob"), images=False))[0] == ("user", "hi")


def test_pictures_and_files() -> None:
    notes = Attachment(mime="text/plain", data=base64.b64encode(b"line one").decode(), name="n.txt")
    pdf = Attachment(mime="application/pdf", data="aGk=", name="x.pdf")
    broken = Attachment(mime="image/png", data="***", name="b.png")
    [said] = conversation([], question("see", PNG, notes, pdf, broken), images=True)
    assert [image.data for image in said.images] == ["aGk="]
    assert said.text.split("\n\n") == [
        "see",
        "[attachment n.txt, text/plain]\nline one",
        "[attachment x.pdf, application/pdf: not shown to the model]",
        "[attachment b.png, image/png: not shown to the model]",
    ]
    [blind] = conversation([], question("see", PNG), images=False)
    assert (blind.images, "a.png" in blind.text) == ((), True)
    [alone] = conversation([], question("", PNG), images=True)
    assert (alone.text, len(alone.images)) == ("", 1)


def test_the_estimate_is_on_the_safe_side() -> None:
    assert estimate("") == 0
    assert estimate("abcd" * 100) == 100
    assert estimate("漢字" * 100) == 200
    assert estimate("äbcd") == 2


def test_s028_the_newest_stay() -> None:
    said = [Spoken("user", "a" * 400), Spoken("assistant", "b" * 400), Spoken("user", "c" * 400)]
    said += [Spoken("assistant", "d" * 400), Spoken("user", "e" * 400)]
    assert [one.text[0] for one in fitting(said, 1_000)] == list("abcde")
    assert [one.text[0] for one in fitting(said, 400)] == list("cde")
    assert [one.text[0] for one in fitting(said, 250)] == list("e"), "no answer without its question"
    assert [one.text[0] for one in fitting(said, 1)] == list("e"), "the question stays whatever it costs"


def test_a_picture_costs() -> None:
    [picture] = conversation([], question("x", PNG), images=True)
    said = [Spoken("user", "old"), Spoken("assistant", "old"), picture]
    assert len(fitting(said, IMAGE_TOKENS)) == 1
    assert len(fitting(said, IMAGE_TOKENS + 50)) == 3


HISTORY = st.lists(
    st.builds(message, st.sampled_from(["user", "assistant", "system"]), st.text(max_size=30)), max_size=20
)


@given(HISTORY, st.text(min_size=1, max_size=50).filter(str.strip), st.integers(0, 300))
def test_law_what_a_model_is_handed(history: list[Message], text: str, budget: int) -> None:
    whole = conversation(history, question(text), images=False)
    part = fitting(whole, budget)
    assert part[0].role == part[-1].role == "user"
    assert part[-1].text.endswith(text)
    assert list(part) == whole[len(whole) - len(part) :]
    assert all(one.role != other.role for one, other in pairwise(part))
    assert len(part) == 1 or sum(estimate(one.text) for one in part) <= budget
