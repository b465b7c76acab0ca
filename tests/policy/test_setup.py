"""Setup codes as decisions: profiles, who may issue and redeem, addresses and their order, the limiter."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.admission import UNREADABLE, Admitted, DeviceTokenOutcome, admit
from openclaw_gateway.policy.lockout import CredentialClass
from openclaw_gateway.policy.network import Arrival, Ceiling
from openclaw_gateway.policy.secrets import SecretOutcome, looks_like_setup_code
from openclaw_gateway.policy.setup import (
    PROFILES,
    Access,
    JoinLimiter,
    SetupStanding,
    encode_setup_code,
    handed_scopes,
    judge_redemption,
    missing_to_issue,
    setup_payload,
)
from openclaw_gateway.policy.setupurls import (
    MAX_URLS,
    Reachability,
    SetupUrls,
    Unreachable,
    join_base,
    proxied_origin,
    setup_urls,
    shown_urls,
)
from openclaw_gateway.protocol.connect import ConnectAuth
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, PAIRING, satisfies
from tests.policy.builders import (
    DEVICE_ID,
    REMOTE,
    Approval,
    connect_params,
    detail,
    pairing_needed,
    peer_from,
    question,
    refused,
)

LOOPBACK = (("127.0.0.1", 18789), ("::1", 18789))
LAN = (("0.0.0.0", 18789),)


def standing(access: Access = "node", bound_to: str | None = None) -> SetupStanding:
    return SetupStanding(setup_id="s", access=access, bound_to=bound_to)


def judge(access: Access, **who: Any) -> str:
    bound_to = who.pop("bound_to", None)
    asked = {"device_id": DEVICE_ID, "role": "node", "scopes": (), "client_id": "node-host", **who}
    return judge_redemption(standing(access, bound_to), **asked)


# --- what a profile grants, and who may give it away


def test_v24_only_an_administrator_may_issue_and_never_more_than_he_holds() -> None:
    for profile in PROFILES.values():
        assert missing_to_issue(profile, frozenset({ADMIN})) == ()
        assert ADMIN in missing_to_issue(profile, KNOWN_OPERATOR_SCOPES - {ADMIN})
        assert ADMIN in missing_to_issue(profile, frozenset())


def test_v24_no_profile_hands_over_the_right_to_pair_others() -> None:
    assert set(PROFILES) == {"full", "limited", "node"}
    assert set(PROFILES["full"].operator_scopes) - set(PROFILES["limited"].operator_scopes) == {ADMIN}
    assert PROFILES["node"].operator_scopes == ()
    assert all(PAIRING not in profile.operator_scopes for profile in PROFILES.values())


@pytest.mark.parametrize(
    ("access", "who", "outcome"),
    [
        ("node", {}, "pair"),
        ("node", {"client_id": "openclaw-android"}, "pair"),
        ("node", {"role": "operator"}, "too-wide"),
        ("node", {"role": "operator", "scopes": ("operator.read",)}, "too-wide"),
        ("node", {"scopes": ("operator.read",)}, "too-wide"),
        ("node", {"role": "owner"}, "too-wide"),
        ("full", {"client_id": "openclaw-ios"}, "pair"),
        ("full", {"client_id": "openclaw-ios", "scopes": ("operator.admin",)}, "too-wide"),
        ("full", {}, "ask"),
        ("full", {"role": "operator", "scopes": ("operator.admin",)}, "ask"),
        ("full", {"role": "operator", "scopes": ("operator.pairing",)}, "ask"),
        ("limited", {"client_id": "openclaw-android"}, "pair"),
        ("limited", {"role": "operator", "scopes": ("operator.write",)}, "ask"),
        ("limited", {"role": "operator", "scopes": ("operator.admin",)}, "too-wide"),
        ("limited", {"role": "operator", "scopes": ("operator.write", "operator.pairing")}, "too-wide"),
        ("node", {"bound_to": DEVICE_ID}, "pair"),
        ("node", {"bound_to": "another"}, "taken"),
        ("full", {"bound_to": "another", "client_id": "openclaw-ios"}, "taken"),
    ],
)
def test_v24_a_code_gives_its_profile_and_no_more(access: Access, who: dict[str, Any], outcome: str) -> None:
    assert judge(access, **who) == outcome


@given(
    access=st.sampled_from(["full", "limited", "node"]),
    role=st.sampled_from(["operator", "node", "owner", ""]),
    scopes=st.lists(st.sampled_from([*sorted(KNOWN_OPERATOR_SCOPES), "operator.unknown"]), max_size=4),
    client_id=st.sampled_from(["openclaw-ios", "openclaw-android", "node-host", "cli"]),
)
def test_v24_law_nothing_beyond_the_profile_is_ever_let_in_or_asked_for(
    access: Access, role: str, scopes: list[str], client_id: str
) -> None:
    outcome = judge(access, role=role, scopes=scopes, client_id=client_id)
    held = frozenset(PROFILES[access].operator_scopes)
    if outcome in {"pair", "ask"} and role == "operator":
        assert held
        assert all(satisfies(held, scope) for scope in scopes if scope in KNOWN_OPERATOR_SCOPES)
    assert set(handed_scopes(standing(access), role=role, client_id=client_id)) <= held
    if outcome == "pair":
        assert role == "node"


def test_only_a_phone_that_comes_as_a_node_takes_an_operators_token_along() -> None:
    assert handed_scopes(standing("limited"), role="node", client_id="openclaw-ios")
    assert handed_scopes(standing("limited"), role="operator", client_id="openclaw-ios") == ()
    assert handed_scopes(standing("limited"), role="node", client_id="node-host") == ()
    assert handed_scopes(standing("node"), role="node", client_id="openclaw-ios") == ()


# --- inside the admission


def ask(setup: SetupStanding | None = None, **changes: Any) -> dict[str, Any]:
    """A remote node with a verified key that presents a setup code and nothing else."""
    params: dict[str, Any] = {"client_id": "node-host", "mode": "node", "role": "node", "scopes": ()}
    params |= {key: changes.pop(key) for key in tuple(changes) if key in {"client_id", "role", "scopes", "auth"}}
    params.setdefault("auth", ConnectAuth(bootstrap_token="c" * 43))
    return {
        "params": connect_params(**params),
        "with_device": True,
        "peer": REMOTE,
        "secret": SecretOutcome.MISSING,
        "secret_via": None,
        "setup": setup,
        **changes,
    }


def test_v24_a_good_code_lets_a_node_in_and_is_spent() -> None:
    verdict = admit(question(**ask(standing())))
    assert isinstance(verdict, Admitted)
    assert (verdict.method, verdict.role, verdict.scopes) == ("bootstrap-token", "node", ())
    assert verdict.setup is not None
    assert (verdict.setup.setup_id, verdict.setup.handed) == ("s", ())
    assert not verdict.pair_silently


def test_a_phone_is_handed_the_operator_scopes_of_the_profile() -> None:
    verdict = admit(question(**ask(standing("limited"), client_id="openclaw-ios")))
    assert isinstance(verdict, Admitted)
    assert verdict.setup is not None
    assert set(verdict.setup.handed) == set(PROFILES["limited"].operator_scopes)


def test_isolation_a_token_that_a_phone_takes_along_lies_under_the_listeners_ceiling() -> None:
    for scopes, handed in ((frozenset({"operator.read"}), ("operator.read",)), (frozenset[str](), ())):
        peer = attrs.evolve(REMOTE, arrival=Arrival(listener="phones", ceiling=Ceiling(scopes=scopes)))
        verdict = admit(question(**ask(standing("full"), client_id="openclaw-ios", peer=peer)))
        assert isinstance(verdict, Admitted)
        assert verdict.setup is not None
        assert verdict.setup.handed == handed


def test_v24_a_code_counts_with_a_verified_key_only() -> None:
    no_device = refused(**{**ask(standing()), "with_device": False})
    assert detail(no_device, "code") == "AUTH_BOOTSTRAP_TOKEN_INVALID"


@pytest.mark.parametrize("secret", [SecretOutcome.MISMATCH, SecretOutcome.MALFORMED, SecretOutcome.LOCKED])
def test_v59_a_wrong_secret_is_not_outweighed_by_a_good_code(secret: SecretOutcome) -> None:
    auth = ConnectAuth(token="wrong", bootstrap_token="c" * 43)
    verdict = refused(**ask(standing(), auth=auth, secret=secret))
    assert detail(verdict, "code") in {"AUTH_TOKEN_MISMATCH", "AUTH_RATE_LIMITED"}


def test_v59_a_wrong_device_token_is_not_outweighed_by_a_good_code() -> None:
    auth = ConnectAuth(device_token="wrong", bootstrap_token="c" * 43)
    verdict = refused(**ask(standing(), auth=auth, device_token=DeviceTokenOutcome.MISMATCH))
    assert detail(verdict, "code") == "AUTH_DEVICE_TOKEN_MISMATCH"


def test_the_right_secret_decides_before_a_code_and_spends_none() -> None:
    auth = ConnectAuth(token="t", bootstrap_token="c" * 43)
    verdict = pairing_needed(**ask(standing(), auth=auth, secret=SecretOutcome.MATCH, secret_via="token"))
    assert verdict.setup_id is None


def test_unknown_and_taken_codes_read_the_same_and_count_as_setup_codes() -> None:
    unknown, taken = refused(**ask(None)), refused(**ask(standing(bound_to="another")))
    assert unknown.error == taken.error
    assert unknown.counts is taken.counts is CredentialClass.SETUP_CODE
    assert detail(unknown, "code") == "AUTH_BOOTSTRAP_TOKEN_INVALID"


def test_v24_wider_than_the_profile_is_refused_and_is_no_guess() -> None:
    verdict = refused(**ask(standing("limited"), role="operator", scopes=("operator.admin",)))
    assert verdict.error.key == "auth-setup-code-too-narrow"
    assert verdict.counts is None


def test_a_node_host_with_a_phones_code_waits_for_a_person_with_its_code_bound() -> None:
    verdict = pairing_needed(**ask(standing("full")))
    assert (verdict.reason, verdict.setup_id, verdict.keep_trying) == ("not-paired", "s", True)


def test_a_device_that_a_person_approved_meanwhile_comes_in_with_its_code() -> None:
    verdict = admit(question(**ask(standing("full", DEVICE_ID), pairing=Approval(role="node"))))
    assert isinstance(verdict, Admitted)
    assert verdict.setup is not None
    assert (verdict.method, verdict.setup.handed) == ("bootstrap-token", ())


def test_v24_a_code_works_with_every_kind_of_authentication() -> None:
    for kind in ("token", "password", "none", "trusted-proxy"):
        verdict = admit(question(**ask(standing(), auth_type=kind)))
        assert isinstance(verdict, Admitted), kind
        assert verdict.method == "bootstrap-token"


# --- the text


def test_v23_a_code_holds_addresses_a_token_and_its_end_and_nothing_else() -> None:
    payload = setup_payload(["wss://a.example", "ws://192.168.1.2:18789"], "t" * 43, 17, tls_fingerprint="ab")
    code = encode_setup_code(payload)
    assert looks_like_setup_code(code)
    assert looks_like_setup_code("oc-pair://" + code)
    assert set(code).isdisjoint("=+/\n")
    assert json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))) == {
        "url": "wss://a.example",
        "urls": ["wss://a.example", "ws://192.168.1.2:18789"],
        "bootstrapToken": "t" * 43,
        "expiresAtMs": 17,
        "tlsFingerprint": "ab",
    }
    assert setup_payload(["wss://a.example"], "t", 17, gateway_id="ab")["gatewayId"] == "ab"
    assert setup_payload(["wss://a.example"], "t", 17) == {
        "url": "wss://a.example",
        "bootstrapToken": "t",
        "expiresAtMs": 17,
    }


# --- addresses


def urls(found: SetupUrls | Unreachable) -> tuple[str, ...]:
    assert isinstance(found, SetupUrls), found
    return found.urls


def reason(found: SetupUrls | Unreachable) -> str:
    assert isinstance(found, Unreachable), found
    assert found.fix
    return found.reason


def test_pair11_every_address_in_order_the_public_origin_first() -> None:
    reach = Reachability(
        listening=LAN,
        lan=("192.168.1.2", "fd00::2"),
        tailnet="100.64.0.7",
        public_url="https://gw.example.com/claw/",
    )
    found = setup_urls(reach, proxied="wss://proxied.example")
    assert urls(found) == (
        "wss://proxied.example",
        "wss://gw.example.com/claw",
        "ws://192.168.1.2:18789",
        "ws://100.64.0.7:18789",
    )
    assert isinstance(found, SetupUrls)
    assert found.source == "trusted proxy"
    assert not found.exposed
    assert found.sheltered().urls == ("wss://proxied.example", "wss://gw.example.com/claw", "ws://100.64.0.7:18789")


def test_pair11_a_loopback_gateway_makes_no_code_and_says_why() -> None:
    text = reason(setup_urls(Reachability(listening=LOOPBACK, lan=("192.168.1.2",), tailnet="100.64.0.7")))
    assert text.startswith("Gateway is only bound to loopback")


def test_pair11_bind_modes_name_what_they_listen_on() -> None:
    both = Reachability(listening=(("::", 5),), lan=("192.168.1.2", "fd00::2"))
    assert urls(setup_urls(both)) == ("ws://192.168.1.2:5", "ws://[fd00::2]:5")
    tailnet = Reachability(listening=(("127.0.0.1", 5), ("100.64.0.7", 5)), lan=("192.168.1.2",), tailnet="100.64.0.7")
    assert urls(setup_urls(tailnet)) == ("ws://100.64.0.7:5",)
    one = Reachability(listening=(("10.1.2.3", 5),), lan=("192.168.1.2",), tls=True)
    assert urls(setup_urls(one)) == ("wss://10.1.2.3:5",)


def test_pair11_a_container_says_that_its_address_may_be_its_own_only() -> None:
    found = setup_urls(Reachability(listening=LAN, lan=("172.17.0.2",), container=True))
    assert isinstance(found, SetupUrls)
    assert "container" in found.source


def test_pair11_plaintext_over_the_open_internet_is_never_named() -> None:
    for place in (
        Reachability(listening=LOOPBACK, public_url="http://gw.example.com"),
        Reachability(listening=LAN, lan=("203.0.113.9",)),
    ):
        assert "plaintext" in reason(setup_urls(place))
    assert "plaintext" in reason(setup_urls(Reachability(listening=LOOPBACK), written="ws://203.0.113.9:1"))
    mixed = Reachability(listening=LAN, lan=("192.168.1.2",), public_url="ws://gw.example.com")
    assert urls(setup_urls(mixed)) == ("ws://192.168.1.2:18789",)


def test_pair11_what_a_person_wrote_is_the_only_address_even_on_this_host() -> None:
    reach = Reachability(listening=LAN, lan=("192.168.1.2",), public_url="https://gw.example.com")
    assert urls(setup_urls(reach, written="http://127.0.0.1:18789/")) == ("ws://127.0.0.1:18789",)
    assert urls(setup_urls(reach, written="WSS://Gw.Example:443/x/")) == ("wss://gw.example/x",)


@pytest.mark.parametrize(
    "text",
    [
        "", "gw.example.com", "ftp://x", "ws://", "wss://user:pw@x", "wss://x?token=1", "wss://x#t", "wss://x y",
        "wss://x:99999", "wss://[::", "wss://\u00e4", "wss://" + "a" * 600,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(text: str) -> None:
    assert "publicUrl" in reason(setup_urls(Reachability(listening=LAN), written=text))


def test_the_remote_gateways_address_only_where_it_is_known() -> None:
    reach = Reachability(listening=LOOPBACK, remote_url="wss://far.example")
    assert urls(setup_urls(reach, prefer_remote=True)) == ("wss://far.example",)
    assert "gateway.remote.url" in reason(setup_urls(Reachability(listening=LAN), prefer_remote=True))


def test_pair11_the_list_of_addresses_is_capped() -> None:
    many = tuple(f"192.168.1.{n}" for n in range(1, 50))
    assert len(urls(setup_urls(Reachability(listening=LAN, lan=many)))) == MAX_URLS


def test_pair11_only_a_trusted_proxys_host_is_a_public_origin() -> None:
    forwarded: dict[str, Any] = {"x_forwarded_for": "203.0.113.5", "x_forwarded_proto": "https"}
    forwarded["x_forwarded_host"] = "gw.example.com"
    trusted = peer_from("10.0.0.1", trusted=("10.0.0.1",), **forwarded)
    assert proxied_origin(trusted) == "wss://gw.example.com"
    assert proxied_origin(peer_from("10.0.0.1", **forwarded)) is None
    assert proxied_origin(peer_from("192.168.1.7", host="gw.example.com")) is None
    assert proxied_origin(None) is None


def test_a_join_url_is_encrypted_or_of_this_host() -> None:
    assert join_base(["ws://192.168.1.2:1", "wss://gw.example:8443/claw"]) == "https://gw.example:8443/claw"
    assert join_base(["ws://127.0.0.1:1"]) == "http://127.0.0.1:1"
    assert join_base(["ws://192.168.1.2:1", "ws://100.64.0.7:1"]) is None


# --- the limiter


def test_one_address_asks_so_often_and_no_more_until_its_minute_is_over() -> None:
    limiter = JoinLimiter(limit=3, window=60.0)
    assert [limiter.wait("a", now=t) for t in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    assert limiter.wait("a", now=10.0) == 50.0
    assert limiter.wait("b", now=10.0) == 0.0
    assert limiter.wait("a", now=60.0) == 0.0


def test_v14_the_limiter_remembers_a_bounded_number_of_addresses() -> None:
    limiter = JoinLimiter(limit=1, capacity=8)
    for number in range(100):
        limiter.wait(f"client-{number}", now=0.0)
    assert len(limiter) == 8
    assert limiter.wait("client-99", now=1.0) > 0.0


@given(
    access=st.sampled_from(["full", "limited", "node"]),
    bound_to=st.sampled_from([None, DEVICE_ID, "another"]),
    secret=st.sampled_from(list(SecretOutcome)),
    device_token=st.sampled_from(list(DeviceTokenOutcome)),
    role=st.sampled_from(["operator", "node"]),
    scopes=st.lists(st.sampled_from(sorted(KNOWN_OPERATOR_SCOPES)), max_size=3),
    client_id=st.sampled_from(["openclaw-ios", "node-host", "cli"]),
    pairing=st.sampled_from([None, UNREADABLE]),
    with_device=st.booleans(),
)
def test_v24_law_a_code_alone_lets_in_its_own_device_within_its_profile(
    access: Access,
    bound_to: str | None,
    secret: SecretOutcome,
    device_token: DeviceTokenOutcome,
    role: str,
    scopes: list[str],
    client_id: str,
    pairing: Any,
    with_device: bool,
) -> None:
    asked = ask(
        standing(access, bound_to), role=role, scopes=tuple(scopes), client_id=client_id, pairing=pairing,
        secret=secret, device_token=device_token, with_device=with_device,
    )  # fmt: skip
    verdict = admit(question(**asked))
    if isinstance(verdict, Admitted) and verdict.method == "bootstrap-token":
        assert with_device
        assert secret is SecretOutcome.MISSING
        assert device_token is DeviceTokenOutcome.NONE
        assert bound_to in {None, DEVICE_ID}
        assert pairing is None
        assert (verdict.role, verdict.scopes) == ("node", ())
        assert verdict.setup is not None
        assert set(verdict.setup.handed) <= set(PROFILES[access].operator_scopes)
    elif isinstance(verdict, Admitted):
        assert verdict.setup is None
        assert secret is SecretOutcome.MATCH or device_token is DeviceTokenOutcome.MATCH


# --- what a person is shown


@pytest.mark.parametrize(
    ("listening", "here", "elsewhere"),
    [
        (LOOPBACK, ("ws://127.0.0.1:18789", "ws://[::1]:18789"), ()),
        (LAN, ("ws://127.0.0.1:18789",), ("ws://192.168.1.2:18789", "ws://100.64.0.7:18789")),
        (
            (("::", 7),),
            ("ws://127.0.0.1:7",),
            ("ws://192.168.1.2:7", "ws://[fd00::2]:7", "ws://100.64.0.7:7"),
        ),
        ((("127.0.0.1", 7), ("192.168.1.2", 7)), ("ws://127.0.0.1:7",), ("ws://192.168.1.2:7",)),
        ((("127.0.0.1", 7), ("100.64.0.7", 7)), ("ws://127.0.0.1:7",), ("ws://100.64.0.7:7",)),
        ((("127.0.0.1", 7), ("203.0.113.9", 7)), ("ws://127.0.0.1:7",), ("ws://203.0.113.9:7",)),
        ((), (), ()),
    ],
)
def test_net4_what_is_shown_can_be_typed_in(
    listening: tuple[tuple[str, int], ...], here: tuple[str, ...], elsewhere: tuple[str, ...]
) -> None:
    reach = Reachability(listening=listening, lan=("192.168.1.2", "fd00::2"), tailnet="100.64.0.7")
    assert shown_urls(reach) == (here, elsewhere)


def test_names_are_shown_behind_addresses_and_the_list_has_an_end() -> None:
    reach = Reachability(
        listening=LAN, lan=("192.168.1.2",), served_url="https://claw.tail.ts.net", public_url="https://claw.example",
        tls=True,
    )  # fmt: skip
    found = ("wss://192.168.1.2:18789", "wss://claw.tail.ts.net", "wss://claw.example")
    assert shown_urls(reach) == (("wss://127.0.0.1:18789",), found)
    many = Reachability(listening=LAN, lan=tuple(f"10.0.0.{number}" for number in range(1, 30)))
    assert len(shown_urls(many)[1]) == MAX_URLS
