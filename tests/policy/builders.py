"""Peers and questions for the tests of policy/: an honest local default, changed where a test says so."""

from __future__ import annotations

from typing import Any

import attrs

from openclaw_gateway.policy.addresses import NetworkSet, parse_networks
from openclaw_gateway.policy.admission import (
    AdmissionQuestion,
    AdmissionRules,
    Admitted,
    AutoApproveRules,
    PairingNeeded,
    Refused,
    admit,
)
from openclaw_gateway.policy.locality import Peer, PeerRules, describe_peer
from openclaw_gateway.policy.origin import OriginVerdict
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.protocol.connect import ClientInfo, ConnectAuth, ConnectParams, DeviceProof
from openclaw_gateway.protocol.device import DeviceVerdict

DEVICE_ID = "7b" * 32
NO_ORIGIN = OriginVerdict(ok=True, reason="no origin: not a browser")
PROOF = DeviceProof(id=DEVICE_ID, public_key="k", signature="s", signed_at=1, nonce="n")
VERIFIED = DeviceVerdict(ok=True, device_id=DEVICE_ID, public_key="k", payload_version="v3")


@attrs.frozen(kw_only=True)
class Approval:
    """A paired device as the admission wants to see one."""

    device_id: str = DEVICE_ID
    role: str = "operator"
    scopes: tuple[str, ...] = ()


def networks(*entries: str) -> NetworkSet:
    found, faults = parse_networks(entries)
    assert not faults
    return found


def peer_from(
    address: str | None = "127.0.0.1", *, trusted: tuple[str, ...] = (), tls: bool = False, **headers: Any
) -> Peer:
    """``headers`` by name with underscores; Host is 127.0.0.1:18789 unless given ("" leaves it out)."""
    given = {"host": "127.0.0.1:18789"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value or name != "host"]
    return describe_peer(address, raw, PeerRules(trusted_proxies=networks(*trusted)), tls=tls)


LOCAL = peer_from()
REMOTE = peer_from("203.0.113.9", host="gw.example:18789")
LAN = peer_from("192.168.1.7", host="192.168.1.2:18789")


def connect_params(**changes: Any) -> ConnectParams:
    """``client_id`` and ``mode`` go into the client; the rest replaces fields of the parameters."""
    client = ClientInfo(
        id=changes.pop("client_id", "cli"),
        mode=changes.pop("mode", "cli"),
        version="1",
        platform="linux",
        display_name=changes.pop("display_name", None),
    )
    base = ConnectParams(
        min_protocol=4, max_protocol=4, client=client, scopes=("operator.read",), auth=ConnectAuth(token="t")
    )
    return attrs.evolve(base, **changes)


def question(**changes: Any) -> AdmissionQuestion:
    """A device-less local holder of the right token, changed as told; ``with_device`` adds a verified device."""
    if changes.pop("with_device", False):
        changes["params"] = attrs.evolve(changes.get("params", connect_params()), device=PROOF)
        changes.setdefault("device", VERIFIED)
    auto = changes.pop("auto_approve", AutoApproveRules())
    rules = AdmissionRules(auth_type=changes.pop("auth_type", "token"), auto_approve=auto)
    base = AdmissionQuestion(
        params=connect_params(),
        peer=LOCAL,
        rules=rules,
        origin=NO_ORIGIN,
        secret=SecretOutcome.MATCH,
        secret_via="token",
    )
    return attrs.evolve(base, **changes)


def admitted(**changes: Any) -> Admitted:
    verdict = admit(question(**changes))
    assert isinstance(verdict, Admitted), verdict
    return verdict


def refused(**changes: Any) -> Refused:
    verdict = admit(question(**changes))
    assert isinstance(verdict, Refused), verdict
    return verdict


def pairing_needed(**changes: Any) -> PairingNeeded:
    verdict = admit(question(**changes))
    assert isinstance(verdict, PairingNeeded), verdict
    return verdict


def detail(verdict: Refused, key: str) -> Any:
    assert verdict.error.details is not None
    return verdict.error.details.get(key)
