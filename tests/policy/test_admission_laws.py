"""Laws of admission, over everything that can be measured (V10, V12, V22, V59, V60)."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from openclaw_gateway.policy.admission import (
    UNREADABLE,
    AdmissionQuestion,
    AdmissionRules,
    Admitted,
    AutoApproveRules,
    DeviceTokenOutcome,
    PairingNeeded,
    Refused,
    admit,
    pairing_refusal,
)
from openclaw_gateway.policy.origin import OriginVerdict
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.protocol.connect import (
    CLIENT_IDS,
    CLIENT_MODES,
    ClientInfo,
    ConnectAuth,
    ConnectParams,
)
from openclaw_gateway.protocol.device import DeviceVerdict
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, satisfies
from tests.policy.builders import LAN, LOCAL, NO_ORIGIN, PROOF, REMOTE, VERIFIED, Approval, networks, peer_from

SECRET = "S3CRET-MARK"
SCOPES = st.lists(st.sampled_from([*sorted(KNOWN_OPERATOR_SCOPES), "operator.other", "*", ""]), max_size=5).map(tuple)


def mostly(good: Any, *others: Any) -> st.SearchStrategy[Any]:
    """``good`` three times out of four: a question with one fault says more than one with five."""
    return st.sampled_from([good] * 3 * len(others) + list(others))


SECRETS = st.none() | st.just(SECRET) | st.just("")

CLIENTS = st.builds(
    ClientInfo,
    id=st.sampled_from(sorted(CLIENT_IDS)),
    mode=st.sampled_from(sorted(CLIENT_MODES)),
    version=st.just("1"),
    platform=st.just("linux"),
    display_name=st.none() | st.sampled_from(["gateway:health", "admin"]),
)
PARAMS = st.builds(
    ConnectParams,
    min_protocol=mostly(4, 1, 3, 5),
    max_protocol=mostly(4, 3, 6),
    client=CLIENTS,
    role=mostly("operator", "node", "node", "admin"),
    scopes=SCOPES,
    device=mostly(PROOF, None),
    auth=st.builds(ConnectAuth, token=SECRETS, password=SECRETS, device_token=SECRETS, bootstrap_token=SECRETS),
)
RULES = st.builds(
    AdmissionRules,
    auth_type=mostly("token", "password", "none", "trusted-proxy"),
    allow_query_token=st.booleans(),
    legacy_v3=st.booleans(),
    auto_approve=st.builds(
        AutoApproveRules,
        loopback=st.booleans(),
        own_tailnet=st.booleans(),
        lan=st.sampled_from([networks(), networks("192.168.0.0/16", "0.0.0.0/0")]),
        shared_secret=st.sampled_from(["off", "baseline"]),
    ),
    own_tailnet_addresses=st.sampled_from([frozenset[str](), frozenset({"100.64.0.7"})]),
)
PERSON = Vouched(source="trusted-proxy", user="nick", scopes=("operator.read", "operator.approvals"))
PEERS = st.sampled_from(
    [
        LOCAL,
        attrs.evolve(peer_from("203.0.113.9", host="gw.example"), vouched=PERSON),
        attrs.evolve(peer_from("203.0.113.9", host="gw.example"), vouched=Vouched(source="tailscale", reason="no")),
        LAN,
        REMOTE,
        peer_from("100.64.0.7", host="x"),
        peer_from(x_forwarded_for="127.0.0.1"),
        peer_from(host="a.b"),
        peer_from("203.0.113.9", host="gw.example", tls=True),
    ]
)
ORIGINS = mostly(NO_ORIGIN, OriginVerdict(ok=False, reason="origin is not allowed", browser=True))
APPROVALS = st.builds(
    Approval,
    device_id=mostly(VERIFIED.device_id, "ff" * 32),
    role=mostly("operator", "node"),
    scopes=SCOPES,
)
PAIRINGS = st.sampled_from([0, 0, 1, 1, 1, 2]).flatmap(lambda kind: (st.none(), APPROVALS, st.just(UNREADABLE))[kind])
QUESTIONS = st.builds(
    AdmissionQuestion,
    params=PARAMS,
    peer=PEERS,
    rules=RULES,
    origin=ORIGINS,
    secret=mostly(SecretOutcome.MATCH, *SecretOutcome),
    secret_via=st.sampled_from([None, "token", "password", "query", "bearer"]),
    locked_for=st.floats(0, 300),
    device=mostly(VERIFIED, DeviceVerdict(ok=False, fault="device-signature"), None),
    device_token=mostly(DeviceTokenOutcome.MATCH, *DeviceTokenOutcome),
    api_key=st.sampled_from([*[ApiKeyOutcome.NONE] * 12, *[ApiKeyOutcome.MATCH] * 4, *ApiKeyOutcome]),
    api_key_scopes=SCOPES,
    pairing=PAIRINGS,
    approved_roles=st.sampled_from([(), ("operator",), ("node", "operator")]),
    revoked=mostly(False, True),
    transport=st.sampled_from(["websocket", "http"]),
)


def server_grant(q: AdmissionQuestion, verdict: Admitted) -> frozenset[str]:
    """What the server itself would give at most, by another way of thinking than the code's."""
    if q.params.role != "operator":
        return frozenset()
    if verdict.method == "api-key":
        held = frozenset(q.api_key_scopes)
        of_key = frozenset(scope for scope in KNOWN_OPERATOR_SCOPES if satisfies(held, scope))
        if verdict.device_id is None:
            return of_key
        assert isinstance(q.pairing, Approval)
        approved = frozenset(q.pairing.scopes)
        return frozenset(scope for scope in of_key if satisfies(approved, scope))
    if verdict.user is not None and not verdict.pair_silently:
        held = frozenset(PERSON.scopes)
        if verdict.device_id is not None:
            assert isinstance(q.pairing, Approval)
            held |= frozenset(q.pairing.scopes)
        return frozenset(scope for scope in KNOWN_OPERATOR_SCOPES if satisfies(held, scope))
    if verdict.device_id is None or verdict.pair_silently:
        baseline_only = not q.peer.direct_loopback and q.peer.address not in q.rules.own_tailnet_addresses
        return frozenset({"operator.read", "operator.write"}) if baseline_only else KNOWN_OPERATOR_SCOPES
    assert isinstance(q.pairing, Approval)
    approved = frozenset(q.pairing.scopes)
    return frozenset(scope for scope in KNOWN_OPERATOR_SCOPES if satisfies(approved, scope))


