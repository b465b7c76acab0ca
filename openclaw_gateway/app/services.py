"""The services of a gateway: what is kept in its store, opened in order and closed in the reverse.

Owns that order. Services are the outer of the two tiers of life (design rule 2): they outlive every connection, so
that a connection can write what became of it. It must not know what a service is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.messaging import Messaging, open_messaging
from openclaw_gateway.nodes.hub import NodeHub, open_node_hub
from openclaw_gateway.ops.audit import AuditTrail, open_audit
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import ApiKeys, open_api_keys
from openclaw_gateway.pairing.clientcerts import IssuedCertificates, open_issued_certificates
from openclaw_gateway.pairing.devices import DeviceBook, open_device_book
from openclaw_gateway.pairing.issued import IssuedTokens, open_issued_tokens
from openclaw_gateway.pairing.senders import SenderBook, load_sender_codes, open_sender_book
from openclaw_gateway.pairing.setupcodes import SetupCodes, open_setup_codes
from openclaw_gateway.pairing.tokens import load_device_tokens
from openclaw_gateway.server import rules
from openclaw_gateway.store import open_store
from openclaw_gateway.value import Value

__all__ = ["Services", "open_services"]

log = get_logger("gateway")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Services(Value):
    """``people`` are the senders of direct messages, ``hub`` the nodes, ``keys`` the API keys."""

    book: DeviceBook
    hub: NodeHub
    people: SenderBook
    audit: AuditTrail
    issued: IssuedTokens
    keys: ApiKeys
    setup_codes: SetupCodes
    certificates: IssuedCertificates
    messaging: Messaging


@asynccontextmanager
async def open_services(config: GatewayConfig) -> AsyncIterator[Services]:
    """Everything that the state directory of ``config`` keeps; a private database in memory where it names none.

    Raises `StoreError`, `StateDirUnsafe`. Whoever enters shields it: what is open here must not be cancelled before the
    connections have ended.
    """
    tokens = load_device_tokens(config.state_dir)
    codes = load_sender_codes(config.state_dir)
    async with (
        open_store(config.state_dir) as store,
        open_audit(store) as audit_trail,
        open_device_book(store, clock=now_ms, tokens=tokens, request_ttl_ms=config.pairing.request_ttl_ms) as book,
        open_issued_tokens(store, book, rules.life_rules(config)) as issued,
        open_api_keys(store, rules.life_rules(config)) as keys,
        open_sender_book(store, clock=now_ms, codes=codes, code_ttl_ms=config.pairing.sender_code_ttl_ms) as people,
        open_setup_codes(store, book, clock=now_ms) as setup_codes,
        open_node_hub(store, book, clock=now_ms) as hub,
        open_issued_certificates(store, book, config.state_dir) as certificates,
        open_messaging(store) as messaging,
    ):
        if store.recovery is not None:
            log.error(
                "the database was damaged; a backup was put back",
                reason=store.recovery.reason,
                backup=str(store.recovery.restored_from),
            )
        yield Services(
            book=book,
            hub=hub,
            people=people,
            audit=audit_trail,
            issued=issued,
            keys=keys,
            setup_codes=setup_codes,
            certificates=certificates,
            messaging=messaging,
        )
