"""A tunnel that is kept up: one ssh at a time, asked after, opened again when it ends.

Owns the named states (design rule 12) and the restarts; `tunnels.pace` owns how long to wait. It must not print.

States: ``connecting`` (ssh starts), ``checking`` (the forwarding stands, no gateway has answered through it yet),
``up``, ``waiting`` (ended; the next try is due), ``blocked`` (ended for a reason that a person has to mend; tried again
rarely), ``stopped``. Invariants: a new ssh is started only after the last one has been waited for, so there is never
more than one; each state is told; leaving by any path ends ssh.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.tunnels.pace import Pace
from openclaw_gateway.tunnels.process import Ssh, TunnelFailed, answers, free_port, open_ssh
from openclaw_gateway.tunnels.spec import FATAL, Failure, TunnelSpec, failure_text, fix_for
from openclaw_gateway.value import Value

__all__ = ["RECHECK_SECONDS", "State", "TunnelReport", "run_tunnel"]

State = Literal["connecting", "checking", "up", "waiting", "blocked", "stopped"]

RECHECK_SECONDS: Final = 1.0  # while no gateway answers
CHECK_SECONDS: Final = 15.0  # while one does

_chance = random.SystemRandom().random


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TunnelReport(Value):
    """``since_ms``: Unix ms of the change into ``state``; ``pid`` is ssh's, None while there is none; ``restarts``: how
    often ssh was started again."""

    name: str
    state: State
    direction: str
    target: str
    bind_port: int
    target_port: int
    pid: int | None = None
    failure: Failure | None = None
    message: str | None = None
    fix: str | None = None
    retry_in_ms: int | None = None
    restarts: int = 0
    since_ms: int = 0

    def to_wire(self) -> dict[str, Any]:
        """As ``status`` and ``tunnel list --json`` show it; nothing secret is in it."""
        return {
            "name": self.name,
            "state": self.state,
            "direction": self.direction,
            "target": self.target,
            "bindPort": self.bind_port,
            "targetPort": self.target_port,
            "pid": self.pid,
            "failure": self.failure,
            "message": self.message,
            "fix": self.fix,
            "retryInMs": self.retry_in_ms,
            "restarts": self.restarts,
            "sinceMs": self.since_ms,
        }


class _Tunnel:
    def __init__(
        self,
        spec: TunnelSpec,
        tell: Callable[[TunnelReport], None],
        probe: Callable[[Ssh], Any] | None,
        env: Mapping[str, str] | None,
        program: str,
    ) -> None:
        self._spec = spec
        self._tell = tell
        self._probe = probe
        self._env = env
        self._program = program
        self._pace = Pace()
        self._starts = 0
        self.been_up = False
        self._up_at: float | None = None
        self._chosen = 0  # the port taken where none was asked for: kept, so that those who use it find it again

    async def keep(self, *, give_up: bool) -> None:
        while True:
            failure = await self._run_once()
            if failure == "port-busy" and self._chosen:
                self._chosen, failure = 0, "connection-lost"  # somebody was faster; another port will do
            up_for = None if self._up_at is None else trio.current_time() - self._up_at
            if give_up and not self.been_up and failure in FATAL:
                raise TunnelFailed.because(self._spec, failure)
            wait = self._pace.after(failure, up_for=up_for, chance=_chance())
            blocked = failure in FATAL and up_for is None
            self._say("blocked" if blocked else "waiting", failure=failure, retry_in=wait)
            await trio.sleep(wait)

    async def _run_once(self) -> Failure:
        """Start ssh, follow it to its end, and say why it ended."""
        self._up_at = None
        spec = self._spec
        if spec.direction == "local" and spec.bind_port == 0:
            self._chosen = self._chosen or free_port()
            spec = attrs.evolve(spec, bind_port=self._chosen)
        self._starts += 1
        self._say("connecting", port=spec.bind_port)
        try:
            async with open_ssh(spec, env=self._env, program=self._program) as ssh:
                self._say("connecting", pid=ssh.pid, port=spec.bind_port)
                await ssh.wait_up()
                self._say("checking", pid=ssh.pid, port=ssh.port)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._check, ssh)
                    failure = await ssh.wait_end()
                    nursery.cancel_scope.cancel()
                return failure
        except TunnelFailed as error:
            return error.failure
        except OSError:
            return "no-ssh"

    async def _check(self, ssh: Ssh) -> None:
        """Ask through the tunnel. ssh that lives is left alone: a gateway that is away is not the tunnel's fault."""
        told: Failure | bool | None = None
        while True:
            answered = True if self._probe is None else bool(await self._probe(ssh))
            denied: Failure = "forwarding-denied" if ssh.denied else "probe-failed"
            now: Failure | bool = answered or denied
            if now != told:
                told = now
                if answered:
                    self._up_at = self._up_at or trio.current_time()
                    self.been_up = True
                    self._say("up", pid=ssh.pid, port=ssh.port)
                else:
                    self._say("checking", pid=ssh.pid, port=ssh.port, failure=denied)
            await trio.sleep(CHECK_SECONDS if answered else RECHECK_SECONDS)

    def _say(
        self,
        state: State,
        *,
        pid: int | None = None,
        port: int | None = None,
        failure: Failure | None = None,
        retry_in: float | None = None,
    ) -> None:
        spec = self._spec
        self._tell(
            TunnelReport(
                name=spec.name,
                state=state,
                direction=spec.direction,
                target=str(spec.target),
                bind_port=port if port is not None else spec.bind_port,
                target_port=spec.target_port,
                pid=pid,
                failure=failure,
                message=failure_text(failure) if failure else None,
                fix=fix_for(failure, spec) if failure else None,
                retry_in_ms=round(retry_in * 1000) if retry_in is not None else None,
                restarts=max(self._starts - 1, 0),
                since_ms=time.time_ns() // 1_000_000,
            )
        )

    def say_stopped(self) -> None:
        self._say("stopped")


async def _probe_local(ssh: Ssh) -> bool:
    return await answers(ssh.port)


async def run_tunnel(
    spec: TunnelSpec,
    *,
    tell: Callable[[TunnelReport], None],
    give_up: bool = False,
    probe: Callable[[Ssh], Any] | None = None,
    env: Mapping[str, str] | None = None,
    program: str = "ssh",
) -> None:
    """Keep ``spec`` open until cancelled; it never returns.

    ``tell`` hears every change of state and must not block. ``give_up``: a failure that only a person can mend is
    raised (`TunnelFailed`) while the tunnel has never been up; later it is ``blocked``. ``probe``: awaited with the
    running `Ssh`, says whether a gateway answers; by default GET /healthz through a local tunnel, and ssh's own word
    for a remote one. Raises `TunnelRefused` where ``spec`` must not reach ssh. Cancelled, it ends ssh first.
    """
    if probe is None and spec.direction == "local":
        probe = _probe_local
    tunnel = _Tunnel(spec, tell, probe, env, program)
    try:
        await tunnel.keep(give_up=give_up)
    finally:
        tunnel.say_stopped()
