"""Agents: who answers, in which session, run by run; transcripts that outlive the process.

What an agent of your own needs is here: ``from openclaw_gateway.agents import Delta, Emit, Outcome, Turn``.
"""

from openclaw_gateway.agents.agent import Agent, EchoAgent, Emit
from openclaw_gateway.agents.records import AgentFailed, Delta, Message, Outcome, Turn, Usage

__all__ = ["Agent", "AgentFailed", "Delta", "EchoAgent", "Emit", "Message", "Outcome", "Turn", "Usage"]
