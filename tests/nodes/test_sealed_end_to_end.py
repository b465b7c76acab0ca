"""S096 with real processes: gateway, node and command line; what is on the wire and what the gateway keeps."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cli.program import Program

TOKEN = "token-of-the-sealing-tests-0123456789abc"
SECRET = "word-that-no-gateway-may-read-4711"
PLAIN = "word-that-every-gateway-may-read-4712"


class Wire:
    """A port that passes everything on to the gateway, and keeps it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.passed: list[bytes] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=(one, other)))
                self._threads[-1].start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        stream = bytearray()
        try:
            while data := one.recv(1 << 16):
                stream += data
                other.sendall(data)
        except OSError:
            pass
        finally:
            self.passed.append(_unmasked(bytes(stream)))
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)


def _unmasked(stream: bytes) -> bytes:
    """The HTTP head and then the payloads of all frames, as their receiver reads them (RFC 6455 section 5.3)."""
    head, found, rest = stream.partition(b"\r\n\r\n")
    out, at = [head], 0
    while found and len(rest) - at >= 2:
        length, start = rest[at + 1] & 0x7F, at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, start = int.from_bytes(rest[start : start + size], "big"), start + size
        mask = b"\0\0\0\0"
        if rest[at + 1] & 0x80:
            mask, start = rest[start : start + 4], start + 4
        body = rest[start : start + length]
        key = int.from_bytes((mask * (len(body) // 4 + 1))[: len(body)], "big")
        out.append((int.from_bytes(body, "big") ^ key).to_bytes(len(body), "big"))
        at = start + length
    return b"".join(out)


@contextmanager
def running_node(program: Program, port: int, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*program.argv, "node", "run", "--host", "127.0.0.1", "--port", str(port), "--display-name", "Shed"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *arguments], env=program.environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_s096_the_recorder_sees_what_is_readable() -> None:
    """What the assertions below rest on: a masked frame with the word in it is found."""
    body = json.dumps({"word": PLAIN}).encode()
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
    stream = b"GET / HTTP/1.1\r\n\r\n" + bytes([0x81, 0x80 | len(body)]) + mask + masked
    assert PLAIN.encode() not in stream
    assert PLAIN.encode() in _unmasked(stream)


@pytest.mark.deadline(150)
def test_s096_neither_the_wire_nor_the_gateway_holds_what_is_sealed(tmp_path: Path) -> None:
    env = {"OPENCLAW_GATEWAY_TOKEN": TOKEN}
    gateway = Program(tmp_path / "gateway", env)
    node, operator = Program(tmp_path / "node", env), Program(tmp_path / "operator", env)
    gateway.config(json.dumps({
        "gateway": {"mode": "local", "auth": {"type": "token", "token": TOKEN}},
        "logging": {"level": "debug"},
    }))  # fmt: skip
    assert node("node", "allow", "echo").returncode == 0

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        # Over the wire, and in the clear as every operator: sealing alone is what hides there.
        url = ("--url", f"ws://127.0.0.1:{wire.port}", "--token", TOKEN)
        return operator(*arguments, *url)

    def invoke(word: str, *more: str) -> subprocess.CompletedProcess[str]:
        params = json.dumps({"command": ["echo", word]})
        return ask("nodes", "invoke", "--node", "Shed", "--command", "system.run", "--params", params, "--json", *more)

    def approve() -> dict[str, Any]:
        until = time.monotonic() + 40
        while time.monotonic() < until:
            for kind in ("devices", "nodes"):
                listed = ask(kind, "list" if kind == "devices" else "pending", "--json")
                found = json.loads(listed.stdout or "{}")
                for request in found if isinstance(found, list) else found.get("pending") or []:
                    ask(kind, "approve", request["requestId"])
            rows: list[dict[str, Any]] = json.loads(ask("nodes", "status", "--json").stdout)["nodes"]
            if rows and rows[0].get("commands"):
                return rows[0]
        raise AssertionError((tmp_path / "node.out").read_text())

    with gateway.started() as port, Wire(port) as wire, running_node(node, wire.port, tmp_path / "node.out"):
        row = approve()
        assert "sealed-invoke.v1" in row["caps"]
        assert json.loads(invoke(PLAIN).stdout)["payload"]["stdout"].strip() == PLAIN

        sealed = invoke(SECRET, "--sealed")
        assert sealed.returncode == 0, sealed.stdout + sealed.stderr
        answer = json.loads(sealed.stdout)
        assert (answer["sealed"], answer["payload"]["stdout"].strip()) == (True, SECRET)
        mark = json.loads(node("node", "identity", "--json").stdout)["keyFingerprint"]
        assert mark in sealed.stderr  # what a person compares

        downgraded = invoke(PLAIN)
        assert downgraded.returncode != 0
        assert "--unsealed" in downgraded.stderr + downgraded.stdout
        assert invoke(PLAIN, "--unsealed").returncode == 0

        me = json.loads(operator("nodes", "keys", "--json").stdout)
        assert [(pin["name"], pin["fingerprint"]) for pin in me["nodes"]] == [("Shed", mark)]
        trusted = json.loads(ask("nodes", "trust", "--node", "Shed", "--json").stdout)
        assert trusted == {"nodeId": row["nodeId"], "name": "Shed", "fingerprint": mark}
        assert node("node", "seal", "system.run").returncode != 0  # nobody is named yet
        assert node("node", "seal", "system.run", "--operator", me["operatorId"]).returncode == 0
        refused = invoke(PLAIN, "--unsealed")
        assert refused.returncode != 0
        assert "SEALED_REQUIRED" in refused.stdout + refused.stderr
        assert json.loads(invoke(SECRET, "--sealed").stdout)["payload"]["exitCode"] == 0
    passed = b"".join(wire.passed)
    assert passed.count(PLAIN.encode()) >= 4  # what is not sealed shows, going there and coming back, twice
    assert SECRET.encode() not in passed
    kept = {path: path.read_bytes() for path in gateway.state.rglob("*") if path.is_file()}
    assert any(path.suffix == ".log" for path in kept), list(kept)
    assert [path for path, data in kept.items() if SECRET.encode() in data] == []
    assert any(b"node invoke" in data and b"system.run" in data for data in kept.values())  # the command is known
