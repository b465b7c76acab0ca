"""Which agent answers: the configuration's agents, those a program registered, and the one that needs no key.

Owns the list of agents, the default one, session keys of channel messages, and the making of agents from their entries.
It must not know queues, runs or clients.

Invariants: an agent that a program registered answers under its id whatever the configuration says; an agent id that
nobody knows answers nothing (V43: a blank or unknown id is refused, never guessed); without any agent configured there
is ``main``: a model agent where a model is configured, else an echo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from openclaw_gateway.agents.agent import Agent, AgentRegistry, EchoAgent, load_plugin
from openclaw_gateway.agents.keys import MAIN, agent_of, normal_key
from openclaw_gateway.agents.records import AgentFailed, RunRequest, Session
from openclaw_gateway.agents.sessions import ResetRule
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, GatewayConfig, SessionConfig
from openclaw_gateway.errors import GatewayError

__all__ = ["AgentRouter", "UnknownAgent"]

MakeAgent = Callable[[AgentEntry], Agent]


@attrs.define(eq=False)
class UnknownAgent(GatewayError):
    agent_id: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"there is no agent {self.agent_id[:64]!r} (there are: {', '.join(self.known)})"


class AgentRouter:
    """``makers``: for each kind of entry what makes its agent, the first time it is needed."""

    def __init__(self, config: GatewayConfig, registry: AgentRegistry, makers: dict[str, MakeAgent]) -> None:
        self.registry = registry
        self._makers: dict[str, MakeAgent] = {
            "echo": lambda entry: EchoAgent(),
            "plugin": lambda entry: load_plugin(entry.plugin or entry.id),
            **makers,
        }
        self._made: dict[str, tuple[AgentEntry, Agent]] = {}
        self.agents = AgentsConfig()
        self.session = SessionConfig()
        self._entries: dict[str, AgentEntry] = {}
        self.default_id = MAIN
        self.configure(config)

    def configure(self, config: GatewayConfig) -> None:
        """Use other agents from now on; runs that are under way keep theirs."""
        self.agents, self.session = config.agents, config.session
        self._made.clear()
        entries = {entry.id: self._with_defaults(entry) for entry in config.agents.list}
        if not entries:
            kind = "model" if config.agents.defaults.model.primary else "echo"
            entries[MAIN] = self._with_defaults(AgentEntry(id=MAIN, kind=kind))  # type: ignore[arg-type]
        self._entries = entries
        chosen = next((entry.id for entry in entries.values() if entry.default), None)
        self.default_id = chosen or next(iter(entries))

    def _with_defaults(self, entry: AgentEntry) -> AgentEntry:
        if entry.model.primary is not None:
            return entry
        return attrs.evolve(entry, model=self.agents.defaults.model)

    @property
    def ids(self) -> list[str]:
        return list(dict.fromkeys([*self._entries, *self.registry.ids]))

    def entry(self, agent_id: str) -> AgentEntry:
        """Raises `UnknownAgent`."""
        entry = self._entries.get(agent_id)
        if entry is not None:
            return entry
        if self.registry.get(agent_id) is not None:
            return AgentEntry(id=agent_id, kind="plugin")
        raise UnknownAgent(agent_id, tuple(self.ids))

    def place(self, session_key: str | None, agent_id: str | None) -> tuple[str, str]:
        """The session key and the agent that a caller means. Raises `UnknownAgent`, and `ValueError` for a key that is
        none or that belongs to another agent.
        """
        if agent_id is not None:
            self.entry(agent_id)
        key = normal_key(session_key if session_key else MAIN, agent_id or self.default_id)
        owner = agent_of(key) or self.default_id
        self.entry(owner)
        if agent_id is not None and owner != agent_id:
            raise ValueError(f"the session {key} belongs to the agent {owner}, not to {agent_id}")
        return key, owner

    def agent(self, request: RunRequest) -> Agent:
        """Who answers. Raises `AgentFailed`, in words for whoever asked."""
        registered = self.registry.get(request.agent_id)
        if registered is not None:
            return registered
        try:
            entry = self.entry(request.agent_id)
        except UnknownAgent as exc:
            raise AgentFailed(str(exc)) from exc
        made = self._made.get(entry.id)
        if made is None or made[0] is not entry:
            maker = self._makers.get(entry.kind)
            if maker is None:
                raise AgentFailed(f"the agent {entry.id} is of a kind that this gateway cannot run: {entry.kind}")
            made = self._made[entry.id] = (entry, maker(entry))
        return made[1]

    def reset_rule(self, session: Session) -> ResetRule:
        rule = self.session.reset
        return ResetRule(rule.mode, rule.at_hour, rule.idle_minutes * 60_000)

    def listed(self) -> dict[str, Any]:
        """The result of ``agents.list``."""
        return {
            "defaultId": self.default_id,
            "ownership": "sole",
            "selectionRequired": False,
            "mainKey": MAIN,
            "scope": "per-sender",
            "agents": [self.summary(agent_id) for agent_id in self.ids],
        }

    def summary(self, agent_id: str) -> dict[str, Any]:
        entry = self.entry(agent_id)
        model = entry.model.primary or (f"{entry.kind}/{entry.id}" if entry.kind != "model" else None)
        out: dict[str, Any] = {"id": agent_id, "kind": "agent", "name": entry.name or agent_id.capitalize()}
        out["identity"] = {"name": out["name"]}
        if model is not None:
            out["model"] = {"primary": model, "fallbacks": list(entry.model.fallbacks)}
        return out
