"""Why somebody was let in or turned away, and the one command that changes it.

Owns the reading of a verdict for a person (`explain`), the question behind "what would happen if" (`suppose`), and the
memory of recent verdicts. Pure. It must not decide: a supposed peer goes through the same `policy.admission.admit` as a
real one, and the command that mends a refusal is the very text that the refused client got
(``details.remediationHint``).

Invariants: no credential is kept or shown (a supposition says which kind is presented, never which); at most
`MAX_REMEMBERED` verdicts are remembered, the oldest go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import attrs

from openclaw_gateway.policy.addresses import is_loopback
from openclaw_gateway.policy.admission import (
    UNREADABLE,
    AdmissionQuestion,
    AdmissionRules,
    Admitted,
    DeviceTokenOutcome,
    PairingNeeded,
    Refused,
    Unreadable,
    admit,
    pairing_refusal,
)
from openclaw_gateway.policy.autoapprove import TABLE
from openclaw_gateway.policy.locality import Peer, PeerRules, describe_peer
from openclaw_gateway.policy.network import NOT_ALLOWED, NetworkRules
from openclaw_gateway.policy.origin import OriginRules, check_origin
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.protocol.connect import CONTROL_UI_ID, ClientInfo, ConnectAuth, ConnectParams, DeviceProof
from openclaw_gateway.protocol.device import DeviceVerdict
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.value import Value

__all__ = [
    "NEW_DEVICE",
    "Explanation",
    "Presented",
    "RecentVerdicts",
    "Remembered",
    "Supposition",
    "explain",
    "explain_kept_out",
    "explain_supposition",
    "remedy",
    "suppose",
]

MAX_REMEMBERED: Final = 512
UNKNOWN_REQUEST: Final = "<requestId>"  # of a request that does not exist yet: nobody has asked
NEW_DEVICE: Final = "0" * 64

Verdict = Admitted | PairingNeeded | Refused
Presented = Literal["token", "password", "device", "none"]

# What the last step of an admission says -> the rule in a sentence, and the command that takes it back.
_OFF: Final[Mapping[str, str]] = {"loopback": "false", "own-tailnet": "false", "lan": "'[]'", "shared-secret": "off"}
_REVOKE: Final = "openclaw devices revoke --device {device} --role {role}"
_ADMISSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "on this host without a device": (
        "Whoever holds the gateway's secret on this very host is let in without a device.",
        "openclaw config set gateway.auth.{kind} <a new {kind}>",
    ),
    "API key": (
        "Whoever holds a named API key is let in with at most the scopes of that key.",
        "openclaw tokens revoke <name>",
    ),
    "with a setup code": ("The setup code was made for one device, and this device redeemed it.", _REVOKE),
    "paired": ("The device is approved for this role and asks for no more than was approved.", _REVOKE),
    "paired, at the baseline": (
        "The device is approved for less than it asks for, and let in with that: autoApprove.sharedSecret.",
        "openclaw config set gateway.pairing.autoApprove.sharedSecret off",
    ),
    **{
        f"paired by itself: {row.why}": (
            f"Such a device is paired without anybody asked ({row.why}): {row.setting}.",
            f"openclaw config set {row.setting} {_OFF[row.id]}",
        )
        for row in TABLE
        if row.grants is not None
    },
}
_ASKED: Final = "a person is asked: "
_OPEN: Final = (
    "gateway.auth.type is none: whoever reaches the gateway on this host is let in.",
    "openclaw config set gateway.auth.type token",
)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Explanation(Value):
    """``rule`` names what decided, ``because`` says it in a sentence, ``path`` is the way there, ``fix`` is the one
    command that changes it (for an admission: that ends it).
    """

    verdict: Literal["admitted", "pairing-needed", "refused"]
    rule: str
    because: str
    path: tuple[str, ...]
    fix: str
    code: str | None = None
    role: str | None = None
    scopes: tuple[str, ...] = ()
    address: str | None = None
    client: str | None = None
    device: str | None = None

    def to_wire(self) -> dict[str, Any]:
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


def remedy(verdict: Verdict, request_id: str | None = None) -> str:
    """The one command that changes a verdict. For a refusal it is what the client is told."""
    if isinstance(verdict, PairingNeeded):
        verdict = pairing_refusal(verdict, request_id or UNKNOWN_REQUEST)
    if isinstance(verdict, Refused):
        return str((verdict.error.details or {})["remediationHint"])
    return _admission(verdict)[1]


def explain(
    verdict: Verdict, *, peer: Peer | None = None, client: str | None = None, request_id: str | None = None
) -> Explanation:
    """Read a verdict for a person. ``request_id``: of the pairing request that it led to, where there is one."""
    fix = remedy(verdict, request_id)
    address = peer.client_address if peer is not None else None
    path = verdict.trail
    if isinstance(verdict, Admitted):
        because = _admission(verdict)[0]
        return Explanation(
            verdict="admitted", rule=_last(path), because=because, path=path, fix=fix, role=verdict.role,
            scopes=verdict.scopes, address=address, client=client, device=verdict.device_id,
        )  # fmt: skip
    if isinstance(verdict, PairingNeeded):
        row = ERRORS[f"pairing-{verdict.reason}"]
        asked = next((f" A person is asked: {why}." for step in path if (why := _after(step, _ASKED))), "")
        return Explanation(
            verdict="pairing-needed", rule=_last(path), because=row.meaning + asked, path=path, fix=fix,
            code=row.detail, role=verdict.role, scopes=verdict.scopes, address=address, client=client,
            device=verdict.device_id,
        )  # fmt: skip
    key = verdict.error.key or ""
    because = ERRORS[key].meaning if key in ERRORS else verdict.error.message
    code = (verdict.error.details or {}).get("code")
    return Explanation(
        verdict="refused", rule=_last(path), because=because, path=path, fix=fix,
        code=str(code) if code is not None else verdict.error.code, address=address, client=client,
    )  # fmt: skip


def _after(step: str, prefix: str) -> str:
    return step[len(prefix) :] if step.startswith(prefix) else ""


def _last(path: tuple[str, ...]) -> str:
    return path[-1] if path else "none"


def _admission(verdict: Admitted) -> tuple[str, str]:
    reason = _last(verdict.trail).removeprefix("admitted: ")
    known = _ADMISSIONS.get(reason)
    if verdict.method == "none" and verdict.device_id is None:
        known = _OPEN
    if known is None:
        # A way in that this table does not know yet: what ends it is still certain.
        known = (f"Let in: {reason}.", _REVOKE if verdict.device_id is not None else _OPEN[1])
    kind = "password" if verdict.method == "password" else "token"
    because, command = known
    return because, command.format(device=verdict.device_id, role=verdict.role, kind=kind)


# --- what would happen if


class Record(Protocol):
    """One approved (or revoked) role of a device; `pairing.records.PairedDevice` is one."""

    @property
    def device_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def live(self) -> bool: ...


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Supposition(Value):
    """A peer that might come. ``device``: an id, or `NEW_DEVICE`; its signature is taken to be good. ``presents``:
    the right credential of that kind, or none.
    """

    ip: str
    role: str = "operator"
    scopes: tuple[str, ...] = ("operator.read",)
    client_id: str = "cli"
    device: str | None = None
    host: str | None = None
    origin: str | None = None
    forwarded: str | None = None  # an X-Forwarded-For value
    presents: Presented | None = None  # None: what such a peer would have


def suppose(
    supposed: Supposition,
    *,
    rules: AdmissionRules,
    peers: PeerRules,
    origins: OriginRules,
    records: Sequence[Record] | Unreadable = (),
    removed: bool = False,
    locked_for: float = 0.0,
) -> AdmissionQuestion:
    """The question that `admit` would be asked about such a peer. ``records``: all of its device's, revoked ones too;
    `UNREADABLE` where they cannot be read. ``removed``: a person removed the device.
    """
    peer = describe_peer(supposed.ip, _headers(supposed), peers)
    origin = check_origin(peer, origins, client_is_ui=supposed.client_id == CONTROL_UI_ID)
    known = () if isinstance(records, Unreadable) else records
    record = next((one for one in known if one.role == supposed.role), None)
    live = record is not None and record.live
    presents = supposed.presents if supposed.presents is not None else _natural(rules, live=live)
    proof = None
    if supposed.device is not None:
        proof = DeviceProof(id=supposed.device, public_key="supposed", signature="", signed_at=0, nonce="")
    mode = "node" if supposed.role == "node" else "ui" if supposed.client_id == CONTROL_UI_ID else "cli"
    device_token = "supposed" if presents == "device" else None  # stands for the right one
    params = ConnectParams(
        min_protocol=4,
        max_protocol=4,
        client=ClientInfo(id=supposed.client_id, mode=mode, version="0", platform="unknown"),
        role=supposed.role,
        scopes=supposed.scopes if supposed.role == "operator" else (),
        device=proof,
        auth=ConnectAuth(device_token=device_token),
    )
    secret = SecretOutcome.MISSING
    if presents in {"token", "password"} and rules.auth_type != "none":
        secret = SecretOutcome.MATCH if presents == rules.auth_type else SecretOutcome.MISMATCH
        if locked_for > 0:
            secret = SecretOutcome.LOCKED
    verdict = DeviceVerdict(ok=True, device_id=supposed.device, payload_version="v3") if proof is not None else None
    outcome = DeviceTokenOutcome.NONE
    if presents == "device":
        outcome = DeviceTokenOutcome.MISMATCH if record is None else DeviceTokenOutcome.REVOKED
        outcome = DeviceTokenOutcome.MATCH if live else outcome
    return AdmissionQuestion(
        params=params,
        peer=peer,
        rules=rules,
        origin=origin,
        secret=secret,
        secret_via="token" if secret is not SecretOutcome.MISSING else None,
        locked_for=locked_for if secret is SecretOutcome.LOCKED else 0.0,
        device=verdict,
        device_token=outcome,
        pairing=UNREADABLE if isinstance(records, Unreadable) else record if live else None,
        approved_roles=tuple(one.role for one in known if one.live),
        revoked=record is not None and not live,
        removed=removed,
        known=bool(known),
    )


def _headers(supposed: Supposition) -> list[tuple[bytes, bytes]]:
    host = supposed.host
    if host is None and is_loopback(supposed.ip):
        host = "localhost"
    given = (("host", host), ("origin", supposed.origin), ("x-forwarded-for", supposed.forwarded))
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in given if value is not None]


def _natural(rules: AdmissionRules, *, live: bool) -> Presented:
    if live:
        return "device"
    return "password" if rules.auth_type == "password" else "none" if rules.auth_type == "none" else "token"


def explain_supposition(question: AdmissionQuestion, request_id: str | None = None) -> Explanation:
    """Decide and explain in one go."""
    return explain(admit(question), peer=question.peer, client=question.params.client.id, request_id=request_id)


def explain_kept_out(peer: Peer, network: NetworkRules) -> Explanation | None:
    """The address lists' word on such a peer, which nothing else outweighs; None where they let it in."""
    by_socket = network.refusal(peer.address)
    reason = by_socket if by_socket is not None else network.refusal_behind(peer.way)
    if reason is None:
        return None
    whose = peer.address if by_socket is not None or not peer.way else peer.way[-1]
    kept = "allow" if reason == NOT_ALLOWED else "deny"
    step = f"{'connects' if by_socket is not None else 'a trusted proxy speaks for it'}: {whose}"
    return Explanation(
        verdict="refused", rule=f"refused: {reason}", because=f"Nobody comes in from {whose}: {reason}.",
        path=(step, f"refused: {reason}"), fix=f"openclaw config get gateway.network.{kept}", code="NETWORK_DENIED",
        address=whose,
    )  # fmt: skip


# --- what was decided lately


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Remembered(Value):
    """A verdict as it was; verdicts hold no credentials (`policy.verdicts`)."""

    verdict: Verdict
    peer: Peer
    client: str
    request_id: str | None = None

    def explain(self) -> Explanation:
        return explain(self.verdict, peer=self.peer, client=self.client, request_id=self.request_id)


class RecentVerdicts:
    """The last `MAX_REMEMBERED` verdicts by connection id."""

    def __init__(self, capacity: int = MAX_REMEMBERED) -> None:
        self._capacity = capacity
        self._by_conn: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_conn)

    def put(self, conn_id: str, remembered: Remembered) -> None:
        self._by_conn[conn_id] = remembered
        if len(self._by_conn) > self._capacity:
            self._by_conn.popitem(last=False)

    def get(self, conn_id: str) -> Remembered | None:
        return self._by_conn.get(conn_id)
