"""Setup codes: made for an admin, looked up at each connect, spent once (V23, V24).

Owns the codes that live, in memory, and the promises about them: single use across races and restarts, bound to the
first key that redeems one, at most `MAX_LIVE` at a time, nothing kept that could be used. It must not know connections
or policy: what a code grants is decided by `policy.setup`, and carried out in one job (`pairing.setuprows`).

Invariants: looking up compares digests of every living code and tells unknown, spent and expired apart by nothing;
what the store could not load is not "no such code" (`DeviceBookUnreadable`); memory follows the store's commits.

A code's token is 256 random bits. With a join URL it is HMAC-SHA256 under a random salt over the 128-bit code in the
URL: the row holds the salt until it is fetched, the URL the code, and neither is enough.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import attrs
import trio

from openclaw_gateway.pairing import setuprows
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.records import Ask, BookEvent, PairedDevice, resolved_event
from openclaw_gateway.pairing.setuprows import (
    MAX_LIVE,
    MAX_OUTCOMES,
    Completion,
    Redeemed,
    SetupCode,
    SetupCodesFull,
    SetupCodeSpent,
)
from openclaw_gateway.policy.setup import Access, SetupStanding
from openclaw_gateway.store import Store, StoreError
from openclaw_gateway.value import Value

__all__ = [
    "MAX_LIVE",
    "MAX_OUTCOMES",
    "Completion",
    "IssuedCode",
    "JoinedCode",
    "RedeemedCode",
    "SetupCodeSpent",
    "SetupCodes",
    "SetupCodesFull",
    "open_setup_codes",
]

TOKEN_BYTES: Final = 32
JOIN_BYTES: Final = 16
_MAX_PRESENTED: Final = 1024
_CLOSING_SECONDS: Final = 1.0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class IssuedCode(Value):
    """A new code, with the two secrets that are shown once and kept nowhere."""

    setup_id: str
    token: str = attrs.field(repr=False)
    join_code: str | None = attrs.field(default=None, repr=False)
    expires_at_ms: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class JoinedCode(Value):
    """What a join URL stood for."""

    urls: tuple[str, ...]
    token: str = attrs.field(repr=False)
    expires_at_ms: int
    tls_fingerprint: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RedeemedCode(Value):
    """``handed``: the operator's record whose token a phone takes along."""

    device: PairedDevice
    handed: PairedDevice | None
    completion: Completion
    events: tuple[BookEvent, ...]


