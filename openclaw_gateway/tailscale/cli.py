"""The ``tailscale`` command as the way to the daemon, where its socket cannot be used (macOS, Windows, wrappers).

Owns arguments (argv only, never a shell), what to wait for, and reading the answers with `protocol` and `conditions`.
A claim is a child process under guard: it dies with us, kill -9 included. It must not know when to try again.

Invariants: ``reset`` and ``sudo`` are never run; a look at the daemon has a deadline and a size limit; a claim that has
not said that it stands within `START_SECONDS` is ended; the end of the child, whatever its status, is the end of the
claim (status 0 is what somebody's ``serve reset`` looks like).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.policy.tailnet import TailnetPerson
from openclaw_gateway.tailscale import conditions
from openclaw_gateway.tailscale.conditions import Condition
from openclaw_gateway.tailscale.localapi import DaemonUnreachable
from openclaw_gateway.tailscale.plan import (
    Conflict,
    InPlace,
    Route,
    Write,
    plan_background,
    plan_claim,
    plan_release,
    session_of,
)
from openclaw_gateway.tailscale.protocol import NodeStatus, read_config, read_status, read_whois
from openclaw_gateway.tunnels.guard import GuardedProcess, open_guarded

__all__ = ["CommandLine"]

LOOK_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
RECONCILE_SECONDS: Final = 30.0
MAX_OUTPUT: Final = 4 * 1024 * 1024
MAX_SAID: Final = 64
READY: Final = "Press Ctrl+C to exit."


@attrs.frozen
class Outcome:
    status: int
    out: str
    err: str


@attrs.define(eq=False)
class _Said:
    """What a claim's child printed: the last `MAX_SAID` lines of each stream, and whether the claim stands."""

    out: list[str] = attrs.field(factory=list)
    err: list[str] = attrs.field(factory=list)
    ready: trio.Event = attrs.field(factory=trio.Event)

    def hear(self, where: list[str], line: str) -> None:
        where.append(line)
        del where[:-MAX_SAID]
        if line.strip() == READY:
            self.ready.set()

    def condition(self, port: int) -> Condition:
        return conditions.of_command("\n".join(self.out), "\n".join(self.err), port=port)


