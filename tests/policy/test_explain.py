"""Why, by which rule, and what changes it: explanations of verdicts, real and supposed."""

from __future__ import annotations

from itertools import product
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
    pairing_refusal,
)
from openclaw_gateway.policy.autoapprove import TABLE
from openclaw_gateway.policy.explain import (
    _ADMISSIONS,
    MAX_REMEMBERED,
    NEW_DEVICE,
    RecentVerdicts,
    Remembered,
    Supposition,
    explain,
    explain_supposition,
    remedy,
    suppose,
)
from openclaw_gateway.policy.locality import PeerRules
from openclaw_gateway.policy.origin import OriginRules
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.protocol.connect import ConnectAuth
from tests.policy.builders import DEVICE_ID, LAN, LOCAL, REMOTE, Approval, admitted, connect_params, networks, question

TOKEN_RULES = AdmissionRules(auth_type="token")
WITHOUT = "admitted: on this host without a device"
ASKS = "pairing needed"
SECRET = "sk-live-0123456789abcdef0123456789abcdef"


@attrs.frozen(kw_only=True)
class Record:
    device_id: str = DEVICE_ID
    role: str = "operator"
    scopes: tuple[str, ...] = ("operator.read",)
    live: bool = True


def supposed(ip: str = "203.0.113.9", **changes: Any) -> Any:
    """The explanation of a supposed peer; what is no field of a supposition goes to `suppose`."""
    names = {field.name for field in attrs.fields(Supposition)}
    peer = Supposition(ip=ip, **{name: changes.pop(name) for name in tuple(changes) if name in names})
    changes.setdefault("rules", TOKEN_RULES)
    changes.setdefault("peers", PeerRules())
    changes.setdefault("origins", OriginRules())
    return explain_supposition(suppose(peer, **changes), changes.get("request_id"))


def every_verdict() -> list[tuple[Any, Any]]:
    """Verdicts over a wide grid of questions, each with its question."""
    found = []
    auths = (ConnectAuth(token=SECRET), ConnectAuth(device_token=SECRET), ConnectAuth(bootstrap_token=SECRET))
    for peer, role, secret, token, device, pairing, auth_type, auto, auth in product(
        (LOCAL, REMOTE, LAN),
        ("operator", "node"),
        tuple(SecretOutcome),
        (DeviceTokenOutcome.NONE, DeviceTokenOutcome.MATCH, DeviceTokenOutcome.REVOKED),
        (True, False),
        (None, "paired", "narrow", UNREADABLE, "revoked"),
        ("token", "password", "none"),
        (AutoApproveRules(), AutoApproveRules(lan=networks("192.168.1.0/24"), shared_secret="baseline")),
        auths,
    ):
        scopes = ("operator.admin",) if role == "operator" else ()
        standing: Any = pairing if pairing is UNREADABLE else None
        if pairing in {"paired", "narrow"}:
            held = scopes if pairing == "paired" else ("operator.read", "operator.write")
            standing = Approval(role=role, scopes=held)
        asked = question(
            with_device=device,
            params=connect_params(role=role, scopes=scopes, auth=auth),
            peer=peer,
            secret=secret,
            device_token=token,
            pairing=standing,
            revoked=pairing == "revoked",
            auth_type=auth_type,
            auto_approve=auto,
            locked_for=3.0 if secret is SecretOutcome.LOCKED else 0.0,
        )
        found.append((asked, admit(asked)))
    return found


def test_law_every_verdict_has_a_rule_a_reason_a_path_and_one_command() -> None:
    kinds = set()
    for asked, verdict in every_verdict():
        told = explain(verdict, peer=asked.peer, client="cli", request_id="r-1")
        kinds.add(told.verdict)
        assert told.rule == told.path[-1] == verdict.trail[-1]
        assert told.because.endswith(".")
        assert told.fix
        assert "{" not in told.fix.replace("${", "")
        assert SECRET not in str(told.to_wire())
        assert told.path == verdict.trail
    assert kinds == {"admitted", "pairing-needed", "refused"}


