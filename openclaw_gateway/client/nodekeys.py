"""The nodes whose X25519 keys this operator believes: pinned on first use, a changed one is refused (S095).

Owns ``<state>/operator/node-keys.json`` (0600 in a folder 0700). It must not connect or seal. Invariants: a pin changes
only by `trust`; a name that was used for one node is not taken for another, be that one pinned or not, and the
beginning of a pinned id stands for that node alone; what cannot be read is an error, never "no pins" (STATE-1); at most
`MAX_PINS` are kept, and a full file refuses instead of forgetting; of processes that change it at once each change
stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import (
    MAX_PRIVATE_FILE_BYTES,
    ensure_private_dir,
    read_private_file,
    write_private_file,
)
from openclaw_gateway.protocol.keystatement import KeyStatement, fingerprint

__all__ = ["MAX_PINS", "NodeKeyRefused", "NodeKeys", "PinnedNode", "operator_dir"]

MAX_PINS: Final = 1024
_MAX_COMMANDS: Final = 64
_MAX_NAMES: Final = 64
_LEAST_BEGINNING: Final = 4  # digits of an id that stand for a node
_ID_DIGITS: Final = 64
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
    """``key``: base64url of the X25519 key; ``name``: what the person called the node, ``names``: what else;
    ``commands``: those that were asked for sealed, and no longer go unsealed by accident."""

    nodeId: str  # noqa: N815  as in the file
    key: str
    name: str
    pinnedAtMs: int  # noqa: N815
    commands: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Whether a person used that name for it. Case does not count, as where names are looked up."""
        return name.casefold() in {one.casefold() for one in (self.name, *self.names)}

    def begins(self, name: str) -> bool:
        return len(name) >= _LEAST_BEGINNING and self.nodeId.startswith(name.casefold())


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
        if _is_id(name) and name.casefold() != statement.device_id:
            raise NodeKeyRefused(
                f"{name[:16]} was asked for, and the gateway shows {statement.device_id[:16]} in its place",
                "openclaw nodes status",
            )
        meant = pin is not None and pin.is_called(name)
        other = next(
            (
                one
                for one in nodes
                if one.nodeId != statement.device_id and (one.is_called(name) or (one.begins(name) and not meant))
            ),
            None,
        )
        if other is not None:
            raise NodeKeyRefused(
                f"{name} was node {other.nodeId[:16]} and is now {statement.device_id[:16]}: another machine, or the "
                "gateway says so",
                f"compare with `openclaw node identity` on the node ({fingerprint(statement.raw_key)}), then: "
                f"{_TRUST} {shlex.quote(name)}",
            )
        return pin is None

    def pin(self, statement: KeyStatement, name: str) -> bool:
        """Believe a key that is new; whether it was. Raises as `check` and `trust`; durable when it returns."""
        with self._changing():
            new = self.check(statement, name)
            if new:
                self._trust(statement, name)
            return new

    def trust(self, statement: KeyStatement, name: str) -> PinnedNode:
        """Believe this key from now on, whatever was pinned before. Durable when it returns."""
        with self._changing():
            return self._trust(statement, name)

    def _trust(self, statement: KeyStatement, name: str) -> PinnedNode:
        kept = self._read()
        had = next((pin for pin in kept.nodes if pin.nodeId == statement.device_id), None)
        commands, names = (had.commands, (had.name, *had.names)) if had is not None else ((), ())
        pin = PinnedNode(
            statement.device_id, statement.key, name, round(time.time() * 1000), commands,
            tuple(one for one in names if one.casefold() != name.casefold())[:_MAX_NAMES],
        )  # fmt: skip
        # The name goes to the node that a person has just looked at.
        others = [_without(one, name) for one in kept.nodes if one.nodeId != statement.device_id]
        if len(others) >= MAX_PINS:
            raise NodeKeyRefused(f"{self._path} holds {MAX_PINS} nodes", "remove those that are gone from that file")
        self._write([*others, pin])
        return pin

    def note(self, node_id: str, command: str, name: str | None = None) -> None:
        """The command was asked for sealed, of a node that was called ``name``; see `PinnedNode`."""
        with self._changing():
            kept = self._read()
            found = next((pin for pin in kept.nodes if pin.nodeId == node_id), None)
            if found is None:
                return
            noted = found
            if command not in found.commands and len(found.commands) < _MAX_COMMANDS:
                noted = msgspec.structs.replace(noted, commands=(*noted.commands, command))
            known = name is None or found.is_called(name) or found.begins(name)
            if name is not None and not known and len(found.names) < _MAX_NAMES:
                noted = msgspec.structs.replace(noted, names=(*noted.names, name))
            if noted != found:
                self._write([noted if pin is found else pin for pin in kept.nodes])

    def went_sealed(self, node_id: str, name: str, command: str) -> bool:
        """Whether ``command`` was asked for sealed of the node that is meant, whichever id a gateway shows for it."""
        pins = [pin for pin in self.all() if pin.nodeId == node_id or pin.is_called(name) or pin.begins(name)]
        # Of a node with so many commands not each is noted: then all of them count.
        return any(command in pin.commands or len(pin.commands) >= _MAX_COMMANDS for pin in pins)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time changes the file: else a pin that another one has just made would be lost. The lock is
        on the folder itself, so no lock file is left behind."""
        ensure_private_dir(self.directory)
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, nodes: list[PinnedNode]) -> None:
        ensure_private_dir(self.directory)
        data = msgspec.json.encode(_File(nodes=nodes))
        if len(data) > MAX_PRIVATE_FILE_BYTES:  # what is bigger could not be read again
            raise NodeKeyRefused(f"{self._path} would be too big", "remove nodes that are gone from that file")
        write_private_file(self._path, data)

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


def _is_id(name: str) -> bool:
    return len(name) == _ID_DIGITS and not set(name.casefold()) - set("0123456789abcdef")


def _without(pin: PinnedNode, name: str) -> PinnedNode:
    """``pin`` of a node that is not called ``name`` any more."""
    if not pin.is_called(name):
        return pin
    left = tuple(one for one in pin.names if one.casefold() != name.casefold())
    own = pin.nodeId if pin.name.casefold() == name.casefold() else pin.name
    return msgspec.structs.replace(pin, name=own, names=left)
