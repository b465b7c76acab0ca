"""Named API keys: bearer credentials that a person makes on purpose, for programs that have no device identity.

Owns the keys: ``ocg_`` and 43 characters of base64url (256 random bits), shown once, kept as SHA-256; what each may
do, until when, who made it and when it was last used. It must not know who may make one with which scopes
(`rpc.tokens`, the offline command) nor where a key is accepted (`policy.admission`).

Invariants: a key is looked up by its digest, and `hmac.compare_digest` on digests of equal length decides (V15); a
revoked key never works again, not even after a backup was put back (V26); at most `MAX_KEYS` live keys and as many
revoked ones are remembered; using a key writes nothing: "last used" is flushed at most once a minute; keys that could
not be read are `ApiKeysUnreadable`, never "wrong" (V60).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome, LifeRules
from openclaw_gateway.protocol.scopes import grantable
from openclaw_gateway.store import Store, StoreError
from openclaw_gateway.value import Value

__all__ = ["MAX_KEYS", "PREFIX", "ApiKey", "ApiKeyRefused", "ApiKeys", "open_api_keys"]

PREFIX: Final = "ocg_"
MAX_KEYS: Final = 256
FLUSH_SECONDS: Final = 60.0
_SHAPE: Final = re.compile(r"ocg_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_PRESENTED: Final = 1024
_CLOSING_FLUSH_SECONDS: Final = 1.0

Refusal = Literal["name", "name-taken", "limit", "unknown", "no-scopes", "already-over"]


@attrs.define(eq=False)
class ApiKeyRefused(GatewayError):
    """A key cannot be made or found as asked."""

    reason: Refusal
    name: str

    def __str__(self) -> str:
        return f"API key {self.name[:64]!r}: {self.reason}"


@attrs.define(eq=False)
class ApiKeysUnreadable(GatewayError):
    """Which keys there are is not known, because the store could not be read. Retryable."""

    reason: str

    def __str__(self) -> str:
        return f"the API keys cannot be read: {self.reason}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApiKey(Value):
    """One key, without its secret. Times are Unix milliseconds."""

    key_id: str
    name: str
    digest: bytes = attrs.field(repr=False)
    scopes: tuple[str, ...]
    created_at_ms: int
    created_by: str
    expires_at_ms: int | None = None  # its own end; without one it lives as long as every issued token
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None
    last_ip: str | None = None

    def state(self, rules: LifeRules, now: int) -> Literal["live", "expired", "revoked"]:
        if self.revoked_at_ms is not None:
            return "revoked"
        ends = rules.key_ends(self.created_at_ms, self.expires_at_ms)
        return "expired" if ends is not None and now >= ends else "live"

    def to_wire(self, rules: LifeRules, now: int) -> dict[str, Any]:
        """A row of `tokens.list`. Holds neither the key nor its digest."""
        row = {
            "id": self.key_id,
            "name": self.name,
            "scopes": list(self.scopes),
            "state": self.state(rules, now),
            "createdAtMs": self.created_at_ms,
            "createdBy": self.created_by,
            "expiresAtMs": rules.key_ends(self.created_at_ms, self.expires_at_ms),
            "lastUsedAtMs": self.last_used_at_ms,
            "lastIp": self.last_ip,
            "revokedAtMs": self.revoked_at_ms,
        }
        return {key: value for key, value in row.items() if value is not None}


class ApiKeys:
    """What `open_api_keys` yields. Belongs to the store's Trio run; ``rules`` change on a reload."""

    def __init__(self, store: Store, rules: LifeRules, *, draw: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.rules = rules
        self.on_revoked: Callable[[str], None] = lambda key_id: None
        self._store = store
        self._draw = draw
        self._fault: str | None = "not loaded yet"
        self._keys: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, str] = {}
        self._used: dict[str, tuple[int, str]] = {}

    # --- look-ups: synchronous, from memory

    def check(self, presented: str, now: int) -> tuple[ApiKeyOutcome, ApiKey | None]:
        """What a presented text is as an API key; the key is told where it is (or was) one."""
        if not presented.lstrip().startswith(PREFIX):
            return ApiKeyOutcome.NONE, None
        if _SHAPE.fullmatch(presented) is None:
            return ApiKeyOutcome.MALFORMED, None
        if self._fault is not None:
            return ApiKeyOutcome.UNREADABLE, None
        digest = _digest(presented)
        key_id = self._by_digest.get(digest)
        key = self._keys[key_id] if key_id is not None else None
        if key is None or not hmac.compare_digest(key.digest, digest):
            return ApiKeyOutcome.WRONG, None
        state = key.state(self.rules, now)
        if state == "live":
            return ApiKeyOutcome.MATCH, key
        return (ApiKeyOutcome.REVOKED if state == "revoked" else ApiKeyOutcome.EXPIRED), key

    def live(self, key_id: str, now: int) -> bool:
        """True while the key may be used."""
        key = self._keys.get(key_id)
        return key is not None and key.state(self.rules, now) == "live"

    def listed(self) -> tuple[ApiKey, ...]:
        """Every key that is remembered, oldest first. Raises `ApiKeysUnreadable`."""
        self._must_be_readable()
        return tuple(sorted(self._keys.values(), key=lambda key: (key.created_at_ms, key.key_id)))

    def names(self, prefix: str) -> list[str]:
        """The names of keys that begin so and were not revoked; none where the keys cannot be read."""
        return [key.name for key in self._keys.values() if key.revoked_at_ms is None and key.name.startswith(prefix)]

    def touch(self, key_id: str, ip: str, now: int) -> None:
        """Note that a key was used: at once in memory, on the disk within a minute or so."""
        key = self._keys.get(key_id)
        if key is not None:
            self._keys[key_id] = attrs.evolve(key, last_used_at_ms=now, last_ip=ip)
            self._used[key_id] = (now, ip)

    # --- changes: durable when they return

    async def create(
        self, name: str, scopes: Iterable[str], *, by: str, now: int, expires_at_ms: int | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; the text is told here and never again.

        Raises `ApiKeyRefused` (name: 1 to 64 of A-Z a-z 0-9 . _ -; name-taken; limit; no-scopes: none of them is known;
        already-over), `StoreError`. Cancellation as `Store.run`.
        """
        granted = tuple(sorted(grantable(scopes)))
        if _NAME.fullmatch(name) is None:
            raise ApiKeyRefused("name", name)
        if not granted:
            raise ApiKeyRefused("no-scopes", name)
        if expires_at_ms is not None and expires_at_ms <= now:
            raise ApiKeyRefused("already-over", name)
        text = PREFIX + _urlsafe(self._draw(32))
        key = ApiKey(
            key_id=self._draw(8).hex(),
            name=name,
            digest=_digest(text),
            scopes=granted,
            created_at_ms=now,
            created_by=by[:128],
            expires_at_ms=expires_at_ms,
        )
        await self._readable_or_reload()
        await self._store.run(partial(_insert, key=key), then=self._apply, precious=True)
        return key, text

    async def revoke(self, name_or_id: str, now: int) -> ApiKey:
        """End a live key by its name or id. `on_revoked` is told at the moment of the commit.

        Raises `ApiKeyRefused` (unknown: no live key is called that), `StoreError`.
        """
        await self._readable_or_reload()
        return await self._store.run(
            partial(_revoke, name_or_id=name_or_id, now=now), then=self._apply_revoked, revokes=True
        )

    async def flush(self) -> None:
        """Write what `touch` noted. Raises `StoreError`; then it is kept for the next time."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self._store.run(lambda db: _save_used(db, used))
        except BaseException:
            self._used = {**used, **self._used}
            raise

    async def reload(self) -> None:
        """Read the keys anew. Raises `ApiKeysUnreadable`."""
        try:
            await self._store.run(_load, then=self._apply_all)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            self._fault = str(error)
            raise ApiKeysUnreadable(self._fault) from error

    async def supervise_upkeep(self) -> None:
        """Never returns: flushes once a minute, and reads again what could not be read. A store that fails is asked
        again a minute later."""
        while True:
            await trio.sleep(FLUSH_SECONDS if self._fault is None else 5.0)
            with suppress(StoreError, ApiKeysUnreadable):
                await self._readable_or_reload()
                await self.flush()

    # --- inside

    def _must_be_readable(self) -> None:
        if self._fault is not None:
            raise ApiKeysUnreadable(self._fault)

    async def _readable_or_reload(self) -> None:
        if self._fault is not None:
            await self.reload()

    def _apply_all(self, keys: list[ApiKey]) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._by_digest = {key.digest: key.key_id for key in keys}
        self._fault = None

    def _apply(self, key: ApiKey) -> None:
        self._keys[key.key_id] = key
        self._by_digest[key.digest] = key.key_id
        self._forget_oldest_revoked()

    def _apply_revoked(self, key: ApiKey) -> None:
        used = self._used.get(key.key_id)
        self._apply(key if used is None else attrs.evolve(key, last_used_at_ms=used[0], last_ip=used[1]))
        self.on_revoked(key.key_id)

    def _forget_oldest_revoked(self) -> None:
        revoked = [key for key in self._keys.values() if key.revoked_at_ms is not None]
        for key in sorted(revoked, key=lambda key: (-(key.revoked_at_ms or 0), key.key_id))[MAX_KEYS:]:
            del self._keys[key.key_id]
            del self._by_digest[key.digest]


@asynccontextmanager
async def open_api_keys(store: Store, rules: LifeRules) -> AsyncGenerator[ApiKeys, None]:
    """The keys over an open store. Opens even where the store cannot be read: every key is then answered "unreadable"
    until `supervise_upkeep` or a change succeeds. On exit the last uses are flushed, within a second.
    """
    keys = ApiKeys(store, rules)
    with suppress(ApiKeysUnreadable):  # fail closed: see check
        await keys.reload()
    try:
        yield keys
    finally:
        deadline = trio.current_time() + _CLOSING_FLUSH_SECONDS
        with suppress(StoreError), trio.CancelScope(shield=True, deadline=deadline):
            await keys.flush()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text[:_MAX_PRESENTED].encode("utf-8", "surrogatepass")).digest()


