"""Operators log in at an OpenID provider that others wrote: oidc-provider, certified by the OpenID Foundation."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.hookblocks import OidcConfig
from openclaw_gateway.config.schema import AuthConfig

from .processes import Official, free_port

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-the-tests-of-logins-0123456789"
SECRET = "secret of the client: +&%"


@pytest.fixture(scope="session")
def emulators() -> Path:
    folder = os.environ.get("OPENCLAW_TEST_EMULATORS")
    if not folder:
        run = [str(ROOT / "scripts" / "emulators")]
        installed = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            pytest.skip(f"oidc-provider is not installed: {installed.stderr[-500:]}")  # a failure on CI
        folder = installed.stdout.strip()
    return Path(folder)


@asynccontextmanager
async def opened(official: Official, emulators: Path, secret: str) -> AsyncIterator[Gateway]:
    """The provider in a process of its own, and a gateway that knows it."""
    ours, theirs = free_port(), free_port()
    redirect = f"http://127.0.0.1:{ours}/auth/callback"
    script = str(Path(__file__).with_name("oidc_provider.mjs"))
    argv = [str(official.node), script, str(emulators), str(theirs), redirect, secret]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(20):
            said = b""
            while b"ready" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, "the provider ended"
                said += chunk
        oidc = OidcConfig(
            issuer=f"http://127.0.0.1:{theirs}", client_id="gateway", client_secret=secret or None,
            allow_users=("alice@example.com", "mallory@example.com"), scopes=("operator.read",),
        )  # fmt: skip
        config = GatewayConfig(port=ours, auth=AuthConfig(token=TOKEN, oidc=oidc))
        async with open_gateway(config, env={}) as gateway:
            yield gateway
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()


async def log_in(gateway: Gateway, name: str) -> httpx.Response:
    """Do what a person does: follow, fill in the forms, agree."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(f"http://127.0.0.1:{gateway.port}/auth/login")
        for _ in range(12):
            if answer.is_redirect:
                answer = await browser.get(urljoin(str(answer.url), answer.headers["location"]))
                continue
            form = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            if form is None:
                return answer
            fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', answer.text))
            if fields.get("prompt") == "login" or 'name="login"' in answer.text:
                fields |= {"prompt": "login", "login": name, "password": "any"}
            answer = await browser.post(urljoin(str(answer.url), form[1]), data=fields)
    raise AssertionError("the login goes round in circles")


@pytest.mark.parametrize("secret", [SECRET, ""], ids=["confidential", "public"])
async def test_s013_a_person_logs_in_at_a_real_provider(official: Official, emulators: Path, secret: str) -> None:
    async with opened(official, emulators, secret) as gateway:
        page = await log_in(gateway, "alice")
        assert page.status_code == 200, page.text
        found = re.search(r"ocg_[A-Za-z0-9_-]{43}", page.text)
        assert found is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"http://127.0.0.1:{gateway.port}/rpc",
                json={"jsonrpc": "2.0", "id": 1, "method": "health"},
                headers={"Authorization": f"Bearer {found[0]}"},
            )
        assert answer.json()["result"]["ok"] is True
        for name in ("mallory", "bob"):  # an address that was not verified, and nobody we know
            assert (await log_in(gateway, name)).status_code == 403
