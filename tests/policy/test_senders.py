"""The decision about a sender: every rule in its order, ids that are none, and codes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.senders import (
    CODE_ALPHABET,
    CODE_LENGTH,
    LIVE_AGE_MS,
    MAX_PENDING_PER_ACCOUNT,
    SenderQuestion,
    SenderRules,
    canonical_sender,
    code_from,
    decide,
    plain_code,
    read_allow_from,
)

ID = "123456789"


def ask(policy: Any = "pairing", *, allow: tuple[str, ...] = (), enabled: bool = True, **facts: Any) -> SenderQuestion:
    rules = SenderRules(policy=policy, allow_from=frozenset(allow), enabled=enabled)
    given_: dict[str, Any] = {"channel": "telegram", "context": "dm", "sender_id": ID, "rules": rules}
    return SenderQuestion(**{**given_, **facts})


@pytest.mark.parametrize(
    ("question", "kind", "reason"),
    [
        (ask("open"), "allow", "policy is open"),
        (ask("pairing"), "challenge", "a code is due"),
        (ask("closed"), "deny", "policy is closed"),
        (ask("allowlist"), "deny", "does not name"),
        (ask("pairing", allow=(ID,)), "allow", "allowFrom"),
        (ask("allowlist", allow=(ID,)), "allow", "allowFrom"),
        (ask("closed", allow=(ID,)), "deny", "closed"),
        (ask("closed", session="allow"), "deny", "closed"),
        (ask("pairing", session="allow"), "allow", "paired"),
        (ask("allowlist", session="allow"), "allow", "paired"),
        (ask("open", session="deny"), "deny", "deny"),
        (ask("open", allow=(ID,), session="deny"), "deny", "deny"),
        (ask("open", session="pair"), "challenge", "a code is due"),
        (ask("pairing", allow=(ID,), session="pair"), "challenge", "a code is due"),
        (ask("open", enabled=False), "deny", "enabled"),
        (ask("open", sender_id=None), "deny", "immutable id"),
        (ask("open", readable=False), "silent", "cannot be read"),
        (ask(pending=True), "silent", "waits already"),
        (ask(live=False), "silent", "not a live message"),
        (ask(age_ms=LIVE_AGE_MS + 1), "silent", "minutes ago"),
        (ask(age_ms=LIVE_AGE_MS), "challenge", "a code is due"),
        (ask(account_pending=MAX_PENDING_PER_ACCOUNT), "silent", "3 requests wait"),
        (ask(account_pending=MAX_PENDING_PER_ACCOUNT - 1), "challenge", "a code is due"),
    ],
)
def test_s080_s082_each_rule(question: SenderQuestion, kind: str, reason: str) -> None:
    verdict = decide(question)
    assert verdict.kind == kind
    assert reason in verdict.trail[-1]


def test_v27_nothing_lets_a_group_in() -> None:
    for policy, session, allow in itertools.product(
        ("open", "pairing", "closed", "allowlist"), (None, "allow", "deny", "pair"), ((), (ID,))
    ):
        verdict = decide(ask(policy, allow=allow, session=session, context="group"))
        assert verdict.kind == "deny"
        assert "context group" in verdict.trail[-1]


def test_pair10_only_a_live_message_is_ever_challenged() -> None:
    for policy, session in itertools.product(("open", "pairing", "closed", "allowlist"), (None, "allow", "pair")):
        for stale in ({"live": False}, {"age_ms": LIVE_AGE_MS + 1}):
            assert decide(ask(policy, session=session, **stale)).kind != "challenge"


@pytest.mark.parametrize(
    ("channel", "text", "expected"),
    [
        ("telegram", "123456789", "123456789"),
        ("telegram", "tg:123456789", "123456789"),
        ("telegram", "telegram:42", "42"),
        ("telegram", "-100123", None),
        ("telegram", "@alice", None),
        ("telegram", "trusted-user-1", None),
        ("telegram", "007", None),
        ("telegram", "\uff11\uff12\uff13", None),
        ("telegram", "1\n2", None),
        ("discord", "175928847299117063", "175928847299117063"),
        ("discord", "<@175928847299117063>", "175928847299117063"),
        ("discord", "<@!175928847299117063>", "175928847299117063"),
        ("discord", "user:175928847299117063", "175928847299117063"),
        ("discord", "alice#1234", None),
        ("discord", "alice", None),
        ("whatsapp", "+49 151 1234567", "+491511234567"),
        ("whatsapp", "491511234567@s.whatsapp.net", "+491511234567"),
        ("whatsapp", "491511234567:12@s.whatsapp.net", "+491511234567"),
        ("whatsapp", "123456789012@lid", "123456789012@lid"),
        ("whatsapp", "Alice", None),
        ("matrix", "@alice:example.org", "@alice:example.org"),
        ("matrix", "Alice Smith", None),
        ("matrix", "", None),
        ("matrix", "x" * 129, None),
        ("matrix", "a\x1b[2J", None),
    ],
)
def test_v28_only_immutable_ids(channel: str, text: str, expected: str | None) -> None:
    assert canonical_sender(channel, text) == expected


@given(st.sampled_from(["telegram", "discord", "whatsapp", "other"]), st.text())
def test_v28_an_id_is_its_own_canonical_form(channel: str, text: str) -> None:
    known = canonical_sender(channel, text)
    if known is not None:
        assert canonical_sender(channel, known) == known


def test_v28_a_name_in_the_configuration_is_a_fault_and_matches_nobody() -> None:
    ids, faults = read_allow_from("telegram", ["trusted-user-1", "123", "@bob"], policy="pairing")
    assert ids == {"123"}
    assert len(faults) == 2
    assert "trusted-user-1" in faults[0]
    assert "a number" in faults[0]


def test_c10_a_star_counts_with_open_only() -> None:
    assert read_allow_from("telegram", ["*"], policy="open") == (frozenset(), ())
    ids, faults = read_allow_from("telegram", ["*"], policy="allowlist")
    assert ids == frozenset()
    assert "set the policy to open" in faults[0]


def test_a_fault_shows_no_control_characters() -> None:
    _, faults = read_allow_from("telegram", ["\x1b[31mred"], policy="pairing")
    assert faults[0].isprintable()


@given(st.binary(min_size=5, max_size=64))
def test_s075_a_code_is_eight_unambiguous_letters(digest: bytes) -> None:
    code = code_from(digest)
    assert len(code) == CODE_LENGTH
    assert set(code) <= set(CODE_ALPHABET)
    assert not set(code) & set("01IO")
    assert plain_code(f" {code[:4].lower()}-{code[4:]} ") == code


def test_codes_use_all_forty_bits() -> None:
    assert code_from(bytes(5)) == "A" * 8
    assert code_from(b"\xff" * 5) == "9" * 8
    assert len({code_from(i.to_bytes(5, "big") + b"more") for i in range(1000)}) == 1000
