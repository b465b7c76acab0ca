"""The JSON Schema of openclaw.json (draft 2020-12), made from the attrs classes.

Owns ``openclaw config schema`` and ``config.schema``: types, defaults, allowed words and a sentence for each setting.
Must not be imported at a start. The sentences live here; docs/reference/configuration.md has one heading for each
(tests compare both with the schema).

Invariants: every setting has a sentence; unknown keys are allowed, because a file made for the whole of OpenClaw is
valid.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

from openclaw_gateway.config.leaves import BIND_NAMES, RANGES
from openclaw_gateway.config.settings import ALIASES, Setting, collections, settings

__all__ = ["DESCRIPTIONS", "json_schema"]

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "gateway.bind": "Where to listen: loopback (this host only), lan (every interface), tailnet, auto, custom "
    "(customBindHost), or an IP address such as 0.0.0.0.",
    "gateway.customBindHost": "The address to listen on when bind is custom.",
    "gateway.port": "The one TCP port for WebSocket and HTTP; 0 takes any free one.",
    "gateway.publicUrl": "The address under which other devices reach this gateway; setup codes name it.",
    "gateway.mode": "local runs a gateway here; remote means the commands talk to the one in gateway.remote.",
    "gateway.auth.type": "How clients prove who they are. OpenClaw's name for it is gateway.auth.mode.",
    "gateway.auth.token": "The shared token; without one a token is generated and kept in the state directory.",
    "gateway.auth.password": "The password in plain text; prefer passwordHash or a ${NAME} reference.",
    "gateway.auth.passwordHash": "The bcrypt hash of the password ($2a$, $2b$ or $2y$, cost 4 to 16).",
    "gateway.auth.passwordChangedAt": "When the password was set (date or Unix seconds); maxAge counts from here.",
    "gateway.auth.policy.minLength": "Least length of a plaintext password.",
    "gateway.auth.policy.requireUppercase": "The password needs a capital letter.",
    "gateway.auth.policy.requireLowercase": "The password needs a small letter.",
    "gateway.auth.policy.requireNumbers": "The password needs a digit.",
    "gateway.auth.policy.requireSymbols": "The password needs a character that is neither letter nor digit.",
    "gateway.auth.policy.maxAge": "How long a password is good, such as 90d; afterwards it is refused.",
    "gateway.auth.expiresIn": "Life of every token that the gateway issues, such as 24h; unset means no end.",
    "gateway.auth.refresh.enabled": "Whether issued tokens can be renewed.",
    "gateway.auth.refresh.maxUses": "How often one issued token can be renewed.",
    "gateway.auth.allowTailscale": "Whether an identity vouched for by Tailscale Serve counts as authentication.",
    "gateway.auth.allowQueryToken": "Whether ?token= in the address is accepted (direct loopback and TLS only).",
    "gateway.transports.websocket.enabled": "Whether WebSocket upgrades are served.",
    "gateway.transports.websocket.pingIntervalMs": "Milliseconds between pings; lower it on an unstable network.",
    "gateway.transports.websocket.pingTimeoutMs": "Milliseconds a peer has for its pong, from the flush of the ping.",
    "gateway.transports.websocket.maxMessageSize": "Bytes of the largest message taken; raise it for large files.",
    "gateway.transports.websocket.concurrentConnections": "Connections in all; one more is closed with 1013.",
    "gateway.transports.websocket.unauthenticatedPerAddress": "Unauthenticated connections one address may hold.",
    "gateway.transports.websocket.maxBufferedBytes": "Unsent bytes for a slow reader before it is closed with 1008.",
    "gateway.transports.websocket.handshakeTimeoutMs": "Milliseconds a client has to authenticate.",
    "gateway.transports.websocket.tickIntervalMs": "Milliseconds between tick events.",
    "gateway.transports.http.enabled": "Whether plain HTTP requests (webhooks, POST /rpc) are served.",
    "gateway.transports.http.port": "Must equal gateway.port or be absent: there is one port.",
    "gateway.transports.http.cors.enabled": "Whether HTTP answers carry CORS headers (never with credentials).",
    "gateway.transports.http.cors.origins": "Origins that CORS allows; * for all. WebSocket has its own rule.",
    "gateway.tailscale.mode": "Publish on the tailnet (serve) or the internet (funnel); needs a loopback bind.",
    "gateway.tailscale.resetOnExit": "true: the route dies with the gateway. false: it stays.",
    "gateway.tailscale.port": "The HTTPS port of this machine's tailnet name; the funnel allows 443, 8443 and 10000.",
    "gateway.tailscale.socket": "The unix socket of tailscaled, where it is not in its usual place.",
    "gateway.tailscale.command": "A tailscale program to use instead of tailscaled's socket.",
    "gateway.controlUi.enabled": "Whether the dashboard is served.",
    "gateway.controlUi.root": "The folder whose files are the dashboard (it holds index.html), such as "
    "dist/control-ui of the installed openclaw package.",
    "gateway.controlUi.allowedOrigins": "Browser origins, scheme://host[:port], that may open a WebSocket.",
    "gateway.trustedProxies": "Addresses or networks of reverse proxies whose forwarding headers are believed.",
    "gateway.clientAddressHeader": "The header in which those proxies say who the client is.",
    "gateway.auth.trustedProxy.userHeader": "The header in which a trusted proxy names the person it authenticated.",
    "gateway.auth.trustedProxy.requiredHeaders": "Headers that have to be there too for the person to be believed.",
    "gateway.auth.trustedProxy.allowUsers": "Who may come in by name; empty: all whom the proxy lets through.",
    "gateway.auth.trustedProxy.allowLoopback": "Whether a proxy on this very host may name people; needs secret too.",
    "gateway.auth.trustedProxy.secret": "What the proxy sends in X-OpenClaw-Proxy-Secret to prove itself.",
    "gateway.auth.identityScopes": "Operator scopes of people whom a proxy or the tailnet vouches for, by name.",
    "gateway.proxyProtocol": "Whether connections begin with a PROXY header; read from trustedProxies alone.",
    "gateway.tls.enabled": "Whether the port speaks TLS 1.3 (wss, https) and nothing else.",
    "gateway.tls.autoGenerate": "Make and renew a certificate of its own where certPath is not set.",
    "gateway.tls.certPath": "PEM file with the certificate, the gateway's own first; watched, renewed while running.",
    "gateway.tls.keyPath": "PEM file with the certificate's private key.",
    "gateway.tls.caPath": "PEM file with further authorities whose client certificates are accepted.",
    "gateway.tls.clientAuth": "Client certificates: off, optional, or required before a byte of HTTP is read.",
    "gateway.network.allow": "Addresses and networks that may connect at all; empty: everybody who is not denied.",
    "gateway.network.deny": "Addresses and networks that may not connect; outranks allow.",
    "gateway.listeners.*.name": "Name of a further listener, in logs, status and the audit trail.",
    "gateway.listeners.*.port": "TCP port of the listener; 0 takes any free one.",
    "gateway.listeners.*.bind": "Where it listens: loopback, lan, tailnet, auto, or an IP address.",
    "gateway.listeners.*.tls": "Whether it speaks TLS; default: as gateway.tls.enabled.",
    "gateway.listeners.*.clientAuth": "Client certificates on it; default: as gateway.tls.clientAuth.",
    "gateway.listeners.*.allow": "Addresses and networks that may connect to it, within gateway.network.",
    "gateway.listeners.*.deny": "Addresses and networks that may not connect to it; outranks allow.",
    "gateway.listeners.*.methods": "RPC methods (node.* for a family) and HTTP paths that can be used through it.",
    "gateway.listeners.*.scopes": "Operator scopes that can be had through it; what is beyond is not granted.",
    "gateway.listeners.*.auth": "How clients prove who they are on it; default: as gateway.auth.type.",
    "gateway.listeners.*.proxyProtocol": "Whether connections to it begin with a PROXY header.",
    "gateway.pairing.autoApprove.loopback": "Pair devices on this host without asking. OpenClaw's name: "
    "gateway.nodes.pairing.autoApproveLocal.",
    "gateway.pairing.autoApprove.ownTailnet": "Pair devices from this host's own tailnet address without asking.",
    "gateway.pairing.autoApprove.lan": "Networks whose fresh, scopeless nodes are paired without asking. "
    "OpenClaw's name: gateway.nodes.pairing.autoApproveCidrs.",
    "gateway.pairing.autoApprove.sharedSecret": "baseline: a signed device with the secret pairs at read and write.",
    "gateway.pairing.requestTtlMs": "Milliseconds a pairing request stays open.",
    "gateway.pairing.setupCodeTtlMs": "Milliseconds a setup code can be used; ten minutes at most.",
    "gateway.pairing.senderCodeTtlMs": "Milliseconds a pairing code for a direct-message sender is good.",
    "gateway.nodes.invokeTimeoutMs": "Milliseconds a node has to answer an invoke.",
    "gateway.nodes.secureChannel": "End-to-end encryption inside the WebSocket: not offered (off), offered (on), or "
    "demanded of every node (required).",
    "gateway.nodes.commands.allow": "Node commands that may be approved besides those of the platform, by exact name.",
    "gateway.nodes.commands.deny": "Node commands that are refused whatever else allows them, by exact name.",
    "gateway.remote.url": "The gateway that commands talk to in remote mode, such as wss://host:18789.",
    "gateway.remote.token": "The remote gateway's token; never used for this host's own gateway.",
    "gateway.remote.password": "The remote gateway's password; never used for this host's own gateway.",
    "gateway.remote.tlsFingerprint": "SHA-256 fingerprint of the remote gateway's key or certificate.",
    "gateway.remote.transport": "direct, ssh (through a tunnel) or tailnet.",
    "gateway.remote.remotePort": "The gateway's port as the ssh host sees it, with transport ssh.",
    "gateway.remote.sshTarget": "user@host or user@host:port, with transport ssh.",
    "gateway.remote.sshIdentity": "The private key file that ssh uses, an absolute path.",
    "gateway.remote.sshKnownHosts": "The file of known host keys, an absolute path; unset: ssh's own.",
    "gateway.remote.sshHostKeyPolicy": "strict: known keys alone. openssh: as the user's ssh configuration "
    "says.",
    "gateway.remote.routes.*.url": "The address of this route, such as wss://host:18789.",
    "gateway.remote.routes.*.tlsFingerprint": "SHA-256 fingerprint of the certificate or key on this route.",
    "gateway.remote.routes.*.transport": "direct, ssh (through a tunnel) or tailnet.",
    "gateway.remote.routes.*.remotePort": "The gateway's port as the ssh host sees it, with transport ssh.",
    "gateway.remote.routes.*.sshTarget": "user@host or user@host:port, with transport ssh.",
    "gateway.remote.routes.*.sshIdentity": "The private key file that ssh uses, an absolute path.",
    "gateway.remote.routes.*.sshKnownHosts": "The file of known host keys, an absolute path; unset: ssh's own.",
    "gateway.remote.routes.*.sshHostKeyPolicy": "strict: known keys alone. openssh: as the user's own ssh "
    "configuration says.",
    "gateway.tunnels.*.name": "What the tunnel is called in status and in openclaw tunnel list.",
    "gateway.tunnels.*.host": "The ssh host.",
    "gateway.tunnels.*.direction": "remote publishes a port on the ssh host (-R), local brings one here (-L).",
    "gateway.tunnels.*.user": "The user on the ssh host.",
    "gateway.tunnels.*.port": "The port of sshd over there; unset: ssh's own choice, 22.",
    "gateway.tunnels.*.bindPort": "The port to listen on, loopback of the ssh host (remote) or here (local).",
    "gateway.tunnels.*.targetPort": "Where it leads; unset: this gateway (remote), 18789 over there (local).",
    "gateway.tunnels.*.identity": "The private key file that ssh uses, an absolute path.",
    "gateway.tunnels.*.knownHosts": "The file of known host keys; unset: ssh's own.",
    "gateway.tunnels.*.hostKeyPolicy": "strict: known keys alone. openssh: as the user's own ssh configuration says.",
    "gateway.tunnels.*.aliveInterval": "Seconds between keep-alive messages; three unanswered ones end it.",
    "gateway.tunnels.*.enabled": "false: the tunnel stays closed.",
    "channels.*.enabled": "Whether the channel runs.",
    "channels.*.dm.policy": "Who may write directly: open, pairing (a stranger asks for a code), allowlist, closed. "
    "OpenClaw's name: dmPolicy, with disabled for closed.",
    "channels.*.dm.allowFrom": "Stable ids of senders that are always let in. OpenClaw's name: allowFrom.",
    "discovery.mdns.mode": "What is said about the gateway on the LAN: off (nothing), minimal (nothing about the "
    "host), full (also its name, ssh port and the path of the command). Nothing is said while only this host can "
    "connect.",
    "discovery.wideArea.domain": "The DNS domain under which the gateway is found beyond its LAN, such as "
    "openclaw.internal: the gateway writes its zone file, the commands ask it.",
    "discovery.wideArea.zoneFile": "The zone file; default: dns/openclaw.internal.db in the state directory, named "
    "after the domain.",
    "agents.defaults.model.primary": "The model that agents use, as provider/model; a bare text for model means this.",
    "agents.defaults.model.fallbacks": "Models that are tried in this order when the first cannot answer.",
    "agents.defaults.timeoutSeconds": "Seconds that a run may take.",
    "agents.defaults.contextTokens": "How many tokens of a session are handed to a model (estimated).",
    "agents.list.*.id": "The agent's id: lower case letters, digits, _ and -.",
    "agents.list.*.name": "The name that people see.",
    "agents.list.*.default": "Whether this agent answers where none is named; without one, the first does.",
    "agents.list.*.kind": "model (a model service answers), echo (says what it was told; needs no key), subprocess "
    "(a program of yours), plugin (an installed Python package).",
    "agents.list.*.model.primary": "The model of this agent, as provider/model.",
    "agents.list.*.model.fallbacks": "Models of this agent that are tried when the first cannot answer.",
    "agents.list.*.systemPrompt": "What a model is told before the conversation.",
    "agents.list.*.command": "The program of a subprocess agent and its arguments, as a list.",
    "agents.list.*.plugin": "The name under which an installed package offers the agent; default: its id.",
    "agents.list.*.env": "Environment variables of a subprocess agent; it gets none of the gateway's own but PATH, "
    "HOME and the like.",
    "gateway.http.endpoints.chatCompletions.enabled": "Whether /v1/models and /v1/chat/completions are served, for "
    "programs that speak OpenAI's API.",
    "models.providers.*.api": "What the service speaks: anthropic-messages (or anthropic), openai-completions "
    "(openai), google-generative-ai (google). Default: what its name stands for, else openai-completions.",
    "models.providers.*.baseUrl": "Where the service is, such as http://127.0.0.1:8000/v1; anthropic, openai and "
    "google need none.",
    "models.providers.*.apiKey": "The key of the service; anthropic, openai and google also take ANTHROPIC_API_KEY, "
    "OPENAI_API_KEY and GEMINI_API_KEY from the environment.",
    "models.providers.*.authHeader": "Whether the key is sent as Authorization: Bearer whatever the API's own header.",
    "models.providers.*.headers": "Headers that are sent with every request to the service.",
    "models.providers.*.maxTokens": "Most tokens of an answer of this service's models.",
    "models.providers.*.timeoutSeconds": "Seconds of silence after which an answer of the service is given up.",
    "models.providers.*.models.*.id": "The model's name as the service knows it.",
    "models.providers.*.models.*.name": "The name that people see.",
    "models.providers.*.models.*.input": "What the model takes: text, image.",
    "models.providers.*.models.*.reasoning": "Whether the model is asked for its thoughts.",
    "models.providers.*.models.*.contextWindow": "Tokens that the model can take in all.",
    "models.providers.*.models.*.contextTokens": "Tokens of a conversation that are handed to the model at most.",
    "models.providers.*.models.*.maxTokens": "Most tokens of an answer of this model.",
    "gateway.auth.oidc.issuer": "The OpenID provider at which operators log in, exactly as its tokens name it; unset: "
    "there is no such login.",
    "gateway.auth.oidc.clientId": "The id under which the provider knows this gateway.",
    "gateway.auth.oidc.clientSecret": "The secret that goes with clientId; unset for a public client.",
    "gateway.auth.oidc.allowUsers": "Who may log in: subjects (sub), or e-mail addresses that the provider verified.",
    "gateway.auth.oidc.scopes": "What somebody may do who logged in.",
    "gateway.auth.oidc.redirectUri": "Where the provider sends people back to, exactly as registered there; default: "
    "gateway.publicUrl and /auth/callback, on a loopback bind http://127.0.0.1:<port>/auth/callback.",
    "hooks.enabled": "Whether requests to hooks.path are taken.",
    "hooks.token": "The secret of /hooks/wake, /hooks/agent and every mapping without a secret of its own. Nothing "
    "else may have the same value.",
    "hooks.path": "The path below which webhooks are.",
    "hooks.allowedAgentIds": "Agents that webhooks may start; * for every agent, [] for none.",
    "hooks.mappings.*.id": "A name for the mapping; default: its path.",
    "hooks.mappings.*.match.path": "What follows hooks.path in the address, such as github; unset: every path that no "
    "mapping before takes.",
    "hooks.mappings.*.match.source": "The text that the payload's source must be.",
    "hooks.mappings.*.action": "agent: an agent is asked in the hook's own conversation. wake: the agent's main "
    "conversation hears of it.",
    "hooks.mappings.*.name": "What people see as the sender.",
    "hooks.mappings.*.agentId": "The agent that is asked; default: the default agent.",
    "hooks.mappings.*.sessionMode": "isolated: the agent does not see earlier requests of the hook; persistent: it "
    "does.",
    "hooks.mappings.*.messageTemplate": "What the agent is asked, with fields of the payload such as "
    "{{repository.name}} (action agent).",
    "hooks.mappings.*.textTemplate": "What the agent is told, with fields of the payload (action wake).",
    "hooks.mappings.*.secret": "The mapping's own secret; hooks.token does not open it then.",
    "hooks.mappings.*.signature.scheme": "How the sender signs with the secret: none (it sends the secret), body "
    "(GitHub), timestamped, standard (Standard Webhooks), slack, stripe.",
    "hooks.mappings.*.signature.header": "The header that holds the signature; default: the scheme's own.",
    "hooks.mappings.*.signature.timestampHeader": "The header that holds the time of signing, in Unix seconds.",
    "hooks.mappings.*.signature.idHeader": "The header that holds the id of the request (standard).",
    "hooks.mappings.*.signature.toleranceSeconds": "Seconds that the time of signing may be off.",
    "hooks.mappings.*.deliver": "false: the answer is not sent to channel and to.",
    "hooks.mappings.*.channel": "The channel that the answer is sent to, together with to.",
    "hooks.mappings.*.accountId": "The account of the channel; default: default.",
    "hooks.mappings.*.to": "The conversation that the answer is sent to. A payload cannot choose it.",
    "hooks.mappings.*.model": "The model to ask instead of the agent's own.",
    "hooks.mappings.*.timeoutSeconds": "Seconds that an answer may take.",
    "hooks.outbound.*.name": "A name for the target; messages to one target keep their order.",
    "hooks.outbound.*.url": "Where events are sent to (POST). Counts as a secret.",
    "hooks.outbound.*.secret": "The secret that requests are signed with: whsec_ and base64, or any text.",
    "hooks.outbound.*.events": "The events that are sent.",
    "hooks.outbound.*.enabled": "Whether events are sent to this target.",
    "hooks.outbound.*.allowPrivate": "Whether the target may be on this host, in this network or on a tailnet, and "
    "may speak http://.",
    "session.dmScope": "Which direct messages share a conversation: per-channel-peer (each sender has their own), "
    "per-peer, per-account-channel-peer, or main (all of them share one).",
    "session.reset.mode": "When a conversation starts anew by itself: none, daily, idle.",
    "session.reset.atHour": "The hour of the daily reset, 0 to 23, local time.",
    "session.reset.idleMinutes": "Minutes without a message after which a conversation starts anew.",
    "session.transcript.maxBytes": "Bytes that are kept of one conversation; over it its oldest turns go.",
    "session.transcript.maxTotalBytes": "Bytes that are kept of all conversations; over it transcripts from before a "
    "reset go, then the oldest turns of the largest conversation. Backups take as much again, each.",
    "logging.level": "The least severe lines that are logged.",
    "logging.maxBytes": "Bytes at which the log file is rotated. OpenClaw's name: maxFileBytes.",
    "logging.backups": "Rotated log files that are kept.",
    "logging.file": "The log file; default: logs/gateway.log in the state directory.",
    "logging.console": "Whether lines also go to the terminal.",
}

_DURATIONS: Final = frozenset({"gateway.auth.expiresIn", "gateway.auth.policy.maxAge"})


def json_schema() -> dict[str, Any]:
    """The schema as a JSON value."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "openclaw.json",
        "type": "object",
        "properties": {},
        "additionalProperties": True,
    }
    for path, setting in settings().items():
        _place(root, path, _leaf(setting))
    for alias, target in ALIASES.items():
        note = {**_leaf(settings()[target]), "description": f"Another name of {target}.", "deprecated": True}
        _place(root, alias, note)
    return root


