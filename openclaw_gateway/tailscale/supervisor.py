"""Keeping the gateway reachable over the tailnet as the configuration says, whatever tailscaled does (TS-1, TS-2).

Owns the loop over named states, the waits between tries, the listener that serve is pointed at, and what everybody else
may know: state, URL, name, own addresses. It must not know how a daemon is spoken to (`localapi`, `cli`) nor what the
gateway is: listeners are opened and closed by functions it is given.

Invariants: nothing that goes wrong here reaches readiness, exit status or another task; every change of state is
logged once, with its reason and the one thing to do (TS-4); a foreground claim goes with the loop; a background route
goes when the configuration no longer wants it, and stays when the process ends; only tailscaled's own user gets
through the listener, where the kernel can tell (V36).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.statedir import StateDirUnsafe, read_private_file, write_private_file
from openclaw_gateway.policy.network import Provenance
from openclaw_gateway.policy.tailnet import TailnetClaim, TailnetPerson
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.server.wire import SocketWire
from openclaw_gateway.tailscale import conditions
from openclaw_gateway.tailscale.conditions import Condition
from openclaw_gateway.tailscale.identity import Identities
from openclaw_gateway.tailscale.localapi import DEFAULT_SOCKET, DaemonUnreachable, LocalApi
from openclaw_gateway.tailscale.plan import Route
from openclaw_gateway.tailscale.protocol import NodeStatus, TailscaleUnreadable
from openclaw_gateway.tailscale.socketowner import connection_uid
from openclaw_gateway.value import Value

__all__ = ["Door", "Exposure", "Wanted"]

HEALTHY_SECONDS: Final = 60.0
RELEASE_SECONDS: Final = 3.0
PORT_FILE: Final = "tailscale-port"

log = get_logger("tailscale")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Wanted(Value):
    """What the configuration asks for. ``gateway_port``: of the main listener, whose old routes are ours too."""

    mode: Literal["off", "serve", "funnel"] = "off"
    background: bool = False  # resetOnExit false
    port: int = 443
    socket: Path | None = None
    command: str | None = None
    gateway_port: int = 0
    state_dir: Path | None = None


class Backend(Protocol):
    """A way to the daemon: `localapi.LocalApi` or `cli.CommandLine`."""

    daemon_uid: int | None

    @property
    def name(self) -> str: ...
    async def whois(self, address: str) -> TailnetPerson | None: ...
    async def keep(
        self,
        route: Callable[[NodeStatus], Route],
        *,
        background: bool,
        tell: Callable[[Condition], None],
        node: Callable[[NodeStatus], None],
    ) -> Condition: ...
    async def release(self, route: Route) -> None: ...


class Door(Protocol):
    """The listener that serve is pointed at."""

    def open(self, port: int, provenance: Provenance, check: Callable[[SocketWire], None] | None) -> int:
        """Listen on 127.0.0.1 (0: any port) and return the port; ``check`` raises `ValueError` for whom not to serve.
        Raises a `GatewayError`."""
        ...

    def close(self) -> None: ...


class Exposure:
    """The exposure of one gateway. ``changed`` is called whenever `condition` or `node` is another one."""

    def __init__(self, wanted: Wanted, door: Door, changed: Callable[[], None] = lambda: None) -> None:
        self.wanted = wanted
        self.condition = conditions.off if wanted.mode == "off" else _starting()
        self.since = time.time()
        self.node: NodeStatus | None = None
        self._door = door
        self._changed = changed
        self._scope = trio.CancelScope()
        self._stopping = False
        self._backend: Backend | None = None
        self.identities = Identities(self._whois, lambda: self.node)

    # --- what others may know

    @property
    def dns_name(self) -> str | None:
        """This machine's name in its tailnet, while it is there."""
        return self.node.dns_name or None if self.node is not None and self.node.running else None

    @property
    def own_addresses(self) -> frozenset[str]:
        """This machine's tailnet addresses (S099)."""
        return frozenset(self.node.addresses) if self.node is not None and self.node.running else frozenset()

    @property
    def url(self) -> str | None:
        """``https://`` address under which the gateway is served right now."""
        return self.condition.url if self.condition.state == "serving" else None

    def view(self) -> dict[str, Any]:
        """The ``tailscale`` member of `status`."""
        condition = self.condition
        return {
            "mode": self.wanted.mode,
            "state": condition.state,
            "reason": condition.reason or None,
            "fix": condition.fix,
            "url": condition.url,
            "dnsName": self.dns_name,
            "addresses": sorted(self.own_addresses),
            "backend": self._backend.name if self._backend is not None else None,
            "identity": self.identities.provable,
            "sinceMs": round(self.since * 1000),
        }

    async def vouch(self, claim: TailnetClaim, identity_scopes: Mapping[str, tuple[str, ...]]) -> Vouched:
        """See `Identities.vouch`."""
        return await self.identities.vouch(claim, identity_scopes)

    async def _whois(self, address: str) -> TailnetPerson | None:
        if self._backend is None:
            raise DaemonUnreachable("not connected")
        return await self._backend.whois(address)

    # --- changing

    def configure(self, wanted: Wanted) -> None:
        """Want something else from now on. Synchronous; the loop takes it over."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._scope.cancel()

    def crashed(self, trouble: str | None) -> None:
        """For `ops.supervision`: trouble in here is a state of its own, never the gateway's readiness (TS-1)."""
        if trouble is not None:
            self._tell(Condition(state="failed", reason=trouble, fix="openclaw logs"))

    def _tell(self, condition: Condition) -> None:
        before, self.condition = self.condition, condition
        if before == condition:
            return
        if before.state != condition.state:
            self.since = time.time()
        say = log.info if condition.state in {"serving", "off", "waiting"} else log.warning
        say(
            "tailscale",
            mode=self.wanted.mode,
            from_state=before.state,
            state=condition.state,
            reason=condition.reason or None,
            url=condition.url,
            fix=condition.fix,
            source=self._backend.name if self._backend is not None else None,
        )
        self._changed()

    def _meet(self, node: NodeStatus) -> None:
        if node != self.node:
            self.node = node
            self.identities.forget()
            self._changed()

    # --- the loop

    def stop(self) -> None:
        """The gateway ends: let go of a foreground claim, leave a background route. Synchronous; `serve` returns."""
        self._stopping = True
        self._scope.cancel()

    async def serve(self) -> None:
        """Follow the configuration until `stop`. Cancelling lets go of a foreground claim too."""
        try:
            while not self._stopping:
                wanted = self.wanted
                self._scope = trio.CancelScope()
                with self._scope:
                    if wanted.mode == "off":
                        self._tell(conditions.off)
                        await trio.sleep_forever()
                    await self._expose(wanted)
                if not self._stopping:
                    await self._withdraw(wanted)
        finally:
            self._close_door()

    async def _withdraw(self, before: Wanted) -> None:
        """The configuration changed: a background route that nobody wants any more is taken out."""
        self._close_door()
        now = self.wanted
        kept = now.mode != "off" and now.background and now.port == before.port
        if before.background and before.mode != "off" and not kept and self.node is not None and self._backend:
            route = _route(before, _recorded_port(before.state_dir) or 0, self.node)
            with trio.move_on_after(RELEASE_SECONDS), contextlib.suppress(DaemonUnreachable, TailscaleUnreadable):
                await self._backend.release(route)
        self._backend, self.node = None, None
        self.identities.forget()
        self._changed()

    def _close_door(self) -> None:
        self._door.close()
        self.identities.provable = False

    async def _expose(self, wanted: Wanted) -> None:
        tries, last = 0, ""
        port = 0
        while True:
            began = trio.current_time()
            try:
                backend = self._backend = await _backend(wanted)
                if not port:
                    port = self._open_door(wanted, backend)
                condition = await backend.keep(
                    partial(_route, wanted, port),
                    background=wanted.background,
                    tell=self._tell,
                    node=self._meet,
                )
            except DaemonUnreachable as exc:
                condition = conditions.missing(exc.reason) if exc.absent else conditions.unreachable(exc.reason)
                self.node = None
            except (TailscaleUnreadable, GatewayError, OSError) as exc:
                condition = conditions.failed(str(exc))
            if condition.state == "serving":
                self._tell(condition)
                continue  # the command line's background route: a look every 30 s
            self._tell(condition)
            same = condition.state == last and trio.current_time() - began < HEALTHY_SECONDS
            tries, last = (tries + 1 if same else 0), condition.state
            first, longest = conditions.WAITS[condition.state]
            wait = min(first * 2 ** min(tries, 10), longest)
            await trio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - jitter is no secret

    def _open_door(self, wanted: Wanted, backend: Backend) -> int:
        """The dedicated listener; in the background on the port of last time, so that the route that stayed fits."""
        provenance: Provenance = "tailscale-funnel" if wanted.mode == "funnel" else "tailscale-serve"
        self.identities.provable = False

        def check(wire: SocketWire) -> None:
            uid = connection_uid(wire.peer, wire.socket.getsockname()[:2])
            if uid is None or self._backend is None or uid != self._backend.daemon_uid:
                log.warning("refused: only tailscaled may use its listener", peer=wire.peer[0])
                raise ValueError("not tailscaled")

        provable = backend.daemon_uid is not None and _kernel_tells()
        recorded = _recorded_port(wanted.state_dir) if wanted.background else None
        guard = check if provable else None
        port = 0
        if recorded:
            with contextlib.suppress(GatewayError):
                port = self._door.open(recorded, provenance, guard)
        port = port or self._door.open(0, provenance, guard)
        if wanted.background and wanted.state_dir is not None and port != recorded:
            write_private_file(wanted.state_dir / PORT_FILE, f"{port}\n".encode())
        self.identities.provable = provable
        return port


