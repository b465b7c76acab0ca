"""Listening for gateways by multicast DNS: zeroconf's thread on one side, sightings on the other.

Owns the crossing between that thread and Trio, resolving, and the limits against a LAN that answers too much. It must
not know rows, trust or the terminal (`discovery.found`). Only this module and the responder import zeroconf, when they
are used. Sources: RFC 6762 (multicast DNS), spec network-facts.md section 5.

Invariants: zeroconf's callback only notes a name, it never resolves; at most `MAX_PENDING` names wait, `MAX_RESOLVING`
are asked for, `MAX_ASKING` at a time; a LAN that names more than `MAX_NAMES` is a flood: listening pauses, what was
found stays, and the flood is told once; after a pause, or when this host's networks changed, listening begins anew, and
what does not answer again within `FORGET_SECONDS` is told as a goodbye, so that no flood outlives itself in the list;
nothing that arrives ends the browser; its thread is gone when it returns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from openclaw_gateway.discovery.found import Sighting, SightingKey, read_sighting
from openclaw_gateway.discovery.interfaces import Interface, watch_interfaces
from openclaw_gateway.discovery.lans import plan_lans
from openclaw_gateway.discovery.records import LOCAL_DOMAIN, SERVICE_TYPES
from openclaw_gateway.errors import GatewayError

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

__all__ = ["MAX_NAMES", "MulticastUnavailable", "Tell", "browse_multicast"]

MAX_PENDING: Final = 1024
MAX_RESOLVING: Final = 128
MAX_ASKING: Final = 8
MAX_NAMES: Final = 2048
MAX_HEARD: Final = 4096
ASK_SECONDS: Final = 1.5
FLOOD_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
WATCH_SECONDS: Final = 0.25
NOTED_SECONDS: Final = 60.0  # in which `MAX_NAMES` notes are a flood
FORGET_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 10.0  # where listening could not begin
_BATCH: Final = 64

Tell = Callable[[list[Sighting], list[SightingKey]], None]
Watch = Callable[[], AsyncGenerator[tuple[Interface, ...], None]]


@attrs.define(eq=False)
class MulticastUnavailable(GatewayError):
    """Multicast DNS cannot be used here: no interface, port 5353 refused, no permission. Told, and tried again."""

    message: str
    fix: str = "give the address: openclaw gateway status --url ws://HOST:18789"

    def __str__(self) -> str:
        return self.message


class _Flood(Exception):
    pass


class _Moved(Exception):
    """This host is on other networks now."""


class _Pending:
    """Names that zeroconf's thread noted, until Trio takes them. The newest state of a name replaces older ones."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()  # a dictionary that grows while its first key is looked for raises
        self._token = trio.lowlevel.current_trio_token()
        self._names: dict[tuple[str, str], bool] = {}  # (type with domain, full name) → it is there
        self.noted = 0

    def note(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        """In zeroconf's thread."""
        key = (service_type, name)
        with self._lock:
            self.noted += 1
            if key not in self._names and len(self._names) >= MAX_PENDING:
                return
            self._names[key] = state_change.name != "Removed"
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            return

    def take(self) -> list[tuple[tuple[str, str], bool]]:
        taken: list[tuple[tuple[str, str], bool]] = []
        with self._lock:
            while self._names and len(taken) < _BATCH:
                key = next(iter(self._names))
                taken.append((key, self._names.pop(key)))
        return taken

    def count_anew(self) -> None:
        with self._lock:
            self.noted = 0


class _Heard:
    """What was told and not taken back, so that what a new beginning does not hear again can be."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._beginning = 0
        self._keys: dict[SightingKey, int] = {}  # key → the beginning that heard it last

    def begin(self) -> None:
        self._beginning += 1

    def tell(self, seen: list[Sighting], lost: list[SightingKey]) -> None:
        for key in lost:
            self._keys.pop(key, None)
        for one in seen:
            if one.key in self._keys or len(self._keys) < MAX_HEARD:
                self._keys[one.key] = self._beginning
        self._tell(seen, lost)

    def forget(self) -> list[SightingKey]:
        """Take back what this beginning has not heard. Gives what it has heard, where that made room."""
        gone = [key for key, beginning in self._keys.items() if beginning < self._beginning]
        if not gone:
            return []
        self.tell([], gone)
        return list(self._keys)


async def browse_multicast(
    tell: Tell,
    trouble: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.time,
    watch: Watch = watch_interfaces,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled. ``tell`` hears of answers and goodbyes in batches, ``trouble`` of what keeps it from
    listening; both must not block. ``started()`` when the first question is on its way.

    Where listening cannot begin it is tried again, every `AGAIN_SECONDS`. Cancellation closes zeroconf, within
    `CLOSE_SECONDS`.
    """
    heard = _Heard(tell)
    while True:
        heard.begin()
        pause = 0.0
        try:
            await _listen(heard, clock, watch, task_status)
        except _Flood:
            pause = FLOOD_SECONDS
            trouble(
                f"more than {MAX_NAMES} names were announced on this network; listening pauses for "
                f"{FLOOD_SECONDS:.0f} s, and gateways may be missing from the list"
            )
        except MulticastUnavailable as error:
            pause = AGAIN_SECONDS
            trouble(str(error))
        except _Moved:
            pass
        else:
            raise AssertionError("listening ends with a reason")
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(pause)


async def _listen(heard: _Heard, clock: Callable[[], float], watch: Watch, task_status: trio.TaskStatus[None]) -> None:
    """Never returns. Raises `MulticastUnavailable`, `_Flood` and `_Moved`."""
    waker, awake = trio.open_memory_channel[None](1)

    def wake() -> None:
        try:
            waker.send_nowait(None)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return

    pending = _Pending(wake)
    # The thread that opens it is shielded: it is over in a few milliseconds and what it opened must be closed.
    with trio.CancelScope(shield=True):
        zeroconf = await trio.to_thread.run_sync(_open)
    browsers: list[Any] = []
    try:
        browsers.append(await trio.to_thread.run_sync(partial(_start, zeroconf, pending)))
        task_status.started()
        async with trio.open_nursery() as nursery:
            resolver = _Resolver(zeroconf, heard.tell, clock, nursery)
            nursery.start_soon(_watch, zeroconf, pending)
            nursery.start_soon(_follow, watch)
            nursery.start_soon(_forget, heard, resolver)
            while True:
                await awake.receive()
                while batch := pending.take():
                    resolver.take(batch)
                    await trio.lowlevel.checkpoint()
    except BaseExceptionGroup as group:
        why, other = group.split((_Flood, _Moved))
        if other is not None:  # cancelled in the same moment, or a fault: who only asks for a new beginning gives way
            raise other from None
        assert why is not None
        raise (_Flood if why.subgroup(_Flood) is not None else _Moved) from None
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await trio.to_thread.run_sync(_close, zeroconf, browsers, abandon_on_cancel=True)


def _open() -> Zeroconf:
    from zeroconf import InterfaceChoice, IPVersion, Zeroconf

    logging.getLogger("zeroconf").addHandler(logging.NullHandler())  # what it says quotes what strangers sent
    fault: Exception | None = None
    for version in (IPVersion.All, IPVersion.V4Only):
        try:
            return Zeroconf(interfaces=InterfaceChoice.All, ip_version=version)
        except (OSError, RuntimeError) as error:
            fault = error
    assert fault is not None
    cause = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    raise MulticastUnavailable(f"multicast DNS cannot be used here: {cause}") from fault


def _start(zeroconf: Zeroconf, pending: _Pending) -> Any:
    from zeroconf import DNSQuestionType, ServiceBrowser

    types = [f"{service_type}.{LOCAL_DOMAIN}" for service_type in SERVICE_TYPES]
    # Answers by multicast: one sent to this host alone reaches only one of the programs that share port 5353.
    return ServiceBrowser(zeroconf, types, handlers=[pending.note], question_type=DNSQuestionType.QM)


def _close(zeroconf: Zeroconf, browsers: list[Any]) -> None:
    """Closing zeroconf does not end a browser's thread, which keeps the whole cache."""
    try:
        for browser in browsers:
            browser.cancel()
    finally:
        zeroconf.close()


async def _watch(zeroconf: Zeroconf, pending: _Pending) -> None:
    """Raise `_Flood` when there is more than a LAN can honestly have."""
    while True:
        with trio.move_on_after(NOTED_SECONDS):
            while True:
                if pending.noted > MAX_NAMES or len(zeroconf.cache.cache) > MAX_NAMES:
                    raise _Flood
                await trio.sleep(WATCH_SECONDS)
        pending.count_anew()


async def _follow(watch: Watch) -> None:
    """Raise `_Moved` when this host's networks are others: zeroconf listens on those that were there when it began."""
    before: object = None
    async with aclosing(watch()) as changes:
        async for interfaces in changes:
            now = [(lan.link, lan.addresses) for lan in plan_lans(interfaces, ("0.0.0.0", "::"))]  # noqa: S104
            if before is not None and now != before:
                raise _Moved
            before = now


async def _forget(heard: _Heard, resolver: _Resolver) -> None:
    await trio.sleep(FORGET_SECONDS)
    again = heard.forget()
    for first in range(0, len(again), _BATCH):
        resolver.take((_names(key), True) for key in again[first : first + _BATCH])
        await trio.lowlevel.checkpoint()


class _Resolver:
    """Names in, sightings out. What is not in zeroconf's cache yet is asked for in a thread."""

    def __init__(self, zeroconf: Zeroconf, tell: Tell, clock: Callable[[], float], nursery: trio.Nursery) -> None:
        self._zeroconf = zeroconf
        self._tell = tell
        self._clock = clock
        self._nursery = nursery
        self._asking: set[tuple[str, str]] = set()
        self._limiter = trio.CapacityLimiter(MAX_ASKING)

    def take(self, batch: Iterable[tuple[tuple[str, str], bool]]) -> None:
        seen: list[Sighting] = []
        lost: list[SightingKey] = []
        for (service_type, name), there in batch:
            key = _key(service_type, name)
            if key is None:
                continue
            if not there:
                lost.append(key)
                continue
            info = self._info(service_type, name)
            if info is None:
                continue
            if info.load_from_cache(self._zeroconf):
                self._read(info, key, seen)
            elif (service_type, name) not in self._asking and len(self._asking) < MAX_RESOLVING:
                self._asking.add((service_type, name))
                self._nursery.start_soon(self._ask, info, (service_type, name), key)
        if seen or lost:
            self._tell(seen, lost)

    async def _ask(self, info: ServiceInfo, asked: tuple[str, str], key: SightingKey) -> None:
        from zeroconf import Error

        try:
            ask = partial(info.request, self._zeroconf, ASK_SECONDS * 1000)
            try:
                await trio.to_thread.run_sync(ask, limiter=self._limiter, abandon_on_cancel=True)
            # Closed meanwhile, kept busy by a flood (EventLoopBlocked), or a name that cannot be asked for.
            except (OSError, RuntimeError, ValueError, AssertionError, Error):
                return
            seen: list[Sighting] = []
            self._read(info, key, seen)  # with what came, even where there is no TXT
            if seen:
                self._tell(seen, [])
        finally:
            self._asking.discard(asked)

    def _info(self, service_type: str, name: str) -> ServiceInfo | None:
        """None for a name that is none: control characters, too long a label."""
        from zeroconf import BadTypeInNameException, ServiceInfo

        try:
            return ServiceInfo(service_type, name)
        except (BadTypeInNameException, ValueError):
            return None

    def _read(self, info: ServiceInfo, key: SightingKey, seen: list[Sighting]) -> None:
        if info.port is None or not info.server:
            return
        domain, service_type, instance = key
        sighting = read_sighting(
            service_type=service_type, instance=instance, domain=domain, host=info.server, port=info.port,
            addresses=info.parsed_scoped_addresses(), txt=info.text or b"", now=self._clock(),
        )  # fmt: skip
        if sighting is not None:
            seen.append(sighting)


def _names(key: SightingKey) -> tuple[str, str]:
    """What `_key` takes apart."""
    domain, service_type, instance = key
    return (f"{service_type}.{domain}", f"{instance}.{service_type}.{domain}")


def _key(service_type: str, name: str) -> SightingKey | None:
    """The full name taken apart; None where it is not one of ours."""
    for known in SERVICE_TYPES:
        tail = f".{known}.{LOCAL_DOMAIN}"
        if service_type.lower() == tail[1:] and name.lower().endswith(tail) and len(name) > len(tail):
            return (LOCAL_DOMAIN, known, name[: -len(tail)])
    return None
