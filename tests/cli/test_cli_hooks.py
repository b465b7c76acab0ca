"""``openclaw hooks`` as a program, against a gateway of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import Program, free_port

HOOK = "the-secret-of-the-hooks-0123456789"
SIGNED = "the-key-that-signs-0123456789"
CONFIG = """{
  gateway: { port: %d },
  agents: { list: [{ id: "main", kind: "echo" }] },
  hooks: {
    enabled: true,
    token: "%s",
    mappings: [
      { match: { path: "github" }, secret: "%s", signature: { scheme: "%s" }, messageTemplate: "{{text}}" },
    ],
    outbound: [{ name: "ops", url: "https://127.0.0.1:9/secret-path", secret: "whsec_abcd", events: ["chat"] }],
  },
}"""


@pytest.mark.deadline(90)
def test_webhooks_are_listed_and_tried(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")
    port = free_port()
    openclaw.config(CONFIG % (port, HOOK, SIGNED, "standard"))
    listed = openclaw("hooks", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)["hooks"]}
    assert list(rows) == ["agent", "wake", "github", "ops"]
    assert rows["github"]["auth"] == "a signature (standard)"
    assert rows["ops"]["does"] == "tells 127.0.0.1 of chat"
    for told in (listed.stdout, openclaw("hooks", "list").stdout, openclaw("config", "get", "hooks").stdout):
        assert not any(secret in told for secret in (HOOK, SIGNED, "whsec_", "secret-path"))
    none = openclaw("hooks", "test", "agent")
    assert none.returncode == 1
    assert "openclaw gateway start" in none.stderr
    with openclaw.foreground():
        for name in ("agent", "github"):
            tried = openclaw("hooks", "test", name, "--json")
            assert tried.returncode == 0, tried.stderr
            answer = json.loads(tried.stdout)
            assert (answer["status"], answer["answer"]["ok"]) == (200, True)
        woken = openclaw("hooks", "test", "wake", "--data", '{"text": "tea"}')
        assert '"eventOutcome": "queued"' in woken.stdout
        refused = openclaw("hooks", "test", "agent", "--data", "{}")
        assert refused.returncode == 1
        assert "message required" in refused.stdout
    out = openclaw("hooks", "test", "ops", "--outbound")
    assert out.returncode == 1
    assert "allowPrivate" in out.stderr
    assert "there is no webhook nowhere" in openclaw("hooks", "test", "nowhere").stderr


@pytest.mark.parametrize(
    ("hooks", "path"),
    [
        ('{ enabled: true, token: "shared-secret-0123456789" }', "hooks.token"),
        ("{ enabled: true }", "hooks.token"),
        (
            '{ enabled: true, token: "another-0123456789", mappings: [{ messageTemplate: "{{x()}}" }] }',
            "hooks.mappings.0.messageTemplate",
        ),
        (
            '{ enabled: true, token: "other-secret-0123456789", mappings: [{ match: { path: "a" } }] }',
            "hooks.mappings.0.messageTemplate",
        ),
        (
            '{ enabled: true, mappings: [{ secret: "shared-secret-0123456789", messageTemplate: "x" }] }',
            "hooks.mappings.0.secret",
        ),
        ('{ outbound: [{ name: "a", url: "ftp://x", secret: "s" }] }', "hooks.outbound.0.url"),
        (
            '{ outbound: [{ name: "a", url: "https://x", secret: "s", events: ["device.token"] }] }',
            "hooks.outbound.0.events",
        ),
        ('{ path: "/auth", token: "other-secret-0123456789" }', "hooks.path"),
    ],
)
def test_v42_configurations_that_are_not_in_use_as_written_are_told(tmp_path: Path, hooks: str, path: str) -> None:
    openclaw = Program(tmp_path / "state")
    openclaw.config('{ gateway: { auth: { token: "shared-secret-0123456789" } }, hooks: ' + hooks + " }")
    told = openclaw("config", "validate", "--json")
    assert told.returncode == 1, told.stdout
    assert [issue["path"] for issue in json.loads(told.stdout)["issues"]] == [path]
    assert "0123456789" not in told.stdout
