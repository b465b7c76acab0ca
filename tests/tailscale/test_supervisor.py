"""The exposure against a pretended tailscaled, over its socket and over the command line: states, claims, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.tailscale import localapi
from openclaw_gateway.tailscale.supervisor import PORT_FILE, Wanted
from openclaw_gateway.testing.fake_tailscaled import FakeTailscaled
from tests.tailscale.conftest import BACKENDS, claims, open_daemon, open_exposure

pytestmark = pytest.mark.usefixtures("quick")
ROUTE: dict[str, Any] = {
    "TCP": {"443": {"HTTPS": True}},
    "Web": {"gw.tail-test.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:40000"}}}},
}
FOREIGN: dict[str, Any] = {
    "TCP": {"8443": {"HTTPS": True}},
    "Web": {"gw.tail-test.ts.net:8443": {"Handlers": {"/x": {"Proxy": "http://127.0.0.1:3000"}}}},
}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_ts3_a_claim_stands_beside_what_others_serve_and_goes_with_us(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            daemon.model.set_config(FOREIGN, "")
            async with open_exposure(daemon.path, tmp_path, backend=backend) as watched:
                await watched.reach("serving")
                assert claims(daemon) == [ROUTE]
                assert watched.exposure.url == "https://gw.tail-test.ts.net/"
                assert watched.exposure.dns_name == "gw.tail-test.ts.net"
                assert "100.64.0.1" in watched.exposure.own_addresses
                assert watched.door.opened == [(40000, "tailscale-serve")]
            await daemon.api.wait_unwatched()
            assert daemon.model.config == FOREIGN
            assert not any(name == "serve-config" and status >= 400 for _, name, status in daemon.api.requests)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_ts2_somebodys_reset_is_made_good(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(30):
        async with open_daemon(tmp_path) as daemon, open_exposure(daemon.path, tmp_path, backend=backend) as watched:
            await watched.reach("serving")
            daemon.reset()
            await watched.reach("lost")
            await watched.reach("serving")
            assert claims(daemon) == [ROUTE]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_ts2_a_restart_of_tailscaled_is_followed(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(30):
        async with open_daemon(tmp_path) as daemon, open_exposure(daemon.path, tmp_path, backend=backend) as watched:
            await watched.reach("serving")
            await daemon.stop()
            await watched.reach("missing")
            await daemon.start()
            await watched.reach("serving")
            assert claims(daemon) == [ROUTE]


STATES: list[tuple[str, dict[str, Any], str, str]] = [
    ("NeedsLogin", {}, "needs-login", "tailscale up"),
    ("Stopped", {}, "stopped", "tailscale up"),
    ("NeedsMachineAuth", {}, "needs-approval", "https://login.tailscale.com/admin/machines"),
    ("InUseOtherUser", {}, "other-user", "tailscale up"),
    ("Starting", {}, "waiting", "tailscale status"),
    ("NoState", {}, "waiting", "tailscale status"),
    ("Running", {"root_writes": False, "operator": None}, "not-operator", "sudo tailscale set --operator=$USER"),
    ("Running", {"https": False}, "https-not-enabled", "open the URL and enable it"),
    ("Running", {"https": False, "should_wait": True}, "https-not-enabled", "open the URL and enable it"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("state", "model", "expected", "fix"), STATES)
async def test_ts4_ts5_every_state_has_a_name_and_a_fix_and_is_left_by_itself(
    tmp_path: Path, backend: str, state: str, model: dict[str, Any], expected: str, fix: str
) -> None:
    with trio.fail_after(30):
        async with open_daemon(tmp_path) as daemon:
            daemon.model.state = state
            good = {name: getattr(daemon.model, name) for name in model}
            for name, value in model.items():
                setattr(daemon.model, name, value)
            async with open_exposure(daemon.path, tmp_path, backend=backend) as watched:
                await watched.reach(expected)
                condition = watched.exposure.condition
                assert condition.fix == fix
                assert condition.reason
                assert "sudo" not in fix or fix.startswith("sudo tailscale set")
                if expected == "https-not-enabled":
                    assert condition.url == "https://login.tailscale.com/f/serve?node=TESTCTRL00000001"
                for name, value in good.items():
                    setattr(daemon.model, name, value)
                daemon.set_state("Running")
                await watched.reach("serving")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_needs_login_names_the_address(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            daemon.set_state("NeedsLogin", auth_url="https://login.tailscale.com/a/1")
            async with open_exposure(daemon.path, tmp_path, backend=backend) as watched:
                await watched.reach("needs-login")
                assert watched.exposure.condition.url == "https://login.tailscale.com/a/1"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", ["1.90.0", "1.92.3"])
@pytest.mark.parametrize(
    "taken",
    [
        {"TCP": {"443": {"TCPForward": "127.0.0.1:22"}}},
        {
            "TCP": {"443": {"HTTPS": True}},
            "Web": {"gw.tail-test.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:3000"}}}},
        },
        {"Foreground": {"other": {"TCP": {"443": {"HTTPS": True}}}}},
    ],
    ids=["tcp", "web", "claim"],
)
async def test_ts3_a_port_that_is_taken_is_left_to_its_owner(
    tmp_path: Path, backend: str, version: str, taken: dict[str, Any]
) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            daemon.model.version = version
            daemon.model.config = taken
            async with open_exposure(daemon.path, tmp_path, backend=backend) as watched:
                await watched.reach("conflict")
                assert watched.exposure.condition.fix == "openclaw config set gateway.tailscale.port 8443"
                assert daemon.model.config == taken
                daemon.model.config = {}
                await watched.reach("serving")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_old_background_route_of_ours_is_replaced_by_the_claim(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            web = {"gw.tail-test.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:18789"}}}}
            both = {"TCP": {"443": {"HTTPS": True}, **FOREIGN["TCP"]}, "Web": {**web, **FOREIGN["Web"]}}
            daemon.model.set_config(both, "")
            async with open_exposure(daemon.path, tmp_path, backend=backend) as watched:
                await watched.reach("serving")
                assert claims(daemon) == [ROUTE]
            await daemon.api.wait_unwatched()
            assert daemon.model.config == FOREIGN


@pytest.mark.parametrize("backend", BACKENDS)
async def test_c7_without_reset_on_exit_the_route_stays_and_is_found_again(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(30):
        async with open_daemon(tmp_path) as daemon:
            state = tmp_path / "state"
            state.mkdir(mode=0o700)
            daemon.model.set_config(FOREIGN, "")
            settings = {"background": True, "state_dir": state, "backend": backend}
            async with open_exposure(daemon.path, tmp_path, **settings) as watched:  # type: ignore[arg-type]
                await watched.reach("serving")
            after = daemon.model.config
            assert after["Web"]["gw.tail-test.ts.net:443"] == ROUTE["Web"]["gw.tail-test.ts.net:443"]
            assert after["Web"]["gw.tail-test.ts.net:8443"] == FOREIGN["Web"]["gw.tail-test.ts.net:8443"]
            assert (state / PORT_FILE).read_text() == "40000\n"
            async with open_exposure(daemon.path, tmp_path, **settings) as watched:  # type: ignore[arg-type]
                await watched.reach("serving")
                assert watched.door.opened == [(40000, "tailscale-serve")]
                assert daemon.model.config == after
                watched.exposure.configure(Wanted(mode="off", socket=daemon.path))
                await watched.reach("off")
                assert daemon.model.config == FOREIGN  # nobody wants it any more: only ours is gone


@pytest.mark.parametrize("backend", BACKENDS)
async def test_s125_the_funnel_is_claimed_as_such(tmp_path: Path, backend: str) -> None:
    with trio.fail_after(20):
        async with (
            open_daemon(tmp_path) as daemon,
            open_exposure(daemon.path, tmp_path, backend=backend, mode="funnel") as watched,
        ):
            await watched.reach("serving")
            assert claims(daemon) == [{**ROUTE, "AllowFunnel": {"gw.tail-test.ts.net:443": True}}]
            assert watched.door.opened == [(40000, "tailscale-funnel")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("model", "port", "fix"),
    [
        ({"funnel": False}, 443, "https://tailscale.com/s/no-funnel"),
        ({}, 4443, "openclaw config set gateway.tailscale.port 443"),
    ],
)
async def test_a_funnel_that_is_not_allowed_says_what_is(
    tmp_path: Path, backend: str, model: dict[str, Any], port: int, fix: str
) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            for name, value in model.items():
                setattr(daemon.model, name, value)
            async with open_exposure(daemon.path, tmp_path, backend=backend, mode="funnel", port=port) as watched:
                await watched.reach("funnel-not-allowed")
                assert watched.exposure.condition.fix == fix


@pytest.mark.parametrize("backend", BACKENDS)
async def test_serve_never_stands_where_somebody_opened_a_funnel(tmp_path: Path, backend: str) -> None:
    """A switch that is not ours would put our route on the internet: the claim is given up."""
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon, open_exposure(daemon.path, tmp_path, backend=backend) as watched:
            await watched.reach("serving")
            daemon.model.set_config({**daemon.model.config, "AllowFunnel": {"gw.tail-test.ts.net:443": True}}, "")
            await watched.reach("conflict")
            await daemon.api.wait_unwatched()
            assert claims(daemon) == []


@pytest.mark.parametrize("kind", ["hang", "eof", "garbage", "503"])
@pytest.mark.parametrize("endpoint", ["watch-ipn-bus", "status", "serve-config"])
async def test_ts1_a_daemon_that_misbehaves_is_a_state_and_is_got_over(
    tmp_path: Path, kind: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localapi, "REQUEST_SECONDS", 1.0)  # who is cut by it comes again: nothing here counts the tries
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            fault = daemon.inject(endpoint, kind, times=None)
            async with open_exposure(daemon.path, tmp_path) as watched:
                while watched.exposure.condition.state not in {"unreachable", "waiting"} or daemon.api.watching != 0:
                    await watched.moved.wait()
                await watched.reach("unreachable")
                daemon.api.faults.remove(fault)
                await watched.reach("serving")


async def test_a_slow_daemon_is_waited_for(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            daemon.inject("", "slow", times=6, seconds=0.2)
            async with open_exposure(daemon.path, tmp_path) as watched:
                await watched.reach("serving")
                assert watched.seen == ["waiting", "serving"]


async def test_somebody_who_writes_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon:
            race(daemon, times=3)
            async with open_exposure(daemon.path, tmp_path) as watched:
                await watched.reach("serving")
                assert claims(daemon) == [ROUTE]
                assert sorted(daemon.model.config["TCP"]) == ["8001", "8002", "8003"]
                assert ("POST", "serve-config", 412) in daemon.api.requests
                assert watched.seen == ["waiting", "serving"]  # it was settled on the spot


def race(daemon: FakeTailscaled, times: int) -> None:
    """The next writes each find that somebody was faster."""
    ports = [f"800{number}" for number in range(1, times + 1)]

    def meanwhile() -> None:
        if ports:
            held = daemon.model.config.get("TCP", {})
            daemon.model.config = {**daemon.model.config, "TCP": {**held, ports.pop(0): {"HTTP": True}}}

    daemon.model.on_write = meanwhile


async def test_s099_own_addresses_follow_the_bus(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_daemon(tmp_path) as daemon, open_exposure(daemon.path, tmp_path) as watched:
            await watched.reach("serving")
            daemon.move("moved", ("100.64.0.77", "fd7a:115c:a1e0::77"))
            while watched.exposure.dns_name != "moved.tail-test.ts.net":
                await watched.moved.wait()
            assert watched.exposure.own_addresses == {"100.64.0.77", "fd7a:115c:a1e0::77"}
            while watched.exposure.url != "https://moved.tail-test.ts.net/":
                await watched.moved.wait()
            daemon.set_state("Stopped")
            await watched.reach("stopped")
            assert watched.exposure.own_addresses == frozenset()
            assert watched.exposure.dns_name is None


async def test_no_daemon_is_a_state_too(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_exposure(tmp_path / "nobody.sock", tmp_path) as watched:
            await watched.reach("missing")
            assert "nobody.sock" in watched.exposure.condition.reason
            assert watched.door.opened == []


async def test_a_command_that_is_not_there_or_hangs_is_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openclaw_gateway.tailscale import cli

    monkeypatch.setattr(cli, "LOOK_SECONDS", 0.5)
    hung = tmp_path / "hung"
    hung.write_text("#!/bin/sh\nexec sleep 30\n")
    hung.chmod(0o755)
    with trio.fail_after(20):
        async with open_exposure(tmp_path / "nobody.sock", tmp_path, command=str(tmp_path / "gone")) as watched:
            await watched.reach("missing")
        async with open_exposure(tmp_path / "nobody.sock", tmp_path, command=str(hung)) as watched:
            await watched.reach("unreachable")
            assert "no answer within" in watched.exposure.condition.reason
