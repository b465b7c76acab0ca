"""An agent from a package that was really installed, found by its entry point."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway import GatewayConfig
from openclaw_gateway.agents.agent import load_plugin
from openclaw_gateway.agents.records import AgentFailed
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.testing import connect_peer, open_memory_gateway

TOKEN = "token-of-the-tests-of-plugins-0123456789"
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "reverse-agent"
version = "1.0"
[project.entry-points."openclaw_gateway.agents"]
reverse = "reverse_agent:Reverse"
broken = "reverse_agent:nothing_of_that_name"
wrong = "reverse_agent:Wrong"
[tool.setuptools]
py-modules = ["reverse_agent"]
"""
MODULE = """
from openclaw_gateway.agents.records import Delta, Outcome

class Reverse:
    async def run(self, turn, emit):
        emit(Delta("text", turn.request.text[::-1]))
        return Outcome(model="reverse/1")

class Wrong:
    pass
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "reverse_agent.py").write_text(MODULE)
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    done = subprocess.run([*argv, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))
    importlib.invalidate_caches()


async def answer(entry: AgentEntry) -> dict[str, Any]:
    config = GatewayConfig(auth=AuthConfig(token=TOKEN), agents=AgentsConfig(list=(entry,)))
    scopes = ["operator.read", "operator.write"]
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=TOKEN, scopes=scopes) as peer:
        await peer.request("chat.send", {"sessionKey": "main", "message": "hello"})
        while True:
            payload: dict[str, Any] = await peer.expect_event("chat")
            if payload["state"] != "delta":
                return payload


@pytest.mark.usefixtures("installed")
async def test_s012_an_installed_package_brings_an_agent() -> None:
    final = await answer(AgentEntry(id="main", kind="plugin", plugin="reverse"))
    assert (final["state"], final["message"]["content"][0]["text"]) == ("final", "olleh")
    assert final["message"]["model"] == "reverse/1"
    assert (await answer(AgentEntry(id="reverse", kind="plugin")))["state"] == "final", "its id is its name by default"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "told"),
    [("broken", "cannot be loaded"), ("wrong", r"has no run"), ("missing", r"there are: broken, reverse, wrong")],
)
async def test_what_cannot_be_loaded_is_told(name: str, told: str) -> None:
    with pytest.raises(AgentFailed, match=told):
        load_plugin(name)
    final = await answer(AgentEntry(id="main", kind="plugin", plugin=name))
    assert final["state"] == "error"
