"""The nodes whose X25519 keys this operator believes: pinned on first use, a changed one is refused (S095).

Owns ``<state>/operator/node-keys.json`` (0600 in a folder 0700). It must not connect or seal. Invariants: a pin changes
only by `trust`; a name that was used for one node is not taken for another; what cannot be read is an error, never "no
pins" (STATE-1); at most `MAX_PINS` are kept, and a full file refuses instead of forgetting.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file, write_private_file
from openclaw_gateway.protocol.keystatement import KeyStatement, fingerprint

__all__ = ["MAX_PINS", "NodeKeyRefused", "NodeKeys", "PinnedNode", "operator_dir"]

MAX_PINS: Final = 1024
_MAX_COMMANDS: Final = 64
_TRUST: Final = "openclaw nodes trust --node"


def operator_dir(state: Path) -> Path:
    """The folder of what an operator keeps: its identity and the keys of nodes."""
    return state / "operator"


@attrs.define(eq=False)
class NodeKeyRefused(GatewayError):
    """A node's key is not the one that was pinned, or cannot be believed. Nothing was sent."""

    message: str
    fix: str

    def __str__(self) -> str:
        return self.message


class PinnedNode(msgspec.Struct, frozen=True):
    """``key``: base64url of the X25519 key; ``name``: what the person called the node; ``commands``: those that were
    asked for sealed, and no longer go unsealed by accident."""

    nodeId: str  # noqa: N815  as in the file
    key: str
    name: str
    pinnedAtMs: int  # noqa: N815
    commands: tuple[str, ...] = ()


class _File(msgspec.Struct):
    version: int = 1
    nodes: list[PinnedNode] = []


class NodeKeys:
    """The pins in ``directory``. Every method blocks for a small file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "node-keys.json"

    def all(self) -> list[PinnedNode]:
        return self._read().nodes

    def get(self, node_id: str) -> PinnedNode | None:
        return next((pin for pin in self._read().nodes if pin.nodeId == node_id), None)

    def check(self, statement: KeyStatement, name: str) -> bool:
        """Whether the pin is new. ``statement`` is verified already; ``name`` is what the person typed. Raises
        `NodeKeyRefused` for another key, or a name that was another node's."""
        nodes = self._read().nodes
        pin = next((pin for pin in nodes if pin.nodeId == statement.device_id), None)
        if pin is not None and pin.key != statement.key:
            raise NodeKeyRefused(
                f"the key of node {pin.name} is not the one it had: it was made anew, or the gateway put its own there",
                f"compare with `openclaw node identity` on the node ({fingerprint(statement.raw_key)}), then: "
                f"{_TRUST} {statement.device_id}",
            )
        other = next((one for one in nodes if one.name == name and one.nodeId != statement.device_id), None)
        if pin is None and other is not None:
            raise NodeKeyRefused(
                f"{name} was node {other.nodeId[:16]} and is now {statement.device_id[:16]}: another machine, or the "
                "gateway says so",
                f"compare with `openclaw node identity` on the node, then: {_TRUST} {statement.device_id}",
            )
        return pin is None

    def trust(self, statement: KeyStatement, name: str) -> PinnedNode:
        """Believe this key from now on, whatever was pinned before. Durable when it returns."""
        kept = self._read()
        had = next((pin for pin in kept.nodes if pin.nodeId == statement.device_id), None)
        commands = had.commands if had is not None else ()
        pin = PinnedNode(statement.device_id, statement.key, name, round(time.time() * 1000), commands)
        # The name goes to the node that a person has just looked at.
        others = [
            one if one.name != name else msgspec.structs.replace(one, name=one.nodeId)
            for one in kept.nodes
            if one.nodeId != statement.device_id
        ]
        if len(others) >= MAX_PINS:
            raise NodeKeyRefused(f"{self._path} holds {MAX_PINS} nodes", "remove those that are gone from that file")
        self._write([*others, pin])
        return pin

    def note(self, node_id: str, command: str) -> None:
        """The command was asked for sealed; see `PinnedNode`."""
        kept = self._read()
        found = next((pin for pin in kept.nodes if pin.nodeId == node_id), None)
        if found is None or command in found.commands or len(found.commands) >= _MAX_COMMANDS:
            return
        noted = msgspec.structs.replace(found, commands=(*found.commands, command))
        self._write([noted if pin is found else pin for pin in kept.nodes])

    def _write(self, nodes: list[PinnedNode]) -> None:
        ensure_private_dir(self.directory)
        write_private_file(self._path, msgspec.json.encode(_File(nodes=nodes)))

    def _read(self) -> _File:
        try:
            return msgspec.json.decode(read_private_file(self._path), type=_File)
        except FileNotFoundError:
            return _File()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NodeKeyRefused(
                f"{self._path} is not what was written there, so no key of a node can be believed",
                f"mend it; without it: mv '{self._path}' '{self._path}.old' (every key is then pinned anew)",
            ) from error
