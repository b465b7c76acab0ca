"""The handshake of one connection: challenge, greeting of a secure channel, connect, verdict.

Owns everything between the 101 and hello: what was challenged, which frames wait behind a connect that is being
decided, how a refusal is answered. It must not know how admission is decided (`server.gatekeeper`), nor what a session
does once it is open.

Invariants: until it is over, nothing but ``connect`` is carried out; what waits is capped in count and bytes; the delay
of a refusal is ours, every other wait has the deadline that the session set (design rule 8).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.connect import bearer_params
from openclaw_gateway.protocol.device import Challenge
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.frames import FrameFault
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.dialect import OPENCLAW, Dialect
from openclaw_gateway.server.gatekeeper import Grant, Rejection, TransportCredential
from openclaw_gateway.server.secure import GREETINGS, OFFER, ChannelFault, SecureDoor, SecureLink

if TYPE_CHECKING:
    from openclaw_gateway.server.session import Session

__all__ = ["MAX_PARKED", "MAX_PARKED_BYTES", "PRE_AUTH_BYTES", "Handshake"]

PRE_AUTH_BYTES: Final = 64 * 1024
MAX_PARKED: Final = 15  # requests that may wait behind a connect that is being decided
MAX_PARKED_BYTES: Final = 128 * 1024  # all of them: times 512 strangers this is what a flood can make us hold

log = get_logger("session")


class Handshake:
    __slots__ = (
        "_admitting",
        "_challenge",
        "_challenged",
        "_core",
        "_credential",
        "_dialect",
        "_link",
        "_parked",
        "_session",
    )

    def __init__(
        self, session: Session, core: ServerCore, credential: TransportCredential, dialect: Dialect, *, nonce: str
    ) -> None:
        self._session = session
        self._core = core
        self._credential = credential
        self._dialect = dialect
        self._challenge = Challenge(nonce=nonce, ts_ms=core.now_ms())
        self._challenged = monotonic()
        self._link: SecureLink | None = None  # from a greeting on
        self._admitting = False
        self._parked: list[bytes] = []

    def greet(self, switching: bytes) -> None:
        """The 101 and the challenge in one flush (PROTO-2)."""
        payload: dict[str, Any] = {"nonce": self._challenge.nonce, "ts": self._challenge.ts_ms}
        if self._core.secure is not None and self._core.secure.offered and self._dialect is OPENCLAW:
            payload["secureChannel"] = OFFER
        self._session.writer.push(switching + self._dialect.wrap(self._dialect.greeting("connect.challenge", payload)))
        self._session.writer.flush()

    def message(self, data: bytes) -> None:
        if self._admitting:
            waiting = sum(map(len, self._parked)) + len(data)
            if len(self._parked) >= MAX_PARKED or waiting > MAX_PARKED_BYTES:
                self._session.scope.close(CloseCode.POLICY, "too many pending handshake frames")
            else:
                self._parked.append(data)
            return
        door = self._core.secure if self._dialect is OPENCLAW else None
        if door is not None and (
            door.offered and data[:1] in GREETINGS if self._link is None else not self._link.ready
        ):
            self._greet_securely(door, data)
            return
        if self._dialect is OPENCLAW and jsonrpc.sniff(data) == "jsonrpc":
            self._jsonrpc_first(data)
            return
        request = self._dialect.decode(data, PRE_AUTH_BYTES)
        if isinstance(request, FrameFault):
            if request.fatal is not None:
                self._session.scope.close(request.fatal, request.fault)
            elif request.json:
                self._session.scope.close(CloseCode.POLICY, "invalid request frame")
            else:
                self._session.scope.close(CloseCode.NORMAL)
        elif request.method != "connect":
            error = wire_error("first-not-connect")
            self._session.reply_error(request.id, error)
            self._session.scope.close(CloseCode.POLICY, error.message)
        else:
            self._admit_in_background(request.id, request.params)

    def _greet_securely(self, door: SecureDoor, data: bytes) -> None:
        try:
            if self._link is None:
                self._link = door.begin(self._challenge)
            answer = self._link.greet(data)
        except (GatewayError, OSError) as exc:
            log.error("secure channel: the gateway's key cannot be used", error=str(exc), conn_id=self._session.conn_id)
            self._session.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
            return
        except ChannelFault as fault:
            self._session.channel_fault(fault)
            return
        if answer is not None:
            self._session.writer.push(answer)
        if self._link.ready:
            self._challenge = self._link.bind(self._challenge)
            self._session.seal(self._link)

    def _jsonrpc_first(self, data: bytes) -> None:
        """JSON-RPC: either ``connect`` comes first, or the credential came with the upgrade and any call may."""
        self._session.dialect = "jsonrpc"
        message = jsonrpc.decode_message(data)
        if isinstance(message, jsonrpc.Call) and message.method == "connect":
            self._admit_in_background(message.id, message.params)
            return
        self._parked.append(data)
        self._admit_in_background(None, None)

    def _admit_in_background(self, id_: jsonrpc.Id, params: msgspec.Raw | None) -> None:
        self._admitting = True
        self._session.spawn(self._admit, id_, params)

    async def _admit(self, id_: jsonrpc.Id, params: msgspec.Raw | None) -> None:
        with trio.CancelScope() as scope:
            self._session.calls.running.add(scope)
            try:
                core = self._core
                raw = params if params is not None else bearer_params(protocol=4, scopes=core.bearer_scopes)
                verdict = await core.gatekeeper.connect(
                    raw,
                    peer=self._session.peer,
                    credential=self._credential,
                    challenge=self._challenge,
                    challenge_age=monotonic() - self._challenged,
                    transport=self._session.dialect,
                    conn_id=self._session.conn_id,
                    opened_by=self._link.opened_by if self._link is not None else None,
                )
                if isinstance(verdict, Rejection):
                    await self._reject(id_, verdict, answered=params is not None)
                else:
                    self._open(id_ if params is not None else None, verdict, hello=params is not None)
            except Exception as exc:
                log.exception("admission failed", exc=exc, conn_id=self._session.conn_id)
                self._session.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
            finally:
                self._session.calls.running.discard(scope)

    async def _reject(self, id_: jsonrpc.Id, verdict: Rejection, *, answered: bool) -> None:
        if verdict.delay:
            self._session.scope.keep_open()  # the delay is ours; the handshake deadline is the peer's
            await trio.sleep(verdict.delay)
        if answered:
            self._session.reply_error(id_, verdict.error)
        elif self._parked:
            first = jsonrpc.decode_message(self._parked[0])
            self._session.reply_error(first.id if isinstance(first, jsonrpc.Call) else None, verdict.error)
        self._session.scope.close(verdict.close.code, verdict.close.reason)

    def _open(self, id_: jsonrpc.Id, grant: Grant, *, hello: bool) -> None:
        core, session = self._core, self._session
        if session.scope.closing:
            return
        full = core.registry.refuse_admission(session)
        if full is not None:
            if hello:
                session.reply_error(id_, full)
            core.turned_away(session, full)
            session.scope.close(CloseCode.TRY_AGAIN_LATER, full.message)
            return
        session.open(grant)
        if hello:
            session.reply(id_, core.hello(session, grant))
        core.joined(session)
        parked, self._parked = self._parked, []
        for data in parked:
            session.deliver(data)
            if session.scope.cause is not None:
                break
        session.writer.flush()
