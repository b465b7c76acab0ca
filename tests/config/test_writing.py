"""Writing the file: atomic, private, with backups, refused when it would break something."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.config import ConfigError
from openclaw_gateway.config.edit import EditError, set_value
from openclaw_gateway.config.redact import MARKER, MarkerRefusedError, redact_raw
from openclaw_gateway.config.writing import (
    BACKUPS,
    ConfigConflictError,
    apply_patch,
    apply_raw,
    backup_paths,
    read_text,
    write_config,
)
from tests.config.conftest import SEED, Home

TOKEN = "a-token-of-some-length"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def edit(home: Home, path: str, value: Any) -> None:
    write_config(home.file, set_value(read_text(home.file), path, value), env=home.env)


def test_cfg5_a_new_file_is_private(home: Home) -> None:
    edit(home, "gateway.port", 18790)
    assert home.load().config.port == 18790
    assert mode(home.file) == 0o600
    assert mode(home.state) == 0o700
    assert sorted(entry.name for entry in home.state.iterdir()) == ["openclaw.json"]


def test_cfg5_v53_backups_rotate_and_everything_is_private(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = TOKEN
    home.write(SEED, mode=0o644)
    old_umask = os.umask(0)
    try:
        for port in range(20000, 20000 + BACKUPS + 2):
            edit(home, "gateway.port", port)
    finally:
        os.umask(old_umask)
    assert home.file.read_text() == SEED.replace("18789", str(20000 + BACKUPS + 1))
    backups = backup_paths(home.file)
    assert [f"port: {20000 + BACKUPS - n}" in path.read_text() for n, path in enumerate(backups)] == [True] * BACKUPS
    assert len(list(home.state.iterdir())) == 1 + BACKUPS
    for entry in home.state.iterdir():
        assert mode(entry) == 0o600, entry
        assert TOKEN not in entry.read_text(), "${NAME} is never written resolved"


@pytest.mark.parametrize(
    ("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o600), (0o666, 0o600), (0o660, 0o660)]
)
def test_cfg5_v53_the_mode_is_kept_unless_the_world_could_read(home: Home, before: int, after: int) -> None:
    home.write("{}", mode=before)
    edit(home, "gateway.port", 18790)
    assert mode(home.file) == after
    assert mode(backup_paths(home.file)[0]) == 0o600


def test_a_link_stays_a_link(home: Home) -> None:
    home.state.mkdir()
    real = home.root / "dotfiles" / "openclaw.json"
    real.parent.mkdir()
    real.write_text("{}")
    home.file.symlink_to(real)
    edit(home, "gateway.port", 18790)
    assert home.file.is_symlink()
    assert "18790" in real.read_text()


def test_cfg5_a_failing_write_leaves_the_old_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("{ gateway: { port: 1 } }")
    for name in ("fsync", "fchmod"):
        with monkeypatch.context() as broken:

            def fail(*_: Any) -> None:
                raise OSError(28, "no space")

            broken.setattr(os, name, fail)
            with pytest.raises(OSError, match="no space"):
                edit(home, "gateway.port", 2)
        assert home.file.read_text() == "{ gateway: { port: 1 } }"
        assert not [entry for entry in home.state.iterdir() if entry.name.endswith(".tmp")]


def test_an_edit_that_brings_a_fault_is_refused_with_the_fault(home: Home) -> None:
    home.write("{ gateway: { port: 18789 } }")
    for path, value in [
        ("gateway.port", 99999),
        ("gateway.bind", "lopback"),
        ("gateway.auth.type", "password"),
        ("gateway.tailscale", {"mode": "funnel"}),
    ]:
        with pytest.raises(ConfigError) as caught:
            edit(home, path, value)
        assert caught.value.issues[0].path.startswith(path[:12])
        assert home.file.read_text() == "{ gateway: { port: 18789 } }"
    assert not backup_paths(home.file)[0].exists()


def test_a_file_with_two_faults_can_be_mended_one_by_one(home: Home) -> None:
    home.write('{ gateway: { port: "x", bind: "y", auth: { type: "z" } } }')
    edit(home, "gateway.port", 18789)
    edit(home, "gateway.auth.type", "token")
    edit(home, "gateway.bind", "loopback")
    assert not home.load().degraded


def test_v53_a_variable_that_this_shell_lacks_is_no_fault_of_the_edit(home: Home) -> None:
    edit(home, "gateway.auth.token", "${ONLY_IN_THE_SERVICE}")
    assert "${ONLY_IN_THE_SERVICE}" in home.file.read_text()


def test_a_change_made_meanwhile_is_never_overwritten(home: Home) -> None:
    home.write("{}")
    loaded = home.load()
    home.write("{ gateway: { port: 5 } }")
    with pytest.raises(ConfigConflictError) as caught:
        apply_patch(loaded, {"gateway": {"port": 6}}, env=home.env)
    assert caught.value.present_hash == hashlib.sha256(home.file.read_bytes()).hexdigest()
    with pytest.raises(ConfigConflictError):
        apply_raw(loaded, "{}", env=home.env)
    assert home.file.read_text() == "{ gateway: { port: 5 } }"


def test_patch_by_the_wire(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = TOKEN
    loaded = home.load(SEED)
    new, issues = apply_patch(
        loaded, {"gateway": {"port": 18790, "auth": {"token": MARKER}}}, env=home.env, base_hash=loaded.hash
    )
    assert new is not None
    assert issues == ()
    assert (new.config.port, new.config.auth.token) == (18790, TOKEN)
    assert home.file.read_text() == SEED.replace("18789", "18790")


SECRETIVE = """\
{
  // token: "old-secret-token-value"
  gateway: { port: 1, auth: { token: "literal-secret-token" } }, /* it is literal-secret-token, see */
  channels: { telegram: { botToken: "123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" } },
  hooks: { token: "hook-secret-value", list: ["--api-key", "flag-secret-value", "plain"] }, // keep
}
"""


def test_auth4_what_get_shows_can_be_set_again_unchanged(home: Home) -> None:
    loaded = home.load(SECRETIVE)
    shown = redact_raw(loaded.raw)
    for secret in ("old-secret", "literal-secret", "AAAAAAAA", "hook-secret", "flag-secret"):
        assert secret not in shown
    assert MARKER in shown
    apply_raw(loaded, shown, env=home.env)
    assert home.file.read_text() == SECRETIVE
    apply_raw(home.load(), shown.replace("port: 1", "port: 2"), env=home.env)
    assert home.file.read_text() == SECRETIVE.replace("port: 1", "port: 2")


@pytest.mark.parametrize(
    "raw",
    [
        "{ gateway: { auth: { password: '%s' } } }",
        "{} // %s",
        "{ x: ['%s'] }",
        "{ '%s': 1 }",
        "{ a: 'x%s' }",
        "{ a: 1, a: '%s', a: 2 }",
    ],
)
def test_auth4_a_marker_with_nothing_behind_it_is_refused(home: Home, raw: str) -> None:
    loaded = home.load(SECRETIVE)
    with pytest.raises(MarkerRefusedError):
        apply_raw(loaded, raw.replace("%s", MARKER), env=home.env)
    assert home.file.read_text() == SECRETIVE


def test_auth4_the_net_under_everything(home: Home) -> None:
    with pytest.raises(EditError):
        write_config(home.file, "{} // " + MARKER, env=home.env)
    assert not home.file.exists()


def test_raw_that_is_no_configuration_is_refused(home: Home) -> None:
    loaded = home.load("{}")
    for raw in ("", "[1]", "{a:", "5"):
        with pytest.raises(ConfigError):
            apply_raw(loaded, raw, env=home.env)
    assert home.file.read_text() == "{}"
