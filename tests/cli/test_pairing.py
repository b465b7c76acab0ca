"""``openclaw pairing`` against a real gateway process with a scripted Telegram, and against no gateway at all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trio

from openclaw_gateway.client import open_client
from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.handshake import Credentials
from openclaw_gateway.client.identity import DeviceIdentity
from tests.cli.program import Program, free_port

pytestmark = pytest.mark.deadline(120)

PASSWORD = "the Passw0rd of the pairing tests!"


class Telegram:
    """The scripted channel inside the gateway process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _say(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def write(self, sender_id: str, text: str = "/pair", **more: Any) -> dict[str, Any]:
        return self._say({"sender_id": sender_id, "text": text, **more})

    def code(self, sender_id: str, **more: Any) -> str:
        said: str = self.write(sender_id, **more)["text"]
        return said.split("Pairing code: ")[1].split("\n")[0]

    def sent(self, count: int) -> dict[str, Any]:
        return self._say({"sent": count})


@contextmanager
def hub(openclaw: Program) -> Iterator[Telegram]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.channel_gateway"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=openclaw.environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "port" in first, first + (process.stderr.read() if process.stderr else "")
        yield Telegram(process)
    finally:
        _, errors = process.communicate(timeout=20)  # closes its standard input: that ends it
        assert process.returncode == 0, errors


@pytest.fixture
def openclaw(tmp_path: Path) -> Program:
    program = Program(tmp_path / "state")
    program.config(settings())
    return program


def settings(**more: Any) -> str:
    gateway = {"port": free_port(), **more}
    channels = {"telegram": {"dm": {"policy": "pairing"}}}
    return json.dumps({"gateway": gateway, "channels": channels, "logging": {"console": False}})


def ok(openclaw: Program, *arguments: str) -> str:
    done = openclaw(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(openclaw: Program, *arguments: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(ok(openclaw, "pairing", "list", *arguments, "--json"))
    return shown


def test_s074_s079_s166_s169_a_stranger_is_let_in_from_the_command_line(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("111", name="Ann")
        listed = ok(openclaw, "pairing", "list")
        assert code in listed
        assert "Ann (111)" in listed
        assert f"openclaw pairing approve telegram {code}" in listed
        assert code in ok(openclaw, "pairing", "list", "telegram")
        assert code not in ok(openclaw, "pairing", "list", "--channel", "discord")
        assert telegram.write("111", "hello")["kind"] == "silent"

        said = ok(openclaw, "pairing", "approve", "telegram", code, "--notify")
        assert "Approved: 111 on telegram" in said
        assert "The sender was told." in said
        assert telegram.sent(2)["to"] == "111"
        assert telegram.write("111", "hello")["kind"] == "allow"

        assert ok(openclaw, "config", "get", "channels.telegram.dm.policy").strip() == "pairing"
        (row,) = table(openclaw)["paired"]
        assert (row["subject"], row["policy"], row["grants"]) == ("111", "allow", "direct messages")
        logged = (openclaw.state / "logs" / "gateway.log").read_text()
        about = [line for line in logged.splitlines() if "pairing" in line]
        assert any('"decision":"requested"' in line and '"sender":"111"' in line for line in about), about
        assert any('"decision":"approved"' in line for line in about)
        assert "pairing" in ok(openclaw, "logs")
        assert code not in logged


def test_s078_s080_s081_reject_policies_and_history(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("222")
        assert "Rejected: 222 on telegram" in ok(openclaw, "pairing", "reject", "telegram", code.lower())
        assert telegram.write("222")["kind"] == "silent"
        for policy, kind in (("allow", "allow"), ("deny", "deny"), ("pair", "challenge"), ("clear", "silent")):
            ok(openclaw, "pairing", "policy", "telegram", "222", policy)
            if policy != "clear":
                assert telegram.write("222")["kind"] == kind
        assert "channels.telegram.dm.policy holds" in ok(openclaw, "pairing", "policy", "telegram", "222")
        history = json.loads(ok(openclaw, "pairing", "history", "telegram", "--json"))["entries"]
        assert [entry["event"] for entry in history] == [
            "policy-cleared", "requested", "policy-pair", "policy-deny", "policy-allow", "rejected", "requested",
        ]  # fmt: skip
        assert "rejected" in ok(openclaw, "pairing", "history")


def test_refusals_name_the_next_command(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        done = openclaw("pairing", "approve", "telegram", "AAAAAAAA")
        assert done.returncode == 1
        assert "fix: openclaw pairing list" in done.stderr
        telegram.code("111")
        for _ in range(10):
            done = openclaw("pairing", "approve", "telegram", "AAAAAAAA")
        assert "too many wrong codes" in done.stderr
        assert table(openclaw)["pending"] == []
        for wrong in (["approve", "77777"], ["reject", "deadbeef"], ["approve", "--latest"]):
            done = openclaw("pairing", *wrong)
            assert done.returncode == 1
            assert "fix: openclaw pairing list" in done.stderr
        assert openclaw("pairing", "approve").returncode == 2
        assert openclaw("pairing", "approve", "a", "b", "c").returncode == 2
        assert openclaw("pairing", "approve", "telegram", "AAAAAAAA", "--account", " ").returncode == 2


def test_pair5_latest_decides_only_where_one_waits(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        codes = [telegram.code("111"), telegram.code("222")]
        done = openclaw("pairing", "approve", "--latest")
        assert done.returncode == 1
        assert all(f"openclaw pairing approve telegram {code}" in done.stderr for code in codes)
        assert len(table(openclaw)["pending"]) == 2
        ok(openclaw, "pairing", "reject", codes[0])
        assert "222" in ok(openclaw, "pairing", "approve", "--latest")
        assert telegram.write("222")["kind"] == "allow"


def test_v27_account_and_codes_from_the_command_line(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("111", account="work")
        assert openclaw("pairing", "approve", "telegram", code, "--account", "default").returncode == 1
        ok(openclaw, "pairing", "approve", "telegram", code, "--account", "work")
        assert telegram.write("111", account="work")["kind"] == "allow"
        assert telegram.write("111", account="default")["kind"] == "challenge"
        assert telegram.write("111", account="work", context="group")["kind"] == "deny"


def connect(openclaw: Program, identity: DeviceIdentity, *scopes: str, role: str = "operator") -> str | None:
    """None where the device was let in with those scopes, else the id of its request."""
    port = json.loads((openclaw.state / "openclaw.json").read_text())["gateway"]["port"]

    async def go() -> str | None:
        try:
            async with open_client(
                f"ws://127.0.0.1:{port}", auth=Credentials(password=PASSWORD), identity=identity, role=role,
                scopes=[f"operator.{scope}" for scope in scopes], client_id="cli", mode="cli", display_name="laptop",
            ) as client:  # fmt: skip
                assert set(client.hello.scopes) >= {f"operator.{scope}" for scope in scopes}
                return None
        except ConnectFailed as refused:
            return str((refused.details or {})["requestId"])

    return trio.run(go)


@pytest.fixture
def locked_out(tmp_path: Path) -> Program:
    """A gateway whose password this host does not know, and that pairs nobody by itself."""
    program = Program(tmp_path / "state")
    digest = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    auth = {"type": "password", "passwordHash": digest}
    program.config(settings(auth=auth, pairing={"autoApprove": {"loopback": False}}))
    return program


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_pair2_a_device_with_read_only_is_recovered_by_one_command(locked_out: Program, running: bool) -> None:
    openclaw, laptop = locked_out, DeviceIdentity.generate()
    with openclaw.foreground():
        first = connect(openclaw, laptop, "read")
        assert first is not None
        ok(openclaw, "pairing", "approve", first)
        assert connect(openclaw, laptop, "read") is None
        upgrade = connect(openclaw, laptop, "admin", "pairing")
        assert upgrade is not None, "it holds operator.read and nobody else holds more"
        assert openclaw("devices", "list").returncode == 1, "the command line itself has no secret and no scope"
        if running:
            said = ok(openclaw, "pairing", "approve", upgrade[:8])
            assert "operator.admin" in said
            assert connect(openclaw, laptop, "admin", "pairing") is None
    if not running:
        assert openclaw.pid is None
        done = openclaw("pairing", "approve", upgrade[:8])
        assert done.returncode == 0, done.stderr
        assert "openclaw gateway start" in done.stderr
        with openclaw.foreground():
            assert connect(openclaw, laptop, "admin", "pairing") is None


def test_pair8_the_same_command_decides_devices_and_senders(locked_out: Program) -> None:
    openclaw = locked_out
    with hub(openclaw) as telegram:
        telegram.code("111", name="Ann")
        device = connect(openclaw, DeviceIdentity.generate(), "read", "write")
        node = connect(openclaw, DeviceIdentity.generate(), role="node")
        rows = {row["kind"] + row.get("role", ""): row for row in table(openclaw)["pending"]}
        assert {"dm", "deviceoperator", "devicenode"} == set(rows)
        assert rows["deviceoperator"]["asks"] == ["operator.read", "operator.write"]
        assert (rows["deviceoperator"]["id"], rows["devicenode"]["id"]) == (device, node)
        shown = ok(openclaw, "pairing", "list")
        assert str(device) in shown
        assert "127.0.0.1" in shown
        for kind, row in rows.items():
            named = row["id"] if kind == "dm" else row["id"][:8]
            said = json.loads(ok(openclaw, "pairing", "approve", named, "--json"))
            assert said["approved"] is True
            assert said["via"] == "gateway"
        assert {row["kind"] for row in table(openclaw)["paired"]} == {"dm", "device"}
        assert table(openclaw)["pending"] == []
        assert telegram.write("111", "hello")["kind"] == "allow"


def test_pair2_with_the_gateway_stopped_senders_are_decided_too(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        codes = [telegram.code("111"), telegram.code("222")]
    assert openclaw.pid is None
    assert table(openclaw)["via"] == "offline"
    done = openclaw("pairing", "approve", "telegram", codes[0], "--notify")
    assert done.returncode == 0
    assert "was not told: no gateway runs" in done.stderr
    ok(openclaw, "pairing", "reject", "telegram", codes[1])
    openclaw.config(settings().replace('"policy": "pairing"', '"policy": "pairing", "allowFrom": ["@ann"]'))
    listed = openclaw("pairing", "list")
    assert listed.stderr.count("@ann") == 1, "the note, and no line of a log"
    logged = (openclaw.state / "logs" / "gateway.log").read_text()
    assert '"decision":"approved"' in logged, "what is decided offline is in the log too"
    with hub(openclaw) as telegram:
        assert telegram.write("111")["kind"] == "allow"
        assert telegram.write("222")["kind"] == "silent"


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")
    assert "Nobody is paired" in ok(openclaw, "pairing", "list")
    assert not openclaw.state.exists()


def test_a_broken_configuration_keeps_nobody_from_deciding(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("111")
    openclaw.config('{ gateway: { auth: { type: "token", token: "${NOT_SET_ANYWHERE}" } } }')
    ok(openclaw, "pairing", "approve", "telegram", code)


def test_over_the_network_scopes_hold_and_the_refusal_says_where_to_go(openclaw: Program) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("111")
        port = str(json.loads((openclaw.state / "openclaw.json").read_text())["gateway"]["port"])
        done = openclaw("pairing", "list", "--port", port, "--token", "wrong" * 8)
        assert done.returncode == 1
        assert "fix:" in done.stderr
        assert code not in done.stdout + done.stderr
        shown = json.loads(ok(openclaw, "pairing", "list", "--port", port, "--json"))
        assert shown["via"] == "network"
        ok(openclaw, "pairing", "approve", "telegram", code, "--port", port)
        assert telegram.write("111")["kind"] == "allow"


@pytest.mark.parametrize("columns", [80, 120])
def test_v52_on_a_terminal_names_are_escaped_and_the_table_fits(openclaw: Program, columns: int) -> None:
    with hub(openclaw) as telegram:
        code = telegram.code("111", name="\x1b[31m[bold]Mallory[/bold] \u202e" + "x" * 90)
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*openclaw.argv, "pairing", "list"], stdout=slave, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            env={**openclaw.environment, "COLUMNS": str(columns), "TERM": "xterm-256color", "NO_COLOR": "1"},
        )  # fmt: skip
        os.close(slave)
        shown = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        os.close(master)
        assert process.wait(20) == 0
        text = shown.decode()
        assert code in text
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert "[bold]" in text.replace("\r\n", "")
        lines = re.sub(r"\x1b\[[0-9;]*m", "", text.replace("\r\n", "\n")).split("\n")  # bold, which takes no room
        assert [line for line in lines if len(line) > columns] == []
