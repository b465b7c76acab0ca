"""The template language: fields, and nothing that is more than a field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.hooks.template import MAX_FIELDS, MAX_RENDERED, Facts, TemplateFault, parse_template

PAYLOAD = {
    "action": "opened",
    "repository": {"name": "claw", "stars": 7, "private": False, "owner": None},
    "commits": [{"message": "first"}, {"message": "second"}],
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("{{action}} {{payload.action}}", "opened opened"),
        ("{{ repository.name }}: {{repository.stars}} {{repository.private}}", "claw: 7 false"),
        ("{{commits[1].message}}", "second"),
        ("{{commits[0]}}", '{"message":"first"}'),
        ("[{{repository.owner}}{{nobody.knows}}{{commits[9].message}}{{commits.length}}{{action.x}}]", "[]"),
        ("{{headers.x-event}} {{path}} {{now}}", "push github 2026"),
        ("{ {{action}} }", "{ opened }"),
    ],
)
def test_fields_are_picked_by_name_and_index(text: str, rendered: str) -> None:
    facts = Facts(PAYLOAD, {"x-event": "push"}, "github", "2026")
    assert parse_template(text).render(facts) == rendered


@pytest.mark.parametrize(
    "text",
    [
        "{{", "}}", "{{action", "action}}", "{{}}", "{{ }}", "{{a b}}", "{{a()}}", "{{a|upper}}", "{{a.__class__()}}",
        "{{a['b']}}", "{{a[-1]}}", "{{a[x]}}", "{{1 + 1}}", "{{a..b}}", "{{.a}}", "{{a.}}", "{{ {{a}} }}",
        "{{" + "a." * 16 + "b}}", "{{a}}" * (MAX_FIELDS + 1), "x" * 20_000,
        "{{headers.authorization}}", "{{headers.X-OpenClaw-Token}}", "{{headers.cookie}}", "{{headers.x-api-key}}",
    ],
)  # fmt: skip
def test_v43_what_is_more_than_a_field_is_no_template(text: str) -> None:
    with pytest.raises(TemplateFault):
        parse_template(text)


def test_v43_what_was_put_in_is_not_read_as_a_template() -> None:
    facts = Facts({"a": "{{b}}", "b": "secret"})
    assert parse_template("{{a}}").render(facts) == "{{b}}"


def test_v43_attributes_of_python_objects_are_not_reached() -> None:
    for text in ("{{a.__class__}}", "{{a.upper}}", "{{__class__}}", "{{b.keys}}", "{{c.0}}"):
        assert parse_template(text).render(Facts({"a": "x", "b": {}, "c": [1]})) == ""


def test_rule8_a_rendered_text_has_a_limit() -> None:
    template = parse_template("{{a}}" * 2)
    assert len(template.render(Facts({"a": "x" * (MAX_RENDERED // 2)}))) == MAX_RENDERED
    with pytest.raises(TemplateFault):
        template.render(Facts({"a": "x" * (MAX_RENDERED // 2 + 1)}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(text=st.text(alphabet="{}ab.[]0 _x|()", max_size=40), payload=JSON)
def test_any_text_is_a_template_or_a_fault_and_any_payload_renders(text: str, payload: Any) -> None:
    try:
        template = parse_template(text)
    except TemplateFault:
        return
    assert isinstance(template.render(Facts(payload)), str)