def test_law_a_refusal_is_explained_with_the_text_that_the_client_is_told() -> None:
    for _, verdict in every_verdict():
        if isinstance(verdict, PairingNeeded):
            on_the_wire = pairing_refusal(verdict, "r-1").error
        elif isinstance(verdict, Refused):
            on_the_wire = verdict.error
        else:
            continue
        assert on_the_wire.details is not None
        assert explain(verdict, request_id="r-1").fix == on_the_wire.details["remediationHint"]


def test_law_every_way_in_is_in_the_table_of_ways_in() -> None:
    reasons = {
        verdict.trail[-1].removeprefix("admitted: ") for _, verdict in every_verdict() if isinstance(verdict, Admitted)
    }
    assert reasons <= set(_ADMISSIONS)
    assert {f"paired by itself: {row.why}" for row in TABLE if row.grants is not None} <= set(_ADMISSIONS)


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "openclaw config set gateway.auth.token <a new token>"),
        ({"auth_type": "password"}, "openclaw config set gateway.auth.password <a new password>"),
        ({"auth_type": "none"}, "openclaw config set gateway.auth.type token"),
        ({"with_device": True}, "openclaw config set gateway.pairing.autoApprove.loopback false"),
        (
            {"with_device": True, "pairing": Approval(scopes=("operator.read",))},
            f"openclaw devices revoke --device {DEVICE_ID} --role operator",
        ),
        (
            {"with_device": True, "peer": REMOTE, "auto_approve": AutoApproveRules(shared_secret="baseline")},
            "openclaw config set gateway.pairing.autoApprove.sharedSecret off",
        ),
        (
            {
                "with_device": True,
                "peer": LAN,
                "params": connect_params(role="node", scopes=()),
                "auto_approve": AutoApproveRules(lan=networks("192.168.1.0/24")),
            },
            "openclaw config set gateway.pairing.autoApprove.lan '[]'",
        ),
    ],
)
def test_an_admission_names_the_command_that_ends_it(changes: dict[str, Any], command: str) -> None:
    assert remedy(admitted(**changes)) == command


def test_an_api_key_is_ended_by_revoking_it() -> None:
    verdict = admitted(secret=SecretOutcome.MISSING, api_key=ApiKeyOutcome.MATCH, api_key_scopes=("operator.read",))
    assert verdict.trail[-1] == "admitted: API key"
    assert "openclaw tokens revoke" in remedy(verdict)


def test_a_way_in_that_is_new_to_the_table_is_still_explained() -> None:
    verdict = attrs.evolve(admitted(with_device=True), trail=("admitted: by moonlight",))
    assert remedy(verdict).startswith("openclaw devices revoke")
    assert explain(verdict).because == "Let in: by moonlight."


