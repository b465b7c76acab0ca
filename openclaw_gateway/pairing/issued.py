"""What a device is handed: its token while that lives, and one family of refresh tokens per (device, role).

Owns the view of the families in memory and every change of a token that no person decides: renewal of an expired one
for a device that authenticated afresh, rotation by refresh token, and the end of a family whose spent token came back.
Rules of time and count are `policy.tokenlife`'s, rows are `pairing.familyrows`', secrets are `pairing.tokens`', records
are the book's. It must not know connections: ``on_reuse`` tells the shell whose sessions to close.

Invariants: each change is decided and written in one job of the store, together with the device's record, and memory
follows in the order of commits, so neither a crash nor a race leaves a refresh token good twice; a family is bound to
the digest of the device token it belongs to, so whatever ends that token (rotate, revoke, remove) ends the family too
(V26); a device token alone never starts a family where one was used up or ended; no secret is stored.

A rotation takes no authority from anybody but the same device, so it renews no backup; ending a family does (V26).
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing import familyrows
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.familyrows import Family, Written
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.policy.secrets import looks_like_setup_code
from openclaw_gateway.policy.tokenlife import GRACE_MS, LifeRules, RefreshVerdict, decide_refresh
from openclaw_gateway.store import Store, StoreError
from openclaw_gateway.value import Value

__all__ = ["Handout", "IssuedTokens", "RefreshRefused", "open_issued_tokens"]

MAX_SETTLED: Final = 1024
PRUNE_SECONDS: Final = 60.0

Refusal = Literal[
    "disabled", "malformed", "is-setup-code", "wrong", "revoked", "expired", "reused", "used-up", "not-a-device"
]


@attrs.define(eq=False)
class RefreshRefused(GatewayError):
    """A refresh token was not taken. ``guess``: whoever sent it holds nothing that this gateway ever made."""

    reason: Refusal

    @property
    def guess(self) -> bool:
        return self.reason in {"malformed", "is-setup-code", "wrong"}

    def __str__(self) -> str:
        return f"refresh token refused: {self.reason}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Handout(Value):
    """What a device is told. Times are Unix milliseconds; None: no end, or nothing to hand out."""

    record: PairedDevice
    device_token: str | None = attrs.field(repr=False)
    expires_at_ms: int | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)
    refresh_expires_at_ms: int | None = None
    uses_left: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """The result of `auth.refresh`. Holds secrets: it goes to the device itself and nowhere else (V51)."""
        out = {
            "deviceId": self.record.device_id,
            "role": self.record.role,
            "scopes": list(self.record.scopes),
            "deviceToken": self.device_token,
            "issuedAtMs": self.record.token_issued_at_ms,
            "expiresAtMs": self.expires_at_ms,
            "refreshToken": self.refresh_token,
            "refreshExpiresAtMs": self.refresh_expires_at_ms,
            "usesLeft": self.uses_left,
        }
        return {key: value for key, value in out.items() if value is not None}


class IssuedTokens:
    """What `open_issued_tokens` yields. Belongs to the store's Trio run; ``rules`` change on a reload."""

    def __init__(self, store: Store, book: DeviceBook, rules: LifeRules) -> None:
        self.rules = rules
        self.on_reuse: Callable[[str, str], None] = lambda device_id, role: None
        self._store = store
        self._book = book
        self._loaded = False
        self._families: dict[tuple[str, str], Family] = {}
        self._owner: dict[bytes, tuple[str, str]] = {}
        self._settled: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._families)

    # --- at a connect

    def expired(self, record: PairedDevice, now: int) -> bool:
        """True where the device's token has lived its life."""
        return self.rules.expired(record.token_issued_at_ms, now)

    def settle(self, record: PairedDevice, now: int) -> None:
        """Note that the device used its token: what the last rotation handed out has arrived."""
        family = self._families.get((record.device_id, record.role))
        if family is None or now - family.issued_at_ms >= GRACE_MS:
            return
        self._settled.pop(family.family, None)
        self._settled[family.family] = family.uses
        while len(self._settled) > MAX_SETTLED:
            del self._settled[next(iter(self._settled))]

    async def hand_out(self, record: PairedDevice, now: int, *, afresh: bool) -> Handout:
        """What a device that was admitted is told.

        ``afresh``: it showed more than its own token (the shared secret, a setup code, or a person's approval on an
        open gateway): then an expired token is replaced, and a family that is used up or ended is followed by a new
        one. Writes only where something has to be replaced. Raises `StoreError`; cancellation as `Store.run`.
        """
        rules = self.rules
        await self._load_once()
        if self._wants_change(record, now, afresh=afresh):
            tokens = self._book.tokens
            work = partial(familyrows.renew, record=record, rules=rules, now=now, tokens=tokens, afresh=afresh)
            done = await self._store.run(work, then=self._follow, precious=True)
            record = done.record or record
        return self._handout(record, now)

    def _wants_change(self, record: PairedDevice, now: int, *, afresh: bool) -> bool:
        if afresh and (self.expired(record, now) or self._book.tokens.issue(record) is None):
            return True
        if not self.rules.refreshes:
            return False
        family = self._families.get((record.device_id, record.role))
        if family is None or not family.belongs_to(record):
            return True
        return afresh and not family.usable(self.rules, now)

    def _handout(self, record: PairedDevice, now: int) -> Handout:
        rules = self.rules
        token, ends = self._book.tokens.issue(record), rules.token_ends(record.token_issued_at_ms)
        family = self._families.get((record.device_id, record.role))
        if not rules.refreshes or family is None or not family.belongs_to(record) or not family.usable(rules, now):
            return Handout(record=record, device_token=token, expires_at_ms=ends)
        return Handout(
            record=record,
            device_token=token,
            expires_at_ms=ends,
            refresh_token=self._book.tokens.refresh_token(family.family, family.uses),
            refresh_expires_at_ms=rules.refresh_ends(family.issued_at_ms),
            uses_left=rules.max_uses - family.uses,
        )

    # --- refresh

    async def refresh(self, presented: str, now: int, *, caller: tuple[str, str] | None = None) -> Handout:
        """Turn a refresh token into a new device token and the next refresh token.

        ``caller`` is the (device, role) of the connection that asks, where it is one: then only its own refresh token
        is taken. The answer may be given a second time within `GRACE_MS` as long as nothing of it was used. A spent
        token ends the family: its device token is worthless from then on, `on_reuse` is told at the moment of the
        commit. Raises `RefreshRefused`, `StoreError`; cancellation as `Store.run`.
        """
        rules, tokens = self.rules, self._book.tokens
        if not rules.refreshes:
            raise RefreshRefused("disabled")
        await self._load_once()
        claim = tokens.read_refresh_token(presented)
        if claim is None:
            raise RefreshRefused("is-setup-code" if looks_like_setup_code(presented) else "malformed")
        if not claim.genuine:
            raise RefreshRefused("wrong")
        owner = self._owner.get(claim.family)
        if owner is None:
            raise RefreshRefused("revoked")  # ours, but of a family that another one took the place of
        if caller is not None and caller != owner:
            raise RefreshRefused("wrong")
        settled = self._settled.get(claim.family) == self._families[owner].uses
        work = partial(
            familyrows.rotate, owner=owner, name=claim.family, use=claim.use, rules=rules, now=now, tokens=tokens,
            settled=settled,
        )  # fmt: skip
        likely = decide_refresh(self._families[owner].state(settled=settled), claim.use, rules, now)
        revokes = likely is RefreshVerdict.REUSED
        done = await self._store.run(partial(work, may_end=revokes), then=self._follow, revokes=revokes)
        if done is None:  # a rotation came in between, and what was fresh is spent by now
            done = await self._store.run(partial(work, may_end=True), then=self._follow, revokes=True)
        assert done is not None
        return self._answer(done, now)

    def _answer(self, done: Written, now: int) -> Handout:
        match done.verdict:
            case RefreshVerdict.ROTATE | RefreshVerdict.REPEAT:
                assert done.record is not None
                return self._handout(done.record, now)
            case RefreshVerdict.REUSED:
                raise RefreshRefused("reused")
            case RefreshVerdict.EXPIRED:
                raise RefreshRefused("expired")
            case RefreshVerdict.USED_UP:
                raise RefreshRefused("used-up")
            case _:
                raise RefreshRefused("revoked")

    # --- memory

    async def reload(self) -> None:
        """Read the families anew. Raises `StoreError`."""
        await self._store.run(familyrows.load, then=self._apply_all)

    async def _load_once(self) -> None:
        if not self._loaded:
            await self.reload()

    async def supervise_upkeep(self) -> None:
        """Never returns: forgets families of devices that are no more, once a minute."""
        while True:
            await trio.sleep(PRUNE_SECONDS)
            self.prune()

    def prune(self) -> None:
        """Forget families whose device is gone or revoked; their rows went with it, or are useless."""
        with suppress(DeviceBookUnreadable):
            for key in [key for key in self._families if self._book.lookup(*key) is None]:
                del self._owner[self._families.pop(key).family]

    def _apply_all(self, families: list[Family]) -> None:
        self._families = {(family.device_id, family.role): family for family in families}
        self._owner = {family.family: key for key, family in self._families.items()}
        self._loaded = True

    def _follow(self, done: Written | None) -> None:
        if done is None:
            return
        self._book.follow(done.records)
        family = done.family
        if family is None:
            return
        key = (family.device_id, family.role)
        before = self._families.get(key)
        if before is not None and before.family != family.family:
            self._owner.pop(before.family, None)
        self._families[key] = family
        self._owner[family.family] = key
        if done.verdict is RefreshVerdict.REUSED:
            self.on_reuse(*key)


@asynccontextmanager
async def open_issued_tokens(store: Store, book: DeviceBook, rules: LifeRules) -> AsyncGenerator[IssuedTokens, None]:
    """The issued tokens over an open store and book. Opens even where the store cannot be read: it is tried again when
    a device asks, and nothing is handed out or refreshed before that."""
    issued = IssuedTokens(store, book, rules)
    with suppress(StoreError, sqlite3.Error):
        await issued.reload()
    yield issued
