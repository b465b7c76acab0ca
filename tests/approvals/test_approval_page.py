"""The page as HTML: escaped, small, readable without a script, and named by its policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.approvals import page
from openclaw_gateway.approvals.review import Review, review_of_device, review_of_surface

from .test_approval_review import NOW, surface, waiting

TICKETS = {"approve": "ticket-a", "reject": "ticket-r", "next": "ticket-n"}
VOID = {"meta", "input", "wbr", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "p", "h1", "h2", "section", "form", "label", "input",
    "button", "dl", "dt", "dd", "bdi", "code", "pre", "ul", "li", "div", "strong", "time", "wbr",
}  # fmt: skip


class Reader(HTMLParser):
    """The elements of a page, and whether they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.balanced = True

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.balanced = self.balanced and bool(self._open) and self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"style"}:
            self.text += data

    @property
    def whole(self) -> bool:
        return self.balanced and not self._open

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(body: bytes) -> Reader:
    reader = Reader()
    reader.feed(body.decode())
    reader.close()
    return reader


def pages(shown: Review) -> list[bytes]:
    return [
        page.sign_in("r1", asks="Gateway token or API key", alert="You were not let in", fix="openclaw doctor"),
        page.sign_in("", asks=None, needed=False),
        page.sign_in("r1", asks="API key", needed=False),
        page.review(shown, TICKETS, who="alice@example.com"),
        page.settled("Approved", "is let in.", name=shown.name, request="r1", tickets=TICKETS),
        page.settled("Decided already", "This request was approved.", command="openclaw devices list"),
        page.found_nothing(shown.name, "r1", TICKETS),
        page.trouble("Nothing was done", "Because.", "openclaw devices list"),
    ]


def test_s091_every_page_is_whole_small_and_without_a_script() -> None:
    for body in pages(review_of_device(waiting(), NOW)) + pages(review_of_surface(surface(), NOW)):
        assert len(body) < 10_000
        reader = read(body)
        assert reader.whole
        assert {tag for tag, _ in reader.elements} <= ALLOWED
        for _, attributes in reader.elements:
            assert not any(name.startswith("on") or name in {"style", "src", "href", "srcdoc"} for name in attributes)
        assert reader.all("html") == [{"lang": "en"}]
        assert len(reader.all("h1")) == len(reader.all("main")) == len(reader.all("title")) == 1
        assert {"name": "viewport", "content": "width=device-width,initial-scale=1"} in reader.all("meta")
        labelled = {label["for"] for label in reader.all("label")}
        shown = [field for field in reader.all("input") if field.get("type") != "hidden"]
        assert {field["id"] for field in shown} == labelled


def test_v7_the_policy_allows_this_style_and_nothing_else() -> None:
    """Clickjacking, scripts, foreign styles, a base that moves the form: all closed."""
    headers = dict(page.HEADERS)
    policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
    style = re.search(rb"<style>(.*?)</style>", page.trouble("t", "t"), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    assert policy == {
        "default-src": "'none'", "style-src": f"'sha256-{digest}'", "form-action": "'self'", "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }  # fmt: skip
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"cross-origin-opener-policy"] == b"same-origin"
    assert headers[b"referrer-policy"] == b"same-origin"


HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title></style><script>1</script>", "&lt;b&gt;",
    "'-alert(1)-'", "\u202egnp.exe\u202c", "\u2066evil\u2069", "a\x00b\x1b[31m\r\nc", "\u200b\ufeff", "\U000e0041",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_v7_a_hostile_name_is_text_wherever_it_stands(name: str) -> None:
    """The records clean names; the page does not rely on it."""
    row = waiting(caps=(), commands=()) | {
        "displayName": name, "platform": name, "deviceFamily": name, "clientId": name, "version": name,
        "remoteIp": name, "commands": [name], "caps": [name], "scopes": [name], "role": name,
    }  # fmt: skip
    shown = review_of_device(row, NOW)
    for body in [*pages(shown), page.sign_in(name, asks=name, alert=name, fix=name), page.trouble(name, name, name)]:
        reader = read(body)
        assert reader.whole
        assert {tag for tag, _ in reader.elements} <= ALLOWED
        assert not any(attribute.startswith("on") for _, attributes in reader.elements for attribute in attributes)
        text = body.decode().replace("\n", "")
        assert text.isprintable()
        assert "<script" not in text


@given(st.text(max_size=60))
def test_v7_any_name_leaves_the_page_whole(name: str) -> None:
    shown = attrs.evolve(review_of_device(waiting(), NOW), name=name, warning=name, note=name)
    reader = read(page.review(shown, TICKETS, who=name or None))
    assert reader.whole
    assert {tag for tag, _ in reader.elements} <= ALLOWED


def test_a_name_keeps_its_direction_to_itself() -> None:
    text = page.review(review_of_device(waiting(display_name="אבג"), NOW), TICKETS).decode()
    assert "<h1>“<bdi>אבג</bdi>” wants to join as a node</h1>" in text


def test_s091_review_has_one_form_for_each_decision() -> None:
    reader = read(page.review(review_of_device(waiting(), NOW), TICKETS))
    assert reader.all("form") == [{"method": "post", "action": "approve"}] * 2
    assert [button["value"] for button in reader.all("button")] == ["reject", "approve"]
    hidden = [(field["name"], field["value"]) for field in reader.all("input")]
    assert hidden == [("request", "r1"), ("ticket", "ticket-r"), ("request", "r1"), ("ticket", "ticket-a")]


def test_s091_the_first_page_asks_for_a_secret_that_no_one_reads_over_a_shoulder() -> None:
    reader = read(page.sign_in("r1", asks="API key"))
    (secret,) = [field for field in reader.all("input") if field["name"] == "secret"]
    assert secret["type"] == "password"
    assert "value" not in secret
    assert "openclaw tokens create" in reader.text
    assert "auth-token --show" in read(page.sign_in("r1", asks="Gateway token or API key")).text
    assert "required" in secret
    without = read(page.sign_in("r1", asks=None, needed=False))
    assert [field["name"] for field in without.all("input")] == ["request"]
    either = read(page.sign_in("r1", asks="API key", needed=False))
    (secret,) = [field for field in either.all("input") if field["name"] == "secret"]
    assert "required" not in secret
    assert "You need no secret here" in either.text


def _luminance(colour: str) -> float:
    colour = colour if len(colour) == 7 else "#" + "".join(char * 2 for char in colour[1:])
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_has_contrast_in_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    style = page.trouble("t", "t").decode().split("<style>")[1].split("</style>")[0]
    light, dark = style.split("@media(prefers-color-scheme:dark)")[:2]
    for scheme in (light, dark.split("}}")[0]):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", scheme))
        for text, ground in (
            ("ink", "card"), ("ink", "back"), ("dim", "card"), ("dim", "back"), ("goink", "go"), ("stop", "back"),
            ("stop", "card"), ("markink", "mark"),
        ):  # fmt: skip
            first, second = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
            assert (first + 0.05) / (second + 0.05) >= 4.5, (text, ground)
