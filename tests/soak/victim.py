"""``openclaw gateway run`` with methods for tests: it tells how full its tables are, and breaks where it is told to.

Run as ``python -m tests.soak.victim gateway run …``. It is the real command in a real process; all that is added is
registered through the public method table before the gateway listens. Never part of the product.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from openclaw_gateway import app
from openclaw_gateway.app import Gateway, watchers
from openclaw_gateway.cli.main import main
from openclaw_gateway.config.watch import ConfigChange
from openclaw_gateway.ops import logfile, loop, supervision
from openclaw_gateway.ops.health import rss_bytes
from openclaw_gateway.pairing import devices

TURN = float(os.environ.get("OPENCLAW_SOAK_TURN", "0"))  # seconds between a service's turns; 0: as in the product
HANGING: list[Any] = []  # calls of ``soak.hang`` that have not ended
PARTS = ("heartbeat", "loop", "tick", "health", "pairing", "config")


class BrokenOnPurpose(Exception):
    """What a test makes a task die of."""


@attrs.frozen
class Trip:
    part: str
    times: int = 1


@attrs.frozen
class Once:
    idempotency_key: str


@attrs.frozen
class Publish:
    size: int


class Chaos:
    """Makes a service raise at its next turns. ``tripped`` counts what really was raised, by part."""

    def __init__(self, gateway: Gateway) -> None:
        self.tripped = dict.fromkeys(PARTS, 0)
        self._left = dict.fromkeys(PARTS, 0)
        heartbeat, monitor, book = gateway._parts.heartbeat, gateway.loop, gateway._book
        chaos = self

        class Delays(deque[float]):
            def append(self, item: float) -> None:
                chaos.maybe("loop")
                super().append(item)

        heartbeat.look = self._before("heartbeat", heartbeat.look)  # type: ignore[method-assign]
        monitor._delays = Delays(maxlen=monitor._delays.maxlen)
        book.expire = self._before("pairing", book.expire)  # type: ignore[method-assign]
        news, reloading = gateway._parts.news, gateway._reloading
        news.health_changed = self._before("health", news.health_changed)  # type: ignore[method-assign]
        reloading.take_over = self._before("config", reloading.take_over)  # type: ignore[method-assign]
        publish = gateway.events.publish_nowait

        def publish_nowait(event: str, *args: Any, **kwargs: Any) -> int:
            if event == "tick":
                self.maybe("tick")
            return publish(event, *args, **kwargs)

        gateway.events.publish_nowait = publish_nowait  # type: ignore[method-assign]

    def maybe(self, part: str) -> None:
        if self._left[part]:
            self._left[part] -= 1
            self.tripped[part] += 1
            raise BrokenOnPurpose(part)

    def trip(self, part: str, times: int) -> None:
        self._left[part] += times

    def _before(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            self.maybe(part)
            return function(*args)

        return wrapped


def census(gateway: Gateway) -> dict[str, Any]:
    """How many entries each bounded table holds now, and this process's resident bytes."""
    core, keeper = gateway._core, gateway.gatekeeper
    gc.collect()
    return {
        "rss": rss_bytes(),
        "wires": len(gateway._server.wires),
        "strangers": len(core.registry.strangers),
        "sessions": len(core.registry),
        "live": len(core.registry.live),
        "listeners": len(gateway.events._listeners),
        "ledger": len(keeper.ledger),
        "saidOnce": len(keeper.peers._said),
        "idempotency": len(core.dispatcher._once),
        "presence": len(gateway.presence.entries()),
        "stability": len(core.stability._events),
        "methodViews": len(gateway.rpc._views),
        "logWatched": sum(len(h._seen) for h in _log_files()),
        "storeWaiting": gateway._book._store.waiting,
        "hanging": len(HANGING),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


def _log_files() -> list[logfile.LogFileHandler]:
    import logging

    handlers = logging.getLogger("openclaw_gateway").handlers
    return [handler for handler in handlers if isinstance(handler, logfile.LogFileHandler)]


def register(gateway: Gateway) -> None:
    chaos = Chaos(gateway)
    kept: list[Any] = []
    admin: dict[str, Any] = {"scope": "operator.admin", "advertised": False}
    method = gateway.rpc.method
    gateway.events.declare(["soak.bulk"])

    @method("soak.census", **admin)
    def tell_census(context: Any, params: Any) -> dict[str, Any]:
        return census(gateway)

    @method("soak.leak", **admin)
    def leak(context: Any, params: Any) -> dict[str, Any]:
        """From now on every session that ends is kept: the mistake that a soak test is there to find."""
        registry = gateway._core.registry
        remove = registry.remove

        def forgetful(session: Any) -> None:
            kept.append(session)
            remove(session)

        registry.remove = forgetful  # type: ignore[method-assign]
        return {}

    @method("soak.once", params=Once, idempotent=True, **admin)
    async def once(context: Any, params: Once) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"key": params.idempotency_key}

    @method("soak.publish", params=Publish, **admin)
    def publish(context: Any, params: Publish) -> dict[str, Any]:
        return {"taken": gateway.events.publish_nowait("soak.bulk", {"data": "x" * params.size}, scope=None)}

    @method("soak.hang", deadline=60.0, **admin)
    async def hang(context: Any, params: Any) -> None:
        HANGING.append(context)
        try:
            await trio.sleep_forever()
        finally:
            HANGING.remove(context)

    @method("soak.fail", **admin)
    async def fail(context: Any, params: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        raise BrokenOnPurpose("handler")

    @method("soak.fail-inline", **admin)
    def fail_inline(context: Any, params: Any) -> dict[str, Any]:
        raise BrokenOnPurpose("inline handler")

    @method("soak.trip", params=Trip, **admin)
    def trip(context: Any, params: Trip) -> dict[str, Any]:
        chaos.trip(params.part, params.times)
        return {}

    @method("soak.poke-config", **admin)
    def poke(context: Any, params: Any) -> dict[str, Any]:
        """A configuration change as the watcher would bring it, through the same function."""
        assert gateway.loaded is not None
        gateway.take_over(ConfigChange(old=gateway.loaded, new=gateway.loaded))
        return {}

    @method("soak.tripped", **admin)
    def tripped(context: Any, params: Any) -> dict[str, Any]:
        return dict(chaos.tripped)


def hurry(gateway: Gateway, turn: float) -> None:
    """Services take a turn every ``turn`` seconds; see `TURN`."""
    gateway._core.limits = attrs.evolve(gateway._core.limits, tick_interval_ms=round(turn * 1000))
    gateway._parts.heartbeat.configure(interval=turn * 100, timeout=turn * 100)


_open_gateway = app.open_gateway


@asynccontextmanager
async def open_gateway(*args: Any, **kwargs: Any) -> AsyncIterator[Gateway]:
    async with _open_gateway(*args, **kwargs) as gateway:
        register(gateway)
        if TURN:
            hurry(gateway, TURN)
        yield gateway


if __name__ == "__main__":
    if os.environ.get("OPENCLAW_STATE_DIR") is None:
        sys.exit("the soak victim runs with a state directory of its own only")
    if TURN:
        supervision.FIRST_SECONDS = supervision.LONGEST_SECONDS = TURN / 2  # type: ignore[misc]
        devices.UPKEEP_SECONDS = loop._INTERVAL = watchers.HEALTH_EVENT_SECONDS = TURN  # type: ignore[misc]
    app.open_gateway = open_gateway
    main()
