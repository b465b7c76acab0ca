"""What an agent is, and the agents by name: the plug-in point.

Owns the `Agent` protocol, the registry, and the echo agent that needs no key and no network. It must not know queues,
clients or configuration.

A plug-in is anything with an ``async def run(turn, emit)``; a package offers one under the entry point group
``openclaw_gateway.agents`` (a callable without arguments that returns the agent), an embedding program registers one
with ``gateway.agents.register("name", agent)``.

Invariants: an agent gets its turn and a way to speak, nothing of the gateway; it is cancelled when its run is (design
rule 5: its exceptions end that run and nothing else).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import trio

from openclaw_gateway.agents.keys import is_agent_id
from openclaw_gateway.agents.records import AgentFailed, Delta, Outcome, Turn
from openclaw_gateway.errors import LocalProtocolError

__all__ = ["ENTRY_POINTS", "Agent", "AgentRegistry", "EchoAgent", "Emit"]

ENTRY_POINTS: Final = "openclaw_gateway.agents"
MAX_AGENTS: Final = 256

Emit = Callable[[Delta], None]


@runtime_checkable
class Agent(Protocol):
    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        """Answer ``turn.request``; what is emitted as text is the answer, in order.

        Raises `AgentFailed` with words for whoever asked. Cancelled when the run is aborted, its deadline passes, or
        the gateway stops; in the last case the same turn comes again after the restart, marked ``uncertain``.
        """
        ...


class EchoAgent:
    """Says what it was told, word by word: a newcomer sees a whole round trip without any key."""

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        text = turn.request.text.strip() or f"({len(turn.request.attachments)} attachments)"
        for number, word in enumerate(text.split(" ")):
            emit(Delta("text", word if number == 0 else f" {word}"))
            await trio.lowlevel.checkpoint()
        return Outcome(model="echo")


class AgentRegistry:
    """Agents that were registered by a program, by id. What the configuration names is the router's."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def register(self, agent_id: str, agent: Agent) -> None:
        """Let ``agent`` answer under this id from now on; it takes the place of whatever the configuration says.

        Raises `LocalProtocolError` for an id that is none, something that cannot run, and over `MAX_AGENTS`.
        """
        if not is_agent_id(agent_id):
            raise LocalProtocolError(f"{agent_id!r} cannot be the id of an agent: lower case letters, digits, _ and -")
        if not isinstance(agent, Agent):
            raise LocalProtocolError(f"{agent!r} has no run(turn, emit)")
        if agent_id not in self._agents and len(self._agents) >= MAX_AGENTS:
            raise LocalProtocolError(f"more than {MAX_AGENTS} agents")
        self._agents[agent_id] = agent

    def unregister(self, agent_id: str) -> None:
        self._agents.pop(agent_id, None)

    def get(self, agent_id: str) -> Agent | None:
        return self._agents.get(agent_id)

    @property
    def ids(self) -> list[str]:
        return sorted(self._agents)


def load_plugin(name: str) -> Agent:
    """The agent that an installed package offers under this name. Raises `AgentFailed` where there is none, or where it
    cannot be loaded."""
    from importlib.metadata import entry_points

    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        known = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
        raise AgentFailed(f"no installed package offers an agent {name!r} (there are: {', '.join(known) or 'none'})")
    try:
        agent = found[0].load()()
    except Exception as exc:
        raise AgentFailed(f"the agent {name!r} cannot be loaded: {type(exc).__name__}") from exc
    if not isinstance(agent, Agent):
        raise AgentFailed(f"the agent {name!r} has no run(turn, emit)")
    return agent
