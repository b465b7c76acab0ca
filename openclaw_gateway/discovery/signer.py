"""From the facts to a signed announcement.

Owns who signs where. A library for Ed25519 keeps 8 MB resident, for one signature in six hours: where this process has
not loaded it for other reasons, a child process signs and ends (``python -m openclaw_gateway.discovery.signer``: one
JSON object in, one out; the key is read from the state directory by the child and never passed).

Invariants: what comes out was signed with the gateway's own identity, or has no beacon; a child that fails or takes
longer than `SIGN_SECONDS` costs the beacon (one warning), not the announcement.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.discovery.beacon import sign_beacon
from openclaw_gateway.discovery.records import Announcement, Beacon, host_name, instance_name
from openclaw_gateway.discovery.service import Facts
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.identity import GatewayIdentity, load_gateway_identity
from openclaw_gateway.value import Value

__all__ = ["Signed", "Signer", "describe", "sign"]

SIGN_SECONDS: Final = 20.0

log = get_logger("discovery")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Signed(Value):
    """Who we are, and the statement about it. ``beacon`` None: it could not be signed."""

    device_id: str
    instance: str
    beacon: Beacon | None


def sign(
    identity: GatewayIdentity, *, display_name: str | None, number: int, port: int, tls_sha256: str | None,
    signed_at: int,
) -> Signed:  # fmt: skip
    """Sign what `beacon.statement` says; ``number`` as in `records.instance_name`, ``signed_at`` Unix seconds."""
    instance = instance_name(identity.device_id, display_name, number=number)
    beacon = sign_beacon(
        identity.sign, identity.public_key, instance=instance, port=port, tls_sha256=tls_sha256, signed_at=signed_at
    )
    return Signed(device_id=identity.device_id, instance=instance, beacon=beacon)


def describe(facts: Facts, signed: Signed, *, number: int = 1) -> Announcement:
    """``facts`` as they are announced. What only full mode tells is left out in minimal mode."""
    full = facts.mode == "full"
    return Announcement(
        device_id=signed.device_id,
        instance=signed.instance,
        host=host_name(signed.device_id, number=number),
        port=facts.port,
        version=facts.version,
        capabilities=facts.capabilities,
        auth=facts.auth,
        tls=facts.tls,
        tls_sha256=facts.tls_sha256,
        display_name=facts.display_name if full else None,
        tailnet_dns=facts.tailnet_dns if full else None,
        ssh_port=facts.ssh_port if full else None,
        cli_path=facts.cli_path if full else None,
        beacon=signed.beacon,
    )


class Signer:
    """Signs for the gateway whose state is in ``state_dir``; without one with an identity of this process."""

    def __init__(self, state_dir: Path | None, *, wall: Callable[[], float] = time.time) -> None:
        self._state_dir = state_dir
        self._wall = wall
        self._private = load_gateway_identity(None) if state_dir is None else None

    async def announcement(self, facts: Facts, *, number: int = 1) -> Announcement:
        """``facts``, signed now. Takes up to some 200 ms of a child's time; cancelling ends the child.

        Raises `CredentialDamaged`, `OSError` and `StateDirUnsafe` where the identity cannot be read here either.
        """
        asked: dict[str, Any] = {
            "display_name": facts.display_name if facts.mode == "full" else None,
            "number": number,
            "port": facts.port,
            "tls_sha256": facts.tls_sha256,
            "signed_at": int(self._wall()),
        }
        if self._private is not None:
            signed = sign(self._private, **asked)
        elif "cryptography" in sys.modules or not sys.executable:
            signed = sign(load_gateway_identity(self._state_dir), **asked)
        else:
            signed = await self._in_child(asked)
        return describe(facts, signed, number=number)

    async def _in_child(self, asked: dict[str, Any]) -> Signed:
        question = json.dumps({"state_dir": str(self._state_dir), **asked}).encode()
        command = [sys.executable, "-I", "-c", _CHILD, str(Path(__file__).parents[2])]
        with trio.move_on_after(SIGN_SECONDS):
            done = await trio.run_process(
                command, stdin=question, capture_stdout=True, capture_stderr=True, check=False
            )
            if done.returncode == 0:
                answer = json.loads(done.stdout)
                beacon = Beacon(**answer.pop("beacon"))
                return Signed(beacon=beacon, **answer)
            log.warning("the child that signs our announcement failed", status=done.returncode)
        return sign(load_gateway_identity(self._state_dir), **asked)


# -I and the path as an argument: nothing of the caller's environment steers what the child imports.
_CHILD: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from openclaw_gateway.discovery.signer import main; main()"
)


def main() -> None:
    """The child: a question on standard input, the answer on standard output."""
    asked = json.load(sys.stdin)
    identity = load_gateway_identity(Path(asked.pop("state_dir")))
    signed = sign(identity, **asked)
    assert signed.beacon is not None
    answer = {"device_id": signed.device_id, "instance": signed.instance, "beacon": attrs.asdict(signed.beacon)}
    json.dump(answer, sys.stdout)
