"""What this gateway says and takes, held against OpenClaw's own schemas with OpenClaw's own validator.

Official clients read these shapes without checking them, so a member that is missing or of another kind shows as a
blank or a crash somewhere in a page: here it shows as a line. A story (`schema_story`) makes the gateway say everything
once; every frame, result, event payload and error is then judged. What may differ stands in a list with its reason, and
an entry that is no longer needed fails as well.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.protocol.errors import ERRORS

from .official_schemas import TEXT, Asked, OfficialSchemas, params_samples
from .processes import Official
from .schema_story import Story, node, open_storied_gateway, tell_story, witness

Rows = Callable[[Any], Iterable[Any]]

HEALTH = "Snapshot/properties/health"
# Where official naming does not lead from the wire name to the schema.
RESULTS: Final = {
    "connect": "HelloOk",
    "health": HEALTH,
    "config.schema": "ConfigSchemaResponse",
    "agent.identity.get": "AgentIdentityResult",
    "exec.approvals.get": "ExecApprovalsSnapshot",
}
PARAMS: Final = {"agent.identity.get": "AgentIdentityParams"}
EVENTS: Final = {"health": HEALTH}
# Parts of results and events that have a schema where the whole has none.
_PAGE: Final = "ChatHistoryCursorResult/anyOf/0/properties"
PARTS: Final[dict[str, tuple[str, Rows]]] = {
    "system-presence": ("PresenceEntry", list),
    "sessions.list": ("SessionRow", lambda told: told["sessions"]),
    "sessions.describe": ("SessionRow", lambda told: _some(told["session"])),
    "sessions.patch": ("SessionRow", lambda told: [told["entry"]]),
    "sessions.create": ("SessionRow", lambda told: [told["entry"]]),
    "sessions.search": ("SessionRow", lambda told: told["sessions"]),
    "chat.history": (f"{_PAGE}/pendingInputs", lambda told: _some(told.get("pendingInputs"))),
    "chat.startup": ("SessionRow", lambda told: _some(told.get("sessionInfo"))),
    "presence": ("PresenceEntry", lambda told: told["presence"]),
    "sessions.changed": ("SessionRow", lambda told: _some(told.get("session"))),
    "session.message": ("SessionRow", lambda told: [told["session"]]),
    "node.hostStats": ("NodeHostStatsPayload", lambda told: [_without(told["hostStats"], "updatedAtMs")]),
}


@attrs.frozen
class Deviation:
    """A fault that stays: what shows it, what the validator says, and why it is right."""

    subject: str
    fault: str
    reason: str


_SENT_TOO = "OpenClaw's own gateway 2026.9.6 sends this member as well; its schema was not widened"
_OWN_AUDIT = "the hub records who connected and who decided; OpenClaw's event types tell of agents' runs alone"
DEVIATIONS: Final = (
    Deviation("agent", "/agentId: unexpected", _SENT_TOO),
    Deviation("agent", "/sessionKey: unexpected", _SENT_TOO),
    Deviation("health", "/modelRuntime: unexpected", _SENT_TOO),
    Deviation("models.list", "/accountSelection: unexpected", _SENT_TOO),
    Deviation("models.list", "/defaultModels: unexpected", _SENT_TOO),
    *(
        Deviation("audit.activity.list", f"/events/*{fault}", _OWN_AUDIT)
        for fault in (
            ": must have required properties agentId, runId",
            "/action: must be equal to constant",
            "/action: must match a schema in anyOf",
            "/eventType: must be equal to constant",
            "/gateway: unexpected",
            "/kind: must be equal to constant",
        )
    ),
)


@attrs.frozen
class Refusal:
    """Parameters that the official schema permits and this gateway refuses, rightly."""

    method: str
    member: str
    reason: str


# What a request needs to mean something, besides what the schema requires; the member under test comes on top.
MEANT: Final[dict[str, dict[str, Any]]] = {
    "send": {"message": "hello", "channel": "telegram"},
    "sessions.usage": {"startDate": "2026-01-01", "endDate": "2026-01-31"},
    "message.action": {"channel": "telegram", "action": "send", "params": {"target": "111", "message": "hello"}},
}
REFUSALS: Final = (
    *(
        Refusal("send", member, "files and voice cannot be sent by hand here: left out, nobody would miss them in time")
        for member in ("asVoice", "buffer", "filename", "mediaUrl", "mediaUrls")
    ),
    Refusal("audit.activity.list", "cursor", "a cursor is one that this method gave out; the schema takes any text"),
    Refusal("chat.send", "attachments", "the schema takes any value; an attachment without a type is no attachment"),
    Refusal("sessions.send", "attachments", "as of chat.send"),
    *(
        Refusal("sessions.create", member, "what is asked for is not here, and a page must not believe that it is")
        for member in (
            "catalogId", "cwd", "execNode", "fork", "forkFrom", "incognito", "projectGitUrl", "projectId", "repository",
            "visibility", "worktree",
        )
    ),
    Refusal("sessions.patch", "expectedSessionId", "the sample names another transcript than the one there is"),
    Refusal("agent", "attachments", "the schema takes any value; an attachment without a type is no attachment"),
)


def _some(value: Any) -> list[Any]:
    return [] if value is None else [value]


def _without(row: dict[str, Any], member: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != member}


@pytest.fixture(scope="module")
def schemas(official: Official) -> OfficialSchemas:
    return OfficialSchemas(official)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    folder.chmod(0o700)
    return trio.run(tell_story, folder)


def result_schema(schemas: OfficialSchemas, method: str) -> str | None:
    return RESULTS.get(method) or schemas.named(method, "Result")


def said(schemas: OfficialSchemas, story: Story) -> Iterator[Asked]:
    """Everything in the story that has an official schema."""
    for reply in story.replies:
        yield Asked("response", "ResponseFrame", reply.frame)
        if not reply.frame["ok"]:
            yield from _error(reply.frame["error"])
            continue
        schema = result_schema(schemas, reply.asked)
        if schema is not None:
            yield Asked(reply.asked, schema, reply.payload)
        yield from _parts(reply.asked, reply.payload)
    for frame in story.events:
        name = frame["event"]
        yield Asked("event", "EventFrame", frame)
        schema = EVENTS.get(name) or schemas.named(name, "Event")
        if schema is not None:
            yield Asked(name, schema, frame["payload"])
        yield from _parts(name, frame["payload"])


def _parts(name: str, payload: Any) -> Iterator[Asked]:
    if name in PARTS:
        schema, rows = PARTS[name]
        for row in rows(payload):
            yield Asked(f"{name} part", schema, row)
    if name == "chat.history":
        for receipt in payload.get("inputReceipts", []):
            yield Asked(f"{name} part", f"{_PAGE}/inputReceipts/items", receipt)


def _error(error: dict[str, Any]) -> Iterator[Asked]:
    details = error.get("details") or {}
    if details.get("code") == "MISSING_SCOPE":
        yield Asked("missing scope", "MissingScopeErrorDetails", details)


def test_everything_said_satisfies_the_official_schemas(
    schemas: OfficialSchemas, story: Story, tmp_path: Path
) -> None:
    asked = list(said(schemas, story))
    found = {
        (one.subject, line): one.value
        for one, lines in zip(asked, schemas.faults(asked, tmp_path), strict=True)
        for line in lines
    }
    permitted = {(one.subject, one.fault) for one in DEVIATIONS}
    wrong = [f"{subject} {fault} in {str(found[subject, fault])[:600]}" for subject, fault in found.keys() - permitted]
    assert not wrong, "\n".join(sorted(wrong))
    stale = permitted - found.keys()
    assert not stale, f"entries of DEVIATIONS that nothing needs any more: {sorted(stale)}"


def test_the_story_covers_every_method_and_event_with_an_official_schema(
    schemas: OfficialSchemas, story: Story
) -> None:
    silent = [
        method
        for method in sorted(story.methods)
        if (result_schema(schemas, method) or method in PARTS) and not story.results(method)
    ]
    assert not silent, f"methods with an official result schema that the story never calls: {silent}"
    heard = {frame["event"] for frame in story.events}
    assert set(story.event_names) <= heard, "an event is advertised that this gateway never sends"
    judged = {one.subject for one in said(schemas, story)}
    assert len(judged) >= 50, sorted(judged)
    empty = [name for name in PARTS if f"{name} part" not in judged]
    assert not empty, f"these came without a single row: {empty}"


def test_error_codes_are_those_that_official_clients_know(schemas: OfficialSchemas, story: Story) -> None:
    sent = {reply.frame["error"]["code"] for reply in story.replies if not reply.frame["ok"]}
    declared = {row.code for row in ERRORS.values()}
    assert sent
    assert sent | declared <= schemas.error_codes
    refused = [reply.frame["error"] for reply in story.replies if reply.asked == "connect" and not reply.frame["ok"]]
    codes = {error["details"]["code"] for error in refused if "code" in error.get("details", {})}
    assert len(codes) >= 5, codes
    assert codes <= schemas.connect_codes


def test_the_page_of_missing_methods_says_what_is_so(schemas: OfficialSchemas, story: Story) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "official-methods.md").read_text(encoding="utf-8")
    served, known = schemas.methods & story.methods, len(schemas.methods)
    assert f"This gateway serves {len(served)} of the {known}" in " ".join(page.split())
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w.*-]+)`", row)}
    assert len(named) > 40
    here = {name for name in named if not name.endswith("*") and name in story.methods}
    assert not here, f"listed as missing, and served: {here}"
    newer = {"canvas", "claws", "themes"}  # families of OpenClaw 2026.9.6 that the published schema does not have yet
    prefixes = {one.partition(".")[0] for one in schemas.methods} | newer
    unknown = {name for name in named if name.partition(".")[0] not in prefixes}
    assert not unknown, f"OpenClaw has nothing of that name: {unknown}"


@pytest.fixture
def private_folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def test_every_parameter_that_the_official_schemas_permit_is_taken(
    schemas: OfficialSchemas, private_folder: Path
) -> None:
    tried: list[tuple[str, str, Asked, dict[str, Any]]] = []
    story, keys = Story(), itertools.count()
    async with (
        open_storied_gateway(private_folder) as (gateway, _),
        witness(story, gateway) as operator,
        witness(story, gateway, **node(DeviceIdentity.generate())) as host,
    ):
        await operator.request("channels.stop", {"channel": "telegram"})  # the samples' words are for nobody
        by_operator = gateway.rpc.view("operator", frozenset({"operator.admin"}))
        by_node = gateway.rpc.view("node", frozenset())
        for method in sorted({*by_operator, *by_node}):
            name = PARAMS.get(method) or schemas.named(method, "Params")
            if name is None:
                continue
            peer = operator if method in by_operator else host
            # The session that samples name is there, whatever the method before did to it.
            await operator.request("chat.inject", {"sessionKey": TEXT, "message": "hello"})
            for schema in schemas.editions(name):
                for member, params in params_samples(schema):
                    meant = {name: value for name, value in MEANT.get(method, {}).items() if name != member}
                    params = {**params, **meant}
                    if "idempotencyKey" in params:
                        params = {**params, "idempotencyKey": f"key-{next(keys)}"}
                    with trio.fail_after(10):
                        reply = await peer.reply(await peer.start(method, params))
                    tried.append((method, member, Asked(method, name, params), reply))
    assert len(tried) > 400
    # A member that only the older edition has is unknown to the newer one: not a fault of the sample.
    faults = schemas.faults([asked for _, _, asked, _ in tried], private_folder)
    bad = [
        (asked.subject, asked.value, lines)
        for (_, _, asked, _), lines in zip(tried, faults, strict=True)
        if [line for line in lines if not line.endswith(": unexpected")]
    ]
    assert not bad, f"the samples themselves are wrong: {bad[:5]}"
    refused = {
        (method, member): (asked.value, reply["error"]["message"])
        for method, member, asked, reply in tried
        if not reply["ok"] and reply["error"]["message"].startswith(f"invalid {method} params")
    }
    permitted = {(one.method, one.member) for one in REFUSALS}
    wrong = {key: refused[key] for key in refused.keys() - permitted}
    assert not wrong, wrong
    assert not permitted - refused.keys(), f"entries of REFUSALS that nothing needs any more: {permitted}"
