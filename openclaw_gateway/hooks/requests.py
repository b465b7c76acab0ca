"""What a webhook's payload asks for, and whether it may.

Owns the shapes of ``/hooks/wake`` and ``/hooks/agent``, mappings with their templates, and the checks on what came out
of them. Pure: it must not know HTTP, secrets' values in flight, agents or queues.

Invariants: the agent, the conversation, the model and the recipient of an answer come from the configuration; of a
payload only ``agentId`` of ``/hooks/agent`` and ``/hooks/wake`` counts, and it goes through the allow list like every
other (V43); a blank text asks for nothing and is refused; a conversation is named after the hook, never by a payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.agents.records import Reply
from openclaw_gateway.config.hookblocks import HookMapping, HooksConfig
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.hooks.signature import SignatureRules
from openclaw_gateway.hooks.template import MAX_RENDERED, Facts, Template, TemplateFault, parse_template
from openclaw_gateway.value import Value

__all__ = [
    "DIRECT",
    "Ask",
    "HookRefused",
    "HookRules",
    "MappedHook",
    "ask_agent",
    "ask_mapped",
    "ask_wake",
    "hook_rules",
    "request_id",
]

DIRECT: Final = frozenset({"wake", "agent"})
DEFAULT_NAME: Final = "Hook"
MAX_NAME: Final = 128
MAX_TEXT: Final = MAX_RENDERED  # characters of a text; well below what a run takes
MAX_KEY: Final = 256  # characters of an idempotency key; longer ones do not count

Mode = Literal["now", "next-heartbeat"]


@attrs.define(eq=False)
class HookRefused(GatewayError):
    """A request that asks for nothing we do; ``why`` is told to the sender."""

    why: str

    def __str__(self) -> str:
        return self.why


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ask(Value):
    """What a request asks for. ``hook`` names its conversation; ``agent_id`` None: the default agent."""

    action: Literal["agent", "wake"]
    hook: str
    text: str = attrs.field(repr=False)
    agent_id: str | None = None
    name: str = DEFAULT_NAME
    mode: Mode = "now"
    isolated: bool = True
    reply: Reply | None = None
    model: str | None = None
    timeout_ms: int | None = None
    idempotency_key: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MappedHook(Value):
    """One mapping, ready for use. ``secret`` None: `HookRules.token` opens it."""

    id: str
    path: str | None
    source: str | None
    secret: str | None = attrs.field(repr=False)
    signature: SignatureRules | None
    template: Template
    ask: Ask  # without its text

    def takes(self, name: str) -> bool:
        return self.path is None or self.path == name


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookRules(Value):
    """Everything about incoming webhooks that configuration decides; replaced as a whole on reload."""

    base: str = "/hooks"
    token: str | None = attrs.field(default=None, repr=False)
    allowed_agents: frozenset[str] | None = frozenset()  # None: all
    mappings: tuple[MappedHook, ...] = ()

    def may_start(self, agent_id: str) -> bool:
        return self.allowed_agents is None or agent_id in self.allowed_agents

    def secrets(self) -> tuple[str, ...]:
        own = (mapping.secret for mapping in self.mappings)
        return tuple(secret for secret in (self.token, *own) if secret)


def hook_rules(config: HooksConfig) -> HookRules:
    """The rules of a configuration. Mappings that nobody could open, or that have no template, are left out (the
    configuration's own check has told so)."""
    allowed = config.allowed_agent_ids
    mappings = (
        _mapped(mapping, number)
        for number, mapping in enumerate(config.mappings, 1)
        if (mapping.secret or (config.token and mapping.signature.scheme == "none")) and _template_of(mapping)
    )
    return HookRules(
        base=config.path,
        token=config.token,
        allowed_agents=None if "*" in allowed else frozenset(allowed),
        mappings=tuple(mappings),
    )


def _template_of(mapping: HookMapping) -> str | None:
    return mapping.message_template if mapping.action == "agent" else mapping.text_template


def _mapped(mapping: HookMapping, number: int) -> MappedHook:
    hook = mapping.match.path or mapping.id or f"mapping-{number}"
    signature, scheme = mapping.signature, mapping.signature.scheme
    reply = None
    if mapping.deliver and mapping.channel and mapping.to:
        reply = Reply(mapping.channel, mapping.account_id or "default", mapping.to)
    return MappedHook(
        id=mapping.id or hook,
        path=mapping.match.path,
        source=mapping.match.source,
        secret=mapping.secret,
        signature=None
        if scheme == "none"
        else SignatureRules(
            scheme=scheme,
            header=signature.header,
            timestamp_header=signature.timestamp_header,
            id_header=signature.id_header,
            tolerance=signature.tolerance_seconds,
        ),
        template=parse_template(_template_of(mapping) or ""),
        ask=Ask(
            action=mapping.action,
            hook=hook,
            text="",
            agent_id=mapping.agent_id,
            name=(mapping.name or DEFAULT_NAME)[:MAX_NAME],
            isolated=mapping.session_mode == "isolated",
            reply=reply,
            model=mapping.model,
            timeout_ms=mapping.timeout_seconds * 1000 if mapping.timeout_seconds is not None else None,
        ),
    )


def ask_wake(payload: Any) -> Ask:
    """``POST /hooks/wake``. Raises `HookRefused`."""
    body = _object(payload)
    text = _text(body, "text")
    if "sessionKey" in body:
        raise HookRefused("sessionKey cannot be chosen: a wake goes to the agent's main conversation")
    mode: Mode = "next-heartbeat" if body.get("mode") == "next-heartbeat" else "now"
    return Ask(action="wake", hook="wake", text=text, agent_id=_agent(body), mode=mode, isolated=False)


def ask_agent(payload: Any) -> Ask:
    """``POST /hooks/agent``. Raises `HookRefused`."""
    body = _object(payload)
    text = _text(body, "message")
    if "sessionKey" in body or body.get("sessionMode") == "persistent":
        raise HookRefused("sessionKey and sessionMode cannot be chosen here: use a mapping under hooks.mappings")
    if body.get("deliver") is not False and (body.get("channel") or body.get("to")):
        raise HookRefused("channel and to cannot be chosen here: set them in a mapping under hooks.mappings")
    name = body.get("name")
    seconds = body.get("timeoutSeconds")
    limit = None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 1 <= seconds <= 86_400:
        limit = int(seconds) * 1000
    return Ask(
        action="agent",
        hook="agent",
        text=text,
        agent_id=_agent(body),
        name=name.strip()[:MAX_NAME] if isinstance(name, str) and name.strip() else DEFAULT_NAME,
        timeout_ms=limit,
        idempotency_key=key_from(body.get("idempotencyKey")),
    )


def ask_mapped(mappings: Sequence[MappedHook], facts: Facts) -> tuple[MappedHook, Ask] | None:
    """The first mapping whose ``source`` fits, and what it makes of the payload; None: no mapping takes it. Raises
    `HookRefused`."""
    source = facts.payload.get("source") if isinstance(facts.payload, dict) else None
    for mapping in mappings:
        if mapping.source is not None and mapping.source != source:
            continue
        try:
            text = mapping.template.render(facts)
        except TemplateFault as fault:
            raise HookRefused(str(fault)) from fault
        if not text.strip():
            word = "message" if mapping.ask.action == "agent" else "text"
            raise HookRefused(f"{word} required")
        return mapping, attrs.evolve(mapping.ask, text=text)
    return None


def key_from(value: object) -> str | None:
    """An idempotency key as sent, where it is one: a text of at most `MAX_KEY` characters."""
    text = value.strip() if isinstance(value, str) else ""
    return text if 0 < len(text) <= MAX_KEY else None


def request_id(ask: Ask, *, identity: str, signed: str | None, fresh: str) -> str:
    """The id of the run. The same request of the same sender has the same id within the dedupe window (V44): what was
    signed names it, else the key that the sender chose, and ``fresh`` where there is neither.
    """
    parts: tuple[str, ...]
    if signed is not None:
        parts = ("signed", ask.hook, identity, signed)
    elif ask.idempotency_key is not None:
        parts = ("key", ask.hook, identity, ask.idempotency_key, ask.agent_id or "", ask.text)
    else:
        parts = ("fresh", ask.hook, identity, fresh)
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return f"hook:{digest.hexdigest()[:40]}"


def _object(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, dict):
        raise HookRefused("the body must be a JSON object")
    return payload


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        raise HookRefused(f"{key} required")
    if len(value) > MAX_TEXT:
        raise HookRefused(f"{key} has more than {MAX_TEXT} characters")
    return value


def _agent(body: Mapping[str, Any]) -> str | None:
    value = body.get("agentId")
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise HookRefused("agentId must name an agent")
    return value
