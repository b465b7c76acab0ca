"""The published .proto files are enough to write a client: protobufjs and ws, nothing of ours (S017, C21)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import openclaw_gateway

from .processes import TOKEN, GatewayProcess, Official

PROTO = Path(openclaw_gateway.__file__).parent / "protocol" / "pb"  # as an installed gateway brings them


def test_s017_a_client_generated_in_another_language(official: Official, gateway_process: GatewayProcess) -> None:
    got = official.script("proto_client.cjs", gateway_process.url, TOKEN, str(PROTO))
    assert got.code == 0, got.text
    facts = json.loads(got.out)
    assert facts["subprotocol"] == "openclaw.v4.proto"
    assert facts["challenge"][0] is True
    assert facts["challenge"][1].keys() >= {"nonce", "ts"}
    hello = facts["connect"]["helloOk"]
    assert (hello["type"], hello["protocol"], hello["auth"]["role"]) == ("hello-ok", "4", "operator")
    assert hello["auth"]["scopes"] == ["operator.read", "operator.write"]
    assert "chat.send" in hello["features"]["methods"]
    assert hello["snapshot"]["presence"][0]["mode"] == "gateway"
    assert facts["health"]["health"]["ok"] is True
    assert len(facts["logs"]["logsTail"]["lines"]) == 3
    assert json.loads(base64.b64decode(facts["json"]["json"]))["nodes"] == []
    assert facts["denied"]["error"]["code"] in {"FORBIDDEN", "INVALID_REQUEST"}
    assert "not for the method" in facts["mixed"]["error"]["message"]
    assert facts["close"] == [1007, "not a frame of openclaw.v4.proto"]
