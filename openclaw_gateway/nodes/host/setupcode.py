"""Setup codes and join links, as a node is given them: where the gateway is, and a token that is good once.

Owns reading them (spec wire.md section 7, item 7). It must not connect with what it reads. Invariants: a code is at
most `MAX_CHARS` long; the token shows in no ``repr``; a join link is fetched once, without credentials, and no
redirect is followed.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Final

import attrs
import msgspec

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.nodes.host.errors import NodeError

__all__ = ["MAX_CHARS", "SetupCode", "fetch_join_link", "is_join_link", "read_setup_code"]

MAX_CHARS: Final = 8192
_FRESH: Final = "make a fresh one on the gateway's host: openclaw devices join-code"


class _Wire(msgspec.Struct):
    url: str
    bootstrapToken: str  # noqa: N815  as on the wire
    urls: list[str] = []
    expiresAtMs: int | None = None  # noqa: N815
    tlsFingerprint: str | None = None  # noqa: N815
    gatewayId: str | None = None  # noqa: N815


@attrs.frozen(kw_only=True)
class SetupCode:
    """``url`` is the gateway's WebSocket URL, ``others`` further ones; ``tls_fingerprint`` hex SHA-256 or None."""

    url: str
    others: tuple[str, ...] = ()
    bootstrap_token: str = attrs.field(repr=False)
    tls_fingerprint: str | None = None
    gateway_id: str | None = None  # its device id, where it offers secure channels


def is_join_link(text: str) -> bool:
    return text.strip().lower().startswith(("http://", "https://"))


def read_setup_code(text: str) -> SetupCode:
    """A setup code, with or without ``oc-pair://``. Raises `NodeError`."""
    text = text.strip().removeprefix("oc-pair://").rstrip("/")
    if len(text) > MAX_CHARS:
        raise NodeError("too long for a setup code", _FRESH)
    try:
        return _read(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise NodeError("not a setup code", _FRESH) from error


def _read(data: bytes) -> SetupCode:
    try:
        wire = msgspec.json.decode(data, type=_Wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NodeError("not a setup code", _FRESH) from error
    if not wire.url or not wire.bootstrapToken:
        raise NodeError("not a setup code", _FRESH)
    if wire.expiresAtMs is not None and wire.expiresAtMs < time.time() * 1000 - 120_000:
        raise NodeError("the setup code has expired", _FRESH)
    return SetupCode(
        url=wire.url, others=tuple(wire.urls[:8]), bootstrap_token=wire.bootstrapToken,
        tls_fingerprint=wire.tlsFingerprint, gateway_id=wire.gatewayId,
    )  # fmt: skip


async def fetch_join_link(link: str) -> SetupCode:
    """GET a join link, which can be done once. Raises `NodeError`, or `ConnectFailed` where nobody answers."""
    from openclaw_gateway.client.http import get

    address = GatewayAddress.parse(link.strip())
    answer = await get(address, address.resource, timeout=15)
    if answer.status != 200:
        raise NodeError("the join link is used up, or was never one", _FRESH)
    return _read(answer.body)