@settings(max_examples=600)
@given(QUESTIONS)
def test_v10_v22_a_grant_is_within_what_was_asked_and_what_the_server_gives(q: AdmissionQuestion) -> None:
    verdict = admit(q)
    if isinstance(verdict, Admitted):
        asked = frozenset(q.params.scopes)
        assert all(satisfies(asked, scope) for scope in verdict.scopes)
        assert set(verdict.scopes) <= server_grant(q, verdict)
        assert verdict.role == q.params.role
        if not asked:
            assert verdict.scopes == ()
        if ADMIN not in asked:
            assert set(verdict.scopes) <= asked | {"operator.read"}


@settings(max_examples=600)
@given(QUESTIONS)
def test_v59_nobody_gets_past_a_credential_that_does_not_hold(q: AdmissionQuestion) -> None:
    verdict = admit(q)
    if isinstance(verdict, Refused):
        return
    secret = q.rules.auth_type == "none" or q.secret is SecretOutcome.MATCH
    token = q.device_token is DeviceTokenOutcome.MATCH and isinstance(q.pairing, Approval) and not q.revoked
    key = q.api_key is ApiKeyOutcome.MATCH and q.params.role == "operator"
    wrong = {SecretOutcome.MISMATCH, SecretOutcome.MALFORMED, SecretOutcome.LOOKS_LIKE_SETUP_CODE, SecretOutcome.LOCKED}
    named = q.peer.vouched is PERSON and q.params.role == "operator" and q.api_key is ApiKeyOutcome.NONE
    person = named and q.secret not in wrong
    assert secret or token or key or person
    assert q.origin.ok
    if verdict.device_id is None:
        assert secret or key or person
        elsewhere = key and q.transport == "http" and q.peer.encrypted
        assert q.peer.direct_loopback or elsewhere or person
    else:
        assert q.device is VERIFIED
        assert q.pairing is not UNREADABLE


@settings(max_examples=600)
@given(QUESTIONS)
def test_v26_an_api_key_leaves_nothing_that_outlives_it(q: AdmissionQuestion) -> None:
    verdict = admit(attrs.evolve(q, api_key=ApiKeyOutcome.MATCH))
    assert not isinstance(verdict, Admitted) or (verdict.method == "api-key" and not verdict.pair_silently)
    if isinstance(verdict, PairingNeeded):
        held = frozenset(q.api_key_scopes)
        assert all(satisfies(held, scope) for scope in verdict.scopes)  # nor asks for more than it has


@settings(max_examples=400)
@given(QUESTIONS, st.sampled_from([ApiKeyOutcome.REVOKED, ApiKeyOutcome.EXPIRED, ApiKeyOutcome.WRONG]))
def test_v26_a_key_that_does_not_hold_adds_nothing(q: AdmissionQuestion, outcome: ApiKeyOutcome) -> None:
    with_key, without = admit(attrs.evolve(q, api_key=outcome)), admit(attrs.evolve(q, api_key=ApiKeyOutcome.NONE))
    if q.peer.vouched is PERSON:  # beside a key that does not hold, a name is not looked at
        assert rank(with_key)[0] <= rank(without)[0]
    else:
        assert rank(with_key) == rank(without)


def rank(verdict: Admitted | PairingNeeded | Refused) -> tuple[int, frozenset[str]]:
    if isinstance(verdict, Admitted):
        return 2, frozenset(verdict.scopes)
    return (1, frozenset()) if isinstance(verdict, PairingNeeded) else (0, frozenset())


