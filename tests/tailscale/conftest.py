"""A pretended tailscaled in the test's own Trio run, and an exposure that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from openclaw_gateway.policy.network import Provenance
from openclaw_gateway.server.wire import SocketWire
from openclaw_gateway.tailscale import cli
from openclaw_gateway.tailscale.supervisor import Exposure, Wanted
from openclaw_gateway.testing.fake_tailscale import write_command
from openclaw_gateway.testing.fake_tailscaled import FakeTailscaled, open_fake_tailscaled

BACKENDS = ("socket", "command")


@attrs.define
class ScriptedDoor:
    """A door that opens nothing; ``busy``: recorded ports that cannot be had."""

    opened: list[tuple[int, str]] = attrs.field(factory=list)
    closed: int = 0
    check: Callable[[SocketWire], None] | None = None

    def open(self, port: int, provenance: Provenance, check: Callable[[SocketWire], None] | None) -> int:
        self.check = check
        port = port or 40_000 + len(self.opened)
        self.opened.append((port, provenance))
        return port

    def close(self) -> None:
        self.closed += 1


@attrs.define(eq=False)
class Watched:
    """An exposure under test, and a way to wait for its states."""

    exposure: Exposure
    door: ScriptedDoor
    seen: list[str] = attrs.field(factory=list)
    moved: trio.Event = attrs.field(factory=trio.Event)

    def changed(self) -> None:
        self.seen.append(self.exposure.condition.state)
        self.moved.set()
        self.moved = trio.Event()

    async def reach(self, state: str, *, seconds: float = 10.0) -> None:
        """Wait until the exposure is in ``state``."""
        with trio.move_on_after(seconds):
            while self.exposure.condition.state != state:
                await self.moved.wait()
        condition = self.exposure.condition
        assert condition.state == state, f"{condition.state}: {condition.reason} (seen: {self.seen})"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that a person would wait for come at once, so that tests of what follows need not."""
    from openclaw_gateway.tailscale import conditions

    for name in list(conditions.WAITS):
        if name != "serving":
            monkeypatch.setitem(conditions.WAITS, name, (0.05, 0.1))
    monkeypatch.setattr(cli, "RECONCILE_SECONDS", 0.2)
    monkeypatch.setitem(conditions.WAITS, "serving", (0.2, 0.2))
    monkeypatch.setattr(cli, "START_SECONDS", 8.0)


@asynccontextmanager
async def open_exposure(
    daemon_path: Path, folder: Path, *, backend: str = "socket", **more: object
) -> AsyncIterator[Watched]:
    """An exposure that runs while the block lasts."""
    command = str(write_command(folder, daemon_path)) if backend == "command" else None
    wanted = Wanted(**{"mode": "serve", "socket": daemon_path, "command": command, "gateway_port": 18789, **more})  # type: ignore[arg-type]
    door = ScriptedDoor()
    exposure = Exposure(wanted, door)
    watched = Watched(exposure, door)
    exposure._changed = watched.changed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exposure.serve)
        yield watched
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_daemon(folder: Path) -> AsyncIterator[FakeTailscaled]:
    async with open_fake_tailscaled(folder / "tailscaled.sock", tls=False) as daemon:
        yield daemon


def claims(daemon: FakeTailscaled) -> list[object]:
    return list(daemon.model.config.get("Foreground", {}).values())