def _place(root: dict[str, Any], path: str, leaf: dict[str, Any]) -> None:
    node, at = root, ""
    *blocks, key = path.split(".")
    for block in blocks:
        empty: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}
        if block == "*":
            slot = "items" if collections()[at].kind == "list" else "additionalProperties"
            if slot == "items":
                node["type"] = "array"
                node.pop("properties", None)
                node.pop("additionalProperties", None)
            if not isinstance(node.get(slot), dict):
                node[slot] = empty
            node = node[slot]
        else:
            node = node["properties"].setdefault(block, empty)
        at = f"{at}.{block}" if at else block
    node["properties"].setdefault(key, leaf)
    if path in settings() and settings()[path].required:
        node.setdefault("required", []).append(key)


def _leaf(setting: Setting) -> dict[str, Any]:
    out: dict[str, Any] = {"description": DESCRIPTIONS[setting.path], **_type(setting)}
    if setting.default is not None:
        out["default"] = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    if setting.secret:
        out["writeOnly"] = True
    return out


def _is_map(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _type(setting: Setting) -> dict[str, Any]:
    if setting.path == "gateway.bind":
        return {"type": "string", "anyOf": [{"enum": list(BIND_NAMES)}, {"format": "ipv4"}, {"format": "ipv6"}]}
    if setting.path in _DURATIONS:
        return {"type": ["string", "number"], "examples": ["15m", "24h", "90d"]}
    if setting.path == "gateway.auth.passwordChangedAt":
        return {"type": ["string", "number"], "examples": ["2026-01-31"]}
    kinds = [kind for kind in (typing.get_args(setting.type) or (setting.type,)) if kind is not type(None)]
    if typing.get_origin(setting.type) is Literal:
        return {"type": "string", "enum": kinds}
    if typing.get_origin(setting.type) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    if kinds == [bool]:
        return {"type": "boolean"}
    if kinds == [int]:
        low, high = RANGES.get(setting.path, (1, 2**53))
        return {"type": "integer", "minimum": low, "maximum": high}
    if kinds == [float]:
        return {"type": "number"}
    if _is_map(setting.type):
        return {"type": "object"}
    return {"type": "string"}
