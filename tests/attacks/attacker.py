"""The attacker's tools: sockets from chosen addresses, forged headers, self-made device keys, bare HTTP.

Owns nothing but ways to reach a gateway; what must not happen then is each test's own. It must not import the package's
protocol code for building what it sends: a mistake made on both sides would hide. Invariants: every connection is a
real TCP connection; a "remote" peer is one whose accepted stream is handed to `Gateway.serve_stream` with another
address, because all of 127.0.0.0/8 counts as this host.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.policy.lockout import FailureLedger, LockoutRules
from tests.websocket.rawclient import CLOSE, TEXT, RawClient, close_payload, frame

__all__ = [
    "ALL_SCOPES",
    "CLIENT_IDS",
    "CLIENT_MODES",
    "PASSWORD",
    "TOKEN",
    "Attacker",
    "Device",
    "Outcome",
    "http",
    "legit_client_works",
    "open_victim",
    "remote_door",
    "rpc",
]

TOKEN = "the-token-of-the-attack-tests-0123456789"
PASSWORD = "the Passw0rd of the attack tests!"
ALL_SCOPES = (
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.pairing",
    "operator.approvals",
    "operator.questions",
    "operator.talk.secrets",
)
CLIENT_IDS = (
    "cli",
    "fingerprint",
    "gateway-client",
    "node-host",
    "openclaw-android",
    "openclaw-browser-copilot",
    "openclaw-control-ui",
    "openclaw-ios",
    "openclaw-linux",
    "openclaw-macos",
    "openclaw-probe",
    "openclaw-tui",
    "openclaw-watchos",
    "openclaw-worker",
    "test",
    "webchat",
    "webchat-ui",
)
CLIENT_MODES = ("backend", "cli", "node", "probe", "test", "ui", "webchat", "worker")


class Device:
    """An Ed25519 key that anybody can make for himself, and its v3 signature (spec wire.md section 3)."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(raw).hexdigest()
        self.public_key = _b64(raw)

    def prove(self, params: Mapping[str, Any], challenge: Mapping[str, Any]) -> dict[str, Any]:
        auth, client = params.get("auth", {}), params["client"]
        token = next((auth[key] for key in ("token", "deviceToken", "bootstrapToken") if key in auth), "")
        fields = (
            "v3", self.id, client["id"], client["mode"], params["role"], ",".join(params["scopes"]),
            str(challenge["ts"]), token, challenge["nonce"], client["platform"], "",
        )  # fmt: skip
        signature = self._key.sign("|".join(fields).encode())
        return {
            "id": self.id,
            "publicKey": self.public_key,
            "signature": _b64(signature),
            "signedAt": challenge["ts"],
            "nonce": challenge["nonce"],
        }


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@attrs.frozen
class Outcome:
    """What came of a connect: ``hello`` (the payload) or ``error``, and the close code where the gateway closed."""

    hello: Any = None
    error: Any = None
    close_code: int | None = None
    close_reason: str = ""

    @property
    def admitted(self) -> bool:
        return self.hello is not None

    @property
    def detail(self) -> str | None:
        return None if self.error is None else self.error.get("details", {}).get("code")

    @property
    def scopes(self) -> set[str]:
        return set(self.hello["auth"]["scopes"])


