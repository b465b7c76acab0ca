"""Which client certificates this gateway has issued, to which device, and which of them still count.

Owns the records and the verdict on a certificate that a peer showed (its signature and dates were checked by TLS). It
must not know TLS or who may ask for a certificate (`rpc.certificates`).

Invariants: what counts is the record, looked up by the digest of the whole certificate, not the certificate's word: a
certificate that is signed but not on record is refused, and so is every one while the records cannot be read (V60); a
record ends with its device, in the same step (a foreign key) and in memory at once; at most `MAX_PER_DEVICE` per device
live, the oldest gives way; a certificate never outlives the pairing it was issued under, not even when the device is
paired anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.store import Store, StoreError
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.pairing.clientca import ClientAuthority

__all__ = ["MAX_PER_DEVICE", "CertificateRecord", "DeviceNotPaired", "IssuedCertificates", "open_issued_certificates"]

MAX_PER_DEVICE: Final = 4
_URN: Final = "urn:openclaw:device:"
_COLUMNS: Final = "fingerprint, device_id, serial, issued_at_ms, not_after_ms, issued_by"


@attrs.define(eq=False)
class DeviceNotPaired(GatewayError):
    """Only a paired device gets a certificate."""

    device_id: str

    def __str__(self) -> str:
        return f"device {self.device_id[:16]} is not paired"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CertificateRecord(Value):
    """One issued certificate. ``fingerprint``: hex SHA-256 of the DER form. Times are Unix milliseconds."""

    fingerprint: str
    device_id: str
    serial: str
    issued_at_ms: int
    not_after_ms: int
    issued_by: str

    def to_wire(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "deviceId": self.device_id,
            "serial": self.serial,
            "issuedAtMs": self.issued_at_ms,
            "notAfterMs": self.not_after_ms,
            "issuedBy": self.issued_by,
        }


class IssuedCertificates:
    """What `open_issued_certificates` yields. Belongs to the store's Trio run."""

    def __init__(self, store: Store, book: DeviceBook, state_dir: Path | None) -> None:
        self._store = store
        self._book = book
        self._state_dir = state_dir
        self._authority: ClientAuthority | None = None
        self._records: dict[str, CertificateRecord] = {}
        self._fault: str | None = "not loaded yet"
        # a device's certificates ended: its id, the reason, the id of the connection that has an answer to read first
        self.on_cut: Callable[[str, str, str | None], None] = lambda device_id, reason, spare: None

    # --- what `server.tls` asks

    def authorities(self) -> str:
        """PEM of the authority whose certificates are accepted. Raises `GatewayError`, `OSError`."""
        return self.authority.pem

    @property
    def authority(self) -> ClientAuthority:
        if self._authority is None:
            from openclaw_gateway.pairing.clientca import load_authority

            self._authority = load_authority(self._state_dir)
        return self._authority

    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        """The device of a certificate that TLS found good; None where it names none (one of gateway.tls.caPath's).

        Raises `ValueError` with the reason where it counts no more.
        """
        names = described.get("subjectAltName", ())
        claimed = [value for kind, value in names if kind == "URI" and value.startswith(_URN)]
        record = self._records.get(hashlib.sha256(der).hexdigest())
        if not claimed and record is None:
            return None
        if self._fault is not None:
            raise ValueError("the records of certificates cannot be read")
        if record is None or claimed != [_URN + record.device_id]:
            raise ValueError("revoked, or not issued by this gateway")
        if not self._counts(record):
            raise ValueError("its device is not paired any more")
        return record.device_id

    def _counts(self, record: CertificateRecord) -> bool:
        try:
            held = [device for device in self._book.records_of(record.device_id) if device.live]
        except DeviceBookUnreadable as exc:
            raise ValueError("the pairings cannot be read") from exc
        return any(device.created_at_ms <= record.issued_at_ms for device in held)

    def counts(self, device_id: str) -> bool:
        """Whether any certificate of this device opens TLS as things are now."""
        try:
            return any(self._counts(record) for record in self.listed(device_id))
        except ValueError:
            return False

    # --- records

    def listed(self, device_id: str | None = None) -> list[CertificateRecord]:
        found = [record for record in self._records.values() if device_id in {None, record.device_id}]
        return sorted(found, key=lambda record: (record.device_id, record.issued_at_ms))

    async def issue(self, csr_pem: str, device_id: str, *, by: str, now: int) -> tuple[str, CertificateRecord]:
        """A certificate in PEM, on record when this returns. Raises `RequestRefused`, `DeviceNotPaired`, `StoreError`,
        and what reading the authority raises.
        """
        if not any(device.live for device in self._book.records_of(device_id)):
            raise DeviceNotPaired(device_id)
        signed = self.authority.sign(csr_pem, device_id)
        record = CertificateRecord(
            fingerprint=signed.fingerprint,
            device_id=device_id,
            serial=signed.serial,
            issued_at_ms=now,
            not_after_ms=signed.not_after_ms,
            issued_by=by[:128],
        )
        await self._store.run(partial(_insert, record=record), then=self._apply, precious=True)
        return signed.pem, record

    async def revoke(self, device_id: str) -> int:
        """End every certificate of a device; `on_cut` is told at the moment of the commit. Returns how many."""
        return await self._store.run(
            partial(_delete, device_id=device_id), then=partial(self._forgotten, device_id), revokes=True
        )

    def forget(self, device_id: str, spare: str | None = None) -> None:
        """The device is gone, and its records with it: from this moment on in memory, too."""
        self._records = {key: record for key, record in self._records.items() if record.device_id != device_id}
        self.on_cut(device_id, "device removed", spare)

    async def reload(self) -> None:
        """Read the records anew. Raises `StoreError`."""
        try:
            await self._store.run(_load, then=self._apply_all)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as exc:
            self._fault = str(exc)
            raise

    def _apply_all(self, records: list[CertificateRecord]) -> None:
        self._records = {record.fingerprint: record for record in records}
        self._fault = None

    def _apply(self, live: list[CertificateRecord]) -> None:
        """``live``: all that the device has now."""
        others = {key: record for key, record in self._records.items() if record.device_id != live[0].device_id}
        self._records = others | {record.fingerprint: record for record in live}

    def _forgotten(self, device_id: str, count: int) -> None:
        self._records = {key: record for key, record in self._records.items() if record.device_id != device_id}
        self.on_cut(device_id, "certificate revoked", None)


