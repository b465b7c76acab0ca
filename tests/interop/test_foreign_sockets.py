"""The same session from WebSocket implementations that are not ours: Node's `ws` and Python's `websockets`."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from .processes import HERE, TOKEN, GatewayProcess, Official


def _facts(name: str, official: Official, gateway: GatewayProcess, python: str) -> Any:
    if name == "ws":
        got = official.script("websocket_client.cjs", gateway.url, TOKEN)
        assert got.code == 0, got.text
        return json.loads(got.out)
    ran = subprocess.run(
        [python, str(HERE / "websocket_client.py"), gateway.url, TOKEN],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("name", ["ws", "websockets"])
def test_ws_session_of_a_foreign_implementation(
    name: str, official: Official, gateway_process: GatewayProcess, python: str
) -> None:
    facts = _facts(name, official, gateway_process, python)
    assert not facts["extensions"], "permessage-deflate must not be negotiated"
    answers = dict(facts["replies"])
    assert answers == {"connect": True, "ünïcode": True, "binary": True, "denied": False}
    assert facts["close"][0] == 1000
    if name == "ws":
        assert facts["pong"] == "are you there"
