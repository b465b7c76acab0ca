"""The client certificate of a node: fetched from the gateway's own authority once it asks for one, renewed in time.

Owns one file per gateway, ``<state>/node/certificates/*.pem`` (certificate and key in one, so that one replacement
changes both), and when to ask for another. It must not dial. Invariants: the key is made here and never leaves its file
(0600 in a folder 0700), a request (PKCS #10) goes out and a certificate comes back; it is asked for over TLS alone, and
shown to no other address than the one that issued it; what comes back is kept only where it is for that very key; one
that the gateway refuses, or that has ended, is left out at the next try, because even a gateway that takes clients
without a certificate refuses a bad one; `openclaw devices cert` goes on deciding where this has nothing to show.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from openclaw_gateway.client import CallFailed, ClientClosed, GatewayClient
from openclaw_gateway.client.certificate import begins_and_ends, make_request
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.pace import RENEWING
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.statedir import ensure_private_dir, write_private_file

__all__ = ["LOOK_SECONDS", "NodeCertificate"]

LOOK_SECONDS: Final = 6 * 3600.0  # how often a gateway is asked whether it wants certificates by now
RENEWED_PART: Final = 1 / 3  # of its life that is left when another one is fetched: four months of a year
MAX_PEM: Final = 64 * 1024
_CALL_SECONDS: Final = 15.0
_ASKING: Final = frozenset({"optional", "required"})

log = get_logger("node")
_chance = random.SystemRandom().random


class NodeCertificate:
    """What this node shows one gateway. ``given``: the certificate that a person put there, or none."""

    def __init__(
        self, path: Path, given: ClientCertificate | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._given = given
        self._now = now
        self._left_out = False

    @property
    def shown(self) -> ClientCertificate | None:
        """The certificate for the next connection. Reads small files."""
        return self._given if self._left_out or self.ends_at is None else ClientCertificate(self.path, self.path)

    @property
    def ends_at(self) -> float | None:
        """When the fetched one ends, Unix seconds; None: there is none that could be shown now."""
        life = _usable(self.path)
        return life[1] if life is not None and life[1] > self._now() else None

    def refused(self) -> None:
        """A connection ended before a word of HTTP, as it does over a certificate that is not taken, or over none: the
        next try is the other way round.
        """
        self._left_out = not self._left_out and self.ends_at is not None

    async def keep_current(self, client: GatewayClient, told: Callable[[], None]) -> None:
        """Fetch and renew over this connection, which has to be TLS, until it ends. ``told`` hears of each new one.

        Nothing that goes wrong here ends the connection. Cancelled between any two steps, the former file stays.
        """
        failures = 0
        while True:
            try:
                wait = await self._look(client, told)
                failures = 0
            except ClientClosed:
                return
            except CallFailed as error:
                if error.code != "UNAVAILABLE":  # a gateway that issues none, or a node that is not approved yet
                    log.debug("no client certificate", error=str(error))
                    wait = LOOK_SECONDS * (0.5 + 0.5 * _chance())
                else:
                    failures += 1
                    wait = RENEWING.delay(failures, _chance())
            except (OSError, GatewayError, ValueError) as error:
                failures += 1
                wait = RENEWING.delay(failures, _chance())
                log.warning("the client certificate is not renewed", error=str(error), delay_ms=round(wait * 1000))
            await trio.sleep(wait)

    async def _look(self, client: GatewayClient, told: Callable[[], None]) -> float:
        """Ask whether a certificate is wanted, fetch one where it is due. Seconds until the next look."""
        answer = await client.call("device.cert.list", {}, timeout=_CALL_SECONDS)
        wanted = isinstance(answer, dict) and answer.get("clientAuth") in _ASKING
        later = LOOK_SECONDS * (0.5 + 0.5 * _chance())
        left = self._seconds_left()
        if wanted and left <= 0:
            await self._fetch(client)
            told()
            return later  # whatever it says: a clock that is wrong by months costs one request in hours
        return max(RENEWING.first, min(left, later)) if wanted else later

    def _seconds_left(self) -> float:
        """Until another one has to be fetched; at most 0: now."""
        if self._left_out:  # we are in without it: what was refused is replaced
            return 0.0
        kept = _usable(self.path)
        if kept is None and self._given is not None:
            kept = begins_and_ends(self._given.cert_path)
        return 0.0 if kept is None else kept[1] - (kept[1] - kept[0]) * RENEWED_PART - self._now()

    async def _fetch(self, client: GatewayClient) -> None:
        new = make_request()
        answer: Any = await client.call("device.cert.issue", {"csrPem": new.csr}, timeout=_CALL_SECONDS)
        pem = answer.get("certPem") if isinstance(answer, dict) else None
        if not isinstance(pem, str) or not pem.isascii() or len(pem) > MAX_PEM or not new.fits(pem):
            raise NodeError("the gateway's answer is no certificate for the key that was made", "openclaw doctor")
        ensure_private_dir(self.path.parent)
        write_private_file(self.path, pem.encode("ascii") + b"\n" + new.key)
        self._left_out = False
        log.info("client certificate fetched", file=str(self.path))


def _usable(path: Path) -> tuple[float, float] | None:
    """When the certificate in ``path`` begins and ends; None: nothing that TLS could load."""
    with contextlib.suppress(OSError, ssl.SSLError, ValueError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, path, password="")
        return begins_and_ends(path)
    return None
