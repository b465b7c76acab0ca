"""Secrets are compared in one place and one way (V15, V17), and say why they did not match (AUTH-2)."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import openclaw_gateway.policy.secrets
from openclaw_gateway.policy.secrets import (
    SecretOutcome,
    check_secret,
    compare,
    looks_like_setup_code,
    unmatched_outcome,
)

PACKAGE = Path(openclaw_gateway.policy.secrets.__file__).parents[1]
SETUP_CODE = (
    base64.urlsafe_b64encode(json.dumps({"url": "ws://h:1", "bootstrapToken": "b" * 43}).encode()).rstrip(b"=").decode()
)


@given(st.text(), st.text())
def test_compare_is_equality(presented: str, expected: str) -> None:
    assert compare(presented, expected) is (presented == expected)
    assert compare(presented, presented)


@pytest.mark.parametrize(
    ("presented", "expected", "outcome"),
    [
        ("right", "right", SecretOutcome.MATCH),
        ("wrong", "right", SecretOutcome.MISMATCH),
        ("", "right", SecretOutcome.MISSING),
        (None, "right", SecretOutcome.MISSING),
        ("right ", "right", SecretOutcome.MALFORMED),
        ("ri\tght", "right", SecretOutcome.MALFORMED),
        ("${GATEWAY_TOKEN}", "right", SecretOutcome.MALFORMED),
        ("__OPENCLAW_REDACTED__", "right", SecretOutcome.MALFORMED),
        (SETUP_CODE, "right", SecretOutcome.LOOKS_LIKE_SETUP_CODE),
        ("odd ${secret} ", "odd ${secret} ", SecretOutcome.MATCH),
    ],
)
def test_auth2_each_cause_has_its_own_outcome(presented: str | None, expected: str, outcome: SecretOutcome) -> None:
    assert check_secret(presented, expected) is outcome


@pytest.mark.parametrize("expected", [None, ""])
@pytest.mark.parametrize("presented", [None, "", "anything"])
def test_v17_a_secret_that_is_not_there_matches_nothing(presented: str | None, expected: str | None) -> None:
    assert check_secret(presented, expected) is SecretOutcome.UNRESOLVABLE


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (SETUP_CODE, True),
        ("oc-pair://" + SETUP_CODE, True),
        ("oc-pair://garbage", True),
        (base64.urlsafe_b64encode(b'{"alg":"none"}').decode(), False),
        ("eyJ", False),
        ("eyJ" + "é" * 5, False),
        ("a" * 43, False),
        ("", False),
        ("eyJ" + "A" * 10_000, False),
    ],
)
def test_setup_codes_are_recognised(text: str, is_one: bool) -> None:
    assert looks_like_setup_code(text) is is_one


@given(st.text())
def test_any_text_has_an_outcome(text: str) -> None:
    assert unmatched_outcome(text) in {
        SecretOutcome.MISMATCH,
        SecretOutcome.MALFORMED,
        SecretOutcome.LOOKS_LIKE_SETUP_CODE,
    }


SECRET_WORD = re.compile(r"(^|_)(token|secret|password|passwd|digest|signature|bearer|credential)s?($|_hash$|_digest$)")
PUBLIC = (str, int, bool, type(None))


def secret_name(node: ast.expr) -> str | None:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
    return name if name is not None and SECRET_WORD.search(name.lower()) else None


def comparisons(source: str) -> list[tuple[int, str]]:
    """Lines where something named like a secret is compared by value with something that is not a plain constant."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if not isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                continue
            constant = any(isinstance(side, ast.Constant) and isinstance(side.value, PUBLIC) for side in (left, right))
            name = secret_name(left) or (secret_name(right) if isinstance(operator, ast.Eq | ast.NotEq) else None)
            if name is not None and not constant:
                found.append((node.lineno, name))
    return found


def test_v15_the_scan_finds_what_it_is_for() -> None:
    assert comparisons("if presented_token == expected: pass")
    assert comparisons("if self.password != other.password: pass")
    assert comparisons("ok = token in tokens")
    assert not comparisons("if token is None or kind == 'token' or token == '': pass")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_v15_secrets_are_compared_nowhere_else(path: Path) -> None:
    allowed = {
        # Members of enums, not texts.
        "policy/question.py": {"secret"},
        "policy/credentials.py": {"secret", "device_token"},
        # Looked up by its SHA-256: how long that takes tells nothing about 256 random bits.
        "approvals/offers.py": {"digest"},
        # The checksum of a question, which is no secret.
        "queues/rows.py": {"digest"},
        # Both sides are the gateway's own: did the setting change?
        "server/credentials.py": {"password_hash"},
        "config/hookrules.py": {"secret"},
    }
    if path.relative_to(PACKAGE).parts[0] == "testing":
        return  # fakes of services, with secrets of nobody
    found = [
        (line, name)
        for line, name in comparisons(path.read_text(encoding="utf-8"))
        if name not in allowed.get(str(path.relative_to(PACKAGE)), set())
    ]
    assert found == []
