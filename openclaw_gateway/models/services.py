"""The model services of a gateway: asked by any run, changed with the configuration, closed with the gateway.

Owns the services that were made, their rests, and a question's way through the candidates (`models.failover` decides).
It must not know agents, sessions or how a service is spoken to.

Invariants: one service per name, made when it is first asked; a service whose settings changed answers what it was
asked already and is closed then; a question's failure is the first one's, because that is what the configuration asks
for first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from openclaw_gateway.agents.records import AgentFailed, Delta
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.models.catalog import Catalog, Model, ModelRef
from openclaw_gateway.models.failover import Rest, Rests, in_order, moves_on, wait_ms
from openclaw_gateway.models.provider import Finish, ModelFailed, ModelRequest, policy_of
from openclaw_gateway.models.service import ModelService
from openclaw_gateway.ops.log import get_logger

__all__ = ["ModelServices"]

MAX_SERVICES: Final = 200

log = get_logger("models")

Prepare = Callable[[Model], ModelRequest]


class ModelServices:
    """``clock`` gives Unix milliseconds; ``pause`` waits so many seconds between tries."""

    def __init__(
        self,
        config: GatewayConfig,
        env: Mapping[str, str],
        *,
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]] = trio.sleep,
    ) -> None:
        self._env = env
        self._clock = clock
        self._pause = pause
        self._rests = Rests()
        self._services: dict[str, ModelService] = {}
        self._retired: list[ModelService] = []
        self.catalog = Catalog(config, env)

    def configure(self, config: GatewayConfig) -> None:
        """Use another configuration from now on; what is under way goes on as it began."""
        self.catalog = Catalog(config, self._env)
        for name, service in list(self._services.items()):
            try:
                same = self.catalog.settings(name) == service.settings
            except AgentFailed:
                same = False
            if not same:
                self._retired.append(self._services.pop(name))
                self._rests.forget(name)

    async def aclose(self) -> None:
        """Close every service; what is under way breaks off."""
        for service in (*self._services.values(), *self._retired):
            await service.aclose()
        self._services.clear()
        self._retired.clear()

    def rest(self, provider: str) -> Rest | None:
        return self._rests.get(provider, self._clock())

    async def ask(
        self, candidates: Sequence[ModelRef], prepare: Prepare, emit: Callable[[Delta], None]
    ) -> tuple[ModelRef, Finish]:
        """The first answer that a candidate gives; it is emitted as it comes. ``prepare`` makes the question for each.

        Raises `AgentFailed`, of which `ModelFailed` says that a service was asked. Cancellation ends the request.
        """
        await self._close_retired()
        order = in_order(candidates, self._rests, self._clock())
        if not order:
            raise self._all_rest(candidates)
        first: ModelFailed | None = None
        waited_ms = 0
        for number, ref in enumerate(order):
            attempt = 0
            while True:
                attempt += 1
                try:
                    finish = await self._ask_one(ref, prepare, emit)
                except ModelFailed as failure:
                    first = first if first is not None and not failure.shown else failure
                    wait = wait_ms(failure, attempt, waited_ms, random.random())  # noqa: S311 - jitter
                    log.info("model failed", name=str(ref), reason=failure.reason, attempt=attempt, delay_ms=wait)
                    if wait is None:
                        if not moves_on(failure):
                            raise
                        break
                    waited_ms += wait
                    await self._pause(wait / 1000)
                else:
                    if number:
                        log.info("another model answered", name=str(ref), count=number)
                    return ref, finish
        assert first is not None
        raise first

    async def _ask_one(self, ref: ModelRef, prepare: Prepare, emit: Callable[[Delta], None]) -> Finish:
        try:
            service = self._service(ref.provider)
        except AgentFailed as exc:
            raise ModelFailed(str(exc), reason="not_found") from exc
        try:
            finish = await service.answer(prepare(self.catalog.model(ref)), emit)
        except ModelFailed as failure:
            self._rests.failed(ref.provider, failure.reason, self._clock(), failure.after_ms)
            raise
        self._rests.answered(ref.provider)
        return finish

    def _service(self, provider: str) -> ModelService:
        service = self._services.get(provider)
        if service is None:
            settings = self.catalog.settings(provider)
            if len(self._services) >= MAX_SERVICES:
                raise AgentFailed(f"more than {MAX_SERVICES} model services")
            service = self._services[provider] = ModelService(settings, clock=self._clock)
        return service

    async def _close_retired(self) -> None:
        idle = [service for service in self._retired if not service.under_way]
        self._retired = [service for service in self._retired if service.under_way]
        for service in idle:
            await service.aclose()

    def _all_rest(self, candidates: Sequence[ModelRef]) -> ModelFailed:
        now = self._clock()
        rests = [rest for one in candidates if (rest := self._rests.get(one.provider, now)) is not None]
        soonest = min(rests, key=lambda rest: rest.until_ms)
        after_ms = max(1, soonest.until_ms - now)
        names = ", ".join(dict.fromkeys(one.provider for one in candidates))
        seconds = -(-after_ms // 1000)
        return ModelFailed(
            f"every model service asked to be left alone for now ({names}); try again in {seconds} s",
            policy_of(soonest.reason).kind,
            True,
            after_ms,
            {"reason": soonest.reason, "provider": candidates[0].provider, "model": candidates[0].model},
            soonest.reason,
        )
