"""``openclaw channels`` against a real gateway process and a Bot API server; `list` without any gateway."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.testing.telegram import open_fake_telegram
from tests.cli.program import Program

pytestmark = pytest.mark.deadline(120)


def settings(url: str, token: str, **more: Any) -> str:
    telegram = {"apiRoot": url, "accounts": {"work": {"botToken": token}, "home": {"botToken": "1:unknown"}}, **more}
    return json.dumps({"channels": {"telegram": telegram, "discord": {"enabled": False}}})


async def test_status_test_stop_start_logout(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")

    async def run(*arguments: str) -> tuple[int, str]:
        done = await trio.to_thread.run_sync(partial(openclaw, *arguments))
        assert "fake-token" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    async with open_fake_telegram() as telegram:
        openclaw.config(settings(telegram.url, telegram.token))
        gateway = openclaw.started()
        await trio.to_thread.run_sync(gateway.__enter__)
        try:
            with trio.fail_after(20):
                await telegram.wait_called("getUpdates")
                while "auth-failed" not in (await run("channels", "status"))[1]:
                    pass
            code, text = await run("channels", "status")
            assert code == 0
            assert "telegram" in text
            assert "connected" in text
            assert "fake_bot" in text
            assert "telegram/home is auth-failed: Telegram does not know this bot token" in text
            assert "openclaw config set channels.telegram.botToken" in text

            code, text = await run("channels", "status", "--json", "--probe", "--channel", "telegram")
            answer = json.loads(text)
            rows = {row["accountId"]: row for row in answer["channelAccounts"]["telegram"]}
            assert (rows["work"]["probe"]["ok"], rows["home"]["probe"]["ok"]) == (True, False)
            assert json.loads((await run("channels", "status", "--json", "--channel", "all"))[1])["channelOrder"]

            code, text = await run("channels", "test", "telegram", "--account", "work")
            assert code == 0, text
            assert text.startswith("telegram/work: ok as fake_bot")
            code, text = await run("channels", "test", "--json")
            assert (code, json.loads(text)["ok"]) == (1, False)

            code, text = await run("channels", "stop", "--account", "work")
            assert (code, text) == (0, "telegram/work: stopped\n")
            code, text = await run("channels", "start", "--channel", "telegram", "--account", "work", "--json")
            assert json.loads(text) == {"channel": "telegram", "accountId": "work", "started": True}
            code, text = await run("channels", "logout", "telegram", "--account", "work")
            assert (code, text) == (0, "telegram/work: stopped; the service kept nothing for it\n")
            code, text = await run("channels", "stop", "signal")
            assert code == 1
            assert "unknown channel: signal" in text
            assert "telegram/work, telegram/home" in text
        finally:
            await trio.to_thread.run_sync(gateway.__exit__, None, None, None)


def test_list_reads_the_configuration_and_needs_no_gateway(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")
    openclaw.config(settings("http://127.0.0.1:1", "1:fake-token"))
    done = openclaw("channels", "list", "--json")
    assert json.loads(done.stdout)["chat"] == {
        "telegram": {"accounts": ["work", "home"], "label": "Telegram", "installed": True, "origin": "configured"},
        "discord": {"accounts": [], "label": "Discord", "installed": True, "origin": "configured"},
    }
    text = openclaw("channels", "list", "--all").stdout
    assert [line.split()[0] for line in text.splitlines()] == ["CHANNEL", "telegram", "discord", "whatsapp"]
    assert "fake-token" not in text
    openclaw.config("{}")
    assert "openclaw channels list --all" in openclaw("channels", "list").stderr
