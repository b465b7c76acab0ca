"""Does a gateway answer there, and with which certificate? Asked without any credentials.

Owns one look at one address and how many are under way. It must not know rows or trust. Invariants (attack V39):
nothing secret is ever sent, not even to a known gateway: one ``GET /health``, no redirect, no cookie, no
``Authorization``; a look has a deadline and a byte limit; only addresses that an answer carried are dialled, as
numbers, so no resolver is asked and no name leads elsewhere; what answers is not believed to be anything but reachable,
and to hold the key of the certificate that it showed.
"""

from __future__ import annotations

import hashlib
import ssl
from typing import Final

import trio

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.dial import dial_stream
from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.http import exchange
from openclaw_gateway.discovery.found import Reach

__all__ = ["MAX_BODY", "PROBE_SECONDS", "probe"]

PROBE_SECONDS: Final = 1.5
MAX_BODY: Final = 16 * 1024


async def probe(address: str, port: int, *, tls: bool, timeout: float = PROBE_SECONDS) -> Reach:
    """One look at ``address`` (a literal). Never raises but for cancellation, which closes what was opened."""
    target = GatewayAddress(address, port, tls)
    began = trio.current_time()
    fault, fingerprint = f"no answer within {timeout:g} s", None
    with trio.move_on_after(timeout):
        try:
            stream = await dial_stream(target, ssl_context=_any_certificate() if tls else None)
            try:
                if isinstance(stream, trio.SSLStream):
                    fingerprint = hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()
                answer = await exchange(stream, target, "/health", max_body=MAX_BODY)
            finally:
                await trio.aclose_forcefully(stream)
        except ConnectFailed as error:
            fault = error.message
        except OSError as error:
            fault = error.strerror or str(error)
        else:
            if answer.status == 200:
                took = round((trio.current_time() - began) * 1000)
                return Reach(ok=True, address=address, ms=took, fingerprint=fingerprint)
            fault = f"/health answers {answer.status}"
    return Reach(ok=False, address=address, fingerprint=fingerprint, fault=fault)


def _any_certificate() -> ssl.SSLContext:
    """Trusts nothing and refuses nothing: the fingerprint is what is wanted, and no secret follows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
