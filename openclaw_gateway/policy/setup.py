"""Setup codes, decided: what a profile grants, who may issue one, what a redeemer gets, how a code reads.

Pure. A setup code is an admin's approval made in advance: whoever comes first with it gets what its profile says, and
never more (V24). Invariants: a profile is fixed when the code is made; the text of a code holds addresses, one
256-bit token and the end of its life, and no lasting secret (V23); a code that belongs to another key reads like one
that never was.

What a client says it is opens nothing here that the code does not open: a client that is none of the phone apps and
redeems a phone's code waits for a person; the same code in the hands of somebody who lies about it grants no more
than the code (V12).
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import attrs

from openclaw_gateway.protocol.scopes import (
    ADMIN,
    APPROVALS,
    QUESTIONS,
    READ,
    TALK_SECRETS,
    WRITE,
    grantable,
    satisfies,
)
from openclaw_gateway.value import Value

__all__ = [
    "PROFILES",
    "Access",
    "JoinLimiter",
    "SetupProfile",
    "SetupStanding",
    "encode_setup_code",
    "handed_scopes",
    "judge_redemption",
    "missing_to_issue",
    "setup_payload",
]

Access = Literal["full", "limited", "node"]
Judgement = Literal["pair", "ask", "taken", "too-wide"]

_LIMITED: Final = (APPROVALS, QUESTIONS, READ, TALK_SECRETS, WRITE)
# The phone apps: a node first, which takes an operator's token along (spec wire.md section 7).
_PHONES: Final = frozenset({"openclaw-android", "openclaw-ios"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetupProfile(Value):
    """``operator_scopes``: of the operator's token that a phone is handed besides its node's token; (): none."""

    access: Access
    operator_scopes: tuple[str, ...] = ()


PROFILES: Final[Mapping[Access, SetupProfile]] = {
    "full": SetupProfile(access="full", operator_scopes=(ADMIN, *_LIMITED)),
    "limited": SetupProfile(access="limited", operator_scopes=_LIMITED),
    "node": SetupProfile(access="node"),
}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetupStanding(Value):
    """A setup code that was presented and lives. ``bound_to``: the device that came with it first."""

    setup_id: str
    access: Access
    bound_to: str | None = None


def missing_to_issue(profile: SetupProfile, held: frozenset[str]) -> tuple[str, ...]:
    """The scopes that an issuer lacks. Every profile lets a node in, and that takes an administrator (V19, V24)."""
    needed = dict.fromkeys((ADMIN, *profile.operator_scopes))
    return tuple(scope for scope in needed if not satisfies(held, scope))


def judge_redemption(
    standing: SetupStanding, *, device_id: str, role: str, scopes: Sequence[str], client_id: str
) -> Judgement:
    """What a verified device gets for a living code.

    "pair": let in at once. "ask": the code is bound to it and a person decides. "taken": it is another device's.
    "too-wide": the profile grants neither the role nor the scopes that were asked for.
    """
    profile = PROFILES[standing.access]
    asked = grantable(scopes)
    if standing.bound_to is not None and standing.bound_to != device_id:
        return "taken"
    if role == "node":
        if asked:
            return "too-wide"
        return "pair" if standing.access == "node" or client_id in _PHONES else "ask"
    held = frozenset(profile.operator_scopes)
    if role != "operator" or not held or not all(satisfies(held, scope) for scope in asked):
        return "too-wide"
    return "ask"


def handed_scopes(standing: SetupStanding, *, role: str, client_id: str) -> tuple[str, ...]:
    """The scopes of the operator's token that a phone takes along; () for everybody else."""
    if role != "node" or client_id not in _PHONES:
        return ()
    return PROFILES[standing.access].operator_scopes


def setup_payload(
    urls: Sequence[str], token: str, expires_at_ms: int, *, tls_fingerprint: str | None = None,
    gateway_id: str | None = None,
) -> dict[str, object]:  # fmt: skip
    """What a code says: the first address as ``url``, and all of them as ``urls`` where there are several.

    ``gateway_id``: the gateway's device id; whoever knows it talks to nobody else at a first contact (S096).
    """
    payload: dict[str, object] = {"url": urls[0]}
    if len(urls) > 1:
        payload["urls"] = list(urls)
    payload |= {"bootstrapToken": token, "expiresAtMs": expires_at_ms}
    if tls_fingerprint is not None:
        payload["tlsFingerprint"] = tls_fingerprint
    if gateway_id is not None:
        payload["gatewayId"] = gateway_id
    return payload


def encode_setup_code(payload: Mapping[str, object]) -> str:
    """base64url of the JSON, without padding (spec wire.md section 7)."""
    text = json.dumps(payload, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode("ascii")


class JoinLimiter:
    """How often one address may ask for a join URL: ``limit`` times in ``window`` seconds. ``now``: monotonic seconds.

    Remembers at most ``capacity`` addresses; the one that has been quiet longest is forgotten first.
    """

    def __init__(self, *, limit: int = 20, window: float = 60.0, capacity: int = 1024) -> None:
        self._limit = limit
        self._window = window
        self._capacity = capacity
        self._rows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def wait(self, client: str, *, now: float) -> float:
        """Count one request; seconds until the next one is taken where this one is over the limit, else 0.0."""
        began, count = self._rows.pop(client, (now, 0))
        if now - began >= self._window:
            began, count = now, 0
        self._rows[client] = (began, min(count + 1, self._limit + 1))
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
        return began + self._window - now if count >= self._limit else 0.0
