"""The node's side of sealed invokes: opened, judged, remembered; answered sealed.

Owns the order of the checks. It must not know the commands, or what a gateway is. A gateway sees the command's name and
no more, so what it enforces is the name; everything else is judged here, after opening, by the same rules as an
unsealed request (`policy.nodes.reserved_field`, `exec_policy`).

Order: shape and size → the key it was sealed to → it opens for this node, command and idempotency key, and its sender
signed that → of now → its sender may → never seen before. Invariants: a command that the policy names in
``sealedOnly`` is refused unsealed, whatever a gateway says (no downgrade); such a command also takes only senders that
the policy names, because a gateway that lies can make keys of its own; a request is remembered on the disk before it is
carried out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import trio

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import ExecPolicy, load_policy, policy_path
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.nodes.host.replays import Replays
from openclaw_gateway.nodes.sealing import OpenedRequest, open_request, seal_reply
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.sealed import (
    SKEW_MS,
    SealContext,
    SealFault,
    check_times,
    is_sealed,
    key_id,
    read_request,
)

__all__ = ["Opened", "Seals", "StaticKey", "open_seals", "sealed_only", "sender_may", "static_key_of"]

_HOW: Final = "openclaw nodes invoke --sealed"
_BESIDE: Final = frozenset({"runId"})  # what a gateway puts next to the parameters of system.run

log = get_logger("node")


class StaticKey(Protocol):
    """The node's X25519 key, raw."""

    @property
    def private(self) -> bytes: ...

    @property
    def public(self) -> bytes: ...


def static_key_of(keeping: Keeping) -> StaticKey:
    """The node's X25519 key, made on first use. Raises what `ops.statickey` does."""
    return keeping.static_key()


def open_seals(keeping: Keeping) -> Seals:
    """What a node that keeps its files there opens sealed requests with. Blocks for a few small files."""
    policy_file = policy_path(keeping.directory)
    return Seals(
        keeping.identity(),
        static_key_of(keeping),
        Replays(keeping.directory / "sealed-seen"),
        lambda: _load_policy(policy_file),
    )


def _load_policy(policy_file: Path) -> ExecPolicy:
    try:
        return load_policy(policy_file)
    except NodeError as error:
        # What it says about sealed requests cannot be known, so nothing is carried out.
        log.error("exec policy cannot be used", file=str(policy_file), error=error.message)
        raise CommandFailed("SYSTEM_RUN_DENIED", error.message) from error


def sealed_only(policy: ExecPolicy, command: str) -> bool:
    """Whether this machine refuses the command unless it comes sealed."""
    return command in policy.sealed_only or "*" in policy.sealed_only


def sender_may(policy: ExecPolicy, command: str, sender_id: str) -> bool:
    """Whether that operator may have the command carried out. No list means whoever the gateway lets through, except
    for a command that must come sealed."""
    if policy.operators:
        return sender_id in policy.operators
    return not sealed_only(policy, command)


def _now_ms() -> int:
    return round(time.time() * 1000)


@attrs.frozen
class Opened:
    """A request that may be carried out. ``params`` are plain; ``expires_in``: seconds that it may still take."""

    params: dict[str, Any] = attrs.field(repr=False)
    request: OpenedRequest
    mark: str
    expires_in: float


