"""Keeping a DNS zone file up to date, so that this gateway is found where multicast does not reach.

Owns when the file is written and how. It must not know DNS's text (`discovery.zone`) nor run a DNS server (a person
does, with the steps of ``openclaw dns setup``). Imported at every start, so it imports nothing heavy: the rest is
loaded when a domain is set.

Invariants: the file is replaced as a whole or not at all; it is written only when what it says changed, or its
signature gets old; a zone without an address that others can reach is never written; a fault is told once and tried
again with the next look, never at the gateway's expense.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway.ops.log import get_logger

if TYPE_CHECKING:
    from openclaw_gateway.config.schema import WideAreaConfig
    from openclaw_gateway.discovery.records import Announcement
    from openclaw_gateway.discovery.service import Facts
    from openclaw_gateway.discovery.zone import Zone

__all__ = ["WideAreaService", "make_zone", "write_zone_file", "zone_path"]

LOOK_SECONDS: Final = 30.0
MAX_ZONE_BYTES: Final = 64 * 1024

log = get_logger("wide-area")


class WideAreaService:
    """``settings`` and ``facts`` are asked at every look, ``announce`` (which signs) only where they changed or the
    signature gets old; ``addresses`` gives those that others may reach us under, of what is listened on."""

    def __init__(
        self,
        settings: Callable[[], WideAreaConfig],
        facts: Callable[[], Facts],
        announce: Callable[[], Awaitable[Announcement]],
        state_dir: Path | None,
        *,
        addresses: Callable[[Sequence[str]], tuple[str, ...]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._announce = announce
        self._state_dir = state_dir
        self._addresses = addresses if addresses is not None else reachable_addresses
        self._clock = clock
        self._changed = trio.Event()
        self._done: tuple[object, ...] = ()  # what the file was made of
        self._signed_at = 0.0
        self._serial: int | None = None
        self._written_at: float | None = None
        self._fault: str | None = None

    def nudge(self) -> None:
        """The facts may have changed (a reload). Synchronous and cheap."""
        self._changed.set()

    def view(self) -> dict[str, Any]:
        """The ``wideArea`` member of `status`'s ``discovery``; ``fault``: why the zone is not up to date."""
        settings = self._settings()
        path = zone_path(settings, self._state_dir)
        return {
            "domain": settings.domain,
            "zoneFile": str(path) if path is not None else None,
            "serial": self._serial,
            "writtenAtMs": round(self._written_at * 1000) if self._written_at is not None else None,
            "fault": self._fault,
        }

    async def serve(self) -> None:
        """Look at once, after each nudge and every `LOOK_SECONDS`, until cancelled."""
        while True:
            self._changed = trio.Event()
            if self._settings().domain is None:
                self._fault = None
                await self._changed.wait()
                continue
            await self.look()
            with trio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()

    async def look(self) -> None:
        """Bring the file up to date where it is not. What keeps it from that is in `view`, and logged once."""
        fault = await self._keep()
        if fault is not None and fault != self._fault:
            log.warning("the zone file is not up to date", reason=fault, fix="openclaw dns setup")
        self._fault = fault

    async def _keep(self) -> str | None:
        from openclaw_gateway.discovery.beacon import RENEW_SECONDS

        settings, facts = self._settings(), self._facts()
        path = zone_path(settings, self._state_dir)
        if path is None or settings.domain is None:
            return "there is no state directory, and discovery.wideArea.zoneFile is not set"
        if facts.port == 0:
            return None
        addresses = self._addresses(facts.listening)
        if not addresses:
            return "the gateway listens on this host only (gateway.bind): nobody else could connect"
        made_of, now = (settings, facts, addresses), self._clock()
        if made_of == self._done and 0 <= now - self._signed_at < RENEW_SECONDS and path.exists():
            return None
        zone = make_zone(settings.domain, await self._announce(), addresses, full=facts.mode == "full")
        write = partial(_write_if_changed, path, zone, now)
        try:
            serial = await trio.to_thread.run_sync(write)
        except (OSError, ValueError) as error:
            return f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
        self._done, self._signed_at = made_of, now
        if serial is not None:
            log.info("zone file written", path=str(path), serial=serial)
            self._serial, self._written_at = serial, self._clock()
        return None


def zone_path(settings: WideAreaConfig, state_dir: Path | None) -> Path | None:
    """Where the zone is: as configured, else ``dns/openclaw.internal.db`` in the state directory, as with OpenClaw."""
    if settings.zone_file is not None:
        return settings.zone_file
    if settings.domain is None or state_dir is None:
        return None
    return state_dir / "dns" / f"{settings.domain}db"


def reachable_addresses(listening: Sequence[str]) -> tuple[str, ...]:
    """Of what is listened on: the tailnet's address, else those of the LAN. Empty where only this host is reached."""
    from openclaw_gateway.policy.addresses import is_loopback
    from openclaw_gateway.server.addresses import own_tailnet_address
    from openclaw_gateway.server.ownaddresses import own_lan_addresses

    everywhere = {"0.0.0.0", "::"} & set(listening)  # noqa: S104 - compared, not bound
    named = [address for address in listening if address not in everywhere and not is_loopback(address)]
    tailnet = own_tailnet_address()
    if tailnet is not None and (everywhere or tailnet in named):
        return (tailnet,)
    if everywhere:
        families = {6 if ":" in address else 4 for address in everywhere}
        return tuple(one for one in own_lan_addresses() if (6 if ":" in one else 4) in families)
    return tuple(named)


def make_zone(domain: str, said: Announcement, addresses: tuple[str, ...], *, full: bool) -> Zone:
    """The zone of a gateway that says ``said``. What only a LAN understands is left out."""
    from openclaw_gateway.discovery.records import SERVICE_TYPES, txt_of
    from openclaw_gateway.discovery.zone import Zone

    texts = {kind: txt_of(kind, said, "full" if full else "minimal") for kind in SERVICE_TYPES}
    return Zone(
        domain=domain,
        instance=said.instance,
        host=said.host,
        port=said.port,
        addresses=addresses,
        txt={kind: {key: text for key, text in pairs.items() if key != "lanHost"} for kind, pairs in texts.items()},
    )


def _write_if_changed(path: Path, zone: Zone, now: float) -> int | None:
    """In a thread. The new serial, or None where the file says the same and its signature is young."""
    from openclaw_gateway.discovery.beacon import RENEW_SECONDS
    from openclaw_gateway.discovery.zone import (
        content_hash,
        next_serial,
        read_hash,
        read_serial,
        read_signed_at,
        zone_text,
    )

    before = ""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        before = file.read(MAX_ZONE_BYTES).decode("utf-8", "replace")
    signed_at = read_signed_at(before)
    if read_hash(before) == content_hash(zone) and (signed_at is None or 0 <= now - signed_at < RENEW_SECONDS):
        return None
    serial = next_serial(read_serial(before), time.strftime("%Y%m%d", time.gmtime(now)))
    write_zone_file(path, zone_text(zone, serial))
    return serial


def write_zone_file(path: Path, text: str) -> None:
    """Replace ``path``, durable when it returns, readable by all: a DNS server runs as another user. Raises OSError;
    then the old content is still there. A symbolic link at ``path`` is replaced, not followed.
    """
    from openclaw_gateway.ops.statedir import fsync_dir

    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)
            file.write(text)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)
