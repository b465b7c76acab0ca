"""The method table: name, scope, parameter type, limits, handler.

Owns what methods exist and who may call them. It must not know connections, dialects or how a call runs
(`rpc.dispatch`). Default-deny: a method without a scope cannot be registered; a role sees only the methods that were
registered for it. Registration is open while the gateway runs: the views that connections hold are live.

Parameter types are attrs classes (camelCase on the wire, snake_case in Python); unknown members are refused the way
OpenClaw's gateway refuses them, with the path of the fault.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import attrs
import msgspec
import trio

from openclaw_gateway.errors import GatewayError, LocalProtocolError
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, satisfies
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.value import Value

__all__ = ["CallContext", "CallError", "MethodSpec", "MethodTable", "NoParams", "camel"]

ANY_OPERATOR: Final = "any"  # needs an admitted operator, no scope (health: probes hold none)
_MAX_METHODS: Final = 4096
_SCHEMA_WORDS: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}

Handler = Callable[["CallContext", Any], Any]
H = TypeVar("H", bound=Handler)


@attrs.define(eq=False, repr=False)
class CallError(GatewayError):
    """Raised by a handler to answer with an error on purpose.

    ``repeatable``: the same idempotency key may come again and gets another run (a retryable error's may anyway).
    """

    error: WireError
    repeatable: bool = False

    def __str__(self) -> str:
        return f"{self.error.code}: {self.error.message}"


class CallContext(Protocol):
    """Who calls. Served by a WebSocket session, an HTTP request or a test."""

    @property
    def conn_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def principal(self) -> str:
        """A stable name for whoever authenticated: what idempotency keys and audit rows belong to. Never a secret."""
        ...

    @property
    def client_id(self) -> str: ...
    @property
    def auth_method(self) -> str:
        """How the caller authenticated: token, password, device-token, none, ..."""
        ...

    @property
    def device_id(self) -> str | None: ...
    @property
    def client_address(self) -> str: ...


@attrs.frozen(eq=False, repr=False)
class NoParams(Value):
    """The parameter type of a method that takes none."""


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class ParamsReader:
    """Decodes raw JSON params into one attrs class. ``lenient``: unknown members are left out instead of refused, for
    methods whose official callers send what no published schema has."""

    __slots__ = ("_empty", "_lenient", "_names", "type")

    def __init__(self, type_: type[Any], *, lenient: bool = False) -> None:
        if not attrs.has(type_):
            raise LocalProtocolError(f"params type {type_!r} is not an attrs class")
        self.type = type_
        self._lenient = lenient
        self._names = {camel(field.name): field.name for field in attrs.fields(type_)}
        self._empty: Any = None
        if not any(field.default is attrs.NOTHING for field in attrs.fields(type_)):
            self._empty = type_()

    def read(self, method: str, raw: msgspec.Raw) -> Any:
        """An instance of the type. Raises `CallError` (invalid-params) with the path of the first fault."""
        if (not raw or bytes(raw) in {b"{}", b"null"}) and self._empty is not None:
            return self._empty
        try:
            value = decode_whole(msgspec.json.decode, raw) if raw else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        return self.convert(method, value)

    def convert(self, method: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise CallError(wire_error("invalid-params", method=method, fault="at root: must be object"))
        named: dict[str, Any] = {}
        for key, item in value.items():
            name = self._names.get(key)
            if name is None and self._lenient:
                continue
            if name is None:
                fault = f"at root: unexpected property '{key[:80]}'"
                raise CallError(wire_error("invalid-params", method=method, fault=fault))
            named[name] = item
        try:
            return msgspec.convert(named, self.type)
        except (msgspec.ValidationError, ValueError, TypeError) as exc:
            raise CallError(wire_error("invalid-params", method=method, fault=_fault(str(exc)))) from exc


class AnyParams:
    """Takes whatever comes, unread."""

    def read(self, method: str, raw: msgspec.Raw) -> Any:
        return None

    def convert(self, method: str, value: Any) -> Any:
        return None


def _fault(text: str) -> str:
    """msgspec's ``Expected `int`, got `str` - at `$.limit` `` in the words clients know: ``at /limit: must be
    integer``.
    """
    text = text.splitlines()[0][:300]
    message, _, where = text.partition(" - at `$")
    if message.startswith("Object missing required field `"):
        name = camel(message.split("`")[1])
        return f"at root: must have required property '{name}'"
    if message.startswith("Expected `"):
        kinds = message.split("`")[1].split(" | ")
        message = "must be " + " or ".join(_SCHEMA_WORDS.get(kind, kind) for kind in kinds)
    path = "/".join(camel(part) for part in where.rstrip("`").replace("[", ".").replace("]", "").split(".") if part)
    return f"at /{path}: {message}" if path else f"at root: {message}"


@attrs.frozen(eq=False, repr=False)
class MethodSpec(Value):
    """One method. ``deadline`` in seconds; ``limiter`` bounds the calls at once, ``queue`` more may wait; None = no own
    limit.

    A ``placeholder`` gives way to whoever registers the method: nobody carries it out yet, or only by default.
    """

    name: str
    scope: str
    roles: frozenset[str]
    handler: Handler
    params: ParamsReader | AnyParams
    inline: bool
    deadline: float
    limiter: trio.CapacityLimiter | None = None
    queue: int = 0
    idempotent: bool = False
    advertised: bool = True
    placeholder: bool = False

    def allows(self, role: str, scopes: frozenset[str]) -> bool:
        if role not in self.roles:
            return False
        if role == "node" or self.scope == ANY_OPERATOR:
            return True
        return satisfies(scopes, self.scope)


class MethodTable:
    """All methods of one gateway, by name."""

    def __init__(self) -> None:
        self._specs: dict[str, MethodSpec] = {}
        self._views: dict[tuple[str, frozenset[str]], dict[str, MethodSpec]] = {}
        self.revision = 0  # grows with every change

    def method(
        self,
        name: str,
        *,
        scope: str | None = None,
        role: str = "operator",
        also_nodes: bool = False,
        params: type[Any] = NoParams,
        deadline: float = 30.0,
        concurrency: int | None = None,
        queue: int = 0,
        idempotent: bool = False,
        advertised: bool = True,
        replace: bool = False,
        lenient: bool = False,
        default: bool = False,
    ) -> Callable[[H], H]:
        """Register a handler: ``table.method("x.y", scope="operator.read")(handler)``; also usable as a decorator.

        A ``def`` handler runs inline and must not block; an ``async def`` handler runs in the connection's nursery
        under ``deadline`` seconds and the concurrency limits, and is cancelled when the connection ends. With
        ``idempotent`` the params may carry ``idempotencyKey``: the same key within five minutes gets the same answer
        without a second run. ``lenient`` params may hold members that nobody knows. A ``default`` handler gives way to
        whoever registers the method after it.
        """
        if role == "operator" and scope != ANY_OPERATOR and scope not in KNOWN_OPERATOR_SCOPES:
            raise LocalProtocolError(f"method {name!r} needs a known operator scope, not {scope!r}")
        if role not in {"operator", "node"}:
            raise LocalProtocolError(f"method {name!r} needs the role operator or node, not {role!r}")

        def register(handler: H) -> H:
            known = self._specs.get(name)
            if known is not None and not known.placeholder and not replace:
                raise LocalProtocolError(f"method {name!r} is registered already; pass replace=True to take it over")
            if known is None and len(self._specs) >= _MAX_METHODS:
                raise LocalProtocolError(f"more than {_MAX_METHODS} methods")
            self._add(
                MethodSpec(
                    name=name,
                    scope=scope or "",
                    roles=frozenset({role, "node"} if also_nodes else {role}),
                    handler=handler,
                    params=ParamsReader(params, lenient=lenient),
                    # An idempotent call may have to wait for its twin, so it always gets a task.
                    inline=not inspect.iscoroutinefunction(handler) and not idempotent,
                    deadline=deadline,
                    limiter=trio.CapacityLimiter(concurrency) if concurrency is not None else None,
                    queue=queue,
                    idempotent=idempotent,
                    advertised=advertised,
                    placeholder=default,
                )
            )
            return handler

        return register

    def declare(self, name: str, *, scope: str) -> None:
        """Make a method part of this gateway although nobody carries it out yet: callers learn how to register a
        handler.
        """

        def unserved(context: CallContext, params: Any) -> Any:
            raise CallError(wire_error("no-handler", method=name))

        self._add(MethodSpec(name, scope, frozenset({"operator"}), unserved, AnyParams(), True, 30.0, placeholder=True))

    def remove(self, name: str) -> None:
        self._specs.pop(name, None)
        self.revision += 1
        for view in self._views.values():
            view.pop(name, None)

    def _add(self, spec: MethodSpec) -> None:
        self._specs[spec.name] = spec
        self.revision += 1
        for (role, scopes), view in self._views.items():
            view.pop(spec.name, None)
            if spec.allows(role, scopes):
                view[spec.name] = spec

    def get(self, name: str) -> MethodSpec | None:
        return self._specs.get(name)

    def view(self, role: str, scopes: frozenset[str]) -> Mapping[str, MethodSpec]:
        """The methods that a connection with this grant may call: the hot path looks nowhere else.

        The mapping is live: later registrations appear in it. There are at most as many as sets of known scopes.
        """
        key = (role, scopes & KNOWN_OPERATOR_SCOPES)
        view = self._views.get(key)
        if view is None:
            view = {name: spec for name, spec in self._specs.items() if spec.allows(role, scopes)}
            self._views[key] = view
        return view

    def refusal(self, name: str, role: str, scopes: frozenset[str]) -> WireError:
        """Why ``name`` is not in that view, in the words of spec wire.md section 5: who holds no admin learns nothing
        of what exists.
        """
        spec = self._specs.get(name)
        if spec is not None and role not in spec.roles:
            return wire_error("unauthorized-role", role=role)
        if spec is None:
            if role == "node":
                return wire_error("unauthorized-role", role=role)
            if satisfies(scopes, "operator.admin"):
                return wire_error("unknown-method", method=name[:80])
        needed = spec.scope if spec is not None else "operator.admin"
        return wire_error("missing-scope", scope=needed, details={"missingScope": needed, "requiredScopes": [needed]})

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self._specs.values() if spec.advertised]