class Seals:
    """``load_policy`` raises `CommandFailed` where the policy cannot be used."""

    def __init__(
        self,
        identity: DeviceIdentity,
        key: StaticKey,
        replays: Replays,
        load_policy: Callable[[], ExecPolicy],
        *,
        clock: Callable[[], int] = _now_ms,
    ) -> None:
        """``clock``: Unix milliseconds."""
        self._identity = identity
        self._key = key
        self._replays = replays
        self._load_policy = load_policy
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)

    async def admit(self, command: str, key: str | None, params: Mapping[str, Any]) -> Opened | None:
        """Open what is sealed; None for a plain request that may be carried out as it is. Raises `CommandFailed`."""
        policy = self._load_policy()
        if not is_sealed(params):
            if sealed_only(policy, command):
                raise CommandFailed("SEALED_REQUIRED", f"this node takes {command} only sealed: {_HOW}")
            return None
        opened = self._open(command, key, params)
        sender = opened.sender_id
        if not sender_may(policy, command, sender):
            fix = f"on it: openclaw node allow --operator {sender}"
            raise CommandFailed("SEALED_SENDER_DENIED", f"{sender} may not ask this node for {command}; {fix}")
        if not isinstance(opened.params, dict):
            raise CommandFailed("SEALED_INVALID", "sealed parameters must be an object")
        context = opened.context
        mark = _mark(opened)
        until = context.expires_at_ms + SKEW_MS
        await self._remember(mark, until)
        log.info("sealed invoke", command=command[:128], device_id=sender)
        inner = {name: value for name, value in opened.params.items() if name not in _BESIDE}
        beside = {name: params[name] for name in _BESIDE if name in params}
        return Opened({**inner, **beside}, opened, mark, (until - self._clock()) / 1000)

    def seal(self, opened: Opened, answer: dict[str, Any]) -> dict[str, Any]:
        """The payload for an answer ``{ok, payload}`` or ``{ok, error}``. Raises `CommandFailed` where it is too
        big."""
        try:
            return seal_reply(self._identity, opened.request, answer)
        except ValueError as error:
            raise CommandFailed("RESULT_TOO_LARGE", f"the sealed result is {error}") from error

    async def release(self, opened: Opened) -> None:
        """Nothing was done: the gateway may send the same request again (NODE_NOT_READY)."""
        try:
            await trio.to_thread.run_sync(self._replays.release, opened.mark, limiter=self._limiter)
        except NodeError as error:
            log.warning("sealed request not released", error=str(error))

    def _open(self, command: str, key: str | None, params: Mapping[str, Any]) -> OpenedRequest:
        envelope = read_request(params, beside=_BESIDE)
        if isinstance(envelope, SealFault):
            raise _refused(envelope)
        if envelope.key_id != key_id(self._key.public):
            raise CommandFailed("SEALED_KEY_UNKNOWN", "it was sealed to a key that is not this node's")
        if not key:
            raise CommandFailed("SEALED_INVALID", "a sealed request needs the idempotencyKey that it was sealed with")
        context = SealContext(
            node_id=self._identity.device_id,
            command=command,
            key=key,
            issued_at_ms=envelope.issued_at_ms,
            expires_at_ms=envelope.expires_at_ms,
            node_key=self._key.public,
        )
        fault = check_times(context.issued_at_ms, context.expires_at_ms, self._clock())
        opened = fault if fault is not None else open_request(self._key.private, context, envelope)
        if isinstance(opened, SealFault):
            raise _refused(opened)
        return opened

    async def _remember(self, mark: str, until_ms: int) -> None:
        try:
            # Never abandoned: what was asked for is either remembered or not carried out.
            taken = await trio.to_thread.run_sync(
                self._replays.take, mark, until_ms, self._clock(), limiter=self._limiter
            )
        except (NodeError, OSError) as error:
            log.error("sealed requests cannot be remembered", error=str(error))
            raise CommandFailed("SEALED_BUSY", "the node cannot remember it, so it is not carried out") from error
        if taken == "seen":
            raise CommandFailed("SEALED_REPLAYED", "this very request came before; seal it again for another time")
        if taken == "full":
            raise CommandFailed("SEALED_BUSY", "too many sealed requests within an hour; try later")


def _refused(fault: SealFault) -> CommandFailed:
    return CommandFailed(fault.code, fault.message)


def _mark(opened: OpenedRequest) -> str:
    """One mark for one sender and idempotency key: neither is a gateway's to choose."""
    return hashlib.sha256(f"{opened.sender_id}\n{opened.context.key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
