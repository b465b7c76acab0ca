"""Connects with a device token: how many a second, and whether 10,000 paired devices in the store make them slower.

Owns the load for these two questions. The client is one blocking connection after another, so that p99 is the server's
latency and not a queue's; each connect signs its own challenge (Ed25519), which costs this side about 60 us and is part
of every server's number alike. It must not know which server it talks to.

To hook it in (`benchmarks/__main__.py`): for each server that is started already,

    device = Device()
    pair(server.port, TOKEN, device)                     # once: the shared secret over loopback pairs by itself
    row = connects(server.port, device)                  # Rate(per_second, median, p99)

take the servers in turns and show ``ours.per_second / openclaw.per_second`` (at least 1.5). For the second question
start ours twice, once with ``fill_store(state_dir, 10_000)`` run on its state directory before the start, and show
``full.p99 / empty.p99`` (at most 1.2). ``python -m benchmarks.device_token`` does both for ours alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .load import LoadError, Session, http_ok

__all__ = ["Device", "Rate", "connects", "fill_store", "pair"]


class Rate(NamedTuple):
    """Connects from TCP connect to hello-ok; latencies in seconds."""

    per_second: float
    median: float
    p99: float


class Device:
    """A key of its own, and the device token once it is paired."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(raw).hexdigest()
        self.public_key = _base64url(raw)
        self.token = ""

    def connect_params(self, challenge: dict[str, Any], auth: dict[str, str]) -> dict[str, Any]:
        """Signed as v3 (spec: id, client, mode, role, scopes, time, token, nonce, platform, family)."""
        token = auth.get("token") or auth.get("deviceToken") or ""
        fields = (
            "v3", self.id, "cli", "cli", "operator", "operator.read", str(challenge["ts"]), token, challenge["nonce"],
            "linux", "",
        )  # fmt: skip
        return {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "cli", "version": "0.0.0", "platform": "linux", "mode": "cli"},
            "role": "operator",
            "scopes": ["operator.read"],
            "caps": [],
            "auth": auth,
            "device": {
                "id": self.id,
                "publicKey": self.public_key,
                "signature": _base64url(self._key.sign("|".join(fields).encode())),
                "signedAt": challenge["ts"],
                "nonce": challenge["nonce"],
            },
        }


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _connect(port: int, device: Device, auth: dict[str, str]) -> dict[str, Any]:
    session = Session(port)
    try:
        _, first = session.receive_message()
        reply = session.call("connect", device.connect_params(json.loads(first)["payload"], auth))
    finally:
        session.close()
    if not reply["ok"]:
        raise LoadError(f"connect refused: {reply['error']}")
    hello: dict[str, Any] = reply["payload"]
    return hello


def pair(port: int, token: str, device: Device) -> None:
    """Connect once with the shared secret; the hello carries the device token. Raises `LoadError` where it does not."""
    hello = _connect(port, device, {"token": token})
    device.token = hello["auth"].get("deviceToken", "")
    if not device.token:
        raise LoadError("the server handed out no device token")


def connects(port: int, device: Device, *, count: int = 500, warm_up: int = 50) -> Rate:
    """One connect after another with the device token, each closed after its hello."""
    auth = {"deviceToken": device.token}
    for _ in range(warm_up):
        _connect(port, device, auth)
    seconds = []
    begin = time.perf_counter()
    for _ in range(count):
        started = time.perf_counter()
        _connect(port, device, auth)
        seconds.append(time.perf_counter() - started)
    elapsed = time.perf_counter() - begin
    seconds.sort()
    return Rate(count / elapsed, statistics.median(seconds), seconds[int(len(seconds) * 0.99) - 1])


def fill_store(state_dir: Path, devices: int) -> None:
    """Put paired devices into the store of a gateway of ours that is not running (its database exists already)."""
    with sqlite3.connect(state_dir / "gateway.db") as db:
        for number in range(devices):
            device_id = hashlib.sha256(b"%d" % number).hexdigest()
            db.execute(
                "INSERT INTO devices VALUES (?, ?, 'bench', NULL, 'linux', '', 'cli', 'cli', 1, NULL)",
                (device_id, _base64url(os.urandom(32))),
            )
            db.execute(
                "INSERT INTO device_roles VALUES "
                "(?, 'operator', '[\"operator.read\"]', 1, 'local', 1, ?, ?, 1, NULL, 1, '')",
                (device_id, os.urandom(16), os.urandom(32)),
            )


class _Ours:
    """A gateway of ours on a state directory."""

    def __init__(self, state_dir: Path, port: int, token: str) -> None:
        environment = {**os.environ, "OPENCLAW_STATE_DIR": str(state_dir), "OPENCLAW_GATEWAY_TOKEN": token}
        self.port = port
        with (state_dir.parent / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", str(port)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            )  # fmt: skip
        until = time.monotonic() + 20
        while not http_ok(port, "/readyz"):
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise LoadError("our gateway did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def _ours(folder: Path, devices: int, device: Device, port: int, token: str) -> _Ours:
    state_dir = folder / f"state-{devices}"
    state_dir.mkdir(mode=0o700)
    first = _Ours(state_dir, port, token)
    pair(port, token, device)
    first.stop()
    fill_store(state_dir, devices)
    return _Ours(state_dir, port, token)


def main() -> None:
    token = "token-of-the-benchmark-0123456789abcdef"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few, many = Device(), Device()
        empty, full = _ours(folder, 0, few, 28_711, token), _ours(folder, 10_000, many, 28_712, token)
        try:
            rounds = [(connects(empty.port, few), connects(full.port, many)) for _ in range(5)]
        finally:
            empty.stop()
            full.stop()
    for name, column in (("empty store", [a for a, _ in rounds]), ("10,000 devices", [b for _, b in rounds])):
        rate, middle, p99 = (statistics.median(values) for values in zip(*column, strict=True))
        sys.stdout.write(f"{name:>15}: {rate:7.0f} connects/s  median {middle * 1e3:.2f} ms  p99 {p99 * 1e3:.2f} ms\n")
    ratio = statistics.median(b.p99 for _, b in rounds) / statistics.median(a.p99 for a, _ in rounds)
    sys.stdout.write(f"p99 with 10,000 devices: {ratio:.2f} of an empty store's\n")


if __name__ == "__main__":
    main()