class Attacker(RawClient):
    """A connection to a gateway, from ``source`` where the test wants another peer."""

    @classmethod
    async def at(cls, port: int, *, source: str | None = None, host: str = "127.0.0.1") -> Attacker:
        return cls(await trio.open_tcp_stream(host, port, local_address=source), port)

    def params(
        self,
        *,
        client: str = "gateway-client",
        mode: str = "backend",
        role: str = "operator",
        scopes: Sequence[str] = ALL_SCOPES,
        **auth: str,
    ) -> dict[str, Any]:
        return {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": client, "version": "1", "platform": "linux", "mode": mode},
            "role": role,
            "scopes": list(scopes),
            "caps": [],
            "auth": auth,
        }

    async def open(self, **upgrade: Any) -> dict[str, Any]:
        """Upgrade; the challenge's payload."""
        await self.upgrade(**upgrade)
        challenge = await self.read_challenge()
        payload: dict[str, Any] = challenge["payload"]
        return payload

    async def connect(self, **claims: Any) -> Outcome:
        """Upgrade, send one connect with ``claims`` (see `params`), read what comes of it.

        ``headers`` and ``path`` go into the upgrade, a ``device`` signs what is claimed.
        """
        device: Device | None = claims.pop("device", None)
        challenge = await self.open(path=claims.pop("path", "/"), **(claims.pop("headers", None) or {}))
        params = self.params(**claims)
        if device is not None:
            params["device"] = device.prove(params, challenge)
        await self.send(frame(TEXT, self.request("connect", params, id_="connect")))
        return await self.outcome()

    async def outcome(self) -> Outcome:
        """Read on to a hello, or to the Close."""
        error = None
        while True:
            got = await self.read_frame()
            if got is None:
                return Outcome(error=error)
            if got.opcode == CLOSE:
                return Outcome(error=error, close_code=got.close_code, close_reason=got.payload[2:].decode())
            if got.opcode != TEXT or got.json.get("type") == "event":
                continue
            if got.json["ok"]:
                return Outcome(hello=got.json["payload"])
            error = got.json["error"]

    async def call(self, method: str, params: Any = None) -> dict[str, Any]:
        await self.send(frame(TEXT, self.request(method, params)))
        reply: dict[str, Any] = await self.read_message()
        return reply

    async def leave(self) -> None:
        await self.send(frame(CLOSE, close_payload(1000)))
        await self.read_close()


@asynccontextmanager
async def open_victim(
    auth: str | AuthConfig = "token", *, patient: bool = False, resolved: ResolvedAuth | None = None, **config: Any
) -> AsyncIterator[Gateway]:
    """A real gateway on a free port. Without ``patient`` failures cost no delay (they are counted all the same)."""
    secrets = {
        "token": AuthConfig(type="token", token=TOKEN),
        "password": AuthConfig(type="password", password=PASSWORD),
        "none": AuthConfig(type="none"),
        "trusted-proxy": AuthConfig(type="trusted-proxy"),
    }
    whole = GatewayConfig(port=0, auth=secrets[auth] if isinstance(auth, str) else auth, **config)
    async with open_gateway(whole, auth=resolved, env={}) as gateway:
        if not patient:
            gateway.gatekeeper.ledger = FailureLedger(LockoutRules(delays=(0.0,)))
        yield gateway


@asynccontextmanager
async def remote_door(gateway: Gateway, peer: str = "192.0.2.7") -> AsyncIterator[int]:
    """A port whose connections the gateway takes for connections from ``peer``."""
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            await gateway.serve_stream(stream, peer=(peer, 41_234))

        start = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(start)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def http(
    port: int,
    method: str = "GET",
    path: str = "/",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    source: str | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request with exactly these header lines; ``Host`` is added unless given."""
    lines = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    if body or method == "POST":
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    async with await Attacker.at(port, source=source) as client:
        await client.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        status, received = await client.read_head()
        if method == "HEAD" or status in {204, 304}:
            return status, received, b""
        return status, received, await client.read_body(received)


async def rpc(
    port: int,
    method: str,
    params: Any = None,
    *,
    token: str | None = TOKEN,
    headers: Mapping[str, str] | None = None,
    source: str | None = None,
) -> tuple[int, Any]:
    """POST /rpc; the status and the decoded body (None where it is empty)."""
    call = {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if params is None else {"params": params})
    lines = {"Content-Type": "application/json"}
    if token is not None:
        lines["Authorization"] = f"Bearer {token}"
    status, _, body = await http(
        port, "POST", "/rpc", headers={**lines, **(headers or {})}, body=json.dumps(call).encode(), source=source
    )
    return status, json.loads(body) if body.startswith((b"{", b"[")) else None


async def legit_client_works(port: int, *, token: str = TOKEN, source: str | None = None) -> None:
    """An honest client connects, is answered, and leaves."""
    async with await Attacker.at(port, source=source) as client:
        outcome = await client.connect(token=token, scopes=["operator.read"])
        assert outcome.admitted, outcome
        await client.assert_alive()
