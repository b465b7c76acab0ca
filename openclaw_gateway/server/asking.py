"""From what a peer said to what is asked of pairing, and from what was issued to what hello tells: pure translation.

Owns the short form of ``connect`` in JSON-RPC, the name of a principal, the shape of an `Ask`. It must not decide
anything, and reads no clock, store or socket.
"""

from __future__ import annotations

import attrs
import msgspec

from openclaw_gateway.pairing.apikeys import ApiKey
from openclaw_gateway.pairing.issued import Handout, RefreshRefused
from openclaw_gateway.pairing.records import Ask, PairedDevice
from openclaw_gateway.policy.admission import (
    AdmissionQuestion,
    Admitted,
)
from openclaw_gateway.protocol.connect import (
    ConnectAuth,
    ConnectParams,
    bearer_params,
    decode_connect,
)
from openclaw_gateway.protocol.errors import ERRORS, WireError, wire_error
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.server.grants import IssuedToken

__all__ = ["ask_of", "is_proven", "issued_token", "principal_of", "read_params", "refresh_refusal", "statement_text"]


def refresh_refusal(refused: RefreshRefused) -> WireError:
    """The wire error of a refusal, with its own word and the next command (AUTH-2)."""
    standing = refused.reason in {"disabled", "not-a-device"}
    key = f"refresh-{refused.reason}" if standing else f"refresh-token-{refused.reason}"
    word = key.replace("-", "_")
    return wire_error(key, details={"authReason": word, "remediationHint": ERRORS[key].fix})


def issued_token(handout: Handout) -> IssuedToken | None:
    if handout.device_token is None:
        return None
    return IssuedToken(
        handout.device_token,
        handout.record.token_issued_at_ms,
        handout.expires_at_ms,
        handout.refresh_token,
        handout.refresh_expires_at_ms,
    )


def is_proven(question: AdmissionQuestion) -> bool:
    return question.device is not None and question.device.ok and isinstance(question.pairing, PairedDevice)


def principal_of(verdict: Admitted, api_key: ApiKey | None = None) -> str:
    if api_key is not None:
        return f"api-key:{api_key.key_id}"
    if verdict.device_id is not None:
        return f"device:{verdict.device_id}:{verdict.role}"
    if verdict.user is not None:
        return f"{verdict.method}:{verdict.user}"
    return f"{verdict.method}:{verdict.role}"


def ask_of(question: AdmissionQuestion, scopes: tuple[str, ...]) -> Ask:
    params, device = question.params, question.device
    assert device is not None
    assert device.device_id is not None
    assert device.public_key is not None
    client = params.client
    return Ask(
        device_id=device.device_id,
        public_key=device.public_key,
        role=params.role,
        scopes=scopes,
        client_id=client.id,
        client_mode=client.mode,
        display_name=client.display_name,
        platform=client.platform,
        device_family=client.device_family or "",
        version=client.version,
        source_ip=question.peer.client_address,
        caps=params.caps,
        commands=params.commands,
        key_statement=statement_text(question.opened_by) if question.opened_by is not None else None,
    )


def statement_text(statement: KeyStatement) -> str:
    """A key statement as it is kept with its device."""
    return msgspec.json.encode(statement.to_wire()).decode()


class _ShortConnect(msgspec.Struct, forbid_unknown_fields=True):
    """JSON-RPC's own short form of ``connect``: a credential and the scopes asked for."""

    token: str | None = None
    password: str | None = None
    scopes: list[str] | None = None


def read_params(raw: msgspec.Raw | ConnectParams, transport: str) -> ConnectParams | str:
    if isinstance(raw, ConnectParams):
        return raw
    if transport == "jsonrpc":
        try:
            short = msgspec.json.decode(raw or b"{}", type=_ShortConnect)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return decode_connect(raw)
        scopes = tuple((short.scopes or ["operator.read", "operator.write"])[:64])
        auth = ConnectAuth(token=short.token, password=short.password)
        return attrs.evolve(bearer_params(protocol=4, scopes=scopes), auth=auth)
    return decode_connect(raw)
