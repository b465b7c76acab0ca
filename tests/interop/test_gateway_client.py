"""The official @openclaw/gateway-client package: connect, requests, events, a wrong token, and our restart."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .processes import REFERENCE, TOKEN, GatewayProcess, Official, wait_until

Facts = list[dict[str, Any]]


def facts_of(text: str) -> Facts:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Watcher:
    """The facts that a running client tells, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.facts: Facts = []
        self.process = process
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.facts.append(json.loads(line) if line.startswith("{") else {"fact": "noise", "line": line})

    def count(self, fact: str, **fields: Any) -> int:
        return len([row for row in self.facts if row["fact"] == fact and fields.items() <= row.items()])

    def wait(self, fact: str, *, at_least: int = 1, seconds: float = 20.0, **fields: Any) -> None:
        wait_until(
            f"{fact} {fields}",
            lambda: self.count(fact, **fields) >= at_least,
            seconds=seconds,
            also=lambda: json.dumps(self.facts)[-3000:],
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def watching(official: Official, gateway: GatewayProcess) -> Iterator[Watcher]:
    watcher = Watcher(official.start_script("gateway_client.mjs", "watch", gateway.url, TOKEN))
    try:
        watcher.wait("hello")
        yield watcher
    finally:
        watcher.close()


@pytest.fixture(scope="module")
def facts(official: Official, gateway_process: GatewayProcess) -> Facts:
    got = official.script("gateway_client.mjs", "requests", gateway_process.url, TOKEN)
    assert got.code == 0, got.text
    return facts_of(got.out)


def replies(facts: Facts, method: str) -> Facts:
    return [row for row in facts if row["fact"] == "reply" and row["method"] == method]


def test_client_hello_has_what_clients_need(facts: Facts) -> None:
    hello = next(row["hello"] for row in facts if row["fact"] == "hello")
    assert (hello["type"], hello["protocol"]) == ("hello-ok", 4)
    assert hello["server"]["connId"]
    assert {"health", "status", "node.list", "logs.tail"} <= set(hello["features"]["methods"])
    assert {"presence", "tick", "health", "shutdown"} <= set(hello["features"]["events"])
    assert hello["auth"]["role"] == "operator"
    assert hello["auth"]["scopes"] == ["operator.admin"]
    assert set(hello["snapshot"]["stateVersion"]) >= {"presence", "health"}
    assert hello["policy"]["tickIntervalMs"] > 0
    assert hello["policy"]["maxPayload"] > 0
    assert hello["policy"]["maxBufferedBytes"] > 0


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("health", {"ok", "ts", "durationMs"}),
        ("status", set()),
        ("node.list", {"ts", "nodes"}),
        ("logs.tail", {"file", "cursor", "size", "lines", "truncated", "reset"}),
        ("node.pair.list", {"pending", "paired"}),
        ("device.pair.list", {"pending", "paired"}),
    ],
)
def test_client_request_is_answered_in_its_shape(method: str, keys: set[str], facts: Facts) -> None:
    first = replies(facts, method)[0]
    assert first["ok"], first
    assert keys <= set(first["payload"]), first


def test_client_system_presence_is_a_list_with_the_gateway(facts: Facts) -> None:
    rows = replies(facts, "system-presence")[0]["payload"]
    assert any(row["mode"] == "gateway" and row["reason"] == "self" for row in rows), rows


def test_client_errors_are_those_of_the_protocol(facts: Facts) -> None:
    unknown = replies(facts, "no.such.method")[0]
    assert not unknown["ok"]
    assert unknown["code"] == "INVALID_REQUEST", unknown
    assert "unknown method: no.such.method" in unknown["message"]
    bad = replies(facts, "node.list")[1]
    assert not bad["ok"]
    assert "invalid node.list params" in bad["message"], bad
    assert "zzz" in bad["message"], bad


def test_client_two_hundred_requests_in_flight(facts: Facts) -> None:
    assert [row["count"] for row in facts if row["fact"] == "many"] == [200]
    assert [row for row in facts if row["fact"] == "gap"] == []


def test_auth2_client_with_a_wrong_token_gets_the_code(official: Official, gateway_process: GatewayProcess) -> None:
    got = official.script("gateway_client.mjs", "wrong-token", gateway_process.url, "not-the-token")
    assert got.code == 0, got.text
    error = next(row for row in facts_of(got.out) if row["fact"] == "connect-error")
    assert "unauthorized: gateway token mismatch" in error["message"], error
    assert error["details"]["code"] == "AUTH_TOKEN_MISMATCH", error


def test_client_events_have_their_shapes_and_no_gap(official: Official, gateway_process: GatewayProcess) -> None:
    with watching(official, gateway_process) as watcher:
        watcher.wait("event", event="tick", seconds=45)
        tick = next(row for row in watcher.facts if row.get("event") == "tick")
        assert set(tick["payload"]) == {"ts"}
        assert tick["seq"] >= 1
        assert watcher.count("gap") == 0


@pytest.mark.deadline(240)
def test_client_returns_after_our_restart_with_1012(official: Official, own_gateway: GatewayProcess) -> None:
    with watching(official, own_gateway) as watcher:
        own_gateway.restart()
        watcher.wait("event", event="shutdown")
        watcher.wait("close", code=1012)
        assert next(row["reason"] for row in watcher.facts if row["fact"] == "close") == "service restart"
        watcher.wait("hello", at_least=2, seconds=60 if REFERENCE else 20)
        assert watcher.count("gap") == 0