def _starting() -> Condition:
    return Condition(state="waiting", reason="looking for tailscaled", fix=conditions.STATUS)


def _route(wanted: Wanted, port: int, node: NodeStatus) -> Route:
    ports = {port, wanted.gateway_port, _recorded_port(wanted.state_dir) or port} - {0}
    own = {f"http://{host}:{number}" for host in ("127.0.0.1", "localhost") for number in ports}
    return Route(
        host=node.dns_name,
        port=wanted.port,
        target=f"http://127.0.0.1:{port}",
        funnel=wanted.mode == "funnel",
        own=frozenset(own),
    )


def _recorded_port(state_dir: Path | None) -> int | None:
    """The port that a background route of ours was last pointed at."""
    if state_dir is None:
        return None
    try:
        text = read_private_file(state_dir / PORT_FILE, limit=16).decode("ascii").strip()
    except (OSError, StateDirUnsafe, ValueError):
        return None
    return int(text) if text.isdecimal() and 0 < int(text) < 65536 else None


def _kernel_tells() -> bool:
    """Whether the kernel says here who opened a loopback connection."""
    with contextlib.suppress(OSError), socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        return connection_uid(client.getsockname(), listener.getsockname()) == os.geteuid()
    return False


async def _backend(wanted: Wanted) -> Backend:
    """The socket first; the command line where it was asked for, or where there is no socket and a command is."""
    path = wanted.socket if wanted.socket is not None else DEFAULT_SOCKET
    api = LocalApi(path)
    absent: DaemonUnreachable | None = None
    try:
        await api.meet()
    except DaemonUnreachable as exc:
        absent = exc
    command = wanted.command
    if command is None and absent is not None and wanted.socket is None and not sys.platform.startswith("linux"):
        command = shutil.which("tailscale")
    if command is not None:
        from openclaw_gateway.tailscale.cli import CommandLine

        argv = (command, f"--socket={wanted.socket}") if wanted.socket is not None else (command,)
        return CommandLine(argv, daemon_uid=api.daemon_uid)
    if absent is not None:
        raise absent
    return api