@settings(max_examples=600)
@given(QUESTIONS, CLIENTS)
def test_v12_what_a_client_says_it_is_opens_no_door(q: AdmissionQuestion, other: ClientInfo) -> None:
    # A mode may let protocol 3 in where it is off for the rest; that is a language, not a right.
    assume(q.params.min_protocol <= 4 <= q.params.max_protocol)
    plain = ClientInfo(id="test", mode="test", version="1", platform="linux")
    with_plain, outcome = rank(admit(with_client(q, plain))), rank(admit(with_client(q, other)))
    assert outcome[0] == with_plain[0]
    assert outcome[1] <= with_plain[1]
    if other.mode != "probe":
        assert outcome == with_plain


def with_client(q: AdmissionQuestion, client: ClientInfo) -> AdmissionQuestion:
    return attrs.evolve(q, params=attrs.evolve(q.params, client=client))


@settings(max_examples=400)
@given(QUESTIONS)
def test_v60_an_unreadable_book_admits_no_device(q: AdmissionQuestion) -> None:
    verdict = admit(attrs.evolve(q, pairing=UNREADABLE, device=VERIFIED, params=attrs.evolve(q.params, device=PROOF)))
    assert isinstance(verdict, Refused)
    if q.secret is SecretOutcome.MATCH and verdict.error.key not in (
        "protocol-mismatch",
        "invalid-role",
        "origin-not-allowed",
        *(key for key in ERRORS if key.startswith("auth-api-key")),  # a node that shows an API key is wrong either way
    ):
        assert verdict.error.retryable


@settings(max_examples=600)
@given(QUESTIONS)
def test_no_verdict_holds_a_credential_and_every_refusal_is_a_row_with_a_hint(q: AdmissionQuestion) -> None:
    verdict = admit(q)
    if isinstance(verdict, PairingNeeded):
        assert SECRET not in repr(verdict)
        verdict = pairing_refusal(verdict, "r")
    assert SECRET not in repr(verdict)
    assert all(step.isprintable() for step in verdict.trail)
    if isinstance(verdict, Refused):
        wire: dict[str, Any] = json.loads(json.dumps(verdict.error.to_wire()))
        assert verdict.error.key in ERRORS
        assert wire["details"]["remediationHint"]
        assert verdict.close.code == ERRORS[verdict.error.key].close
        assert 400 <= verdict.http_status < 600


@settings(max_examples=400)
@given(QUESTIONS)
def test_v14_only_wrong_credentials_are_counted(q: AdmissionQuestion) -> None:
    verdict = admit(q)
    if isinstance(verdict, Refused) and verdict.counts is not None:
        assert q.secret is not SecretOutcome.MATCH
        assert q.rules.auth_type != "none"
    wrong = {SecretOutcome.MISMATCH, SecretOutcome.MALFORMED, SecretOutcome.LOOKS_LIKE_SETUP_CODE}
    compared = q.secret in wrong and q.rules.auth_type != "none" and isinstance(verdict, Refused)
    if (
        compared
        and isinstance(verdict, Refused)
        and verdict.error.key
        not in (
            "protocol-mismatch",
            "invalid-role",
            "origin-not-allowed",
            "pairing-unreadable",
            "auth-scope-mismatch",
            "auth-api-key-role",
            "auth-api-key-needs-encryption",
        )
        and q.api_key is not ApiKeyOutcome.MATCH
    ):
        assert verdict.counts is not None


def kinds(verdict: Admitted | PairingNeeded | Refused) -> set[str]:
    if isinstance(verdict, PairingNeeded):
        return {verdict.reason}
    if isinstance(verdict, Refused):
        return {str(verdict.error.key)}
    how = "silent" if verdict.pair_silently else "device" if verdict.device_id is not None else "local"
    found = {f"{how}, {'with' if verdict.scopes else 'without'} scopes", verdict.method}
    return found | ({"upgrade"} if verdict.upgrade_scopes else set())


@pytest.mark.deadline(120)  # eight thousand questions, on whatever machine
def test_the_questions_reach_every_kind_of_verdict() -> None:
    seen: set[str] = set()

    @settings(max_examples=8000, derandomize=True, phases=[Phase.generate], database=None)
    @given(QUESTIONS)
    def ask(q: AdmissionQuestion) -> None:
        seen.update(kinds(admit(q)))

    ask()
    assert seen >= {
        "api-key",
        "auth-api-key-expired",
        "auth-api-key-needs-encryption",
        "auth-api-key-revoked",
        "auth-api-key-role",
        "auth-token-mismatch",
        "device, with scopes",
        "device, without scopes",
        "device-identity-required",
        "device-token",
        "local, with scopes",
        "none",
        "not-paired",
        "origin-not-allowed",
        "pairing-unreadable",
        "password",
        "role-upgrade",
        "scope-upgrade",
        "silent, with scopes",
        "silent, without scopes",
        "token",
    }
