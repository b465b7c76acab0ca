"""A real browser, headless: a page of the gateway's own origin is let in to the handshake, a page from anywhere
else is not.

Each page runs the same session with the right token, so that only its origin decides (V1, V2, NET-3).
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .processes import TOKEN, GatewayProcess, Official

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")  # a failure on CI
    return found


@pytest.fixture
def foreign_site() -> Iterator[str]:
    """A web site on another port of this machine: another origin from the same loopback address."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>foreign</title>")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(official: Official, browser: str, url: str, gateway: GatewayProcess) -> Any:
    got = official.script("chromium_page.cjs", browser, url, gateway.url, TOKEN)
    assert got.code == 0, got.text
    return json.loads(got.out)


def assert_shut_out(steps: list[str]) -> None:
    assert "hello" not in steps
    assert steps[-1].startswith("close "), steps
    assert set(steps) <= {"challenge", "error", "CONTROL_UI_ORIGIN_NOT_ALLOWED", "close 1006", "close 1008"}, steps


def test_v1_page_with_a_null_origin_is_refused_in_spite_of_its_token(
    official: Official, browser: str, gateway_process: GatewayProcess, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>local file</title>")
    got = visit(official, browser, path.as_uri(), gateway_process)
    assert got["origin"] == "null"
    assert_shut_out(got["steps"])


def test_v2_page_of_a_foreign_loopback_origin_is_refused_in_spite_of_its_token(
    official: Official, browser: str, gateway_process: GatewayProcess, foreign_site: str
) -> None:
    got = visit(official, browser, foreign_site, gateway_process)
    assert got["origin"] == foreign_site
    assert_shut_out(got["steps"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_net3_page_of_our_own_origin_passes_the_origin_check(
    host: str, official: Official, browser: str, gateway_process: GatewayProcess
) -> None:
    own = f"http://{host}:{gateway_process.port}"
    got = visit(official, browser, f"{own}/health", gateway_process)
    assert got["origin"] == own
    assert got["steps"][0] == "challenge", got
    assert "CONTROL_UI_ORIGIN_NOT_ALLOWED" not in got["steps"], got
