"""The methods of the table over plain HTTP: ``POST /rpc``, and the one way to a method that any other route has.

Owns the call of a method by an HTTP request and the answers to JSON-RPC over HTTP. It must not know how a caller was
admitted, nor how a method runs (`rpc.dispatch`). Invariants: the RPC checker decides on every call (V41), within what
the listener lets through; what was answered for a credential that ended meanwhile is dropped (AUTH-5).
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.network import beyond_ceiling
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.server.gatekeeper import Gatekeeper, Grant
from openclaw_gateway.server.routes import HttpReply, HttpRequest, Route, json_reply
from openclaw_gateway.value import Value

__all__ = ["HttpCaller", "HttpMethods"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpCaller(Value):
    """The `CallContext` of an HTTP request."""

    grant: Grant
    peer: Peer
    conn_id: str = "http"

    @property
    def role(self) -> str:
        return self.grant.role

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(self.grant.scopes)

    @property
    def principal(self) -> str:
        return self.grant.principal

    @property
    def client_id(self) -> str:
        return self.grant.params.client.id

    @property
    def auth_method(self) -> str:
        return self.grant.method

    @property
    def device_id(self) -> str | None:
        return None

    @property
    def client_address(self) -> str:
        return self.peer.client_address


class HttpMethods:
    """The methods as HTTP reaches them, for `HttpApp` and for routes that are another way to a method."""

    def __init__(self, gatekeeper: Gatekeeper, dispatcher: Dispatcher) -> None:
        self._gatekeeper = gatekeeper
        self._dispatcher = dispatcher

    async def rpc(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        """JSON-RPC 2.0 over HTTP: one call or a batch; 200 with a reply, 204 where nothing is answered."""
        assert grant is not None
        body = await request.body()
        if self._gatekeeper.lapsed(grant) is not None:
            return _lapsed()
        message = jsonrpc.decode_message(body)
        caller = HttpCaller(grant=grant, peer=request.peer)
        if isinstance(message, jsonrpc.Invalid):
            return HttpReply(status=400, body=jsonrpc.encode_invalid(message))
        if isinstance(message, jsonrpc.Call):
            reply = await self._call(caller, message)
            if self._gatekeeper.lapsed(grant) is not None:  # revoked while the call ran: its answer is dropped (AUTH-5)
                return _lapsed()
            return HttpReply(status=200, body=reply) if reply is not None else HttpReply(status=204)
        replies = []
        for item in message.items:
            reply = await self._call(caller, item)
            if self._gatekeeper.lapsed(grant) is not None:
                return _lapsed()
            if reply is not None:
                replies.append(reply)
        return HttpReply(status=200, body=jsonrpc.encode_batch(replies)) if replies else HttpReply(status=204)

    async def call(self, caller: HttpCaller, method: str, params: msgspec.Raw) -> Any:
        """What ``method`` answers this caller: the one way to a method that HTTP has. Raises `CallError`."""
        table = self._dispatcher.table
        arrival = caller.peer.arrival
        spec = table.view(caller.role, caller.scopes).get(method)
        if not arrival.ceiling.allows(method):
            raise CallError(beyond_ceiling(method, arrival))
        if spec is None:
            raise CallError(table.refusal(method, caller.role, caller.scopes))
        return await self._dispatcher.run(spec, caller, params)

    def twin_refusal(self, route: Route, grant: Grant) -> HttpReply | None:
        """The RPC checker's word on a route that is another way to a method (V41)."""
        table, scopes = self._dispatcher.table, frozenset(grant.scopes)
        if route.twin is None or route.twin in table.view(grant.role, scopes):
            return None
        error = table.refusal(route.twin, grant.role, scopes)
        return json_reply(403, {"error": {"message": error.message, "type": "forbidden", **error.to_wire()}})

    async def _call(self, caller: HttpCaller, call: jsonrpc.Call | jsonrpc.Invalid) -> bytes | None:
        if isinstance(call, jsonrpc.Invalid):
            return jsonrpc.encode_invalid(call)
        try:
            reply = jsonrpc.encode_result(call.id, await self.call(caller, call.method, call.params))
        except CallError as exc:
            reply = jsonrpc.encode_error(call.id, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            reply = jsonrpc.encode_error(call.id, self._dispatcher.unencodable(call.method, exc))
        return None if call.notification else reply


def _lapsed() -> HttpReply:
    """The credential ended while the request was under way."""
    error = wire_error("auth-api-key-revoked")
    return json_reply(401, {"error": {"message": error.message, "type": "unauthorized", **error.to_wire()}})
