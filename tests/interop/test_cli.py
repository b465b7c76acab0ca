"""The unmodified official CLI against a gateway: each command of wire.md section 6 that this gateway answers today.

All commands run once, a few at a time (each starts Node), and each test looks at one of them.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from .processes import TOKEN, Completed, GatewayProcess, Official

Results = dict[str, Completed]


@pytest.fixture(scope="module")
def results(official: Official, gateway_process: GatewayProcess) -> Results:
    url = gateway_process.url
    remote = {"gateway": {"mode": "remote", "remote": {"url": url, "token": TOKEN}}}
    env = {"OPENCLAW_GATEWAY_URL": url, "OPENCLAW_GATEWAY_TOKEN": TOKEN}
    flagged = [
        "gateway health",
        "gateway health --json",
        "gateway probe --json",
        "gateway call health",
        "gateway call system-presence --json",
        "gateway call status --json",
        "gateway call last-heartbeat --json",
        "gateway usage-cost --all-agents",
        "gateway usage-cost --days 7 --json",
        "gateway status --json",
        "logs --json --limit 50",
        "devices list",
        "devices list --json",
        "nodes list",
        "nodes list --json",
        "nodes status",
        "nodes status --json",
    ]
    configured = ["health --json", "status", "status --json", "channels status --json"]

    with ThreadPoolExecutor(2) as pool:
        pending = {}
        for line in flagged:
            pending[line] = pool.submit(official.cli, *line.split(), "--url", url, "--token", TOKEN)
        for line in configured:
            pending[line] = pool.submit(official.cli, *line.split(), config=remote)
        pending["env: health"] = pool.submit(official.cli, "health", env=env)
        pending["env: devices list"] = pool.submit(official.cli, "devices", "list", env=env)
        pending["wrong token"] = pool.submit(official.cli, "gateway", "health", "--url", url, "--token", "wrong")
        pending["unknown method"] = pool.submit(
            official.cli, "gateway", "call", "no.such.method", "--url", url, "--token", TOKEN
        )
        return {name: future.result() for name, future in pending.items()}


def ok(results: Results, name: str) -> Completed:
    got = results[name]
    assert got.code == 0, got.text
    return got


def test_cli_gateway_health(results: Results) -> None:
    assert "OK (" in ok(results, "gateway health").out
    assert ok(results, "gateway health --json").json["ok"] is True


def test_cli_gateway_call_health(results: Results) -> None:
    out = ok(results, "gateway call health").out
    assert json.loads(out[out.index("{") :])["ok"] is True


def test_cli_gateway_usage_cost(results: Results) -> None:
    assert "Usage cost (30 days)" in ok(results, "gateway usage-cost --all-agents").out
    told = ok(results, "gateway usage-cost --days 7 --json").json
    assert told["days"] == 7
    assert told["totals"]["totalCost"] == 0


def test_cli_gateway_probe_connects(results: Results) -> None:
    got = ok(results, "gateway probe --json").json
    assert got["ok"] is True
    target = next(row for row in got["targets"] if row["kind"] == "explicit")
    assert target["connect"]["ok"] is True, target
    # A probe without a device gets no scope, whatever it asks for (wire.md section 2; V12, V22).
    assert target["auth"]["scopes"] == [], target
    assert target["server"]["version"]


def test_cli_gateway_status_reaches_the_gateway(results: Results) -> None:
    got = ok(results, "gateway status --json")
    assert got.json["rpc"]["ok"] is True, got.text


def test_cli_system_presence_names_the_gateway(results: Results) -> None:
    rows = ok(results, "gateway call system-presence --json").json
    assert [row["reason"] for row in rows if row["mode"] == "gateway"] == ["self"], rows


def test_cli_status(results: Results) -> None:
    assert isinstance(ok(results, "gateway call status --json").json, dict)
    table = ok(results, "status")
    assert "Gateway" in table.out, table.text
    assert "unreachable" not in table.out, table.text


def test_cli_status_json(results: Results) -> None:
    got = ok(results, "status --json")
    assert got.json["gateway"]["reachable"] is True, got.text


def test_cli_last_heartbeat(results: Results) -> None:
    got = ok(results, "gateway call last-heartbeat --json").json
    assert got is None or isinstance(got, dict)


def test_cli_health(results: Results) -> None:
    assert ok(results, "health --json").json["ok"] is True
    ok(results, "env: health")


def test_cli_logs(results: Results) -> None:
    lines = [json.loads(line) for line in ok(results, "logs --json --limit 50").out.splitlines()]
    assert lines[0]["type"] == "meta"
    assert any(line["type"] == "log" for line in lines), lines
    assert TOKEN not in results["logs --json --limit 50"].out


def test_cli_devices_list(results: Results) -> None:
    assert ok(results, "devices list --json").json == {"pending": [], "paired": []}
    ok(results, "devices list")
    ok(results, "env: devices list")


def test_cli_nodes_list(results: Results) -> None:
    assert ok(results, "nodes list --json").json == {"pending": [], "paired": []}
    assert "Pending: 0" in ok(results, "nodes list").out


def test_cli_nodes_status(results: Results) -> None:
    assert ok(results, "nodes status --json").json["nodes"] == []
    assert "Known: 0" in ok(results, "nodes status").out


def test_cli_channels_status(results: Results) -> None:
    assert isinstance(ok(results, "channels status --json").json, dict)


def test_auth2_cli_is_told_that_the_token_is_wrong(results: Results) -> None:
    got = results["wrong token"]
    assert got.code == 1, got.text
    assert "unauthorized: gateway token mismatch" in got.out + got.err, got.text


def test_cli_unknown_method_is_named(results: Results) -> None:
    got = results["unknown method"]
    assert got.code == 1, got.text
    assert "unknown method: no.such.method" in got.out + got.err, got.text
