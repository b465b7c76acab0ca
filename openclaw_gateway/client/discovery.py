"""Finding gateways: what is around, as rows that change.

    async with discover(known=known_gateways(os.environ)) as found:
        async for change in found:
            print(change.kind, change.gateway.name, change.gateway.url, change.gateway.trust)

Owns the life of the browsers and probes and the queue of changes. It must not print, keep or dial what it found (attack
V39): it shows, and whoever uses it decides. Invariants: no secret passes through here; nothing is written; changes that
nobody takes are merged, never piled up; at most `PROBES_AT_ONCE` looks are under way, each address at most once in
`PROBE_AGAIN_SECONDS`; an end of the block ends every task and thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from openclaw_gateway.discovery.found import Change, FoundGateway, Known, Sighting, SightingKey, Table
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import get_logger

__all__ = ["Discovery", "discover", "merge_changes"]

PROBES_AT_ONCE: Final = 8
PROBE_AGAIN_SECONDS: Final = 5.0
MAX_PROBED: Final = 2  # addresses of one gateway
MAX_PROBLEMS: Final = 16
AGAIN_SECONDS: Final = 10.0  # after a way to look broke off

log = get_logger("discovery")


class Discovery:
    """What `discover` yields: iterate for changes, or read `gateways`. One task at a time may iterate."""

    def __init__(self, search: _Search) -> None:
        self._search = search

    def __aiter__(self) -> Discovery:
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for one. Between two calls the changes of one gateway become one."""
        return await self._search.next_change()

    @property
    def gateways(self) -> tuple[FoundGateway, ...]:
        """What is there now: known ones first, then by name."""
        return self._search.table.gateways

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from looking, or from seeing all, each once."""
        return tuple(self._search.problems)

    @property
    def dropped(self) -> int:
        """Answers that found no place in the list."""
        return self._search.table.dropped


@asynccontextmanager
async def discover(
    *,
    known: Iterable[Known] = (),
    multicast: bool = True,
    domains: Iterable[str] = (),
    nameserver: str | None = None,
    probe: bool = True,
) -> AsyncIterator[Discovery]:
    """Look for gateways while the block lasts.

    ``known``: whom to recognise (`discovery.known.known_gateways`). ``domains``: DNS domains to ask as well, at
    ``nameserver`` (``HOST[:PORT]``, None: the system's). With ``probe``, each one found is asked for ``/health``
    without credentials, again and again, so that one that died without a goodbye is noticed. What keeps it from
    looking is in `Discovery.problems`, not raised. Raises ValueError for a bad domain or nameserver.
    """
    from openclaw_gateway.discovery.zone import normal_domain

    zones = [normal_domain(domain) for domain in domains]
    if nameserver is not None:
        from openclaw_gateway.discovery.unicast import read_nameserver

        read_nameserver(nameserver)
    search = _Search(known)
    with flat_errors():
        async with trio.open_nursery() as nursery:
            if multicast:
                nursery.start_soon(search.browse_multicast)
            for zone in zones:
                nursery.start_soon(search.browse_domain, zone, nameserver)
            if probe:
                nursery.start_soon(search.keep_probing)
            try:
                yield Discovery(search)
            finally:
                nursery.cancel_scope.cancel()


class _Search:
    """The table, the queue of changes and the tasks that fill them."""

    def __init__(self, known: Iterable[Known]) -> None:
        self.table = Table(known)
        self.problems: list[str] = []
        self._changes: dict[str, Change] = {}
        self._more = trio.Event()
        self._arrived = trio.Event()

    async def next_change(self) -> Change:
        while not self._changes:
            self._more = trio.Event()
            await self._more.wait()
        await trio.lowlevel.checkpoint()
        return self._changes.pop(next(iter(self._changes)))

    def seen(self, seen: list[Sighting], lost: list[SightingKey]) -> None:
        self._note(self.table.update(seen, lost))
        self._arrived.set()
        self._arrived = trio.Event()

    def trouble(self, text: str) -> None:
        if text not in self.problems and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)

    def _note(self, changes: list[Change]) -> None:
        for change in changes:
            merged = merge_changes(self._changes.pop(change.gateway.key, None), change)
            if merged is not None:
                self._changes[change.gateway.key] = merged
        if self._changes:
            self._more.set()

    async def browse_multicast(self) -> None:
        from openclaw_gateway.discovery.browser import browse_multicast

        await self._guard("multicast DNS", partial(browse_multicast, self.seen, self.trouble))

    async def browse_domain(self, zone: str, nameserver: str | None) -> None:
        from openclaw_gateway.discovery.unicast import browse_domain

        await self._guard(zone, partial(browse_domain, zone, self.seen, self.trouble, nameserver=nameserver))

    async def _guard(self, what: str, look: Callable[[], Awaitable[None]]) -> None:
        """The crash barrier of one way to look (design rule 5): it begins again, and the others go on."""
        while True:
            try:
                await look()
            except Exception as error:  # a fault of ours or of a library, provoked by who knows what
                log.exception("looking for gateways broke off", task=what)
                self.trouble(f"{what}: looking broke off and begins again ({type(error).__name__})")
            await trio.sleep(AGAIN_SECONDS)

    async def keep_probing(self) -> None:
        """Look at every address that is due, a few at a time, for as long as there are rows."""
        limiter = trio.CapacityLimiter(PROBES_AT_ONCE)
        due: dict[tuple[str, int], float] = {}
        under_way: set[tuple[str, int]] = set()

        async def look(address: str, port: int, tls: bool) -> None:
            from openclaw_gateway.discovery.probe import probe

            try:
                async with limiter:
                    reach = await probe(address, port, tls=tls)
                self._note(self.table.reached(reach, port))
            except Exception as error:  # as in `_guard`: one address, whatever answers there, ends no search
                log.exception("looking at a gateway broke off", host=address)
                self.trouble(f"{address}: looking at it broke off ({type(error).__name__})")
            finally:
                under_way.discard((address, port))
                due[(address, port)] = trio.current_time() + PROBE_AGAIN_SECONDS

        async with trio.open_nursery() as nursery:
            while True:
                arrived = self._arrived
                rows = self.table.gateways
                live = {(address, row.port): row.tls for row in rows for address in row.addresses[:MAX_PROBED]}
                due = {endpoint: at for endpoint, at in due.items() if endpoint in live}
                for (address, port), tls in live.items():
                    if (address, port) not in under_way and due.get((address, port), 0.0) <= trio.current_time():
                        under_way.add((address, port))
                        nursery.start_soon(look, address, port, tls)
                with trio.move_on_after(1.0):
                    await arrived.wait()


def merge_changes(first: Change | None, then: Change) -> Change | None:
    """Two changes of one row as one; None where they undo each other."""
    if first is None:
        return then
    if first.kind == "added":
        return None if then.kind == "removed" else Change("added", then.gateway)
    if first.kind == "removed" and then.kind == "added":
        return Change("changed", then.gateway)
    return then