@pytest.mark.parametrize(
    ("changes", "verdict", "rule"),
    [
        ({"ip": "127.0.0.1"}, "admitted", "admitted: on this host without a device"),
        ({"ip": "::1", "device": NEW_DEVICE}, "admitted", "admitted: paired by itself: on this host"),
        ({"ip": "127.0.0.1", "forwarded": "203.0.113.9"}, "refused", "refused: device-identity-required"),
        ({"ip": "127.0.0.1", "host": "evil.example"}, "refused", "refused: device-identity-required"),
        ({"ip": "127.0.0.1", "origin": "https://evil.example"}, "refused", "refused: origin-not-allowed"),
        ({"client_id": "openclaw-control-ui", "ip": "127.0.0.1"}, "refused", "refused: origin-not-allowed"),
        ({}, "refused", "refused: device-identity-required"),
        ({"presents": "none"}, "refused", "refused: device-identity-required"),
        ({"presents": "password", "device": NEW_DEVICE}, "refused", "refused: auth-token-mismatch"),
        ({"device": NEW_DEVICE}, "pairing-needed", "pairing needed: not-paired"),
        ({"device": NEW_DEVICE, "role": "node"}, "pairing-needed", "pairing needed: not-paired"),
        ({"device": NEW_DEVICE, "presents": "none"}, "refused", "refused: auth-token-missing"),
        ({"device": NEW_DEVICE, "presents": "device"}, "refused", "refused: auth-device-token-mismatch"),
        ({"device": DEVICE_ID, "records": (Record(),)}, "admitted", "admitted: paired"),
        (
            {"device": DEVICE_ID, "records": (Record(),), "scopes": ("operator.admin",)},
            "refused",
            "refused: auth-scope-mismatch",
        ),
        (
            {"device": DEVICE_ID, "records": (Record(),), "scopes": ("operator.admin",), "presents": "token"},
            "pairing-needed",
            "pairing needed: scope-upgrade",
        ),
        ({"device": DEVICE_ID, "records": (Record(),), "role": "node"}, "pairing-needed", f"{ASKS}: role-upgrade"),
        (
            {"device": DEVICE_ID, "records": (Record(live=False),), "presents": "device"},
            "refused",
            "refused: auth-device-token-revoked",
        ),
        (
            {"device": DEVICE_ID, "records": (Record(live=False),), "ip": "127.0.0.1"},
            "pairing-needed",
            "pairing needed: role-upgrade",
        ),
        ({"device": DEVICE_ID, "removed": True, "ip": "127.0.0.1"}, "pairing-needed", "pairing needed: not-paired"),
        ({"device": DEVICE_ID, "records": UNREADABLE}, "refused", "refused: pairing-unreadable"),
        ({"ip": "127.0.0.1", "locked_for": 12.0}, "refused", "refused: auth-rate-limited"),
        ({"ip": "::1", "rules": AdmissionRules(auth_type="none")}, "admitted", WITHOUT),
    ],
)  # fmt: skip
def test_a_supposed_peer_meets_the_rules_of_a_real_one(changes: dict[str, Any], verdict: str, rule: str) -> None:
    told = supposed(**changes)
    assert (told.verdict, told.rule) == (verdict, rule)


def test_v13_v35_a_loopback_address_out_of_a_header_makes_nobody_local() -> None:
    trusting = PeerRules(trusted_proxies=networks("127.0.0.1"))
    told = supposed("127.0.0.1", forwarded="127.0.0.1", device=NEW_DEVICE, peers=trusting)
    assert told.verdict == "pairing-needed"
    assert told.address == "127.0.0.1"


def test_a_waiting_request_is_named_in_the_command() -> None:
    peer = Supposition(ip="203.0.113.9", device=NEW_DEVICE)
    asked = suppose(peer, rules=TOKEN_RULES, peers=PeerRules(), origins=OriginRules())
    assert explain_supposition(asked, "0b0e").fix == "openclaw devices approve 0b0e"
    assert explain_supposition(asked).fix == "openclaw devices approve <requestId>"


def test_the_person_who_is_asked_is_told_why() -> None:
    assert "A person is asked: from another host." in supposed(device=NEW_DEVICE).because


def test_recent_verdicts_are_bounded_and_the_oldest_go_first() -> None:
    recent = RecentVerdicts()
    verdict = admitted()
    for number in range(MAX_REMEMBERED + 10):
        recent.put(f"c{number}", Remembered(verdict=verdict, peer=LOCAL, client="cli"))
    assert len(recent) == MAX_REMEMBERED
    assert recent.get("c9") is None
    kept = recent.get("c10")
    assert kept is not None
    assert kept.explain().client == "cli"


def test_a_verdict_that_is_decided_twice_for_one_connection_is_kept_once() -> None:
    recent = RecentVerdicts(capacity=2)
    for request_id in (None, "r-1"):
        recent.put("c", Remembered(verdict=admitted(), peer=LOCAL, client="cli", request_id=request_id))
    assert len(recent) == 1
    kept = recent.get("c")
    assert kept is not None
    assert kept.request_id == "r-1"
