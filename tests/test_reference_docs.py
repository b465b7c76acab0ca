"""docs/reference/methods.md, http.md and limits.md say what the code does: every method, every route, every bound."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from openclaw_gateway import GatewayConfig
from openclaw_gateway.agents import counting, references, search, subprocess, trimming, usage
from openclaw_gateway.agents import rows as agent_rows
from openclaw_gateway.agents import sessions as agent_sessions
from openclaw_gateway.app import life
from openclaw_gateway.approvals import door as approval_door
from openclaw_gateway.approvals import offers as approval_offers
from openclaw_gateway.channels import delivery, discord, intake, telegram, whatsapp
from openclaw_gateway.channels import hub as channel_hub
from openclaw_gateway.channels import service as channel_service
from openclaw_gateway.channels.adapter import RETRY_MS
from openclaw_gateway.client import discovery, routes
from openclaw_gateway.client import tls as client_tls
from openclaw_gateway.completions import routes as completions
from openclaw_gateway.config import pending
from openclaw_gateway.config import rules as config_rules
from openclaw_gateway.config.settings import settings
from openclaw_gateway.discovery import (
    browser,
    found,
    known,
    lans,
    mdnsthread,
    probe,
    records,
    responder,
    signer,
    unicast,
)
from openclaw_gateway.events import presence
from openclaw_gateway.hooks import inbound, login, outbound, provider, requests, sender, template
from openclaw_gateway.models import failover, service, sse
from openclaw_gateway.nodes import broker, hub, queue, reports, rows
from openclaw_gateway.ops import doctor_network
from openclaw_gateway.pairing import clientca, clientcerts
from openclaw_gateway.policy import forwarded, locality, vouching
from openclaw_gateway.protocol import jsonrpc, noisechannel, noisegreeting, proxyline
from openclaw_gateway.queues.records import MAX_PAYLOAD, QueueRules
from openclaw_gateway.rpc import dispatch, nodes, sessionmany, sessionstart, table
from openclaw_gateway.rpc import usage as usage_methods
from openclaw_gateway.rpc.table import ANY_OPERATOR, ParamsReader, camel
from openclaw_gateway.server import (
    calls,
    certificates,
    channelhooks,
    connection,
    handshake,
    incoming,
    listening,
    passwords,
    proxyprotocol,
    registry,
    session,
    underway,
    upgrade,
    wire,
)
from openclaw_gateway.tailscale import cli as tailscale_cli
from openclaw_gateway.tailscale import identity, localapi
from openclaw_gateway.testing import open_memory_gateway
from openclaw_gateway.tunnels import guard, pace
from openclaw_gateway.tunnels import registry as tunnel_registry
from openclaw_gateway.tunnels import service as tunnel_service

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
METHODS = (REFERENCE / "methods.md").read_text(encoding="utf-8")
LIMITS = (REFERENCE / "limits.md").read_text(encoding="utf-8")


async def test_each_method_has_a_heading_with_its_scope_and_parameters() -> None:
    sections = dict(re.findall(r"^## ([\w.-]+)\n(.*?)(?=^## |\Z)", METHODS, re.MULTILINE | re.DOTALL))
    async with open_memory_gateway() as gateway:
        assert list(sections) == gateway.rpc.names
        for name, text in sections.items():
            spec = gateway.rpc.get(name)
            assert spec is not None
            words = " ".join(text.split())
            scope = "none: every operator" if spec.scope == ANY_OPERATOR else f"`{spec.scope}`"
            scope = "role node" if spec.roles == {"node"} else scope
            assert f"- scope: {scope} - params:" in words, name
            if not isinstance(spec.params, ParamsReader):
                continue
            params = words.split("- params: ")[1].split(" - result:")[0]
            told = re.findall(r"`(\w+)` \(\w+(, required)?\)", params)
            fields = attrs.fields(spec.params.type)
            expected = [(camel(field.name), ", required" * (field.default is attrs.NOTHING)) for field in fields]
            assert told == expected, name


async def test_each_http_route_is_in_the_table() -> None:
    text = (REFERENCE / "http.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(/[^`]*)`", text.split("\n## ")[0]))
    async with open_memory_gateway() as gateway:
        routes = {*gateway._http.routes, *(f"{prefix}…" for prefix in gateway._http.prefixes)}
    assert routes <= told


QUEUE = QueueRules()
TRANSCRIPT = GatewayConfig().session.transcript
WEBSOCKET = GatewayConfig().transports.websocket
BOUNDS = {
    "size of an HTTP head": upgrade.MAX_HEAD_BYTES,
    "time for an HTTP head, and idle keep-alive": upgrade.KEEP_ALIVE_SECONDS,
    "body of `POST /rpc`": incoming.MAX_BODY_BYTES,
    "time for a body": incoming.BODY_SECONDS,
    "TLS handshake and PROXY header": connection.OPENING_SECONDS,
    "admitted HTTP requests under way": underway.MAX_UNDER_WAY,
    "message before hello": handshake.PRE_AUTH_BYTES,
    "time from the upgrade to hello": WEBSOCKET.handshake_timeout_ms,
    "greeting of a secure channel": noisegreeting.MAX_GREETING,
    "pieces with one key of a secure channel": noisechannel.REKEY_AFTER,
    "time with one key of a secure channel": noisechannel.REKEY_SECONDS,
    "frames that wait behind a connect": handshake.MAX_PARKED,
    "unauthenticated sockets of one address": WEBSOCKET.unauthenticated_per_address,
    "unauthenticated sockets in all": registry.MAX_STRANGERS,
    "password checks that wait": passwords.MAX_WAITING,
    "listeners in the configuration, beside the main one": config_rules.MAX_LISTENERS,
    "listeners open at once": listening.MAX_LISTENERS,
    "certificate, key or authority file": certificates.MAX_BYTES,
    "names in a generated certificate": certificates.MAX_NAMES,
    "client certificates of one device": clientcerts.MAX_PER_DEVICE,
    "life of a client certificate": clientca.LIFE_DAYS,
    "certificate request": clientca.MAX_REQUEST_CHARS,
    "pins that a client accepts at once": client_tls.MAX_PINS,
    "PROXY header": proxyline.MAX_BYTES,
    "time for a PROXY header": proxyprotocol.SECONDS,
    "addresses of a forwarding header that are looked at": locality.MAX_HOPS,
    "`Forwarded` headers together": forwarded.MAX_LENGTH,
    "name of a person from a proxy": vouching.MAX_USER,
    "longest time that a change may wait for its confirmation": pending.LONGEST_SECONDS,
    "shortest time that a change may wait for its confirmation": pending.SHORTEST_SECONDS,
    "addresses that `doctor --network` asks": doctor_network.MAX_DOORS,
    "admitted connections": WEBSOCKET.concurrent_connections,
    "message after hello": WEBSOCKET.max_message_size,
    "bytes that wait to be sent": WEBSOCKET.max_buffered_bytes,
    "ping interval": WEBSOCKET.ping_interval_ms,
    "time for a pong after the ping was flushed": WEBSOCKET.ping_timeout_ms,
    "calls in flight that need a task": calls.MAX_RUNNING,
    "calls of another role": calls.MAX_WRONG_ROLE,
    "time to flush a Close frame": session.GOODBYE_SECONDS,
    "a send that makes no progress": wire.STALL_SECONDS,
    "a send as a whole": wire.SEND_SECONDS,
    "methods": table._MAX_METHODS,
    "calls of a JSON-RPC batch": jsonrpc.MAX_BATCH,
    "idempotency keys": dispatch.MAX_KEYS,
    "answers kept for idempotency keys": dispatch.MAX_KEPT_CHARS,
    "life of an idempotency key": dispatch.KEY_SECONDS,
    "presence entries": presence.MAX_ENTRIES,
    "time between two `presence` events": presence.WINDOW_SECONDS,
    "conversations of one `sessions.preview`": sessionstart.MAX_PREVIEWS,
    "messages of a conversation in it": sessionstart.MAX_PREVIEW_ITEMS,
    "text of such a message": sessionstart.MAX_PREVIEW_CHARS,
    "sessions that a short id is answered with": references.MAX_CANDIDATES,
    "conversations that `sessions.patchMany` changes": sessionmany.MAX_TARGETS,
    "hits of one `sessions.search`": sessionmany.MAX_HITS,
    "bytes of transcripts that one search looks through": search.MAX_BYTES,
    "counters of what runs used": counting.MAX_ROWS,
    "conversations of one `sessions.usage`": usage_methods.MAX_LIMIT,
    "details of conversations in it": usage.MAX_DETAILS,
    "calls of `sessions.usage`, `usage.cost` and `sessions.search` that wait, of each": usage_methods.WAITING,
    "points of `sessions.usage.timeseries`": usage.MAX_POINTS,
    "lines of `sessions.usage.logs`": usage.MAX_LOGS,
    "time for a node to answer": GatewayConfig().nodes.invoke_timeout_ms,
    "time that a caller may give a node": nodes.MAX_TIMEOUT_MS,
    "open invokes of one node": broker.MAX_OPEN_PER_NODE,
    "open invokes in all": broker.MAX_OPEN,
    "params of an invoke": broker.MAX_PARAMS_BYTES,
    "result of an invoke": broker.MAX_RESULT_CHARS,
    "invokes whose late result is waited for": broker.MAX_LATE,
    "late results together": broker.MAX_LATE_CHARS,
    "life of a late result": broker.LATE_SECONDS,
    "a report of a node": reports.MAX_REPORT_CHARS,
    "skills of a node": reports.MAX_SKILLS,
    "skills of a node together": reports.MAX_SKILLS_CHARS,
    "tools of a node": reports.MAX_TOOLS,
    "tools of a node together": reports.MAX_TOOLS_CHARS,
    "runner inventory of a node": reports.MAX_INVENTORY_CHARS,
    "time between host stats": hub.STATS_SECONDS,
    "requests for surfaces": rows.MAX_REQUESTS,
    "work that waits for one node": queue.MAX_PER_NODE,
    "work that waits for all nodes": queue.MAX_TOTAL,
    "life of waiting work": queue.MAX_TTL_MS,
    "form of the approval page": approval_door.MAX_BODY,
    "pages that were shown and wait for a decision": approval_offers.MAX_OFFERS,
    "life of a sign-in at the approval page": approval_offers.SIGN_IN_SECONDS,
    "networks that are announced on": lans.MAX_LANS,
    "addresses announced on a network": lans.MAX_ADDRESSES,
    "what is said (TXT)": records.MAX_TXT_BYTES,
    "renames in an hour": responder.MAX_RENAMES,
    "tries to announce in a row": 1 + len(responder.RETRY_SECONDS),
    "time between two looks whether we are seen": responder.LOOK_SECONDS,
    "time for the goodbye of a stop": mdnsthread.CLOSE_SECONDS,
    "time for the child that signs": signer.SIGN_SECONDS,
    "announcements that are kept": found.MAX_INSTANCES,
    "addresses of a found gateway": found.MAX_ADDRESSES,
    "names on a network, or news of names in a minute": browser.MAX_NAMES,
    "names that are remembered over a pause": browser.MAX_HEARD,
    "time to be heard again after a pause": browser.FORGET_SECONDS,
    "time until listening that could not begin is tried again": browser.AGAIN_SECONDS,
    "names that wait to be read": browser.MAX_PENDING,
    "names that are asked for": browser.MAX_RESOLVING,
    "time to ask for a name": browser.ASK_SECONDS,
    "looks whether a gateway answers, at once": discovery.PROBES_AT_ONCE,
    "time for a look": probe.PROBE_SECONDS,
    "answer to a look": probe.MAX_BODY,
    "time between two looks at an address": discovery.PROBE_AGAIN_SECONDS,
    "instances of a type in a DNS domain": unicast.MAX_NAMES,
    "a DNS question": unicast.QUESTION_SECONDS,
    "known gateways that one is compared with": known.MAX_KNOWN,
    "time for an answer of tailscaled": localapi.REQUEST_SECONDS,
    "an answer of tailscaled": localapi.MAX_BODY,
    "a line of tailscaled's bus": localapi.MAX_LINE,
    "time for `tailscale serve` to stand": tailscale_cli.START_SECONDS,
    "whois answers remembered": identity.MAX_ENTRIES,
    "whois questions under way": identity.MAX_LOOKUPS,
    "life of a whois answer": identity.KNOWN_SECONDS,
    "life of a whois failure": identity.UNKNOWN_SECONDS,
    "tunnels of the configuration": tunnel_service.MAX_CONFIGURED,
    "tunnels that run on a host": tunnel_registry.MAX_TUNNELS,
    "a line of ssh": guard.MAX_LINE,
    "longest wait before ssh is started again": pace.LONGEST_SECONDS,
    "routes to a remote gateway": routes.MAX_ROUTES,
    "life of the memory of a route": routes.REMEMBER_SECONDS,
    "body of `POST /v1/chat/completions`": completions.MAX_BODY,
    "answer of a model service on the wire": service.MAX_ANSWER,
    "event of a model service": sse.MAX_EVENT,
    "connections to one model service": service.MAX_CONNECTIONS,
    "tries of one question at one model service": failover.MAX_TRIES,
    "wait between tries of one question, all together": failover.MAX_WAIT_MS,
    "a line of a subprocess agent": subprocess.MAX_LINE,
    "output of a subprocess agent": subprocess.MAX_OUTPUT,
    "programs of one subprocess agent": subprocess.MAX_PROCESSES,
    "messages of a queue": QUEUE.max_messages,
    "bytes of a queue": QUEUE.max_bytes,
    "bytes of one message": MAX_PAYLOAD,
    "dead letters of a queue": QUEUE.max_dead,
    "bytes of them": QUEUE.max_dead_bytes,
    "tries of a message": QUEUE.max_attempts,
    "longest wait between two of them": QUEUE.longest_retry_ms,
    "time for which a message is known again": QUEUE.dedupe_ms,
    "messages of a queue that are known again": QUEUE.max_seen,
    "sessions": agent_rows.MAX_SESSIONS,
    "sessions in which nothing was said": agent_sessions.MAX_EMPTY,
    "messages of one conversation": agent_rows.KEPT_MESSAGES,
    "bytes of one conversation": TRANSCRIPT.max_bytes,
    "bytes of all conversations": TRANSCRIPT.max_total_bytes,
    "transcripts that resets left behind": trimming.MAX_PAST,
    "channel accounts": channel_hub.MAX_ACCOUNTS,
    "answer of a message service": channel_service.MAX_ANSWER,
    "one piece of an answer": delivery.SEND_SECONDS,
    "characters of a Telegram message": telegram.LIMIT,
    "characters of a WhatsApp message": whatsapp.LIMIT,
    "characters of a Discord message": discord.LIMIT,
    "answers whose pieces are under way": delivery.MAX_PROGRESS,
    "codes and notes that wait for a service which asked to wait": intake.MAX_WORDS,
    "requests to one account's webhook at a time": channel_hub.MAX_WEBHOOKS,
    "requests to channels' webhooks from one address at a time": channelhooks.MAX_OF_ONE_ADDRESS,
    "body of a channel's webhook": incoming.MAX_BODY_BYTES,
    "Discord events that wait to be taken over": discord.MAX_WAITING,
    "longest wait before a lost connection is tried again": (RETRY_MS["reconnecting"] or (0, 0))[1],
    "the same after a conflict": (RETRY_MS["conflict"] or (0, 0))[1],
    "the same after a refused token": (RETRY_MS["auth-failed"] or (0, 0))[1],
    "wrong secrets of webhooks a minute": inbound.LOCKOUT.attempts,
    "bodies read before their signature is known": inbound.MAX_UNPROVEN,
    "the same of one address": inbound.MAX_UNPROVEN_PER_PEER,
    "template of a webhook": template.MAX_TEMPLATE,
    "fields of a template": template.MAX_FIELDS,
    "text of a webhook, rendered": template.MAX_RENDERED,
    "idempotency key of a webhook": requests.MAX_KEY,
    "body of an outbound webhook": outbound.MAX_BODY,
    "one try of an outbound webhook": sender.SEND_SECONDS,
    "events that wait for the outbound queue": outbound.CAPACITY,
    "logins under way": login.MAX_ATTEMPTS,
    "time for a login": login.ATTEMPT_SECONDS,
    "tokens of one person who logged in": login.MAX_PER_PERSON,
    "answer of an OpenID provider": provider.MAX_ANSWER,
    "time for an answer of an OpenID provider": provider.ANSWER_SECONDS,
    "drain of all connections": life.DRAIN_SECONDS,
    "the whole stop": life.STOP_SECONDS,
}
ROWS = {
    row[0]: row[1:]
    for row in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in LIMITS.splitlines() if line.startswith("| ")
    )
    if row[0] != "limit"
}


def test_the_table_of_limits_is_complete() -> None:
    assert list(ROWS) == list(BOUNDS)


@pytest.mark.parametrize("limit", BOUNDS)
def test_each_limit_is_the_one_in_the_code(limit: str) -> None:
    value, _, where = ROWS[limit]
    assert float(value.split()[0]) == BOUNDS[limit]
    if where != "fixed":
        assert settings()[where.strip("`")].default == BOUNDS[limit]


def test_life4_the_drain_fits_into_the_stop_and_the_stop_into_five_seconds() -> None:
    assert session.GOODBYE_SECONDS < life.DRAIN_SECONDS < life.STOP_SECONDS < 5
