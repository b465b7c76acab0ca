"""``--protocol proto`` and ``OPENCLAW_PROTOCOL``: the same commands, the same answers, another form (S017)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from openclaw_gateway.cli import speech
from openclaw_gateway.client.speech import FORMS
from tests.cli.program import Program

from .test_node import running

pytestmark = pytest.mark.deadline(120)


@pytest.fixture(scope="module")
def openclaw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("protocol") / "state")
    with program.started():
        yield program


def connects(openclaw: Program) -> list[dict[str, Any]]:
    """The log's lines about connections that were let in."""
    text = (openclaw.state / "logs" / "gateway.log").read_text()
    return [line for line in map(json.loads, text.splitlines()) if "dialect" in line]


def spoken_by(openclaw: Program, *arguments: str, **env: str) -> tuple[str, set[str]]:
    """What a command printed, and the dialects that it spoke."""
    before = len(connects(openclaw))
    done = attrs.evolve(openclaw, env={**openclaw.env, **env})(*arguments)
    assert done.returncode == 0, done.stderr
    dialects = {line["dialect"] for line in connects(openclaw)[before:]}
    return done.stdout, dialects


@pytest.mark.parametrize(
    "command",
    [
        ("gateway", "call", "health", "--json"),
        ("gateway", "call", "node.list", "--json"),
        ("health", "--json"),
        ("status", "--json"),
        ("logs", "--limit", "1", "--json"),
        ("devices", "list", "--json"),
        ("nodes", "list", "--json"),
        ("gateway", "probe", "--json"),
        ("queue", "list", "--json"),
    ],
    ids=" ".join,
)
def test_s017_every_command_speaks_it(openclaw: Program, command: tuple[str, ...]) -> None:
    plain, dialects = spoken_by(openclaw, *command)
    assert dialects == {"openclaw"}
    proto, dialects = spoken_by(openclaw, *command, OPENCLAW_PROTOCOL="proto")
    assert dialects == {"protobuf"}
    if command[0] != "logs":
        assert json.loads(proto).keys() == json.loads(plain).keys()


def test_s017_the_nearer_option_counts(openclaw: Program) -> None:
    health = ("gateway", "call", "health", "--json")
    assert spoken_by(openclaw, "--protocol", "proto", *health)[1] == {"protobuf"}
    assert spoken_by(openclaw, *health, "--protocol", "proto")[1] == {"protobuf"}
    assert spoken_by(openclaw, "--protocol", "proto", *health, "--protocol", "json")[1] == {"openclaw"}
    assert spoken_by(openclaw, "--protocol", "json", *health, OPENCLAW_PROTOCOL="proto")[1] == {"openclaw"}


def test_s017_another_form_is_wrong_usage(openclaw: Program) -> None:
    done = openclaw("--protocol", "xml", "health")
    assert done.returncode == 2
    assert "'json', 'proto'" in done.stderr
    done = attrs.evolve(openclaw, env={"OPENCLAW_PROTOCOL": "xml"})("health")
    assert done.returncode == 2
    assert "OPENCLAW_PROTOCOL" in done.stderr


def test_s017_the_option_knows_the_forms_that_there_are() -> None:
    assert speech._FORMS == FORMS


def test_s017_a_node_host_speaks_json_whatever_is_preferred(openclaw: Program, tmp_path: Path) -> None:
    node = Program(tmp_path / "node", {"OPENCLAW_PROTOCOL": "proto"})
    before = len(connects(openclaw))
    url = json.loads(openclaw("gateway", "status", "--json").stdout)["gateway"]["url"]
    with running(node, "--url", url, env={"OPENCLAW_GATEWAY_TOKEN": openclaw.secret}):
        until = time.monotonic() + 20
        while not [line for line in connects(openclaw)[before:] if line["role"] == "node"]:
            assert time.monotonic() < until, "the node was not let in"
            time.sleep(0.05)  # another process: there is nothing to wait on but time
    assert {line["dialect"] for line in connects(openclaw)[before:] if line["role"] == "node"} == {"openclaw"}
