"""Pairing without a gateway: the same methods, on the state directory itself, while nobody else uses it (PAIR-2).

Owns putting the books and the methods together under the instance lock. Authority is ownership of the directory: the
lock's file is opened in it, and it must be ours alone (`ops.statedir`). It must not know the command line. Everything
that a running gateway would check is checked here by the same code (V19): wrong codes count, asks are bound to what was
listed, caps hold.

Invariants: never at the same time as a gateway; nothing is created where nothing is, unless ``create`` says so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.nodes.hub import open_node_hub
from openclaw_gateway.nodes.listing import node_source
from openclaw_gateway.ops.audit import open_audit
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.instance import InstanceLock
from openclaw_gateway.pairing.clientcerts import IssuedCertificates, open_issued_certificates
from openclaw_gateway.pairing.devices import open_device_book
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.pairing.sender_book import open_sender_book
from openclaw_gateway.pairing.sender_codes import load_sender_codes
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.pairing.tokens import load_device_tokens
from openclaw_gateway.rpc import certificates, nodes, pairing, senders
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.owner import OwnerCaller, owner_call
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.server.registry import SessionRegistry, Strangers
from openclaw_gateway.store import open_store

__all__ = ["OfflinePairing", "open_offline"]


class OfflinePairing:
    """What `open_offline` yields."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._caller = OwnerCaller("offline")

    async def call(self, method: str, params: object = None) -> Any:
        """A method's payload, durable when it returns. Raises `CallError`."""
        raw = msgspec.Raw(msgspec.json.encode({} if params is None else params))
        return await owner_call(self._dispatcher, self._caller, method, raw)


def _forget(issued: IssuedCertificates, device_id: str, role: str | None, spare: str | None) -> None:
    if role is None:
        issued.forget(device_id)


def _to_nobody(event: BookEvent) -> None:
    """Events are for those who are connected; nobody is."""


@asynccontextmanager
async def open_offline(
    state_dir: Path, config: GatewayConfig, *, create: bool = False
) -> AsyncGenerator[OfflinePairing, None]:
    """The pairing methods over ``state_dir``, exclusively, until the block ends.

    Without ``create`` a directory that holds no database is left as it is: then nobody waits and nobody is paired.
    Raises `AlreadyRunning` (a gateway holds the directory), `StateDirUnsafe`, `StoreError`, `CredentialDamaged`,
    `OSError`. Cancellation as `Store.run`.
    """
    if not create and not (state_dir / "gateway.db").exists() and not (state_dir / "backups").exists():
        async with _open(None, config) as offline:
            yield offline
        return
    with InstanceLock.acquire(state_dir):
        async with _open(state_dir, config) as offline:
            yield offline


@asynccontextmanager
async def _open(state_dir: Path | None, config: GatewayConfig) -> AsyncGenerator[OfflinePairing, None]:
    tokens, codes = load_device_tokens(state_dir), load_sender_codes(state_dir)
    async with (
        open_store(state_dir) as store,
        open_audit(store) as audit,
        open_device_book(store, clock=now_ms, tokens=tokens, request_ttl_ms=config.pairing.request_ttl_ms) as book,
        open_sender_book(store, clock=now_ms, codes=codes, code_ttl_ms=config.pairing.sender_code_ttl_ms) as people,
        open_node_hub(store, book, clock=now_ms) as hub,
        open_issued_certificates(store, book, state_dir) as issued,
    ):
        table = MethodTable()
        nobody = SessionRegistry(limit=0, strangers=Strangers(0))
        gate = SenderGate(people, config.channels, clock=now_ms)
        pairing.register(table, book=book, registry=nobody, publish=_to_nobody, audit=audit)
        overview = senders.register(table, gate=gate, devices=book, clock=now_ms, audit=audit)
        nodes.register(table, hub, audit=audit)
        book.on_cut = partial(_forget, issued)
        certificates.register(
            table, issued, fingerprint=lambda: None, client_auth=lambda: config.tls.client_auth, audit=audit
        )
        overview.add(node_source(hub))
        yield OfflinePairing(Dispatcher(table))
