"""Who a proxy may name, and what it has to prove (PROXY-1, V13, V35, V36)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.admission import Admitted, ApiKeyOutcome, DeviceTokenOutcome, PairingNeeded, Refused
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.vouching import Vouched, Voucher, VouchRules, judge_vouching, scopes_of
from openclaw_gateway.protocol.connect import ConnectAuth
from tests.policy.builders import Approval, admitted, connect_params, detail, pairing_needed, peer_from, refused

SECRET = "0123456789abcdef01234567"
RULES = VouchRules(user_header=b"x-auth-user", identity_scopes={"Nick@Example.com": ("operator.read",)})
GOOD = Voucher(trusted=True, here=False, attributed=True)
USER = (b"X-Auth-User", b"nick@example.com")
READ = ("operator.read",)


def judged(
    *headers: tuple[bytes, bytes], voucher: Voucher = GOOD, rules: VouchRules = RULES, **changes: Any
) -> Vouched:
    return judge_vouching(voucher, headers, attrs.evolve(rules, **changes))


def test_proxy1_a_trusted_proxy_that_attributes_names_a_person() -> None:
    vouched = judged(USER)
    assert (vouched.user, vouched.scopes, vouched.cap, vouched.reason) == ("nick@example.com", READ, None, "ok")


@pytest.mark.parametrize(
    ("voucher", "reason"),
    [
        (Voucher(trusted=False, here=False, attributed=True), "trusted_proxy_untrusted_source"),
        (Voucher(trusted=False, here=True, attributed=True), "trusted_proxy_untrusted_source"),
        (Voucher(trusted=True, here=True, attributed=True), "trusted_proxy_loopback_source"),
        (Voucher(trusted=True, here=False, attributed=False), "proxy_attribution_required"),
    ],
)
def test_v36_nobody_else_names_anybody(voucher: Voucher, reason: str) -> None:
    vouched = judged(USER, voucher=voucher)
    assert (vouched.ok, vouched.scopes, vouched.reason) == (False, (), reason)


def test_v36_a_process_on_this_host_needs_consent_and_the_secret() -> None:
    here = Voucher(trusted=True, here=True, attributed=True)
    proof = (b"x-openclaw-proxy-secret", SECRET.encode())
    assert judged(USER, voucher=here, secret=SECRET).reason == "trusted_proxy_loopback_source"
    assert judged(USER, voucher=here, allow_loopback=True).reason == "proxy_secret_required"
    both = attrs.evolve(RULES, allow_loopback=True, secret=SECRET)
    assert judged(USER, voucher=here, rules=both).reason == "proxy_secret_mismatch"
    assert judged(USER, (b"x-openclaw-proxy-secret", b"x" * 24), voucher=here, rules=both).reason == (
        "proxy_secret_mismatch"
    )
    assert judged(USER, proof, proof, voucher=here, rules=both).reason == "proxy_secret_mismatch"
    assert judged(USER, proof, voucher=here, rules=both).ok


def test_v36_a_secret_that_is_set_is_asked_of_far_proxies_too() -> None:
    assert judged(USER, secret=SECRET).reason == "proxy_secret_mismatch"
    assert SECRET not in repr(attrs.evolve(RULES, secret=SECRET))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "trusted_proxy_user_missing"),
        ([b""], "trusted_proxy_user_missing"),
        ([b"  "], "trusted_proxy_user_missing"),
        ([b"a", b"b"], "trusted_proxy_user_ambiguous"),
        ([b"a", b"a"], "trusted_proxy_user_ambiguous"),
        ([b"", b"a"], "trusted_proxy_user_ambiguous"),
        ([b"mallory, nick@example.com"], "trusted_proxy_user_ambiguous"),
        ([b"x" * 257], "trusted_proxy_user_ambiguous"),
        ([b"nick\x1b[0m"], "trusted_proxy_user_ambiguous"),
        ([b"\xff\xfe"], "trusted_proxy_user_ambiguous"),
    ],
)
def test_v36_a_header_that_is_missing_twice_there_or_unreadable_names_nobody(values: list[bytes], reason: str) -> None:
    vouched = judged(*((b"x-auth-user", value) for value in values))
    assert (vouched.user, vouched.reason) == (None, reason)


def test_required_headers_have_to_be_there_and_say_something() -> None:
    wanted = (b"x-forwarded-proto", b"x-verified")
    assert judged(USER, required_headers=wanted).reason == "trusted_proxy_missing_header"
    some = (USER, (b"x-forwarded-proto", b"https"), (b"X-Verified", b" "))
    assert judged(*some, required_headers=wanted).reason == "trusted_proxy_missing_header"
    assert judged(*some[:2], (b"X-Verified", b"1"), required_headers=wanted).ok


def test_only_listed_users_come_in_and_they_are_compared_exactly() -> None:
    assert judged(USER, allow_users=("nick@example.com",)).ok
    assert judged(USER, allow_users=("Nick@example.com", "nick")).reason == "trusted_proxy_user_not_allowed"


def test_scopes_go_by_the_name_and_mail_addresses_have_no_case() -> None:
    table = {"Nick@Example.com": READ, "root": ("operator.admin",)}
    assert scopes_of("nick@example.COM", table) == READ
    assert scopes_of("ROOT", table) == ()
    assert scopes_of("someone@else", table) == ()


def test_the_proxy_may_narrow_and_an_empty_cap_leaves_nothing() -> None:
    assert judged(USER, (b"x-openclaw-scopes", b"operator.read , operator.write")).cap == (
        "operator.read", "operator.write",
    )  # fmt: skip
    assert judged(USER, (b"x-openclaw-scopes", b"")).cap == ()


@given(
    st.builds(Voucher, trusted=st.booleans(), here=st.booleans(), attributed=st.booleans()),
    st.lists(
        st.tuples(
            st.sampled_from([b"x-auth-user", b"X-AUTH-USER", b"x-openclaw-proxy-secret", b"x-openclaw-scopes", b"y"]),
            st.one_of(st.sampled_from([b"nick@example.com", SECRET.encode(), b""]), st.binary(max_size=20)),
        ),
        max_size=5,
    ),
    st.booleans(),
    st.none() | st.just(SECRET),
)
def test_v36_law_somebody_is_named_only_with_every_proof(
    voucher: Voucher, headers: list[tuple[bytes, bytes]], allow_loopback: bool, secret: str | None
) -> None:
    vouched = judged(*headers, voucher=voucher, allow_loopback=allow_loopback, secret=secret)
    if not vouched.ok:
        assert (vouched.scopes, vouched.cap) == ((), None)
        return
    assert voucher.trusted
    assert voucher.attributed
    assert not voucher.here or (allow_loopback and secret is not None)
    assert [name.lower() for name, _ in headers].count(b"x-auth-user") == 1
    assert secret is None or (b"x-openclaw-proxy-secret", SECRET.encode()) in [
        (name.lower(), value.strip()) for name, value in headers
    ]


# --- what it opens: policy.admission


def through_proxy(scopes: tuple[str, ...] = READ, *, user: str | None = "nick", **changes: Any) -> Peer:
    peer = peer_from("10.0.0.1", trusted=("10.0.0.1",), x_forwarded_for="198.51.100.1", host="claw.example")
    reason = "ok" if user is not None else "trusted_proxy_user_missing"
    return attrs.evolve(
        peer, vouched=Vouched(source="trusted-proxy", user=user, scopes=scopes, reason=reason, **changes)
    )


ASKS: dict[str, Any] = {
    "auth_type": "trusted-proxy",
    "secret": SecretOutcome.MISSING,
    "secret_via": None,
    "params": connect_params(auth=ConnectAuth(), scopes=("operator.read", "operator.admin")),
}


def test_a_named_person_without_a_device_has_what_the_configuration_says_and_no_more() -> None:
    verdict = admitted(**ASKS, peer=through_proxy())
    assert (verdict.method, verdict.user, verdict.scopes, verdict.device_id) == ("trusted-proxy", "nick", READ, None)


def test_a_named_person_without_scopes_needs_a_device() -> None:
    verdict = refused(**ASKS, peer=through_proxy(()))
    assert detail(verdict, "code") == "DEVICE_IDENTITY_REQUIRED"
    assert "identityScopes" in detail(verdict, "remediationHint")


def test_a_named_person_with_an_unknown_device_still_asks_for_pairing() -> None:
    wanted = pairing_needed(**ASKS, peer=through_proxy(), with_device=True)
    assert wanted.reason == "not-paired"


def test_scopes_of_the_name_are_added_to_the_devices_for_the_session_only() -> None:
    paired = Approval(scopes=("operator.write",))
    params = connect_params(auth=ConnectAuth(), scopes=("operator.read", "operator.write"))
    asks = {**ASKS, "params": params, "with_device": True, "pairing": paired}
    verdict = admitted(**asks, peer=through_proxy(("operator.approvals",)))
    assert set(verdict.scopes) == {"operator.read", "operator.write"}
    assert verdict.session_scopes == ()
    asks["params"] = connect_params(auth=ConnectAuth(), scopes=("operator.write", "operator.approvals"))
    verdict = admitted(**asks, peer=through_proxy(("operator.approvals",)))
    assert set(verdict.scopes) == {"operator.write", "operator.approvals"}
    assert verdict.session_scopes == ("operator.approvals",)
    assert pairing_needed(**asks, peer=through_proxy()).reason == "scope-upgrade"


def test_the_proxys_cap_narrows_whatever_the_device_has() -> None:
    paired = Approval(scopes=("operator.admin", "operator.read"))
    peer = through_proxy((), cap=("operator.read",))
    asks = {**ASKS, "with_device": True, "pairing": paired}
    assert admitted(**asks, peer=peer).scopes == READ
    assert admitted(**asks, peer=through_proxy((), cap=())).scopes == ()


def test_a_name_makes_nobody_a_node() -> None:
    params = connect_params(auth=ConnectAuth(), role="node", scopes=(), mode="node", client_id="node-host")
    verdict = refused(**{**ASKS, "params": params}, peer=through_proxy(), with_device=True)
    assert detail(verdict, "code") != "PAIRING_REQUIRED"


def test_an_api_key_beside_a_name_is_the_narrower_principal() -> None:
    verdict = admitted(**ASKS, peer=attrs.evolve(through_proxy(), encrypted=True), transport="http",
                       api_key=ApiKeyOutcome.MATCH, api_key_scopes=("operator.write",))  # fmt: skip
    assert (verdict.method, verdict.user) == ("api-key", None)
    bad = refused(**ASKS, peer=through_proxy(), api_key=ApiKeyOutcome.REVOKED)
    assert detail(bad, "authReason") == "api_key_revoked"


@pytest.mark.parametrize("reason", ["proxy_attribution_required", "trusted_proxy_untrusted_source"])
def test_proxy1_whom_nobody_vouches_for_is_unauthenticated_and_may_still_show_a_token(reason: str) -> None:
    peer = through_proxy(user=None)
    assert peer.vouched is not None
    peer = attrs.evolve(peer, vouched=attrs.evolve(peer.vouched, reason=reason))
    verdict = refused(**ASKS, peer=peer)
    assert (verdict.http_status, detail(verdict, "authReason"), verdict.counts) == (401, reason, None)
    asks = {**ASKS, "secret": SecretOutcome.MATCH, "with_device": True, "pairing": Approval(scopes=READ)}
    asks["params"] = connect_params(scopes=READ)
    assert admitted(**asks, peer=peer).method == "token"
    asks |= {"secret": SecretOutcome.MISSING, "device_token": DeviceTokenOutcome.MATCH}
    asks["params"] = connect_params(scopes=READ, auth=ConnectAuth(device_token="t"))
    assert admitted(**asks, peer=peer).method == "device-token"


def test_what_is_not_asked_for_is_not_believed() -> None:
    """`Peer.vouched` is only there where gateway.auth.type asks; without it a proxied stranger is a stranger."""
    peer = peer_from("10.0.0.1", trusted=("10.0.0.1",), x_forwarded_for="198.51.100.1", x_forwarded_user="root")
    verdict = refused(**{**ASKS, "auth_type": "token"}, peer=peer)
    assert isinstance(verdict, Refused)
    assert not isinstance(verdict, Admitted | PairingNeeded)
