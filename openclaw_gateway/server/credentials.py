"""The credentials that a peer presents, compared: shared secrets, passwords, API keys, device tokens.

Owns the order of comparing and what is not compared at all. It must not decide what a match is worth
(`policy.admission`), nor count failures; it asks the ledger who is locked out.

Invariants: a locked key is never compared; a foreign page's credentials are not even looked at (V1); no credential is
logged, kept or returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic
from typing import Final

from openclaw_gateway.pairing.apikeys import PREFIX as KEY_PREFIX
from openclaw_gateway.pairing.apikeys import ApiKeys
from openclaw_gateway.pairing.issued import IssuedTokens
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.admission import (
    ApiKeyOutcome,
    DeviceTokenOutcome,
    device_token_candidates,
    presented_secret,
)
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, FailureLedger, failure_key
from openclaw_gateway.policy.origin import OriginVerdict
from openclaw_gateway.policy.secrets import SecretOutcome, check_secret, unmatched_outcome
from openclaw_gateway.protocol.connect import ConnectAuth
from openclaw_gateway.server.grants import GatekeeperRules, Presented, TransportCredential
from openclaw_gateway.server.passwords import PasswordChecker, TooManyChecks

__all__ = ["Credentials"]

_BUSY_SECONDS: Final = 1.0  # what a client waits that came while too many passwords were being checked


class Credentials:
    """``say_once`` warns the operator of a peer's habit; ``ledger`` holds who failed and for how long it is locked."""

    def __init__(
        self,
        rules: GatekeeperRules,
        *,
        tokens: DeviceTokens,
        issued: IssuedTokens,
        keys: ApiKeys,
        ledger: FailureLedger,
        say_once: Callable[[Peer, str], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.rules = rules
        self.ledger = ledger
        self._tokens = tokens
        self._issued = issued
        self._keys = keys
        self._say_once = say_once
        self._now_ms = now_ms
        self._passwords = _checkers(rules, {})

    def configure(self, rules: GatekeeperRules) -> None:
        """Use other rules from now on; what a hash matched before is forgotten when the hash changes (V16)."""
        self._passwords = _checkers(rules, self._passwords)
        self.rules = rules

    def is_token_of(self, record: PairedDevice, text: str) -> bool:
        """Whether ``text`` is that device's token, expired or not."""
        return self._tokens.verify(record, text)

    def device_token(self, auth: ConnectAuth, record: PairedDevice | None) -> DeviceTokenOutcome:
        """What the device token in ``auth`` is worth for the device that proved itself; ``record``: its pairing."""
        candidates = device_token_candidates(auth)
        if not candidates:
            return DeviceTokenOutcome.NONE
        if record is None:
            return DeviceTokenOutcome.MISMATCH
        if not record.live:
            return DeviceTokenOutcome.REVOKED
        if not any(self._tokens.verify(record, candidate) for candidate in candidates):
            return DeviceTokenOutcome.MISMATCH
        expired = self._issued.expired(record, self._now_ms())
        return DeviceTokenOutcome.EXPIRED if expired else DeviceTokenOutcome.MATCH

    async def presented(
        self,
        auth: ConnectAuth,
        peer: Peer,
        role: str,
        credential: TransportCredential,
        key: FailureKey,
        origin: OriginVerdict,
    ) -> Presented:
        """What came of the one text that was presented as a shared secret or as an API key. ``key``: whose failures
        count for it.
        """
        rules = self.rules.on(peer.arrival)
        if not origin.ok:
            return Presented()  # a foreign page's credentials are not even looked at (V1)
        found = presented_secret(auth, rules.admission, peer, query_token=credential.query_token)
        value, via = found.value, found.via
        if via == "query" or found.note is not None:
            self._say_once(peer, found.note or "the token came in the URL; it may end up in the logs of proxies")
        if value is None and credential.bearer is not None:
            value, via = credential.bearer, "bearer"
        if value is None:
            return Presented()
        api_key, known = self._keys.check(value, self._now_ms())
        if api_key is ApiKeyOutcome.MATCH:
            # 256 random bits are not found by trying: who is locked out of guessing may still show a good key.
            return Presented(via=via, api_key=api_key, key=known)
        if rules.admission.auth_type == "none":
            return Presented()
        vouched = peer.vouched is not None and peer.vouched.ok and role == "operator"
        if api_key is not ApiKeyOutcome.NONE and api_key is not ApiKeyOutcome.MALFORMED and not self._like_a_key():
            tried = failure_key(peer, role, CredentialClass.API_KEY, browser=origin.browser)
            locked = self.ledger.locked_for(tried, now=monotonic())
            secret = SecretOutcome.LOCKED if locked > 0 else SecretOutcome.MISSING
            return Presented(secret=secret, via=via, locked_for=locked, api_key=api_key)
        if vouched:
            # The proxy decides here; a browser's forgotten token of former days is neither compared nor counted.
            return Presented()
        locked = self.ledger.locked_for(key, now=monotonic())
        if locked > 0:
            return Presented(secret=SecretOutcome.LOCKED, via=via, locked_for=locked, api_key=api_key)
        outcome = await self._compare(value, rules)
        busy = _BUSY_SECONDS if outcome is SecretOutcome.LOCKED else 0.0
        return Presented(secret=outcome, via=via, locked_for=busy, api_key=api_key)

    def _like_a_key(self) -> bool:
        """True where somebody chose a shared secret that looks like an API key: then both have to be tried."""
        return any(text is not None and text.startswith(KEY_PREFIX) for text in (self.rules.token, self.rules.password))

    async def _compare(self, value: str, rules: GatekeeperRules) -> SecretOutcome:
        if rules.admission.auth_type != "password":
            return check_secret(value, rules.token)
        checker = self._passwords.get(rules.password_hash) if rules.password_hash is not None else None
        if checker is not None:
            try:
                right = await checker.matches(value)
            except TooManyChecks:
                return SecretOutcome.LOCKED
            outcome = SecretOutcome.MATCH if right else unmatched_outcome(value)
        else:
            outcome = check_secret(value, rules.password)
        expires = rules.password_expires_at
        if outcome is SecretOutcome.MATCH and expires is not None and time.time() >= expires:
            return SecretOutcome.EXPIRED
        return outcome


def _checkers(rules: GatekeeperRules, before: dict[str, PasswordChecker]) -> dict[str, PasswordChecker]:
    hashes = {some.password_hash for some in (rules, *rules.listeners.values()) if some.password_hash is not None}
    return {hashed: before.get(hashed) or PasswordChecker(hashed) for hashed in hashes}
