"""What to change in a serve configuration so that our route is in it, and nothing of anybody else's is touched (TS-3).

Pure: the configuration as it is, the route as it is wanted, in; the configuration to write, or who is in the way, out.
Daemons before 1.92 do not look after port conflicts, so this does, for all of them.

Invariants: a plan changes our own session's claim, or our own mount on our own port, and copies everything else as it
came, members we do not know included; a handler is ours only where its target is one of ours; with ``funnel`` off no
plan leaves our route open to the internet.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.value import Value

__all__ = ["Conflict", "InPlace", "Route", "Write", "plan_background", "plan_claim", "plan_release", "session_of"]

MOUNT: Final = "/"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Route(Value):
    """What is wanted: ``https://host[:port]/`` proxied to ``target``. ``own``: targets that were ours before."""

    host: str
    port: int
    target: str
    funnel: bool = False
    own: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}/" if self.port == 443 else f"https://{self.host}:{self.port}/"

    def claim(self) -> dict[str, Any]:
        """The configuration that is nothing but this route."""
        found: dict[str, Any] = {
            "TCP": {str(self.port): {"HTTPS": True}},
            "Web": {self.place: {"Handlers": {MOUNT: {"Proxy": self.target}}}},
        }
        if self.funnel:
            found["AllowFunnel"] = {self.place: True}
        return found

    def is_ours(self, handler: Any) -> bool:
        target = handler.get("Proxy") if isinstance(handler, dict) else None
        return isinstance(target, str) and target in {self.target, *self.own}


@attrs.frozen(eq=False, repr=False)
class InPlace(Value):
    """Nothing to do."""


@attrs.frozen(eq=False, repr=False)
class Write(Value):
    """Write ``config``; ``again``: then plan anew, because this was only the first of two steps."""

    config: Mapping[str, Any]
    again: bool = False


@attrs.frozen(eq=False, repr=False)
class Conflict(Value):
    """Somebody else has the port. ``what``: in words."""

    what: str


def _part(value: Any, name: str) -> dict[str, Any]:
    """A member that is an object; {} for what is not there or is not one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _sessions(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("Foreground")
    return found if isinstance(found, dict) else {}


def _others(config: Mapping[str, Any], session: str | None) -> Iterator[Any]:
    return (part for sid, part in _sessions(config).items() if sid != session)


def _opened_by_others(config: Mapping[str, Any], route: Route, session: str | None) -> bool:
    """Whether a switch that is not ours opens our host and port to the internet."""
    parts = (config, *_others(config, session))
    return not route.funnel and any(_part(part, "AllowFunnel").get(route.place) for part in parts)


def _funnel_conflict(route: Route) -> Conflict:
    return Conflict(f"a funnel opens port {route.port} to the internet, and gateway.tailscale.mode is serve")


def session_of(config: Mapping[str, Any], route: Route) -> str | None:
    """The session that claims exactly this route: the command line's, which does not tell its id."""
    return next((sid for sid, part in _sessions(config).items() if part == route.claim()), None)


def plan_claim(config: Mapping[str, Any], route: Route, session: str | None) -> InPlace | Write | Conflict:
    """A foreground claim for ``session``; None: one that the command line will open (then `Write` that is not
    ``again`` means: go on)."""
    port = str(route.port)
    if any(port in _part(part, "TCP") for part in _others(config, session)):
        return Conflict(f"another program's claim has port {route.port}")
    if port in _part(config, "TCP"):
        return _clear_own(config, route)
    if _opened_by_others(config, route, session):
        return _funnel_conflict(route)
    if session is not None and _sessions(config).get(session) == route.claim():
        return InPlace()
    changed = copy.deepcopy(dict(config))
    if session is not None:
        changed["Foreground"] = {**_sessions(changed), session: route.claim()}
    return Write(changed)


def _clear_own(config: Mapping[str, Any], route: Route) -> Write | Conflict:
    """A background route on the port a claim needs: it goes where it is ours alone."""
    handlers = _part(_part(config.get("Web"), route.place), "Handlers")
    ours = MOUNT in handlers and route.is_ours(handlers[MOUNT])
    if not ours or len(handlers) > 1 or _shared_port(config, route):
        return Conflict(f"port {route.port} serves {_told(config, route)}")
    return Write(_without(config, route), again=True)


def _shared_port(config: Mapping[str, Any], route: Route) -> bool:
    """Whether the port also serves other names."""
    return any(place.endswith(f":{route.port}") and place != route.place for place in _part(config, "Web"))


def _told(config: Mapping[str, Any], route: Route) -> str:
    kind = _part(_part(config, "TCP"), str(route.port))
    if not kind.get("HTTPS"):
        return "HTTP" if kind.get("HTTP") else f"TCP for {kind.get('TCPForward') or 'another program'}"
    handlers = _part(_part(config.get("Web"), route.place), "Handlers")
    for mount in handlers:
        return f"{mount} -> {next(iter(_part(handlers, mount).values()), 'a program')}"
    return "another program"


def plan_background(config: Mapping[str, Any], route: Route) -> InPlace | Write | Conflict:
    """The route in the configuration that stays."""
    port = str(route.port)
    if any(port in _part(part, "TCP") for part in _others(config, None)):
        return Conflict(f"another program's claim has port {route.port}")
    kind = _part(_part(config, "TCP"), port)
    handlers = _part(_part(config.get("Web"), route.place), "Handlers")
    if (kind and not kind.get("HTTPS")) or (MOUNT in handlers and not route.is_ours(handlers[MOUNT])):
        return Conflict(f"port {route.port} serves {_told(config, route)}")
    opened = bool(_part(config, "AllowFunnel").get(route.place))
    alone = set(handlers) <= {MOUNT}
    if opened != route.funnel and not (alone and (route.funnel or MOUNT in handlers)):
        others = f"port {route.port} serves other paths too; they would go to the internet with ours"
        return Conflict(others) if route.funnel else _funnel_conflict(route)
    if kind and opened == route.funnel and handlers.get(MOUNT) == {"Proxy": route.target}:
        return InPlace()
    changed = _without(config, route) if opened and not route.funnel else copy.deepcopy(dict(config))
    claim = route.claim()
    changed["TCP"] = {**_part(changed, "TCP"), **claim["TCP"]}
    web = {**_part(changed, "Web")}
    web[route.place] = {"Handlers": {**_part(_part(web, route.place), "Handlers"), MOUNT: {"Proxy": route.target}}}
    changed["Web"] = web
    if route.funnel:
        changed["AllowFunnel"] = {**_part(changed, "AllowFunnel"), route.place: True}
    return Write(changed)


def plan_release(config: Mapping[str, Any], route: Route) -> InPlace | Write:
    """The configuration without our background route."""
    handlers = _part(_part(config.get("Web"), route.place), "Handlers")
    if MOUNT not in handlers or not route.is_ours(handlers[MOUNT]):
        return InPlace()
    return Write(_without(config, route))


def _without(config: Mapping[str, Any], route: Route) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    handlers = _part(_part(changed.get("Web"), route.place), "Handlers")
    handlers.pop(MOUNT, None)
    if not handlers:
        _part(changed, "Web").pop(route.place, None)
        _part(changed, "AllowFunnel").pop(route.place, None)
        if not _shared_port(changed, route):
            _part(changed, "TCP").pop(str(route.port), None)
    for name in ("TCP", "Web", "AllowFunnel"):
        if name in changed and not changed[name]:
            del changed[name]
    return changed
