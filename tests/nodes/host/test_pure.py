"""The parts of the node that need no gateway: waits, verdicts, setup codes, what is kept, the status file."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.client import ConnectFailed, Credentials
from openclaw_gateway.client.errors import Stage
from openclaw_gateway.nodes.host.destination import Asked, choose_destination
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.keeping import MAX_GATEWAYS, Keeping
from openclaw_gateway.nodes.host.loop import approval_link, beyond_this_host
from openclaw_gateway.nodes.host.pace import CONNECTING, WAITING, Pace
from openclaw_gateway.nodes.host.setupcode import MAX_CHARS, SetupCode, read_setup_code
from openclaw_gateway.nodes.host.stats import sample_stats
from openclaw_gateway.nodes.host.status import Report, StatusBoard, read_status
from openclaw_gateway.nodes.host.verdicts import Verdict, judge_refusal
from openclaw_gateway.nodes.reports import host_stats


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.sampled_from([CONNECTING, WAITING]))
def test_waits_grow_to_a_cap_and_never_vanish(failures: int, chance: float, pace: Pace) -> None:
    delay = pace.delay(failures, chance)
    assert pace.first / 2 <= delay <= pace.longest
    assert pace.delay(failures + 1, 0.0) >= pace.delay(failures, 0.0)


def test_what_the_gateway_asks_for_is_waited_but_not_for_ever() -> None:
    assert CONNECTING.delay(1, 0.0, at_least=7.0) == 7.0
    assert CONNECTING.delay(1, 0.0, at_least=10**9) == 300.0


def refused(detail: str | None, code: str | None = "INVALID_REQUEST", stage: Stage = "auth") -> ConnectFailed:
    details = {"code": detail} if detail else None
    return ConnectFailed(stage=stage, url="ws://x", message="no", code=code, details=details)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (refused("PAIRING_REQUIRED", "NOT_PAIRED"), "wait"),
        (refused("AUTH_RATE_LIMITED"), "retry"),
        (refused("AUTH_TOKEN_MISMATCH"), "other-proof"),
        (refused("AUTH_DEVICE_TOKEN_REVOKED"), "other-proof"),
        (refused("AUTH_BOOTSTRAP_TOKEN_INVALID"), "other-proof"),
        (refused("PROTOCOL_MISMATCH", stage="websocket"), "stop"),
        (refused("DEVICE_AUTH_SIGNATURE_INVALID"), "stop"),
        (refused(None), "stop"),
        (refused(None, "UNAVAILABLE", "websocket"), "retry"),
        (refused(None, None, "tcp"), "retry"),
        (refused(None, None, "tls"), "retry"),
        (refused(None, None, "http"), "retry"),
        (refused(None, None, "websocket"), "retry"),
        (refused(None, None, "address"), "stop"),
    ],
)
def test_what_passes_by_itself_is_retried_and_what_does_not_ends(error: ConnectFailed, verdict: Verdict) -> None:
    assert judge_refusal(error) == verdict


def code_of(**members: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("prefix", ["", "oc-pair://"])
def test_s091_setup_codes_are_read_with_and_without_prefix(prefix: str) -> None:
    text = code_of(url="ws://127.0.0.1:1", bootstrapToken="b" * 43, tlsFingerprint="ab", urls=["ws://[::1]:1"], more=1)
    setup = read_setup_code(prefix + text)
    assert (setup.url, setup.bootstrap_token, setup.tls_fingerprint) == ("ws://127.0.0.1:1", "b" * 43, "ab")
    assert setup.others == ("ws://[::1]:1",)
    assert "bbb" not in repr(setup)


@pytest.mark.parametrize(
    "text",
    ["", "no code", code_of(url="ws://x"), code_of(url="", bootstrapToken="b"), "[]", "x" * (MAX_CHARS + 1), "é" * 8],
)
def test_what_is_no_setup_code_is_refused(text: str) -> None:
    with pytest.raises(NodeError):
        read_setup_code(text)


def test_an_expired_setup_code_says_so() -> None:
    text = code_of(url="ws://x", bootstrapToken="b", expiresAtMs=round(time.time() * 1000) - 600_000)
    with pytest.raises(NodeError, match="expired"):
        read_setup_code(text)


@given(st.text(max_size=200))
def test_any_text_is_a_setup_code_or_a_clean_refusal(text: str) -> None:
    try:
        setup = read_setup_code(text)
    except NodeError:
        return
    assert setup.url


def test_v56_a_device_token_is_kept_for_its_own_url_only(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    keeping.keep("ws://127.0.0.1:1", "one", None)
    keeping.keep("wss://b.example", "two", "ff")
    found = keeping.gateway("wss://b.example")
    assert found is not None
    assert (found.device_token, found.tls_fingerprint) == ("two", "ff")
    assert keeping.gateway("ws://127.0.0.1:2") is None
    assert "two" not in repr(found)
    assert (tmp_path / "node" / "gateways.json").stat().st_mode & 0o777 == 0o600


def test_kept_gateways_are_bounded_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(time, "time", lambda: next(now))
    keeping = Keeping(tmp_path)
    tmp_path.chmod(0o700)
    for number in range(MAX_GATEWAYS + 3):
        keeping.keep(f"ws://127.0.0.1:{number + 1}", "t", None)
    assert keeping.gateway("ws://127.0.0.1:3") is None
    assert keeping.gateway("ws://127.0.0.1:4") is not None
    latest = keeping.latest()
    assert latest is not None
    assert latest.url == f"ws://127.0.0.1:{MAX_GATEWAYS + 3}"


def test_state1_what_cannot_be_read_is_no_reason_to_start_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "gateways.json"
    path.write_text("{broken")
    path.chmod(0o600)
    keeping = Keeping(tmp_path)
    with pytest.raises(NodeError, match="not what this node wrote"):
        keeping.gateway("ws://127.0.0.1:1")
    with pytest.raises(NodeError):
        keeping.keep("ws://127.0.0.1:1", "t", None)
    assert path.read_text() == "{broken"


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "state" / "node")
    assert keeping.identity().device_id == keeping.identity().device_id
    assert (tmp_path / "state" / "node" / "identity.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state" / "node").stat().st_mode & 0o777 == 0o700


def test_the_status_is_believed_only_while_the_node_lives(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    assert not read_status(tmp_path / "nothing")["running"]
    with StatusBoard(directory) as board:
        board.tell(Report(state="connected", gateway="ws://x", device_id="d"))
        status = read_status(directory)
        assert (status["running"], status["state"], status["gateway"]) == (True, "connected", "ws://x")
        with pytest.raises(NodeError, match="already"), StatusBoard(directory):
            pass
    status = read_status(directory)
    assert (status["running"], status["state"]) == (False, "stopped")
    assert "pid" not in status


def destination(
    tmp_path: Path, asked: Asked, env: dict[str, str] | None = None, keeping: Keeping | None = None
) -> object:
    base = {"HOME": str(tmp_path), "OPENCLAW_STATE_DIR": str(tmp_path / "state")}
    return choose_destination(asked, {**base, **(env or {})}, keeping or Keeping(tmp_path / "state" / "node"))


def test_the_address_comes_from_the_nearest_source(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "state" / "node")
    setup = SetupCode(url="wss://setup.example", bootstrap_token="boot", tls_fingerprint="aa")
    env = {"OPENCLAW_GATEWAY_URL": "wss://env.example"}

    def url(asked: Asked, env: dict[str, str] | None = None) -> str:
        return str(getattr(destination(tmp_path, asked, env, keeping), "url"))  # noqa: B009

    assert url(Asked()) == "ws://127.0.0.1:18789"
    keeping.keep("wss://last.example:443", "t", "ee")
    assert url(Asked()) == "wss://last.example:443"
    assert url(Asked(), env) == "wss://env.example:443"
    assert url(Asked(setup=setup), env) == "wss://setup.example:443"
    assert url(Asked(setup=setup, host="h.example", tls=True), env) == "wss://h.example:18789"
    assert url(Asked(url="wss://flag.example", setup=setup), env) == "wss://flag.example:443"
    assert url(Asked(host="::1", port=4, context_path="/a/")) == "ws://[::1]:4/a"
    with pytest.raises(NodeError):
        url(Asked(url="wss://a", host="b"))
    with pytest.raises(ConnectFailed):  # a secret would travel readable (V56)
        url(Asked(host="h.example"))


def test_v56_the_secret_of_this_hosts_gateway_stays_here(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "credentials").mkdir(mode=0o700, parents=True)
    state.chmod(0o700)
    token = state / "credentials" / "gateway-token"
    token.write_text("own-token-0123456789abcdef0123456789\n")
    token.chmod(0o600)
    own = destination(tmp_path, Asked(host="127.0.0.1", port=5))
    assert getattr(own, "secret") == Credentials(token="own-token-0123456789abcdef0123456789")  # noqa: B009
    there = destination(tmp_path, Asked(url="wss://elsewhere.example"))
    assert getattr(there, "secret") == Credentials()  # noqa: B009
    given = destination(tmp_path, Asked(url="wss://elsewhere.example"), {"OPENCLAW_GATEWAY_TOKEN": "for-it"})
    assert getattr(given, "secret") == Credentials(token="for-it")  # noqa: B009
    assert "for-it" not in repr(given)


def test_c23_the_link_leads_to_the_gateway_itself() -> None:
    assert approval_link("ws://127.0.0.1:1", "r1") == "http://127.0.0.1:1/nodes/approve?request=r1"
    assert approval_link("wss://g.example:443/ctx", "r1") == "https://g.example:443/ctx/nodes/approve?request=r1"


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("wss://shed.tail1234.ts.net", "https://shed.tail1234.ts.net/nodes/approve?request=r1"),
        ("ws://[::1]:18789/", "http://[::1]:18789/nodes/approve?request=r1"),
        ("wss://[fd7a:115c:a1e0::1]/claw/?token=secret", "https://[fd7a:115c:a1e0::1]/claw/nodes/approve?request=r1"),
        ("https://g.example/a/b", "https://g.example/a/b/nodes/approve?request=r1"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/nodes/approve?request=r1"),
        ("wss://user:pass@g.example", "https://g.example/nodes/approve?request=r1"),
        ("ws://[fe80::1%eth0]:18789", None),
        ("unix:/run/claw", None),
        ("ws://[::1", None),
    ],
)
def test_s091_the_link_fits_every_kind_of_address(url: str, link: str | None) -> None:
    assert approval_link(url, "r1") == link


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("wss://shed.tail1234.ts.net", True),
        ("ws://192.168.1.10:18789", True),
        ("ws://[fd7a:115c:a1e0::1]:18789", True),
        ("ws://127.0.0.1:40123", False),
        ("ws://[::1]:40123", False),
        ("ws://localhost:40123", False),
    ],
)
def test_s091_no_link_leads_to_the_near_end_of_a_tunnel(url: str, shared: bool) -> None:
    assert beyond_this_host(url) == (url if shared else None)


def test_s091_a_request_id_of_a_hostile_gateway_stays_one_parameter() -> None:
    link = approval_link("wss://g.example", 'r 1&x=#/../\u202e"')
    assert link == "https://g.example/nodes/approve?request=r%201%26x%3D%23%2F..%2F%E2%80%AE%22"


def test_stats_are_what_a_gateway_accepts() -> None:
    sample = sample_stats()
    assert host_stats(sample) == sample
    assert sample["memoryTotalBytes"] > 0
