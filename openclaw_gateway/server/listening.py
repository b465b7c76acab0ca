"""The listeners of a gateway: opened, closed and replaced by name while it runs.

Owns listening sockets, the network rules in front of them, and what each connection carries away from its listener (its
`Arrival`: name, provenance, ceiling). It must not know HTTP, TLS or who opens listeners for what: TLS is an object with
`wrap`, a PROXY header is a function, and both come with the plan.

Invariants: a peer that the network rules refuse is closed before a byte of it is read, costs one audit row (repeats are
counted) and nothing that stays; a replacement whose sockets cannot be opened changes nothing; facts that need no other
socket (rules, ceiling, certificate) take effect at once: no connection is closed that would come in like that again,
and every one is that would not; a listener that goes takes its connections along, those that are still HTTP too; at
most `MAX_LISTENERS`.
Everything is synchronous: no checkpoint lies between a check and what follows from it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Protocol

import attrs
import trio

from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.addresses import canonical_text
from openclaw_gateway.policy.network import NO_CEILING, OPEN, Arrival, Ceiling, ListenerAuth, NetworkRules, Provenance
from openclaw_gateway.server.addresses import BindFailed, open_listening_sockets
from openclaw_gateway.server.listener import prepare, serve_accepts
from openclaw_gateway.server.wire import SocketWire, Wire
from openclaw_gateway.value import Value

__all__ = ["MAIN", "MAX_LISTENERS", "Listener", "ListenerPlan", "Listening", "Preface", "TlsLayer"]

MAIN: Final = "main"
MAX_LISTENERS: Final = 16
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER 0: a refused peer leaves no TIME_WAIT behind

Preface = Callable[[SocketWire], Awaitable[tuple[str, int]]]

log = get_logger("listener")


class TlsLayer(Protocol):
    """What `server.tls` gives a listener."""

    @property
    def fingerprint(self) -> str: ...
    def wrap(self, wire: SocketWire) -> Wire:
        """The encrypted side of a fresh connection; its handshake is done by `Wire.open`."""
        ...


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ListenerPlan(Value):
    """What a listener is to be. ``port`` 0: one free port for all hosts."""

    name: str
    hosts: tuple[str, ...]
    port: int
    provenance: Provenance = "direct"
    network: NetworkRules = OPEN
    ceiling: Ceiling = NO_CEILING
    auth: ListenerAuth | None = None
    tls: TlsLayer | None = None
    preface: Preface | None = None  # reads a PROXY header off the raw socket and returns whom it names


class _AnnouncedWire(SocketWire):
    """A connection whose first bytes say whom it is for (PROXY protocol)."""

    __slots__ = ("through",)

    opens = True
    through: Listener

    async def announce(self) -> None:
        preface = self.through.plan.preface
        if preface is None:  # switched off between accept and here
            return
        try:
            client = await preface(self)
        except ValueError as exc:
            raise trio.BrokenResourceError(f"PROXY header: {exc}") from exc
        self.arrival = attrs.evolve(self.arrival, proxy=self.peer[0])
        self.peer = client
        reason = self.through.refuses(client[0])
        if reason is not None:
            raise trio.BrokenResourceError(reason)


class Listener:
    """One open listener. ``accepted`` and ``denied`` count connections."""

    arrival: Arrival

    def __init__(
        self, plan: ListenerPlan, sockets: list[socket.socket], refused: Callable[[str, str, str], None]
    ) -> None:
        self.sockets = sockets
        self.addresses: list[tuple[str, int]] = [sock.getsockname()[:2] for sock in sockets]
        self.accepted = self.denied = 0
        self._refused = refused
        self.use(plan)

    def use(self, plan: ListenerPlan) -> None:
        """Go by ``plan`` from the next connection on. `arrival` stays the same object while connections come in as
        before.
        """
        before: ListenerPlan | None = getattr(self, "plan", None)
        self.plan = plan
        if before is not None and not _otherwise(before, plan) and before.network == plan.network:
            if before.auth != plan.auth:
                self.arrival = attrs.evolve(self.arrival, auth=plan.auth)
            return
        self.arrival = Arrival(
            listener=plan.name,
            provenance=plan.provenance,
            ceiling=plan.ceiling,
            auth=plan.auth,
            encrypted=plan.tls is not None,
        )

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def urls(self) -> list[str]:
        scheme = "ws" if self.plan.tls is None else "wss"
        return [
            f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            for host, port in self.addresses
        ]

    @property
    def shown(self) -> list[str]:
        """What it is bound to, for the log: ``0.0.0.0:18789`` is no address that anybody could dial."""
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses]

    @property
    def port(self) -> int:
        return self.addresses[0][1]

    def take(self, sock: socket.socket, address: tuple[str, int]) -> Wire | None:
        """The wire of an accepted socket; None where the network rules or the kernel refused it (it is closed then)."""
        plan = self.plan
        if not plan.network.open and self.refuses(address[0]) is not None:
            _reset(sock)
            return None
        wire = prepare(sock, address, SocketWire if plan.preface is None else _AnnouncedWire)
        if wire is None:
            return None
        if isinstance(wire, _AnnouncedWire):
            wire.through = self
        self.accepted += 1
        wire.arrival = self.arrival
        return wire if plan.tls is None else plan.tls.wrap(wire)

    def refuses(self, address: str) -> str | None:
        """Why the network rules keep ``address`` out, counted and recorded; None where they do not."""
        reason = self.plan.network.refusal(address)
        if reason is not None:
            self.denied += 1
            self._refused(self.plan.name, address, reason)
        return reason

    def close(self) -> None:
        for sock in self.sockets:
            if sock.fileno() != -1:
                trio.lowlevel.notify_closing(sock)
                sock.close()

    def to_wire(self) -> dict[str, Any]:
        """One entry of ``gateway.listeners``."""
        plan = self.plan
        ceiling = plan.ceiling
        return {
            "name": plan.name,
            "addresses": [{"host": host, "port": port} for host, port in self.addresses],
            "provenance": plan.provenance,
            "tls": plan.tls is not None,
            "tlsFingerprint": plan.tls.fingerprint if plan.tls is not None else None,
            "allow": list(plan.network.allow.entries),
            "deny": list(plan.network.deny.entries),
            "methods": list(ceiling.methods) if ceiling.methods is not None else None,
            "scopes": sorted(ceiling.scopes) if ceiling.scopes is not None else None,
            "auth": plan.auth,
            "proxyProtocol": plan.preface is not None,
            "accepted": self.accepted,
            "denied": self.denied,
        }


class Listening:
    """All listeners of one gateway, by name."""

    def __init__(
        self,
        serve: Callable[[Wire], Awaitable[None]],
        *,
        audit: AuditTrail,
        end: Callable[[Callable[[Wire], bool], str], None] = lambda ends, reason: None,
    ) -> None:
        """``end``: closes, with a reason, the connections that a predicate picks."""
        self._serve = serve
        self._audit = audit
        self._end = end
        self._listeners: dict[str, Listener] = {}
        self._connections: trio.Nursery | None = None

    def attach(self, connections: trio.Nursery | None) -> None:
        """The nursery in which accept loops and connections run; None: nothing is opened any more."""
        self._connections = connections

    @property
    def port(self) -> int:
        """The TCP port of the main listener; 0 where nothing is listened on."""
        main = self.get(MAIN)
        return main.port if main is not None else 0

    @property
    def serving(self) -> bool:
        """Whether listeners can be opened."""
        return self._connections is not None

    def __iter__(self) -> Iterator[Listener]:
        return iter(tuple(self._listeners.values()))

    def __len__(self) -> int:
        return len(self._listeners)

    def get(self, name: str) -> Listener | None:
        return self._listeners.get(name)

    def open(self, plan: ListenerPlan) -> Listener:
        """Listen. Raises `BindFailed`; `LocalProtocolError` where the name is taken or nobody serves yet."""
        if plan.name in self._listeners:
            raise LocalProtocolError(f"a listener named {plan.name!r} is open already")
        if len(self._listeners) >= MAX_LISTENERS:
            raise LocalProtocolError(f"more than {MAX_LISTENERS} listeners")
        return self._start(plan, open_listening_sockets(list(plan.hosts), plan.port))

    def replace(self, plan: ListenerPlan) -> Listener:
        """Go by ``plan`` from now on; opens it where no listener has its name. Raises `BindFailed` with the old
        listener untouched (or open again, where the new one needed its port).
        """
        old = self._listeners.get(plan.name)
        if old is None:
            return self.open(plan)
        before = old.plan
        if _same_place(old, plan):
            old.use(plan)
            self._end_outdated(before, plan)
            return old
        if plan.port and plan.port != old.port:
            fresh = self._start(plan, open_listening_sockets(list(plan.hosts), plan.port))
            old.close()
            self._end_outdated(before, plan)
            return fresh
        hosts, port = [host for host, _ in old.addresses], old.port
        old.close()  # the same port on other addresses: the old sockets would be in the way
        try:
            fresh = self._start(plan, open_listening_sockets(list(plan.hosts), port))
        except BindFailed:
            self._start(old.plan, open_listening_sockets(hosts, port))
            raise
        self._end_outdated(before, plan)
        return fresh

    def close(self, name: str) -> None:
        """Stop accepting; connections that came in live on. Harmless when repeated."""
        listener = self._listeners.pop(name, None)
        if listener is not None:
            listener.close()
            log.info("listener closed", listener=name)

    def cut(self, name: str, reason: str) -> None:
        """Stop accepting and end every connection that came in through this listener."""
        self.close(name)
        self._end(lambda wire: wire.arrival.listener == name, reason)

    def close_all(self) -> None:
        for listener in self:
            listener.close()
        self._listeners.clear()

    def view(self) -> list[dict[str, Any]]:
        return [listener.to_wire() for listener in self]

    def _start(self, plan: ListenerPlan, sockets: list[socket.socket]) -> Listener:
        if self._connections is None:
            for sock in sockets:
                sock.close()
            raise LocalProtocolError("nothing can be listened on: the gateway is not serving")
        listener = self._listeners[plan.name] = Listener(plan, sockets, self._refused)
        for sock in sockets:
            self._connections.start_soon(serve_accepts, sock, self._welcome, self._connections, listener.take)
        return listener

    async def _welcome(self, wire: Wire) -> None:
        """Serve a connection, unless its listener changed after the accept and before this: then nobody saw it."""
        listener = self._listeners.get(wire.arrival.listener)
        if listener is None or listener.arrival is not wire.arrival:
            wire.abort()
            return
        await self._serve(wire)

    def _end_outdated(self, before: ListenerPlan, now: ListenerPlan) -> None:
        """Whoever came in under ``before`` and would not come in like that under ``now`` goes."""
        name, network = now.name, now.network
        if _otherwise(before, now):
            self._end(lambda wire: wire.arrival.listener == name, "listener rules changed")
        elif network != before.network and not network.open:

            def refused(wire: Wire) -> bool:
                addresses = (wire.peer[0], wire.arrival.proxy)
                return wire.arrival.listener == name and any(one and network.refusal(one) for one in addresses)

            self._end(refused, "refused by network policy")

    def _refused(self, name: str, address: str, reason: str) -> None:
        shown = canonical_text(address)
        log.warning("peer refused by network policy", peer=shown, listener=name, reason=reason)
        self._audit.note(
            Action.CONNECT, outcome="refused", actor="unknown", address=shown, code="NETWORK_DENIED", reason=reason
        )


def _same_place(listener: Listener, plan: ListenerPlan) -> bool:
    old = listener.plan
    return old.hosts == plan.hosts and plan.port in {old.port, listener.port}


def _otherwise(before: ListenerPlan, now: ListenerPlan) -> bool:
    """Whether a connection of before came in in a way that it would not come in now. Encryption that is switched off
    takes nothing from those that have it; a renewed certificate is the same layer.
    """
    if (before.ceiling, before.provenance) != (now.ceiling, now.provenance):
        return True
    announced = now.preface is not None and before.preface is None
    return announced or (now.tls is not None and now.tls is not before.tls)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
