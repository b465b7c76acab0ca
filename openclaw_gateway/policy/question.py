"""What an admission is asked: everything that was measured about one peer, and what follows from that alone.

Owns the question, the rules it is asked under, and the readings that more than one step needs: who is vouched for, what
is approved, what a credential covers. It must not decide: no verdict is made here. Invariants: what cannot be read is
not "unpaired" (V60); a record of another device or role is no approval; nobody's word outweighs a wrong secret (V59).
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Final, Literal, Protocol

import attrs

from openclaw_gateway.policy.autoapprove import AutoApproveRules
from openclaw_gateway.policy.channel import SecureMode
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.origin import OriginVerdict
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.setup import SetupStanding
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.verdicts import AuthMethod
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.protocol.connect import ConnectParams
from openclaw_gateway.protocol.device import DeviceVerdict
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.protocol.scopes import satisfies
from openclaw_gateway.value import Value

__all__ = [
    "UNREADABLE",
    "WRONG_SECRETS",
    "AdmissionQuestion",
    "AdmissionRules",
    "AuthType",
    "DeviceTokenOutcome",
    "PairedDevice",
    "SecretSource",
    "Unreadable",
    "approval_on_record",
    "not_covered",
    "rests_on_setup_code",
    "secret_method",
    "under_cap",
    "vouched_person",
    "within_key",
]

AuthType = Literal["token", "password", "none", "trusted-proxy"]
SecretSource = Literal["token", "password", "query", "bearer"]
WRONG_SECRETS: Final = frozenset({SecretOutcome.MISMATCH, SecretOutcome.MALFORMED, SecretOutcome.LOOKS_LIKE_SETUP_CODE})


class Unreadable(enum.Enum):
    """The type of `UNREADABLE`."""

    UNREADABLE = "unreadable"


UNREADABLE: Final = Unreadable.UNREADABLE  # the look-up failed: not the same as "not paired" (V60)


class PairedDevice(Protocol):
    """What is approved for one device in one role; `pairing.records` has the real thing."""

    @property
    def device_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> Collection[str]: ...


class DeviceTokenOutcome(enum.Enum):
    """What came of looking for this device's token among `device_token_candidates`."""

    NONE = "none"  # no candidate was presented, or the device is not known
    MATCH = "match"
    MISMATCH = "mismatch"
    REVOKED = "revoked"
    EXPIRED = "expired"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdmissionRules(Value):
    """What the configuration says about who may come in."""

    auth_type: AuthType
    allow_query_token: bool = True
    legacy_v3: bool = True  # PROTO-1: any client whose newest protocol is 3
    auto_approve: AutoApproveRules = attrs.field(factory=AutoApproveRules)
    own_tailnet_addresses: frozenset[str] = frozenset()  # canonical texts
    secure_channel: SecureMode = "on"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdmissionQuestion(Value):
    """Everything that was measured about one ``connect`` (or one HTTP request)."""

    params: ConnectParams
    peer: Peer
    rules: AdmissionRules
    origin: OriginVerdict
    secret: SecretOutcome  # of `presented_secret` against the gateway's own
    secret_via: SecretSource | None = None  # where it was found
    locked_for: float = 0.0  # seconds left, with secret == LOCKED
    device: DeviceVerdict | None = None  # verdict on params.device; None where there was none
    device_token: DeviceTokenOutcome = DeviceTokenOutcome.NONE
    api_key: ApiKeyOutcome = ApiKeyOutcome.NONE  # of the same text as `secret`, which is then not compared with it
    api_key_scopes: Collection[str] = ()  # with api_key == MATCH
    pairing: PairedDevice | Unreadable | None = None  # what is approved for (device, role)
    approved_roles: Collection[str] = ()  # roles this device is approved for
    revoked: bool = False  # this (device, role) was approved once and revoked: only a new approval restores it (V26)
    removed: bool = False  # this device was removed by a person; otherwise as revoked
    known: bool = False  # something was decided about this device before, in whatever role
    setup: SetupStanding | None = None  # the living setup code that auth.bootstrapToken is
    opened_by: KeyStatement | None = None  # who opened the secure channel this came through; None: in the clear
    registered_key: str | None = None  # the X25519 key that this device registered before
    transport: Literal["websocket", "http"] = "websocket"


def vouched_person(q: AdmissionQuestion) -> Vouched | None:
    """Who is vouched for, where that counts."""
    vouched = q.peer.vouched
    if vouched is None or not vouched.ok or q.params.role != "operator" or q.api_key is not ApiKeyOutcome.NONE:
        return None
    # A secret that was compared and found wrong is not outweighed by anybody's word (V59).
    return None if q.secret in WRONG_SECRETS or q.secret is SecretOutcome.LOCKED else vouched


def approval_on_record(q: AdmissionQuestion, device_id: str) -> PairedDevice | None:
    """The approval on record, if it is this device's in this role: a record of another one is no approval."""
    if q.pairing is None or q.pairing is UNREADABLE or q.revoked:
        return None
    return q.pairing if q.pairing.device_id == device_id and q.pairing.role == q.params.role else None


def rests_on_setup_code(q: AdmissionQuestion) -> bool:
    """A setup code counts where nothing else was presented: a wrong secret is not outweighed by it (V59)."""
    nothing_else = q.secret is SecretOutcome.MISSING and q.api_key is ApiKeyOutcome.NONE
    return nothing_else and q.device_token is DeviceTokenOutcome.NONE


def secret_method(rules: AdmissionRules) -> AuthMethod:
    if rules.auth_type == "none":
        return "none"
    return "password" if rules.auth_type == "password" else "token"


def under_cap(person: Vouched | None, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """What the proxy lets through of ``scopes``."""
    if person is None or person.cap is None:
        return scopes
    cap = frozenset(person.cap)
    return tuple(scope for scope in scopes if satisfies(cap, scope))


def within_key(q: AdmissionQuestion, asked: tuple[str, ...]) -> tuple[str, ...]:
    """What of ``asked`` an API key may have; everything where the credential is another one."""
    if q.api_key is not ApiKeyOutcome.MATCH:
        return asked
    held = frozenset(q.api_key_scopes)
    return tuple(scope for scope in asked if satisfies(held, scope))


def not_covered(held: Collection[str], asked: tuple[str, ...]) -> tuple[str, ...]:
    granted = frozenset(held)
    return tuple(scope for scope in asked if not satisfies(granted, scope))