@attrs.define(eq=False)
class CommandLine:
    """One ``tailscale`` command. ``argv``: the program and what always comes first, such as ``--socket=PATH``."""

    argv: Sequence[str] = ("tailscale",)
    env: Mapping[str, str] | None = None
    daemon_uid: int | None = None  # nobody can say who runs the daemon: no identity is believed
    name: str = "command line"

    async def _run(self, *arguments: str, seconds: float = LOOK_SECONDS) -> Outcome:
        """Raises `DaemonUnreachable` where the command is not there, hangs, or talks without end."""
        command = [*self.argv, *arguments]
        found: subprocess.CompletedProcess[bytes] | None = None
        try:
            with trio.move_on_after(seconds):
                found = await trio.run_process(
                    command, capture_stdout=True, capture_stderr=True, check=False, stdin=b"", env=self.env
                )
        except OSError as exc:
            raise DaemonUnreachable(f"{self.argv[0]}: {exc.strerror or exc}", absent=True) from exc
        if found is None:
            raise DaemonUnreachable(f"tailscale {arguments[0]}: no answer within {seconds:g} s")
        if len(found.stdout) > MAX_OUTPUT:
            raise DaemonUnreachable(f"tailscale {arguments[0]}: an answer over {MAX_OUTPUT} bytes")
        return Outcome(
            found.returncode, found.stdout.decode("utf-8", "replace"), found.stderr.decode("utf-8", "replace")
        )

    async def _json(self, *arguments: str) -> bytes:
        outcome = await self._run(*arguments)
        if outcome.status != 0:
            condition = conditions.of_command(outcome.out, outcome.err, port=443)
            raise DaemonUnreachable(condition.reason, absent=condition.state == "missing")
        return outcome.out.encode()

    async def status(self) -> NodeStatus:
        """Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        return read_status(await self._json("status", "--json", "--peers=false"))

    async def whois(self, address: str) -> TailnetPerson | None:
        """Whose machine has ``address``; None: nobody's. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        outcome = await self._run("whois", "--json", address)
        if outcome.status != 0 and "peer not found" in outcome.err:
            return None
        if outcome.status != 0:
            raise DaemonUnreachable(conditions.of_command(outcome.out, outcome.err, port=443).reason)
        return read_whois(outcome.out.encode())

    async def config(self) -> dict[str, Any]:
        """Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        return read_config(await self._json("serve", "status", "--json"))

    # --- the route

    async def keep(
        self,
        route: Callable[[NodeStatus], Route],
        *,
        background: bool,
        tell: Callable[[Condition], None],
        node: Callable[[NodeStatus], None],
    ) -> Condition:
        """As `LocalApi.keep`."""
        found = await self.status()
        node(found)
        wanted = route(found)
        condition = conditions.of_node(found, funnel=wanted.funnel, port=wanted.port)
        if condition is not None and condition.state != "https-not-enabled":
            return condition  # of HTTPS the command line itself says where it is enabled
        if background:
            return await self._keep_background(wanted, tell)
        obstacle = await self._clear(wanted)
        return obstacle if obstacle is not None else await self._keep_claim(wanted, tell, node)

    async def _clear(self, route: Route) -> Condition | None:
        """Who is in the way of a claim; a route of ours in the background is taken away."""
        plan = plan_claim(await self.config(), route, None)
        if isinstance(plan, Conflict):
            return conditions.conflict(plan.what, route.port)
        if isinstance(plan, Write) and plan.again:
            return await self._off(route)
        return None

    async def _off(self, route: Route) -> Condition | None:
        kind = "funnel" if route.funnel else "serve"
        outcome = await self._run(kind, "--yes", f"--https={route.port}", "--set-path=/", "off", seconds=START_SECONDS)
        gone = outcome.status == 0 or "handler does not exist" in outcome.err
        return None if gone else conditions.of_command(outcome.out, outcome.err, port=route.port)

    async def _keep_claim(
        self, route: Route, tell: Callable[[Condition], None], node: Callable[[NodeStatus], None]
    ) -> Condition:
        kind = "funnel" if route.funnel else "serve"
        said = _Said()
        command = [*self.argv, kind, "--yes", "--bg=false", f"--https={route.port}", route.target]
        try:
            async with open_guarded(
                command,
                env=self.env,
                stdout_line=lambda line: said.hear(said.out, line),
                stderr_line=lambda line: said.hear(said.err, line),
            ) as child:
                return await self._watch_claim(child, said, route, tell, node)
        except OSError as exc:
            raise DaemonUnreachable(f"{self.argv[0]}: {exc.strerror or exc}", absent=True) from exc

    async def _watch_claim(
        self,
        child: GuardedProcess,
        said: _Said,
        route: Route,
        tell: Callable[[Condition], None],
        node: Callable[[NodeStatus], None],
    ) -> Condition:
        with trio.move_on_after(START_SECONDS):
            await _first(said.ready.wait, child.wait)
        if not said.ready.is_set():
            condition = said.condition(route.port)
            if condition.state == "failed" and child.returncode is None:
                return conditions.unreachable(f"tailscale did not start to serve within {START_SECONDS:g} s")
            return condition
        tell(conditions.serving(route.url, funnel=route.funnel))
        while True:
            with trio.move_on_after(RECONCILE_SECONDS):
                await child.wait()
                return conditions.lost("tailscale ended: its daemon stopped, or somebody reset what it serves")
            found = await self.status()
            node(found)
            obstacle = conditions.of_node(found, funnel=route.funnel, port=route.port)
            if obstacle is not None:
                return obstacle
            config = await self.config()
            session = session_of(config, route)
            if session is None or found.dns_name != route.host:
                return conditions.lost("the claim is not in what tailscale serves any more")
            plan = plan_claim(config, route, session)
            if isinstance(plan, Conflict):
                return conditions.conflict(plan.what, route.port)

    async def _keep_background(self, route: Route, tell: Callable[[Condition], None]) -> Condition:
        plan = plan_background(await self.config(), route)
        if isinstance(plan, Conflict):
            return conditions.conflict(plan.what, route.port)
        if isinstance(plan, Write):
            kind = "funnel" if route.funnel else "serve"
            outcome = await self._run(
                kind, "--yes", "--bg", f"--https={route.port}", route.target, seconds=START_SECONDS
            )
            if outcome.status != 0 or "running in the background" not in outcome.out:
                return conditions.of_command(outcome.out, outcome.err, port=route.port)
        tell(conditions.serving(route.url, funnel=route.funnel))
        await trio.sleep(RECONCILE_SECONDS)
        return conditions.serving(route.url, funnel=route.funnel)

    async def release(self, route: Route) -> None:
        """Take our background route out. Raises `DaemonUnreachable`, `TailscaleUnreadable`."""
        if not isinstance(plan_release(await self.config(), route), InPlace):
            await self._off(route)


async def _first(*waits: Callable[[], Any]) -> None:
    """Return when the first of ``waits`` does."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Any]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait)
