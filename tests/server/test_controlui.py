"""The dashboard's files: what leaves the folder, and under which policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.schema import AuthConfig, ControlUiConfig
from openclaw_gateway.server import controlui
from openclaw_gateway.testing import open_memory_gateway

from .conftest import TOKEN
from .test_http import ask

SCRIPT = b"window.x = 1;"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    (folder / "assets").mkdir(parents=True)
    (folder / ".git").mkdir()
    index = b"<!doctype html><html><head><script>" + SCRIPT + b'</script><script src="./assets/a-12345678.js"></script>'
    (folder / "index.html").write_bytes(index + b"</head></html>")
    (folder / "assets" / "a-12345678.js").write_bytes(b"1;")
    (folder / ".git" / "config").write_text("secret")
    (folder / ".env").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside.js").symlink_to(folder / "assets" / "a-12345678.js")
    return folder


def config(root: Path | None) -> GatewayConfig:
    return GatewayConfig(auth=AuthConfig(token=TOKEN), control_ui=ControlUiConfig(root=root))


@pytest.fixture
async def gateway(root: Path) -> AsyncIterator[Gateway]:
    async with open_memory_gateway(config(root)) as opened:
        yield opened


async def test_the_page_and_its_files_are_served(gateway: Gateway, root: Path) -> None:
    page = await ask(gateway, "GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<base href="/" />' in page.body
    assert page.headers["cache-control"] == "no-cache"
    asset = await ask(gateway, "GET", "/assets/a-12345678.js?v=1")
    assert (asset.body, asset.headers["content-type"]) == (b"1;", "text/javascript; charset=utf-8")
    assert "immutable" in asset.headers["cache-control"]
    again = await ask(gateway, "GET", "/assets/a-12345678.js", If_None_Match=asset.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    head = await ask(gateway, "HEAD", "/")
    assert (head.status, head.headers["content-length"]) == (200, page.headers["content-length"])
    assert (await ask(gateway, "GET", "/inside.js")).body == b"1;"
    assert (await ask(gateway, "GET", "/control-ui-config.json")).json["assistantAgentId"] == "main"


async def test_what_nothing_else_takes_is_the_pages_own(gateway: Gateway) -> None:
    assert (await ask(gateway, "GET", "/chat/main", Accept="text/html")).status == 200
    assert (await ask(gateway, "GET", "/chat/main", Accept="application/json")).status == 404
    assert (await ask(gateway, "GET", "/assets/nope.js")).status == 404
    assert (await ask(gateway, "POST", "/chat/main")).status == 404
    assert (await ask(gateway, "GET", "/health")).json == {"ok": True, "status": "live"}
    assert (await ask(gateway, "GET", "/rpc")).status == 405


@pytest.mark.parametrize(
    "path", ["/link.txt", "/up/outside.txt", "/.env", "/.git/config", "/assets", "/%2e%2e/outside.txt"]
)
async def test_v7_nothing_outside_the_folder_leaves(gateway: Gateway, path: str) -> None:
    answer = await ask(gateway, "GET", path, Accept="application/json")
    assert answer.status in {400, 404}
    assert b"secret" not in answer.body


async def test_v7_a_page_runs_its_own_scripts_and_connects_home_alone(gateway: Gateway) -> None:
    policy = (await ask(gateway, "GET", "/")).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    known = base64.b64encode(hashlib.sha256(SCRIPT).digest()).decode()
    assert rules["script-src"] == f"'self' 'wasm-unsafe-eval' 'sha256-{known}'"
    assert rules["connect-src"] == "'self' data:"
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["object-src"] == "'none'"
    assert (await ask(gateway, "GET", "/health")).headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_file_has_a_limit(gateway: Gateway, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlui, "MAX_FILE_BYTES", 10)
    (root / "big.bin").write_bytes(b"x" * 11)
    assert (await ask(gateway, "GET", "/big.bin")).status == 404


@pytest.mark.expect_error_log("dashboard cannot be served")
async def test_a_reload_moves_it_or_takes_it_away(gateway: Gateway, root: Path, tmp_path: Path) -> None:
    gateway.apply(config(None), gateway.auth)
    assert b"POST /rpc" in (await ask(gateway, "GET", "/")).body
    assert (await ask(gateway, "GET", "/assets/a-12345678.js")).status == 404
    gateway.apply(config(root), gateway.auth)
    assert (await ask(gateway, "GET", "/assets/a-12345678.js")).status == 200
    gateway.apply(attrs.evolve(config(root), control_ui=ControlUiConfig(root=root, enabled=False)), gateway.auth)
    assert (await ask(gateway, "GET", "/assets/a-12345678.js")).status == 404
    gateway.apply(config(tmp_path / "nowhere"), gateway.auth)
    assert b"POST /rpc" in (await ask(gateway, "GET", "/")).body


async def test_v7_a_link_to_a_hidden_file_is_hidden(gateway: Gateway, root: Path) -> None:
    (root / "shown.txt").symlink_to(root / ".env")
    assert (await ask(gateway, "GET", "/shown.txt")).status == 404


def test_v7_a_folder_that_becomes_a_link_after_the_look_is_not_followed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a-12345678.js").write_text("secret")
    opens = controlui._open_below

    def swapped(inside: Path, steps: tuple[str, ...]) -> int:
        (root / "assets").rename(root / "old")
        (root / "assets").symlink_to(elsewhere)
        return opens(inside, steps)

    assert controlui._read(root, "assets/a-12345678.js") is not None
    monkeypatch.setattr(controlui, "_open_below", swapped)
    assert controlui._read(root, "assets/a-12345678.js") is None


async def test_an_updated_page_brings_its_own_policy(gateway: Gateway, root: Path) -> None:
    script = b"window.y = 2;"
    (root / "index.html").write_bytes(b"<!doctype html><html><head><script>" + script + b"</script></head></html>")
    page = await ask(gateway, "GET", "/")
    assert base64.b64encode(hashlib.sha256(script).digest()).decode() in page.headers["content-security-policy"]