@asynccontextmanager
async def open_issued_certificates(
    store: Store, book: DeviceBook, state_dir: Path | None
) -> AsyncGenerator[IssuedCertificates, None]:
    """The records over an open store. Opens even where the store cannot be read: every certificate is refused then."""
    issued = IssuedCertificates(store, book, state_dir)
    with suppress(StoreError, sqlite3.Error, ValueError, TypeError):  # fail closed: see identify
        await issued.reload()
    yield issued


# --- jobs of the store (each may run again from the start, see Store.run)

_SELECT: Final = f"SELECT {_COLUMNS} FROM client_certificates"  # noqa: S608 - constants


def _load(db: sqlite3.Connection) -> list[CertificateRecord]:
    return [_record(row) for row in db.execute(_SELECT)]


def _record(row: tuple[Any, ...]) -> CertificateRecord:
    return CertificateRecord(**dict(zip(_COLUMNS.split(", "), row, strict=True)))


def _insert(db: sqlite3.Connection, record: CertificateRecord) -> list[CertificateRecord]:
    if db.execute("SELECT 1 FROM devices WHERE device_id = ?", (record.device_id,)).fetchone() is None:
        raise DeviceNotPaired(record.device_id)
    db.execute(
        f"INSERT INTO client_certificates ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        attrs.astuple(record),
    )
    db.execute(
        "DELETE FROM client_certificates WHERE fingerprint IN (SELECT fingerprint FROM client_certificates "
        "WHERE device_id = ? ORDER BY issued_at_ms DESC, fingerprint LIMIT -1 OFFSET ?)",
        (record.device_id, MAX_PER_DEVICE),
    )
    return [_record(row) for row in db.execute(f"{_SELECT} WHERE device_id = ?", (record.device_id,))]


def _delete(db: sqlite3.Connection, device_id: str) -> int:
    return db.execute("DELETE FROM client_certificates WHERE device_id = ?", (device_id,)).rowcount
