"""Admission, case by case: the order of checks, the texts, and what each kind of caller gets."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from openclaw_gateway.policy.admission import (
    UNREADABLE,
    AdmissionRules,
    Admitted,
    AutoApproveRules,
    DeviceTokenOutcome,
    PairingNeeded,
    Refused,
    admit,
    admit_http,
    device_token_candidates,
    pairing_refusal,
    presented_secret,
)
from openclaw_gateway.policy.lockout import CredentialClass
from openclaw_gateway.policy.origin import OriginRules, OriginVerdict, check_origin
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.protocol.connect import ConnectAuth
from openclaw_gateway.protocol.device import DeviceVerdict
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, PAIRING, READ, WRITE
from tests.policy.builders import (
    DEVICE_ID,
    LAN,
    LOCAL,
    NO_ORIGIN,
    REMOTE,
    Approval,
    admitted,
    connect_params,
    detail,
    networks,
    pairing_needed,
    peer_from,
    question,
    refused,
)

UI = {"client_id": "openclaw-control-ui", "mode": "webchat"}
OFF = AutoApproveRules(loopback=False, own_tailnet=False)
BASELINE = AutoApproveRules(shared_secret="baseline")
PROXIED = peer_from(x_forwarded_for="198.51.100.1")


# --- protocol and role ---


@pytest.mark.parametrize(
    ("low", "high", "legacy", "who", "spoken"),
    [
        (4, 4, True, {}, 4),
        (3, 4, True, {"mode": "probe"}, 4),
        (1, 99, False, {}, 4),
        (3, 3, True, {}, 3),
        (2, 3, True, {}, 3),
        (3, 3, False, {}, None),
        (3, 3, False, {"mode": "probe"}, 3),
        (3, 3, False, {"mode": "node", "role": "node"}, 3),
        (3, 3, False, {"mode": "node"}, None),
        (5, 9, True, {}, None),
        (1, 2, True, {}, None),
        (4, 3, True, {}, None),
    ],
)
def test_proto1_c22_protocol_ranges(low: int, high: int, legacy: bool, who: dict[str, Any], spoken: int | None) -> None:
    params = connect_params(min_protocol=low, max_protocol=high, **who)
    rules = AdmissionRules(auth_type="token", legacy_v3=legacy)
    verdict = admit(question(params=params, rules=rules, with_device=True))
    if spoken is None:
        assert isinstance(verdict, Refused)
        assert (verdict.error.message, verdict.close.code) == ("protocol mismatch", 1002)
    else:
        assert isinstance(verdict, Admitted)
        assert verdict.protocol == spoken


def test_proto1_the_mismatch_names_both_ranges() -> None:
    verdict = refused(params=connect_params(min_protocol=5, max_protocol=6))
    assert verdict.error.to_wire()["details"] == {
        "code": "PROTOCOL_MISMATCH",
        "clientMinProtocol": 5,
        "clientMaxProtocol": 6,
        "expectedProtocol": 4,
        "minimumProbeProtocol": 3,
        "serverMinProtocol": 3,
        "serverMaxProtocol": 4,
        "remediationHint": "client speaks 5 to 6, this gateway 3 to 4: update the older one",
    }


def test_an_unknown_role_is_refused_without_an_echo() -> None:
    verdict = refused(params=connect_params(role="superuser\n"))
    assert (verdict.error.code, verdict.error.message, verdict.close.code) == ("INVALID_REQUEST", "invalid role", 1008)
    assert "superuser" not in repr(verdict)


# --- order ---


def test_checks_come_in_the_order_of_the_spec() -> None:
    facts: dict[str, Any] = {
        "params": connect_params(min_protocol=9, max_protocol=9, role="x"),
        "origin": OriginVerdict(ok=False, reason="origin is not allowed", browser=True),
        "secret": SecretOutcome.MISMATCH,
        "device": DeviceVerdict(ok=False, fault="device-signature"),
        "with_device": True,
    }
    assert refused(**facts).error.key == "protocol-mismatch"
    facts["params"] = connect_params(role="x")
    assert refused(**facts).error.key == "invalid-role"
    facts["params"] = connect_params()
    assert refused(**facts).error.key == "origin-not-allowed"
    facts["origin"] = NO_ORIGIN
    assert refused(**facts).error.key == "device-signature"
    del facts["device"]
    assert refused(**facts).error.key == "auth-token-mismatch"
    facts["secret"] = SecretOutcome.MATCH
    assert pairing_needed(**facts, peer=REMOTE).reason == "not-paired"


@pytest.mark.parametrize("auth_type", ["token", "password", "none", "trusted-proxy"])
@pytest.mark.parametrize("trusted", [(), ("localhost",)])
def test_v1_v2_v3_a_foreign_origin_is_refused_before_a_valid_secret_is_looked_at(
    auth_type: str, trusted: tuple[str, ...]
) -> None:
    peer = peer_from(trusted=trusted, origin="https://evil.example", x_forwarded_for="127.0.0.1")
    origin = check_origin(peer, OriginRules(), client_is_ui=False)
    for with_device in (False, True):
        verdict = refused(auth_type=auth_type, peer=peer, origin=origin, with_device=with_device)
        assert detail(verdict, "code") == "CONTROL_UI_ORIGIN_NOT_ALLOWED"
        assert not any("secret" in step for step in verdict.trail)
        assert detail(verdict, "remediationHint") == (
            """openclaw config set gateway.controlUi.allowedOrigins '["https://evil.example"]'"""
        )
        assert detail(verdict, "remediationHint") in verdict.error.message


# --- without a device ---


def test_a_local_holder_of_the_secret_keeps_the_known_scopes_it_asked_for() -> None:
    verdict = admitted(params=connect_params(scopes=(ADMIN, "operator.unknown", READ, ADMIN)))
    assert (verdict.scopes, verdict.method, verdict.device_id, verdict.pair_silently) == (
        (ADMIN, READ),
        "token",
        None,
        False,
    )
    assert verdict.trail == (
        "protocol 4",
        "role operator",
        "peer: on this host",
        "origin: no origin: not a browser",
        "device: none",
        "secret: match (from token)",
        "device token: none",
        "pairing: none",
        "admitted: on this host without a device",
    )


def test_v22_asking_for_nothing_grants_nothing() -> None:
    assert admitted(params=connect_params(scopes=())).scopes == ()


def test_a_probe_without_a_device_has_no_scopes() -> None:
    assert admitted(params=connect_params(mode="probe", scopes=(ADMIN,))).scopes == ()


@pytest.mark.parametrize("peer", [REMOTE, LAN, PROXIED, peer_from(host="gwtest.local:18789"), peer_from(None)])
@pytest.mark.parametrize("client", [{}, {"client_id": "gateway-client", "mode": "backend"}, {"mode": "probe"}, UI])
@pytest.mark.parametrize("auth_type", ["token", "password", "none"])
def test_v12_v13_elsewhere_a_device_identity_is_required_whoever_the_client_says_it_is(
    peer: Any, client: dict[str, Any], auth_type: str
) -> None:
    verdict = refused(params=connect_params(**client), peer=peer, auth_type=auth_type)
    assert (verdict.error.code, verdict.error.message) == ("NOT_PAIRED", "device identity required")
    assert (verdict.close.code, verdict.close.reason) == (1008, "device identity required")
    assert verdict.counts is None


def test_v9_a_wrong_secret_without_a_device_is_refused_and_counted() -> None:
    for peer in (LOCAL, REMOTE, PROXIED):
        verdict = refused(secret=SecretOutcome.MISMATCH, peer=peer)
        assert detail(verdict, "code") == "AUTH_TOKEN_MISMATCH"
        assert verdict.counts is CredentialClass.SHARED_SECRET


@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
def test_a_missing_secret_without_a_device_asks_for_a_device(peer: Any) -> None:
    verdict = refused(secret=SecretOutcome.MISSING, peer=peer, params=connect_params(auth=ConnectAuth()))
    assert (detail(verdict, "code"), verdict.counts) == ("DEVICE_IDENTITY_REQUIRED", None)


def test_v32_a_node_is_always_a_device() -> None:
    assert refused(params=connect_params(role="node")).error.key == "device-identity-required"
    assert refused(params=connect_params(role="node"), auth_type="none").error.key == "device-identity-required"


def test_net5_auth_none_lets_only_this_host_in() -> None:
    verdict = admitted(auth_type="none", secret=SecretOutcome.UNRESOLVABLE)
    assert (verdict.scopes, verdict.method) == ((READ,), "none")
    for peer in (LAN, REMOTE, PROXIED):
        assert refused(auth_type="none", secret=SecretOutcome.UNRESOLVABLE, peer=peer).error.code == "NOT_PAIRED"
        assert pairing_needed(auth_type="none", peer=peer, with_device=True).reason == "not-paired"


# --- device proofs ---


@pytest.mark.parametrize(
    "fault",
    [
        "device-id-mismatch",
        "device-signature-stale",
        "device-nonce-missing",
        "device-nonce-mismatch",
        "device-signature",
    ],
)
def test_a_bad_proof_is_what_is_reported_and_a_wrong_secret_beside_it_still_counts(fault: str) -> None:
    bad = DeviceVerdict(ok=False, fault=fault, details={"deltaMs": 5})
    verdict = refused(with_device=True, device=bad)
    assert (detail(verdict, "reason"), detail(verdict, "deltaMs"), verdict.counts) == (fault, 5, None)
    assert refused(with_device=True, device=bad, secret=SecretOutcome.MISMATCH).counts is CredentialClass.SHARED_SECRET
    assert verdict.close.code == 1008


def test_a_device_without_a_verdict_is_as_good_as_none() -> None:
    verdict = admit(question(with_device=True, device=None, peer=REMOTE))
    assert isinstance(verdict, Refused)
    assert verdict.error.key == "device-identity-required"


@pytest.mark.parametrize(
    "device", [DeviceVerdict(ok=True), DeviceVerdict(ok=False), DeviceVerdict(ok=False, device_id=DEVICE_ID)]
)
def test_a_verdict_without_id_or_fault_is_a_refusal(device: DeviceVerdict) -> None:
    assert refused(with_device=True, device=device).error.key == "device-signature"


# --- credentials, each with its own words (AUTH-2) ---

WITH_DEVICE = {"with_device": True}


@pytest.mark.parametrize(
    ("facts", "code", "reason", "step"),
    [
        ({"secret": SecretOutcome.MISSING}, "AUTH_TOKEN_MISSING", "token_missing", "update_auth_configuration"),
        ({"secret": SecretOutcome.MISMATCH}, "AUTH_TOKEN_MISMATCH", "token_mismatch", "retry_with_device_token"),
        ({"secret": SecretOutcome.MALFORMED}, "AUTH_TOKEN_MISMATCH", "token_malformed", "update_auth_credentials"),
        (
            {"secret": SecretOutcome.LOOKS_LIKE_SETUP_CODE},
            "AUTH_TOKEN_MISMATCH",
            "token_is_setup_code",
            "update_auth_credentials",
        ),
        (
            {"secret": SecretOutcome.UNRESOLVABLE},
            "AUTH_TOKEN_NOT_CONFIGURED",
            "token_missing_config",
            "update_auth_configuration",
        ),
        ({"secret": SecretOutcome.LOCKED, "locked_for": 297.0}, "AUTH_RATE_LIMITED", "rate_limited", "wait_then_retry"),
        (
            {"secret": SecretOutcome.MISSING, "auth_type": "password"},
            "AUTH_PASSWORD_MISSING",
            "password_missing",
            "update_auth_configuration",
        ),
        (
            {"secret": SecretOutcome.MISMATCH, "auth_type": "password"},
            "AUTH_PASSWORD_MISMATCH",
            "password_mismatch",
            "update_auth_credentials",
        ),
        (
            {"secret": SecretOutcome.MALFORMED, "auth_type": "password"},
            "AUTH_PASSWORD_MISMATCH",
            "password_mismatch",
            "update_auth_credentials",
        ),
        (
            {"secret": SecretOutcome.EXPIRED, "auth_type": "password"},
            "AUTH_PASSWORD_EXPIRED",
            "password_expired",
            "update_auth_credentials",
        ),
        (
            {
                "secret": SecretOutcome.MISSING,
                "params": connect_params(auth=ConnectAuth(device_token="d")),
                "device_token": DeviceTokenOutcome.MISMATCH,
            },
            "AUTH_DEVICE_TOKEN_MISMATCH",
            "device_token_mismatch",
            "update_auth_credentials",
        ),
        (
            {
                "secret": SecretOutcome.MISSING,
                "params": connect_params(auth=ConnectAuth(device_token="d")),
                "device_token": DeviceTokenOutcome.REVOKED,
            },
            "AUTH_DEVICE_TOKEN_MISMATCH",
            "device_token_revoked",
            "update_auth_credentials",
        ),
        (
            {"secret": SecretOutcome.MISSING, "params": connect_params(auth=ConnectAuth(bootstrap_token="b"))},
            "AUTH_BOOTSTRAP_TOKEN_INVALID",
            "bootstrap_token_invalid",
            "review_auth_configuration",
        ),
        (
            {
                "secret": SecretOutcome.MISSING,
                "params": connect_params(auth=ConnectAuth(device_token="d"), scopes=(ADMIN,)),
                "device_token": DeviceTokenOutcome.MATCH,
                "pairing": Approval(scopes=(READ,)),
            },
            "AUTH_SCOPE_MISMATCH",
            "scope_mismatch",
            "review_auth_configuration",
        ),
    ],
)
def test_auth2_every_cause_has_its_own_reason_and_next_command(
    facts: dict[str, Any], code: str, reason: str, step: str
) -> None:
    verdict = refused(**WITH_DEVICE, **facts)
    assert (detail(verdict, "code"), detail(verdict, "authReason")) == (code, reason)
    assert detail(verdict, "recommendedNextStep") == step
    assert detail(verdict, "remediationHint")
    assert verdict.error.message.startswith("unauthorized: ")
    assert verdict.close.code == 1008
    assert verdict.error.message.startswith(verdict.close.reason)
    assert verdict.http_status in (401, 429)


@pytest.mark.parametrize(
    ("who", "hint"),
    [
        ({}, "use this gateway's gateway.auth.token or pair the device"),
        (UI, "open the dashboard URL and paste the token in Control UI settings"),
        ({"role": "node"}, "provide gateway auth token"),
    ],
)
def test_auth2_the_words_fit_the_reader(who: dict[str, Any], hint: str) -> None:
    params = connect_params(**who)
    mismatch = refused(secret=SecretOutcome.MISMATCH, params=params, **WITH_DEVICE)
    assert mismatch.error.message == f"unauthorized: gateway token mismatch ({hint})"
    missing = refused(secret=SecretOutcome.MISSING, params=params, **WITH_DEVICE)
    assert missing.error.message == f"unauthorized: gateway token missing ({hint})"


def test_a_lock_says_when_to_come_back_and_is_not_counted_again() -> None:
    verdict = refused(secret=SecretOutcome.LOCKED, locked_for=297.0)
    assert verdict.error.to_wire()["retryAfterMs"] == 297_000
    assert (verdict.error.retryable, verdict.http_status, verdict.counts) == (True, 429, None)


@pytest.mark.parametrize(
    ("auth", "device", "retry"),
    [
        (ConnectAuth(token="t"), True, True),
        (ConnectAuth(token="t"), False, False),
        (ConnectAuth(token="t", password="t"), True, False),
        (ConnectAuth(token="t", device_token="d"), True, False),
    ],
)
def test_auth3_a_retry_with_the_device_token_is_offered_to_those_who_may_have_one(
    auth: ConnectAuth, device: bool, retry: bool
) -> None:
    verdict = refused(secret=SecretOutcome.MISMATCH, params=connect_params(auth=auth), with_device=device)
    assert detail(verdict, "canRetryWithDeviceToken") is retry


def test_v14_a_bogus_device_token_beside_a_wrong_secret_changes_nothing() -> None:
    for token in DeviceTokenOutcome:
        params = connect_params(auth=ConnectAuth(token="t", device_token="bogus", bootstrap_token="bogus"))
        for paired in (None, Approval(device_id="other", scopes=(ADMIN,))):
            verdict = refused(
                secret=SecretOutcome.MISMATCH, params=params, device_token=token, pairing=paired, **WITH_DEVICE
            )
            assert verdict.counts is CredentialClass.SHARED_SECRET
            assert detail(verdict, "code") == "AUTH_TOKEN_MISMATCH"


def test_v14_a_bogus_device_token_beside_the_right_secret_changes_nothing() -> None:
    params = connect_params(auth=ConnectAuth(token="t", device_token="bogus"))
    verdict = admitted(
        params=params, device_token=DeviceTokenOutcome.MISMATCH, pairing=Approval(scopes=(READ,)), **WITH_DEVICE
    )
    assert (verdict.method, verdict.scopes) == ("token", (READ,))


def test_v17_an_unresolvable_secret_is_closed_for_everybody_without_a_token_of_his_own() -> None:
    for peer in (LOCAL, REMOTE):
        verdict = refused(secret=SecretOutcome.UNRESOLVABLE, peer=peer)
        assert detail(verdict, "code") == "AUTH_TOKEN_NOT_CONFIGURED"


def test_auth6_a_valid_device_token_passes_a_locked_address() -> None:
    verdict = admitted(
        secret=SecretOutcome.LOCKED,
        locked_for=200.0,
        peer=REMOTE,
        device_token=DeviceTokenOutcome.MATCH,
        pairing=Approval(scopes=(READ,)),
        **WITH_DEVICE,
    )
    assert verdict.method == "device-token"


def test_v59_a_wrong_token_and_a_self_made_key_are_refused_with_nothing_to_record() -> None:
    for peer in (LOCAL, LAN, REMOTE, PROXIED):
        verdict = admit(question(secret=SecretOutcome.MISMATCH, peer=peer, auto_approve=BASELINE, **WITH_DEVICE))
        assert isinstance(verdict, Refused)
        assert verdict.counts is CredentialClass.SHARED_SECRET


# --- device tokens ---


@pytest.mark.parametrize("scopes", [(), (READ,), (READ, WRITE)])
def test_a_device_token_grants_what_was_approved_or_less(scopes: tuple[str, ...]) -> None:
    verdict = admitted(
        secret=SecretOutcome.MISMATCH,
        peer=REMOTE,
        params=connect_params(scopes=scopes),
        device_token=DeviceTokenOutcome.MATCH,
        pairing=Approval(scopes=(WRITE,)),
        **WITH_DEVICE,
    )
    assert (verdict.scopes, verdict.method, verdict.pair_silently) == (scopes, "device-token", False)


@pytest.mark.parametrize(
    ("pairing", "revoked"),
    [
        (None, False),
        (Approval(device_id="ff" * 32, scopes=(ADMIN,)), False),
        (Approval(role="node", scopes=(ADMIN,)), False),
        (Approval(scopes=(ADMIN,)), True),
    ],
)
def test_a_device_token_without_this_devices_live_approval_is_worth_nothing(pairing: Any, revoked: bool) -> None:
    verdict = admit(
        question(
            secret=SecretOutcome.MISMATCH,
            device_token=DeviceTokenOutcome.MATCH,
            pairing=pairing,
            revoked=revoked,
            **WITH_DEVICE,
        )
    )
    assert isinstance(verdict, Refused)


# --- pairing ---


def test_a_first_device_on_this_host_is_paired_by_itself() -> None:
    verdict = admitted(params=connect_params(scopes=(ADMIN, READ)), **WITH_DEVICE)
    assert (verdict.pair_silently, verdict.scopes, verdict.device_id) == (True, (ADMIN, READ), DEVICE_ID)


def test_s094_a_first_node_on_this_host_is_paired_by_itself_without_scopes() -> None:
    params = connect_params(role="node", mode="node", client_id="node-host", scopes=(ADMIN,))
    verdict = admitted(params=params, **WITH_DEVICE)
    assert (verdict.pair_silently, verdict.scopes, verdict.role) == (True, (), "node")


@pytest.mark.parametrize("peer", [LAN, REMOTE, PROXIED, peer_from(host="alias.local")])
def test_pair1_elsewhere_somebody_is_asked(peer: Any) -> None:
    needed = pairing_needed(peer=peer, **WITH_DEVICE)
    assert (needed.reason, needed.device_id, needed.role, needed.scopes) == (
        "not-paired",
        DEVICE_ID,
        "operator",
        (READ,),
    )


def test_local_approval_can_be_turned_off() -> None:
    assert pairing_needed(auto_approve=OFF, **WITH_DEVICE).reason == "not-paired"


def test_proxy1_a_token_and_a_pairing_work_through_a_proxy_that_is_not_trusted() -> None:
    verdict = admitted(peer=PROXIED, pairing=Approval(scopes=(READ,)), **WITH_DEVICE)
    assert verdict.scopes == (READ,)
    assert "peer: remote, behind a proxy that is not trusted" in verdict.trail


@pytest.mark.parametrize("peer", [LOCAL, LAN, REMOTE])
def test_v11_what_was_approved_is_not_widened_by_locality_and_the_secret(peer: Any) -> None:
    needed = pairing_needed(
        peer=peer,
        params=connect_params(scopes=(ADMIN, READ)),
        pairing=Approval(scopes=(READ,)),
        approved_roles=("operator",),
        **WITH_DEVICE,
    )
    assert (needed.reason, needed.scopes) == ("scope-upgrade", (ADMIN, READ))
    assert (needed.approved_scopes, needed.approved_roles) == ((READ,), ("operator",))
    still = admitted(peer=peer, pairing=Approval(scopes=(READ,)), **WITH_DEVICE)
    assert (still.scopes, still.pair_silently) == ((READ,), False)


@pytest.mark.parametrize("peer", [LOCAL, LAN, REMOTE])
def test_v26_only_a_new_approval_restores_what_was_revoked(peer: Any) -> None:
    for auto in (AutoApproveRules(), BASELINE, AutoApproveRules(lan=networks("0.0.0.0/0"))):
        for pairing in (None, Approval(scopes=(READ,))):
            needed = pairing_needed(peer=peer, revoked=True, pairing=pairing, auto_approve=auto, **WITH_DEVICE)
            assert needed.reason == "role-upgrade"


def test_another_role_is_a_role_upgrade_unless_this_host_asks() -> None:
    facts: dict[str, Any] = {"params": connect_params(role="node", scopes=()), "approved_roles": ("operator",)}
    needed = pairing_needed(peer=REMOTE, **facts, **WITH_DEVICE)
    assert (needed.reason, needed.approved_roles) == ("role-upgrade", ("operator",))
    assert admitted(**facts, **WITH_DEVICE).pair_silently


def test_pair9_display_metadata_never_invalidates_a_pairing() -> None:
    params = connect_params()
    for changed in ("macos 99", "windows"):
        client = attrs.evolve(params.client, platform=changed, version="99", display_name="new", device_family="x")
        facts: dict[str, Any] = {"params": attrs.evolve(params, client=client), "pairing": Approval(scopes=(READ,))}
        assert admitted(**facts, **WITH_DEVICE).scopes == (READ,)


def test_c4_this_hosts_own_tailnet_address_is_approved_only_when_direct() -> None:
    rules = AdmissionRules(auth_type="token", own_tailnet_addresses=frozenset({"100.64.0.7", "fd7a::7"}))
    own = peer_from("100.64.0.7", host="gw.ts.net")
    assert admitted(rules=rules, peer=own, **WITH_DEVICE).pair_silently
    proxied = peer_from("100.64.0.7", host="gw.ts.net", x_forwarded_for="100.64.0.7")
    through = peer_from(trusted=("localhost",), x_forwarded_for="100.64.0.7")
    for peer in (proxied, through, peer_from("100.64.0.8", host="gw.ts.net")):
        assert pairing_needed(rules=rules, peer=peer, **WITH_DEVICE).reason == "not-paired"
    off = attrs.evolve(rules, auto_approve=OFF)
    assert pairing_needed(rules=off, peer=own, **WITH_DEVICE).reason == "not-paired"
    assert refused(rules=rules, peer=own, secret=SecretOutcome.MISMATCH, **WITH_DEVICE)


def test_c5_the_lan_rule_is_for_fresh_scopeless_nodes_only() -> None:
    auto = AutoApproveRules(lan=networks("192.168.1.0/24"))
    node = connect_params(role="node", mode="node", client_id="node-host", scopes=())
    assert admitted(peer=LAN, params=node, auto_approve=auto, **WITH_DEVICE).pair_silently
    for changes in (
        {"params": connect_params()},
        {"params": connect_params(scopes=())},
        {"params": attrs.evolve(node, scopes=(READ,))},
        {"params": node, "approved_roles": ("operator",)},
        {"params": node, "peer": REMOTE},
        {"params": node, "peer": peer_from("192.168.1.7", x_forwarded_for="192.168.1.7")},
    ):
        facts = {"peer": LAN, "auto_approve": auto} | changes
        assert isinstance(admit(question(**facts, **WITH_DEVICE)), PairingNeeded), changes


@pytest.mark.parametrize(
    ("asked", "granted"), [((READ,), (READ,)), ((READ, WRITE), (READ, WRITE)), ((ADMIN,), (READ, WRITE)), ((), ())]
)
def test_pair7_the_shared_secret_pairs_from_anywhere_at_the_baseline(
    asked: tuple[str, ...], granted: tuple[str, ...]
) -> None:
    docker = peer_from("172.17.0.3", host="gateway:18789")
    facts: dict[str, Any] = {"peer": docker, "params": connect_params(scopes=asked), **WITH_DEVICE}
    verdict = admitted(auto_approve=BASELINE, **facts)
    assert (verdict.pair_silently, verdict.scopes) == (True, granted)
    assert verdict.upgrade_scopes == tuple(scope for scope in asked if scope == ADMIN)
    again = admitted(auto_approve=BASELINE, pairing=Approval(scopes=granted), **facts)
    assert (again.pair_silently, again.scopes) == (False, granted)
    assert pairing_needed(**facts).reason == "not-paired"


def test_pair7_the_baseline_needs_the_secret_and_an_operator() -> None:
    needed = pairing_needed(peer=REMOTE, params=connect_params(scopes=(PAIRING,)), auto_approve=BASELINE, **WITH_DEVICE)
    assert needed.scopes == (PAIRING,)
    node = connect_params(role="node", scopes=())
    assert pairing_needed(peer=REMOTE, params=node, auto_approve=BASELINE, **WITH_DEVICE).role == "node"
    open_door = pairing_needed(peer=REMOTE, auth_type="none", auto_approve=BASELINE, **WITH_DEVICE)
    assert open_door.reason == "not-paired"


@pytest.mark.parametrize("peer", [LOCAL, REMOTE])
def test_v60_what_cannot_be_read_is_not_unpaired(peer: Any) -> None:
    for auto in (AutoApproveRules(), BASELINE):
        verdict = refused(peer=peer, pairing=UNREADABLE, auto_approve=auto, **WITH_DEVICE)
        assert (verdict.error.code, verdict.error.retryable, verdict.http_status) == ("UNAVAILABLE", True, 503)
        assert (verdict.close.code, verdict.counts) == (1013, None)


def test_v60_a_device_token_that_cannot_be_checked_is_unavailable_and_a_wrong_secret_still_counts() -> None:
    params = connect_params(auth=ConnectAuth(device_token="d"))
    verdict = refused(secret=SecretOutcome.MISSING, params=params, pairing=UNREADABLE, **WITH_DEVICE)
    assert verdict.error.code == "UNAVAILABLE"
    guess = refused(secret=SecretOutcome.MISMATCH, pairing=UNREADABLE, **WITH_DEVICE)
    assert (guess.error.code, guess.counts) == ("UNAVAILABLE", CredentialClass.SHARED_SECRET)


# --- the answer to pairing needed ---


def test_pairing_refusals_read_as_clients_know_them() -> None:
    needed = pairing_needed(peer=REMOTE, **WITH_DEVICE)
    verdict = pairing_refusal(needed, "req-1")
    assert verdict.error.to_wire() == {
        "code": "NOT_PAIRED",
        "message": "pairing required: device is not approved yet",
        "details": {
            "code": "PAIRING_REQUIRED",
            "reason": "not-paired",
            "requestId": "req-1",
            "remediationHint": "openclaw devices approve req-1",
            "deviceId": DEVICE_ID,
            "requestedRole": "operator",
            "requestedScopes": [READ],
        },
    }
    assert verdict.close.code == 1008
    assert verdict.close.reason == "pairing required: device is not approved yet (requestId: req-1)"


@pytest.mark.parametrize("who", [UI, {"role": "node", "scopes": ()}])
def test_those_who_wait_are_told_to_keep_trying(who: dict[str, Any]) -> None:
    details = pairing_refusal(
        pairing_needed(peer=REMOTE, params=connect_params(**who), **WITH_DEVICE), "r"
    ).error.details
    assert details is not None
    assert (details["recommendedNextStep"], details["retryable"], details["pauseReconnect"]) == (
        "wait_then_retry",
        True,
        False,
    )


def test_an_upgrade_says_what_is_approved() -> None:
    needed = pairing_needed(
        params=connect_params(scopes=(ADMIN,)),
        pairing=Approval(scopes=(READ,)),
        approved_roles=("operator",),
        **WITH_DEVICE,
    )
    details = pairing_refusal(needed, "r").error.details
    assert details is not None
    assert (details["reason"], details["approvedRoles"], details["approvedScopes"]) == (
        "scope-upgrade",
        ["operator"],
        [READ],
    )


# --- what to compare ---


@pytest.mark.parametrize(
    ("auth", "auth_type", "value", "via"),
    [
        (ConnectAuth(token="t", password="p"), "token", "t", "token"),
        (ConnectAuth(token="t", password="p"), "password", "p", "password"),
        (ConnectAuth(password="p"), "token", "p", "password"),
        (ConnectAuth(token="t"), "password", "t", "token"),
        (ConnectAuth(token="", password="p"), "token", "p", "password"),
        (ConnectAuth(device_token="d", bootstrap_token="b"), "token", None, None),
    ],
)
def test_the_field_that_fits_the_auth_type_is_compared(
    auth: ConnectAuth, auth_type: Any, value: str | None, via: str | None
) -> None:
    presented = presented_secret(auth, AdmissionRules(auth_type=auth_type), LOCAL)
    assert (presented.value, presented.via) == (value, via)
    assert value is None or repr(value) not in repr(presented).replace("via='token'", "")


@pytest.mark.parametrize(
    ("peer", "allowed", "taken"),
    [
        (LOCAL, True, True),
        (peer_from("203.0.113.9", host="gw.example", tls=True), True, True),
        (peer_from("10.0.0.1", trusted=("10.0.0.1",), x_forwarded_proto="https"), True, True),
        (REMOTE, True, False),
        (PROXIED, True, False),
        (peer_from("10.0.0.1", x_forwarded_proto="https"), True, False),
        (LOCAL, False, False),
    ],
)
def test_c11_a_token_in_the_url_counts_on_this_host_and_over_tls(peer: Any, allowed: bool, taken: bool) -> None:
    rules = AdmissionRules(auth_type="token", allow_query_token=allowed)
    presented = presented_secret(ConnectAuth(), rules, peer, query_token="Q")
    assert presented.value == ("Q" if taken else None)
    assert (presented.note is None) is taken
    assert presented_secret(ConnectAuth(token="t"), rules, peer, query_token="Q").value == "t"


def test_candidates_for_a_device_token_are_at_most_two() -> None:
    assert device_token_candidates(ConnectAuth(token="a", device_token="b", password="c")) == ("b", "a")
    assert device_token_candidates(ConnectAuth(token="a", device_token="a")) == ("a",)
    assert device_token_candidates(ConnectAuth(token="", password="c")) == ()


# --- POST /rpc ---


def http(peer: Any = LOCAL, secret: SecretOutcome = SecretOutcome.MATCH, **changes: Any) -> Admitted | Refused:
    facts: dict[str, Any] = {"rules": AdmissionRules(auth_type="token"), "origin": NO_ORIGIN} | changes
    return admit_http(peer=peer, secret=secret, **facts)


def test_v41_http_gives_a_local_bearer_what_the_websocket_gives() -> None:
    verdict = http()
    assert isinstance(verdict, Admitted)
    assert set(verdict.scopes) == KNOWN_OPERATOR_SCOPES
    assert verdict.device_id is None


@pytest.mark.parametrize(
    ("peer", "secret", "status", "key"),
    [
        (LOCAL, SecretOutcome.MISSING, 401, "auth-token-missing"),
        (LOCAL, SecretOutcome.MISMATCH, 401, "auth-token-mismatch"),
        (LOCAL, SecretOutcome.UNRESOLVABLE, 401, "auth-token-unresolvable"),
        (REMOTE, SecretOutcome.LOCKED, 429, "auth-rate-limited"),
        (REMOTE, SecretOutcome.MISSING, 401, "auth-token-missing"),
        (REMOTE, SecretOutcome.MATCH, 403, "device-identity-required"),
        (PROXIED, SecretOutcome.MATCH, 403, "device-identity-required"),
    ],
)
def test_v41_http_refuses_what_the_websocket_refuses(peer: Any, secret: SecretOutcome, status: int, key: str) -> None:
    verdict = http(peer, secret)
    assert isinstance(verdict, Refused)
    assert (verdict.http_status, verdict.error.key) == (status, key)


@pytest.mark.parametrize("secret", [SecretOutcome.MISSING, SecretOutcome.MATCH])
def test_m2_http_from_elsewhere_is_told_of_api_keys(secret: SecretOutcome) -> None:
    verdict = http(REMOTE, secret)
    assert isinstance(verdict, Refused)
    hint = (verdict.error.details or {})["remediationHint"]
    assert "openclaw tokens create <name>" in hint
    assert "https" in hint
    assert "device identity" not in hint


def test_m7_who_is_on_this_host_already_is_told_where_the_token_is() -> None:
    verdict = refused(secret=SecretOutcome.MISSING, peer=LOCAL, params=connect_params(auth=ConnectAuth()))
    assert detail(verdict, "remediationHint").startswith("openclaw gateway auth-token --show")
    word = refused(
        secret=SecretOutcome.MISSING, peer=LOCAL, params=connect_params(auth=ConnectAuth()), auth_type="password"
    )
    assert "OPENCLAW_GATEWAY_PASSWORD" in detail(word, "remediationHint")
    away = refused(secret=SecretOutcome.MISSING, peer=REMOTE, params=connect_params(auth=ConnectAuth()))
    assert "127.0.0.1" in detail(away, "remediationHint")
    here = http(LOCAL, SecretOutcome.MISSING)
    assert isinstance(here, Refused)
    assert "openclaw gateway auth-token --show" in (here.error.details or {})["remediationHint"]


def test_v3_http_origin_is_judged_first() -> None:
    verdict = http(origin=OriginVerdict(ok=False, reason="origin is not allowed", browser=True))
    assert isinstance(verdict, Refused)
    assert verdict.http_status == 403
