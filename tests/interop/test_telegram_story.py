"""A stranger writes to the bot, is let in with `openclaw pairing approve`, and talks to an agent: real processes and a
Bot API server that others wrote (npm: telegram-test-api). S071, S074-S079, S083.

That server answers a poll at once and marks updates as read when they are fetched, so what a crash does to a message is
tested elsewhere, against a server that keeps Telegram's promise (`tests/channels/test_channel_kill.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program

from .processes import Official, free_port, wait_until

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TOKEN = "123456:token-of-the-telegram-story"


@contextmanager
def telegram_server(official: Official) -> Iterator[str]:
    installed = subprocess.run(
        [str(ROOT / "scripts" / "emulators")], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        pytest.skip(f"the emulators are not installed: {installed.stderr[-500:]}")  # a failure on CI
    port = free_port()
    env = {**os.environ, "OPENCLAW_MODULES": str(Path(installed.stdout.strip()) / "node_modules")}
    process = subprocess.Popen(
        [str(official.node), str(HERE / "telegram_server.cjs"), str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


class Person:
    """Somebody who writes to the bot with the emulator's client API."""

    def __init__(self, url: str, number: int, name: str) -> None:
        self.url = url
        self.number = number
        self.name = name

    def _post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def write(self, text: str) -> None:
        who = {"id": self.number, "first_name": self.name, "is_bot": False}
        chat = {"id": self.number, "first_name": self.name, "type": "private"}
        message = {"botToken": TOKEN, "from": who, "chat": chat, "date": int(time.time()), "text": text}
        assert self._post("/sendMessage", message)["ok"]

    @property
    def received(self) -> list[str]:
        history = self._post("/getUpdatesHistory", {"token": TOKEN})["result"]
        mine = [one["message"] for one in history if "chat_id" in one.get("message", {})]
        return [one["text"] for one in mine if str(one["chat_id"]) == str(self.number)]

    def wait(self, count: int, also: Callable[[], str]) -> str:
        wait_until(f"{count} messages for {self.name}", lambda: len(self.received) >= count, seconds=20, also=also)
        return self.received[count - 1]


def test_s071_a_stranger_is_paired_from_the_command_line_and_gets_an_agents_answer(
    official: Official, tmp_path: Path
) -> None:
    openclaw = Program(tmp_path / "state", {"TELEGRAM_BOT_TOKEN": TOKEN})
    with telegram_server(official) as url:
        telegram = {"botToken": "${TELEGRAM_BOT_TOKEN}", "apiRoot": url, "dm": {"policy": "pairing"}}
        openclaw.config(json.dumps({"channels": {"telegram": telegram}}))
        stranger, other = Person(url, 111, "Ann"), Person(url, 222, "Bob")
        with openclaw.started() as port:
            log = openclaw.state / "logs" / "gateway.log"

            def told() -> str:
                return log.read_text() if log.exists() else "(no log)"

            def connected() -> bool:
                status = openclaw("gateway", "call", "channels.status", "--json")
                return '"connected": true' in status.stdout

            wait_until("the bot is connected", connected, seconds=20, also=told)
            stranger.write("/pair")
            challenge = stranger.wait(1, told)
            code = challenge.split("Pairing code: ")[1].split("\n")[0]
            assert f"openclaw pairing approve telegram {code}" in challenge

            listed = json.loads(openclaw("pairing", "list", "telegram", "--json").stdout)
            assert "111" in json.dumps(listed), "S076: the admin sees who asks"
            approved = openclaw("pairing", "approve", "telegram", code, "--notify")
            assert approved.returncode == 0, approved.stdout + approved.stderr
            assert "You are paired now" in stranger.wait(2, told)

            stranger.write("Hello **agent**")
            assert "Hello" in stranger.wait(3, told)
            other.write("let me in too")
            assert "Pairing code: " in other.wait(1, told), "another one is still a stranger"
            assert len(stranger.received) == 3
            assert TOKEN not in told()

            there = {"OPENCLAW_GATEWAY_URL": f"ws://127.0.0.1:{port}", "OPENCLAW_GATEWAY_TOKEN": openclaw.secret}
            seen = official.cli("channels", "status", "--probe", env=there)
            assert seen.code == 0, seen.text
            assert "Telegram default (TestNameBot): enabled, configured, running, connected" in seen.out, seen.text
            assert "works" in seen.out, seen.text

            words = ("--channel", "telegram", "--target", "111", "--message", "said by hand", "--json")
            # Without the remote mode the command line would speak to Telegram by itself.
            remote = {"mode": "remote", "remote": {"url": there["OPENCLAW_GATEWAY_URL"], "token": openclaw.secret}}
            local = {"channels": {"telegram": {"botToken": TOKEN}}, "gateway": remote}
            by_hand = official.cli("message", "send", *words, env=there, config=local)
            assert by_hand.code == 0, by_hand.text
            assert "queued" in by_hand.out, by_hand.text
            assert stranger.wait(4, told) == "said by hand"
