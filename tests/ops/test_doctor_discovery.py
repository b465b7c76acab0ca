"""What the doctor says about being found: never worse than a warning."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from openclaw_gateway.config.load import load_config
from openclaw_gateway.ops.doctor import Finding, Patient
from openclaw_gateway.ops.doctor_discovery import discovery, port_fault


def look(folder: Path, text: str, **env: str) -> Finding:
    (folder / "openclaw.json").write_text(text)
    (folder / "openclaw.json").chmod(0o600)
    everything = {"OPENCLAW_STATE_DIR": str(folder), "HOME": os.environ.get("HOME", "/"), **env}
    (found,) = discovery(Patient(everything, folder, load_config(env=everything)))
    return found


@pytest.mark.parametrize(
    ("text", "env", "said"),
    [
        ("{discovery: {mdns: {mode: 'off'}}, gateway: {bind: 'lan'}}", {}, "discovery.mdns.mode"),
        ("{}", {}, "this host only"),
        ("{gateway: {bind: 'lan'}}", {"OPENCLAW_DISABLE_BONJOUR": "1"}, "OPENCLAW_DISABLE_BONJOUR=1"),
    ],
)
def test_disc1_off_is_well_and_says_why(tmp_path: Path, text: str, env: dict[str, str], said: str) -> None:
    finding = look(tmp_path, text, **env)
    assert finding.state == "ok"
    assert said in finding.text


def test_disc1_an_address_that_no_interface_has_is_a_warning(tmp_path: Path) -> None:
    finding = look(tmp_path, "{gateway: {bind: '192.0.2.99'}}", OPENCLAW_DISABLE_BONJOUR="0")
    assert (finding.check, finding.state) == ("discovery", "warn")


def test_disc1_a_port_that_is_not_shared_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 0))
        port = holder.getsockname()[1]
        assert f"UDP port {port} is taken" in str(port_fault(port))
    assert port_fault(port) is None
