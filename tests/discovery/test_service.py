"""Whether to announce at all: the reasons, and that a start pays nothing for what it does not use."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway.discovery.beacon import verify_beacon
from openclaw_gateway.discovery.environment import SWITCH, is_wsl, why_not_here
from openclaw_gateway.discovery.records import instance_name
from openclaw_gateway.discovery.service import DiscoveryService, Facts
from openclaw_gateway.discovery.signer import Signer
from openclaw_gateway.pairing.identity import load_gateway_identity

FACTS = Facts(mode="minimal", listening=("0.0.0.0",), port=18789, version="0.1.0", auth="token")


@pytest.mark.parametrize(
    ("env", "container", "wsl", "reason"),
    [
        ({}, False, False, None),
        ({}, True, False, "container"),
        ({}, False, True, "WSL"),
        ({SWITCH: "1"}, False, False, SWITCH),
        ({SWITCH: "true"}, True, True, SWITCH),
        ({SWITCH: "0"}, True, True, None),
        ({SWITCH: "perhaps"}, True, False, "container"),
    ],
)
def test_disc1_containers_wsl_and_the_switch(
    env: dict[str, str], container: bool, wsl: bool, reason: str | None
) -> None:
    why = why_not_here(env, container=lambda: container, wsl=lambda: wsl)
    assert (why is None) == (reason is None)
    assert reason is None or reason in str(why)


def test_disc1_wsl_is_told_by_its_kernel(tmp_path: Path) -> None:
    release = tmp_path / "osrelease"
    release.write_text("5.15.153.1-microsoft-standard-WSL2\n")
    assert is_wsl(release)
    release.write_text("6.8.0-45-generic\n")
    assert not is_wsl(release)
    assert not is_wsl(tmp_path / "none")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mode": "off"}, "discovery.mdns.mode"),
        ({"port": 0, "listening": ()}, "port"),
        ({"listening": ("127.0.0.1", "::1")}, "gateway.bind"),
        ({}, "switched off by"),
    ],
)
async def test_disc1_off_says_why(
    changed: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, "1")
    service = DiscoveryService(lambda: attrs.evolve(FACTS, **changed), None)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.serve, stopping.wait)
        await trio.testing.wait_all_tasks_blocked()
        view = service.view()
        assert view["state"] == "off"
        assert reason in view["reason"]
        assert view["text"] == f"off: {view['reason']}"
        stopping.set()


def test_a_start_loads_neither_zeroconf_nor_the_responder() -> None:
    program = textwrap.dedent("""
        import sys, trio
        from openclaw_gateway import open_gateway
        from openclaw_gateway.config.schema import GatewayConfig
        async def main():
            async with open_gateway(GatewayConfig(port=0)) as gateway:
                await trio.sleep(0.5)
                assert gateway.discovery.view()["state"] == "off", gateway.discovery.view()
            loaded = [name for name in sys.modules if name.partition(".")[0] in {"zeroconf", "ifaddr", "asyncio"}]
            loaded += [name for name in sys.modules if name == "openclaw_gateway.discovery.responder"]
            assert not loaded, loaded
        trio.run(main)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_child_signs_and_the_library_stays_out_of_this_process(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, trio, pathlib
        from openclaw_gateway.discovery.records import encode_txt, txt_of
        from openclaw_gateway.discovery.service import Facts
        from openclaw_gateway.discovery.signer import Signer
        facts = Facts(mode="minimal", listening=("0.0.0.0",), port=18789, version="0.1.0", auth="token")
        said = trio.run(Signer(pathlib.Path(sys.argv[1])).announcement, facts)
        assert "cryptography" not in sys.modules
        print(said.instance, said.beacon.public_key, said.beacon.signed_at, said.beacon.signature)
    """)
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", program, str(state)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, key, when, _ = done.stdout.split()
    identity = load_gateway_identity(state)
    assert key == identity.public_key
    assert done.stdout.startswith(instance_name(identity.device_id))
    assert int(when) > 1_600_000_000


async def test_v39_what_a_gateway_announces_verifies_as_its_own(tmp_path: Path) -> None:
    state = tmp_path / "state"
    facts = attrs.evolve(FACTS, tls=True, tls_sha256="a" * 64)
    said = await Signer(state, wall=lambda: 1_700_000_000.0).announcement(facts, number=2)
    verdict = verify_beacon(
        said.beacon, instance=said.instance, port=said.port, tls_sha256=said.tls_sha256, now=1_700_000_001,
        known=[load_gateway_identity(state).device_id],
    )  # fmt: skip
    assert verdict.word == "verified"
    assert said.instance.endswith(" 2")
    assert said.host.endswith("-2")
