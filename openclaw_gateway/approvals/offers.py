"""One-time tokens of the approval page: what a person who proved himself was shown, and what his next press may do.

Owns the table of offers and the rule by which a token is taken. It must not know HTTP, nor what a decision does.

Invariants: a token is 256 random bits, kept as its SHA-256 alone, good once and for one step; all tokens of an offer
end with the first of them that is used, also where it is used wrongly; an offer is good for the request, the step and
the address it was made for and until its sign-in is over, and nothing makes that later; at most `MAX_OFFERS` are kept,
the oldest gives way. Only who was admitted gets an offer, so a stranger cannot push others' out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Literal

import attrs

from openclaw_gateway.server.grants import GatekeeperRules, Grant
from openclaw_gateway.value import Value

__all__ = ["MAX_OFFERS", "SIGN_IN_SECONDS", "Kind", "Offer", "Offers", "SignIn"]

MAX_OFFERS: Final = 64
SIGN_IN_SECONDS: Final = 300.0  # as long as a request waits
_MAX_TOKEN: Final = 64

Kind = Literal["device", "surface", "node"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SignIn(Value):
    """Who proved himself, once. ``by_secret``: by what he typed, so that a token stands for it until ``until``
    (monotonic seconds) while ``rules`` are the gatekeeper's; else whatever let him in is asked for again each time."""

    grant: Grant
    rules: GatekeeperRules
    address: str  # the limiter key of his peer, with the name of the listener
    by_secret: bool
    until: float


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Offer(Value):
    """``device`` and ``surface``: a request to decide about. ``node``: a node to look for, whose commands come next."""

    kind: Kind
    request_id: str
    device_id: str
    name: str
    role: str
    ask_hash: str | None = None
    sign_in: SignIn = attrs.field(repr=False)


def _random_token() -> str:
    return secrets.token_urlsafe(32)


class Offers:
    """``new_token`` makes a token. ``now`` is monotonic seconds everywhere."""

    def __init__(self, *, capacity: int = MAX_OFFERS, new_token: Callable[[], str] = _random_token) -> None:
        self._capacity = capacity
        self._new_token = new_token
        self._offers: OrderedDict[int, tuple[Offer, dict[bytes, str]]] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return len(self._offers)

    def issue(self, offer: Offer, steps: Iterable[str], *, now: float) -> dict[str, str]:
        """A token for each of the steps."""
        for number in [number for number, (old, _) in self._offers.items() if old.sign_in.until <= now]:
            del self._offers[number]
        while len(self._offers) >= self._capacity:
            self._offers.popitem(last=False)
        tokens = {step: self._new_token() for step in steps}
        self._number += 1
        self._offers[self._number] = offer, {_digest(token): step for step, token in tokens.items()}
        return tokens

    def take(self, token: str | None, *, step: str, request_id: str, address: str, now: float) -> Offer | None:
        """The offer of a token, which ends here; None: there is none, or it is not for this step, request, address."""
        if token is None or len(token) > _MAX_TOKEN:
            return None
        digest = _digest(token)
        number = next((number for number, (_, kept) in self._offers.items() if digest in kept), None)
        if number is None:
            return None
        offer, steps = self._offers.pop(number)
        fits = steps[digest] == step and offer.request_id == request_id and offer.sign_in.address == address
        return offer if fits and now < offer.sign_in.until else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