class SetupCodes:
    """What `open_setup_codes` yields. All methods belong to the store's Trio run. Times are Unix milliseconds."""

    def __init__(
        self,
        store: Store,
        book: DeviceBook,
        *,
        clock: Callable[[], int],
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._book = book
        self._clock = clock
        self._draw = draw
        self._loaded = False
        self._live: dict[str, SetupCode] = {}
        self._outcomes: dict[str, Completion] = {}
        self._revoked: set[str] = set()

    async def issue(
        self,
        access: Access,
        *,
        urls: Sequence[str],
        issuer: str,
        ttl_ms: int,
        join: bool = False,
        tls_fingerprint: str | None = None,
    ) -> IssuedCode:
        """Make a code that lives ``ttl_ms``. ``issuer`` is the principal that asked; what it may issue was decided.

        Durable when this returns. Raises `SetupCodesFull`, `StoreError`, `DeviceBookUnreadable`; cancellation as
        `Store.run`.
        """
        await self._readable()
        join_code = salt = None
        if join:
            join_code, salt = _text(self._draw(JOIN_BYTES)), self._draw(TOKEN_BYTES)
            token = _joined_token(join_code, salt)
        else:
            token = _text(self._draw(TOKEN_BYTES))
        now = self._clock()
        code = SetupCode(
            setup_id=_text(self._draw(JOIN_BYTES)),
            access=access,
            token_digest=setuprows.digest(token),
            join_digest=None if join_code is None else setuprows.digest(join_code),
            join_salt=salt,
            issuer=issuer,
            urls=tuple(urls),
            tls_fingerprint=tls_fingerprint,
            created_at_ms=now,
            expires_at_ms=now + ttl_ms,
        )

        def issued(gone: tuple[str, ...]) -> None:
            for setup_id in gone:
                self._live.pop(setup_id, None)
                self._outcomes.pop(setup_id, None)
            self._live[code.setup_id] = code

        await self._store.run(partial(setuprows.issue, code=code), then=issued)
        return IssuedCode(setup_id=code.setup_id, token=token, join_code=join_code, expires_at_ms=code.expires_at_ms)

    async def find(self, token: str) -> SetupStanding | None:
        """The living code that ``token`` is; None for every other text, in the same time.

        Raises `DeviceBookUnreadable` where the codes could not be loaded: nobody knows then whether it is one.
        """
        await self._readable()
        found = self._match(token, lambda code: code.token_digest)
        if found is None:
            return None
        return SetupStanding(setup_id=found.setup_id, access=found.access, bound_to=found.bound_to)

    async def bind(self, setup_id: str, device_id: str) -> None:
        """Make a code this device's alone, while a person decides. Durable. Raises `SetupCodeSpent`, `StoreError`."""
        await self._readable()
        now = self._clock()
        await self._store.run(
            lambda db: setuprows.bind(db, setup_id, device_id, now),
            then=lambda code: self._live.update({setup_id: code}),
        )

    async def redeem(self, setup_id: str, ask: Ask, handed: tuple[str, ...] = ()) -> RedeemedCode:
        """Spend a code for the verified device of ``ask``, which is paired as it asks (see `setuprows.redeem`).

        The code is spent and the device paired when this returns, or neither. Raises `SetupCodeSpent` for everybody
        but the first, `ApprovalRefused`, `StoreError`, `DeviceBookUnreadable`.
        """
        await self._readable()
        now = self._clock()

        def spent(redeemed: Redeemed) -> None:
            self._live.pop(setup_id, None)
            self._remember(redeemed.completion)
            self._book.follow_approvals(
                dropped=redeemed.dropped, changes=redeemed.changes, approvals=redeemed.approvals
            )

        redeemed = await self._store.run(
            partial(
                setuprows.redeem,
                setup_id=setup_id,
                ask=ask,
                handed=handed,
                now=now,
                tokens=self._book.tokens,
                new_id=_uuid4,
            ),
            then=spent,
            precious=True,
        )
        return RedeemedCode(
            device=redeemed.device,
            handed=redeemed.handed,
            completion=redeemed.completion,
            events=tuple(_events(redeemed, now)),
        )

    async def fetch(self, join_code: str) -> JoinedCode | None:
        """What the code of a join URL stands for, the first time; None ever after, and for every other text.

        Raises `StoreError` or `DeviceBookUnreadable`; then nothing was given out.
        """
        await self._readable()
        found = self._match(join_code, lambda code: code.join_digest)
        if found is None:
            await trio.lowlevel.checkpoint()
            return None
        now = self._clock()
        fetched = await self._store.run(partial(setuprows.fetch, setup_id=found.setup_id, now=now), then=self._fetched)
        if fetched is None:
            return None
        code, salt = fetched
        return JoinedCode(
            urls=code.urls,
            token=_joined_token(join_code, salt),
            expires_at_ms=code.expires_at_ms,
            tls_fingerprint=code.tls_fingerprint,
        )

    def completion(self, setup_id: str) -> Completion | None:
        """What became of a code that was redeemed (the last `MAX_OUTCOMES` are known)."""
        return self._outcomes.get(setup_id)

    def living(self) -> tuple[SetupCode, ...]:
        """The codes that can be redeemed now, oldest first."""
        now = self._clock()
        return tuple(code for code in self._live.values() if code.expires_at_ms > now)

    def revoke_shared_nowait(self) -> None:
        """End the codes that were issued with the gateway's shared secret: it is another one now (V16).

        At once in memory; on the disk with the next change, or on closing.
        """
        for setup_id, code in tuple(self._live.items()):
            if not code.issuer.startswith("device:"):
                del self._live[setup_id]
                self._revoked.add(setup_id)

    async def flush(self) -> None:
        """Write what was revoked. Raises `StoreError`; then it is kept for the next time."""
        if self._revoked:
            gone = tuple(self._revoked)
            await self._store.run(partial(setuprows.revoke, setup_ids=gone))
            self._revoked.difference_update(gone)

    # --- inside

    async def _readable(self) -> None:
        if not self._loaded:
            await self.reload()
        await self.flush()

    async def reload(self) -> None:
        """Read everything anew. Raises `DeviceBookUnreadable`."""
        try:
            await self._store.run(partial(setuprows.load, now=self._clock()), then=self._apply)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            raise DeviceBookUnreadable(str(error)) from error

    def _apply(self, snapshot: setuprows.Snapshot) -> None:
        self._live = {code.setup_id: code for code in snapshot.live}
        self._outcomes = {}
        for completion in snapshot.outcomes:
            self._remember(completion)
        self._loaded = True

    def _match(self, text: str, kept: Callable[[SetupCode], bytes | None]) -> SetupCode | None:
        """The living code whose digest ``text`` has. All are compared, so the time tells nothing of which."""
        now, presented, found = self._clock(), setuprows.digest(text[:_MAX_PRESENTED]), None
        for code in self._live.values():
            if hmac.compare_digest(kept(code) or b"", presented) and code.expires_at_ms > now:
                found = code
        return found

    def _fetched(self, fetched: tuple[SetupCode, bytes] | None) -> None:
        if fetched is not None and fetched[0].setup_id in self._live:
            self._live[fetched[0].setup_id] = fetched[0]

    def _remember(self, completion: Completion) -> None:
        self._outcomes[completion.setup_id] = completion
        while len(self._outcomes) > MAX_OUTCOMES:
            del self._outcomes[next(iter(self._outcomes))]


def _events(redeemed: Redeemed, now: int) -> list[BookEvent]:
    device_id = redeemed.completion.device_id
    events = [resolved_event(old.request_id, device_id, "superseded", now) for old in redeemed.dropped]
    for change in redeemed.changes:
        events += [resolved_event(old.request_id, old.device_id, decision, now) for old, decision in change.gone]
    events += [resolved_event(done.request_id, device_id, "approved", now) for done in redeemed.approvals]
    return [*events, BookEvent("device.pair.setup.completed", redeemed.completion.to_wire())]


def _uuid4() -> str:
    return str(uuid.uuid4())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _joined_token(join_code: str, salt: bytes) -> str:
    return _text(hmac.digest(salt, b"setup-code|" + join_code.encode("utf-8", "surrogatepass"), hashlib.sha256))


@asynccontextmanager
async def open_setup_codes(
    store: Store,
    book: DeviceBook,
    *,
    clock: Callable[[], int],
    draw: Callable[[int], bytes] = secrets.token_bytes,
) -> AsyncGenerator[SetupCodes, None]:
    """The codes over an open store and book. ``clock`` gives Unix milliseconds, ``draw`` random bytes.

    Opens even where the store cannot be read: every code then waits for a reload, which each use tries.
    """
    codes = SetupCodes(store, book, clock=clock, draw=draw)
    with suppress(DeviceBookUnreadable):
        await codes.reload()
    try:
        yield codes
    finally:
        deadline = trio.current_time() + _CLOSING_SECONDS
        with suppress(StoreError), trio.CancelScope(shield=True, deadline=deadline):
            await codes.flush()
