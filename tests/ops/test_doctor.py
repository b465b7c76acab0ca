"""The doctor: each check against a host that has just that fault."""

import os
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from openclaw_gateway.ops import doctor_checks
from openclaw_gateway.ops.doctor import Finding, examine
from openclaw_gateway.ops.instance import InstanceLock


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return {"OPENCLAW_STATE_DIR": str(state), "HOME": str(tmp_path), "OPENCLAW_GATEWAY_PORT": str(port)}


def state(env: dict[str, str]) -> Path:
    return Path(env["OPENCLAW_STATE_DIR"])


def config(env: dict[str, str], text: str) -> None:
    path = state(env) / "openclaw.json"
    path.write_text(text)
    path.chmod(0o600)


def found(env: dict[str, str], check: str) -> list[Finding]:
    findings = [finding for finding in examine(env) if finding.check == check]
    for finding in findings:
        assert finding.state == "ok" or finding.fix or check == "log", finding
    return findings


def test_a_fresh_host_has_nothing_to_mend(env: dict[str, str]) -> None:
    before = sorted(state(env).rglob("*"))
    findings = examine(env)
    assert [finding for finding in findings if finding.state == "fail"] == []
    checks = {finding.check for finding in findings}
    assert checks == {
        "config", "state", "store", "instance", "secret", "network", "discovery", "log", "audit", "clock",
        "queues", "versions",
    }  # fmt: skip
    assert sorted(state(env).rglob("*")) == before  # looking changes nothing


def test_cfg2_what_would_not_start_fails_and_the_rest_is_still_examined(env: dict[str, str]) -> None:
    config(env, "{gateway: {auth: {type: 'password'}}}")
    findings = examine(env)
    assert any(finding.check == "config" and finding.state == "fail" for finding in findings)
    assert any(finding.check == "state" for finding in findings)


def test_cfg1_what_is_not_used_as_written_is_a_warning(env: dict[str, str]) -> None:
    config(env, "{gateway: {transports: {websocket: {pingIntervalMs: 'soon'}}}}")
    (finding,) = found(env, "config")
    assert finding.state == "warn"
    assert "pingIntervalMs" in finding.text


def test_v53_files_that_others_can_read(env: dict[str, str]) -> None:
    (state(env) / "leak").write_text("secret")
    (state(env) / "leak").chmod(0o644)
    (finding,) = found(env, "state")
    assert finding.state == "warn"
    assert "leak" in finding.text
    state(env).chmod(0o777)
    (finding,) = found(env, "state")
    assert finding.state == "fail"
    state(env).chmod(0o700)


def test_state_that_is_no_directory(env: dict[str, str]) -> None:
    state(env).rmdir()
    state(env).write_text("")
    assert found(env, "state")[0].state == "fail"


def test_a_damaged_store_fails_and_is_left_alone(env: dict[str, str]) -> None:
    path = state(env) / "gateway.db"
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE t (x TEXT) STRICT")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(200)])
    database.close()
    path.chmod(0o600)
    assert found(env, "store")[0].state == "ok"
    raw = bytearray(path.read_bytes())
    raw[4096:12288] = os.urandom(8192)
    path.write_bytes(raw)
    (finding,) = found(env, "store")
    assert finding.state == "fail"
    assert path.read_bytes() == raw
    path.write_bytes(b"")
    path.write_bytes(b"not a database at all" * 100)
    assert found(env, "store")[0].state == "fail"


def test_a_port_that_somebody_else_has(env: dict[str, str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", int(env["OPENCLAW_GATEWAY_PORT"])))
        sock.listen()
        (finding,) = found(env, "instance")
        assert finding.state == "fail"
        assert f"process {os.getpid()}" in finding.text


def test_the_lock_that_is_held(env: dict[str, str]) -> None:
    with InstanceLock.acquire(state(env), port=1, url="ws://127.0.0.1:1"):
        (finding,) = found(env, "instance")
        assert (finding.state, str(os.getpid()) in finding.text) == ("ok", True)
        (reached,) = found(env, "gateway")
        assert reached.state == "fail"  # it holds the lock and does not answer


def test_auth1_two_sources_with_two_secrets(env: dict[str, str]) -> None:
    config(env, "{gateway: {auth: {token: 'configured-token-0123456789'}}}")
    env["OPENCLAW_GATEWAY_TOKEN"] = "another-token-0123456789abc"
    (finding,) = found(env, "secret")
    assert finding.state == "fail"
    assert "another-token" not in finding.text
    assert "configured-token" not in finding.text
    env["OPENCLAW_GATEWAY_TOKEN"] = "configured-token-0123456789"
    assert found(env, "secret")[0].state == "ok"


@pytest.mark.parametrize("network", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "0.0.0.0/0", "fc00::/7"])
def test_proxy3_proxies_that_cover_their_clients(env: dict[str, str], network: str) -> None:
    config(env, f"{{gateway: {{trustedProxies: ['{network}']}}}}")
    # 0.0.0.0/0 is refused by the validator already
    findings = found(env, "config") + found(env, "network")
    assert any("trustedProxies" in finding.text for finding in findings if finding.state == "warn")


def test_proxy3_one_proxy_is_fine(env: dict[str, str]) -> None:
    config(env, "{gateway: {trustedProxies: ['10.1.2.3', '10.1.0.0/24']}}")
    assert not any("trustedProxies" in finding.text for finding in found(env, "network"))


def test_net7_loopback_in_a_container(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_gateway.server.addresses.in_container", lambda: True)
    assert any("NET-7" in finding.text for finding in found(env, "network"))
    config(env, "{gateway: {bind: 'lan'}}")
    assert not any("NET-7" in finding.text for finding in found(env, "network"))
    # what the running gateway does counts, not what the file says by now
    with InstanceLock.acquire(state(env), port=1, bind="loopback", url="ws://127.0.0.1:1"):
        assert any("NET-7" in finding.text for finding in found(env, "network"))
    monkeypatch.setattr("openclaw_gateway.server.addresses.in_container", lambda: False)
    with InstanceLock.acquire(state(env), port=4, bind="127.0.0.3", url="ws://127.0.0.3:4"):
        assert found(env, "network")[0].text == "bind 127.0.0.3, port 4"


def test_a_clock_that_was_set_back(env: dict[str, str]) -> None:
    ahead = time.time() + 7200
    os.utime(state(env), (ahead, ahead))
    (finding,) = found(env, "clock")
    assert finding.state == "warn"
    assert "120 min" in finding.text


def test_a_broken_check_is_a_finding(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> list[Finding]:
        raise RuntimeError("boom")

    monkeypatch.setattr(doctor_checks, "clock", broken)
    (finding,) = found(env, "clock")
    assert finding.state == "fail"
    assert "boom" in finding.text
    assert any(other.check == "versions" for other in examine(env))


def test_what_the_log_needs(env: dict[str, str], tmp_path: Path) -> None:
    (finding,) = found(env, "log")
    assert finding.state == "ok"
    config(env, f"{{logging: {{file: '{tmp_path}/elsewhere/x.log'}}}}")
    assert str(tmp_path) in found(env, "log")[0].text
