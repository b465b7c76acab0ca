"""Measuring for admission: everything `policy.admission.admit` is told about one peer.

Owns the order of measuring: origin, signature, what the device book knows, credentials, and last whom others vouch for.
It must not decide: what cannot be known is put down as unknown, and the pure function judges.

Invariants: nothing is looked up for a device that did not prove itself; where the book cannot be read, the question
says so (V60).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from openclaw_gateway.pairing.apikeys import ApiKey
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.pairing.setupcodes import SetupCodes
from openclaw_gateway.policy.admission import UNREADABLE, AdmissionQuestion, DeviceTokenOutcome
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, failure_key
from openclaw_gateway.policy.origin import OriginVerdict, check_origin
from openclaw_gateway.policy.setup import SetupStanding
from openclaw_gateway.protocol.connect import CONTROL_UI_ID, ConnectAuth, ConnectParams
from openclaw_gateway.protocol.device import Challenge, DeviceVerdict, verify_device
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.server.credentials import Credentials
from openclaw_gateway.server.grants import GatekeeperRules, Presented, TransportCredential
from openclaw_gateway.server.peers import Peers
from openclaw_gateway.store import StoreError

__all__ = ["Measuring"]


class Measuring:
    def __init__(
        self,
        peers: Peers,
        credentials: Credentials,
        *,
        book: DeviceBook,
        setup_codes: SetupCodes | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._peers = peers
        self._credentials = credentials
        self._book = book
        self._setup_codes = setup_codes
        self._now_ms = now_ms

    async def connect(
        self,
        rules: GatekeeperRules,
        params: ConnectParams,
        peer: Peer,
        credential: TransportCredential,
        challenge: Challenge,
        challenge_age: float,
        opened_by: KeyStatement | None,
    ) -> tuple[AdmissionQuestion, FailureKey, ApiKey | None]:
        """The question about one ``connect`` under ``rules``, those of its listener; the key under which the ledger
        counts a wrong shared secret in it; the API key that matched.
        """
        origin = check_origin(peer, rules.origins, client_is_ui=params.client.id == CONTROL_UI_ID)
        device: DeviceVerdict | None = None
        if params.device is not None and origin.ok:
            device = verify_device(params.device, params, challenge, now_ms=self._now_ms(), challenge_age=challenge_age)
        pairing: Any = None
        approved_roles: tuple[str, ...] = ()
        revoked = removed = known = False
        token_outcome = DeviceTokenOutcome.NONE
        setup: SetupStanding | None = None
        registered: str | None = None
        if device is not None and device.ok and device.device_id is not None:
            try:
                records = {record.role: record for record in self._book.records_of(device.device_id)}
            except DeviceBookUnreadable:
                pairing = UNREADABLE
            else:
                record = records.get(params.role)
                registered = next((other.secure_key for other in records.values()), None)
                approved_roles = tuple(role for role, other in records.items() if other.live)
                pairing = record if record is not None and record.live else None
                revoked = record is not None and not record.live
                removed = not records and self._book.was_removed(device.device_id)
                known = bool(records)
                token_outcome = self._credentials.device_token(params.auth, record)
                if params.auth.bootstrap_token and self._setup_codes is not None:
                    try:
                        setup = await self._setup_codes.find(params.auth.bootstrap_token)
                    except (DeviceBookUnreadable, StoreError):
                        pairing = UNREADABLE
        proven = device.device_id if device is not None and device.ok and isinstance(pairing, PairedDevice) else None
        key = failure_key(
            peer, params.role, CredentialClass.SHARED_SECRET, browser=origin.browser, proven_device=proven
        )
        if token_outcome is DeviceTokenOutcome.MATCH:
            # The device token decides; comparing it with the shared secret would cost a bcrypt check per reconnect.
            found = Presented()
        else:
            auth = params.auth
            if token_outcome is DeviceTokenOutcome.EXPIRED and isinstance(pairing, PairedDevice):
                # An expired token is not a wrong secret, wherever it was put.
                spent = auth.token is not None and self._credentials.is_token_of(pairing, auth.token)
                auth = attrs.evolve(auth, token=None) if spent else auth
            found = await self._credentials.presented(auth, peer, params.role, credential, key, origin)
            other = params.auth.device_token or params.auth.bootstrap_token
            stale = token_outcome is DeviceTokenOutcome.EXPIRED
            if origin.ok and params.role == "operator" and found.nothing and (stale or not other):
                peer = await self._peers.from_tailnet(peer, rules)
        question = AdmissionQuestion(
            params=params,
            peer=peer,
            rules=rules.admission,
            origin=origin,
            secret=found.secret,
            secret_via=found.via,
            locked_for=found.locked_for,
            device=device,
            device_token=token_outcome,
            api_key=found.api_key,
            api_key_scopes=found.scopes,
            pairing=pairing,
            approved_roles=approved_roles,
            revoked=revoked,
            removed=removed,
            known=known,
            setup=setup,
            opened_by=opened_by,
            registered_key=registered,
        )
        return question, key, found.key

    async def http(
        self, rules: GatekeeperRules, peer: Peer, bearer: str | None
    ) -> tuple[dict[str, Any], FailureKey, Presented]:
        """The same for one HTTP request: the fields that both questions share."""
        origin = OriginVerdict(ok=True, reason="checked by the HTTP rule", browser=peer.origin is not None)
        key = failure_key(peer, "operator", CredentialClass.SHARED_SECRET, browser=origin.browser)
        credential = TransportCredential(bearer=bearer)
        found = await self._credentials.presented(ConnectAuth(), peer, "operator", credential, key, origin)
        if found.nothing:
            peer = await self._peers.from_tailnet(peer, rules)
        measured: dict[str, Any] = {
            "peer": peer,
            "rules": rules.admission,
            "origin": origin,
            "secret": found.secret,
            "locked_for": found.locked_for,
            "api_key": found.api_key,
            "api_key_scopes": found.scopes,
        }
        return measured, key, found
