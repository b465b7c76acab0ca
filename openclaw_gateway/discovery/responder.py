"""The responder: makes this gateway seen on the LAN, and keeps it so while networks come and go.

Owns the states, the waits between tries, the names and the view for `status`. It must not know packets (`mdns`, `look`)
nor configuration (it asks for `Facts`). Started only where announcing makes sense (`discovery.service`).

    waiting ──network──► claiming ──name is free──► announcing ──look, renew, network, facts──► announcing
                            │  └─ name is taken: rename, at most 3 an hour, then parked
                            └─ fails: retrying 2, 4, 8, 16, 32 s, then parked until the network changes, or 15 minutes

Invariants: whatever fails here ends in a state, never in the gateway (DISC-1); a trouble is one warning until it is
over; at most `MAX_RENAMES` an hour (DISC-2); an answer from an own address is never a conflict, on whatever interface
it comes in; every wait has a wake-up or an end.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final, Literal, Protocol

import attrs
import trio

from openclaw_gateway.discovery.beacon import MAX_SKEW_SECONDS, RENEW_SECONDS
from openclaw_gateway.discovery.claims import Claim, claim_on
from openclaw_gateway.discovery.interfaces import Interface, watch_interfaces
from openclaw_gateway.discovery.lans import Lan, plan_lans, why_no_lan
from openclaw_gateway.discovery.look import Answer, look_for
from openclaw_gateway.discovery.mdnsthread import open_mdns_thread
from openclaw_gateway.discovery.records import SERVICE_TYPES, Announcement, full_name
from openclaw_gateway.discovery.service import Facts
from openclaw_gateway.discovery.signer import Signer
from openclaw_gateway.ops.log import get_logger

__all__ = ["MAX_RENAMES", "RETRY_SECONDS", "Renames", "Responder"]

Link = tuple[str, int, str | None, bool]  # `Lan.link`
State = Literal["waiting", "claiming", "announcing", "retrying", "parked"]

RETRY_SECONDS: Final = (2.0, 4.0, 8.0, 16.0, 32.0)
PARKED_SECONDS: Final = 900.0
CLAIM_SECONDS: Final = 0.75  # RFC 6762 section 8.1: three probes, 250 ms apart
FIRST_LOOK_SECONDS: Final = 1.5
LOOK_SECONDS: Final = 120.0
MAX_RENAMES: Final = 3
RENAME_WINDOW_SECONDS: Final = 3600.0

log = get_logger("discovery")


class Speaker(Protocol):
    """What announces: `MdnsThread`."""

    async def announce(self, claims: Sequence[Claim], /) -> dict[str, str]: ...


class Look(Protocol):
    """What asks: `look_for`."""

    async def __call__(self, lan: Lan, names: tuple[str, ...], *, seconds: float) -> tuple[Answer, ...]: ...


@attrs.define(eq=False)
class Renames:
    """At most `MAX_RENAMES` within `RENAME_WINDOW_SECONDS`. ``number`` is what the names carry now."""

    number: int = 1
    _times: deque[float] = attrs.field(factory=deque)

    def take(self, now: float) -> bool:
        """Go on to the next number; False where this hour has had its share."""
        while self._times and now - self._times[0] >= RENAME_WINDOW_SECONDS:
            self._times.popleft()
        if len(self._times) >= MAX_RENAMES:
            return False
        self._times.append(now)
        self.number += 1
        return True

    def count(self, now: float) -> int:
        return sum(now - when < RENAME_WINDOW_SECONDS for when in self._times)


@attrs.define(eq=False)
class _Sight:
    """When we last saw ourselves on one network (of Trio's clock; None: not yet)."""

    lan: Lan
    seen_at: float | None = None
    trouble: str | None = None


class Responder:
    """``facts`` is asked whenever something changed. ``watch``, ``look`` and ``open_thread`` are the ways out: to the
    kernel, to the network, to zeroconf.
    """

    def __init__(
        self,
        facts: Callable[[], Facts],
        signer: Signer,
        *,
        watch: Callable[[], AsyncGenerator[tuple[Interface, ...], None]] = watch_interfaces,
        look: Look = look_for,
        open_thread: Callable[[], AbstractAsyncContextManager[Speaker]] = open_mdns_thread,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._facts = facts
        self._signer = signer
        self._watch, self._look_for, self._open_thread, self._wall = watch, look, open_thread, wall
        self._interfaces: tuple[Interface, ...] = ()
        self._sights: dict[Link, _Sight] = {}
        self._renames = Renames()
        self._changed = trio.Event()
        self._fresh = trio.Event()  # there is a network that we have not looked for ourselves on
        self._failures = 0
        self._warned = False
        self._said: Announcement | None = None
        self._signed_for: tuple[Facts, int] | None = None
        self._signed_at = 0.0  # of the clock on the wall, as in the beacon
        self.state: State = "waiting"
        self.reason: str | None = "starting"

    def nudge(self) -> None:
        """The facts may have changed. Synchronous, cheap, harmless when nothing did."""
        self._changed.set()

    def view(self) -> dict[str, Any]:
        """For `status`: state, names and when we last saw ourselves, by interface."""
        now = trio.current_time()
        said = self._said
        rows = [
            {
                "name": sight.lan.interface,
                "addresses": list(sight.lan.addresses),
                "lastSeenMsAgo": None if sight.seen_at is None else round((now - sight.seen_at) * 1000),
                "trouble": sight.trouble,
            }
            for sight in self._sights.values()
        ]
        return {
            "state": self.state,
            "reason": self.reason,
            "text": self._text(now),
            "instance": said.instance if said is not None else None,
            "host": f"{said.host}.local" if said is not None else None,
            "port": said.port if said is not None else None,
            "renames": self._renames.count(now),
            "interfaces": rows,
        }

    def _text(self, now: float) -> str:
        if self.state != "announcing" or self._said is None:
            return f"{self.state}: {self.reason}" if self.reason else self.state
        parts = []
        for sight in self._sights.values():
            if sight.trouble is not None:
                parts.append(f"{sight.trouble} on {sight.lan.interface}")
            elif sight.seen_at is None:
                parts.append(f"not looked yet on {sight.lan.interface}")
            else:
                parts.append(f"last seen by ourselves {now - sight.seen_at:.0f} s ago on {sight.lan.interface}")
        return f"announcing {self._said.instance}; {', '.join(parts)}"

    # --- the life

    async def serve(self) -> None:
        """Announce until cancelled; then take everything back, which takes a quarter of a second."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._follow_network)
            while not self._plan():
                self._enter("waiting", why_no_lan(self._interfaces, self._facts().listening))
                await self._wait_change()
            async with self._open_thread() as mdns:  # five megabytes that a host without network never pays
                nursery.start_soon(self._look_regularly)
                while True:
                    await self._round(mdns)

    async def _follow_network(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with aclosing(self._watch()) as changes:
            async for interfaces in changes:
                before = self._plan()
                self._interfaces = interfaces
                if self._plan() != before:  # what containers do to their bridges is none of our business
                    self._failures = 0
                    self._changed.set()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED

    async def _describe(self) -> Announcement:
        """What is said now; signed anew when it changes or after `RENEW_SECONDS`."""
        wanted, now = (self._facts(), self._renames.number), self._wall()
        # Set right or asleep, the clock on the wall leaps, and others judge the signature by theirs.
        fresh = -MAX_SKEW_SECONDS < now - self._signed_at < RENEW_SECONDS
        if self._said is None or wanted != self._signed_for or not fresh:
            self._said = await self._signer.announcement(wanted[0], number=wanted[1])
            self._signed_for, self._signed_at = wanted, now
        return self._said

    async def _round(self, mdns: Speaker) -> None:
        """Bring what is announced in line with the facts, then wait for a reason to do so again."""
        self._changed = trio.Event()
        said = await self._describe()
        lans = self._plan()
        if not lans:
            await mdns.announce(())
            self._sights = {}
            self._enter("waiting", why_no_lan(self._interfaces, self._facts().listening))
            await self._wait_change()
            return
        new = [lan for lan in lans if lan.link not in self._sights]
        if new:
            if self.state != "announcing":
                self._enter("claiming", None)
            taken_by = await self._claim(new, _names(said))
            if taken_by is not None:
                await self._rename(mdns, said, taken_by)
                return
        failed = await self._announce(mdns, lans, said)
        self._take_sight(lan for lan in lans if lan.interface not in failed)
        if failed:
            await self._failed(failed)
            return
        self._failures = 0
        self._enter("announcing", None)
        await self._wait_change(LOOK_SECONDS)

    def _take_sight(self, lans: Iterable[Lan]) -> None:
        before, self._sights = self._sights, {}
        for lan in lans:
            self._sights[lan.link] = sight = before.get(lan.link) or _Sight(lan)
            sight.lan = lan
            if sight.seen_at is None:
                self._fresh.set()

    async def _announce(self, mdns: Speaker, lans: tuple[Lan, ...], said: Announcement) -> dict[str, str]:
        mode: Literal["minimal", "full"] = "full" if self._facts().mode == "full" else "minimal"
        try:
            claims: list[Claim] = [claim_on(lan, said, mode) for lan in lans]
        except ValueError as error:
            return {lan.interface: str(error) for lan in lans}
        return await mdns.announce(claims)

    async def _failed(self, failed: dict[str, str]) -> None:
        reason = "; ".join(f"{why} ({interface})" for interface, why in failed.items())
        if self._failures < len(RETRY_SECONDS):
            wait = RETRY_SECONDS[self._failures] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            self._failures += 1
            self._enter("retrying", reason)
        else:
            wait = PARKED_SECONDS
            self._enter("parked", reason)
        await self._wait_change(wait)

    def _enter(self, state: State, reason: str | None) -> None:
        if state in {"retrying", "parked"} and not self._warned:
            self._warned = True
            log.warning("cannot announce this gateway on the LAN; everything else works", reason=reason, state=state)
        elif state == "announcing" and (self.state != "announcing" or self._warned):
            self._warned = False
            places = [sight.lan.interface for sight in self._sights.values()]
            log.info("announced on the LAN", name=self._said.instance if self._said else None, address=places)
        self.state, self.reason = state, reason

    def _plan(self) -> tuple[Lan, ...]:
        return plan_lans(self._interfaces, self._facts().listening)

    async def _wait_change(self, seconds: float = float("inf")) -> None:
        with trio.move_on_after(seconds):
            await self._changed.wait()
        self._changed = trio.Event()

    # --- names

    async def _claim(self, lans: list[Lan], names: tuple[str, ...]) -> Answer | None:
        """Ask every new network for our names. Gives the first answer of somebody else, None where they are free."""
        taken: list[Answer] = []

        async def ask(lan: Lan) -> None:
            try:
                answers = await self._look_for(lan, names, seconds=CLAIM_SECONDS)
            except OSError:
                return  # a network that cannot be asked fails to be announced on as well, with its reason
            taken.extend(answer for answer in answers if not self._own(answer))

        async with trio.open_nursery() as nursery:
            for lan in lans:
                nursery.start_soon(ask, lan)
        return taken[0] if taken else None

    def _own(self, answer: Answer) -> bool:
        return any(answer.source == text for interface in self._interfaces for text, _ in interface.addresses)

    async def _rename(self, mdns: Speaker, said: Announcement, taken_by: Answer) -> None:
        if not self._renames.take(trio.current_time()):
            await mdns.announce(())
            self._sights = {}
            reason = f"the name {said.instance} is taken by {taken_by.source}, after {MAX_RENAMES} renames this hour"
            self._enter("parked", reason)
            # Not woken by the network: whoever provokes that would provoke renames.
            await trio.sleep(PARKED_SECONDS)
            return
        log.warning("our name on the LAN is taken, using another", name=said.instance, host=taken_by.source)
        self._sights = {}

    # --- being seen

    async def _look_regularly(self) -> None:
        """See ourselves, and whoever took our name meanwhile (a copy of this machine that was started later)."""
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._fresh.wait()
                self._fresh = trio.Event()
                await trio.sleep(FIRST_LOOK_SECONDS)
            due = trio.current_time() - LOOK_SECONDS / 2
            for sight in list(self._sights.values()):
                unseen = sight.seen_at is None or sight.seen_at <= due
                if unseen and self.state == "announcing" and self._said is not None:
                    await self._look(sight, _names(self._said))

    async def _look(self, sight: _Sight, names: tuple[str, ...]) -> None:
        try:
            answers = await self._look_for(sight.lan, names, seconds=CLAIM_SECONDS)
            trouble = None if any(map(self._own, answers)) else "not seen by ourselves"
        except OSError as error:
            answers, trouble = (), f"cannot ask: {error.strerror or error}"
        if self._sights.get(sight.lan.link) is not sight or self._said is None or names != _names(self._said):
            return  # the network or the name changed while we looked
        if trouble is None:
            sight.seen_at = trio.current_time()
        elif sight.trouble is None:
            log.warning("our announcement does not come back to us", address=sight.lan.interface, reason=trouble)
        sight.trouble = trouble
        others = [answer for answer in answers if not self._own(answer)]
        # Of two with one name the lower address keeps it, or both would move on for ever.
        own = sight.lan.speak4 or sight.lan.addresses[0]
        if any(answer.source < own for answer in others):
            del self._sights[sight.lan.link]
            self._changed.set()


def _names(said: Announcement) -> tuple[str, ...]:
    return tuple(full_name(said.instance, service) for service in SERVICE_TYPES)