def _urlsafe(raw: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


# --- jobs of the store (each may run again from the start, see Store.run)

_COLUMNS: Final = (
    "key_id, name, digest, scopes, created_at_ms, created_by, expires_at_ms, revoked_at_ms, last_used_at_ms, last_ip"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM api_keys"  # noqa: S608 - constants
_FORGET: Final = (
    "DELETE FROM api_keys WHERE key_id IN (SELECT key_id FROM api_keys WHERE revoked_at_ms IS NOT NULL "
    "ORDER BY revoked_at_ms DESC, key_id LIMIT -1 OFFSET ?)"
)


def _load(db: sqlite3.Connection) -> list[ApiKey]:
    return [_key(row) for row in db.execute(_SELECT)]


def _key(row: tuple[Any, ...]) -> ApiKey:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    scopes = json.loads(fields["scopes"])
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("a list of strings was expected in the database")
    return ApiKey(**{**fields, "scopes": tuple(scopes)})


def _insert(db: sqlite3.Connection, key: ApiKey) -> ApiKey:
    taken = db.execute("SELECT 1 FROM api_keys WHERE name = ? AND revoked_at_ms IS NULL", (key.name,)).fetchone()
    if taken is not None:
        raise ApiKeyRefused("name-taken", key.name)
    if db.execute("SELECT count(*) FROM api_keys WHERE revoked_at_ms IS NULL").fetchone()[0] >= MAX_KEYS:
        raise ApiKeyRefused("limit", key.name)
    values = {**attrs.asdict(key), "scopes": json.dumps(key.scopes)}
    marks = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
    db.execute(f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - constants
    return key


def _revoke(db: sqlite3.Connection, name_or_id: str, now: int) -> ApiKey:
    row = db.execute(
        f"{_SELECT} WHERE (name = ?1 OR key_id = ?1) AND revoked_at_ms IS NULL ORDER BY name = ?1 DESC", (name_or_id,)
    ).fetchone()
    if row is None:
        raise ApiKeyRefused("unknown", name_or_id)
    key = attrs.evolve(_key(row), revoked_at_ms=now)
    db.execute("UPDATE api_keys SET revoked_at_ms = ? WHERE key_id = ?", (now, key.key_id))
    db.execute(_FORGET, (MAX_KEYS,))
    return key


def _save_used(db: sqlite3.Connection, used: dict[str, tuple[int, str]]) -> None:
    db.executemany(
        "UPDATE api_keys SET last_used_at_ms = ?, last_ip = ? WHERE key_id = ?",
        [(at, ip, key_id) for key_id, (at, ip) in used.items()],
    )
