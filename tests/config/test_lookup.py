"""One place of the schema: `config.schema.lookup`."""

from __future__ import annotations

import pytest

from openclaw_gateway import CallFailed
from openclaw_gateway.config.jsonschema import json_schema
from openclaw_gateway.config.lookup import MAX_STEPS, look_up
from openclaw_gateway.config.settings import SECRETS, settings
from openclaw_gateway.testing import connect_peer, open_memory_gateway

ROOT = json_schema()


def test_a_setting_is_told_with_its_sentence_and_range() -> None:
    found = look_up(ROOT, "gateway.port")
    assert found is not None
    assert (found["path"], found["schema"]["type"], found["children"]) == ("gateway.port", "integer", [])
    assert found["schema"]["description"]
    assert found["reloadKind"] == "hot"


def test_every_setting_is_found_by_its_path() -> None:
    for path in settings():
        found = look_up(ROOT, path, SECRETS)
        assert found is not None, path
        assert found["schema"]["description"], path
        assert (found.get("hint") == {"sensitive": True}) == (path in SECRETS), path
        assert (found["reloadKind"] == "restart") == path.startswith("logging.")


def test_a_block_names_what_lies_in_it_and_leads_there() -> None:
    whole = look_up(ROOT, ".")
    assert whole is not None
    assert whole["path"] == "."
    assert "reloadKind" not in whole
    assert {"gateway", "agents", "channels"} <= {child["key"] for child in whole["children"]}
    for child in whole["children"]:
        below = look_up(ROOT, child["path"])
        assert below is not None
        assert child["hasChildren"] == bool(below["children"])


@pytest.mark.parametrize(
    "path", ["agents.list[0].model", "agents.list.*.model", "agents.list[].model", "agents.list.7.model"]
)
def test_lists_and_maps_take_any_index_or_key(path: str) -> None:
    found = look_up(ROOT, path, SECRETS)
    assert found is not None
    assert {child["key"] for child in found["children"]} == {"primary", "fallbacks"}
    for channel in ("channels.telegram", "channels.*"):
        told = look_up(ROOT, channel)
        assert told is not None
        assert "dm" in {child["key"] for child in told["children"]}
    entry = look_up(ROOT, "agents.list", SECRETS)
    assert entry is not None
    (row,) = entry["children"]
    assert (row["key"], row["path"], row["hasChildren"]) == ("*", "agents.list.*", True)
    item = look_up(ROOT, "agents.list.*", SECRETS)
    assert item is not None
    assert {child["key"] for child in item["children"] if child["required"]} == {"id"}
    assert [child["hintPath"] for child in item["children"] if "hint" in child] == ["agents.list.*.env"]


@pytest.mark.parametrize(
    "path",
    ["", " ", "..", "nothing", "gateway.port.more", "__proto__", "gateway.__class__", "agents.list.x", "agents.list.²",
     "a." * MAX_STEPS + "a", "gateway" * 10_000],
)  # fmt: skip
def test_paths_that_lead_nowhere(path: str) -> None:
    assert look_up(ROOT, path) is None


def test_cap_an_answer_is_never_the_whole_schema() -> None:
    sizes = {path: len(str(look_up(ROOT, path))) for path in (".", "gateway", "models.providers", "hooks.mappings")}
    assert max(sizes.values()) < len(str(ROOT)) / 3, sizes


async def test_the_method_answers_as_openclaws_does() -> None:
    async with open_memory_gateway() as gateway, connect_peer(gateway, scopes=("operator.read",)) as peer:
        assert (await peer.request("config.schema.lookup", {"path": "gateway.bind"}))["path"] == "gateway.bind"
        with pytest.raises(CallFailed, match="config schema path not found") as failed:
            await peer.request("config.schema.lookup", {"path": "no.such"})
        assert failed.value.code == "INVALID_REQUEST"
