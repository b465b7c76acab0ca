"""An agent that lets a model service answer.

Owns what of a turn becomes the question: the model (the run's, else the session's, else the agent's with its
fallbacks), the system prompt, and the part of the conversation that fits. It must not know how services are called.

Invariants: a model that somebody chose is asked alone, as in OpenClaw; a conversation that proves too long is asked
once more with half of it; nothing that was shown is said twice.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import Outcome, Sampling, Turn
from openclaw_gateway.agents.window import conversation, estimate, fitting
from openclaw_gateway.config.schema import AgentEntry
from openclaw_gateway.models.catalog import Catalog, Model
from openclaw_gateway.models.provider import ModelFailed, ModelRequest
from openclaw_gateway.models.services import ModelServices

__all__ = ["ModelAgent"]

RESERVED: Final = 4_096  # tokens of a model's window that are kept for its answer where nobody says how many
LEAST: Final = 512  # tokens that a conversation has at least, however small the window


class ModelAgent:
    """``context_tokens``: what of a conversation is handed over where the model itself sets no smaller bound."""

    def __init__(self, entry: AgentEntry, services: ModelServices, *, context_tokens: int) -> None:
        self._entry = entry
        self._services = services
        self._context_tokens = context_tokens

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        """See `Agent.run`."""
        override = turn.request.model or turn.session.model
        candidates = Catalog.candidates(self._entry.model, override)
        share = 1.0
        while True:
            try:
                ref, finish = await self._services.ask(candidates, partial(self._question, turn, share), emit)
            except ModelFailed as failure:
                if failure.reason != "context_length" or failure.shown or share < 1.0:
                    raise
                share = 0.5
                continue
            return Outcome(stop=finish.stop, model=str(ref), usage=finish.usage)

    def _question(self, turn: Turn, share: float, model: Model) -> ModelRequest:
        request = turn.request
        system = "\n\n".join(text for text in (self._entry.system_prompt, request.system) if text) or None
        window = min(self._context_tokens, model.context_tokens or self._context_tokens)
        answer = (request.sampling.max_tokens if request.sampling else None) or model.max_tokens or RESERVED
        if model.context_window is not None:
            window = min(window, model.context_window - answer)
        budget = max(LEAST, int(window * share) - estimate(system or ""))
        said = conversation(turn.history, request, images=model.images, named=":group:" in request.session_key)
        return ModelRequest(
            model=model.ref.model,
            messages=fitting(said, budget),
            system=system,
            max_tokens=model.max_tokens,
            reasoning=model.reasoning,
            sampling=request.sampling if request.sampling is not None else Sampling(),
        )
